"""Real earthquakes in real noise, dealt to training, validation and test so that no waveform is in two of them.

Earthquakes: `labelled_ncedc`, by station; each record there is of another earthquake. Noise: `ridgecrest` before the
Mw 6.4, by station, and `station_day`, by time. What is drawn depends on seeds that are written here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.signal import sosfiltfilt

from pipeline.config import Archive
from pipeline.formats import comcat, labelled_npz
from pipeline.formats.waveforms import read_shard
from pipeline.maths import splits
from pipeline.maths.augment import Record, cropped, with_samples
from pipeline.maths.filters import Filter
from pipeline.maths.picking_scores import Truth
from pipeline.maths.traveltime import uniform
from pipeline.records import NS, Shard
from tests import microseismic_maths as microseismic
from tests.microseismic_maths import Measure

DATA = Path(__file__).parents[2] / "shared" / "data"
RATE_HZ = 100.0
PARTS = ("train", "validation", "test")
DEALT = (0, 0, 1, 2, 2)  # the part of each of five groups of stations
SPLIT_SEED = 7
SNR = (0.5, 3.0)  # drawn evenly in the logarithm
LEAST_OWN_SNR = 4.0  # of an earthquake's record: 3 is asked of it
NETWORK_OWN_SNR = 6.0  # its noise comes in with its P there
SAMPLES = 6001
AT = (800, 2800)  # where P is put in a single record
BESIDE = 1000  # samples on both sides of a piece of noise that must be quiet, too
QUIET = 0.1  # PhaseNet stays below that
RIDGECREST = (datetime(2019, 7, 4, 16, 50), datetime(2019, 7, 4, 17, 33))
AFTER_EVENT_S = (-5, 90)  # around listed origin times: no noise
DAY = date(2020, 9, 22)
HOURS = ((0, 9), (10, 13), (14, 24))  # of `station_day`, by part
EACH_S = 600  # a piece of noise in so many seconds there
TIMES = uniform(5.5, 3.2)
SIDE_KM, DEPTHS_KM = 12.0, (3.0, 8.0)
HIGHPASS = Filter("highpass", (1.0,)).sections(RATE_HZ)

Quiet = Callable[[np.ndarray], np.ndarray]  # (k, 3, n) -> bool (k,)


def seen(samples):
    """Above 1 Hz, without delay and without a jump at the ends."""
    return sosfiltfilt(HIGHPASS, samples.astype(np.float64), axis=-1).astype(np.float32)


MEASURE = Measure(RATE_HZ, seen)
ALREADY = Measure(RATE_HZ, lambda samples: samples)  # of what is filtered


@dataclass(frozen=True)
class Set:
    """Records of one part; ``source`` is the earthquake of each ("": noise), ``noise`` the piece it lies in."""

    records: list[Record]
    source: list[str]
    noise: list[str]
    snr: np.ndarray

    @property
    def truth(self):
        p, s = (np.array([getattr(r, phase) for r in self.records]) / RATE_HZ for phase in "ps")
        return Truth(np.array(self.source), p, s)


@dataclass(frozen=True)
class Network:
    """Stations of one source: records, places (n, 2) in km, and what they are made of."""

    records: list[Record]
    places_km: np.ndarray
    source: list[str]
    noise: list[str]


def labelled():
    return labelled_npz.read(DATA / "labelled_ncedc" / "records.npz")


@lru_cache
def earthquakes(part, least_snr=LEAST_OWN_SNR):
    """{name: Record} of the stations of ``part`` with an SNR of their own above ``least_snr``."""
    rows, waveforms, _ = labelled()
    dealt = np.array(DEALT)[splits.station_groups(splits.places(rows), len(DEALT), SPLIT_SEED)]
    found = {}
    for i in np.flatnonzero(dealt == PARTS.index(part)).tolist():
        record = Record(waveforms[i], float(rows.p_sample[i]), float(rows.s_sample[i]))
        if MEASURE.own_snr(record) > least_snr:
            found[str(rows.id[i])] = record
    return found


def ridgecrest_stations(part):
    """(code, band) of the stations of ``part``: of each five in alphabetical order two, one, two."""
    lines = (DATA / "ridgecrest" / "stations.csv").read_text("utf-8").splitlines()[1:]
    names = sorted(tuple(line.split(",")[:3]) for line in lines)
    return [(f"{net}.{sta}.", band) for i, (net, sta, band) in enumerate(names) if PARTS[DEALT[i % 5]] == part]


def pieces(part, stations=None):
    """(name, samples (3, SAMPLES + 2 BESIDE)) that may be noise: whole, and not after a listed earthquake."""
    begin, end = (_ns(at) for at in RIDGECREST)
    step = SAMPLES + 2 * BESIDE
    for station, band in ridgecrest_stations(part)[:stations]:
        wave = _read("ridgecrest", Shard(RIDGECREST[0].date(), station, band), (begin, end))
        for first in range(0, len(wave) - step + 1, step):
            if not _listed(wave.start_ns + round(first * NS / RATE_HZ), step):
                yield from _piece(f"{station}{band}", wave, first)
    if stations is None:
        first_h, last_h = HOURS[PARTS.index(part)]
        midnight = datetime.combine(DAY, datetime.min.time())
        span = _ns(midnight + timedelta(hours=first_h)), _ns(midnight + timedelta(hours=last_h))
        wave = _read("station_day", Shard(DAY, "CM.BAR2.00", "HH"), span)
        for first in range(0, len(wave) - step + 1, round(EACH_S * RATE_HZ)):
            yield from _piece("CM.BAR2.00.HH", wave, first)


def noise(part, quiet: Quiet, stations=None):
    """{name: float32 (3, SAMPLES)}: pieces around which ``quiet`` finds nothing, none overlapping another."""
    names, samples = zip(*pieces(part, stations), strict=True)
    calm = quiet(np.stack(samples))
    kept = slice(BESIDE, BESIDE + SAMPLES)
    middles = ((name, each[:, kept]) for name, each, still in zip(names, samples, calm, strict=True) if still)
    return {name: each - each.mean(axis=1, keepdims=True) for name, each in middles}


def singles(part, pieces_of_noise, n, n_noise, seed):
    """``n`` earthquakes, each of the part's records about as often as the others, and ``n_noise`` pieces of noise.

    No piece of noise is there twice, as long as there are enough.
    """
    rng = np.random.default_rng([seed, PARTS.index(part)])
    known, names = earthquakes(part), list(pieces_of_noise)
    turns = [name for _ in range(-(-n // len(known))) for name in rng.permutation(list(known)).tolist()][:n]
    drawn = [name for _ in range(-(-(n + n_noise) // len(names))) for name in rng.permutation(names).tolist()]
    snr = np.append(_snr(rng, n), np.full(n_noise, np.nan))
    records = [
        microseismic.buried(known[name], pieces_of_noise[drawn[k]], int(rng.integers(*AT)), float(snr[k]), MEASURE)
        for k, name in enumerate(turns)
    ]
    nan = float("nan")
    records += [Record(pieces_of_noise[name], nan, nan) for name in drawn[n : n + n_noise]]
    return Set(records, [*turns, *[""] * n_noise], drawn[: n + n_noise], snr)


@lru_cache
def trains_of(part):
    """Earthquakes for networks: 40 s, above 1 Hz; a vertical alone stands for the other components, too."""
    found = {name: _threefold(record) for name, record in earthquakes(part, NETWORK_OWN_SNR).items()}
    filtered = {name: with_samples(record, seen(record.samples)) for name, record in found.items()}
    return {name: cropped(r, int(r.p) - 1100, 4000) for name, r in filtered.items()}


def networks(part, pieces_of_noise, n, stations, samples, rng):
    """``n`` networks of ``stations`` (least, most) whose records are ``samples`` long; noise filtered as `trains_of`.

    The first P lies anywhere from an eighth of the record on, so that the last S is in it by two seconds.
    """
    known, names = trains_of(part), list(pieces_of_noise)
    for _ in range(n):
        k = int(rng.integers(stations[0], stations[1] + 1))
        where = microseismic.field(k, SIDE_KM, DEPTHS_KM, rng)
        arrivals = where.arrivals_s(TIMES) * RATE_HZ
        latest = max(samples - 2 * RATE_HZ - np.ptp(arrivals), samples / 8 + 1)
        arrivals += rng.uniform(samples / 8, latest) - arrivals.min()
        chosen = _chosen(known, arrivals[:, 1] - arrivals[:, 0], rng)
        lying = rng.choice(names, k, replace=False).tolist()
        starts = rng.integers(0, SAMPLES - samples + 1, k).tolist()
        calm = np.stack([pieces_of_noise[name][:, at : at + samples] for name, at in zip(lying, starts, strict=True)])
        gains = microseismic.spread(float(_snr(rng, 1)[0]), where.distance_km(), SNR)
        records = microseismic.network([known[name] for name in chosen], calm, arrivals, gains, ALREADY)
        yield Network(records, np.stack([where.east_km, where.north_km], 1), chosen, lying)


def _chosen(known, ahead, rng):
    """A record for each station, whose S comes no sooner after P than the ``ahead`` (n,) asked for, as far as there is
    one: or else there would be silence between its P train and S."""
    left = {name: known[name].s - known[name].p for name in rng.permutation(list(known)).tolist()}
    found = [""] * len(ahead)
    for row in np.argsort(-ahead).tolist():
        found[row] = next((name for name, has in left.items() if has >= ahead[row]), max(left, key=left.get))
        del left[found[row]]
    return found


def _threefold(record):
    there = microseismic.live(record.samples)
    return record if there.all() else with_samples(record, np.repeat(record.samples[:1], 3, axis=0))


def _snr(rng, n):
    return np.exp(rng.uniform(*np.log(SNR), n))


def _ns(at):
    return int(np.datetime64(at, "ns").astype(np.int64))


def _read(folder, shard, span_ns):
    return read_shard(Archive(root=DATA / folder / "sds"), shard, 0.0, RATE_HZ, span_ns)[0]


@lru_cache
def _origins_ns():
    return comcat.read_comcat(DATA / "ridgecrest" / "comcat_reviewed_20190704.csv").events.time_ns


def _listed(start_ns, n):
    end_ns = start_ns + round(n * NS / RATE_HZ)
    before, after = (round(s * NS) for s in AFTER_EVENT_S)
    return bool(((_origins_ns() + before < end_ns) & (_origins_ns() + after > start_ns)).any())


def _piece(channel, wave, first):
    span = slice(first, first + SAMPLES + 2 * BESIDE)
    samples = wave.samples[:, span]
    if wave.valid[span].all() and samples.std(axis=1).all():
        yield f"{channel} {np.datetime64(wave.start_ns + round(first * NS / wave.rate_hz), 'ns')}", samples
