"""Command `export`: the located events of a run in a format that another program reads. See docs/decisions/021."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import Config
from pipeline.formats import exports, located_run
from pipeline.rundir import RunDir


def run(run_dir: RunDir, config: Config, name: str, output: Path, which: str = "all", force: bool = False) -> str:
    """Write the events ``which`` ("all", "new", "review") to ``output``; what came out, in a line.

    Raises ConfigError if ``output`` is taken, is inside the run, or the format cannot hold the events; Incomplete if
    there is no catalogue, or for "new" no comparison of it.
    """
    exports.require_outside(run_dir, output)
    exports.require_room(name, output, force)
    found = located_run.chosen(run_dir, config, located_run.load(run_dir), which)
    written = exports.export(name, found, output, force)
    n, m = len(found.origins), len(found.arrivals)
    return f"{n:,} events with {m:,} picks as {exports.FORMATS[name].what}: {', '.join(map(str, written))}"
