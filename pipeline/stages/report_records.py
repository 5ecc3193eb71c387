"""What the report shows of single events: predicted arrivals, and short records of the most interesting ones."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from pipeline.config import Archive, Config
from pipeline.errors import BadData, ConfigError, NoData
from pipeline.formats import stations, tables, traveltimes
from pipeline.formats.waveforms import read_shard
from pipeline.maths import geo, snippets
from pipeline.maths.names import site
from pipeline.maths.overview import positions, times
from pipeline.maths.snippets import Snippet
from pipeline.maths.traveltime import travel_time
from pipeline.models import eikonal
from pipeline.models.associators.observed import place
from pipeline.page.inputs import Inputs, Predicted
from pipeline.page.picks import sites_shown
from pipeline.records import DAY_NS, NS, Float, Int, Shard, StationTerms
from pipeline.rundir import RunDir

log = logging.getLogger(__name__)
CONTEXT_S = 15.0  # read on both sides, for the filter
BEFORE_S = 4.0  # of a record before the P wave
MARGIN_S = 8.0  # of a record after the S wave
CODA = 0.8  # and this share of the time between the two
MOST_SILENT = 20  # station-days that cannot be read; then no more is tried
MOST_PICKS = 24_000  # of all events together in the page
ROOM_BYTES = 800_000  # of all records together; a third more in the page


def add(run_dir: RunDir, config: Config, inputs: Inputs) -> Inputs:
    """``inputs`` with predicted arrivals of the events whose picks are shown, and with records.

    What cannot be read is left out and said in the log: the report does not fail on it.
    """
    sites = sites_shown(inputs, inputs.chosen, MOST_PICKS)
    inputs = replace(inputs, with_picks=tuple(sites))
    near = {
        row: _nearest(inputs, row, set(sites[row]), config.report.record_stations)
        for row in inputs.chosen
        if row in sites
    }
    for row, channels in near.items():
        sites[row] = sorted({*sites[row], *(site(channel) for channel, _ in channels)})
    try:
        predicted = predict(run_dir, config, inputs, sites)
    except ConfigError as e:
        log.warning("no predicted arrivals in the report: %s", e)
        predicted = {}
    shown = replace(inputs, predicted=predicted)
    return replace(shown, sections=_sections(config, shown, near)) if config.archive.root else shown


def predict(run_dir: RunDir, config: Config, inputs: Inputs, sites: dict[int, list[str]]) -> Predicted:
    """Arrival (ns UTC) by event row, site ("NET.STA") and phase, of the model and the station terms of the run.

    Raises ConfigError if the velocity model cannot be read.
    """
    settings = config.locate.over(config.associate)
    if not len(inputs.stations) or not any(sites.values()):
        return {}
    network = place(inputs.stations, settings)
    table = traveltimes.of_run(run_dir, settings, network.at_km, eikonal.RECIPE, eikonal.travel_times)
    level = table.level(network.z_km)
    middle = settings.usual_depth_km
    lat, lon, depth_km = positions(inputs.events)
    x_km, y_km = geo.stereographic(lat, lon, settings.center_latitude_deg, settings.center_longitude_deg)
    depth_km, time_ns = np.where(np.isfinite(depth_km), depth_km, middle), times(inputs.events)
    terms, found = _terms(run_dir), Predicted()
    for row in sorted(row for row in sites if np.isfinite(x_km[row])):
        names = np.array(sites[row], np.str_)
        rows = stations.at(inputs.stations, names, np.full(len(names), time_ns[row]))
        for name, k in zip(sites[row], rows.tolist(), strict=True):
            if k < 0:
                continue
            far_km = float(np.hypot(network.x_km[k] - x_km[row], network.y_km[k] - y_km[row]))
            where = (*table.step_km, table.depth_km, far_km, float(depth_km[row]), float(network.z_km[k]))
            for phase, of_level in zip("PS", table.slowness_s_km[level[k]], strict=True):
                time_s = travel_time(of_level, *where)[0] + terms.get((name, phase), 0.0)
                found[row, name, phase] = int(time_ns[row]) + round(time_s * NS)
    return found


def _terms(run_dir: RunDir) -> dict[tuple[str, str], float]:
    """What the stations add, where events were located."""
    if not run_dir.station_terms.exists():
        return {}
    table = tables.read(run_dir.station_terms, StationTerms)
    return dict(zip(zip(table.station.tolist(), table.phase.tolist(), strict=True), table.term_s.tolist(), strict=True))


def _nearest(inputs: Inputs, row: int, picked: set[str], most: int) -> list[tuple[str, float]]:
    """Channels of the plan and their distances (km) from the event: those with picks first, then the nearest."""
    time_ns, (lat, lon, _) = int(times(inputs.events)[row]), positions(inputs.events)
    today = inputs.shards.take(inputs.shards.day == str(np.datetime64(time_ns // DAY_NS, "D")))
    channels = [shard.channel for shard in today.rows()]
    names = np.array([site(channel) for channel in channels], np.str_)
    rows = stations.at(inputs.stations, names, np.full(len(names), time_ns)) if channels else np.empty(0, np.int64)
    far_km = _distances(inputs, rows, float(lat[row]), float(lon[row]))
    ranked = sorted(
        (names[i] not in picked, far_km[i], channels[i]) for i in range(len(channels)) if np.isfinite(far_km[i])
    )
    return sorted(((channel, far) for _, far, channel in ranked[:most]), key=lambda one: (one[1], one[0]))


def _distances(inputs: Inputs, rows: Int, latitude_deg: float, longitude_deg: float) -> Float:
    """Of the stations ``rows``; NaN where a row is -1."""
    if not len(rows):
        return np.empty(0)
    at = np.maximum(rows, 0)
    sites = inputs.stations
    far_km = geo.distance_km(latitude_deg, longitude_deg, sites.latitude_deg[at], sites.longitude_deg[at])
    return np.where(rows >= 0, far_km, np.nan)


def _sections(config: Config, inputs: Inputs, near: dict[int, list[tuple[str, float]]]) -> dict[int, list[Snippet]]:
    """The records of the events, in their order, each from the nearest station on; as many as the page has room for."""
    shards = {(shard.day, shard.channel): shard for shard in inputs.shards.rows()}
    found: dict[int, list[Snippet]] = {}
    silent: dict[str, str] = {}
    room = ROOM_BYTES
    try:
        for row, channels in near.items():
            day = np.datetime64(int(times(inputs.events)[row]) // DAY_NS, "D").item()
            spans = [(shards[day, channel], _span_ns(inputs, row, site(channel))) for channel, _ in channels]
            traces = [
                one for shard, span_ns in spans if span_ns and (one := _read(config.archive, shard, span_ns, silent))
            ]
            room -= sum(one.samples.size for one in traces)
            if room < 0:
                break
            if traces:
                found[row] = traces
    except ConfigError as e:  # the archive as a whole
        log.warning("no records in the report: %s", e)
    if silent:
        first, reason = min(silent.items())
        log.info("no records of %d station-days in the report, first %s: %s", len(silent), first, reason)
    return found


def _span_ns(inputs: Inputs, row: int, name: str) -> tuple[int, int] | None:
    """From some seconds before the P wave to some after the S wave, half-open, ns UTC."""
    p, s = (inputs.predicted.get((row, name, phase)) for phase in "PS")
    if p is None or s is None:
        return None
    return p - round(BEFORE_S * NS), s + round(MARGIN_S * NS) + round(CODA * (s - p))


def _read(archive: Archive, shard: Shard, span_ns: tuple[int, int], silent: dict[str, str]) -> Snippet | None:
    """The record of ``shard`` within ``span_ns``; None, and why into ``silent``, where it cannot be read.

    Raises ConfigError if there is no archive, or so much of it cannot be read that it seems to be away.
    """
    if shard.id in silent:
        return None
    start, stop = shard.span_ns
    inside = max(start, min(span_ns[0], stop - NS)), min(stop, max(span_ns[1], start + NS))
    over_s = max(inside[0] - span_ns[0], span_ns[1] - inside[1], 0) / NS
    try:
        wave, _ = read_shard(archive, shard, CONTEXT_S + over_s, snippets.RATE_HZ, inside)
    except NoData as e:
        log.debug("%s: %s", shard.id, e)
        return None
    except BadData as e:
        silent[shard.id] = str(e)
        if len(silent) > MOST_SILENT:
            raise ConfigError(f"{len(silent)} station-days of {archive.root} cannot be read: {e}") from e
        return None
    return snippets.snippet(shard.channel, wave, span_ns)
