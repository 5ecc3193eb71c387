"""Picks of events into origins with their uncertainty: one door to the compiled kernels in `locators`.

Every event is located by itself and the same whatever the others are, the station terms apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.maths import station_terms
from pipeline.maths.station_terms import Evidence, Terms
from pipeline.maths.traveltime import TravelTimes
from pipeline.models.associators.observed import Network
from pipeline.models.locators import batch
from pipeline.models.locators.sampling import points
from pipeline.models.locators.scene import Belief, Ground, Scene
from pipeline.records import NS, Float, Int, Table, Text, column

LEAST_PICKS, LEAST_STATIONS = 4, 3  # of an event that can be located
TELLS_NOTHING = 0.7  # of the standard deviation of a depth of which nothing is known: then the picks cannot tell it
PICKS_FOR_TERMS = 8  # of an event that takes part in the estimate of station terms
SAME_S = 0.001  # root mean square change of the terms from one round to the next that ends them


@dataclass(frozen=True, slots=True)
class Readings(Table):
    """Picks of events, those of an event behind one another."""

    event: Int = column("int64", "1", "row of its event, ascending")
    site: Int = column("int64", "1", "row of its station in the `Network`")
    phase: Text = column("str", doc='"P" or "S"')
    time_ns: Int = column("int64", "ns", "arrival, UTC")
    sigma_s: Float = column("float64", "s", "standard deviation of the reading")


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """Where events are looked for, and what is believed of them. ``box_km`` (3, 2): x, y, z, from and to."""

    network: Network
    travel_times: TravelTimes
    box_km: Float
    belief: Belief
    depth_km: float  # where the picks cannot tell the depth

    @property
    def ground(self) -> Ground:
        times, network = self.travel_times, self.network
        site_km = np.column_stack([network.x_km, network.y_km, network.z_km])
        slowness = np.ascontiguousarray(np.moveaxis(times.slowness_s_km, 1, 3), np.float32)
        low, high = np.ascontiguousarray(self.box_km.T)
        return Ground(site_km, times.level(network.z_km), slowness, *times.step_km, times.depth_km, low, high)

    @property
    def channels(self) -> tuple[Text, Int]:
        """Names of the stations (k,), and of each row of the network which it is; channel = 2 station + phase."""
        names, row = np.unique(self.network.station, return_inverse=True)
        return names, row.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Places(Table):
    """Where events are, one row an event; with the second moments about that of all that could be."""

    time_ns: Int = column("int64", "ns", "origin time, UTC")
    x_km: Float = column("float64", "km", "east of the centre")
    y_km: Float = column("float64", "km", "north of the centre")
    z_km: Float = column("float64", "km", "below sea level")
    depth_kind: Text = column("str", doc='"free", or "fixed: " and the reason')
    tt_s2: Float = column("float64", "s2", "second moment of the origin time")
    xx_km2: Float = column("float64", "km2")
    xy_km2: Float = column("float64", "km2")
    xz_km2: Float = column("float64", "km2")
    yy_km2: Float = column("float64", "km2")
    yz_km2: Float = column("float64", "km2")
    zz_km2: Float = column("float64", "km2")

    @property
    def covariance_km2(self) -> Float:
        """(n, 3, 3) of east, north, down."""
        rows = (self.xx_km2, self.xy_km2, self.xz_km2), (self.xy_km2, self.yy_km2, self.yz_km2)
        return np.moveaxis(np.array([*rows, (self.xz_km2, self.yz_km2, self.zz_km2)]), 2, 0).copy()


@dataclass(frozen=True, slots=True)
class Fits(Table):
    """Of each reading: how it fits the origin of its event, station terms applied."""

    travel_s: Float = column("float64", "s", "predicted travel time, with the station term")
    residual_s: Float = column("float64", "s", "observed minus predicted")
    sigma_s: Float = column("float64", "s", "standard deviation of that, the model's error included")
    weight: Float = column("float64", "1", "probability to be of the event")
    by_distance_s_km: Float = column("float64", "s/km", "growth of the travel time with distance")
    by_depth_s_km: Float = column("float64", "s/km", "and with depth")


def locatable(readings: Readings, n_events: int) -> Text:
    """Why each event (n_events,) cannot be located; "": it can."""
    n = np.bincount(readings.event, minlength=n_events)
    pairs = np.unique(np.column_stack([readings.event, readings.site]), axis=0)
    stations = np.bincount(pairs[:, 0], minlength=n_events)
    few = [f"{k} picks, {LEAST_PICKS} are needed" if k < LEAST_PICKS else "" for k in n.tolist()]
    alone = [f"{k} stations, {LEAST_STATIONS} are needed" if k < LEAST_STATIONS else "" for k in stations.tolist()]
    return np.array([a or b for a, b in zip(few, alone, strict=True)], np.str_)


def no_terms(area: Area) -> Float:
    return np.zeros(2 * len(area.channels[0]))


def channel(readings: Readings, area: Area) -> Int:
    """The channel of each reading (n,)."""
    found: Int = 2 * area.channels[1][readings.site] + (readings.phase == "S")
    return found


def search(readings: Readings, area: Area) -> Float:
    """The most likely origins (events, 4), x, y (km), t (s after the first pick), z (km), without station terms."""
    scene, start, _ = _scene(readings, area, no_terms(area))
    return np.asarray(batch.search_all(area.ground, scene, start, area.belief))


def settle(readings: Readings, area: Area, terms: Float, origin: Float) -> tuple[Float, Evidence]:
    """A round of the station terms: ``origin`` (events, 4) moved to the maximum next to it, and what the picks say."""
    scene, start, _ = _scene(readings, area, terms)
    ground = area.ground
    moved = batch.refine_all(ground, scene, start, area.belief, origin, 4)
    _, residual, sigma, weight = batch.residuals_all(ground, scene, start, area.belief, moved)
    own, slope = channel(readings, area), batch.slopes_all(ground, scene, start, moved)
    n = np.bincount(readings.event)[readings.event] if len(readings) else np.empty(0, np.int64)
    weight = np.where(n >= PICKS_FOR_TERMS, weight, 0.0) / sigma**2
    return moved, Evidence(readings.event, own, residual + terms[own], slope, weight)


def terms_of(picks: Evidence, area: Area, prior_s: float) -> Terms:
    """Station terms (channels,) from what `settle` found of all readings."""
    n_channels = 2 * len(area.channels[0])
    terms = station_terms.estimate(picks, n_channels, prior_s)
    return station_terms.centred(terms, np.arange(n_channels) % 2 == 0)


def is_settled(before: Float, after: Float) -> bool:
    """Whether another round would change the terms no more."""
    return bool(np.sqrt(np.mean((after - before) ** 2)) < SAME_S) if len(after) else True


def locate(readings: Readings, area: Area, terms: Float) -> tuple[Places, Fits]:
    """Each event from its picks, station ``terms`` (channels,) taken off: searched in the whole box, and how sure."""
    ground = area.ground
    scene, start, zero_ns = _scene(readings, area, terms)
    begun = batch.search_all(ground, scene, start, area.belief)
    found = batch.explore_all(ground, scene, start, area.belief, begun, points())
    origin, moment, kinds = _with_depth(area, scene, start, found)
    places = _places(origin, moment, kinds, zero_ns)
    travel, residual, sigma, weight = batch.residuals_all(ground, scene, start, area.belief, origin)
    own, slope = terms[channel(readings, area)], batch.slopes_all(ground, scene, start, origin)
    flat, deep = np.hypot(slope[:, 0], slope[:, 1]), np.ascontiguousarray(slope[:, 3])
    return places, Fits(travel + own, residual, sigma, weight, flat, deep)


def _scene(readings: Readings, area: Area, terms: Float) -> tuple[Scene, Int, Int]:
    """All picks for the kernels, where those of each event begin, and the zero of its times, ns."""
    n_events = int(readings.event[-1]) + 1 if len(readings) else 0
    start = np.searchsorted(readings.event, np.arange(n_events + 1)).astype(np.int64)
    zero_ns = np.minimum.reduceat(readings.time_ns, start[:-1]) if n_events else np.empty(0, np.int64)
    time_s = (readings.time_ns - zero_ns[readings.event]) / NS - terms[channel(readings, area)]
    phase = (readings.phase == "S").astype(np.int64)
    return Scene(time_s, readings.site, phase, readings.sigma_s), start, zero_ns


def _with_depth(
    area: Area, scene: Scene, start: Int, found: tuple[Float, Float, Float, Float]
) -> tuple[Float, Float, list[str]]:
    """Origins (events, 4), their moments, and whether their depths are free, from what `explore_all` found.

    A depth is fixed where the picks cannot tell it; picks that rule out the depth to fix it at do tell something. The
    moments are still those of all that could be, about the place that is given.
    """
    origin, moment, top, mean = found
    low, high = area.box_km[2]
    middle = mean[:, 3]
    sigma = np.sqrt(moment[:, 3, 3] - (middle - origin[:, 3]) ** 2)
    lost = (sigma > TELLS_NOTHING * (high - low) / np.sqrt(12)) & (np.abs(middle - area.depth_km) <= sigma)
    said = [
        f"fixed: picks allow {max(z - s, low):.0f} to {min(z + s, high):.0f} km" if yes else "free"
        for z, s, yes in zip(middle.tolist(), sigma.tolist(), lost.tolist(), strict=True)
    ]
    held = top.copy()
    held[:, 3] = area.depth_km
    for e in np.flatnonzero(lost).tolist():
        own = batch.part(scene, start[e], start[e + 1])
        one = np.array([0, start[e + 1] - start[e]])
        there = batch.refine_all(area.ground, own, one, area.belief, held[e : e + 1], 3)[0]
        before, after = mean[e] - origin[e], mean[e] - there
        origin[e], moment[e] = there, moment[e] - np.outer(before, before) + np.outer(after, after)
    return origin, moment, said


def _places(origin: Float, moment: Float, kinds: list[str], zero_ns: Int) -> Places:
    time_ns = zero_ns + np.rint(origin[:, 2] * NS).astype(np.int64)
    pairs = ((2, 2), (0, 0), (0, 1), (0, 3), (1, 1), (1, 3), (3, 3))
    moments = [np.ascontiguousarray(moment[:, i, j]) for i, j in pairs]
    x, y, z = (np.ascontiguousarray(origin[:, k]) for k in (0, 1, 3))
    return Places(time_ns, x, y, z, np.array(kinds, np.str_) if kinds else np.empty(0, "U1"), *moments)
