"""Label curves against SeisBench's own labellers; crops and changes against what they promise."""

import numpy as np
import pytest

from pipeline.maths.augment import (
    Augmentation,
    Record,
    augmented,
    crop_start,
    cropped,
    dropped,
    gapped,
    noisy,
    rotated,
)
from pipeline.maths.targets import detection, targets

N = 3001
PICKS = [
    (1000.0, 1200.0),
    (1000.5, 1003.25),
    (-4.0, 50.0),
    (2990.0, 3010.0),
    (np.nan, np.nan),
    (700.0, np.nan),
    (np.nan, 9.0),
]
P, S = np.array(PICKS).T


@pytest.mark.parametrize("shape", ["gaussian", "triangle"])
@pytest.mark.parametrize(("labels", "half_width"), [("NPS", 10), ("PSN", 20), ("PSN", 30)])
def test_curves_are_those_of_seisbench(shape, labels, half_width):
    from seisbench.generate import ProbabilisticLabeller

    columns = {"trace_p_arrival_sample": "P", "trace_s_arrival_sample": "S"}
    labeller = ProbabilisticLabeller(label_columns=columns, shape=shape, sigma=half_width, model_labels=labels, dim=0)
    ours = targets(labels, P, S, N, half_width, shape)
    assert ours.dtype == np.float32
    for i, (p, s) in enumerate(PICKS):
        state = {"X": (np.zeros((3, N)), {"trace_p_arrival_sample": p, "trace_s_arrival_sample": s})}
        labeller(state)
        np.testing.assert_allclose(ours[i], state["y"][0], atol=1e-6, err_msg=str((p, s)))


def test_the_detection_is_that_of_seisbench():
    from seisbench.generate import DetectionLabeller

    labeller = DetectionLabeller("p", "s", factor=1.4)
    for i, (p, s) in enumerate(PICKS):
        state = {"X": (np.zeros((3, N)), {"p": p, "s": s})}
        labeller(state)
        np.testing.assert_array_equal(detection(P, S, N)[i], state["y"][0][0], str((p, s)))


def test_the_order_of_outputs_is_that_of_the_network():
    from seisbench.models import EQTransformer, PhaseNet

    eqt = targets(EQTransformer().labels, P, S, N, 20)
    assert eqt.shape == (len(P), 3, N)
    np.testing.assert_array_equal(eqt[:, 0], detection(P, S, N))
    assert eqt[0].argmax(axis=1).tolist() == [1000, 1000, 1200]
    phasenet = targets(PhaseNet(phases="NPS").labels, P, S, N, 20)
    assert phasenet[0, 1:].argmax(axis=1).tolist() == [1000, 1200]
    np.testing.assert_allclose(phasenet.sum(axis=1), 1, atol=1e-6)
    with pytest.raises(ValueError, match="each once"):
        targets("PPS", P, S, N, 20)


def ramp(n=9001, p=3000.0, s=3400.0, first=0, stop=-1):
    samples = np.random.default_rng(5).standard_normal((3, n)).astype(np.float32)
    samples[:, 3000:3600] *= 50
    return Record(samples, p, s, first, stop)


@pytest.mark.parametrize("window", [3001, 6000])
def test_p_lies_anywhere_in_a_crop(window):
    record, rng = ramp(), np.random.default_rng(0)
    at = np.array([3000 - crop_start(record, window, rng) for _ in range(4000)])
    inside = at[(at >= 0) & (at < window)]
    assert 0.8 < len(inside) / len(at) < 1, "sometimes only S is seen"
    feasible = np.clip([max(0, window - 6001), min(3000, window - 1)], 0, None)  # the record ends somewhere
    share = np.histogram(inside, 10, (feasible[0], feasible[1] + 1))[0] / len(inside)
    assert np.abs(share - 0.1).max() < 0.03, share
    assert ((at + 400 >= 0) & (at < window)).all(), "never without a pick"


def test_a_crop_stays_in_the_usable_part_and_keeps_the_wave_under_its_onset():
    rng = np.random.default_rng(1)
    record = ramp(first=2500, stop=5000)
    for _ in range(200):
        out = augmented(record, 2000, Augmentation(outside=0), rng)
        start = round(record.p - out.p)
        assert 2500 <= start <= 3000
        np.testing.assert_array_equal(out.samples, record.samples[:, start : start + 2000])
        assert out.s - out.p == 400
    wide = augmented(record, 6000, Augmentation(outside=0), rng)
    assert np.count_nonzero(wide.samples.any(axis=0)) == 2500, "what may not be used is 0"
    at = round(record.p - wide.p)
    np.testing.assert_array_equal(wide.samples[:, 2500 - at : 5000 - at], record.samples[:, 2500:5000])
    noise = ramp(p=np.nan, s=np.nan)
    assert len({crop_start(noise, 3001, rng) for _ in range(50)}) > 40
    outside = [crop_start(ramp(), 2000, rng, outside=1.0) for _ in range(300)]
    assert all(start > 3400 or start + 2000 <= 3000 for start in outside)


def test_the_noise_added_has_the_ratio_that_was_asked_for():
    record = cropped(ramp(), 2000, 3000)
    noise = np.random.default_rng(2).standard_normal((3, 3000)).astype(np.float32) * 7
    for snr_db in (-6.0, 0.0, 12.0):
        added = noisy(record, snr_db, noise).astype(np.float64) - record.samples
        ratio = np.sqrt(np.mean(record.samples[:, 1000:].astype(np.float64) ** 2) / np.mean(added**2))
        assert 20 * np.log10(ratio) == pytest.approx(snr_db, abs=0.02)
    vertical = Record(record.samples * np.array([[1], [0], [0]], np.float32), record.p, record.s)
    assert not noisy(vertical, 0.0, noise)[1:].any(), "a dead component stays dead"


def test_rotation_keeps_the_horizontal_motion_and_the_vertical():
    x = ramp().samples
    turned = rotated(x, 0.7)
    np.testing.assert_array_equal(turned[0], x[0])
    np.testing.assert_allclose(np.hypot(turned[1], turned[2]), np.hypot(x[1], x[2]), rtol=1e-4, atol=1e-5)
    quarter = rotated(x, np.pi / 2)
    np.testing.assert_allclose(quarter[1:], np.stack([-x[2], x[1]]), atol=1e-4)
    np.testing.assert_allclose(rotated(turned, -0.7), x, atol=1e-4)
    alone = x * np.array([[1], [1], [0]], np.float32)
    np.testing.assert_array_equal(rotated(alone, 0.7), alone)


def test_components_are_dropped_but_never_all():
    rng = np.random.default_rng(3)
    left = [int(dropped(ramp(100).samples, rng).any(axis=1).sum()) for _ in range(200)]
    assert set(left) == {1, 2}
    vertical = ramp(100).samples * np.array([[1], [0], [0]], np.float32)
    np.testing.assert_array_equal(dropped(vertical, rng), vertical)


def test_a_pick_in_a_gap_is_gone():
    out = gapped(ramp(), 2990, 20)
    assert np.isnan(out.p)
    assert out.s == 3400
    assert not out.samples[:, 2990:3010].any()
    assert out.samples[:, 3010].all()


def test_all_switched_off_changes_nothing_and_the_generator_decides_all():
    record = ramp()
    out = augmented(record, 3001, Augmentation(outside=0), np.random.default_rng(4))
    start = round(record.p - out.p)
    np.testing.assert_array_equal(out.samples, record.samples[:, start : start + 3001])
    before = record.samples.copy()
    how = Augmentation(0.1, 1, 1, 1, 1, 1, 1)
    one, two = (augmented(record, 3001, how, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one.samples, two.samples)
    assert one.samples.dtype == np.float32
    np.testing.assert_array_equal(record.samples, before)
    other = augmented(record, 3001, how, np.random.default_rng(6))
    assert not np.array_equal(one.samples, other.samples)
