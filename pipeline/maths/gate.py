"""When a night is good enough: its scores with their intervals, each against its limit, and one sentence.

A check fails only where the whole confidence interval is on the wrong side of its limit: a quiet night with one missed
event of two does not fail by chance. Where the value is on the wrong side and the interval is not, nobody can tell, and
the check says "unknown". What one night cannot tell some nights together can: each check is made of them, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from pipeline.maths.comparison import pick_groups
from pipeline.maths.intervals import of_clusters, of_median, of_share, weighted_median
from pipeline.maths.scorecard import phase_flags, scored
from pipeline.maths.stats import NAN, by_group
from pipeline.records import ComparedEvents, ComparedPicks, Float

State = Literal["pass", "fail", "unknown"]
NOBODY = "nothing to compare with"


@dataclass(frozen=True, slots=True)
class Measure:
    """A score that a limit can be set to. ``is_rate``: a share, of which much is good; else a difference."""

    name: str  # of the score
    what: str  # the same in words
    limit: str  # name of the limit in the configuration
    is_rate: bool
    unit: str = ""


MEASURES = (
    Measure("recall", "recall of events", "min_recall", True),
    Measure("precision", "precision of events", "min_precision", True),
    Measure("recall_p", "recall of P picks", "min_recall_p", True),
    Measure("recall_s", "recall of S picks", "min_recall_s", True),
    Measure("precision_p", "precision of P picks", "min_precision_p", True),
    Measure("precision_s", "precision of S picks", "min_precision_s", True),
    Measure("epicentre_km", "median distance of epicentres", "max_epicentre_km", False, "km"),
    Measure("depth_km", "median difference of depth", "max_depth_km", False, "km"),
    Measure("time_s", "median difference of origin time", "max_time_s", False, "s"),
    Measure("residual_p_s", "median difference of P picks", "max_residual_p_s", False, "s"),
    Measure("residual_s_s", "median difference of S picks", "max_residual_s_s", False, "s"),
    Measure("coverage", "share of the hours with data", "min_coverage", True),
)


@dataclass(frozen=True, slots=True)
class Score:
    """A value with its confidence interval, and of how many cases it is; all NaN where nothing was compared."""

    value: float
    low: float
    high: float
    n: int


Scores = dict[str, Score]
UNKNOWN = Score(NAN, NAN, NAN, 0)


@dataclass(frozen=True, slots=True)
class Before:
    """The scores of nights before, by time: for each name values (k,) and numbers of cases (k,), NaN where unknown."""

    value: Mapping[str, Float]
    n: Mapping[str, Float]


@dataclass(frozen=True, slots=True)
class Rule:
    """How far below (a rate) or above (a difference, as a share) the median of ``nights`` nights before is too far.

    ``recent_nights``: so many nights, tonight the last of them, are judged together.
    """

    nights: int
    min_nights: int
    recent_nights: int
    confidence: float
    max_fall: float | None
    max_growth: float | None


@dataclass(frozen=True, slots=True)
class Check:
    """A score against one limit. ``against`` is "limit" or "last nights"; ``nights`` is how many were judged together:
    one, or some where these fail and tonight alone does not."""

    score: str
    name: str  # the score in words
    unit: str
    against: str
    is_rate: bool
    value: float
    low: float
    high: float
    n: int
    nights: int
    limit: float
    state: State
    reason: str


def scores(
    card: Mapping[str, Any],
    events: ComparedEvents,
    picks: ComparedPicks,
    hours: tuple[float, float],
    confidence: float,
) -> Scores:
    """The scores of a night, by name: of its scorecard, what was compared, and the hours with data and planned.

    The precision of events is the one after review where analysts have decided.
    """
    found: Scores = dict.fromkeys((m.name for m in MEASURES), UNKNOWN)
    if card.get("events"):
        found |= _event_scores(card, events, confidence)
    if card.get("picks"):
        pairs = events.take(events.status == "matched")
        groups = pick_groups(picks, dict(zip(pairs.ours.tolist(), pairs.theirs.tolist(), strict=True)))
        for phase in "PS":
            flags = phase_flags(picks, phase)
            rows = flags.any(axis=1)
            both, missed, new = by_group(groups[rows], flags[rows]).T
            suffix = phase.lower()
            found[f"recall_{suffix}"] = _score(of_clusters(both, both + missed, confidence), both + missed)
            found[f"precision_{suffix}"] = _score(of_clusters(both, both + new, confidence), both + new)
            found[f"residual_{suffix}_s"] = _median(picks.dt_s[flags[:, 0]], confidence)
    data, planned = hours
    if planned > 0:  # of a share that is not drawn at random the interval is the value
        found["coverage"] = Score(data / planned, data / planned, data / planned, round(planned))
    return found


def _event_scores(card: Mapping[str, Any], events: ComparedEvents, confidence: float) -> Scores:
    n = card["n"]
    matched, reference, ours = (int(n[f"events_{name}"]) for name in ("matched", "reference", "ours"))
    reviewed = card["events"].get("after_review")
    real, told = (reviewed["matched"], reviewed["ours"]) if reviewed else (matched, ours)
    pairs = events.take((events.status == "matched") & scored(events))
    return {
        "recall": _score(of_share(matched, reference, confidence), np.array([reference])),
        "precision": _score(of_share(real, told, confidence), np.array([told])),
        "epicentre_km": _median(pairs.distance_km, confidence),
        "depth_km": _median(pairs.depth_difference_km, confidence),
        "time_s": _median(pairs.dt_s, confidence),
    }


def _score(found: Any, trials: Any) -> Score:
    return Score(found.value, found.low, found.high, int(trials.sum()))


def _median(differences: Float, confidence: float) -> Score:
    found = of_median(np.abs(differences), confidence)
    return Score(found.value, found.low, found.high, int(np.count_nonzero(~np.isnan(differences))))


def checks(found: Scores, limits: Mapping[str, float | None], before: Before, rule: Rule) -> list[Check]:
    """Each score with a limit against it, then each against the last nights, in the order of `MEASURES`.

    ``limits`` are by the names of the configuration, None: any. Without nights before there is nothing to check there.
    """
    out = []
    for measure in MEASURES:
        limit = limits.get(measure.limit)
        if limit is not None:
            tonight, recent = found[measure.name], together(found, before, measure, rule)
            out.append(_check(measure, (tonight, limit), (recent, limit), "limit", rule))
    for measure in MEASURES:
        limit, of_recent = (_usual_limit(before, measure, rule, skipped) for skipped in (0, rule.recent_nights - 1))
        if limit is not None:
            tonight, recent = found[measure.name], together(found, before, measure, rule)
            out.append(_check(measure, (tonight, limit), (recent, of_recent), "last nights", rule))
    return out


def together(found: Scores, before: Before, measure: Measure, rule: Rule) -> Score:
    """A score of the last nights as one, tonight the last: of a rate all their cases, each night a cluster; of a median
    difference the median of the nights' ones."""
    value, n = _of(before, measure.name)
    last = max(0, rule.recent_nights - 1)
    value = np.append(value[len(value) - min(last, len(value)) :], found[measure.name].value)
    n = np.append(n[len(n) - min(last, len(n)) :], found[measure.name].n)
    known = np.isfinite(value) & (n > 0)
    value, n = value[known], n[known]
    if measure.is_rate:
        return _score(of_clusters(value * n, n, rule.confidence), n)
    return _score(of_median(value, rule.confidence), n)


def _usual_limit(before: Before, measure: Measure, rule: Rule, skipped: int) -> float | None:
    """What follows from the nights before, but the last ``skipped`` of them; None: they are too few, or it is off."""
    tolerance = rule.max_fall if measure.is_rate else rule.max_growth
    usual, nights = usual_of(before, measure.name, rule.nights, skipped)
    if tolerance is None or nights < rule.min_nights:
        return None
    return usual - tolerance if measure.is_rate else usual * (1 + tolerance)


def usual_of(before: Before, name: str, nights: int, skipped: int = 0) -> tuple[float, int]:
    """The median of ``nights`` nights, each with the weight of its cases, and how many of them have any.

    They are the last ones, or those before the last ``skipped``.
    """
    value, n = _of(before, name)
    stop = max(0, len(value) - skipped)
    rows = slice(max(0, stop - nights), stop)
    known = np.isfinite(value[rows]) & (n[rows] > 0)
    return weighted_median(value[rows][known], n[rows][known]), int(np.count_nonzero(known))


def _of(before: Before, name: str) -> tuple[Float, Float]:
    none = np.empty(0)
    return before.value.get(name, none), before.n.get(name, none)


def _check(
    measure: Measure, tonight: tuple[Score, float], recent: tuple[Score, float | None], against: str, rule: Rule
) -> Check:
    """Of tonight against its limit, or of the last nights together where these fail and tonight does not."""
    source = "" if against == "limit" else ", from the nights before"
    score, limit = tonight
    nights, (state, reason) = 1, _judged(measure, score, limit, source)
    if state != "fail" and recent[1] is not None and rule.recent_nights > 1:
        together_ = replace(measure, what=f"{measure.what} in the last {rule.recent_nights} nights")
        worse = _judged(together_, recent[0], recent[1], source)
        if worse[0] == "fail":
            (score, limit), nights, (state, reason) = (recent[0], recent[1]), rule.recent_nights, worse
    values = (score.value, score.low, score.high, score.n)
    return Check(
        measure.name, measure.what, measure.unit, against, measure.is_rate, *values, nights, limit, state, reason
    )


def _judged(measure: Measure, score: Score, limit: float, source: str) -> tuple[State, str]:
    if np.isnan(score.value):
        return "unknown", f"{measure.what}: {NOBODY}"
    sign = 1 if measure.is_rate else -1
    value, best = sign * score.value, sign * (score.high if measure.is_rate else score.low)
    side = "below" if measure.is_rate else "above"
    told = f"{measure.what} {_number(score.value, measure.unit)}{_bounds(score)}"
    if value >= sign * limit:
        return "pass", f"{told}; the limit is {_number(limit, measure.unit)}{source}"
    if best < sign * limit:
        return "fail", f"{told} is {side} {_number(limit, measure.unit)}{source}"
    return "unknown", f"{told} is {side} {_number(limit, measure.unit)}{source}, which may be chance: {score.n} cases"


def _number(value: float, unit: str) -> str:
    return f"{value:.2f}{' ' if unit else ''}{unit}"


def _bounds(score: Score) -> str:
    if score.low == score.high or not (np.isfinite(score.low) or np.isfinite(score.high)):
        return ""
    low, high = (f"{bound:.2f}" if np.isfinite(bound) else "?" for bound in (score.low, score.high))
    return f" ({low} to {high})"


def verdict(done: list[Check], n_before: int, min_nights: int) -> tuple[State, str]:
    """How the gate ends, and why in one sentence."""
    failed = [check for check in done if check.state == "fail"]
    passed = [check for check in done if check.state == "pass"]
    open_ = [check for check in done if check.state == "unknown"]
    few = (
        ""
        if n_before >= min_nights
        else f"; {_many(n_before, 'night')} before, {min_nights} are needed to compare with"
    )
    if failed:
        told = "; ".join(check.reason for check in failed)
        return "fail", f"Gate failed, {len(failed)} of {_many(len(done), 'check')}: {told}."
    if not passed:
        why = f"none of {_many(len(done), 'check')} could be made" if done else "no limit is set"
        return "unknown", f"Gate undecided: {why}{few}."
    unknown = f", {len(open_)} unknown ({'; '.join(check.reason for check in open_)})" if open_ else ""
    return "pass", f"Gate passed: {_many(len(passed), 'check')}{unknown}{few}."


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
