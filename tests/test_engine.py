import logging

import numpy as np
import pytest
import seisbench.models as sbm
import torch

from pipeline.errors import ConfigError
from pipeline.maths import triggers
from pipeline.maths.windows import Blender, plan
from pipeline.models import blend as blending
from pipeline.models import cuda, runs
from pipeline.models.blend import blend, blend_in, by_sample
from pipeline.models.engine import Engine
from pipeline.models.networks import SeisBench
from pipeline.records import NS, Scores, Waveform
from tests import bench_gpu

CPU = torch.device("cpu")
START_NS = 1_600_000_000 * NS
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: graphs and streams are not tried")


def phasenet(norm="std"):
    torch.manual_seed(0)
    model = sbm.PhaseNet(component_order="ENZ", phases="NPS", norm=norm)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.weight, 0.5, 2.0)
    return model.eval()


def red_noise(n, seed=0):
    return np.cumsum(np.random.default_rng(seed).standard_normal((3, n)), axis=1).astype(np.float32)


def record(valid, seed=0):
    samples = red_noise(len(valid), seed) * valid
    return Waveform(samples, valid, START_NS, 100.0, (True, True, True))


# --- blend ---


def blended(answers, windows, n, stacking, blinding):
    blender = Blender(answers.shape[1], n, stacking, blinding)
    for (start, samples), answer in zip(windows.tolist(), answers, strict=True):
        blender.add(start, samples, answer)
    return blender.result()


def plans():
    """Windows over gaps, over a seam, of every overlap, flush ones and short ones."""
    rng = np.random.default_rng(0)
    for length, overlap in ((101, 50), (101, 0), (64, 48), (30, 27), (50, 49)):
        for _ in range(4):
            valid = np.repeat(rng.random(9) < 0.7, rng.integers(1, 250, 9))
            at = np.sort(rng.integers(0, len(valid), 2))
            groups = plan(valid, length, overlap, 1, at).groups
            if groups:
                yield np.concatenate(groups), len(valid), length


@pytest.mark.parametrize("chunk", [1 << 21, 77])
@pytest.mark.parametrize("blinding", [(0, 0), (5, 9)])
@pytest.mark.parametrize("stacking", ["avg", "max"])
def test_blending_gives_the_bytes_of_the_blender(stacking, blinding, chunk, monkeypatch):
    monkeypatch.setattr(blending, "CHUNK", chunk)
    rng = np.random.default_rng(1)
    for windows, n, length in plans():
        answers = rng.standard_normal((len(windows), 2, length)).astype(np.float32)
        answers[rng.random(answers.shape) < 0.1] = np.nan
        expected = blended(answers, windows, n, stacking, blinding)
        ours = by_sample(torch.from_numpy(answers), windows, n, stacking, blinding).numpy()
        np.testing.assert_array_equal(ours, expected)
        assert (ours.view(np.int32) == expected.view(np.int32))[~np.isnan(ours)].all()
        edges = np.sort(rng.choice(n + 1, min(2 * (n // 20), n // 2 * 2), replace=False)).reshape(-1, 2)
        some = blend_in(torch.from_numpy(answers), windows, edges, stacking, blinding).numpy()
        np.testing.assert_array_equal(some, expected[:, runs.places(edges)])


def test_windows_in_no_order_are_blended_in_theirs():
    rng = np.random.default_rng(2)
    windows = np.stack([rng.integers(0, 300, 40), np.full(40, 60)], axis=1)
    answers = rng.standard_normal((40, 2, 60)).astype(np.float32)
    expected = blended(answers, windows, 400, "avg", (3, 2))
    np.testing.assert_array_equal(by_sample(torch.from_numpy(answers), windows, 400, "avg", (3, 2)).numpy(), expected)


def test_without_windows_or_with_all_of_them_blinded_there_is_no_probability():
    none, one = np.empty((0, 2), np.int64), np.array([[0, 10]])
    assert by_sample(torch.zeros(0, 2, 10), none, 20, "avg", (0, 0)).isnan().all()
    assert by_sample(torch.zeros(1, 2, 10), one, 20, "max", (5, 5)).isnan().all()
    with pytest.raises(ValueError, match="sum"):
        by_sample(torch.zeros(1, 2, 10), one, 20, "sum", (0, 0))


# --- runs ---


def traces():
    """Smooth random traces, with NaN, plateaus, runs at the edges, and values on the thresholds."""
    rng = np.random.default_rng(3)
    for n in (1, 2, 50, 3000):
        for _ in range(8):
            smooth = np.convolve(rng.random(n + 8) < 0.1, np.hanning(9), "valid")
            trace = np.stack([smooth, np.roll(smooth, 3)]).astype(np.float32)
            trace[rng.random(trace.shape) < 0.02] = np.nan
            yield np.minimum(trace, rng.choice([0.3, 0.6, 9.0])).astype(np.float32)
    yield np.zeros((2, 40), np.float32)
    yield np.full((2, 40), np.nan, np.float32)
    yield np.ones((2, 40), np.float32)


def test_runs_on_a_device_are_those_of_the_specification():
    found = 0
    for trace in traces():
        for thresholds in ((0.3, 0.6), (0.6, 0.3), (0.1, np.inf)):
            scores = Scores(trace, ("P", "S"), START_NS, 100.0)
            expected = triggers.runs(scores, dict(zip("PS", thresholds, strict=True)))
            phase, first, stop, probability = runs.find(torch.from_numpy(trace), thresholds)
            assert phase.tolist() == expected.phase.tolist()
            assert first.tolist() == expected.first.tolist()
            assert stop.tolist() == expected.stop.tolist()
            np.testing.assert_array_equal(probability, expected.probability)
            assert [c.dtype for c in (phase, first, stop, probability)] == [np.int64, np.int64, np.int64, np.float32]
            found += len(phase)
    assert found > 500


def test_candidates_are_the_runs_and_what_is_around_them():
    for trace in traces():
        n = trace.shape[1]
        _, first, stop, _ = runs.find(torch.from_numpy(trace), (0.3, 0.4))
        expected = np.zeros(n, bool)
        for at, samples in zip(first.tolist(), np.diff(stop, prepend=0).tolist(), strict=True):
            expected[max(at - 5, 0) : at + samples - 2 + 5] = True
        spans = runs.candidates(torch.from_numpy(trace), (0.3, 0.4), 5)
        assert (spans[1:, 0] > spans[:-1, 1]).all()
        places = runs.places(spans)
        assert places.tolist() == np.flatnonzero(expected).tolist()
        inside = runs.find(torch.from_numpy(trace), (0.3, 0.4))
        for ours, theirs in zip(
            runs.find_in(torch.from_numpy(trace[:, places]), spans, (0.3, 0.4)), inside, strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
        windows = np.array([[a, b] for a in range(0, n, 7) for b in (1, 3, 20) if a + b <= n])
        assert runs.sees(windows, spans).tolist() == [bool(expected[a : a + b].any()) for a, b in windows.tolist()]


# --- windows in chunks ---


def windows_of(n, length=3001, step=1500, short=()):
    starts = np.arange(0, n - length, step)
    return np.concatenate([np.stack([starts, np.full_like(starts, length)], 1), *(np.array([row]) for row in short)])


@pytest.mark.parametrize("model", [phasenet(), phasenet("peak"), sbm.PhaseNetLight(phases="NPS").eval()])
def test_chunks_answer_as_seisbench_does_short_windows_too(model):
    samples = torch.from_numpy(red_noise(40_000))
    windows = windows_of(40_000, short=[(100, 700), (39_000, 1000)])
    arguments = model, CPU, (2, 1, 0), (1, 2)
    theirs = SeisBench(*arguments).answers(samples, windows, "fp32")
    ours = cuda.Chunked(*arguments, chunk=16).answers(samples, windows, "fp32")
    assert theirs.std() > 1e-3
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_fp16_is_offered_only_where_nothing_overflows():
    """SeisBench's encoder of EQTransformer pads with -1e10; the lean one does not."""
    samples, windows = torch.from_numpy(red_noise(7000)), np.array([[500, 6000]])
    eqt, obs = sbm.EQTransformer(lstm_blocks=1).eval(), sbm.OBSTransformer(in_samples=6000).eval()
    arguments = CPU, (2, 1, 0), (1, 2)
    assert "fp16" not in SeisBench(eqt, *arguments).precisions
    assert "fp16" not in cuda.Chunked(obs, CPU, (2, 1, 0, 0), (1, 2)).precisions
    assert "fp16" in SeisBench(phasenet(), *arguments).precisions
    assert "fp16" in cuda.Chunked(eqt, *arguments).precisions
    assert cuda.Chunked(eqt, *arguments).answers(samples, windows, "fp16").isfinite().all()
    with pytest.raises(RuntimeError, match="overflow"):
        SeisBench(eqt, *arguments).answers(samples, windows, "fp16")


def test_windows_are_cut_as_a_loop_would():
    samples, rows = torch.from_numpy(red_noise(900)), torch.tensor([2, 0])
    table = torch.tensor([[0, 300], [600, 300], [17, 300]])
    expected = torch.stack([samples[[2, 0], a : a + b] for a, b in table.tolist()])
    assert torch.equal(cuda.cut(samples, rows, table, 300), expected)
    assert torch.equal(cuda.cut_short(samples, rows, table, 300), expected)
    short = torch.tensor([[850, 50], [0, 300]])
    found = cuda.cut_short(samples, rows, short, 300)
    tail = samples[[2, 0], 850:900]
    torch.testing.assert_close(found[0, :, :50], tail - tail.mean(1, keepdim=True), atol=1e-4, rtol=0)
    assert (found[0, :, 50:] == 0).all()


class Echo(torch.nn.Module):
    """A model of 10 samples that answers with its input, if that is at most ``most`` windows."""

    in_samples, sampling_rate, default_args = 10, 100.0, {}

    def __init__(self, most, error=None):
        super().__init__()
        self.most, self.sizes = most, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def annotate_batch_pre(self, data, argdict):
        return data

    def annotate_batch_post(self, answer, piggyback, argdict):
        return answer.transpose(1, 2)

    def forward(self, data):
        self.sizes.append(len(data))
        if len(data) > self.most:
            raise self.error
        return data.clone()


def echoed(most, chunk=512, error=None):
    model = Echo(most, error)
    return model, cuda.Chunked(model, CPU, (0, 1, 2), (1, 2), chunk=chunk)


def test_a_chunk_is_the_next_power_of_two_and_never_depends_on_more_than_the_group():
    samples = torch.from_numpy(red_noise(5000))
    for windows, sizes in ((1, [16]), (16, [16]), (17, [32]), (100, [64, 64]), (64, [64]), (130, [64, 64, 64])):
        model, network = echoed(10_000, chunk=64)
        table = windows_of(5000, 10, 7)[:windows]
        answers = network.answers(samples, table, "fp32")
        assert model.sizes == sizes
        assert torch.equal(answers, torch.stack([samples[1:, a : a + 10] for a in table[:, 0].tolist()]))


def test_out_of_memory_halves_the_chunk_for_good_and_says_so_once(caplog):
    samples, table = torch.from_numpy(red_noise(5000)), windows_of(5000, 10, 7)[:600]
    model, network = echoed(most=130)
    with caplog.at_level(logging.WARNING):
        answers = network.answers(samples, table, "fp32")
        again = network.answers(samples, table, "fp32")
    assert model.sizes == [512, 256, *[128] * 5, *[128] * 5]
    assert torch.equal(answers, torch.stack([samples[1:, a : a + 10] for a in table[:, 0].tolist()]))
    assert torch.equal(again, answers)
    texts = [r.getMessage() for r in caplog.records]
    assert len(texts) == 2
    assert "128 windows at once from now on instead of 256" in texts[1]
    assert "last bits" in texts[1]


def test_without_memory_for_sixteen_windows_the_run_ends_with_advice():
    _, network = echoed(most=15)
    with pytest.raises(ConfigError, match=r"compute.device 'cpu': no memory for 16 windows .* pick.precision 'bf16'"):
        network.answers(torch.from_numpy(red_noise(5000)), windows_of(5000, 10, 7)[:600], "fp32")


def test_a_library_without_memory_is_the_same_and_another_error_is_an_error():
    samples, table = torch.from_numpy(red_noise(5000)), windows_of(5000, 10, 7)[:600]
    model, network = echoed(300, error=RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert len(network.answers(samples, table, "fp32")) == 600
    assert model.sizes == [512, 256, 256, 256]
    _, network = echoed(300, error=RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"))
    with pytest.raises(RuntimeError, match="EXECUTION_FAILED"):
        network.answers(samples, table, "fp32")


# --- the engine ---


def engine(network, **settings):
    fixed = {"precision": "fp32", "rate_hz": 100.0, "length": 3001, "overlap": 1500, "blinding": (0, 0)}
    return Engine(network, CPU, stacking="avg", **(fixed | settings))


def test_a_trace_is_the_same_with_either_network():
    valid = np.ones(60_000, bool)
    valid[20_000:20_500] = valid[21_000:21_400] = False
    arguments = phasenet(), CPU, (2, 1, 0), (1, 2)
    traced = []
    for network in (SeisBench(*arguments), cuda.Chunked(*arguments, chunk=32)):
        one = engine(network)
        loaded = one.load(record(valid))
        traced.append(one.trace(loaded, one.answers(loaded, "fp32")).numpy())
    assert np.isnan(traced[0]).any(axis=0).tolist() == (~valid).tolist()
    np.testing.assert_allclose(traced[0], traced[1], atol=1e-5)


class Recorder:
    """Answers 1, and remembers what it was asked."""

    precisions, by_group = ("fp32",), True

    def __init__(self):
        self.asked = []

    def answers(self, samples, windows, precision):
        self.asked.append(windows)
        return torch.from_numpy(windows[:, :1, None] * np.ones((1, 2, 3001), np.float32))


def test_a_seam_is_scored_as_a_whole_or_not_at_all():
    network = Recorder()
    one = engine(network)
    midnight = -(-START_NS // (86_400 * NS)) * 86_400 * NS
    valid = np.ones(400_000, bool)
    samples = red_noise(len(valid))
    loaded = one.load(Waveform(samples, valid, midnight - 1_000_000_007 * 1000, 100.0, (True, True, True)))
    rest, seam = loaded.groups
    assert loaded.seams == 1
    wanted = np.zeros(len(rest) + len(seam), bool)
    wanted[[3, 7, len(rest) + 1]] = True
    answers = one.answers(loaded, "fp32", wanted)
    assert [group.tolist() for group in network.asked] == [rest[[3, 7]].tolist(), seam.tolist()]
    assert answers[:, 0, 0].tolist() == [rest[3, 0], rest[7, 0], seam[1, 0]]
    network.asked.clear()
    wanted[len(rest) :] = False
    one.answers(loaded, "fp32", wanted)
    assert [len(group) for group in network.asked] == [2]


def test_a_record_without_data_asks_nothing():
    one = engine(Recorder())
    loaded = one.load(record(np.zeros(5000, bool)))
    assert one.answers(loaded, "fp32").shape == (0, 2, 3001)
    assert one.trace(loaded, one.answers(loaded, "fp32")).isnan().all()
    assert one.network.asked == []


def test_screening_needs_16_bits():
    with pytest.raises(ConfigError, match=r"pick.precision 'screened': Recorder .* on cpu"):
        _ = engine(Recorder()).screen_precision


def test_the_benchmark_of_the_gpu_still_runs(tmp_path, capsys):
    assert bench_gpu.main([str(tmp_path / "figures.json"), "--self-check"]) == 0
    assert "self-check" in capsys.readouterr().out


@gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_graphs_give_the_bytes_of_the_plain_launches(precision):
    device = torch.device("cuda")
    samples = torch.from_numpy(red_noise(200_000)).to(device)
    windows = windows_of(200_000, short=[(100, 700)])
    model = phasenet().to(device)
    answers = [
        cuda.Chunked(model, device, (2, 1, 0), (1, 2), chunk=64, graphs=graphs).answers(samples, windows, precision)
        for graphs in (True, True, False)
    ]
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


@gpu
def test_waveforms_sent_one_after_the_other_arrive_whole():
    device = torch.device("cuda")
    waves = [red_noise(2_000_000, seed) for seed in range(6)]
    sent = [cuda.send(wave, device) for wave in waves]
    for wave, there in zip(waves, sent, strict=True):
        assert torch.equal(there.samples.cpu(), torch.from_numpy(wave))


@gpu
def test_blending_and_runs_on_the_gpu_are_those_of_the_cpu():
    rng = np.random.default_rng(4)
    for windows, n, length in plans():
        answers = torch.from_numpy(rng.random((len(windows), 2, length), np.float32))
        trace = blend(answers, windows, n, "avg", (1, 1))
        there = blend(answers.cuda(), windows, n, "avg", (1, 1))
        np.testing.assert_array_equal(there.cpu().numpy(), trace.numpy())
        for ours, theirs in zip(runs.find(there, (0.6, 0.7)), runs.find(trace, (0.6, 0.7)), strict=True):
            np.testing.assert_array_equal(ours, theirs)
