"""The rows of the page's lists."""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import quote

import numpy as np

from pipeline.maths import interest
from pipeline.maths.names import site
from pipeline.maths.overview import Grid, positions, times
from pipeline.page import words
from pipeline.page.inputs import Inputs
from pipeline.page.picks import urgent
from pipeline.records import Table

FEW = 10  # rows of the lists of what is lost, new and moved
Row = dict[str, Any]


def shown_events(inputs: Inputs) -> list[int]:
    """Which events the list shows: at most ``report.max_rows``, missed and new ones first to stay; by time."""
    return sorted(urgent(inputs.events)[: inputs.config.report.max_rows])


def event_rows(inputs: Inputs, shown: list[int]) -> list[Row]:
    """The events ``shown``, each with what our catalogue knows of it."""
    events, catalogue, origins = inputs.events, inputs.catalogue, inputs.origins
    row_of = {name: i for i, name in enumerate(catalogue.id.tolist())}
    located = inputs.origin_rows
    lat, lon, depth = positions(events)
    time_ns = times(events)
    flags, rows = words.flags(origins), []
    for i in shown:
        row = record(events, i)
        anchor = anchor_of(row["ours"], row["theirs"])
        row |= {
            "anchor": anchor,
            "link": f"#{quote(anchor, safe='=')}",
            "time_ns": int(time_ns[i]),
            "latitude_deg": lat[i],
            "longitude_deg": lon[i],
        }
        row |= {"depth_km": depth[i], "own": record(catalogue, row_of[row["ours"]]) if row["ours"] in row_of else None}
        row |= {"origin": record(origins, located[row["ours"]]) if row["ours"] in located else None}
        row |= {"why": inputs.reasons.get(row["theirs"], ("", "")), "said": inputs.decisions.get(row["ours"], "")}
        row["flag"] = flags.get(row["ours"], "")
        rows.append(row)
    return rows


def anchor_of(ours: str, theirs: str) -> str:
    """The fragment of the page's address that leads to an event."""
    return f"event={ours}" if ours else f"reference={theirs}"


def of_note(inputs: Inputs) -> dict[str, list[Row]]:
    """The first lost, new and moved events."""
    ranked = {
        "lost": interest.lost(inputs.events),
        "new": interest.new(inputs.events, inputs.probability),
        "moved": interest.moved(inputs.events),
    }
    return {name: event_rows(inputs, rows[:FEW].tolist()) for name, rows in ranked.items()}


def reason_counts(inputs: Inputs) -> list[tuple[str, int]]:
    """Each class of reasons and how many missed events it explains, the most frequent first; [] if none is known."""
    missed = inputs.events.theirs[inputs.events.status == "missed"].tolist()
    found = Counter(inputs.reasons[id_][0] if id_ in inputs.reasons else "not explained" for id_ in missed)
    return sorted(found.items(), key=lambda item: (-item[1], item[0])) if inputs.reasons else []


def record(table: Table, i: int) -> Row:
    """Row ``i`` of a table as plain values."""
    return {name: values[i].item() for name, values in table.as_dict().items()}


HEALTH = ("bad", "watch", "", "ok")  # in this order


def health_rows(inputs: Inputs) -> list[Row]:
    """How each station did on the last day, the ill ones first, and how many days it was ill."""
    found = inputs.health
    today = found.take(found.day == max(found.day.tolist(), default=""))
    days, ill = Counter(found.station.tolist()), Counter(found.station[np.isin(found.status, HEALTH[:2])].tolist())
    rows = []
    for i in range(len(today)):
        row = record(today, i)
        name = row["station"]
        share = row["n_in_events"] / row["n_picks"] if row["n_picks"] else None
        rows.append({**row, "share": share, "n_days": days[name], "n_ill": ill[name]})
    return sorted(rows, key=lambda row: (HEALTH.index(row["status"]), row["station"]))


def night_rows(inputs: Inputs) -> list[Row]:
    """The nights before and, last, this one: day, gate, numbers of events, and scores by their names."""
    gate, n = inputs.gate, inputs.scorecard.get("n", {})
    if not (inputs.nights and gate):
        return []
    scores = {name: one["value"] for name, one in gate["scores"].items()}
    tonight = {"start": gate["start"], "gate": gate["state"], "scores": scores}
    before = [{**night, "scores": {one["name"]: one["value"] for one in night["scores"]}} for night in inputs.nights]
    return [
        {
            "day": night["start"][:10],
            "matched": night.get("events_matched", n.get("events_matched")),
            "reference": night.get("events_reference", n.get("events_reference")),
            **{name: night[name] for name in ("gate", "scores")},
        }
        for night in (*before, tonight)
    ]


def shard_rows(inputs: Inputs) -> tuple[list[Row], int]:
    """Shards that want a look (failed, missing, empty, then repaired), and how many there are in all."""
    outcome_of = {name: i for i, name in enumerate(inputs.outcomes.shard.tolist())}
    order = ("failed", "missing", "empty", "picked")
    rows = []
    clean = ((inputs.outcomes.end == "picked") & (inputs.outcomes.notes == "")).tolist()
    for name in (shard.id for shard in inputs.shards.rows()):
        i = outcome_of.get(name)
        if i is None:
            rows.append({"shard": name, "end": "missing", "reason": "not picked yet", "notes": "", "traceback": ""})
        elif not clean[i]:
            rows.append({**record(inputs.outcomes, i), "traceback": inputs.tracebacks.get(name, "")})
    rows.sort(key=lambda row: (order.index(row["end"]), row["shard"]))
    return rows[: inputs.config.report.max_rows], len(rows)


def channel_rows(inputs: Inputs, grid: Grid) -> list[Row]:
    """One row a channel: its data, its picks, and how they compare at its site."""
    used = Counter(inputs.assignments.station.tolist())
    stations = inputs.scorecard["picks"]["by_station"] if inputs.scorecard.get("picks") else []
    score_of = {s["station"]: s for s in stations}
    rows = []
    for i, channel in enumerate(grid.channels[: inputs.config.report.max_rows]):
        planned, n = int(np.count_nonzero(grid.end[i] != "")), int(grid.n_p[i].sum() + grid.n_s[i].sum())
        row = {"channel": channel, "planned": planned, "picked": int(np.count_nonzero(grid.end[i] == "picked"))}
        row |= {"fraction": float(np.nansum(grid.fraction[i])) / planned if planned else None}
        row |= {"n_p": int(grid.n_p[i].sum()), "n_s": int(grid.n_s[i].sum()), "used": used[channel]}
        row |= {"used_share": used[channel] / n if n else None, "score": score_of.get(site(channel))}
        rows.append(row)
    return rows
