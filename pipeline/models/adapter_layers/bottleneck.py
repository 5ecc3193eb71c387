"""Bottleneck adapters after blocks: Houlsby et al. (2019), arXiv 1902.00751.

The answer x of a block becomes x + U relu(D x + d) + u, sample by sample, with U and u zero at first. It is a layer of
its own, and no weight of the network can hold it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.adapter_layers.change import Change, OfOutput, Site, drawn, zeros
from pipeline.models.adapter_layers.recipe import Recipe
from pipeline.models.adapter_layers.targets import chosen

CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RNNBase, nn.MultiheadAttention)
WIDTHS = ("out_channels", "out_features", "num_features", "num_channels", "embed_dim")  # of torch's layers


def changes(model: nn.Module, recipe: Recipe) -> dict[Site, Change]:
    """The bottlenecks of ``model`` that ``recipe`` means. Raises ConfigError."""
    blocks = {name: part for name, part in model.named_modules() if name and width_of(part)}
    like = next(model.parameters())
    return {
        Site(name): Bottleneck(blocks[name], Site(name), recipe, like)
        for name in chosen(model, recipe, blocks, inside=False)
    }


class Bottleneck(OfOutput):
    """After a block that answers (n, channels, samples), or (..., channels) if it is a layer of that kind.

    Of a tuple the first is changed. ``down_weight`` (narrow, channels), ``up_weight`` (channels, narrow).
    """

    mergeable = False

    def __init__(self, owner: nn.Module, site: Site, recipe: Recipe, like: Tensor) -> None:
        super().__init__()
        channels, narrow = width_of(owner), recipe.bottleneck
        self.last = isinstance(owner, CHANNELS_LAST)
        self.down_weight = drawn((narrow, channels), channels, like, recipe.seed, site.name)
        self.down_bias = zeros((narrow,), like)
        self.up_weight = zeros((channels, narrow), like)
        self.up_bias = zeros((channels,), like)

    def changed(self, owner: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (self.after(output[0]), *output[1:])
        return self.after(output)

    def after(self, x: Tensor) -> Tensor:
        if self.last or x.ndim == 2:
            narrow = functional.relu(functional.linear(x, self.down_weight, self.down_bias))
            return x + functional.linear(narrow, self.up_weight, self.up_bias)
        narrow = functional.relu(functional.conv1d(x, self.down_weight[:, :, None], self.down_bias))
        return x + functional.conv1d(narrow, self.up_weight[:, :, None], self.up_bias)


def width_of(block: nn.Module) -> int:
    """Channels that ``block`` answers: those of the last of its layers that tells; 0 if none does."""
    if isinstance(block, nn.ModuleList):
        return 0  # nobody calls it
    if isinstance(block, nn.RNNBase):
        return (block.proj_size or block.hidden_size) * (1 + block.bidirectional)
    widths = [int(getattr(part, each)) for part in block.modules() for each in WIDTHS if hasattr(part, each)]
    return widths[-1] if widths else 0
