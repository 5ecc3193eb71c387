"""Earthquakes in noise: the ratio is the one asked for, labels are where the waves are, parts share no waveform."""

from functools import lru_cache
from itertools import combinations

import numpy as np
import pytest

from pipeline.maths.augment import Record
from pipeline.maths.traveltime import uniform
from tests import microseismic_cases as cases
from tests import microseismic_maths as microseismic
from tests.microseismic_maths import Field, Measure

NAN = float("nan")
RATE_HZ = 100.0
PLAIN = Measure(RATE_HZ, lambda samples: samples)
real = pytest.mark.skipif(not cases.DATA.exists(), reason="shared data are not here: no real earthquakes and noise")


def earthquake(rng, p=3000, s=3300, noise=1.0, components=3, n=9000):
    """Noise of a level of its own, then white waves 20 times (P) and 40 times (S) as loud."""
    samples = noise * rng.standard_normal((3, n))
    samples[:, p:] += 20 * rng.standard_normal((3, n - p)) * np.exp(-np.arange(n - p) / 300)
    samples[:, s:] += 40 * rng.standard_normal((3, n - s)) * np.exp(-np.arange(n - s) / 300)
    samples[components:] = 0
    return Record(samples.astype(np.float32), float(p), float(s))


def rms(samples):
    return np.sqrt(np.mean(np.asarray(samples, np.float64) ** 2))


@pytest.mark.parametrize("snr", [0.5, 1.0, 3.0])
def test_the_ratio_that_was_asked_for_is_there(snr):
    """Measured on the sums alone, against the level before P, which holds the noise of both; 40 draws."""
    rng = np.random.default_rng(1)
    before, during = [], []
    for _ in range(40):
        noise = (300 * rng.standard_normal((3, 4000))).astype(np.float32)
        found = microseismic.buried(earthquake(rng), noise, 2000, snr, PLAIN)
        before.append(rms(found.samples[:, :2000]))
        during.append(rms(found.samples[:, 2000:2100]))
        assert (found.p, found.s) == (2000, 2300)
    assert np.sqrt(rms(during) ** 2 - rms(before) ** 2) / rms(before) == pytest.approx(snr, rel=0.05)


def test_the_factor_is_that_of_the_definition():
    """By hand, of levels known exactly: E 26 (P waves 5), own noise 1, noise 4: a^2 = 4 SNR^2 / (25 - SNR^2)."""
    samples = np.ones((3, 4000), np.float32)
    samples[:, 2000:] = np.sqrt(26.0)
    samples[:, ::2] *= -1
    noise = np.full((3, 500), 2.0, np.float32)
    record = Record(samples, 2000.0, NAN)
    for snr in (0.5, 2.0, 4.9):
        expected = np.sqrt(4 * snr**2 / (25 - snr**2))
        assert microseismic.factor(record, noise, snr, PLAIN) == pytest.approx(expected, rel=1e-6)
    assert PLAIN.own_snr(record) == pytest.approx(5, rel=1e-6)
    with pytest.raises(ValueError, match=r"SNR 5\.1 of a record whose own is 5"):
        microseismic.factor(record, noise, 5.1, PLAIN)


def test_a_component_without_data_has_none_afterwards_and_does_not_count():
    rng = np.random.default_rng(2)
    noise = (300 * rng.standard_normal((3, 4000))).astype(np.float32)
    one = earthquake(rng, components=1)
    found = microseismic.buried(one, noise, 2000, 2.0, PLAIN)
    assert not found.samples[1:].any()
    louder = noise * np.array([[1], [50], [50]], np.float32)
    assert microseismic.factor(one, louder, 2.0, PLAIN) == microseismic.factor(one, noise, 2.0, PLAIN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at": 3500}, "P at 3500 of 4000 samples"),
        ({"record": Record(np.ones((3, 9000), np.float32), 500.0, NAN)}, "the SNR needs 10.5 s before it"),
        ({"noise": np.zeros((3, 4000), np.float32)}, "noise that is not silent"),
    ],
)
def test_what_cannot_be_buried_is_refused(change, message):
    rng = np.random.default_rng(3)
    given = {"record": earthquake(rng), "noise": rng.standard_normal((3, 4000), np.float32), "at": 100} | change
    with pytest.raises(ValueError, match=message):
        microseismic.buried(given["record"], given["noise"], given["at"], 1.0, PLAIN)


def test_moveout_is_distance_over_velocity():
    field = Field(np.array([3.0, 0.0, -6.0]), np.array([4.0, 0.0, 8.0]), (0.0, 0.0, 2.0))
    distance_km = np.array([np.sqrt(29), 2.0, np.sqrt(104)])
    assert field.distance_km() == pytest.approx(distance_km)
    expected = np.stack([distance_km / 5.5, distance_km / 3.2], axis=1)
    assert field.arrivals_s(uniform(5.5, 3.2)) == pytest.approx(expected, rel=1e-9)


def test_waves_of_a_network_begin_where_its_labels_say():
    """Without noise: nothing moves before P but the ramp, and the S of each is louder than its P."""
    rng = np.random.default_rng(4)
    records = [earthquake(rng, p=3000, s=3200 + 50 * k, noise=0.0) for k in range(4)]
    field = microseismic.field(4, 12.0, (3.0, 8.0), rng)
    arrivals = 400 + 100 * field.arrivals_s(uniform(5.5, 3.2))
    silent = np.full((4, 3, 1500), 1e-6, np.float32)
    found = microseismic.network(records, silent, arrivals, np.full(4, 1e4), PLAIN)
    for one, (p, s) in zip(found, arrivals, strict=True):
        assert abs(one.p - p) <= 0.5
        assert abs(one.s - s) <= 0.5
        loud = np.abs(one.samples).max(axis=0)
        ramp = round(microseismic.RAMP_S * RATE_HZ)
        assert loud[: int(one.p) - ramp].max() < 1e-3 * loud[int(one.p) : int(one.p) + 20].max()
        assert rms(one.samples[:, int(one.s) : int(one.s) + 50]) > 1.3 * rms(one.samples[:, int(one.p) : int(one.s)])
    assert np.ptp([one.p for one in found]) == pytest.approx(100 * np.ptp(field.distance_km()) / 5.5, abs=1)


def test_the_p_train_ends_at_s_and_the_s_train_begins_there():
    record = Record(np.ones((3, 6000), np.float32), 3000.0, 3300.0)
    first, second = microseismic.trains(record, RATE_HZ)
    assert first.samples[0, [2989, 3000, 3300, 3311]].tolist() == [0, 1, 1, 0]
    assert second.samples[0, [3289, 3300, 5300, 5311]].tolist() == [0, 1, 1, 0]
    with pytest.raises(ValueError, match="both are needed"):
        microseismic.trains(Record(record.samples, 3000.0, NAN), RATE_HZ)


def test_amplitudes_spread_as_one_over_distance():
    assert microseismic.spread(1.0, np.array([5.0, 10.0, 20.0]), (0.1, 9.0)).tolist() == [2.0, 1.0, 0.5]
    assert microseismic.spread(1.0, np.array([5.0, 10.0, 20.0]), (0.6, 1.5)).tolist() == [1.5, 1.0, 0.6]


@real
def test_real_waves_of_a_network_begin_where_the_travel_times_say():
    """Without noise: nothing moves before the ramp at P, and there is no gap before S."""
    silent = {f"silence {k}": np.full((3, cases.SAMPLES), 1e-6, np.float32) for k in range(8)}
    for one in cases.networks("test", silent, 5, (4, 8), 1500, np.random.default_rng(5)):
        assert len(set(one.source)) == len(one.source)
        for record in one.records:
            wave = record.samples != np.float32(1e-6)
            first = int(np.argmax(wave.any(axis=0)))
            assert record.p - 11 <= first <= record.p  # the ramp is 0.1 s
            assert wave[:, int(record.p) : int(record.s)].any(axis=0).mean() > 0.99  # the P train lasts to S
        ahead = np.array([record.s - record.p for record in one.records]) / 100
        p_s = np.array([record.p for record in one.records]) / 100
        assert np.abs(np.diff(ahead) - np.diff(p_s) * (5.5 / 3.2 - 1)).max() < 0.03  # Wadati's line


@real
def test_real_records_have_the_ratio_that_was_drawn():
    """Above 1 Hz in the frequency domain: what was added to the noise, against the noise and what came before P."""
    calm = _noise()["train"]
    found = cases.singles("train", calm, 60, 5, seed=1)
    seen = []
    for record, name in zip(found.records[:60], found.noise, strict=False):
        there = record.samples.any(axis=1)
        quake, noise = _above(record.samples - calm[name])[there], _above(calm[name])[there]
        p = int(record.p)
        own = rms(quake[:, 100 : p - 50])
        wave = rms(quake[:, p : int(min(record.p + 100, record.s))])
        seen.append(np.sqrt(max(wave**2 - own**2, 0) / (rms(noise) ** 2 + own**2)))
    told = found.snr[:60]
    assert np.median(seen / told) == pytest.approx(1, abs=0.05)
    assert np.abs(np.log(seen / told)).mean() < 0.15  # the record's noise is another few seconds here
    assert found.source[60:] == [""] * 5
    assert np.isnan(found.truth.p_s[60:]).all()


def _above(samples):
    spectrum = np.fft.rfft(samples, axis=1)
    spectrum[:, : samples.shape[1] // 100] = 0
    return np.fft.irfft(spectrum, samples.shape[1], axis=1)


@real
def test_no_waveform_and_no_noise_is_in_two_parts():
    """Looked for in the samples themselves, not in names."""
    found = {part: cases.earthquakes(part) for part in cases.PARTS}
    calm = _noise()
    for a, b in combinations(cases.PARTS, 2):
        waves, theirs = (
            {row.tobytes() for r in found[part].values() for row in r.samples[:, 3000:3050] if row.any()}
            for part in (a, b)
        )
        quiet, others = ({row.tobytes() for x in calm[part].values() for row in np.diff(x[:, :50])} for part in (a, b))
        assert not waves & theirs
        assert not quiet & others
        stations, known = ({"_".join(name.split("_")[:2]) for name in found[part]} for part in (a, b))
        assert not stations & known
        assert not set(cases.ridgecrest_stations(a)) & set(cases.ridgecrest_stations(b))
        assert cases.HOURS[cases.PARTS.index(a)][1] < cases.HOURS[cases.PARTS.index(b)][0]
    assert {part: len(each) for part, each in found.items()} == {"train": 19, "validation": 12, "test": 22}


@real
def test_noise_is_what_is_quiet_and_far_from_listed_earthquakes():
    """A quiet that refuses every second piece leaves the others, less what is beside them."""
    every = list(cases.pieces("validation", 1))
    odd = cases.noise("validation", lambda samples: np.arange(len(samples)) % 2 == 1, 1)
    assert list(odd) == [name for name, _ in every][1::2]
    assert all(x.shape == (3, cases.SAMPLES) and abs(float(x.mean())) < 1e-2 * x.std() for x in odd.values())
    listed = np.datetime64("2019-07-04T17:02:55")  # magnitude 3.98
    after = [np.datetime64(name.split()[1]) - listed for name, _ in every]
    assert not any(np.timedelta64(-70, "s") < each < np.timedelta64(90, "s") for each in after)


@lru_cache
def _noise():
    return {part: cases.noise(part, lambda samples: np.ones(len(samples), bool), stations=1) for part in cases.PARTS}
