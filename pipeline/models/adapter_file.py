"""The file of an adapter: a safetensors file of its own tensors, and in its header what they belong to.

The header holds, as text, ``format``, ``version``, the name and digest of the base (`pipeline.models.weights.digest`),
the recipe and ``about`` (both JSON), and a SHA-256 over all of that and the tensors: a changed byte is noticed.
Everything but the tensors themselves can be read without torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.rundir import publish

FORMAT, VERSION = "orcolat-adapter", "1"
KEYS = {"format", "version", "base", "base_sha256", "recipe", "about", "sha256"}


@dataclass(frozen=True, slots=True)
class Base:
    """The weight that an adapter was made on: its name and `pipeline.models.weights.digest`."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Header:
    """What an adapter belongs to. ``sha256`` is the file's, ``recipe`` as `Recipe.as_dict` gives it."""

    base: Base
    recipe: dict[str, Any]
    about: dict[str, Any]
    sha256: str


def write(path: Path, tensors: Mapping[str, Any], header: Header) -> None:
    """Publish a file of torch tensors; ``header.sha256`` is not looked at. Raises ConfigError, OSError."""
    from safetensors.torch import save

    try:
        texts = {
            "format": FORMAT,
            "version": VERSION,
            "base": header.base.name,
            "base_sha256": header.base.sha256,
            "recipe": json.dumps(header.recipe, sort_keys=True, allow_nan=False),
            "about": json.dumps(header.about, sort_keys=True, allow_nan=False),
        }
    except (TypeError, ValueError) as e:
        raise ConfigError(f"{path}: the recipe and what is said about the adapter must be JSON: {e}") from e
    _, entries, values = _parts(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    with publish(path) as part:
        part.write_bytes(_whole(texts | {"sha256": _seal(texts, entries, values)}, entries, values))


def read(path: Path) -> tuple[Header, bytes]:
    """The header of ``path`` and the whole file. Raises ConfigError if it is not such a file, or is damaged."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ConfigError(
            f"adapter {path} is not there: {e.strerror}; copy its file there, or train it (`orcolat adapt`)"
        ) from e
    return header_of(path, data), data


def header_of(path: Path, data: bytes) -> Header:
    """What ``data``, the bytes of ``path``, says of itself; see `read`."""
    try:
        texts, entries, values = _parts(data)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ConfigError(f"{path}: no adapter file: {e}; it is damaged or something else: bring it again") from e
    _require_known(path, texts)
    found = _seal({key: value for key, value in texts.items() if key != "sha256"}, entries, values)
    if found != texts["sha256"]:
        raise ConfigError(f"{path}: SHA-256 {found}, but {texts['sha256']} was written: damaged, bring it again")
    recipe, about = json.loads(texts["recipe"]), json.loads(texts["about"])
    return Header(Base(texts["base"], texts["base_sha256"]), recipe, about, hashlib.sha256(data).hexdigest())


def require_base(path: Path, made_on: Base, base: Base) -> None:
    """Raises ConfigError unless ``path``, which was ``made_on`` a weight, was made on ``base``."""
    if made_on.sha256 == base.sha256:
        return
    if made_on.name == base.name:
        remedy = "these weights were fetched or converted anew: bring those back, or train the adapter again"
    else:
        remedy = f"name {made_on.name} as its base, or train the adapter on {base.name}"
    raise ConfigError(
        f"{path}: this adapter was made on {made_on.name} (digest {made_on.sha256}), not on {base.name} "
        f"(digest {base.sha256}): {remedy}"
    )


def _require_known(path: Path, texts: dict[str, str]) -> None:
    if texts.get("format") != FORMAT:
        raise ConfigError(f"{path}: a safetensors file, but no adapter of this program: name another")
    if texts.get("version") != VERSION:
        raise ConfigError(
            f"{path}: an adapter file of version {texts.get('version')!r}, this program reads {VERSION!r}: "
            "take the orcolat that wrote it, or train the adapter again"
        )
    if set(texts) != KEYS:
        raise ConfigError(f"{path}: its header has {sorted(texts)}, expected {sorted(KEYS)}: damaged, bring it again")


def _parts(data: bytes) -> tuple[dict[str, str], dict[str, Any], bytes]:
    """Texts, tensors' entries and values of a safetensors file. Raises ValueError and others on anything else."""
    from safetensors import SafetensorError, deserialize

    try:
        deserialize(data)  # type: ignore[no-untyped-call]  # it checks lengths, offsets and types
    except SafetensorError as e:
        raise ValueError(str(e)) from e
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    texts = entries.pop("__metadata__", {})
    return texts, entries, data[8 + length :]


def _whole(texts: Mapping[str, str], entries: Mapping[str, Any], values: bytes) -> bytes:
    """The way back from `_parts`. safetensors itself writes the texts in another order each time."""
    header = json.dumps({"__metadata__": dict(texts), **entries}, sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + values


def _seal(texts: Mapping[str, str], entries: Mapping[str, Any], values: bytes) -> str:
    described = json.dumps([dict(texts), dict(entries)], sort_keys=True)
    return hashlib.sha256(described.encode() + b"\0" + values).hexdigest()
