"""Picks into earthquakes, by the associator that the configuration names: one door to three of them.

The work is cut into pieces that know nothing of each other; whoever solves them, in whatever order, `settle` makes one
catalogue of what they found.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType

import numpy as np

from pipeline.config import Associate
from pipeline.maths import amplitude
from pipeline.models.associators.observed import Earthquake, Observed, Piece, Region
from pipeline.models.associators.rules import reason
from pipeline.records import Float


@dataclass(frozen=True, slots=True)
class Settled:
    """The events of a catalogue, and how many more there would be without a rule of the configuration, by its key."""

    events: list[Earthquake]
    refused: dict[str, int]


def pieces(observed: Observed, region: Region) -> list[Piece]:
    """The independent parts of the work on ``observed`` (in canonical order), in the order of their picks."""
    found: list[Piece] = _chosen(region.settings).pieces(observed, region)
    return found


def solve(picks: Observed, piece: Piece, region: Region) -> list[Earthquake]:
    """The earthquakes of one piece; ``picks`` are its rows, and row numbers count from its first.

    An exception is noted with the piece in which it was raised.
    """
    try:
        found: list[Earthquake] = _chosen(region.settings).solve(picks, piece, region)
    except Exception as e:
        first, last = (np.datetime64(int(t), "ns") for t in picks.time_ns[[0, -1]])
        e.add_note(f"in the picks {piece.first} to {piece.stop - 1}, {first} to {last}")
        raise
    return found


def settle(found: list[Earthquake], observed: Observed, region: Region) -> Settled:
    """What all pieces found, row numbers counted in ``observed``, as one catalogue: each pick in one event at most.

    Whatever the associator, an event obeys the rules of the configuration, and has its magnitude from the amplitudes
    of its picks if there are any.
    """
    events: list[Earthquake] = _chosen(region.settings).settle(found, observed, region)
    reasons = [reason(event, observed, region.settings) for event in events]
    kept = [event for event, why in zip(events, reasons, strict=True) if not why]
    if region.settings.use_amplitude:
        kept = [_with_magnitude(event, observed.take(event.picks)) for event in kept]
    return Settled(kept, dict(Counter(why for why in reasons if why)))


def _with_magnitude(event: Earthquake, picks: Observed) -> Earthquake:
    """Each pick counts with its probability, as the picker and as the associator see it (where it says one)."""
    if np.isnan(picks.log_amplitude).all():
        return event
    weight = picks.weight * np.where(np.isnan(event.probability), 1.0, event.probability)
    found = amplitude.event_magnitude(picks.log_amplitude, _hypocentral_km(event, picks), weight)
    return replace(event, magnitude=float(found))


def residual_log_amplitude(event: Earthquake, picks: Observed) -> Float:
    """log10 of observed over predicted amplitude of the ``picks`` of ``event`` (n,); NaN: not known."""
    if np.isnan(event.magnitude):
        return np.full(len(picks), np.nan)
    predicted: Float = amplitude.log_amplitude(event.magnitude, _hypocentral_km(event, picks))
    return picks.log_amplitude - predicted


def _hypocentral_km(event: Earthquake, picks: Observed) -> Float:
    away = picks.x_km - event.x_km, picks.y_km - event.y_km, picks.z_km - event.z_km
    km: Float = np.linalg.norm(away, axis=0)
    return km


def associate(observed: Observed, region: Region) -> list[Earthquake]:
    """All of it, one piece after the other: what any number of ranks must find too."""
    found = []
    for piece in pieces(observed, region):
        events = solve(observed.take(piece.rows), piece, region)
        found += [event.shifted(piece.first) for event in events]
    return settle(found, observed, region).events


def _chosen(settings: Associate) -> ModuleType:
    """The associator of the configuration; the packages of the others are not loaded."""
    return import_module(f"pipeline.models.associators.{settings.associator}")
