"""Numbers as text, and the run in one sentence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.config import Config

LACK = "–"  # shown where a number is not known
RATES = ("recall", "precision", "f1")
ENDS = ("picked", "empty", "failed", "missing")


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """``value`` rounded, with thousands and a real minus; a dash where it is not known."""
    if value is None or not math.isfinite(value):
        return LACK
    rounded = round(float(value), digits) + 0.0  # -0.0 becomes 0.0
    plus = "+" if sign and rounded else ""
    return format(rounded, f"{plus},.{digits}f").replace("-", "−")


def instant(time_ns: int, digits: int = 2, clock: bool = False) -> str:
    """ "2024-03-20 17:33:49.12" (UTC), or the time of day only; a dash for 0."""
    if not time_ns:
        return LACK
    step = 10 ** (9 - digits)
    rounded = (int(time_ns) + step // 2) // step * step
    text = str(np.datetime64(rounded, "ns"))[: 20 + digits].rstrip(".")
    return text[11:] if clock else text.replace("T", " ")


def plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def refusals(refused: dict[str, int]) -> str:
    """ "3 by max_gap_deg, 1 by max_rms_s"."""
    return ", ".join(f"{n:,} by {rule}" for rule, n in refused.items())


def interval(rate: dict[str, Any]) -> str:
    """ "0.93 [0.80–0.99]", without the interval where there is none."""
    if rate["low"] is None or rate["high"] is None:
        return number(rate["value"])
    return f"{number(rate['value'])} [{number(rate['low'])}–{number(rate['high'])}]"


def verdict(config: Config, books: dict[str, Any], scorecard: dict[str, Any], associated: bool) -> str:
    """One sentence: what was found, how it compares, and whether all the work is done."""
    if not associated:
        found = "No catalogue yet (run orcolat associate)"
    elif scorecard.get("events"):
        found = _compared(scorecard, config.compare.confidence)
    else:
        picks = books["picks"]["in_events"]
        found = f"Found {plural(books['events'], 'event')} with {plural(picks, 'pick')}" if picks else "Found no event"
        found += "; no reference events to compare with"
    return f"{found}; {_work(config, books['shards'])}."


def _compared(scorecard: dict[str, Any], confidence: float) -> str:
    n, recall = scorecard["n"], scorecard["events"]["recall"]
    found = f"Found {n['events_matched']:,} of {plural(n['events_reference'], 'reference event')}"
    if recall["value"] is not None:
        found += f" (recall {number(recall['value'])}"
        if recall["low"] is not None and recall["high"] is not None:
            found += f", {100 * confidence:g} % interval {number(recall['low'])}–{number(recall['high'])}"
        found += ")"
    return f"{found}; {plural(n['events_ours'] - n['events_matched'], 'new event')}"


def _work(config: Config, shards: dict[str, int]) -> str:
    if config.pick.source:
        return f"picks imported from {config.pick.source.name}, no waveforms"
    rest = "".join(f", {shards[end]:,} {end}" for end in ENDS[1:] if shards[end])
    again = " (run it again)" if shards["failed"] + shards["missing"] else ""
    return f"{shards['picked']:,} of {plural(shards['planned'], 'shard')} picked{rest}{again}"


def state(books: dict[str, Any], associated: bool) -> str:
    """ "bad" if the books do not balance, "open" if work is left, else "good"."""
    left = books["shards"]["failed"] + books["shards"]["missing"]
    return "bad" if books["breaches"] else "open" if left or not associated else "good"


def score_rows(scorecard: dict[str, Any]) -> list[dict[str, Any]]:
    """Counts and rates of events, P picks and S picks; what was not compared is left out."""
    rows, n = [], scorecard.get("n", {})
    if scorecard.get("events"):
        counts = {key: n[f"events_{key}"] for key in ("reference", "ours", "matched")}
        rows.append({"name": "events", **counts, **{key: scorecard["events"][key] for key in RATES}})
    for phase in "PS" if scorecard.get("picks") else "":
        stations = scorecard["picks"]["by_station"]
        counts = {key: sum(s[f"{key}_{phase.lower()}"] for s in stations) for key in ("reference", "ours", "matched")}
        rows.append({"name": f"{phase} picks", **counts, **{key: scorecard["picks"][phase][key] for key in RATES}})
    return rows


def residual_rows(scorecard: dict[str, Any]) -> list[dict[str, Any]]:
    """Residual statistics of events and picks, each with its unit."""
    events = scorecard["events"]["residuals"] if scorecard.get("events") else {}
    names = (("time_s", "origin time", "s"), ("epicentre_km", "epicentre", "km"), ("depth_km", "depth", "km"))
    rows = [{"name": name, "unit": unit, **events[key]} for key, name, unit in names if key in events]
    for phase in "PS" if scorecard.get("picks") else "":
        rows.append({"name": f"{phase} picks", "unit": "s", **scorecard["picks"][phase]["residual_s"]})
    return rows


def terminal(books: dict[str, Any], waveforms: bool) -> str:
    """The account and the scores in a few lines of plain text."""
    shards, picks, hours = books["shards"], books["picks"], books["hours"]
    lines = [books["verdict"]]
    if waveforms:
        ends = " + ".join(f"{shards[end]:,} {end}" for end in ENDS)
        lines += [f"shards     {shards['planned']:,} planned = {ends}"]
        lines += [f"data       {hours['data']:,.1f} of {hours['planned']:,.1f} hours"]
    fate = f" = {picks['in_events']:,} in events + {picks['noise']:,} noise" if books["associated"] else ""
    lines += [f"picks      {picks['total']:,} ({picks['p']:,} P, {picks['s']:,} S){fate}"]
    refused = books.get("refused")  # accounts of older versions have none
    more = f"; refused: {refusals(refused)}" if refused else ""
    lines += [f"events     {books['events']:,}{more}" if books["associated"] else "events     not associated yet"]
    for row in books["scores"]:
        recall, precision, f1 = (interval(row[key]) for key in RATES)
        lines.append(f"{row['name']:10} recall {recall}  precision {precision}  F1 {f1}")
    return "\n".join([*lines, *(f"BREACH     {breach}" for breach in books["breaches"])])
