"""The page of an adaptation: verdict first, then scores, tests, checks, training. One file from one dict.

Everything is escaped; nothing is loaded from anywhere. `Report` says what goes in: what JSON can hold, None for what is
not known. What is optional and missing is said to be missing, where a reader would ask for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from markupsafe import Markup

from pipeline.page import html
from pipeline.page.words import LACK, number
from pipeline.plots import adapt as plots
from pipeline.plots.svg import Drawing

PARTS = ("train", "validation", "test")


class Needed(TypedDict):
    """What every page has. ``scores`` and ``against`` are rows of `maths/picking_tables.py`; shares are 0 to 1."""

    title: str
    base: dict[str, str]  # name, digest
    adapter: dict[str, str]  # name, digest, file
    ours: str  # the method that is judged, as the rows call it
    recipe: dict[str, Any]  # shown as it is: name -> text or number
    shares: dict[str, float]  # adapter, base (parameters), of_base, of_total
    confidence: float
    seeds: list[int]
    primary: dict[str, Any]  # set, other, tolerance_s, counted: the question that the verdict answers
    sets: list[
        dict[str, Any]
    ]  # name, source, counts {train|validation|test: {records, noise, events, stations, p, s}},
    #                             dropped {reason: records}
    leakage: dict[str, Any]  # passed, checks [{name, passed, detail}], warnings [text]
    scores: list[dict[str, Any]]
    against: list[dict[str, Any]]


class Report(Needed, total=False):
    """The input of `render`: what is needed, and what may be there."""

    thresholds: list[dict[str, Any]]  # method, P, S, chosen (on what)
    control: dict[str, Any]  # what, rows: as `against`, ours = the control; against: ours against the control
    replay: dict[str, Any]  # `picking_tables.replay`
    curves: list[dict[str, Any]]  # name, epochs, train, validation, chosen (epoch), ended (why)
    reliability: list[dict[str, Any]]  # phase, before, after: each `picking_tables.curve`
    residuals: list[dict[str, Any]]  # set, phase, before_s, after_s: pick minus label
    catalogue_note: str  # what that cannot show
    catalogue: list[dict[str, Any]]  # name, before, after (number, text or {value, low, high}), digits
    cost: dict[str, Any]  # device, rows [{name, wall_s, cpu_s}]
    notes: list[str]


def render(report: Report) -> str:
    """The page as text."""
    sentence, state = verdict(report)
    passed = bool(report["leakage"]["passed"])
    return html.fill(
        "adapt.html.j2",
        None,
        r={**dict.fromkeys(Report.__optional_keys__), **report},
        verdict=sentence,
        state=state,
        shown=passed,
        parts=PARTS,
        tables=_tables(report) if passed else [],
        rules=_rules(report) if passed else [],
        residual_sets=_residual_sets(report),
        control_gains=_control_gains(report),
        figures={name: Markup(drawing.svg()) for name, drawing in draw(report).items()},
        gain=gain,
        chance=chance,
        chances=chances,
        cell=cell,
    )


def draw(report: Report) -> dict[str, Drawing]:
    """The figures there is something to show in, by name; none with results where the leakage gate is shut."""
    found = {}
    if report["leakage"]["passed"]:
        for table in _tables(report):
            key, rows = table["figure"], table["against"]
            if key:
                found[f"f1-{key}"] = plots.f1_figure(table["rows"], report["ours"], f"f1-{key}")
            if key and rows:
                found[f"gain-{key}"] = plots.difference_figure(rows, f"gain-{key}")
        for k, one in enumerate(_residual_sets(report)):
            mine = [row for row in report.get("residuals", []) if row["set"] == one]
            found[f"residuals-{k}"] = plots.residual_figure(mine, f"residuals-{k}")
        if report.get("reliability"):
            found["reliability"] = plots.reliability_figure(report["reliability"])
    if report.get("curves"):
        found["curves"] = plots.learning_curves(report["curves"])
    return found


def verdict(report: Report) -> tuple[str, str]:
    """One sentence or a few, and "good", "open" or "bad".

    A gain needs both: the interval of the difference of F1, which draws whole events, lies above 0, and the exact test
    over seeds, after Holm, is below 1 - confidence in the same direction. So does a loss.
    """
    if not report["leakage"]["passed"]:
        failed = [check["name"] for check in report["leakage"]["checks"] if not check["passed"]]
        return f"No result: the leakage gate refuses this split ({'; '.join(failed) or 'no reason given'}).", "bad"
    first = report["primary"]
    rows = [row for row in report["against"] if _is_primary(row, first)]
    where = f"{first['other']} on {first['set']}"
    if not rows:
        return f"No result: nothing was compared with {where}.", "bad"
    kinds = {kind: [row for row in rows if judged(row, report["confidence"]) == kind] for kind in ("gain", "loss", "")}
    opening = {"gain": "Better than {}", "loss": "Worse than {}", "": "No gain over {} can be shown"}
    told = [
        f"{opening[kind].format(where)}: {', '.join(_clause(row, report) for row in members)}"
        for kind, members in kinds.items()
        if members
    ]
    caveats = _caveats(report, {row["phase"] for row in kinds["gain"]})
    state = "bad" if kinds["loss"] or caveats else "good" if kinds["gain"] and not kinds[""] else "open"
    if kinds["gain"] and "control" not in report:
        caveats.append("No control with shuffled labels was run")
        state = "open" if state == "good" else state
    return " ".join(f"{sentence}." for sentence in [*told, *caveats]), state


def judged(row: dict[str, Any], confidence: float) -> str:
    """ "gain", "loss" or "": neither can be shown."""
    low, high, p = row["difference"]["f1"]["low"], row["difference"]["f1"]["high"], row["p_holm"]
    if low is None or high is None or p is None or not p < 1 - confidence:
        return ""
    net = row["only_ours"] - row["only_theirs"]
    return "gain" if low > 0 and net > 0 else "loss" if high < 0 and net < 0 else ""


def _clause(row: dict[str, Any], report: Report) -> str:
    """ "P F1 0.91 against 0.85 (+0.06 [+0.02, +0.10], Holm p 0.004)"."""
    values = {
        score["method"]: score["f1"]["value"]
        for score in report["scores"]
        if score["set"] == row["set"] and score["phase"] == row["phase"] and _same_rule(score, row)
    }
    pair = " against ".join(number(values.get(row[key])) for key in ("ours", "other"))
    return f"{row['phase']} F1 {pair} ({gain(row['difference']['f1'])}, Holm p {chance(row['p_holm'])})"


def _caveats(report: Report, gained: set[str]) -> list[str]:
    """What takes from the verdict that there is a gain for these phases."""
    told = []
    beaten = {row["phase"] for row in _beyond_control(report) if judged(row, report["confidence"]) == "gain"}
    if report.get("control") and (doubtful := sorted(gained - beaten)):
        what = " and ".join(doubtful)
        told.append(f"For {what} it is no better than the control with wrong labels: that gain is not learnt from them")
    if report.get("replay", {}).get("state") == "worse":
        replay = report["replay"]
        told.append(f"On {replay['set']}, where the base comes from, it is worse than its parent")
    return told


def _residual_sets(report: Report) -> list[str]:
    return list(dict.fromkeys(row["set"] for row in report.get("residuals", [])))


def _beyond_control(report: Report) -> list[dict[str, Any]]:
    """Ours against the control, on the verdict's set and by its rule."""
    first, rows = report["primary"], report.get("control", {}).get("against", [])
    return [row for row in rows if row["set"] == first["set"] and _same_rule(row, first)]


def _control_gains(report: Report) -> bool:
    """Whether the control gains, by what would be called a gain of ours."""
    rows: Sequence[dict[str, Any]] = report.get("control", {}).get("rows", [])
    return any(judged(row, report["confidence"]) == "gain" for row in rows)


def _same_rule(row: dict[str, Any], rule: dict[str, Any]) -> bool:
    return bool(row["tolerance_s"] == rule["tolerance_s"] and row["counted"] == rule["counted"])


def _is_primary(row: dict[str, Any], first: dict[str, Any]) -> bool:
    return _same_rule(row, first) and row["set"] == first["set"] and row["other"] == first["other"]


def _compared(report: Report, rule: dict[str, Any]) -> list[dict[str, Any]]:
    """The comparisons by a rule; those of the verdict's data set and method first."""
    first = report["primary"]
    rows = [row for row in report["against"] if _same_rule(row, rule)]
    return sorted(rows, key=lambda row: (row["set"] != first["set"], row["other"] != first["other"]))


def _rules(report: Report) -> list[dict[str, Any]]:
    """Every rule once, that of the verdict first, each with its comparisons."""
    first = report["primary"]
    found = dict.fromkeys((row["tolerance_s"], row["counted"]) for row in (first, *report["against"]))
    rules = [{"tolerance_s": tolerance_s, "counted": counted} for tolerance_s, counted in found]
    return [{**rule, "main": _same_rule(rule, first), "rows": _compared(report, rule)} for rule in rules]


def _tables(report: Report) -> list[dict[str, Any]]:
    """Scores by data set and rule, those of the verdict first; those of its rule, ``main``, have figures too."""
    found: dict[tuple[str, float, str], list[dict[str, Any]]] = {}
    for row in report["scores"]:
        found.setdefault((row["set"], row["tolerance_s"], row["counted"]), []).append(row)
    first = report["primary"]
    tables: list[dict[str, Any]] = [
        {"set": name, "tolerance_s": tolerance_s, "counted": counted, "rows": rows, "main": _same_rule(rows[0], first)}
        for (name, tolerance_s, counted), rows in found.items()
    ]
    tables.sort(key=lambda table: (table["set"] != first["set"], not table["main"]))
    for k, table in enumerate(tables):
        table["figure"] = str(k) if table["main"] else ""
        table["against"] = [row for row in _compared(report, table) if row["set"] == table["set"]]
    return tables


def gain(one: dict[str, Any]) -> str:
    """ "+0.06 [+0.02, +0.10]"."""
    value, low, high = (number(one[key], 2, sign=True) for key in ("value", "low", "high"))
    return value if LACK in (low, high) else f"{value} [{low}, {high}]"


def chance(p: float | None) -> str:
    """A p-value with two significant digits."""
    return LACK if p is None else "<0.0001" if p < 0.0001 else f"{p:.2g}"


def chances(p: Sequence[float]) -> str:
    """From the least to the largest."""
    return " to ".join(dict.fromkeys(chance(one) for one in (min(p), max(p)))) if p else LACK


def cell(value: Any, digits: int = 0) -> str:
    """A number, a text, or a value with its interval."""
    if isinstance(value, dict):
        told = number(value["value"], digits)
        known = value["low"] is not None and value["high"] is not None
        return f"{told} [{number(value['low'], digits)}–{number(value['high'], digits)}]" if known else told
    return value if isinstance(value, str) else number(value, digits)
