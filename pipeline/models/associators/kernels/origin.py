"""One earthquake: where the picks near a cell agree best, its location, and the picks that it may claim."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.models.associators.kernels.compiled import compiled
from pipeline.models.associators.kernels.evidence import SEEN
from pipeline.models.associators.kernels.scene import Ground, Scene, arrival, first_after, spread
from pipeline.models.associators.kernels.votes import Ballot, Grid
from pipeline.records import Bool, Float, Int

PARTS = 3  # a cell is looked at in this many parts, east and north
LAYERS = 2  # and in depth
FINE_S = 0.25  # step of the origin times that are tried
SLACK_S = 0.6  # of an arrival, beyond what the size of a part explains
NORM = float(np.sqrt(2 * np.pi))


class Prior(NamedTuple):
    """What is believed before the picks are seen."""

    sigma_s: float  # of the residuals of a near station
    strength: float  # in picks: how much this belief counts
    concentration: float  # of the Dirichlet distribution, in picks
    depth_km: float
    depth_sigma_km: float
    reach_s: float  # a pick farther from its prediction is not of this earthquake
    sigma_log_amplitude: float
    reach_log_amplitude: float  # an amplitude that is off by more is wrong


@compiled
def voters(where: Ground, scene: Scene, free: Bool, box: Grid, ballot: Ballot, g: int, b: int) -> Int:
    """The free picks (n,) that voted for cell ``g`` and bin ``b``."""
    out = np.empty(len(scene.time_s), np.int64)
    n = 0
    t0, t1 = ballot.from_s + b * ballot.bin_s, ballot.from_s + (b + 1) * ballot.bin_s
    for m in range(box.site.shape[1]):
        s = box.site[g, m]
        for phase in range(2):
            channel = 2 * where.sensor[s] + phase
            lo = t0 + box.travel_s[g, m, phase] - box.pad_s[g, m, phase]
            hi = t1 + box.travel_s[g, m, phase] + box.pad_s[g, m, phase]
            at = first_after(scene, channel, lo)
            while at < scene.start[channel + 1] and scene.time_s[scene.rows[at]] <= hi:
                row = scene.rows[at]
                if free[row] and scene.site[row] == s:
                    out[n] = row
                    n += 1
                at += 1
    return out[:n]


@compiled
def begin(where: Ground, scene: Scene, rows: Int, box: Grid, ballot: Ballot, g: int, b: int) -> Float:
    """x, y, z (km) and t (s): the part of cell ``g`` and the time around bin ``b`` where most of ``rows`` agree."""
    n = len(rows)
    best, found = -1.0, np.zeros(4)
    from_s = ballot.from_s + b * ballot.bin_s - SLACK_S
    tally = np.empty(int((ballot.bin_s + 2 * SLACK_S) / FINE_S) + 1)
    half = box.half_km / np.array([PARTS, PARTS, LAYERS])
    for part in range(PARTS * PARTS * LAYERS):
        i, j, k = part // (PARTS * LAYERS), part // LAYERS % PARTS, part % LAYERS
        x = box.centre_km[g, 0] - box.half_km[0] + (2 * i + 1) * half[0]
        y = box.centre_km[g, 1] - box.half_km[1] + (2 * j + 1) * half[1]
        z = box.centre_km[g, 2] - box.half_km[2] + (2 * k + 1) * half[2]
        tally[:] = 0.0
        for a in range(n):
            row = rows[a]
            t, tx, ty, tz = arrival(where, scene.site[row], scene.phase[row], x, y, z)
            since = scene.time_s[row] - t - from_s
            width = SLACK_S + abs(tx) * half[0] + abs(ty) * half[1] + abs(tz) * half[2]
            first = max(int(np.ceil((since - width) / FINE_S)), 0)
            last = min(int(np.floor((since + width) / FINE_S)), len(tally) - 1)
            for c in range(first, last + 1):
                gap = (c * FINE_S - since) / width
                tally[c] += scene.weight[row] * (1.0 - 0.5 * gap * gap)
        for c in range(len(tally)):
            if tally[c] > best:
                best = tally[c]
                found[0], found[1], found[2], found[3] = x, y, z, from_s + c * FINE_S
    return found


@compiled
def bounded_step(where: Ground, origin: Float, normal: Float, right: Float) -> Float:
    """The step (4,) that solves the normal equations; a coordinate that would leave the region stops at its bound.

    The others are then solved again with that one held (an active set).
    """
    step = np.linalg.solve(normal, right)
    for _ in range(3):
        held, bound = -1, 0.0
        for p in range(3):
            goal = origin[p] + step[p]
            if goal < where.lower_km[p] - 1e-9:
                held, bound = p, where.lower_km[p]
            elif goal > where.upper_km[p] + 1e-9:
                held, bound = p, where.upper_km[p]
        if held < 0:
            break
        fixed = bound - origin[held]
        right = right - normal[:, held] * fixed
        normal = normal.copy()
        normal[held, :] = 0.0
        normal[:, held] = 0.0
        normal[held, held] = 1.0
        right[held] = fixed
        step = np.linalg.solve(normal, right)
    return step


@compiled
def locate(
    where: Ground, scene: Scene, rows: Int, origin: Float, sigma_s: float, noise_hz: float, prior: Prior
) -> Float:
    """Refine x, y, z (km), t (s) by iteratively reweighted least squares (Gauss-Newton).

    A pick weighs by the probability that it belongs to the event rather than to noise of ``noise_hz`` a channel.
    """
    for _ in range(8):
        normal, right = np.zeros((4, 4)), np.zeros(4)
        stiffness = 1 / prior.depth_sigma_km**2
        normal[2, 2] = stiffness
        right[2] = stiffness * (prior.depth_km - origin[2])
        for row in rows:
            t, tx, ty, tz = arrival(where, scene.site[row], scene.phase[row], origin[0], origin[1], origin[2])
            residual = scene.time_s[row] - t - origin[3]
            variance = sigma_s**2 * spread(t)
            density = np.exp(-0.5 * residual**2 / variance) / np.sqrt(variance) / NORM
            w = scene.weight[row] * density / (density + noise_hz) / variance
            slope = (tx, ty, tz, 1.0)
            for p in range(4):
                right[p] += w * slope[p] * residual
                for q in range(4):
                    normal[p, q] += w * slope[p] * slope[q]
        for p in range(4):
            normal[p, p] += 0.01 * normal[p, p] + 1e-9
        step = bounded_step(where, origin, normal, right)
        origin = origin + step
        if abs(step[0]) + abs(step[1]) + abs(step[2]) < 0.05:
            break
    return origin


@compiled
def members(
    where: Ground, scene: Scene, free: Bool, origin: Float, noise_hz: float, prior: Prior
) -> tuple[Int, Float, Float]:
    """Of each channel the free pick nearest to its prediction, if it is more likely of the event than of noise.

    Rows, ascending by channel; residuals and their standard deviations, s.
    """
    n_channels = len(scene.start) - 1
    rows, residual_s, sigma_s = np.empty(n_channels, np.int64), np.empty(n_channels), np.empty(n_channels)
    n = 0
    for channel in range(n_channels):
        if scene.start[channel] == scene.start[channel + 1]:
            continue
        site = scene.site[scene.rows[scene.start[channel]]]
        travel_s = arrival(where, site, channel % 2, origin[0], origin[1], origin[2])[0]
        sigma = prior.sigma_s * np.sqrt(spread(travel_s))
        ratio = SEEN / (sigma * NORM * noise_hz)
        if ratio <= 1.0:
            continue
        best, found = min(prior.reach_s, sigma * np.sqrt(2 * np.log(ratio))), -1
        t = travel_s + origin[3]
        at = first_after(scene, channel, t - best)
        while at < scene.start[channel + 1] and scene.time_s[scene.rows[at]] <= t + best:
            row = scene.rows[at]
            if free[row] and abs(scene.time_s[row] - t) < best:
                best, found = abs(scene.time_s[row] - t), row
            at += 1
        if found >= 0:
            rows[n], residual_s[n], sigma_s[n] = found, scene.time_s[found] - t, sigma
            n += 1
    return rows[:n], residual_s[:n], sigma_s[:n]
