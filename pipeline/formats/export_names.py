"""Names that do not fit into a format: what was written in their place, and a small table beside the file that says it.

The table is CSV with the columns what ("event" or "station"), written and name.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.errors import BadData
from pipeline.formats.cells import guarded, plain
from pipeline.formats.located import Catalogue, text
from pipeline.maths.names import sites
from pipeline.records import Text

HEADING = ["what", "written", "name"]
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Names(NamedTuple):
    """What is written for each event id and each station "NET.STA"."""

    events: dict[str, str]
    stations: dict[str, str]


def codes(stations: Iterable[str], width: int, networks: bool = False) -> dict[str, str]:
    """A code of at most ``width`` letters for each "NET.STA", no two the same (``networks``: in one network).

    It is the station's own code where that fits, is of letters and digits, and no other one has it; else its beginning
    and a number.
    """
    all_ = sorted(set(stations))
    own = {name: name.split(".")[-1] for name in all_}
    letters = {name: re.sub(r"[^A-Za-z0-9]", "", code) for name, code in own.items()}
    where = {name: name.split(".")[0] if networks and "." in name else "" for name in all_}
    counts = Counter((where[name], code) for name, code in own.items())
    kept = {
        name: c for name, c in own.items() if 0 < len(c) <= width and c == letters[name] and counts[where[name], c] == 1
    }
    taken = {(where[name], code) for name, code in kept.items()}
    for name in all_:
        if name not in kept:
            kept[name] = next(code for code in _made(letters[name], width) if (where[name], code) not in taken)
            taken.add((where[name], kept[name]))
    return kept


def _made(code: str, width: int) -> Iterable[str]:
    """The beginning of ``code`` and a number of base 36 that grows."""
    n = 0
    while True:
        number, tail = n, ""
        while number or not tail:
            number, digit = divmod(number, 36)
            tail = DIGITS[digit] + tail
        yield code[: width - len(tail)] + tail
        n += 1


def of(catalogue: Catalogue, width: int, networks: bool = False) -> Names:
    """Codes for the stations ("NET.CODE" where the format has ``networks``), and the events numbered from 1."""
    found = codes(sites(catalogue.arrivals.station).tolist(), width, networks)
    if networks:
        found = {name: f"{name.rpartition('.')[0]}.{code}" for name, code in found.items()}
    return Names({id_: str(row) for row, id_ in enumerate(catalogue.origins.id.tolist(), 1)}, found)


def dumps(names: Names) -> str:
    """As CSV."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(HEADING)
    for what, pairs in (("event", names.events), ("station", names.stations)):
        rows.writerows([what, written, guarded(name)] for name, written in pairs.items())
    return out.getvalue()


def read(path: Path) -> Names:
    """Raises BadData that names the line."""
    names = Names({}, {})
    for number, row in enumerate(csv.reader(io.StringIO(text(path), newline="")), start=1):
        if number == 1 and row == HEADING:
            continue
        if len(row) != 3 or row[0] not in ("event", "station"):
            raise BadData(f"{path}, line {number}: {','.join(row)!r} is not {','.join(HEADING)}")
        (names.events if row[0] == "event" else names.stations)[plain(row[2])] = row[1]
    return names


def restored(catalogue: Catalogue, names: Names) -> Catalogue:
    """The catalogue that a reader made, with the names that it had before; what is not in ``names`` stays."""
    events = {written: name for name, written in names.events.items()}
    stations = {written: name for name, written in names.stations.items()}
    origins, arrivals = catalogue.origins, catalogue.arrivals
    ids, event = _mapped(origins.id, events), _mapped(arrivals.event, events)
    station = np.array([_full(each, stations) for each in arrivals.station.tolist()], np.str_)
    arrivals = replace(arrivals, event=event, station=station)
    order = np.lexsort((arrivals.phase, arrivals.station, arrivals.time_ns, arrivals.event))
    origins = replace(origins, id=ids)
    return catalogue._replace(
        origins=origins.take(np.lexsort((origins.id, origins.time_ns))), arrivals=arrivals.take(order)
    )


def _mapped(values: Text, names: dict[str, str]) -> Text:
    return np.array([names.get(value, value) for value in values.tolist()], np.str_)


def _full(station: str, names: dict[str, str]) -> str:
    """The station that was written as "STA", ".STA.LOC.BAND" or "NET.STA.LOC.BAND", with what follows its code."""
    network, code, *rest = station.split(".") if "." in station else ("", station)
    found = names.get(f"{network}.{code}", names.get(code))
    return ".".join([found, *rest]) if found else station
