"""Resampling, merging and repair kernels against closed forms: sines, pulses, counted samples."""

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
import scipy.signal
import threadpoolctl

from pipeline.maths import resampling, signals, tracks
from pipeline.maths.tracks import Axis, Findings, Piece
from pipeline.records import NS

RATES = (200.0, 125.0, 50.0, 20.0, 250.0, 62.5, 40.0)


def resampled(hz, rate_hz, target_hz=100.0, seconds=40):
    """A sine of amplitude 1 after resampling, its middle half, and the times of the samples."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    out = resampling.resample(np.sin(2 * np.pi * hz * t), resampling.ratio(rate_hz, target_hz))
    k = np.arange(len(out))
    middle = (k > len(k) // 4) & (k < 3 * len(k) // 4)
    return k[middle] / target_hz, out[middle]


def amplitude_and_delay(hz, t, y):
    """Least squares fit of one sine: amplitude, and delay in seconds."""
    basis = np.stack([np.sin(2 * np.pi * hz * t), np.cos(2 * np.pi * hz * t)], axis=1)
    (a, b), *_ = np.linalg.lstsq(basis, y, rcond=None)
    return np.hypot(a, b), -np.arctan2(b, a) / (2 * np.pi * hz)


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("part", [0.01, 0.1, 0.4, 0.79])
def test_resampling_keeps_amplitude_and_time_in_the_passband(rate_hz, part):
    hz = part * min(rate_hz, 100.0) / 2
    t, y = resampled(hz, rate_hz)
    amplitude, delay_s = amplitude_and_delay(hz, t, y)
    assert amplitude == pytest.approx(1, abs=1e-3)
    assert abs(delay_s) < 1e-6
    assert np.abs(y - np.sin(2 * np.pi * hz * t)).max() < 2e-3


def test_125_to_100_hz_has_unit_gain_at_20_hz():
    amplitude, _ = amplitude_and_delay(20.0, *resampled(20.0, 125.0))
    assert amplitude == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("rate_hz", "hz"), [(200.0, 51.0), (200.0, 80.0), (125.0, 51.0), (125.0, 60.0), (250.0, 99.0)])
def test_nothing_folds_back_from_above_the_new_nyquist_frequency(rate_hz, hz):
    assert np.abs(resampled(hz, rate_hz)[1]).max() < 10 ** (-70 / 20)


@pytest.mark.parametrize("rate_hz", [20.0, 40.0, 50.0])
def test_upsampling_makes_no_images(rate_hz):
    hz = 0.3 * rate_hz
    t, y = resampled(hz, rate_hz)
    image = amplitude_and_delay(rate_hz - hz, t, y - np.sin(2 * np.pi * hz * t))[0]
    assert image < 10 ** (-70 / 20)


@pytest.mark.parametrize("rate_hz", RATES)
def test_resampling_of_an_offset_has_no_edges(rate_hz):
    out = resampling.resample(np.full(round(rate_hz * 3), 1e6), resampling.ratio(rate_hz, 100.0))
    assert np.abs(out - 1e6).max() < 1e6 * 1e-3
    assert abs(len(out) - 300) <= 100 / rate_hz


def test_ratio_takes_rates_that_are_slightly_off_for_what_they_are():
    assert resampling.ratio(99.9999, 100) == resampling.ratio(100.0001, 100) == 1
    assert resampling.ratio(125, 100) == Fraction(4, 5)
    assert resampling.ratio(20.00001, 100) == 5
    assert resampling.ratio(99.5, 100) == Fraction(200, 199)
    for rate_hz in (0.0, -1.0, 1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="cannot be resampled"):
            resampling.ratio(rate_hz, 100)


@pytest.mark.parametrize("dtype", [np.int32, np.float64])
@pytest.mark.parametrize("rate_hz", [*RATES, 99.5, 1000.0, 99.9])
@pytest.mark.parametrize("n", [2, 10, 60, 3000, 70_000])
def test_matrices_filter_as_scipy_does(rate_hz, n, dtype):
    """Also where a signal is shorter than the filter, and where a rate is no simple ratio."""
    values = np.round(np.random.default_rng(n).normal(1e5, 1000, n)).astype(dtype)
    factor = resampling.ratio(rate_hz, 100.0)
    up, down = factor.numerator, factor.denominator
    taps = resampling.lowpass(up, down)
    theirs = scipy.signal.resample_poly(values.astype(float), up, down, window=taps, padtype="antireflect")
    ours = resampling.resample(values, factor)
    assert len(ours) == (n - 1) * up // down + 1
    assert np.abs(ours - theirs[: len(ours)]).max() < 1e-9


def test_no_number_of_threads_changes_a_resampled_bit():
    values = np.random.default_rng(6).normal(0, 1000, 200_000)
    for rate_hz in (200.0, 125.0, 20.0, 99.5):
        factor, results = resampling.ratio(rate_hz, 100.0), []
        for threads in (1, 2, 4):
            with threadpoolctl.threadpool_limits(threads):
                results.append(resampling.resample(values, factor).tobytes())
        assert len(set(results)) == 1


def test_runs_and_short_ones():
    mask = np.array([1, 1, 0, 1, 0, 0, 1, 1, 1], np.bool_)
    assert signals.runs(mask).tolist() == [[0, 2], [3, 4], [6, 9]]
    assert signals.runs(~mask).tolist() == [[2, 3], [4, 6]]
    assert signals.runs(np.zeros(3, np.bool_)).tolist() == []
    assert signals.runs(np.ones(3, np.bool_)).tolist() == [[0, 3]]
    assert signals.runs(np.zeros(0, np.bool_)).tolist() == []
    assert signals.others(signals.runs(mask), 9).tolist() == [[0, 0], [2, 3], [4, 6], [9, 9]]
    assert signals.drop_short(mask, 3).tolist() == [[6, 9]]
    assert mask.tolist() == [False] * 6 + [True] * 3


def test_measured_knows_nan_masks_and_fill_values():
    assert signals.measured(np.array([1, -5, 7], np.int32)) is None
    assert signals.measured(np.array([1, 2**31 - 1, -(2**31), 3], np.int32)).tolist() == [True, False, False, True]
    assert signals.measured(np.array([1, np.nan, np.inf, -np.inf, 2], np.float32)).tolist() == [
        True,
        *[False] * 3,
        True,
    ]
    assert signals.measured(np.array([2.0**31, 5e9], np.float32)).tolist() == [False, True]
    assert signals.measured(np.ma.masked_equal(np.array([1, 9, 2]), 9)).tolist() == [True, False, True]


def test_constant_finds_the_dead_stretch_to_the_sample():
    values = np.random.default_rng(0).normal(size=1000)
    have = np.ones(1000, np.bool_)
    assert signals.constant(values, have, 50) is None
    values[300:360] = 7
    assert np.flatnonzero(signals.constant(values, have, 50)).tolist() == list(range(300, 360))
    assert signals.constant(values, have, 61) is None
    have[330] = False
    assert signals.constant(values, have, 50) is None


def test_is_constant_looks_at_the_runs_only():
    values = np.full(30_000, 7, np.int32)
    values[[100, 20_000]] = 3
    assert signals.is_constant(values, np.array([[0, 100], [101, 20_000]]))
    assert not signals.is_constant(values, np.array([[0, 100], [101, 20_001]]))
    assert not signals.is_constant(values, np.array([[0, 100], [20_000, 20_001]]))
    assert not signals.is_constant(values, np.empty((0, 2), np.int64))


def spikes(values):
    return signals.spikes(values, signals.extremes(values))


def clipped(values):
    return signals.clipped(values, signals.extremes(values))


@pytest.mark.parametrize("n", [1, signals.BLOCK - 1, signals.BLOCK, signals.BLOCK + 1, 5 * signals.BLOCK + 7])
def test_extremes_are_those_of_each_block(n):
    values = np.random.default_rng(n).integers(-(2**31), 2**31, n).astype(np.int32)
    blocks = [values[i : i + signals.BLOCK] for i in range(0, n, signals.BLOCK)]
    known = signals.extremes(values)
    assert known.low.tolist() == [b.min() for b in blocks]
    assert known.high.tolist() == [b.max() for b in blocks]


@pytest.mark.parametrize("at", [signals.BLOCK + k for k in (-2, -1, 0, 1, 2)])
def test_what_lies_across_two_blocks_is_found(at):
    values = np.random.default_rng(8).integers(-100, 100, 3 * signals.BLOCK).astype(np.int32)
    values[at] = -(2**31) + 10  # a step that int32 cannot hold
    values[at + 1000] = 2**31 - 10
    assert spikes(values).tolist() == [at, at + 1000]
    flat = np.random.default_rng(9).normal(0, 1, 3 * signals.BLOCK)
    flat[at - 3 : at + 3] = 50
    assert clipped(flat) == 6
    assert clipped(-flat) == 6
    flat[at] = 49
    assert clipped(flat) == 0


def test_clipped_counts_flat_tops_only():
    t = np.arange(6000) / 100
    signal = 20 * np.sin(2 * np.pi * t) * np.exp(-(((t - 30) / 2) ** 2)) + np.random.default_rng(1).normal(0, 0.1, 6000)
    assert clipped(signal) == 0
    top = np.clip(signal, -15, 15)
    assert clipped(top) == (np.abs(top) == 15).sum() > 50
    assert clipped(np.tile([0.0, 0, 0, 0, 0, 0, 1], 500)) == 0


def test_spikes_are_lone_samples_and_not_arrivals():
    t = np.arange(6000) / 100
    rng = np.random.default_rng(2)
    quiet = rng.normal(0, 1, 6000)
    arrival = quiet + 1e4 * np.where(t > 30, np.exp(-(t - 30)) * np.sin(2 * np.pi * 18 * (t - 30)), 0)
    assert len(spikes(arrival)) == 0
    assert len(spikes(np.where(t > 30, 1e5, 0) + quiet)) == 0
    at = [0, 1, 777, 3000, 5998, 5999]
    spiky = quiet.copy()
    spiky[at] += np.array([1, -1, -1, 1, 1, -1]) * 1e5
    assert {777, 3000} <= set(spikes(spiky).tolist()) <= set(at)
    assert spikes(np.round(rng.normal(0, 0.2, 6000))).tolist() == []  # one count is no spike


# --- merging ------------------------------------------------------------------------------------------------


def merged(pieces, n=1000, rate_hz=100.0):
    return tracks.merge(pieces, Axis(0, rate_hz, n))


def piece(values, at, rate_hz=100.0):
    """A piece that starts ``at`` samples of 100 Hz after 0."""
    return Piece(np.asarray(values), round(at * NS / 100), rate_hz)


def test_pieces_come_together_in_any_order():
    data = np.random.default_rng(3).integers(-100, 100, 1000)
    parts = [piece(data[:300], 0), piece(data[250:600], 250), piece(data[250:600], 250), piece(data[700:], 700)]
    parts.append(piece(data[580:650] + 1, 580))  # contradicts 580..600
    for order in permutations(parts):
        track = merged(order)
        assert np.flatnonzero(track.clash).tolist() == list(range(580, 600))
        assert np.flatnonzero(~track.have).tolist() == [*range(580, 600), *range(650, 700)]
        good = np.flatnonzero(track.have & ~((np.arange(1000) >= 600) & (np.arange(1000) < 650)))
        assert (track.values[good] == data[good]).all()


@pytest.mark.parametrize("tear", [-0.9, -0.6, -0.4, -0.1, 0.0, 0.1, 0.4, 0.6, 0.9])
def test_a_time_tear_of_less_than_a_sample_is_no_gap(tear):
    data = np.arange(1, 1001)
    for first in (0.0, 0.2, 0.45, -0.45):
        track = merged([piece(data[:500], first), piece(data[500:], 500 + tear + first)], n=1003)
        span = np.flatnonzero(track.have)
        assert (np.diff(span) == 1).all()
        assert not track.clash.any()
        later = np.searchsorted(track.values[: span[-1]], 600)  # sample 599 of the data is at 599 + tear + first
        assert abs(later - (599 + tear + first)) <= 0.5 + 1e-9


def test_one_lost_sample_is_a_gap():
    data = np.arange(1, 1001)
    track = merged([piece(data[:500], 0), piece(data[501:], 501)])
    assert np.flatnonzero(~track.have).tolist() == [500]


@pytest.mark.parametrize("rate_hz", [99.9999, 100.0001, 99.995])
def test_a_rate_slightly_off_keeps_true_time_all_day(rate_hz):
    n = round(4 * 3600 * rate_hz)
    axis = Axis(0, 100.0, 4 * 3600 * 100)
    track = tracks.merge([Piece(np.arange(n, dtype=np.float64), 0, rate_hz)], axis)
    assert track.have[: int((n - 1) * 100 / rate_hz)].all()
    true = np.arange(axis.n) / 100 * rate_hz  # number of the sample at each instant
    worst = np.abs(track.values - true)[track.have].max()
    assert worst < 0.5 + tracks.MAX_DRIFT + 0.01


def test_counts_stay_integers_until_a_half_is_needed():
    data = np.arange(1, 1001, dtype=np.int32)
    whole = merged([piece(data[:500], 0), piece(data[500:], 500)])
    assert whole.values.dtype == np.int32
    torn = merged([piece(data[:500], 0), piece(data[501:], 500.6)])
    assert torn.values[499:502].tolist() == [500, 501, 502]
    mixed = merged([piece(data[:500], 0), piece(data[500:] + 0.5, 500)])
    assert mixed.values[499:501].tolist() == [500, 501.5]


def test_large_offsets_cost_no_precision():
    data = np.random.default_rng(4).normal(0, 1, 1000)
    samples = np.zeros(1000, np.float32)
    tracks.fill_row(samples, Axis(0, 100.0, 1000), {"HHZ": [Piece(data + 2e9, 0, 100.0)]}, 1, Findings())
    rounding = np.abs((data + 2e9) - 2e9 - data).max()
    assert np.abs(samples - (data - data.mean())).max() < 2 * rounding + 1e-6
