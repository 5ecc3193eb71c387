"""Which event of the present catalogue a decision on an earlier one belongs to."""

from __future__ import annotations

import numpy as np

from pipeline.maths import geo, match
from pipeline.records import NS, Decisions, Events, Int, Origins

DECISIONS = ("accept", "reject", "quarry blast", "unsure")
SAME_S = 10.0


def merged(before: Decisions, now: Decisions) -> Decisions:
    """Both, one decision an event: the later one where both say when they were made, else that of ``now``.

    Two decisions are on one event if they are on one id at times within `SAME_S`: a location may have moved it since.
    """
    both = Decisions.concat([before, now])
    kept: dict[str, list[int]] = {}
    for row, (event, time_ns) in enumerate(zip(both.event.tolist(), both.time_ns.tolist(), strict=True)):
        rows = kept.setdefault(event, [])
        same = [k for k in rows if abs(int(both.time_ns[k]) - time_ns) <= SAME_S * NS]
        if not any(0 < both.when_ns[row] < both.when_ns[k] for k in same):
            kept[event] = [k for k in rows if k not in same] + [row]
    found = both.take(np.array(sorted(row for rows in kept.values() for row in rows), np.int64))
    return found.take(np.lexsort((found.event, found.time_ns)))


def carried(decisions: Decisions, events: Origins | Events, tolerance_s: float, tolerance_km: float) -> Int:
    """The row of ``events`` that each decision is on, (n,), -1: none.

    The event of the same id, if it is within the tolerances of what was decided on: a run that is made again may give
    an id to another event. The rest is matched by time and place, one to one.
    """
    row = {id_: k for k, id_ in enumerate(events.id.tolist())}
    found = np.array([row.get(id_, -1) for id_ in decisions.event.tolist()], np.int64)
    known = np.flatnonzero(found >= 0)
    there = found[known]
    dt_ns = np.abs(decisions.time_ns[known] - events.time_ns[there])
    places = (decisions.latitude_deg[known], decisions.longitude_deg[known])
    km = geo.distance_km(*places, events.latitude_deg[there], events.longitude_deg[there])
    found[known[(dt_ns > tolerance_s * NS) | (km > tolerance_km)]] = -1
    mine, free = np.flatnonzero(found < 0), np.setdiff1d(np.arange(len(events)), found)
    i, j = match.match_events(
        (decisions.time_ns[mine], decisions.latitude_deg[mine], decisions.longitude_deg[mine]),
        (events.time_ns[free], events.latitude_deg[free], events.longitude_deg[free]),
        tolerance_s,
        tolerance_km,
        (0.5, 0.5),
    )
    found[mine[i]] = free[j]
    return found


def counts(decisions: Decisions) -> dict[str, int]:
    """How many there are of each."""
    return {name: int(np.count_nonzero(decisions.decision == name)) for name in DECISIONS}


def by_event(decisions: Decisions, events: Origins | Events, rows: Int) -> dict[str, str]:
    """The decision on each event by its id, of those that have one; ``rows`` are those of `carried`."""
    on = rows >= 0
    return dict(zip(events.id[rows[on]].tolist(), decisions.decision[on].tolist(), strict=True))
