"""Where to begin: the whole box in coarse cells, the best of which are divided again and again (an octree).

A cell is judged at its centre, with the picks blurred by how much travel times change inside it: the likelihood of a
coarse cell is smooth, and has the maximum of a fine one in it. As Lomax et al. 2009 (doi 10.1007/978-0-387-30440-3_150)
divide where the probability is, but level by level, so that the work is the same for every event.
"""

from __future__ import annotations

import numpy as np

from pipeline.models.locators.compiled import compiled
from pipeline.models.locators.scene import Belief, Ground, Scene, arrival
from pipeline.records import Float, Int

CELL_KM = 64.0  # width of the first cells, at most
LAST_KM = 4.0  # and of the last
KEPT = 10  # cells of each level that are divided
STARTS = 8  # of the last level, to begin from
FLOOR = 0.003  # a pick that does not fit is worth this much of one that does
BLUR = 0.58  # standard deviation of the place in a cell, in halves of its width
ROUNDS = 3  # of the origin time


@compiled
def first_cells(ground: Ground) -> tuple[Float, Float]:
    """Centres (n, 3) and halves of the widths (3,), km, of cells that fill the box."""
    size = ground.upper_km - ground.lower_km
    n = np.ceil(size / CELL_KM).astype(np.int64)
    n = np.maximum(n, 1)
    half = size / n / 2
    centre = np.empty((n[0] * n[1] * n[2], 3))
    for c in range(len(centre)):
        at = (c // (n[1] * n[2]), c // n[2] % n[1], c % n[2])
        for k in range(3):
            centre[c, k] = ground.lower_km[k] + (2 * at[k] + 1) * half[k]
    return centre, half


@compiled
def bell(x: float) -> float:
    """About exp(-x), without the cost; 0 from 8 on."""
    if x >= 8.0:
        return 0.0
    y = 1.0 - 0.125 * x
    y *= y
    y *= y
    return y * y


@compiled
def score(
    ground: Ground, scene: Scene, belief: Belief, place: Float, half: Float, since: Float, spread: Float, work: Float
) -> tuple[float, float]:
    """How well the picks agree on a cell at ``place`` (3,), and the origin time (s); the last three are for scratch."""
    n = len(scene.time_s)
    nearest2 = np.inf
    width = BLUR * np.sqrt(half[0] ** 2 + half[1] ** 2)
    for i in range(n):
        travel_s, by_x, by_y, by_z = arrival(ground, scene.site[i], scene.phase[i], place[0], place[1], place[2])
        since[i] = scene.time_s[i] - travel_s
        site = ground.site_km[scene.site[i]]
        nearest2 = min(nearest2, (place[0] - site[0]) ** 2 + (place[1] - site[1]) ** 2)
        flat = np.sqrt(by_x * by_x + by_y * by_y) * width * 0.71
        deep = by_z * half[2] * BLUR
        spread[i] = 0.5 / (scene.sigma_s[i] ** 2 + (belief.model_error * travel_s) ** 2 + flat * flat + deep * deep)
        work[i] = since[i]
    t = middle(work)
    for _ in range(ROUNDS):
        total, at = 1e-12, 1e-12 * t
        for i in range(n):
            gap = since[i] - t
            fit = bell(gap * gap * spread[i])
            w = fit / (fit + FLOOR) * spread[i]
            total += w
            at += w * since[i]
        t = at / total
    product, found = 1.0, 0.0
    for i in range(n):
        gap = since[i] - t
        product *= bell(gap * gap * spread[i]) + FLOOR
        if product < 1e-200:
            found += np.log(product)
            product = 1.0
    return found + np.log(product) - np.sqrt(nearest2) / belief.near_km, t


@compiled
def middle(values: Float) -> float:
    """The median; ``values`` are sorted in place."""
    n = len(values)
    if n > 40:
        values.sort()
    else:
        for i in range(1, n):
            value, j = values[i], i - 1
            while j >= 0 and values[j] > value:
                values[j + 1] = values[j]
                j -= 1
            values[j + 1] = value
    return float(values[n // 2]) if n % 2 else float(0.5 * (values[n // 2 - 1] + values[n // 2]))


@compiled
def best(scores: Float, n: int) -> Int:
    """Rows of the ``n`` highest, descending; the first of equals."""
    n = min(n, len(scores))
    rows, free = np.empty(n, np.int64), np.full(len(scores), True)
    for k in range(n):
        rows[k] = -1
        for c in range(len(scores)):
            if free[c] and (rows[k] < 0 or scores[c] > scores[rows[k]]):
                rows[k] = c
        free[rows[k]] = False
    return rows


@compiled
def divide(centre: Float, half: Float) -> tuple[Float, Float]:
    """The parts of cells (n, 3): halved in each direction that is not yet much narrower than the widest."""
    parts = np.ones(3, np.int64)
    for k in range(3):
        if half[k] > 0.6 * half.max():
            parts[k] = 2
    n_parts = parts[0] * parts[1] * parts[2]
    smaller = half / parts
    out = np.empty((len(centre) * n_parts, 3))
    for c in range(len(centre)):
        for p in range(n_parts):
            at = (p // (parts[1] * parts[2]), p // parts[2] % parts[1], p % parts[2])
            for k in range(3):
                out[c * n_parts + p, k] = centre[c, k] - half[k] + (2 * at[k] + 1) * smaller[k]
    return out, smaller


@compiled
def begin(ground: Ground, scene: Scene, belief: Belief, centre: Float, half: Float) -> Float:
    """Origins (m, 4), x, y, t, z, to refine: the best cells of the last level; ``centre`` and ``half`` the first."""
    n = len(scene.time_s)
    since, spread, work = np.empty(n), np.empty(n), np.empty(n)
    while True:
        found, at_s = np.empty(len(centre)), np.empty(len(centre))
        for c in range(len(centre)):
            found[c], at_s[c] = score(ground, scene, belief, centre[c], half, since, spread, work)
        last = 2 * half.max() <= LAST_KM
        rows = best(found, STARTS if last else KEPT)
        if last:
            out = np.empty((len(rows), 4))
            for k in range(len(rows)):
                c = rows[k]
                out[k, 0], out[k, 1], out[k, 2], out[k, 3] = centre[c, 0], centre[c, 1], at_s[c], centre[c, 2]
            return out
        centre, half = divide(centre[rows], half)
