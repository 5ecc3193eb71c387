"""The account of a run: what came in, what came out, and whether the two agree.

Shards planned = picked + empty + failed + missing. Picks = in events + noise. What does not agree is a
breach, one sentence each; a run without breaches has lost nothing on the way.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from pipeline.records import (
    DAY_NS,
    NS,
    Assignments,
    ComparedEvents,
    Events,
    Int,
    LocatedArrivals,
    Outcomes,
    Picks,
    Shard,
    Shards,
    Text,
)

ENDS = ("picked", "empty", "failed")
Key = tuple[str, str, int]  # station, phase, time_ns: what makes a pick one pick


class PickTally:
    """Counts picks, one file after the other, without keeping them.

    ``by_station_day`` counts by (station, "YYYY-MM-DD", phase); ``in_events`` those that ``assignments`` names.
    """

    def __init__(self, assignments: Assignments) -> None:
        self.by_station_day: Counter[tuple[str, str, str]] = Counter()
        self.in_events = 0
        self._assigned = set(keys(assignments))
        self._times_ns = np.unique(assignments.time_ns)

    def add(self, picks: Picks) -> None:
        """Count ``picks`` too."""
        days = (picks.time_ns // DAY_NS).tolist()
        groups = Counter(zip(picks.station.tolist(), days, picks.phase.tolist(), strict=True))
        for (station, day, phase), n in groups.items():
            self.by_station_day[station, str(np.datetime64(day, "D")), phase] += n
        if len(self._times_ns):
            at = np.searchsorted(self._times_ns, picks.time_ns).clip(max=len(self._times_ns) - 1)
            candidates = picks.take(self._times_ns[at] == picks.time_ns)
            self.in_events += sum(key in self._assigned for key in keys(candidates))

    def total(self, phase: str = "") -> int:
        """Number of picks, of one phase or of all."""
        return sum(n for (_, _, p), n in self.by_station_day.items() if phase in ("", p))


class Around:
    """Keeps of picks, one file after the other, those from `BEFORE_S` before one of ``times_ns`` (n,) to `AFTER_S`."""

    BEFORE_S, AFTER_S = 10, 120

    def __init__(self, times_ns: Int) -> None:
        self._times_ns = np.sort(times_ns)
        self._kept: list[Picks] = []

    def add(self, picks: Picks) -> None:
        """Keep of ``picks``, too."""
        if len(self._times_ns):
            first = np.searchsorted(self._times_ns, picks.time_ns - self.AFTER_S * NS, "left")
            stop = np.searchsorted(self._times_ns, picks.time_ns + self.BEFORE_S * NS, "right")
            self._kept.append(picks.take(stop > first))

    @property
    def picks(self) -> Picks:
        """All that were kept, in canonical order."""
        return Picks.concat(self._kept).ordered()


def keys(table: Picks | Assignments | LocatedArrivals) -> list[Key]:
    """The key of each row."""
    return list(zip(table.station.tolist(), table.phase.tolist(), table.time_ns.tolist(), strict=True))


def rows_of(wanted: Assignments | LocatedArrivals, picks: Picks) -> Int:
    """The row in ``picks`` of the pick of each row of ``wanted`` (n,); -1 where it is not there."""
    some = np.flatnonzero(np.isin(picks.time_ns, wanted.time_ns))
    row = dict(zip(keys(picks.take(some)), some.tolist(), strict=True))
    return np.array([row.get(key, -1) for key in keys(wanted)], np.int64)


def events_of(picks: Picks, assignments: Assignments) -> Text:
    """The event of each pick (n,), "" for noise."""
    some = assignments.take(np.isin(assignments.time_ns, picks.time_ns))
    event = dict(zip(keys(some), some.event.tolist(), strict=True))
    return np.array([event.get(key, "") for key in keys(picks)], np.str_)


def account(
    shards: Shards,
    outcomes: Outcomes,
    picks: PickTally,
    events: Events,
    assignments: Assignments,
    span_ns: tuple[int, int],
) -> dict[str, Any]:
    """Everything counted, and the breaches. ``span_ns`` is the half-open period of the run, ns UTC.

    Where picks were imported there are no shards, and nothing is said about data.
    """
    planned = {shard.id: _hours(shard, span_ns) for shard in shards.rows()}
    end = dict(zip(outcomes.shard.tolist(), outcomes.end.tolist(), strict=True))
    ends = Counter(end[name] for name in planned if name in end)
    valid = zip(outcomes.shard.tolist(), outcomes.valid_fraction.tolist(), strict=True)
    total = picks.total()
    return {
        "shards": {"planned": len(planned), **{e: ends[e] for e in ENDS}, "missing": len(planned) - sum(ends.values())},
        "hours": {
            "planned": sum(planned.values()),
            "data": sum(f * planned[name] for name, f in valid if name in planned),
        },
        "picks": {
            "total": total,
            "p": picks.total("P"),
            "s": picks.total("S"),
            "in_events": picks.in_events,
            "noise": total - picks.in_events,
        },
        "events": len(events),
        "breaches": [
            *(_shard_breaches(planned, outcomes, total) if planned else []),
            *_event_breaches(events, assignments, picks.in_events),
        ],
    }


def _hours(shard: Shard, span_ns: tuple[int, int]) -> float:
    start, stop = shard.within_ns(span_ns)
    return max(0, stop - start) / NS / 3600


def _shard_breaches(planned: dict[str, float], outcomes: Outcomes, n_picks: int) -> list[str]:
    seen = Counter(outcomes.shard.tolist())
    strangers = sorted(set(seen) - set(planned))
    twice = sorted(name for name, n in seen.items() if n > 1)
    told = int(outcomes.n_picks.sum())
    return [
        *(
            [f"{len(strangers)} shards have a result and are not in the plan, first {strangers[0]}"]
            if strangers
            else []
        ),
        *([f"{len(twice)} shards have more than one result, first {twice[0]}"] if twice else []),
        *([f"the shards report {told} picks, the files hold {n_picks}"] if told != n_picks else []),
    ]


def _event_breaches(events: Events, assignments: Assignments, n_found: int) -> list[str]:
    per_event = Counter(assignments.event.tolist())
    told = dict(zip(events.id.tolist(), (events.n_p + events.n_s).tolist(), strict=True))
    orphans = sorted(set(per_event) - set(told))
    differing = sorted(name for name, n in told.items() if per_event[name] != n)
    n_once = len(set(keys(assignments)))
    return [
        *([f"picks are assigned to {len(orphans)} events that do not exist, first {orphans[0]}"] if orphans else []),
        *([f"{len(differing)} events count other picks than they have, first {differing[0]}"] if differing else []),
        *([f"{len(assignments) - n_once} picks are in more than one event"] if n_once < len(assignments) else []),
        *([f"{n_once - n_found} picks of events are not among the picks"] if n_found != n_once else []),
    ]


def stale(ours: Events, compared: ComparedEvents) -> list[str]:
    """A breach if the comparison speaks of events that the catalogue does not hold."""
    known = compared.ours[compared.ours != ""]
    n = int(np.count_nonzero(~np.isin(known, ours.id)))
    return (
        [f"the comparison knows {n} events that the catalogue does not hold: run `orcolat compare` again"] if n else []
    )
