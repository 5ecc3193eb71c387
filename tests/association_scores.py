"""How good a list of events is: by the picks they share with true ones, or by time and place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.maths import geo, match
from pipeline.models.associators.observed import Earthquake
from pipeline.records import NS, Float, Int

LEAST_OVERLAP = 0.6  # of the larger of two events, as in the benchmark of PyOcto
NOT_KNOWN = -2  # a pick of which no one knows whether it is of an event; -1: of none


@dataclass(frozen=True)
class Places:
    """Events by time and place (n,) each; x and y on the local plane."""

    time_ns: Int
    x_km: Float
    y_km: Float
    z_km: Float

    def __len__(self) -> int:
        return len(self.time_ns)


@dataclass(frozen=True)
class Scores:
    """Figures of one comparison. ``pairs`` (k, 2) are rows of ours and of theirs."""

    pairs: Int
    n_ours: int
    n_theirs: int
    pick_recall: float
    pick_precision: float
    km: Float  # (k,) between the epicentres
    depth_km: Float  # (k,) ours minus theirs
    dt_s: Float  # (k,) ours minus theirs

    @property
    def recall(self) -> float:
        return _share(len(self.pairs), self.n_theirs)

    @property
    def precision(self) -> float:
        return _share(len(self.pairs), self.n_ours)

    @property
    def f1(self) -> float:
        return _share(2 * len(self.pairs), self.n_ours + self.n_theirs)

    def recall_of(self, chosen: np.ndarray) -> float:
        """The recall of the reference events that ``chosen`` (n_theirs,) marks."""
        return _share(int(chosen[self.pairs[:, 1]].sum()), int(chosen.sum()))

    def as_dict(self) -> dict[str, float]:
        return {
            "events": self.n_ours,
            "reference": self.n_theirs,
            "recall": self.recall,
            "precision": self.precision,
            "f1": self.f1,
            "pick_recall": self.pick_recall,
            "pick_precision": self.pick_precision,
            "median_km": _percentile(self.km, 50),
            "km_95": _percentile(self.km, 95),
            "median_depth_km": _percentile(np.abs(self.depth_km), 50),
            "median_dt_s": _percentile(np.abs(self.dt_s), 50),
        }


def places(found: Sequence[Earthquake]) -> Places:
    """Time and place of what an associator found."""
    return Places(
        np.array([e.time_ns for e in found], np.int64),
        *(np.array([getattr(e, axis) for e in found], np.float64) for axis in ("x_km", "y_km", "z_km")),
    )


def event_of_pick(found: Sequence[Earthquake], n_picks: int) -> Int:
    """The event (n_picks,) of each pick, -1 for none. Raises ValueError for a pick in two events or in one twice."""
    event = np.full(n_picks, -1, np.int64)
    for i, e in enumerate(found):
        if len(np.unique(e.picks)) != len(e.picks) or (event[e.picks] != -1).any():
            raise ValueError(f"event {i} has picks that it or another event has already: each pick is in one at most")
        event[e.picks] = i
    return event


def by_picks(found: Sequence[Earthquake], event: Int, truth: Places) -> Scores:
    """An event is found if an event shares at least `LEAST_OVERLAP` of the picks of the larger of the two.

    ``event`` (n picks,) is the row in ``truth`` of each pick, -1 for false ones. As each pick is in one event at
    most on either side, and the share is more than half, an event has one partner at most: nothing to choose.
    """
    mine = event_of_pick(found, len(event))
    return _scores(overlapping(mine, event), mine, event, places(found), truth)


def overlapping(mine: Int, theirs: Int) -> Int:
    """Rows (k, 2) of events of both that share at least `LEAST_OVERLAP` of the picks of the larger.

    ``mine`` and ``theirs`` (n picks,) are the events of each pick, negative for none.
    """
    both = (mine >= 0) & (theirs >= 0)
    (i, j), shared = np.unique(np.stack([mine[both], theirs[both]]), axis=1, return_counts=True)
    larger = np.maximum(np.bincount(mine[mine >= 0])[i], np.bincount(theirs[theirs >= 0])[j])
    return np.column_stack([i, j])[shared >= LEAST_OVERLAP * larger]


def by_place(
    found: Sequence[Earthquake], event: Int, truth: Places, centre: tuple[float, float], limit: tuple[float, float]
) -> Scores:
    """An event is found if one is within ``limit`` (s, km) of it, one to one. ``centre`` is latitude and longitude.

    ``event`` (n picks,) is the row in ``truth`` of each pick, -1 for false ones, `NOT_KNOWN` for those not scored.
    """
    mine = event_of_pick(found, len(event))
    ours = places(found)
    pairs = paired(ours, truth, centre, limit)
    return _scores(pairs, mine, event, ours, truth)


def paired(ours: Places, theirs: Places, centre: tuple[float, float], limit: tuple[float, float]) -> Int:
    """Rows (k, 2) of events of both within ``limit`` (s, km) of each other, one to one."""
    points = [(a.time_ns, *geo.geographic(a.x_km, a.y_km, *centre)) for a in (ours, theirs)]
    return np.column_stack(match.match_events(*points, *limit, (0.99, 0.01)))


def agreement(
    ours: tuple[Places, Int],
    others: Sequence[tuple[Places, Int]],
    centre: tuple[float, float],
    limit: tuple[float, float],
) -> float:
    """The share of our events that at least one of the ``others`` has too: within ``limit`` (s, km), or of like picks.

    Each is given as its events and the event (n picks,) of each pick, -1 for none.
    """
    agreed = np.zeros(len(ours[0]), bool)
    for events, of_pick in others:
        agreed[paired(ours[0], events, centre, limit)[:, 0]] = True
        agreed[overlapping(ours[1], of_pick)[:, 0]] = True
    return _share(int(agreed.sum()), len(agreed))


def _scores(pairs: Int, mine: Int, event: Int, ours: Places, theirs: Places) -> Scores:
    """A pick is right if it is in the event that is paired with its own."""
    partner = np.full(len(ours) + 1, NOT_KNOWN - 1)
    partner[pairs[:, 0]] = pairs[:, 1]
    scored = event != NOT_KNOWN
    right = int(((partner[mine] == event) & (mine >= 0) & scored).sum())
    i, j = pairs.T
    return Scores(
        pairs,
        len(ours),
        len(theirs),
        _share(right, int((event >= 0).sum())),
        _share(right, int(((mine >= 0) & scored).sum())),
        np.hypot(ours.x_km[i] - theirs.x_km[j], ours.y_km[i] - theirs.y_km[j]),
        ours.z_km[i] - theirs.z_km[j],
        (ours.time_ns[i] - theirs.time_ns[j]) / NS,
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _percentile(values: Float, percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else float("nan")
