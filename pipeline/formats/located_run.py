"""The located events of a run, or its associated ones where it has not located yet; which are new, which decided."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.errors import ConfigError, Incomplete
from pipeline.formats import decisions, provenance, stations, tables
from pipeline.formats.located import Catalogue, require_whole
from pipeline.maths import geo
from pipeline.maths.decisions import by_event, carried
from pipeline.maths.names import sites
from pipeline.records import (
    NS,
    Assignments,
    ComparedEvents,
    Events,
    Float,
    LocatedArrivals,
    Origins,
    Stations,
    Text,
)
from pipeline.rundir import RunDir, require


def load(run_dir: RunDir) -> Catalogue:
    """Origins, picks and stations. Raises Incomplete if there is no catalogue, or the locations are of another one."""
    events = tables.read(require(run_dir.events, "associate"), Events)
    sites_ = tables.read(require(run_dir.stations, "plan"), Stations)
    if run_dir.origins.exists() and run_dir.arrivals.exists():
        found = Catalogue(tables.read(run_dir.origins, Origins), tables.read(run_dir.arrivals, LocatedArrivals), sites_)
        if set(found.origins.id.tolist()) != set(events.id.tolist()) or not _is_of_catalogue(run_dir):
            raise Incomplete(f"{run_dir.origins}: is of other events: run `orcolat locate {run_dir.root}` again")
    else:
        assignments = tables.read(require(run_dir.assignments, "associate"), Assignments)
        found = Catalogue(origins_of(events), arrivals_of(assignments, events, sites_), sites_)
    require_whole(found)
    return found


def _is_of_catalogue(run_dir: RunDir) -> bool:
    """Whether origins and arrivals are of one location, and that of the events and picks that are there now."""
    made_of = tables.metadata(run_dir.origins)
    now = provenance.of_files([run_dir.events, run_dir.assignments]) if "catalogue" in made_of else None
    return tables.metadata(run_dir.arrivals) == made_of and made_of.get("catalogue") == now


def score(run_dir: RunDir, origins: Origins) -> Float:
    """The score of association of each event (n,), NaN where there is none."""
    events = tables.read(run_dir.events, Events)
    of = dict(zip(events.id.tolist(), events.score.tolist(), strict=True))
    return np.array([of[id_] for id_ in origins.id.tolist()], np.float64)


def origins_of(events: Events) -> Origins:
    """Associated events as if they were located: place, time and counts; uncertainties are not known."""
    shared = {f.name for f in Events.columns()} - {"sigma_time_s"}
    given: dict[str, Any] = {f.name: getattr(events, f.name) for f in Origins.columns() if f.name in shared}
    given |= {"rms_s": events.sigma_time_s, "n_used": np.maximum(events.n_p, 0) + np.maximum(events.n_s, 0)}
    return Origins(**given)


def arrivals_of(assignments: Assignments, events: Events, sites_: Stations) -> LocatedArrivals:
    """The picks of associated events, with distance and azimuth from there where the station is known."""
    order = np.lexsort((assignments.phase, assignments.station, assignments.time_ns, assignments.event))
    a = assignments.take(order)
    row = {id_: k for k, id_ in enumerate(events.id.tolist())}
    of = np.array([row[id_] for id_ in a.event.tolist()], np.int64)
    at = stations.at(sites_, sites(a.station), a.time_ns)
    known = at >= 0
    ends = (events.latitude_deg[of], events.longitude_deg[of], *_places(sites_, at))
    predicted = np.where(np.isfinite(a.residual_s), a.time_ns - np.round(np.nan_to_num(a.residual_s) * NS), 0)
    given = {
        **{name: getattr(a, name) for name in ("event", "station", "phase", "time_ns", "residual_s")},
        "predicted_ns": predicted.astype(np.int64),
        "distance_km": np.where(known, geo.distance_km(*ends), np.nan),
        "azimuth_deg": np.where(known, geo.azimuth_deg(*ends), np.nan),
    }
    return LocatedArrivals(**given)


def _places(sites_: Stations, at: Any) -> tuple[Float, Float]:
    """Latitude and longitude of the stations ``at``; of the first where a row is -1."""
    if not len(sites_):
        return np.zeros(len(at)), np.zeros(len(at))
    rows = np.maximum(at, 0)
    return sites_.latitude_deg[rows], sites_.longitude_deg[rows]


def new_ids(run_dir: RunDir, config: Config) -> set[str]:
    """The events that the reference lacks. Raises Incomplete without a comparison of this catalogue."""
    if config.compare.reference_events is None:
        raise ConfigError("compare.reference_events: without a reference no event is new; take --events all")
    memo = provenance.Memo(run_dir)
    if not provenance.has_comparison(run_dir, provenance.comparison(run_dir, config, memo)):
        raise Incomplete(f"{run_dir.scorecard}: is not of this catalogue: run `orcolat compare {run_dir.root}` first")
    compared = tables.read(run_dir.compared("events"), ComparedEvents)
    return set(compared.ours[compared.status == "new"].tolist())


def decided(run_dir: RunDir, config: Config, origins: Origins) -> Text:
    """The decision on each event (n,), "" where there is none: by id, else by time and place."""
    said = decisions.of_run(run_dir)
    tolerances = (config.compare.event_tolerance_s, config.compare.event_tolerance_km)
    of = by_event(said, origins, carried(said, origins, *tolerances))
    return np.array([of.get(id_, "") for id_ in origins.id.tolist()], np.str_)


def chosen(run_dir: RunDir, config: Config, found: Catalogue, which: str) -> Catalogue:
    """ "all", those that are "new", or for "review" the new ones that nobody decided on, or could not, ranked.

    The rank is by probability, or the score of association where there is none, then by time.
    """
    if which == "all":
        return found
    new = np.isin(found.origins.id, sorted(new_ids(run_dir, config)))
    if which == "new":
        return found.of(np.flatnonzero(new))
    rows = np.flatnonzero(new & np.isin(decided(run_dir, config, found.origins), ["", "unsure"]))
    origins = found.origins
    keys = [-np.nan_to_num(values[rows], nan=-np.inf) for values in (score(run_dir, origins), origins.probability)]
    return found.of(rows[np.lexsort((origins.id[rows], origins.time_ns[rows], *keys))])
