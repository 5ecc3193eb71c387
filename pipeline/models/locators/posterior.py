"""How likely an origin is, given picks of which some are wrong.

A pick is either of the event, with a Gaussian residual, or has nothing to do with it and lies anywhere within some
seconds of its prediction: a mixture of a Gaussian and a uniform density (Jaynes 2003, ch. 21; as in Zhu et al. 2022).
Far from its prediction a pick costs the same wherever it is, as in equal differential times (Font et al. 2004, doi
10.1111/j.1365-246X.2004.02317.x; Lomax 2005, doi 10.1785/0120040058), and yet it is a likelihood, whose width means
something. Before the picks, all depths of the box are equally likely, and all places that are equally far from the
nearest station with a pick: four or five picks often agree on a far place, too, where nobody would look.
"""

from __future__ import annotations

import numpy as np

from pipeline.models.locators.compiled import compiled
from pipeline.models.locators.scene import Belief, Ground, Scene, arrival
from pipeline.records import Float

ROOT_TAU = float(np.sqrt(2 * np.pi))
TINY = 1e-200


@compiled
def log_posterior(ground: Ground, scene: Scene, belief: Belief, x: float, y: float, t: float, z: float) -> float:
    """Of an origin at x, y, z (km) and t (s); -inf outside the box."""
    if not (
        ground.lower_km[0] <= x <= ground.upper_km[0]
        and ground.lower_km[1] <= y <= ground.upper_km[1]
        and ground.lower_km[2] <= z <= ground.upper_km[2]
    ):
        return -np.inf
    foreign = belief.outliers / (2 * belief.reach_s)
    own = (1 - belief.outliers) / ROOT_TAU
    total, product, nearest2 = 0.0, 1.0, np.inf
    for i in range(len(scene.time_s)):
        site = scene.site[i]
        nearest2 = min(nearest2, (x - ground.site_km[site, 0]) ** 2 + (y - ground.site_km[site, 1]) ** 2)
        travel_s, _, _, _ = arrival(ground, site, scene.phase[i], x, y, z)
        residual = scene.time_s[i] - travel_s - t
        variance = scene.sigma_s[i] ** 2 + (belief.model_error * travel_s) ** 2
        product *= own * np.exp(-0.5 * residual * residual / variance) / np.sqrt(variance) + foreign
        if product < TINY:  # a logarithm for many picks is cheaper than one each
            total += np.log(product)
            product = 1.0
    return float(total + np.log(product) - np.sqrt(nearest2) / belief.near_km)


@compiled
def residuals(ground: Ground, scene: Scene, belief: Belief, origin: Float) -> tuple[Float, Float, Float, Float]:
    """Of each pick (n,): travel time (s), residual (s), its standard deviation (s), probability to be of the event.

    ``origin`` (4,) is x, y (km), t (s), z (km).
    """
    n = len(scene.time_s)
    travel, residual, sigma, weight = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    foreign = belief.outliers / (2 * belief.reach_s)
    for i in range(n):
        travel[i], _, _, _ = arrival(ground, scene.site[i], scene.phase[i], origin[0], origin[1], origin[3])
        residual[i] = scene.time_s[i] - travel[i] - origin[2]
        sigma[i] = np.sqrt(scene.sigma_s[i] ** 2 + (belief.model_error * travel[i]) ** 2)
        own = (1 - belief.outliers) / ROOT_TAU / sigma[i] * np.exp(-0.5 * (residual[i] / sigma[i]) ** 2)
        weight[i] = own / (own + foreign)
    return travel, residual, sigma, weight
