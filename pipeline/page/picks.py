"""The picks of each event, ours and the analysts', as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.maths.names import site
from pipeline.page.inputs import Inputs
from pipeline.records import NS, ComparedEvents, Text


@dataclass(frozen=True, slots=True, order=True)
class PickRow:
    """A pick of an event: of ours, of the analysts, or of both.

    ``fate`` says how the two are with each other: "same" (theirs is of the same event), "other" (theirs is of another
    one), "missed" (we have no such pick), "noise" and "elsewhere" (we have it, in no event or in another one), or ""
    (it is ours alone).
    """

    time_ns: int  # ours, or theirs where we have none
    station: str  # "NET.STA.LOC.BAND" of ours, "NET.STA" of theirs
    phase: str
    ours_ns: int  # 0: none in this event
    theirs_ns: int  # 0: none
    their_phase: str
    fate: str
    probability: float  # that our pick belongs to the event
    residual_s: float
    predicted_ns: int  # 0: not known


def rows_by(values: Text) -> dict[str, list[int]]:
    """Row numbers of each value."""
    found: dict[str, list[int]] = {}
    for i, value in enumerate(values.tolist()):
        found.setdefault(value, []).append(i)
    return found


class PickLists:
    """Picks of an event: those of our catalogue, and those of the reference that ours does not have."""

    def __init__(self, inputs: Inputs) -> None:
        theirs = inputs.compared_picks.take(inputs.compared_picks.status != "new")
        self._ours, self._theirs, self._predicted = inputs.assignments, theirs, inputs.predicted
        self._ours_of, self._theirs_of = rows_by(inputs.assignments.event), rows_by(theirs.their_event)
        both = zip(theirs.station.tolist(), theirs.our_time_ns.tolist(), strict=True)
        self._match_of = {key: i for i, key in enumerate(both) if key[1]}
        self._events = inputs.events

    def count(self, row: int) -> int:
        """Number of picks of event ``row``, at most."""
        ours, theirs = str(self._events.ours[row]), str(self._events.theirs[row])
        return len(self._ours_of.get(ours, []) if ours else []) + len(self._theirs_of.get(theirs, []) if theirs else [])

    def of(self, row: int) -> list[PickRow]:
        """The picks of event ``row``, by time."""
        ours, theirs = str(self._events.ours[row]), str(self._events.theirs[row])
        found = [self._our_row(row, i, theirs) for i in self._ours_of.get(ours, []) if ours]
        others = [i for i in self._theirs_of.get(theirs, []) if theirs and self._elsewhere(i, ours)]
        return sorted(found + [self._their_row(row, i) for i in others])

    def _elsewhere(self, i: int, ours: str) -> bool:
        return bool(self._theirs.status[i] == "missed" or self._theirs.our_event[i] != ours or not ours)

    def _our_row(self, row: int, i: int, their_event: str) -> PickRow:
        a = self._ours
        station, phase, time_ns = str(a.station[i]), str(a.phase[i]), int(a.time_ns[i])
        residual_s = float(a.residual_s[i])
        match = self._match_of.get((site(station), time_ns))
        theirs = self._theirs
        return PickRow(
            time_ns=time_ns,
            station=station,
            phase=phase,
            ours_ns=time_ns,
            theirs_ns=0 if match is None else int(theirs.their_time_ns[match]),
            their_phase="" if match is None else str(theirs.their_phase[match]),
            fate="" if match is None else "same" if theirs.their_event[match] == their_event else "other",
            probability=float(a.probability[i]),
            residual_s=residual_s,
            predicted_ns=time_ns - round(residual_s * NS) if np.isfinite(residual_s) else 0,
        )

    def _their_row(self, row: int, i: int) -> PickRow:
        t = self._theirs
        station, phase, time_ns = str(t.station[i]), str(t.their_phase[i]), int(t.their_time_ns[i])
        fate = "missed" if t.status[i] == "missed" else "elsewhere" if t.our_event[i] else "noise"
        return PickRow(
            time_ns=time_ns,
            station=station,
            phase=phase,
            ours_ns=0 if fate == "missed" else int(t.our_time_ns[i]),
            theirs_ns=time_ns,
            their_phase=phase,
            fate=fate,
            probability=float("nan"),
            residual_s=float("nan"),
            predicted_ns=self._predicted.get((row, site(station), phase), 0),
        )


URGENT = ("missed", "new", "found", "matched", "not scored")  # who stays when a list is cut


def urgent(events: ComparedEvents) -> list[int]:
    """All rows in the order in which they stay when a list is cut: missed and new ones first, then by time."""
    urgency = np.array([URGENT.index(status) for status in events.status.tolist()], np.int64)
    return [int(i) for i in np.argsort(urgency, kind="stable")]


def sites_shown(inputs: Inputs, first: Sequence[int], most: int) -> dict[int, list[str]]:
    """The events whose picks the page holds, and the sites of these: ``first``, then others up to ``most`` picks."""
    lists, n = PickLists(inputs), 0
    found: dict[int, list[str]] = {}
    for row in dict.fromkeys([*first, *urgent(inputs.events)]):
        n += lists.count(row)
        if n > most and found:
            break
        found[row] = sorted({site(pick.station) for pick in lists.of(row)})
    return found
