"""One reason for each missed event: what decides, in which order, from arrivals made up by hand."""

import numpy as np
import pytest

from pipeline.maths import reasons
from pipeline.maths.reasons import NOBODY, Expected, Facts, Near, Rules, decide, lack
from pipeline.models.associators import rules as associators
from pipeline.models.associators.observed import Observed
from tests.test_compare import settings as configured
from tests.test_compare import table

RULES = Rules(min_picks=5, min_p_picks=3, min_s_picks=2, min_stations=3, min_pairs=0)
OTHER = Near("ours", 9.0, 30.0, "another", 12)
STRAY = Near("ours", 9.0, 30.0, "", 8)


def arrivals(n, picked=None, state=reasons.SCORED, event="", predicted=False):
    """P and S at ``n`` stations; the first ``picked`` of the rows have a pick, of ``event``."""
    rows = 2 * n
    picked = rows if picked is None else picked
    states = [state] * rows if isinstance(state, str) else [s for s in state for _ in "PS"]
    events = [event] * rows if isinstance(event, str) else event
    phase = ["P", "S"] * n
    return table(
        Expected,
        rows,
        station=[f"AA.S{i // 2:02}" for i in range(rows)],
        phase=phase,
        state=states,
        predicted=[predicted] * rows,
        our_phase=[p if i < picked else "" for i, p in enumerate(phase)],
        our_event=[e if i < picked else "" for i, e in enumerate(events)],
    )


def facts(outside="", near=NOBODY, far=NOBODY, holders=()):
    return Facts(outside, near, far, {each.id: each for each in holders}, "2 s and 8 km")


CASES = [
    (arrivals(8), facts(outside="too far"), reasons.OUTSIDE, ""),
    (arrivals(8), facts(near=OTHER), reasons.MERGED, ""),
    (arrivals(8), facts(far=STRAY), reasons.TOLERANCE, ""),
    (arrivals(8, 10, event="ours"), facts(holders=[STRAY]), reasons.TOLERANCE, ""),
    (arrivals(2), facts(), reasons.FEW, "min_picks"),  # of the reference itself
    (arrivals(8, 6, state=reasons.IMPORTED).take([0, 2, 4, 6, 8, 9]), facts(), reasons.FEW, "min_s_picks"),
    (arrivals(8, 0, [reasons.SCORED] * 2 + [reasons.NO_SHARD] * 6), facts(), reasons.NO_DATA, "min_picks"),
    (arrivals(8, 0, [reasons.SCORED] * 2 + [reasons.GAP] * 6), facts(), reasons.NO_DATA, "min_picks"),
    (arrivals(8, 0, [reasons.SCORED] * 2 + [reasons.FAILED] * 6), facts(), reasons.NOT_SCORED, "min_picks"),
    (arrivals(8, 3), facts(), reasons.NOT_PICKED, "min_picks"),
    (arrivals(8, 0, predicted=True), facts(), reasons.NOT_PICKED, "min_picks"),
    (arrivals(8, 12, event="ours"), facts(holders=[OTHER]), reasons.GIVEN, "min_picks"),
    (arrivals(8, 12), facts(), reasons.UNKNOWN, ""),
]


@pytest.mark.parametrize(("seen", "known", "reason", "rule"), CASES)
def test_each_reason_is_found(seen, known, reason, rule):
    found = decide(seen, known, RULES)
    assert (found.reason, found.rule) == (reason, rule)
    assert found.reason in reasons.REASONS
    assert found.detail


def test_what_is_known_of_the_event_comes_before_its_arrivals():
    seen = arrivals(2)  # too few in any case
    everything = facts("outside", OTHER, STRAY)
    assert decide(seen, everything, RULES).reason == reasons.OUTSIDE
    assert decide(seen, everything._replace(outside=""), RULES).reason == reasons.MERGED
    assert decide(seen, everything._replace(outside="", near=NOBODY), RULES).reason == reasons.TOLERANCE
    assert decide(seen, facts(), RULES).reason == reasons.FEW


def test_the_first_step_that_leaves_too_few_is_the_reason():
    """Half of the stations have no data, and nothing was picked: the data would have sufficed."""
    seen = arrivals(8, 0, [reasons.SCORED] * 4 + [reasons.EMPTY] * 4)
    assert decide(seen, facts(), RULES).reason == reasons.NOT_PICKED
    fewer = arrivals(8, 0, [reasons.SCORED] * 2 + [reasons.EMPTY] * 6)
    assert decide(fewer, facts(), RULES).reason == reasons.NO_DATA


def test_picks_that_could_be_placed_are_too_few_for_the_rules_and_others_are_not_picked():
    strict = RULES._replace(min_picks=10)
    assert decide(arrivals(8, 6), facts(), strict).reason == reasons.FEW  # six at three stations
    assert decide(arrivals(8, 5), facts(), strict).reason == reasons.FEW  # five at three
    assert decide(arrivals(8, 4), facts(), strict).reason == reasons.NOT_PICKED  # four at two
    assert "min_picks 6 of 10" in decide(arrivals(8, 6), facts(), strict).detail


def test_an_event_of_ours_is_the_missed_one_only_with_half_of_the_picks_of_both():
    half, less = arrivals(8, 8, event="ours"), arrivals(8, event=["ours"] * 3 + [""] * 13)
    assert decide(half, facts(holders=[STRAY]), RULES).reason == reasons.TOLERANCE
    assert decide(half, facts(holders=[STRAY._replace(n_picks=17)]), RULES).reason == reasons.GIVEN
    assert decide(half, facts(holders=[STRAY._replace(partner="theirs")]), RULES).reason == reasons.GIVEN
    assert decide(less, facts(holders=[STRAY]), RULES).reason == reasons.UNKNOWN


def test_a_pick_counts_as_the_phase_that_we_called_it():
    seen = arrivals(8, 16)
    as_p = np.full(len(seen), "P")
    found = decide(table(Expected, len(seen), **{**seen.as_dict(), "our_phase": as_p}), facts(), RULES)
    assert (found.reason, found.rule) == (reasons.FEW, "min_s_picks")


@pytest.mark.parametrize("seed", range(20))
def test_the_rules_are_those_of_the_associators(tmp_path, seed):
    rng = np.random.default_rng(seed)
    channels = np.array([(f"AA.S{i}", p) for i in range(6) for p in "PS"])
    some = channels[np.sort(rng.choice(len(channels), rng.integers(1, len(channels)), replace=False))]
    least = dict(zip(Rules._fields, rng.integers(0, 6, 5).tolist(), strict=True))
    least["min_picks"], least["min_stations"] = max(least["min_picks"], 1), max(least["min_stations"], 1)
    settings = configured(tmp_path).associate.model_copy(update=least)
    observed = table(Observed, len(some), station=some[:, 0], phase=some[:, 1])
    found = lack(Rules(**least), some[:, 0], some[:, 1])
    assert (found.rule == "") == associators.enough(observed, settings)
    assert found.rule == associators._too_few(observed, settings)


def test_the_reasons_add_up():
    names = np.array([reasons.FEW, reasons.OUTSIDE, reasons.FEW, reasons.UNKNOWN])
    assert reasons.tally(names) == {reasons.OUTSIDE: 1, reasons.FEW: 2, reasons.UNKNOWN: 1}
    assert reasons.tally(np.empty(0, "U1")) == {}
