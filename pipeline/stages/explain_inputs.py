"""What a run holds of the events of the reference: their arrivals, and what became of each, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.config import Config
from pipeline.formats import origins, results, tables, traveltimes
from pipeline.formats.reference import read_reference
from pipeline.formats.stations import at
from pipeline.maths import geo, match, reasons, traveltime
from pipeline.maths.account import events_of
from pipeline.maths.names import resolve, site, sites
from pipeline.maths.reasons import FARTHER, NOBODY, Expected, Facts, Near, Rules
from pipeline.models import eikonal
from pipeline.models.associators.observed import Network, Region, place
from pipeline.records import NS, Arrivals, Assignments, Events, Float, Int, Picks, Stations, Text
from pipeline.rundir import RunDir, require

NEAREST = 30  # stations that should see an event of which the reference has no picks
ENDS = {"picked": reasons.SCORED, "empty": reasons.EMPTY, "failed": reasons.FAILED}
BEST = (reasons.SCORED, reasons.FAILED, reasons.WAITING, reasons.EMPTY, reasons.NO_SHARD)  # of several shards
Seen = tuple[str, int, float, str]  # of our pick: its phase, time, probability and event
NO_PICK: Seen = ("", 0, float("nan"), "")


@dataclass(frozen=True)
class Inputs:
    """All that is known of a run, read once."""

    run_dir: RunDir
    config: Config
    stations: Stations
    ours: Events
    theirs: Events
    arrivals: Arrivals  # of the reference, their stations as the run names them; none: it has no picks
    picks: Picks
    assignments: Assignments

    @cached_property
    def region(self) -> Region:
        """As `associate` has it."""
        settings = self.config.associate
        network = place(self.stations, settings)
        times = traveltimes.of_run(self.run_dir, settings, network.at_km, eikonal.RECIPE, eikonal.travel_times)
        return Region(settings, network, times, self.config.run.seed)

    @cached_property
    def partner(self) -> dict[str, str]:
        """What each of our events is in the reference, all events of both compared, in scope or not."""
        settings = self.config.compare
        i, j = match.match_events(
            (self.ours.time_ns, self.ours.latitude_deg, self.ours.longitude_deg),
            (self.theirs.time_ns, self.theirs.latitude_deg, self.theirs.longitude_deg),
            settings.event_tolerance_s,
            settings.event_tolerance_km,
            settings.event_weights,
        )
        return dict(zip(self.ours.id[i].tolist(), self.theirs.id[j].tolist(), strict=True))

    @cached_property
    def row(self) -> dict[str, int]:
        """The row of each of our events."""
        return {name: i for i, name in enumerate(self.ours.id.tolist())}

    @cached_property
    def n_picks(self) -> dict[str, int]:
        """The number of picks of each of our events."""
        names, counts = np.unique(self.assignments.event, return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    @cached_property
    def by_site(self) -> dict[str, Int]:
        """The rows of the picks at each site, in the order of time."""
        name = sites(self.picks.station)
        order = np.lexsort((np.arange(len(name)), name))
        names, first = np.unique(name[order], return_index=True)
        return dict(zip(names.tolist(), np.split(order, first[1:]), strict=True))

    @property
    def imported(self) -> bool:
        return self.config.pick.source is not None

    @property
    def rules(self) -> Rules:
        settings = self.config.associate
        return Rules(*(getattr(settings, name) for name in Rules._fields))


def read(run_dir: RunDir, config: Config) -> Inputs:
    """Read the run and its reference. Raises Incomplete if a stage is missing, ConfigError for the reference."""
    events, picks = config.compare.reference_events, config.compare.reference_picks
    stations = tables.read(require(run_dir.stations, "plan"), Stations)
    arrivals = read_reference(picks).arrivals if picks else Arrivals.empty()
    return Inputs(
        run_dir=run_dir,
        config=config,
        stations=stations,
        ours=origins.events(run_dir),
        theirs=read_reference(events).events if events else Events.empty(),
        arrivals=_named(arrivals, stations),
        picks=results.picks(run_dir),
        assignments=tables.read(require(run_dir.assignments, "associate"), Assignments),
    )


def _named(arrivals: Arrivals, stations: Stations) -> Arrivals:
    """The stations as the run names them, sorted by event, station and phase, the first of several of one phase."""
    found, _ = resolve(arrivals.station.tolist(), np.unique(stations.id).tolist())
    station = np.array([found.get(name, name) for name in arrivals.station.tolist()], np.str_)
    if not len(station):
        return arrivals
    named = Arrivals(arrivals.event, station, arrivals.phase, arrivals.time_ns, arrivals.weight)
    named = named.take(np.lexsort((named.time_ns, named.phase, named.station, named.event)))
    keys = np.column_stack([named.event, named.station, named.phase])
    return named.take(np.concatenate([[True], (keys[1:] != keys[:-1]).any(axis=1)]))


def expected(inputs: Inputs, events: Events) -> Expected:
    """The arrivals of ``events``, of the reference, and what became of each."""
    asked = [_asked(inputs, events.take(slice(row, row + 1)), row) for row in range(len(events))]
    return followed(inputs, Expected.concat(asked))


def _asked(inputs: Inputs, event: Events, row: int) -> Expected:
    """The arrivals of one event: those of the reference, or those that the model predicts at the nearest stations."""
    first, stop = (int(np.searchsorted(inputs.arrivals.event, event.id[0], side)) for side in ("left", "right"))
    named = inputs.arrivals.take(slice(first, stop))
    if len(named):
        station, phase, time_ns = named.station, named.phase, named.time_ns
        at_row = at(inputs.stations, station, time_ns)
    else:
        near = _nearest(inputs.stations, event)
        at_row = np.repeat(near, 2)
        station, phase = inputs.stations.id[at_row], np.tile(np.array(["P", "S"]), len(near))
        time_ns = np.zeros(len(at_row), np.int64)
    predicted_ns, distance_km = predictions(inputs, event, at_row, phase)
    n = len(station)
    return Expected(
        event=np.full(n, row),
        station=station,
        phase=phase,
        time_ns=time_ns if len(named) else predicted_ns,
        predicted_ns=predicted_ns,
        distance_km=distance_km,
        predicted=np.full(n, not len(named)),
        state=np.full(n, ""),
        our_phase=np.full(n, ""),
        our_time_ns=np.zeros(n, np.int64),
        our_probability=np.full(n, np.nan),
        our_event=np.full(n, ""),
    )


def _nearest(stations: Stations, event: Events) -> Int:
    """The rows of the `NEAREST` stations in operation, the nearest first; none of an event without a place."""
    inside = (stations.start_ns <= event.time_ns[0]) & (event.time_ns[0] < stations.end_ns)
    rows = np.flatnonzero(inside & np.isfinite(stations.latitude_deg) & np.isfinite(stations.longitude_deg))
    _, first = np.unique(stations.id[rows], return_index=True)
    rows = rows[first]
    if not np.isfinite([event.latitude_deg[0], event.longitude_deg[0]]).all():
        return rows[:0]
    far_km = _away_km(stations, rows, event)
    return rows[np.argsort(far_km, kind="stable")][:NEAREST]


def _away_km(stations: Stations, rows: Int, event: Events) -> Float:
    return geo.distance_km(
        event.latitude_deg[0], event.longitude_deg[0], stations.latitude_deg[rows], stations.longitude_deg[rows]
    )


def predictions(inputs: Inputs, event: Events, rows: Int, phase: Text) -> tuple[Int, Float]:
    """When each phase (n,) arrives at the stations in ``rows`` (n,) by the model, 0: not known; and their distances."""
    time_ns, distance_km = np.zeros(len(rows), np.int64), np.full(len(rows), np.nan)
    known = np.flatnonzero(rows >= 0)
    if not (len(known) and np.isfinite(event.latitude_deg[0])):
        return time_ns, distance_km
    settings, times, network = inputs.config.associate, inputs.region.travel_times, inputs.region.network
    usual_km = settings.usual_depth_km
    depth_km = float(event.depth_km[0]) if np.isfinite(event.depth_km[0]) else usual_km
    distance_km[known] = _away_km(inputs.stations, rows[known], event)
    level = times.level(network.z_km[rows[known]])
    for i, k in zip(known.tolist(), level.tolist(), strict=True):
        table = times.slowness_s_km[k, traveltime.P if phase[i] == "P" else traveltime.S]
        place_km = distance_km[i], depth_km, network.z_km[rows[i]]
        travel_s, *_ = traveltime.travel_time(table, *times.step_km, times.depth_km, *place_km)
        time_ns[i] = event.time_ns[0] + round(travel_s * NS)
    return time_ns, distance_km


def followed(inputs: Inputs, asked: Expected) -> Expected:
    """The same arrivals with the end of their data, and our pick of each."""
    if not len(asked):
        return asked
    state = states(inputs, asked)
    rows = [_pick(inputs, asked, i) for i in range(len(asked))]
    picked = np.array(sorted({row for row in rows if row >= 0}), np.int64)
    events = events_of(inputs.picks.take(picked), inputs.assignments)
    event = dict(zip(picked.tolist(), events.tolist(), strict=True))
    picks = inputs.picks
    seen = [
        (str(picks.phase[row]), int(picks.time_ns[row]), float(picks.probability[row]), event[row])
        if row >= 0
        else NO_PICK
        for row in rows
    ]
    phase, time_ns, probability, name = zip(*seen, strict=True)
    columns = asked.as_dict() | {
        "state": state,
        "our_phase": np.array(phase, np.str_),
        "our_time_ns": np.array(time_ns, np.int64),
        "our_probability": np.array(probability, np.float64),
        "our_event": np.array(name, np.str_),
    }
    return Expected(**columns)


def _pick(inputs: Inputs, asked: Expected, i: int) -> int:
    """The row of our pick of one arrival, -1: none. Of several the one of its phase, then the nearest, then the first.

    A predicted arrival takes what the associator would: its phase, within the largest residual of a pick of an event.
    """
    rows = inputs.by_site.get(str(asked.station[i]))
    if rows is None:
        return -1
    predicted = bool(asked.predicted[i])
    tolerance_s = inputs.config.associate.max_sigma11_s if predicted else inputs.config.compare.pick_tolerance_s
    time_ns, reach_ns = int(asked.time_ns[i]), round(tolerance_s * NS)
    times = inputs.picks.time_ns[rows]
    near = rows[
        np.searchsorted(times, time_ns - reach_ns, "left") : np.searchsorted(times, time_ns + reach_ns, "right")
    ]
    other = inputs.picks.phase[near] != asked.phase[i]
    if predicted:
        near, other = near[~other], other[~other]
    if not len(near):
        return -1
    order = np.lexsort((near, np.abs(inputs.picks.time_ns[near] - time_ns), other))
    return int(near[order[0]])


def states(inputs: Inputs, asked: Expected) -> Text:
    """How the data of each arrival ended (n,)."""
    start_ns, stop_ns = inputs.config.run.span_ns
    known = set(inputs.stations.id.tolist())
    day = asked.time_ns.astype("datetime64[ns]").astype("datetime64[D]").astype(np.str_)
    ended = {} if inputs.imported else _ended(inputs.run_dir, set(day.tolist()))
    found = []
    for name, date, time_ns in zip(asked.station.tolist(), day.tolist(), asked.time_ns.tolist(), strict=True):
        if name not in known:
            found.append(reasons.NO_STATION)
        elif not start_ns <= time_ns < stop_ns:
            found.append(reasons.NO_TIME)
        else:
            found.append(reasons.IMPORTED if inputs.imported else ended.get((name, date), reasons.NO_SHARD))
    return np.array(found, np.str_)


def _ended(run_dir: RunDir, days: set[str]) -> dict[tuple[str, str], str]:
    """How the data of each site and day ended, the best of its shards."""
    plan, outcomes = results.planned(run_dir), results.outcomes(run_dir)
    ends = dict(zip(outcomes.shard.tolist(), outcomes.end.tolist(), strict=True))
    found: dict[tuple[str, str], str] = {}
    for shard in plan.take(np.isin(plan.day, sorted(days))).rows():
        key = site(shard.station), f"{shard.day:%Y-%m-%d}"
        state = ENDS.get(ends.get(shard.id, ""), reasons.WAITING)
        found[key] = min(state, found.get(key, reasons.NO_SHARD), key=BEST.index)
    return found


def facts(inputs: Inputs, event: Events, seen: Expected) -> Facts:
    """What is known of one event as a whole; ``seen`` are its arrivals."""
    settings = inputs.config.compare
    close = _around(inputs, event, 1.0)
    lone = [
        other for other in _around(inputs, event, FARTHER) if not other.partner and _nobody_nearer(inputs, other, event)
    ]
    holders = {name: near(inputs, event, inputs.row[name]) for name in sorted(set(seen.our_event.tolist()) - {""})}
    return Facts(
        outside=outside(inputs, event),
        near=close[0] if close else NOBODY,
        far=lone[0] if lone else NOBODY,
        holders=holders,
        tolerance=f"{settings.event_tolerance_s:g} s and {settings.event_tolerance_km:g} km",
    )


def _around(inputs: Inputs, event: Events, times: float) -> list[Near]:
    """Our events within so many times both tolerances, the nearest in their units first."""
    settings, ours = inputs.config.compare, inputs.ours
    tolerance_s, tolerance_km = times * settings.event_tolerance_s, times * settings.event_tolerance_km
    rows = np.flatnonzero(np.abs(ours.time_ns - event.time_ns[0]) <= round(tolerance_s * NS))
    found = [near(inputs, event, row) for row in rows.tolist()]
    found = [each for each in found if each.distance_km <= tolerance_km]
    return sorted(found, key=lambda e: (max(abs(e.dt_s) / tolerance_s, e.distance_km / tolerance_km), e.id))


def _nobody_nearer(inputs: Inputs, ours: Near, event: Events) -> bool:
    """Whether no other event of the reference is nearer to this event of ``ours``, in units of the tolerances."""
    settings, row = inputs.config.compare, inputs.row[ours.id]
    reach_ns = round(FARTHER * settings.event_tolerance_s * NS)
    theirs = inputs.theirs.take(np.abs(inputs.theirs.time_ns - inputs.ours.time_ns[row]) <= reach_ns)
    place = inputs.ours.latitude_deg[row], inputs.ours.longitude_deg[row]
    far_km = geo.distance_km(*place, theirs.latitude_deg, theirs.longitude_deg)
    far_s = np.abs(theirs.time_ns - inputs.ours.time_ns[row]) / NS
    units = np.maximum(far_s / settings.event_tolerance_s, far_km / settings.event_tolerance_km)
    return str(theirs.id[np.lexsort((theirs.id, units))[0]]) == str(event.id[0])


def near(inputs: Inputs, event: Events, row: int) -> Near:
    """Where the event of ours in ``row`` lies from one of the reference, and what it is there."""
    ours, name = inputs.ours, str(inputs.ours.id[row])
    ends = ours.latitude_deg[row], ours.longitude_deg[row], event.latitude_deg[0], event.longitude_deg[0]
    dt_s = float(ours.time_ns[row] - event.time_ns[0]) / NS
    return Near(name, dt_s, float(geo.distance_km(*ends)), inputs.partner.get(name, ""), inputs.n_picks.get(name, 0))


def outside(inputs: Inputs, event: Events) -> str:
    """Why the run cannot have the event, or the comparison does not ask for it; "": it could."""
    config, (lat, lon) = inputs.config, (float(event.latitude_deg[0]), float(event.longitude_deg[0]))
    start_ns, stop_ns = config.run.span_ns
    if not start_ns <= event.time_ns[0] < stop_ns:
        return f"{np.datetime64(int(event.time_ns[0]), 'ms')} is outside run.start to run.end"
    if not (np.isfinite(lat) and np.isfinite(lon)):
        return "the reference has no place of it"
    if config.compare.polygon is not None and not geo.inside(config.compare.polygon, [lon], [lat])[0]:
        return f"{lat:.3f} N {lon:.3f} E is outside compare.polygon"
    box = config.associate
    x, y = geo.stereographic(lat, lon, box.center_latitude_deg, box.center_longitude_deg)
    axes = [("x_km", float(x), box.x_km), ("y_km", float(y), box.y_km), ("z_km", float(event.depth_km[0]), box.z_km)]
    for name, value, (low, high) in axes:
        if value > high or (value < low and name != "z_km"):  # above the sea is at its surface
            return f"associate.{name} ends at {high if value > high else low:g} km, it is at {value:.1f} km"
    return ""


def network_rows(inputs: Inputs, picks: Picks) -> tuple[Network, Int]:
    """The network and the row in it of the station of each pick; -1: it has none at that time."""
    return inputs.region.network, at(inputs.stations, sites(picks.station), picks.time_ns)


def of_event(seen: Expected, row: int) -> Expected:
    """The arrivals of one event; ``seen`` is in the order of the events."""
    first, stop = np.searchsorted(seen.event, [row, row + 1])
    return seen.take(slice(int(first), int(stop)))
