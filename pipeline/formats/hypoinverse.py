"""HypoInverse 2000 archive, Y2000 form: a summary line, a line a station, a terminator (Klein 2002, USGS OFR 02-171).

It serves as phase file, too (``PHS``, ``COP 3``). Columns are Fortran's, decimal points are implied. The resolution is
0.01 s, 0.01 minutes of arc (18 m), 0.01 km, 0.01 of a magnitude, 0.1 km of a distance up to 999, 1 degree, 0.01 s of a
residual. A value that does not fit is written with its point and fewer digits, so a magnitude under -0.99 as a whole
number. The uncertainty of a pick is a weight code (`located.CODES_S`). Ids are numbers of ten digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from math import floor, isfinite
from pathlib import Path
from typing import Any

from pipeline.errors import BadData
from pipeline.formats import export_names
from pipeline.formats.export_names import Names
from pipeline.formats.located import (
    Catalogue,
    catalogue,
    clock,
    covariance,
    minute_ns,
    seconds_ns,
    split,
    text,
    weight_code,
)
from pipeline.maths import ellipsoids
from pipeline.maths.names import site
from pipeline.records import NAN, NS, Int, LocatedArrivals, Origins

WIDTH = 5
STEP_NS = NS // 100
LATEST_S = 900  # an S later than this after its P has a line of its own
Row = dict[str, Any]


def names(catalogue: Catalogue) -> Names:
    """How `write_hypoinverse` calls the events and the stations."""
    return export_names.of(catalogue, WIDTH, networks=True)


def write_hypoinverse(path: Path, catalogue: Catalogue) -> None:
    """All events, numbered from 1."""
    short = names(catalogue).stations
    with Path(path).open("w", encoding="ascii", errors="replace", newline="\n") as file:
        for row, picks in catalogue.events():
            lines = [_summary(catalogue.origins, row, len(picks))]
            lines += [_station(catalogue, p, s, short) for p, s in _pairs(catalogue.arrivals, picks)]
            file.write("\n".join([*lines, f"{'':62}{row + 1:10d}", ""]))


def _summary(o: Origins, row: int, n_picks: int) -> str:
    at = clock(int(o.time_ns[row]), STEP_NS)
    lat, lon = float(o.latitude_deg[row]), float(o.longitude_deg[row])
    scale = str(o.magnitude_kind[row])
    magnitude = isfinite(o.magnitude[row])
    n = max(int(o.n_used[row]), 0) if o.n_used[row] >= 0 else n_picks
    fields = {
        1: f"{at.date}{at.minute:%H%M}{at.steps:4d}{_angle(lat, 2, ' S')}{_angle(lon, 3, 'E ')}",
        32: _implied(o.depth_km[row], 5, 2),
        40: f"{min(n, 999):3d}{_implied(o.gap_deg[row], 3, 0)}{_implied(o.nearest_km[row], 3, 0)}"
        f"{_implied(o.rms_s[row], 4, 2)}{_axes(o, row)}",
        81: "Q" if str(o.kind[row]) == "quarry blast" else " ",
        82: "-" if str(o.depth_kind[row]).startswith("fixed") else " ",
        83: f"{min(max(int(o.n_s[row]), 0), 999):3d}{_implied(o.erh_km[row], 4, 2)}{_implied(o.erz_km[row], 4, 2)}",
        119: f"{min(n_picks, 999):3d}",
        137: f"{row + 1:10d}",
        147: (scale[-1:] or " ") + _implied(o.magnitude[row], 3, 2) if magnitude else "",
        151: _implied(float(o.magnitude_n[row]), 4, 1) if magnitude and o.magnitude_n[row] >= 0 else "",
    }
    return _line(fields, 164)


def _axes(o: Origins, row: int) -> str:
    """Columns 53 to 80: the principal standard errors with azimuth and dip; the smallest has its length only."""
    matrix = covariance(o, row)
    if matrix is None:
        return ""
    (long, az1, dip1), (middle, az2, dip2), (short, _, _) = ellipsoids.directions(matrix)
    first = f"{az1:3.0f}{min(dip1, 90):2.0f}{_implied(long, 4, 2)}"
    return f"{first}{az2:3.0f}{min(dip2, 90):2.0f}{_implied(middle, 4, 2)}{'':6}{_implied(short, 4, 2)}"


def _line(fields: dict[int, str], width: int) -> str:
    """``fields`` by their first columns, from 1."""
    line = ""
    for first, value in fields.items():
        line = f"{line:{first - 1}}{value}" if value else line
    return f"{line:{width}}"


def _angle(degrees: float, width: int, signs: str) -> str:
    """Degrees and hundredths of minutes with the letter of the hemisphere between: ``signs`` are those of + and -."""
    whole, hundredths = divmod(floor(abs(degrees) * 6000 + 0.5), 6000)
    return f"{whole:{width}d}{signs[degrees < 0]}{hundredths:4d}"


def _implied(value: float, width: int, digits: int) -> str:
    """A number without its decimal point; with the point and fewer digits where it does not fit; blank for NaN."""
    if not isfinite(value):
        return " " * width
    out = f"{floor(abs(value) * 10**digits + 0.5) * (-1 if value < 0 else 1):{width}d}"
    for fewer in range(digits - 1, -1, -1):
        if len(out) <= width:
            return out
        out = f"{value:.{fewer}f}" + ("" if fewer else ".")
    return out if len(out) <= width else "9" * width


def _pairs(a: LocatedArrivals, picks: Int) -> Iterator[tuple[int | None, int | None]]:
    """The n-th P and the n-th S of each station and band, in the order of arrival."""
    seen: dict[str, dict[str, list[int]]] = {}
    for pick in picks.tolist():
        seen.setdefault(str(a.station[pick]), {"P": [], "S": []})[str(a.phase[pick])].append(pick)
    for found in seen.values():
        for p, s in zip_longest(found["P"], found["S"]):
            late = p is not None and s is not None and not 0 <= a.time_ns[s] - a.time_ns[p] < LATEST_S * NS
            yield from ((p, None), (None, s)) if late else ((p, s),)


def _station(catalogue: Catalogue, p: int | None, s: int | None, short: dict[str, str]) -> str:
    a = catalogue.arrivals
    first = p if p is not None else s
    if first is None:
        raise ValueError("a line without a pick")
    net, _, loc, band = split(str(a.station[first]))
    at = clock(int(a.time_ns[first]), STEP_NS)
    fields = {
        1: f"{short[site(str(a.station[first]))].rpartition('.')[2]:5.5}{net:2.2}",
        10: f"{band:3.3}",
        14: " P" if p is not None else "",
        17: str(weight_code(a.sigma_s[p], a.weight[p])) if p is not None else "",
        18: f"{at.date}{at.minute:%H%M}",
    }
    if p is not None:
        fields[30] = f"{at.steps:5d}{_implied(a.residual_s[p], 4, 2)}{_implied(a.weight[p], 3, 2)}"
    if s is not None:
        since = clock(int(a.time_ns[s]), STEP_NS)
        steps = since.steps + int((since.minute - at.minute).total_seconds()) * 100
        code = weight_code(a.sigma_s[s], a.weight[s])
        fields[42] = f"{steps:5d} S {code}{_implied(a.residual_s[s], 4, 2)}"
        fields[64] = _implied(a.weight[s], 3, 2)
    fields[75] = f"{_implied(a.distance_km[first], 4, 1)}{_implied(a.takeoff_deg[first], 3, 0)}"
    fields[92] = _implied(a.azimuth_deg[first], 3, 0)
    fields[112] = f"{loc:2.2}"
    return _line(fields, 113)


def read_hypoinverse(path: Path) -> Catalogue:
    """Summary and station lines; shadow lines ($) are skipped. Raises BadData that names the line."""
    origins: list[Row] = []
    arrivals: list[Row] = []
    for number, line in enumerate(text(path, "latin-1").splitlines(), start=1):
        if not line.strip() or line[0] == "$":
            continue
        line = f"{line:170}"
        try:
            if not line[:4].strip():
                continue  # the terminator
            if line[:12].replace(" ", "0").isdecimal():
                origins.append(_origin(line, len(origins) + 1))
            elif not origins:
                raise ValueError("a station before any summary line")
            else:
                arrivals += [{"event": origins[-1]["id"], **pick} for pick in _picks(line)]
        except (ValueError, KeyError) as e:
            raise BadData(f"{path}, line {number}, {line[:60]!r}: not of a Y2000 archive: {e}") from e
    return catalogue(origins, arrivals)


def _number(line: str, first: int, width: int, digits: int) -> float:
    """The Fortran number in columns from ``first``; NaN where they are blank."""
    field = line[first - 1 : first - 1 + width]
    if not field.strip():
        return NAN
    return float(field) if "." in field else int(field) / 10**digits


def _minute(line: str, first: int) -> int:
    field = line[first - 1 : first + 11].replace(" ", "0")
    return minute_ns(int(field[:4]), int(field[4:6]), int(field[6:8]), int(field[8:10]), int(field[10:]))


def _origin(line: str, ordinal: int) -> Row:
    minute = _minute(line, 1)
    latitude = _number(line, 17, 2, 0) + _number(line, 20, 4, 2) / 60
    longitude = _number(line, 24, 3, 0) + _number(line, 28, 4, 2) / 60
    magnitude = _number(line, 148, 3, 2)
    n, n_magnitude = _number(line, 40, 3, 0), _number(line, 151, 4, 1)
    return {
        "id": line[136:146].strip() or f"{ordinal:06d}",
        "time_ns": minute + seconds_ns(_number(line, 13, 4, 2)),
        "latitude_deg": -latitude if line[18] == "S" else latitude,
        "longitude_deg": longitude if line[26] == "E" else -longitude,
        "depth_km": _number(line, 32, 5, 2),
        "gap_deg": _number(line, 43, 3, 0),
        "nearest_km": _number(line, 46, 3, 0),
        "rms_s": _number(line, 49, 4, 2),
        "erh_km": _number(line, 86, 4, 2),
        "erz_km": _number(line, 90, 4, 2),
        "n_used": int(n) if isfinite(n) else -1,
        "depth_kind": "fixed" if line[81] == "-" else "",
        "kind": "quarry blast" if line[80] == "Q" else "earthquake",
        "magnitude": magnitude,
        "magnitude_kind": "ML" if line[146] == "L" and isfinite(magnitude) else "",
        "magnitude_n": int(n_magnitude) if isfinite(n_magnitude) else -1,
    }


def _picks(line: str) -> Iterator[Row]:
    parts = [line[5:7].strip(), line[:5].strip(), line[111:113].strip(), line[9:12].strip()]
    minute = _minute(line, 18)
    shared = {
        "station": ".".join(parts if parts[3] or parts[2] else parts[:2]),
        "distance_km": _number(line, 75, 4, 1),
        "takeoff_deg": _number(line, 79, 3, 0),
        "azimuth_deg": _number(line, 92, 3, 0),
    }
    # the remark, the column of the second, of the residual and of the weight
    for phase, remark, second, residual, weight in (("P", 14, 30, 35, 39), ("S", 47, 42, 51, 64)):
        if line[remark - 1 : remark + 1].strip() and isfinite(_number(line, second, 5, 2)):
            yield shared | {
                "phase": phase,
                "time_ns": minute + seconds_ns(_number(line, second, 5, 2)),
                "residual_s": _number(line, residual, 4, 2),
                "weight": _number(line, weight, 3, 2),
            }
