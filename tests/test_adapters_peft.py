"""Our LoRA against Hugging Face's `peft`, with the same numbers: the same bits, forwards and backwards."""

import copy

import pytest
import seisbench.models as sbm
import torch
from torch import nn

from pipeline.models.adapters import Recipe, attach
from tests.adapter_cases import Mixed, filled, outputs

peft = pytest.importorskip("peft", reason="peft is not installed: LoRA is not compared with it")


def theirs_of(model, layers, parameters=(), rank=4, alpha=10):
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(layers), target_parameters=list(parameters) or None
    )
    return peft.inject_adapter_in_model(config, copy.deepcopy(model))


def give(theirs, state):
    """Our numbers for their layers, found by the layer (and parameter) that they change."""
    given = 0
    for name, part in theirs.named_modules():
        if not hasattr(part, "lora_A") or "default" not in part.lora_A:
            continue
        layer = ".".join(piece for piece in name.split(".") if piece != "base_layer")
        if hasattr(part, "parameter_name"):
            layer += f".{part.parameter_name}"
        elif isinstance(part.get_base_layer(), nn.MultiheadAttention):
            layer += ".in_proj_weight"
        elif f"{layer}.lora_a" not in state:
            layer += ".weight"  # the projection behind an attention, which torch does not call
        with torch.no_grad():
            part.lora_A["default"].weight.copy_(state[f"{layer}.lora_a"])
            part.lora_B["default"].weight.copy_(state[f"{layer}.lora_b"])
        given += 2
    assert given == len(state)


def compare(model, targets, layers, parameters, x):
    theirs = theirs_of(model, layers, parameters)
    with torch.no_grad():
        plain = outputs(copy.deepcopy(model)(x))
    ours = filled(attach(model, Recipe("lora", rank=4, alpha=10, targets=targets)))
    give(theirs, ours.state())
    mine, other = outputs(ours.model(x)), outputs(theirs(x))
    assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(mine, plain, strict=True))
    sum(part.square().sum() for part in mine).backward()
    sum(part.square().sum() for part in other).backward()
    slopes = {tuple(value.grad.flatten().tolist()) for name, value in theirs.named_parameters() if "lora_" in name}
    assert {tuple(value.grad.flatten().tolist()) for value in ours.trainable().values()} == slopes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_layers_and_convolutions(dtype):
    torch.manual_seed(0)
    layers = ("conv", "same", "last")
    compare(Mixed(dtype).eval(), layers, layers, (), torch.randn(2, 3, 41, dtype=dtype))


def test_matrices_of_recurrent_layers():
    torch.manual_seed(0)
    matrices = [f"lstm.weight_{kind}_l0{way}" for kind in ("ih", "hh") for way in ("", "_reverse")]
    matrices += ["gru.weight_ih_l0", "gru.weight_hh_l0"]
    compare(Mixed().eval(), ("lstm", "gru"), [], matrices, torch.randn(2, 3, 41))


def test_multihead_attention():
    """Its projections before; peft 0.21 adds the change of the one behind twice (its pull request 3774)."""
    torch.manual_seed(0)
    model, x = Mixed().eval(), torch.randn(2, 3, 41)
    theirs = theirs_of(model, ["attention"])
    ours = filled(attach(model, Recipe("lora", rank=4, alpha=10, targets=("attention",))))
    assert set(ours.trainable()) == {
        f"attention.{matrix}.lora_{ab}" for matrix in ("in_proj_weight", "out_proj.weight") for ab in "ab"
    }
    with torch.no_grad():
        ours.trainable()["attention.out_proj.weight.lora_b"].zero_()
        give(theirs, ours.state())
        assert torch.equal(ours.model(x), theirs(x))


def test_phasenet():
    torch.manual_seed(0)
    model = sbm.PhaseNet(phases="NPS").eval()
    layers = [name for name, part in model.named_modules() if isinstance(part, nn.Conv1d)]
    assert len(layers) == 15
    compare(model, tuple(layers), layers, (), torch.randn(2, 3, 3001))


def test_eqtransformer():
    """All that our default changes."""
    torch.manual_seed(0)
    model = sbm.EQTransformer(lstm_blocks=2, original_compatible="conservative").eval()
    layers = [name for name, part in model.named_modules() if isinstance(part, nn.Conv1d | nn.Linear)]
    matrices = [name for name, value in model.named_parameters() if value.dim() == 2 and min(value.shape) > 1]
    matrices = [name for name in matrices if name.rpartition(".")[0] not in layers]
    assert (len(layers), len(matrices)) == (51, 20)
    compare(model, ("*",), layers, matrices, torch.randn(1, 3, 6000))


def test_peft_has_no_transposed_convolution():
    """Where theirs ends, ours is held to the merged weights (tests/test_adapters.py)."""
    with pytest.raises(ValueError, match="not supported"):
        theirs_of(Mixed(), ["up"])
