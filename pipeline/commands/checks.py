"""Commands that look at a run or a machine: status, audit, doctor, parity."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import config as configs
from pipeline.cluster.world import World
from pipeline.commands.common import (
    BAD_INPUT,
    COMPLETE,
    INCOMPLETE,
    PRECISIONS,
    Verbs,
    add_set,
    add_site,
    integer_from,
    listed,
    open_run,
    say,
    utc_day,
    with_config,
    with_run_dir,
)

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


def add(verbs: Verbs) -> None:
    what = "say what is done and what is missing; exit code 3 if anything is"
    with_run_dir(verbs.add_parser("status", help=what, description=what), run_status)
    _audit_parser(verbs.add_parser("audit", help="account for every station-day: picked, or why not"))
    _doctor_parser(verbs.add_parser("doctor", help="is this machine fit for a run?"))
    _parity_parser(verbs.add_parser("parity", help="compare picks with FP32 SeisBench, any precision and device"))


def _audit_parser(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "Account for every station-day of the run: shards planned = picked + empty + failed + set aside + missing, by "
        "station and by day, and each day of a station without picks with its reason. Writes audit/index.html (with a "
        "map of stations and days) and audit/audit.json, a summary to stdout. Exit code 0: every planned shard has "
        "ended well and no file is late; else 3, also if nobody could look for late files."
    )
    sub.add_argument("--no-scan", action="store_true", help="do not look through the archive for late files")
    with_run_dir(sub, run_audit)


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
    add_site(sub)
    add_set(sub)
    sub.set_defaults(command=run_doctor)


def _parity_parser(sub: argparse.ArgumentParser) -> None:
    with_config(sub, run_parity)
    sub.description = PARITY
    sub.formatter_class = argparse.RawDescriptionHelpFormatter
    sub.add_argument(
        "--precision",
        type=listed(str, PRECISIONS),
        default=(),
        metavar="NAMES",
        help=f"of {', '.join(PRECISIONS)}, by commas (default: fp32 and that of the configuration)",
    )
    sub.add_argument(
        "--stations", type=listed(str), default=(), metavar="PATTERNS", help='"CI.*,PB.B9*" (default: all)'
    )
    sub.add_argument(
        "--days",
        type=listed(utc_day),
        default=(),
        metavar="DAYS",
        help='"2024-06-01,2024-06-08" (default: all)',
    )
    sub.add_argument(
        "--limit", type=integer_from(1), default=20, metavar="N", help="station-days at most (default: 20)"
    )
    sub.add_argument("--raw", action="store_true", help="give SeisBench the archive's traces, not our waveforms")
    sub.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    sub.add_argument("--record", type=Path, metavar="FILE", help="record the checks there, not in the store of weights")


def run_status(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import status

    run_dir, config = open_run(args)
    complete, text = world.bcast(status.look(run_dir, config) if world.rank == 0 else (True, ""))
    say(text, world)
    return COMPLETE if complete else INCOMPLETE


def run_audit(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import audit

    run_dir, config = open_run(args)
    complete, text = world.bcast(audit.run(run_dir, config, not args.no_scan) if world.rank == 0 else (True, ""))
    say(text, world)
    return COMPLETE if complete else INCOMPLETE


def run_doctor(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import doctor

    findings = doctor.run(doctor.Asked(args.config, tuple(args.set), args.site, args.run_dir), world)
    healthy, text = doctor.verdict(findings, args.json)
    say(text, world)
    return COMPLETE if healthy else BAD_INPUT


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
