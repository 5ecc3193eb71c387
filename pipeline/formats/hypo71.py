"""HYPO71 phase cards (Lee and Lahr 1975, USGS Open-File Report 75-311), as `bulletins_write.write_dat` punches them.

Picks only: there is no column for an origin. A station has four letters, a time 0.01 s, and the uncertainty of a pick
is a weight code (`located.CODES_S`). Events are numbered within the year of their first pick; one without picks is
left out.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from pipeline.errors import BadData, ConfigError
from pipeline.formats import export_names
from pipeline.formats.bulletins import event_id, read_dat
from pipeline.formats.bulletins_write import write_dat
from pipeline.formats.export_names import Names
from pipeline.formats.located import Catalogue, clock, table, weight_code
from pipeline.formats.located import catalogue as catalogue_of
from pipeline.maths.names import sites
from pipeline.records import NAN, NS, Arrivals, Events

WIDTH, MOST = 4, 9999
CENTISECOND_NS = NS // 100


def names(catalogue: Catalogue) -> Names:
    """How `write_hypo71` calls the events and the stations. Raises ConfigError where a year has too many events."""
    counts: Counter[int] = Counter()
    numbers = {}
    for first_ns, event in _first_picks(catalogue):
        year = clock(first_ns, CENTISECOND_NS).minute.year
        counts[year] += 1
        numbers[event] = event_id(year, counts[year])
    most = max(counts.values(), default=0)
    if most > MOST:
        raise ConfigError(f"hypo71: {most} events in a year, but its cards number {MOST} at most: take hypoinverse")
    return Names(numbers, export_names.of(catalogue, WIDTH).stations)


def _first_picks(catalogue: Catalogue) -> list[tuple[int, str]]:
    """Time of the first pick and id of each event that has one, in that order."""
    time_ns, ids = catalogue.arrivals.time_ns, catalogue.origins.id
    return sorted((int(time_ns[picks].min()), str(ids[row])) for row, picks in catalogue.events() if len(picks))


def write_hypo71(path: Path, catalogue: Catalogue) -> None:
    """A card a station, and a line that ends each event. Raises ConfigError as `names` does."""
    short = names(catalogue).stations
    a, kinds = (
        catalogue.arrivals,
        dict(zip(catalogue.origins.id.tolist(), catalogue.origins.kind.tolist(), strict=True)),
    )
    rows = [{"id": id_, "time_ns": ns, "kind": kinds[id_]} for ns, id_ in _first_picks(catalogue)]
    codes = [weight_code(s, w) for s, w in zip(a.sigma_s.tolist(), a.weight.tolist(), strict=True)]
    station = np.array([short[name] for name in sites(a.station).tolist()], np.str_)
    write_dat(path, table(Events, rows), Arrivals(a.event, station, a.phase, a.time_ns, np.array(codes, np.int64)))


def read_hypo71(path: Path) -> Catalogue:
    """Picks, and events at the time of their first pick, without a place. Raises BadData that names the line."""
    found = read_dat(path)
    if found.bad:
        bad = found.bad[0]
        raise BadData(f"{path}, line {bad.number}, {bad.text[:60]!r}: {bad.reason}")
    events, a = found.events, found.arrivals
    place = {"latitude_deg": NAN, "longitude_deg": NAN, "depth_km": NAN}
    pairs = zip(events.id.tolist(), events.time_ns.tolist(), events.kind.tolist(), strict=True)
    picks = zip(a.event.tolist(), a.station.tolist(), a.phase.tolist(), a.time_ns.tolist(), strict=True)
    return catalogue_of(
        [{"id": id_, "time_ns": ns, "kind": kind, **place} for id_, ns, kind in pairs],
        [dict(zip(("event", "station", "phase", "time_ns"), pick, strict=True)) for pick in picks],
    )
