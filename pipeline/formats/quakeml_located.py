"""Located events from QuakeML 1.2, of ours with all that `quakeml_write` put there, of others what they have."""

from __future__ import annotations

import warnings
from math import isfinite
from pathlib import Path
from typing import Any

from obspy import Catalog, read_events
from obspy.core.event import Event

from pipeline.errors import BadData
from pipeline.formats.bulletin_rows import KM_PER_DEGREE, NAN
from pipeline.formats.located import Catalogue, catalogue, covariance_row
from pipeline.formats.quakeml_write import AMPLITUDE, REMARKS, name_of
from pipeline.maths import ellipsoids
from pipeline.records import NS

Row = dict[str, Any]
NUMBERS = ("probability", "blast_score")
OURS = "orcolat "


def read_quakeml_located(path: Path, format_: str = "QUAKEML") -> Catalogue:
    """Each event with its preferred origin and magnitude (else the first), and its picks.

    ``format_`` is one that ObsPy reads into events. Raises BadData if it cannot, or an event has no origin.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read_events(str(path), format=format_)
    except MemoryError:
        raise
    except Exception as e:  # ObsPy and lxml raise whatever they like
        raise BadData(f"{path}: cannot be read as {format_}: {type(e).__name__}: {e}") from e
    return located(found, Path(path))


def located(found: Catalog, path: Path) -> Catalogue:
    """The events of ObsPy as tables. Raises BadData for an event without an origin."""
    origins: list[Row] = []
    arrivals: list[Row] = []
    for number, event in enumerate(found, start=1):
        remarks = _remarks(event)
        name = str(remarks.pop("id", name_of(str(event.resource_id.id))))
        origin = event.preferred_origin() or (event.origins or [None])[0]
        if origin is None or origin.time is None:
            raise BadData(f"{path}, event {number} ({name}): no origin, or one without a time")
        origins.append({"id": name} | _origin(origin) | _magnitude(event) | remarks)
        made, read = {str(a.pick_id.id): a for a in origin.arrivals if a.pick_id}, _amplitudes(event)
        arrivals += [
            _pick(pick, made.get(str(pick.resource_id.id)), name) | read.get(str(pick.resource_id.id), {})
            for pick in event.picks
            if pick.waveform_id
        ]
    return catalogue(origins, arrivals)


def _origin(origin: Any) -> Row:
    row = {
        "time_ns": int(origin.time.ns),
        "latitude_deg": _number(origin.latitude),
        "longitude_deg": _number(origin.longitude),
        "depth_km": _number(origin.depth) / 1000,
        "sigma_time_s": _number(origin.time_errors.uncertainty),
        "erz_km": _number(origin.depth_errors.uncertainty) / 1000,
        "depth_kind": "fixed" if origin.depth_type == "operator assigned" else "",
    }
    return row | _quality(origin.quality) | _uncertainty(origin.origin_uncertainty)


def _quality(quality: Any) -> Row:
    if quality is None:
        return {}
    numbers = {
        "rms_s": quality.standard_error,
        "gap_deg": quality.azimuthal_gap,
        "secondary_gap_deg": quality.secondary_azimuthal_gap,
    }
    return {
        **{name: _number(value) for name, value in numbers.items()},
        "nearest_km": _number(quality.minimum_distance) * KM_PER_DEGREE,
        "n_used": -1 if quality.used_phase_count is None else int(quality.used_phase_count),
    }


def _uncertainty(found: Any) -> Row:
    if found is None:
        return {}
    row = {"erh_km": _number(found.horizontal_uncertainty) / 1000}
    solid = found.confidence_ellipsoid
    if solid is None:
        return row
    axes = (solid.semi_major_axis_length, solid.semi_intermediate_axis_length, solid.semi_minor_axis_length)
    angles = (solid.major_axis_azimuth, solid.major_axis_plunge, solid.major_axis_rotation)
    values = [_number(v) / 1000 for v in axes] + [_number(v) for v in angles]
    if not all(isfinite(v) for v in values):
        return row
    names = ("major_km", "intermediate_km", "minor_km", "azimuth_deg", "plunge_deg")
    row |= {f"ellipsoid_{name}": value for name, value in zip(names, values, strict=False)}
    return row | covariance_row(ellipsoids.covariance(ellipsoids.Ellipsoid(*values)))


def _magnitude(event: Event) -> Row:
    found = event.preferred_magnitude() or (event.magnitudes or [None])[0]
    if found is None:
        return {}
    return {
        "magnitude": _number(found.mag),
        "magnitude_kind": str(found.magnitude_type or ""),
        "magnitude_sigma": _number(found.mag_errors.uncertainty),
        "magnitude_n": -1 if found.station_count is None else int(found.station_count),
    }


def _remarks(event: Event) -> Row:
    """The kind of the event, and what our comments say: "name: value", in files of text "orcolat name: value"."""
    row: Row = {"kind": str(event.event_type or "")}
    for comment in event.comments:
        name, _, value = str(comment.text or "").strip().removeprefix(OURS).partition(": ")
        ours = OURS in str(comment.text) and name in ("id", "magnitude_kind")
        if value and (ours or name in REMARKS):
            row[name] = float(value) if name in NUMBERS else value
    return row


def _amplitudes(event: Event) -> dict[str, Row]:
    """Our amplitudes and their magnitudes by the identifiers of their picks; others may mean others by "AML"."""
    of = {str(each.amplitude_id.id): _number(each.mag) for each in event.station_magnitudes if each.amplitude_id}
    return {
        str(each.pick_id.id): {
            "wood_anderson_mm": _number(each.generic_amplitude) * 1000,
            "magnitude": of.get(str(each.resource_id.id), NAN),
        }
        for each in event.amplitudes
        if each.pick_id and each.unit == "m" and (each.type, str(each.method_id and each.method_id.id)) == AMPLITUDE
    }


def _pick(pick: Any, made: Any, event: str) -> Row:
    codes = pick.waveform_id
    parts = [codes.network_code or "", codes.station_code or "", codes.location_code, codes.channel_code]
    while parts[-1] is None:
        parts.pop()
    row: Row = {
        "event": event,
        "station": ".".join(part or "" for part in parts),
        "phase": str((made.phase if made else None) or pick.phase_hint or ""),
        "time_ns": int(pick.time.ns),
        "sigma_s": _number(pick.time_errors.uncertainty),
    }
    if made is None:
        return row
    row["residual_s"] = _number(made.time_residual)
    if isfinite(row["residual_s"]):
        row["predicted_ns"] = row["time_ns"] - round(row["residual_s"] * NS)
    return row | {
        "weight": _number(made.time_weight),
        "distance_km": _number(made.distance) * KM_PER_DEGREE,
        "azimuth_deg": _number(made.azimuth),
        "takeoff_deg": _number(made.takeoff_angle),
    }


def _number(value: float | None) -> float:
    return NAN if value is None else float(value)
