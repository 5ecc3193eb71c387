"""Amplitudes near picks: known ground motion through a real response, ObsPy on the whole record, what spoils one."""

from dataclasses import replace

import numpy as np
import obspy
import pytest
from obspy.signal.invsim import simulate_seismometer

from pipeline.formats import responses
from pipeline.maths import magnitude, motion
from pipeline.maths.motion import CLIPPED, GAP, NO_HORIZONTAL, NO_RESPONSE, NOISE, Rules
from pipeline.maths.response import GAIN, POLES_RAD_S, Response, wood_anderson
from pipeline.records import NS, Picks, Waveform
from tests.test_response import AT, SHIPPED, accelerometer, channel, saved

RATE_HZ, START_NS = 100.0, AT[0] + 3600 * NS
RULES = Rules((0.2, 0.5, 35.0, 45.0), 60.0, 10.0, 3.0, True, 0.8 * 2**23)
P_S, S_S = 100.0, 110.0
GRID = motion.grid(RATE_HZ)


@pytest.fixture(scope="module")
def real():
    return responses.of([SHIPPED], "BW.RJOB..EH", AT, GRID)[0]


@pytest.fixture(scope="module")
def sharp(tmp_path_factory):
    path = saved(tmp_path_factory.mktemp("xml"), *(channel(f"HN{c}", accelerometer()) for c in "ZNE"))
    return responses.of([path], "XX.ABC..HN", AT, GRID)[0]


def burst(frequency_hz, metres, at_s=S_S + 3, n=24_000, seconds=2.0):
    """Ground displacement (n,): a wave packet so long that it is a sinusoid at its top."""
    t = np.arange(n) / RATE_HZ - at_s
    return metres * np.exp(-((t / seconds) ** 2) / 2) * np.cos(2 * np.pi * frequency_hz * t)


def recorded(displacement, response, noise=0.0):
    """Counts of rows Z N E (3, n) float32 of a displacement (3, n), m: its spectrum times the response."""
    n = displacement.shape[-1]
    frequency_hz = np.fft.rfftfreq(n, 1 / RATE_HZ)
    velocity = np.fft.rfft(displacement) * 2j * np.pi * frequency_hz
    curve = np.array([np.interp(frequency_hz, GRID, row) for row in response.counts_per_m_s])
    samples = np.fft.irfft(velocity * curve, n) + np.random.default_rng(0).normal(0, noise, (3, n))
    return Waveform(samples.astype(np.float32), np.ones(n, np.bool_), START_NS, RATE_HZ, (True, True, True))


def picks(*of):
    phase, at_s = zip(*of, strict=True)
    n, known = len(of), np.ones(len(of), np.float32)
    time_ns = START_NS + np.rint(np.array(at_s) * NS).astype(np.int64)
    return Picks(np.full(n, "BW.RJOB..EH"), np.array(phase), time_ns, known, known, known, known)


BOTH = picks(("P", P_S), ("S", S_S))


def measured(waveform, response, of=BOTH, rules=RULES):
    operator = motion.operators(response, RATE_HZ, rules)
    return motion.with_amplitudes(of, waveform, [(response, operator)], rules)


def in_mm(frequency_hz, metres):
    return abs(wood_anderson(np.array([frequency_hz]))[0]) * 2 * np.pi * frequency_hz * metres


@pytest.mark.parametrize("frequency_hz", [0.8, 1.5, 3.0, 8.0])
@pytest.mark.parametrize("ml", [0.5, 3.0])
def test_a_synthetic_amplitude_returns_its_magnitude(real, sharp, frequency_hz, ml):
    r_km = np.array([40.0])
    for instrument in (real, sharp):
        mm = 10 ** (ml - magnitude.hutton_boore(r_km)[0])
        metres = mm / in_mm(frequency_hz, 1.0)
        displacement = np.stack([burst(frequency_hz, metres * share) for share in (0.3, 1.0, 1.0)])
        found = measured(recorded(displacement, instrument), instrument)
        ours = np.log10(found.wood_anderson_mm[1]) + magnitude.hutton_boore(r_km)[0]
        assert ours == pytest.approx(ml, abs=0.02)
        assert found.amplitude_m_s[1] == pytest.approx(metres * 2 * np.pi * frequency_hz, rel=0.03)
        assert np.isnan(found.wood_anderson_mm[0])
        assert found.amplitude_reason.tolist() == ["", ""]


def test_a_real_earthquake_as_obspy_has_it_over_the_whole_record(real):
    stream = obspy.read()
    data = np.random.default_rng(0).normal(0, 1, (3, 24_000))
    for row, trace in enumerate(stream):
        data[row, 10_000:13_000] += trace.data - trace.data[:300].mean()
    waveform = Waveform(data.astype(np.float32), np.ones(24_000, np.bool_), START_NS, RATE_HZ, (True, True, True))
    found = measured(waveform, real, picks(("P", 105.0), ("S", 106.5)), replace(RULES, both=False, snr=0.0))
    seismometer = {"poles": list(POLES_RAD_S), "zeros": [0j], "gain": 1.0, "sensitivity": GAIN}
    peaks, speeds = [], []
    for row, trace in enumerate(stream):
        whole = obspy.Trace(data[row], trace.stats)
        whole.remove_response(obspy.read_inventory(SHIPPED), pre_filt=RULES.pre_filter_hz, water_level=60)
        speeds.append(np.abs(whole.data[10_600:11_150]).max())
        mm = 1000 * simulate_seismometer(
            whole.data, RATE_HZ, paz_simulate=seismometer, taper=False, zero_mean=False, pitsasim=False
        )
        peaks.append(np.abs(mm[10_650:11_650]).max())
    assert found.wood_anderson_mm[1] == pytest.approx(max(peaks[1:]), rel=2e-3)
    assert found.amplitude_m_s[1] == pytest.approx(max(speeds), rel=2e-3)


def test_neither_other_picks_nor_the_start_of_the_record_change_an_amplitude(real):
    displacement = np.random.default_rng(3).normal(0, 1e-7, (3, 60_000)).cumsum(axis=1)
    displacement -= np.linspace(0, 1, 60_000) * displacement[:, -1:]
    whole = recorded(displacement, real)
    later = 4321
    part = replace(
        whole, samples=whole.samples[:, later:], valid=whole.valid[later:], start_ns=START_NS + later * NS // 100
    )
    rules = replace(RULES, snr=0.0)
    few, many = (
        picks(*(("PS"[k % 2], 100.0 + 3.7 * k) for k in range(100) if k in chosen)) for chosen in ({50}, range(100))
    )
    alone, among = measured(whole, real, few, rules), measured(whole, real, many, rules)
    row = int(np.flatnonzero(among.time_ns == few.time_ns[0])[0])
    assert alone.amplitude_m_s[0] == pytest.approx(among.amplitude_m_s[row], rel=1e-5)
    shorter = measured(part, real, many, rules)
    there = np.isfinite(shorter.amplitude_m_s)
    assert there.sum() > 80
    np.testing.assert_allclose(shorter.amplitude_m_s[there], among.amplitude_m_s[there], rtol=1e-3)
    np.testing.assert_allclose(shorter.wood_anderson_mm, among.wood_anderson_mm, rtol=1e-3)


def shaken(real, noise=5.0):
    return recorded(np.stack([burst(3.0, 1e-6 * share) for share in (0.5, 1.0, 0.25)]), real, noise)


def test_both_horizontals_or_the_larger_one(real):
    wave = shaken(real, 0.0)
    mean, largest = (float(measured(wave, real, BOTH, replace(RULES, both=b)).wood_anderson_mm[1]) for b in (1, 0))
    assert largest == pytest.approx(in_mm(3.0, 1e-6), rel=0.01)
    assert mean == pytest.approx(largest / 2, rel=0.01)


def test_noise_before_the_p_wave_is_what_counts(real):
    wave = shaken(real)
    early = np.stack([burst(3.0, 0.5e-6 * share, P_S - 3, seconds=0.5) for share in (0.5, 1.0, 0.25)])
    loud = replace(wave, samples=wave.samples + recorded(early, real).samples)
    assert measured(wave, real).amplitude_reason.tolist() == ["", ""]
    found = measured(loud, real)
    assert found.amplitude_reason.tolist() == ["", NOISE]
    assert np.isnan(found.wood_anderson_mm[1])
    assert found.amplitude_m_s[1] > 0
    assert measured(loud, real, picks(("S", S_S))).amplitude_reason.tolist() == [""]  # no P: noise just before the S
    assert measured(loud, real, rules=replace(RULES, snr=1.5)).amplitude_reason.tolist() == ["", ""]


@pytest.mark.parametrize(("first_s", "reason"), [(112.0, GAP), (124.0, GAP), (126.0, ""), (96.0, GAP), (88.0, "")])
def test_a_gap_in_or_beside_the_windows(real, first_s, reason):
    wave = shaken(real)
    gap = slice(round(first_s * 100), round(first_s * 100) + 10)
    wave.valid[gap], wave.samples[:, gap] = False, 0
    assert measured(wave, real).amplitude_reason[1] == reason
    assert np.isnan(measured(wave, real).wood_anderson_mm[1]) == bool(reason)


def test_the_ends_of_a_record_are_gaps(real):
    wave = shaken(real)
    found = measured(wave, real, picks(("P", 2.0), ("S", 5.0), ("P", 228.0), ("S", 235.0)))
    assert found.amplitude_reason.tolist() == [GAP] * 4


def test_clipped_records_have_no_amplitude(real):
    wave = shaken(real)
    top = 0.6 * np.abs(wave.samples[1]).max()
    assert top > motion.FLAT_COUNTS
    flat = replace(wave, samples=np.clip(wave.samples, -top, top))
    assert measured(flat, real).amplitude_reason.tolist() == ["", CLIPPED]  # the P's window ends before
    limit = replace(RULES, clip_counts=float(top))
    found = measured(wave, real, BOTH, limit)
    assert found.amplitude_reason.tolist() == ["", CLIPPED]
    assert np.isnan(found.amplitude_m_s).tolist() == [False, True]


def test_a_component_that_is_dead_does_not_count(real):
    wave = shaken(real)
    wave.samples[2, 11_000:11_500] = 0
    assert measured(wave, real).amplitude_reason[1] == NO_HORIZONTAL
    larger = measured(wave, real, rules=replace(RULES, both=False))
    assert larger.wood_anderson_mm[1] == pytest.approx(in_mm(3.0, 1e-6), rel=0.02)
    wave.samples[:, 11_000:11_500] = 0
    assert measured(wave, real).amplitude_reason[1] == GAP


def test_without_a_response_there_is_none(real):
    wave = shaken(real)
    assert motion.with_amplitudes(BOTH, wave, [], RULES).amplitude_reason.tolist() == [NO_RESPONSE] * 2
    vertical = replace(real, counts_per_m_s=real.counts_per_m_s * np.array([[1], [0], [0]]))
    found = measured(wave, vertical)
    assert found.amplitude_reason.tolist() == ["", NO_HORIZONTAL]
    assert np.isfinite(found.amplitude_m_s).all()
    nothing = replace(real, counts_per_m_s=real.counts_per_m_s * 0)
    assert measured(wave, nothing).amplitude_reason.tolist() == [NO_RESPONSE] * 2
    assert len(motion.with_amplitudes(Picks.empty(), wave, [], RULES)) == 0
    assert len(measured(wave, real, Picks.empty())) == 0


def test_each_pick_has_the_response_of_its_time(real):
    wave, change_ns = shaken(real, 0.0), START_NS + round(105 * NS)
    before = Response(AT[0], change_ns, real.counts_per_m_s, real.rate_hz)
    after = Response(change_ns, AT[1], 2 * real.counts_per_m_s, real.rate_hz)
    known = [(each, motion.operators(each, RATE_HZ, RULES)) for each in (before, after)]
    found, usual = motion.with_amplitudes(BOTH, wave, known, RULES), measured(wave, real)
    assert found.amplitude_m_s[0] == pytest.approx(usual.amplitude_m_s[0])
    assert found.wood_anderson_mm[1] == pytest.approx(usual.wood_anderson_mm[1] / 2)
