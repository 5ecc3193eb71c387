"""The rows of an adaptation's tables: data set by method by phase, and our method against each other one.

Plain dictionaries that JSON can hold: NaN is None. The page (`page/adapt.py`) shows them as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.maths import significance
from pipeline.maths.picking_scores import (
    METRICS,
    PHASES,
    RULES,
    Bootstrap,
    Found,
    Judged,
    Rule,
    Truth,
    calibration_error,
    difference,
    judge,
    scores,
)
from pipeline.maths.reliability import Reliability
from pipeline.maths.significance import OverSeeds

Row = dict[str, Any]
GAINS = ("f1", "recall", "precision", "accuracy")  # differences that are told


@dataclass(frozen=True, slots=True)
class TestSet:
    """Labels and, of each method, the picks of each seed (one, where a method has no seed)."""

    labels: Truth
    methods: Mapping[str, Sequence[Found]]


def score_rows(
    sets: Mapping[str, TestSet], boot: Bootstrap, rules: Sequence[Rule] = RULES, phases: Sequence[str] = PHASES
) -> list[Row]:
    """A row a data set, rule, method and phase, in this order."""
    rows = []
    for name, one in sets.items():
        for rule in rules:
            for method, seeds in one.methods.items():
                for phase in phases:
                    found = scores([judge(one.labels, picks, phase, rule) for picks in seeds], boot)
                    head = {"set": name, "method": method, "phase": phase, **_of_rule(rule)}
                    counts = {k: getattr(found, k) for k in ("n_records", "n_groups", "n_labels", "hits", "extra")}
                    metrics = {k: asdict(found.metrics[k]) for k in METRICS}
                    rows.append(plain({**head, **counts, **metrics, "residuals": asdict(found.residuals)}))
    return rows


def against_rows(
    sets: Mapping[str, TestSet],
    ours: str,
    boot: Bootstrap,
    rules: Sequence[Rule] = RULES,
    phases: Sequence[str] = PHASES,
) -> list[Row]:
    """``ours`` against each other method: differences with intervals, and tests.

    ``p_holm`` is Holm's over all data sets and phases of one rule and one other method: one family a question.
    """
    rows: list[Row] = []
    for name, one in sets.items():
        for rule in rules:
            mine = {phase: [judge(one.labels, picks, phase, rule) for picks in one.methods[ours]] for phase in phases}
            for other in one.methods:
                for phase in phases if other != ours else ():
                    theirs = [judge(one.labels, picks, phase, rule) for picks in one.methods[other]]
                    head = {"set": name, "ours": ours, "other": other, "phase": phase, **_of_rule(rule)}
                    rows.append(plain({**head, **_compared(mine[phase], theirs, boot)}))
    for family in {(row["other"], row["tolerance_s"], row["counted"]) for row in rows}:
        members = [row for row in rows if (row["other"], row["tolerance_s"], row["counted"]) == family]
        for row, p in zip(members, significance.holm([row["p"] for row in members]).tolist(), strict=True):
            row["p_holm"] = p
    return rows


def replay(name: str, one: TestSet, ours: str, parent: str, limit: float, rule: Rule, boot: Bootstrap) -> Row:
    """Whether ``ours`` is worse than its ``parent`` on a set ``name`` of the domain the parent came from.

    ``state`` is that of the worse phase: "worse" where the F1 is lower by an interval without 0; "unclear" where a loss
    of more than ``limit`` cannot be excluded; else "fine". Events that all go as before exclude no loss that so many of
    them would often not show: with 0.02 that takes 183 (Clopper & Pearson 1934, at a confidence of 0.95).
    """
    rows = against_rows({name: TestSet(one.labels, {m: one.methods[m] for m in (ours, parent)})}, ours, boot, [rule])
    scored = score_rows({name: one}, boot, [rule])
    for row in rows:
        of_phase = [s for s in scored if s["phase"] == row["phase"]]
        row["f1"] = {s["method"]: s["f1"] for s in of_phase}
        n = min(of_phase[0]["n_groups"], of_phase[0]["n_labels"])
        unseen = 1 - ((1 - boot.confidence) / 2) ** (1 / max(1, n))
        low, high = (row["difference"]["f1"][end] for end in ("low", "high"))
        known = low is not None and high is not None
        fine = known and min(low, -unseen) >= -limit
        row["state"] = "worse" if known and high < 0 else "fine" if fine else "unclear"
    state = next((state for state in ("worse", "unclear") if state in {row["state"] for row in rows}), "fine")
    return {"set": name, "ours": ours, "parent": parent, "limit": limit, "state": state, "rows": rows}


def curve(found: Reliability) -> Row:
    """A reliability curve as lists, and its mean distance from the diagonal."""
    found_row: Row = plain({name: getattr(found, name) for name in ("n", "said", "real", "low", "high")})
    return {**found_row, "error": plain(calibration_error(found))}


def plain(value: Any) -> Any:
    """The same for JSON: lists instead of arrays and tuples, None instead of what is not finite."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _of_rule(rule: Rule) -> Row:
    return {"tolerance_s": rule.tolerance_s, "counted": rule.counted}


def _compared(ours: Sequence[Judged], theirs: Sequence[Judged], boot: Bootstrap) -> Row:
    gains = difference(ours, theirs, boot)
    right = [np.stack([one.right for one in seeds]) for seeds in (ours, theirs)]
    test = significance.over_seeds(right[0], right[1], ours[0].group)
    return {"difference": {name: asdict(gains[name]) for name in GAINS}, **_told(test)}


def _told(test: OverSeeds) -> Row:
    n = len(test.seeds)
    return {
        "only_ours": sum(one.only_ours for one in test.seeds) / n,
        "only_theirs": sum(one.only_theirs for one in test.seeds) / n,
        "p_seeds": [one.p for one in test.seeds],
        "p_median": test.median_p,
        "p": test.p,
        "p_by_event": test.p_by_event,
    }
