"""Commands from picks to a catalogue that is judged: associate, locate, compare, explain, gate, report, history."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from pathlib import Path

from pipeline.cluster.world import World
from pipeline.commands.common import (
    ASSOCIATORS,
    COMPLETE,
    Verbs,
    add_dask,
    complete,
    gate_ended,
    integer_from,
    one_stage,
    open_run,
    say,
    summary_of,
    with_run_dir,
)
from pipeline.errors import ConfigError
from pipeline.rundir import of_associator, share_picks


def add(verbs: Verbs) -> None:
    _associate_parser(verbs.add_parser("associate", help="make events of the picks"))
    what = "locate the events, with station terms, uncertainties, magnitudes and how sure each is"
    with_run_dir(verbs.add_parser("locate", help=what, description=what), run_locate)
    _compare_parser(verbs.add_parser("compare", help="compare with the reference, or one associator with another"))
    _explain_parser(verbs.add_parser("explain", help="say why events of the reference were missed, and draw one"))
    _gate_parser(verbs.add_parser("gate", help="is the run good enough? exit code 4 if not"))
    what = "write report/index.html and print the account"
    with_run_dir(verbs.add_parser("report", help=what, description=what), run_report)
    _history_parser(verbs.add_parser("history", help="the nights so far, as a table"))


def _associate_parser(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "Make events of the picks. With --associator another associator than that of the configuration makes a second "
        "catalogue of the same picks, in RUN_DIR/associators/NAME, a run directory of its own: `orcolat locate`, "
        "`compare` and `report` work there, too."
    )
    sub.add_argument(
        "--associator", choices=ASSOCIATORS, metavar="NAME", help=f"{', '.join(ASSOCIATORS)} (default: the run's own)"
    )
    add_dask(sub)
    with_run_dir(sub, run_associate)


def _compare_parser(sub: argparse.ArgumentParser) -> None:
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
    with_run_dir(sub, run_compare)


def _explain_parser(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "Say why events of the reference were missed: how many for which reason; with --event or --time one of them, "
        "followed through every stage. Its arrivals are scored once more where the archive and the weights are here, "
        "and RUN_DIR/explain/EVENT gets its record section as SVG and PNG, and all figures as JSON."
    )
    which = sub.add_mutually_exclusive_group()
    which.add_argument("--event", metavar="ID", help="id of the event in the reference")
    which.add_argument("--time", type=datetime.fromisoformat, metavar="TIME", help="2019-07-04T17:34:00, UTC")
    sub.add_argument("--json", action="store_true", help="JSON to stdout")
    sub.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the files, instead of RUN_DIR/explain/EVENT"
    )
    with_run_dir(sub, run_explain)


def _gate_parser(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "Hold the scores of a run against the limits of [gate] and against the median of the last nights, and look how "
        "each station did: report/gate.json and report/health.parquet. A check fails only where the whole confidence "
        "interval is on the wrong side of its limit. Other limits: --config with the same configuration but for "
        "[gate], or --set gate.min_recall=0.8. Exit code 0: no check failed; 4: one did; 3: the run is incomplete."
    )
    sub.add_argument("--keep", action="store_true", help="enter the run into the history, even if there is none yet")
    with_run_dir(sub, run_gate)


def _history_parser(sub: argparse.ArgumentParser) -> None:
    sub.description = "The nights of a history.sqlite: gate, scores, stations. Any SQLite program reads it, too."
    sub.add_argument("file", type=Path, metavar="FILE", help="runs/nightly/history.sqlite")
    sub.add_argument("--last", type=integer_from(1), default=30, metavar="N", help="so many nights (default: 30)")
    sub.set_defaults(command=run_history)


def run_associate(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import associate

    run_dir, config = open_run(args)
    if args.associator:
        here, config = of_associator(run_dir, config, args.associator)
        if world.rank == 0:
            share_picks(run_dir, here, config)
        run_dir = world.bcast(here)
    associate.run(run_dir, config, world)
    return COMPLETE


def run_locate(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import locate

    return one_stage(locate.run, args, world)


def run_compare(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import compare, explain

    run_dir, config = open_run(args)
    if args.associators:
        name, reference = args.associators
        say(compare.associators(run_dir, config, name, reference, world), world)
    else:
        compare.run(run_dir, config, world)
        explain.run(run_dir, config, world)
    return COMPLETE


def run_explain(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import explain

    run_dir, config = open_run(args)
    if not (args.event or args.time):
        explain.run(run_dir, config, world)
    if world.rank == 0:
        if args.event or args.time:
            text, found = explain.one(run_dir, config, (args.event, args.time), args.output)
        else:
            text, found = explain.summary(run_dir, config)
        say(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) if args.json else text)
    world.bcast(None)
    return COMPLETE


def run_gate(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import gate

    run_dir, config = open_run(args)
    gate.run(run_dir, config, world, args.keep)
    if world.rank == 0:
        say(gate.text(run_dir))
    code, _ = gate_ended(run_dir, world)
    return complete(run_dir, world) or code


def run_report(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import report

    run_dir, config = open_run(args)
    report.run(run_dir, config, world)
    return summary_of(run_dir, config, world)


def run_history(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import gate

    if not args.file.is_file():
        raise ConfigError(
            f"{args.file}: no such file; `orcolat nightly` and `orcolat gate --keep` make a history.sqlite"
        )
    if world.rank == 0:
        say(gate.table(args.file, args.last))
    world.bcast(None)
    return COMPLETE
