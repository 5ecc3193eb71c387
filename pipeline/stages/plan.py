"""Stage `plan`: which shards there are, made once a run, and where their stations stand."""

from __future__ import annotations

import logging

import numpy as np

from pipeline.cluster.world import World
from pipeline.config import Compute, Config
from pipeline.errors import ConfigError
from pipeline.formats import archive, stations, tables, velocity
from pipeline.formats.reference import read_reference
from pipeline.maths.names import site
from pipeline.models import checked, weights
from pipeline.records import Shard, Shards, Stations
from pipeline.rundir import RunDir, create, of_pickers, publish

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
        for each, alone in reversed(of_pickers(run_dir, config)):  # the run itself last: its plan says that all is made
            write_plan(each, alone, sites, shards)
        if shards is not None:
            log.info("planned %d shards of %d stations", len(shards), len(np.unique(sites.id)))
    world.bcast(None)


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


def check_inputs(config: Config) -> None:
    """Raises ConfigError if a later stage would lack its weights, velocities or reference: now, not after hours."""
    if config.pick.source is None:
        for name in config.pick.weights:
            weights.verify(name)
        require_pickers(config)
        checked.require(config.pick, config.compute)
    associate = config.associate
    if associate.velocity_model is not None:
        velocity.read(associate.velocity_model, associate.velocity_between, associate.z_km[1])
    for reference in (config.compare.reference_events, config.compare.reference_picks):
        if reference:
            read_reference(reference)


def require_pickers(config: Config) -> None:
    """Raises ConfigError if the pickers cannot be had as they are asked for; what only a GPU knows is seen there."""
    from pipeline.models.picker import Pickers

    if config.compute.device == "cpu":
        Pickers.of(config.pick, config.compute)
    else:
        Pickers.of(config.pick.model_copy(update={"precision": "fp32"}), Compute())


def plan_shards(config: Config, sites: Stations) -> Shards:
    """The shards of the run; none where picks are imported."""
    if config.archive.root is None:
        return Shards.empty()
    chosen = config.stations

    def wanted(name: str) -> bool:
        return stations.wanted(name, chosen.include, chosen.exclude)

    found = archive.find_shards(config.archive, wanted, config.run.span_ns)
    if not found:
        raise ConfigError(
            f"archive.root {config.archive.root}: no waveforms of the wanted stations between {config.run.start} and "
            f"{config.run.end} in layout {config.archive.layout!r}; look at archive.layout, archive.bands and "
            "stations.include"
        )
    stations.require(sites, sorted({site(shard.station) for shard, _ in found}))
    require_epochs(sites, [shard for shard, _ in found])
    return as_table(found)


def as_table(found: list[tuple[Shard, int]]) -> Shards:
    rows = sorted(found)
    return Shards(
        np.array([f"{shard.day:%Y-%m-%d}" for shard, _ in rows], np.str_),
        np.array([shard.station for shard, _ in rows], np.str_),
        np.array([shard.band for shard, _ in rows], np.str_),
        np.array([size for _, size in rows], np.int64),
    )


def require_epochs(sites: Stations, shards: list[Shard]) -> None:
    """Raises ConfigError that names the shards on whose day the station has no epoch."""
    epochs: dict[str, list[tuple[int, int]]] = {}
    for name, start, end in zip(sites.id.tolist(), sites.start_ns.tolist(), sites.end_ns.tolist(), strict=True):
        epochs.setdefault(name, []).append((start, end))
    lost = [
        shard.id
        for shard in shards
        if not any(start < shard.span_ns[1] and end > shard.span_ns[0] for start, end in epochs[site(shard.station)])
    ]
    if lost:
        raise ConfigError(
            f"{len(lost)} shard(s) lie outside every epoch of their station in stations.files, the first: "
            f"{', '.join(lost[:5])}; correct the epochs, or leave the stations out with stations.exclude"
        )
