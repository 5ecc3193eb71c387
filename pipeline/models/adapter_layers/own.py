"""Tensors of the network that are trained as they are, in copies of their own: head, norm-bias, full."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from pipeline.models.adapter_layers.change import Change, OfTensor, Site
from pipeline.models.adapter_layers.recipe import Recipe
from pipeline.models.adapter_layers.targets import chosen


class Own(OfTensor):
    """A copy that is read instead: ``value``, a parameter of a parameter, a buffer of a buffer."""

    def __init__(self, base: Tensor, tensor: str) -> None:
        super().__init__(tensor)
        self.value: Tensor
        copied = base.detach().clone()
        if isinstance(base, nn.Parameter):
            self.value = nn.Parameter(copied)
        else:
            self.register_buffer("value", copied)

    def seen(self, base: Tensor) -> Tensor:
        return self.value

    def folded(self, owner: nn.Module) -> dict[str, Tensor]:
        return {self.tensor: self.value}


def head(model: nn.Module, recipe: Recipe) -> dict[Site, Change]:
    """The parameters of the last layers. Raises ConfigError."""
    return _copies(model, chosen(model, recipe, (name for name, _ in model.named_parameters())))


def norm_bias(model: nn.Module, recipe: Recipe) -> dict[Site, Change]:
    """The factors of norms and everything that is added. Raises ConfigError."""
    small = (name for name, value in model.named_parameters() if _is_norm_or_bias(model, name, value))
    return _copies(model, chosen(model, recipe, small))


def full(model: nn.Module, recipe: Recipe) -> dict[Site, Change]:
    """Everything, the statistics of batch norms included."""
    return _copies(model, [name for name, _ in (*model.named_parameters(), *model.named_buffers())])


def _copies(model: nn.Module, names: Iterable[str]) -> dict[Site, Change]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {Site.of(name): Own(tensors[name], Site.of(name).tensor) for name in names}


def _is_norm_or_bias(model: nn.Module, name: str, value: Tensor) -> bool:
    """Biases are vectors (or say so), and a norm's factors may have more dimensions."""
    site = Site.of(name)
    return value.dim() <= 1 or "bias" in site.tensor or "norm" in type(model.get_submodule(site.owner)).__name__.lower()
