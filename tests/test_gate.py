"""Intervals against SciPy and by simulation, checks by hand, and the gate of a run from its files to its exit code."""

import json
import shutil
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from scipy import stats as reference

from pipeline.__main__ import main
from pipeline.cluster.world import Alone
from pipeline.config import Gate, dumps, load
from pipeline.errors import Incomplete
from pipeline.formats import history, tables
from pipeline.maths import gate
from pipeline.maths.decisions import by_event
from pipeline.maths.intervals import of_clusters, of_median, of_share, weighted_median
from pipeline.maths.scorecard import Bootstrap, after_review
from pipeline.page.rows import night_rows
from pipeline.records import ComparedEvents, ComparedPicks, Decisions, StationHealth
from pipeline.stages import gate as stage
from pipeline.stages import report
from tests.fabricate import fabricate
from tests.test_compare import events, table

RULE = gate.Rule(nights=14, min_nights=5, recent_nights=10, confidence=0.99, max_fall=0.15, max_growth=0.5)
ALONE = gate.Before({}, {})


# ---------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (3, 4), (4, 4), (70, 100)])
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_an_interval_of_a_share_is_that_of_clopper_and_pearson(hits, trials, confidence):
    theirs = reference.binomtest(hits, trials).proportion_ci(confidence, "exact")
    ours = of_share(hits, trials, confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.value == hits / trials


def test_clusters_of_one_are_independent_trials_and_copies_tell_nothing_new():
    hits = np.array([1] * 15 + [0] * 5)
    alone = of_clusters(hits, np.ones(20, np.int64), 0.95)
    assert (alone.low, alone.high) == pytest.approx((of_share(15, 20, 0.95).low, of_share(15, 20, 0.95).high), abs=0.03)
    tenfold = of_clusters(10 * hits, np.full(20, 10), 0.95)  # ten picks of each event, all found or none
    assert tenfold.low == pytest.approx(alone.low, abs=0.03)
    assert tenfold.high == pytest.approx(alone.high, abs=0.03)
    assert of_clusters(np.full(5, 10), np.full(5, 10), 0.95).low == of_share(5, 5, 0.95).low
    assert np.isnan(of_clusters(np.empty(0), np.empty(0), 0.95).value)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng, clusters, medians, n = np.random.default_rng(5), 0, 0, 600
    for _ in range(n):
        trials = rng.integers(4, 20, 12)
        found = of_clusters(rng.binomial(trials, rng.beta(9, 1, 12)), trials, 0.95)
        clusters += found.low <= 0.9 <= found.high
        found = of_median(rng.exponential(size=15), 0.95)
        medians += found.low <= np.log(2) <= found.high
    assert 0.92 < clusters / n < 0.985
    assert 0.93 < medians / n < 0.99


def test_the_interval_of_a_median_is_of_order_statistics():
    found = of_median(np.array([np.nan, *range(10, 0, -1)]), 0.95)
    assert (found.value, found.low, found.high) == (5.5, 2, 9)  # 1 - 2 * (1 + 10) / 1024 = 0.979
    assert of_median(np.arange(5.0), 0.95).low == -np.inf  # 2 / 32 is more than 0.05
    assert np.isnan(of_median(np.empty(0), 0.95).value)


def test_a_weighted_median_is_the_median_of_as_many_copies():
    rng = np.random.default_rng(1)
    for _ in range(50):
        values, weights = rng.normal(size=9), rng.integers(0, 6, 9)
        assert weighted_median(values, weights) == pytest.approx(np.median(np.repeat(values, weights)))
    assert np.isnan(weighted_median(np.array([np.nan]), np.ones(1)))


# ---------------------------------------------------------------------------------------- checks


def night(matched, reference, **others):
    """The scores of a night that found ``matched`` of ``reference`` events."""
    share = of_share(matched, reference, 0.99)
    recall = gate.Score(share.value, share.low, share.high, reference)
    return {**dict.fromkeys((m.name for m in gate.MEASURES), gate.UNKNOWN), "recall": recall, **others}


def before(*recalls, n=10):
    return gate.Before({"recall": np.array(recalls, float)}, {"recall": np.full(len(recalls), float(n))})


@pytest.mark.parametrize(
    ("matched", "reference", "state"),
    [
        (9, 10, "pass"),
        (1, 2, "unknown"),  # half is below 0.8, but one of two says nothing
        (0, 1, "unknown"),
        (5, 10, "unknown"),
        (50, 100, "fail"),
        (0, 8, "fail"),  # 0.005 ** (1 / 8) = 0.52
        (0, 0, "unknown"),
    ],
)
def test_few_events_do_not_fail_by_chance(matched, reference, state):
    (check,) = gate.checks(night(matched, reference), {"min_recall": 0.8}, ALONE, RULE)
    assert check.state == state
    assert (check.score, check.against, check.limit, check.n, check.nights) == ("recall", "limit", 0.8, reference, 1)


def test_a_difference_fails_above_its_limit():
    found = night(9, 10, epicentre_km=gate.Score(2.0, 1.7, 2.4, 40))
    for limit, state in ((1.5, "fail"), (1.8, "unknown"), (2.5, "pass")):
        (check,) = gate.checks(found, {"max_epicentre_km": limit}, ALONE, RULE)
        assert check.state == state
    assert "2.00 km (1.70 to 2.40)" in check.reason


def test_the_last_nights_are_the_measure_once_they_are_enough():
    good = before(*[0.9] * 20)
    assert gate.checks(night(30, 100), {}, before(0.9, 0.9, 0.9, 0.9), RULE) == []
    (check,) = gate.checks(night(30, 100), {}, good, RULE)
    assert (check.against, check.state, check.limit) == ("last nights", "fail", pytest.approx(0.75))
    (check,) = gate.checks(night(80, 100), {}, good, RULE)
    assert check.state == "pass"
    shifting = gate.Before({"recall": np.array([0.1] * 10 + [0.9] * 14)}, {"recall": np.full(24, 10.0)})
    assert gate.usual_of(shifting, "recall", 14) == (0.9, 14)  # those before do not count
    assert gate.usual_of(shifting, "recall", 14, 9)[0] == 0.1
    assert gate.checks(night(30, 100), {}, good, replace(RULE, max_fall=None)) == []


def test_what_a_quiet_night_cannot_tell_many_can():
    quiet = night(1, 2)
    (check, usual) = gate.checks(quiet, {"min_recall": 0.8}, before(*[0.5, 0.4, 0.6] * 4), RULE)
    assert (check.state, check.nights, usual.state) == ("fail", 10, "pass")
    assert "in the last 10 nights" in check.reason
    (check, _) = gate.checks(quiet, {"min_recall": 0.8}, before(*[0.5, 0.4, 0.6] * 4), replace(RULE, recent_nights=1))
    assert check.state == "unknown"
    (check, _) = gate.checks(quiet, {"min_recall": 0.8}, before(*[0.9] * 12), RULE)
    assert check.state == "unknown"


def test_a_network_that_is_as_usual_hardly_ever_fails():
    """As its nights before in all, with three events a night, and a limit of its own mean."""
    rng, failed, n = np.random.default_rng(3), 0, 400
    recalls, sizes = [], []
    for _ in range(n):
        size = int(rng.poisson(3))
        hits = int(rng.binomial(size, 0.9))
        past = gate.Before({"recall": np.array(recalls[-24:], float)}, {"recall": np.array(sizes[-24:], float)})
        done = gate.checks(night(hits, size), {"min_recall": 0.85}, past, RULE)
        failed += any(check.state == "fail" for check in done)
        recalls.append(hits / size if size else np.nan)
        sizes.append(size)
    assert failed / n <= 0.01


@pytest.mark.parametrize(
    ("matched", "n_before", "state", "sentence"),
    [
        (95, 9, "pass", "Gate passed: 1 check."),
        (40, 9, "fail", "Gate failed, 1 of 1 check: recall of events 0.40 (0.28 to 0.53) is below 0.80."),
        (95, 1, "pass", "Gate passed: 1 check; 1 night before, 5 are needed to compare with."),
    ],
)
def test_the_verdict_is_one_sentence(matched, n_before, state, sentence):
    done = gate.checks(night(matched, 100), {"min_recall": 0.8}, ALONE, RULE)
    assert gate.verdict(done, n_before, 5) == (state, sentence)


def test_without_limits_nothing_is_decided():
    assert gate.verdict([], 0, 5)[0] == "unknown"


# ---------------------------------------------------------------------------------------- after review


def test_decisions_make_new_events_true_or_false():
    compared = table(
        ComparedEvents,
        7,
        status=["matched", "matched", "missed", "new", "new", "new", "new"],
        ours=["a", "b", "", "c", "d", "e", "f"],
        theirs=["1", "2", "3", "", "", "", ""],
        kind=["earthquake"] * 3 + [""] * 4,
    )
    said = np.array(["reject", "", "", "accept", "reject", "quarry blast", ""])
    found = after_review(compared, said, Bootstrap(50, 0.95, 1))
    assert (found["accepted"], found["rejected"], found["quarry_blasts"], found["undecided"]) == (1, 1, 1, 1)
    assert (found["matched"], found["ours"], found["reference"]) == (3, 5, 4)  # a, b, c of a, b, c, d, f; 1, 2, 3, c
    assert (found["precision"]["value"], found["recall"]["value"]) == (3 / 5, 3 / 4)
    nothing = after_review(compared, np.full(7, ""), Bootstrap(50, 0.95, 1))
    assert nothing["precision"]["value"] == 2 / 6


def test_a_decision_is_on_the_event_that_it_was_carried_to():
    found = events([("a", 0, 46, 12, 1), ("b", 100, 46, 12, 1)])
    said = table(Decisions, 3, event=["x", "y", "z"], decision=["accept", "reject", "unsure"])
    assert by_event(said, found, np.array([1, -1, 0])) == {"b": "accept", "a": "unsure"}


# ---------------------------------------------------------------------------------------- the run


@pytest.fixture
def made(tmp_path):
    return fabricate(tmp_path, n_days=2)


def gate_of(run_dir):
    return json.loads(run_dir.gate.read_text("utf-8"))


def wanted(run_dir, **limits):
    config = load(run_dir.config)
    return config.model_copy(update={"gate": Gate(**limits)})


def test_limits_change_no_digest_and_any_run(made):
    run_dir, config = made
    assert wanted(run_dir, min_recall=0.9).digest == config.digest
    assert load(run_dir.config, ["gate.min_recall=0.9"]).gate.min_recall == 0.9


def test_a_run_is_judged_by_its_own_tables(made):
    run_dir, _ = made
    stage.run(run_dir, wanted(run_dir, min_coverage=0.99), Alone())
    found = gate_of(run_dir)
    card = json.loads(run_dir.scorecard.read_text())["n"]
    assert found["scores"]["recall"]["value"] == card["events_matched"] / card["events_reference"]
    compared = tables.read(run_dir.compared("picks"), ComparedPicks)
    theirs = compared.their_phase == "P"
    assert found["scores"]["recall_p"]["value"] == np.mean(compared.our_phase[theirs] == "P")
    both = compared.dt_s[theirs & (compared.our_phase == "P")]
    assert found["scores"]["residual_p_s"]["value"] == np.median(np.abs(both))
    stations = tables.read(run_dir.health, StationHealth)
    assert found["scores"]["coverage"]["value"] == stations.hours.sum() / stations.hours_planned.sum()
    assert found["state"] == "fail"
    assert "share of the hours with data" in found["verdict"]
    assert sum(found["stations"][status] for status in ("ok", "watch", "bad")) == len(set(stations.station.tolist()))
    assert not (run_dir.root.parent / "history.sqlite").exists()
    before = run_dir.gate.read_bytes(), run_dir.health.read_bytes()
    stage.run(run_dir, wanted(run_dir, min_coverage=0.99), Alone())
    assert (run_dir.gate.read_bytes(), run_dir.health.read_bytes()) == before


@pytest.mark.parametrize(("limit", "failed", "code"), [(0.01, 0, 0), (0.999, 0, 4), (0.01, 2, 3), (0.999, 2, 3)])
def test_exit_codes(tmp_path, capsys, limit, failed, code):
    run_dir, _ = fabricate(tmp_path, n_days=2, n_failed=failed)
    assert main(["gate", str(run_dir.root), "--keep", "--set", f"gate.min_recall={limit}"]) == code
    said = capsys.readouterr().out
    assert said.startswith("Gate failed" if limit > 0.5 else "Gate passed")
    assert ("INCOMPLETE: 2 shards" in said) == bool(failed)
    assert main(["history", str(tmp_path / "history.sqlite")]) == 0
    assert "fabricated" in capsys.readouterr().out


def test_without_a_comparison_the_next_step_is_named(made):
    run_dir, config = made
    run_dir.scorecard.unlink()
    with pytest.raises(Incomplete, match="orcolat compare"):
        stage.run(run_dir, config, Alone())


def test_a_night_is_compared_with_the_nights_before_it_only(tmp_path):
    run_dir, config = fabricate(tmp_path, n_days=1)
    path = history.path_of(run_dir, config)
    for number in range(-8, 9):
        shift_ns = number * 86_400 * 10**9
        start_ns, end_ns = (each + shift_ns for each in config.run.span_ns)
        one = stage_night(run_dir, config)
        day = (config.run.start + timedelta(number)).isoformat()
        history.record(path, {**one, "key": f"{number:04}", "start": day, "start_ns": start_ns, "end_ns": end_ns})
    stage.run(run_dir, wanted(run_dir), Alone())
    assert gate_of(run_dir)["nights_before"] == 8
    nights = night_rows(report.read(run_dir, config))
    assert [each["day"] for each in nights[-2:]] == ["2024-03-19", "2024-03-20"]
    assert len(nights) == 9  # and itself
    assert (nights[-1]["matched"], nights[-1]["reference"]) == (28, 31)
    assert {check["against"] for check in gate_of(run_dir)["checks"]} == {"last nights"}


def stage_night(run_dir, config):
    """The run as the history keeps it."""
    stage.run(run_dir, config, Alone())
    card, found = (json.loads(path.read_text()) for path in (run_dir.scorecard, run_dir.gate))
    return stage.night(run_dir, config, card, found, tables.read(run_dir.health, StationHealth))


@pytest.mark.parametrize(("limit", "code", "says"), [(0.01, 0, "Gate passed"), (0.999, 4, "Gate failed, 1 of")])
def test_a_night_ends_with_its_gate_and_says_so_in_its_line(tmp_path, monkeypatch, capsys, limit, code, says):
    made, own = fabricate(tmp_path, n_days=1)
    report.run(made, own, Alone())

    def stages(run_dir, config, world, keep):
        shutil.copytree(made.root, run_dir.root)
        stage.run(run_dir, config, world, keep)
        return 0

    monkeypatch.setattr("pipeline.commands.whole.all_stages", stages)
    night = ["--for", "2024-03-20", "--runs", str(tmp_path / "nights")]
    given = tmp_path / "my.toml"
    given.write_text(dumps(own.model_copy(update={"gate": Gate(min_recall=limit)})))
    assert main(["nightly", str(given), *night]) == code
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("2024-03-20 complete: ")
    assert says in line
    assert line.endswith("report/index.html")
    (kept,) = history.read(tmp_path / "nights" / "history.sqlite").values()
    assert (kept["name"], kept["series"], kept["run_dir"]) == ("fabricated-2024-03-20", "fabricated", "2024-03-20")


def test_a_history_that_cannot_be_used_is_said_before_the_night_is_worked_on(tmp_path, monkeypatch, capsys):
    made, _ = fabricate(tmp_path)
    (tmp_path / "nights").mkdir()
    (tmp_path / "nights" / "history.sqlite").write_text("no database " * 100)
    monkeypatch.setattr("pipeline.commands.whole.all_stages", None)
    night = ["--for", "2024-03-20", "--runs", str(tmp_path / "nights")]
    assert main(["nightly", str(made.config), *night]) == 2
    assert "FAILED: " in capsys.readouterr().out
