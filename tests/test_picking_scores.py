"""Picks against labels: by hand, against scikit-learn and SciPy, and against drawing events one by one."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import f1_score, precision_score, recall_score

from pipeline.maths import match, picking_scores, picking_tables, triggers, tuning
from pipeline.maths.picking_scores import Bootstrap, Found, Rule, Truth, judge
from pipeline.maths.picking_tables import TestSet
from pipeline.records import NS, Scores

TestSet.__test__ = False  # a noun, not tests
NAN = float("nan")
STRICT, NEAR = Rule(0.1, "strict"), Rule(0.1, "near")
DATA = Path(__file__).parents[2] / "shared" / "data"


def truth(*rows):
    event, p_s, s_s = zip(*rows, strict=True)
    return Truth(np.array(event), np.array(p_s, float), np.array(s_s, float))


def found(*rows):
    if not rows:
        return Found.empty()
    record, phase, time_s, probability = zip(*rows, strict=True)
    return Found(np.array(record), np.array(phase), np.array(time_s, float), np.array(probability, float))


LABELS = truth(("a", 10, 15), ("a", 12, NAN), ("b", 9, 14), ("", NAN, NAN), ("", NAN, NAN))
PICKS = found(
    (0, "P", 10.05, 0.9),
    (0, "P", 10.02, 0.4),  # nearer: it has the label, the stronger one is too many
    (0, "P", 40.0, 0.8),  # far from all labels: perhaps an event that nobody labelled
    (0, "S", 10.0, 0.9),  # an S at the P: too many in both ways to count
    (1, "P", 12.11, 0.9),  # 0.11 s off
    (1, "S", 16.0, 0.9),  # there is no S label: outside the span of the labels
    (2, "P", 9.1, 0.9),  # 0.1 s off, which is within 0.1 s
    (2, "S", 14.3, 0.5),
    (3, "P", 50.0, 0.6),
)


@pytest.mark.parametrize(
    ("rule", "phase", "hit", "extra"),
    [
        (STRICT, "P", [1, 0, 1, 0, 0], [2, 1, 0, 1, 0]),
        (NEAR, "P", [1, 0, 1, 0, 0], [1, 1, 0, 1, 0]),
        (Rule(0.5, "strict"), "P", [1, 1, 1, 0, 0], [2, 0, 0, 1, 0]),
        (STRICT, "S", [0, 0, 0, 0, 0], [1, 1, 1, 0, 0]),
        (NEAR, "S", [0, 0, 0, 0, 0], [1, 0, 1, 0, 0]),
        (Rule(0.5, "near"), "S", [0, 0, 1, 0, 0], [1, 0, 0, 0, 0]),
    ],
)
def test_hits_and_extra_picks_by_hand(rule, phase, hit, extra):
    judged = judge(LABELS, PICKS, phase, rule)
    assert judged.hit.astype(int).tolist() == hit
    assert judged.extra.tolist() == extra
    assert judged.labelled.tolist() == [True, phase == "P", True, False, False]
    right = [
        h == (k < 3 and (phase == "P" or k != 1)) and e == 0 for k, (h, e) in enumerate(zip(hit, extra, strict=True))
    ]
    assert judged.right.tolist() == right


def test_residuals_are_picks_minus_labels_and_the_nearest_pick_has_the_label():
    residual_s = judge(LABELS, PICKS, "P", STRICT).residual_s
    np.testing.assert_allclose(residual_s, [0.02, NAN, 0.1, NAN, NAN], atol=1e-12)


def test_the_order_of_the_picks_changes_nothing():
    rng = np.random.default_rng(1)
    for _ in range(20):
        again = judge(LABELS, PICKS.take(rng.permutation(len(PICKS))), "P", STRICT)
        np.testing.assert_array_equal(again.extra, judge(LABELS, PICKS, "P", STRICT).extra)
        np.testing.assert_array_equal(again.residual_s, judge(LABELS, PICKS, "P", STRICT).residual_s)


def test_two_picks_as_near_as_each_other_are_one_hit_and_one_too_many():
    judged = judge(truth(("a", 10, NAN)), found((0, "P", 9.95, 0.9), (0, "P", 10.05, 0.9)), "P", STRICT)
    assert judged.hit.tolist() == [True]
    assert judged.extra.tolist() == [1]
    assert judged.residual_s[0] == pytest.approx(-0.05)


def test_hits_are_those_of_the_pipelines_matching():
    """The one-to-one matching of the comparison with bulletins, a record being a station, finds the same picks."""
    labels, picks = fabricate(np.random.default_rng(9))
    for phase, tolerance_s in (("P", 0.1), ("S", 0.5)):
        mine = picks.take(picks.phase == phase)
        known = np.flatnonzero(~np.isnan(labels.label_s(phase)))
        ours = mine.record.astype(str), mine.phase, np.rint(mine.time_s * NS).astype(np.int64), mine.probability
        theirs = known.astype(str), np.full(len(known), phase), np.rint(labels.label_s(phase)[known] * NS).astype(int)
        i, j = match.match_picks(ours, theirs, tolerance_s, (1, 0, 0))
        got = picking_scores.matched(labels, mine, phase, tolerance_s)
        assert len(got) > 50
        assert sorted(got.tolist()) == sorted(i.tolist())
        assert mine.record[i].tolist() == known[j].tolist()


def test_records_of_one_event_are_one_group_and_noise_is_alone():
    group = LABELS.groups()
    assert group[0] == group[1] != group[2]
    assert len(set(group.tolist())) == 4


def test_bad_rules_and_picks_are_refused():
    with pytest.raises(ValueError, match="counted"):
        Rule(counted="all")
    with pytest.raises(ValueError, match=r"margin_s 1\.0"):
        Rule(2.0)
    with pytest.raises(ValueError, match="5 records"):
        judge(LABELS, found((5, "P", 1, 1)), "P", STRICT)
    judged = judge(LABELS, PICKS, "P", STRICT)
    with pytest.raises(ValueError, match="different records"):
        picking_scores.scores([judged, judged.take(slice(1, None))], Bootstrap(10))


def fabricate(rng, n_events=40, per_event=3, good=0.8):
    """Labels of records with P and S, and picks of which some are lost, moved or too many."""
    n = n_events * per_event
    p_s, s_s = rng.uniform(5, 20, n), rng.uniform(22, 30, n)
    event = np.repeat([f"e{k}" for k in range(n_events)], per_event)
    event[-per_event:], p_s[-per_event:], s_s[-per_event:] = "", NAN, NAN
    labels = Truth(event, p_s, s_s)
    rows = []
    for k in range(n):
        for phase, at in (("P", p_s[k]), ("S", s_s[k])):
            if rng.random() < good and not math.isnan(at):
                rows.append((k, phase, at + rng.normal(0, 0.06), rng.uniform(0.3, 1)))
            if rng.random() < 0.2:
                rows.append((k, phase, rng.uniform(0, 60), rng.uniform(0.1, 0.7)))
    return labels, found(*rows)


def flags(judged):
    """What is so and what is said, one entry a label and one an extra pick, as scikit-learn wants it."""
    n = int(judged.extra.sum())
    said = judged.hit[judged.labelled].astype(int).tolist() + [1] * n
    return [1] * (len(said) - n) + [0] * n, said


def test_rates_are_those_of_scikit_learn_and_residuals_those_of_scipy():
    labels, picks = fabricate(np.random.default_rng(2))
    judged = judge(labels, picks, "P", Rule(0.5))
    got = picking_scores.scores([judged], Bootstrap(50))
    so, said = flags(judged)
    metrics = {name: one.value for name, one in got.metrics.items()}
    assert metrics["precision"] == pytest.approx(precision_score(so, said))
    assert metrics["recall"] == pytest.approx(recall_score(so, said))
    assert metrics["f1"] == pytest.approx(f1_score(so, said))
    assert metrics["accuracy"] == pytest.approx(np.mean(judged.right))
    x = judged.residual_s[judged.hit]
    assert metrics["within"] == pytest.approx(np.mean(np.abs(x) <= 0.1))
    assert metrics["mean_s"] == pytest.approx(x.mean())
    spread = scipy_stats.median_abs_deviation(x)
    told = got.residuals
    wanted = (len(x), x.mean(), np.std(x, ddof=1), np.median(x), spread)
    assert (told.n, told.mean_s, told.sd_s, told.median_s, told.mad_s) == pytest.approx(wanted)
    assert math.isnan(got.metrics["f1"].sd_seeds)


def plain_bootstrap(runs, statistic, n_samples, rng):
    """Draws events one after the other, and counts anew each time."""
    group = runs[0].group
    rows_of = [np.flatnonzero(group == g) for g in np.unique(group)]
    values = []
    for _ in range(n_samples):
        rows = np.concatenate([rows_of[k] for k in rng.integers(0, len(rows_of), len(rows_of))])
        values.append(statistic([one.take(rows) for one in runs]))
    return np.percentile(values, [2.5, 97.5])


def f1_of(judged):
    hits, missed = np.sum(judged.hit), np.sum(judged.labelled & ~judged.hit)
    return 2 * hits / (2 * hits + missed + judged.extra.sum())


def test_intervals_are_those_of_drawing_whole_events():
    rng = np.random.default_rng(3)
    labels, first = fabricate(rng)
    runs = [judge(labels, picks, "S", Rule(0.5)) for picks in (first, first.take(rng.random(len(first)) < 0.9))]
    got = picking_scores.scores(runs, Bootstrap(20_000)).metrics["f1"]
    each = [f1_of(one) for one in runs]
    assert got.value == pytest.approx(np.mean(each))
    assert (got.least, got.most, got.n_seeds) == (min(each), max(each), 2)
    assert got.sd_seeds == pytest.approx(np.std(each, ddof=1))
    wanted = plain_bootstrap(runs, lambda drawn: np.mean([f1_of(one) for one in drawn]), 4000, rng)
    assert (got.low, got.high) == pytest.approx(tuple(wanted), abs=0.006)


def test_differences_are_paired():
    """Drawn together, what events have in common falls out: the interval is that of the plain paired bootstrap."""
    rng = np.random.default_rng(4)
    labels, first = fabricate(rng, good=0.7)
    ours = judge(labels, first, "P", Rule(0.5))
    theirs = judge(labels, first.take(rng.random(len(first)) < 0.9), "P", Rule(0.5))
    got = picking_scores.difference([ours], [theirs], Bootstrap(20_000))["f1"]
    assert got.value == pytest.approx(f1_of(ours) - f1_of(theirs))
    wanted = plain_bootstrap([ours, theirs], lambda two: f1_of(two[0]) - f1_of(two[1]), 4000, rng)
    assert (got.low, got.high) == pytest.approx(tuple(wanted), abs=0.006)
    alone = picking_scores.scores([ours], Bootstrap()).metrics["f1"]
    assert got.high - got.low < alone.high - alone.low
    same = picking_scores.difference([ours, ours], [ours], Bootstrap())["f1"]
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_all_hits_still_have_an_interval():
    n = 12
    labels = truth(*[(f"e{k}", 10, NAN) for k in range(n)])
    got = picking_scores.scores(
        [judge(labels, found(*[(k, "P", 10, 0.9) for k in range(n)]), "P", STRICT)], Bootstrap()
    )
    wanted = scipy_stats.binomtest(n, n).proportion_ci(0.95, "exact")
    for name in ("precision", "recall", "f1", "accuracy", "within"):
        assert (got.metrics[name].value, got.metrics[name].low, got.metrics[name].high) == pytest.approx(
            (1, wanted.low, 1)
        )


def test_the_interval_of_a_share_of_few_is_that_of_few():
    """Records without a label say nothing of the recall, however many they are."""
    n = 5
    labels = truth(*[(f"e{k}", 10, NAN) for k in range(n)], *[("", NAN, NAN)] * 65)
    got = picking_scores.scores(
        [judge(labels, found(*[(k, "P", 10, 0.9) for k in range(n)]), "P", STRICT)], Bootstrap()
    ).metrics
    few, many = (scipy_stats.binomtest(k, k).proportion_ci(0.95, "exact").low for k in (n, n + 65))
    assert [got[name].low for name in ("precision", "recall", "f1", "within")] == pytest.approx([few] * 4)
    assert got["accuracy"].low == pytest.approx(many)


def test_nothing_picked_and_nothing_there():
    silent = picking_scores.scores([judge(LABELS, Found.empty(), "P", STRICT)], Bootstrap(100))
    assert silent.metrics["f1"].value == silent.metrics["recall"].value == 0
    assert math.isnan(silent.metrics["precision"].value)
    assert silent.metrics["accuracy"].value == 0.4
    assert silent.residuals.n == 0
    empty = picking_scores.scores([judge(Truth.empty(), Found.empty(), "P", STRICT)], Bootstrap(100))
    assert all(math.isnan(one.value) for one in empty.metrics.values())


def test_calibration_counts_each_pick_once():
    """Probabilities that are true by construction lie on the diagonal; those of the square do not."""
    rng = np.random.default_rng(5)
    n = 20_000
    said = rng.uniform(0, 1, n)
    labels = Truth(np.array([f"e{k}" for k in range(n)]), np.full(n, 10.0), np.full(n, NAN))
    time_s = np.where(rng.random(n) < said, 10.0, 30.0)
    picks = Found(np.arange(n), np.full(n, "P"), time_s, said)
    honest = picking_scores.calibration(labels, picks, "P", STRICT)
    assert honest.n.sum() == n
    assert picking_scores.calibration_error(honest) < 0.02
    squared = Found(picks.record, picks.phase, picks.time_s, said**2)
    wrong = picking_scores.calibration_error(picking_scores.calibration(labels, squared, "P", STRICT))
    assert wrong == pytest.approx(np.mean(said - said**2), abs=0.02)
    near = picking_scores.calibration(labels, picks, "P", NEAR)
    assert near.n.sum() == np.count_nonzero(time_s == 10.0)


# ------------------------------------------------------------------------------------------------------ thresholds


def peaks(picks):
    """Those that reach a threshold."""
    return lambda threshold: picks.take(picks.probability >= threshold)


def test_the_threshold_of_the_best_f1_is_chosen_and_ties_are_decided():
    labels = truth(*[(f"e{k}", 10, NAN) for k in range(4)])
    picks = found(
        *[(k, "P", 10, p) for k, p in enumerate((0.9, 0.8, 0.55, 0.2))], (0, "P", 40, 0.5), (1, "P", 40, 0.15)
    )
    grid = (0.1, 0.3, 0.52, 0.54, 0.6, 0.85)
    got = tuning.choose(labels, "P", peaks(picks), grid, STRICT)
    wanted = [8 / (8 + 2), 6 / (6 + 2), 6 / 7, 6 / 7, 4 / 6, 2 / 5]
    assert got.f1_at == pytest.approx(wanted)
    assert (got.threshold, got.f1) == (0.52, pytest.approx(6 / 7))
    assert tuning.choose(labels, "P", peaks(picks), grid, STRICT, default=0.9).threshold == 0.54
    assert tuning.choose(labels, "P", peaks(picks), grid[::-1], STRICT, default=0.53).threshold == 0.54
    none = tuning.choose(labels, "S", peaks(picks), grid, STRICT, default=0.4)
    assert none.threshold == 0.4
    assert math.isnan(none.f1)


def test_picks_of_curves_are_those_of_the_pipeline():
    rng = np.random.default_rng(6)
    n, rate_hz = 3000, 100.0
    curves = np.clip(rng.normal(0.05, 0.02, (3, 3, n)), 0, 1).astype(np.float32)
    t = np.arange(n)
    for k, (at, size) in enumerate([(500, 0.9), (800, 0.4), (1500, 0.7)]):
        curves[k, 0] += (size * np.exp(-((t - at) ** 2) / 200)).astype(np.float32)
    got = tuning.curve_picks(curves, ("P", "S", "N"), rate_hz, {"P": 0.5, "S": 0.5, "N": 0.01})
    assert got.record.tolist() == [0, 2]
    assert set(got.phase.tolist()) == {"P"}
    np.testing.assert_allclose(got.time_s, [5.0, 15.0], atol=0.06)
    runs = triggers.runs(Scores(curves[2], ("P", "S", "N"), 0, rate_hz), {"P": 0.5})
    at, peak, _ = triggers.peaks(runs)
    assert (got.time_s[1], got.probability[1]) == (at[0] / rate_hz, peak[0])
    labels = truth(("a", 5.0, NAN), ("b", 8.0, NAN), ("c", 15.0, NAN))
    best = tuning.choose(labels, "P", tuning.curves(curves, ("P", "S", "N"), rate_hz), tuning.GRID, STRICT)
    assert best.f1 == 1
    assert best.threshold == 0.3, "of all that find the three and no more, the nearest to the default"


# ---------------------------------------------------------------------------------------------------------- tables


def test_tables_hold_every_method_set_rule_and_phase_and_are_json():
    rng = np.random.default_rng(7)
    sets = {}
    for name in ("one", "two"):
        labels, picks = fabricate(rng, n_events=15)
        lost = [picks.take(rng.random(len(picks)) < 0.8) for _ in range(3)]
        sets[name] = TestSet(labels, {"adapted": lost, "frozen": [picks]})
    boot = Bootstrap(200)
    rows = picking_tables.score_rows(sets, boot)
    assert len(rows) == 2 * 4 * 2 * 2
    first = rows[0]
    judged = [judge(sets["one"].labels, p, "P", STRICT) for p in sets["one"].methods["adapted"]]
    assert first["f1"]["value"] == pytest.approx(np.mean([f1_of(one) for one in judged]))
    assert (first["set"], first["method"], first["phase"], first["counted"]) == ("one", "adapted", "P", "strict")
    against = picking_tables.against_rows(sets, "adapted", boot)
    assert len(against) == 2 * 4 * 2
    assert all(row["p_holm"] >= row["p"] for row in against)
    row = against[0]
    right = [judge(sets["one"].labels, sets["one"].methods["frozen"][0], "P", STRICT).right]
    pairs = [scipy_stats.binomtest(int(np.sum(a.right & ~right[0])), int(np.sum(a.right != right[0]))) for a in judged]
    assert row["p_seeds"] == pytest.approx([one.pvalue for one in pairs])
    assert row["p"] == pytest.approx(min(1, 3 / 2 * np.median(row["p_seeds"])))
    json.dumps([rows, against], allow_nan=False)


def test_holm_counts_the_sets_and_phases_of_one_question():
    rng = np.random.default_rng(8)
    labels, picks = fabricate(rng, n_events=60, good=0.95)
    half = picks.take(rng.random(len(picks)) < 0.5)
    same = TestSet(labels, {"adapted": [picks], "frozen": [half], "other": [half]})
    rows = picking_tables.against_rows({"a": same, "b": same}, "adapted", Bootstrap(50), (STRICT, NEAR))
    for rule in ("strict", "near"):
        frozen = [row for row in rows if row["other"] == "frozen" and row["counted"] == rule]
        assert len(frozen) == 4
        smallest = min(frozen, key=lambda row: row["p"])
        assert smallest["p"] < 0.01
        wanted = pytest.approx(4 * smallest["p"], rel=1e-9, abs=0)
        assert smallest["p_holm"] == wanted, "two sets, two phases, one other method, one rule"


@pytest.mark.parametrize(
    ("n_events", "kept", "limit", "state"),
    [(60, 0.5, 0.02, "worse"), (60, 0.99, 0.0, "unclear"), (60, 1.0, 0.02, "unclear"), (400, 1.0, 0.02, "fine")],
)
def test_the_alarm_goes_off_where_a_loss_is_shown(n_events, kept, limit, state):
    """Half of the parent's picks lost; one in a hundred, which nobody can exclude; none, of few events and of many."""
    rng = np.random.default_rng(10)
    labels, picks = fabricate(rng, n_events=n_events)
    one = TestSet(labels, {"adapted": [picks.take(rng.random(len(picks)) < kept)], "parent": [picks], "other": [picks]})
    told = picking_tables.replay("replay", one, "adapted", "parent", limit, STRICT, Bootstrap(300))
    assert told["state"] == state
    assert [row["other"] for row in told["rows"]] == ["parent", "parent"]
    for row in told["rows"]:
        gap = row["f1"]["adapted"]["value"] - row["f1"]["parent"]["value"]
        assert gap == pytest.approx(row["difference"]["f1"]["value"], abs=1e-12)


@pytest.mark.skipif(not DATA.exists(), reason="no shared data: real labels are not judged against themselves")
def test_real_labels_judged_against_themselves_and_moved():
    with np.load(DATA / "labelled_ncedc" / "records.npz") as file:
        p, s = (np.asarray(file[f"{phase}_sample"], float).reshape(-1) for phase in "ps")
    labels = picking_scores.truth(np.array([f"e{k}" for k in range(len(p))]), p, s, np.full(len(p), 100.0))
    n = len(labels)
    for shift_s, f1 in ((0.0, 1.0), (0.1, 1.0), (0.11, 0.0)):
        columns = [np.tile(np.arange(n), 2), np.repeat(["P", "S"], n), np.concatenate([labels.p_s, labels.s_s])]
        picks = Found(columns[0], columns[1], columns[2] + shift_s, np.ones(2 * n))
        for phase in "PS":
            got = picking_scores.scores([judge(labels, picks, phase, STRICT)], Bootstrap(20))
            assert got.metrics["f1"].value == f1
            assert got.n_labels == n == 70
