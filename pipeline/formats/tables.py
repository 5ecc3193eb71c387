"""Parquet: one record table a file, units in the schema, the same bytes for the same rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import Field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import AWAY, BadData, Storage, storage
from pipeline.maths.coverage import Labels
from pipeline.records import Table

T = TypeVar("T", bound=Table)
Part = tuple[str, int, int | None]  # of a text column: its name, the first character and the one after the last


def write(path: Path, table: Table, metadata: dict[str, Any] | None = None) -> None:
    """Write ``table``; ``metadata`` (JSON values) goes into the schema under "orcolat".

    A column ``*_ns`` becomes the timestamp ``*`` (ns, UTC); units and meanings are field metadata.
    """
    schema = _written(table.columns()).with_metadata({"orcolat": json.dumps(metadata or {}, sort_keys=True)})
    values = [getattr(table, f.name) for f in table.columns()]
    arrays = [
        pa.array(each.tolist() if pa.types.is_string(kind) else each, type=kind)
        for each, kind in zip(values, schema.types, strict=True)
    ]
    whole = pa.BufferOutputStream()  # in one piece: the writer hands over a page or a header at a time
    with pq.ParquetWriter(whole, schema, compression="zstd") as writer:
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    path.write_bytes(whole.getvalue())


@cache
def _written(columns: tuple[Field[Any], ...]) -> pa.Schema:
    """The columns as they are written, with what they mean."""
    found = []
    for f in columns:
        name, arrow = _arrow(f)
        about = {
            k: f.metadata[k]
            for k in ("unit", "doc")
            if f.metadata[k] and not (k == "unit" and f.metadata["unit"] == "ns")
        }
        found.append(pa.field(name, arrow, nullable=False, metadata=about))
    return pa.schema(found)


def read(path: Path, kind: type[T]) -> T:
    """Read a table of ``kind``. Raises BadData that names the file and the missing column.

    A column that a file may lack is filled with its default (`pipeline.records.column`).
    """
    return _table(path, _open(path), kind)


def read_if_there(path: Path, kind: type[T]) -> T:
    """`read`, or an empty table where there is no file."""
    return read(path, kind) if path.exists() else kind.empty()


def _table(path: Path, found: pa.Table, kind: type[T]) -> T:
    return kind(*(_column(path, found, f) for f in kind.columns()))


def labels(
    paths: Sequence[Path], texts: Mapping[str, Part], numbers: Sequence[str] = ()
) -> tuple[dict[str, Labels], dict[str, np.ndarray[Any, Any]]]:
    """Some columns of all rows of ``paths``, without a Python object a row: a table of millions is some megabytes.

    ``texts`` says which parts of which text columns are wanted, by names of the caller's. Raises BadData.
    """
    wanted = sorted({name for name, _, _ in texts.values()} | set(numbers))
    read = [_read_some(path, wanted) for path in paths]
    if not read:
        none = Labels(np.empty(0, np.int32), ())
        return dict.fromkeys(texts, none), {name: np.empty(0) for name in numbers}
    table = pa.concat_tables(read)
    return (
        {key: _labels(table.column(name), start, stop) for key, (name, start, stop) in texts.items()},
        {name: table.column(name).to_numpy() for name in numbers},
    )


def _read_some(path: Path, names: list[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            found = file.read(names, use_threads=False).replace_schema_metadata().select(names)
    except (OSError, pa.ArrowInvalid) as e:
        raise _unreadable(path, e) from e
    except KeyError as e:
        raise BadData(f"{path}: no column {e}; expected {', '.join(names)}") from e
    return found.cast(pa.schema([(f.name, f.type) for f in found.schema]))  # no metadata, all may be empty


def _labels(column: pa.ChunkedArray, start: int, stop: int | None) -> Labels:
    values = pa.chunked_array(column, pa.string())
    part = values if (start, stop) == (0, None) else pc.utf8_slice_codeunits(values, start, stop)
    found = part.combine_chunks().dictionary_encode()
    return Labels(found.indices.to_numpy(zero_copy_only=False).astype(np.int32), tuple(found.dictionary.to_pylist()))


def _column(path: Path, found: pa.Table, f: Field[Any]) -> np.ndarray[Any, Any]:
    (name, arrow), default = _arrow(f), f.metadata["default"]
    if name not in found.column_names:
        if default is None:
            raise BadData(f"{path}: no column {name!r}; it has {', '.join(found.column_names)}")
        return np.full(found.num_rows, default, "U1" if f.metadata["dtype"] == "str" else f.metadata["dtype"])
    try:
        values = found.column(name).cast(arrow)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
        raise BadData(f"{path}: column {name!r} is {found.schema.field(name).type}, expected {arrow}: {e}") from e
    if values.null_count and not pa.types.is_floating(arrow):  # an empty number becomes NaN
        raise BadData(f"{path}: column {name!r} is empty in {values.null_count} of {len(values)} rows: fill them in")
    return _numpy(values, f.metadata["dtype"])


def read_all(paths: Sequence[Path], kind: type[T]) -> tuple[T, list[dict[str, Any]]]:
    """The rows of all ``paths``, one at least, as `read` gives them, and the `metadata` of each, in one go."""
    found = [_open(path) for path in paths]
    abouts = [_about(one.schema) for one in found]
    try:
        return _table(paths[0], pa.concat_tables(found), kind), abouts
    except (pa.ArrowInvalid, BadData):  # one is not as the others, or wrong: which?
        return kind.concat([_table(path, one, kind) for path, one in zip(paths, found, strict=True)]), abouts


def names(path: Path) -> list[str]:
    """The columns of a file."""
    found: list[str] = _schema(path).names
    return found


def n_rows(path: Path) -> int:
    """Number of rows, without reading them."""
    try:
        n: int = pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowInvalid) as e:
        raise _unreadable(path, e) from e
    return n


def metadata(path: Path) -> dict[str, Any]:
    """What `write` was given as metadata."""
    return _about(_schema(path))


def _about(schema: pa.Schema) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((schema.metadata or {}).get(b"orcolat", b"{}"))
    return found


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as e:
        raise _unreadable(path, e) from e


def _open(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:  # a run has thousands of small ones: no data set, no threads
            return file.read(use_threads=False)
    except (OSError, pa.ArrowInvalid) as e:
        raise _unreadable(path, e) from e


def _unreadable(path: Path, e: Exception) -> Storage | BadData:
    """Whether it is the file system's fault, or the file's."""
    if isinstance(e, OSError) and e.errno in AWAY:
        return storage(e, path)
    return BadData(f"{path}: not a readable Parquet file: {e}")


def _arrow(f: Field[Any]) -> tuple[str, pa.DataType]:
    """Name and type of a column in the file."""
    name, dtype = f.metadata["name"] or f.name, f.metadata["dtype"]
    if name.endswith("_ns"):
        return name[:-3], pa.timestamp("ns", tz="UTC")
    return name, pa.string() if dtype == "str" else pa.from_numpy_dtype(np.dtype(dtype))


def _numpy(values: pa.ChunkedArray, dtype: str) -> np.ndarray[Any, Any]:
    if dtype == "str":  # names repeat: a Python object for each name, not for each row
        found = _labels(values, 0, None)
        return np.array(found.names, np.str_)[found.code] if len(found) else np.empty(0, "U1")
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    return np.ascontiguousarray(values.to_numpy(), dtype=dtype)
