import pytest
import seisbench.models as sbm
import torch

from pipeline.models import lean, weights
from tests.weights_at_hand import need


def shaken(model):
    """``model`` with norms and attention that do something, and answers that vary."""
    torch.manual_seed(1)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            for tensor, low, high in ((module.weight, 0.5, 2), (module.bias, -1, 1), (module.running_mean, -1, 1)):
                torch.nn.init.uniform_(tensor, low, high)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
        if ("decoder" in name or "pick_convs" in name) and isinstance(module, torch.nn.Conv1d):
            module.weight.data *= 3.5
        if hasattr(module, "Wa"):
            for tensor in module.parameters():
                torch.nn.init.normal_(tensor)
    return model.eval()


def prepared(model, windows=3):
    """Windows as SeisBench prepares them: red noise, one without any signal, one with a spike."""
    torch.manual_seed(0)
    data = torch.randn(windows, 3, model.in_samples).cumsum(2)
    data[0], data[1, :, 1000] = 0, 1e6
    return model.annotate_batch_pre(data, {})


def answer(model, data, columns):
    with torch.no_grad():
        out = model(data)
    out = torch.stack(out, dim=1) if isinstance(out, tuple) else out
    return out[:, list(columns)]


def lean_answer(model, data, columns, *how):
    with torch.no_grad():
        return lean.of(model, columns, *how)(data)


MODELS = {
    "phasenet": lambda: sbm.PhaseNet(phases="NPS"),
    "phasenet wide": lambda: sbm.PhaseNet(phases="PSN", filter_factor=2),
    "eqt": lambda: sbm.EQTransformer(lstm_blocks=2),
    "eqt of an odd length": lambda: sbm.EQTransformer(lstm_blocks=1, in_samples=3001),
    "eqt non-conservative": lambda: sbm.EQTransformer(original_compatible="non-conservative"),
    "eqt conservative": lambda: sbm.EQTransformer(original_compatible="conservative"),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_lean_modules_answer_as_seisbench_does(make, channels_last):
    model = shaken(make())
    data = prepared(model)
    for columns in ((1, 2), (2, 1), (2,)):
        ours = lean_answer(model, data, columns, torch.float32, channels_last)
        theirs = answer(model, data, columns)
        assert theirs.std() > 0.002
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["phasenet/original", "eqtransformer/original", "eqtransformer/conservative"])
def test_with_the_published_weights_too_and_in_16_bits_nothing_overflows(name):
    model = weights.load(need(name))
    data = prepared(model, windows=4)
    columns = tuple(list(model.labels).index(phase) for phase in "PS")
    theirs = answer(model, data, columns)
    torch.testing.assert_close(lean_answer(model, data, columns), theirs, atol=1e-5, rtol=0)
    for dtype, near in ((torch.bfloat16, 0.05), (torch.float16, 0.005)):
        ours = lean_answer(model, data, columns, dtype, True)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, atol=near, rtol=0)


def test_a_window_is_answered_alike_in_any_place_of_a_batch():
    model = shaken(sbm.EQTransformer(original_compatible="conservative"))
    data = prepared(model, 4)
    torch.set_num_threads(1)
    one, other = lean_answer(model, data, (1, 2)), lean_answer(model, data.flip(0), (1, 2))
    assert torch.equal(one, other.flip(0))


def test_neighbours_in_time_need_no_copy_in_channels_last():
    conv = lean.Conv(torch.randn(8, 4, 3), torch.zeros(8), pad=1, phases=2, active=False)
    conv.to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 1, 10).to(memory_format=torch.channels_last)
    y = torch.nn.functional.conv2d(x, conv.weight, conv.bias, padding=(0, 1))
    doubled = conv(x)
    assert doubled.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(doubled[:, :, 0, 0::2], y[:, :4, 0])
    assert torch.equal(doubled[:, :, 0, 1::2], y[:, 4:, 0])


def test_what_is_not_known_well_enough_has_no_lean_form():
    class Own(sbm.PhaseNet):
        pass

    other = sbm.EQTransformer(original_compatible="conservative")
    other.pick_lstms[0].cell_f.gate_activation = torch.tanh
    for model in (Own(phases="NPS"), sbm.PhaseNetLight(), sbm.VariableLengthPhaseNet(), other):
        assert lean.of(model, (1, 2)) is None
    assert lean.of(sbm.EQTransformer(), (0, 1)) is None  # the detector
