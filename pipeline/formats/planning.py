"""What the archive holds of the wanted stations, as a plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.formats import archive, network_plans, stations
from pipeline.maths.coverage import operating
from pipeline.maths.days import day_numbers
from pipeline.maths.names import site
from pipeline.maths.volumes import volumes
from pipeline.records import Shards, Stations


def plan_shards(config: Config, sites: Stations) -> Shards:
    """The shards of the run's main picker; none where picks are imported.

    Raises ConfigError for a station of the archive without coordinates, an archive with no data, and networks that do
    not suit it.
    """
    if config.archive.root is None:
        return Shards.empty()
    chosen = config.stations

    def wanted(name: str) -> bool:
        return stations.wanted(name, chosen.include, chosen.exclude)

    found = archive.scan(config.archive, wanted, config.run.span_ns)
    if not len(found):
        raise ConfigError(
            f"archive.root {config.archive.root}: no waveforms of the wanted stations between {config.run.start} and "
            f"{config.run.end} in layout {config.archive.layout!r}; look at archive.layout, archive.bands and "
            "stations.include"
        )
    stations.require(sites, sorted({site(name) for name in np.unique(found.station).tolist()}))
    require_epochs(sites, found)
    for each in config.pick.of_networks:
        network_plans.require(each, network_plans.plan_for(each, found), sites)
    mine = network_plans.plan_for(config.pick, replace(found, volume=volumes(found.day)))
    if not len(mine):
        raise ConfigError(
            f"archive.root {config.archive.root}: waveforms between {config.run.start} and {config.run.end}, but none "
            "of the stations in [[pick.networks]]; correct their patterns, or pick other days"
        )
    return mine


def require_epochs(sites: Stations, plan: Shards) -> None:
    """Raises ConfigError that names the shards on whose day the station has no epoch."""
    names, code = np.unique(plan.station, return_inverse=True)
    day = day_numbers(plan.day)
    days = range(int(day.min()), int(day.max()) + 1)
    there = operating(sites, [site(name) for name in names.tolist()], days)
    lost = np.flatnonzero(~there[code.ravel(), day - days.start])
    if len(lost):
        raise ConfigError(
            f"{len(lost)} shard(s) lie outside every epoch of their station in stations.files, the first: "
            f"{', '.join(plan.shard(row).id for row in lost[:5].tolist())}; correct the epochs, or leave the stations "
            "out with stations.exclude"
        )
