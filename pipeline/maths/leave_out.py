"""What a station's residuals were if the event were located without it.

An event that is located with the picks of a station with a wrong clock moves until the station's residuals are small:
all of 0.8 s at a station above the hypocentre may end as 0.2 s. Around the location the problem is linear in time and
place: weighted least squares of the other picks' residuals say where the event would go without the station's picks,
and what that does to these (residuals of deletion; Cook & Weisberg 1982, Residuals and Influence in Regression).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.records import Float, Int, LocatedArrivals

MAX_VARIANCE = 4.0  # of a residual, over that of the pick: beyond, the other picks alone do not locate the event
SIGMA_S = 0.1  # of picks without a known one


def residuals(arrivals: LocatedArrivals, event: Int, site: Int, vp_vs: float) -> Float:
    """The residual of each arrival (n,) against its event without the picks of its own station.

    ``event`` and ``site`` (n,) are numbers of the event and of the station. NaN where the event could not be located
    without the station. Where no directions are known, as in a catalogue that is only associated, they are as they are.
    """
    found = arrivals.residual_s.copy()
    design = _design(arrivals, vp_vs)
    sigma_s = np.where(arrivals.sigma_s > 0, arrivals.sigma_s, SIGMA_S)
    weight = np.nan_to_num(arrivals.weight, nan=1.0) / sigma_s**2
    usable = np.isfinite(design).all(axis=1) & np.isfinite(found)
    order = np.flatnonzero(usable)[np.lexsort((site[usable], event[usable]))]
    for rows in _runs(order, event[order]):
        a, w, r = design[rows], weight[rows], found[rows]
        normal, right = a.T @ (a * w[:, None]), a.T @ (w * r)
        for own in _runs(np.arange(len(rows)), site[rows]):
            scaled = a[own].T * w[own]
            rest = normal - scaled @ a[own], right - scaled @ r[own]
            found[rows[own]] = _without(a[own], r[own], sigma_s[rows[own]], rest)
    return found


def _design(arrivals: LocatedArrivals, vp_vs: float) -> Float:
    """(n, 4): how an arrival changes with origin time, east, north and down, where P travels 1 km in 1 s."""
    azimuth, takeoff = np.radians(arrivals.azimuth_deg), np.radians(arrivals.takeoff_deg)
    slowness = np.where(arrivals.phase == "S", vp_vs, 1.0)
    east, north = np.sin(takeoff) * np.sin(azimuth), np.sin(takeoff) * np.cos(azimuth)
    return np.stack([np.ones(len(arrivals)), *(-slowness * part for part in (east, north, np.cos(takeoff)))], axis=1)


def _without(a: Float, residual_s: Float, sigma_s: Float, rest: tuple[Float, Float]) -> Float:
    """Residuals (k,) of the rows ``a`` (k, 4) against the solution of the normal equations ``rest`` of the others."""
    if np.linalg.cond(rest[0]) > 1 / (100 * np.finfo(float).eps):
        return np.full(len(a), np.nan)
    covariance = np.linalg.inv(rest[0])
    variance = 1 + np.einsum("ij,jk,ik->i", a, covariance, a) / sigma_s**2
    out: Float = np.where(variance <= MAX_VARIANCE, residual_s - a @ (covariance @ rest[1]), np.nan)
    return out


def _runs(rows: Int, of: NDArray[np.int64]) -> list[Int]:
    """``rows`` (n,) in parts with the same value in ``of`` (n,), which is sorted."""
    return np.split(rows, np.flatnonzero(np.diff(of)) + 1) if len(rows) else []
