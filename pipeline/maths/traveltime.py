"""Travel times of the first P and S arrival in a model of depth alone, and their derivatives.

What is tabulated is not the time but the mean slowness along the ray, time / distance of the straight line from
source to station: it has no kink at the source and is constant in a uniform medium, so that bilinear interpolation
is exact there and good elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.records import Float, Float32, Int

P, S = 0, 1
LEAST_KM = 1e-3  # a source nearer than this to a station is as far as this
LEVEL_KM = 0.05  # stations within so much of depth share a table


@dataclass(frozen=True, slots=True)
class TravelTimes:
    """``slowness_s_km`` float64 (levels, 2, n_distance, n_depth): P and S, regular in epicentral distance from 0
    by ``step_km[0]`` and in depth below sea level from ``depth_km`` by ``step_km[1]``; beyond the edges the value of
    the edge.

    ``level_km`` float64 (levels,), ascending: the depths of the stations (negative: above sea level) it was made for.
    """

    slowness_s_km: Float
    level_km: Float
    step_km: tuple[float, float]
    depth_km: float

    def level(self, z_km: Float) -> Int:
        """The nearest level (n,) of stations at ``z_km`` (n,)."""
        middles = (self.level_km[1:] + self.level_km[:-1]) / 2
        return np.searchsorted(middles, z_km).astype(np.int64)


def uniform(vp_km_s: float, vs_km_s: float) -> TravelTimes:
    """The travel times of a uniform medium: straight rays."""
    slowness = np.empty((1, 2, 2, 2))
    slowness[0, P], slowness[0, S] = 1 / vp_km_s, 1 / vs_km_s
    return TravelTimes(slowness, np.zeros(1), (1e4, 1e4), -10.0)


def levels_km(z_km: Float) -> Float:
    """The levels, ascending, that tables for stations at ``z_km`` (n,) are made for."""
    rounded: Float = np.unique(np.round(z_km / LEVEL_KM)) * LEVEL_KM
    return rounded


def reach_km(x_km: Float, y_km: Float, box_x_km: tuple[float, float], box_y_km: tuple[float, float]) -> float:
    """Distance from the station, of those at ``x_km``, ``y_km`` (n,), that is farthest from a corner of the box."""
    far_x, far_y = (
        np.maximum(np.abs(at - box[0]), np.abs(at - box[1])) for at, box in ((x_km, box_x_km), (y_km, box_y_km))
    )
    return float(np.hypot(far_x, far_y).max())


@njit(cache=True)
def travel_time(
    slowness_s_km: Float | Float32,  # (n_distance, n_depth), of one level and phase
    step_r_km: float,
    step_z_km: float,
    depth_km: float,
    r_km: float,
    z_km: float,
    station_z_km: float,
) -> tuple[float, float, float]:
    """Time (s) from depth ``z_km`` to a station ``r_km`` away, and its derivatives by r and z (s/km)."""
    n_r, n_z = slowness_s_km.shape
    at_r, at_z = r_km / step_r_km, (z_km - depth_km) / step_z_km
    u, v = min(max(at_r, 0.0), n_r - 1.0), min(max(at_z, 0.0), n_z - 1.0)
    i, j = min(int(u), n_r - 2), min(int(v), n_z - 2)
    fu, fv = u - i, v - j
    a, b = slowness_s_km[i, j], slowness_s_km[i, j + 1]
    c, d = slowness_s_km[i + 1, j], slowness_s_km[i + 1, j + 1]
    slowness = (a * (1 - fv) + b * fv) * (1 - fu) + (c * (1 - fv) + d * fv) * fu
    by_r = ((c - a) * (1 - fv) + (d - b) * fv) / step_r_km if at_r == u else 0.0
    by_z = ((b - a) * (1 - fu) + (d - c) * fu) / step_z_km if at_z == v else 0.0
    dz = z_km - station_z_km
    line = max(np.sqrt(r_km * r_km + dz * dz), LEAST_KM)
    return line * slowness, line * by_r + slowness * r_km / line, line * by_z + slowness * dz / line
