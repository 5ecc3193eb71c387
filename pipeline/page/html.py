"""The page: figures, lists and words in one template. Everything is escaped; nothing is loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from pipeline import config as configs
from pipeline.config import Config
from pipeline.maths.overview import Grid, grid, times
from pipeline.page import rows, words
from pipeline.page.inputs import Inputs
from pipeline.plots import charts, maps, strips
from pipeline.plots.svg import STATUS, Link

HERE = Path(__file__).parent


def render(inputs: Inputs, books: dict[str, Any]) -> str:
    """The page as text. ``books`` is the account with verdict and state."""
    shown = rows.shown_events(inputs)
    shards, n_shards = rows.shard_rows(inputs)
    days = grid(inputs.shards, inputs.outcomes, inputs.picks)
    return fill(
        "report.html.j2",
        inputs.config,
        toml=configs.dumps(inputs.config),
        books=books,
        scorecard=inputs.scorecard,
        scores=words.score_rows(inputs.scorecard),
        residuals=words.residual_rows(inputs.scorecard),
        n_stations=len(np.unique(inputs.stations.id)),
        associated=inputs.associated,
        statuses=_statuses(inputs, shown),
        events=rows.event_rows(inputs, shown),
        left_out=inputs.left_out[: inputs.config.report.max_rows],
        n_left_out=len(inputs.left_out),
        linked=0 < len(inputs.events) <= maps.MAX_VECTOR,
        kinds=bool(set(inputs.events.kind.tolist()) - {"earthquake", ""}),
        n_events=len(inputs.events),
        own_magnitudes=bool(np.isfinite(inputs.catalogue.magnitude).any()),
        shards=shards,
        n_shards=n_shards,
        channels=rows.channel_rows(inputs, days),
        n_channels=len(days.channels),
        figures={name: Markup(text) for name, text in _figures(inputs, shown, days).items()},
    )


def fill(template: str, config: Config, **values: Any) -> str:
    """A page of ``template``: one file, with its style and its script, and no other script is let run."""
    script = (HERE / "report.js").read_text("utf-8")
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


def _environment() -> jinja2.Environment:
    """Where the templates of the pages are, with the filters that they use."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = ("number", "instant", "interval", "plural", "refusals")
    found.filters.update({name: getattr(words, name) for name in shown})
    return found


def _statuses(inputs: Inputs, shown: list[int]) -> list[tuple[str, int, int]]:
    """Statuses of the events: name, number shown, number in all."""
    all_, some = (Counter(names.tolist()) for names in (inputs.events.status, inputs.events.status[shown]))
    return [(status, some[status], all_[status]) for status in reversed(STATUS) if all_[status]]


def _figures(inputs: Inputs, shown: list[int], days: Grid) -> dict[str, str]:
    """The figures there is something to show in."""
    events, picks, score = inputs.events, inputs.compared_picks, inputs.scorecard
    figures = {}
    if len(events) or len(inputs.stations):
        figures["map"] = maps.event_map(events, inputs.stations, _links(inputs, shown))
    if len(events):
        figures["time"] = charts.timeline(events, inputs.config.run.span_ns)
    if score.get("events") and any(b["low"] is not None for b in score["events"]["by_magnitude"]):
        figures["recall"] = charts.recall_by_magnitude(score["events"]["by_magnitude"])
    if (events.status == "matched").any():
        figures["residuals"] = charts.event_residuals(events)
    if len(picks):
        p, s = (picks.dt_s[(picks.our_phase == phase) & (picks.their_phase == phase)] for phase in "PS")
        figures["picks"] = charts.pick_residuals(p, s)
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
        links[i] = Link(f"e{i}", f"{words.instant(int(time_ns[i]), 0)}{size}, {inputs.events.status[i]}")
    return links
