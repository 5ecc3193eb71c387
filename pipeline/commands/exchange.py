"""Commands that hand events to other programs and to analysts: export, review."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cluster.world import World
from pipeline.commands.common import COMPLETE, Verbs, open_run, say, with_run_dir

EXPORTS = (  # those of `formats.exports`, which brings ObsPy along
    *("quakeml", "scml", "nordic", "nonlinloc-obs", "nonlinloc-hyp", "hypo71", "hypoinverse", "hypodd", "csv"),
    "parquet",
)


def add(verbs: Verbs) -> None:
    _export_parser(verbs.add_parser("export", help="write the events in a format of other programs"))
    _review_parser(verbs.add_parser("review", help="hand new events to analysts, and take their decisions back"))


def _export_parser(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "Write the located events of a run, with picks, uncertainties and magnitudes, in a format of other programs. "
        "hypodd, csv and parquet are folders. Where a format has numbers for events or short codes for stations, the "
        "table FILE.names.csv (in a folder names.csv) says which is which."
    )
    sub.add_argument("--format", required=True, choices=EXPORTS, metavar="NAME", help=", ".join(EXPORTS))
    sub.add_argument("--output", required=True, type=Path, metavar="FILE", help="the file, or folder, to write")
    sub.add_argument(
        "--events",
        choices=("new", "all", "review"),
        default="all",
        help="all, those that are new to the reference, or the new ones that wait for a decision, best first",
    )
    sub.add_argument("--force", action="store_true", help="replace what an earlier export wrote there")
    with_run_dir(sub, run_export)


def _review_parser(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "With --output: write the new events that nobody has decided on, the most probable first, as QuakeML, SCML and "
        "Nordic, and as review.csv with empty columns decision, comment, who and when. With --decisions: read such a "
        "file back. A decision is accept, reject, quarry blast or unsure; a line without one is left for later."
    )
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--output", type=Path, metavar="DIR", help="new folder for the events and review.csv")
    what.add_argument("--decisions", type=Path, metavar="FILE", help="a review.csv with decisions")
    sub.add_argument("--force", action="store_true", help="replace an earlier folder, and the decisions in it")
    with_run_dir(sub, run_review)


def run_export(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import export

    run_dir, config = open_run(args)
    if world.rank == 0:
        say(export.run(run_dir, config, args.format, args.output, args.events, args.force))
    world.bcast(None)
    return COMPLETE


def run_review(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import review

    run_dir, config = open_run(args)
    if world.rank == 0:
        if args.decisions:
            say(review.read(run_dir, config, args.decisions))
        else:
            say(review.write(run_dir, config, args.output, args.force))
    world.bcast(None)
    return COMPLETE
