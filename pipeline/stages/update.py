"""Stage `update`: what `pick` is to do once more: shards whose files came or changed after the plan, or that failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial

import numpy as np

from pipeline.cluster.claims import Claims
from pipeline.cluster.world import World
from pipeline.config import Config
from pipeline.errors import ConfigError, Incomplete
from pipeline.formats import planning, results, stations, tables, todo, tries
from pipeline.maths.late import Late, late, merged
from pipeline.records import Shards
from pipeline.rundir import RunDir, of_pickers, publish


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
    dirs, planned = [each for each, _ in of_pickers(run_dir, config)], results.planned(run_dir)
    with Claims(run_dir.claims, config.compute.claim_timeout_s, partial(results.blame, dirs, planned)) as claims:
        claims.settle(todo.UPDATE)
        if claims.take(todo.UPDATE) is None:
            raise Incomplete(f"{run_dir.root}: {claims.holder(todo.UPDATE)} is updating this run: wait for it")
        require_free(run_dir, claims)
        yield


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
    for each in reversed(dirs):  # and here last: its plan says that all is done
        with publish(each.stations) as part:
            tables.write(part, sites)
        with publish(each.shards) as part:
            tables.write(part, plan)


def retry(run_dir: RunDir, config: Config, ids: Sequence[str] = ()) -> list[str]:
    """Forget that the shards ``ids``, or all, failed or were set aside. Returns them.

    Raises ConfigError for any other, Incomplete while other processes work on the run.
    """
    with alone(run_dir, config):
        failed = {note.shard for note in results.notes(run_dir)}
        wanted = sorted(ids or failed)
        if strangers := [id_ for id_ in wanted if id_ not in failed]:
            raise ConfigError(f"{run_dir.root}: these have not failed: {', '.join(strangers)}; see `orcolat status`")
        plan = results.planned(run_dir)
        for each, _ in of_pickers(run_dir, config):
            for volume in np.unique(plan.take(plan.rows_of(wanted)).volumes).tolist():
                results.unfold(each, date.fromisoformat(volume))
            tries.forget(each, wanted)
    return wanted
