"""Confidence intervals that hold for few cases too: of a share, of a share in clusters, of a median."""

from __future__ import annotations

import numpy as np
from scipy import special

from pipeline.maths.stats import NAN, Interval
from pipeline.records import Float, Int


def of_share(hits: float, trials: float, confidence: float) -> Interval:
    """Of ``hits`` in ``trials`` (both need not be integers): Clopper & Pearson 1934, doi 10.1093/biomet/26.4.404.

    NaN without trials.
    """
    if not trials > 0:
        return Interval(NAN, NAN, NAN)
    tail = (1 - confidence) / 2
    low = float(special.betaincinv(hits, trials - hits + 1, tail)) if hits > 0 else 0.0
    high = float(special.betaincinv(hits + 1, trials - hits, 1 - tail)) if hits < trials else 1.0
    return Interval(hits / trials, low, high)


def of_clusters(hits: Float | Int, trials: Float | Int, confidence: float) -> Interval:
    """Of all ``hits`` (g,) in all ``trials`` (g,) of g clusters, such as the picks of events.

    The interval of `of_share` for the number of trials that would vary as little if they were independent: Korn &
    Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts estimated from
    survey data", Survey Methodology 24, 193-201. Where all or none are hits, which says nothing of the variance, and
    where there is one cluster, each cluster is one trial.
    """
    k, m = (np.asarray(x, np.float64)[np.asarray(trials) > 0] for x in (hits, trials))
    g, n = len(m), float(m.sum())
    if g == 0:
        return Interval(NAN, NAN, NAN)
    share = float(k.sum()) / n
    effective = float(g)
    if g > 1 and 0 < share < 1:
        variance = g / (g - 1) * float(((k - share * m) ** 2).sum()) / n**2
        tail = (1 + confidence) / 2
        few = special.stdtrit(n - 1, tail) / special.stdtrit(g - 1, tail)
        effective = min(n, float(few) ** 2 * share * (1 - share) / variance) if variance > 0 else n
    return of_share(share * effective, effective, confidence)


def of_median(values: Float, confidence: float) -> Interval:
    """Of the median of the values (n,) that are not NaN, by order statistics: right for any distribution.

    Where so few values say nothing with this ``confidence`` the bounds are -inf and inf; without values all is NaN.
    """
    x = np.sort(np.asarray(values, np.float64))
    x = x[~np.isnan(x)]
    n = len(x)
    if n == 0:
        return Interval(NAN, NAN, NAN)
    # P(fewer than k of n are below the median) = bdtr(k - 1, n, 1/2): the largest k for which that is in the tail.
    below = special.bdtr(np.arange(n // 2), n, 0.5) <= (1 - confidence) / 2
    k = int(np.count_nonzero(below))
    low, high = (float(x[k - 1]), float(x[n - k])) if k else (-np.inf, np.inf)
    return Interval(float(np.median(x)), low, high)


def weighted_median(values: Float, weights: Float) -> float:
    """The value below and above which lies at most half of the weight; the middle where two do. NaN without weight."""
    known = np.isfinite(values) & (np.asarray(weights) > 0)
    x, w = np.asarray(values)[known], np.asarray(weights, np.float64)[known]
    if not len(x):
        return NAN
    order = np.argsort(x, kind="stable")
    x, part = x[order], np.cumsum(w[order]) / w.sum()
    at = int(np.searchsorted(part, 0.5 - 1e-12))
    is_half = abs(part[at] - 0.5) < 1e-12 and at + 1 < len(x)
    return float((x[at] + x[at + 1]) / 2) if is_half else float(x[at])
