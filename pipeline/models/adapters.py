"""Networks adapted by a small part of their parameters: LoRA, bottlenecks, heads, norms and biases, or all of them.

`attach` puts an adapter into any network; what the network has of its own is never written. Before training the
output is the network's, to the bit. Merged, the network is a plain one again that our kernels know. An adapter is
saved without the network, see `pipeline.models.adapter_file`. docs/decisions/027 tells why.

    adapted = attach(model, Recipe("lora", rank=8))
    optimiser = torch.optim.Adam(adapted.trainable().values())
    adapted.train()      # or model.train(): statistics of batch norms stay, but for the method "full"
    ...
    save(path, adapted, Base(name, weights.digest(name)), about)
    adapted.merge()
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.models import adapter_file
from pipeline.models.adapter_file import Base, Header
from pipeline.models.adapter_layers import bottleneck, live, lora, own
from pipeline.models.adapter_layers.change import Change, Site
from pipeline.models.adapter_layers.recipe import METHODS, Recipe

__all__ = [
    "METHODS", "Adapted", "Base", "Recipe", "Saved", "Shares",
    "apply", "attach", "frozen_digests", "read", "save",
]  # fmt: skip

CHANGES: dict[str, Callable[[nn.Module, Recipe], dict[Site, Change]]] = {
    "frozen": lambda model, recipe: {},
    "head": own.head,
    "lora": lora.changes,
    "adapter": bottleneck.changes,
    "norm-bias": own.norm_bias,
    "full": own.full,
}


@dataclass(frozen=True, slots=True)
class Shares:
    """Numbers of parameters: trained ones, those of the base, and of both together where none is counted twice."""

    adapter: int
    base: int
    total: int

    @property
    def of_base(self) -> float:
        return self.adapter / self.base

    @property
    def of_total(self) -> float:
        return self.adapter / self.total

    def __str__(self) -> str:
        return (
            f"{self.adapter:,} parameters: {self.of_base:.3%} of the base's {self.base:,}, "
            f"{self.of_total:.3%} of {self.total:,} with the adapter"
        )


class Adapted:
    """A network with an adapter in it; made by `attach`."""

    def __init__(self, model: nn.Module, recipe: Recipe, changes: Mapping[Site, Change]) -> None:
        self.model, self.recipe, self.merged = model, recipe, False
        self._changes = dict(changes)
        self._wanted = {name: value.requires_grad for name, value in model.named_parameters()}
        self._kept: dict[str, Tensor] = {}  # what `merge` wrote over
        self._put_in()

    @property
    def mergeable(self) -> bool:
        """Whether the network's own tensors can hold the adapter."""
        return all(change.mergeable for change in self._changes.values())

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters to train, by name; nothing else requires a gradient."""
        return {
            f"{site.name}.{name}": value
            for site, change in self._changes.items()
            for name, value in change.named_parameters()
        }

    def state(self) -> dict[str, Tensor]:
        """Copies of all of the adapter's tensors, on the CPU; of "full" with the statistics of batch norms."""
        return {name: value.detach().cpu().clone() for name, value in self._tensors().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the tensors of `state`. Raises ConfigError on other names, shapes or types of numbers."""
        mine = self._tensors()
        if odd := sorted(set(mine) ^ set(state)):
            known = "lacks" if odd[0] in mine else "has"
            raise ConfigError(f"the adapter's tensors {known} {odd[0]!r} ({len(odd)} names differ): another recipe's")
        for name, value in mine.items():
            theirs, ours = state[name], (tuple(value.shape), value.is_complex(), value.is_floating_point())
            if (tuple(theirs.shape), theirs.is_complex(), theirs.is_floating_point()) != ours:
                raise ConfigError(
                    f"the adapter's tensor {name!r} is {theirs.dtype} {tuple(theirs.shape)}, expected {value.dtype} "
                    f"{tuple(value.shape)}: another recipe's, or another network's"
                )
        with torch.no_grad():
            for name, value in mine.items():
                value.copy_(state[name])

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode, as ``model.train``; norms keep their statistics but for the method "full"."""
        self.model.train(mode)
        return self

    def merge(self) -> None:
        """Write the adapter into the network's own tensors (computed in FP64): a plain network of its own class.

        Raises ConfigError if no tensor can hold it (bottlenecks).
        """
        if not self.mergeable:
            raise ConfigError(
                f"an adapter of method {self.recipe.method!r} is made of layers of its own and cannot be merged: use "
                "the network as it is; in a run, SeisBench's own code evaluates it, not our kernels"
            )
        if self.merged:
            return
        self._take_out()
        with torch.no_grad():
            folded = self._folded()
            mine = self._base()
            self._kept = {name: mine[name].detach().clone() for name in folded}
            for name, value in folded.items():
                mine[name].copy_(value)
        self.merged = True

    def unmerge(self) -> None:
        """Undo `merge`: the base's tensors are what they were, to the bit, and the adapter is beside them."""
        if not self.merged:
            return
        self._restore()
        self._put_in()

    def remove(self) -> None:
        """The plain network with the base's tensors to the bit; after it this object is of no more use."""
        if self.merged:
            self._restore()
        else:
            self._take_out()

    def shares(self) -> Shares:
        """How many parameters are trained, and of how many."""
        trained = {site: sum(value.numel() for value in c.parameters()) for site, c in self._changes.items()}
        base = sum(value.numel() for name, value in self.model.named_parameters() if live.is_own(name))
        replaced = sum(n for site, n in trained.items() if isinstance(self._changes[site], own.Own))
        adapter = sum(trained.values())
        return Shares(adapter, base, base + adapter - replaced)

    def _tensors(self) -> dict[str, Tensor]:
        return {
            f"{site.name}.{name}": value
            for site, change in self._changes.items()
            for name, value in (*change.named_parameters(), *change.named_buffers())
        }

    def _base(self) -> dict[str, Tensor]:
        """The network's own tensors."""
        return _own_tensors(self.model)

    def _folded(self) -> dict[str, Tensor]:
        """What `merge` writes; of the plain network."""
        return {
            Site(site.owner, tensor).name: value
            for site, change in self._changes.items()
            for tensor, value in change.folded(self.model.get_submodule(site.owner)).items()
        }

    def _put_in(self) -> None:
        like = next(self.model.parameters())
        for change in self._changes.values():
            change.to(like.device)
        self._handles = live.put_in(self.model, self._changes, self.recipe.method == "full")
        for name, value in self.model.named_parameters():
            if live.is_own(name):
                value.requires_grad_(False)

    def _take_out(self) -> None:
        live.take_out(self.model, self._handles)
        for name, value in self.model.named_parameters():
            value.requires_grad_(self._wanted[name])

    def _restore(self) -> None:
        mine = self._base()
        with torch.no_grad():
            for name, value in self._kept.items():
                mine[name].copy_(value)
        self._kept, self.merged = {}, False


def attach(model: nn.Module, recipe: Recipe) -> Adapted:
    """Put a new adapter into ``model``, whose output stays what it is, to the bit, until it is trained.

    ``model`` is changed in place; see `Adapted.remove`. Raises ConfigError if the recipe does not suit it.
    """
    return Adapted(model, recipe, CHANGES[recipe.method](model, recipe))


def frozen_digests(model: nn.Module, adapted: Adapted | None = None) -> dict[str, str]:
    """SHA-256 of each of the network's own parameters and buffers, which no method but `Adapted.merge` writes.

    With ``adapted`` merged in, of those alone that it leaves as they are.
    """
    written = set(adapted._kept) if adapted else set()
    return {name: _sha256(value) for name, value in _own_tensors(model).items() if name not in written}


def _own_tensors(model: nn.Module) -> dict[str, Tensor]:
    found = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: value for name, value in found.items() if live.is_own(name)}


def _sha256(value: Tensor) -> str:
    data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(f"{value.dtype} {tuple(value.shape)} ".encode() + data.numpy().tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Saved:
    """An adapter as its file has it; ``sha256`` is the file's."""

    base: Base
    recipe: Recipe
    about: dict[str, Any]
    sha256: str
    state: dict[str, Tensor]


def save(path: Path, adapted: Adapted, base: Base, about: Mapping[str, Any]) -> None:
    """Publish the adapter alone, with its recipe, the ``base`` it was made on and ``about`` (JSON, free).

    Raises ConfigError if a tensor is not finite, or ``about`` is not JSON.
    """
    state = adapted.state()
    if bad := [name for name, value in state.items() if not torch.isfinite(value).all()]:
        raise ConfigError(f"{path}: not written, {bad[0]} is not finite: the training diverged, lower its rate")
    adapter_file.write(path, state, Header(base, adapted.recipe.as_dict(), dict(about), ""))


def read(path: Path) -> Saved:
    """The adapter of a file. Raises ConfigError if it is missing, damaged, or of another version."""
    from safetensors.torch import load

    header, data = adapter_file.read(path)
    try:
        recipe = Recipe.from_dict(header.recipe)
    except ConfigError as e:
        raise ConfigError(f"{path}: {e}: written by another orcolat: take that, or train the adapter again") from e
    return Saved(header.base, recipe, header.about, header.sha256, load(data))


def apply(model: nn.Module, path: Path, base: Base | str) -> Adapted:
    """Put the adapter of a file into ``model``, which is the weight ``base`` (or has this digest).

    Raises ConfigError if it was made on another base, see `read`, or does not fit the network.
    """
    saved = read(path)
    given = base if isinstance(base, Base) else Base("this network", base)
    adapter_file.require_base(path, saved.base, given)
    adapted = attach(model, saved.recipe)
    try:
        adapted.load_state(saved.state)
    except ConfigError as e:
        adapted.remove()
        raise ConfigError(f"{path}: {e}; name the file that belongs to {given.name}") from e
    return adapted
