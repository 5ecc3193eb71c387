"""The classical picker against ObsPy's triggers, on made-up onsets and on analysts' picks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from obspy.signal import trigger

from pipeline.maths import picking_scores, stalta
from pipeline.maths.picking_scores import Bootstrap, Rule, Truth, judge
from pipeline.maths.stalta import StaLta

DATA = Path(__file__).parents[2] / "shared" / "data" / "labelled_ncedc" / "records.npz"
RATE_HZ = 100.0
NAN = float("nan")


def noisy(rng, n=3000, onsets=((1000, 20.0),)):
    x = rng.normal(0, 1, n)
    for at, size in onsets:
        x[at:] += size * rng.normal(0, 1, n - at) * np.exp(-np.arange(n - at) / 300)
    return x


@pytest.mark.parametrize(("n_sta", "n_lta"), [(50, 500), (1, 2), (20, 2999)])
def test_the_ratio_is_obspys(n_sta, n_lta):
    for seed in range(3):
        x = noisy(np.random.default_rng(seed))
        np.testing.assert_allclose(
            stalta.ratio(x * x, n_sta, n_lta), trigger.classic_sta_lta(x, n_sta, n_lta), rtol=1e-7, atol=1e-7
        )


def test_the_recursive_ratio_of_obspy_triggers_on_the_same_onset():
    """Another average, the same energy: both pass their threshold within half a second of the onset."""
    x = noisy(np.random.default_rng(4), onsets=((1500, 30.0),))
    for values in (stalta.ratio(x * x, 50, 500), trigger.recursive_sta_lta(x, 50, 500)):
        assert 1500 <= int(np.argmax(values >= 4)) < 1550


def test_triggers_are_obspys():
    x = noisy(np.random.default_rng(5), 6000, ((1000, 20.0), (3500, 8.0)))
    values = stalta.ratio(x * x, 50, 500)
    wanted = trigger.trigger_onset(values, 4.0, 2.0)
    assert [(on, stop - 1) for on, stop in stalta.triggers(values, 4.0, 2.0)] == [tuple(row) for row in wanted.tolist()]
    assert len(wanted) >= 2


def test_aic_is_obspys():
    for n, offset in ((3, 0), (12, 0), (500, 0), (500, 1e4)):
        x = np.random.default_rng(n).normal(0, 1, n) + offset
        np.testing.assert_allclose(stalta.aic(x), trigger.aic_simple(x), rtol=1e-7, atol=1e-6)
    assert stalta.aic(np.ones(2)).tolist() == trigger.aic_simple(np.ones(2)).tolist()
    assert np.isfinite(stalta.aic(np.zeros(50))).all()


def test_dead_and_short_traces_have_no_ratio():
    assert not stalta.ratio(np.zeros(1000), 50, 500).any()
    assert not stalta.ratio(np.ones(400), 50, 500).any()
    ends = np.concatenate([np.random.default_rng(0).normal(0, 1e6, 2000) ** 2, np.zeros(2000)])
    assert not stalta.ratio(ends, 50, 500)[2600:].any(), "what rounding leaves of a loud trace is no signal"
    with pytest.raises(ValueError, match="shorter"):
        stalta.ratio(np.ones(1000), 500, 50)


def record(rng, p_at, s_at, n=3000):
    """P on the vertical, a stronger S on the horizontals, P there too, in noise."""
    both = [noisy(rng, n, ((p_at, 3.0), (s_at, 25.0))) for _ in range(2)]
    return np.stack([noisy(rng, n, ((p_at, 15.0), (s_at, 5.0))), *both]).astype(np.float32)


def test_p_and_s_of_made_up_records_are_found_to_a_few_samples():
    rng = np.random.default_rng(6)
    settings = StaLta(p_on=6.0, s_on=3.0, corners_hz=(1.0, 45.0))
    at = [(int(rng.integers(800, 1200)), int(rng.integers(1700, 2000))) for _ in range(20)]
    records = [stalta.prepare(record(rng, *one), RATE_HZ, settings) for one in at]
    picks = stalta.pick(records, settings)
    labels = Truth(
        np.array([f"e{k}" for k in range(20)]), *(np.array(column) / RATE_HZ for column in zip(*at, strict=True))
    )
    for phase in "PS":
        judged = judge(labels, picks, phase, Rule(0.1))
        assert judged.hit.sum() >= 18
        assert np.median(np.abs(judged.residual_s[judged.hit])) <= 0.03
    assert ((picks.probability > 0) & (picks.probability < 1)).all()


def test_s_comes_after_p_and_not_without_horizontals():
    rng = np.random.default_rng(7)
    settings = StaLta(corners_hz=(1.0, 45.0))
    one = record(rng, 1000, 1800)
    one[1:] = 0
    assert set(stalta.pick([stalta.prepare(one, RATE_HZ, settings)], settings).phase.tolist()) == {"P"}
    silent = rng.normal(0, 1, (3, 3000)).astype(np.float32)
    silent[1, 1500:] *= 30
    high = replace(settings, p_on=50.0)
    assert len(stalta.pick([stalta.prepare(silent, RATE_HZ, high)], high)) == 0, "no P, no S"


def bumps(n, *spans):
    """A ratio (n,) of 1 with spans of 10."""
    values = np.ones(n)
    for start, stop in spans:
        values[start:stop] = 10
    return values


def test_a_ratio_that_is_high_since_p_is_no_s_and_one_that_rises_is():
    x = np.random.default_rng(9).normal(0, 1, (3, 3000))
    x[:, 1000:] *= 10
    settings = StaLta()
    for horizontal, n_s in ((bumps(3000, (1000, 3000)), 0), (bumps(3000, (1000, 1200), (1600, 1700)), 1)):
        traces = stalta.Traces(x, bumps(3000, (1000, 1100)), horizontal, RATE_HZ)
        picks = stalta.pick([traces], settings)
        assert np.count_nonzero(picks.phase == "S") == n_s


def test_two_triggers_on_p_do_not_share_an_onset():
    x = np.random.default_rng(10).normal(0, 1, (3, 3000))
    x[0, 1000:] *= 20
    traces = stalta.Traces(x, bumps(3000, (1005, 1040), (1080, 1100)), np.ones(3000), RATE_HZ)
    first, second = (at for _, at, _ in stalta.pick_record(traces, StaLta()))
    assert abs(first - 1000) <= 3
    assert second >= 1040


def test_tuning_takes_the_thresholds_of_the_best_f1():
    rng = np.random.default_rng(8)
    start = StaLta(corners_hz=(1.0, 45.0))
    at = [(int(rng.integers(800, 1200)), int(rng.integers(1700, 2000))) for _ in range(8)]
    records = [stalta.prepare(record(rng, *one), RATE_HZ, start) for one in at]
    labels = Truth(
        np.array([f"e{k}" for k in range(8)]), *(np.array(column) / RATE_HZ for column in zip(*at, strict=True))
    )
    best = stalta.tuned(records, labels, Rule(0.1), start)

    def f1(settings, phase):
        judged = judge(labels, stalta.pick(records, settings), phase, Rule(0.1))
        return picking_scores.scores([judged], Bootstrap(2)).metrics["f1"].value

    assert f1(best, "P") == max(f1(replace(start, p_on=on), "P") for on in stalta.P_GRID)
    assert f1(best, "S") == max(f1(replace(best, s_on=on), "S") for on in stalta.S_GRID)


@pytest.mark.skipif(not DATA.exists(), reason="no shared data: the classical picker is not tried on analysts' picks")
def test_analysts_picks_of_real_records():
    """Thresholds from the even records, scores on the odd ones: P is found often, S seldom, and AIC helps P."""
    with np.load(DATA) as file:
        data, p, s, channels = (file[name] for name in ("data", "p_sample", "s_sample", "channels"))
    assert {name[2::4] for name in channels.tolist()} <= {"ENZ", "Z"}
    records = [stalta.prepare(one[1500:, ::-1].T, RATE_HZ, StaLta()) for one in data]  # Z N E
    labels = picking_scores.truth(
        np.array([f"e{k}" for k in range(len(p))]), p - 1500.0, s - 1500.0, np.full(len(p), RATE_HZ)
    )
    even, odd = np.arange(0, len(p), 2), np.arange(1, len(p), 2)
    best = stalta.tuned([records[k] for k in even], labels.take(even), Rule(0.5), StaLta())
    test, rest = labels.take(odd), [records[k] for k in odd]
    recall = {}
    for name, settings in (("aic", best), ("raw", replace(best, before_s=0.0, after_s=0.0))):
        judged = judge(test, stalta.pick(rest, settings), "P", Rule(0.5, "near"))
        recall[name] = judged.hit.mean()
        residual_s = np.abs(judged.residual_s[judged.hit])
        recall[f"{name} s"] = float(np.median(residual_s))
    assert recall["aic"] > 0.6
    assert recall["aic s"] < recall["raw s"]


def test_where_a_filling_ends_nothing_is_picked():
    """The ratio is that of the part which may be used, as if there were nothing else."""
    rng = np.random.default_rng(0)
    part = np.stack([noisy(rng, 4000, ((2000, 30.0),)) for _ in range(3)]).astype(np.float32)
    whole, valid = np.zeros((3, 7000), np.float32), np.zeros(7000, np.bool_)
    whole[:, 2000:6000], valid[2000:6000] = part, True
    alone, filled = (stalta.pick([one], StaLta()) for one in (
        stalta.prepare(part, RATE_HZ, StaLta()), stalta.prepare(whole, RATE_HZ, StaLta(), valid)
    ))  # fmt: skip
    assert len(alone)
    np.testing.assert_allclose(filled.time_s, alone.time_s + 20)
    np.testing.assert_array_equal(filled.probability, alone.probability)
    assert 20.0 in stalta.pick([stalta.prepare(whole, RATE_HZ, StaLta())], StaLta()).time_s, "a step, without it"
