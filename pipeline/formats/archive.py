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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache, partial
from pathlib import Path

from pipeline.config import Archive
from pipeline.errors import BadData, ConfigError
from pipeline.formats import traces
from pipeline.records import DAY_NS, NS, Shard

log = logging.getLogger(__name__)

SDS = "{year}/{network}/{station}/{channel}.D/{network}.{station}.{location}.{channel}.D.{year}.{julday:03}"
SPILL_NS = 3600 * NS  # a day's file may hold data of the neighbouring day up to this far from midnight
DATE_FIELDS: dict[str, tuple[str, Callable[[date], int]]] = {
    "year": (r"\d{4}", lambda d: d.year),
    "month": (r"\d{1,2}", lambda d: d.month),
    "day": (r"\d{1,2}", lambda d: d.day),
    "julday": (r"\d{1,3}", lambda d: d.toordinal() - date(d.year, 1, 1).toordinal() + 1),
}
CODE = r"[A-Za-z0-9-]"
CODE_FIELDS = {
    "network": CODE + "{1,8}",
    "station": CODE + "{1,8}",
    "location": CODE + "{0,8}",
    "band": CODE + "{2}",
    "channel": CODE + "{3}",
}


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
    """Every station and UTC day with data files in the half-open ``span_ns``, sorted, and the bytes of its files.

    ``wanted("NET.STA")`` says which stations are looked at. A station has one shard a day, unless
    ``archive.all_bands``: that of the first band present of ``archive.bands`` and, of several location
    codes with this band, the first in alphabetical order ("" before "00"). Files of 0 bytes count only
    where there is nothing better. Raises ConfigError if the root is not a folder.
    """
    days = _days(span_ns)
    sizes: dict[tuple[date, str], dict[tuple[str, str], int]] = {}
    for file in _search(archive, {}, [days], wanted):
        shares = _channels(file, archive.bands)
        for station, location, band in sorted(shares):
            if band in archive.bands and wanted(station):
                for day in file.days:
                    found = sizes.setdefault((day, station), {})
                    found[location, band] = found.get((location, band), 0) + file.size // len(shares)
    chosen = (
        (Shard(day, f"{station}.{location}", band), size)
        for (day, station), found in sizes.items()
        for (location, band), size in _choose(found, archive)
    )
    return sorted(chosen, key=lambda item: item[0])


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
    for file in _search(archive, known, days, lambda name: name == f"{network}.{station}"):
        if _plain(file.codes.get("location", location)) == location and file.band in ("", shard.band):
            found[file.path] = file
    return [found[path] for path in sorted(found)]


def _days(span_ns: tuple[int, int]) -> list[date]:
    first = date(1970, 1, 1) + timedelta(days=span_ns[0] // DAY_NS)
    n = max(0, -(-span_ns[1] // DAY_NS) - span_ns[0] // DAY_NS)
    return [first + timedelta(days=i) for i in range(n)]


def _choose(found: dict[tuple[str, str], int], archive: Archive) -> list[tuple[tuple[str, str], int]]:
    """Which (location, band) of one station and day become shards."""
    ranked = sorted(found.items(), key=lambda item: (item[1] == 0, archive.bands.index(item[0][1]), item[0][0]))
    return ranked if archive.all_bands else ranked[:1]


def _plain(location: str) -> str:
    return "" if location.strip("- ") == "" else location.strip()


def _channels(file: DataFile, bands: tuple[str, ...]) -> set[tuple[str, str, str]]:
    """("NET.STA", location, band) of the channels in ``file``: from its path, or else from its headers."""
    codes = file.codes
    if file.band and {"network", "station", "location"} <= codes.keys():
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


def _headers(path: Path) -> list[tuple[str, str, str, str]]:
    """(network, station, location, channel) of every trace. Raises BadData."""
    stream, _ = traces.read(path, headonly=True)
    stats = [trace.stats for trace in stream]
    return sorted({(s.network.strip(), s.station.strip(), s.location.strip(), s.channel.strip()) for s in stats})


def _search(
    archive: Archive, known: dict[str, str], groups: list[list[date]], wanted: Callable[[str], bool]
) -> Iterator[DataFile]:
    """Files of each group of days in turn; what several groups need to see of the archive is looked at once."""
    if archive.root is None or not archive.root.is_dir():
        raise ConfigError(f"archive.root {archive.root} is not a folder: correct the path, or mount the archive")

    def accept(codes: dict[str, str]) -> bool:
        band = codes.get("channel", "")[:2] or codes.get("band", "")
        both = "network" in codes and "station" in codes
        return (not band or band in archive.bands) and (not both or wanted(f"{codes['network']}.{codes['station']}"))

    root = archive.root.resolve()
    memory = lru_cache(maxsize=64)  # enough for the folders of a station, bounded for an archive of a million files
    walk = _Walk(accept, memory(_listed), memory(partial(_status, root)))
    layout = SDS if archive.layout == "sds" else archive.layout
    told = {name for _, name, _, _ in string.Formatter().parse(layout)}
    for days in groups:
        for path, size, codes, left in walk.files(str(archive.root), Path(layout).parts, known, days):
            yield DataFile(Path(path), size, tuple(left), {k: v for k, v in codes.items() if k in told})


@dataclass(frozen=True, slots=True)
class _Walk:
    """Descends a path template, one folder level a template part, into matching folders only."""

    accept: Callable[[dict[str, str]], bool]
    listed: Callable[[str], list[str]]
    status: Callable[[str], os.stat_result | None]

    def files(
        self, folder: str, parts: tuple[str, ...], codes: dict[str, str], days: list[date]
    ) -> Iterator[tuple[str, int, dict[str, str], list[date]]]:
        """(path, bytes, codes, days) of each file."""
        for name, found, left in self._matching(folder, parts[0], codes, days):
            path = os.path.join(folder, name)  # noqa: PTH118 (a million of these)
            info = self.status(path)
            if info is None:
                continue
            if len(parts) > 1 and stat.S_ISDIR(info.st_mode):
                yield from self.files(path, parts[1:], found, left)
            elif len(parts) == 1 and stat.S_ISREG(info.st_mode):
                yield path, info.st_size, found, left

    def _matching(
        self, folder: str, part: str, codes: dict[str, str], days: list[date]
    ) -> Iterator[tuple[str, dict[str, str], list[date]]]:
        """Names in ``folder`` that match, with the codes known and the days left by then."""
        pattern = re.compile(_pattern(part, codes, days))
        dated = [k for k in pattern.groupindex if k in DATE_FIELDS]
        by_date: dict[tuple[int, ...], list[date]] = {}
        for day in days:
            by_date.setdefault(tuple(DATE_FIELDS[k][1](day) for k in dated), []).append(day)
        for name in self._names(folder, pattern.pattern):
            match = pattern.fullmatch(name)
            if match is not None:
                groups = match.groupdict()
                found = codes | {k: v for k, v in groups.items() if k in CODE_FIELDS}
                left = by_date.get(tuple(int(groups[k]) for k in dated), [])
                if left and self.accept(found):
                    yield name, found, left

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
