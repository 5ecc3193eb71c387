"""Training, validation and test sets that share no earthquake, no station or no time. Tables in, arrays out.

Stations or times are dealt to ``folds`` groups; group ``fold`` is the test, the one before it the validation. A record
that would couple two parts is dropped and counted. What is drawn depends on names and the seed alone, not on the order
of rows: the same record is in the same part wherever the split is made.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.errors import ConfigError
from pipeline.maths.geo import distance_km
from pipeline.records import NS, Bool, Int, Labelled, Text

Method = Literal["station", "event", "both"]
Kind = Literal["record", "event", "station", "time", "waveform"]
DROPPED, TRAIN, VALIDATION, TEST = -1, 0, 1, 2
NAMES = ("train", "validation", "test")
SAME_SITE_KM = 0.1
PROMISES: dict[Method, tuple[Kind, ...]] = {  # what the parts of each method do not share
    "station": ("record", "event", "station", "time", "waveform"),
    "event": ("record", "event", "time", "waveform"),
    "both": ("record", "event", "station", "time", "waveform"),
}


@dataclass(frozen=True, slots=True)
class Split:
    """``part`` int64 (n,): -1 dropped, 0 train, 1 validation, 2 test; and how many were dropped why."""

    part: Int
    dropped: dict[str, int]
    method: Method

    def counts(self) -> dict[str, int]:
        """Records of each part."""
        return {name: int(np.count_nonzero(self.part == i)) for i, name in enumerate(NAMES)}


def split(
    rows: Labelled, method: Method, folds: int = 5, fold: int = 0, margin_s: float = 60.0, seed: int = 0
) -> Split:
    """Deal ``rows`` to training, validation and test.

    "station": stations are dealt, so that groups have about as many records; an earthquake stays in one part only,
    chosen so that the parts fill evenly, and its records at other parts' stations are dropped. "event": time is cut
    into contiguous groups between earthquakes; the last fold has the latest for test. "both": stations and times are
    dealt, and a record is kept where both say the same. In each, what lies within ``margin_s`` of a record of the test
    (then of the validation) is dropped from the other parts.

    Raises ConfigError: too few stations or events for ``folds``, records without time, a part left empty.
    """
    if folds < 3 or not 0 <= fold < folds:
        raise ConfigError(f"fold {fold} of {folds}: there are three parts at least, and folds are counted from 0")
    group_part = np.zeros(folds, np.int64)
    group_part[fold], group_part[(fold - 1) % folds] = TEST, VALIDATION
    part, dropped = np.zeros(len(rows), np.int64), dict[str, int]()
    if method in ("station", "both"):
        part = group_part[station_groups(places(rows), folds, seed)]
    if method in ("event", "both"):
        by_time = group_part[time_groups(rows, folds)]
        if method == "both":
            _drop(part, part != by_time, dropped, "its station is in one part, its time in another")
        else:
            part = by_time
    if method == "station":
        _drop(part, _event_elsewhere(rows, part, seed), dropped, "its earthquake is in another part")
    for held in (TEST, VALIDATION):
        near = near_in_time(rows, part == held, margin_s) & (part != held) & (part >= 0) & (part != TEST)
        _drop(part, near, dropped, f"within {margin_s:g} s of the {NAMES[held]}")
    found = Split(part, dropped, method)
    empty = [name for name, n in found.counts().items() if n == 0]
    if empty:
        raise ConfigError(
            f"split by {method}, fold {fold} of {folds}: nothing is left for {' and '.join(empty)} of {len(rows)} "
            f"records ({dropped or 'none dropped'}); take fewer folds, a smaller margin or another method"
        )
    return found


def _drop(part: Int, rows: Bool, dropped: dict[str, int], why: str) -> None:
    n = int(np.count_nonzero(rows & (part >= 0)))
    if n:
        dropped[why] = n
    part[rows] = DROPPED


def places(rows: Labelled) -> Text:
    """(n,) the site of each record: its station, or the first name of the stations within 100 m of each other."""
    names, first = np.unique(rows.station, return_index=True)
    latitude, longitude = rows.latitude_deg[first], rows.longitude_deg[first]
    called = {str(name): str(name) for name in names}
    order = np.flatnonzero(np.isfinite(latitude) & np.isfinite(longitude))
    order = order[np.argsort(latitude[order], kind="stable")]
    for k, i in enumerate(order.tolist()):
        near = order[k + 1 :]
        near = near[: np.searchsorted(latitude[near], latitude[i] + SAME_SITE_KM / 110.0, side="right")]
        close = near[distance_km(latitude[i], longitude[i], latitude[near], longitude[near]) <= SAME_SITE_KM]
        for j in close.tolist():
            a, b = sorted((called[str(names[i])], called[str(names[j])]))
            called = {name: a if site == b else site for name, site in called.items()}
    return np.array([called[name] for name in rows.station.tolist()], np.str_)


def station_groups(place: Text, folds: int, seed: int) -> Int:
    """(n,) the group of each record: the sites with most records first, each to the group that has the fewest."""
    names, counts = np.unique(place, return_counts=True)
    if len(names) < folds:
        raise ConfigError(f"{len(names)} stations cannot be dealt to {folds} folds; take fewer, or split by event")
    order = sorted(range(len(names)), key=lambda i: (-counts[i], _drawn(seed, str(names[i]))))
    load, group = np.zeros(folds, np.int64), dict[str, int]()
    for i in order:
        group[str(names[i])] = int(load.argmin())
        load[group[str(names[i])]] += counts[i]
    return np.array([group[name] for name in place.tolist()], np.int64)


def time_groups(rows: Labelled, folds: int) -> Int:
    """(n,) the group of each record: contiguous in time, cut between earthquakes, about equally many records."""
    if not rows.has_time.all():
        lost = rows.id[~rows.has_time]
        raise ConfigError(f"{len(lost)} records have no time, the first is {lost[0]!r}; split them by station")
    begin, _ = rows.spans_ns()
    units, unit = np.unique(np.where(rows.event == "", rows.id, rows.event), return_inverse=True)
    if len(units) < folds:
        raise ConfigError(f"{len(units)} earthquakes cannot be dealt to {folds} folds; take fewer")
    unit = unit.ravel()
    start = np.full(len(units), np.iinfo(np.int64).max)
    np.minimum.at(start, unit, begin)
    order = np.lexsort((units, start))
    counts = np.bincount(unit, minlength=len(units))[order]
    middle = np.cumsum(counts) - counts / 2
    group = np.empty(len(units), np.int64)
    group[order] = np.minimum(middle * folds // len(rows), folds - 1)
    return group[unit]


def _event_elsewhere(rows: Labelled, part: Int, seed: int) -> Bool:
    """(n,) whether the record's earthquake goes to another part than the record's station."""
    events, code = np.unique(rows.event, return_inverse=True)
    counts = np.zeros((len(events), 3), np.int64)
    np.add.at(counts, (code.ravel(), part), 1)
    share = np.maximum(counts[events != ""].sum(axis=0), 1)
    kept, home = np.zeros(3, np.int64), np.zeros(len(events), np.int64)
    for i in sorted(range(len(events)), key=lambda i: _drawn(seed, str(events[i]))):
        there = np.flatnonzero(counts[i])
        home[i] = min(there.tolist(), key=lambda q: (kept[q] / share[q], -counts[i, q], q))
        kept[home[i]] += counts[i, home[i]] if events[i] else 0
    elsewhere: Bool = (home[code.ravel()] != part) & (rows.event != "")
    return elsewhere


def near_in_time(rows: Labelled, held: Bool, margin_s: float) -> Bool:
    """(n,) whether a record lies less than ``margin_s`` from one of those ``held`` (n,); False without a time."""
    begin, end = rows.spans_ns()
    known = rows.has_time
    theirs = np.flatnonzero(held & known)
    if not len(theirs):
        return np.zeros(len(rows), np.bool_)
    theirs = theirs[np.argsort(begin[theirs], kind="stable")]
    last = np.maximum.accumulate(end[theirs])
    margin_ns = round(margin_s * NS)
    before = np.searchsorted(begin[theirs], end + margin_ns, side="left")  # so many begin early enough
    near: Bool = known & (before > 0) & (last[np.maximum(before - 1, 0)] > begin - margin_ns)
    return near


def _drawn(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()
