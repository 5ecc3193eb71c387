"""The command ``orcolat``: commands and exit codes, nothing else.

Exit codes: 0 complete, 3 incomplete (run again), 2 bad configuration or input, 1 a bug.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, get_args

from pipeline import config as configs
from pipeline import logs
from pipeline.cluster.world import World, here, one_fails_all_fail
from pipeline.config import Compute, Config, Pick
from pipeline.errors import ConfigError, Incomplete, OrcolatError
from pipeline.models import weights
from pipeline.rundir import RunDir, create, open_config, require_same

COMPLETE, BUG, BAD_INPUT, INCOMPLETE = 0, 1, 2, 3
log = logging.getLogger("pipeline")
PRECISIONS: tuple[str, ...] = get_args(Pick.model_fields["precision"].annotation)

EPILOG = """\
a run, step by step (each step is safe to repeat, does only what is missing, and works under `mpiexec -n N`):
  orcolat weights fetch phasenet/original           once, where there is internet
  orcolat config check configs/ridgecrest.toml      is the configuration right?
  orcolat run configs/ridgecrest.toml --run-dir runs/ridgecrest
which is the same as
  orcolat plan configs/ridgecrest.toml --run-dir runs/ridgecrest
  orcolat pick runs/ridgecrest; orcolat associate runs/ridgecrest
  orcolat compare runs/ridgecrest; orcolat report runs/ridgecrest

exit codes: 0 complete, 3 incomplete (run again), 2 bad configuration or input, 1 a bug
"""

PARITY = """\
Compare our picks with those of FP32 SeisBench on the CPU: the same weight, arguments and data.

A sample of the configuration's station-days, spread over stations and days, is read and given to both. SeisBench
sees our waveforms (merged, resampled, gaps cut out), so that a difference is one of the inference alone; with
--raw it sees the traces of the archive, and what our reading changes is included. Both see one UTC day, and no
stretch of data shorter than a window, which SeisBench would drop. Picks are pairs within 0.02 s.

A precision passes with F1 >= 0.995 for P and for S, and the check counts if SeisBench has at least 100 picks of
each. `orcolat plan` and `pick` refuse a precision other than fp32 without such a check for this weight and device.
A precision that the network does not offer on this machine is named, and the others are compared.

exit codes: 0 all passed, 2 one failed (or a wrong configuration), 3 too few picks to tell: take more station-days
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code, the same on every rank."""
    args = parser().parse_args(argv)
    world = here()
    logs.setup(world.rank, world.size, args.verbose)
    try:
        with one_fails_all_fail(world, exit_code):
            code: int = args.command(args, world)
            return code
    except OrcolatError as e:
        log.error("%s", e)
        return exit_code(e)


def exit_code(error: BaseException) -> int:
    """What the exit code for ``error`` is."""
    if isinstance(error, Incomplete):
        return INCOMPLETE
    return BAD_INPUT if isinstance(error, OrcolatError) else BUG


def say(text: str, world: World | None = None) -> None:
    """Results go to stdout, once; the log goes to stderr."""
    if world is None or world.rank == 0:
        sys.stdout.write(text.rstrip("\n") + "\n")
        sys.stdout.flush()


# The stages are imported where they are used: they bring torch, ObsPy and Matplotlib along, which take seconds,
# and `--help` or `config check` shall answer at once.


def run(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import plan

    config = configs.load(args.config, args.set)
    run_dir = _create(args.run_dir, config, world)
    plan.run(run_dir, config, world)
    _pick(run_dir, config, world)
    from pipeline.stages import associate, compare, report  # now: a rank that reads shall not carry them

    associate.run(run_dir, config, world)
    compare.run(run_dir, config, world)
    report.run(run_dir, config, world)
    return _summary(run_dir, config, world) or _complete(run_dir, world)


def make_plan(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import estimate, plan

    config = configs.load(args.config, args.set)
    run_dir = _create(args.run_dir, config, world)
    plan.run(run_dir, config, world)
    if world.rank == 0 and not config.pick.source:
        say(estimate.look(run_dir, config, args.ranks or world.size, args.gpus, args.costs))
    return COMPLETE


def run_pick(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import pick

    run_dir, config = _open(args)
    if config.pick.source:
        raise ConfigError(f"{run_dir.root}: this run takes its picks from pick.source: run `orcolat import-picks`")
    pick.run(run_dir, config, world)
    return _complete(run_dir, world)


def run_import(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import import_picks

    return _stage(import_picks.run, args, world)


def run_associate(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import associate

    return _stage(associate.run, args, world)


def run_compare(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import compare

    return _stage(compare.run, args, world)


def run_report(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import report

    run_dir, config = _open(args)
    report.run(run_dir, config, world)
    return _summary(run_dir, config, world)


def run_status(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import status

    run_dir, config = _open(args)
    complete, text = world.bcast(status.look(run_dir, config) if world.rank == 0 else (True, ""))
    say(text, world)
    return COMPLETE if complete else INCOMPLETE


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
    from pipeline.stages import import_picks, pick

    stage = import_picks.run if config.pick.source else pick.run
    stage(run_dir, config, world)


def _summary(run_dir: RunDir, config: Config, world: World) -> int:
    """Print the account and the scores; 1 if the account does not balance, for that is a bug."""
    from pipeline.stages import report

    if world.rank == 0:
        say(report.summary(run_dir, config))
    return BUG if world.bcast(bool(report.breaches(run_dir)) if world.rank == 0 else False) else COMPLETE


def _complete(run_dir: RunDir, world: World) -> int:
    """0 if every planned shard has a result, else 3."""
    from pipeline.stages import status

    return INCOMPLETE if world.bcast(bool(status.unpicked(run_dir)) if world.rank == 0 else False) else COMPLETE


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="orcolat",
        description="From continuous waveforms to an earthquake catalogue, and how it compares with the analysts' one.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("-v", "--verbose", action="store_true", help="log details")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, what, function in (
        ("run", "plan, pick, associate, compare, report: everything that is missing", run),
        ("plan", "list the station-days of the archive and the stations", make_plan),
    ):
        sub = _with_config(commands.add_parser(name, help=what, description=what), function)
        sub.add_argument("--run-dir", type=Path, required=True, metavar="DIR", help="where the run lives")
    _add_estimate(sub)  # of `plan`, the last
    for name, what, function in (
        ("pick", "pick every station-day that has no result yet", run_pick),
        ("import-picks", "take the picks of pick.source instead of picking waveforms", run_import),
        ("associate", "make events of the picks", run_associate),
        ("compare", "compare events and picks with the reference", run_compare),
        ("report", "write report/index.html and print the account", run_report),
        ("status", "say what is done and what is missing; exit code 3 if anything is", run_status),
    ):
        _with_run_dir(commands.add_parser(name, help=what, description=what), function)
    _parity_parser(commands.add_parser("parity", help="compare picks with FP32 SeisBench, any precision and device"))
    sub = commands.add_parser("demo", help="write the synthetic demo archive")
    sub.add_argument("folder", type=Path, metavar="DIR", help="new folder for the archive")
    sub.add_argument("--seed", type=int, help="seed of the random numbers (default: the year 1976)")
    sub.set_defaults(command=run_demo)
    _weights_parser(commands.add_parser("weights", help="the pretrained pickers in the local store"))
    _config_parser(commands.add_parser("config", help="check or show a configuration"))
    return top


def _parity_parser(sub: argparse.ArgumentParser) -> None:
    _with_config(sub, run_parity)
    sub.description = PARITY
    sub.formatter_class = argparse.RawDescriptionHelpFormatter
    sub.add_argument(
        "--precision",
        type=_listed(str, PRECISIONS),
        default=(),
        metavar="NAMES",
        help=f"of {', '.join(PRECISIONS)}, by commas (default: fp32 and that of the configuration)",
    )
    sub.add_argument(
        "--stations", type=_listed(str), default=(), metavar="PATTERNS", help='"CI.*,PB.B9*" (default: all)'
    )
    sub.add_argument(
        "--days",
        type=_listed(_day),
        default=(),
        metavar="DAYS",
        help='"2024-06-01,2024-06-08" (default: all)',
    )
    sub.add_argument("--limit", type=_from(1), default=20, metavar="N", help="station-days at most (default: 20)")
    sub.add_argument("--raw", action="store_true", help="give SeisBench the archive's traces, not our waveforms")
    sub.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    sub.add_argument("--record", type=Path, metavar="FILE", help="record the checks there, not in the store of weights")


def _listed(kind: Callable[[str], Any], allowed: tuple[str, ...] = ()) -> Callable[[str], tuple[Any, ...]]:
    """Parser of values with commas between."""

    def parse(text: str) -> tuple[Any, ...]:
        values = tuple(dict.fromkeys(kind(part.strip()) for part in text.split(",")))
        wrong = [value for value in values if allowed and value not in allowed]
        if wrong:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(allowed)}")
        return values

    return parse


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"{text!r} is no day: write 2024-06-01") from e


def _add_estimate(sub: argparse.ArgumentParser) -> None:
    """How the run that `plan` estimates will be laid out."""
    sub.add_argument("--ranks", type=_from(1), metavar="N", help="estimate for N ranks (default: as many as now)")
    sub.add_argument("--gpus", type=_from(0), default=0, metavar="N", help="and N GPUs that score for them")
    sub.add_argument("--costs", type=Path, metavar="RUN_DIR", help="take the measured costs of another run")


def _from(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        if not text.strip().isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no integer of at least {least}")
        return int(text)

    return integer


def _weights_parser(sub: argparse.ArgumentParser) -> None:
    sub.description = "The store is $ORCOLAT_WEIGHTS, or the user's cache. Nothing is ever downloaded during a run."
    verbs = sub.add_subparsers(title="commands", required=True, metavar="COMMAND")
    verbs.add_parser("list", help="names, state, licence").set_defaults(command=list_weights)
    fetch = verbs.add_parser("fetch", help="download, check and convert (needs internet)")
    fetch.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="phasenet/original, seisbench:PhaseNet/instance, ..., or a configuration: what it needs",
    )
    fetch.set_defaults(command=fetch_weights)
    verify = verbs.add_parser("verify", help="compare the files with their checksums")
    verify.add_argument("names", nargs="*", metavar="NAME", help="default: all that are there")
    verify.set_defaults(command=verify_weights)


def _config_parser(sub: argparse.ArgumentParser) -> None:
    verbs = sub.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _with_config(verbs.add_parser("check", help="is it valid?"), check_config)
    _with_config(verbs.add_parser("show", help="print it with every default filled in"), show_config)


def _with_config(sub: argparse.ArgumentParser, function: object) -> argparse.ArgumentParser:
    sub.add_argument("config", type=Path, metavar="CONFIG", help="TOML file")
    _add_set(sub)
    sub.set_defaults(command=function)
    return sub


def _with_run_dir(sub: argparse.ArgumentParser, function: object) -> None:
    sub.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a directory made by `orcolat plan` or `run`")
    sub.add_argument("--config", type=Path, help="refuse the run directory unless it was made with this file")
    _add_set(sub)
    sub.set_defaults(command=function)


def _add_set(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, for example compute.threads=4"
    )
