"""The ground and the picks of one event, as plain arrays that compiled code reads."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.maths.traveltime import travel_time
from pipeline.models.locators.compiled import compiled
from pipeline.records import Float, Float32, Int


class Ground(NamedTuple):
    """Sites, travel times and bounds: the same for all events."""

    site_km: Float  # (sites, 3) x, y, z
    level: Int  # (sites,) of the travel times
    slowness_s_km: Float32  # (levels, n_distance, n_depth, 2): P and S side by side, for the cache
    step_r_km: float
    step_z_km: float
    depth_km: float
    lower_km: Float  # (3,) of x, y, z
    upper_km: Float  # (3,)


class Belief(NamedTuple):
    """What is believed of picks and places before they are seen."""

    outliers: float  # share of picks that have nothing to do with the event
    reach_s: float  # which lie this far from their prediction, before or after, at most
    model_error: float  # standard deviation of predicted times, as a share of the travel time
    near_km: float  # how far the nearest station with a pick usually is: the mean of an exponential distribution


class Scene(NamedTuple):
    """The picks (n,) of one event."""

    time_s: Float  # since the zero of the event; its station term taken off
    site: Int
    phase: Int  # 0: P, 1: S
    sigma_s: Float  # of the reading alone


@compiled
def arrival(ground: Ground, site: int, phase: int, x: float, y: float, z: float) -> tuple[float, float, float, float]:
    """Travel time (s) from x, y, z (km) to a site, and its derivatives by x, y, z (s/km)."""
    dx, dy = x - ground.site_km[site, 0], y - ground.site_km[site, 1]
    r = (dx * dx + dy * dy) ** 0.5
    t, by_r, by_z = travel_time(
        ground.slowness_s_km[ground.level[site], :, :, phase],
        ground.step_r_km,
        ground.step_z_km,
        ground.depth_km,
        r,
        z,
        ground.site_km[site, 2],
    )
    if r < 1e-6:
        return t, 0.0, 0.0, by_z
    return t, by_r * dx / r, by_r * dy / r, by_z
