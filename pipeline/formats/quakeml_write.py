"""QuakeML 1.2 of located events, one event at a time, so that a year needs no more memory than a day.

Lengths are metres and distances degrees there, times have microseconds. What QuakeML has no element for (probability,
score of a blast, why there is no magnitude, why the depth is fixed, which event this one repeats) is a comment of the
event, "name: value".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from math import cos, isfinite, radians, sqrt
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from obspy.core.event.header import EventType

from pipeline.formats.bulletin_rows import KM_PER_DEGREE
from pipeline.formats.located import Catalogue, covariance, iso, split
from pipeline.maths import ellipsoids
from pipeline.records import NAN, Int, Origins

ROOT = "smi:orcolat"
HEAD = """<?xml version="1.0" encoding="utf-8"?>
<q:quakeml xmlns:q="http://quakeml.org/xmlns/quakeml/1.2" xmlns="http://quakeml.org/xmlns/bed/1.2">
<eventParameters publicID="smi:orcolat/catalogue">
"""
TAIL = "</eventParameters>\n</q:quakeml>\n"
REMARKS = ("probability", "blast_score", "is_duplicate_of", "magnitude_reason", "depth_kind", "kind")
AMPLITUDE = "AML", f"{ROOT}/amplitude/wood-anderson-2080-zero-to-peak"  # type and method
NOT_IN_ID = re.compile(r"[^A-Za-z0-9_.*()-]")
NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_quakeml(path: Path, catalogue: Catalogue) -> None:
    """All events with their picks, arrivals, origin, uncertainties, amplitudes and magnitudes."""
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        file.write(HEAD)
        for row, picks in catalogue.events():
            file.write(event(catalogue, row, picks))
        file.write(TAIL)


def resource(kind: str, name: str) -> str:
    """The identifier of an event, ...; a letter that QuakeML does not allow is ~ and its number, ~25.."""
    return f"{ROOT}/{kind}/{NOT_IN_ID.sub(lambda m: f'~{ord(m[0]):x}.', name)}"


def name_of(identifier: str) -> str:
    """The name in an identifier that `resource` made, else the identifier as it is."""
    found = re.fullmatch(rf".*{ROOT.partition(':')[2]}/event/(.+)", identifier)
    return re.sub(r"~([0-9a-f]+)\.", lambda m: chr(int(m[1], 16)), found[1]) if found else identifier


def event(catalogue: Catalogue, row: int, picks: Int) -> str:
    """One <event>."""
    o = catalogue.origins
    name = str(o.id[row])
    parts = [f"<event publicID={quoteattr(resource('event', name))}>"]
    parts.append(_tag("preferredOriginID", resource("origin", name)))
    if isfinite(o.magnitude[row]):
        parts.append(_tag("preferredMagnitudeID", resource("magnitude", name)))
    if str(o.kind[row]):
        parts.append(_tag("type", o.kind[row] if str(o.kind[row]) in event_types() else "other event"))
    if str(o.kind[row]) == "quarry blast" and isfinite(o.blast_score[row]):
        parts.append(_tag("typeCertainty", "suspected"))  # a score has called it so, no analyst
    parts += _remarks(o, row)
    parts += [_pick(catalogue, pick, f"{name}/{k}") for k, pick in enumerate(picks.tolist(), 1)]
    parts += [_amplitude(catalogue, pick, f"{name}/{k}") for k, pick in enumerate(picks.tolist(), 1)]
    parts.append(_origin(catalogue, row, picks, name))
    parts += [_station_magnitude(catalogue, row, pick, f"{name}/{k}") for k, pick in enumerate(picks.tolist(), 1)]
    if isfinite(o.magnitude[row]):
        parts.append(_magnitude(catalogue, row, picks, name))
    return "".join([*parts, "</event>\n"])


@cache
def event_types() -> frozenset[str]:
    """What QuakeML calls events."""
    return frozenset(EventType.keys())


def _remarks(o: Origins, row: int) -> Iterator[str]:
    for name in REMARKS:
        value = getattr(o, name)[row]
        unsaid = str(value) in ("", "nan") or (name == "kind" and str(value) in event_types())
        if not unsaid:
            said = str(value) if isinstance(value, str) else repr(float(value))
            yield f"<comment>{_tag('text', f'{name}: {said}')}</comment>"


def _pick(catalogue: Catalogue, row: int, name: str) -> str:
    a = catalogue.arrivals
    time = _quantity("time", iso(int(a.time_ns[row])), a.sigma_s[row])
    phase, mode = _tag("phaseHint", a.phase[row]), _tag("evaluationMode", "automatic")
    where = _waveform(str(a.station[row]))
    return f"<pick publicID={quoteattr(_part('pick', name))}>{time}{where}{phase}{mode}</pick>"


def _waveform(station: str) -> str:
    net, sta, _, _ = split(station)
    codes = {"networkCode": net, "stationCode": sta}
    codes |= dict(zip(("locationCode", "channelCode"), station.split(".")[2:], strict=False))
    return f"<waveformID {' '.join(f'{key}={quoteattr(_clean(value))}' for key, value in codes.items())}/>"


def _amplitude(catalogue: Catalogue, row: int, name: str) -> str:
    """What a Wood-Anderson seismometer would have drawn, in metres; nothing where that is not known."""
    a = catalogue.arrivals
    if not isfinite(a.wood_anderson_mm[row]):
        return ""
    kind, method = AMPLITUDE
    parts = [
        f"<amplitude publicID={quoteattr(_part('amplitude', name))}>",
        _quantity("genericAmplitude", _number(a.wood_anderson_mm[row] / 1000.0), NAN),
        f"{_tag('type', kind)}{_tag('category', 'point')}{_tag('unit', 'm')}{_tag('methodID', method)}",
        f"{_tag('pickID', _part('pick', name))}{_waveform(str(a.station[row]))}{_tag('evaluationMode', 'automatic')}",
    ]
    return "".join([*parts, "</amplitude>"])


def _station_magnitude(catalogue: Catalogue, row: int, pick: int, name: str) -> str:
    """The magnitude of one amplitude; nothing where it has none."""
    a = catalogue.arrivals
    if not isfinite(a.magnitude[pick]):
        return ""
    origin = _tag("originID", resource("origin", str(catalogue.origins.id[row])))
    parts = [
        f"<stationMagnitude publicID={quoteattr(_part('stationMagnitude', name))}>{origin}",
        _quantity("mag", _number(a.magnitude[pick]), NAN),
        f"{_tag('type', 'ML')}{_tag('amplitudeID', _part('amplitude', name))}{_waveform(str(a.station[pick]))}",
    ]
    return "".join([*parts, "</stationMagnitude>"])


def _part(kind: str, name: str) -> str:
    event, _, number = name.rpartition("/")
    return f"{resource(kind, event)}/{number}"


def _origin(catalogue: Catalogue, row: int, picks: Int, name: str) -> str:
    o = catalogue.origins
    matrix = covariance(o, row)
    north, east, down = (NAN, NAN, NAN) if matrix is None else (sqrt(max(matrix[k, k], 0.0)) for k in (1, 0, 2))
    latitude = float(o.latitude_deg[row])
    per_degree = KM_PER_DEGREE * max(cos(radians(latitude)), 1e-6)
    parts = [
        f"<origin publicID={quoteattr(resource('origin', name))}>",
        _quantity("time", iso(int(o.time_ns[row])), o.sigma_time_s[row]),
        _quantity("longitude", _number(o.longitude_deg[row]), east / per_degree),
        _quantity("latitude", _number(latitude), north / KM_PER_DEGREE),
    ]
    if isfinite(o.depth_km[row]):
        error = down if isfinite(down) else float(o.erz_km[row])
        parts.append(_quantity("depth", _number(o.depth_km[row] * 1000.0), error * 1000.0))
        parts.append(_tag("depthType", "operator assigned" if _fixed(o, row) else "from location"))
    parts += [_quality(o, row, len(picks)), _uncertainty(o, row), _tag("evaluationMode", "automatic")]
    parts += [_arrival(catalogue, pick, f"{name}/{k}") for k, pick in enumerate(picks.tolist(), 1)]
    return "".join([*parts, "</origin>"])


def _fixed(o: Origins, row: int) -> bool:
    return str(o.depth_kind[row]).startswith("fixed")


def _quality(o: Origins, row: int, n_picks: int) -> str:
    values = {
        "associatedPhaseCount": n_picks,
        "usedPhaseCount": _count(o.n_used[row]),
        "associatedStationCount": _count(o.n_stations[row]),
        "standardError": o.rms_s[row],
        "azimuthalGap": o.gap_deg[row],
        "secondaryAzimuthalGap": o.secondary_gap_deg[row],
        "minimumDistance": o.nearest_km[row] / KM_PER_DEGREE,
    }
    return f"<quality>{''.join(_optional(name, value) for name, value in values.items())}</quality>"


def _count(value: Any) -> float:
    return NAN if value < 0 else int(value)


def _uncertainty(o: Origins, row: int) -> str:
    """The ellipse and the ellipsoid of 68 %, in metres; nothing where neither is known."""
    parts = [_optional("horizontalUncertainty", o.erh_km[row] * 1000.0)]
    matrix = covariance(o, row)
    if matrix is not None:
        flat, solid = ellipsoids.ellipse(matrix), ellipsoids.ellipsoid(matrix)
        lengths = {"Major": solid.major_km, "Minor": solid.minor_km, "Intermediate": solid.intermediate_km}
        angles = {"Plunge": solid.plunge_deg, "Azimuth": solid.azimuth_deg, "Rotation": solid.rotation_deg}
        parts += [
            _tag("minHorizontalUncertainty", _number(flat.minor_km * 1000.0)),
            _tag("maxHorizontalUncertainty", _number(flat.major_km * 1000.0)),
            _tag("azimuthMaxHorizontalUncertainty", _number(flat.azimuth_deg)),
            "<confidenceEllipsoid>",
            *(_tag(f"semi{axis}AxisLength", _number(km * 1000.0)) for axis, km in lengths.items()),
            *(_tag(f"majorAxis{angle}", _number(degrees)) for angle, degrees in angles.items()),
            "</confidenceEllipsoid>",
            _tag("preferredDescription", "confidence ellipsoid"),
            _tag("confidenceLevel", "68.27"),
        ]
    inside = "".join(parts)
    return f"<originUncertainty>{inside}</originUncertainty>" if inside else ""


def _arrival(catalogue: Catalogue, row: int, name: str) -> str:
    a = catalogue.arrivals
    values = {
        "azimuth": a.azimuth_deg[row],
        "distance": a.distance_km[row] / KM_PER_DEGREE,
        "takeoffAngle": a.takeoff_deg[row],
        "timeResidual": a.residual_s[row],
        "timeWeight": a.weight[row],
    }
    takeoff = values.pop("takeoffAngle")
    angle = f"<takeoffAngle>{_tag('value', _number(takeoff))}</takeoffAngle>" if isfinite(takeoff) else ""
    inside = "".join(_optional(key, value) for key, value in values.items())
    head = f"<arrival publicID={quoteattr(_part('arrival', name))}>{_tag('pickID', _part('pick', name))}"
    return f"{head}{_tag('phase', a.phase[row])}{inside}{angle}</arrival>"


def _magnitude(catalogue: Catalogue, row: int, picks: Int, name: str) -> str:
    """The magnitude of the event, and of which readings it is."""
    o, each = catalogue.origins, catalogue.arrivals.magnitude
    kind = str(o.magnitude_kind[row])
    made_of = [
        f"<stationMagnitudeContribution>{_tag('stationMagnitudeID', _part('stationMagnitude', f'{name}/{k}'))}"
        f"{_tag('residual', _number(each[pick] - o.magnitude[row]))}</stationMagnitudeContribution>"
        for k, pick in enumerate(picks.tolist(), 1)
        if kind == "ML" and isfinite(each[pick])
    ]
    return "".join(
        [
            f"<magnitude publicID={quoteattr(resource('magnitude', name))}>",
            *made_of,
            _quantity("mag", _number(o.magnitude[row]), o.magnitude_sigma[row]),
            _tag("type", kind) if kind else "",
            _optional("stationCount", _count(o.magnitude_n[row])),
            _tag("originID", resource("origin", name)),
            "</magnitude>",
        ]
    )


def _quantity(name: str, value: str, uncertainty: float) -> str:
    return f"<{name}>{_tag('value', value)}{_optional('uncertainty', uncertainty)}</{name}>"


def _optional(name: str, value: float) -> str:
    return _tag(name, str(value) if isinstance(value, int) else _number(value)) if isfinite(value) else ""


def _number(value: float) -> str:
    """To twelve digits: a longitude to 0.1 mm."""
    return f"{float(value):.12g}"


def _tag(name: str, value: object) -> str:
    return f"<{name}>{escape(_clean(str(value)))}</{name}>"


def _clean(value: str) -> str:
    """Without characters that XML cannot hold."""
    return NOT_IN_XML.sub("?", value)
