"""Parquet: one record table a file, units in the schema, the same bytes for the same rows."""

from __future__ import annotations

import json
from dataclasses import Field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import BadData
from pipeline.records import Table

T = TypeVar("T", bound=Table)


def write(path: Path, table: Table, metadata: dict[str, Any] | None = None) -> None:
    """Write ``table``; ``metadata`` (JSON values) goes into the schema under "orcolat".

    A column ``*_ns`` becomes the timestamp ``*`` (ns, UTC); units and meanings are field metadata.
    """
    arrays, schema = [], []
    for f in table.columns():
        name, kind = _arrow(f)
        values = getattr(table, f.name)
        arrays.append(pa.array(values.tolist() if f.metadata["dtype"] == "str" else values, type=kind))
        about = {
            k: f.metadata[k]
            for k in ("unit", "doc")
            if f.metadata[k] and not (k == "unit" and f.metadata["unit"] == "ns")
        }
        schema.append(pa.field(name, kind, nullable=False, metadata=about))
    about_all = {"orcolat": json.dumps(metadata or {}, sort_keys=True)}
    pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(schema, metadata=about_all)), path, compression="zstd")


def read(path: Path, kind: type[T]) -> T:
    """Read a table of ``kind``. Raises BadData that names the file and the missing column.

    A column that a file may lack is filled with its default (`pipeline.records.column`).
    """
    found = _open(path)
    return kind(*(_column(path, found, f) for f in kind.columns()))


def _column(path: Path, found: pa.Table, f: Field[Any]) -> np.ndarray[Any, Any]:
    (name, arrow), default = _arrow(f), f.metadata["default"]
    if name not in found.column_names:
        if default is None:
            raise BadData(f"{path}: no column {name!r}; it has {', '.join(found.column_names)}")
        return np.full(found.num_rows, default, f.metadata["dtype"])
    try:
        values = found.column(name).cast(arrow)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
        raise BadData(f"{path}: column {name!r} is {found.schema.field(name).type}, expected {arrow}: {e}") from e
    if values.null_count and not pa.types.is_floating(arrow):  # an empty number becomes NaN
        raise BadData(f"{path}: column {name!r} is empty in {values.null_count} of {len(values)} rows: fill them in")
    return _numpy(values, f.metadata["dtype"])


def names(path: Path) -> list[str]:
    """The columns of a file."""
    found: list[str] = _schema(path).names
    return found


def n_rows(path: Path) -> int:
    """Number of rows, without reading them."""
    try:
        n: int = pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowInvalid) as e:
        raise BadData(f"{path}: not a readable Parquet file: {e}") from e
    return n


def metadata(path: Path) -> dict[str, Any]:
    """What `write` was given as metadata."""
    found: dict[str, Any] = json.loads((_schema(path).metadata or {}).get(b"orcolat", b"{}"))
    return found


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as e:
        raise BadData(f"{path}: not a readable Parquet file: {e}") from e


def _open(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowInvalid) as e:
        raise BadData(f"{path}: not a readable Parquet file: {e}") from e


def _arrow(f: Field[Any]) -> tuple[str, pa.DataType]:
    """Name and type of a column in the file."""
    name, dtype = f.metadata["name"] or f.name, f.metadata["dtype"]
    if name.endswith("_ns"):
        return name[:-3], pa.timestamp("ns", tz="UTC")
    return name, pa.string() if dtype == "str" else pa.from_numpy_dtype(np.dtype(dtype))


def _numpy(values: pa.ChunkedArray, dtype: str) -> np.ndarray[Any, Any]:
    if dtype == "str":
        return np.array(values.to_pylist(), dtype=np.str_) if len(values) else np.empty(0, "U1")
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    return np.ascontiguousarray(values.to_numpy(), dtype=dtype)
