"""What every bulletin reader makes: rows of origins and arrivals, turned into tables at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.errors import BadData
from pipeline.records import NS, Arrivals, Events

NAN = float("nan")
KM_PER_DEGREE = 111.195  # of a great circle on a sphere of 6371 km
NOT_KNOWN = -1  # in a whole-number column


class BadLine(NamedTuple):
    """A line of a bulletin that was not understood, and why."""

    number: int  # from 1
    text: str
    reason: str


class Origin(NamedTuple):
    id: str
    time_ns: int
    latitude_deg: float = NAN
    longitude_deg: float = NAN
    depth_km: float = NAN
    magnitude: float = NAN
    sigma_time_s: float = NAN
    gap_deg: float = NAN
    nearest_km: float = NAN
    kind: str = "earthquake"


class Arrival(NamedTuple):
    event: str
    station: str
    phase: str
    time_ns: int
    weight: int = NOT_KNOWN


class Bulletin(NamedTuple):
    events: Events
    arrivals: Arrivals
    bad: list[BadLine]


def bulletin(path: Path, origins: Sequence[Origin], arrivals: Sequence[Arrival] | None, bad: list[BadLine]) -> Bulletin:
    """The tables of what was read from ``path``; ``arrivals`` is None where the format has none.

    Raises BadData if nothing was understood: the file is of another format.
    """
    if bad and not origins and not arrivals:
        first = bad[0]
        raise BadData(
            f"{path}: not one of its lines was understood; line {first.number}, {first.text[:60]!r}: {first.reason}. "
            "Is it of the format that the configuration says?"
        )
    return Bulletin(event_table(origins, arrivals), arrival_table(arrivals or []), bad)


def event_table(origins: Sequence[Origin], arrivals: Sequence[Arrival] | None) -> Events:
    """Sorted by (time, id). Picks and stations are counted from ``arrivals``; -1 where there are none to count."""
    rows = sorted(origins, key=lambda o: (o.time_ns, o.id))
    phases = Counter((a.event, a.phase) for a in arrivals or [])
    stations = Counter(event for event, _ in {(a.event, a.station) for a in arrivals or []})
    both = Counter((event, station) for event, station, _ in {(a.event, a.station, a.phase) for a in arrivals or []})
    pairs = Counter(event for (event, _), n_phases in both.items() if n_phases == 2)

    def counted(n: int) -> int:
        return NOT_KNOWN if arrivals is None else n

    return Events(
        id=np.array([o.id for o in rows], np.str_),
        time_ns=np.array([o.time_ns for o in rows], np.int64),
        latitude_deg=np.array([o.latitude_deg for o in rows], np.float64),
        longitude_deg=np.array([o.longitude_deg for o in rows], np.float64),
        depth_km=np.array([o.depth_km for o in rows], np.float64),
        magnitude=np.array([o.magnitude for o in rows], np.float64),
        sigma_time_s=np.array([o.sigma_time_s for o in rows], np.float64),
        n_p=np.array([counted(phases[o.id, "P"]) for o in rows], np.int64),
        n_s=np.array([counted(phases[o.id, "S"]) for o in rows], np.int64),
        n_stations=np.array([counted(stations[o.id]) for o in rows], np.int64),
        gap_deg=np.array([o.gap_deg for o in rows], np.float64),
        nearest_km=np.array([o.nearest_km for o in rows], np.float64),
        score=np.full(len(rows), NAN),
        kind=np.array([o.kind for o in rows], np.str_),
        n_pairs=np.array([counted(pairs[o.id]) for o in rows], np.int64),
        sigma_log_amplitude=np.full(len(rows), NAN),
    )


def arrival_table(arrivals: Sequence[Arrival]) -> Arrivals:
    """Sorted by (time, station, phase, event)."""
    rows = sorted(arrivals, key=lambda a: (a.time_ns, a.station, a.phase, a.event, a.weight))
    return Arrivals(
        event=np.array([a.event for a in rows], np.str_),
        station=np.array([a.station for a in rows], np.str_),
        phase=np.array([a.phase for a in rows], np.str_),
        time_ns=np.array([a.time_ns for a in rows], np.int64),
        weight=np.array([a.weight for a in rows], np.int64),
    )


def iso_ns(text: str) -> int:
    """An ISO 8601 time, to the microsecond, as ns UTC; without a zone it is UTC. Raises ValueError."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as e:
        raise ValueError(f"time {text!r} is not ISO 8601: {e}") from e
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * NS + since.microseconds * 1000


def optional(name: str, text: str | None) -> float:
    """A number, or NaN where there is no text. Raises ValueError that names the field."""
    try:
        return float(text) if text and text.strip() else NAN
    except ValueError as e:
        raise ValueError(f"{name} {text!r} is not a number") from e
