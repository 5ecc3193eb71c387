"""What the readers of labelled sets share: one record at a time, turned into a table and an array at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.records import NAN, Float, Float32, Labelled

NO_EVENT = ""


class Part(NamedTuple):
    """Some records of a set, what they show, float32 (n, 3, length), rows Z N E, and notes on what was left out."""

    rows: Labelled
    waveforms: Float32
    notes: tuple[str, ...] = ()


class Row(NamedTuple):
    """One record; the columns of `Labelled` in their order."""

    id: str
    event: str
    station: str
    channel: str
    start_ns: int
    rate_hz: float
    p_sample: float
    s_sample: float
    components: str
    source: str
    latitude_deg: float = NAN
    longitude_deg: float = NAN
    elevation_m: float = NAN
    first: int = 0
    stop: int = -1


def table(rows: Sequence[Row]) -> Labelled:
    """The rows as a table. Raises ValueError as `Labelled` does."""
    if not rows:
        return Labelled.empty()
    columns = zip(*rows, strict=True)
    kinds = (f.metadata["dtype"] for f in Labelled.columns())
    return Labelled(*(np.array(c, np.str_ if k == "str" else k) for c, k in zip(columns, kinds, strict=True)))


def part(records: Sequence[tuple[Row, Float32]], length: int, notes: Iterable[str] = ()) -> Part:
    """Records of ``length`` samples, each float32 (3, length), as one part."""
    waveforms = np.stack([samples for _, samples in records]) if records else np.empty((0, 3, length), np.float32)
    return Part(table([row for row, _ in records]), waveforms, tuple(notes))


def joined(parts: Sequence[Part]) -> Part:
    """All records of ``parts``, in their order; they must be equally long. Raises ValueError if there is none."""
    waveforms = np.concatenate([p.waveforms for p in parts])
    notes = tuple(note for p in parts for note in p.notes)
    return Part(Labelled.concat([p.rows for p in parts]), waveforms, notes)


def centred(samples: Float) -> Float:
    """``samples`` (3, n) without their means, as the pick stage feeds them; a row that never changes becomes 0."""
    out: Float = samples - samples.mean(axis=1, keepdims=True)
    return out


def components(samples: Float) -> str:
    """Which of the rows Z N E of ``samples`` (3, n) move at all: "ZNE", "Z", ... ; "": none does."""
    return "".join(name for name, row in zip("ZNE", samples, strict=True) if np.ptp(row) > 0)
