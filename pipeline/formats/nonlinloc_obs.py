"""NonLinLoc OBS (``LOCFILES ... NLLOC_OBS``): the picks of one event after the other, for a location by NonLinLoc.

A line "PUBLIC_ID ..." names the event, which version 7 passes on; a blank line ends it. There are no origins: on
reading, an event has the time of its first pick and no place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import BadData
from pipeline.formats import nonlinloc
from pipeline.formats.located import Catalogue, catalogue, text
from pipeline.formats.quakeml_write import name_of, resource


def write_nonlinloc_obs(path: Path, catalogue: Catalogue) -> None:
    """An event without picks is left out: NonLinLoc has no such thing."""
    names = nonlinloc.labels(catalogue.arrivals.station)
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        for row, picks in catalogue.events():
            if len(picks):
                lines = [nonlinloc.observed(catalogue.arrivals, pick, names) for pick in picks.tolist()]
                head = f"PUBLIC_ID {resource('event', str(catalogue.origins.id[row]))}"
                file.write("\n".join([head, *lines, "", ""]))


def read_nonlinloc_obs(path: Path) -> Catalogue:
    """Events without a name are numbered from 1. Raises BadData that names the line."""
    events: list[tuple[str, list[dict[str, Any]]]] = []
    open_ = False
    for number, line in enumerate(text(path).splitlines(), start=1):
        fields = line.split()
        if not fields:
            open_ = False
        elif fields[0] == "PUBLIC_ID":
            events.append((name_of(line.partition(" ")[2].strip()), []))
            open_ = True
        elif not fields[0].startswith("#"):
            if not open_:
                events.append((f"{len(events) + 1:06d}", []))
                open_ = True
            try:
                events[-1][1].append({"event": events[-1][0], **nonlinloc.pick(fields)})
            except ValueError as e:
                raise BadData(f"{path}, line {number}, {line[:60]!r}: not a phase of NLLOC_OBS: {e}") from e
    events = [(name, picks) for name, picks in events if picks]
    origins = [{"id": name, "time_ns": min(p["time_ns"] for p in picks)} for name, picks in events]
    nowhere = {"latitude_deg": float("nan"), "longitude_deg": float("nan"), "depth_km": float("nan"), "kind": ""}
    return catalogue([row | nowhere for row in origins], [p for _, picks in events for p in picks])
