"""Stage `report`: one self-contained HTML page of the run, and its account as JSON. See docs/decisions/008.

The page refuses nothing but a run without a plan: what a run does not have yet, the page says.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, TypeVar

from pipeline.cluster.world import World
from pipeline.config import Config
from pipeline.formats import provenance, results, tables
from pipeline.maths.account import PickTally, account, stale
from pipeline.maths.overview import all_events
from pipeline.page import html, words
from pipeline.page.inputs import Inputs
from pipeline.records import Assignments, ComparedEvents, ComparedPicks, Events, Picks, Shards, Stations, Table
from pipeline.rundir import RunDir, publish, require

log = logging.getLogger(__name__)
T = TypeVar("T", bound=Table)


def run(run_dir: RunDir, config: Config, world: World) -> None:
    """Write ``report/index.html`` and ``report/account.json``. The same run gives the same bytes.

    Raises Incomplete if there is no plan.
    """
    if world.rank == 0:
        inputs = read(run_dir, config)
        books = balance(inputs)
        page = html.render(inputs, books)
        with publish(run_dir.account) as part:
            about = {**books, "inputs_digest": provenance.report(run_dir)}
            part.write_text(json.dumps(about, indent=1, ensure_ascii=False), "utf-8")
        with publish(run_dir.report) as part:
            part.write_text(page, "utf-8")
        log.info("%s", books["verdict"])
    world.bcast(None)


def summary(run_dir: RunDir, config: Config) -> str:
    """Account, scores and path of the last report, a few lines for the terminal."""
    return f"{words.terminal(_books(run_dir), config.archive.root is not None)}\nreport     {run_dir.report}"


def verdict(run_dir: RunDir) -> str:
    """The last report in one sentence."""
    return str(_books(run_dir)["verdict"])


def breaches(run_dir: RunDir) -> list[str]:
    """What did not add up in the account of the last report, one sentence each."""
    return list(_books(run_dir)["breaches"])


def _books(run_dir: RunDir) -> dict[str, Any]:
    """The account of the last report. Raises Incomplete if there is none."""
    found: dict[str, Any] = json.loads(require(run_dir.account, "report").read_text("utf-8"))
    return found


def balance(inputs: Inputs) -> dict[str, Any]:
    """The account with its breaches, the scores, the verdict and the state ("good", "open", "bad")."""
    span_ns = inputs.config.run.span_ns
    books = account(inputs.shards, inputs.outcomes, inputs.picks, inputs.catalogue, inputs.assignments, span_ns)
    books["breaches"] += stale(inputs.catalogue, inputs.events)
    books["refused"] = dict(sorted(inputs.refused.items()))
    books["scores"] = words.score_rows(inputs.scorecard)
    sentence = words.verdict(inputs.config, books, inputs.scorecard, inputs.associated)
    state = words.state(books, inputs.associated)
    return {"verdict": sentence, "state": state, "associated": inputs.associated, **books}


def read(run_dir: RunDir, config: Config) -> Inputs:
    """Read the run directory, the picks file by file. Raises Incomplete if there is no plan."""
    shards = tables.read(require(run_dir.shards, "plan"), Shards)
    catalogue, assignments = _read(run_dir.events, Events), _read(run_dir.assignments, Assignments)
    picks = PickTally(assignments)
    for path in results.pick_files(run_dir):
        picks.add(tables.read(path, Picks))
    scorecard = json.loads(run_dir.scorecard.read_text("utf-8")) if run_dir.scorecard.exists() else {}
    compared = _read(run_dir.compared("events"), ComparedEvents) if scorecard.get("events") else None
    compared_picks = _read(run_dir.compared("picks"), ComparedPicks) if scorecard.get("picks") else None
    return Inputs(
        config=config,
        shards=shards,
        stations=_read(run_dir.stations, Stations),
        outcomes=results.outcomes(run_dir),
        tracebacks=results.tracebacks(run_dir),
        picks=picks,
        left_out=json.loads(run_dir.imported.read_text("utf-8"))["left_out"] if run_dir.imported.exists() else [],
        catalogue=catalogue,
        assignments=assignments,
        refused=tables.metadata(run_dir.events).get("refused", {}) if run_dir.events.exists() else {},
        associated=run_dir.events.exists(),
        scorecard=scorecard,
        events=all_events(catalogue, compared),
        compared_picks=compared_picks or ComparedPicks.empty(),
    )


def _read(path: Path, kind: type[T]) -> T:
    return tables.read(path, kind) if path.exists() else kind.empty()
