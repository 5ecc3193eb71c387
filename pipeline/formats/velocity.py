"""Velocity models of depth alone: .nd (named discontinuities, as TauP and ObsPy have it) and .csv."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.errors import ConfigError
from pipeline.maths.velocity import Between, VelocityModel, fault

BOUNDARIES = {"mantle", "moho", "outer-core", "outercore", "cmb", "inner-core", "innercore", "iocb"}  # words of .nd
HEADINGS = ("depth_km", "vp_km_s", "vs_km_s")
SHORT = {"depth": "depth_km", "vp": "vp_km_s", "vs": "vs_km_s"}


class Row(NamedTuple):
    line: int
    depth_km: float
    vp_km_s: float
    vs_km_s: float


def read(path: Path, between: Between, bottom_km: float) -> VelocityModel:
    """The model in ``path``; ``bottom_km`` is the depth down to which earthquakes are looked for.

    A fluid (vs = 0, the outer core) that begins below ``bottom_km`` ends the model. Raises ConfigError that names the
    line of the first value that cannot be.
    """
    readers = {".nd": _nd, ".csv": _csv}
    if path.suffix.lower() not in readers:
        raise ConfigError(f"{path}: a velocity model is a file .nd or .csv, not {path.suffix or 'without a suffix'!r}")
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: cannot read the velocity model: {e}; look at associate.velocity_model") from e
    rows = _solid(list(readers[path.suffix.lower()](text, path)), bottom_km)
    depth, vp, vs = (np.array([row[i] for row in rows], np.float64) for i in (1, 2, 3))
    found = fault(depth, vp, vs)
    if found is not None:
        where = f", line {rows[found[0]].line}" if rows else ""
        raise ConfigError(f"{path}{where}: {found[1]}")
    return VelocityModel(depth, vp, vs, between)


def _solid(rows: list[Row], bottom_km: float) -> list[Row]:
    """The rows above the first fluid below ``bottom_km``."""
    fluid = [i for i, row in enumerate(rows) if row.vs_km_s == 0 and row.depth_km > bottom_km]
    return rows[: fluid[0]] if fluid else rows


def _nd(text: str, path: Path) -> Iterator[Row]:
    """Depth, vp, vs and what else a line has; a word alone names the boundary between two lines of one depth."""
    for number, line in enumerate(text.splitlines(), 1):
        cells = line.split("#")[0].split("//")[0].split()
        if not cells or (len(cells) == 1 and cells[0].lower() in BOUNDARIES):
            continue
        yield _row(number, cells, f"{path}, line {number}")


def _csv(text: str, path: Path) -> Iterator[Row]:
    lines = [(i, line.split("#")[0]) for i, line in enumerate(text.splitlines(), 1) if line.split("#")[0].strip()]
    if not lines:
        return
    names = [SHORT.get(name.strip().lower(), name.strip().lower()) for name in lines[0][1].split(",")]
    absent = [name for name in HEADINGS if name not in names]
    if absent:
        raise ConfigError(
            f"{path}, line {lines[0][0]}: no column {', '.join(absent)} in the heading {lines[0][1].strip()!r}; "
            f"expected {','.join(HEADINGS)}"
        )
    for number, line in lines[1:]:
        cells = line.split(",")
        wanted = [cells[names.index(name)] for name in HEADINGS if names.index(name) < len(cells)]
        yield _row(number, wanted, f"{path}, line {number}")


def _row(number: int, cells: list[str], where: str) -> Row:
    if len(cells) < 3:
        raise ConfigError(f"{where}: {' '.join(cells)!r}; expected at least depth (km), vp and vs (km/s)")
    try:
        return Row(number, *(float(cell) for cell in cells[:3]))
    except ValueError as e:
        raise ConfigError(f"{where}: {' '.join(cells[:3])!r}: {e}; expected depth (km), vp and vs (km/s)") from e
