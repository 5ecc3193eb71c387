"""Events found twice: close in time and place, at the same stations. The poorer one is marked, not removed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.maths import geo
from pipeline.records import NS, Events, Float, Int, Origins, Text


def duplicates(
    events: Events | Origins, stations: Sequence[frozenset[str]], quality: Float, limit: tuple[float, float, float]
) -> Text:
    """The id (n,) of the event that each one repeats, "" for none.

    ``stations`` (n) of each event, ``quality`` (n,): the more the better, then more stations, then the smaller id.
    ``limit``: within so many s and km, and so large a share of the stations of the one with fewer in common. The best
    event comes first, and what is a duplicate has none of its own.
    """
    within_s, within_km, share = limit
    order = _best_first(events.id, stations, quality)
    rank = np.argsort(order)
    by_time = np.argsort(events.time_ns, kind="stable")
    times = events.time_ns[by_time]
    first = np.searchsorted(times, events.time_ns - int(within_s * NS), "left")
    stop = np.searchsorted(times, events.time_ns + int(within_s * NS), "right")
    found: list[str] = [""] * len(events)
    for best in order.tolist():
        if found[best]:
            continue
        near = [i for i in by_time[first[best] : stop[best]].tolist() if rank[i] > rank[best] and not found[i]]
        for i in near:
            if _in_common(stations[best], stations[i]) >= share and _apart_km(events, best, i) <= within_km:
                found[i] = str(events.id[best])
    return np.array(found, np.str_) if found else np.empty(0, "U1")


def _best_first(name: Text, stations: Sequence[frozenset[str]], quality: Float) -> Int:
    size = np.array([len(s) for s in stations], np.int64)
    order: Int = np.lexsort((name, -size, -np.nan_to_num(quality, nan=-1.0)))
    return order


def _in_common(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / max(min(len(a), len(b)), 1)


def _apart_km(events: Events | Origins, i: int, j: int) -> float:
    lat, lon = events.latitude_deg, events.longitude_deg
    return float(geo.distance_km(lat[i], lon[i], lat[j], lon[j]))
