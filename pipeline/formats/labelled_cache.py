"""A labelled set in one HDF5 file, for training: a chunk is a record, so that any record is one read.

``waveforms`` float32 (n, 3, length) in chunks (1, 3, length), ``rows`` one dataset a column of `Labelled`, and the
attributes ``format``, ``version``, ``length``, ``digest`` (SHA-256 over rows and waveforms) and ``about`` (JSON).
Not compressed: see docs/decisions/029.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.errors import BadData, ConfigError
from pipeline.formats.labelled_rows import Part
from pipeline.records import Float32, Int, Labelled, Text
from pipeline.rundir import publish

FORMAT = "orcolat-labelled"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Cache:
    """A published cache. It keeps no file open: any number of processes and threads may read at once."""

    path: Path
    rows: Labelled
    length: int
    digest: str
    about: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: Int) -> Float32:
        """The records ``index`` (k,), in that order, repeated ones too: float32 (k, 3, length).

        Raises IndexError for a record that is not there, BadData if the file cannot be read.
        """
        index = np.asarray(index, np.int64)
        if len(index) and (index.min() < 0 or index.max() >= len(self)):
            raise IndexError(f"{self.path}: has {len(self)} records, asked for {index.min()} to {index.max()}")
        out = np.empty((len(index), 3, self.length), np.float32)
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                waveforms = file["waveforms"]
                for k, i in enumerate(index.tolist()):
                    waveforms.read_direct(out, np.s_[i], np.s_[k])
        except (OSError, KeyError) as e:
            raise BadData(f"{self.path}: cannot be read: {e}; make the cache again") from e
        return out

    def verify(self) -> None:
        """Raises BadData unless the content is what was written; reads all of it."""
        found = _Digest()
        for i in range(len(self)):
            found.add(self.read(np.array([i])))
        if found.of(self.rows) != self.digest:
            raise BadData(f"{self.path}: its content is not what was written; make the cache again")


def write(path: Path, parts: Iterable[Part], about: Mapping[str, Any] | None = None) -> Cache:
    """Publish all records of ``parts`` in one step as ``path``, with what ``about`` (plain JSON) says of them.

    The digest depends on the records and their order alone, not on the parts. Raises ConfigError: no records at all,
    records of different lengths or rates, two of one id.
    """
    rows, found = [], _Digest()
    with publish(path) as scratch, h5py.File(scratch, "w", libver="v110") as file:
        waveforms = None
        for part in parts:
            if not len(part.rows):
                continue
            n, _, length = part.waveforms.shape
            waveforms = waveforms or _empty(file, length)
            if length != waveforms.shape[2]:
                raise ConfigError(f"{path}: records of {waveforms.shape[2]} and of {length} samples; cut them alike")
            waveforms.resize(len(waveforms) + n, axis=0)
            waveforms[-n:] = part.waveforms
            found.add(part.waveforms)
            rows.append(part.rows)
        if waveforms is None:
            raise ConfigError(f"{path}: there is not one labelled record to write")
        table = Labelled.concat(rows)
        _require_one_set(path, table)
        length, digest, told = waveforms.shape[2], found.of(table), dict(about or {})
        _describe(file, table, {"length": length, "digest": digest, "about": json.dumps(told, sort_keys=True)})
    return Cache(path, table, length, digest, told)


def read(path: Path) -> Cache:
    """The cache at ``path``. Raises ConfigError that names the file if it is missing, or another format or version."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            about = dict(file.attrs)
            if about.get("format") != FORMAT:
                raise ConfigError(f"{path}: an HDF5 file, but no cache of labelled records")
            if int(about["version"]) != VERSION:
                raise ConfigError(
                    f"{path}: a cache of format version {about['version']}, this program reads version {VERSION}: make "
                    "the cache again"
                )
            rows = Labelled(*(_column(file["rows"][f.name], f.metadata["dtype"]) for f in Labelled.columns()))
            if file["waveforms"].shape != (len(rows), 3, about["length"]):
                raise ConfigError(f"{path}: {len(rows)} rows and waveforms of shape {file['waveforms'].shape}")
    except (OSError, KeyError, ValueError) as e:
        raise ConfigError(f"{path}: not a readable cache of labelled records: {e}") from e
    return Cache(path, rows, int(about["length"]), str(about["digest"]), json.loads(about["about"]))


class _Digest:
    """SHA-256 of waveforms as they come, then of the rows."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, waveforms: Float32) -> None:
        self._hash.update(np.ascontiguousarray(waveforms, "<f4").tobytes())

    def of(self, rows: Labelled) -> str:
        """The digest of what was added and of ``rows``."""
        total = self._hash.copy()
        for name, values in rows.as_dict().items():
            total.update(name.encode())
            plain = "\0".join(values.tolist()).encode() if values.dtype.kind == "U" else values.tobytes()
            total.update(plain)
        return total.hexdigest()


def _empty(file: h5py.File, length: int) -> h5py.Dataset:
    return file.create_dataset(
        "waveforms", (0, 3, length), "<f4", maxshape=(None, 3, length), chunks=(1, 3, length), fillvalue=0
    )


def _require_one_set(path: Path, rows: Labelled) -> None:
    rates = np.unique(rows.rate_hz)
    if len(rates) > 1:
        raise ConfigError(f"{path}: records at {', '.join(f'{r:g}' for r in rates)} Hz; bring them to one rate")
    ids, n = np.unique(rows.id, return_counts=True)
    if (n > 1).any():
        raise ConfigError(f"{path}: {np.count_nonzero(n > 1)} ids are of several records, the first {ids[n > 1][0]!r}")


def _describe(file: h5py.File, rows: Labelled, attributes: dict[str, Any]) -> None:
    group = file.create_group("rows")
    for name, values in rows.as_dict().items():
        group.create_dataset(name, data=np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values)
    file.attrs.update({"format": FORMAT, "version": VERSION, **attributes})


def _column(dataset: h5py.Dataset, dtype: str) -> Any:
    values = dataset[()]
    text: Text = np.char.decode(values, "utf-8") if dtype == "str" else values
    return text
