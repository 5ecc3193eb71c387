"""Commands from the archive to picks: plan, pick, import-picks, update, retry, account."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from pipeline import config as configs
from pipeline.cluster import slurm, stop
from pipeline.cluster.world import World
from pipeline.commands.common import (
    COMPLETE,
    INCOMPLETE,
    Verbs,
    add_dask,
    complete,
    create_run,
    integer_from,
    one_stage,
    open_run,
    say,
    with_config,
    with_run_dir,
)
from pipeline.errors import ConfigError

log = logging.getLogger(__name__)
NAMED = 20  # shards of each kind


def add(verbs: Verbs) -> None:
    what = "list the station-days of the archive and the stations"
    sub = with_config(verbs.add_parser("plan", help=what, description=what), make_plan)
    sub.add_argument("--run-dir", type=Path, required=True, metavar="DIR", help="where the run lives")
    _add_estimate(sub)
    for name, what, function in (
        ("pick", "pick every station-day that has no result yet", run_pick),
        ("import-picks", "take the picks of pick.source instead of picking waveforms", run_import),
        ("update", "plan what came to the archive or changed there since the run was planned", run_update),
        ("retry", "forget that shards failed or were set aside: `orcolat pick` tries them again", run_retry),
        ("account", "collect what Slurm has on record of the run's jobs", run_account),
    ):
        sub = verbs.add_parser(name, help=what, description=what)
        with_run_dir(sub, function)
        if name == "pick":
            add_dask(sub)
        if name == "retry":
            sub.add_argument("shards", nargs="*", metavar="SHARD", help="2024-06-01/OX.CIMO..HH, ...; default: all")


def _add_estimate(sub: argparse.ArgumentParser) -> None:
    """How the run that `plan` estimates will be laid out."""
    sub.add_argument(
        "--ranks", type=integer_from(1), metavar="N", help="estimate for N ranks (default: as many as now)"
    )
    sub.add_argument("--gpus", type=integer_from(0), default=0, metavar="N", help="and N GPUs that score for them")
    sub.add_argument("--costs", type=Path, metavar="RUN_DIR", help="take the measured costs of another run")


def make_plan(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import estimate, plan

    config = configs.load(args.config, args.set)
    run_dir = create_run(args.run_dir, config, world)
    plan.run(run_dir, config, world)
    if world.rank == 0 and not config.pick.source:
        say(estimate.look(run_dir, config, args.ranks or world.size, args.gpus, args.costs))
    return COMPLETE


def run_pick(args: argparse.Namespace, world: World) -> int:
    with stop.listening():  # from the imports on: a signal that comes early or late must not end one rank alone
        from pipeline.stages import pick

        run_dir, config = open_run(args)
        if config.pick.source:
            raise ConfigError(f"{run_dir.root}: this run takes its picks from pick.source: run `orcolat import-picks`")
        tally = pick.run(run_dir, config, world)
        code = INCOMPLETE if tally["stopped"] else complete(run_dir, world)
        if world.rank == 0:
            if others := pick.with_others(run_dir, config):
                log.warning("%s", others)
            if code == INCOMPLETE and stop.asked() in stop.COMING_BACK:
                slurm.requeue(config.slurm.max_requeues if stop.asked() == stop.TIME_IS_UP else None)
    return code


def run_import(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import import_picks

    return one_stage(import_picks.run, args, world)


def run_update(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import update

    run_dir, config = open_run(args)
    found = update.run(run_dir, config, world)
    for what in ("new", "changed", "replaced", "gone"):
        ids: tuple[str, ...] = getattr(found, what)
        say("\n".join([f"{what:10} {len(ids)} shards", *(f"  {id_}" for id_ in ids[:NAMED])]), world)
    return COMPLETE


def run_retry(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import update

    run_dir, config = open_run(args)
    if world.rank == 0:
        n = len(update.retry(run_dir, config, args.shards))
        say(f"{n} shards are tried again by `orcolat pick {run_dir.root}`")
    world.bcast(None)
    return COMPLETE


def run_account(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import accounting

    run_dir, _ = open_run(args)
    if world.rank == 0:
        say(accounting.run(run_dir))
    world.bcast(None)
    return COMPLETE
