"""The picks of one piece and the ground below them, as plain arrays that compiled code reads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.maths.traveltime import travel_time
from pipeline.models.associators.kernels.compiled import compiled
from pipeline.models.associators.observed import Network, Observed, Region
from pipeline.records import NS, Float, Int

LEAST_STD = 0.3  # of log10 amplitudes of a piece: less is chance


class Ground(NamedTuple):
    """Sites, travel times and bounds: the same for all pieces of a run."""

    row: Int  # (rows of the network,) the site of each: epochs of a station at one place are one site
    site_km: Float  # (sites, 3) x, y, z
    level: Int  # (sites,) of the travel times
    sensor: Int  # (sites,) number of the station that a site is an epoch of
    slowness_s_km: Float  # (levels, 2, n_distance, n_depth)
    step_r_km: float
    step_z_km: float
    depth_km: float
    lower_km: Float  # (3,) of x, y, z
    upper_km: Float  # (3,)


class Scene(NamedTuple):
    """Picks of one piece in order of time."""

    time_s: Float  # (n,) since the zero of the piece
    site: Int  # (n,)
    phase: Int  # (n,) 0: P, 1: S
    channel: Int  # (n,) 2 * sensor + phase
    weight: Float  # (n,) the picker's probability
    duration_s: float  # that the picks span, with the silence before and after
    start: Int  # (channels + 1,) of each channel in rows
    rows: Int  # (n,) rows of the picks by channel, by time within
    log_amplitude: Float  # (n,) of m/s; NaN: not known
    usual: Float  # (2,) mean and standard deviation of those that are known


def ground(region: Region) -> Ground:
    times, settings = region.travel_times, region.settings
    network, row = _sites(region.network)
    _, sensor = np.unique(network.station, return_inverse=True)
    bounds = np.array([settings.x_km, settings.y_km, settings.z_km], np.float64)
    return Ground(
        row=row,
        site_km=np.column_stack([network.x_km, network.y_km, network.z_km]),
        level=times.level(network.z_km),
        sensor=sensor.astype(np.int64),
        slowness_s_km=np.ascontiguousarray(times.slowness_s_km),
        step_r_km=times.step_km[0],
        step_z_km=times.step_km[1],
        depth_km=times.depth_km,
        lower_km=np.ascontiguousarray(bounds[:, 0]),
        upper_km=np.ascontiguousarray(bounds[:, 1]),
    )


def _sites(network: Network) -> tuple[Network, Int]:
    """The places of the stations, in the order of ``network``, and for each of its rows (n,) which of them it is."""
    rows = zip(
        network.station.tolist(), network.x_km.tolist(), network.y_km.tolist(), network.z_km.tolist(), strict=True
    )
    site: dict[tuple[str, float, float, float], int] = {}
    row = np.array([site.setdefault(place, len(site)) for place in rows], np.int64)
    _, first = np.unique(row, return_index=True)
    return network.take(first), row


def scene(picks: Observed, where: Ground, zero_ns: int, silence_s: float) -> Scene:
    """``picks`` in canonical order; times count from ``zero_ns``. ``silence_s`` is known to surround them."""
    phase = (picks.phase == "S").astype(np.int64)
    site = where.row[picks.site]
    channel = 2 * where.sensor[site] + phase
    rows = np.argsort(channel, kind="stable")
    n_channels = 2 * (int(where.sensor.max()) + 1)
    start = np.searchsorted(channel[rows], np.arange(n_channels + 1)).astype(np.int64)
    time_s = (picks.time_ns - zero_ns) / NS
    duration_s = float(time_s[-1] - time_s[0]) + 2 * silence_s
    return Scene(
        time_s,
        site,
        phase,
        channel,
        picks.weight,
        duration_s,
        start,
        rows.astype(np.int64),
        picks.log_amplitude,
        _usual(picks.log_amplitude),
    )


def _usual(log_amplitude: Float) -> Float:
    known = log_amplitude[np.isfinite(log_amplitude)]
    return np.array([known.mean(), max(known.std(), LEAST_STD)]) if len(known) else np.array([0.0, 1.0])


@compiled
def channel_rate(scene: Scene, n_picks: float) -> float:
    """Picks a second and channel, if ``n_picks`` were spread evenly over the piece and all channels."""
    return min(max(n_picks / scene.duration_s / (len(scene.start) - 1), 1e-5), 0.1)


@compiled
def arrival(where: Ground, site: int, phase: int, x: float, y: float, z: float) -> tuple[float, float, float, float]:
    """Travel time (s) from (x, y, z) km to a site, and its derivatives by x, y and z (s/km)."""
    dx, dy = x - where.site_km[site, 0], y - where.site_km[site, 1]
    r = np.sqrt(dx * dx + dy * dy)
    t, by_r, by_z = travel_time(
        where.slowness_s_km[where.level[site], phase],
        where.step_r_km,
        where.step_z_km,
        where.depth_km,
        r,
        z,
        where.site_km[site, 2],
    )
    if r < 1e-6:
        return t, 0.0, 0.0, by_z
    return t, by_r * dx / r, by_r * dy / r, by_z


@compiled
def longest_s(where: Ground) -> float:
    """The longest travel time from anywhere within the bounds to a site: from a corner, by S."""
    longest = 0.0
    for site in range(len(where.site_km)):
        for part in range(8):
            x = where.lower_km[0] if part % 2 == 0 else where.upper_km[0]
            y = where.lower_km[1] if part // 2 % 2 == 0 else where.upper_km[1]
            z = where.lower_km[2] if part // 4 == 0 else where.upper_km[2]
            longest = max(longest, arrival(where, site, 1, x, y, z)[0])
    return longest


@compiled
def hypocentral_km(where: Ground, site: int, origin: Float) -> float:
    away = where.site_km[site] - origin[:3]
    return float(np.sqrt(np.sum(away * away)))


@compiled
def first_after(scene: Scene, channel: int, time_s: float) -> int:
    """Where in ``scene.rows`` the picks of a channel at or after a time begin."""
    lo, hi = int(scene.start[channel]), int(scene.start[channel + 1])
    while lo < hi:
        mid = (lo + hi) // 2
        if scene.time_s[scene.rows[mid]] < time_s:
            lo = mid + 1
        else:
            hi = mid
    return lo


LONG_S = 40.0  # of travel time: there the variance of the residuals has doubled


@compiled
def spread(travel_s: float) -> float:
    """How much larger the variance of a residual is than that of a near station.

    A model of depth alone is the less right the longer the ray.
    """
    return 1.0 + (travel_s / LONG_S) ** 2
