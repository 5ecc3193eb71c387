"""What every associator is given, and what it gives: picks on a local plane in, earthquakes out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.config import Associate
from pipeline.maths import geo
from pipeline.maths.traveltime import TravelTimes
from pipeline.records import Float, Int, Stations, Table, Text, column

ALL_TIMES = (-(2**63), 2**63 - 1)  # of a piece that has no neighbours


@dataclass(frozen=True, slots=True)
class Network(Table):
    """The sites of a run, on the local plane: one row a site and epoch, whether it has picks or not."""

    station: Text = column("str", doc='"NET.STA"')
    x_km: Float = column("float64", "km", "east of the centre")
    y_km: Float = column("float64", "km", "north of the centre")
    z_km: Float = column("float64", "km", "below sea level")

    @property
    def at_km(self) -> tuple[Float, Float, Float]:
        """x, y and z, (n,) each."""
        return self.x_km, self.y_km, self.z_km


def place(stations: Stations, settings: Associate) -> Network:
    """``stations`` on the local plane, row by row."""
    centre = settings.center_latitude_deg, settings.center_longitude_deg
    x_km, y_km = geo.stereographic(stations.latitude_deg, stations.longitude_deg, *centre)
    known = settings.station_elevation & np.isfinite(stations.elevation_m)
    return Network(stations.id, x_km, y_km, np.where(known, -stations.elevation_m / 1000.0, 0.0))


@dataclass(frozen=True, slots=True)
class Observed(Table):
    """Picks with the place of their station, in `Picks.ordered` order."""

    station: Text = column("str", doc='"NET.STA"')
    phase: Text = column("str", doc='"P" or "S"')
    time_ns: Int = column("int64", "ns", "arrival, UTC")
    weight: Float = column("float64", "1", "the picker's probability")
    log_amplitude: Float = column("float64", "1", "log10 of the amplitude in m/s; NaN: not known")
    site: Int = column("int64", "1", "row of its station in the `Network`")
    x_km: Float = column("float64", "km", "east of the centre")
    y_km: Float = column("float64", "km", "north of the centre")
    z_km: Float = column("float64", "km", "below sea level")


@dataclass(frozen=True, slots=True, eq=False)  # equal is who is the same: what is made for a region is kept
class Region:
    """Where the picks are from, and by which rules they are associated."""

    settings: Associate
    network: Network
    travel_times: TravelTimes
    seed: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Picks that are associated together, independently of all others.

    ``first`` to ``stop`` (exclusive) are row numbers of all picks; events whose origin time lies in the half-open
    ``origin_ns`` are this piece's own, those outside belong to its neighbours.
    """

    first: int
    stop: int
    origin_ns: tuple[int, int]

    @property
    def rows(self) -> slice:
        return slice(self.first, self.stop)


@dataclass(frozen=True, slots=True)
class Earthquake:
    """One event. ``picks`` (n,) are row numbers in what the associator was given, ascending."""

    time_ns: int
    x_km: float
    y_km: float
    z_km: float
    score: float  # sum of the responsibilities of its picks
    picks: Int
    probability: Float  # (n,) responsibility of this event for each of its picks
    residual_s: Float  # (n,) observed minus predicted arrival
    magnitude: float = float("nan")  # from the amplitudes of the picks; NaN: they have none

    def shifted(self, rows: int) -> Earthquake:
        """The same event, its picks counted from a table that begins ``rows`` earlier."""
        return replace(self, picks=self.picks + rows)
