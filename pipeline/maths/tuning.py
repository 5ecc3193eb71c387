"""Thresholds chosen by F1 on validation data. What is passed in decides: the test set must never come here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.maths import triggers
from pipeline.maths.picking_scores import PHASES, Found, Rule, Truth, judge
from pipeline.records import Float, Float32, Scores

GRID = tuple(np.round(np.arange(0.02, 0.99, 0.02), 2).tolist())
DEFAULT = 0.3  # where the validation data cannot choose


@dataclass(frozen=True, slots=True)
class Tuned:
    """The threshold of one phase, its F1, and the F1 (k,) at each of the ``grid`` (k,); NaN: no labels to choose by."""

    phase: str
    threshold: float
    f1: float
    grid: tuple[float, ...]
    f1_at: tuple[float, ...]


def choose(
    labels: Truth, phase: str, at: Callable[[float], Found], grid: Sequence[float], rule: Rule, default: float = DEFAULT
) -> Tuned:
    """The threshold of ``grid`` with the largest F1 over the records; ``at`` gives the picks at a threshold.

    Of equals the nearest to ``default``, the larger of two. Without labels of the phase it is ``default`` itself.
    """
    values = tuple(_f1(labels, at(threshold), phase, rule) for threshold in grid)
    if np.isnan(labels.label_s(phase)).all():
        return Tuned(phase, default, float("nan"), tuple(grid), values)
    best = max(range(len(values)), key=lambda k: (values[k], -round(abs(grid[k] - default), 9), grid[k]))
    return Tuned(phase, grid[best], values[best], tuple(grid), values)


def curves(
    probability: Float32, phases: tuple[str, ...], rate_hz: float, min_separation_s: float = 0.0
) -> Callable[[float], Found]:
    """For `choose`: the picks of ``probability`` (n, phases, length) at one threshold for all phases."""
    return lambda threshold: curve_picks(
        probability, phases, rate_hz, dict.fromkeys(phases, threshold), min_separation_s
    )


def curve_picks(
    probability: Float32,
    phases: tuple[str, ...],
    rate_hz: float,
    thresholds: dict[str, float],
    min_separation_s: float = 0.0,
) -> Found:
    """The picks of records ``probability`` float32 (n, phases, length), as the pipeline triggers them.

    ``phases`` names the rows; those that are not P or S, or have no threshold, give no picks.
    """
    wanted = {phase: value for phase, value in thresholds.items() if phase in PHASES}
    parts = []
    for record, curve in enumerate(probability):
        runs = triggers.runs(Scores(curve, phases, 0, rate_hz), wanted)
        at, peak, _ = triggers.peaks(runs)
        for row, phase in enumerate(phases):
            index = np.flatnonzero(runs.phase == row)
            index = index[triggers.suppress(at[index], peak[index], min_separation_s * rate_hz)]
            parts.append(_found(record, phase, at[index] / rate_hz, peak[index].astype(np.float64)))
    return Found.concat(parts)


def _found(record: int, phase: str, time_s: Float, probability: Float) -> Found:
    n = len(time_s)
    return Found(np.full(n, record, np.int64), np.full(n, phase), time_s, probability)


def _f1(labels: Truth, found: Found, phase: str, rule: Rule) -> float:
    """0 where nothing is labelled and nothing picked too: no threshold is better for that."""
    judged = judge(labels, found, phase, rule)
    hits, misses = np.count_nonzero(judged.hit), np.count_nonzero(judged.labelled & ~judged.hit)
    total = 2 * hits + misses + int(judged.extra.sum())
    return 2 * hits / total if total else 0.0
