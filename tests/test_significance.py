"""McNemar, its form by events, merged seeds and Holm: against SciPy, published figures and closed forms."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from pipeline.maths import significance


@pytest.mark.parametrize(
    ("table", "p"),  # the example of statsmodels' tests, which has its figures from VassarStats
    [
        ((121, 59), 0.000004),
        ((70, 59), 0.378688),
        ((80, 59), 0.089452),
        ((30, 60), 0.00206),
        ((10, 30), 0.002221),
        ((10, 10), 1.0),
    ],
)
def test_published_examples_of_the_exact_test(table, p):
    assert significance.exact_mcnemar(*table) == pytest.approx(p, abs=5e-7)


def test_the_exact_test_is_the_binomial_one():
    for only_ours, only_theirs in product(range(0, 40, 3), range(0, 40, 4)):
        n = only_ours + only_theirs
        wanted = stats.binomtest(only_ours, n, 0.5).pvalue if n else 1.0
        assert significance.exact_mcnemar(only_ours, only_theirs) == pytest.approx(wanted, rel=1e-12)
    assert significance.exact_mcnemar(0, 7) == 2 / 2**7


def test_records_that_both_decide_alike_do_not_matter():
    ours, theirs = np.array([1, 1, 1, 0, 0, 1], bool), np.array([1, 0, 0, 0, 1, 0], bool)
    test = significance.paired(ours, theirs)
    assert (test.only_ours, test.only_theirs) == (3, 1)
    assert test.p == stats.binomtest(1, 4).pvalue
    many = np.ones(1000, bool)
    assert significance.paired(np.append(ours, many), np.append(theirs, many)) == test


def test_by_group_is_the_permutation_test_of_scipy():
    """All changes of sign, counted: SciPy's permutation test of paired samples on the gains of the events."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        group = np.sort(rng.integers(0, 9, 30))
        ours, theirs = rng.random(30) < 0.8, rng.random(30) < 0.5
        gain = np.bincount(group, ours.astype(int) - theirs.astype(int), minlength=9)
        wanted = stats.permutation_test(
            (gain, np.zeros(9)),
            lambda a, b, axis: np.abs((a - b).sum(axis=axis)),
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf,
            alternative="greater",
        )
        assert significance.by_group(ours, theirs, group) == pytest.approx(wanted.pvalue, abs=1e-12)


def test_by_group_with_one_record_an_event_is_mcnemars():
    rng = np.random.default_rng(1)
    for n in (5, 30, 400):
        ours, theirs = rng.random(n) < 0.8, rng.random(n) < 0.7
        assert significance.by_group(ours, theirs, np.arange(n)) == pytest.approx(significance.paired(ours, theirs).p)


def test_records_of_one_event_do_not_count_as_many():
    """Ten records of one event that all change say no more than one event that changes."""
    ours, theirs = np.ones(10, bool), np.zeros(10, bool)
    assert significance.paired(ours, theirs).p == pytest.approx(2 / 2**10)
    assert significance.by_group(ours, theirs, np.zeros(10, int)) == 1
    assert significance.by_group(ours, theirs, np.repeat(np.arange(5), 2)) == 2 / 2**5
    assert significance.by_group(ours, ours, np.arange(10)) == 1


def test_merged_p_values_hold_for_seeds_that_are_alike_and_for_the_worst_dependence():
    assert significance.merged([0.03]) == 0.03
    assert significance.merged([0.5, 0.01, 0.02, 0.9, 0.03]) == pytest.approx(5 / 3 * 0.03)
    assert significance.merged([0.9] * 4) == 1
    assert significance.merged([0.9, 0.01, 0.02, 0.8]) == pytest.approx(4 / 2 * 0.02)
    with pytest.raises(ValueError, match="no p-value"):
        significance.merged([])
    # Rüger's bound is reached: with a chance of alpha, k of K p-values lie below k / K * alpha, else none do.
    rng, alpha, n_seeds, k = np.random.default_rng(2), 0.1, 5, 3
    limit = k / n_seeds * alpha
    rejected, below = 0, np.zeros(n_seeds)
    for _ in range(20_000):
        p = rng.uniform(limit, 1, n_seeds)
        if rng.random() < alpha:
            p[rng.permutation(n_seeds)[:k]] = rng.uniform(0, limit, k)
        below += p <= limit
        rejected += significance.merged(p.tolist()) <= alpha
    assert below / 20_000 == pytest.approx(np.full(n_seeds, limit), abs=0.006), "each is uniform below the limit"
    assert rejected / 20_000 == pytest.approx(alpha, abs=0.007)


def test_seeds_are_paired():
    rng = np.random.default_rng(3)
    theirs = rng.random((1, 60)) < 0.6
    ours = rng.random((5, 60)) < 0.85
    got = significance.over_seeds(ours, theirs, np.arange(60) // 2)
    assert [one.p for one in got.seeds] == [significance.paired(one, theirs[0]).p for one in ours]
    assert got.median_p == np.median([one.p for one in got.seeds])
    assert got.p == pytest.approx(min(1, 5 / 3 * got.median_p))
    events = [significance.by_group(one, theirs[0], np.arange(60) // 2) for one in ours]
    assert got.p_by_event == significance.merged(events)
    copies = significance.over_seeds(np.repeat(ours[:1], 5, axis=0), theirs, np.arange(60))
    assert copies.p >= significance.paired(ours[0], theirs[0]).p, "five copies of a seed prove no more than one"
    with pytest.raises(ValueError, match="as many of both"):
        significance.over_seeds(ours, ours[:3], np.arange(60))


RAW = [0.838541367553, 0.642193923795, 0.680845947633, 0.967833824309, 0.71626938238, 0.177096952723,
       5.23656777208e-005, 0.0202732688798, 0.00028140506198, 0.0149877310796]  # fmt: skip
HOLM = [1, 1, 1, 1, 1, 1, 5.2365677720800003e-04, 1.4191288215860001e-01, 2.5326455578199999e-03,
        1.1990184863680001e-01]  # fmt: skip


def test_holm_against_the_package_multtest_of_r():
    """The figures are those of statsmodels' tests, made by R's multtest."""
    np.testing.assert_allclose(significance.holm(RAW), HOLM, rtol=1e-13)


def test_holm_on_the_textbook_example_and_with_gaps():
    """p 0.01, 0.04, 0.03, 0.005: the first and the last are rejected at 0.05 (the example of Wikipedia's article)."""
    np.testing.assert_allclose(significance.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    got = significance.holm([0.01, float("nan"), 0.04])
    np.testing.assert_allclose(got, [0.02, np.nan, 0.04])
    assert len(significance.holm([])) == 0
    assert significance.holm([0.9, 0.8]).tolist() == [1, 1]
