"""The mixture of Zhu et al. (2022): every pick is from one of the earthquakes or from noise, fitted by variational EM.

The model of a pick at station s with phase p and time t is

    p(t) = phi_0 / T + sum_k phi_k N(t | t_k + travel time(x_k, s, p), g / Lambda_k)

times, where amplitudes are known, N(M | M_k, sigma) of the magnitude M that the amplitude at that distance speaks for,
with a uniform background over the duration T (what GaMMA lacks: a false pick need not belong to an earthquake), a
Dirichlet prior over the weights phi and a gamma (one-dimensional Wishart) prior over the precision Lambda_k. g grows
with the travel time, for which a model of depth alone is the less right the longer it is. As in GaMMA a pick counts
with its probability as weight. Bishop (2006, section 10.2) gives the updates; the means lie on travel-time curves, and
instead of their closed form an M-step takes a damped Gauss-Newton step on the origin, which does not lower the bound.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.maths.amplitude import BY_MAGNITUDE, magnitude
from pipeline.models.associators.kernels.compiled import compiled
from pipeline.models.associators.kernels.evidence import evidence
from pipeline.models.associators.kernels.origin import Prior, bounded_step
from pipeline.models.associators.kernels.scene import Ground, Scene, arrival, first_after, hypocentral_km, spread
from pipeline.models.associators.kernels.search import Needs, enough
from pipeline.records import Bool, Float, Int

AROUND_S = (-10.0, 30.0)  # of an origin time: where its own rate of false picks is counted
SPLIT_S, SPLIT_KM = 5.0, 50.0  # how near a split is to the earthquake that it is a part of
SPLIT_SHARED = 0.2  # of its channels, that both have, at most
STILL_KM = 0.02  # an M-step that moves no origin farther has converged
NEAR_KM, NEAR_S = 0.5, 0.5  # an M-step that moves an origin less changes its residuals by their slopes


class Mixture(NamedTuple):
    """k earthquakes and the background, in the order of the origins."""

    origin: Float  # (k, 4) x, y, z in km, t in s
    variance_s2: Float  # (k,) 1 / Lambda
    weight: Float  # (k + 1,) of the picks of each, the background last
    magnitude: Float  # (k,) from amplitudes; NaN: not known


class Ties(NamedTuple):
    """Picks that may belong to an earthquake: one row a pair."""

    event: Int
    row: Int
    residual_s: Float
    slope: Float  # (m, 3) derivatives of the travel time by x, y, z, s/km
    spread: Float  # g: how much larger the variance is than that of a near station
    share: Float  # the responsibility of the event for the pick
    magnitude: Float  # that the pick's amplitude speaks for at its distance; NaN: not known


@compiled
def digamma(x: float) -> float:
    """The logarithmic derivative of the gamma function, for x > 0 (Abramowitz and Stegun 6.3.5, 6.3.18)."""
    below = 0.0
    while x < 6.0:
        below += 1 / x
        x += 1
    f = 1 / (x * x)
    return float(np.log(x) - 0.5 / x - f * (1 / 12 - f * (1 / 120 - f * (1 / 252 - f / 240))) - below)


@compiled
def tie(where: Ground, scene: Scene, free: Bool, origin: Float, reach_s: float) -> Ties:
    """All pairs of an earthquake and a free pick that arrives within ``reach_s`` of its prediction."""
    none, no_rows = np.empty(0), np.empty(0, np.int64)
    nothing = Ties(no_rows, no_rows, none, np.empty((0, 3)), none, none, none)
    return tie_again(where, scene, free, origin, reach_s, nothing, np.full(origin.shape, np.inf))


@compiled
def tie_again(
    where: Ground, scene: Scene, free: Bool, origin: Float, reach_s: float, before: Ties, moved: Float
) -> Ties:
    """As `tie`, but of an earthquake that has ``moved`` (k, 4) less than `NEAR_KM` and `NEAR_S` the pairs ``before``
    are kept: their residuals follow the slopes of the travel times.
    """
    n_channels = len(scene.start) - 1
    size = max(256, len(before.row) + 64)
    event, row = np.empty(size, np.int64), np.empty(size, np.int64)
    number = np.empty((size, 6))
    n, i = 0, 0
    for k in range(len(origin)):
        first = i
        while i < len(before.event) and before.event[i] == k:
            i += 1
        dx, dy, dz, dt = moved[k]
        if max(abs(dx), abs(dy), abs(dz)) < NEAR_KM and abs(dt) < NEAR_S:
            while n + i - first > size:
                size *= 2
                event, row, number = _longer(event, size), _longer(row, size), _longer2(number, size)
            for j in range(first, i):
                event[n], row[n] = k, before.row[j]
                tx, ty, tz = before.slope[j]
                number[n, 0] = before.residual_s[j] - tx * dx - ty * dy - tz * dz - dt
                number[n, 1], number[n, 2], number[n, 3] = tx, ty, tz
                number[n, 4], number[n, 5] = before.spread[j], before.magnitude[j]
                n += 1
            continue
        for channel in range(n_channels):
            if scene.start[channel] == scene.start[channel + 1]:
                continue
            site = scene.site[scene.rows[scene.start[channel]]]
            t, tx, ty, tz = arrival(where, site, channel % 2, origin[k, 0], origin[k, 1], origin[k, 2])
            at_s = t + origin[k, 3]
            lo = first_after(scene, channel, at_s - reach_s)
            while lo < scene.start[channel + 1] and scene.time_s[scene.rows[lo]] <= at_s + reach_s:
                pick = scene.rows[lo]
                lo += 1
                if not free[pick]:
                    continue
                if n == size:
                    size *= 2
                    event, row, number = _longer(event, size), _longer(row, size), _longer2(number, size)
                event[n], row[n] = k, pick
                number[n, 0] = scene.time_s[pick] - at_s
                number[n, 1], number[n, 2], number[n, 3] = tx, ty, tz
                number[n, 4] = spread(t)
                number[n, 5] = magnitude(scene.log_amplitude[pick], hypocentral_km(where, site, origin[k]))
                n += 1
    residual_s, slope, wider, loud = number[:n, 0].copy(), number[:n, 1:4].copy(), number[:n, 4].copy(), number[:n, 5]
    return Ties(event[:n], row[:n], residual_s, slope, wider, np.zeros(n), loud.copy())


@compiled
def _longer(values: Int, size: int) -> Int:
    out = np.empty(size, values.dtype)
    out[: len(values)] = values
    return out


@compiled
def _longer2(values: Float, size: int) -> Float:
    out = np.empty((size, values.shape[1]))
    out[: len(values)] = values
    return out


@compiled
def wrong_gain(ties: Ties, mixture: Mixture, prior: Prior, i: int) -> bool:
    """Whether the amplitude of a tie is farther off than the prior's reach."""
    off = abs(ties.magnitude[i] - mixture.magnitude[ties.event[i]]) * BY_MAGNITUDE
    return bool(off > prior.reach_log_amplitude)


@compiled
def fitting(scene: Scene, ties: Ties, mixture: Mixture, prior: Prior, i: int) -> float:
    """Log of how much likelier the amplitude of a tie is from its earthquake than from the piece at large.

    Half of it: P and S of one station often come with one and the same amplitude. 0 where one is not known. What is
    farther off than the prior's reach is a wrong gain, and counts as if it were just there: its time may be right. But
    however unusual it is, that does not speak for the earthquake.
    """
    deviation = ties.magnitude[i] - mixture.magnitude[ties.event[i]]
    if not np.isfinite(deviation):
        return 0.0
    off = min(abs(deviation) * BY_MAGNITUDE, prior.reach_log_amplitude)
    mine = -0.5 * (off / prior.sigma_log_amplitude) ** 2 - np.log(prior.sigma_log_amplitude)
    usual = (scene.log_amplitude[ties.row[i]] - scene.usual[0]) / scene.usual[1]
    found = float(0.5 * (mine + 0.5 * usual**2 + np.log(scene.usual[1])))
    return min(found, 0.0) if wrong_gain(ties, mixture, prior, i) else found


@compiled
def expect(scene: Scene, free: Bool, ties: Ties, mixture: Mixture, prior: Prior) -> float:
    """Set the responsibilities of ``ties``; returns the sum over picks of the weighted log density."""
    n_events = len(mixture.origin)
    total = digamma(float(np.sum(mixture.weight)) + prior.concentration * (n_events + 1))
    constant = np.empty(n_events)
    for k in range(n_events):
        nu = prior.strength + mixture.weight[k]
        log_precision = digamma(nu / 2) + np.log(2 / nu) - np.log(mixture.variance_s2[k])
        constant[k] = (
            digamma(prior.concentration + mixture.weight[k]) - total + 0.5 * (log_precision - np.log(2 * np.pi))
        )
    background = digamma(prior.concentration + mixture.weight[n_events]) - total - np.log(scene.duration_s)
    top = np.full(len(free), background)
    for i in range(len(ties.event)):
        k = ties.event[i]
        scaled = ties.residual_s[i] ** 2 / (ties.spread[i] * mixture.variance_s2[k])
        ties.share[i] = constant[k] - 0.5 * (scaled + np.log(ties.spread[i])) + fitting(scene, ties, mixture, prior, i)
        top[ties.row[i]] = max(top[ties.row[i]], ties.share[i])
    norm = np.exp(background - top)
    for i in range(len(ties.event)):
        norm[ties.row[i]] += np.exp(ties.share[i] - top[ties.row[i]])
    for i in range(len(ties.event)):
        ties.share[i] = np.exp(ties.share[i] - top[ties.row[i]]) / norm[ties.row[i]]
    likelihood = 0.0
    for row in range(len(free)):
        if free[row]:
            likelihood += scene.weight[row] * (top[row] + np.log(norm[row]))
    return likelihood


@compiled
def maximise(where: Ground, scene: Scene, free: Bool, ties: Ties, mixture: Mixture, prior: Prior) -> Float:
    """One M-step in place: counts, variances, and a Gauss-Newton step of every origin. Returns the steps (k, 4)."""
    n_events = len(mixture.origin)
    normal, right = np.zeros((n_events, 4, 4)), np.zeros((n_events, 4))
    count, squares = np.zeros(n_events), np.zeros(n_events)
    heard, loud = np.zeros(n_events), np.zeros(n_events)
    for i in range(len(ties.event)):
        k = ties.event[i]
        w = ties.share[i] * scene.weight[ties.row[i]]
        if np.isfinite(ties.magnitude[i]) and not wrong_gain(ties, mixture, prior, i):
            heard[k] += w
            loud[k] += w * ties.magnitude[i]
        count[k] += w
        squares[k] += w * ties.residual_s[i] ** 2 / ties.spread[i]
        precision = w / (ties.spread[i] * mixture.variance_s2[k])
        for p in range(4):
            jp = ties.slope[i, p] if p < 3 else 1.0
            right[k, p] += precision * jp * ties.residual_s[i]
            for q in range(4):
                jq = ties.slope[i, q] if q < 3 else 1.0
                normal[k, p, q] += precision * jp * jq
    moved = np.empty((n_events, 4))
    for k in range(n_events):
        mixture.weight[k] = count[k]
        mixture.variance_s2[k] = (prior.strength * prior.sigma_s**2 + squares[k]) / (prior.strength + count[k])
        mixture.magnitude[k] = loud[k] / heard[k] if heard[k] > 0 else np.nan
        stiffness = 1 / prior.depth_sigma_km**2
        normal[k, 2, 2] += stiffness
        right[k, 2] += stiffness * (prior.depth_km - mixture.origin[k, 2])
        for p in range(4):
            normal[k, p, p] += 0.001 * normal[k, p, p] + 1e-6
        moved[k] = bounded_step(where, mixture.origin[k], normal[k], right[k])
        mixture.origin[k] += moved[k]
    everything = 0.0
    for row in range(len(free)):
        if free[row]:
            everything += scene.weight[row]
    mixture.weight[n_events] = max(everything - np.sum(count), 0.0)
    return moved


def joined(mixture: Mixture, origins: Float, prior: Prior) -> Mixture:
    """``mixture`` with more earthquakes at ``origins`` (k, 4), of which nothing else is known yet."""
    n = len(origins)
    few = np.full(n, 5.0)
    noise = max(mixture.weight[-1] - few.sum(), 1.0)
    return Mixture(
        np.concatenate([mixture.origin, origins]),
        np.concatenate([mixture.variance_s2, np.full(n, prior.sigma_s**2)]),
        np.concatenate([mixture.weight[:-1], few, [noise]]),
        np.concatenate([mixture.magnitude, np.full(n, np.nan)]),
    )


def only(mixture: Mixture, good: Bool) -> Mixture:
    """The earthquakes of ``mixture`` that are ``good`` (k,); the picks of the others count as noise."""
    noise = mixture.weight[-1] + mixture.weight[:-1][~good].sum()
    count = np.concatenate([mixture.weight[:-1][good], [noise]])
    return Mixture(mixture.origin[good], mixture.variance_s2[good], count, mixture.magnitude[good])


@compiled
def fit(where: Ground, scene: Scene, free: Bool, mixture: Mixture, prior: Prior, rounds: int) -> Ties:
    """Fit ``mixture`` in place to the free picks, from where it is, in at most ``rounds`` of EM."""
    ties = tie(where, scene, free, mixture.origin, prior.reach_s)
    for _ in range(rounds):
        expect(scene, free, ties, mixture, prior)
        moved = maximise(where, scene, free, ties, mixture, prior)
        if np.all(np.abs(moved[:, :3]) < STILL_KM):
            break
        ties = tie_again(where, scene, free, mixture.origin, prior.reach_s, ties, moved)
    ties = tie(where, scene, free, mixture.origin, prior.reach_s)
    expect(scene, free, ties, mixture, prior)
    return ties


@compiled
def belonging(scene: Scene, ties: Ties, n_picks: int) -> Int:
    """The tie (n_picks,) by which each pick is in an earthquake, -1 for noise.

    A pick is where its responsibility is largest, noise included; of several picks of one channel in one earthquake
    the one nearest to its prediction stays.
    """
    mine, rest = np.full(n_picks, -1, np.int64), np.ones(n_picks)
    for i in range(len(ties.event)):
        rest[ties.row[i]] -= ties.share[i]
        if mine[ties.row[i]] < 0 or ties.share[i] > ties.share[mine[ties.row[i]]]:
            mine[ties.row[i]] = i
    n_channels = len(scene.start) - 1
    nearest, last = np.full(n_channels, -1, np.int64), np.full(n_channels, -1, np.int64)
    for i in range(len(ties.event)):  # by event, by channel, by time
        row = ties.row[i]
        if mine[row] != i:
            continue
        channel = scene.channel[row]
        if ties.share[i] <= rest[row]:
            mine[row] = -1
        elif last[channel] != ties.event[i]:
            last[channel], nearest[channel] = ties.event[i], i
        elif abs(ties.residual_s[i]) < abs(ties.residual_s[nearest[channel]]):
            mine[ties.row[nearest[channel]]] = -1
            nearest[channel] = i
        else:
            mine[row] = -1
    return mine


@compiled
def judge(
    where: Ground, scene: Scene, mixture: Mixture, ties: Ties, mine: Int, needs: Needs, noise_hz: float
) -> tuple[Bool, Float]:
    """Which earthquakes (k,) have picks and evidence enough, and the evidence (k,) for each.

    The chance of a coincidence is that of the piece, ``noise_hz``, or of the time around the event, where it is higher:
    in the coda of a large earthquake false picks are many.
    """
    n_events = len(mixture.origin)
    noise = np.zeros(len(mine) + 1)
    for row in range(len(mine)):
        noise[row + 1] = noise[row] + (scene.weight[row] if mine[row] < 0 else 0.0)
    good, log_odds = np.zeros(n_events, np.bool_), np.zeros(n_events)
    rows, residual_s, sigma_s = np.empty(len(mine), np.int64), np.empty(len(mine)), np.empty(len(mine))
    i = 0
    for k in range(n_events):
        n = 0
        while i < len(ties.event) and ties.event[i] == k:
            if mine[ties.row[i]] == i:
                rows[n], residual_s[n] = ties.row[i], ties.residual_s[i]
                sigma_s[n] = np.sqrt(mixture.variance_s2[k] * ties.spread[i])
                n += 1
            i += 1
        a, b = np.searchsorted(scene.time_s, mixture.origin[k, 3] + np.array(AROUND_S))
        local_hz = (noise[b] - noise[a]) / (AROUND_S[1] - AROUND_S[0]) / (len(scene.start) - 1)
        rate_hz = min(max(noise_hz, local_hz), 0.1)
        log_odds[k] = evidence(where, scene, rows[:n], residual_s[:n], sigma_s[:n], mixture.origin[k], rate_hz)
        good[k] = enough(scene, rows[:n], needs) and log_odds[k] >= needs.evidence
    return good, log_odds


@compiled
def splits(scene: Scene, mixture: Mixture, ties: Ties, mine: Int) -> Bool:
    """Which earthquakes (k,) are made of picks that a larger one near it in time and place has left over.

    Stations that see two earthquakes have picks of both. One whose channels are hardly any of a larger one's, and
    which has not half of its picks, is a part of it: picks of later phases, or late and early ones.
    """
    n_events, n_channels = len(mixture.origin), len(scene.start) - 1
    sees = np.zeros((n_events, n_channels), np.bool_)
    for row in range(len(mine)):
        if mine[row] >= 0:
            sees[ties.event[mine[row]], scene.channel[row]] = True
    size = np.array([np.sum(sees[k]) for k in range(n_events)])
    part = np.zeros(n_events, np.bool_)
    for k in range(n_events):
        for other in range(n_events):
            away = np.abs(mixture.origin[other] - mixture.origin[k])
            if 2 * size[k] < size[other] and away[3] < SPLIT_S and np.hypot(away[0], away[1]) < SPLIT_KM:
                shared = np.sum(sees[k] & sees[other])
                part[k] = part[k] or shared <= SPLIT_SHARED * size[k]
    return part
