"""Pairs of neighbouring events that share picks, as ph2dt makes them for hypoDD (Waldhauser 2001, USGS OFR 01-113)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Float = NDArray[np.float64]
Links = dict[tuple[str, str], int]  # station and phase: the row of the pick
LOOKED_AT = 10  # times as many neighbours as are wanted
EARTH_KM = 6371.0


def positions_km(latitude_deg: Float, longitude_deg: Float, depth_km: Float) -> Float:
    """Points (n, 3) of a spherical Earth, between which a straight line is the distance of two near events."""
    lat, lon = np.radians(latitude_deg), np.radians(longitude_deg)
    directions = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    out: Float = directions * (EARTH_KM - depth_km)[:, None]
    return out


def neighbours(
    points: Float, links: Sequence[Links], separation_km: float, most: int, least_links: int
) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, sorted: each event with its nearest ``most`` that share ``least_links`` picks with it.

    ``points`` (n, 3) in km, ``links`` the picks of each event. Of the nearest 10 ``most`` events within
    ``separation_km`` those with fewer common picks do not count. An event without a place has no neighbour.
    """
    rows = np.flatnonzero(np.isfinite(points).all(axis=1))
    if len(rows) < 2:
        return []
    k = min(len(rows), LOOKED_AT * most + 1)
    distance, index = cKDTree(points[rows]).query(points[rows], k=k, distance_upper_bound=separation_km)
    found: set[tuple[int, int]] = set()
    for i, (near, others) in enumerate(zip(distance.tolist(), index.tolist(), strict=True)):
        n = 0
        for _, j in sorted((d, j) for d, j in zip(near, others, strict=True) if j < len(rows) and j != i):
            a, b = int(rows[i]), int(rows[j])
            if n < most and len(links[a].keys() & links[b].keys()) >= least_links:
                found.add((min(a, b), max(a, b)))
                n += 1
    return sorted(found)
