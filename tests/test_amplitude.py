"""Amplitudes and magnitudes: the package GaMMA, closed forms, and what an outlier may do."""

import numpy as np
import pytest
from gamma.seismic_ops import calc_amp, calc_mag
from numba import njit

from pipeline.maths import amplitude

STATIONS_KM = np.random.default_rng(1).uniform(-60, 60, (40, 3)) * [1, 1, 0.01]
EVENT = np.array([[3.0, -7.0, 9.0, 100.0]])  # x, y, z, t
R_KM = np.linalg.norm(EVENT[0, :3] - STATIONS_KM, axis=1)


@pytest.mark.parametrize("magnitude", [-1.0, 0.7, 3.5, 6.2])
def test_amplitudes_are_those_of_gamma_in_metres(magnitude):
    theirs_cm_s = calc_amp(np.array([[magnitude]]), EVENT, STATIONS_KM)[:, 0]
    np.testing.assert_allclose(amplitude.log_amplitude(magnitude, R_KM), theirs_cm_s - 2, rtol=0, atol=1e-12)


def test_nothing_is_nearer_than_in_gamma():
    here = EVENT[0, :3] + [[0, 0, 0], [0, 0, 0.05], [0, 0, 0.2]]
    theirs = calc_amp(np.array([[1.0]]), EVENT, here)[:, 0] - 2
    ours = amplitude.log_amplitude(1.0, np.array([0, 0.05, 0.2]))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    assert ours[0] == ours[1] > ours[2]


def test_the_magnitude_is_that_of_gamma():
    """With one pick GaMMA's average is that pick's magnitude, but for the 1e-6 that it adds to the weight."""
    for log_m_s, station, r_km in zip(np.linspace(-8, -3, 40), STATIONS_KM, R_KM, strict=True):
        one = np.array([[log_m_s + 2]])
        theirs = calc_mag(one, EVENT, station[None], np.ones((1, 1)), min=-9, max=9)
        assert amplitude.magnitude(log_m_s, r_km) == pytest.approx(float(theirs), abs=1e-5)


def test_magnitude_is_the_inverse_of_amplitude():
    magnitudes = np.linspace(-2, 8, 40)
    there = amplitude.log_amplitude(magnitudes, R_KM)
    np.testing.assert_allclose(amplitude.magnitude(there, R_KM), magnitudes, rtol=0, atol=1e-12)
    assert amplitude.log_amplitude(4.5, 10.0) - amplitude.log_amplitude(3.5, 10.0) == pytest.approx(0.93)
    assert amplitude.log_amplitude(3.5, 100.0) - amplitude.log_amplitude(3.5, 10.0) == pytest.approx(-1.68)
    assert amplitude.log_amplitude(3.5, 1.0) == pytest.approx(np.log10(0.01 * 10**1.08))  # 1.08: log10 of cm/s


def test_a_good_event_has_the_magnitude_of_gamma():
    rng = np.random.default_rng(2)
    log_m_s = amplitude.log_amplitude(1.4, R_KM) + rng.normal(0, 0.2, len(R_KM))
    weight = rng.uniform(0.3, 1, len(R_KM))
    theirs = float(calc_mag(log_m_s[:, None] + 2, EVENT, STATIONS_KM, weight[:, None]))
    ours = amplitude.event_magnitude(log_m_s, R_KM, weight)
    assert ours == pytest.approx(theirs, abs=0.1)
    assert ours == pytest.approx(1.4, abs=0.1)


def of_magnitudes(values, weight=None):
    r_km = R_KM[: len(values)]
    log_m_s = amplitude.log_amplitude(np.array(values, float), r_km)
    return amplitude.event_magnitude(log_m_s, r_km, np.ones(len(values)) if weight is None else np.array(weight, float))


def test_the_median_of_equal_weights_is_the_ordinary_one():
    rng = np.random.default_rng(3)
    for n in range(1, 12):
        values = rng.normal(2, 1, n)
        assert of_magnitudes(values) == pytest.approx(np.median(values), abs=1e-12)


def test_the_heavier_pull_the_median_and_zero_does_not():
    assert of_magnitudes([1, 2, 9], [0.5, 3, 0.5]) == pytest.approx(2)
    assert of_magnitudes([1, 2, 3, 9], [1, 1, 1, 0]) == pytest.approx(2)
    assert of_magnitudes([1, 2, 3], [2, 2, 1]) == pytest.approx(1.75)  # half of 5 lies between 1 (at 1) and 2 (at 3)
    assert of_magnitudes([5, 1, 3], [1, 1, 1]) == of_magnitudes([1, 3, 5], [1, 1, 1])


def test_outliers_move_the_median_little_where_they_move_an_average():
    values = [1.0, 1.1, 0.9, 1.05, 0.95]
    assert of_magnitudes([*values, 4.0, 5.0]) == pytest.approx(1.05)
    log_m_s = amplitude.log_amplitude(np.array([*values, 4.0, 5.0]), R_KM[:7])
    theirs = calc_mag(log_m_s[:, None] + 2, EVENT, STATIONS_KM[:7], np.ones((7, 1)))
    assert float(theirs) > 1.9


def test_without_amplitudes_there_is_no_magnitude():
    nan = np.full(3, np.nan)
    assert np.isnan(amplitude.event_magnitude(nan, R_KM[:3], np.ones(3)))
    assert np.isnan(amplitude.event_magnitude(np.zeros(0), np.zeros(0), np.zeros(0)))
    assert np.isnan(amplitude.event_magnitude(np.zeros(3), R_KM[:3], np.zeros(3)))
    some = amplitude.log_amplitude(np.array([2.0, np.nan, 2.0]), R_KM[:3])
    assert amplitude.event_magnitude(some, R_KM[:3], np.ones(3)) == pytest.approx(2)


def test_kernels_can_call_them():
    @njit
    def kernel(r_km):
        total = 0.0
        for r in r_km:
            total += amplitude.magnitude(amplitude.log_amplitude(2.5, r), r)
        return total / len(r_km), amplitude.event_magnitude(
            amplitude.log_amplitude(2.5, r_km), r_km, np.ones(len(r_km))
        )

    assert kernel(R_KM) == pytest.approx((2.5, 2.5))
