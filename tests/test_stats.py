"""Scores and residuals against closed forms, SciPy's bootstrap and the plain way of drawing groups."""

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import precision_recall_fscore_support

from pipeline.maths import stats


def test_residuals_against_scipy():
    x = np.random.default_rng(0).normal(0.3, 2.0, 501)
    found = stats.residuals(np.append(x, np.nan))
    assert found.n == 501
    assert found.mean == pytest.approx(np.mean(x))
    assert found.mae == pytest.approx(np.mean(np.abs(x)))
    assert found.rmse == pytest.approx(np.sqrt(np.var(x) + np.mean(x) ** 2))
    assert found.median == pytest.approx(np.median(x))
    assert found.mad == pytest.approx(scipy_stats.median_abs_deviation(x))


def test_residuals_of_nothing():
    found = stats.residuals(np.array([np.nan]))
    assert found.n == 0
    assert np.isnan([found.mean, found.mae, found.rmse, found.median, found.mad]).all()


def test_rates_as_sklearn_defines_them():
    truth, found = [1] * 7 + [1] * 3 + [0] * 2, [1] * 7 + [0] * 3 + [1] * 2
    precision, recall, f1, _ = precision_recall_fscore_support(truth, found, average="binary")
    rates = stats.rates(np.array([[7, 3, 2]]), 100, 0.95, [0])
    assert (rates.recall.value, rates.precision.value, rates.f1.value) == pytest.approx((recall, precision, f1))


def singles(matched, missed, new):
    return np.repeat(np.eye(3, dtype=np.int64), (matched, missed, new), axis=0)


def test_recall_interval_is_the_binomial_one():
    """With single rows and no new ones, the bootstrap of the recall is a binomial distribution."""
    found = stats.rates(singles(80, 20, 0), 20_000, 0.95, [1]).recall
    low, high = scipy_stats.binom.ppf([0.025, 0.975], 100, 0.8) / 100
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.0101)


def test_classes_are_drawn_like_groups():
    """Drawing classes of equal groups has the mean and spread of drawing the groups themselves."""
    rng = np.random.default_rng(2)
    counts = rng.integers(0, 4, (60, 3))
    fast = stats.resample(counts, 20_000, np.random.default_rng(3))
    slow = counts[rng.integers(0, 60, (20_000, 60))].sum(axis=1)
    assert fast.mean(axis=0) == pytest.approx(slow.mean(axis=0), rel=0.01)
    assert np.cov(fast.T) == pytest.approx(np.cov(slow.T), rel=0.1, abs=3)


def test_groups_widen_the_interval():
    """Ten picks of each event found or missed together: as uncertain as the events, not as ten times as many picks."""
    flags = singles(400, 100, 0).astype(bool)
    events = np.repeat(np.arange(50).astype(str), 10)
    grouped = stats.rates(stats.by_group(events, flags), 5000, 0.95, [0]).recall
    alone = stats.rates(flags.astype(np.int64), 5000, 0.95, [0]).recall
    assert grouped.value == alone.value == 0.8
    assert grouped.high - grouped.low == pytest.approx(np.sqrt(10) * (alone.high - alone.low), rel=0.1)


def test_by_group_sums_rows():
    flags = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], bool)
    assert stats.by_group(np.array(["b", "a", "b", "a"]), flags).tolist() == [[0, 1, 1], [2, 0, 0]]


def test_seed_and_order():
    counts = np.random.default_rng(0).integers(0, 5, (40, 3))
    first = stats.rates(counts, 500, 0.9, [5, 1])
    assert stats.rates(counts[::-1], 500, 0.9, [5, 1]) == first
    assert stats.rates(counts, 500, 0.9, [6, 1]) != first


@pytest.mark.parametrize("counts", [np.zeros((0, 3), np.int64), np.array([[0, 0, 4]]), np.array([[0, 5, 0]])])
def test_nothing_to_divide_by(counts):
    rates = stats.rates(counts, 100, 0.95, [0])
    missing = counts.sum(axis=0)
    assert np.isnan(rates.recall.value) == (missing[0] + missing[1] == 0)
    assert np.isnan(rates.precision.value) == (missing[0] + missing[2] == 0)
    assert np.isnan(rates.recall.low) == np.isnan(rates.recall.value)


@pytest.mark.parametrize("n", [1, 30, 427])
def test_nothing_but_hits_is_not_certainty(n):
    exact = scipy_stats.binomtest(n, n).proportion_ci(0.95, method="exact")
    recall = stats.rates(np.tile([1, 0, 0], (n, 1)), 200, 0.95, [0]).recall
    assert (recall.value, recall.high) == (1.0, 1.0)
    assert recall.low == pytest.approx(exact.low)
    none = stats.rates(np.tile([0, 1, 1], (n, 1)), 200, 0.95, [0]).recall
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(1 - exact.low)


def test_many_kinds_of_groups_are_drawn_some_at_a_time_and_alike(monkeypatch):
    counts = np.arange(300).reshape(100, 3)
    at_once = stats.resample(counts, 50, np.random.default_rng(1))
    monkeypatch.setattr(stats, "DRAWS", 700)
    np.testing.assert_array_equal(stats.resample(counts, 50, np.random.default_rng(1)), at_once)
