"""Of stage `locate`: how sure each event is. Rows come back as they came, with four columns filled."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from pipeline.config.quality import Quality
from pipeline.formats import quality_table
from pipeline.maths import blasts, quality
from pipeline.maths.duplicates import duplicates
from pipeline.maths.event_features import event_rows, features, network
from pipeline.maths.names import sites
from pipeline.records import Assignments, Events, Float, Origins, Picks, Stations

log = logging.getLogger(__name__)
BLAST = "quarry blast"


@dataclass(frozen=True, slots=True)
class Made:
    """What `associate` made: the catalogue, and the picks and stations of the run that it is made of.

    ``pick_probability`` (assignments,) is the picker's, of the pick of each assignment; ``span_ns`` is of the run.
    """

    events: Events
    assignments: Assignments
    pick_probability: Float
    picks: Picks
    stations: Stations
    span_ns: tuple[int, int] = (0, 0)


def judged(origins: Origins, made: Made, settings: Quality) -> Origins:
    """``origins`` (of the events of ``made``, in any order) with probability, is_duplicate_of, blast_score and kind.

    The features are those of the association, on which the probability was calibrated; duplicates and blasts are of
    the located places. An event that somebody has called other than an earthquake keeps its kind.
    """
    row = event_rows(made.events, origins.id)
    probability = probabilities(made, settings)[row]
    heard = _stations(made)
    limit = settings.duplicate_s, settings.duplicate_km, settings.duplicate_stations
    repeats = duplicates(origins, [heard[i] for i in row.tolist()], probability, limit)
    hours = settings.working_hours, settings.working_days
    custom = blasts.Custom(settings.time_zone, *hours, settings.quarry_km, settings.quarries)
    score = blasts.blast_scores(origins, custom)
    suspected = (score >= settings.blast_score) & (origins.kind == "earthquake")
    kind = np.where(suspected, BLAST, origins.kind)
    log.info("%d events repeat another one, %d may be quarry blasts", (repeats != "").sum(), suspected.sum())
    if len(score) and np.isnan(score).any():
        log.info(
            "%d events are not judged as blasts: that takes %d days of events, or quality.quarries near them",
            np.isnan(score).sum(),
            blasts.LEAST_DAYS,
        )
    return replace(origins, probability=probability, is_duplicate_of=repeats, blast_score=score, kind=kind)


def probabilities(made: Made, settings: Quality) -> Float:
    """That each of the events (n,) is real."""
    known = network(made.picks, made.stations, made.span_ns)
    found = features(made.events, made.assignments, made.pick_probability, known)
    score = quality.scores(found, quality_table.read(settings.calibration))
    share = quality.real_share(score)
    log.info("%.1f %% of %d events are estimated to be real", 100 * share, len(score))
    return quality.probability(score, share)


def _stations(made: Made) -> list[frozenset[str]]:
    """The stations ("NET.STA") of each event."""
    heard: list[set[str]] = [set() for _ in range(len(made.events))]
    of = event_rows(made.events, made.assignments.event)
    for event, station in zip(of.tolist(), sites(made.assignments.station).tolist(), strict=True):
        heard[event].add(station)
    return [frozenset(names) for names in heard]
