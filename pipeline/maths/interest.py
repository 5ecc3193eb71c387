"""Which events someone wants to see first: those that are lost, new, moved, or large."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np

from pipeline.records import Bool, ComparedEvents, Float, Int


def moved_km(events: ComparedEvents) -> Float:
    """Distance of the two hypocentres (n,), of the epicentres where a depth is not known; NaN where not matched."""
    depth = np.nan_to_num(events.depth_difference_km)
    return np.where(events.status == "matched", np.hypot(events.distance_km, depth), np.nan)


def lost(events: ComparedEvents) -> Int:
    """Rows of the missed events, the largest first."""
    return _ranked(events.status == "missed", events.magnitude)


def new(events: ComparedEvents, probability: Float) -> Int:
    """Rows of the new events: by ``probability`` (n,) that they are real, then by number of picks."""
    return _ranked(events.status == "new", probability, events.n_p + events.n_s, events.our_score)


def moved(events: ComparedEvents) -> Int:
    """Rows of the matched events, the farthest apart first."""
    far_km = moved_km(events)
    return _ranked(np.isfinite(far_km), far_km)


def interesting(events: ComparedEvents, probability: Float, n: int) -> list[int]:
    """At most ``n`` rows: in turn the first of the missed, the new, the moved and the largest ones."""
    every = np.ones(len(events), np.bool_)
    largest = _ranked(every, events.magnitude, events.n_p + events.n_s)
    ranks = [rows[:n].tolist() for rows in (lost(events), new(events, probability), moved(events), largest)]
    turns = [row for turn in zip_longest(*ranks) for row in turn if row is not None]
    return list(dict.fromkeys(turns))[:n]


def _ranked(rows: Bool, *values: Float | Int) -> Int:
    """The rows that are True by falling ``values``, the first one first; what is not known comes last."""
    found = np.flatnonzero(rows)
    keys = [-np.nan_to_num(value[found].astype(np.float64), nan=-np.inf) for value in reversed(values)]
    ranked: Int = found[np.lexsort((found, *keys))]
    return ranked
