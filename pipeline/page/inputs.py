"""All that the page is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.maths.account import PickTally
from pipeline.maths.reliability import Reliability
from pipeline.maths.snippets import Snippet
from pipeline.records import (
    Assignments,
    ComparedEvents,
    ComparedPicks,
    Events,
    Float,
    Origins,
    Outcomes,
    Picks,
    Shards,
    StationHealth,
    Stations,
)

Predicted = dict[tuple[int, str, str], int]  # event row, site, phase -> arrival, ns UTC


@dataclass(frozen=True)
class Inputs:
    """What a run directory holds, read once. A table that the run does not have is empty."""

    config: Config
    shards: Shards
    stations: Stations
    outcomes: Outcomes
    tracebacks: dict[str, str]  # of the shards that failed, by shard
    picks: PickTally
    left_out: list[str]  # what an import of picks left out or changed, one sentence each
    catalogue: Events
    assignments: Assignments
    refused: dict[str, int]  # events that a rule of the configuration refused, by its key
    associated: bool  # False: the catalogue is empty because nobody has made it yet
    scorecard: dict[str, Any]  # {} without a comparison
    events: ComparedEvents  # every event of both catalogues, compared or not, by time
    compared_picks: ComparedPicks
    origins: Origins = field(default_factory=Origins.empty)
    reasons: dict[str, tuple[str, str]] = field(default_factory=dict)  # of missed events: class, sentence; by their id
    decisions: dict[str, str] = field(default_factory=dict)  # of analysts, by our id
    gate: dict[str, Any] = field(default_factory=dict)  # {} where there is none
    nights: list[dict[str, Any]] = field(default_factory=list)  # before this run, as the history has them, by time
    health: StationHealth = field(default_factory=StationHealth.empty)
    curves: dict[str, Reliability] = field(default_factory=dict)  # how the probabilities of events held, by test
    chosen: tuple[int, ...] = ()  # rows of the events of which records are shown, the most interesting first
    around: Picks = field(default_factory=Picks.empty)  # all our picks near these
    with_picks: tuple[int, ...] = ()  # rows of the events whose picks are shown
    predicted: Predicted = field(default_factory=dict)
    sections: dict[int, list[Snippet]] = field(default_factory=dict)  # records by event row, the nearest first

    @property
    def origin_rows(self) -> dict[str, int]:
        """Row of each located event, by our id."""
        return {name: i for i, name in enumerate(self.origins.id.tolist())}

    @property
    def probability(self) -> Float:
        """That each event (n,) is real; NaN where not known."""
        return of_ours(self.origins, "probability", self.events)


def of_ours(origins: Origins, name: str, events: ComparedEvents) -> Float:
    """Column ``name`` of the origins for each event (n,); NaN where it is not ours, or not located."""
    values = dict(zip(origins.id.tolist(), getattr(origins, name).tolist(), strict=True))
    return np.array([values.get(id_, np.nan) for id_ in events.ours.tolist()], np.float64)
