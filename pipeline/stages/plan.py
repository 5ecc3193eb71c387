"""Stage `plan`: which shards there are, made once a run, and where their stations stand."""

from __future__ import annotations

import logging

import numpy as np

from pipeline.cluster.world import World
from pipeline.config import Compute, Config
from pipeline.formats import network_plans, stations, tables, velocity
from pipeline.formats.planning import plan_shards
from pipeline.formats.reference import read_reference
from pipeline.models import checked, weights
from pipeline.records import Shards, Stations
from pipeline.rundir import RunDir, create, of_networks, of_pickers, publish

log = logging.getLogger(__name__)


def run(run_dir: RunDir, config: Config, world: World) -> None:
    """Write ``shards.parquet`` if it is missing, and ``stations.parquet`` as the station files are now.

    Before there is a plan, all that the run will need is looked at. Raises ConfigError for a station of the
    archive without coordinates, an archive with no data, a missing weight, or a reference that cannot be read.
    """
    if world.rank == 0:
        sites = stations.read(config.stations.files, config.stations.include, config.stations.exclude)
        shards = None if run_dir.shards.exists() else plan_shards(config, sites)
        if shards is not None:
            check_inputs(config)
            write_hours(run_dir, config, shards)
        for each, alone in reversed(of_pickers(run_dir, config)):  # the run itself last: its plan says that all is made
            write_plan(each, alone, sites, _of_picker(alone, shards))
        if shards is not None:
            log.info("planned %d shards of %d stations", len(shards), len(np.unique(sites.id)))
    world.bcast(None)


def _of_picker(config: Config, shards: Shards | None) -> Shards | None:
    return None if shards is None else network_plans.plan_for(config.pick, shards)


def write_plan(run_dir: RunDir, config: Config, sites: Stations, shards: Shards | None) -> None:
    """Make ``run_dir`` one of ``config`` with stations and shards; ``shards`` None: only the stations are new."""
    if shards is not None:
        run_dir.shards.unlink(missing_ok=True)  # of a further picker, by a plan that was killed
        create(run_dir.root, config)
    with publish(run_dir.stations) as part:
        tables.write(part, sites)
    if shards is not None:
        with publish(run_dir.shards) as part:
            tables.write(part, shards)


def write_hours(run_dir: RunDir, config: Config, shards: Shards) -> None:
    """What the pickers of networks are to do: the hours of the station-days ``shards`` that are theirs."""
    for hours, alone in of_networks(run_dir, config):
        with publish(hours.shards) as part:
            tables.write(part, network_plans.hours(alone, network_plans.plan_for(alone.pick, shards)))


def check_inputs(config: Config) -> None:
    """Raises ConfigError if a later stage would lack its weights, velocities or reference: now, not after hours."""
    if config.pick.source is None:
        for name in config.pick.weights:
            weights.verify(name)
        require_pickers(config)
        if config.pick.of_stations:
            checked.require(config.pick.of_stations, config.compute)
    associate = config.associate
    if associate.velocity_model is not None:
        velocity.read(associate.velocity_model, associate.velocity_between, associate.z_km[1])
    for reference in (config.compare.reference_events, config.compare.reference_picks):
        if reference:
            read_reference(reference)


def require_pickers(config: Config) -> None:
    """Raises ConfigError if the pickers cannot be had as they are asked for; what only a GPU knows is seen there."""
    from pipeline.models import network_picker

    if config.compute.device == "cpu":
        network_picker.require(config.pick, config.compute)
    else:
        network_picker.require(config.pick.model_copy(update={"precision": "fp32"}), Compute())
