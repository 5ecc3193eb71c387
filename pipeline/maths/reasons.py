"""Why an event of the reference was missed: one reason each, decided in one order. See docs/decisions/024.

What could have been seen of an event are its arrivals, each a phase at a station. Fewer of them are left at each step:
those in the reference (or predicted, where it has none), those with data, those that were scored, those that were
picked, those whose picks are in no other event. The first step at which they are too few for the rules of the
configuration is the reason.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.records import Bool, Float, Int, Table, Text, column

OUTSIDE = "outside the region or the period"
MERGED = "merged with a neighbour"
TOLERANCE = "found outside the tolerance"
FEW = "too few picks for the rules"
NO_DATA = "no data"
NOT_SCORED = "data, but not scored"
NOT_PICKED = "not picked"
GIVEN = "picks given to another event"
REFUSED = "refused by a rule"
UNKNOWN = "unknown"
REASONS = (OUTSIDE, MERGED, TOLERANCE, FEW, NO_DATA, NOT_SCORED, NOT_PICKED, GIVEN, REFUSED, UNKNOWN)
FOUND = "found"  # of an event that was not missed

SCORED, IMPORTED = "scored", "imported"  # how the data of an arrival ended ...
FAILED, WAITING = "failed", "not picked yet"  # ... there are data, and no probabilities
EMPTY, NO_SHARD, GAP = "empty", "no data planned", "gap"
NO_STATION, NO_TIME = "no station of the run", "outside the period"
HAS_DATA = (SCORED, IMPORTED, FAILED, WAITING)
HAS_SCORES = (SCORED, IMPORTED)
FARTHER = 3.0  # times both tolerances: an event of ours this near, and of nobody else, is taken for the missed one
HOLDS = 0.5  # of the picks, so many make an event of ours the missed one
PLACES = 4, 3  # picks and stations that a place and a time need at least


@dataclass(frozen=True, slots=True)
class Expected(Table):
    """What could have been seen of missed events, one row an arrival; a station and phase is there once an event."""

    event: Int = column("int64", "1", "row of the event")
    station: Text = column("str", doc='"NET.STA", or as the reference names a station that the run does not have')
    phase: Text = column("str", doc='"P" or "S"')
    time_ns: Int = column("int64", "ns", "arrival, UTC")
    predicted_ns: Int = column("int64", "ns", "arrival by the model, UTC; 0: not known")
    distance_km: Float = column("float64", "km", "epicentral; NaN: not known")
    predicted: Bool = column("bool", doc="the reference has no pick: the time is the model's")
    state: Text = column("str", doc="how the data of the arrival ended")
    our_phase: Text = column("str", doc='of our pick: "P", "S", or "": no pick')
    our_time_ns: Int = column("int64", "ns", "of our pick, UTC; 0: no pick")
    our_probability: Float = column("float64", "1", "of our pick")
    our_event: Text = column("str", doc='event of our pick; "": noise, or no pick')


class Rules(NamedTuple):
    """What an event needs, in the order in which it is asked."""

    min_picks: int
    min_p_picks: int
    min_s_picks: int
    min_stations: int
    min_pairs: int


class Lack(NamedTuple):
    """The first rule that is not met; ``rule`` is "" if all are."""

    rule: str
    n: int
    least: int

    def __str__(self) -> str:
        return f"{self.rule} {self.n} of {self.least}"


class Near(NamedTuple):
    """An event of ours near a missed one; ``id`` is "" if there is none. Ours minus theirs."""

    id: str
    dt_s: float
    distance_km: float
    partner: str  # what it is in the reference; "": nothing
    n_picks: int = 0  # of its own

    def __str__(self) -> str:
        return f"{self.id} is {self.dt_s:+.2f} s and {self.distance_km:.1f} km away"


NOBODY = Near("", float("nan"), float("nan"), "")


class Facts(NamedTuple):
    """What is known of one missed event as a whole."""

    outside: str  # why it cannot be found; "": it can
    near: Near  # within both tolerances
    far: Near  # the nearest within `FARTHER` that has no partner
    holders: dict[str, Near]  # the events of ours that hold its picks
    tolerance: str  # the tolerances in words


class Reason(NamedTuple):
    """One of `REASONS`, the ``rule`` of [associate] it is about or "", one sentence, and the event of ours it names."""

    reason: str
    rule: str
    detail: str
    other: Near = NOBODY


def lack(rules: Rules, station: Text, phase: Text) -> Lack:
    """The first rule that wants more than these arrivals (n,)."""
    at_p, at_s = np.unique(station[phase == "P"]), np.unique(station[phase == "S"])
    n = (
        len(at_p) + len(at_s),
        len(at_p),
        len(at_s),
        len(np.union1d(at_p, at_s)),
        len(np.intersect1d(at_p, at_s)),
    )
    rows = zip(Rules._fields, n, rules, strict=True)
    return next((Lack(name, have, least) for name, have, least in rows if have < least), Lack("", 0, 0))


def decide(seen: Expected, facts: Facts, rules: Rules) -> Reason:
    """The reason why one event was missed, from its arrivals; `UNKNOWN` where only the associator can tell."""
    return _as_a_whole(seen, facts) or _too_few(seen, facts, rules) or _open(seen)


def _as_a_whole(seen: Expected, facts: Facts) -> Reason | None:
    if facts.outside:
        return Reason(OUTSIDE, "", facts.outside)
    if facts.near.id:
        owner = facts.near.partner or "another event"
        return Reason(MERGED, "", f"{facts.near}, and is matched with {owner}", facts.near)
    held = Counter(event for event in seen.our_event.tolist() if event)
    n_picked = int(np.count_nonzero(seen.our_phase != ""))
    for name, n in sorted(held.items(), key=lambda item: (-item[1], item[0])):
        holder = facts.holders[name]
        if not holder.partner and n >= 2 and n >= HOLDS * n_picked and n >= HOLDS * holder.n_picks:
            what = f"{holder}, with {n} of its {n_picked} picks; the tolerance is {facts.tolerance}"
            return Reason(TOLERANCE, "", what, holder)
    if facts.far.id:
        return Reason(TOLERANCE, "", f"{facts.far}; the tolerance is {facts.tolerance}", facts.far)
    return None


def _too_few(seen: Expected, facts: Facts, rules: Rules) -> Reason | None:
    """The first step at which what is left is too little."""
    all_ = lack(rules, seen.station, seen.phase)
    predicted = bool(len(seen)) and bool(seen.predicted.all())
    whose = "predicted arrivals" if predicted else "arrivals in the reference"
    if all_.rule:
        return Reason(FEW, all_.rule, f"{len(seen)} {whose}: {all_}")
    data = seen.take(np.isin(seen.state, HAS_DATA))
    if (left := lack(rules, data.station, data.phase)).rule:
        return Reason(NO_DATA, left.rule, f"{len(data)} of {len(seen)} {whose} have data ({_states(seen)}): {left}")
    scored = data.take(np.isin(data.state, HAS_SCORES))
    if (left := lack(rules, scored.station, scored.phase)).rule:
        what = f"of {len(data)} {whose} with data {len(scored)} were scored ({_states(seen)}): {left}"
        return Reason(NOT_SCORED, left.rule, what)
    picked = seen.take(seen.our_phase != "")
    if (left := lack(rules, picked.station, picked.our_phase)).rule:
        what = f"{len(picked)} of {len(scored)} {whose} with data have a pick: {left}"
        n_stations = len(np.unique(picked.station))
        could = len(picked) >= PLACES[0] and n_stations >= PLACES[1]
        return Reason(FEW if could else NOT_PICKED, left.rule, what)
    free = picked.take(picked.our_event == "")
    if (left := lack(rules, free.station, free.our_phase)).rule:
        held = Counter(picked.our_event[picked.our_event != ""].tolist())
        ranked = sorted(held.items(), key=lambda item: (-item[1], item[0]))
        names = ", ".join(f"{n} in {name}" for name, n in ranked)
        what = f"of {len(picked)} picks {names}; of the others: {left}"
        return Reason(GIVEN, left.rule, what, facts.holders[ranked[0][0]])
    return None


def _open(seen: Expected) -> Reason:
    return Reason(
        UNKNOWN, "", f"{_free(seen)} in no event, enough for the rules: the associator makes no event of them"
    )


def _free(seen: Expected) -> str:
    return f"{np.count_nonzero((seen.our_phase != '') & (seen.our_event == ''))} picks"


def refused(seen: Expected, rule: str, what: str) -> Reason:
    """The ``rule`` that the associator names: with it changed to ``what`` the picks in no event are one."""
    return Reason(REFUSED, rule, f"{_free(seen)} in no event, enough for the rules: an event with {what}")


def _states(seen: Expected) -> str:
    """How many arrivals ended how, for a sentence."""
    counts = Counter(seen.state.tolist())
    return ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))


def tally(reason: Text) -> dict[str, int]:
    """How many events have each reason that occurs, in the order of `REASONS`."""
    counts = Counter(reason.tolist())
    return {name: counts[name] for name in REASONS if counts[name]}
