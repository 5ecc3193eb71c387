"""A change to one place of a network: of a tensor that a layer reads, or of a layer's output.

The tensors of the network itself are never written: a change has tensors of its own.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Site:
    """Where a change is: the name of a layer ("" is the whole network), and of its tensor ("" is its output)."""

    owner: str
    tensor: str = ""

    @property
    def name(self) -> str:
        return ".".join(part for part in (self.owner, self.tensor) if part)

    @classmethod
    def of(cls, parameter: str) -> Site:
        """The site of a parameter's or buffer's full name."""
        owner, _, tensor = parameter.rpartition(".")
        return cls(owner, tensor)


class Change(nn.Module):
    """The tensors of a change are its parameters and buffers."""

    mergeable = True

    def folded(self, owner: nn.Module) -> dict[str, Tensor]:
        """The tensors of ``owner`` by name that alone do what they and the change do, computed in FP64."""
        raise NotImplementedError


class OfTensor(Change):
    """A change of the tensor ``tensor`` that a layer reads."""

    def __init__(self, tensor: str) -> None:
        super().__init__()
        self.tensor = tensor

    def seen(self, base: Tensor) -> Tensor:
        """What the layer reads instead of ``base``; of the same shape."""
        raise NotImplementedError


class OfOutput(Change):
    """A change of what a layer answers."""

    def changed(self, owner: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """A forward hook: what ``owner`` answers to ``args`` instead of ``output``."""
        raise NotImplementedError


def drawn(shape: tuple[int, ...], fan_in: int, like: Tensor, seed: int, name: str) -> nn.Parameter:
    """A parameter from the even distribution between ± 1 / sqrt(fan_in), the start of torch's own linear layers.

    Drawn on the CPU from ``seed`` and ``name`` alone: neither other layers nor the device matter.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    bound = 1 / math.sqrt(fan_in)
    values = torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return nn.Parameter(values.to(like.device, like.dtype))


def zeros(shape: tuple[int, ...], like: Tensor) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape, device=like.device, dtype=like.dtype))
