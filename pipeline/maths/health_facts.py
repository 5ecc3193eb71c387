"""What each station did on each day: hours, picks, residuals, and the events that its neighbours recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.maths import geo, leave_out
from pipeline.maths.days import day_text
from pipeline.maths.names import sites
from pipeline.records import (
    DAY_NS,
    NS,
    Bool,
    Float,
    Int,
    LocatedArrivals,
    Outcomes,
    Picks,
    Shards,
    StationHealth,
    Stations,
    StationTerms,
    Text,
)

NEIGHBOURS = 5  # the nearest other stations that take part
MOST = 3  # of them: an event that so many have is one that the station should have
Key = tuple[str, str]  # station, day
Hours = dict[Key, tuple[float, float]]  # with data, planned


@dataclass(frozen=True, slots=True)
class Seen:
    """Picks of events (n,): where, which day, row of the event, phase, and residual without station terms."""

    station: Text
    day: Int
    event: Int
    phase: Text
    residual_s: Float

    def __len__(self) -> int:
        return len(self.day)


def seen(arrivals: LocatedArrivals, terms: StationTerms, vp_vs: float) -> Seen:
    """The picks of located events. Residuals are those against the events without the station, with what ``terms`` took
    from them put back; NaN where there are too few other picks. ``vp_vs``: how much faster P is than S."""
    station = sites(arrivals.station)
    term = dict(zip(zip(terms.station.tolist(), terms.phase.tolist(), strict=True), terms.term_s.tolist(), strict=True))
    keys = zip(station.tolist(), arrivals.phase.tolist(), strict=True)
    own = np.array([term.get(key, 0.0) for key in keys], np.float64)
    event, site = (np.unique(names, return_inverse=True)[1].astype(np.int64) for names in (arrivals.event, station))
    residual_s = leave_out.residuals(arrivals, event, site, vp_vs) + own
    return Seen(station, arrivals.time_ns // DAY_NS, event, arrivals.phase, residual_s)


def hours(shards: Shards, outcomes: Outcomes, span_ns: tuple[int, int]) -> Hours:
    """Hours with data and hours planned of each station and day; of several channels the one with most data counts."""
    share = dict(zip(outcomes.shard.tolist(), outcomes.valid_fraction.tolist(), strict=True))
    found: Hours = {}
    for shard in shards.rows():
        start, stop = shard.within_ns(span_ns)
        planned = max(0, stop - start) / NS / 3600
        key = ".".join(shard.station.split(".")[:2]), shard.day.isoformat()
        data = planned * share.get(shard.id, 0.0)
        found[key] = max(found.get(key, (0.0, planned)), (data, planned))
    return found


def facts(
    picks: Picks,
    in_events: Seen,
    stations: Stations,
    data: Hours | None,
    days: Sequence[int],
    known: Collection[str] = (),
) -> StationHealth:
    """One row for each of ``days`` and each station that has picks or data, or is ``known``; nothing is judged yet.

    ``data`` None: picks were imported, nobody knows of hours. A station that is known and has no shard is without data.
    """
    station = sites(picks.station)
    names = sorted({*station.tolist(), *in_events.station.tolist(), *known, *(name for name, _ in data or {})})
    texts = [day_text(day) for day in days]
    keys = [(name, day) for day in texts for name in names]
    n_picks = _count(station, picks.time_ns // DAY_NS)
    n_in = _count(in_events.station, in_events.day)
    exposed, heard = exposure(in_events, stations)
    medians = {phase: _medians(in_events, in_events.phase == phase, in_events.residual_s) for phase in "PS"}
    snr = _medians_of(station, picks.time_ns // DAY_NS, picks.snr_db.astype(np.float64))
    none = (0, np.nan)
    return StationHealth(
        day=_text([day for _, day in keys]),
        station=_text([name for name, _ in keys]),
        status=np.full(len(keys), "", "U5"),
        reason=np.full(len(keys), "", "U1"),
        hours=_of_hours(keys, data, 0),
        hours_planned=_of_hours(keys, data, 1),
        n_picks=_ints(keys, n_picks),
        n_in_events=_ints(keys, n_in),
        n_p=np.array([medians["P"].get(key, none)[0] for key in keys], np.int64),
        median_p_s=np.array([medians["P"].get(key, none)[1] for key in keys], np.float64),
        n_s=np.array([medians["S"].get(key, none)[0] for key in keys], np.int64),
        median_s_s=np.array([medians["S"].get(key, none)[1] for key in keys], np.float64),
        snr_db=np.array([snr.get(key, none)[1] for key in keys], np.float64),
        exposed=_ints(keys, exposed),
        heard=_ints(keys, heard),
    )


def exposure(in_events: Seen, stations: Stations) -> tuple[Counter[Key], Counter[Key]]:
    """Of each station and day the events that `MOST` of its `NEIGHBOURS` picked, and how many of these it picked, too.

    Stations that take part in no event are nobody's neighbours. The day is that of the event's first pick.
    """
    names, code = np.unique(in_events.station, return_inverse=True)
    n_events = int(in_events.event.max()) + 1 if len(in_events) else 0
    has = np.zeros((n_events, len(names)), np.bool_)
    has[in_events.event, code] = True
    day = np.full(n_events, np.iinfo(np.int64).max)
    np.minimum.at(day, in_events.event, in_events.day)
    near = neighbours(names, stations)
    exposed, heard = Counter[Key](), Counter[Key]()
    for i, name in enumerate(names.tolist()):
        if len(near[i]) < MOST:
            continue
        asked = has[:, near[i]].sum(axis=1) >= MOST
        exposed.update((name, day_text(d)) for d in day[asked].tolist())
        heard.update((name, day_text(d)) for d in day[asked & has[:, i]].tolist())
    return exposed, heard


def neighbours(names: Text, stations: Stations) -> list[Int]:
    """The rows of ``names`` of the nearest `NEIGHBOURS` of each of them; none without coordinates."""
    row = {name: i for i, name in reversed(list(enumerate(stations.id.tolist())))}
    at = np.array([row.get(name, -1) for name in names.tolist()], np.int64)
    placed: Bool = at >= 0
    lat = np.where(placed, stations.latitude_deg[at], np.nan) if len(stations) else np.full(len(at), np.nan)
    lon = np.where(placed, stations.longitude_deg[at], np.nan) if len(stations) else np.full(len(at), np.nan)
    out = []
    for i in range(len(names)):
        others = np.flatnonzero(placed & (np.arange(len(names)) != i)) if placed[i] else np.empty(0, np.int64)
        km = geo.distance_km(lat[i], lon[i], lat[others], lon[others]) if len(others) else np.empty(0)
        out.append(others[np.argsort(km, kind="stable")[:NEIGHBOURS]])
    return out


def _count(station: Text, day: Int) -> Counter[Key]:
    pairs = Counter(zip(station.tolist(), day.tolist(), strict=True))
    return Counter({(name, day_text(d)): n for (name, d), n in pairs.items()})


def _medians(table: Seen, rows: Bool, values: Float) -> dict[Key, tuple[int, float]]:
    return _medians_of(table.station[rows], table.day[rows], values[rows])


def _medians_of(station: Text, day: Int, values: Float) -> dict[Key, tuple[int, float]]:
    """Number and median of the values (n,) of each station and day, without those that are NaN."""
    known = np.isfinite(values)
    station, day, values = station[known], day[known], values[known]
    order = np.lexsort((day, station))
    station, day, values = station[order], day[order], values[order]
    new = (station[1:] != station[:-1]) | (day[1:] != day[:-1])
    first = np.flatnonzero(np.r_[True, new]) if len(day) else np.empty(0, np.int64)
    parts = np.split(values, first[1:]) if len(first) else []
    keys = zip(station[first].tolist(), day[first].tolist(), strict=True)
    return {
        (name, day_text(d)): (len(part), float(np.median(part))) for (name, d), part in zip(keys, parts, strict=True)
    }


def _of_hours(keys: list[Key], data: Hours | None, which: int) -> Float:
    if data is None:
        return np.full(len(keys), np.nan)
    full: dict[str, float] = {}  # hours of each day in the period, for stations that nobody planned
    for (_, day), (_, planned) in data.items():
        full[day] = max(full.get(day, 0.0), planned)
    return np.array([data.get((name, day), (0.0, full.get(day, 0.0)))[which] for name, day in keys], np.float64)


def _ints(keys: list[Key], counts: Counter[Key]) -> Int:
    return np.array([counts[key] for key in keys], np.int64)


def _text(values: list[str]) -> Text:
    return np.array(values, np.str_) if values else np.empty(0, "U1")
