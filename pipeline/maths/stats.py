"""Scores with their uncertainty, and residuals in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]
NAN = float("nan")
DRAWS = 1 << 24  # numbers of a bootstrap that are in memory at once


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and the bounds of its confidence interval; NaN where nothing is there to count."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rates:
    recall: Interval
    precision: Interval
    f1: Interval


@dataclass(frozen=True, slots=True)
class Residuals:
    """``mad`` is the median absolute deviation from the median, not scaled; all NaN where n is 0."""

    n: int
    mean: float
    mae: float
    rmse: float
    median: float
    mad: float


def residuals(values: Float) -> Residuals:
    """Summary of the values (n,) that are not NaN."""
    x = np.asarray(values, np.float64)
    x = x[~np.isnan(x)]
    if not len(x):
        return Residuals(0, NAN, NAN, NAN, NAN, NAN)
    median = float(np.median(x))
    return Residuals(
        n=len(x),
        mean=float(x.mean()),
        mae=float(np.abs(x).mean()),
        rmse=float(np.sqrt((x * x).mean())),
        median=median,
        mad=float(np.median(np.abs(x - median))),
    )


def rates(counts: Int, n_samples: int, confidence: float, seed: list[int]) -> Rates:
    """Recall, precision and F1 of ``counts`` (groups, 3): matched, missed and new of each group.

    Intervals are percentiles of a bootstrap that draws whole groups with replacement (Efron 1979,
    doi 10.1214/aos/1176344552): what hangs together, like the picks of an event, stays together.
    Same seed, same interval, whatever the order of the groups. A bootstrap of nothing but hits (or misses)
    knows no error: there the far bound is that of Clopper & Pearson (1934, doi 10.1093/biomet/26.4.404) for
    as many trials as there are groups.
    """
    drawn = resample(counts, n_samples, np.random.default_rng(seed))
    tails = [50 * (1 - confidence), 50 * (1 + confidence)]
    surest = ((1 - confidence) / 2) ** (1 / max(1, len(counts)))  # (alpha / 2) ** (1 / n)
    values = [_rates(np.asarray(counts).reshape(-1, 3).sum(axis=0)[None, :]), _rates(drawn)]
    return Rates(*(interval(float(value[0]), sample, tails, surest) for value, sample in zip(*values, strict=True)))


def resample(counts: Int, n_samples: int, rng: np.random.Generator) -> Int:
    """Sums (n_samples, 3) of as many groups as there are in ``counts`` (groups, 3), drawn with replacement.

    Groups with equal counts are one class, and the classes are drawn from the multinomial distribution:
    the same law as drawing group by group, at the cost of the few classes.
    """
    if not len(counts):
        return np.zeros((n_samples, 3), np.int64)
    kinds, members = np.unique(counts, axis=0, return_counts=True)
    at_once = max(1, DRAWS // len(kinds))
    steps = [min(at_once, n_samples - begun) for begun in range(0, n_samples, at_once)]
    drawn: Int = np.concatenate([rng.multinomial(len(counts), members / len(counts), n) @ kinds for n in steps])
    return drawn


def _rates(totals: Int) -> tuple[Float, Float, Float]:
    """Recall, precision and F1, (k,) each, of totals (k, 3); NaN where the denominator is zero."""
    matched, missed, new = totals.T.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return matched / (matched + missed), matched / (matched + new), 2 * matched / (2 * matched + missed + new)


def interval(value: float, sample: Float, tails: list[float], surest: float | None) -> Interval:
    """Percentiles ``tails`` of what is not NaN in ``sample``, and the far bound ``surest`` where a share is 0 or 1."""
    sample = sample[~np.isnan(sample)]
    if np.isnan(value) or not len(sample):
        return Interval(value, NAN, NAN)
    low, high = (float(bound) for bound in np.percentile(sample, tails))
    if surest is None:
        return Interval(value, low, high)
    return Interval(value, min(low, surest) if value == 1 else low, max(high, 1 - surest) if value == 0 else high)


def by_group(groups: NDArray[np.str_], flags: NDArray[np.bool_]) -> Int:
    """Sums (groups, 3) of ``flags`` (n, 3) over the rows with the same label in ``groups`` (n,)."""
    labels, index = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(labels), 3), np.int64)
    np.add.at(counts, index, flags.astype(np.int64))
    return counts
