"""Local magnitude: ML = log10 A - log10 A0 + correction, A in mm on a Wood-Anderson seismometer, zero to peak.

A station's value is the median of its channels', an event's the median of its stations'; its spread is 1.4826 times the
median deviation from that (MAD), as a standard deviation would be. No random numbers, and no order of rows matters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.maths import names
from pipeline.maths.account import rows_of
from pipeline.maths.event_features import event_rows
from pipeline.records import Bool, Float, Int, LocatedArrivals, Origins, Picks, Stations, Text

NO_PICK, NEAR, FAR = "no S pick", "too near", "too far"
NOT_KNOWN = "not measured"
ROUNDS, SETTLED = 50, 1e-4  # of the estimate of station corrections
LEAST_EVENTS = 5  # of a station, for a correction

RICHTER_KM = np.array([*range(0, 100, 5), *range(100, 601, 10)], np.float64)
_RICHTER = """1.4 1.4 1.5 1.6 1.7 1.9 2.1 2.3 2.4 2.5 2.6 2.7 2.8 2.8 2.8 2.8 2.9 2.9 3.0 3.0
    3.0 3.1 3.1 3.2 3.2 3.3 3.3 3.4 3.4 3.5 3.5 3.6 3.65 3.7 3.7 3.8 3.8 3.9 3.9 4.0
    4.0 4.1 4.1 4.2 4.2 4.3 4.3 4.3 4.4 4.4 4.5 4.5 4.5 4.6 4.6 4.6 4.6 4.7 4.7 4.7
    4.7 4.8 4.8 4.8 4.8 4.8 4.9 4.9 4.9 4.9 4.9"""
RICHTER = np.array(_RICHTER.split(), np.float64)  # -log10 A0 by epicentral distance: Richter (1958), p. 342


@dataclass(frozen=True, slots=True)
class Scale:
    """-log10 A0 by distance in km, and from where to where it holds; of the hypocentral or of the epicentral one."""

    minus_log_a0: Callable[[Float], Float]
    least_km: float
    most_km: float
    hypocentral: bool = True


@dataclass(frozen=True, slots=True)
class Readings:
    """One row an amplitude of an event: row of the event, "NET.STA", mm, why that is NaN, and distances in km."""

    event: Int
    station: Text
    amplitude_mm: Float
    reason: Text
    epicentral_km: Float
    hypocentral_km: Float


@dataclass(frozen=True, slots=True)
class Magnitudes:
    """Of each event (e,) its magnitude, spread and number of stations, and why it has none.

    ``of_reading`` (n,) is the ML of each reading; ``correction`` what was added to the stations' values, by "NET.STA".
    """

    value: Float
    spread: Float
    n_stations: Int
    reason: tuple[str, ...]
    of_reading: Float
    correction: dict[str, float]


def hutton_boore(r_km: Float) -> Float:
    """Southern California, Hutton and Boore (1987), BSSA 77, 2074-2094, equation 3."""
    found: Float = 1.110 * np.log10(r_km / 100) + 0.00189 * (r_km - 100) + 3.0
    return found


def ogs(r_km: Float) -> Float:
    """North-eastern Italy, as OGS has it."""
    found: Float = -18.0471 + 1.105 * np.log10(r_km) + 147.111 * np.log10(4.015e-5 * r_km + 1.33885)
    return found


def table(distance_km: Float, minus_log_a0: Float) -> Callable[[Float], Float]:
    """Linear between the rows of a table, sorted by distance."""
    return lambda r_km: np.interp(r_km, distance_km, minus_log_a0)


SCALES = {
    "hutton-boore": Scale(hutton_boore, 10.0, 700.0),
    "richter": Scale(table(RICHTER_KM, RICHTER), 0.0, 600.0, hypocentral=False),
    "ogs": Scale(ogs, 3.0, 150.0),
}


def readings(origins: Origins, arrivals: LocatedArrivals, picks: Picks, stations: Stations) -> Readings:
    """The amplitudes of the S picks of ``arrivals``, found in ``picks`` by station, phase and time.

    ``stations`` tell elevations; a station that is not among them is taken at sea level.
    """
    s = arrivals.take(arrivals.phase == "S")
    event, row = event_rows(origins, s.event), rows_of(s, picks)
    there, at = row >= 0, np.maximum(row, 0)
    amplitude, reason = np.full(len(s), np.nan), np.full(len(s), NOT_KNOWN, "U16")
    if len(picks):
        amplitude = np.where(there, picks.wood_anderson_mm[at].astype(np.float64), np.nan)
        told = np.where(picks.amplitude_reason[at] == "", NOT_KNOWN, picks.amplitude_reason[at])
        reason = np.where(np.isfinite(amplitude), "", np.where(there, told, NOT_KNOWN))
    station = names.sites(s.station)
    height = dict(zip(stations.id.tolist(), np.nan_to_num(stations.elevation_m / 1000).tolist(), strict=True))
    up_km = origins.depth_km[event] + np.array([height.get(name, 0.0) for name in station.tolist()], np.float64)
    return Readings(event, station, amplitude, reason, s.distance_km, np.hypot(s.distance_km, up_km))


def magnitudes(
    given: Readings, n_events: int, scale: Scale, min_stations: int = 1, correction: Mapping[str, float] | None = None
) -> Magnitudes:
    """The magnitudes of ``n_events`` events; stations that ``correction`` does not know have none (0)."""
    r_km = given.hypocentral_km if scale.hypocentral else given.epicentral_km
    why = np.where(r_km < scale.least_km, NEAR, np.where(r_km > scale.most_km, FAR, given.reason))
    known = (why == "") & (given.amplitude_mm > 0) & np.isfinite(r_km)
    why = np.where((why == "") & ~known, NOT_KNOWN, why)
    of_reading, safe = np.full(len(r_km), np.nan), np.where(known, r_km, 100.0)
    added = np.array([(correction or {}).get(name, 0.0) for name in given.station.tolist()], np.float64)
    log_mm = np.log10(np.where(known, given.amplitude_mm, 1.0))
    of_reading[known] = (log_mm + scale.minus_log_a0(safe) + added)[known]
    value, spread, n_stations = np.full(n_events, np.nan), np.full(n_events, np.nan), np.zeros(n_events, np.int64)
    reason = [""] * n_events
    for event, rows in enumerate(_rows_by(given.event, n_events)):
        each = _by_station(of_reading[rows], given.station[rows])
        n_stations[event] = len(each)
        if len(each) >= min_stations:
            value[event] = np.median(each)
            spread[event] = 1.4826 * np.median(np.abs(each - value[event])) if len(each) > 1 else np.nan
        else:
            reason[event] = _few(why[rows], known[rows], len(each), min_stations)
    return Magnitudes(value, spread, n_stations, tuple(reason), of_reading, dict(correction or {}))


def _rows_by(event: Int, n_events: int) -> list[Int]:
    order = np.argsort(event, kind="stable")
    edges = np.searchsorted(event[order], np.arange(n_events + 1))
    return [order[start:stop] for start, stop in pairwise(edges)]


def _by_station(values: Float, station: Text) -> Float:
    """The median of each station's values that are known, sorted by station."""
    known = np.isfinite(values)
    found = [np.median(values[known & (station == name)]) for name in np.unique(station[known]).tolist()]
    return np.array(found, np.float64)


def _few(why: Text, known: Bool, n: int, least: int) -> str:
    """Why there is no magnitude: "1 station with an amplitude, 3 needed; others: 2 noise, 1 gap"."""
    if not len(why):
        return NO_PICK
    others = Counter(why[~known].tolist())
    said = ", ".join(f"{count} {what}" for what, count in sorted(others.items(), key=lambda each: (-each[1], each[0])))
    have = f"{n} station{'' if n == 1 else 's'} with an amplitude, {least} needed"
    return f"{have}; S picks without: {said}" if said else have


def estimate(given: Readings, n_events: int, scale: Scale, min_stations: int = 1) -> dict[str, float]:
    """Station corrections from the residuals of many events, their median 0; of stations with `LEAST_EVENTS` at least.

    Event medians and station medians in turn, until nothing moves by `SETTLED`. Events with one station say nothing.
    """
    correction: dict[str, float] = {}
    for _ in range(ROUNDS):
        now = magnitudes(given, n_events, scale, max(2, min_stations), correction)
        residual = now.of_reading - now.value[given.event]
        moved = {name: -shift for name, shift in _shifts(residual, given).items()}
        middle = float(np.median([correction.get(name, 0.0) + moved[name] for name in sorted(moved)])) if moved else 0.0
        correction = {name: correction.get(name, 0.0) + moved[name] - middle for name in sorted(moved)}
        if max(map(abs, moved.values()), default=0.0) < SETTLED:
            break
    return correction


def _shifts(residual: Float, given: Readings) -> dict[str, float]:
    """The median residual of each station that has enough of them."""
    found = {}
    for name in np.unique(given.station).tolist():
        mine = residual[(given.station == name) & np.isfinite(residual)]
        if len(mine) >= LEAST_EVENTS:
            found[str(name)] = float(np.median(mine))
    return found
