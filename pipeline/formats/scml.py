"""SeisComP's SCML, made of our QuakeML by ObsPy (schema 0.12, which SeisComP 5 and later read).

ObsPy holds all events in memory: a review queue is what this is for, not a catalogue of a million events.
"""

from __future__ import annotations

import io
from pathlib import Path

from obspy import read_events

from pipeline.formats.located import Catalogue
from pipeline.formats.quakeml_located import read_quakeml_located
from pipeline.formats.quakeml_write import HEAD, TAIL, event


def write_scml(path: Path, catalogue: Catalogue) -> None:
    """All events, with what `quakeml_write` says of them."""
    events = [event(catalogue, row, picks) for row, picks in catalogue.events()]
    found = read_events(io.BytesIO((HEAD + "".join(events) + TAIL).encode()), format="QUAKEML")
    found.write(str(path), format="SCML", version="0.12")


def read_scml(path: Path) -> Catalogue:
    """Raises BadData as `read_quakeml_located` does."""
    return read_quakeml_located(path, "SCML")
