"""Datasets in SeisBench's format: ``metadata.csv`` and ``waveforms.hdf5``, or such a pair for each chunk.

After https://seisbench.readthedocs.io, "The SeisBench data format". Read without SeisBench: text stays text (a network
"NA" or a station "0123" is one), rates are brought together by the filters of the pick stage, and a trace is read only
when it is wanted. Of several columns of one phase the earliest onset counts; depth phases and reflections do not.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.errors import BadData
from pipeline.formats.bulletin_rows import iso_ns
from pipeline.formats.labelled_rows import NO_EVENT, Part, Row, centred, components, part
from pipeline.formats.waveforms import component_rows
from pipeline.maths.resampling import ratio, resample
from pipeline.records import NAN, NS, Float, Float32

PHASES = {
    "p": [f"trace_{name}_arrival_sample" for name in ("p", "P", "P1", "Pg", "Pn")],
    "s": [f"trace_{name}_arrival_sample" for name in ("s", "S", "S1", "Sg", "Sn")],
}
NOTHING = ("", "nan", "none", "null", "na", "nat")  # what a CSV calls no number, in lower case
UNKNOWN_NS = -1
NAMELESS = "trace:"  # begins the name of an earthquake that has none
SLICE = re.compile(r"-?\d*(?::-?\d*)?")
Meta = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file of waveforms says of all of its traces."""

    dimensions: str  # "CW": components first
    components: str  # "ZNE"; "": each trace says it
    rate_hz: float  # NaN: each trace says it


@dataclass(frozen=True, slots=True)
class Cut:
    """What a trace becomes: so many samples at one rate. A longer one is cut around its picks, a shorter one filled."""

    rate_hz: float
    length: int


def chunks(folder: Path) -> list[str]:
    """The names of the chunks, sorted; "" for a dataset without any. Raises BadData if files are missing."""
    listed = folder / "chunks"
    names = [name for name in listed.read_text().splitlines() if name.strip()] if listed.is_file() else []
    if not names and (folder / "waveforms.hdf5").is_file():
        names = [""]
    names = names or [p.name[len("metadata") : -len(".csv")] for p in folder.glob("metadata*.csv")]
    lost = [p for name in names for p in _files(folder, name) if not p.is_file()]
    if lost or not names:
        missing = ", ".join(map(str, lost)) or "metadata.csv and waveforms.hdf5"
        raise BadData(f"{folder}: not a whole dataset in SeisBench's format: {missing} not found")
    return sorted(names)


def _files(folder: Path, chunk: str) -> tuple[Path, Path]:
    return folder / f"metadata{chunk}.csv", folder / f"waveforms{chunk}.hdf5"


def read(folder: Path, cut: Cut, at_once: int = 512) -> Iterator[Part]:
    """The records of a dataset, at most ``at_once`` in a part, in the order of its metadata.

    Left out, and told in the notes: an earthquake's trace on which nothing is picked (an event could lie anywhere in
    it), a trace of no usable component, an S before P, picks outside of the trace. Raises BadData: file, trace, value.
    """
    for chunk in chunks(folder):
        metadata, waveforms = _files(folder, chunk)
        left_out: Counter[str] = Counter()
        records: list[tuple[Row, Float32]] = []
        with closing(_open(waveforms)) as file:
            layout = _layout(waveforms, file)
            for line, meta in _lines(metadata):
                where = f"{metadata}, line {line}"
                found = _record(where, meta, file, layout, cut)
                if isinstance(found, str):
                    left_out[found] += 1
                    continue
                row = found[0]._replace(source=folder.name, id=f"{chunk}/{row_id(meta)}" if chunk else row_id(meta))
                records.append((row, found[1]))
                if len(records) == at_once:
                    yield part(records, cut.length)
                    records = []
        notes = [f"{waveforms}: {n} traces left out: {why}" for why, n in sorted(left_out.items())]
        yield part(records, cut.length, notes)


def row_id(meta: Meta) -> str:
    """The name of a trace, as its authors gave it if they did."""
    return meta.get("trace_name_original", "") or meta["trace_name"]


def _lines(path: Path) -> Iterator[tuple[int, Meta]]:
    csv.field_size_limit(1 << 24)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if "trace_name" not in (reader.fieldnames or ()):
                raise BadData(f"{path}: no column trace_name; is it SeisBench's metadata?")
            for meta in reader:
                yield reader.line_num, {key: value or "" for key, value in meta.items() if key is not None}
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise BadData(f"{path}: cannot be read: {e}") from e


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as e:
        raise BadData(f"{path}: not a readable HDF5 file: {e}") from e


def _layout(path: Path, file: h5py.File) -> Layout:
    group = file.get("data_format", {})
    told = {key: _text(group[key][()]) for key in group}
    layout = Layout(
        told.get("dimension_order", "CW"), told.get("component_order", ""), _number(str(path), told, "sampling_rate")
    )
    if sorted(layout.dimensions) != ["C", "W"]:
        raise BadData(f"{path}: dimension_order {layout.dimensions!r}, expected CW or WC")
    return layout


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    return "".join(_text(one) for one in value) if isinstance(value, np.ndarray) and value.ndim else str(value)


def _number(where: str, meta: Meta, key: str) -> float:
    text = meta.get(key, "").strip()
    if text.lower() in NOTHING:
        return NAN
    try:
        return float(text)
    except ValueError as e:
        raise BadData(f"{where}: {key} {text!r} is not a number") from e


def _record(where: str, meta: Meta, file: h5py.File, layout: Layout, cut: Cut) -> tuple[Row, Float32] | str:
    """One record, or why there is none."""
    p, s = (_earliest([_number(where, meta, key) for key in keys]) for keys in PHASES.values())
    event, picked = _event(meta), not np.isnan([p, s]).all()
    if event and not picked and "noise" not in meta.get("trace_category", "").lower():
        return "an event without a pick"
    if s < p:
        return "S before P"
    rate_hz = _rate_hz(where, meta, layout)
    try:
        factor = ratio(rate_hz, cut.rate_hz)
    except ValueError as e:
        raise BadData(f"{where}: {e}") from e
    trace = _zne(where, _trace(where, meta["trace_name"], file), layout, meta.get("trace_component_order", ""))
    if not components(trace):
        return "no usable component"
    row, samples = _fitted(where, meta, (p * float(factor), s * float(factor)), trace, factor, cut)
    if picked and np.isnan([row.p_sample, row.s_sample]).all():
        return "picks outside of the trace"
    return row._replace(event=(event or NAMELESS + row_id(meta)) if picked else NO_EVENT), samples


def _earliest(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]
    return min(known) if known else NAN


def _event(meta: Meta) -> str:
    """The id of the earthquake, else its time, else ""."""
    for key in ("source_id", "source_origin_time"):
        text = meta.get(key, "").strip()
        if text.lower() not in NOTHING:
            return text
    return NO_EVENT


def _rate_hz(where: str, meta: Meta, layout: Layout) -> float:
    own, step_s = _number(where, meta, "trace_sampling_rate_hz"), _number(where, meta, "trace_dt_s")
    rates = (own, 1 / step_s if step_s > 0 else NAN, layout.rate_hz)
    known = [rate for rate in rates if rate > 0]
    if not known:
        raise BadData(f"{where}: no sampling rate; give trace_sampling_rate_hz")
    return known[0]


def _trace(where: str, name: str, file: h5py.File) -> Float:
    """The array of a trace, which may be a slice of a block: "bucket0$3,:3,:3000"."""
    block, _, location = name.partition("$")
    at: list[int | slice] = []
    for text in location.replace(" ", "").split(",") if location else []:
        if not text or SLICE.fullmatch(text) is None:
            raise BadData(f"{where}: trace_name {name!r} is not BLOCK$SLICE")
        numbers = [int(n) if n else None for n in text.split(":")]
        at.append(slice(*numbers) if len(numbers) > 1 else int(text))
    try:
        values = np.asarray(file["data"][block][tuple(at) if at else ()], np.float64)
    except (KeyError, ValueError, IndexError, OSError) as e:
        raise BadData(f"{where}: trace {name!r} is not in {file.filename}: {e}") from e
    if values.ndim != 2:
        raise BadData(f"{where}: trace {name!r} has the shape {values.shape}, expected components and samples")
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _zne(where: str, values: Float, layout: Layout, order: str) -> Float:
    """Rows Z N E, float64 (3, n), without their means; a component that is not there is 0."""
    values = values if layout.dimensions == "CW" else values.T
    letters = order.strip() if order.strip().lower() not in NOTHING else layout.components
    if len(letters) != len(values):
        raise BadData(f"{where}: {len(values)} components, and trace_component_order is {letters!r}")
    samples = np.zeros((3, values.shape[1]))
    chosen, _ = component_rows([f"__{letter}" for letter in letters])  # others, as of a hydrophone, are left out
    for row, codes in zip(samples, chosen, strict=True):
        if codes:
            row[:] = values[letters.index(codes[0][2:])]
    return centred(samples) if samples.shape[1] else samples


def _fitted(
    where: str, meta: Meta, onsets: tuple[float, float], trace: Float, factor: Fraction, cut: Cut
) -> tuple[Row, Float32]:
    """The trace at the wanted rate and length, and its row without event, id and source."""
    sampled = np.stack([resample(row, factor) for row in trace])
    skipped = _skipped(sampled.shape[1], onsets, cut.length)
    kept = sampled[:, skipped : skipped + cut.length]
    samples = np.zeros((3, cut.length), np.float32)
    samples[:, : kept.shape[1]] = kept
    p, s = (onset - skipped if skipped <= onset < skipped + kept.shape[1] else NAN for onset in onsets)
    station = f"{meta.get('station_network_code', '').strip()}.{meta.get('station_code', '').strip()}"
    location, band = meta.get("station_location_code", "").strip().strip("-"), meta.get("trace_channel", "").strip()
    latitude, longitude, elevation = (
        _number(where, meta, f"station_{key}") for key in ("latitude_deg", "longitude_deg", "elevation_m")
    )
    start_ns = _start_ns(where, meta)
    start_ns += round(skipped / cut.rate_hz * NS) if start_ns >= 0 else 0
    channel = f"{station}.{location}.{band[:2]}"
    row = Row("", NO_EVENT, station, channel, start_ns, cut.rate_hz, p, s, components(trace), "")
    row = row._replace(latitude_deg=latitude, longitude_deg=longitude, elevation_m=elevation, stop=kept.shape[1])
    return row, samples


def _skipped(n: int, onsets: tuple[float, float], length: int) -> int:
    """Samples to leave out at the beginning of ``n`` so that the middle of the picks is in the middle of ``length``."""
    known = [onset for onset in onsets if onset == onset]
    middle = sum(known) / len(known) if known else n / 2
    return max(0, min(n - length, round(middle - length / 2)))


def _start_ns(where: str, meta: Meta) -> int:
    text = meta.get("trace_start_time", "").strip()
    if text.lower() in NOTHING:
        return UNKNOWN_NS
    try:
        return iso_ns(text)
    except ValueError as e:
        raise BadData(f"{where}: trace_start_time: {e}") from e
