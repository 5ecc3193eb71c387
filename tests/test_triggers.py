import numpy as np
import pytest
from obspy.signal.trigger import trigger_onset

from pipeline.maths import triggers
from pipeline.maths.triggers import gap_samples, peaks, runs, snr_db, suppress
from pipeline.records import NS, Scores, Waveform

ALL = (-(2**62), 2**62)


def bumps(n, at, height, sigma):
    x = np.arange(n)
    return sum(h * np.exp(-0.5 * ((x - a) / s) ** 2) for a, h, s in zip(at, height, sigma, strict=True)).astype(
        np.float32
    )


def peaks_of(trace, threshold):
    """Samples and widths of the picks of one trace."""
    at, _, width = peaks(runs(Scores(np.asarray(trace, np.float32)[None], ("P",), 0, 100.0), {"P": threshold}))
    return at, width


def picks(scores, wave, channel, thresholds, separation_s, span_ns):
    return triggers.picks(runs(scores, thresholds), wave, channel, separation_s, span_ns)


def record(n, p=None, s=None, noise=0.0, valid=None, start_ns=0):
    rows = np.array([np.zeros(n) if row is None else row for row in (p, s)], np.float32)
    rng = np.random.default_rng(0)
    samples = (noise * rng.standard_normal((3, n))).astype(np.float32)
    valid = np.ones(n, bool) if valid is None else valid
    return Scores(rows, ("P", "S"), start_ns, 100.0), Waveform(samples, valid, start_ns, 100.0, (True, True, True))


@pytest.mark.parametrize("seed", range(30))
def test_triggers_are_those_of_obspy_and_seisbench(seed):
    rng = np.random.default_rng(seed)
    trace = np.convolve(rng.random(3000) ** 8, np.hanning(9) / 3, "same").astype(np.float32)
    trace[rng.integers(0, 3000, 5)] = np.nan
    theirs = [start + np.argmax(trace[start : stop + 1]) for start, stop in trigger_onset(trace, 0.3, 0.15)]
    assert len(theirs) > 5
    assert peaks_of(trace, 0.3)[0].tolist() == theirs


@pytest.mark.parametrize("trace", [[], [0.1, 0.1], [np.nan] * 5, [0.3], [0.2, 0.3], [0.3, 0.3], [np.nan, 0.4, np.nan]])
def test_triggers_at_the_edges(trace):
    trace = np.array(trace, np.float32)
    theirs = [start + np.argmax(trace[start : stop + 1]) for start, stop in trigger_onset(trace, 0.3, 0.15)]
    assert peaks_of(trace, 0.3)[0].tolist() == theirs


def test_of_two_close_picks_the_better_stays_and_of_equals_the_earlier():
    at = np.array([100, 130, 300, 320, 500])
    value = np.array([0.5, 0.9, 0.7, 0.7, 0.4])
    assert at[suppress(at, value, 50)].tolist() == [130, 300, 500]
    assert at[suppress(at, value, 20)].tolist() == at.tolist()
    assert at[suppress(at, value, 0)].tolist() == at.tolist()


def test_a_suppressed_pick_suppresses_nobody():
    assert suppress(np.array([0, 40, 80]), np.array([0.9, 0.5, 0.4]), 50).tolist() == [0, 2]


def test_the_width_of_a_gaussian_is_2355_sigma():
    trace = bumps(1000, [200, 700], [0.9, 0.4], [12.0, 5.0])
    np.testing.assert_allclose(peaks_of(trace, 0.2)[1], 2.3548 * np.array([12.0, 5.0]), rtol=2e-3)


def test_the_width_is_not_known_where_the_trace_ends_before_half():
    trace = np.array([0.9, 1.0, 0.9, 0.4, 0, 0, 1.0, 0.8, np.nan], np.float32)
    at, width = peaks_of(trace, 0.9)
    assert at.tolist() == [1, 6]
    assert np.isnan(width).all()


def test_a_wide_plateau_has_its_width():
    trace = np.zeros(3000, np.float32)
    trace[500:2500] = 0.8
    assert peaks_of(trace, 0.3)[1].tolist() == [2000.0]


def test_snr_is_the_ratio_of_rms_without_the_mean():
    _, wave = record(2000)
    wave.samples[:] = 500 + np.sin(2 * np.pi * np.arange(2000) / 20)  # whole periods in both windows
    wave.samples[0, 1000:] = 10 * (wave.samples[0, 1000:] - 500)
    assert snr_db(wave, np.array([1000]), (0,)) == pytest.approx(20, abs=1e-3)
    assert snr_db(wave, np.array([1000]), (1, 2)) == pytest.approx(0, abs=1e-3)
    assert snr_db(wave, np.array([1000]), (0, 1)) == pytest.approx(10 * np.log10(101 / 2), abs=1e-3)


def test_snr_is_not_known_without_data():
    _, wave = record(2000, noise=1.0)
    assert np.isnan(snr_db(wave, np.array([30]), (0,)))  # no noise window
    assert np.isnan(snr_db(wave, np.array([1990]), (0,)))  # no signal window
    only_z = Waveform(wave.samples, wave.valid, 0, 100.0, (True, False, False))
    assert np.isnan(snr_db(only_z, np.array([1000]), (1, 2)))
    assert np.isfinite(snr_db(only_z, np.array([1000]), (0,)))
    assert np.isnan(snr_db(record(2000)[1], np.array([1000]), (0,)))  # dead channel


def test_the_distance_to_a_gap_counts_gaps_and_both_ends():
    valid = np.ones(100, bool)
    valid[40:45] = False
    assert gap_samples(valid, np.array([0, 30, 39, 45, 50, 99])).tolist() == [1, 10, 1, 1, 6, 1]
    assert gap_samples(valid, np.array([42])).tolist() == [0]


def test_picks_have_the_times_of_their_samples_and_lie_in_the_span():
    scores, wave = record(
        6000, p=bumps(6000, [1000, 3000, 5000], [0.9, 0.8, 0.7], [10] * 3), start_ns=7 * NS + 18_391_000
    )
    found = picks(scores, wave, "X.A..HH", {"P": 0.3, "S": 0.3}, 0.0, ALL)
    expected = [7 * NS + 18_391_000 + i * 10_000_000 for i in (1000, 3000, 5000)]
    assert found.time_ns.tolist() == expected
    assert set(found.station) == {"X.A..HH"}
    assert picks(scores, wave, "X.A..HH", {"P": 0.3}, 0.0, (expected[1], expected[2])).time_ns.tolist() == [expected[1]]
    assert found.probability.tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_phases_have_their_thresholds_and_the_order_is_canonical():
    scores, wave = record(3000, p=bumps(3000, [2000], [0.5], [9]), s=bumps(3000, [1000, 2000], [0.5, 0.2], [9, 9]))
    found = picks(scores, wave, "X.A..HH", {"P": 0.3, "S": 0.15}, 0.0, ALL)
    assert found.phase.tolist() == ["S", "P", "S"]
    assert picks(scores, wave, "X.A..HH", {"P": 0.3}, 0.0, ALL).phase.tolist() == ["P"]
    assert len(picks(scores, wave, "X.A..HH", {"P": 0.6, "S": 0.6}, 0.0, ALL)) == 0


def test_separation_is_decided_before_the_span_cuts():
    scores, wave = record(3000, p=bumps(3000, [1000, 1100], [0.9, 0.5], [9, 9]))
    assert len(picks(scores, wave, "X.A..HH", {"P": 0.3}, 2.0, (1050 * 10_000_000, 2**62))) == 0


def test_a_trace_of_nan_has_no_pick():
    scores, wave = record(500, p=np.full(500, np.nan), s=np.full(500, np.nan))
    assert len(picks(scores, wave, "X.A..HH", {"P": 0.3, "S": 0.3}, 1.0, ALL)) == 0


def test_scores_of_another_record_are_refused():
    scores, _ = record(500)
    with pytest.raises(ValueError, match="other times"):
        picks(scores, record(400)[1], "X.A..HH", {"P": 0.3}, 0.0, ALL)
