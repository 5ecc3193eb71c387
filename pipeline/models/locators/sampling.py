"""Mean and covariance of the posterior, by importance sampling at fixed points (population Monte Carlo).

Cappe et al. 2004 (doi 10.1198/106186004X12803): points of a wide distribution around the maximum, weighted by how
likely they are, say where the next ones should be. The points are quasi-random and always the same: nothing is drawn.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.stats import chi2, norm, qmc

from pipeline.models.locators.compiled import compiled
from pipeline.models.locators.posterior import log_posterior
from pipeline.models.locators.refine import normal_equations, solve
from pipeline.models.locators.scene import Belief, Ground, Scene
from pipeline.records import Float

POINTS = 256  # of a round
ROUNDS = 3
MOST = 8  # where few points count
ENOUGH = 0.15  # share of the points that should
FREEDOM = 5.0  # of Student's t distribution, in which the points lie
WIDER = 1.2  # than the posterior, so that its flanks are seen


@cache
def points() -> Float:
    """(MOST, POINTS, 4) of Student's t distribution: Sobol's sequence, scrambled the same way every time."""
    uniform = qmc.Sobol(5, scramble=True, seed=1).random(MOST * POINTS)
    radius = np.sqrt(FREEDOM / chi2.ppf(uniform[:, 4], FREEDOM))
    return np.ascontiguousarray((norm.ppf(uniform[:, :4]) * radius[:, None]).reshape(MOST, POINTS, 4))


@compiled
def lower_triangle(matrix: Float) -> Float:
    """The Cholesky factor of a covariance, mended where it is none."""
    n = len(matrix)
    out = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1):
            rest = matrix[i, j]
            for k in range(j):
                rest -= out[i, k] * out[j, k]
            if i == j:
                out[i, i] = np.sqrt(max(rest, 1e-10 + 1e-8 * matrix[i, i]))
            else:
                out[i, j] = rest / out[j, j]
    return out


@compiled
def first_guess(ground: Ground, scene: Scene, belief: Belief, origin: Float) -> Float:
    """The covariance (4, 4) of a linear problem, no wider than the box."""
    normal, _ = normal_equations(ground, scene, belief, origin)
    size = ground.upper_km - ground.lower_km
    normal[0, 0] += 12 / size[0] ** 2
    normal[1, 1] += 12 / size[1] ** 2
    normal[2, 2] += 1e-6
    normal[3, 3] += 12 / size[2] ** 2
    inverse = np.empty((4, 4))
    for p in range(4):
        unit = np.zeros(4)
        unit[p] = 1.0
        inverse[p] = solve(normal, unit, 4)
    return inverse


@compiled
def place(mean: Float, factor: Float, point: Float, out: Float) -> float:
    """Puts ``point`` (4,) into ``out``, scaled and shifted; the square of its distance from 0."""
    distance2 = 0.0
    for p in range(4):
        distance2 += point[p] ** 2
        out[p] = mean[p]
        for q in range(p + 1):
            out[p] += factor[p, q] * point[q]
    return distance2


@compiled
def moments(weight: Float, at: Float) -> tuple[Float, Float]:
    """Mean (4,) and covariance (4, 4) of points (m, 4)."""
    mean, covariance = np.zeros(4), np.zeros((4, 4))
    for k in range(len(at)):
        mean += weight[k] * at[k]
    for k in range(len(at)):
        for p in range(4):
            for q in range(4):
                covariance[p, q] += weight[k] * (at[k, p] - mean[p]) * (at[k, q] - mean[q])
    return mean, covariance


@compiled
def explore(
    ground: Ground, scene: Scene, belief: Belief, origin: Float, points: Float
) -> tuple[Float, Float, float, Float, float]:
    """Mean (4,), covariance (4, 4) of x, y, t, z; share of points that count; the best origin (4,) and its value.

    ``points`` (rounds, m, 4) of Student's t distribution.
    """
    m = points.shape[1]
    mean, covariance = origin, first_guess(ground, scene, belief, origin)
    top, top_value, useful = origin, -np.inf, 0.0
    value, at = np.empty(m), np.empty((m, 4))
    for r in range(len(points)):
        if r >= ROUNDS and useful > ENOUGH:
            break
        factor = lower_triangle(covariance) * WIDER
        for k in range(m):
            distance2 = place(mean, factor, points[r, k], at[k])
            here = log_posterior(ground, scene, belief, at[k, 0], at[k, 1], at[k, 2], at[k, 3])
            if here > top_value:
                top_value, top = here, at[k].copy()
            value[k] = here + 0.5 * (FREEDOM + 4) * np.log1p(distance2 / FREEDOM)
        if value.max() == -np.inf:
            break
        weight = np.exp(value - value.max())
        weight /= weight.sum()
        useful = 1.0 / (weight**2).sum() / m
        mean, covariance = moments(weight, at)
    return mean, covariance, useful, top, top_value
