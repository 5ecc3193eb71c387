"""The picks that DBSCAN (Ester et al. 1996) leaves out of its clusters, for points in order of time."""

from __future__ import annotations

import numpy as np

from pipeline.models.associators.kernels.compiled import compiled
from pipeline.records import Bool, Float


@compiled
def lonely(axes_s: Float, weight: Float, eps_s: float, min_samples: float) -> Bool:
    """Which points (n,) have no core point within ``eps_s``; itself is one if weights of ``min_samples`` are as near.

    ``axes_s`` (n, 3): time and place, in seconds, in order of time: the same as the noise of DBSCAN, but only points
    as near in time are looked at.
    """
    n = len(axes_s)
    near = np.zeros(n)
    for i in range(n):
        near[i] += weight[i]
        j = i + 1
        while j < n and axes_s[j, 0] - axes_s[i, 0] <= eps_s:
            if _within(axes_s, i, j, eps_s):
                near[i] += weight[j]
                near[j] += weight[i]
            j += 1
    core = near >= min_samples
    alone = ~core
    for i in range(n):
        j = i + 1
        while j < n and axes_s[j, 0] - axes_s[i, 0] <= eps_s:
            if ((core[i] and alone[j]) or (core[j] and alone[i])) and _within(axes_s, i, j, eps_s):
                alone[i] = alone[j] = False
            j += 1
    return alone


@compiled
def _within(axes_s: Float, i: int, j: int, eps_s: float) -> bool:
    away = axes_s[i] - axes_s[j]
    near: bool = np.sum(away * away) <= eps_s * eps_s
    return near
