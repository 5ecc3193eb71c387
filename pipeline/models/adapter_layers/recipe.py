"""How a network is to be adapted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from pipeline.errors import ConfigError

METHODS = ("frozen", "head", "lora", "adapter", "norm-bias", "full")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained, and from which numbers it starts.

    ``targets`` are patterns (`fnmatch`) of names: of blocks (adapter), of layers and bare parameters (lora), or of
    parameters (head, norm-bias); but for blocks, "encoder" means all that lies in it, too. Without them, see
    `pipeline.models.adapter_layers.targets`. ``rank`` and ``alpha`` are of LoRA, whose change is scaled by
    alpha / rank; ``bottleneck`` is the width of an adapter's narrow layer. Raises ConfigError.
    """

    method: str
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ()
    bottleneck: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = {
            f"method {self.method!r} is none of {', '.join(METHODS)}": self.method not in METHODS,
            f"rank {self.rank!r} is not a whole number from 1": not _whole(self.rank, 1),
            f"bottleneck {self.bottleneck!r} is not a whole number from 1": not _whole(self.bottleneck, 1),
            f"seed {self.seed!r} is not a whole number from 0": not _whole(self.seed, 0),
            f"alpha {self.alpha!r} is not a number above 0": not _positive(self.alpha),
            f"targets {self.targets!r} are not patterns of names": not _patterns(self.targets),
            f"method {self.method!r} takes no targets": bool(self.targets) and self.method in ("frozen", "full"),
        }
        if found := [text for text, is_so in wrong.items() if is_so]:
            raise ConfigError(f"adapter recipe: {'; '.join(found)}")

    @property
    def scaling(self) -> float:
        """What LoRA's change is multiplied with."""
        return self.alpha / self.rank

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` is the way back."""
        return asdict(self) | {"targets": list(self.targets)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A recipe with every field given. Raises ConfigError on another set of fields, or on wrong values."""
        expected = {field.name for field in fields(cls)}
        if set(values) != expected or not isinstance(values["targets"], list):
            raise ConfigError(f"adapter recipe: fields {sorted(values)}, expected {sorted(expected)}, targets a list")
        return cls(**{**values, "targets": tuple(values["targets"])})


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _patterns(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, str) and each.strip() for each in value)
