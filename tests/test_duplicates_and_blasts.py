"""Events that repeat others, and those that may be quarry blasts: a flag, never a deletion."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from pipeline.config.quality import Quality
from pipeline.formats import bulletins
from pipeline.maths.blasts import Custom, blast_scores, local_time, working
from pipeline.maths.duplicates import duplicates
from pipeline.records import DAY_NS, NS, Origins

DATA = Path(__file__).parents[2] / "shared" / "data"
ROME = Custom(zone="Europe/Rome")


def events(seconds, latitude=46.0, longitude=13.0, depth_km=8.0) -> Origins:
    n = len(seconds)
    full = [np.broadcast_to(np.asarray(v, np.float64), n).copy() for v in (latitude, longitude, depth_km)]
    return Origins(np.array([f"e{i}" for i in range(n)]), (np.array(seconds) * NS).astype(np.int64), *full)


def heard(*names: str) -> list[frozenset[str]]:
    return [frozenset(name) for name in names]


def test_the_poorer_of_two_is_the_duplicate():
    found = duplicates(events([0, 1.5]), heard("ABCD", "ABE"), np.array([0.9, 0.8]), (3, 15, 0.5))
    assert found.tolist() == ["", "e0"]
    found = duplicates(events([0, 1.5]), heard("ABCD", "ABE"), np.array([0.7, 0.8]), (3, 15, 0.5))
    assert found.tolist() == ["e1", ""]


@pytest.mark.parametrize(
    ("seconds", "latitude", "stations"),
    [([0, 3.5], 46.0, ("ABC", "ABC")), ([0, 1], [46.0, 46.2], ("ABC", "ABC")), ([0, 1], 46.0, ("ABC", "CDE"))],
)
def test_too_late_too_far_or_elsewhere_is_another_event(seconds, latitude, stations):
    found = duplicates(events(seconds, latitude), heard(*stations), np.ones(2), (3, 15, 0.5))
    assert found.tolist() == ["", ""]


def test_of_three_the_best_keeps_both_and_a_duplicate_has_none():
    """c is near b alone, and b repeats a: c stays."""
    found = duplicates(events([0, 2, 4]), heard("ABC", "ABC", "ABC"), np.array([0.9, 0.8, 0.7]), (3, 15, 0.5))
    assert found.tolist() == ["", "e0", ""]
    found = duplicates(events([0, 1, 2]), heard("ABC", "ABC", "ABC"), np.array([0.8, 0.9, 0.7]), (3, 15, 0.5))
    assert found.tolist() == ["e1", "", "e1"]


def test_duplicates_do_not_depend_on_the_order():
    rng = np.random.default_rng(1)
    all_ = events(np.sort(rng.uniform(0, 200, 100)), 46 + 0.05 * rng.random(100))
    stations = ["".join(sorted(rng.choice(list("ABCDEFGH"), 5, replace=False))) for _ in range(100)]
    value, order = rng.random(100).round(1), rng.permutation(100)
    found = duplicates(all_, heard(*stations), value, (3, 15, 0.5))
    mixed = duplicates(all_.take(order), heard(*[stations[i] for i in order]), value[order], (3, 15, 0.5))
    assert (found[order] == mixed).all()
    assert 0 < (found != "").sum() < 100
    assert not set(found[found != ""]) & set(all_.id[found != ""])
    assert len(duplicates(Origins.empty(), [], np.empty(0), (3, 15, 0.5))) == 0


def test_local_time_is_that_of_the_clock_through_both_changes_of_2024():
    zone = ZoneInfo("Europe/Rome")
    times = [datetime(2024, 3, 30, 12, 30, tzinfo=zone) + timedelta(hours=7 * k) for k in range(0, 1300)]
    ns = np.array([int(t.timestamp()) for t in times], np.int64) * NS
    true = [datetime.fromtimestamp(t // NS, zone) for t in ns.tolist()]
    hour, day = local_time(ns, np.zeros(len(ns)), "Europe/Rome")
    np.testing.assert_allclose(hour, [t.hour + t.minute / 60 for t in true], atol=1e-6)
    assert day.tolist() == [(t.date() - date(1970, 1, 1)).days for t in true]
    sun, _ = local_time(np.array([0]), np.array([15.0]), "")
    assert sun[0] == pytest.approx(1.0)


def quarry(rng, n, share_at_work=1.0):
    """Seconds of n events on weekdays of 2024, 9 to 16 h in Rome, or at any time."""
    out = []
    while len(out) < n:
        t = datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Rome")) + timedelta(days=int(rng.integers(170)))
        if rng.random() >= share_at_work:
            out.append((t + timedelta(hours=float(rng.uniform(0, 24)))).timestamp())
        elif t.weekday() < 5:
            out.append((t + timedelta(hours=float(rng.uniform(9, 16)))).timestamp())
    return np.array(out)


def test_shallow_events_of_working_hours_at_one_place_are_blasts_and_a_swarm_is_none():
    rng = np.random.default_rng(2)
    seconds = np.concatenate([quarry(rng, 12), quarry(rng, 12, 0.0)])
    latitude = np.repeat([46.0, 46.5], 12)
    score = blast_scores(events(seconds, latitude, depth_km=np.repeat([0.5, 8.0], 12)), ROME)
    assert (score[:12] > 0.5).all()
    assert (score[12:] < 0.1).all()
    assert len(blast_scores(Origins.empty(), ROME)) == 0


NOON = datetime(2024, 5, 6, 12, tzinfo=ZoneInfo("Europe/Rome")).timestamp()


def test_one_shallow_event_at_noon_alone_is_not_enough():
    week = NOON + 86400 * np.arange(8)
    assert blast_scores(events(week, latitude=45 + 0.1 * np.arange(8), depth_km=0.5), ROME)[0] < 0.5


def test_an_afternoon_of_aftershocks_is_no_quarry():
    """Alone nothing can be said, and among the events of three months at other places it is one day."""
    after = NOON + np.sort(np.random.default_rng(4).uniform(0, 6 * 3600, 100))
    assert np.isnan(blast_scores(events(after, depth_km=2.0), ROME)).all()
    other = NOON + 86400 * np.arange(-45, 45)
    latitude = np.concatenate([np.full(100, 46.0), np.linspace(40, 45, 90)])
    assert (blast_scores(events(np.concatenate([after, other]), latitude, depth_km=2.0), ROME) < 0.5).all()


def test_a_sequence_of_days_counts_each_day_by_its_hours():
    """Noon and midnight of eight days: half of each day is in working hours, which is no quarry; noon alone is one."""
    noon = NOON + 86400 * np.arange(0, 12, 7 / 5).round()
    noon = noon[[datetime.fromtimestamp(t, ZoneInfo("Europe/Rome")).weekday() < 5 for t in noon]]
    both = np.sort(np.concatenate([noon, noon + 12 * 3600]))
    assert (blast_scores(events(noon, depth_km=0.5), ROME) > 0.9).all()
    assert (blast_scores(events(both, depth_km=0.5), ROME) < 0.5).all()


def test_near_a_known_quarry_one_night_is_enough_and_elsewhere_it_says_nothing():
    known = replace(ROME, quarries=((46.0, 13.0),))
    night = NOON + 12 * 3600
    found = blast_scores(events([NOON, NOON, night], [46.02, 46.2, 46.02], depth_km=1.0), known)
    assert found[0] > 0.9
    assert np.isnan(found[1])
    assert found[2] < found[0] - 0.2
    assert blast_scores(events([NOON], 46.02, depth_km=9.0), known)[0] < 0.1


def test_working_hours_that_are_all_hours_tell_nothing_bad():
    always = Custom(hours=(0.0, 24.0), days=(0, 1, 2, 3, 4, 5, 6))
    assert np.isfinite(blast_scores(events(NOON + 86400 * np.arange(9)), always)).all()


def test_each_hint_counts():
    rng = np.random.default_rng(3)
    seconds = quarry(rng, 8)
    base = blast_scores(events(seconds, depth_km=0.5), ROME)[0]
    assert blast_scores(events(seconds, depth_km=np.array([9.0] + 7 * [0.5])), ROME)[0] < base
    by_night = seconds.copy()
    by_night[0] += 12 * 3600
    assert blast_scores(events(by_night, depth_km=0.5), ROME)[0] < base
    assert blast_scores(events(seconds, latitude=np.array([46.0] + 7 * [46.5]), depth_km=0.5), ROME)[0] < base


@pytest.mark.skipif(not DATA.exists(), reason="no OGS bulletin: earthquakes of analysts are not tried as blasts")
def test_earthquakes_of_analysts_are_not_called_blasts():
    """All 792 are earthquakes by their word; 13 lie where, and when, and as shallow as blasts would."""
    listed = bulletins.read_txt(DATA / "ogs" / "RSFVG-2024.txt").events
    assert set(listed.kind.tolist()) == {"earthquake"}
    at = working(listed.time_ns, listed.longitude_deg, ROME)
    assert 0.2 < at.mean() < 0.5  # a third of all time is working hours
    assert (blast_scores(listed, ROME) >= Quality().blast_score).mean() < 0.03


@pytest.mark.parametrize(
    "wrong",
    [
        {"time_zone": "Middle/Earth"},
        {"working_hours": (18, 7)},
        {"working_days": (0, 7)},
        {"working_days": (1, 1)},
        {"quarries": [(146, 13)]},
    ],
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)) if "zone" not in next(iter(wrong)) else "no time zone"):
        Quality(**wrong)


def test_a_day_is_a_day():
    _, day = local_time(np.arange(8) * DAY_NS, np.zeros(8), "")
    assert day.tolist() == list(range(8))
    monday = working(np.arange(8) * DAY_NS + DAY_NS // 2, np.zeros(8), Custom(days=(0,)))  # 1 January was a Thursday
    assert monday.tolist() == [False, False, False, False, True, False, False, False]
