"""The audit of a run as plain values: what its page, its JSON and its text are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.maths import coverage
from pipeline.maths.coverage import COVERED, ENDS, KINDS, NOTHING, Coverage, Gaps, Plan, Standing
from pipeline.maths.days import day_text
from pipeline.maths.names import site
from pipeline.records import Int

GAP_KINDS = KINDS[COVERED + 1 :]
Row = dict[str, Any]


def books(plan: Plan, how: Standing, grid: Coverage, shards: dict[str, int], breaches: list[str]) -> Row:
    """Everything of the audit that is counted: shards, station-days, gaps, stations, days."""
    found = coverage.gaps(grid)
    of_site, of_day = coverage.by_kind(grid)
    total = of_site.sum(axis=0)
    silent = of_site[:, NOTHING + 1 :].sum(axis=1) == of_site[:, coverage.NO_FILE]
    return {
        "shards": shards,
        "breaches": breaches,
        "station_days": {"all": int(total[NOTHING + 1 :].sum()), **_named(total)},
        "reasons": reason_rows(grid, found),
        "stations": station_rows(plan, how, grid, of_site),
        "days": day_rows(plan, how, grid, of_day),
        "gaps": gap_rows(grid, found),
        "silent": [name for name, yes in zip(grid.sites, silent.tolist(), strict=True) if yes],
    }


def _named(counts: Int) -> dict[str, int]:
    """Station-days by kind, those outside of all epochs left out."""
    return {name: int(n) for name, n in zip(KINDS[1:], counts[1:], strict=True)}


def reason_rows(grid: Coverage, found: Gaps) -> list[Row]:
    """Why there are gaps: the kinds in turn, the most frequent reason first, each with where it is met first."""
    return [
        {
            "kind": KINDS[kind],
            "reason": grid.reasons[reason],
            "station_days": n,
            "first": f"{grid.sites[int(found.site[at])]} {day_text(int(found.first[at]))}",
        }
        for kind, reason, n, at in coverage.by_reason(found, len(grid.reasons))
    ]


def station_rows(plan: Plan, how: Standing, grid: Coverage, of_site: Int) -> list[Row]:
    """Of each station its shards by end, its station-days by kind, and its share of data on the days picked."""
    index = {name: i for i, name in enumerate(grid.sites)}
    at = np.array([index[site(name)] for name in plan.channel.names] or [0], np.int64)
    shards = _ends(at[plan.channel.code], how, len(grid.sites))
    data = np.where(grid.kind == COVERED, grid.fraction, 0).sum(axis=1, dtype=np.float64)
    picked = of_site[:, COVERED]
    return [
        {"station": name, **row, "data": float(data[i] / picked[i]) if picked[i] else None}
        for i, (name, row) in enumerate(zip(grid.sites, _rows(shards, of_site), strict=True))
    ]


def day_rows(plan: Plan, how: Standing, grid: Coverage, of_day: Int) -> list[Row]:
    """The same of each day."""
    n_days = grid.kind.shape[1]
    column = plan.day - grid.first_day
    inside = (column >= 0) & (column < n_days)
    shards = _ends(np.where(inside, column, n_days), how, n_days + 1)[:n_days]
    rows = _rows(shards, of_day)
    return [{"day": day_text(grid.first_day + i), **row} for i, row in enumerate(rows)]


def _ends(group: Int, how: Standing, n: int) -> Int:
    """Shards by group and end, (n, ends)."""
    n_ends = len(ENDS)
    return np.bincount(group * n_ends + how.end, minlength=n * n_ends).astype(np.int64).reshape(n, n_ends)


def _rows(shards: Int, station_days: Int) -> list[Row]:
    planned, in_all = shards.sum(axis=1).tolist(), station_days[:, NOTHING + 1 :].sum(axis=1).tolist()
    return [
        {
            "shards": {"planned": planned[i], **dict(zip(ENDS, ends, strict=True))},
            "station_days": {"all": in_all[i], **dict(zip(KINDS[1:], kinds[1:], strict=True))},
        }
        for i, (ends, kinds) in enumerate(zip(shards.tolist(), station_days.tolist(), strict=True))
    ]


def gap_rows(grid: Coverage, found: Gaps) -> list[Row]:
    """Every gap: station, first and last day, number of days, kind and reason."""
    span = range(grid.first_day, grid.first_day + grid.kind.shape[1])
    day = {number: day_text(number) for number in span}
    columns = (found.site, found.first, found.last, found.kind, found.reason)
    return [
        {
            "station": grid.sites[s],
            "first": day[first],
            "last": day[last],
            "days": last - first + 1,
            "kind": KINDS[kind],
            "reason": grid.reasons[reason],
        }
        for s, first, last, kind, reason in zip(*(c.tolist() for c in columns), strict=True)
    ]
