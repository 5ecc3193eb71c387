"""Stage `report`: one self-contained HTML page of the run, its figures as PNG, a summary as text, and its account as
JSON. See docs/decisions/008 and 025.

The page refuses nothing but a run without a plan: what a run does not have yet, the page says.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster.world import World
from pipeline.config import Config
from pipeline.errors import BadData, OrcolatError
from pipeline.formats import history, located_run, origins, provenance, quality_table, results, tables
from pipeline.maths import interest
from pipeline.maths.account import Around, PickTally, account, stale
from pipeline.maths.overview import all_events, times
from pipeline.maths.reliability import Reliability
from pipeline.page import html, words
from pipeline.page.inputs import Inputs, of_ours
from pipeline.plots.svg import Drawing
from pipeline.records import (
    Assignments,
    ComparedEvents,
    ComparedPicks,
    Events,
    LocatedArrivals,
    Missed,
    Origins,
    Picks,
    Shards,
    StationHealth,
    Stations,
)
from pipeline.rundir import RunDir, publish, require
from pipeline.stages import report_records

log = logging.getLogger(__name__)
NIGHTS = 30  # before this one, in the page


def run(run_dir: RunDir, config: Config, world: World) -> None:
    """Write ``report/``: index.html, account.json, summary.txt and the figures. The same run gives the same bytes.

    Raises Incomplete if there is no plan.
    """
    if world.rank == 0:
        inputs = report_records.add(run_dir, config, read(run_dir, config))
        books = balance(inputs)
        figures = html.draw(inputs)
        page = html.render(inputs, books, figures)
        _pictures(run_dir, figures)
        with publish(run_dir.account) as part:
            about = {**books, "inputs_digest": provenance.report(run_dir)}
            part.write_text(json.dumps(about, indent=1, ensure_ascii=False), "utf-8")
        with publish(run_dir.summary) as part:
            part.write_text(words.letter(inputs, books, sorted(figures)), "utf-8")
        with publish(run_dir.report) as part:
            part.write_text(page, "utf-8")
        log.info("%s", books["verdict"])
    world.bcast(None)


def _pictures(run_dir: RunDir, figures: dict[str, Drawing]) -> None:
    """Each figure as PNG; those of an earlier report that is no more are removed."""
    for name, figure in figures.items():
        with publish(run_dir.picture(name)) as part:
            part.write_bytes(figure.png())
    for old in run_dir.report.parent.glob("[!.]*.png"):
        if old.stem not in figures:
            old.unlink()


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
    catalogue = origins.events(run_dir) if run_dir.events.exists() else Events.empty()
    located = _origins(run_dir, catalogue)
    assignments = tables.read_if_there(run_dir.assignments, Assignments)
    scorecard = _json(run_dir.scorecard)
    compared = tables.read_if_there(run_dir.compared("events"), ComparedEvents) if scorecard.get("events") else None
    compared_picks = tables.read_if_there(run_dir.compared("picks"), ComparedPicks) if scorecard.get("picks") else None
    events = all_events(catalogue, compared)
    chosen = interest.interesting(events, of_ours(located, "probability", events), config.report.record_sections)
    picks, around = PickTally(assignments), Around(times(events)[chosen])
    for path in results.pick_files(run_dir):
        some = tables.read(path, Picks)
        picks.add(some)
        around.add(some)
    return Inputs(
        config=config,
        shards=shards,
        stations=tables.read_if_there(run_dir.stations, Stations),
        outcomes=results.outcomes(run_dir),
        tracebacks=results.tracebacks(run_dir),
        picks=picks,
        left_out=json.loads(run_dir.imported.read_text("utf-8"))["left_out"] if run_dir.imported.exists() else [],
        catalogue=catalogue,
        assignments=_relocated(assignments, tables.read_if_there(run_dir.arrivals, LocatedArrivals))
        if len(located)
        else assignments,
        refused=tables.metadata(run_dir.events).get("refused", {}) if run_dir.events.exists() else {},
        associated=run_dir.events.exists(),
        scorecard=scorecard,
        events=events,
        chosen=tuple(chosen),
        around=around.picks,
        compared_picks=compared_picks or ComparedPicks.empty(),
        origins=located,
        reasons=_reasons(run_dir),
        decisions=_decisions(run_dir, config, located),
        gate=_json(run_dir.gate),
        nights=_nights(run_dir, config),
        health=tables.read_if_there(run_dir.health, StationHealth),
        curves=_curves(config) if np.isfinite(located.probability).any() else {},
    )


def _origins(run_dir: RunDir, catalogue: Events) -> Origins:
    """The located events; none where they are of another catalogue."""
    found = tables.read_if_there(run_dir.origins, Origins)
    return found if set(found.id.tolist()) == set(catalogue.id.tolist()) else Origins.empty()


def _relocated(assignments: Assignments, arrivals: LocatedArrivals) -> Assignments:
    """``assignments`` with the residuals of the locations, where they have one."""
    keys = zip(arrivals.event.tolist(), arrivals.station.tolist(), arrivals.time_ns.tolist(), strict=True)
    found = dict(zip(keys, arrivals.residual_s.tolist(), strict=True))
    wanted = zip(assignments.event.tolist(), assignments.station.tolist(), assignments.time_ns.tolist(), strict=True)
    located = np.array([found.get(key, np.nan) for key in wanted], np.float64)
    return replace(assignments, residual_s=np.where(np.isfinite(located), located, assignments.residual_s))


def _reasons(run_dir: RunDir) -> dict[str, tuple[str, str]]:
    """Why the reference's events were missed: class and sentence, by their id; {} where nobody has asked."""
    found = tables.read_if_there(run_dir.compared("missed"), Missed)
    return dict(zip(found.event.tolist(), zip(found.reason.tolist(), found.detail.tolist(), strict=True), strict=True))


def _curves(config: Config) -> dict[str, Reliability]:
    """How the probabilities of events held where that was tested."""
    try:
        return quality_table.judged(config.quality.calibration)
    except BadData as e:
        log.warning("no reliability in the report: %s", e)
        return {}


def _nights(run_dir: RunDir, config: Config) -> list[dict[str, Any]]:
    """The last nights before this run, as the history has them; none where there is no history, or it is damaged."""
    path = history.path_of(run_dir, config)
    try:
        return history.last(path, history.series_of(config.run.name), config.run.span_ns[0], NIGHTS)
    except OrcolatError as e:
        log.warning("no earlier nights in the report: %s", e)
        return []


def _decisions(run_dir: RunDir, config: Config, located: Origins) -> dict[str, str]:
    """What analysts decided on our events, by id."""
    if not run_dir.decisions.exists():
        return {}
    said = located_run.decided(run_dir, config, located)
    return {id_: text for id_, text in zip(located.id.tolist(), said.tolist(), strict=True) if text}


def _json(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found if isinstance(found, dict) else {}
