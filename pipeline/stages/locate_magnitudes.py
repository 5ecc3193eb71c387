"""The magnitudes of located events, as the configuration asks for them."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from pipeline.config import Magnitude
from pipeline.formats import corrections
from pipeline.maths import magnitude
from pipeline.maths.magnitude import SCALES, Scale
from pipeline.records import LocatedArrivals, Origins, Picks, Stations

log = logging.getLogger(__name__)
KIND = "ML"


def with_magnitudes(
    origins: Origins, arrivals: LocatedArrivals, picks: Picks, stations: Stations, settings: Magnitude
) -> tuple[Origins, LocatedArrivals]:
    """``origins`` with ML, its spread, its number of stations, and why there is none; ``arrivals`` with that of each.

    ``picks`` are those of the pick stage, in any order; ``arrivals`` need event, station, phase, time_ns, distance_km.
    Raises ConfigError if a table of the configuration cannot be read.
    """
    scale, given = chosen(settings), magnitude.readings(origins, arrivals, picks, stations)
    known = corrections.read_corrections(settings.station_corrections) if settings.station_corrections else {}
    if settings.estimate_corrections:
        known = {**magnitude.estimate(given, len(origins), scale, settings.min_stations), **known}
    found = magnitude.magnitudes(given, len(origins), scale, settings.min_stations, known)
    there = np.isfinite(found.value)
    log.info("%d of %d events have a magnitude", int(there.sum()), len(origins))
    read = {name: np.full(len(arrivals), np.nan) for name in ("wood_anderson_mm", "magnitude")}
    s = arrivals.phase == "S"
    read["wood_anderson_mm"][s], read["magnitude"][s] = given.amplitude_mm, found.of_reading
    return replace(
        origins,
        magnitude=found.value,
        magnitude_kind=np.where(there, KIND, ""),
        magnitude_sigma=found.spread,
        magnitude_n=found.n_stations,
        magnitude_reason=np.array(found.reason, np.str_),
    ), replace(arrivals, **read)


def chosen(settings: Magnitude) -> Scale:
    """The scale of the configuration, over its own range or the one that is asked for. Raises ConfigError."""
    if settings.scale == "table" and settings.table is not None:
        km, minus_log_a0 = corrections.read_table(settings.table)
        scale = Scale(magnitude.table(km, minus_log_a0), float(km[0]), float(km[-1]))
    else:
        scale = SCALES[settings.scale]
    least = scale.least_km if settings.min_km is None else settings.min_km
    return replace(scale, least_km=least, most_km=scale.most_km if settings.max_km is None else settings.max_km)
