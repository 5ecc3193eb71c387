"""Small tables: station corrections of magnitudes, -log10 A0 by distance, station terms; CSV with a heading."""

from __future__ import annotations

import csv
import math
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.errors import BadData, ConfigError
from pipeline.formats import tables
from pipeline.records import Float, StationTerms


def read_corrections(path: Path) -> dict[str, float]:
    """What to add to the magnitude at each "NET.STA". Raises ConfigError that names file, line and value."""
    found: dict[str, float] = {}
    for where, (station, text) in _rows(path, ("station", "correction")):
        if station in found:
            raise ConfigError(f"{where}: station {station} is there twice: take one line out")
        found[station] = _number(text, where)
    return found


def read_table(path: Path) -> tuple[Float, Float]:
    """Distances in km, growing, and -log10 A0. Raises ConfigError that names file, line and value."""
    rows = [
        (where, _number(km, where), _number(value, where))
        for where, (km, value) in _rows(path, ("distance_km", "minus_log_a0"))
    ]
    for (_, before, _), (where, km, _) in pairwise(rows):
        if km <= before:
            raise ConfigError(f"{where}: distance {km:g} km after {before:g} km: sort the table")
    if len(rows) < 2:
        raise ConfigError(f"{path}: {len(rows)} rows; a table has two at least")
    return np.array([km for _, km, _ in rows]), np.array([value for _, _, value in rows])


def read_station_terms(path: Path) -> StationTerms:
    """Station terms as `locate` wrote them (.parquet), or CSV with station ("NET.STA"), phase, term_s; ``n`` is 0 then.

    Raises ConfigError that names file, line and value.
    """
    if path.suffix == ".parquet":
        try:
            return tables.read(path, StationTerms)
        except BadData as e:
            raise ConfigError(f"{e}; station terms are those of a run, catalogue/station_terms.parquet") from e
    found: dict[tuple[str, str], float] = {}
    for where, (station, phase, text) in _rows(path, ("station", "phase", "term_s")):
        if phase not in ("P", "S"):
            raise ConfigError(f"{where}: phase {phase!r} is neither P nor S")
        if (station, phase) in found:
            raise ConfigError(f"{where}: {phase} of station {station} is there twice: take one line out")
        found[station, phase] = _number(text, where)
    names, phases = (np.array([key[k] for key in found], np.str_) for k in (0, 1))
    term_s = np.array(list(found.values()), np.float64)
    return StationTerms(names, phases, term_s, np.full(len(found), np.nan), np.zeros(len(found), np.int64))


def _rows(path: Path, columns: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise ConfigError(f"{path}: no column {', '.join(missing)}; the heading is {','.join(columns)}")
            return [
                (f"{path}, line {reader.line_num}", tuple((row[name] or "").strip() for name in columns))
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise ConfigError(f"{path}: cannot read it: {e}") from e


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError as e:
        raise ConfigError(f"{where}: {text!r} is not a number") from e
    if not math.isfinite(value):
        raise ConfigError(f"{where}: {text!r} is not a finite number")
    return value
