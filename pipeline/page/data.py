"""What the script of the page draws, as one JSON text: columns of numbers, names once each, records in base64.

Times are whole milliseconds from the start of the run; null is what is not known.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.maths.account import keys
from pipeline.maths.names import site
from pipeline.maths.overview import positions, times
from pipeline.page import words
from pipeline.page.inputs import Inputs, of_ours
from pipeline.page.picks import PickLists, PickRow, urgent
from pipeline.records import NS, Float, Int, Text

MOST_EVENTS = 11_000  # in the page; the files hold all
MS = 1_000_000  # nanoseconds
FATES = ("", "same", "other", "noise", "missed", "elsewhere")
Column = list[Any]


def text(inputs: Inputs) -> str:
    """The JSON, harmless inside of a script element: it holds no <, > or &."""
    plain = json.dumps(_data(inputs), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(inputs: Inputs) -> dict[str, Any]:
    rows = np.sort(np.array(urgent(inputs.events)[:MOST_EVENTS], np.int64))
    start_ns, stop_ns = inputs.config.run.span_ns
    places = _Names()
    number = {int(row): k for k, row in enumerate(rows)}
    floor = inputs.config.compare.floor
    events, picks = _events(inputs, rows), _picks(inputs, number, places)
    return {
        "run": {"t0": start_ns // MS, "ms": (stop_ns - start_ns) // MS, "n": len(inputs.events)},
        "floor": None if floor is None else {"name": floor.name, "km": floor.epicentre_km},
        "sites": _sites(inputs),
        "events": events,
        "picks": picks,
        "sections": {str(number[row]): _section(inputs, row, places) for row in inputs.sections if row in number},
        "predicted": _predicted(inputs, number, places),
        "others": _others(inputs, number, places),
        "because": _because(inputs, number),
        "channels": places.names,
    }


class _Names:
    """A number for each name, in the order of their first use."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._of: dict[str, int] = {}

    def of(self, name: str) -> int:
        if name not in self._of:
            self._of[name] = len(self.names)
            self.names.append(name)
        return self._of[name]


def _numbers(values: Float | NDArray[np.float32], digits: int) -> Column:
    """Rounded; whole numbers without a point."""
    return [
        None if value != value else int(value) if value == int(value) else value
        for value in np.round(values.astype(np.float64), digits).tolist()
    ]


def _codes(values: Text) -> dict[str, Any]:
    """Each text once, and which one it is of each row."""
    names, index = np.unique(values, return_inverse=True)
    return {"names": names.tolist(), "at": index.tolist()}


def _since(times_ns: Int, start_ns: int) -> Column:
    return [None if not t else round((t - start_ns) / MS) for t in times_ns.tolist()]


def _sites(inputs: Inputs) -> dict[str, Column]:
    """One a site, at its first epoch."""
    _, first = np.unique(inputs.stations.id, return_index=True)
    sites = inputs.stations.take(first)
    return {
        "id": sites.id.tolist(),
        "lat": _numbers(sites.latitude_deg, 5),
        "lon": _numbers(sites.longitude_deg, 5),
        "m": _numbers(sites.elevation_m, 0),
    }


def _events(inputs: Inputs, rows: Int) -> dict[str, Any]:
    e, start_ns = inputs.events.take(rows), inputs.config.run.span_ns[0]
    lat, lon, depth_km = positions(e)
    both = e.status == "matched"
    columns: dict[str, Any] = {
        "ours": e.ours.tolist(),
        "theirs": e.theirs.tolist(),
        "t": _since(times(e), start_ns),
        "lat": _numbers(lat, 4),
        "lon": _numbers(lon, 4),
        "z": _numbers(depth_km, 2),
        "m": _numbers(e.magnitude, 2),
        "status": _codes(e.status),
        "kind": _codes(e.kind),
        "np": e.n_p.tolist(),
        "ns": e.n_s.tolist(),
        "gap": _numbers(e.our_gap_deg, 0),
        "near": _numbers(e.our_nearest_km, 1),
        "rms": _numbers(e.our_sigma_time_s, 3),
        "dt": _numbers(e.dt_s, 3),
        "dx": _numbers(e.distance_km, 2),
        "dz": _numbers(e.depth_difference_km, 2),
        "tlat": _numbers(np.where(both, e.their_latitude_deg, np.nan), 4),
        "tlon": _numbers(np.where(both, e.their_longitude_deg, np.nan), 4),
        "tz": _numbers(np.where(both, e.their_depth_km, np.nan), 2),
        "why": _codes(_text(inputs.reasons[id_][0] if id_ in inputs.reasons else "" for id_ in e.theirs.tolist())),
        "said": _codes(_text(inputs.decisions.get(id_, "") for id_ in e.ours.tolist())),
    }
    repeats = dict(zip(inputs.origins.id.tolist(), inputs.origins.is_duplicate_of.tolist(), strict=True))
    columns["dup"] = _codes(_text(repeats.get(id_, "") for id_ in e.ours.tolist()))
    flags = words.flags(inputs.origins)
    columns["flag"] = _codes(_text(flags.get(id_, "") for id_ in e.ours.tolist()))
    depths = dict(zip(inputs.origins.id.tolist(), inputs.origins.depth_kind.tolist(), strict=True))
    fixed = {id_: kind for id_, kind in depths.items() if kind.startswith("fixed")}
    columns["fixed"] = _codes(_text(fixed.get(id_, "") for id_ in e.ours.tolist()))
    known = {"erh": "erh_km", "erz": "erz_km", "p": "probability", "msig": "magnitude_sigma", "blast": "blast_score"}
    known |= {f"c{k}": f"cov_{k}_km2" for k in ("xx", "xy", "yy")}
    columns |= {short: _numbers(of_ours(inputs.origins, name, e), 3) for short, name in known.items()}
    return {name: c for name, c in columns.items() if not _says_nothing(c)}


def _says_nothing(column: Column | dict[str, Any]) -> bool:
    return column["names"] == [""] if isinstance(column, dict) else bool(column) and column == [None] * len(column)


def _text(values: Any) -> Text:
    found = list(values)
    return np.array(found, np.str_) if found else np.empty(0, "U1")


def _picks(inputs: Inputs, number: dict[int, int], places: _Names) -> dict[str, list[Column]]:
    """Of each event a row a pick: channel, phase (0 P, 1 S), ours, theirs, predicted (ms after the origin time), fate,
    their phase, probability (%), residual (ms)."""
    lists, time_ns = PickLists(inputs), times(inputs.events)
    return {
        str(number[row]): [_pick(pick, int(time_ns[row]), places) for pick in lists.of(row)]
        for row in sorted(inputs.with_picks)
        if row in number
    }


def _pick(pick: PickRow, origin_ns: int, places: _Names) -> Column:
    after = [None if not t else round((t - origin_ns) / MS) for t in (pick.ours_ns, pick.theirs_ns, pick.predicted_ns)]
    share = None if pick.probability != pick.probability else round(100 * pick.probability)
    residual = None if pick.residual_s != pick.residual_s else round(1000 * pick.residual_s)
    phases = (int(pick.phase == "S"), int(pick.their_phase == "S"))
    return [places.of(pick.station), phases[0], *after, FATES.index(pick.fate), phases[1], share, residual]


def _others(inputs: Inputs, number: dict[int, int], places: _Names) -> dict[str, list[Column]]:
    """Our picks near an event that are not in it: channel, phase, time (ms after the origin time), whether they are in
    another event, probability (%)."""
    assigned = dict(zip(keys(inputs.assignments), inputs.assignments.event.tolist(), strict=True))
    time_ns, spans = times(inputs.events), _spans(inputs)
    found: dict[str, list[Column]] = {}
    for row in (row for row in inputs.chosen if row in number):
        origin_ns, ours = int(time_ns[row]), str(inputs.events.ours[row])
        first, stop = np.searchsorted(inputs.around.time_ns, origin_ns + np.array([-10, 120]) * NS).tolist()
        near = inputs.around.take(slice(first, stop))
        for key, probability in zip(keys(near), near.probability.tolist(), strict=True):
            event, span = assigned.get(key, ""), spans.get((row, site(key[0])))
            if span and span[0] <= key[2] <= span[1] and (event != ours or not event):
                what = [
                    int(key[1] == "S"),
                    round((key[2] - origin_ns) / MS),
                    int(event != ""),
                    round(100 * probability),
                ]
                found.setdefault(str(number[row]), []).append([places.of(key[0]), *what])
    return found


def _spans(inputs: Inputs) -> dict[tuple[int, str], tuple[int, int]]:
    """From some seconds before the predicted P to some after the predicted S, of each event row and site."""
    found = {}
    for (row, name, phase), p_ns in inputs.predicted.items():
        s_ns = inputs.predicted.get((row, name, "S"))
        if phase == "P" and s_ns is not None:
            found[row, name] = (p_ns - 5 * NS, s_ns + 10 * NS)
    return found


def _because(inputs: Inputs, number: dict[int, int]) -> dict[str, str]:
    """Why an event was missed, in a sentence."""
    theirs = inputs.events.theirs.tolist()
    return {str(k): inputs.reasons[theirs[row]][1] for row, k in number.items() if theirs[row] in inputs.reasons}


def _section(inputs: Inputs, row: int, places: _Names) -> list[Column]:
    """A row a record: channel, first sample (ms after the origin time), rate (Hz), peaks, bytes of both components."""
    origin_ns = int(times(inputs.events)[row])
    return [
        [
            places.of(one.station),
            round((one.start_ns - origin_ns) / MS),
            one.rate_hz,
            *(float(f"{peak:.3g}") for peak in one.peak),
            *(base64.b64encode(samples.tobytes()).decode() if samples.any() else "" for samples in one.samples),
        ]
        for one in inputs.sections[row]
    ]


def _predicted(inputs: Inputs, number: dict[int, int], places: _Names) -> dict[str, list[Column]]:
    """Of each event with records: channel, and P and S in ms after the origin time."""
    time_ns = times(inputs.events)
    found = {}
    for row, traces in inputs.sections.items():
        if row in number:
            both = [(one.station, [inputs.predicted[row, site(one.station), p] for p in "PS"]) for one in traces]
            found[str(number[row])] = [
                [places.of(name), *(round((t - int(time_ns[row])) / MS) for t in arrivals)] for name, arrivals in both
            ]
    return found
