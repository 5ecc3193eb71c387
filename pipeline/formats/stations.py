"""Where the stations are: StationXML, FDSN text and simple CSV.

An open epoch starts at `EARLIEST` and ends at `LATEST`, the ends of what int64 ns can say (1677 and
2262); dates beyond them, such as the customary 2599-12-31, are brought to them. They are for comparing,
not for arithmetic.
"""

from __future__ import annotations

import csv
import glob
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import obspy
from obspy.core.inventory import Inventory

from pipeline.errors import ConfigError
from pipeline.maths.geo import east_deg
from pipeline.records import Int, Stations, Text

log = logging.getLogger(__name__)

EARLIEST = -(2**63) + 1  # -2**63 is NumPy's "not a time"
LATEST = 2**63 - 1
SAME_SITE_M = 100.0
METRES_PER_DEGREE = 111_195.0
HEADINGS = {  # of a table, in lower case and without blanks, and what they mean here
    "network": "network",
    "net": "network",
    "station": "station",
    "sta": "station",
    "latitude": "latitude",
    "latitude_deg": "latitude",
    "longitude": "longitude",
    "longitude_deg": "longitude",
    "elevation": "elevation",
    "elevation_m": "elevation",
    "starttime": "start",
    "start": "start",
    "endtime": "end",
    "end": "end",
}
LIMITS = {"latitude": (-90.0, 90.0), "longitude": (-180.0, 360.0), "elevation": (-12_000.0, 9_000.0)}


@dataclass(frozen=True, slots=True)
class Site:
    """One station and epoch, and the place in a file where it was read."""

    id: str
    latitude_deg: float
    longitude_deg: float
    elevation_m: float
    start_ns: int
    end_ns: int
    source: str


def read(files: Sequence[Path], include: Sequence[str] = ("*",), exclude: Sequence[str] = ()) -> Stations:
    """The stations of all ``files`` whose "NET.STA" matches ``include`` and not ``exclude``, one row an
    epoch, sorted by (id, start).

    A station that several rows or files give for overlapping epochs within 100 m is one row, with the
    first coordinates and the joined epoch. Raises ConfigError: a file that cannot be read, a number out of
    range (file, line, value), two sites of one station (both files), no station left.
    """
    sites: dict[str, list[Site]] = {}
    for path in files:
        for site in _read_file(Path(path)):
            if wanted(site.id, include, exclude):
                _join(sites.setdefault(site.id, []), site)
    rows = sorted((s for epochs in sites.values() for s in epochs), key=lambda s: (s.id, s.start_ns))
    if not rows:
        names = ", ".join(map(str, files))
        raise ConfigError(f"{names}: no station left; stations.include is {include}, stations.exclude {exclude}")
    return _table(rows)


def wanted(station: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Does "NET.STA" match a pattern of ``include`` and none of ``exclude``?"""
    return any(fnmatchcase(station, p) for p in include) and not any(fnmatchcase(station, p) for p in exclude)


def at(stations: Stations, ids: Text, time_ns: Int) -> Int:
    """Row of each "NET.STA" (n,) in the epoch of its time (n,): int64 (n,), -1 where not known."""
    found = np.full(len(ids), -1, np.int64)
    if len(ids) == 0 or len(stations) == 0:
        return found
    order = np.lexsort((stations.start_ns, stations.id))
    first = np.searchsorted(stations.id[order], ids, side="left")
    stop = np.searchsorted(stations.id[order], ids, side="right")
    for k in range(int((stop - first).max())):
        row = order[np.minimum(first + k, len(order) - 1)]
        inside = (stations.start_ns[row] <= time_ns) & (time_ns < stations.end_ns[row])
        found = np.where((first + k < stop) & inside & (found < 0), row, found)
    return found


def require(stations: Stations, ids: Iterable[str]) -> None:
    """Raises ConfigError that names each of ``ids`` ("NET.STA") without coordinates."""
    missing = sorted(set(ids) - set(stations.id.tolist()))
    if missing:
        raise ConfigError(
            f"no coordinates for {len(missing)} station(s): {', '.join(missing)}; add them to a file of "
            "stations.files, or leave them out with stations.exclude"
        )


def _table(rows: Sequence[Site]) -> Stations:
    return Stations(
        id=np.array([s.id for s in rows], dtype=np.str_),
        latitude_deg=np.array([s.latitude_deg for s in rows], np.float64),
        longitude_deg=np.array([s.longitude_deg for s in rows], np.float64),
        elevation_m=np.array([s.elevation_m for s in rows], np.float64),
        start_ns=np.array([s.start_ns for s in rows], np.int64),
        end_ns=np.array([s.end_ns for s in rows], np.int64),
    )


def _join(known: list[Site], site: Site) -> None:
    """Add ``site`` to the epochs of its station. Raises ConfigError if two places claim the same time."""
    for i, other in enumerate(known):
        if site.start_ns >= other.end_ns or other.start_ns >= site.end_ns:
            continue
        metres = _distance_m(site, other)
        if metres > SAME_SITE_M:
            raise ConfigError(
                f"{site.id} is at {other.latitude_deg}, {other.longitude_deg} in {other.source} and {metres:.0f} m "
                f"from there, at {site.latitude_deg}, {site.longitude_deg}, in {site.source}: correct one of them"
            )
        joined = replace(other, start_ns=min(site.start_ns, other.start_ns), end_ns=max(site.end_ns, other.end_ns))
        del known[i]
        _join(known, joined)  # the longer epoch may touch another one
        return
    known.append(site)


def _distance_m(a: Site, b: Site) -> float:
    """Horizontal distance on a sphere, good for the short ones that matter here."""
    north = (a.latitude_deg - b.latitude_deg) * METRES_PER_DEGREE
    turn = east_deg(a.longitude_deg, b.longitude_deg)
    return math.hypot(north, turn * METRES_PER_DEGREE * math.cos(math.radians(a.latitude_deg)))


def _read_file(path: Path) -> Iterator[Site]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: cannot read the stations: {e}") from e
    return _read_xml(path) if text.lstrip().startswith("<") else _read_csv(path, text)


def inventory(path: Path) -> Inventory:
    """What a StationXML holds. Raises ConfigError."""
    try:
        return obspy.read_inventory(glob.escape(str(path)))
    except MemoryError:
        raise
    except Exception as e:  # ObsPy and lxml raise whatever they like
        raise ConfigError(f"{path}: not a readable StationXML: {type(e).__name__}: {e}") from e


def _read_xml(path: Path) -> Iterator[Site]:
    for network in inventory(path):
        for station in network:
            where = f"{path}, station {network.code}.{station.code}"
            values = (station.latitude, station.longitude, station.elevation)
            numbers = [_number(float(v), name, where) for name, v in zip(LIMITS, values, strict=True)]
            start = EARLIEST if station.start_date is None else _clamp(station.start_date.ns)
            end = LATEST if station.end_date is None else _clamp(station.end_date.ns)
            yield _site(f"{network.code}.{station.code}", numbers, (start, end), where)


def _read_csv(path: Path, text: str) -> Iterator[Site]:
    lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise ConfigError(f"{path}: empty; expected a heading line and one line a station")
    separator = "|" if "|" in lines[0][1] else ","
    heading = [name.strip().lower() for name in lines[0][1].lstrip("#").split(separator)]
    columns = {HEADINGS[name]: i for i, name in enumerate(heading) if name in HEADINGS}
    absent = {"station", "latitude", "longitude"} - columns.keys()
    if absent:
        raise ConfigError(
            f"{path}, line {lines[0][0]}: no column {', '.join(sorted(absent))} in the heading "
            f"{lines[0][1].strip()!r}; expected network,station,latitude,longitude,elevation_m or the FDSN text format"
        )
    flat = []
    for number, line in lines[1:]:
        if line.startswith("#"):
            continue
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]
        row = {name: cells[i] for name, i in columns.items() if i < len(cells)}
        site = _row(row, f"{path}, line {number}")
        flat += [] if row.get("elevation") else [site.id]
        yield site
    if flat:
        log.warning("%s: %d station(s) without elevation, 0 m taken: %s", path, len(flat), ", ".join(flat))


def _row(cells: dict[str, str], where: str) -> Site:
    """A blank network in a network column stays blank (".STA"): some bulletins do not tell it."""
    code = cells.get("station", "")
    name = f"{cells['network']}.{code}" if "network" in cells and "." not in code else code
    if name.count(".") != 1 or not name.split(".")[1]:
        raise ConfigError(f"{where}: station {name!r}; expected a network and a station code, or NET.STA")
    numbers = []
    for key in LIMITS:
        text = cells.get(key, "") or ("0" if key == "elevation" else "")
        try:
            numbers.append(_number(float(text), key, where))
        except ValueError as e:
            raise ConfigError(f"{where}: {key} {text!r} of {name} is not a number") from e
    start = _time(cells.get("start", ""), EARLIEST, where)
    return _site(name, numbers, (start, _time(cells.get("end", ""), LATEST, where)), where)


def _number(value: float, name: str, where: str) -> float:
    low, high = LIMITS[name]
    if not low <= value <= high:
        raise ConfigError(f"{where}: {name} {value} is outside {low:g} to {high:g}")
    return value


def _time(text: str, default: int, where: str) -> int:
    if not text:
        return default
    try:
        return _clamp(int(obspy.UTCDateTime(text).ns))
    except (ValueError, TypeError, OverflowError) as e:
        raise ConfigError(f"{where}: {text!r} is not a date and time") from e


def _clamp(time_ns: int) -> int:
    return max(EARLIEST, min(LATEST, int(time_ns)))


def _site(name: str, numbers: Sequence[float], epoch: tuple[int, int], where: str) -> Site:
    latitude, longitude, elevation = numbers
    if epoch[1] <= epoch[0]:
        raise ConfigError(f"{where}: the epoch of {name} ends before it starts")
    return Site(name, latitude, longitude - 360 if longitude > 180 else longitude, elevation, *epoch, where)
