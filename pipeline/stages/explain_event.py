"""One event of the reference, step by step: as text, as JSON, and as a record section."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.maths import reasons
from pipeline.maths.account import events_of
from pipeline.maths.names import site
from pipeline.maths.reasons import Expected, Reason
from pipeline.plots import explained as plots
from pipeline.plots.explained import Mark, Row
from pipeline.plots.svg import style
from pipeline.records import NS, Events, Float
from pipeline.rundir import publish
from pipeline.stages import explain_inputs
from pipeline.stages.explain_inputs import Inputs
from pipeline.stages.explain_scores import Scored

NEAREST_S = 60.0  # an event of the reference is that near to the time that is asked for
SHOWN = 6  # arrivals named in a sentence
FILES = ("explanation.json", "section.svg", "section.png")


@dataclass(frozen=True)
class Explanation:
    """What is known of one event (a table of one row). ``before`` is the reason without a look at the waveforms."""

    event: Events
    reason: Reason
    before: Reason
    seen: Expected
    scored: Scored


def chosen(inputs: Inputs, name: str | None, time: datetime | None) -> Events:
    """The event of the reference that is asked for, by its id or by the nearest time. Raises ConfigError."""
    theirs = inputs.theirs
    if time is not None:
        if not len(theirs):
            raise ConfigError("compare.reference_events is not set or empty: there is no event to explain")
        away_ns = np.abs(theirs.time_ns - _ns(time))
        row = int(np.argmin(away_ns))
        if away_ns[row] > NEAREST_S * NS:
            what = f"{theirs.id[row]} at {_iso(int(theirs.time_ns[row]))}"
            raise ConfigError(
                f"--time {time:%Y-%m-%dT%H:%M:%S}: no event within {NEAREST_S:g} s; the nearest is {what}"
            )
        return theirs.take(slice(row, row + 1))
    rows = np.flatnonzero(theirs.id == name)
    if not len(rows):
        some = ", ".join(theirs.id[:3].tolist())
        raise ConfigError(f"--event {name}: not among the {len(theirs)} events of the reference ({some}, ...)")
    return theirs.take(rows[:1])


def _ns(time: datetime) -> int:
    return int(np.datetime64(time.replace(tzinfo=None), "ns").astype(np.int64))


def _iso(time_ns: int) -> str:
    return str(np.datetime64(time_ns, "ns").astype("datetime64[ms]"))


def found(inputs: Inputs, event: Events) -> Reason | None:
    """The event of ours that it is matched with, as a reason; None: it was missed."""
    ours = {theirs: name for name, theirs in inputs.partner.items()}.get(str(event.id[0]))
    if ours is None:
        return None
    near = explain_inputs.near(inputs, event, inputs.row[ours])
    return Reason(reasons.FOUND, "", str(near), near)


def text(inputs: Inputs, what: Explanation, files: Sequence[Path] = ()) -> str:
    """The explanation for the terminal."""
    lines = [f"{name:11}{line}" for name, line in steps(inputs, what)]
    lines += ["", *_table(what), *(f"{path}" for path in files)]
    return "\n".join(lines)


def steps(inputs: Inputs, what: Explanation) -> list[tuple[str, str]]:
    """One line a step."""
    event, seen, reason = what.event, what.seen, what.reason
    kind = "" if event.kind[0] == "earthquake" else f", {event.kind[0]}"
    depth = f"{event.depth_km[0]:.1f} km deep" if np.isfinite(event.depth_km[0]) else "depth not known"
    place = f"{event.latitude_deg[0]:.3f} N {event.longitude_deg[0]:.3f} E, {depth}"
    lines = [
        ("event", f"{event.id[0]}, {_iso(int(event.time_ns[0]))}, {place}, {_magnitude(event)}{kind}"),
        ("reason", f"{reason.reason}: {reason.detail}"),
    ]
    if (what.before.reason, what.before.detail) != (reason.reason, reason.detail):
        lines.append(("", f"without a look at the waveforms: {what.before.reason}: {what.before.detail}"))
    whose = "predicted, at the nearest" if _predicted(seen) else "in the reference, at"
    lines.append(("arrivals", f"{len(seen)} {whose} {len(np.unique(seen.station))} stations"))
    lines.append(("data", ", ".join(f"{n} {state}" for state, n in sorted(Counter(seen.state.tolist()).items()))))
    lines.append(("scored", _scored_line(inputs, what)))
    picked = seen.take(seen.our_phase != "")
    wrong = int(np.count_nonzero(picked.our_phase != picked.phase))
    lines.append(
        ("picked", f"{len(picked)} of {len(seen)}" + (f", {wrong} of them as the other phase" if wrong else ""))
    )
    held = Counter(name or "no event" for name in picked.our_event.tolist())
    lines.append(("associated", ", ".join(f"{n} in {name}" for name, n in held.most_common()) or "none"))
    lines += _others(inputs, what)
    return lines


def _magnitude(event: Events) -> str:
    return f"magnitude {event.magnitude[0]:.1f}" if np.isfinite(event.magnitude[0]) else "no magnitude"


def _others(inputs: Inputs, what: Explanation) -> list[tuple[str, str]]:
    """The events of ours that hold its picks, or that the reason is about."""
    names = dict.fromkeys([what.reason.other.id, *what.seen.our_event.tolist()])
    lines = []
    for name in [name for name in names if name]:
        near = explain_inputs.near(inputs, what.event, inputs.row[name])
        lines.append(("", f"{near}; in the reference it is {near.partner or 'nothing'}"))
    return lines


def _predicted(seen: Expected) -> bool:
    return bool(len(seen)) and bool(seen.predicted.all())


def _thresholds(inputs: Inputs) -> dict[str, float]:
    pick = inputs.config.pick
    return {"P": pick.threshold_p, "S": pick.threshold_s}


def _scored_line(inputs: Inputs, what: Explanation) -> str:
    """How far below the threshold the arrivals without a pick are."""
    scored, seen = what.scored, what.seen
    if not scored.tried:
        return scored.about
    limit = np.array([_thresholds(inputs)[phase] for phase in seen.phase.tolist()])
    known = np.isfinite(scored.probability)
    over = known & (scored.probability >= limit)
    below = np.flatnonzero(known & ~over & (seen.our_phase == ""))
    below = below[np.argsort(-scored.probability[below], kind="stable")]
    named = [f"{seen.station[i]} {seen.phase[i]} {scored.probability[i]:.2f}" for i in below[:SHOWN].tolist()]
    tail = f"; the highest of {len(below)} below: {', '.join(named)}" if named else ""
    limits = ", ".join(f"{phase} {value:g}" for phase, value in _thresholds(inputs).items())
    first = (
        f"again {scored.about}: {np.count_nonzero(over)} of {np.count_nonzero(known)} reach the threshold ({limits})"
    )
    failed = "".join(f"; {station}: {problem}" for station, problem in scored.problems.items())
    return first + tail + failed


def _table(what: Explanation) -> list[str]:
    """One line an arrival, the nearest first."""
    seen, probability = what.seen, what.scored.probability
    lines = [f"{'station':10} {'km':>6} {'phase':5} {'arrival':12} {'probability':>11}  {'our pick':>16}  event"]
    origin_ns = int(what.event.time_ns[0])
    for i in np.lexsort((seen.phase, seen.station, seen.distance_km)).tolist():
        at_s = (int(seen.time_ns[i]) - origin_ns) / NS
        p = f"{probability[i]:.2f}" if np.isfinite(probability[i]) else "-"
        pick = ""
        if seen.our_phase[i]:
            dt_s = (int(seen.our_time_ns[i]) - int(seen.time_ns[i])) / NS
            pick = f"{seen.our_phase[i]} {dt_s:+.2f} s {seen.our_probability[i]:.2f}"
        open_ = "not picked" if seen.state[i] in reasons.HAS_SCORES else seen.state[i]
        end = seen.our_event[i] or ("noise" if seen.our_phase[i] else open_)
        km = f"{seen.distance_km[i]:6.1f}" if np.isfinite(seen.distance_km[i]) else "     -"
        lines.append(f"{seen.station[i]:10} {km} {seen.phase[i]:5} {at_s:+9.2f} s  {p:>11}  {pick:>16}  {end}")
    return lines


def as_json(inputs: Inputs, what: Explanation) -> dict[str, Any]:
    """The same, for a program. NaN is null."""
    event, seen, scored = what.event, what.seen, what.scored
    return {
        "event": {name: plain(values[0]) for name, values in event.as_dict().items()},
        "reason": _reason(what.reason),
        "reason_without_waveforms": _reason(what.before),
        "steps": [{"step": name, "found": line} for name, line in steps(inputs, what)],
        "scored": {"about": scored.about, "problems": scored.problems, "thresholds": _thresholds(inputs)},
        "arrivals": [
            {name: plain(values[i]) for name, values in seen.as_dict().items() if name != "event"}
            | {"probability": plain(scored.probability[i]), "probability_time_ns": int(scored.time_ns[i])}
            for i in range(len(seen))
        ],
    }


def _reason(reason: Reason) -> dict[str, Any]:
    other = {name: plain(value) for name, value in reason.other._asdict().items()} if reason.other.id else None
    return {"reason": reason.reason, "rule": reason.rule, "detail": reason.detail, "other": other}


def plain(value: Any) -> Any:
    """A value of a column as JSON has it."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def rows(inputs: Inputs, what: Explanation) -> list[Row]:
    """The stations of the drawing."""
    seen, picks = what.seen, inputs.picks
    origin_ns = int(what.event.time_ns[0])
    own = what.reason.other.id
    span_ns = int(seen.time_ns.min(initial=origin_ns)) - 60 * NS, int(seen.time_ns.max(initial=origin_ns)) + 60 * NS
    first, stop = np.searchsorted(picks.time_ns, span_ns)
    near = picks.take(slice(int(first), int(stop)))
    event = events_of(near, inputs.assignments)
    marks: dict[str, list[Mark]] = {}
    for name, phase, time_ns, holder in zip(
        near.station.tolist(), near.phase.tolist(), near.time_ns.tolist(), event, strict=True
    ):
        of = "" if not holder else "this" if holder == own else "other"
        marks.setdefault(site(name), []).append(Mark(phase, (time_ns - origin_ns) / NS, of))
    return [_row(what, name, tuple(marks.get(name, []))) for name in np.unique(seen.station).tolist()]


def _row(what: Explanation, name: str, ours: tuple[Mark, ...]) -> Row:
    origin_ns, at = int(what.event.time_ns[0]), np.flatnonzero(what.seen.station == name)
    mine, p = what.seen.take(at), what.scored.probability[at]

    def marks(time_ns: Any, rows: Any) -> tuple[Mark, ...]:
        pairs = zip(mine.phase[rows].tolist(), time_ns[rows].tolist(), strict=True)
        return tuple(Mark(phase, (at_ns - origin_ns) / NS) for phase, at_ns in pairs)

    trace = what.scored.traces.get(name)
    told = [
        f"{phase} {value:.2f}" for phase, value in zip(mine.phase.tolist(), p.tolist(), strict=True) if value == value
    ]
    state = [state for state in np.unique(mine.state).tolist() if state not in reasons.HAS_SCORES]
    row = Row(
        name=name,
        distance_km=float(mine.distance_km[0]),
        theirs=marks(mine.time_ns, ~mine.predicted),
        predicted=marks(mine.predicted_ns, mine.predicted_ns > 0),
        ours=ours,
        remark=", ".join([*told, *state]),
    )
    if trace is None:
        return row
    wave, scores = trace.waveform, trace.scores
    time_s = (wave.start_ns - origin_ns) / NS + np.arange(len(wave)) / wave.rate_hz
    vertical = np.where(wave.valid, _fast(wave.samples[0].astype(np.float64), wave.rate_hz), np.nan)
    values = {phase: scores.probability[k].astype(np.float64) for k, phase in enumerate(scores.phases)}
    return Row(row.name, row.distance_km, row.theirs, row.predicted, row.ours, row.remark, time_s, vertical, values)


def _fast(samples: Float, rate_hz: float) -> Float:
    """What is left of ``samples`` (n,) without their running mean over 1 s, for the eye."""
    n = max(1, min(round(rate_hz), len(samples)))
    weight = np.convolve(np.ones(len(samples)), np.ones(n), "same")
    left: Float = samples - np.convolve(samples, np.ones(n), "same") / weight
    return left


def folder_name(event: str) -> str:
    """An id of any reference, as the name of one folder that no path can leave."""
    return re.sub(r"[^\w.-]+", "_", event).lstrip(".")[:100] or "event"


def keep(inputs: Inputs, what: Explanation, output: Path | None) -> list[Path]:
    """Publish `FILES` in ``output``, or in the run directory; their paths."""
    name = str(what.event.id[0])
    folder = output or inputs.run_dir.explained(folder_name(name))
    paths = [folder / each for each in FILES]
    with publish(paths[0]) as part:
        part.write_text(
            json.dumps(as_json(inputs, what), indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8"
        )
    title = f"{name}, {_iso(int(what.event.time_ns[0]))}, {_magnitude(what.event)}\n"
    title += f"{what.reason.reason}: {what.reason.detail}"
    with style():
        fig = plots.section(title, rows(inputs, what), _thresholds(inputs))
    with publish(paths[1]) as svg, publish(paths[2]) as png:
        plots.write(fig, svg, png)
    return paths
