"""NonLinLoc HYP: hypocentre, statistics and phases of one event after the other (``GridLib.c``, WriteLocation).

There is no grid and no map of ours: the plane is "SIMPLE" around each epicentre, x east, y north and z down of it, so
that the hypocentre is (0, 0, depth). What is not known is -1, a magnitude -9.90, a residual 0 with a predicted time of
-1. The time of the run is not known either.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from math import cos, isfinite, radians, sin
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BadData
from pipeline.formats import nonlinloc
from pipeline.formats.located import (
    Catalogue,
    catalogue,
    clock,
    covariance,
    covariance_row,
    known,
    minute_ns,
    seconds_ns,
    text,
)
from pipeline.formats.quakeml_write import event_types, name_of, resource
from pipeline.maths import ellipsoids
from pipeline.records import NAN, NS, Float, Int, LocatedArrivals, Origins

NO_MAGNITUDE = -9.9
PHASE = (
    "PHASE ID Ins Cmp On Pha  FM Date     HrMn   Sec     Err  ErrMag    Coda      Amp       Per       PriorWt  >   "
    "TTpred    Res       Weight    StaLoc(X  Y         Z)        SDist    SAzim  RAz  RDip RQual    Tcorr       TTerr"
)
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf)", re.IGNORECASE)


def write_nonlinloc_hyp(path: Path, catalogue: Catalogue) -> None:
    """All events, each ended by END_NLLOC and a blank line."""
    names = nonlinloc.labels(catalogue.arrivals.station)
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        for row, picks in catalogue.events():
            lines = [*_head(catalogue.origins, row, catalogue.arrivals, picks), PHASE]
            lines += [_phase(catalogue, row, pick, names) for pick in picks.tolist()]
            file.write("\n".join([*lines, "END_PHASE", "END_NLLOC", "", ""]))


def _head(o: Origins, row: int, a: LocatedArrivals, picks: Int) -> list[str]:
    at = clock(int(o.time_ns[row]), 1000)
    seconds, depth = at.steps / 1e6, known(o.depth_km[row])
    where = f"Lat {o.latitude_deg[row]:.7f} Long {o.longitude_deg[row]:.7f} Depth {depth:.6f}"
    place = f"{o.latitude_deg[row]:.7f} {o.longitude_deg[row]:.7f} {depth:.6f}"
    magnitude = f"Mamp {known(o.magnitude[row], NO_MAGNITUDE):5.2f} {max(int(o.magnitude_n[row]), 0)}"
    gap, rms, near = (known(v, -1.0) for v in (o.gap_deg[row], o.rms_s[row], o.nearest_km[row]))
    lines = [
        f'NLLOC "orcolat" "LOCATED" "{_said(str(o.depth_kind[row]))}"',
        f"PUBLIC_ID {resource('event', str(o.id[row]))}",
        'SIGNATURE "orcolat   obs:-   orcolat   run:01Jan1970 00h00m00"',
        f'COMMENT "{_said(str(o.kind[row]))}"',
        "GRID  -1 -1 -1  0 0 0  0 0 0 NULLGRID",
        "SEARCH NONE",
        f"HYPOCENTER  x 0 y 0 z {depth:.6f}  OT {seconds:.6f}  ix -1 iy -1 iz -1",
        f"GEOGRAPHIC  OT {at.minute:%Y %m %d  %H %M} {seconds:.6f}  {where}",
        f"QUALITY  Pmax -1 MFmin -1 MFmax -1 RMS {rms:.6g} Nphs {_used(o, row, picks)} Gap {gap:.6g} Dist {near:.6g}"
        f" {magnitude} Mdur {NO_MAGNITUDE:5.2f} 0",
        "VPVSRATIO  VpVsRatio -1  Npair 0  Diff -1",
        *_statistics(o, row, depth),
        f"STAT_GEOG  ExpectLat {o.latitude_deg[row]:.7f} Long {o.longitude_deg[row]:.7f} Depth {depth:.6f}",
        f"TRANSFORM  SIMPLE LatOrig {o.latitude_deg[row]:.7f}  LongOrig {o.longitude_deg[row]:.7f}  RotCW 0.000000",
        _quality(o, row, a, picks),
        *_uncertainty(o, row),
        f"FOCALMECH  Hyp  {place} Mech  0 0 0 mf  0 nObs 0",
    ]
    return lines


def _said(said: str) -> str:
    """A remark without the letters that would end it."""
    return re.sub(r"[\"'\r\n]", " ", said)


def _used(o: Origins, row: int, picks: Int) -> int:
    return int(o.n_used[row]) if o.n_used[row] >= 0 else len(picks)


def _statistics(o: Origins, row: int, depth: float) -> list[str]:
    """Zeros where there is no covariance, as NonLinLoc writes for a location without samples."""
    matrix = covariance(o, row)
    matrix = np.zeros((3, 3)) if matrix is None else matrix
    (_, _, _), (_, az2, dip2), (_, az1, dip1) = ellipsoids.directions(matrix)
    solid = ellipsoids.ellipsoid(matrix)
    (xx, xy, xz), (_, yy, yz), (_, _, zz) = matrix.tolist()
    return [
        f"STATISTICS  ExpectX 0 Y 0 Z {depth:.6f}  CovXX {xx:.9g} XY {xy:.9g} XZ {xz:.9g} YY {yy:.9g} YZ {yz:.9g}"
        f" ZZ {zz:.9g} EllAz1  {az1:.6g} Dip1  {dip1:.6g} Len1  {solid.minor_km:.6g} Az2  {az2:.6g} Dip2  {dip2:.6g}"
        f" Len2  {solid.intermediate_km:.6g} Len3  {solid.major_km:.6e}"
    ]


def _quality(o: Origins, row: int, a: LocatedArrivals, picks: Int) -> str:
    distances = a.distance_km[picks][np.isfinite(a.distance_km[picks])]
    far, middle = (float(distances.max()), float(np.median(distances))) if len(distances) else (-1.0, -1.0)
    quality = (o.rms_s, o.gap_deg, o.secondary_gap_deg, o.nearest_km)
    rms, gap, second, near = (known(values[row], -1.0) for values in quality)
    return (
        f"QML_OriginQuality  assocPhCt {len(picks)}  usedPhCt {_used(o, row, picks)}"
        f"  assocStaCt {int(o.n_stations[row])}  usedStaCt -1  depthPhCt -1  stdErr {rms:.6g}  azGap {gap:.6g}"
        f"  secAzGap {second:.6g}  gtLevel -  minDist {near:.6g} maxDist {far:.6g} medDist {middle:.6g}"
    )


def _uncertainty(o: Origins, row: int) -> list[str]:
    matrix = covariance(o, row)
    horizontal = known(o.erh_km[row], -1.0)
    if matrix is None:
        return [f"QML_OriginUncertainty  horUnc {horizontal:.6g}  minHorUnc -1  maxHorUnc -1  azMaxHorUnc -1"]
    flat, solid = ellipsoids.ellipse(matrix), ellipsoids.ellipsoid(matrix)
    return [
        f"QML_OriginUncertainty  horUnc {horizontal:.6g}  minHorUnc {flat.minor_km:.6g}  maxHorUnc {flat.major_km:.6g}"
        f"  azMaxHorUnc {flat.azimuth_deg:.6g}",
        f"QML_ConfidenceEllipsoid  semiMajorAxisLength {solid.major_km:.6g}  semiMinorAxisLength {solid.minor_km:.6g}"
        f"  semiIntermediateAxisLength {solid.intermediate_km:.6g}  majorAxisPlunge {solid.plunge_deg:.6g}"
        f"  majorAxisAzimuth {solid.azimuth_deg:.6g}  majorAxisRotation {solid.rotation_deg:.6g}",
    ]


def _phase(catalogue: Catalogue, row: int, pick: int, names: dict[str, str]) -> str:
    """A phase line with its calculated part; the ray leaves towards the station."""
    a, origin_ns = catalogue.arrivals, int(catalogue.origins.time_ns[row])
    predicted = (int(a.predicted_ns[pick]) - origin_ns) / NS if a.predicted_ns[pick] else -1.0
    distance, azimuth = known(a.distance_km[pick], -1.0), known(a.azimuth_deg[pick], -1.0)
    east, north = distance * sin(radians(azimuth)), distance * cos(radians(azimuth))
    takeoff = float(a.takeoff_deg[pick])
    ray = f"{azimuth:5.1f} {known(takeoff):5.1f} {9 if isfinite(takeoff) else 0:2d}"
    return (
        f"{nonlinloc.observed(a, pick, names)} > {predicted:9.4f} {known(a.residual_s[pick]):9.4f}"
        f" {known(a.weight[pick], -1.0):9.4f} {east:9.4f} {north:9.4f} {0:9.4f} {distance:9.4f} {azimuth:6.2f} {ray}"
        f"  {0:9.4f} {-1:9.4f}"
    )


def read_nonlinloc_hyp(path: Path) -> Catalogue:
    """Of phases in the form of version 5 (without a prior weight) and later. Raises BadData that names the line."""
    origins: list[dict[str, Any]] = []
    arrivals: list[dict[str, Any]] = []
    row: dict[str, Any] | None = None
    mine: list[dict[str, Any]] = []
    phases = False
    for number, line in enumerate(text(path).splitlines(), start=1):
        word = line.split(None, 1)[0] if line.strip() else ""
        try:
            if word == "NLLOC":
                row = {"id": f"{len(origins) + 1:06d}", "kind": "", "remark": _quoted(line)[-1]}
                mine = []
            elif row is None or not word:
                continue
            elif word in ("PHASE", "END_PHASE"):
                phases = word == "PHASE"
            elif phases:
                mine.append(_arrival(line))
            elif word == "END_NLLOC":
                _close(row, mine, origins, arrivals)
                row = None
            elif word in LINES:
                row |= LINES[word](line)
        except (ValueError, IndexError, KeyError) as e:
            raise BadData(f"{path}, line {number}, {line[:60]!r}: not of a NonLinLoc hypocentre: {e}") from e
    return catalogue(origins, arrivals)


def _close(row: dict[str, Any], picks: list[dict[str, Any]], origins: list[Any], arrivals: list[Any]) -> None:
    remark = row.pop("remark")
    row["depth_kind"] = remark if remark.startswith(("free", "fixed")) else ""
    origin_ns = row["time_ns"]
    for pick in picks:
        travel_ns = pick.pop("travel_ns")
        arrivals.append(
            {"event": row["id"], **pick, **({"predicted_ns": origin_ns + travel_ns} if travel_ns >= 0 else {})}
        )
    origins.append(row)


def _arrival(line: str) -> dict[str, Any]:
    seen, _, made = line.partition(" > ")
    values = [float(v) for v in made.split()]
    reliable = values[10] > 0
    return {
        **nonlinloc.pick(seen.split()),
        "travel_ns": seconds_ns(values[0]),
        "residual_s": values[1] if values[0] >= 0 else NAN,
        "weight": _or_nan(values[2]),
        "distance_km": _or_nan(values[6]),
        "azimuth_deg": _or_nan(values[7]),
        "takeoff_deg": values[9] if reliable else NAN,
    }


def _quoted(line: str) -> list[str]:
    found = re.findall(r'"([^"]*)"', line)
    if not found:
        raise ValueError("nothing between quotes")
    return found


def _numbers(line: str) -> dict[str, float]:
    """The words of a line with the number after each."""
    fields = line.split()
    return {name: float(v) for name, v in pairwise(fields) if NUMBER.fullmatch(v)}


def _or_nan(value: float, unknown: float = -1.0) -> float:
    return NAN if value == unknown else value


def _geographic(line: str) -> dict[str, Any]:
    f = line.split()
    minute = minute_ns(*(int(v) for v in f[2:7]))
    values = _numbers(line)
    return {
        "time_ns": minute + seconds_ns(float(f[7])),
        "latitude_deg": values["Lat"],
        "longitude_deg": values["Long"],
        "depth_km": values["Depth"],
    }


def _magnitude(line: str) -> dict[str, Any]:
    fields = line.split()
    at = fields.index("Mamp")
    value = float(fields[at + 1])
    return {} if value <= NO_MAGNITUDE else {"magnitude": value, "magnitude_n": int(fields[at + 2])}


def _covariance(line: str) -> dict[str, Any]:
    v = _numbers(line)
    fields = line.split()
    yy, zz = (float(fields[fields.index(name) + 1]) for name in ("YY", "ZZ"))
    m: Float = np.array([[v["CovXX"], v["XY"], v["XZ"]], [v["XY"], yy, v["YZ"]], [v["XZ"], v["YZ"], zz]])
    return covariance_row(m) if m.any() else {}


def _quality_row(line: str) -> dict[str, Any]:
    v = _numbers(line)
    names = {"rms_s": "stdErr", "gap_deg": "azGap", "secondary_gap_deg": "secAzGap", "nearest_km": "minDist"}
    return {ours: _or_nan(v[theirs]) for ours, theirs in names.items()} | {"n_used": int(v["usedPhCt"])}


def _ellipsoid(line: str) -> dict[str, Any]:
    v = _numbers(line)
    axes = {
        f"ellipsoid_{axis.lower()}_km": _or_nan(v[f"semi{axis}AxisLength"])
        for axis in ("Major", "Intermediate", "Minor")
    }
    return axes | {"ellipsoid_azimuth_deg": v["majorAxisAzimuth"], "ellipsoid_plunge_deg": v["majorAxisPlunge"]}


def _kind(comment: str) -> str:
    """The comment, if it is a kind of event, as ours are."""
    return comment if comment in event_types() else ""


LINES: dict[str, Callable[[str], dict[str, Any]]] = {
    "PUBLIC_ID": lambda line: {} if line.split()[1:] in ([], ["None"]) else {"id": name_of(line.split()[1])},
    "COMMENT": lambda line: {"kind": _kind(_quoted(line)[0])},
    "GEOGRAPHIC": _geographic,
    "QUALITY": _magnitude,
    "STATISTICS": _covariance,
    "QML_OriginQuality": _quality_row,
    "QML_OriginUncertainty": lambda line: {"erh_km": _or_nan(_numbers(line)["horUnc"])},
    "QML_ConfidenceEllipsoid": _ellipsoid,
}
