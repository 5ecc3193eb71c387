"""Instrument responses out of StationXML, by channel and epoch, as arrays over frequency.

A channel of which only the sensitivity is told, in counts for m/s or m/s2, is taken as flat, and that is noted.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from obspy.core.inventory import Inventory, PolynomialResponseStage
from scipy.interpolate import CubicSpline

from pipeline.errors import ConfigError
from pipeline.formats.stations import EARLIEST, LATEST, inventory
from pipeline.formats.waveforms import component_rows
from pipeline.maths.response import Complex, Response
from pipeline.records import Float

MOTION = re.compile(
    r"[NUMC]?M(/S(EC)?(/S(EC)?|\*\*2|\^2)?|/\(S(EC)?(\*\*2|\^2)\))?"
)  # displacement and its derivatives
LOW_HZ, STEP, FEW, TOLERANCE = 2.0, 16, 1000, 1e-5
INPUTS = {"M/S": 0, "M/S**2": 1, "M/S/S": 1, "M/S^2": 1}  # what a sensitivity may be of, and how often differentiated


@dataclass(frozen=True, slots=True)
class Entry:
    """One channel and epoch of an inventory."""

    channel: str  # "NET.STA.LOC.BAND"
    code: str  # "HHZ"
    start_ns: int
    end_ns: int
    rate_hz: float
    response: Any  # ObsPy's


def of(files: Sequence[Path], channel: str, span_ns: tuple[int, int], frequency_hz: Float) -> tuple[Response, ...]:
    """The responses of "NET.STA.LOC.BAND" that hold in the half-open ``span_ns``, in the order of time.

    Over ``frequency_hz`` (m,), the same for all. None where no file has a channel of it. Raises ConfigError if a file
    cannot be read.
    """
    entries = [
        entry
        for path in files
        for entry in _entries(path)
        if entry.channel == channel and entry.start_ns < span_ns[1] and span_ns[0] < entry.end_ns
    ]
    entries = [entry for entry in entries if entry.response is not None]
    edges = sorted({edge for entry in entries for edge in (entry.start_ns, entry.end_ns)})
    found = []
    for start, stop in pairwise(edges):
        active = [entry for entry in entries if entry.start_ns <= start and stop <= entry.end_ns]
        if active and start < span_ns[1] and span_ns[0] < stop:
            found.append(_epoch(active, start, stop, frequency_hz))
    return tuple(found)


def _epoch(active: Sequence[Entry], start_ns: int, end_ns: int, frequency_hz: Float) -> Response:
    by_code = {entry.code: entry for entry in reversed(active)}  # of the first file that has it
    curves, notes = np.zeros((3, len(frequency_hz)), np.complex128), dict[str, list[str]]()
    rates = [entry.rate_hz for entry in active if entry.rate_hz > 0]
    for row, codes in enumerate(component_rows(sorted(by_code))[0]):
        if not codes:
            continue
        try:
            curves[row], note = _curve(by_code[codes[0]].response, frequency_hz)
        except ValueError as e:
            note = str(e)
        if note:
            notes.setdefault(note, []).append(codes[0])
    told = tuple(f"{', '.join(codes)}: {note}" for note, codes in notes.items())
    return Response(start_ns, end_ns, curves, min(rates, default=np.inf), told)


def _curve(response: Any, frequency_hz: Float) -> tuple[Complex, str]:
    """Counts per m/s (m,), and what was assumed. Raises ValueError: why there is none."""
    found, note = (
        (_evaluated(response, frequency_hz), "") if response.response_stages else _flat(response, frequency_hz)
    )
    if not np.isfinite(found).all() or not found.any():
        raise ValueError("a response that is zero or not finite")
    return found, note


def _flat(response: Any, frequency_hz: Float) -> tuple[Complex, str]:
    sensitivity = response.instrument_sensitivity
    if sensitivity is None or not sensitivity.value:
        raise ValueError("no response")
    units = str(sensitivity.input_units).upper()
    if units not in INPUTS:
        raise ValueError(f"a sensitivity to {sensitivity.input_units}, not to m/s or m/s**2")
    slope = (2j * np.pi * frequency_hz) ** INPUTS[units]
    return sensitivity.value * slope, "only a sensitivity is known, taken as flat"


def _evaluated(response: Any, frequency_hz: Float) -> Complex:
    units = str(response.response_stages[0].input_units or getattr(response.instrument_sensitivity, "input_units", ""))
    if any(isinstance(stage, PolynomialResponseStage) for stage in response.response_stages):
        raise ValueError("a polynomial response, not one of a seismometer")
    if not MOTION.fullmatch(units.upper()):
        raise ValueError(f"a response to {units or 'nothing that is told'}, not to ground motion")
    if len(frequency_hz) < FEW:
        return _evalresp(response, frequency_hz)
    # At all low frequencies and at every `STEP`-th above, where filters are smooth; a spline between, if it may be.
    rows = np.arange(len(frequency_hz))
    probe = (frequency_hz >= LOW_HZ) & (rows % (4 * STEP) == STEP // 2)
    node = (frequency_hz < LOW_HZ) | (rows % STEP == 0) | (rows == rows[-1])
    some = _evalresp(response, frequency_hz[node | probe])
    found: Complex = CubicSpline(frequency_hz[node], some[node[node | probe]])(frequency_hz)
    off = np.abs(found[probe] - some[probe[node | probe]])
    return found if (off <= TOLERANCE * np.abs(found[probe])).all() else _evalresp(response, frequency_hz)


def _evalresp(response: Any, frequency_hz: Float) -> Complex:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found: Complex = response.get_evalresp_response_for_frequencies(frequency_hz, output="VEL")
        except MemoryError:
            raise
        except Exception as e:  # ObsPy and evalresp raise whatever they like
            raise ValueError(f"ObsPy cannot evaluate its response ({type(e).__name__}: {str(e).strip()[:200]})") from e
    return found


@cache
def _entries(path: Path) -> tuple[Entry, ...]:
    """Every channel and epoch of one StationXML; none of another format."""
    try:
        with path.open("rb") as file:
            is_xml = file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"
    except OSError as e:
        raise ConfigError(f"{path}: cannot read the instrument responses: {e}") from e
    if not is_xml:
        return ()
    return tuple(_flattened(inventory(path)))


def _flattened(found: Inventory) -> list[Entry]:
    return [
        Entry(
            f"{network.code}.{station.code}.{channel.location_code.strip('- ')}.{channel.code[:2]}",
            channel.code,
            EARLIEST if channel.start_date is None else max(EARLIEST, int(channel.start_date.ns)),
            LATEST if channel.end_date is None else min(LATEST, int(channel.end_date.ns)),
            float(channel.sample_rate or 0),
            channel.response,
        )
        for network in found
        for station in network
        for channel in station
    ]
