"""The scores of associators on answers whose figures can be counted by hand, and on OGS's own second solution."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.models.associators.observed import Earthquake
from pipeline.records import NS
from tests.association_cases import ogs, ogs_ceiling, ogs_reference, synthetic
from tests.association_scores import NOT_KNOWN, Places, agreement, by_picks, by_place, event_of_pick
from tests.synthetic_picks import Scenario, make

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="no shared data: the scores of real cases are not checked")
CENTRE = (46.0, 12.0)
TEN = np.repeat([0, 1, 2, -1], 10)  # three events of ten picks each, and ten false picks


def quake(picks, time_s=0.0, x=0.0, y=0.0, z=10.0):
    picks = np.array(picks, np.int64)
    return Earthquake(round(time_s * NS), x, y, z, 1.0, picks, np.ones(len(picks)), np.zeros(len(picks)))


def true_events(n=3):
    """Events 100 s and 50 km apart."""
    return Places(np.arange(n) * 100 * NS, 50.0 * np.arange(n), np.zeros(n), np.full(n, 10.0))


def test_the_truth_has_full_marks():
    observed, _, truth = make(Scenario(n_events=200))
    places = Places(truth.time_ns, truth.x_km, truth.y_km, truth.z_km)
    found = [
        quake(np.flatnonzero(truth.event == i), truth.time_ns[i] / NS, truth.x_km[i], truth.y_km[i], truth.z_km[i])
        for i in range(200)
    ]
    for scores in (by_picks(found, truth.event, places), by_place(found, truth.event, places, CENTRE, (2, 8))):
        figures = scores.as_dict()
        for name in ("recall", "precision", "f1", "pick_recall", "pick_precision"):
            assert figures[name] == 1.0
        assert figures["km_95"] == pytest.approx(0, abs=1e-9)
    assert synthetic(Scenario(n_events=200)).score(found)["f1"] == 1.0
    assert len(observed) == len(truth.event)


def test_six_picks_of_ten_are_the_same_event_and_five_are_not():
    found = [quake(range(6)), quake(range(10, 15)), quake([*range(20, 30), *range(30, 37)])]
    scores = by_picks(found, TEN, true_events())
    assert scores.pairs.tolist() == [[0, 0]]  # 6 of 10; 5 of 10; 10 of 17
    assert (scores.recall, scores.precision) == (1 / 3, 1 / 3)
    assert scores.pick_recall == 6 / 30
    assert scores.pick_precision == 6 / (6 + 5 + 17)
    scores = by_picks([quake([*range(20, 30), *range(30, 36)])], TEN, true_events())
    assert scores.pairs.tolist() == [[0, 2]]  # 10 of 16
    assert scores.pick_precision == 10 / 16
    assert scores.f1 == 2 / 4


def test_an_event_in_two_halves_is_missed_twice_and_swapped_picks_are_wrong():
    halves = [quake(range(5)), quake(range(5, 10))]
    scores = by_picks(halves, TEN, true_events())
    assert (len(scores.pairs), scores.recall, scores.precision) == (0, 0, 0)
    assert np.isnan(scores.as_dict()["median_km"])
    swapped = [quake([*range(8), 18, 19]), quake([*range(10, 18), 8, 9])]
    scores = by_picks(swapped, TEN, true_events())
    assert (scores.recall, scores.precision) == (2 / 3, 1)
    assert scores.pick_recall == 16 / 30
    assert scores.pick_precision == 16 / 20


def test_places_and_times_decide_by_place_whatever_the_picks():
    truth = true_events()
    found = [quake(range(10), 1.9, 7.0), quake(range(10, 20), 102.1, 50.0), quake(range(20, 30), 200.0, 108.5)]
    scores = by_place(found, TEN, truth, CENTRE, (2.0, 8.0))
    assert scores.pairs.tolist() == [[0, 0]]
    assert scores.km == pytest.approx([7.0])
    assert scores.dt_s == pytest.approx([1.9])
    assert (scores.pick_recall, scores.pick_precision) == (10 / 30, 10 / 30)
    assert by_place(found, TEN, truth, CENTRE, (3.0, 15.0)).recall == 1
    assert scores.recall_of(np.array([True, False, False])) == 1
    assert scores.recall_of(np.array([False, True, True])) == 0


def test_of_two_events_at_one_place_one_is_a_false_one():
    found = [quake(range(5), 0.5), quake(range(5, 10), 0.1)]
    scores = by_place(found, TEN, true_events(), CENTRE, (2.0, 8.0))
    assert scores.pairs.tolist() == [[1, 0]]
    assert (scores.precision, scores.recall) == (1 / 2, 1 / 3)
    assert (scores.pick_recall, scores.pick_precision) == (5 / 30, 5 / 10)


def test_picks_that_no_one_can_judge_are_not_counted():
    event = np.where(TEN == -1, NOT_KNOWN, TEN)
    scores = by_place([quake([*range(10), 30, 31])], event, true_events(), CENTRE, (2.0, 8.0))
    assert scores.pick_precision == 1
    assert scores.pick_recall == 10 / 30


def test_a_pick_in_two_events_is_refused():
    with pytest.raises(ValueError, match="event 1 has picks that"):
        event_of_pick([quake([1, 2]), quake([2, 3])], 5)
    with pytest.raises(ValueError, match="event 0 has picks that"):
        event_of_pick([quake([2, 2])], 5)


def test_nothing_found_and_nothing_true():
    nothing = by_picks([], TEN, true_events())
    assert (nothing.recall, nothing.f1, nothing.pick_recall) == (0, 0, 0)
    assert np.isnan(nothing.precision)
    assert by_picks([quake([30, 31])], TEN, true_events(0)).precision == 0


def test_agreement_is_the_share_that_any_other_has():
    three, none = true_events(), np.full(4, -1)
    first, last = (Places(*(v[rows] for v in vars(three).values())) for rows in (slice(0, 1), slice(2, 3)))
    assert agreement((three, none), [(first, none)], CENTRE, (3, 15)) == pytest.approx(1 / 3)
    assert agreement((three, none), [(first, none), (last, none)], CENTRE, (3, 15)) == pytest.approx(2 / 3)
    assert agreement((first, none), [(three, none)], CENTRE, (3, 15)) == 1
    like, unlike = np.array([1, 1, 1, 0]), np.array([1, 1, 0, 0])
    here, away = true_events(2), Places(*(v[:2] + 10**12 for v in vars(three).values()))
    assert agreement((here, like), [(away, np.array([0, 0, 0, 1]))], CENTRE, (3, 15)) == 1
    assert agreement((here, like), [(away, unlike)], CENTRE, (3, 15)) == 1 / 2


@needs_data
def test_the_agency_s_two_solutions_of_the_study_window_agree_as_is_known():
    figures = ogs_ceiling()
    assert figures["recall"] == pytest.approx(0.981, abs=0.001)
    assert figures["recall_eligible"] == pytest.approx(0.983, abs=0.001)
    case = ogs()
    reference = ogs_reference("onlyEQ-2024.hpl", case.region.settings)
    assert (len(case.observed), len(reference.events), reference.eligible.sum()) == (7146, 427, 411)
    assert (case.observed.phase == "P").sum() == 4137


@needs_data
def test_false_picks_are_added_and_no_true_one_is_lost():
    clean, noisy = ogs(), ogs(5, seed=1)
    assert len(noisy.observed) == 7146 + 109 * 93 * 5
    assert keys(clean) <= keys(noisy)
    events = ogs_reference("onlyEQ-2024.hpl", noisy.region.settings).events
    event = noisy.score.args[0]
    found = [
        quake(np.flatnonzero(event == i), events.time_ns[i] / NS, events.x_km[i], events.y_km[i]) for i in range(427)
    ]
    figures = noisy.score(found)
    for name in ("recall", "recall_eligible", "precision", "precision_listed", "pick_recall", "pick_precision"):
        assert figures[name] == 1
    lacking = quake(np.flatnonzero(event == NOT_KNOWN)[:16], 1e9)
    figures = noisy.score([*found, lacking])
    assert (figures["not_listed"], figures["precision"], figures["precision_listed"]) == (1, 427 / 428, 1)


def keys(case):
    o = case.observed
    return set(zip(o.station.tolist(), o.phase.tolist(), o.time_ns.tolist(), strict=True))
