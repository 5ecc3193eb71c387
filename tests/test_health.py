"""Station health: counts by hand, faults put into hand-made days, and few false alarms without them."""

import re
from dataclasses import replace

import numpy as np
import pytest

from pipeline.maths import health, health_facts, leave_out
from pipeline.maths.days import day_numbers, day_text
from pipeline.page.rows import health_rows
from pipeline.records import DAY_NS, NS, LocatedArrivals, Outcomes, Picks, Shards, StationHealth, Stations, StationTerms
from pipeline.stages import report
from tests.fabricate import fabricate
from tests.test_compare import table

DAY0 = int(day_numbers(["2024-05-01"])[0])
N = 40  # days


def days_of(seed=0, n=N, stations=("OX.A", "OX.B", "OX.C"), per_day=6, scatter_s=0.12, **changed):
    """Facts of quiet days: each station picks about ``per_day`` events a day and a third as many noises."""
    rng = np.random.default_rng(seed)
    keys = [(day, name) for day in range(n) for name in stations]
    m = len(keys)
    n_p = rng.poisson(per_day, m)
    n_s = rng.binomial(n_p, 0.7)
    medians = [rng.normal(0.05, scatter_s / np.sqrt(np.maximum(1, k))) for k in (n_p, n_s / 2)]
    made = table(
        StationHealth,
        m,
        day=[day_text(DAY0 + day) for day, _ in keys],
        station=[name for _, name in keys],
        hours=np.full(m, 24.0),
        hours_planned=np.full(m, 24.0),
        n_picks=n_p + n_s + rng.poisson(2, m),
        n_in_events=n_p + n_s,
        n_p=n_p,
        median_p_s=np.where(n_p > 0, medians[0], np.nan),
        n_s=n_s,
        median_s_s=np.where(n_s > 0, medians[1], np.nan),
        snr_db=rng.normal(12, 1, m),
        exposed=n_p + 1,
        heard=n_p,
    )
    return replace(made, **changed)


def changed(facts, station, first, **columns):
    """``facts`` with other values of one station from day ``first`` on: numbers, or functions of the old ones."""
    rows = (facts.station == station) & (day_numbers(facts.day) >= DAY0 + first)
    new = {}
    for name, value in columns.items():
        old = getattr(facts, name)
        new[name] = np.where(rows, value(old) if callable(value) else value, old).astype(old.dtype)
    return replace(facts, **new)


def judged(facts, before=None):
    return health.judge(facts, StationHealth.empty() if before is None else before, 60)


def alarms(table_, station, first=0):
    rows = (table_.station == station) & (day_numbers(table_.day) >= DAY0 + first) & (table_.status != "ok")
    return list(zip(table_.day[rows].tolist(), table_.status[rows].tolist(), table_.reason[rows].tolist(), strict=True))


def first_day(first):
    return day_text(DAY0 + first)


# ---------------------------------------------------------------------------------------- faults

BUSY = {"n_p": 6, "n_s": 5, "median_p_s": 0.05, "median_s_s": 0.05}


def test_quiet_days_are_ok():
    found = [judged(days_of(seed, per_day=per_day)) for seed in range(6) for per_day in (1, 6)]
    n = sum(len(each) for each in found)
    assert sum(int(np.count_nonzero(each.status != "ok")) for each in found) <= 0.002 * n
    assert all(np.isnan(each.clock_s).mean() > 0.999 for each in found)


@pytest.mark.parametrize("shift_s", [-0.8, 0.8])
def test_a_late_clock_is_found_on_its_first_day(shift_s):
    facts = changed(days_of(), "OX.B", 30, **BUSY)
    facts = changed(facts, "OX.B", 30, median_p_s=lambda old: old + shift_s, median_s_s=lambda old: old + shift_s)
    found = judged(facts)
    day, status, reason = alarms(found, "OX.B")[0]
    assert (day, status) == (first_day(30), "bad")
    assert reason.startswith("P and S 0.")
    assert ("late" in reason) == (shift_s > 0)
    late = found.clock_s[(found.station == "OX.B") & (found.day == day)][0]
    assert late == pytest.approx(shift_s, abs=0.15)
    assert alarms(found, "OX.A") == alarms(found, "OX.C") == []


def test_one_phase_alone_is_no_clock():
    found = judged(changed(days_of(), "OX.B", 30, **BUSY | {"median_s_s": 0.85}))
    day, status, reason = alarms(found, "OX.B")[0]
    assert (day, status, reason[:2]) == (first_day(30), "bad", "S ")
    assert np.isnan(found.clock_s).all()
    none = judged(changed(days_of(), "OX.B", 30, median_p_s=lambda old: old + 0.8, n_s=0, median_s_s=np.nan))
    assert "too few S picks to tell if it is the clock" in alarms(none, "OX.B", 30)[0][2]


def test_few_picks_a_day_are_joined():
    """One pick a day: four days make enough."""
    sparse = days_of(per_day=1.2)
    found = judged(changed(sparse, "OX.B", 30, median_p_s=lambda old: old + 1.0))
    day = alarms(found, "OX.B", 30)[0][0]
    assert first_day(30) < day <= first_day(36)


def test_without_days_of_its_own_a_station_is_not_judged():
    late = changed(days_of(), "OX.B", 0, median_p_s=lambda old: old + 0.8)
    assert alarms(judged(late), "OX.B") == []


def test_a_station_of_which_nothing_is_known_is_not_called_well():
    """Picks were imported: without picks, and with no event near it, a day says nothing."""
    silent = dict.fromkeys(("n_picks", "n_in_events", "n_p", "n_s", "heard", "exposed"), 0)
    unknown = {"hours": np.nan, "hours_planned": np.nan}
    found = judged(changed(days_of(**{k: np.full(3 * N, v) for k, v in unknown.items()}), "OX.B", 30, **silent))
    last = found.take(found.day == first_day(30))
    assert (last.status.tolist(), last.reason.tolist()) == (["ok", "", "ok"], ["", "", ""])
    planned = judged(changed(days_of(), "OX.B", 30, **silent))
    assert planned.take(planned.day == first_day(30)).status.tolist() == ["ok"] * 3


@pytest.mark.parametrize(("noises", "what"), [(0, "no pick for 1 day;"), (3, "no pick of an event for 1 day;")])
def test_a_deaf_station_is_found_if_its_neighbours_have_events(noises, what):
    silent = dict.fromkeys(("n_in_events", "n_p", "n_s", "heard"), 0)
    facts = changed(days_of(), "OX.B", 30, n_picks=noises, exposed=6, **silent)
    day, status, reason = alarms(judged(facts), "OX.B")[0]
    assert (day, status) == (first_day(30), "bad")
    assert reason.startswith(what)
    quiet = changed(facts, "OX.B", 30, exposed=0)
    assert alarms(judged(quiet), "OX.B") == []
    away = changed(facts, "OX.B", 30, hours=0.0)
    assert alarms(judged(away), "OX.B")[0][2] == "no data in 24 hours"


def test_noise_is_found_but_not_in_a_storm():
    found = judged(changed(days_of(), "OX.B", 30, n_picks=lambda old: old + 60))
    assert alarms(found, "OX.B")[0][:2] == (first_day(30), "bad")
    assert re.match(r"6\d picks of no event a day, where [23] are usual", alarms(found, "OX.B")[0][2])
    everywhere = days_of()
    for name in ("OX.A", "OX.B", "OX.C"):
        everywhere = changed(everywhere, name, 30, n_picks=lambda old: old + 60)
    assert [alarms(judged(everywhere), name) for name in ("OX.A", "OX.B", "OX.C")] == [[], [], []]


def test_weak_signals_and_missing_hours_and_few_picks_are_found():
    weak = judged(changed(days_of(), "OX.B", 30, snr_db=lambda old: old - 9))
    assert "dB less out of the noise" in alarms(weak, "OX.B")[0][2]
    half = judged(changed(days_of(), "OX.B", 30, hours=7.5))
    assert alarms(half, "OX.B")[0] == (first_day(30), "watch", "7.5 of 24 hours of data")
    busy = days_of(per_day=40, exposed=np.zeros(3 * N, np.int64))
    few = judged(changed(busy, "OX.B", 30, n_picks=0, n_in_events=0, n_p=0, n_s=0))
    assert alarms(few, "OX.B")[0][:2] == (first_day(30), "bad")


def test_night_by_night_is_as_all_at_once():
    facts = changed(days_of(per_day=2), "OX.B", 30, median_p_s=lambda old: old + 0.7, n_picks=lambda old: old + 40)
    whole, before = judged(facts), StationHealth.empty()
    for day in range(N):
        one = judged(facts.take(facts.day == first_day(day)), before)
        before = StationHealth.concat([before, one])
    for name, values in whole.as_dict().items():
        np.testing.assert_array_equal(values, getattr(before, name), name)


def test_days_that_come_again_do_not_count_twice():
    facts = days_of()
    assert judged(facts, judged(facts)).as_dict().keys() == judged(facts).as_dict().keys()
    np.testing.assert_array_equal(judged(facts, judged(facts)).reason, judged(facts).reason)
    assert len(judged(StationHealth.empty())) == 0


# ---------------------------------------------------------------------------------------- facts


def sites(*places):
    """Stations "OX.A", "OX.B", ... at latitudes, all on one meridian."""
    n = len(places)
    return Stations(
        np.array([f"OX.{chr(65 + i)}" for i in range(n)]),
        np.array(places, float),
        np.full(n, 12.0),
        np.zeros(n),
        np.zeros(n, np.int64),
        np.full(n, 4_000_000_000 * NS),
    )


def arrivals(rows):
    """From (event, station, phase, seconds after the first day, residual)."""
    return table(
        LocatedArrivals,
        len(rows),
        event=[r[0] for r in rows],
        station=[f"{r[1]}..HH" for r in rows],
        phase=[r[2] for r in rows],
        time_ns=[DAY0 * DAY_NS + int(r[3] * NS) for r in rows],
        residual_s=[r[4] for r in rows],
    )


def test_what_station_terms_took_is_put_back():
    terms = table(StationTerms, 2, station=["OX.A", "OX.A"], phase=["P", "S"], term_s=[0.5, 0.9])
    found = health_facts.seen(
        arrivals([("e", "OX.A", "P", 1, 0.1), ("e", "OX.A", "S", 2, -0.1), ("e", "OX.B", "P", 3, 0.2)]), terms, 1.73
    )
    assert found.residual_s.tolist() == pytest.approx([0.6, 0.8, 0.2])


def test_a_station_is_asked_for_the_events_that_most_of_its_neighbours_have():
    seen = health_facts.seen(
        arrivals([(f"e{k}", name, "P", 1000 * k, 0.0) for k, heard in enumerate(HEARD) for name in heard]),
        StationTerms.empty(),
        1.73,
    )
    places = sites(46.0, 46.1, 46.2, 46.3, 46.4, 46.5, 49.0)
    exposed, heard = health_facts.exposure(seen, places)
    day = day_text(DAY0)
    assert exposed["OX.A", day] == 2  # of e0 and e2: of e1 only B and C of its neighbours B to F
    assert heard["OX.A", day] == 1
    assert exposed["OX.D", day] == 3
    names = np.array(["OX.A", "OX.B", "OX.G", "OX.NOWHERE"])
    assert [rows.tolist() for rows in health_facts.neighbours(names, places)] == [[1, 2], [0, 2], [1, 0], []]


HEARD = (
    ("OX.A", "OX.B", "OX.C", "OX.D"),
    ("OX.A", "OX.B", "OX.C"),
    ("OX.B", "OX.C", "OX.D", "OX.E", "OX.F"),
    ("OX.G",),
)


def test_hours_and_counts_are_of_the_best_channel_and_all_picks():
    shards = Shards(
        np.array([day_text(DAY0)] * 3 + [day_text(DAY0 + 1)]),
        np.array(["OX.A.", "OX.A.", "OX.B.", "OX.A."]),
        np.array(["EH", "HH", "HH", "HH"]),
        np.ones(4, np.int64),
    )
    ended = table(Outcomes, 2, shard=[shards.shard(1).id, shards.shard(3).id], valid_fraction=[0.5, 1.0])
    span_ns = DAY0 * DAY_NS, DAY0 * DAY_NS + DAY_NS * 5 // 4
    hours = health_facts.hours(shards, ended, span_ns)
    days = day_text(DAY0), day_text(DAY0 + 1)
    assert hours == {("OX.A", days[0]): (12, 24), ("OX.B", days[0]): (0, 24), ("OX.A", days[1]): (6, 6)}
    picks = table(
        Picks,
        3,
        station=["OX.A..HH"] * 3,
        phase=["P", "S", "P"],
        time_ns=DAY0 * DAY_NS + np.arange(3),
        probability=np.ones(3),
        snr_db=[9, 3, 4],
    )
    found = health_facts.facts(
        picks,
        health_facts.seen(
            arrivals([("e", "OX.A", "P", 0, 0.1), ("e", "OX.A", "P", 1, 0.3)]), StationTerms.empty(), 1.73
        ),
        sites(46.0, 46.1),
        hours,
        range(DAY0, DAY0 + 2),
        {"OX.C"},
    )
    assert list(zip(found.day.tolist(), found.station.tolist(), strict=True)) == [
        (day, f"OX.{name}") for day in days for name in "ABC"
    ]
    assert found.hours.tolist() == [12, 0, 0, 6, 0, 0]
    assert found.hours_planned.tolist() == [24, 24, 24, 6, 6, 6]  # of a known station without a shard, too
    assert found.n_picks.tolist() == [3, 0, 0, 0, 0, 0]
    assert (found.n_in_events[0], found.n_p[0], found.n_s[0], found.snr_db[0]) == (2, 2, 0, 4)
    assert found.median_p_s[0] == pytest.approx(0.2)
    assert np.isnan(found.median_s_s).all()


def test_the_page_has_one_row_a_station_the_worst_first(tmp_path):
    run_dir, config = fabricate(tmp_path, n_events=5)
    inputs = report.read(run_dir, config)
    assert health_rows(inputs) == []
    facts = changed(days_of(), "OX.B", N - 1, median_p_s=lambda old: old + 0.8, median_s_s=lambda old: old + 0.8)
    rows = health_rows(replace(inputs, health=judged(facts)))
    assert [row["station"] for row in rows] == ["OX.B", "OX.A", "OX.C"]
    assert [(row["status"], row["n_ill"], row["n_days"]) for row in rows] == [("bad", 1, N), ("ok", 0, N), ("ok", 0, N)]
    assert np.isnan(rows[1]["clock_s"])


# ---------------------------------------------------------------------------------------- without the station itself


def test_a_residual_without_the_station_is_that_of_an_event_located_without_it():
    """Against least squares solved again for each station, its rows left out."""
    rng = np.random.default_rng(4)
    site = np.array([0, 0, 1, 2, 2, 3, 4, 5, 6, 0, 1, 2, 3])
    event = np.array([0] * 9 + [1] * 4)
    n = len(site)
    found = table(
        LocatedArrivals,
        n,
        event=[f"e{k}" for k in event],
        station=[f"OX.{k}..HH" for k in site],
        phase=np.where((np.arange(n) % 3) == 1, "S", "P"),
        sigma_s=rng.uniform(0.05, 0.3, n),
        weight=rng.uniform(0.2, 1, n),
        residual_s=rng.normal(0, 0.3, n),
        azimuth_deg=rng.uniform(0, 360, n),
        takeoff_deg=rng.uniform(20, 150, n),
    )
    ours = leave_out.residuals(found, event, site, 1.8)
    azimuth, takeoff = np.radians(found.azimuth_deg), np.radians(found.takeoff_deg)
    ray = np.stack([np.sin(takeoff) * np.sin(azimuth), np.sin(takeoff) * np.cos(azimuth), np.cos(takeoff)])
    a = np.vstack([np.ones(n), -np.where(found.phase == "S", 1.8, 1.0) * ray]).T
    w = np.sqrt(found.weight) / found.sigma_s
    known = 0
    for k in range(7):
        out, rest = (event == 0) & (site == k), (event == 0) & (site != k)
        solved = np.linalg.lstsq(a[rest] * w[rest, None], found.residual_s[rest] * w[rest], rcond=None)[0]
        wanted = found.residual_s[out] - a[out] @ solved
        there = np.isfinite(ours[out])
        known += there.sum()
        np.testing.assert_allclose(ours[out][there], wanted[there], atol=1e-9)
    assert known >= 5
    assert np.isnan(ours[event == 1]).all(), "four picks and four unknowns: nothing is left to say of one of them"


def test_without_directions_residuals_are_as_they_are():
    found = arrivals([("e", "OX.A", "P", 1, 0.1), ("e", "OX.B", "P", 2, 0.4)])
    assert leave_out.residuals(found, np.array([0, 0]), np.array([0, 1]), 1.7).tolist() == [0.1, 0.4]
