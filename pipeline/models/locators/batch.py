"""All events one after the other, in compiled code."""

from __future__ import annotations

import numpy as np

from pipeline.models.locators.compiled import compiled
from pipeline.models.locators.posterior import log_posterior, residuals
from pipeline.models.locators.refine import refine
from pipeline.models.locators.sampling import explore
from pipeline.models.locators.scene import Belief, Ground, Scene, arrival
from pipeline.models.locators.search import begin, first_cells
from pipeline.records import Float, Int

STRENGTH = 10.0  # in picks: how much the belief in a share of outliers counts beside the picks of one event
LEARNING = 2  # rounds
BETTER = 0.02  # in the logarithm of the probability: a point of the sampling that was not climbed to
HOLLOW = 3.0  # the mean is this much less likely than the maximum: there are two maxima, and nothing between them


@compiled
def part(scene: Scene, first: int, stop: int) -> Scene:
    """The picks of one event."""
    return Scene(scene.time_s[first:stop], scene.site[first:stop], scene.phase[first:stop], scene.sigma_s[first:stop])


@compiled
def most_likely(ground: Ground, scene: Scene, belief: Belief, centre: Float, half: Float) -> Float:
    """The most likely origin (4,) of the whole box."""
    starts = begin(ground, scene, belief, centre, half)
    best, best_value = refine(ground, scene, belief, starts[0], 4)
    for k in range(1, len(starts)):
        origin, value = refine(ground, scene, belief, starts[k], 4)
        if value > best_value:
            best, best_value = origin, value
    return best


@compiled
def search_all(ground: Ground, scene: Scene, start: Int, belief: Belief) -> Float:
    """The most likely origins (events, 4), x, y (km), t (s), z (km); event e has picks ``start[e]`` to the next."""
    centre, half = first_cells(ground)
    out = np.empty((len(start) - 1, 4))
    for e in range(len(out)):
        out[e] = most_likely(ground, part(scene, start[e], start[e + 1]), belief, centre, half)
    return out


@compiled
def refine_all(ground: Ground, scene: Scene, start: Int, belief: Belief, origin: Float, n_free: int) -> Float:
    """Origins (events, 4) at the maximum next to ``origin`` (events, 4); with ``n_free`` 3 at its depth."""
    out = np.empty(origin.shape)
    for e in range(len(origin)):
        out[e], _ = refine(ground, part(scene, start[e], start[e + 1]), belief, origin[e], n_free)
    return out


@compiled
def learned(ground: Ground, scene: Scene, belief: Belief, origin: Float) -> Belief:
    """The belief after a look at the picks of one event: how many of them are wrong."""
    known = belief
    for _ in range(LEARNING):
        _, _, _, weight = residuals(ground, scene, known, origin)
        outliers = (belief.outliers * STRENGTH + (1 - weight).sum()) / (STRENGTH + len(weight))
        known = Belief(outliers, belief.reach_s, belief.model_error, belief.near_km)
    return known


@compiled
def explore_all(
    ground: Ground, scene: Scene, start: Int, belief: Belief, origin: Float, points: Float
) -> tuple[Float, Float, Float, Float]:
    """Of each event: expected origin (events, 4), second moments about it (events, 4, 4), the most likely origin and
    the mean (events, 4).

    Where the posterior has several maxima and the mean lies between them, the most likely origin is the expected one.
    """
    n = len(origin)
    expected, moment, top, middle = np.empty((n, 4)), np.empty((n, 4, 4)), np.empty((n, 4)), np.empty((n, 4))
    for e in range(n):
        own = part(scene, start[e], start[e + 1])
        known = learned(ground, own, belief, origin[e])
        best, value = refine(ground, own, known, origin[e], 4)
        mean, covariance, _, seen, seen_value = explore(ground, own, known, best, points)
        if seen_value > value + BETTER:
            best, value = refine(ground, own, known, seen, 4)
        there = log_posterior(ground, own, known, mean[0], mean[1], mean[2], mean[3])
        expected[e] = best if there < value - HOLLOW else mean
        away = mean - expected[e]
        top[e], middle[e], moment[e] = best, mean, covariance + np.outer(away, away)
    return expected, moment, top, middle


@compiled
def residuals_all(
    ground: Ground, scene: Scene, start: Int, belief: Belief, origin: Float
) -> tuple[Float, Float, Float, Float]:
    """`residuals` of all picks, each at the origin of its event."""
    n = len(scene.time_s)
    travel, residual, sigma, weight = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    for e in range(len(origin)):
        a, b = start[e], start[e + 1]
        travel[a:b], residual[a:b], sigma[a:b], weight[a:b] = residuals(ground, part(scene, a, b), belief, origin[e])
    return travel, residual, sigma, weight


@compiled
def slopes_all(ground: Ground, scene: Scene, start: Int, origin: Float) -> Float:
    """How the predicted arrival of each pick grows with x, y (s/km), t (1) and z (n, 4), at the origin of its event."""
    out = np.empty((len(scene.time_s), 4))
    for e in range(len(origin)):
        for i in range(start[e], start[e + 1]):
            _, out[i, 0], out[i, 1], out[i, 3] = arrival(
                ground, scene.site[i], scene.phase[i], origin[e, 0], origin[e, 1], origin[e, 3]
            )
            out[i, 2] = 1.0
    return out
