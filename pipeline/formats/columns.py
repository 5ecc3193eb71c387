"""The tables of a catalogue themselves, every value of every column: a folder of CSV, or of Parquet.

Both hold origins, arrivals and stations, with the names and units of the catalogue of a run. In CSV a time is ISO 8601
with nine digits, a number has as many digits as it needs to be read back the same, what is not known is empty, and a
text that a spreadsheet would take for a formula has an apostrophe before it.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pipeline.errors import BadData
from pipeline.formats import tables
from pipeline.formats.cells import guarded, plain
from pipeline.formats.located import EMPTY, Catalogue
from pipeline.records import LocatedArrivals, Origins, Stations, Table

T = TypeVar("T", bound=Table)
KINDS: dict[str, type[Table]] = {"origins": Origins, "arrivals": LocatedArrivals, "stations": Stations}


def write_parquet(folder: Path, catalogue: Catalogue) -> None:
    """origins.parquet, arrivals.parquet and stations.parquet in ``folder``, which is there."""
    for name in KINDS:
        tables.write(folder / f"{name}.parquet", getattr(catalogue, name))


def read_parquet(folder: Path) -> Catalogue:
    """Raises BadData that names the file."""
    return Catalogue(
        tables.read(folder / "origins.parquet", Origins),
        tables.read(folder / "arrivals.parquet", LocatedArrivals),
        tables.read(folder / "stations.parquet", Stations),
    )


def write_csv(folder: Path, catalogue: Catalogue) -> None:
    """origins.csv, arrivals.csv and stations.csv in ``folder``, which is there."""
    for name in KINDS:
        write_table(folder / f"{name}.csv", getattr(catalogue, name))


def read_csv(folder: Path) -> Catalogue:
    """Raises BadData that names the file and the line."""
    return Catalogue(
        read_table(folder / "origins.csv", Origins),
        read_table(folder / "arrivals.csv", LocatedArrivals),
        read_table(folder / "stations.csv", Stations),
    )


def heading(kind: type[Table]) -> list[str]:
    """The columns in a file, as Parquet has them: a time does not say "_ns"."""
    return [(f.metadata["name"] or f.name).removesuffix("_ns") for f in kind.columns()]


def write_table(path: Path, table: Table) -> None:
    """One table as CSV."""
    columns = [_texts(getattr(table, f.name), f.name) for f in table.columns()]
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(heading(type(table)))
        rows.writerows(zip(*columns, strict=True))


def _texts(values: np.ndarray[Any, Any], name: str) -> list[str]:
    if name.endswith("_ns"):
        known = [f"{text}Z" for text in np.datetime_as_string(values.astype("datetime64[ns]"), unit="ns").tolist()]
        blank = (values == 0) & (name == "predicted_ns")
        return ["" if none else text for text, none in zip(known, blank.tolist(), strict=True)]
    if values.dtype.kind == "f":
        return ["" if value != value else repr(value) for value in values.tolist()]
    if values.dtype.kind == "U":
        return [guarded(value) for value in values.tolist()]
    return [str(value) for value in values.tolist()]


def read_table(path: Path, kind: type[T]) -> T:
    """A table that `write_table` wrote; a column with a default may be missing. Raises BadData that names the line."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            names = list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise BadData(f"{path}: cannot be read as CSV: {e}") from e
    columns = []
    for f, name in zip(kind.columns(), heading(kind), strict=True):
        dtype, default = f.metadata["dtype"], f.metadata["default"]
        if name not in names and default is None:
            raise BadData(f"{path}: no column {name!r}; it has {', '.join(names)}")
        fill = EMPTY[dtype] if default is None or name in names else default
        parse = _parser(f.name, dtype)
        values = [_value(parse, row.get(name) or "", fill, f"{path}, row {n}, {name}") for n, row in enumerate(rows, 1)]
        columns.append(np.array(values, np.str_ if dtype == "str" else dtype))
    return kind(*columns)


def _parser(name: str, dtype: str) -> Callable[[str], Any]:
    if name.endswith("_ns"):
        return lambda text: int(np.datetime64(text.removesuffix("Z"), "ns").astype(np.int64))
    parsers: dict[str, Callable[[str], Any]] = {"str": plain, "int64": int, "float64": float}
    return parsers[dtype]


def _value(parse: Callable[[str], Any], text: str, fill: Any, where: str) -> Any:
    if not text:
        return fill
    try:
        return parse(text)
    except ValueError as e:
        raise BadData(f"{where}: {text!r}: {e}") from e
