"""Our own kernels against SeisBench's PhaseNet and our own Blender."""

from pathlib import Path

import numpy as np
import obspy
import pytest
import seisbench.models as sbm
import torch

from pipeline.errors import ConfigError
from pipeline.maths.windows import Blender
from pipeline.models import weights
from pipeline.models.native import build
from pipeline.models.native.blend import blend
from pipeline.models.native.phasenet import LENGTH, NativePhaseNet, covers
from tests.weights_at_hand import need

DATA = Path(__file__).parents[2] / "shared" / "data"
WITHOUT_AVX512 = ("-mno-avx512f", "-mavx2", "-mfma")

needs_kernels = pytest.mark.skipif(bool(build.available()), reason=f"no kernels here: {build.available()[:200]}")
needs_avx512 = pytest.mark.skipif(
    "avx512f" not in build._processor().split(), reason="needs AVX-512 to compare narrower vectors with"
)


def phasenet(seed=0, **kwargs):
    """A PhaseNet with random weights that let the signal through and batch norms that have seen something."""
    torch.manual_seed(seed)
    model = sbm.PhaseNet(**{"component_order": "ZNE", "phases": "NPS", **kwargs})
    for module in model.modules():
        if isinstance(module, torch.nn.Conv1d | torch.nn.ConvTranspose1d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.weight, 0.5, 2.0)
            torch.nn.init.uniform_(module.bias, -1.0, 1.0)
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.3, 3.0)
    model.out.weight.data /= 2
    return model.eval()


def record(windows=21, seed=0):
    """Samples (3, n) that wander around an offset, and windows over them of which the last are short."""
    rng = np.random.default_rng(seed)
    n = LENGTH + 700 * windows
    samples = np.cumsum(rng.standard_normal((3, n)), axis=1) + 20 * rng.standard_normal((3, n)) + 50
    plan = np.array([[700 * i, LENGTH] for i in range(windows - 2)] + [[40, 1], [n - 1234, 1234]])
    return samples.astype(np.float32), plan


def expected(model, samples, plan, rows, columns):
    """Answers (w, columns, length) of SeisBench's own normalisation and network."""
    data = np.zeros((len(plan), len(rows), LENGTH), np.float32)
    for at, (start, size) in enumerate(plan):
        window = samples[list(rows), start : start + size]
        data[at, :, :size] = window if size == LENGTH else window - window.mean(axis=1, keepdims=True)
    arguments = {**model.default_args, "blinding": (0, 0)}
    with torch.inference_mode():
        prepared = model.annotate_batch_pre(torch.from_numpy(data), argdict=arguments)
        answer = model.annotate_batch_post(model(prepared), piggyback=None, argdict=arguments)
    return answer.numpy().transpose(0, 2, 1)[:, list(columns)]


MODELS = {
    "std": phasenet(),
    "peak": phasenet(1, norm="peak"),
    "no norm": phasenet(2, norm="none"),
    "detrended": phasenet(3, norm_detrend=True, norm_amp_per_comp=True),
    "two classes": phasenet(4, classes=2, phases="SP", component_order="NEZ"),
    "wide, with hydrophone": phasenet(5, classes=5, phases="NPSAB", in_channels=4, filter_factor=2),
}


@needs_kernels
@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_seisbench(name):
    model = MODELS[name]
    samples, plan = record()
    rows = (2, 0, 1) if model.in_channels == 3 else (2, 0, 1, 1)
    if name == "no norm":
        samples /= np.float32(30)
    columns = tuple(range(model.classes))[::-1]
    net = NativePhaseNet.of(model, rows, columns, threads=1)
    wanted = expected(model, samples, plan, rows, columns)
    assert wanted.std(axis=2).max() > 0.03
    np.testing.assert_allclose(net.answers(samples, plan), wanted, rtol=0, atol=1e-5)
    for precision in net.precisions[1:]:
        error = net.answers(samples, plan, precision) - wanted
        assert np.abs(error).max() < 0.1
        assert np.sqrt(np.mean(error**2)) < 0.005


@pytest.mark.skipif(not DATA.exists(), reason="no real records beside the checkout: trained weights on them")
@needs_kernels
def test_trained_weights_on_a_real_record():
    model = weights.load(need("phasenet/original"))
    paths = [next((DATA / "ridgecrest").rglob(f"CI.CLC..HH{component}.D.*")) for component in "ENZ"]
    samples = np.stack([obspy.read(path)[0].data[:200_000].astype(np.float32) for path in paths])
    plan = np.array([[start, LENGTH] for start in range(0, 200_000 - LENGTH, 1501)])
    columns = tuple(list(model.labels).index(phase) for phase in "PS")
    net = NativePhaseNet.of(model, (0, 1, 2), columns, threads=1)
    wanted = expected(model, samples, plan, (0, 1, 2), columns)
    assert (wanted > 0.5).any(axis=(0, 2)).all()
    np.testing.assert_allclose(net.answers(samples, plan), wanted, atol=2e-5)
    for precision in net.precisions[1:]:
        error = net.answers(samples, plan, precision) - wanted
        assert np.abs(error).max() < 0.1
        assert np.sqrt(np.mean(error**2)) < 2e-3


@needs_kernels
def test_dead_components_and_silence_answer_as_in_seisbench():
    model, (samples, plan) = MODELS["std"], record()
    samples[1], samples[2, 5000:], samples[:, 10_000:] = 7, 0, 0
    net = NativePhaseNet.of(model, (0, 1, 2), (1, 2), threads=1)
    found = net.answers(samples, plan)
    np.testing.assert_allclose(found, expected(model, samples, plan, (0, 1, 2), (1, 2)), atol=1e-5)


@needs_kernels
def test_an_answer_depends_on_its_window_alone():
    samples, plan = record(37)
    alone = NativePhaseNet.of(MODELS["std"], (0, 1, 2), (1, 2), threads=1)
    crowd = NativePhaseNet.of(MODELS["std"], (0, 1, 2), (1, 2), threads=3)
    order = np.random.default_rng(1).permutation(len(plan))
    shifted = np.concatenate([np.full((3, 11), 5, np.float32), samples], axis=1)
    for precision in alone.precisions:
        whole = alone.answers(samples, plan, precision)
        assert np.array_equal(crowd.answers(samples, plan, precision), whole)
        assert np.array_equal(crowd.answers(samples, plan[order], precision), whole[order])
        assert np.array_equal(alone.answers(shifted, plan + np.array([11, 0]), precision), whole)
        for at in (0, 20, -2, -1):
            assert np.array_equal(alone.answers(samples, plan[[at]], precision)[0], whole[at])


@needs_kernels
def test_a_poisoned_window_harms_no_other():
    samples, plan = record()
    net = NativePhaseNet.of(MODELS["std"], (0, 1, 2), (1, 2), threads=1)
    whole = net.answers(samples, plan)
    samples[:, 5 * 700 + 100 : 5 * 700 + 110] = np.nan
    clean = np.array([not start <= 5 * 700 + 109 < start + size for start, size in plan])
    assert 0 < clean.sum() < len(plan)
    assert np.array_equal(net.answers(samples, plan)[clean], whole[clean])


@needs_avx512
@needs_kernels
def test_narrow_vectors_give_the_same_bytes(monkeypatch):
    samples, plan = record(37)
    wide = NativePhaseNet.of(MODELS["std"], (0, 1, 2), (0, 1, 2), threads=1)
    narrow_kernels = build.library(*WITHOUT_AVX512)
    monkeypatch.setattr(build, "library", lambda: narrow_kernels)
    narrow = NativePhaseNet.of(MODELS["std"], (0, 1, 2), (0, 1, 2), threads=1)
    assert (build.library().native_lanes(), narrow.precisions) == (8, ("fp32",))
    assert narrow.answers(samples, plan).tobytes() == wide.answers(samples, plan).tobytes()


@needs_kernels
def test_what_does_not_fit_is_refused():
    samples, plan = record()
    assert not covers(sbm.PhaseNetLight())
    assert not covers(sbm.EQTransformer())
    with pytest.raises(ConfigError, match="PhaseNetLight"):
        NativePhaseNet.of(sbm.PhaseNetLight(), (0, 1, 2), (1, 2), threads=1)
    with pytest.raises(ConfigError, match="columns"):
        NativePhaseNet.of(MODELS["std"], (0, 1, 2), (3,), threads=1)
    net = NativePhaseNet.of(MODELS["std"], (0, 1, 2), (1, 2), threads=1)
    assert net.answers(samples, plan[:0]).shape == (0, 2, LENGTH)
    with pytest.raises(ValueError, match="fp17"):
        net.answers(samples, plan, "fp17")
    for wrong in ([-1, LENGTH], [samples.shape[1] - 10, 11], [0, LENGTH + 1], [0, 0]):
        with pytest.raises(ValueError, match="do not fit"):
            net.answers(samples, np.array([wrong]))
    with pytest.raises(ValueError, match="rows"):
        net.answers(samples[:2], plan)


@needs_kernels
@pytest.mark.parametrize("stacking", ["avg", "max"])
@pytest.mark.parametrize("blinding", [(0, 0), (250, 31)])
def test_the_blend_has_the_bytes_of_the_blender(stacking, blinding):
    rng = np.random.default_rng(3)
    starts = np.concatenate([np.arange(0, 30_000, 450), [31_000, 500]])  # the last is out of order, like a seam's
    plan = np.stack([starts, np.full_like(starts, 1000)], axis=1)
    plan[-2, 1] = 300
    answers = rng.random((len(plan), 2, 1000), np.float32)
    answers[3, 0, 100:900] = np.nan
    blender = Blender(2, 33_000, stacking, blinding)
    for (start, size), answer in zip(plan, answers, strict=True):
        blender.add(int(start), int(size), answer)
    wanted = blender.result()
    assert 0 < np.isnan(wanted).sum() < wanted.size / 2
    assert blend(answers, plan, 33_000, stacking, blinding).tobytes() == wanted.tobytes()
    with pytest.raises(ValueError, match="do not fit"):
        blend(answers, plan, 30_000, stacking, blinding)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache of libraries, and nothing remembered before and after."""
    monkeypatch.setenv("ORCOLAT_CACHE", str(tmp_path))
    for remembered in (build.library, build.available):
        remembered.cache_clear()
    yield tmp_path
    for remembered in (build.library, build.available):
        remembered.cache_clear()


def test_without_a_compiler_the_reason_is_told(monkeypatch, fresh):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler is not on the path" in build.available()
    with pytest.raises(ConfigError, match=r"\$CXX"):
        build.library()


def test_a_compiler_that_fails_is_quoted(monkeypatch, fresh):
    broken = fresh / "broken"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "no room for vectors" >&2\nexit 4\n')
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert "failed with 4: no room for vectors" in build.available()
    assert not list((fresh / "native").iterdir())


@needs_kernels
def test_libraries_are_named_by_all_that_they_depend_on(monkeypatch, fresh):
    (fresh / "kernels.cpp").write_text('extern "C" int answer() { return ANSWER; }')
    monkeypatch.setattr(build, "SOURCES", fresh)
    assert build.library("-DANSWER=42").answer() == 42
    assert build.library("-DANSWER=43").answer() == 43
    (fresh / "more.h").write_text("// a header")
    build.build(("-DANSWER=42",))
    monkeypatch.setattr(build, "_processor", lambda: "another processor")
    path = build.build(("-DANSWER=42",))
    assert path.parent == fresh / "native"
    assert [other.suffix for other in path.parent.iterdir()] == 4 * [".so"]
