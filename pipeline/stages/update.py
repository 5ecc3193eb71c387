"""Stage `update`: what `pick` is to do once more: shards whose files came or changed after the plan, or that failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from functools import partial

import numpy as np

from pipeline.cluster.claims import Claims
from pipeline.cluster.world import World
from pipeline.config import Config
from pipeline.errors import ConfigError, Incomplete
from pipeline.formats import network_hours, network_plans, planning, results, stations, tables, todo, tries
from pipeline.maths.late import Late, late, merged
from pipeline.records import Shards
from pipeline.rundir import RunDir, of_networks, of_pickers, publish


def run(run_dir: RunDir, config: Config, world: World) -> Late:
    """Bring the plan up to what the archive holds now. Returns what was late; only rank 0 works.

    Volumes keep their days, new ones come where there was none, and a shard that is not late keeps its result. Raises
    Incomplete while other processes work on the run, ConfigError as planning does.
    """
    return world.bcast(_run(run_dir, config) if world.rank == 0 else Late())


def look(run_dir: RunDir, config: Config) -> tuple[Shards, Shards, Late]:
    """The plan, what would be planned now, and what is late; nothing is changed. Raises as `run`."""
    if config.pick.source:
        raise ConfigError(
            f"{run_dir.root}: this run takes its picks from pick.source: there are no waveforms to update"
        )
    planned = results.planned(run_dir)
    sites = stations.read(config.stations.files, config.stations.include, config.stations.exclude)
    now = planning.plan_shards(config, sites)
    return planned, now, late(planned, now, config.archive.all_bands)


def _run(run_dir: RunDir, config: Config) -> Late:
    with alone(run_dir, config):
        planned, now, found = look(run_dir, config)
        if found.any:
            replan(run_dir, config, planned, merged(planned, now, found), found)
    return found


@contextmanager
def alone(run_dir: RunDir, config: Config) -> Iterator[None]:
    """Raises Incomplete if another process picks, folds or updates; whoever begins meanwhile stops."""
    with ExitStack() as all_:
        for dirs in crews(run_dir, config):
            timeout_s, planned = config.compute.claim_timeout_s, results.planned(dirs[0])
            claims = all_.enter_context(Claims(dirs[0].claims, timeout_s, partial(results.blame, dirs, planned)))
            claims.settle(todo.UPDATE)
            if claims.take(todo.UPDATE) is None:
                raise Incomplete(f"{run_dir.root}: {claims.holder(todo.UPDATE)} is updating this run: wait for it")
            require_free(run_dir, claims)
        yield


def crews(run_dir: RunDir, config: Config) -> list[list[RunDir]]:
    """The run directories of the pickers that work side by side; the claims lie in the first of each."""
    stations, networks = config.of_stations, list[RunDir](hours for hours, _ in of_networks(run_dir, config))
    beside = [[each for each, _ in of_pickers(run_dir, stations)]] if stations else []
    return [*beside, *([each] for each in networks)]


def require_free(run_dir: RunDir, claims: Claims) -> None:
    """Raises Incomplete if a process picks or folds. Whoever begins now sees our claim, and stops."""
    for name in claims.names():
        if name != todo.UPDATE and not claims.settle(name):
            raise Incomplete(
                f"{run_dir.root}: {claims.holder(name)} works on this run: update it when nobody does (a process that "
                "died elsewhere counts as dead once it gave no sign for compute.claim_timeout_s)"
            )


def replan(run_dir: RunDir, config: Config, planned: Shards, plan: Shards, found: Late) -> None:
    """Publish ``plan`` after the volumes that are no longer what they were have been taken apart."""
    sites = stations.read(config.stations.files, config.stations.include, config.stations.exclude)
    again = {*found.changed, *found.replaced}
    days = {id_[:10] for id_ in (*found.new, *again)}
    volume_of = {
        d: v for each in (planned, plan) for d, v in zip(each.day.tolist(), each.volumes.tolist(), strict=True)
    }
    dirs = [each for each, _ in of_pickers(run_dir, config)]
    for each in dirs:
        for volume in sorted({volume_of[day] for day in days}):
            results.unfold(each, date.fromisoformat(volume))
    for each in dirs:  # the run itself first: what it lacks is picked for all, also if this process is killed here
        results.take_back(each, sorted(again))
    for hours, alone in of_networks(run_dir, config):  # where one station is not what it was, all hear another
        rows = results.planned(hours.home)
        results.take_back(hours.home, [shard.id for shard in rows.take(np.isin(rows.day, sorted(days))).rows()])
        network_hours.reopen(hours, days)
        with publish(hours.shards) as part:
            tables.write(part, network_plans.hours(alone, network_plans.plan_for(alone.pick, plan)))
    for each, config_of in reversed(of_pickers(run_dir, config)):  # and here last: its plan says that all is done
        with publish(each.stations) as part:
            tables.write(part, sites)
        with publish(each.shards) as part:
            tables.write(part, network_plans.plan_for(config_of.pick, plan))


def retry(run_dir: RunDir, config: Config, ids: Sequence[str] = ()) -> list[str]:
    """Forget that the shards ``ids``, or all, failed or were set aside. Returns them.

    Raises ConfigError for any other, Incomplete while other processes work on the run.
    """
    with alone(run_dir, config):
        found = [hours for hours, _ in of_networks(run_dir, config)]
        networks = [(hours, {note.shard for note in results.notes(hours.home)}) for hours in found]
        failed = {note.shard for note in results.notes(run_dir)}.union(*(own for _, own in networks))
        wanted = sorted(ids or failed)
        if strangers := [id_ for id_ in wanted if id_ not in failed]:
            raise ConfigError(f"{run_dir.root}: these have not failed: {', '.join(strangers)}; see `orcolat status`")
        plan = results.planned(run_dir)
        for hours, own in networks:  # first: the notes tell what is to be done, if this process is killed here
            network_hours.reopen(hours, {id_[:10] for id_ in own.intersection(wanted)})
        for each, _ in of_pickers(run_dir, config):
            for volume in np.unique(plan.take(plan.rows_of(wanted)).volumes).tolist():
                results.unfold(each, date.fromisoformat(volume))
            tries.forget(each, wanted)
    return wanted
