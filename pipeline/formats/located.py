"""Located events and their picks, as every export takes them and every one of its readers gives them back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pipeline.errors import BadData
from pipeline.maths.names import sites
from pipeline.records import NAN, NS, Float, Int, LocatedArrivals, Origins, Stations, Table

T = TypeVar("T", bound=Table)
EMPTY: dict[str, Any] = {"str": "", "int64": 0, "float64": NAN}
MS, MINUTE_NS = 1_000_000, 60 * NS
# Standard deviations up to which a pick has the weight code 0, 1, 2 and 3 of HYPO71; 4 is a pick that does not count.
CODES_S = (0.1, 0.2, 0.4, 0.8)


class Catalogue(NamedTuple):
    """Every event of ``arrivals`` is in ``origins``; ``stations`` may lack some of the picks."""

    origins: Origins
    arrivals: LocatedArrivals
    stations: Stations

    def events(self) -> Iterator[tuple[int, Int]]:
        """The row of each event, in the order of ``origins``, and the rows of its picks in their order."""
        order = np.argsort(self.arrivals.event, kind="stable")
        names = self.arrivals.event[order]
        first = np.searchsorted(names, self.origins.id, "left")
        stop = np.searchsorted(names, self.origins.id, "right")
        for row, (start, end) in enumerate(zip(first.tolist(), stop.tolist(), strict=True)):
            yield row, order[start:end]

    def of(self, rows: Int) -> Catalogue:
        """The events ``rows``, in that order, with their picks."""
        origins = self.origins.take(rows)
        return self._replace(origins=origins, arrivals=self.arrivals.take(np.isin(self.arrivals.event, origins.id)))


def require_whole(catalogue: Catalogue) -> None:
    """Raises ValueError for two events of one id, or a pick of none."""
    ids, n = np.unique(catalogue.origins.id, return_counts=True)
    if (n > 1).any():
        raise ValueError(f"event {ids[n > 1][0]!r} is there {n.max()} times")
    strangers = np.setdiff1d(catalogue.arrivals.event, ids)
    if len(strangers):
        raise ValueError(f"picks of event {strangers[0]!r}, which is not among the events")


def catalogue(origins: Sequence[Mapping[str, Any]], arrivals: Sequence[Mapping[str, Any]]) -> Catalogue:
    """The tables of what a reader found, by names of columns; what it did not find has its default.

    Sorted by time and id, and the picks by event, time, station and phase; picks are counted where the reader did not.
    """
    picks = table(LocatedArrivals, arrivals)
    picks = picks.take(np.lexsort((picks.phase, picks.station, picks.time_ns, picks.event)))
    found = table(Origins, [{**_counted(row["id"], picks), **row} for row in origins])
    found = found.take(np.lexsort((found.id, found.time_ns)))
    return Catalogue(found, picks, Stations.empty())


def _counted(event: str, picks: LocatedArrivals) -> dict[str, int]:
    rows = slice(*(int(np.searchsorted(picks.event, event, side)) for side in ("left", "right")))
    phase = picks.phase[rows]
    n_sites = len(set(sites(picks.station[rows]).tolist()))
    return {"n_p": int((phase == "P").sum()), "n_s": int((phase == "S").sum()), "n_stations": n_sites}


def table(kind: type[T], rows: Sequence[Mapping[str, Any]]) -> T:
    """A table of ``rows``; a column that a row lacks has its default, else 0, NaN or nothing."""
    columns = []
    for f in kind.columns():
        dtype, default = f.metadata["dtype"], f.metadata["default"]
        fill = EMPTY[dtype] if default is None else default
        values = [row.get(f.name, fill) for row in rows]
        columns.append(np.array(values, np.str_ if dtype == "str" else dtype))
    return kind(*columns)


def covariance(origins: Origins, row: int) -> Float | None:
    """The covariance (3, 3) of x east, y north, z down in km2; None where it is not known."""
    xx, xy, xz, yy, yz, zz = (
        float(getattr(origins, f"cov_{k}_km2")[row]) for k in ("xx", "xy", "xz", "yy", "yz", "zz")
    )
    matrix = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return matrix if np.isfinite(matrix).all() else None


def covariance_row(matrix: Float) -> dict[str, float]:
    """The same, by the columns of `Origins`."""
    x, y, z = matrix.tolist()
    names = ("xx", "xy", "xz", "yy", "yz", "zz")
    return {f"cov_{k}_km2": v for k, v in zip(names, (*x, y[1], y[2], z[2]), strict=True)}


class Clock(NamedTuple):
    """The UTC minute of a time and the whole steps since that minute."""

    minute: datetime
    steps: int

    @property
    def date(self) -> str:
        return f"{self.minute:%Y%m%d}"


def clock(time_ns: int, step_ns: int) -> Clock:
    """A time to the nearest step; rounded first, so that no second is ever 60."""
    steps = (int(time_ns) + step_ns // 2) // step_ns
    minutes, rest = divmod(steps, MINUTE_NS // step_ns)
    return Clock(datetime.fromtimestamp(minutes * 60, UTC), rest)


def iso(time_ns: int, digits: int = 6) -> str:
    """A time in ISO 8601, UTC, with that many digits after the second: 3, 6 or 9."""
    at = clock(time_ns, 10 ** (9 - digits))
    second, part = divmod(at.steps, 10**digits)
    return f"{at.minute:%Y-%m-%dT%H:%M}:{second:02d}.{part:0{digits}d}Z"


def minute_ns(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    """A UTC minute as ns since 1970; hours and minutes may overflow. Raises ValueError for no date."""
    days = (datetime(year, month, day, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
    return ((days * 24 + hour) * 60 + minute) * MINUTE_NS


def seconds_ns(seconds: float, step_ns: int = 1000) -> int:
    """Seconds as whole steps of ns, without the noise of floating point."""
    return round(seconds * NS / step_ns) * step_ns


def known(value: float, otherwise: float = 0.0) -> float:
    """The value, or what a format writes where there is none."""
    return float(value) if isfinite(value) else otherwise


def weight_code(sigma_s: float, weight: float) -> int:
    """The weight code of HYPO71, 0 best to 4 unused, of a pick; 0 where nothing is known of it."""
    if weight == 0:
        return 4
    return int(np.searchsorted(CODES_S, sigma_s)) if isfinite(sigma_s) else 0


def split(station: str) -> tuple[str, str, str, str]:
    """Network, station, location and band of "NET.STA.LOC.BAND" or the beginning of it; a bare code has no network."""
    parts = station.split(".")
    if len(parts) == 1:
        parts = ["", station]
    net, sta, loc, band = (*parts, "", "")[:4]
    return net, sta, loc, band


def text(path: Path, encoding: str = "utf-8") -> str:
    """Raises BadData if the file cannot be read."""
    try:
        return Path(path).read_text(encoding)
    except (OSError, UnicodeDecodeError) as e:
        raise BadData(f"{path}: cannot be read: {e}. Check the path and the permissions") from e
