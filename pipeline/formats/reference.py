"""The reference catalogue of a comparison, in whatever format it comes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.config import Reference
from pipeline.errors import BadData, ConfigError
from pipeline.formats import exports, tables
from pipeline.formats.bulletin_rows import NOT_KNOWN, Arrival, Bulletin, Origin, bulletin
from pipeline.formats.bulletins import read_dat, read_hpc, read_pun, read_txt
from pipeline.formats.comcat import read_comcat
from pipeline.formats.hypodd import read_phases
from pipeline.formats.located import Catalogue
from pipeline.formats.quakeml import DIRECT, read_quakeml
from pipeline.maths.names import sites
from pipeline.records import Arrivals, Assignments, Events, Picks, Text


def read_reference(reference: Reference) -> Bulletin:
    """Events, arrivals and the lines that were not understood. Raises ConfigError that names file and remedy."""
    try:
        return READERS[reference.format](reference.path)
    except BadData as e:
        raise ConfigError(f"reference of format {reference.format!r}: {e}") from e


def read_orcolat(path: Path) -> Bulletin:
    """A table of another run: its events, its assignments, or a file of its picks. Raises BadData."""
    reasons = []
    for read in (_events, _assignments, _picks):
        try:
            return read(path)
        except BadData as e:
            reasons.append(str(e).removeprefix(f"{path}: "))
    raise BadData(f"{path}: neither events, assignments nor picks of a run: {'; '.join(dict.fromkeys(reasons))}")


def _events(path: Path) -> Bulletin:
    return Bulletin(tables.read(path, Events), Arrivals.empty(), [])


def _assignments(path: Path) -> Bulletin:
    found = tables.read(path, Assignments)
    return _arrivals(found.event, found)


def _picks(path: Path) -> Bulletin:
    found = tables.read(path, Picks)
    return _arrivals(np.zeros(len(found), "U1"), found)


def _arrivals(event: Text, found: Assignments | Picks) -> Bulletin:
    stations = sites(found.station)
    weight = np.full(len(found), -1)
    arrivals = Arrivals(event, stations, found.phase, found.time_ns, weight)
    return Bulletin(Events.empty(), arrivals.take(np.lexsort((event, found.phase, stations, found.time_ns))), [])


def _located(read: Callable[[Path], Catalogue], path: Path) -> Bulletin:
    """Of a format of exports: an event without a kind is an earthquake, phases other than P and S are left out."""
    found = read(path)
    o, a = found.origins, found.arrivals
    places = zip(o.latitude_deg.tolist(), o.longitude_deg.tolist(), o.depth_km.tolist(), strict=True)
    values = zip(o.magnitude.tolist(), o.rms_s.tolist(), o.gap_deg.tolist(), o.nearest_km.tolist(), strict=True)
    kinds = [kind or "earthquake" for kind in o.kind.tolist()]
    rows = zip(o.id.tolist(), o.time_ns.tolist(), places, values, kinds, strict=True)
    origins = [Origin(id_, ns, *place, *value, kind) for id_, ns, place, value, kind in rows]
    seen = (a.event, sites(a.station), a.phase, a.time_ns, a.weight)
    picks = zip(*(column.tolist() for column in seen), strict=True)
    arrivals = [
        Arrival(event, station.lstrip("."), phase[0].upper(), ns, 4 if weight == 0 else NOT_KNOWN)
        for event, station, phase, ns, weight in picks
        if DIRECT.fullmatch(phase)
    ]
    return bulletin(path, origins, arrivals, [])


READERS: dict[str, Callable[[Path], Bulletin]] = {
    "ogs-dat": read_dat,
    "ogs-hpc": read_hpc,
    "ogs-pun": read_pun,
    "ogs-txt": read_txt,
    "quakeml": read_quakeml,
    "comcat": read_comcat,
    "orcolat": read_orcolat,
    "hypodd": partial(_located, read_phases),  # phase.dat
    **{
        name: partial(_located, partial(exports.read, name))
        for name in ("nonlinloc-hyp", "nonlinloc-obs", "hypoinverse", "nordic", "scml")
    },
}
