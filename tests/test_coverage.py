"""Coverage: every station-day has one fate, counted against plain loops over plain dictionaries."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pipeline.maths import books, coverage
from pipeline.maths.coverage import ENDS, KINDS, Ended, Labels, Plan
from pipeline.maths.names import site
from pipeline.records import DAY_NS, Stations

DAYS = range(19000, 19012)
REASONS = ("", "no file", "too short", "BadData: corrupt")


def labels(values):
    names = sorted(set(values))
    return Labels(np.array([names.index(v) for v in values], np.int32), tuple(names))


def plan_of(shards):
    return Plan(labels([channel for channel, _ in shards]), np.array([day for _, day in shards], np.int64))


def ended_of(rows):
    """From (channel, day, end, reason, fraction)."""
    channel, day, end, reason, fraction = zip(*rows, strict=True) if rows else ([],) * 5
    end = np.array([ENDS.index(e) for e in end], np.int8)
    fraction = np.array(fraction, np.float32)
    n_picks = np.zeros(len(rows), np.int64)
    return Ended(labels(channel), np.array(day, np.int64), end, labels(reason), fraction, n_picks)


def stations_of(epochs):
    """From (name, first day, day after the last)."""
    zeros = np.zeros(len(epochs))
    names, start, end = zip(*epochs, strict=True)
    times = (np.array(values, np.int64) * DAY_NS for values in (start, end))
    return Stations(np.array(names), zeros, zeros, zeros, *times)


@pytest.fixture(params=range(4))
def world(request):
    """A plan with holes, results of some of it in any order, stations with epochs, two bands on some days."""
    rng = np.random.default_rng(request.param)
    names = [f"XX.S{i}" for i in range(7)]
    shards = [(f"{n}..HH", d) for n in names[:6] for d in DAYS if rng.random() < 0.7]
    shards += [(f"{n}.00.EH", d) for n in names[:2] for d in DAYS if rng.random() < 0.3]
    shards.sort(key=lambda shard: (shard[1], shard[0]))
    rows = []
    for channel, day in shards:
        end = str(rng.choice(["missing", "picked", "empty", "failed", "set aside"], p=[0.2, 0.5, 0.1, 0.1, 0.1]))
        if end != "missing":
            reason = "" if end == "picked" else str(rng.choice(REASONS[1:]))
            rows.append((channel, day, end, reason, float(rng.random()) if end == "picked" else 0.0))
    rows = [rows[i] for i in rng.permutation(len(rows))]
    epochs = [(n, DAYS.start, DAYS.stop) for n in names[:4]]
    epochs += [(names[4], DAYS.start - 9, DAYS.start + 5), (names[4], DAYS.start + 8, DAYS.start + 99)]
    epochs += [(names[6], DAYS.start + 2, DAYS.start + 4)]
    return shards, rows, epochs


def run(world, held=None):
    shards, rows, epochs = world
    plan, ended, stations = plan_of(shards), ended_of(rows), stations_of(epochs)
    how = coverage.standing(plan, ended)
    return plan, ended, how, coverage.coverage(plan, how, stations, DAYS, held)


def expected(world):
    """The fate of each (station, day) by loops: kind, reason, fraction."""
    shards, rows, epochs = world
    result = {(channel, day): (end, reason, fraction) for channel, day, end, reason, fraction in rows}
    rank = ["empty", "failed", "set aside", "missing", "picked"]
    kind_of = {e: e for e in rank}
    fates = {}
    for name, first, stop in epochs:
        for day in DAYS:
            if first <= day < stop:
                fates[name, day] = ("no file", "", 0.0)
    for channel, day in shards:
        mine = result.get((channel, day), ("missing", "", 0.0))
        key = (site(channel), day)
        old = fates.get(key, ("no file", "", 0.0))
        if old[0] == "no file" or (rank.index(mine[0]), mine[2]) >= (rank.index(old[0]), old[2]):
            fates[key] = (kind_of[mine[0]], *mine[1:])
    return fates


def as_dict(grid):
    return {
        (grid.sites[s], grid.first_day + d): (
            KINDS[grid.kind[s, d]],
            grid.reasons[grid.reason[s, d]],
            grid.fraction[s, d],
        )
        for s, d in zip(*np.nonzero(grid.kind), strict=True)
    }


def test_every_station_day_has_the_fate_that_plain_loops_give_it(world):
    _, _, _, grid = run(world)
    found, wanted = as_dict(grid), expected(world)
    assert {key: value[:2] for key, value in found.items()} == {key: value[:2] for key, value in wanted.items()}
    for key, (_, _, fraction) in wanted.items():
        assert found[key][2] == pytest.approx(fraction, rel=1e-6)


def test_gaps_are_all_station_days_without_picks_and_each_once(world):
    _, _, _, grid = run(world)
    gaps = coverage.gaps(grid)
    days = Counter()
    for s, first, last, kind, reason in zip(gaps.site, gaps.first, gaps.last, gaps.kind, gaps.reason, strict=True):
        for day in range(int(first), int(last) + 1):
            days[grid.sites[s], day, KINDS[kind], grid.reasons[reason]] += 1
    lacking = {(*key, *value[:2]) for key, value in expected(world).items() if value[0] != "picked"}
    assert days == Counter(lacking)
    for i in range(len(gaps) - 1):  # none could be one with the next
        same = [a[i] == a[i + 1] for a in (gaps.site, gaps.kind, gaps.reason)]
        assert not (all(same) and gaps.last[i] + 1 == gaps.first[i + 1])


def test_counts_by_station_day_and_reason_agree_with_the_grid(world):
    plan, ended, how, grid = run(world)
    account, breaches = coverage.account(plan, ended, how)
    assert breaches == []
    assert account["planned"] == len(world[0]) == sum(account[end] for end in ENDS)
    assert Counter(row[2] for row in world[1]) == Counter({e: account[e] for e in ENDS[1:] if account[e]})
    found = books.books(plan, how, grid, account, breaches)
    fates = expected(world)
    totals = Counter(kind for kind, _, _ in fates.values())
    assert found["station_days"] == {"all": len(fates), **{kind: totals[kind] for kind in KINDS[1:]}}
    for rows, part in ((found["stations"], 0), (found["days"], 1)):
        for row in rows:
            name = row.get("station") or row["day"]
            mine = [v for key, v in fates.items() if name in (key[0], str(np.datetime64(key[1], "D")))]
            assert row["station_days"] == {"all": len(mine), **{k: [v[0] for v in mine].count(k) for k in KINDS[1:]}}
            assert row["shards"]["planned"] == sum(row["shards"][end] for end in ENDS)
        assert sum(row["shards"]["planned"] for row in rows) == len(world[0]), part
    reasons = Counter((kind, reason) for kind, reason, _ in fates.values() if kind != "picked")
    assert {(r["kind"], r["reason"]): r["station_days"] for r in found["reasons"]} == reasons
    assert found["silent"] == ["XX.S6"]


def test_a_result_that_nobody_planned_and_a_second_one_are_breaches(world):
    shards, rows, epochs = world
    stranger = ("XX.NEW..HH", DAYS[3], "picked", "", 1.0)
    _, breaches = coverage.account(*run((shards, [*rows, stranger], epochs))[:3])
    assert (
        breaches[0] == f"1 shards have a result and are not in the plan, first {np.datetime64(DAYS[3], 'D')}/XX.NEW..HH"
    )
    assert any("XX.NEW: 0 planned, 1 ended, 0 missing" in sentence for sentence in breaches)
    channel, day = next((c, d) for c, d, *_ in rows)
    result = run((shards, [*rows, (channel, day, "failed", "again", 0.0)], epochs))
    how, (_, breaches) = result[2], coverage.account(*result[:3])
    assert breaches[0] == f"1 shards have more than one result, first {np.datetime64(day, 'D')}/{channel}"
    assert len(breaches) == 3
    assert how.reasons[how.reason[shards.index((channel, day))]] == rows[0][3]  # the first counts


def test_held_and_late_shards_are_told_from_missing_ones(world):
    shards, rows, epochs = world
    done = {(c, d) for c, d, *_ in rows}
    there = [name for name, *_ in epochs[:4]]
    at, (channel, day) = next(
        (i, s) for i, s in enumerate(shards) if s not in done and site(s[0]) in there and ".00." not in s[0]
        and not any(site(other[0]) == site(s[0]) and other[1] == s[1] for other in shards if other != s)
    )  # fmt: skip
    held = np.zeros(len(shards), bool)
    held[at] = True
    _, _, _, grid = run(world, held)
    assert as_dict(grid)[site(channel), day][0] == "being picked"
    fates = as_dict(grid)
    picked, broken = (next(key for key, fate in fates.items() if fate[0] == kind) for kind in ("picked", "failed"))
    changed = [picked, broken, ("YY.NEW", DAYS[5]), ("YY.NEW", DAYS[-1] + 50)]
    names, days = [name for name, _ in changed], np.array([day for _, day in changed])
    late = coverage.with_late(grid, names, days, np.array([False, False, True, True]))
    assert as_dict(late)[picked] == fates[picked], "with picks it is no gap, whatever became of its files"
    assert as_dict(late)[broken][:2] == ("late", coverage.CHANGED)
    assert as_dict(late)["YY.NEW", DAYS[5]][:2] == ("late", coverage.NEW)
    assert len(as_dict(late)) == len(as_dict(grid)) + 1
    rest = {key: value for key, value in as_dict(late).items() if value[0] != "late"}
    assert rest.items() <= as_dict(grid).items()


def test_an_epoch_counts_for_each_day_that_it_meets():
    noon = stations_of([("XX.A", 0, 1)])
    half = replace(noon, start_ns=np.array([DAYS.start * DAY_NS + 5]), end_ns=np.array([(DAYS.start + 2) * DAY_NS + 1]))
    there = coverage.operating(half, ["XX.A", "XX.B", "XX.A"], DAYS)
    assert there.tolist() == [[True] * 3 + [False] * 9, [False] * 12, [True] * 3 + [False] * 9]
    exact = replace(half, end_ns=np.array([(DAYS.start + 2) * DAY_NS]))
    assert coverage.operating(exact, ["XX.A"], DAYS)[0].sum() == 2
    open_ = replace(half, start_ns=np.array([-(2**63) + 1]), end_ns=np.array([2**63 - 1]))
    assert coverage.operating(open_, ["XX.A"], DAYS).all()


def test_a_run_without_results_and_one_without_stations():
    shards = [("XX.A..HH", DAYS[0]), ("XX.A..HH", DAYS[2])]
    _, _, how, grid = run((shards, [], [("XX.A", DAYS.start, DAYS.stop)]))
    assert (how.end == coverage.MISSING).all()
    assert Counter(kind for kind, *_ in as_dict(grid).values()) == {"missing": 2, "no file": 10}
    nobody = coverage.coverage(plan_of([]), coverage.standing(plan_of([]), ended_of([])), Stations.empty(), DAYS)
    assert len(coverage.gaps(nobody)) == 0
