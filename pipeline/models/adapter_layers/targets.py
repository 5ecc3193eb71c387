"""Which places of a network a recipe means: its patterns, or what we know of the network's class."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from pipeline.errors import ConfigError
from pipeline.models.adapter_layers.recipe import Recipe

DEFAULTS: dict[str, dict[str, tuple[str, ...]]] = {  # class of the network, or of a parent: method: patterns
    "PhaseNet": {"head": ("out",), "adapter": ("down_branch.*.1", "up_branch.*.3")},  # each level's last norm
    "PhaseNetLight": {"head": ("out",), "adapter": ("bnd?", "bnu?")},
    "EQTransformer": {
        "head": ("conv_d", "pick_convs"),
        "adapter": ("res_cnn_stack.members.?", "bi_lstm_stack.members.?", "transformer_d0", "transformer_d"),
    },
    "EQTP": {"head": ("pick_convs",), "adapter": ("res_cnn_stack.members.?", "transformer_d0", "transformer_d")},
    "GPD": {"head": ("fc3",), "adapter": ("bn?",)},
    "BasicPhaseAE": {"head": ("out",), "adapter": ("conv?",)},
    "Skynet": {"head": ("dconv9",), "adapter": ("bn12", "bnd[2468]")},
    "PhaseNO": {"head": ("fc1", "fc2"), "adapter": ("fno?", "gno?"), "lora": ("gno?",)},  # lora: its graph blocks
    "Module": {"lora": ("*",), "norm-bias": ("*",)},
}
SHOWN = 8  # names in a message


def chosen(model: nn.Module, recipe: Recipe, names: Iterable[str], inside: bool = True) -> list[str]:
    """Those of ``names`` that the recipe means, in their order; ``inside``: or that lie in a layer that it means.

    Raises ConfigError if a pattern fits none.
    """
    patterns, known = recipe.targets or defaults(model, recipe.method), list(names)
    for pattern in patterns:
        if not any(_fits(name, pattern, inside) for name in known):
            some = ", ".join(known[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
            raise ConfigError(
                f"adapter recipe: target {pattern!r} fits nothing in {type(model).__name__} that {recipe.method!r} "
                f"can adapt: {some or 'there is nothing'}"
            )
    return [name for name in known if any(_fits(name, pattern, inside) for pattern in patterns)]


def _fits(name: str, pattern: str, inside: bool) -> bool:
    return fnmatchcase(name, pattern) or (inside and fnmatchcase(name, f"{pattern}.*"))


def defaults(model: nn.Module, method: str) -> tuple[str, ...]:
    """The patterns for networks of this class. Raises ConfigError where we know none."""
    for each in type(model).__mro__:
        if found := DEFAULTS.get(each.__name__, {}).get(method):
            return found
    last = [name for name, part in model.named_modules() if next(part.parameters(recurse=False), None) is not None]
    raise ConfigError(
        f"adapter recipe: we do not know where {type(model).__name__} takes {method!r}: give targets, for example "
        f"{last[-1] if last else 'a layer'!r}, the last layer"
    )
