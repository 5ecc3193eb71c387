"""Which station-days a picker of networks works on, and the hours in which it works on them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np

from pipeline.config import Config, Network, Pick
from pipeline.config.weight_names import of_network
from pipeline.errors import ConfigError
from pipeline.formats import stations
from pipeline.maths.geo import east_deg
from pipeline.maths.names import site
from pipeline.records import Shard, Shards, Stations, Text

HOURS = 24
HALF_SIDE_DEG = 1.0  # of the square that a network lies in


def plan_for(pick: Pick, plan: Shards) -> Shards:
    """The station-days that the main picker of ``pick`` works on: all, or those in its networks.

    Raises ConfigError for a station in two networks.
    """
    return plan.take(names(pick.networks, plan) != "") if of_network(pick.weight) else plan


def names(networks: Sequence[Network], plan: Shards) -> Text:
    """(n,) the network of each station-day of a plan, "" if it is in none. Raises ConfigError if it is in two."""
    known, code = np.unique(plan.station, return_inverse=True)
    found: Text = np.array([name_of(networks, site(station)) for station in known.tolist()], np.str_)[code.ravel()]
    return found


def name_of(networks: Sequence[Network], station: str) -> str:
    """The network that ``station`` ("NET.STA") is in, or "". Raises ConfigError if it is in two."""
    found = [each.name for each in networks if stations.wanted(station, each.stations, ())]
    if len(found) > 1:
        raise ConfigError(f"{station} is in the networks {' and '.join(found)} of [[pick.networks]]: one can have it")
    return found[0] if found else ""


def hours(config: Config, plan: Shards) -> Shards:
    """The hours of networks in the station-days of ``plan``, as `plan_for` gives it: one row an hour inside the run.

    Their bytes are the share of the hour. What changes in the archive is told by the station-days alone.
    """
    named = names(config.pick.networks, plan)
    rows = list[tuple[str, str, int]]()
    for day in np.unique(plan.day).tolist():
        for name in np.unique(named[plan.day == day]).tolist():
            here = (plan.day == day) & (named == name)
            size = int(plan.bytes[here].sum()) // HOURS
            shards = (Shard.of_network(date.fromisoformat(day), name, hour) for hour in range(HOURS))
            rows += [(day, shard.station, size) for shard in shards if _inside(config, shard)]
    days, channels, sizes = zip(*sorted(rows), strict=True) if rows else ((), (), ())
    return Shards(
        np.array(days, np.str_),
        np.array(channels, np.str_),
        np.full(len(rows), "1H"),
        np.array(sizes, np.int64),
        np.array(days, np.str_),  # a volume a day
        np.zeros(len(rows), np.int64),
    )


def _inside(config: Config, shard: Shard) -> bool:
    start, stop = shard.within_ns(config.run.span_ns)
    return start < stop


def require(pick: Pick, plan: Shards, sites: Stations) -> None:
    """Raises ConfigError for a network without stations (without data is no error: a network may fail for a day), and
    for a station with data outside of its network's square, in which alone PhaseNO knows its way."""
    known = np.unique(sites.id).tolist()
    for network in pick.networks:
        if not any(stations.wanted(station, network.stations, ()) for station in known):
            raise ConfigError(
                f"network {network.name!r} of [[pick.networks]]: no station of stations.files matches "
                f"{', '.join(network.stations)}; correct its patterns of NET.STA, or leave it out"
            )
    by_name = {network.name: network for network in pick.networks}
    pairs = set(zip([site(name) for name in plan.station.tolist()], names(pick.networks, plan).tolist(), strict=True))
    for station, name in sorted(pair for pair in pairs if pair[1]):
        network = by_name[name]
        for row in np.flatnonzero(sites.id == station).tolist():
            require_place(network, station, float(sites.latitude_deg[row]), float(sites.longitude_deg[row]))


def require_place(network: Network, station: str, latitude_deg: float, longitude_deg: float) -> None:
    """Raises ConfigError if ``station`` does not lie in its network's square."""
    along = east_deg(longitude_deg, network.center_longitude_deg)
    off = max(abs(along), abs(latitude_deg - network.center_latitude_deg))
    if off > HALF_SIDE_DEG:
        raise ConfigError(
            f"{station} is {off:.2f} degrees from the middle of network {network.name!r} in latitude or longitude, but "
            f"PhaseNO knows places within {HALF_SIDE_DEG:g} degree: move the middle, or make two networks"
        )
