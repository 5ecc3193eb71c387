"""Where things are on the Earth: distances, azimuths, a local plane, polygons. WGS84, degrees and km."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyproj import Geod, Proj

Float = NDArray[np.float64]
T = TypeVar("T", float, Float)
GEOD = Geod(ellps="WGS84")


def stereographic(lat: ArrayLike, lon: ArrayLike, lat0: float, lon0: float) -> tuple[Float, Float]:
    """East and north (km) of points (degrees) on the oblique stereographic plane that touches (lat0, lon0).

    Double stereographic projection of the WGS84 ellipsoid (EPSG method 9809, PROJ ``sterea``), scale 1 at
    the centre. Any shape; returns x_km and y_km of that shape.
    """
    lon, lat = np.broadcast_arrays(np.asarray(lon, np.float64), np.asarray(lat, np.float64))
    x, y = _plane(lat0, lon0)(lon, lat)
    return np.asarray(x), np.asarray(y)


def geographic(x_km: ArrayLike, y_km: ArrayLike, lat0: float, lon0: float) -> tuple[Float, Float]:
    """Latitude and longitude (degrees) of points of the plane: the inverse of `stereographic`."""
    x, y = np.broadcast_arrays(np.asarray(x_km, np.float64), np.asarray(y_km, np.float64))
    lon, lat = _plane(lat0, lon0)(x, y, inverse=True)
    return np.asarray(lat), np.asarray(lon)


def _plane(lat0: float, lon0: float) -> Proj:
    return Proj(proj="sterea", lat_0=lat0, lon_0=lon0, ellps="WGS84", units="km")


def distance_km(lat1: ArrayLike, lon1: ArrayLike, lat2: ArrayLike, lon2: ArrayLike) -> Float:
    """Length of the geodesic (Karney 2013) between points in degrees; the arguments broadcast."""
    return _geodesic(lat1, lon1, lat2, lon2)[1] / 1000.0


def azimuth_deg(lat1: ArrayLike, lon1: ArrayLike, lat2: ArrayLike, lon2: ArrayLike) -> Float:
    """Azimuth at point 1 towards point 2, clockwise from north, [0, 360); the arguments broadcast."""
    return _geodesic(lat1, lon1, lat2, lon2)[0] % 360.0


def _geodesic(lat1: ArrayLike, lon1: ArrayLike, lat2: ArrayLike, lon2: ArrayLike) -> tuple[Float, Float]:
    arrays = [np.asarray(a, np.float64) for a in (lon1, lat1, lon2, lat2)]
    lon1, lat1, lon2, lat2 = (np.array(a) for a in np.broadcast_arrays(*arrays))
    forward, _, metres = GEOD.inv(lon1, lat1, lon2, lat2)
    return np.asarray(forward), np.asarray(metres)


def east_deg(longitude_deg: T, origin_deg: Any) -> T:
    """How far east of ``origin_deg`` longitudes are, the shorter way round: [-180, 180); the arguments broadcast."""
    found: T = (longitude_deg - origin_deg + 180.0) % 360.0 - 180.0
    return found


def azimuthal_gap_deg(azimuths: ArrayLike) -> float:
    """Largest angle (degrees) without a station, from azimuths (n,) in degrees; 360 for one, NaN for none."""
    a = np.sort(np.asarray(azimuths, np.float64) % 360.0)
    if not len(a):
        return float("nan")
    return float(np.diff(a, append=a[0] + 360.0).max())


def inside(polygon: Sequence[tuple[float, float]], lon: ArrayLike, lat: ArrayLike) -> NDArray[np.bool_]:
    """Which points lie in the polygon of (longitude, latitude) corners: even-odd rule in the plane of degrees.

    Of points on the border, those on the western and southern sides of a rectangle are inside, so that
    polygons side by side share no point. NaN is outside. Polygons across the date line are not supported.
    """
    x, y = np.broadcast_arrays(np.asarray(lon, np.float64), np.asarray(lat, np.float64))
    odd = np.zeros(x.shape, bool)
    for (x1, y1), (x2, y2) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if y1 != y2:
            crosses = (y1 <= y) != (y2 <= y)
            odd ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    within: NDArray[np.bool_] = odd & np.isfinite(x)
    return within
