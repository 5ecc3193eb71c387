"""From probability traces to picks, and what is known of each pick.

A trigger is what ObsPy's `trigger_onset` and so SeisBench's `picks_from_annotations` take for one: a run of
samples of at least half the threshold in which at least one reaches the threshold; the pick is its maximum.
NaN ends a run. All that a pick needs of its trace lies in its run and the two samples around it (`Runs`), for
the half maximum of a pick is at least half the threshold.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.maths.windows import segments
from pipeline.records import NS, Bool, Float, Float32, Int, Picks, Runs, Scores, Waveform

NOISE_S = (-2.2, -0.2)  # relative to the pick: its onset may be emergent
SIGNAL_S = (0.0, 2.0)
SNR_ROWS = {"P": (0,), "S": (1, 2)}  # rows of Waveform.samples: the vertical, the horizontals
MIN_WINDOW_SHARE = 0.5  # of a window must be data for an SNR
CHUNK = 1024  # picks whose windows are in memory at once


def runs(scores: Scores, thresholds: dict[str, float]) -> Runs:
    """The runs of ``scores``; a phase without a threshold has none."""
    phase: list[int] = []
    first: list[int] = []
    parts = [np.empty(0, np.float32)]
    for row, name in enumerate(scores.phases):
        padded = np.pad(scores.probability[row], 1, constant_values=np.nan)
        threshold = np.float32(thresholds.get(name, np.inf))
        for start, stop in segments(padded >= threshold / 2):
            if padded[start:stop].max() >= threshold:
                phase.append(row)
                first.append(int(start) - 1)
                parts.append(padded[start - 1 : stop + 1])
    stops = np.cumsum([len(part) for part in parts[1:]], dtype=np.int64)
    axis = scores.probability.shape[1], scores.start_ns, scores.rate_hz
    return Runs(
        np.array(phase, np.int64), np.array(first, np.int64), stops, np.concatenate(parts), scores.phases, *axis
    )


def picks(found: Runs, waveform: Waveform, channel: str, min_separation_s: float, span_ns: tuple[int, int]) -> Picks:
    """The picks of one station with span_ns[0] <= time < span_ns[1], in canonical order.

    ``waveform`` has the time axis of ``found``; ``channel`` is the station of the picks. Of two picks of one
    phase closer than ``min_separation_s`` the better stays, and that is decided before the span cuts: a shard's
    neighbour decides alike. Raises ValueError if the time axes differ.
    """
    if found.n != len(waveform) or found.start_ns != waveform.start_ns:
        raise ValueError(f"probabilities of {found.n} samples, waveform of {len(waveform)}: other times")
    at, peak, width = peaks(found)
    parts = []
    for row, phase in enumerate(found.phases):
        index = np.flatnonzero(found.phase == row)
        index = index[suppress(at[index], peak[index], min_separation_s * found.rate_hz)]
        times = found.start_ns + np.rint(at[index] * (NS / found.rate_hz)).astype(np.int64)
        inside = (times >= span_ns[0]) & (times < span_ns[1])
        index = index[inside]
        columns = peak[index], (width[index] / found.rate_hz).astype(np.float32)
        parts.append(_picks(waveform, channel, phase, at[index], times[inside], columns))
    return Picks.concat(parts).ordered()


def _picks(
    waveform: Waveform, channel: str, phase: str, at: Int, times_ns: Int, columns: tuple[Float32, Float32]
) -> Picks:
    return Picks(
        np.full(len(at), channel, np.str_(channel).dtype),
        np.full(len(at), phase, np.str_(phase).dtype),
        times_ns,
        np.clip(columns[0], 0, 1),
        columns[1],
        snr_db(waveform, at, SNR_ROWS[phase]).astype(np.float32),
        (gap_samples(waveform.valid, at) / waveform.rate_hz).astype(np.float32),
        np.full(len(at), np.nan, np.float32),  # counts are no velocity
    )


def peaks(found: Runs) -> tuple[Int, Float32, Float]:
    """Of each run the sample of its maximum, the first of equal ones, its value and its full width at half maximum.

    The width is in samples, interpolated linearly between samples; NaN where the trace ends, or is NaN, before
    it falls to half.
    """
    at, peak, width = np.empty_like(found.first), np.empty(len(found.first), np.float32), np.empty(len(found.first))
    begin = 0
    for k, stop in enumerate(found.stop.tolist()):
        run = found.probability[begin:stop]
        top = 1 + int(np.argmax(run[1:-1]))
        at[k], peak[k] = found.first[k] + top - 1, run[top]
        width[k] = _crossing(run[top:]) + _crossing(run[top::-1])
        begin = stop
    return at, peak, width


def _crossing(falling: Float32) -> float:
    """Where a trace that starts at its maximum first falls to half of it, samples; NaN: not before a NaN."""
    half = falling[0] / 2
    i = int(np.argmax(~(falling > half)))
    above, below = float(falling[i - 1]), float(falling[i])
    return i - 1 + (above - float(half)) / (above - below)


def suppress(at: Int, value: NDArray[Any], min_separation: float) -> Int:
    """Indices, ascending, of ``at`` (sorted) without those closer than ``min_separation`` to a better one that stays.

    Of equals the first stays.
    """
    if min_separation <= 1:
        return np.arange(len(at))
    taken: list[int] = []
    kept: list[int] = []
    for i in np.lexsort((at, -value)).tolist():
        here = int(at[i])
        place = bisect_left(taken, here)
        if all(abs(here - other) >= min_separation for other in taken[max(place - 1, 0) : place + 1]):
            insort(taken, here)
            kept.append(i)
    return np.array(sorted(kept), np.int64)


def snr_db(waveform: Waveform, at: Int, rows: tuple[int, ...]) -> Float:
    """20 log10 of the RMS in `SIGNAL_S` after each pick over that in `NOISE_S` before it, each demeaned; (k,).

    Over the ``rows`` that carry data. NaN where there are none, where either window is less than half data,
    or where the noise is zero.
    """
    present = [row for row in rows if waveform.components[row]]
    if not present or not len(at):
        return np.full(len(at), np.nan)
    parts = [at[i : i + CHUNK] for i in range(0, len(at), CHUNK)]
    signal, noise = (
        np.concatenate([_rms(waveform, present, part, window_s) for part in parts]) for window_s in (SIGNAL_S, NOISE_S)
    )
    known = (signal > 0) & (noise > 0)  # False for NaN
    return np.where(known, 20 * np.log10(np.where(known, signal / np.where(known, noise, 1), 1)), np.nan)


def _rms(waveform: Waveform, rows: list[int], at: Int, window_s: tuple[float, float]) -> Float:
    """RMS (k,) over the valid samples of a window after each of ``at``, each row demeaned; NaN: too little data."""
    first, last = (round(edge * waveform.rate_hz) for edge in window_s)
    index = at[:, None] + np.arange(first, last)
    inside = np.clip(index, 0, len(waveform) - 1)
    valid = waveform.valid[inside] & (index == inside)
    n = np.count_nonzero(valid, axis=1)
    values = np.where(valid, waveform.samples[np.array(rows)[:, None, None], inside].astype(np.float64), 0)
    mean = values.sum(axis=2, keepdims=True) / np.maximum(n, 1)[:, None]
    square = (np.where(valid, values - mean, 0) ** 2).sum(axis=(0, 2)) / (np.maximum(n, 1) * len(rows))
    return np.where(n >= max(1, MIN_WINDOW_SHARE * (last - first)), np.sqrt(square), np.nan)


def gap_samples(valid: Bool, at: Int) -> Float:
    """Distance to the nearest sample that is not valid, or the first beyond the record, samples; 0 inside a gap."""
    gaps = np.flatnonzero(~np.pad(valid, 1)) - 1
    after = np.searchsorted(gaps, at)
    distance = np.minimum(gaps[after] - at, at - gaps[np.maximum(after - 1, 0)]).astype(np.float64)
    distance[~valid[at]] = 0
    return distance
