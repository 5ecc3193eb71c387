"""Stage `locate`: events of `associate` and their picks in, origins with their uncertainty out. See decision 020."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from pipeline.cluster.world import World
from pipeline.config import Config, Locate
from pipeline.errors import ConfigError
from pipeline.formats import corrections, provenance, results, tables, traveltimes
from pipeline.formats.stations import at
from pipeline.maths import geo, location, names, pick_sigma
from pipeline.maths.account import rows_of
from pipeline.maths.ellipsoids import ellipsoid
from pipeline.maths.event_features import event_rows
from pipeline.maths.station_terms import Evidence, Terms
from pipeline.models import eikonal, locator
from pipeline.models.associators.observed import place
from pipeline.models.locator import Area, Fits, Places, Readings
from pipeline.models.locators.scene import Belief
from pipeline.records import (
    NS,
    Assignments,
    Bool,
    Events,
    Float,
    Int,
    LocatedArrivals,
    Origins,
    Picks,
    Stations,
    StationTerms,
    Table,
    Text,
)
from pipeline.rundir import RunDir, publish, require
from pipeline.stages.locate_magnitudes import with_magnitudes
from pipeline.stages.locate_quality import Made, judged

log = logging.getLogger(__name__)
T = TypeVar("T", bound=Table)
USED = 0.5  # a pick that is of its event with at least this probability
Found = tuple[Places, Fits, Terms]


def run(run_dir: RunDir, config: Config, world: World) -> None:
    """Write ``catalogue/station_terms.parquet``, ``arrivals.parquet`` and ``origins.parquet``, unless up to date.

    The same bytes for any number of ranks. Raises Incomplete if there is no catalogue yet.
    """
    begun = _task(run_dir, config) if world.rank == 0 else None
    given = world.bcast((begun[0].readings, begun[0].area, begun[0].terms) if begun is not None else None)
    if given is None:
        return
    readings, where, terms = given
    found = find(readings, where, config.locate, world, terms)
    if begun is not None and found is not None:
        task, made = begun
        places, fits, terms = found
        arrivals, used = located_arrivals(task, places, fits)
        located = origins(task, places, arrivals, used)
        located, arrivals = with_magnitudes(located, arrivals, made.picks, made.stations, config.magnitude)
        _publish(run_dir, task, judged(located, made, config.quality), arrivals, terms)
    world.bcast(None)


@dataclass(frozen=True)
class Task:
    """What rank 0 has read. ``rows`` (n,) of the readings are rows of ``assignments``, which are those of ``events`` in
    their order; ``event`` (m,) are the rows of the events that can be located, ``reason`` (events,) why others cannot.
    """

    events: Events
    assignments: Assignments
    of: Int  # row of the event of each assignment
    sites: Stations  # of each assignment
    sigma_s: Float  # of each assignment
    rows: Int
    event: Int
    reason: Text
    readings: Readings
    area: Area
    centre: tuple[float, float]
    made_of: dict[str, str]
    terms: Terms | None = None  # those of the configuration


def _task(run_dir: RunDir, config: Config) -> tuple[Task, Made] | None:
    """The work there is; None if the origins are already made of these inputs."""
    made_of = provenance.origins(run_dir, config)
    if provenance.has_origins(run_dir, made_of):
        log.info("the origins are up to date")
        return None
    events = tables.read(run_dir.events, Events)
    assignments = tables.read(run_dir.assignments, Assignments)
    stations = tables.read(require(run_dir.stations, "plan"), Stations)
    picks = results.picks(run_dir)
    theirs = picks_of(assignments, picks)
    made = Made(events, assignments, theirs.probability.astype(np.float64), picks, stations, config.run.span_ns)
    centre = config.associate.center_latitude_deg, config.associate.center_longitude_deg
    where = area(run_dir, stations, config), centre
    task = prepare((events, assignments, stations), pick_sigma.of_picks(theirs), where, made_of)
    path = config.locate.station_terms_file
    return (task if path is None else replace(task, terms=given_terms(path, task))), made


def given_terms(path: Path, task: Task) -> Terms:
    """The terms of ``path`` for the channels of the run. Raises ConfigError if it has no station of them."""
    table = corrections.read_station_terms(path)
    about = tables.metadata(path) if path.suffix == ".parquet" else task.made_of
    if about.get("velocity_model") != task.made_of.get("velocity_model"):
        log.warning("%s: terms of another velocity model: they hold for the model they were estimated with", path)
    row = {name: 2 * i for i, name in enumerate(task.area.channels[0].tolist())}
    at = np.array([row.get(name, -2) for name in table.station.tolist()], np.int64) + (table.phase == "S")
    has = at >= 0
    if not has.any():
        theirs, ours = (", ".join(names[:3]) or "none" for names in (table.station.tolist(), list(row)))
        raise ConfigError(f"{path}: no term of a station of this run; it has {theirs} ..., the run {ours} ...")
    terms = Terms(locator.no_terms(task.area), np.full(2 * len(row), np.nan), np.zeros(2 * len(row), np.int64))
    for into, values in ((terms.term_s, table.term_s), (terms.sigma_s, table.sigma_s), (terms.n, table.n)):
        into[at[has]] = values[has]
    log.info("station terms: %d of %s", has.sum(), path)
    return terms


def area(run_dir: RunDir, stations: Stations, config: Config) -> Area:
    """The network, its travel times and what is believed, by the configuration."""
    settings, own = config.locate.over(config.associate), config.locate
    network = place(stations, settings)
    times = traveltimes.of_run(run_dir, settings, network.at_km, eikonal.RECIPE, eikonal.travel_times)
    box_km = np.array([settings.x_km, settings.y_km, settings.z_km], np.float64)
    depth_km = settings.usual_depth_km
    return Area(network, times, box_km, Belief(own.outliers, own.reach_s, own.model_error, own.near_km), depth_km)


def picks_of(assignments: Assignments, picks: Picks) -> Picks:
    """The pick of each assignment. Raises ConfigError if one is not there: the catalogue is of other picks."""
    found = rows_of(assignments, picks)
    if (found < 0).any():
        lost = int(np.argmin(found))
        when = np.datetime64(int(assignments.time_ns[lost]), "ns")
        raise ConfigError(
            f"the catalogue has a pick of {assignments.station[lost]} at {when} that is not among the run's picks: "
            "run `orcolat associate` again"
        )
    return picks.take(found)


def prepare(
    tables_: tuple[Events, Assignments, Stations],
    sigma_s: Float,
    where: tuple[Area, tuple[float, float]],
    made_of: dict[str, str],
) -> Task:
    """The picks of all events in the one canonical order: by event, station, phase and time.

    ``sigma_s`` is of each assignment, ``where`` the area and the latitude and longitude of its centre.
    """
    events, assignments, stations = tables_
    event = event_rows(events, assignments.event)
    order = np.lexsort((assignments.time_ns, assignments.phase, assignments.station, event))
    assignments, event, sigma_s = assignments.take(order), event[order], sigma_s[order]
    name = names.sites(assignments.station)
    site = at(stations, name, assignments.time_ns)
    if (site < 0).any():
        raise ConfigError(f"no coordinates for the picks of {', '.join(np.unique(name[site < 0]).tolist())}")
    every = Readings(event, site, assignments.phase, assignments.time_ns, sigma_s)
    reason = locator.locatable(every, len(events))
    located, rows = np.flatnonzero(reason == ""), np.flatnonzero(reason[event] == "")
    number = np.cumsum(reason == "") - 1
    part = every.take(rows)
    readings = Readings(number[part.event].astype(np.int64), part.site, part.phase, part.time_ns, part.sigma_s)
    return Task(
        events=events,
        assignments=assignments,
        of=event,
        sites=stations.take(site),
        sigma_s=sigma_s,
        rows=rows,
        event=located,
        reason=reason,
        readings=readings,
        area=where[0],
        centre=where[1],
        made_of=made_of,
    )


def find(readings: Readings, area: Area, settings: Locate, world: World, given: Terms | None = None) -> Found | None:
    """On rank 0 the places of all events, the fits of all readings and the station terms; each rank has its share.

    Terms that are ``given`` are applied as they are.
    """
    rows = np.flatnonzero(readings.event % world.size == world.rank)
    mine = readings.take(rows)
    mine = Readings(mine.event // world.size, mine.site, mine.phase, mine.time_ns, mine.sigma_s)
    none = locator.no_terms(area)
    terms = given or Terms(none, np.full(len(none), settings.term_sigma_s), np.zeros(len(none), np.int64))
    if settings.station_terms and given is None:
        terms = estimate_terms((readings, mine, rows), area, settings, world)
    gathered = world.gather((rows, *locator.locate(mine, area, terms.term_s)))
    if gathered is None:
        return None
    events = [np.unique(readings.event[part[0]]) for part in gathered]
    places = _joined(Places, [part[1] for part in gathered], events)
    return places, _joined(Fits, [part[2] for part in gathered], [part[0] for part in gathered]), terms


def estimate_terms(shared: tuple[Readings, Readings, Int], area: Area, settings: Locate, world: World) -> Terms:
    """Station terms and locations in turn. ``shared``: all readings, this rank's, and the rows of these among all."""
    readings, mine, rows = shared
    origin, before, rounds = locator.search(mine, area), locator.no_terms(area), 0
    while True:
        origin, found = locator.settle(mine, area, before, origin)
        gathered = world.gather((rows, found))
        made = locator.terms_of(_whole(readings, gathered), area, settings.term_sigma_s) if gathered else None
        terms = cast(Terms, world.bcast(made))
        rounds += 1
        if rounds == settings.max_rounds or locator.is_settled(before, terms.term_s):
            break
        before = terms.term_s
    if world.rank == 0:
        log.info("station terms: %d rounds, root mean square %.3f s", rounds, np.sqrt(np.mean(terms.term_s**2)))
    return terms


def _whole(readings: Readings, parts: list[tuple[Int, Evidence]]) -> Evidence:
    """What all ranks found, in the order of all readings."""
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    columns = [
        np.concatenate([getattr(found, name) for _, found in parts])[order]
        for name in ("channel", "residual_s", "slope", "weight")
    ]
    return Evidence(readings.event, *columns)


def _joined(kind: type[T], parts: list[T], rows: list[Int]) -> T:
    """Tables of some rows each as one, in the order of the rows."""
    return kind.concat(parts).take(np.argsort(np.concatenate(rows)))


def _publish(run_dir: RunDir, task: Task, located: Origins, arrivals: LocatedArrivals, terms: Terms) -> None:
    """The origins come last: their presence says that all is whole."""
    for path, table in (
        (run_dir.station_terms, term_table(task, terms)),
        (
            run_dir.arrivals,
            arrivals.take(np.lexsort((arrivals.phase, arrivals.station, arrivals.time_ns, arrivals.event))),
        ),
        (run_dir.origins, located.take(np.lexsort((located.id, located.time_ns)))),
    ):
        with publish(path) as part:
            tables.write(part, table, task.made_of)
    fixed = int(np.char.startswith(located.depth_kind, "fixed").sum())
    log.info("located %d of %d events, %d with a fixed depth", len(task.event), len(task.events), fixed)


def term_table(task: Task, terms: Terms) -> StationTerms:
    """The terms that were made of picks, or given."""
    station, _ = task.area.channels
    has = np.flatnonzero((terms.n > 0) | (terms.term_s != 0))
    phase = np.array(["P", "S"])[has % 2] if len(has) else np.empty(0, "U1")
    return StationTerms(station[has // 2], phase, terms.term_s[has], terms.sigma_s[has], terms.n[has])


def located_arrivals(task: Task, places: Places, fits: Fits) -> tuple[LocatedArrivals, Bool]:
    """All picks of events in the order of the task, and which of them the locations used."""
    picks, n = task.assignments, len(task.assignments)
    latitude, longitude = _epicentres(task, places)
    ends = latitude[task.of], longitude[task.of], task.sites.latitude_deg, task.sites.longitude_deg
    values = {name: np.full(n, np.nan) for name in ("weight", "residual_s", "takeoff_deg")}
    values["weight"][task.rows], values["residual_s"][task.rows] = fits.weight, fits.residual_s
    values["takeoff_deg"][task.rows] = location.takeoff_deg(fits.by_distance_s_km, fits.by_depth_s_km)
    predicted_ns = np.zeros(n, np.int64)
    predicted_ns[task.rows] = places.time_ns[task.readings.event] + np.rint(fits.travel_s * NS).astype(np.int64)
    table = LocatedArrivals(
        event=picks.event,
        station=picks.station,
        phase=picks.phase,
        time_ns=picks.time_ns,
        sigma_s=task.sigma_s,
        predicted_ns=predicted_ns,
        distance_km=geo.distance_km(*ends),
        azimuth_deg=geo.azimuth_deg(*ends),
        **values,
    )
    return table, values["weight"] > USED


def _epicentres(task: Task, places: Places) -> tuple[Float, Float]:
    """Latitude and longitude of all events: where they are located, else where they were associated."""
    latitude, longitude = task.events.latitude_deg.copy(), task.events.longitude_deg.copy()
    latitude[task.event], longitude[task.event] = geo.geographic(places.x_km, places.y_km, *task.centre)
    return latitude, longitude


def origins(task: Task, places: Places, arrivals: LocatedArrivals, used: Bool) -> Origins:
    """One row an event, in the order of the events."""
    events, n = task.events, len(task.events)
    latitude, longitude = _epicentres(task, places)
    time_ns, depth_km = events.time_ns.copy(), events.depth_km.copy()
    time_ns[task.event], depth_km[task.event] = places.time_ns, places.z_km
    kinds = [f"fixed: not located ({why}), the place of the association" for why in task.reason.tolist()]
    for row, kind in zip(task.event.tolist(), places.depth_kind.tolist(), strict=True):
        kinds[row] = kind
    columns: dict[str, Any] = dict(_uncertainty(places, task.event, n), **_geometry(task, arrivals, used))
    return Origins(
        id=events.id,
        time_ns=time_ns,
        latitude_deg=latitude,
        longitude_deg=longitude,
        depth_km=depth_km,
        n_p=events.n_p,
        n_s=events.n_s,
        n_stations=events.n_stations,
        depth_kind=np.array(kinds, np.str_) if n else np.empty(0, "U1"),
        kind=events.kind,
        **columns,
    )


def _uncertainty(places: Places, rows: Int, n: int) -> dict[str, Float]:
    """The columns of `Origins` that come from the covariance; NaN but in ``rows``."""
    covariance = places.covariance_km2
    erh_km, erz_km = location.errors_km(covariance)
    axes = [ellipsoid(each) for each in covariance]
    found = {
        "sigma_time_s": np.sqrt(places.tt_s2),
        **{f"cov_{k}_km2": getattr(places, f"{k}_km2") for k in ("xx", "xy", "xz", "yy", "yz", "zz")},
        "erh_km": erh_km,
        "erz_km": erz_km,
        **{
            f"ellipsoid_{name}": np.array([getattr(each, name) for each in axes], np.float64)
            for name in ("major_km", "intermediate_km", "minor_km", "azimuth_deg", "plunge_deg")
        },
    }
    out = {}
    for name, values in found.items():
        out[name] = np.full(n, np.nan)
        out[name][rows] = values
    return out


def _geometry(task: Task, arrivals: LocatedArrivals, used: Bool) -> dict[str, Float | Int]:
    """Gaps, nearest station, residuals and number of the picks ``used``, of each event; NaN where there are none."""
    n, event = len(task.events), task.of
    gap, secondary, nearest, rms = (np.full(n, np.nan) for _ in range(4))
    start = np.searchsorted(event, np.arange(n + 1))
    for e in range(n):
        rows = np.arange(start[e], start[e + 1])[used[start[e] : start[e + 1]]]
        if len(rows):
            gap[e], secondary[e] = location.gaps_deg(arrivals.azimuth_deg[rows])
            nearest[e] = arrivals.distance_km[rows].min()
            rms[e] = np.sqrt(np.mean(arrivals.residual_s[rows] ** 2))
    n_used = np.bincount(event[used], minlength=n).astype(np.int64)
    return {"gap_deg": gap, "secondary_gap_deg": secondary, "nearest_km": nearest, "rms_s": rms, "n_used": n_used}
