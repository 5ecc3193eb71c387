"""Numbers as text, and the run in one sentence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.config import Config, Floor
from pipeline.maths import completeness, interest
from pipeline.maths.overview import positions, times
from pipeline.page.inputs import Inputs
from pipeline.records import ComparedEvents, Origins, StationHealth

LACK = "–"  # shown where a number is not known
RATES = ("recall", "precision", "f1")
ENDS = ("picked", "empty", "failed", "missing")
LETTER = 5  # events of each kind in a mail
BLAST = "quarry blast"
DECIDED = {  # as in the scorecard, and in words
    "accepted": "accepted",
    "rejected": "rejected",
    "quarry_blasts": "called quarry blasts",
    "unsure": "unsure",
    "undecided": "undecided",
}
COMPLETE = 0.9  # recall from which on a catalogue is called complete


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


def chance(probability: float | None) -> str:
    """A probability in per cent; none is told as certain."""
    if probability is None or not math.isfinite(probability):
        return LACK
    return ">99" if probability > 0.99 else "<1" if probability < 0.01 else f"{100 * probability:.0f}"


def flags(origins: Origins) -> dict[str, str]:
    """What may be wrong with an event, by its id, of those where something may be."""
    columns = zip(origins.id.tolist(), origins.kind.tolist(), origins.is_duplicate_of.tolist(), strict=True)
    told = {id_: [f"{BLAST}?"] * (kind == BLAST) + ["repeats another?"] * bool(other) for id_, kind, other in columns}
    return {id_: ", ".join(some) for id_, some in told.items() if some}


def flagged(origins: Origins) -> str:
    """How many events have a flag; "" if none has."""
    blasts, repeats = (int(np.count_nonzero(rows)) for rows in (origins.kind == BLAST, origins.is_duplicate_of != ""))
    told = [f"{blasts:,} may be quarry blasts"] * bool(blasts) + [f"{repeats:,} may repeat another event"] * bool(
        repeats
    )
    return f"Flags, none of which removes an event: {', '.join(told)}." if told else ""


def reviewed(scorecard: dict[str, Any]) -> str:
    """What analysts decided on new events, and the rates with that; "" where they decided nothing."""
    found = (scorecard.get("events") or {}).get("after_review")
    if not found:
        return ""
    told = [f"{found[name]:,} {word}" for name, word in DECIDED.items() if found[name]] or ["none"]
    rates = " and ".join(f"{name} {interval(found[name])}" for name in RATES[:2])
    return f"New events after review: {', '.join(told)}; with that {rates}."


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
    if not n["events_reference"]:
        return f"No events in the reference; {plural(n['events_ours'], 'new event')}"
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


def floor_rows(floor: Floor | None, events: ComparedEvents) -> list[dict[str, Any]]:
    """Of matched events the median sizes of the differences, beside those of two analysts."""
    ours = completeness.medians(events)
    names = (("epicentre_km", "epicentre", "km"), ("depth_km", "depth", "km"), ("time_s", "origin time", "s"))
    return [
        {"name": name, "unit": unit, "ours": ours[key], "floor": getattr(floor, key)}
        for key, name, unit in names
        if floor and key in ours
    ]


def complete(inputs: Inputs) -> str:
    """From which magnitude on we have nearly all of the reference; "" where that cannot be told."""
    settings = inputs.config.compare
    whole = completeness.from_on(inputs.events, settings.magnitude_bin, settings.confidence)
    above = completeness.complete_above(whole, COMPLETE)
    if not whole or not inputs.scorecard.get("events"):
        return ""
    if above is None:
        return f"There is no magnitude from which on {100 * COMPLETE:.0f} % of the reference is found."
    one = next(one for one in whole if one.magnitude == above)
    bounds = f"{100 * settings.confidence:g} % interval {number(one.low)}–{number(one.high)}"
    return (
        f"From M {number(above, 1)} on at least {100 * COMPLETE:.0f} % of the reference is found: "
        f"{one.matched:,} of {plural(one.n, 'event')} (recall {number(one.recall)}, {bounds})."
    )


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


def letter(inputs: Inputs, books: dict[str, Any], figures: list[str]) -> str:
    """The report as plain text, for a mail."""
    config = inputs.config
    span = f"{config.run.start:%Y-%m-%d %H:%M} to {config.run.end:%Y-%m-%d %H:%M} UTC"
    lines = [config.report.title or config.run.name, span, ""]
    lines += [inputs.gate["verdict"], ""] if inputs.gate else []
    lines += [terminal(books, config.archive.root is not None)]
    floor = config.compare.floor
    for row in floor_rows(floor, inputs.events):
        ours, theirs = (f"{number(row[key])} {row['unit']}" for key in ("ours", "floor"))
        lines.append(f"{row['name']:10} {ours} to the reference (median); {floor.name if floor else ''}: {theirs}")
    lines += filter(None, (complete(inputs), reviewed(inputs.scorecard), flagged(inputs.origins)))
    ill = [(name, why) for name, status, why in _stations(inputs.health) if status in ("watch", "bad")]
    lines += [f"station    {name}: {why}" for name, why in ill[:LETTER]]
    lines += [f"           and {len(ill) - LETTER} more"] if len(ill) > LETTER else []
    events = inputs.events
    for title, found in (("lost", interest.lost(events)), ("new", interest.new(events, inputs.probability))):
        if len(found) and inputs.scorecard:
            lines += ["", f"{title} ({min(LETTER, len(found))} of {len(found)})"]
            lines += [_line(inputs, row) for row in found[:LETTER].tolist()]
    lines += ["", "the page   index.html"]
    return "\n".join([*lines, *([f"pictures   {', '.join(f'{name}.png' for name in figures)}"] if figures else []), ""])


def _stations(health: StationHealth) -> list[tuple[str, str, str]]:
    """Name, state and reason of each station on the last day."""
    today = health.take(health.day == max(health.day.tolist(), default=""))
    return list(zip(today.station.tolist(), today.status.tolist(), today.reason.tolist(), strict=True))


def _line(inputs: Inputs, row: int) -> str:
    """An event in one line."""
    events = inputs.events
    lat, lon, depth_km = (float(values[row]) for values in positions(events))
    size, n_picks = number(float(events.magnitude[row]), 1), int(events.n_p[row] + events.n_s[row])
    place = f"{number(lat, 3):>7} {number(lon, 3):>8}  {number(depth_km, 1):>5} km"
    share, why = float(inputs.probability[row]), inputs.reasons.get(str(events.theirs[row]), ("", ""))[0]
    more = [f"{n_picks} picks" if n_picks else "", f"real {chance(share)} %" if np.isfinite(share) else "", why]
    when = instant(int(times(events)[row]), 1)
    return "  ".join([f"  {when}  M {size:>4}", place, *filter(None, more)])
