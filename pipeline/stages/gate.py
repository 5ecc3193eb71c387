"""Stage `gate`: how the stations did, whether the run is good enough, and its line in the history. See decision 026."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster.world import World
from pipeline.config import Config, Gate
from pipeline.formats import history, results, tables
from pipeline.maths import gate, health, health_facts
from pipeline.maths.days import days_within
from pipeline.maths.scorecard import plain
from pipeline.records import (
    Assignments,
    ComparedEvents,
    ComparedPicks,
    LocatedArrivals,
    Shards,
    StationHealth,
    Stations,
    StationTerms,
    Table,
)
from pipeline.rundir import RunDir, publish, require

log = logging.getLogger(__name__)
Card = dict[str, Any]
PASS, FAIL = "pass", "fail"
NAMED = 5  # stations in the summary
SHOWN = ("recall", "precision", "recall_p", "recall_s", "epicentre_km", "depth_km", "residual_p_s", "coverage")


def run(run_dir: RunDir, config: Config, world: World, keep: bool = False) -> None:
    """Write ``report/health.parquet`` and ``report/gate.json``; rank 0 works.

    The run goes into the history if there is one, if `gate.history` names one, or to ``keep`` it. Raises Incomplete if
    there is no comparison yet, and as `history.read` does.
    """
    if world.rank == 0:
        path = history.path_of(run_dir, config)
        card = json.loads(require(run_dir.scorecard, "compare").read_text("utf-8"))
        stations = judge_stations(run_dir, config, path)
        found = judge(run_dir, config, card, stations)
        with publish(run_dir.health) as part:
            tables.write(part, stations)
        with publish(run_dir.gate) as part:
            part.write_text(json.dumps(plain(found), indent=1, allow_nan=False) + "\n", "utf-8")
        if keep or config.gate.history or path.exists():
            history.record(path, night(run_dir, config, card, found, stations))
        log.info("%s", found["verdict"])
    world.bcast(None)


def require_history(run_dir: RunDir, config: Config) -> None:
    """Raises BadData or ConfigError if there is a history that cannot be used."""
    history.read(history.path_of(run_dir, config))


def state(run_dir: RunDir) -> tuple[str, str]:
    """ "pass", "fail" or "unknown" of the last gate, and its sentence. Raises Incomplete if there is none."""
    found: Card = json.loads(require(run_dir.gate, "gate").read_text("utf-8"))
    return found["state"], found["verdict"]


def judge_stations(run_dir: RunDir, config: Config, path: Path) -> StationHealth:
    """Each station on each day of the run, compared with its own days before, in the run and in the history."""
    series, span_ns = history.series_of(config.run.name), config.run.span_ns
    own_days = config.gate.own_days
    before = history.stations_of(history.last(path, series, span_ns[0], own_days))
    known = set(before.station[before.n_picks > 0].tolist()) if len(before) else set()
    stations = tables.read(require(run_dir.stations, "plan"), Stations)
    shards = tables.read(require(run_dir.shards, "plan"), Shards)
    data = None if config.pick.source else health_facts.hours(shards, results.outcomes(run_dir), span_ns)
    days = days_within(span_ns)
    facts = health_facts.facts(results.picks(run_dir), _seen(run_dir, config), stations, data, days, known)
    return health.judge(facts, before, own_days)


def _seen(run_dir: RunDir, config: Config) -> health_facts.Seen:
    """The picks in events, with their residuals: those of the locations, else those of the association."""
    vp_vs = config.associate.vp_km_s / config.associate.vs_km_s
    if run_dir.arrivals.exists() and run_dir.station_terms.exists():
        arrivals = tables.read(run_dir.arrivals, LocatedArrivals)
        return health_facts.seen(arrivals, tables.read(run_dir.station_terms, StationTerms), vp_vs)
    found = tables.read_if_there(run_dir.assignments, Assignments)
    columns = {name: getattr(found, name) for name in ("event", "station", "phase", "time_ns", "residual_s")}
    return health_facts.seen(LocatedArrivals(**columns), StationTerms.empty(), vp_vs)


def judge(run_dir: RunDir, config: Config, card: Card, stations: StationHealth) -> Card:
    """The gate as it goes into ``gate.json``."""
    settings, series = config.gate, history.series_of(config.run.name)
    path = history.path_of(run_dir, config)
    nights = history.last(path, series, config.run.span_ns[0], settings.nights + settings.recent_nights)
    before = history.scores_of(nights)
    events = tables.read_if_there(run_dir.compared("events"), ComparedEvents)
    picks = tables.read_if_there(run_dir.compared("picks"), ComparedPicks)
    hours = float(np.nansum(stations.hours)), float(np.nansum(stations.hours_planned))
    scores = gate.scores(card, events, picks, hours, settings.confidence)
    rule = gate.Rule(**{name: getattr(settings, name) for name in gate.Rule.__slots__})
    checks = gate.checks(scores, limits(settings), before, rule)
    ended, sentence = gate.verdict(checks, len(nights), settings.min_nights if settings.nights else 0)
    return {
        "state": ended,
        "passed": ended == PASS,
        "verdict": sentence,
        "run": config.run.name,
        "series": series,
        "start": config.run.start.isoformat(),
        "end": config.run.end.isoformat(),
        "config_digest": config.digest,
        "confidence": settings.confidence,
        "missing_shards": results.unpicked(run_dir),
        "nights_before": len(nights),
        "scores": {
            name: {**asdict(score), "usual": gate.usual_of(before, name, settings.nights)[0]}
            for name, score in scores.items()
        },
        "checks": [asdict(check) for check in checks],
        "after_review": (card.get("events") or {}).get("after_review"),
        "stations": _of_last_day(stations),
    }


def limits(settings: Gate) -> dict[str, float | None]:
    """The absolute limits, by name."""
    return {measure.limit: getattr(settings, measure.limit) for measure in gate.MEASURES}


def _of_last_day(stations: StationHealth) -> Card:
    """How many stations are well on the last day of the run, and what ails the others."""
    today = stations.take(stations.day == max(stations.day.tolist(), default=""))
    counts = Counter(today.status.tolist())
    columns = (today.status.tolist(), today.station.tolist(), today.reason.tolist())
    ill = sorted(row for row in zip(*columns, strict=True) if row[0] in (health.BAD, health.WATCH))
    return {
        **{status: counts[status] for status in (health.OK, health.WATCH, health.BAD)},
        "not judged": counts[health.NOT_JUDGED],
        "ill": [{"station": name, "status": status, "reason": reason} for status, name, reason in ill],
    }


def night(run_dir: RunDir, config: Config, card: Card, found: Card, stations: StationHealth) -> history.Night:
    """The run as the history keeps it."""
    start_ns, end_ns = config.run.span_ns
    reviewed, n = found["after_review"] or {}, card["n"]
    path = history.path_of(run_dir, config)
    kept: history.Night = plain(
        {
            "version": history.VERSION,
            "key": history.key_of(config.run.name, (start_ns, end_ns), config.digest),
            "digest": config.digest,
            "gate": found["state"],
            "verdict": found["verdict"],
            "run_dir": os.path.relpath(run_dir.root, path.parent),
            **{"name": config.run.name, "series": found["series"], "start": found["start"], "end": found["end"]},
            **{"start_ns": start_ns, "end_ns": end_ns, "recorded_ns": time.time_ns()},
            **{name: n[name] for name in history.COUNTS[:6]},
            **{name: reviewed.get(name) for name in ("accepted", "rejected", "undecided")},
            "shards_missing": found["missing_shards"],
            "stations_watch": found["stations"]["watch"],
            "stations_bad": found["stations"]["bad"],
            "scores": [
                {key: value for key, value in {"name": name, **score}.items() if key != "usual"}
                for name, score in sorted(found["scores"].items())
            ],
            "checks": sorted(
                ({key: check[key] for key in history.ROWS["checks"][0]} for check in found["checks"]),
                key=lambda check: (check["score"], check["against"]),
            ),
            "stations": _rows(stations),
        }
    )
    return kept


def _rows(table: Table) -> list[Card]:
    columns = {name: values.tolist() for name, values in table.as_dict().items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def text(run_dir: RunDir) -> str:
    """The last gate in some lines. Raises Incomplete if there is none."""
    found: Card = json.loads(require(run_dir.gate, "gate").read_text("utf-8"))
    lines = [found["verdict"]]
    for check in found["checks"]:
        lines.append(f"{check['state']:8} {check['reason']}")
    stations = found["stations"]
    told = f"stations {stations['ok']} ok, {stations['watch']} to watch, {stations['bad']} bad"
    lines.append(f"{told}, {stations['not judged']} not judged" if stations["not judged"] else told)
    lines += [f"  {each['status']:6} {each['station']:9} {each['reason']}" for each in stations["ill"][:NAMED]]
    if len(stations["ill"]) > NAMED:
        lines.append(f"  and {len(stations['ill']) - NAMED} more, see {run_dir.health}")
    if found["missing_shards"]:
        lines.append(f"INCOMPLETE: {found['missing_shards']} shards have no result: run it again")
    return "\n".join(lines)


def table(path: Path, n: int) -> str:
    """The last ``n`` nights of a history, oldest first. Raises as `history.read` does."""
    nights = sorted(history.read(path).values(), key=lambda each: (each["start_ns"], each["recorded_ns"], each["key"]))
    names = {name: name.replace("_", " ").replace("epicentre", "epic.") for name in SHOWN}
    head = f"{'night':32} {'gate':8}{'events':>7}{'of':>7} " + " ".join(f"{each:>10}" for each in names.values())
    lines = [f"{head} watch  bad"]
    for each in nights[-n:] if n else []:
        values = history.values(each)
        numbers = " ".join("         -" if values[k] is None else f"{values[k]:10.3f}" for k in SHOWN)
        counts = f"{_count(each['events_matched']):>7}{_count(each['events_reference']):>7}"
        whole = "" if not each["shards_missing"] else f"  {each['shards_missing']} shards missing"
        lines.append(
            f"{each['name'][:32]:32} {each['gate']:8}{counts} {numbers} {each['stations_watch']:5} "
            f"{each['stations_bad']:4}{whole}"
        )
    return "\n".join(lines)


def _count(n: int | None) -> str:
    return "-" if n is None else f"{n:,}"
