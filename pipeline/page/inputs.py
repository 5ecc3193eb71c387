"""All that the page is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.config import Config
from pipeline.maths.account import PickTally
from pipeline.records import Assignments, ComparedEvents, ComparedPicks, Events, Outcomes, Shards, Stations


@dataclass(frozen=True, slots=True)
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
