"""Command adapt: from labelled records to an adapter of a picker, and what it changes in a catalogue."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pipeline import config as configs
from pipeline.adaptdir import AdaptDir
from pipeline.cluster import slurm, stop
from pipeline.cluster.world import World
from pipeline.commands.common import COMPLETE, INCOMPLETE, Verbs, say, with_config
from pipeline.commands.whole import all_stages
from pipeline.config import Config
from pipeline.rundir import RunDir


def add(verbs: Verbs) -> None:
    sub = verbs.add_parser("adapt", help="tune a picker to a region, and say honestly what that brings")
    sub.description = (
        "Train adapters of pick.weight on the labelled sets of [adapt], cross-validated by station or event, compare "
        "them with the frozen and the tuned picker on records that were held out, keep one adapter, and run the whole "
        "pipeline before and after it. Any number of processes may work on one directory; run it again to go on."
    )
    with_config(sub, run)
    sub.add_argument("--run-dir", type=Path, required=True, metavar="DIR", help="where the adaptation lives")
    sub.add_argument("--no-catalogues", action="store_true", help="no runs of the archive before and after")


def run(args: argparse.Namespace, world: World) -> int:
    config = configs.load(args.config, args.set)
    folder = AdaptDir(args.run_dir)
    with stop.listening():
        from pipeline.stages import adapt

        complete = adapt.run(folder, config, world)
        if not complete:
            if world.rank == 0 and stop.asked() in stop.COMING_BACK:
                slurm.requeue(config.slurm.max_requeues if stop.asked() == stop.TIME_IS_UP else None)
            return INCOMPLETE
    if config.archive.root is not None and not args.no_catalogues:
        code = _catalogues(folder, config, world)
        if code:
            return code
    if world.rank == 0:
        say(adapt.verdict(folder))
        say(f"adapter    {adapt.weight(folder, config)}\nreport     {folder.report}")
    world.bcast(None)
    return COMPLETE


def _catalogues(folder: AdaptDir, config: Config, world: World) -> int:
    """The whole pipeline with the base and with the adapter, and a table of both in the report; the exit code."""
    from pipeline.stages import adapt

    after = config.model_copy(update={"pick": config.pick.model_copy(update={"weight": adapt.weight(folder, config)})})
    for which, each in (("before", config), ("after", after)):
        code = all_stages(RunDir(folder.catalogue(which)), each, world)
        if code:
            return code
    if world.rank == 0:
        adapt.compare(folder, config, [_scores(folder, "before"), _scores(folder, "after")])
    world.bcast(None)
    return COMPLETE


def _scores(folder: AdaptDir, which: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RunDir(folder.catalogue(which)).scorecard.read_text("utf-8"))
    return found
