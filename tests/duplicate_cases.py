"""Which events are called duplicates, where it is known of which true event each of them is."""

from __future__ import annotations

import numpy as np

from pipeline.config.quality import Quality
from pipeline.maths.duplicates import duplicates
from pipeline.models import associator
from pipeline.records import Int
from pipeline.stages import associate
from tests import quality_cases


def summary(n_events: int = 5000, noise_factor: float = 0.3) -> str:
    """A made-up day so dense that events come within seconds of each other."""
    case, event = quality_cases.synthetic(n_events, noise_factor)
    found = associator.associate(case.observed, case.region)
    picks = quality_cases.as_picks(case.observed)
    events, _ = associate.catalogue(found, picks, case.observed, case.region.settings)
    order = np.argsort([e.time_ns for e in found], kind="stable")
    rows = [found[i].picks for i in order.tolist()]
    stations = [frozenset(case.observed.station[row].tolist()) for row in rows]
    true = np.array([most(event[row]) for row in rows])
    size, rule = np.array([len(row) for row in rows], np.float64), Quality()
    limit = rule.duplicate_s, rule.duplicate_km, rule.duplicate_stations
    repeats = duplicates(events, stations, size, limit)
    of = {name: i for i, name in enumerate(events.id.tolist())}
    marked = [(i, of[name]) for i, name in enumerate(repeats.tolist()) if name]
    right = sum(int(true[i] == true[j] >= 0) for i, j in marked)
    false = sum(int(true[i] < 0) for i, _ in marked)
    twice = len(true[true >= 0]) - len(np.unique(true[true >= 0]))
    return (
        f"- {len(found)} events of a made-up day of {n_events}: {twice} are a second one of a true event,"
        f" {len(marked)} are called duplicates: {right} of them are, {false} more are of no true event,"
        f" {len(marked) - right - false} are another true event"
    )


def most(event: Int) -> int:
    """The true event of at least 40 % of the picks, -1 if there is none."""
    true = event[event >= 0]
    n = np.bincount(true) if len(true) else np.zeros(1)
    return int(n.argmax()) if n.max() >= 0.4 * len(event) else -1
