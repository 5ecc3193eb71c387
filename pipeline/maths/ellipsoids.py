"""Confidence ellipses and ellipsoids of a location from its covariance, and back.

Axes of the covariance: x east, y north, z down, km. An ellipsoid is described as in QuakeML 1.2 (its section
ConfidenceEllipsoid): three semi-axes and the Tait-Bryan angles of heading (azimuth of the major axis), elevation (its
plunge, down from horizontal) and bank (the rotation about it that brings the horizontal direction at right angles,
clockwise of it, to the minor axis), in the frame north, east, down; as NonLinLoc and libcomcat understand it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
CHI2_68_2 = 2.295748928898636  # chi-square of 68.27 % with 2 degrees of freedom: -2 log(1 - erf(1/sqrt 2))
CHI2_68_3 = 3.526740508165756  # with 3
NED = [1, 0, 2]  # from east, north, down to north, east, down, and back


class Ellipsoid(NamedTuple):
    """Semi-axes in km, angles in degrees; each angle pair names an axis, which has no sign."""

    major_km: float
    intermediate_km: float
    minor_km: float
    azimuth_deg: float
    plunge_deg: float
    rotation_deg: float


class Ellipse(NamedTuple):
    major_km: float
    minor_km: float
    azimuth_deg: float  # of the major axis, [0, 180)


def ellipsoid(covariance: Float) -> Ellipsoid:
    """The 68 % ellipsoid of a covariance (3, 3), km2. Plunge in [0, 90], azimuth in [0, 360), rotation in [0, 180)."""
    values, vectors = np.linalg.eigh(covariance)
    minor, intermediate, major = np.sqrt(CHI2_68_3 * np.maximum(values, 0.0)).tolist()
    axis, other = vectors[NED, 2], vectors[NED, 0]
    if axis[2] < 0:
        axis = -axis
    azimuth, plunge = np.arctan2(axis[1], axis[0]), np.arcsin(min(axis[2], 1.0))
    across, below = _frame(azimuth, plunge)[1:]
    rotation = np.degrees(np.arctan2(other @ below, other @ across)) % 180.0
    return Ellipsoid(
        major, intermediate, minor, float(np.degrees(azimuth) % 360.0), float(np.degrees(plunge)), rotation
    )


def covariance(of: Ellipsoid) -> Float:
    """The covariance (3, 3), km2, whose 68 % ellipsoid this is."""
    axis, across, below = _frame(np.radians(of.azimuth_deg), np.radians(of.plunge_deg))
    bank = np.radians(of.rotation_deg)
    minor = np.cos(bank) * across + np.sin(bank) * below
    axes = np.stack([axis, np.cross(axis, minor), minor])[:, NED]
    variances = np.array([of.major_km, of.intermediate_km, of.minor_km]) ** 2 / CHI2_68_3
    out: Float = np.einsum("k,ki,kj->ij", variances, axes, axes)
    return out


def _frame(azimuth: float, plunge: float) -> tuple[Float, Float, Float]:
    """North, east, down of the major axis, the horizontal at right angles to it, and the third; angles in radians."""
    north, east = np.cos(azimuth), np.sin(azimuth)
    axis = np.array([north * np.cos(plunge), east * np.cos(plunge), np.sin(plunge)])
    below = np.array([-north * np.sin(plunge), -east * np.sin(plunge), np.cos(plunge)])
    return axis, np.array([-east, north, 0.0]), below


def ellipse(covariance: Float) -> Ellipse:
    """The 68 % ellipse of the epicentre alone, from a covariance (3, 3) or (2, 2), km2."""
    values, vectors = np.linalg.eigh(covariance[:2, :2])
    minor, major = np.sqrt(CHI2_68_2 * np.maximum(values, 0.0)).tolist()
    return Ellipse(major, minor, float(np.degrees(np.arctan2(vectors[0, 1], vectors[1, 1])) % 180.0))


def directions(covariance: Float) -> list[tuple[float, float, float]]:
    """The principal axes, longest first: standard deviation (km), azimuth (deg) and plunge (deg, [0, 90])."""
    values, vectors = np.linalg.eigh(covariance)
    out = []
    for value, (east, north, down) in zip(values[::-1], vectors.T[::-1], strict=True):
        sign = -1.0 if down < 0 else 1.0
        azimuth = float(np.degrees(np.arctan2(sign * east, sign * north)) % 360.0)
        out.append((float(np.sqrt(max(value, 0.0))), azimuth, float(np.degrees(np.arcsin(min(abs(down), 1.0))))))
    return out
