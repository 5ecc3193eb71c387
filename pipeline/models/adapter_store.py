"""Adapters in the store of weights: ``BASE+NAME`` is ``adapters/NAME.safetensors`` on the weight ``BASE``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.models import adapter_file
from pipeline.models.adapter_file import Base, Header


def path_of(store: Path, adapter: str) -> Path:
    """Where the adapter of a name, or of a ``file:`` name, lies."""
    if adapter.startswith("file:"):
        return Path(adapter.removeprefix("file:")).expanduser().absolute()
    return store / "adapters" / f"{adapter}.safetensors"


def verify(path: Path, base: str, digest: Callable[[str], str]) -> str:
    """The SHA-256 of an adapter's file. Raises ConfigError if it is missing, damaged, or of another ``base``."""
    header, _ = adapter_file.read(path)
    adapter_file.require_base(path, header.base, Base(base, digest(base)))
    return header.sha256


def load(model: Any, path: Path, base: Base) -> Any:
    """``model``, the weight ``base``, with an adapter: merged into it, or beside it where that cannot be; see `apply`.

    In evaluation mode. Raises ConfigError.
    """
    from pipeline.models import adapters

    adapted = adapters.apply(model, path, base)
    if adapted.mergeable:
        adapted.merge()
    return adapted.model.eval()


def headers(store: Path) -> dict[str, Header | None]:
    """The adapters in the store by the name of their weight; of a damaged one, ``+NAME`` and None."""
    found: dict[str, Header | None] = {}
    for path in sorted((store / "adapters").glob("*.safetensors")):
        try:
            header, _ = adapter_file.read(path)
            found[f"{header.base.name}+{path.stem}"] = header
        except ConfigError:
            found[f"+{path.stem}"] = None
    return found
