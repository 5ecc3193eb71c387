"""The events of a run as they are located, for whoever wants its catalogue."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from pipeline.formats import tables
from pipeline.records import Events, Float, Origins
from pipeline.rundir import RunDir, require

log = logging.getLogger(__name__)


def events(run_dir: RunDir) -> Events:
    """The catalogue, each event where `locate` has it; where `associate` has it if the locations are of other events.

    Raises Incomplete if there is no catalogue yet.
    """
    found = tables.read(require(run_dir.events, "associate"), Events)
    if not run_dir.origins.exists():
        return found
    origins = tables.read(run_dir.origins, Origins)
    if sorted(origins.id.tolist()) != sorted(found.id.tolist()):
        log.warning("%s: the locations are of other events: run `orcolat locate %s`", run_dir.origins, run_dir.root)
        return found
    return located(found, origins)


def located(events: Events, origins: Origins) -> Events:
    """``events`` at their ``origins`` (the same ids, in any order), sorted by time and id."""
    events = events.take(np.argsort(events.id, kind="stable"))
    origins = origins.take(np.argsort(origins.id, kind="stable"))
    known = np.isfinite(origins.rms_s)
    moved = replace(
        events,
        time_ns=origins.time_ns,
        latitude_deg=origins.latitude_deg,
        longitude_deg=origins.longitude_deg,
        depth_km=origins.depth_km,
        magnitude=_magnitudes(events, origins),
        sigma_time_s=np.where(known, origins.rms_s, events.sigma_time_s),
        gap_deg=np.where(known, origins.gap_deg, events.gap_deg),
        nearest_km=np.where(known, origins.nearest_km, events.nearest_km),
    )
    return moved.take(np.lexsort((moved.id, moved.time_ns)))


def _magnitudes(events: Events, origins: Origins) -> Float:
    """All of one kind, for they are not to be compared: ML if any event has one, else those of the association."""
    return origins.magnitude if np.isfinite(origins.magnitude).any() else events.magnitude
