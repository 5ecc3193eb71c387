"""Whether the files that a configuration names can be read; every function opens some of them and says what it found.

All raise ConfigError or OSError where the answer is no.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.config import Associate, Compare, Config, StationList
from pipeline.errors import BadData, NoData
from pipeline.formats import stations as station_files
from pipeline.formats import velocity as velocities
from pipeline.formats.archive import find_shards
from pipeline.formats.reference import read_reference
from pipeline.formats.waveforms import read_shard
from pipeline.maths import checkup
from pipeline.maths.checkup import Finding
from pipeline.records import DAY_NS, Shard

SAMPLE = 3  # station-days that are read
DAYS = 40  # of the period that are looked at for data
RATE_HZ = 100.0


def stations(chosen: StationList) -> Finding:
    found = station_files.read(chosen.files, chosen.include, chosen.exclude)
    return Finding("stations", "ok", f"{len(set(found.id.tolist()))} with coordinates")


def archive(config: Config) -> list[Finding]:
    """The first station-days of the first day that has any; none where picks are imported."""
    if config.archive.root is None:
        return []
    chosen, (start_ns, end_ns) = config.stations, config.run.span_ns
    days = spread(start_ns, end_ns)
    for first_ns in days:
        day = max(first_ns, start_ns), min(first_ns + DAY_NS, end_ns)
        found = find_shards(config.archive, lambda name: _wanted(name, chosen), day)
        if found:
            return [_read([shard for shard, _ in found[:SAMPLE]], config)]
    remedy = "look at archive.root, archive.layout, archive.bands, stations.include and the period"
    return [Finding("archive", "FAIL", f"{config.archive.root}: no data on {len(days)} days of the period", remedy)]


def _wanted(name: str, chosen: StationList) -> bool:
    return station_files.wanted(name, chosen.include, chosen.exclude)


def spread(start_ns: int, end_ns: int) -> list[int]:
    """The first ns of all days of a period, or of `DAYS` that are spread over it."""
    days = list(range(start_ns // DAY_NS * DAY_NS, end_ns, DAY_NS))
    return days if len(days) <= DAYS else [days[i * len(days) // DAYS] for i in range(DAYS)]


def _read(shards: Sequence[Shard], config: Config) -> Finding:
    read, empty, bad = [], [], []
    for shard in shards:
        try:
            read_shard(config.archive, shard, config.archive.context_s, RATE_HZ, config.run.span_ns, 1)
            read.append(shard.id)
        except NoData:
            empty.append(shard.id)
        except (BadData, OSError) as e:
            bad.append(f"{shard.id}: {e}")
    return checkup.archive(f"{shards[0].day:%Y-%m-%d}", read, empty, bad)


def picks(source: Path | None) -> list[Finding]:
    if source is None:
        return []
    with source.open("rb") as file:
        file.read(1)
    return [Finding("picks", "ok", f"{source}: {checkup.amount(source.stat().st_size)}")]


def velocity(associate: Associate) -> list[Finding]:
    if associate.velocity_model is None:
        return []
    velocities.read(associate.velocity_model, associate.velocity_between, associate.z_km[1])
    return [Finding("velocity", "ok", str(associate.velocity_model))]


def references(compare: Compare) -> list[Finding]:
    found = []
    for reference in (compare.reference_events, compare.reference_picks):
        if reference:
            bulletin = read_reference(reference)
            value = f"{reference.path}: {len(bulletin.events)} events, {len(bulletin.arrivals)} picks"
            found.append(Finding("reference", "ok", value))
    return found
