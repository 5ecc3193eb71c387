"""TOML in, and out again; what is wrong in it, key by key."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.config.base import Section
from pipeline.config.site import Site
from pipeline.config.whole import Config
from pipeline.errors import ConfigError

S = TypeVar("S", bound=Section)


def load(path: Path, overrides: list[str] | None = None, site: Path | None = None) -> Config:
    """Read a TOML file; then what the file ``site`` says counts instead, and then ``overrides``.

    ``overrides`` are ``key.sub=value`` with TOML values (bare words are text). Raises ConfigError that names the
    file, each wrong key, its value and what is allowed.
    """
    data = _read(path)
    if site:
        _lay_over(data, _of_site(site))
    for override in overrides or []:
        _apply(data, override)
    return parse(data, Path(path))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: cannot read the configuration: {e}") from e
    except tomllib.TOMLDecodeError as e:
        raise ConfigError(f"{path}: not valid TOML: {e}") from e


def _of_site(path: Path) -> dict[str, Any]:
    """What a site file says, its paths made absolute."""
    return _validated(Site, _read(path), path).model_dump(mode="json", exclude_unset=True)


def _lay_over(data: dict[str, Any], other: dict[str, Any]) -> None:
    """Put what ``other`` says in place of what ``data`` says, section by section."""
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(data.get(key), dict):
            _lay_over(data[key], value)
        else:
            data[key] = value


def parse(data: dict[str, Any], path: Path) -> Config:
    """Validate ``data`` as read from ``path``; relative paths start at its folder."""
    return _validated(Config, data, path)


def _validated(kind: type[S], data: dict[str, Any], path: Path) -> S:
    try:
        return kind.model_validate(data, context={"base": Path(path).parent})
    except ValidationError as e:
        raise ConfigError(f"{path}: " + "; ".join(_explain(kind, error) for error in e.errors())) from e


def _apply(data: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set {override!r}: write it as section.key=value")
    *sections, last = key.split(".")
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {override!r}: {section} is a value, not a section")
    try:
        data[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        data[last] = text


def _explain(kind: type[BaseModel], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key (value {error['input']!r}); known keys: {_known(kind, error['loc'])}"
    if error["type"] == "missing":
        return f"{key}: missing, please give it"
    shown = "" if isinstance(error["input"], dict) else f" is {error['input']!r}"
    return f"{key}{shown}: {error['msg'].removeprefix('Value error, ')}{_bounds(kind, error['loc'])}"


def _known(kind: type[BaseModel], loc: tuple[Any, ...]) -> str:
    model = _model(kind, loc[:-1])
    return ", ".join(model.model_fields) if model else "none"


def _bounds(kind: type[BaseModel], loc: tuple[Any, ...]) -> str:
    """The limits of a number, if its key has any: " (allowed: > 0, < 1)"."""
    model = _model(kind, loc[:-1])
    field = model.model_fields.get(loc[-1]) if model and loc else None
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    options = getattr(field.annotation, "__args__", ()) if field else ()  # of "float or none"
    inner = [
        m for option in options for known in getattr(option, "__metadata__", ()) for m in getattr(known, "metadata", ())
    ]
    limits = [
        f"{sign} {getattr(m, name)}"
        for m in (*(field.metadata if field else ()), *inner)
        for name, sign in signs.items()
        if getattr(m, name, None) is not None
    ]
    return f" (allowed: {', '.join(limits)})" if limits else ""


def _model(kind: type[BaseModel], loc: tuple[Any, ...]) -> type[BaseModel] | None:
    """The section of ``kind`` that a key's path leads to; None where it leads to something else."""
    model: Any = kind
    for part in loc:
        if isinstance(part, int):  # of a list of sections
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        options = [a for a in (annotation, *getattr(annotation, "__args__", ())) if hasattr(a, "model_fields")]
        if not options:
            return None
        model = options[0]
    found: type[BaseModel] = model
    return found


def dumps(config: Config) -> str:
    """The filled-in configuration as TOML; `load` gives it back."""
    lines: list[str] = []
    for name, section in config.model_dump(mode="json", exclude_none=True).items():
        lines += ["", *_table(f"[{name}]", {k: v for k, v in section.items() if not _tables(v)})]
        for key, value in section.items():
            head = f"[{name}.{key}]" if isinstance(value, dict) else f"[[{name}.{key}]]"
            lines += [line for table in _tables(value) for line in ("", *_table(head, table))]
    return "\n".join(lines).lstrip() + "\n"


def _tables(value: Any) -> list[dict[str, Any]]:
    """The sections that a value is, or is a list of; none if it is neither."""
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, dict)]


def _table(head: str, values: dict[str, Any]) -> list[str]:
    return [head, *(f"{key} = {_toml(value)}" for key, value in values.items())]


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
