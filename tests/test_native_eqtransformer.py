from pathlib import Path

import numpy as np
import pytest
import seisbench.models as sbm
import torch

from pipeline.errors import ConfigError
from pipeline.models import weights
from pipeline.models.native import build
from pipeline.models.native.eqtransformer import NativeEQTransformer, covers
from tests.weights_at_hand import need

DATA = Path(__file__).parents[2] / "shared" / "data"
LENGTH, ROWS, COLUMNS = 6000, (2, 1, 0), (1, 2)
ORIGINALS = ("eqtransformer/original", "eqtransformer/conservative")

pytestmark = pytest.mark.skipif(bool(build.available()), reason=f"no kernels: {build.available()}")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def untrained(seed=0, **options):
    """SeisBench's own EQTransformer with random weights and batch norms that matter."""
    torch.manual_seed(seed)
    model = sbm.EQTransformer(component_order="ENZ", **options)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
    for conv in (model.conv_d, *model.pick_convs):  # so that probabilities spread
        conv.weight.data *= 30
    return model.eval()


def pretrained(name):
    return weights.load(need(name)).eval()


def noise(n, seed=0):
    """Samples (3, n) that wander."""
    samples = np.cumsum(np.random.default_rng(seed).standard_normal((3, n)), axis=1) + 40.0
    return samples.astype(np.float32)


def seisbench(model, samples, windows, columns=COLUMNS):
    """What SeisBench answers: normalised, evaluated and shaped by the model itself."""
    data = np.zeros((len(windows), 3, LENGTH), np.float32)
    for at, (start, size) in enumerate(windows):
        window = samples[list(ROWS), start : start + size]
        data[at, :, :size] = window if size == LENGTH else window - window.mean(axis=1, keepdims=True)
    arguments = {"blinding": (0, 0), "sampling_rate": 100.0}
    with torch.inference_mode():
        answer = model(model.annotate_batch_pre(torch.from_numpy(data), argdict=arguments))
        answer = model.annotate_batch_post(answer, piggyback=None, argdict=arguments)
    return answer[..., list(columns)].transpose(1, 2).numpy()


def whole(*starts):
    return np.array([(start, LENGTH) for start in starts], np.int64)


def compare(model, samples, windows, columns=COLUMNS, atol=1e-5):
    ours = NativeEQTransformer.of(model, ROWS, columns, threads=1).answers(samples, windows)
    truth = seisbench(model, samples, windows, columns)
    np.testing.assert_allclose(ours, truth, rtol=0, atol=atol)
    return truth


@pytest.mark.skipif(not DATA.exists(), reason="the labelled records are not at hand: real earthquakes are not compared")
@pytest.mark.parametrize("name", ORIGINALS)
def test_answers_to_earthquakes_are_those_of_seisbench(name):
    records = np.load(DATA / "labelled_ncedc" / "records.npz")["data"][:16, :, ::-1]  # stored E N Z
    samples = np.ascontiguousarray(records.reshape(-1, 3).T)
    starts = range(0, samples.shape[1] - LENGTH, records.shape[1])
    truth = compare(pretrained(name), samples, whole(*starts), (0, 1, 2))
    assert (truth.max(axis=(0, 2)) > 0.3).all()  # there is something to compare


@pytest.mark.parametrize("name", ORIGINALS)
def test_answers_to_noise_and_to_short_windows_are_those_of_seisbench(name):
    windows = np.array([(0, LENGTH), (777, LENGTH), (50, 3000), (9000, 37), (4, 1)], np.int64)
    compare(pretrained(name), noise(12_000), windows)


@pytest.mark.parametrize(
    "options",
    [{}, {"norm": "peak", "lstm_blocks": 1}, {"original_compatible": "conservative"}, {"phases": "PSN", "classes": 3}],
    ids=["default", "peak", "conservative", "three"],
)
def test_untrained_models_answer_like_seisbench(options):
    columns = (3, 2, 0) if options.get("classes") else COLUMNS
    truth = compare(untrained(**options), noise(9000, seed=1), whole(0, 2999, 3000), columns)
    assert np.ptp(truth) > 0.1


def test_attention_with_scores_beyond_the_exponential_is_that_of_seisbench():
    model = untrained()
    for layer in (model.transformer_d0.attention, model.transformer_d.attention, *model.pick_attentions):
        layer.Wt.data *= 3000
        layer.Wx.data *= 3000
        layer.bh.data += torch.linspace(-60, 60, 32)
    seen = []
    model.pick_attentions[0].register_forward_hook(
        lambda module, inputs, _: seen.append((inputs[0].permute(0, 2, 1) @ module.Wt).abs().max())
    )
    compare(model, noise(6000), whole(0))
    assert max(seen) > 21  # sequence.h: STEEP


def test_a_dead_component_or_none_alive_is_what_seisbench_makes_of_it():
    model, samples = pretrained(ORIGINALS[0]), noise(14_000)
    samples[1, :7000] = 0
    samples[:, 7000:] = 5
    compare(model, samples, whole(0, 8000))


def test_bits_do_not_depend_on_threads_batches_order_or_neighbours():
    model, samples = untrained(), noise(40_000)
    windows = np.array([(start, LENGTH) for start in range(0, 34_000, 430)] + [(10, 500)], np.int64)
    one, two = (NativeEQTransformer.of(model, ROWS, COLUMNS, threads) for threads in (1, 2))
    for precision in one.precisions:
        truth = one.answers(samples, windows, precision)
        order = np.random.default_rng(0).permutation(len(windows))
        assert np.array_equal(two.answers(samples, windows[order], precision), truth[order])
        for at in (0, 17, len(windows) - 1):
            assert np.array_equal(one.answers(samples, windows[at : at + 1], precision), truth[at : at + 1])


@pytest.mark.parametrize("options", [{}, {"original_compatible": "conservative"}], ids=["default", "original"])
@pytest.mark.parametrize("blinding", [(500, 500), (1, 0), (2999, 3000), (0, 5993)])
def test_blinding_leaves_out_positions_and_changes_no_other(blinding, options):
    model, samples, windows = untrained(**options), noise(8000), whole(0, 1000)
    truth = NativeEQTransformer.of(model, ROWS, COLUMNS, 1).answers(samples, windows)
    some = NativeEQTransformer.of(model, ROWS, COLUMNS, 1, blinding).answers(samples, windows)
    truth[..., : blinding[0]] = truth[..., LENGTH - blinding[1] :] = 0
    assert np.array_equal(some, truth)


def test_bf16_is_close():
    model, samples, windows = untrained(), noise(20_000), whole(*range(0, 14_000, 1000))
    network = NativeEQTransformer.of(model, ROWS, COLUMNS, threads=1)
    if "bf16" not in network.precisions:
        pytest.skip("this processor has no BF16")
    difference = network.answers(samples, windows, "bf16") - seisbench(model, samples, windows)
    assert 1e-5 < np.abs(difference).max() < 0.05


def test_other_models_are_refused():
    for model in (sbm.PhaseNet(), untrained(norm_detrend=True), untrained(in_samples=3000)):
        assert not covers(model)
        with pytest.raises(ConfigError, match=r"compute\.engine"):
            NativeEQTransformer.of(model, ROWS, COLUMNS, 1)
    with pytest.raises(ConfigError, match="columns"):
        NativeEQTransformer.of(untrained(), ROWS, (1, 3), 1)
    with pytest.raises(ConfigError, match="blinding"):
        NativeEQTransformer.of(untrained(), ROWS, COLUMNS, 1, (3000, 3000))
