"""Finding the files of an archive: which stations, bands and days are there.

Folders are listed, files are opened only where the path does not tell the channel. A link that
leads out of the archive's root is not followed.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import string
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Archive
from pipeline.errors import BadData, ConfigError
from pipeline.formats import traces
from pipeline.formats.patience import patient
from pipeline.maths.days import days_within
from pipeline.records import NS, Int, Shard, Shards

log = logging.getLogger(__name__)

SDS = "{year}/{network}/{station}/{channel}.D/{network}.{station}.{location}.{channel}.D.{year}.{julday:03}"
SPILL_NS = 3600 * NS  # a day's file may hold data of the neighbouring day up to this far from midnight
DATE_FIELDS: dict[str, tuple[str, Callable[[date], int]]] = {
    "year": (r"\d{4}", lambda d: d.year),
    "month": (r"\d{1,2}", lambda d: d.month),
    "day": (r"\d{1,2}", lambda d: d.day),
    "julday": (r"\d{1,3}", lambda d: d.toordinal() - date(d.year, 1, 1).toordinal() + 1),
}
MOST_DATES = 64  # lists of days that are kept sorted out by date
EPOCH = date(1970, 1, 1).toordinal()
CODE = r"[A-Za-z0-9-]"
CODE_FIELDS = {
    "network": CODE + "{1,8}",
    "station": CODE + "{1,8}",
    "location": CODE + "{0,8}",
    "band": CODE + "{2}",
    "channel": CODE + "{3}",
}
Codes = dict[str, str]
Found = tuple[str, os.stat_result, Codes, list[date]]  # a file: path, status, codes and days that its path tells


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of the archive and what its path tells of it."""

    path: Path
    size: int  # bytes
    days: tuple[date, ...]  # the days it may hold, one unless the template is ambiguous
    codes: dict[str, str] = field(default_factory=dict)  # network, station, location, band, channel, as far as known

    @property
    def band(self) -> str:
        return self.codes.get("channel", "")[:2] or self.codes.get("band", "")


def find_shards(archive: Archive, wanted: Callable[[str], bool], span_ns: tuple[int, int]) -> list[tuple[Shard, int]]:
    """`scan` as `Shard` objects, each with the bytes of its files."""
    found = scan(archive, wanted, span_ns)
    return list(zip(found.rows(), found.bytes.tolist(), strict=True))


@patient
def scan(archive: Archive, wanted: Callable[[str], bool], span_ns: tuple[int, int]) -> Shards:
    """Every station and UTC day with data files in the half-open ``span_ns``: a plan without volumes.

    ``wanted("NET.STA")`` says which stations are looked at. A station has one shard a day, unless
    ``archive.all_bands``: that of the first band present of ``archive.bands`` and, of several location
    codes with this band, the first in alphabetical order ("" before "00"). Files of 0 bytes count only
    where there is nothing better. Raises ConfigError if the root is not a folder.
    """
    seen, days = _Seen(), _days(span_ns)
    last: Codes | None = None
    for path, info, codes, left in _search(archive, {}, [days], wanted):
        if codes is not last:  # files of one folder come one after the other
            shares = _channels(DataFile(Path(path), info.st_size, tuple(left), codes), archive.bands)
            mine = [seen.channel(*one) for one in sorted(shares) if one[2] in archive.bands and wanted(one[0])]
            last = codes if _tells_channel(codes) else None
        size = info.st_size // len(shares)
        for channel in mine:
            for day in left:
                seen.add(channel, day.toordinal(), size, info.st_mtime_ns)
    return seen.table(archive)


class _Seen:
    """Files seen, as columns of numbers: of millions of them some hundred megabytes."""

    def __init__(self) -> None:
        self._channels: dict[tuple[str, str, str], int] = {}  # ("NET.STA", location, band)
        self._channel, self._day = array("l"), array("l")
        self._size, self._modified_ns = array("q"), array("q")

    def channel(self, station: str, location: str, band: str) -> int:
        """Its number."""
        return self._channels.setdefault((station, location, band), len(self._channels))

    def add(self, channel: int, day: int, size: int, modified_ns: int) -> None:
        self._channel.append(channel)
        self._day.append(day)
        self._size.append(size)
        self._modified_ns.append(modified_ns)

    def table(self, archive: Archive) -> Shards:
        """One row a station, day, location and band that is chosen, sorted by (day, station, band)."""
        key = np.array(self._day, np.int64) * max(1, len(self._channels)) + np.array(self._channel, np.int64)
        order = np.argsort(key, kind="stable")
        key = key[order]
        first = np.flatnonzero(np.diff(key, prepend=-1))
        if not len(first):
            return Shards.empty()
        size = np.add.reduceat(np.array(self._size, np.int64)[order], first)
        changes_ns = np.add.reduceat(
            np.array(self._modified_ns, np.int64)[order], first
        )  # wraps, as only equality counts
        day, channel = np.divmod(key[first], len(self._channels))
        rows = self._chosen(archive, day, channel, size)
        names = [(f"{station}.{location}", band) for station, location, band in self._channels]
        stations, bands = (np.array(column, np.str_) for column in zip(*names, strict=True))
        days = (day[rows] - EPOCH).astype("datetime64[D]").astype(np.str_)
        columns = (days, stations[channel[rows]], bands[channel[rows]], size[rows], np.full(len(rows), ""))
        return Shards(*columns, changes_ns[rows])

    def _chosen(self, archive: Archive, day: Int, channel: Int, size: Int) -> Int:
        """Rows of what becomes a shard, in the order of the plan."""
        names = list(self._channels)
        site = _ranks([(station,) for station, _, _ in names])
        place = _ranks([(f"{archive.bands.index(band):04}", location) for _, location, band in names])
        by_name = _ranks([(f"{station}.{location}", band) for station, location, band in names])
        rows = np.arange(len(day))
        if not archive.all_bands:
            best = np.lexsort((place[channel], size == 0, site[channel], day))
            group = day[best] * len(names) + site[channel[best]]
            rows = best[np.flatnonzero(np.diff(group, prepend=-1))]
        order: Int = np.lexsort((by_name[channel[rows]], day[rows]))
        return rows[order]


def _ranks(values: Sequence[tuple[str, ...]]) -> Int:
    """Of each value its place among the sorted ones; equal values have the same."""
    rank = {value: i for i, value in enumerate(sorted(set(values)))}
    return np.array([rank[value] for value in values], np.int64)


@patient
def files_for(archive: Archive, shard: Shard, span_ns: tuple[int, int]) -> list[DataFile]:
    """The files that may hold data of ``shard``'s channels within ``span_ns``, sorted by path.

    These are the files of the days that the span touches, and of a neighbouring day if the span comes
    within an hour of midnight: records do not end where days do. Raises ConfigError as `find_shards`.
    """
    network, station, location = shard.station.split(".")
    if not all(re.fullmatch(CODE + "*", code) for code in (network, station, location, shard.band)):
        raise BadData(f"{shard.id}: the codes of a channel are letters and digits")
    known = {"network": network, "station": station, "band": shard.band}
    found: dict[Path, DataFile] = {}
    days = [[day] for day in _days((span_ns[0] - SPILL_NS, span_ns[1] + SPILL_NS))]  # one by one: dates are literal
    layout = SDS if archive.layout == "sds" else archive.layout
    told = {name for _, name, _, _ in string.Formatter().parse(layout)}
    for path, info, codes, left in _search(archive, known, days, lambda name: name == f"{network}.{station}"):
        file = DataFile(Path(path), info.st_size, tuple(left), {k: v for k, v in codes.items() if k in told})
        if _plain(file.codes.get("location", location)) == location and file.band in ("", shard.band):
            found[file.path] = file
    return [found[path] for path in sorted(found)]


def _days(span_ns: tuple[int, int]) -> list[date]:
    return [date.fromordinal(EPOCH + day) for day in days_within(span_ns)]


def _plain(location: str) -> str:
    return "" if location.strip("- ") == "" else location.strip()


def _channels(file: DataFile, bands: tuple[str, ...]) -> set[tuple[str, str, str]]:
    """("NET.STA", location, band) of the channels in ``file``: from its path, or else from its headers."""
    codes = file.codes
    if _tells_channel(codes):
        return {(f"{codes['network']}.{codes['station']}", _plain(codes["location"]), file.band)}
    try:
        headers = _headers(file.path)
    except BadData as e:
        log.warning("%s", e)
        headers = []
    own = [h for h in headers if h[1] in ("", codes["station"]) and h[0] in ("", codes.get("network", h[0]))]
    if headers and not own:
        log.warning("%s: its headers name %s, not %s; ignored", file.path, sorted(set(headers)), codes["station"])
    if not headers:  # unreadable: planned all the same, so that the account of the run names it
        own = [("", "", "", bands[0])]
    return {
        (
            f"{codes.get('network', network)}.{codes['station']}",
            _plain(codes.get("location", location)),
            file.band or channel[:2],
        )
        for network, _, location, channel in own
    }


def _tells_channel(codes: Codes) -> bool:
    return ("channel" in codes or "band" in codes) and {"network", "station", "location"} <= codes.keys()


def _headers(path: Path) -> list[tuple[str, str, str, str]]:
    """(network, station, location, channel) of every trace. Raises BadData."""
    stream, _ = traces.read(path, headonly=True)
    stats = [trace.stats for trace in stream]
    return sorted({(s.network.strip(), s.station.strip(), s.location.strip(), s.channel.strip()) for s in stats})


def _search(archive: Archive, known: Codes, groups: list[list[date]], wanted: Callable[[str], bool]) -> Iterator[Found]:
    """Files of each group of days in turn; what several groups need to see of the archive is looked at once."""
    if archive.root is None or not archive.root.is_dir():
        raise ConfigError(f"archive.root {archive.root} is not a folder: correct the path, or mount the archive")

    def accept(codes: Codes) -> bool:
        band = codes.get("channel", "")[:2] or codes.get("band", "")
        both = "network" in codes and "station" in codes
        return (not band or band in archive.bands) and (not both or wanted(f"{codes['network']}.{codes['station']}"))

    memory = lru_cache(maxsize=64)  # enough for the folders of a station, bounded for an archive of a million files
    status = partial(_status, archive.root.resolve())
    walk = _Walk(accept, memory(_listed), memory(status), status)
    layout = SDS if archive.layout == "sds" else archive.layout
    for days in groups:
        yield from walk.files(str(archive.root), Path(layout).parts, known, days)


@dataclass(frozen=True, slots=True)
class _Walk:
    """Descends a path template, one folder level a template part, into matching folders only."""

    accept: Callable[[Codes], bool]
    listed: Callable[[str], list[str]]
    status: Callable[[str], os.stat_result | None]
    file_status: Callable[[str], os.stat_result | None]
    dates: dict[Any, tuple[list[date], dict[tuple[int, ...], list[date]]]] = field(default_factory=dict)

    def files(self, folder: str, parts: tuple[str, ...], codes: Codes, days: list[date]) -> Iterator[Found]:
        """(path, status, codes, days) of each file; the same ``codes`` object for those of the same codes."""
        if len(parts) == 1:
            for name, found, left in self._matching(folder, parts[0], codes, days):
                path = f"{folder}/{name}"
                info = self.file_status(path)
                if info is not None and stat.S_ISREG(info.st_mode):
                    yield path, info, found, left
            return
        for name, found, left in self._matching(folder, parts[0], codes, days):
            path = f"{folder}/{name}"
            info = self.status(path)
            if info is not None and stat.S_ISDIR(info.st_mode):
                yield from self.files(path, parts[1:], found, left)

    def _matching(
        self, folder: str, part: str, codes: Codes, days: list[date]
    ) -> Iterator[tuple[str, Codes, list[date]]]:
        """Names in ``folder`` that match, with the codes known and the days left by then."""
        pattern = re.compile(_pattern(part, codes, days))
        dated = tuple(k for k in pattern.groupindex if k in DATE_FIELDS)
        coded = [k for k in pattern.groupindex if k in CODE_FIELDS]
        by_date = self._by_date(days, dated)
        known: dict[tuple[str, ...], Codes | None] = {}  # by what the name tells; None: not wanted
        for name in self._names(folder, pattern.pattern):
            match = pattern.fullmatch(name)
            if match is None:
                continue
            left = by_date.get(tuple([int(match[k]) for k in dated]))
            if left is None:
                continue
            told = tuple([match[k] for k in coded])
            if told not in known:
                found = codes | dict(zip(coded, told, strict=True))
                known[told] = found if self.accept(found) else None
            accepted = known[told]
            if accepted is not None:
                yield name, accepted, left

    def _by_date(self, days: list[date], fields: tuple[str, ...]) -> dict[tuple[int, ...], list[date]]:
        """The days of each combination of ``fields``; folders of one level ask for the same ``days`` often."""
        kept = self.dates.get((id(days), fields))
        if kept is None:
            found: dict[tuple[int, ...], list[date]] = {}
            for day in days:
                found.setdefault(tuple(DATE_FIELDS[k][1](day) for k in fields), []).append(day)
            if len(self.dates) > MOST_DATES:
                self.dates.clear()
            kept = self.dates[id(days), fields] = days, found  # the list is kept, too, so that its id stays its own
        return kept[1]

    def _names(self, folder: str, pattern: str) -> list[str]:
        """Names in ``folder`` that may match, sorted; a pattern without freedom is not worth a listing."""
        plain = re.sub(r"\\(.)", r"\1", pattern)
        return [plain] if re.escape(plain) == pattern else self.listed(folder)


def _status(root: Path, path: str) -> os.stat_result | None:
    """What lies at ``path``; None if nothing does, or a link that leads out of the archive."""
    try:
        info = os.lstat(path)
        if not stat.S_ISLNK(info.st_mode):
            return info
        if not Path(path).resolve().is_relative_to(root):
            log.warning("%s: a link that leads out of the archive; ignored", path)
            return None
        return Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _listed(folder: str) -> list[str]:
    """Names in ``folder``, sorted."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as e:
        raise ConfigError(
            f"{folder}: this folder of the archive may not be listed: {e}; ask for read permission"
        ) from e


def _pattern(part: str, codes: dict[str, str], days: list[date]) -> str:
    """Regular expression for one part of a template: what is known is literal, the rest named groups."""
    out, seen = "", set[str]()
    for literal, name, spec, _ in string.Formatter().parse(part):
        out += re.escape(literal).replace(r"\*", "[^/]*")
        if name is None:
            continue
        if name in seen:
            out += f"(?P={name})"
        elif name in DATE_FIELDS and len(days) == 1:
            out += re.escape(format(DATE_FIELDS[name][1](days[0]), spec or ""))
        elif name in codes:
            out += re.escape(codes[name])
        elif name == "channel" and "band" in codes:
            seen.add(name)
            out += f"(?P<channel>{re.escape(codes['band'])}{CODE})"
        else:
            seen.add(name)
            out += f"(?P<{name}>{DATE_FIELDS[name][0] if name in DATE_FIELDS else CODE_FIELDS[name]})"
    return out
