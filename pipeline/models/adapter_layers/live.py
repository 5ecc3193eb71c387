"""Putting changes into a network and taking them out again.

The network keeps its layers, names and tensors. While changes are in it,

- its class is a subclass of its own, so that whoever knows the plain class to the letter (our kernels, the lean forms
  for GPUs) does not take it for that;
- a layer whose tensor is changed is of a subclass with a property of the tensor's name, which reads through the
  change: no state is kept between calls, so that threads do not meet;
- outputs are changed by forward hooks;
- the changes are its child `ADAPTER`, and move, convert and train with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.hooks import RemovableHandle

from pipeline.errors import ConfigError
from pipeline.models.adapter_layers.change import Change, OfOutput, OfTensor, Site

ADAPTER = "adapter"  # the network's child
SEEN = "changes_seen"  # the attribute of a layer with its changes by tensor


class Changes(nn.ModuleList):
    """All changes of a network. ``moving``: statistics of batch norms are among them, and may move."""

    moving = False

    def forward(self, x: Any) -> Any:
        """Nothing: for a network that is an `nn.Sequential`, and calls each of its children."""
        return x


def put_in(model: nn.Module, changes: Mapping[Site, Change], moving: bool) -> list[RemovableHandle]:
    """Put ``changes`` into ``model``; the hooks, for `take_out`. Raises ConfigError if it has an adapter."""
    if hasattr(model, ADAPTER):
        raise ConfigError(f"{type(model).__name__} has an adapter already: merge it or take it out first")
    tensors: dict[str, dict[str, OfTensor]] = defaultdict(dict)
    handles = []
    for site, change in changes.items():
        if isinstance(change, OfTensor):
            tensors[site.owner][site.tensor] = change
        else:
            handles.append(model.get_submodule(site.owner).register_forward_hook(cast(OfOutput, change).changed))
    for name, seen in tensors.items():
        layer = model.get_submodule(name)
        layer.__dict__[SEEN] = seen
        _subclass(layer, {tensor: _property(tensor) for tensor in seen} | _recurrent(layer))
    held = Changes(changes.values())
    held.moving = moving
    model.add_module(ADAPTER, held)
    _subclass(model, {"train": _train(type(model))})
    model.train(model.training)
    return handles


def take_out(model: nn.Module, handles: list[RemovableHandle]) -> None:
    """The network as it was before `put_in`."""
    for handle in handles:
        handle.remove()
    _superclass(model)
    del model._modules[ADAPTER]
    for layer in model.modules():
        if layer.__dict__.pop(SEEN, None) is not None:
            _superclass(layer)


def is_own(name: str) -> bool:
    """Whether a tensor of this name is the network's, not the adapter's."""
    return not name.startswith(f"{ADAPTER}.")


def _subclass(layer: nn.Module, body: dict[str, Any]) -> None:
    plain = type(layer)
    layer.__class__ = type(plain.__name__, (plain,), body | {"__module__": plain.__module__})


def _superclass(layer: nn.Module) -> None:
    layer.__class__ = type(layer).__base__  # type: ignore[assignment]


def _property(tensor: str) -> property:
    def seen(layer: nn.Module) -> Tensor:
        base = layer._parameters[tensor] if tensor in layer._parameters else layer._buffers[tensor]
        return cast(Tensor, layer.__dict__[SEEN][tensor].seen(base))

    return property(seen)


def _recurrent(layer: nn.Module) -> dict[str, Any]:
    """torch's RNNs keep a list of their weights, for cuDNN in one block of memory: here it is made at each call."""
    if not isinstance(layer, nn.RNNBase):
        return {}
    weights = property(lambda self: [getattr(self, name) for name in self._flat_weights_names], lambda self, _: None)
    return {
        "_flat_weights": weights,
        "_update_flat_weights": lambda self: None,
        "flatten_parameters": lambda self: None,
    }


def _train(plain: type[nn.Module]) -> Any:
    """`train` of a network of class ``plain`` that leaves the statistics of norms as they are."""

    def train(self: nn.Module, mode: bool = True) -> nn.Module:
        plain.train(self, mode)
        if not cast(Changes, self.get_submodule(ADAPTER)).moving:
            for part in self.modules():
                if isinstance(part, _NormBase) and part.track_running_stats:
                    part.eval()
        return self

    return train
