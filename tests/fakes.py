"""Small made-up records for tests."""

import zlib
from datetime import date, timedelta

import numpy as np

from pipeline.maths import triggers
from pipeline.maths.volumes import volumes
from pipeline.records import NS, Outcome, Picks, Scores, Shard, Shards, Waveform


def day(n):
    return date(2024, 5, 6) + timedelta(n)


START_NS = Shard(date(2024, 5, 6), "XD.S00.", "HH").span_ns[0]


def shards(days, stations):
    return [Shard(day(d), f"XD.S{s:02d}.", "HH") for d in range(days) for s in range(stations)]


def as_table(found):
    """A plan of shards and the bytes of their files, given as pairs."""
    rows = sorted(found)
    named = np.array([f"{shard.day:%Y-%m-%d}" for shard, _ in rows], np.str_)
    stations, bands = (np.array([getattr(shard, name) for shard, _ in rows], np.str_) for name in ("station", "band"))
    size = np.array([size for _, size in rows], np.int64)
    return Shards(named, stations, bands, size, volumes(named), np.zeros(len(rows), np.int64))


def picks(n, seed, start_ns=START_NS, span_s=86_400, station="XD.S00..HH"):
    rng = np.random.default_rng(seed)
    return Picks(
        np.full(n, station),
        rng.choice(["P", "S"], n),
        start_ns + np.sort(rng.integers(0, span_s * NS, n)),
        rng.random(n, np.float32),
        rng.random(n, np.float32),
        rng.normal(10, 3, n).astype(np.float32),
        np.full(n, np.nan, np.float32),
        rng.lognormal(-14, 2, n).astype(np.float32),
    )


def detect(shard):
    """A detector that is a pure function of the shard's name."""
    seed = zlib.crc32(shard.id.encode())
    found = picks(seed % 6, seed, shard.span_ns[0], station=shard.channel)
    return found, Outcome(shard.id, "picked", "", len(found), 1.0, ("a note",))


def read(shard):
    """A reader that is a pure function of the shard's name: twenty seconds of noise, some of it loud."""
    rng = np.random.default_rng(zlib.crc32(shard.id.encode()))
    samples = (rng.random((3, 2000)) ** 8).astype(np.float32)
    wave = Waveform(samples, np.ones(2000, np.bool_), shard.span_ns[0] + 3600 * NS, 100.0, (True, True, True))
    return wave, ("a note",)


class Scorer:
    """Pickers that take the first two components for probabilities, each further picker for lower ones."""

    rate_hz, context_s = 100.0, 1.0

    def __init__(self, pickers=1):
        self.pickers = pickers

    def runs(self, waveform):
        return tuple(triggers.runs(scores, {"P": 0.9, "S": 0.9}) for scores in self.both(waveform)[1])

    def both(self, waveform):
        shares = [np.float32(1 - 0.02 * k) for k in range(self.pickers)]
        scores = [Scores(share * waveform.samples[:2], ("P", "S"), waveform.start_ns, 100.0) for share in shares]
        return tuple(triggers.runs(each, {"P": 0.9, "S": 0.9}) for each in scores), tuple(scores)

    def load(self, waveform):
        return waveform

    def runs_of(self, held):
        return self.runs(held)

    def both_of(self, held):
        return self.both(held)


def nobody(_ids):
    """For `Claims`: no record is kept of what dead processes were at."""
