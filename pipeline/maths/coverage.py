"""Which station-days have picks, and why the others have none.

All of it is counting in arrays: a shard is a row of small numbers, so that a million of them are some megabytes.
Days are int64 days since 1970-01-01 UTC. A *station-day* is a station on a day of the run's period on which one of
its epochs lasts; the ones without picks are *gaps*, and each has a reason. Lack of metadata is none of the reasons: a
plan with such files is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.maths.days import day_numbers, day_text
from pipeline.maths.names import site
from pipeline.records import DAY_NS, Bool, Float32, Int, Stations

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]

ENDS = ("missing", "picked", "empty", "failed", "set aside")  # of a shard; missing: it has none yet
MISSING, PICKED, EMPTY, FAILED, SET_ASIDE = range(5)
KINDS = ("", "picked", "no file", "empty", "failed", "set aside", "missing", "being picked", "late")
NOTHING, COVERED, NO_FILE, NO_DATA, BROKEN, ASIDE, TO_DO, HELD, LATE = range(9)
KIND_OF_END = np.array([TO_DO, COVERED, NO_DATA, BROKEN, ASIDE], np.int8)
CHANGED = "its files changed after they were planned: run `orcolat update`"
NEW = "its files came after the plan was made: run `orcolat update`"


@dataclass(frozen=True, slots=True)
class Labels:
    """Text that repeats: row i is ``names[code[i]]``. ``code`` int32 (n,); no name twice."""

    code: Int32
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.code)

    @classmethod
    def of(cls, values: Sequence[str]) -> Self:
        index: dict[str, int] = {}
        code = np.array([index.setdefault(value, len(index)) for value in values], np.int32)
        return cls(code, tuple(index))


@dataclass(frozen=True, slots=True)
class Plan:
    """The shards of a plan, (n,): "NET.STA.LOC.BAND" and day."""

    channel: Labels
    day: Int

    def __len__(self) -> int:
        return len(self.day)


@dataclass(frozen=True, slots=True)
class Ended:
    """How shards ended, (m,), in any order: ``end`` is an index into `ENDS`, ``fraction`` the share with data."""

    channel: Labels
    day: Int
    end: Int8
    reason: Labels
    fraction: Float32
    n_picks: Int

    def __len__(self) -> int:
        return len(self.day)


@dataclass(frozen=True, slots=True)
class Standing:
    """How each planned shard stands, (n,): ``end`` as in `Ended`, ``reason`` index into ``reasons`` (0: none).

    ``strangers`` and ``doubles`` are rows of `Ended`: shards that nobody planned, and second results of a shard.
    """

    end: Int8
    reason: Int32
    reasons: tuple[str, ...]
    fraction: Float32
    strangers: Int
    doubles: Int


@dataclass(frozen=True, slots=True)
class Coverage:
    """Every station (s) on every day (d) of the run's period, from ``first_day`` on.

    ``kind`` (s, d) index into `KINDS`, 0 where the station had no epoch and no shard; ``reason`` (s, d) index into
    ``reasons``; ``fraction`` (s, d) share of the day with data where it was picked.
    """

    sites: tuple[str, ...]
    first_day: int
    kind: Int8
    reason: Int32
    reasons: tuple[str, ...]
    fraction: Float32


@dataclass(frozen=True, slots=True)
class Gaps:
    """Runs of days of one station without picks for one reason, by station and day, (k,): ``site`` index into
    `Coverage.sites`, ``first`` and ``last`` day, both inclusive, ``kind`` and ``reason`` as there."""

    site: Int
    first: Int
    last: Int
    kind: Int8
    reason: Int32

    def __len__(self) -> int:
        return len(self.site)


def rows_of(plan: Plan, channel: Labels, day: Int) -> Int:
    """The row of ``plan`` of each shard (m,) named by channel and day; -1 where it is not planned."""
    if not len(plan) or not len(day):
        return np.full(len(day), -1, np.int64)
    first, n_days = int(plan.day.min()), int(np.ptp(plan.day)) + 1
    row_at = np.full((len(plan.channel.names), n_days), -1, np.int32)
    row_at[plan.channel.code, plan.day - first] = np.arange(len(plan), dtype=np.int32)
    known = {name: i for i, name in enumerate(plan.channel.names)}
    mine = np.array([known.get(name, -1) for name in channel.names], np.int64)[channel.code]
    column = day - first
    inside = (mine >= 0) & (column >= 0) & (column < n_days)
    found = np.full(len(day), -1, np.int64)
    found[inside] = row_at[mine[inside], column[inside]]
    return found


def rows_named(plan: Plan, ids: Sequence[str]) -> Int:
    """The row of ``plan`` of each shard id (m,), -1 where it is not planned."""
    return rows_of(plan, Labels.of([id_[11:] for id_ in ids]), day_numbers([id_[:10] for id_ in ids]))


def standing(plan: Plan, ended: Ended) -> Standing:
    """How each shard of ``plan`` stands; of several results of one shard the first counts."""
    row = rows_of(plan, ended.channel, ended.day)
    known = np.flatnonzero(row >= 0)
    first = np.full(len(plan), len(row), np.int64)
    np.minimum.at(first, row[known], known)
    has = first < len(row)
    end, reason = np.zeros(len(plan), np.int8), np.zeros(len(plan), np.int32)
    fraction = np.zeros(len(plan), np.float32)
    names = ("", *(name for name in ended.reason.names if name))
    index = {name: i for i, name in enumerate(names)}
    code = np.array([index[name] for name in ended.reason.names] or [0], np.int32)
    end[has], fraction[has] = ended.end[first[has]], ended.fraction[first[has]]
    reason[has] = code[ended.reason.code[first[has]]]
    strangers, doubles = np.flatnonzero(row < 0), known[first[row[known]] != known]
    return Standing(end, reason, names, fraction, strangers, doubles)


def operating(stations: Stations, sites: Sequence[str], days: range) -> Bool:
    """On which of ``days`` an epoch of each of ``sites`` lasts, for a part of the day at least: (s, d)."""
    index = {name: i for i, name in enumerate(dict.fromkeys(sites))}
    steps = np.zeros((len(index), len(days) + 1), np.int32)
    row = np.array([index.get(name, -1) for name in stations.id.tolist()], np.int64)
    first = np.clip(stations.start_ns // DAY_NS - days.start, 0, len(days))
    stop = np.clip((stations.end_ns - 1) // DAY_NS + 1 - days.start, 0, len(days))
    there = (row >= 0) & (stop > first)
    np.add.at(steps, (row[there], first[there]), 1)
    np.add.at(steps, (row[there], stop[there]), -1)
    there_on = np.cumsum(steps, axis=1)[:, :-1] > 0
    return np.asarray(there_on[[index[name] for name in sites]])


def coverage(plan: Plan, how: Standing, stations: Stations, days: range, held: Bool | None = None) -> Coverage:
    """The grid of all stations of the plan or with an epoch in ``days``; ``held`` (n,): shards being picked now.

    Of several shards of a station on one day the one that was picked counts, with most data, else the one that most
    wants a look.
    """
    channel_sites = [site(name) for name in plan.channel.names]
    with_epoch = operating(stations, (ids := sorted(set(stations.id.tolist()))), days).any(axis=1)
    sites = tuple(sorted({*channel_sites, *(name for name, yes in zip(ids, with_epoch, strict=True) if yes)}))
    index = {name: i for i, name in enumerate(sites)}
    row = np.array([index[name] for name in channel_sites], np.int64)[plan.channel.code]
    column = plan.day - days.start
    there = operating(stations, sites, days)
    of_shard = KIND_OF_END[how.end]
    if held is not None:
        of_shard = np.where(held & (how.end == MISSING), HELD, of_shard).astype(np.int8)
    kind = np.where(there, NO_FILE, NOTHING).astype(np.int8)
    reason, fraction = np.zeros(kind.shape, np.int32), np.zeros(kind.shape, np.float32)
    inside = np.flatnonzero((column >= 0) & (column < len(days)))
    rank = np.where(of_shard == COVERED, len(KINDS), of_shard)
    order = inside[np.lexsort((how.fraction[inside], rank[inside]))]
    at = row[order], column[order]  # of an index that comes twice the last counts
    kind[at], reason[at], fraction[at] = of_shard[order], how.reason[order], how.fraction[order]
    return Coverage(sites, days.start, kind, reason, how.reasons, fraction)


def with_late(grid: Coverage, names: Sequence[str], day: Int, new: Bool) -> Coverage:
    """``grid`` with the gaps marked that have shards (m,) whose files came (``new``) or changed after the plan.

    ``names`` are "NET.STA". A station-day with picks is no gap and stays what it is. Stations that the grid does not
    have are added to it; days outside of it are left out.
    """
    sites = tuple(sorted({*grid.sites, *names}))
    index = {name: i for i, name in enumerate(sites)}
    old = np.array([index[name] for name in grid.sites], np.int64)
    shape = (len(sites), grid.kind.shape[1])
    kind, reason, fraction = np.zeros(shape, np.int8), np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    kind[old], reason[old], fraction[old] = grid.kind, grid.reason, grid.fraction
    row, column = np.array([index[name] for name in names], np.int64), day - grid.first_day
    inside = np.flatnonzero((column >= 0) & (column < shape[1]))
    marked = inside[kind[row[inside], column[inside]] != COVERED]
    kind[row[marked], column[marked]] = LATE
    reason[row[marked], column[marked]] = len(grid.reasons) + new[marked]
    return Coverage(sites, grid.first_day, kind, reason, (*grid.reasons, CHANGED, NEW), fraction)


def gaps(grid: Coverage) -> Gaps:
    """Every station-day without picks, neighbouring days of one station and reason together."""
    n_sites, n_days = grid.kind.shape
    key = grid.kind.astype(np.int64) * len(grid.reasons) + grid.reason
    key[grid.kind <= COVERED] = -1
    new = np.ones((n_sites, n_days), bool)
    new[:, 1:] = key[:, 1:] != key[:, :-1]
    start = np.flatnonzero(new)
    stop = np.append(start[1:], n_sites * n_days)
    is_gap = key.ravel()[start] >= 0
    start, stop = start[is_gap], stop[is_gap]
    row = start // max(1, n_days)
    first = start - row * n_days + grid.first_day
    return Gaps(row, first, first + stop - start - 1, grid.kind.ravel()[start], grid.reason.ravel()[start])


def by_kind(grid: Coverage) -> tuple[Int, Int]:
    """Number of station-days of each of `KINDS`: by station (s, k), by day (d, k)."""
    n_sites, n_days = grid.kind.shape
    kind, n = grid.kind.astype(np.int64), len(KINDS)
    rows = np.bincount((np.arange(n_sites)[:, None] * n + kind).ravel(), minlength=n_sites * n)
    columns = np.bincount((np.arange(n_days)[None, :] * n + kind).ravel(), minlength=n_days * n)
    return rows.reshape(n_sites, n), columns.reshape(n_days, n)


def by_reason(found: Gaps, n_reasons: int) -> list[tuple[int, int, int, int]]:
    """(kind, reason, station-days, first row of ``found`` with it), the kinds in turn, the most frequent first."""
    key = found.kind.astype(np.int64) * n_reasons + found.reason
    values, first, group = np.unique(key, return_index=True, return_inverse=True)
    days = np.bincount(group.ravel(), found.last - found.first + 1, len(values)).astype(np.int64)
    rows = [
        (v // n_reasons, v % n_reasons, n, at)
        for v, n, at in zip(values.tolist(), days.tolist(), first.tolist(), strict=True)
    ]
    return sorted(rows, key=lambda row: (row[0], -row[2], row[3]))


def account(plan: Plan, ended: Ended, how: Standing) -> tuple[dict[str, int], list[str]]:
    """planned = picked + empty + failed + set aside + missing in all, and what breaks it, one sentence each.

    The ends are counted in the results, the missing ones in the plan: they agree, station by station and day by
    day, only where every planned shard has one result at most and no other shard has one.
    """
    n_missing = how.end == MISSING
    ends = np.bincount(ended.end, minlength=len(ENDS))
    counts = {"planned": len(plan), **{name: int(n) for name, n in zip(ENDS, ends, strict=True)}}
    counts["missing"] = int(np.count_nonzero(n_missing))
    told = beyond(ended, how)
    for what, ours, theirs in (
        ("station", plan.channel, ended.channel),
        ("day", _day_labels(plan.day), _day_labels(ended.day)),
    ):
        names = sorted({site(name) for name in (*ours.names, *theirs.names)})
        open_ = Labels(ours.code[n_missing], ours.names)
        planned, left, done = (_count(labels, names) for labels in (ours, open_, theirs))
        wrong = np.flatnonzero(planned != left + done)
        if len(wrong):
            i = int(wrong[0])
            told.append(
                f"{len(wrong)} {what}s have other ends than planned, first {names[i]}: "
                f"{planned[i]} planned, {done[i]} ended, {left[i]} missing"
            )
    return counts, told


def beyond(ended: Ended, how: Standing) -> list[str]:
    """A sentence each on the results that nobody planned, and on second results."""
    told = [_many(how.strangers, ended, "a result and are not in the plan")]
    told += [_many(how.doubles, ended, "more than one result")]
    return [sentence for sentence in told if sentence]


def _many(rows: Int, ended: Ended, what: str) -> str:
    if not len(rows):
        return ""
    at = int(rows[0])
    name = f"{day_text(int(ended.day[at]))}/{ended.channel.names[ended.channel.code[at]]}"
    return f"{len(rows)} shards have {what}, first {name}"


def _day_labels(day: Int) -> Labels:
    values, code = np.unique(day, return_inverse=True)
    return Labels(code.ravel().astype(np.int32), tuple(map(day_text, values.tolist())))


def _count(labels: Labels, names: Sequence[str]) -> Int:
    """How many rows each of ``names`` has; a channel counts for its site."""
    index = {name: i for i, name in enumerate(names)}
    at = np.array([index[site(name)] for name in labels.names] or [0], np.int64)
    return np.bincount(at[labels.code], minlength=len(names)).astype(np.int64)
