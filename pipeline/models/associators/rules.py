"""Which picks make an event: the quality rules of the configuration, the same for every associator."""

from __future__ import annotations

import numpy as np

from pipeline.config import Associate
from pipeline.maths import geo
from pipeline.models.associators.observed import Earthquake, Observed
from pipeline.records import Bool, Float, Text


def enough(picks: Observed, settings: Associate) -> bool:
    """Whether ``picks`` could be one event."""
    return not _too_few(picks, settings)


def reason(event: Earthquake, observed: Observed, settings: Associate) -> str:
    """The rule of the configuration, by its key, that refuses ``event`` with its picks in ``observed``; "": none."""
    picks = observed.take(event.picks)
    if few := _too_few(picks, settings):
        return few
    if gap_deg(event, picks) > settings.max_gap_deg:
        return "max_gap_deg"
    return "max_rms_s" if settings.max_rms_s is not None and rms_s(event) > settings.max_rms_s else ""


def _too_few(picks: Observed, settings: Associate) -> str:
    """The first rule that wants more picks than these; "" if none does."""
    n_p = int(np.count_nonzero(picks.phase == "P"))
    rules = (
        ("min_picks", settings.min_picks, len(picks)),
        ("min_p_picks", settings.min_p_picks, n_p),
        ("min_s_picks", settings.min_s_picks, len(picks) - n_p),
        ("min_stations", settings.min_stations, len(np.unique(picks.station))),
        ("min_pairs", settings.min_pairs, n_pairs(picks) if settings.min_pairs else 0),
    )
    return next((rule for rule, least, n in rules if n < least), "")


def n_pairs(picks: Observed) -> int:
    """The number of stations with a P and an S among ``picks``."""
    return len(np.intersect1d(picks.station[picks.phase == "P"], picks.station[picks.phase == "S"]))


def gap_deg(event: Earthquake, picks: Observed) -> float:
    """The largest angle at the epicentre, on the local plane, without a station of ``picks``."""
    azimuths = np.arctan2(picks.x_km - event.x_km, picks.y_km - event.y_km)
    return geo.azimuthal_gap_deg(np.degrees(azimuths))


def rms_s(event: Earthquake) -> float:
    """The root mean square of the travel-time residuals of ``event``."""
    return float(np.sqrt(np.mean(event.residual_s**2)))


def one_each(channel: Text, residual_s: Float) -> Bool:
    """Of several picks of one phase at one station the one with the smallest residual, the first of equals."""
    order = np.argsort(np.abs(residual_s), kind="stable")
    _, first = np.unique(channel[order], return_index=True)
    kept = np.zeros(len(channel), bool)
    kept[order[first]] = True
    return kept


def channel(observed: Observed) -> Text:
    """ "NET.STA_P" (n,): a station and phase sees an event once."""
    return np.char.add(np.char.add(observed.station, "_"), observed.phase)
