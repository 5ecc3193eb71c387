"""The input of hypoDD (Waldhauser 2001, USGS Open-File Report 01-113): a folder with phase.dat, station.dat, dt.ct.

Fields are free, with blanks between. Events are numbered; names.csv says which they are and what stations of more than
seven letters, or of one code in two networks, are called. Times have 0.1 ms, places 0.000001 degrees, depths 1 m. A
missing error or RMS is 0, as hypoDD has it, a missing magnitude -9.9; a pick without a weight has weight 1. dt.ct has
the pairs that ph2dt looks for: within 10 km, the 10 nearest of at least 8 common picks, at most 50 picks a pair, the
shortest travel times first.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import BadData
from pipeline.formats import export_names, stations
from pipeline.formats.export_names import Names
from pipeline.formats.located import Catalogue, catalogue, clock, known, minute_ns, seconds_ns, text
from pipeline.maths.names import site, sites
from pipeline.maths.pairs import Links, neighbours, positions_km
from pipeline.records import NAN, Int, Stations

FILES = ("phase.dat", "station.dat", "dt.ct", "names.csv")
WIDTH = 7
STEP_NS = 100_000
NO_MAGNITUDE = -9.9
SEPARATION_KM, NEIGHBOURS, LINKS, OBSERVATIONS = 10.0, 10, 8, 50


class Difference(NamedTuple):
    """A line of dt.ct: two events (their numbers) seen at one station, travel times in seconds."""

    first: str
    second: str
    station: str
    first_s: float
    second_s: float
    weight: float
    phase: str


def names(catalogue: Catalogue) -> Names:
    """How `write_hypodd` calls the events and the stations."""
    return export_names.of(catalogue, WIDTH)


def write_hypodd(folder: Path, catalogue: Catalogue) -> None:
    """Four files in ``folder``, which is there."""
    short = names(catalogue)
    picks = [rows for _, rows in catalogue.events()]
    for name, lines in (
        ("phase.dat", _phases(catalogue, picks, short.stations)),
        ("station.dat", _stations(catalogue, short.stations)),
        ("dt.ct", _differences(catalogue, picks, short.stations)),
    ):
        with (folder / name).open("w", encoding="ascii", errors="replace", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
    (folder / "names.csv").write_text(export_names.dumps(short), "utf-8")


def _phases(catalogue: Catalogue, picks: list[Int], short: dict[str, str]) -> Iterator[str]:
    o, a = catalogue.origins, catalogue.arrivals
    for row, rows in enumerate(picks):
        at = clock(int(o.time_ns[row]), STEP_NS)
        where = f"{o.latitude_deg[row]:.6f} {o.longitude_deg[row]:.6f} {known(o.depth_km[row]):.3f}"
        errors = f"{known(o.erh_km[row]):.3f} {known(o.erz_km[row]):.3f} {known(o.rms_s[row]):.4f}"
        magnitude = f"{known(o.magnitude[row], NO_MAGNITUDE):.2f}"
        yield f"# {at.minute:%Y %m %d %H %M} {at.steps / 10_000:.4f} {where} {magnitude} {errors} {row + 1}"
        for pick in rows.tolist():
            code, weight = short[site(str(a.station[pick]))], known(a.weight[pick], 1.0)
            yield f"{code:7} {_travel_s(catalogue, row, pick):.4f} {weight:.4f} {a.phase[pick]}"


def _travel_s(catalogue: Catalogue, row: int, pick: int) -> float:
    """Seconds between the times as they are written."""
    steps = [
        (int(t) + STEP_NS // 2) // STEP_NS for t in (catalogue.arrivals.time_ns[pick], catalogue.origins.time_ns[row])
    ]
    return (steps[0] - steps[1]) / 10_000


def _stations(catalogue: Catalogue, short: dict[str, str]) -> Iterator[str]:
    """Latitude, longitude, elevation (m) of every station with a pick, where it was at its first one."""
    a, known_ = catalogue.arrivals, catalogue.stations
    ids, first = np.unique(sites(a.station), return_index=True)
    for id_, row in zip(ids.tolist(), stations.at(known_, ids, a.time_ns[first]).tolist(), strict=True):
        if row >= 0:
            where = f"{known_.latitude_deg[row]:.6f} {known_.longitude_deg[row]:.6f}"
            yield f"{short[id_]:7} {where} {known_.elevation_m[row]:.1f}"


def _differences(catalogue: Catalogue, picks: list[Int], short: dict[str, str]) -> Iterator[str]:
    o, a = catalogue.origins, catalogue.arrivals
    keys = list(zip([short[name] for name in sites(a.station).tolist()], a.phase.tolist(), strict=True))
    links: list[Links] = [{keys[pick]: pick for pick in reversed(rows.tolist())} for rows in picks]
    points = positions_km(o.latitude_deg, o.longitude_deg, o.depth_km)
    for i, j in neighbours(points, links, SEPARATION_KM, NEIGHBOURS, LINKS):
        yield f"# {i + 1:9d} {j + 1:9d}"
        common = sorted(
            links[i].keys() & links[j].keys(), key=lambda key: (_travel_s(catalogue, i, links[i][key]), key)
        )
        for code, phase in common[:OBSERVATIONS]:
            p, q = links[i][code, phase], links[j][code, phase]
            weight = (known(a.weight[p], 1.0) + known(a.weight[q], 1.0)) / 2
            times = f"{_travel_s(catalogue, i, p):.4f} {_travel_s(catalogue, j, q):.4f}"
            yield f"{code:7} {times} {weight:.4f} {phase}"


def read_hypodd(folder: Path) -> Catalogue:
    """phase.dat and station.dat of a folder, with the names of names.csv if it is there. Raises BadData."""
    found = read_phases(folder / "phase.dat")
    where = read_stations(folder / "station.dat")
    if not (folder / "names.csv").exists():
        return found._replace(stations=where)
    names_ = export_names.read(folder / "names.csv")
    back = {code: name for name, code in names_.stations.items()}
    ids = np.array([back.get(id_, id_) for id_ in where.id.tolist()], np.str_)
    return export_names.restored(found, names_)._replace(
        stations=Stations(ids, where.latitude_deg, where.longitude_deg, where.elevation_m, where.start_ns, where.end_ns)
    )


def read_phases(path: Path) -> Catalogue:
    """phase.dat. Raises BadData that names the line."""
    origins: list[dict[str, Any]] = []
    arrivals: list[dict[str, Any]] = []
    for number, line in enumerate(text(path).splitlines(), start=1):
        try:
            if line.startswith("#"):
                origins.append(_origin(line[1:].split()))
            elif line.strip():
                station, travel, weight, phase = line.split()
                time_ns = origins[-1]["time_ns"] + seconds_ns(float(travel))
                pick = {"event": origins[-1]["id"], "station": station, "phase": phase}
                arrivals.append({**pick, "time_ns": time_ns, "weight": float(weight)})
        except (ValueError, IndexError) as e:
            raise BadData(f"{path}, line {number}, {line[:60]!r}: not of a hypoDD phase file: {e}") from e
    return catalogue(origins, arrivals)


def _origin(f: list[str]) -> dict[str, Any]:
    if len(f) != 14:
        raise ValueError(f"{len(f)} fields after #, expected 14")
    minute = minute_ns(*(int(v) for v in f[:5]))
    lat, lon, depth, magnitude, erh, erz, rms = (float(v) for v in f[6:13])
    return {
        "id": f[13],
        "time_ns": minute + seconds_ns(float(f[5])),
        "latitude_deg": lat,
        "longitude_deg": lon,
        "depth_km": depth,
        "magnitude": magnitude if isfinite(magnitude) and magnitude > NO_MAGNITUDE else NAN,
        "erh_km": erh or NAN,
        "erz_km": erz or NAN,
        "rms_s": rms or NAN,
    }


def read_stations(path: Path) -> Stations:
    """station.dat: code, latitude, longitude and, in metres, elevation (0 where there is none). Raises BadData."""
    rows: list[tuple[str, float, float, float]] = []
    for number, line in enumerate(text(path).splitlines(), start=1):
        fields = line.split()
        try:
            if fields:
                rows.append((fields[0], float(fields[1]), float(fields[2]), float(fields[3]) if fields[3:] else 0.0))
        except (ValueError, IndexError) as e:
            raise BadData(f"{path}, line {number}, {line[:60]!r}: not STATION LATITUDE LONGITUDE [ELEVATION]") from e
    n = len(rows)
    numbers = np.array([row[1:] for row in rows], np.float64).reshape(n, 3).T.copy()
    ids = np.array([row[0] for row in rows], np.str_)
    epoch = np.full(n, stations.EARLIEST), np.full(n, stations.LATEST)
    return Stations(ids, numbers[0], numbers[1], numbers[2], *epoch)


def read_differences(path: Path) -> list[Difference]:
    """dt.ct. Raises BadData that names the line."""
    out: list[Difference] = []
    pair: tuple[str, str] | None = None
    for number, line in enumerate(text(path).splitlines(), start=1):
        fields = line.split()
        try:
            if line.startswith("#"):
                pair = (fields[1], fields[2])
            elif fields and pair:
                first, second, weight = (float(v) for v in fields[1:4])
                out.append(Difference(*pair, fields[0], first, second, weight, fields[4]))
            elif fields:
                raise ValueError("no pair before it")
        except (ValueError, IndexError) as e:
            raise BadData(f"{path}, line {number}, {line[:60]!r}: not of a dt.ct: {e}") from e
    return out
