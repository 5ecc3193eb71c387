"""What is said of a location besides its place: errors, gaps, the angle at which a ray leaves."""

from __future__ import annotations

import numpy as np

from pipeline.maths.geo import azimuthal_gap_deg
from pipeline.records import Float


def errors_km(covariance: Float) -> tuple[Float, Float]:
    """ERH and ERZ (n,), as HYPO71 has them: the root of the sum of the variances east and north, and down.

    ``covariance`` (n, 3, 3) of east, north and down, km2.
    """
    return np.sqrt(covariance[:, 0, 0] + covariance[:, 1, 1]), np.sqrt(covariance[:, 2, 2])


def gaps_deg(azimuth_deg: Float) -> tuple[float, float]:
    """The largest azimuthal gap (degrees), and the largest there is without some one station; from azimuths (n,)."""
    azimuth = np.sort(np.unique(azimuth_deg % 360.0))
    if len(azimuth) < 3:
        return azimuthal_gap_deg(azimuth), 360.0 if len(azimuth) else float("nan")
    after = np.append(azimuth[1:], azimuth[0] + 360.0) - azimuth
    return float(after.max()), float((after + np.roll(after, 1)).max())


def takeoff_deg(by_distance_s_km: Float, by_depth_s_km: Float) -> Float:
    """The angle (n,) of a ray at its source, 0 down, 90 horizontal, 180 up, from how the travel time grows.

    A ray leaves against the gradient of the travel time by the place of the source (the eikonal equation).
    """
    angle: Float = np.degrees(np.arctan2(by_distance_s_km, -by_depth_s_km))
    return angle
