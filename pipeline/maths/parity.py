"""How well our picks agree with those of a reference on the same data, and on which data to look."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.maths.match import match_picks
from pipeline.maths.windows import segments
from pipeline.records import NS, Float, Picks, Scores, Shard, Waveform

LEAST_F1 = 0.995
LEAST_PICKS = 100  # of the reference and of each phase: with fewer, one pick more or less decides
TOLERANCE_S = 0.02
ROUNDING_S = 1e-6  # SeisBench's times are floats of seconds, rounded to about this
NEARLY = 1e-3  # of a sample before midnight is midnight, as in `pipeline.maths.windows.midnights`


@dataclass(frozen=True, slots=True)
class Agreement:
    """Picks of one phase: how many, F1, and absolute differences, NaN where there is no pair.

    ``median`` and ``largest`` are (time in s, probability) of the pairs, ``trace`` the largest difference of
    probability anywhere in the traces, ``only_ours`` and ``only_theirs`` the picks without a partner.
    """

    phase: str
    n_ours: int
    n_theirs: int
    n_common: int
    median: tuple[float, float]
    largest: tuple[float, float]
    trace: float
    only_ours: Picks
    only_theirs: Picks

    @property
    def f1(self) -> float:
        """2 common / (ours + theirs); 1 where neither has a pick: see `LEAST_PICKS`."""
        n = self.n_ours + self.n_theirs
        return 2 * self.n_common / n if n else 1.0


def agreement(phase: str, ours: Picks, theirs: Picks, trace: float) -> Agreement:
    """Pairs one to one, within `TOLERANCE_S`, picks of one ``phase`` and station."""
    ours, theirs = ours.take(ours.phase == phase), theirs.take(theirs.phase == phase)
    i, j = match_picks(
        (ours.station, ours.phase, ours.time_ns, ours.probability.astype(np.float64)),
        (theirs.station, theirs.phase, theirs.time_ns),
        TOLERANCE_S + ROUNDING_S,
        (1.0, 0.0, 0.0),
    )
    dt_s = np.abs(ours.time_ns[i] - theirs.time_ns[j]) / NS
    dp = np.abs(ours.probability[i].astype(np.float64) - theirs.probability[j])
    none = not len(i)
    return Agreement(
        phase,
        len(ours),
        len(theirs),
        len(i),
        (math.nan, math.nan) if none else (float(np.median(dt_s)), float(np.median(dp))),
        (math.nan, math.nan) if none else (float(dt_s.max()), float(dp.max())),
        trace,
        ours.take(np.setdiff1d(np.arange(len(ours)), i)),
        theirs.take(np.setdiff1d(np.arange(len(theirs)), j)),
    )


def trace_difference(ours: Scores, theirs: Scores) -> Float:
    """Largest absolute difference of probability of each phase, (phases,), where both see; NaN: nowhere.

    Sampling rates are equal; of two time axes the nearest samples are compared.
    """
    shift = round((theirs.start_ns - ours.start_ns) * ours.rate_hz / NS)
    first, stop = max(shift, 0), min(ours.probability.shape[1], theirs.probability.shape[1] + shift)
    if stop <= first:
        return np.full(len(ours.phases), np.nan)
    difference = np.abs(ours.probability[:, first:stop] - theirs.probability[:, first - shift : stop - shift])
    seen = ~np.isnan(difference)
    return np.where(seen.any(axis=1), np.where(seen, difference, 0).max(axis=1), np.nan).astype(np.float64)


def comparable(wave: Waveform, span_ns: tuple[int, int], length: int) -> Waveform:
    """What both cut into the same windows: ``wave`` within the half-open ``span_ns``, in segments of a window at least.

    Inside one day there is no midnight, and so no seam; SeisBench drops segments shorter than ``length`` samples.
    """
    inside = slice(*(max(0, math.ceil((t - wave.start_ns) * wave.rate_hz / NS - NEARLY)) for t in span_ns))
    samples, valid = wave.samples[:, inside].copy(), wave.valid[inside].copy()
    for start, stop in segments(valid):
        valid[start:stop] = stop - start >= length
    samples[:, ~valid] = 0
    start_ns = wave.start_ns + round(inside.start * NS / wave.rate_hz)
    return Waveform(samples, valid, start_ns, wave.rate_hz, wave.components)


def digest(wave: Waveform) -> str:
    """SHA-256 of a waveform."""
    hashed = hashlib.sha256(f"{wave.start_ns} {wave.rate_hz} {len(wave)}".encode())
    hashed.update(wave.valid.tobytes())
    hashed.update(np.ascontiguousarray(wave.samples).tobytes())
    return hashed.hexdigest()


def sample(shards: Sequence[Shard], limit: int) -> list[Shard]:
    """At most ``limit`` shards, sorted: each station once before any twice, its days in a fixed random order."""
    turn: Counter[str] = Counter()
    order: list[tuple[int, str, Shard]] = []
    for name, shard in sorted((hashlib.sha256(shard.id.encode()).hexdigest(), shard) for shard in shards):
        order.append((turn[shard.channel], name, shard))
        turn[shard.channel] += 1
    return sorted(shard for *_, shard in sorted(order)[:limit])
