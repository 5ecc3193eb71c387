"""What each command does: it opens the run, calls the stages, says what came out; its value is the exit code."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline import config as configs
from pipeline.cluster import slurm, stop
from pipeline.cluster.world import World
from pipeline.config import Compute, Config, Pick
from pipeline.errors import ConfigError, Incomplete, OrcolatError
from pipeline.models import weights
from pipeline.rundir import RunDir, create, of_associator, open_config, require_same, share_picks

log = logging.getLogger(__name__)
COMPLETE, BUG, BAD_INPUT, INCOMPLETE = 0, 1, 2, 3
NAMED = 20  # shards of each kind


def say(text: str, world: World | None = None) -> None:
    """Results go to stdout, once; the log goes to stderr."""
    if world is None or world.rank == 0:
        sys.stdout.write(text.rstrip("\n") + "\n")
        sys.stdout.flush()


# The stages are imported where they are used: they bring torch, ObsPy and Matplotlib along, which take seconds,
# and `--help` or `config check` shall answer at once.


def run(args: argparse.Namespace, world: World) -> int:
    config = configs.load(args.config, args.set)
    code = _all_stages(RunDir(args.run_dir), config, world)
    _say_summary(RunDir(args.run_dir), config, world)
    return code


def _all_stages(run_dir: RunDir, config: Config, world: World) -> int:
    """Everything that is missing; the exit code."""
    from pipeline.stages import plan

    if config.compute.dask:  # said before the picking, not after it
        from pipeline.cluster.dask import require_alone

        require_alone(world.size)
    _create(run_dir.root, config, world)
    plan.run(run_dir, config, world)
    _pick(run_dir, config, world)
    from pipeline.stages import associate, compare, report  # now: a rank that reads shall not carry them

    associate.run(run_dir, config, world)
    compare.run(run_dir, config, world)
    report.run(run_dir, config, world)
    return _balanced(run_dir, world) or _complete(run_dir, world)


def make_plan(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import estimate, plan

    config = configs.load(args.config, args.set)
    run_dir = _create(args.run_dir, config, world)
    plan.run(run_dir, config, world)
    if world.rank == 0 and not config.pick.source:
        say(estimate.look(run_dir, config, args.ranks or world.size, args.gpus, args.costs))
    return COMPLETE


def run_pick(args: argparse.Namespace, world: World) -> int:
    with stop.listening():  # from the imports on: a signal that comes early or late must not end one rank alone
        from pipeline.stages import pick

        run_dir, config = _open(args)
        if config.pick.source:
            raise ConfigError(f"{run_dir.root}: this run takes its picks from pick.source: run `orcolat import-picks`")
        tally = pick.run(run_dir, config, world)
        code = INCOMPLETE if tally["stopped"] else _complete(run_dir, world)
        if world.rank == 0:
            if others := pick.with_others(run_dir):
                log.warning("%s", others)
            if code == INCOMPLETE and stop.asked() in stop.COMING_BACK:
                slurm.requeue(config.slurm.max_requeues if stop.asked() == stop.TIME_IS_UP else None)
    return code


def run_update(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import update

    run_dir, config = _open(args)
    found = update.run(run_dir, config, world)
    for what in ("new", "changed", "replaced", "gone"):
        ids: tuple[str, ...] = getattr(found, what)
        say("\n".join([f"{what:10} {len(ids)} shards", *(f"  {id_}" for id_ in ids[:NAMED])]), world)
    return COMPLETE


def run_retry(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import update

    run_dir, config = _open(args)
    if world.rank == 0:
        n = len(update.retry(run_dir, config, args.shards))
        say(f"{n} shards are tried again by `orcolat pick {run_dir.root}`")
    world.bcast(None)
    return COMPLETE


def run_submit(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import estimate, plan, submit

    config = configs.load(args.config, args.set, args.site)
    run_dir = _create(args.run_dir, config, world)
    plan.run(run_dir, config, world)
    if world.rank == 0:
        gpus = config.slurm.nodes * config.slurm.gpus_per_node if config.compute.device != "cpu" else 0
        picks = not config.pick.source
        wall_s = estimate.wall_s(run_dir, config, config.slurm.ranks, gpus) if picks else None
        say(submit.run(run_dir, config, wall_s, args.dry_run))
    world.bcast(None)
    return COMPLETE


def run_account(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import accounting

    run_dir, _ = _open(args)
    if world.rank == 0:
        say(accounting.run(run_dir))
    world.bcast(None)
    return COMPLETE


def run_nightly(args: argparse.Namespace, world: World) -> int:
    """One UTC day, from the archive to the report. Its one line on stdout says how that went, whatever it was."""
    day = world.bcast(args.day or (datetime.now(UTC) - timedelta(days=1)).date())
    run_dir = RunDir(args.runs / f"{day:%Y-%m-%d}")
    try:
        config = configs.load(args.config, args.set, args.site).of_day(day)
        _notice_late(run_dir, config, world)
        code = _all_stages(run_dir, config, world)
    except Exception as e:
        what = str(e) if isinstance(e, OrcolatError) else f"{type(e).__name__}: {e}"
        say(f"{day:%Y-%m-%d} {'INCOMPLETE' if isinstance(e, Incomplete) else 'FAILED'}: {what}", world)
        raise
    state = {COMPLETE: "complete", INCOMPLETE: "INCOMPLETE"}.get(code, "FAILED")
    say(f"{day:%Y-%m-%d} {state}: {_verdict(run_dir, world)} {run_dir.report}", world)
    return code


def _notice_late(run_dir: RunDir, config: Config, world: World) -> None:
    """What arrived or changed since the day was planned is part of the plan now."""
    from pipeline.stages import update

    if world.bcast(run_dir.shards.exists() and not config.pick.source):
        require_same(run_dir, config)
        update.run(run_dir, config, world)


def _verdict(run_dir: RunDir, world: World) -> str:
    from pipeline.stages import report

    return world.bcast(report.verdict(run_dir) if world.rank == 0 else "")


def run_import(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import import_picks

    return _stage(import_picks.run, args, world)


def run_associate(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import associate

    run_dir, config = _open(args)
    if args.associator:
        here, config = of_associator(run_dir, config, args.associator)
        if world.rank == 0:
            share_picks(run_dir, here, config)
        run_dir = world.bcast(here)
    associate.run(run_dir, config, world)
    return COMPLETE


def run_compare(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import compare

    run_dir, config = _open(args)
    if args.associators:
        name, reference = args.associators
        say(compare.associators(run_dir, config, name, reference, world), world)
    else:
        compare.run(run_dir, config, world)
    return COMPLETE


def run_report(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import report

    run_dir, config = _open(args)
    report.run(run_dir, config, world)
    return _summary(run_dir, config, world)


def run_audit(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import audit

    run_dir, config = _open(args)
    complete, text = world.bcast(audit.run(run_dir, config, not args.no_scan) if world.rank == 0 else (True, ""))
    say(text, world)
    return COMPLETE if complete else INCOMPLETE


def run_status(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import status

    run_dir, config = _open(args)
    complete, text = world.bcast(status.look(run_dir, config) if world.rank == 0 else (True, ""))
    say(text, world)
    return COMPLETE if complete else INCOMPLETE


def run_doctor(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import doctor

    findings = doctor.run(doctor.Asked(args.config, tuple(args.set), args.site, args.run_dir), world)
    healthy, text = doctor.verdict(findings, args.json)
    say(text, world)
    return COMPLETE if healthy else BAD_INPUT


def run_demo(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import demo

    if world.rank == 0:
        say(f"demo archive: {demo.write_demo(args.folder, demo.SEED if args.seed is None else args.seed)}")
    world.bcast(None)
    return COMPLETE


def run_parity(args: argparse.Namespace, world: World) -> int:
    from pipeline.models import checked
    from pipeline.stages import parity

    config = configs.load(args.config, args.set)
    wanted = parity.Wanted(args.precision, args.stations, args.days, args.limit, args.raw)
    if world.rank == 0:
        parity.require_targets(config, args.json, args.record)
    reports = parity.run(config, wanted, world)
    checks = [check for report in reports for check in report.checks]
    if world.rank == 0:
        say("\n\n".join(parity.text(report) for report in reports))
        if args.json:
            parity.write_json(reports, args.json)
        say(f"recorded in {', '.join(map(str, checked.record(checks, args.record)))}")
    failed, few = not all(check.agrees for check in checks), not all(check.counts for check in checks)
    return world.bcast(BAD_INPUT if failed else INCOMPLETE if few else COMPLETE)


def list_weights(args: argparse.Namespace, world: World) -> int:
    say(f"store: {weights.store()}", world)
    for row in weights.available():
        say(f"{row.name:28} {row.state:12} {(row.sha256 or '-')[:16]:16}  {row.licence}  {row.citation}", world)
    return COMPLETE


def fetch_weights(args: argparse.Namespace, world: World) -> int:
    from pipeline.models.picker import Pickers

    for name in args.names:
        pick = configs.load(Path(name)).pick if name.endswith(".toml") else Pick().model_copy(update={"weight": name})
        if world.rank == 0 and pick.weights:
            for weight in pick.weights:
                say(f"{weight}: {weights.fetch(weight)}")
            Pickers.of(pick.model_copy(update={"precision": "fp32"}), Compute())  # refuses what could not be run
    world.bcast(None)
    return COMPLETE


def verify_weights(args: argparse.Namespace, world: World) -> int:
    for name in args.names or [row.name for row in weights.available() if row.state != "not fetched"]:
        say(f"{name}: sha256 {weights.verify(name)} ok", world)
    return COMPLETE


def check_config(args: argparse.Namespace, world: World) -> int:
    config = configs.load(args.config, args.set)
    say(f"{args.config}: valid, digest {config.digest}", world)
    return COMPLETE


def show_config(args: argparse.Namespace, world: World) -> int:
    say(configs.dumps(configs.load(args.config, args.set)), world)
    return COMPLETE


def _stage(stage: Callable[[RunDir, Config, World], None], args: argparse.Namespace, world: World) -> int:
    """One stage on the run directory of the command line."""
    run_dir, config = _open(args)
    stage(run_dir, config, world)
    return COMPLETE


def _create(root: Path, config: Config, world: World) -> RunDir:
    if world.rank == 0:
        create(root, config)
    world.bcast(None)
    return RunDir(root)


def _open(args: argparse.Namespace) -> tuple[RunDir, Config]:
    """The run directory and its saved configuration, ``--set compute...`` applied."""
    open_config(args.run_dir)
    config = configs.load(args.config or RunDir(args.run_dir).config, args.set)
    require_same(RunDir(args.run_dir), config)
    return RunDir(args.run_dir), config


def _pick(run_dir: RunDir, config: Config, world: World) -> None:
    """Raises Incomplete if shards are left that this process did not try."""
    from pipeline.stages import import_picks, pick

    if config.pick.source:
        import_picks.run(run_dir, config, world)
        return
    tally = pick.run(run_dir, config, world)
    if tally["stopped"]:
        raise Incomplete(f"{run_dir.root}: picking was stopped ({stop.asked() or 'see above'}): run it again")
    others = world.bcast(pick.with_others(run_dir) if world.rank == 0 else "")
    if others:
        raise Incomplete(f"{run_dir.root}: {others}: run it again after that")


def _summary(run_dir: RunDir, config: Config, world: World) -> int:
    """Print the account and the scores; 1 if the account does not balance, for that is a bug."""
    _say_summary(run_dir, config, world)
    return _balanced(run_dir, world)


def _say_summary(run_dir: RunDir, config: Config, world: World) -> None:
    from pipeline.stages import report

    if world.rank == 0:
        say(report.summary(run_dir, config))


def _balanced(run_dir: RunDir, world: World) -> int:
    from pipeline.stages import report

    return BUG if world.bcast(bool(report.breaches(run_dir)) if world.rank == 0 else False) else COMPLETE


def _complete(run_dir: RunDir, world: World) -> int:
    """0 if every planned shard has a result, else 3."""
    from pipeline.stages import status

    return INCOMPLETE if world.bcast(bool(status.unpicked(run_dir)) if world.rank == 0 else False) else COMPLETE
