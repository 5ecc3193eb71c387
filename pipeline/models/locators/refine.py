"""The most likely origin near a first one: least squares, each pick by its probability to be of the event."""

from __future__ import annotations

import numpy as np

from pipeline.models.locators.compiled import compiled
from pipeline.models.locators.posterior import ROOT_TAU, log_posterior
from pipeline.models.locators.scene import Belief, Ground, Scene, arrival
from pipeline.records import Float

STEPS = 25
NEAR_KM = 0.01  # a step smaller than this is the last


@compiled
def normal_equations(ground: Ground, scene: Scene, belief: Belief, origin: Float) -> tuple[Float, Float]:
    """Normal matrix (4, 4) and right side (4,) at ``origin`` (x, y, t, z)."""
    normal, right, slope = np.zeros((4, 4)), np.zeros(4), np.empty(4)
    foreign = belief.outliers / (2 * belief.reach_s)
    for i in range(len(scene.time_s)):
        travel_s, slope[0], slope[1], slope[3] = arrival(
            ground, scene.site[i], scene.phase[i], origin[0], origin[1], origin[3]
        )
        slope[2] = 1.0
        residual = scene.time_s[i] - travel_s - origin[2]
        variance = scene.sigma_s[i] ** 2 + (belief.model_error * travel_s) ** 2
        own = (1 - belief.outliers) / ROOT_TAU / np.sqrt(variance) * np.exp(-0.5 * residual * residual / variance)
        w = own / (own + foreign) / variance
        for p in range(4):
            right[p] += w * slope[p] * residual
            for q in range(4):
                normal[p, q] += w * slope[p] * slope[q]
    return normal, right


@compiled
def solve(matrix: Float, right: Float, n: int) -> Float:
    """The solution (n,) of the first n equations, symmetric and positive definite, by Cholesky's factors."""
    factor, out = np.zeros((n, n)), np.empty(n)
    for i in range(n):
        for j in range(i + 1):
            rest = matrix[i, j]
            for k in range(j):
                rest -= factor[i, k] * factor[j, k]
            factor[i, j] = rest / factor[j, j] if i > j else np.sqrt(max(rest, 1e-12))
    for i in range(n):
        rest = right[i]
        for k in range(i):
            rest -= factor[i, k] * out[k]
        out[i] = rest / factor[i, i]
    for back in range(n):
        i = n - 1 - back
        rest = out[i]
        for k in range(i + 1, n):
            rest -= factor[k, i] * out[k]
        out[i] = rest / factor[i, i]
    return out


@compiled
def step_within(ground: Ground, origin: Float, normal: Float, right: Float, n_free: int, damping: float) -> Float:
    """The step (4,) of damped normal equations; a depth that would leave the box stops at its bound."""
    matrix = normal.copy()
    for p in range(4):
        matrix[p, p] += damping * normal[p, p] + 1e-9
    step = np.zeros(4)
    step[:n_free] = solve(matrix, right, n_free)
    if n_free == 4:
        z = min(max(origin[3] + step[3], ground.lower_km[2]), ground.upper_km[2])
        if z != origin[3] + step[3]:
            step[3] = z - origin[3]
            step[:3] = solve(matrix, right - normal[:, 3] * step[3], 3)
    for k in range(2):
        step[k] = min(max(origin[k] + step[k], ground.lower_km[k]), ground.upper_km[k]) - origin[k]
    return step


@compiled
def refine(ground: Ground, scene: Scene, belief: Belief, origin: Float, n_free: int) -> tuple[Float, float]:
    """The origin (4,) at the maximum, and its logarithm of probability. ``n_free`` 3: the depth stays."""
    value = log_posterior(ground, scene, belief, origin[0], origin[1], origin[2], origin[3])
    damping = 1e-3
    for _ in range(STEPS):
        normal, right = normal_equations(ground, scene, belief, origin)
        moved = False
        while damping < 1e3:
            step = step_within(ground, origin, normal, right, n_free, damping)
            there = origin + step
            new = log_posterior(ground, scene, belief, there[0], there[1], there[2], there[3])
            if new >= value:
                moved = True
                break
            damping *= 8.0
        if not moved:
            break
        origin, value = there, new
        damping = max(damping / 8.0, 1e-6)
        if abs(step[0]) + abs(step[1]) + abs(step[3]) < NEAR_KM:
            break
    return origin, value
