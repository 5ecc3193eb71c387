"""Picks that no earthquake made: each station's own, shifted in time around the circle of the record."""

from __future__ import annotations

import numpy as np

from pipeline.maths.names import sites
from pipeline.records import DAY_NS, NS, Int, Text

APART_S = 60.0  # offsets of two stations differ by half of this at least, if the record is long enough


def offsets_ns(n_stations: int, length_ns: int, seed: int) -> Int:
    """How much each station (n,) is shifted, ns: drawn, but no two alike.

    They lie within a day, so that a night stays about as busy as it was, or in a longer time if stations are so many
    that they would come too close, and within the record. A slot of equal length is drawn for each station, and a
    place in the first half of it.
    """
    rng = np.random.default_rng(seed)
    within_ns = min(length_ns, max(DAY_NS, int(n_stations * APART_S * NS)))
    slot = (rng.permutation(n_stations) + 0.5 * rng.random(n_stations)) / max(n_stations, 1)
    return (slot * within_ns).astype(np.int64)


def scrambled_ns(station: Text, time_ns: Int, span_ns: tuple[int, int], seed: int) -> Int:
    """The times (n,) of picks, each station's shifted by its own offset around the half-open ``span_ns``.

    P and S of a station, and all its channels, move together: what one station sees of an earthquake, two picks at
    the right distance, stays as it was, and only the agreement of several stations is destroyed. S shifted alone would
    leave no pairs, and any pair would then seem to prove an event. Raises ValueError for a pick outside the span.
    """
    start, stop = span_ns
    if len(time_ns) and not (time_ns.min() >= start and time_ns.max() < stop):
        raise ValueError(f"a pick lies outside the span {start} to {stop} ns")
    known, row = np.unique(sites(station), return_inverse=True)
    shift = offsets_ns(len(known), stop - start, seed)
    shifted: Int = start + (time_ns - start + shift[row]) % (stop - start)
    return shifted
