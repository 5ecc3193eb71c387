"""Which windows of a record a network sees, and how its overlapping answers become one trace.

Within a contiguous segment the windows are those of SeisBench (`WaveformModel._cut_fragments_array`): from the
segment's start in steps of length - overlap, and a last one flush with its end.

Midnight is no edge. Two neighbouring day shards both read across midnight M, but their records, and so their
windows, start elsewhere. Therefore a segment that contains M is cut, with half a window h = length // 2, into
[a, M - h), the seam [M - length - h, M + length + h), and [M + h, b), and windows are planned for each on its
own. Between M - h and M + h only the seam's windows count, and these are the same in both shards if each reads
at least length + h samples beyond M: the same probabilities to the bit, no pick lost and none doubled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from pipeline.records import DAY_NS, NS, Bool, Float32, Int


@dataclass(frozen=True, slots=True)
class Plan:
    """Windows as integer rows (start, samples); samples < length only where a whole segment is shorter.

    ``groups`` are to be evaluated one after the other and no batch may mix two of them, because a seam's
    windows must sit at the same places of the same batches in both shards. The last ``seams`` of them are seams.
    """

    groups: tuple[Int, ...]
    seams: int = 0


def plan(
    valid: Bool, length: int, overlap: int, min_segment: int = 1, midnights: Int | None = None, grid: int = 1
) -> Plan:
    """The windows of a record.

    ``valid`` (n,), window ``length`` and ``overlap`` in samples; segments shorter than ``min_segment`` are gap;
    ``midnights`` the indices of the first sample at or after each UTC midnight (`midnights`). With a ``grid`` the last
    window of a piece ends flush only if it then starts a multiple of ``grid`` after the piece, else a little before.
    Raises ValueError unless 0 <= overlap < length.
    """
    if not 0 <= overlap < length:
        raise ValueError(f"overlap of {overlap} samples does not suit windows of {length}")
    seams: list[Int] = []
    rest: list[Int] = []
    for start, stop in segments(valid, min_segment):
        for first, last, is_seam in _pieces(start, stop, length, midnights if midnights is not None else []):
            (seams if is_seam else rest).append(_cover(first, last, length, length - overlap, grid))
    return Plan((*([np.concatenate(rest)] if rest else []), *seams), len(seams))


def segments(valid: Bool, min_segment: int = 1) -> Int:
    """Half-open [start, stop) of each contiguous run of True of at least ``min_segment`` samples, int (k, 2)."""
    inner = np.flatnonzero(valid[1:] != valid[:-1]) + 1
    ends = np.flatnonzero(valid[:1]), np.flatnonzero(valid[-1:]) + len(valid)
    edges: Int = np.concatenate([ends[0], inner, ends[1]]).reshape(-1, 2)
    return edges[edges[:, 1] - edges[:, 0] >= max(min_segment, 1)]


def midnights(start_ns: int, rate_hz: float, n: int, every_ns: int = DAY_NS) -> Int:
    """Index of the first sample at or after each UTC midnight inside a record of ``n`` samples.

    Or of each multiple of ``every_ns`` since 1970.
    """
    end_ns = start_ns + round(n * NS / rate_hz)
    instants = range(-(-start_ns // every_ns), -(-end_ns // every_ns))
    at = [math.ceil((instant * every_ns - start_ns) * rate_hz / NS - 1e-3) for instant in instants]
    return np.array(at, np.int64)


def _pieces(start: int, stop: int, length: int, at: Int | list[int]) -> list[tuple[int, int, bool]]:
    """[start, stop) cut at midnights into (first, last, is it a seam). Pieces that a seam covers are left out."""
    half, left, cut = length // 2, start, []
    for midnight in at:
        if start < midnight < stop:
            if midnight - half - left >= length:
                cut.append((left, int(midnight) - half, False))
            seam = max(start, int(midnight) - length - half), min(stop, int(midnight) + length + half)
            cut.append((*seam, True))
            left = int(midnight) + half
    if not cut or stop - left >= length:
        cut.append((left, stop, False))
    return cut


def _cover(first: int, last: int, length: int, step: int, grid: int) -> Int:
    """Windows (start, samples) over [first, last); one short one if a whole window does not fit."""
    if last - first <= length:
        return np.array([[first, last - first]], np.int64)
    starts = np.arange(first, last - length + 1, step, dtype=np.int64)
    flush = last - length - (last - length - first) % grid
    if starts[-1] < flush:
        starts = np.append(starts, flush)
    return np.stack([starts, np.full_like(starts, length)], axis=1)


@dataclass(slots=True)
class Blender:
    """Overlapping window answers into one float32 trace (rows, n): their mean or maximum, NaN where nothing saw.

    The first and last ``blinding`` samples of each window, and NaN, do not count. Adding in another order may
    change the last bit of a mean.
    """

    rows: int
    n: int
    stacking: str = "avg"
    blinding: tuple[int, int] = (0, 0)
    _sum: Float32 = field(init=False)
    _seen: Float32 = field(init=False)

    def __post_init__(self) -> None:
        if self.stacking not in ("avg", "max"):
            raise ValueError(f"stacking {self.stacking!r}, expected 'avg' or 'max'")
        self._sum = np.zeros((self.rows, self.n), np.float32)
        self._seen = np.zeros((self.rows, self.n), np.float32)

    def add(self, start: int, samples: int, answer: Float32) -> None:
        """Add the answer (rows, length) of a window at ``start``, of which ``samples`` are data."""
        first, last = self.blinding[0], min(samples, answer.shape[1] - self.blinding[1])
        if first >= last:
            return
        values = answer[:, first:last]
        where = slice(start + first, start + last)
        known = ~np.isnan(values)
        old = self._sum[:, where]
        if self.stacking == "avg":
            self._sum[:, where] = old + np.where(known, values, np.float32(0))
        else:
            unseen = self._seen[:, where] == 0
            self._sum[:, where] = np.where(known & (unseen | (values > old)), values, old)
        self._seen[:, where] += known

    def result(self) -> Float32:
        """The blended trace; the blender is spent."""
        if self.stacking == "avg":
            np.divide(self._sum, self._seen, out=self._sum, where=self._seen > 0)
        self._sum[self._seen == 0] = np.nan
        return self._sum
