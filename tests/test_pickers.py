"""Every SeisBench model that labels P and S gives what SeisBench gives; several at once, and ensembles."""

import inspect
from datetime import date
from pathlib import Path

import numpy as np
import obspy
import pytest
import seisbench.models as sbm
import torch

from pipeline.config import Also, Archive, Compute, Pick
from pipeline.errors import ConfigError
from pipeline.formats.waveforms import read_shard
from pipeline.maths import filters, triggers
from pipeline.models import generic, weights
from pipeline.models.engine import seeing
from pipeline.models.picker import Picker, Pickers, load
from pipeline.records import DAY_NS, NS, Shard, Waveform
from tests.test_picker import part, waveform
from tests.weights_at_hand import need

DATA = Path(__file__).parents[2] / "shared" / "data"

TOLERANCE = 1e-5  # of probabilities; two orders of summation in FP32


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Fewer windows of a point model in a block: the result is the same, and sooner there."""
    monkeypatch.setattr(generic, "POINTS", 64)


def shaken(model, seed=0):
    """``model`` with random weights, batch norms that do something, and answers all over the place."""
    torch.manual_seed(seed)
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv1d | torch.nn.ConvTranspose1d | torch.nn.Linear)]
    heads = [m for m in layers if m is layers[-1] or getattr(m, "out_channels", 0) == 1]
    norms = [m for m in model.eval().modules() if isinstance(m, torch.nn.BatchNorm1d)]
    for module in norms:
        torch.nn.init.uniform_(module.weight, 0.5, 2.0)
        torch.nn.init.uniform_(module.bias, -0.5, 0.5)
        module.train().momentum = 1.0
    hooks = [module.register_forward_hook(loud) for module in heads]
    with torch.no_grad():
        model(model.annotate_batch_pre(torch.randn(4, 3, model.in_samples).cumsum(dim=2), argdict={}))
    [hook.remove() for hook in hooks]
    return model.eval()


def loud(module, _, out):
    """Scale the last layer of a network so that its answers, before the sigmoid or softmax, are about -1 +- 0.7."""
    factor = min(0.7 / float(out.std()), 60.0)
    mean = out.mean(dim=[d for d in range(out.ndim) if d != 1])
    module.bias.copy_((module.bias - mean) * factor - 1)
    module.weight.mul_(factor)


class Middle(sbm.PhaseNet):
    """Answers for the samples 500 to 2800 of its windows."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.pred_sample = (500, 2800)

    def forward(self, x, logits=False):
        return super().forward(x, logits)[:, :, 500:2800]


FITS = {
    "PhaseNet": lambda: sbm.PhaseNet(component_order="ENZ"),
    "PhaseNetLight": lambda: sbm.PhaseNetLight(component_order="Z12"),
    "VariableLengthPhaseNet": lambda: sbm.VariableLengthPhaseNet(in_samples=1000, norm="std", norm_axis=(-1, -2)),
    "LFEDetect": lambda: sbm.LFEDetect(output_activation="sigmoid", sampling_rate=20),
    "BasicPhaseAE": sbm.BasicPhaseAE,
    "GPD": lambda: sbm.GPD(phases="PSN", default_args={"stride": 20}),
    "Skynet": sbm.Skynet,
    "EQTransformer": lambda: sbm.EQTransformer(lstm_blocks=1, norm="peak", norm_detrend=True),
    "OBSTransformer": lambda: sbm.OBSTransformer(norm_amp_per_comp=True),
    "EQTP": lambda: sbm.EQTP(in_samples=3000, default_args={"overlap": 0.5}),
}
MORE = {
    "part of the window": Middle,
    "conservative": lambda: sbm.EQTransformer(original_compatible="conservative", in_samples=6000),
    "filter": lambda: sbm.PhaseNet(filter_args=("highpass",), filter_kwargs={"freq": 1.0}),
    "stride 31": lambda: sbm.GPD(phases="NSP", pred_sample=150, original_compatible=True, default_args={"stride": 31}),
}
REFUSED = {
    "DPPDetector": (lambda: sbm.DPPDetector(), "its output is None"),
    "DPPPicker": (lambda: sbm.DPPPicker("P"), "its output is None"),
    "CRED": (lambda: sbm.CRED(), "lack P or S"),
    "DKPN": (lambda: sbm.DKPN(), "ways of its own: annotate_stream_pre"),
    "DepthPhaseNet": (lambda: sbm.DepthPhaseNet(), "lack P or S"),
    "DepthPhaseTEAM": (lambda: sbm.DepthPhaseTEAM(), "lack P or S"),
    "PhaseTEAM": (lambda: sbm.PhaseTEAM(), "groups by 'full'"),
    "DeepDenoiser": (lambda: sbm.DeepDenoiser(), "groups by 'channel'"),
    "SeisDAE": (lambda: sbm.SeisDAE(), "groups by 'channel'"),
    "EQCCTP": (lambda: sbm.EQCCTP(), "lack P or S"),
    "EQCCTS": (lambda: sbm.EQCCTS(), "lack P or S"),
}


def stream_of(wave):
    """The same as ObsPy sees it: a trace a component and contiguous piece."""
    edges = np.flatnonzero(np.diff(wave.valid.astype(int), prepend=0, append=0)).reshape(-1, 2)
    header = {"network": "X", "station": "A", "sampling_rate": wave.rate_hz}
    stream = obspy.Stream()
    for row, component in enumerate("ZNE"):
        for first, last in edges:
            start = obspy.UTCDateTime(ns=int(wave.start_ns + round(first * NS / wave.rate_hz)))
            stats = header | {"channel": "HH" + component, "starttime": start}
            stream.append(obspy.Trace(wave.samples[row, first:last].copy(), stats))
    return stream


def record(model, n=None, seed=0):
    """Data at the model's rate with two gaps, and a window or two in each segment."""
    n = n or max(14_000, 4 * model.in_samples + 1000)
    valid = np.ones(n, bool)
    valid[n // 4 : n // 4 + 50] = valid[n // 2 : n // 2 + 1] = False
    wave = waveform(n, seed, valid=valid)
    return Waveform(wave.samples, wave.valid, wave.start_ns, float(model.sampling_rate), wave.components)


@pytest.mark.parametrize("name", [*FITS, *MORE])
def test_probabilities_and_picks_are_those_of_seisbench(name):
    model = shaken((FITS | MORE)[name]())
    wave = record(model)
    ours = Picker.from_model(model, Pick()).scores(wave)
    seen, stride = np.zeros_like(ours.probability, dtype=bool), model.default_args.get("stride", 10)
    step = stride if model.output_type == "point" else 1
    annotated = model.annotate(stream_of(wave))
    for row, phase in enumerate("PS"):
        for trace in annotated.select(channel=f"*_{phase}"):
            at = round((trace.stats.starttime.ns - wave.start_ns) * wave.rate_hz / NS)
            where = slice(at, at + (len(trace) - 1) * step + 1, step)
            np.testing.assert_allclose(ours.probability[row, where], trace.data, atol=TOLERANCE)
            seen[row, at : where.stop] = True
    assert np.nanstd(ours.probability, axis=1).min() > 3e-4  # the network does answer
    assert not np.isfinite(ours.probability[~seen]).any()
    thresholds = dict(zip("PS", np.nanquantile(ours.probability, 0.98, axis=1).tolist(), strict=True))
    named = {f"{phase}_threshold": value for phase, value in thresholds.items()}
    theirs = model.classify_aggregate(annotated, named).picks
    found = triggers.picks(triggers.runs(ours, thresholds), wave, "X.A..HH", 0.0, (0, 2**62))
    inside = sorted((pick.phase, round(pick.peak_time.ns / 1e6)) for pick in theirs if pick.phase in "PS")
    assert len(inside) > 1
    assert sorted(zip(found.phase.tolist(), np.rint(found.time_ns / 1e6).tolist(), strict=True)) == inside


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_label_p_and_s_is_refused(name, monkeypatch):
    monkeypatch.setattr(sbm.DepthPhaseModel, "__init__", lambda self, **_: None)  # it would download travel times
    make, reason = REFUSED[name]
    with pytest.raises(ConfigError, match=reason):
        Picker.from_model(make(), Pick())


def test_every_model_of_seisbench_is_one_of_the_two():
    classes = {name for name, found in inspect.getmembers(sbm, inspect.isclass) if issubclass(found, sbm.WaveformModel)}
    assert classes - {"WaveformModel"} == set(FITS) | set(REFUSED)
    assert set(weights.CLASSES) == set(FITS)


def test_other_phases_than_p_and_s_are_refused():
    for model in (sbm.GPD(), sbm.Skynet(phases=["Pn", "Pg", "Sn", "Sg"], classes=4)):
        with pytest.raises(ConfigError, match="lack P or S"):
            Picker.from_model(model, Pick())


def ensemble():
    also = (Also(weight="b"), Also(weight="c"))
    models = [shaken(FITS[name](), seed) for seed, name in enumerate(("PhaseNet", "GPD", "VariableLengthPhaseNet"))]
    return Pickers.from_models(models, Pick(weight="a", ensemble="mean", also=also)).pickers[0]


@pytest.mark.parametrize("name", ["GPD", "stride 31", "VariableLengthPhaseNet", "part of the window", "filter", "all"])
def test_midnight_is_no_edge(name):
    """Two shards cut from one record give the same bytes within half a window of the midnight between them."""
    picker = ensemble() if name == "all" else Picker.from_model(shaken((FITS | MORE)[name]()), Pick())
    midnight, context, half = 14_000, round(picker.context_s * 100), min(e.length for e in picker.engines) // 2
    n = midnight + context + 3000
    valid = np.ones(n, bool)
    valid[midnight + 200 : midnight + 210] = valid[1000:1100] = False
    whole = waveform(n, 1, 18_000 * DAY_NS - midnight * 10_000_000 + 1234, valid)
    evening = picker.scores(part(whole, 1237, midnight + context)).probability[:, midnight - 1237 - half :]
    morning = picker.scores(part(whole, midnight - context, n - 771)).probability[:, context - half :]
    assert np.isfinite(evening[:, : 2 * half]).mean() > 0.5
    assert evening[:, : 2 * half].tobytes() == morning[:, : 2 * half].tobytes()


@pytest.mark.parametrize("n", [150, 399, 400, 427, 7000])
def test_a_point_model_in_a_short_segment(n):
    model = shaken(FITS["GPD"]())
    wave = waveform(n)
    seen = np.flatnonzero(np.isfinite(Picker.from_model(model, Pick()).scores(wave).probability[0]))
    points = max((n - 400) // 20, 0)
    assert seen.tolist() == ([] if n <= 200 else list(range(200, 200 + 20 * points + 1)))


def test_results_do_not_depend_on_threads_or_on_what_follows():
    model, wave = shaken(FITS["GPD"]()), waveform(16_000)
    one, three = (Picker.from_model(model, Pick(), Compute(threads=k)).scores(wave).probability for k in (1, 3))
    assert one.tobytes() == three.tobytes()
    short = Picker.from_model(model, Pick()).scores(part(wave, 0, 9_000)).probability
    assert short[:, :5000].tobytes() == one[:, :5000].tobytes()


def test_lines_between_points():
    points = torch.tensor([[0.0, 1.0, 1.0, 0.25], [1.0, float(np.nextafter(np.float32(1), np.float32(0))), 0.5, 0.5]])
    drawn = generic.line(points, 10).numpy()
    for row, values in zip(drawn, points.numpy(), strict=True):
        np.testing.assert_allclose(row, np.interp(np.arange(31) / 10, range(4), values), atol=1e-6)
    assert drawn.argmax(axis=1).tolist() == [10, 0]
    assert (drawn[1, 1:10] < 1).all()
    assert generic.line(points[:, :1], 10).tolist() == [[0.0], [1.0]]


def test_a_point_models_results_do_not_depend_on_the_size_of_its_blocks(monkeypatch):
    model, wave = shaken(FITS["GPD"]()), waveform(7000)
    monkeypatch.setattr(generic, "POINTS", 256)
    large = Picker.from_model(model, Pick()).scores(wave).probability
    monkeypatch.setattr(generic, "POINTS", 50)
    small = Picker.from_model(model, Pick()).scores(wave).probability
    np.testing.assert_allclose(large, small, atol=1e-6)


def test_the_stride_of_a_point_model_is_what_its_windows_do_not_overlap():
    model = shaken(FITS["GPD"]())
    fine = Picker.from_model(model, Pick(overlap_samples=395))
    assert fine.engines[0].grid == 5
    with pytest.raises(ConfigError, match="overlap by 0 to 399"):
        Picker.from_model(model, Pick(overlap_samples=400))
    with pytest.raises(ConfigError, match="none of it can be blind"):
        Picker.from_model(model, Pick(blinding_samples=(5, 5)))


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("highpass",), {"freq": 2.0, "corners": 2}),
        (("bandpass",), {"freqmin": 1.0, "freqmax": 20.0}),
        ((), {"type": "lowpass", "freq": 10.0, "zerophase": True}),
        (("bandstop",), {"freqmin": 1.0, "freqmax": 20.0, "corners": 3, "zerophase": True}),
    ],
)
def test_filters_are_those_of_obspy(args, kwargs):
    model = sbm.PhaseNet(filter_args=args, filter_kwargs=kwargs)
    wave = record(model, 40_000)
    ours = filters.filtered(wave, generic.filter_of(model))
    theirs = stream_of(wave).filter(*args, **kwargs)
    for trace in theirs:
        row, at = "ZNE".index(trace.id[-1]), round((trace.stats.starttime.ns - wave.start_ns) / 10_000_000)
        np.testing.assert_allclose(ours[row, at : at + len(trace)], trace.data, atol=1e-6 * np.abs(wave.samples).max())
    assert (ours[:, ~wave.valid] == 0).all()


@pytest.mark.parametrize("zerophase", [False, True])
def test_a_filter_gives_the_same_bytes_in_two_records(zerophase):
    wanted = filters.Filter("highpass", (0.5,), 2, zerophase)
    whole = waveform(100_000, 3, 18_000 * DAY_NS + 123)
    context = round(wanted.context_s(100.0) * 100)
    first, second = (
        filters.filtered(part(whole, 0, 70_000), wanted),
        filters.filtered(part(whole, 20_123, 100_000), wanted),
    )
    inside = slice(20_123 + context, 70_000 - context)
    assert first[:, inside].tobytes() == second[:, inside.start - 20_123 : inside.stop - 20_123].tobytes()
    assert inside.stop - inside.start > 10_000


def test_a_filter_that_remembers_hours_is_refused():
    model = sbm.PhaseNet(filter_args=("highpass",), filter_kwargs={"freq": 1e-5})
    with pytest.raises(ConfigError, match="too low"):
        Picker.from_model(model, Pick())


# --- several pickers ------------------------------------------------------------------------------------------------

NAMES = ("VariableLengthPhaseNet", "PhaseNet", "GPD")
ALSO = (Also(weight="b", threshold_p=0.2, stacking="avg"), Also(weight="c"))


def several(**settings):
    models = [shaken(FITS[name](), seed) for seed, name in enumerate(NAMES)]
    return models, Pickers.from_models(models, Pick(weight="a", also=ALSO, **settings))


def test_several_pickers_are_what_each_is_alone():
    models, pickers = several()
    wave = record(models[1], 13_000)
    runs, scores = pickers.both(wave)
    settings = Pick(weight="a", also=ALSO).pickers
    assert pickers.names == ("a", "b", "c")
    assert pickers.context_s == pickers.pickers[1].context_s == 45.11
    assert [p.thresholds for p in pickers.pickers] == [(0.3, 0.3), (0.2, 0.3), (0.3, 0.3)]
    for model, pick, mine, trace in zip(models, settings, runs, scores, strict=True):
        alone = Picker.from_model(model, pick)
        assert trace.probability.tobytes() == alone.scores(wave).probability.tobytes()
        assert mine.probability.tobytes() == alone.runs(wave).probability.tobytes()
    some = part(wave, 0, 1000)
    assert [found.n for found in pickers.runs(some)] == [score.probability.shape[1] for score in pickers.scores(some)]


def test_the_waveform_is_on_the_device_once_for_a_filter():
    models = [shaken(make(), 0) for make in (FITS["PhaseNet"], MORE["filter"], FITS["GPD"])]
    engines = [Picker.from_model(model, Pick()).engines[0] for model in models]
    first, filtered, third = load(engines, record(models[0]))
    assert first.samples is third.samples
    assert first.samples is not filtered.samples


@pytest.mark.parametrize("how", ["mean", "max"])
@pytest.mark.parametrize("precision", ["fp32", "screened"])
def test_an_ensemble_picks_on_the_combined_trace(how, precision):
    also = (Also(weight="b"), Also(weight="c"))
    models = [shaken(FITS[name](), seed) for seed, name in enumerate(NAMES)]
    wave = record(models[1], 13_000)
    each = [score.probability for score in Pickers.from_models(models, Pick(weight="a", also=also)).scores(wave)]
    expected = np.mean(each, axis=0) if how == "mean" else np.max(each, axis=0)  # NaN where one of them is
    threshold = float(np.nanquantile(expected, 0.99))
    pick = Pick(weight="a", also=also, ensemble=how, threshold_p=threshold, threshold_s=threshold, precision=precision)
    pickers = Pickers.from_models(models, pick)
    (runs,), (scores,) = pickers.both(wave)
    assert pickers.names == (f"{how} of a, b, c",)
    if precision == "fp32":
        np.testing.assert_allclose(scores.probability, expected, atol=1e-6)
    exact = triggers.runs(
        type(scores)(expected.astype(np.float32), scores.phases, scores.start_ns, scores.rate_hz),
        {"P": threshold, "S": threshold},
    )
    assert len(exact.first) > 5
    assert triggers.peaks(runs)[0].tolist() == triggers.peaks(exact)[0].tolist()


def test_only_windows_that_see_a_candidate_are_scored_again():
    windows = np.array([[0, 100], [50, 100], [200, 30]])
    assert seeing(windows, 100, (10, 20)).tolist() == [[10, 70], [60, 70], [210, 20]]
    assert seeing(windows, 100, (40, 75)).tolist() == [[40, 0], [90, 0], [230, 0]]


@pytest.mark.skipif(not DATA.exists(), reason="no real records beside the checkout: screening is not tested on any")
@pytest.mark.parametrize("weight", ["phasenet/original", "eqtransformer/conservative"])
def test_screened_picks_are_those_of_fp32(weight):
    shard = Shard(date(2019, 7, 4), "CI.WNM.", "HN")
    wave, _ = read_shard(Archive(root=DATA / "ridgecrest" / "sds"), shard, 60.0, 100.0, (0, 2**62))
    model = weights.load(need(weight))
    exact, screened = (Picker.from_model(model, Pick(precision=p)).runs(wave) for p in ("fp32", "screened"))
    assert len(exact.first) > 20
    assert exact.first.tolist() == screened.first.tolist()
    assert exact.probability.tobytes() == screened.probability.tobytes()


def test_pickers_of_two_sampling_rates_are_refused():
    models = [sbm.PhaseNet(), sbm.LFEDetect(sampling_rate=20)]
    with pytest.raises(ConfigError, match="slow takes 20 Hz and phasenet/original 100 Hz"):
        Pickers.from_models(models, Pick(also=(Also(weight="slow"),)))
