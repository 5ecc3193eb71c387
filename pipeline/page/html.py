"""The page: figures, lists and words in one template. Everything is escaped; nothing is loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup

from pipeline import config as configs
from pipeline.config import Config
from pipeline.maths import completeness
from pipeline.maths.overview import grid, times
from pipeline.maths.reliability import Reliability
from pipeline.page import data, rows, words
from pipeline.page.inputs import Inputs
from pipeline.plots import charts, maps, strips
from pipeline.plots.reliability import reliability_plot
from pipeline.plots.svg import STATUS, Drawing, Link

HERE = Path(__file__).parent
FEW_EVENTS = 20  # in a bin of probability, with which it tells little
SCRIPTS = ("tables.js", "state.js", "views.js", "charts.js", "records.js", "events.js")  # in this order, one script


def render(inputs: Inputs, books: dict[str, Any], figures: dict[str, Drawing]) -> str:
    """The page as text. ``books`` is the account with verdict and state, ``figures`` are those of `draw`."""
    shown = rows.shown_events(inputs)
    shards, n_shards = rows.shard_rows(inputs)
    days = grid(inputs.shards, inputs.outcomes, inputs.picks)
    card = inputs.scorecard
    return fill(
        "report.html.j2",
        inputs.config,
        scripts=SCRIPTS,
        data=Markup(data.text(inputs)),
        toml=configs.dumps(inputs.config),
        books=books,
        gate=inputs.gate,
        nights=rows.night_rows(inputs),
        health=rows.health_rows(inputs),
        health_day=max(inputs.health.day.tolist(), default=""),
        scorecard=card,
        scores=words.score_rows(card),
        residuals=words.residual_rows(card),
        floor=words.floor_rows(inputs.config.compare.floor, inputs.events),
        complete=words.complete(inputs),
        n_stations=len(np.unique(inputs.stations.id)),
        associated=inputs.associated,
        statuses=_statuses(inputs, shown),
        events=rows.event_rows(inputs, shown),
        note=rows.of_note(inputs),
        few=rows.FEW,
        curves=[_curve(name, curve) for name, curve in inputs.curves.items()],
        reliability=Markup(reliability_plot(inputs.curves, FEW_EVENTS)) if inputs.curves else "",
        few_events=FEW_EVENTS,
        reasons=rows.reason_counts(inputs),
        reviewed=words.reviewed(card),
        flagged=words.flagged(inputs.origins),
        left_out=inputs.left_out[: inputs.config.report.max_rows],
        n_left_out=len(inputs.left_out),
        linked=0 < len(inputs.events) <= maps.MAX_VECTOR,
        kinds=bool(set(inputs.events.kind.tolist()) - {"earthquake", ""}),
        has=_has(inputs),
        n_events=len(inputs.events),
        n_sections=len(inputs.sections),
        shards=shards,
        n_shards=n_shards,
        channels=rows.channel_rows(inputs, days),
        n_channels=len(days.channels),
        figures={name: Markup(figure.svg()) for name, figure in figures.items()},
    )


def _curve(name: str, curve: Reliability) -> dict[str, Any]:
    """A test of the probabilities: how many events it has, how many bins count, and how far off these are."""
    bins = zip(*(values.tolist() for values in asdict(curve).values()), strict=True)
    enough = int((curve.n >= FEW_EVENTS).sum())
    return {"name": name, "n": int(curve.n.sum()), "enough": enough, "off": curve.worst(FEW_EVENTS), "bins": list(bins)}


def _has(inputs: Inputs) -> dict[str, bool]:
    """What is known of at least one event."""
    columns = ("erz_km", "probability", "magnitude")
    known = {name: bool(np.isfinite(getattr(inputs.origins, name)).any()) for name in columns}
    own = np.isfinite(inputs.catalogue.magnitude).any()
    kinds = set(inputs.origins.magnitude_kind.tolist()) - {""}
    return {**known, "own_magnitudes": bool(own) and not kinds, "ml": bool(kinds), "origins": bool(len(inputs.origins))}


def fill(template: str, config: Config | None, scripts: tuple[str, ...] = ("tables.js",), **values: Any) -> str:
    """A page of ``template``: one file, with its style and its script, and no other script is let run."""
    script = "\n".join((HERE / name).read_text("utf-8") for name in scripts)
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup((HERE / "report.css").read_text("utf-8")),
            script=Markup(script),
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            config=config,
            **values,
        )
    )


@cache
def _environment() -> jinja2.Environment:
    """Where the templates of the pages are, with the filters that they use."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = ("number", "instant", "interval", "plural", "refusals", "chance")
    found.filters.update({name: getattr(words, name) for name in shown})
    return found


def _statuses(inputs: Inputs, shown: list[int]) -> list[tuple[str, int, int]]:
    """Statuses of the events: name, number shown, number in all."""
    all_, some = (Counter(names.tolist()) for names in (inputs.events.status, inputs.events.status[shown]))
    return [(status, some[status], all_[status]) for status in reversed(STATUS) if all_[status]]


def draw(inputs: Inputs) -> dict[str, Drawing]:
    """The figures there is something to show in, by name."""
    events, picks, score = inputs.events, inputs.compared_picks, inputs.scorecard
    settings = inputs.config.compare
    figures = {}
    if len(events) or len(inputs.stations):
        figures["map"] = maps.event_map(events, inputs.stations, _links(inputs, rows.shown_events(inputs)))
    if len(events):
        figures["timeline"] = charts.timeline(events, inputs.config.run.span_ns)
    if score.get("events") and any(b["low"] is not None for b in score["events"]["by_magnitude"]):
        whole = completeness.from_on(events, settings.magnitude_bin, settings.confidence)
        figures["recall"] = charts.recall_by_magnitude(score["events"]["by_magnitude"], whole)
    if (events.status == "matched").any():
        floor = settings.floor
        limits = (floor.time_s, floor.epicentre_km, floor.depth_km) if floor else None
        figures["residuals"] = charts.event_residuals(events, limits)
    if len(picks):
        p, s = (picks.dt_s[(picks.our_phase == phase) & (picks.their_phase == phase)] for phase in "PS")
        figures["picks"] = charts.pick_residuals(p, s)
    days = grid(inputs.shards, inputs.outcomes, inputs.picks)
    if days.channels:
        figures["stations"] = strips.station_strips(days)
    return figures


def _links(inputs: Inputs, shown: list[int]) -> list[Link | None]:
    """From each event of the map to its row of the list."""
    time_ns = times(inputs.events)
    links: list[Link | None] = [None] * len(inputs.events)
    for i in shown:
        magnitude = float(inputs.events.magnitude[i])
        size = f", M {words.number(magnitude, 1)}" if np.isfinite(magnitude) else ""
        anchor = rows.anchor_of(str(inputs.events.ours[i]), str(inputs.events.theirs[i]))
        links[i] = Link(
            quote(anchor, safe="="), f"{words.instant(int(time_ns[i]), 0)}{size}, {inputs.events.status[i]}"
        )
    return links
