"""Low-rank changes of weights: Hu et al. (2021), arXiv 2106.09685.

A weight W is seen as W + scaling * B A, B zero at first. Linear layers and convolutions compute B (A x) beside W x,
in the order of operations of `peft`, and to its bits; there the change has the layer's kernel in A and a kernel of 1
in B. Where a layer reads bare matrices (the cells of LSTMs and GRUs, projections of attentions), it reads the sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.adapter_layers.change import Change, OfOutput, OfTensor, Site, drawn, zeros
from pipeline.models.adapter_layers.recipe import Recipe
from pipeline.models.adapter_layers.targets import chosen


def changes(model: nn.Module, recipe: Recipe) -> dict[Site, Change]:
    """The low-rank changes of ``model`` that ``recipe`` means. Raises ConfigError."""
    known = {site.name: (site, kind) for site, kind in _sites(model)}
    made: dict[Site, Change] = {}
    for name in chosen(model, recipe, known):
        site, kind = known[name]
        made[site] = kind(model.get_submodule(site.owner), site, recipe)
    return made


class OfLinear(OfOutput):
    """Of a linear layer; ``lora_a`` (rank, in), ``lora_b`` (out, rank)."""

    def __init__(self, owner: Any, site: Site, recipe: Recipe) -> None:
        super().__init__()
        outputs, inputs = owner.weight.shape
        self.scaling = recipe.scaling
        self.lora_a = drawn((recipe.rank, inputs), inputs, owner.weight, recipe.seed, site.name)
        self.lora_b = zeros((outputs, recipe.rank), owner.weight)

    def changed(self, owner: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return output + self.beside(owner, args[0]) * self.scaling

    def beside(self, owner: Any, x: Tensor) -> Tensor:
        return functional.linear(functional.linear(x, self.lora_a), self.lora_b)

    def folded(self, owner: Any) -> dict[str, Tensor]:
        return {"weight": owner.weight.double() + self.scaling * self.product()}

    def product(self) -> Tensor:
        """B A in FP64, of the weight's shape."""
        return self.lora_b.double() @ self.lora_a.double()


class OfConv(OfLinear):
    """Of a convolution; ``lora_a`` (rank, in, taps), ``lora_b`` (out, rank, 1)."""

    def __init__(self, owner: Any, site: Site, recipe: Recipe) -> None:
        OfOutput.__init__(self)
        outputs, inputs, taps = owner.weight.shape
        self.scaling = recipe.scaling
        self.lora_a = drawn((recipe.rank, inputs, taps), inputs * taps, owner.weight, recipe.seed, site.name)
        self.lora_b = zeros((outputs, recipe.rank, 1), owner.weight)

    def beside(self, owner: Any, x: Tensor) -> Tensor:
        return functional.conv1d(
            owner._conv_forward(x, self.lora_a, None), self.lora_b
        )  # its stride, padding, dilation

    def product(self) -> Tensor:
        return torch.einsum("or,rik->oik", self.lora_b[:, :, 0].double(), self.lora_a.double())


class OfTransposedConv(OfLinear):
    """Of a transposed convolution; ``lora_a`` (in, rank, taps), ``lora_b`` (out, rank, 1)."""

    def __init__(self, owner: Any, site: Site, recipe: Recipe) -> None:
        OfOutput.__init__(self)
        inputs, outputs, taps = owner.weight.shape
        self.scaling = recipe.scaling
        self.lora_a = drawn((inputs, recipe.rank, taps), inputs * taps, owner.weight, recipe.seed, site.name)
        self.lora_b = zeros((outputs, recipe.rank, 1), owner.weight)

    def beside(self, owner: Any, x: Tensor) -> Tensor:
        layout = owner.stride, owner.padding, owner.output_padding, 1, owner.dilation
        return functional.conv1d(functional.conv_transpose1d(x, self.lora_a, None, *layout), self.lora_b)

    def product(self) -> Tensor:
        return torch.einsum("or,irk->iok", self.lora_b[:, :, 0].double(), self.lora_a.double())


class OfMatrix(OfTensor):
    """Of a bare matrix (out, in) of a layer; ``lora_a`` (rank, in), ``lora_b`` (out, rank)."""

    def __init__(self, owner: nn.Module, site: Site, recipe: Recipe) -> None:
        super().__init__(site.tensor)
        base = owner.get_parameter(site.tensor)
        outputs, inputs = base.shape
        self.scaling = recipe.scaling
        self.lora_a = drawn((recipe.rank, inputs), inputs, base, recipe.seed, site.name)
        self.lora_b = zeros((outputs, recipe.rank), base)

    def seen(self, base: Tensor) -> Tensor:
        with torch.autocast(base.device.type, enabled=False):  # it would round the sum to 16 bits
            return base + (self.lora_b @ self.lora_a) * self.scaling

    def folded(self, owner: nn.Module) -> dict[str, Tensor]:
        base = owner.get_parameter(self.tensor).double()
        return {self.tensor: base + self.scaling * (self.lora_b.double() @ self.lora_a.double())}


KINDS: tuple[tuple[type[nn.Module], type[OfLinear]], ...] = (
    (nn.Linear, OfLinear),
    (nn.Conv1d, OfConv),
    (nn.ConvTranspose1d, OfTransposedConv),
)


def _sites(model: nn.Module) -> Iterator[tuple[Site, type[OfLinear] | type[OfMatrix]]]:
    """Every place that can have a low-rank change. Not: grouped convolutions, vectors, more dimensions."""
    unasked = {  # torch reads its weight and never calls it
        f"{name}.out_proj" for name, part in model.named_modules() if isinstance(part, nn.MultiheadAttention)
    }
    for name, part in model.named_modules():
        kind = next((kind for layer, kind in KINDS if isinstance(part, layer)), None)
        if kind and name not in unasked:
            if getattr(part, "groups", 1) == 1:
                yield Site(name), kind
            continue
        for tensor, value in part.named_parameters(recurse=False):
            if value.dim() == 2 and min(value.shape) > 1 and value.is_floating_point():
                yield Site(name, tensor), OfMatrix
