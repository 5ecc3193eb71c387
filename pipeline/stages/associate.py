"""Stage `associate`: picks of all stations in, a catalogue and the picks of each event out."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster.world import World, share
from pipeline.config import Associate, Config, Slurm
from pipeline.errors import ConfigError
from pipeline.formats import provenance, results, tables, traveltimes
from pipeline.formats.stations import at
from pipeline.logs import Progress
from pipeline.maths import geo, names
from pipeline.maths.traveltime import TravelTimes
from pipeline.models import associator, eikonal
from pipeline.models.associator import Settled
from pipeline.models.associators import rules
from pipeline.models.associators.observed import Earthquake, Network, Observed, Piece, Region, place
from pipeline.records import Assignments, Events, Int, Picks, Stations, Text
from pipeline.rundir import RunDir, publish, require

log = logging.getLogger(__name__)


def run(run_dir: RunDir, config: Config, world: World) -> None:
    """Write ``catalogue/assignments.parquet`` and ``catalogue/events.parquet``, unless they are up to date.

    The same bytes for any order of the picks and any number of ranks. Raises Incomplete while shards are
    missing, ConfigError for a pick of a station without coordinates, or for Dask workers under MPI ranks.
    """
    if config.compute.dask:
        from pipeline.cluster.dask import require_alone  # here, so that ranks need no Dask

        require_alone(world.size)
    task = _task(run_dir, config) if world.rank == 0 else None
    given = world.bcast(_given(run_dir, task, config) if task is not None else None)
    if given is None:
        return
    observed, region = given
    found = find_events(observed, region, world, config.compute.dask, (config.slurm, run_dir.logs))
    if task is not None:
        events, assignments = catalogue(found.events, task.picks, observed, config.associate)
        check_account(len(task.picks), [event.picks for event in found.events], events, assignments)
        _publish(run_dir, events, assignments, {**task.made_of, "refused": found.refused})
        _tell(len(task.picks), len(assignments), found)
    world.bcast(None)


@dataclass(frozen=True)
class Task:
    """What rank 0 has read, and the digests of what the catalogue will be made of."""

    picks: Picks
    stations: Stations
    made_of: dict[str, str]


def _task(run_dir: RunDir, config: Config) -> Task | None:
    """The work there is; None if the catalogue is already made of these inputs."""
    results.require_picked(run_dir, imported=config.pick.source is not None)
    stations = tables.read(require(run_dir.stations, "plan"), Stations)
    picks = results.picks(run_dir)
    made_of = provenance.catalogue(config, picks, stations)
    if provenance.has_catalogue(run_dir, made_of):
        log.info("the catalogue is up to date")
        return None
    return Task(picks, stations, made_of)


def _given(run_dir: RunDir, task: Task, config: Config) -> tuple[Observed, Region]:
    """What every rank needs to associate."""
    network = place(task.stations, config.associate)
    region = Region(config.associate, network, travel_times(run_dir, network, config.associate), config.run.seed)
    return observe(task.picks, task.stations, network), region


def travel_times(run_dir: RunDir, network: Network, settings: Associate) -> TravelTimes:
    """From the whole box to every station of ``network``; tables are made once and kept in the run directory."""
    return traveltimes.of_run(run_dir, settings, network.at_km, eikonal.RECIPE, eikonal.travel_times)


def _publish(run_dir: RunDir, events: Events, assignments: Assignments, about: dict[str, Any]) -> None:
    """The events come last: their presence says that the catalogue is whole."""
    with publish(run_dir.assignments) as part:
        tables.write(part, assignments, about)
    with publish(run_dir.events) as part:
        tables.write(part, events, about)


def _tell(n_picks: int, n_kept: int, found: Settled) -> None:
    log.info("%d picks: %d in %d events, %d are noise", n_picks, n_kept, len(found.events), n_picks - n_kept)
    for rule, n in sorted(found.refused.items()):
        log.info("%d events were refused by associate.%s; their picks are noise", n, rule)


def observe(picks: Picks, stations: Stations, network: Network) -> Observed:
    """``picks`` (in canonical order) with the place of their station in ``network``, in that order.

    Raises ConfigError that names the stations without coordinates at the time of a pick.
    """
    name = names.sites(picks.station)
    row = at(stations, name, picks.time_ns)
    if (row < 0).any():
        raise ConfigError(_homeless(name[row < 0], picks.time_ns[row < 0]))
    weight = picks.probability.astype(np.float64)
    known = picks.amplitude_m_s > 0
    log_amplitude = np.log10(picks.amplitude_m_s, out=np.full(len(picks), np.nan), where=known, dtype=np.float64)
    site = network.take(row)
    return Observed(
        name, picks.phase, picks.time_ns, weight, log_amplitude, row.astype(np.int64), site.x_km, site.y_km, site.z_km
    )


def _homeless(site: Text, time_ns: Int) -> str:
    lost, first, counts = np.unique(site, return_index=True, return_counts=True)
    listed = [
        f"{name} ({n} picks, the first at {np.datetime64(int(time_ns[i]), 'ns')})"
        for name, i, n in zip(lost.tolist(), first.tolist(), counts.tolist(), strict=True)
    ]
    return (
        f"no coordinates for the picks of {', '.join(listed)}: add the station, with an epoch that holds that time, "
        "to a file of stations.files, or name it in stations.exclude and make a new run"
    )


def find_events(
    observed: Observed,
    region: Region,
    world: World,
    dask: int | str | Path = 0,
    slurm: tuple[Slurm, Path] = (Slurm(), Path()),
) -> Settled:
    """On rank 0 every event, row numbers counted in ``observed``, and what was refused; on other ranks nothing.

    ``dask`` names the workers that find them (`Compute.dask`), ``slurm`` their jobs and a folder for the logs of
    these; 0: the ranks themselves.
    """
    work = associator.pieces(observed, region)
    found = (
        _by_workers(work, observed, region, dask, slurm) if dask and work else _by_rank(work, observed, region, world)
    )
    gathered = world.gather(found)
    if gathered is None:
        return Settled([], {})
    return associator.settle([event for part in gathered for event in part], observed, region)


def _by_rank(work: list[Piece], observed: Observed, region: Region, world: World) -> list[Earthquake]:
    """This rank's part of the ``work``."""
    mine = share(work, _effort, world.size)[world.rank]
    progress, found = Progress("associated pieces", len(mine)), []
    for piece in mine:
        events = associator.solve(observed.take(piece.rows), piece, region)
        found += [event.shifted(piece.first) for event in events]
        progress.step(f"of {len(work)} on all ranks")
    return found


def _by_workers(
    work: list[Piece], observed: Observed, region: Region, dask: int | str | Path, slurm: tuple[Slurm, Path]
) -> list[Earthquake]:
    """All of the ``work``, done elsewhere."""
    from pipeline.cluster.dask import workers
    from pipeline.cluster.dask_slurm import Jobs

    given = [(observed.take(piece.rows), piece) for piece in work]
    with workers(dask, Jobs(*slurm)) as hands:
        solved = hands.map(associator.solve, given, region, [_effort(piece) for piece in work])
    return [event.shifted(piece.first) for piece, events in zip(work, solved, strict=True) for event in events]


def _effort(piece: Piece) -> float:
    return float(piece.stop - piece.first)


def catalogue(
    found: list[Earthquake], picks: Picks, observed: Observed, settings: Associate
) -> tuple[Events, Assignments]:
    """The events sorted by (time, id), and the picks of each in canonical order."""
    named = sorted(
        ((_name(e.time_ns, picks.take(e.picks)), e) for e in found), key=lambda named: (named[1].time_ns, named[0])
    )
    events = Events.concat([_event(name, e, observed.take(e.picks), settings) for name, e in named])
    return events, Assignments.concat(
        [_assigned(name, e, picks.take(e.picks), observed.take(e.picks)) for name, e in named]
    )


def _name(time_ns: int, picks: Picks) -> str:
    """An id made of the event's own picks: it changes only if they do."""
    lines = zip(picks.station.tolist(), picks.phase.tolist(), picks.time_ns.tolist(), strict=True)
    text = "\n".join(sorted(f"{station} {phase} {time}" for station, phase, time in lines))
    stamp = str(np.datetime64(time_ns, "ns").astype("datetime64[s]")).replace("-", "").replace(":", "")
    return f"e{stamp}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _event(name: str, e: Earthquake, observed: Observed, settings: Associate) -> Events:
    centre = settings.center_latitude_deg, settings.center_longitude_deg
    lat, lon = geo.geographic(e.x_km, e.y_km, *centre)
    at = np.unique(np.column_stack([observed.x_km, observed.y_km]), axis=0)
    station_lat, station_lon = geo.geographic(at[:, 0], at[:, 1], *centre)
    residual = associator.residual_log_amplitude(e, observed)
    known = residual[np.isfinite(residual)]
    row = {
        "id": name,
        "time_ns": e.time_ns,
        "latitude_deg": lat,
        "longitude_deg": lon,
        "depth_km": e.z_km,
        "magnitude": e.magnitude,
        "sigma_time_s": rules.rms_s(e),
        "n_p": (observed.phase == "P").sum(),
        "n_s": (observed.phase == "S").sum(),
        "n_stations": len(np.unique(observed.station)),
        "gap_deg": rules.gap_deg(e, observed),
        "nearest_km": geo.distance_km(lat, lon, station_lat, station_lon).min(),
        "score": e.score,
        "kind": "earthquake",
        "n_pairs": rules.n_pairs(observed),
        "sigma_log_amplitude": np.sqrt(np.mean(known**2)) if len(known) else np.nan,
    }
    kinds = {f.name: f.metadata["dtype"] for f in Events.columns()}
    return Events(**{k: np.array([v], np.str_ if kinds[k] == "str" else kinds[k]) for k, v in row.items()})


def _assigned(name: str, e: Earthquake, picks: Picks, observed: Observed) -> Assignments:
    event, residual = np.full(len(picks), name), associator.residual_log_amplitude(e, observed)
    return Assignments(event, picks.station, picks.phase, picks.time_ns, e.probability, e.residual_s, residual)


def check_account(n_picks: int, rows: list[Int], events: Events, assignments: Assignments) -> None:
    """Rows in = rows out: each pick in one event or in noise. Raises RuntimeError, for that would be a bug."""
    taken = np.concatenate([np.empty(0, np.int64), *rows])
    if len(np.unique(taken)) != len(taken) or not ((taken >= 0) & (taken < n_picks)).all():
        raise RuntimeError(f"of {n_picks} picks {len(taken)} are in events, {len(np.unique(taken))} different ones")
    counted = int((events.n_p + events.n_s).sum())
    if not counted == len(assignments) == len(taken):
        raise RuntimeError(f"{len(taken)} picks in events, {counted} counted, {len(assignments)} assigned")
    if len(np.unique(events.id)) != len(events):
        raise RuntimeError(f"{len(events)} events have {len(np.unique(events.id))} ids")
