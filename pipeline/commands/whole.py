"""Commands that do a whole run: run, nightly, submit."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline import config as configs
from pipeline.cluster import stop
from pipeline.cluster.world import World
from pipeline.commands.common import (
    COMPLETE,
    INCOMPLETE,
    Verbs,
    add_dask,
    add_site,
    balanced,
    complete,
    create_run,
    gate_ended,
    say,
    say_summary,
    utc_day,
    with_config,
)
from pipeline.config import Config
from pipeline.errors import Incomplete, OrcolatError, is_storage, storage
from pipeline.rundir import RunDir, require_same


def add(verbs: Verbs) -> None:
    what = "plan, pick, associate, locate, compare, gate, report: everything that is missing"
    sub = with_config(verbs.add_parser("run", help=what, description=what), run)
    sub.add_argument("--run-dir", type=Path, required=True, metavar="DIR", help="where the run lives")
    add_dask(sub)
    _nightly_parser(verbs.add_parser("nightly", help="one day from the archive to the report, and a line on it"))
    _submit_parser(verbs.add_parser("submit", help="plan, and hand the rest in to Slurm"))


def _nightly_parser(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "Plan, pick, associate, locate, compare and report one UTC day, in a run directory of its own; run.start and "
        "run.end of the configuration do not count. One line on stdout says how it went; exit code 4: the gate failed. "
        "Run it again for a day that is incomplete: only what is missing is done."
    )
    with_config(sub, run_nightly)
    sub.add_argument(
        "--for",
        dest="day",
        type=lambda text: None if text == "yesterday" else utc_day(text),
        metavar="DAY",
        help="yesterday (in UTC; the default), or 2024-06-01",
    )
    sub.add_argument("--runs", type=Path, default=Path("runs/nightly"), metavar="DIR", help="default: runs/nightly")
    add_site(sub)


def _submit_parser(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "Plan the run, and hand in to Slurm what it still needs: an array of tasks that pick, then the events and "
        "their comparison, then the report. [slurm] of the configuration says how; a site file brings [slurm] and "
        "[compute] of one machine, which count instead of the configuration's. Handing in twice is safe."
    )
    with_config(sub, run_submit)
    sub.add_argument("--run-dir", type=Path, required=True, metavar="DIR", help="where the run lives")
    add_site(sub)
    sub.add_argument("--dry-run", action="store_true", help="plan, and only show the jobs")


def run(args: argparse.Namespace, world: World) -> int:
    config = configs.load(args.config, args.set)
    code = all_stages(RunDir(args.run_dir), config, world)
    say_summary(RunDir(args.run_dir), config, world)
    return code


def all_stages(run_dir: RunDir, config: Config, world: World, keep: bool = False) -> int:
    """Everything that is missing; the exit code. To ``keep`` the run is to enter it into the history of nights."""
    from pipeline.stages import plan

    if config.compute.dask:  # said before the picking, not after it
        from pipeline.cluster.dask import require_alone

        require_alone(world.size)
    create_run(run_dir.root, config, world)
    plan.run(run_dir, config, world)
    _pick(run_dir, config, world)
    from pipeline.stages import associate, compare, explain, gate, locate, report  # now: a rank that reads needs none

    associate.run(run_dir, config, world)
    locate.run(run_dir, config, world)
    compare.run(run_dir, config, world)
    explain.run(run_dir, config, world)
    gate.run(run_dir, config, world, keep)
    report.run(run_dir, config, world)
    return balanced(run_dir, world) or complete(run_dir, world)


def _pick(run_dir: RunDir, config: Config, world: World) -> None:
    """Raises Incomplete if shards are left that this process did not try."""
    from pipeline.stages import import_picks, pick

    if config.pick.source:
        import_picks.run(run_dir, config, world)
        return
    tally = pick.run(run_dir, config, world)
    if tally["stopped"]:
        raise Incomplete(f"{run_dir.root}: picking was stopped ({stop.asked() or 'see above'}): run it again")
    others = world.bcast(pick.with_others(run_dir, config) if world.rank == 0 else "")
    if others:
        raise Incomplete(f"{run_dir.root}: {others}: run it again after that")


def run_nightly(args: argparse.Namespace, world: World) -> int:
    """One UTC day, from the archive to the report. Its one line on stdout says how that went, whatever it was."""
    day = world.bcast(args.day or (datetime.now(UTC) - timedelta(days=1)).date())
    run_dir = RunDir(args.runs / f"{day:%Y-%m-%d}")
    try:
        config = configs.load(args.config, args.set, args.site).of_day(day)
        _require_history(run_dir, config, world)
        _notice_late(run_dir, config, world)
        code = all_stages(run_dir, config, world, True)
        ended, sentence = gate_ended(run_dir, world)
    except Exception as e:
        why = storage(e) if is_storage(e) else e
        what = str(why) if isinstance(why, OrcolatError) else f"{type(e).__name__}: {e}"
        say(f"{day:%Y-%m-%d} {'INCOMPLETE' if isinstance(why, Incomplete) else 'FAILED'}: {what}", world)
        raise
    state = {COMPLETE: "complete", INCOMPLETE: "INCOMPLETE"}.get(code, "FAILED")
    say(f"{day:%Y-%m-%d} {state}: {_verdict(run_dir, world)} {sentence} {run_dir.report}", world)
    return code or ended


def _require_history(run_dir: RunDir, config: Config, world: World) -> None:
    """Raises BadData or ConfigError now, and not after a night's work, if the history of nights cannot be used."""
    from pipeline.stages import gate

    if world.rank == 0:
        gate.require_history(run_dir, config)
    world.bcast(None)


def _notice_late(run_dir: RunDir, config: Config, world: World) -> None:
    """What arrived or changed since the day was planned is part of the plan now."""
    from pipeline.stages import update

    if world.bcast(run_dir.shards.exists() and not config.pick.source):
        require_same(run_dir, config)
        update.run(run_dir, config, world)


def _verdict(run_dir: RunDir, world: World) -> str:
    from pipeline.stages import report

    return world.bcast(report.verdict(run_dir) if world.rank == 0 else "")


def run_submit(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import estimate, plan, submit

    config = configs.load(args.config, args.set, args.site)
    run_dir = create_run(args.run_dir, config, world)
    plan.run(run_dir, config, world)
    if world.rank == 0:
        gpus = config.slurm.nodes * config.slurm.gpus_per_node if config.compute.device != "cpu" else 0
        picks = not config.pick.source
        wall_s = estimate.wall_s(run_dir, config, config.slurm.ranks, gpus) if picks else None
        say(submit.run(run_dir, config, wall_s, args.dry_run))
    world.bcast(None)
    return COMPLETE
