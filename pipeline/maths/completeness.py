"""How complete a catalogue is from a magnitude on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.maths.intervals import of_share
from pipeline.records import ComparedEvents


@dataclass(frozen=True, slots=True)
class Completeness:
    """Recall of all events of the reference of at least ``magnitude``, and the bounds of its interval."""

    magnitude: float
    n: int
    matched: int
    recall: float
    low: float
    high: float


def from_on(events: ComparedEvents, width: float, confidence: float) -> list[Completeness]:
    """For each multiple of ``width`` up to the largest magnitude; intervals as of `of_share`.

    ``events`` that are new, or whose magnitude is not known, do not count.
    """
    known = events.take(np.isin(events.status, ["matched", "missed"]) & np.isfinite(events.magnitude))
    if not len(known):
        return []
    first, last = (int(np.floor(m / width + 1e-9)) for m in (known.magnitude.min(), known.magnitude.max()))
    found = []
    for k in range(first, last + 1):
        at_least = known.take(known.magnitude >= k * width - 1e-9)
        n, matched = len(at_least), int(np.count_nonzero(at_least.status == "matched"))
        share = of_share(matched, n, confidence)
        found.append(Completeness(round(k * width, 9), n, matched, share.value, share.low, share.high))
    return found


def complete_above(whole: list[Completeness], share: float) -> float | None:
    """The smallest magnitude from which on the recall is ``share`` at least, there and above; None: there is none."""
    found: float | None = None
    for one in reversed(whole):
        if one.recall < share:
            break
        found = one.magnitude
    return found


def medians(events: ComparedEvents) -> dict[str, float]:
    """Medians of the sizes of the differences of matched events: time, epicentre, depth."""
    both = events.take(events.status == "matched")
    columns = {"time_s": both.dt_s, "epicentre_km": both.distance_km, "depth_km": both.depth_difference_km}
    return {name: float(np.nanmedian(np.abs(v))) for name, v in columns.items() if np.isfinite(v).any()}
