"""Command `review`: new events go out to analysts, ranked; their decisions come back. See docs/decisions/021."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.formats import decisions, exports, located_run, tables
from pipeline.formats.exports import FORMATS, publish_folder
from pipeline.maths.decisions import carried, counts, merged
from pipeline.rundir import RunDir, publish

log = logging.getLogger(__name__)
EVENTS = {"review.quakeml": "quakeml", "review.scml": "scml", "review.nordic": "nordic"}
FILES = (*EVENTS, "review.csv")


def write(run_dir: RunDir, config: Config, output: Path, force: bool = False) -> str:
    """The new events that wait for a decision, best first, as a folder of `FILES`; what came out, in a line.

    Raises ConfigError if ``output`` is there (it may hold decisions) and not ``force``, Incomplete as
    `located_run.chosen` does.
    """
    _require_room(run_dir, output, force)
    queue = located_run.chosen(run_dir, config, located_run.load(run_dir), "review")
    score = located_run.score(run_dir, queue.origins)
    with publish_folder(output, FILES) as folder:
        for name, form in EVENTS.items():
            FORMATS[form].write(folder / name, queue)
        decisions.write_review(folder / "review.csv", queue.origins, score)
    return f"{len(queue.origins):,} new events wait for a decision: fill in {output / 'review.csv'}"


def _require_room(run_dir: RunDir, output: Path, force: bool) -> None:
    exports.require_outside(run_dir, output)
    if not (output.exists() or output.is_symlink()):
        return
    if not force:
        raise ConfigError(f"{output}: is there already, maybe with decisions: take another --output, or --force")
    exports.require_replaceable(output, FILES)


def read(run_dir: RunDir, config: Config, path: Path) -> str:
    """Take the decisions of a review.csv into ``review/decisions.parquet``; what is decided now, in a few lines.

    Decisions of before stay, but for events that were decided on again. Raises ConfigError as
    `decisions.read_decisions` does, Incomplete if there is no catalogue.
    """
    now, before = decisions.read_decisions(path), decisions.of_run(run_dir)
    origins, every = located_run.load(run_dir).origins, merged(before, now)
    with publish(run_dir.decisions) as part:
        tables.write(part, every)
    rows = carried(every, origins, config.compare.event_tolerance_s, config.compare.event_tolerance_km)
    lost = int(np.count_nonzero(rows < 0))
    if lost:
        log.warning("%d decisions are on events that the catalogue does not have now; they are kept", lost)
    said = ", ".join(f"{n} {name}" for name, n in counts(every).items())
    total = f"{len(now)} decisions read, {len(every)} in all ({said}), {lost} of them on events that are not there now"
    return f"{total}\nrun `orcolat compare {run_dir.root}` and `orcolat report {run_dir.root}` to count them"
