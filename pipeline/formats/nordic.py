"""Nordic files of SEISAN 12 (its phase lines with network and location; SEISAN manual, appendix A), written here.

ObsPy's writer prints 5 milliseconds as 0.500 s and the time of its own run, so it is not used. The second is kept to a
millisecond (line H), the place to 0.00001 degrees and 1 m, a magnitude to 0.1, a residual to 0.01 s, a weight to 0.1, a
distance to 0.1 km. The event's own name, and what the format has no column for, are lines of comment (type 3).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from math import isfinite, sqrt
from pathlib import Path

from pipeline.formats import export_names
from pipeline.formats.bulletin_rows import NAN
from pipeline.formats.export_names import Names
from pipeline.formats.located import MS, Catalogue, clock, covariance, known, split, weight_code
from pipeline.formats.quakeml_located import read_quakeml_located
from pipeline.maths.names import site, sites
from pipeline.records import DAY_NS, Int, Origins

log = logging.getLogger(__name__)
PHASES = " STAT COM NTLO IPHASE   W HHMM SS.SSS   PAR1  PAR2 AGA OPE  AIN  RES W  DIS CAZ7"
CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # which would end a line
WIDTH = 5  # letters of a station
EXPLOSIONS = ("explosion", "quarry blast", "mining explosion", "nuclear explosion", "bomb")
SCALES = {"ML": "L", "Mw": "W", "MW": "W", "Mb": "b", "mb": "b", "Ms": "s", "MS": "s", "Md": "C", "MD": "C"}


def names(catalogue: Catalogue) -> Names:
    """The stations whose code is too long."""
    found = export_names.of(catalogue, WIDTH, networks=True).stations
    return Names({}, {name: written for name, written in found.items() if name != written})


def write_nordic(path: Path, catalogue: Catalogue) -> None:
    """All events, each ended by a blank line. A pick of the day before its event cannot be written, and is logged."""
    stations = export_names.codes(sites(catalogue.arrivals.station).tolist(), WIDTH, networks=True)
    with Path(path).open("w", encoding="ascii", errors="replace", newline="\n") as file:
        for row, picks in catalogue.events():
            file.write("".join(f"{CONTROL.sub(' ', line):80.80}\n" for line in _event(catalogue, row, picks, stations)))


def _event(catalogue: Catalogue, row: int, picks: Int, stations: dict[str, str]) -> Iterator[str]:
    o = catalogue.origins
    yield _header(o, row)
    yield _exact(o, row)
    errors = _errors(o, row)
    if errors:
        yield errors
    at = clock(int(o.time_ns[row]), MS)
    second = at.steps // 1000
    yield f" ACTION:ARG {at.minute:%y-%m-%d %H:%M} OP:orco STATUS:{'':15}ID:{at.minute:%Y%m%d%H%M}{second:02d}     I"
    for remark in _remarks(o, row):
        yield f" {remark:78.78}3"
    yield PHASES
    for pick in picks.tolist():
        line = _pick(catalogue, pick, int(o.time_ns[row]), stations)
        if line:
            yield line
    yield ""


def _day(time_ns: int) -> int:
    """The day as line 1 says it: that of the millisecond, cut to a tenth of a second."""
    return (time_ns + MS // 2) // DAY_NS


def _header(o: Origins, row: int) -> str:
    """Line type 1. Its tenth of a second is cut, not rounded, for line H and the picks count from its day."""
    at = clock(int(o.time_ns[row]), MS)
    depth, kind = float(o.depth_km[row]), str(o.kind[row])
    letter = "E" if kind in EXPLOSIONS else " "
    fixed = "F" if str(o.depth_kind[row]).startswith("fixed") else " "
    magnitude = _field(o.magnitude[row], 4, 1) + SCALES.get(str(o.magnitude_kind[row]), " ")
    where = f"{_field(o.latitude_deg[row], 7, 3)}{_field(o.longitude_deg[row], 8, 3)}{_field(depth, 5, 1)}{fixed}"
    rms, n = _field(min(known(o.rms_s[row], NAN), 99.9), 4, 1), max(int(o.n_stations[row]), 0)
    return (
        f" {at.minute:%Y} {at.minute.month:2d}{at.minute.day:2d} {at.minute.hour:2d}{at.minute.minute:2d}"
        f" {at.steps // 100 / 10:4.1f} L{letter}{where}    {min(n, 999):3d}{rms}"
        f"{magnitude if isfinite(o.magnitude[row]) else '     '}".ljust(79)
        + "1"
    )


def _exact(o: Origins, row: int) -> str:
    """Line type H."""
    at = clock(int(o.time_ns[row]), MS)
    return (
        f" {at.minute:%Y} {at.minute.month:2d}{at.minute.day:2d} {at.minute.hour:2d}{at.minute.minute:2d}"
        f" {at.steps / 1000:6.3f} {_field(o.latitude_deg[row], 9, 5)} {_field(o.longitude_deg[row], 10, 5)}"
        f" {_field(o.depth_km[row], 8, 3)} {_field(o.rms_s[row], 6, 3)}".ljust(79)
        + "H"
    )


def _errors(o: Origins, row: int) -> str:
    """Line type E: gap, errors of time, latitude, longitude, depth (s, km), covariances; "" without covariance."""
    matrix = covariance(o, row)
    if matrix is None:
        return ""
    east, north, down = (sqrt(max(matrix[k, k], 0.0)) for k in range(3))
    covariances = "".join(f"{matrix[i, j]:12.4E}" for i, j in ((0, 1), (0, 2), (1, 2)))
    gap = f"{min(known(o.gap_deg[row]), 360):3.0f}"
    return (
        f" GAP={gap}{'':6}{_field(o.sigma_time_s[row], 6, 3)}{'':4}{_field(north, 6, 3)}  {_field(east, 6, 3)}"
        f"{_field(down, 5, 2)}{covariances}E"
    )


def _remarks(o: Origins, row: int) -> Iterator[str]:
    yield f"orcolat id: {o.id[row]}"
    for name in ("probability", "blast_score"):
        if isfinite(getattr(o, name)[row]):
            yield f"orcolat {name}: {float(getattr(o, name)[row]):.6g}"
    for name in ("kind", "magnitude_kind", "depth_kind", "magnitude_reason", "is_duplicate_of"):
        if str(getattr(o, name)[row]):
            yield f"orcolat {name}: {getattr(o, name)[row]}"


def _pick(catalogue: Catalogue, row: int, origin_ns: int, stations: dict[str, str]) -> str:
    """A phase line; "" where the pick lies before the day of its event."""
    a = catalogue.arrivals
    station = str(a.station[row])
    net, _, loc, band = split(station)
    since = (int(a.time_ns[row]) + MS // 2) // MS - _day(origin_ns) * (DAY_NS // MS)
    if since < 0 or since >= 2 * DAY_NS // MS:
        log.warning("event %s, %s at %s: not on its day or the next; left out", a.event[row], a.phase[row], station)
        return ""
    hours, rest = divmod(since, 3_600_000)
    minutes, millis = divmod(rest, 60_000)
    code = weight_code(a.sigma_s[row], a.weight[row])
    weight = f"{min(max(round(known(a.weight[row], 0.0) * 10), 0), 99):2d}" if isfinite(a.weight[row]) else "  "
    head = f" {stations[site(station)]:5.5}{band:3.3} {net:2.2}{loc:2.2}  {a.phase[row]:8.8}{code or ' '}A"
    return (
        f"{head}{hours:2d}{minutes:2d} {millis / 1000:6.3f}{'':21}{_field(a.takeoff_deg[row], 5, 0)}"
        f"{_field(a.residual_s[row], 5, 2)}{weight}{_field(a.distance_km[row], 5, 1)}"
        f" {_field(a.azimuth_deg[row], 3, 0)} "
    )


def _field(value: float, width: int, digits: int) -> str:
    """A number in its columns; with fewer digits where it would not fit, blank where it is not known."""
    if not isfinite(value):
        return " " * width
    for n in range(digits, -1, -1):
        text = f"{value:{width}.{n}f}"
        if len(text) <= width:
            return text
    return " " * width


def read_nordic(path: Path) -> Catalogue:
    """By ObsPy's reader. Raises BadData as `read_quakeml_located` does."""
    return read_quakeml_located(path, "NORDIC")
