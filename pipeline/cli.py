"""The command ``orcolat``: what can be written on the command line, and exit codes. `commands` does the rest.

Exit codes: 0 complete, 3 incomplete (run again), 2 bad configuration or input, 1 a bug.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, get_args

from pipeline import commands, logs
from pipeline.cluster.world import here, one_fails_all_fail
from pipeline.commands import BAD_INPUT, BUG, INCOMPLETE
from pipeline.config import Associate, Pick, is_no_path
from pipeline.errors import Incomplete, OrcolatError, is_storage, storage

log = logging.getLogger("pipeline")
ASSOCIATORS: tuple[str, ...] = get_args(Associate.model_fields["associator"].annotation)
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
            world.leave(code)
            return code
    except OrcolatError as e:
        log.error("%s", e)
        return exit_code(e)
    except OSError as e:
        if not is_storage(e):
            raise
        log.error("%s", storage(e))
        return exit_code(e)


def exit_code(error: BaseException) -> int:
    """What the exit code for ``error`` is."""
    if isinstance(error, Incomplete) or is_storage(error):
        return INCOMPLETE
    return BAD_INPUT if isinstance(error, OrcolatError) else BUG


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="orcolat",
        description="From continuous waveforms to an earthquake catalogue, and how it compares with the analysts' one.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("-v", "--verbose", action="store_true", help="log details")
    verbs = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, what, function in (
        ("run", "plan, pick, associate, compare, report: everything that is missing", commands.run),
        ("plan", "list the station-days of the archive and the stations", commands.make_plan),
    ):
        sub = _with_config(verbs.add_parser(name, help=what, description=what), function)
        sub.add_argument("--run-dir", type=Path, required=True, metavar="DIR", help="where the run lives")
        if name == "run":
            _add_dask(sub)
    _add_estimate(sub)  # of `plan`, the last
    _submit_parser(verbs.add_parser("submit", help="plan, and hand the rest in to Slurm"))
    _nightly_parser(verbs.add_parser("nightly", help="one day from the archive to the report, and a line on it"))
    for name, what, function in (
        ("pick", "pick every station-day that has no result yet", commands.run_pick),
        ("update", "plan what came to the archive or changed there since the run was planned", commands.run_update),
        ("import-picks", "take the picks of pick.source instead of picking waveforms", commands.run_import),
        ("report", "write report/index.html and print the account", commands.run_report),
        ("account", "collect what Slurm has on record of the run's jobs", commands.run_account),
        ("status", "say what is done and what is missing; exit code 3 if anything is", commands.run_status),
    ):
        sub = verbs.add_parser(name, help=what, description=what)
        _with_run_dir(sub, function)
        if name == "pick":
            _add_dask(sub)
    what = "forget that shards failed or were set aside: `orcolat pick` tries them again"
    sub = verbs.add_parser("retry", help=what, description=what)
    _with_run_dir(sub, commands.run_retry)
    sub.add_argument("shards", nargs="*", metavar="SHARD", help="2024-06-01/OX.CIMO..HH, ...; default: all")
    _audit_parser(verbs.add_parser("audit", help="account for every station-day: picked, or why not"))
    _add_associators(verbs.add_parser("associate", help="make events of the picks"))
    _add_compared(verbs.add_parser("compare", help="compare with the reference, or one associator with another"))
    _doctor_parser(verbs.add_parser("doctor", help="is this machine fit for a run?"))
    _parity_parser(verbs.add_parser("parity", help="compare picks with FP32 SeisBench, any precision and device"))
    sub = verbs.add_parser("demo", help="write the synthetic demo archive")
    sub.add_argument("folder", type=Path, metavar="DIR", help="new folder for the archive")
    sub.add_argument("--seed", type=int, help="seed of the random numbers (default: the year 1976)")
    sub.set_defaults(command=commands.run_demo)
    _weights_parser(verbs.add_parser("weights", help="the pretrained pickers in the local store"))
    _config_parser(verbs.add_parser("config", help="check or show a configuration"))
    return top


def _audit_parser(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "Account for every station-day of the run: shards planned = picked + empty + failed + set aside + missing, by "
        "station and by day, and each day of a station without picks with its reason. Writes audit/index.html (with a "
        "map of stations and days) and audit/audit.json, a summary to stdout. Exit code 0: every planned shard has "
        "ended well and no file is late; else 3, also if nobody could look for late files."
    )
    sub.add_argument("--no-scan", action="store_true", help="do not look through the archive for late files")
    _with_run_dir(sub, commands.run_audit)


def _submit_parser(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "Plan the run, and hand in to Slurm what it still needs: an array of tasks that pick, then the events and "
        "their comparison, then the report. [slurm] of the configuration says how; a site file brings [slurm] and "
        "[compute] of one machine, which count instead of the configuration's. Handing in twice is safe."
    )
    _with_config(sub, commands.run_submit)
    sub.add_argument("--run-dir", type=Path, required=True, metavar="DIR", help="where the run lives")
    _add_site(sub)
    sub.add_argument("--dry-run", action="store_true", help="plan, and only show the jobs")


def _nightly_parser(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "Plan, pick, associate, compare and report one UTC day, in a run directory of its own; run.start and run.end "
        "of the configuration do not count. One line on stdout says how it went. Run it again for a day that is "
        "incomplete: only what is missing is done."
    )
    _with_config(sub, commands.run_nightly)
    sub.add_argument(
        "--for",
        dest="day",
        type=lambda text: None if text == "yesterday" else _day(text),
        metavar="DAY",
        help="yesterday (in UTC; the default), or 2024-06-01",
    )
    sub.add_argument("--runs", type=Path, default=Path("runs/nightly"), metavar="DIR", help="default: runs/nightly")
    _add_site(sub)


def _add_site(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--site", type=Path, metavar="FILE", help="TOML file with [slurm] and [compute] of this machine")


def _add_associators(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "Make events of the picks. With --associator another associator than that of the configuration makes a second "
        "catalogue of the same picks, in RUN_DIR/associators/NAME, a run directory of its own: `orcolat compare` and "
        "`report` work there, too."
    )
    sub.add_argument(
        "--associator", choices=ASSOCIATORS, metavar="NAME", help=f"{', '.join(ASSOCIATORS)} (default: the run's own)"
    )
    _add_dask(sub)
    _with_run_dir(sub, commands.run_associate)


def _add_compared(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "Compare events and picks with the reference of the configuration. With --associators the reference is the "
        "catalogue of another associator of the same run: all events of both, and the picks in them, are compared. The "
        "tables and the scorecard go to RUN_DIR/associators/NAME-against-REFERENCE/compare, a summary to stdout."
    )
    sub.add_argument(
        "--associators",
        nargs=2,
        choices=ASSOCIATORS,
        metavar=("NAME", "REFERENCE"),
        help=f"two of {', '.join(ASSOCIATORS)}; each needs a catalogue, see `orcolat associate --help`",
    )
    _with_run_dir(sub, commands.run_compare)


def _doctor_parser(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "Look at this machine, or under mpiexec or srun at all nodes: MPI, what each rank does and on which GPU, "
        "PyTorch, compiler, caches, memory, scratch, limits, and the file system of the run directory; with CONFIG "
        "also at its weights, archive, stations and reference, and whether Slurm would take its jobs. One line a "
        "check: ok, warn or FAIL, what was found, and the remedy. Exit code 2 if any is FAIL."
    )
    sub.add_argument("config", type=Path, nargs="?", metavar="CONFIG", help="TOML file")
    sub.add_argument("--run-dir", type=Path, metavar="DIR", help="where a run lives or will live (default: here)")
    sub.add_argument("--json", action="store_true", help="the findings as JSON")
    _add_site(sub)
    _add_set(sub)
    sub.set_defaults(command=commands.run_doctor)


def _parity_parser(sub: argparse.ArgumentParser) -> None:
    _with_config(sub, commands.run_parity)
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
    verbs.add_parser("list", help="names, state, licence").set_defaults(command=commands.list_weights)
    fetch = verbs.add_parser("fetch", help="download, check and convert (needs internet)")
    fetch.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="phasenet/original, seisbench:PhaseNet/instance, ..., or a configuration: what it needs",
    )
    fetch.set_defaults(command=commands.fetch_weights)
    verify = verbs.add_parser("verify", help="compare the files with their checksums")
    verify.add_argument("names", nargs="*", metavar="NAME", help="default: all that are there")
    verify.set_defaults(command=commands.verify_weights)


def _config_parser(sub: argparse.ArgumentParser) -> None:
    verbs = sub.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _with_config(verbs.add_parser("check", help="is it valid?"), commands.check_config)
    _with_config(verbs.add_parser("show", help="print it with every default filled in"), commands.show_config)


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


def _add_dask(sub: argparse.ArgumentParser) -> None:
    """A short way to set compute.dask; a path is one of the command line's folder."""
    sub.add_argument(
        "--dask",
        dest="set",
        action="append",
        type=lambda text: f"compute.dask={text if is_no_path(text) else Path(text).resolve()}",
        metavar="WORKERS",
        help="work on so many processes of Dask (4, or 1-8 as there is work), in jobs of Slurm (slurm:1-64), or on the "
        "workers of a scheduler: tcp://HOST:PORT, or its file",
    )


def _add_set(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, for example compute.threads=4"
    )
