import numpy as np
import obspy
import pytest
import seisbench.models as sbm
import torch

from pipeline.config import Compute, Pick
from pipeline.errors import ConfigError
from pipeline.maths import triggers
from pipeline.models import weights
from pipeline.models.picker import Picker, device_of, engine_of
from pipeline.records import DAY_NS, NS, Waveform
from tests.weights_at_hand import need

TOLERANCE = 1e-5  # of probabilities; two orders of summation in FP32
START_NS = 1_600_000_000 * NS


def phasenet(**kwargs):
    """A PhaseNet without training: as nonlinear, as fast, and there without any download."""
    torch.manual_seed(0)
    model = sbm.PhaseNet(component_order="ENZ", phases="NPS", **kwargs)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.weight, 0.5, 2.0)
            torch.nn.init.uniform_(module.bias, -1.0, 1.0)
    return model.eval()


def eqtransformer():
    torch.manual_seed(0)
    return sbm.EQTransformer(component_order="ENZ", original_compatible="non-conservative", lstm_blocks=2).eval()


def waveform(n, seed=0, start_ns=START_NS, valid=None):
    rng = np.random.default_rng(seed)
    samples = np.cumsum(rng.standard_normal((3, n)), axis=1)
    samples = (samples - samples.mean(axis=1, keepdims=True)).astype(np.float32)
    valid = np.ones(n, bool) if valid is None else valid
    samples[:, ~valid] = 0
    return Waveform(samples, valid, start_ns, 100.0, (True, True, True))


def stream_of(wave):
    """The same as ObsPy sees it: a trace a component and contiguous piece."""
    edges = np.flatnonzero(np.diff(wave.valid.astype(int), prepend=0, append=0)).reshape(-1, 2)
    header = {"network": "X", "station": "A", "sampling_rate": 100.0}
    stream = obspy.Stream()
    for row, component in enumerate("ZNE"):
        for first, last in edges:
            start = obspy.UTCDateTime(ns=int(wave.start_ns + first * 10_000_000))
            stats = header | {"channel": "HH" + component, "starttime": start}
            stream.append(obspy.Trace(wave.samples[row, first:last].copy(), stats))
    return stream


def part(wave, first, last):
    start = wave.start_ns + first * 10_000_000
    return Waveform(wave.samples[:, first:last], wave.valid[first:last], start, 100.0, wave.components)


@pytest.mark.parametrize("stacking", ["avg", "max"])
@pytest.mark.parametrize("model", [phasenet(), phasenet(norm="peak")], ids=["std", "peak"])
def test_probabilities_are_those_of_seisbench(model, stacking):
    valid = np.ones(30_000, bool)
    valid[9000:9500] = valid[20_000:20_001] = False
    wave = waveform(len(valid), valid=valid)
    picker = Picker.from_model(model, Pick(stacking=stacking, blinding_samples=(20, 30)))
    ours = picker.scores(wave)
    theirs = model.annotate(stream_of(wave), stacking=stacking, blinding=(20, 30), overlap=1500)
    seen = np.zeros_like(ours.probability, dtype=bool)
    for row, phase in enumerate("PS"):
        for trace in theirs.select(channel=f"PhaseNet_{phase}"):
            at = round((trace.stats.starttime.ns - wave.start_ns) / 10_000_000)
            np.testing.assert_allclose(ours.probability[row, at : at + len(trace)], trace.data, atol=TOLERANCE)
            seen[row, at : at + len(trace)] = True
    assert np.nanstd(ours.probability, axis=1).min() > 1e-3  # the network does answer
    assert np.isnan(ours.probability[~seen]).all()


def test_the_model_sees_its_own_order_of_components():
    class Echo(sbm.PhaseNet):
        def annotate_batch_pre(self, batch, argdict):
            return batch

        def forward(self, x, logits=False):
            return x

    wave = waveform(5000)
    for order in ("ENZ", "ZNE", "Z12"):
        picker = Picker.from_model(Echo(component_order=order, phases="NPS"), Pick())
        rows = {"Z": 0, "N": 1, "E": 2, "1": 1, "2": 2}
        expected = wave.samples[[rows[order[1]], rows[order[2]]]]  # labels N P S: P is the second row
        np.testing.assert_allclose(picker.scores(wave).probability, expected, rtol=1e-6)


def test_defaults_are_the_models_own():
    (engine,) = Picker.from_model(sbm.EQTransformer(component_order="ENZ"), Pick()).engines
    assert (engine.length, engine.overlap, engine.blinding) == (6000, 3000, (500, 500))
    model = phasenet(default_args={"overlap": 0.5, "blinding": (100, 100)})
    assert engine_of(model, Pick(), Compute()).overlap == 1500
    assert engine_of(model, Pick(), Compute()).blinding == (100, 100)
    assert engine_of(model, Pick(overlap_samples=2000, blinding_samples=(0, 1)), Compute()).blinding == (0, 1)


@pytest.mark.parametrize(("model", "seed"), [*((phasenet(), seed) for seed in range(4)), (eqtransformer(), 4)])
def test_midnight_is_no_edge(model, seed):
    """Two shards cut from one record give the same bytes within half a window of the midnight between them."""
    rng = np.random.default_rng(seed)
    midnight, n = 40_000, 90_000
    start_ns = 18_000 * DAY_NS - midnight * 10_000_000 + int(rng.integers(0, 9_999_999))
    valid = np.ones(n, bool)
    for _ in range(seed):  # none in the first case
        gap = rng.integers(0, n)
        valid[gap : gap + 500] = abs(np.arange(gap, min(gap + 500, n)) - midnight) < 20
    whole = waveform(n, seed, start_ns, valid)
    picker = Picker.from_model(model, Pick())
    context, half = round(picker.context_s * 100), picker.engines[0].length // 2
    evening = picker.scores(part(whole, 1234, midnight + context)).probability[:, midnight - 1234 - half :]
    morning = picker.scores(part(whole, midnight - context, n - 777)).probability[:, context - half :]
    evening, morning = evening[:, : 2 * half], morning[:, : 2 * half]
    assert np.isfinite(evening).any()
    assert evening.tobytes() == morning.tobytes()


@pytest.mark.parametrize("engine", ["auto", "seisbench"])
@pytest.mark.parametrize("seed", range(3))
def test_screened_picks_are_the_same_on_both_sides_of_midnight(seed, engine):
    midnight, n = 40_000, 90_000
    whole = waveform(n, seed, 18_000 * DAY_NS - midnight * 10_000_000 + 1_234_567)
    rng = np.random.default_rng(seed)
    whole.samples[:] = rng.standard_normal((3, n))
    for onset in range(500, n - 500, 450):  # bursts that ring down, some strong, some weak
        ringing = np.exp(-np.arange(400) / 60) * rng.uniform(2, 20)
        whole.samples[:, onset : onset + 400] += ringing * rng.standard_normal((3, 400))
    model, compute = weights.load(need("phasenet/original")), Compute(engine=engine)
    picker = Picker.from_model(model, Pick(precision="screened"), compute)
    context, half = round(picker.context_s * 100), picker.engines[0].length // 2
    span_ns = tuple(whole.start_ns + (midnight + edge) * 10_000_000 for edge in (-half, half))
    found = []
    for first, last in ((1234, midnight + context), (midnight - context, n - 777)):
        cut = part(whole, first, last)
        found.append(triggers.picks(picker.runs(cut), cut, "X.A..HH", 0.0, span_ns))
    near = [(f.time_ns > span_ns[0] + NS) & (f.time_ns < span_ns[1] - NS) for f in found]  # runs end at the edges
    evening, morning = (f.take(where) for f, where in zip(found, near, strict=True))
    assert len(evening) > 3
    for name in ("phase", "time_ns", "probability"):
        assert getattr(evening, name).tobytes() == getattr(morning, name).tobytes()


def test_results_do_not_depend_on_how_many_windows_follow():
    wave = waveform(200_000)
    picker = Picker.from_model(phasenet(), Pick())
    short, long = picker.scores(part(wave, 0, 60_000)), picker.scores(wave)
    assert short.probability[:, :55_000].tobytes() == long.probability[:, :55_000].tobytes()


def test_dead_components_give_no_nan():
    wave = waveform(20_000)
    picker = Picker.from_model(phasenet(), Pick())
    for dead in ([0], [1, 2], [0, 1, 2]):
        samples = wave.samples.copy()
        samples[dead] = 0
        scores = picker.scores(Waveform(samples, wave.valid, START_NS, 100.0, wave.components))
        assert np.isfinite(scores.probability).all()
    samples[:] = 3.5
    assert np.isfinite(picker.scores(Waveform(samples, wave.valid, START_NS, 100.0, wave.components)).probability).all()


def test_a_short_segment_does_not_vanish():
    valid = np.zeros(10_000, bool)
    valid[2000:3000] = True
    scores = Picker.from_model(phasenet(), Pick()).scores(waveform(10_000, valid=valid))
    assert np.isfinite(scores.probability[:, valid]).all()
    assert np.isnan(scores.probability[:, ~valid]).all()


def test_a_record_without_data_has_no_scores():
    scores = Picker.from_model(phasenet(), Pick()).scores(waveform(5000, valid=np.zeros(5000, bool)))
    assert np.isnan(scores.probability).all()


def test_the_same_bytes_every_time_and_with_any_number_of_threads():
    wave, model = waveform(60_000), phasenet()
    pickers = [Picker.from_model(model, Pick(), Compute(threads=threads)) for threads in (1, 2, 3, 1)]
    assert len({picker.scores(wave).probability.tobytes() for picker in pickers}) == 1


def test_another_sampling_rate_is_refused():
    wave = waveform(5000)
    slow = Waveform(wave.samples, wave.valid, START_NS, 50.0, wave.components)
    with pytest.raises(ConfigError, match=r"50.0 Hz, but the model takes 100.0 Hz"):
        Picker.from_model(phasenet(), Pick()).scores(slow)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (sbm.PhaseNet(phases="NXY"), "lack P or S"),
        (sbm.PhaseNet(component_order="ZNEH", in_channels=4), "components are 'ZNEH'"),
        (phasenet(filter_args=("bandpass",), filter_kwargs={"freqmin": 1}), "expected freqmin, freqmax"),
        (phasenet(filter_args=("integrate",), filter_kwargs={}), "wants a filter .*integrate"),
        (phasenet(filter_args={"??H": ("highpass",)}, filter_kwargs={}), "filter for each channel"),
        (sbm.PhaseNet(sampling_rate=None), "sampling rate is None"),
    ],
)
def test_a_model_that_would_be_run_otherwise_than_by_seisbench_is_refused(model, message):
    with pytest.raises(ConfigError, match=message):
        Picker.from_model(model, Pick())


@pytest.mark.parametrize(
    "settings", [{"overlap_samples": 3001}, {"overlap_samples": 100, "blinding_samples": (60, 60)}]
)
def test_windows_that_leave_samples_unseen_are_refused(settings):
    with pytest.raises(ConfigError, match="overlap"):
        Picker.from_model(phasenet(), Pick(**settings))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no GPU"):
        device_of("cuda:0")
