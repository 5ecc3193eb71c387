"""Labelled records in one NPZ file, as PhaseNet's authors publish theirs (AI4EPS/PhaseNet, MIT).

``data`` float32 (n, samples, 3), its last axis in the order of ``channels`` ("HHE_HHN_HHZ", or "EHZ" alone);
``p_sample``, ``s_sample`` (n,), negative or NaN for none; ``name`` (n,): "NET_STA_YYYYMMDDHHMMSScc", perhaps with
"_LOC" behind it. Which instant the name tells is not published. It is taken as that of P: were it the origin time or
the start of the record, times here would be early by seconds, or by half a minute at most.
"""

from __future__ import annotations

import re
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadData
from pipeline.formats.bulletin_rows import iso_ns
from pipeline.formats.labelled_rows import Part, Row, centred, components, part
from pipeline.formats.waveforms import component_rows
from pipeline.records import NS, Float, Int, Text

KEYS = ("data", "p_sample", "s_sample", "name", "channels")
NAME = re.compile(r"([A-Z0-9]{1,2})_([A-Z0-9]{1,5})_(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:_([A-Z0-9]{1,2}))?")
BROKEN = (zipfile.BadZipFile, zlib.error, tokenize.TokenError, NotImplementedError)  # what NumPy lets through
SAME_EVENT_NS = 60 * NS  # picks of P closer than this are taken as of one earthquake


def read(path: Path, rate_hz: float = 100.0) -> Part:
    """All records of ``path``, sampled at ``rate_hz``, without their means.

    A vertical component alone, whether the file repeats it or fills the others with zeros, is "Z" and zeros here.
    Earthquakes have no names: P picks within a minute of each other are of one. Raises BadData (what, where, remedy).
    """
    values = _arrays(path)
    data, names = values["data"], values["name"].tolist()
    p, s = (_samples(values[key], data.shape[1]) for key in ("p_sample", "s_sample"))
    if (s < p).any():
        raise BadData(f"{path}: record {names[int(np.argmax(s < p))]}: S lies before P; mend or remove it")
    told = [_name(path, name) for name in names]
    onset = np.where(np.isfinite(p), p, np.where(np.isfinite(s), s, 0.0))
    times = np.array([ns for *_, ns in told], np.int64)
    events = _events(times)
    records = []
    for i, (station, location, time_ns) in enumerate(told):
        codes = str(values["channels"][i]).split("_")
        samples = centred(_zne(path, names[i], data[i], codes))
        there = components(samples)
        if not there:
            raise BadData(f"{path}: record {names[i]} holds no signal at all; remove it")
        start_ns = time_ns - round(onset[i] / rate_hz * NS)
        row = Row(
            names[i], events[i] if np.isfinite(p[i]) or np.isfinite(s[i]) else "", station,
            f"{station}.{location}.{codes[0][:2]}", start_ns, rate_hz, p[i], s[i], there, path.name,
            stop=data.shape[1],
        )  # fmt: skip
        records.append((row, samples.astype(np.float32)))
    return part(records, data.shape[1])


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            values = {key: file[key] for key in KEYS}
    except (OSError, ValueError, KeyError, EOFError, MemoryError, *BROKEN) as e:
        raise BadData(f"{path}: not a set of labelled records, an NPZ with {', '.join(KEYS)}: {e}") from e
    shape = values["data"].shape
    wrong = [key for key in KEYS[1:] if values[key].shape != shape[:1]]
    if len(shape) != 3 or shape[2] != 3 or wrong:
        raise BadData(f"{path}: data is {shape}, expected (n, samples, 3), and (n,) for {wrong or KEYS[1:]}")
    kinds = {key: values[key].dtype for key in KEYS}
    if odd := [key for key in KEYS if kinds[key].kind not in ("U" if key in ("name", "channels") else "fiu")]:
        raise BadData(f"{path}: {odd[0]} is of type {kinds[odd[0]]}: names and channels are text (U), all else numbers")
    if not np.isfinite(values["data"]).all():
        raise BadData(f"{path}: data holds NaN or infinity; fill its gaps with zeros")
    return values


def _samples(values: NDArray[Any], length: int) -> Float:
    """Onsets; NaN where there is none."""
    onset = values.astype(np.float64)
    return np.where((onset >= 0) & (onset < length), onset, np.nan)


def _name(path: Path, name: str) -> tuple[str, str, int]:
    """ "NET.STA", location and time of a name."""
    match = NAME.fullmatch(name)
    if match is None:
        raise BadData(f"{path}: record name {name!r} is not NET_STA_YYYYMMDDHHMMSScc")
    network, station, *digits, location = match.groups()
    year, month, day, hour, minute, second, hundredths = digits
    try:
        minute_ns = iso_ns(f"{year}-{month}-{day}T{hour}:{minute}:00")  # seconds may exceed 59
    except ValueError as e:
        raise BadData(f"{path}: record name {name!r}: {e}") from e
    return f"{network}.{station}", location or "", minute_ns + (int(second) * 100 + int(hundredths)) * (NS // 100)


def _zne(path: Path, name: str, data: NDArray[Any], codes: list[str]) -> Float:
    """Rows Z N E, float64 (3, samples), of ``data`` (samples, 3)."""
    columns = data.T.astype(np.float64)
    samples = np.zeros(columns.shape)
    if len(codes) == 1:
        samples[0] = columns[int(np.argmax(np.ptp(columns, axis=1)))]  # the others are zeros, or the same again
        return samples
    rows, notes = component_rows(codes)
    if len(codes) != 3 or notes:
        raise BadData(f"{path}: record {name} has the channels {codes}, expected one or three with Z N E or 1 2 3")
    for row, chosen in zip(samples, rows, strict=True):
        if chosen:
            row[:] = columns[codes.index(chosen[0])]
    return samples


def _events(time_ns: Int) -> list[str]:
    """A name for the earthquake of each record: the time of the first of those near to it."""
    order = np.argsort(time_ns, kind="stable")
    starts = np.diff(time_ns[order], prepend=np.int64(-(2**62))) > SAME_EVENT_NS
    first = time_ns[order][starts][np.cumsum(starts) - 1]
    named = np.empty(len(time_ns), np.int64)
    named[order] = first
    text: Text = np.datetime_as_string(named.astype("datetime64[ns]"), unit="ms")
    return [str(one) for one in text]
