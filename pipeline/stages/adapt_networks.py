"""Labelled records as networks, for a picker that hears all stations at once (PhaseNO).

Records of one earthquake are a network, and so are records of noise that overlap in time; a record with which no other
goes is a network of one station. A `[[pick.networks]]` that a station is in gives the middle and the range, as in
`pick`, and stations of two of them are two networks. Stations in none, which `pick` leaves out, have the middle between
the outermost of them; where these are more than 2 degrees apart, each square of 2 degrees is a network. As in `pick`
each channel is a row: two bands of a station are two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.config import Config, Network
from pipeline.config.weight_names import of_network
from pipeline.errors import ConfigError
from pipeline.formats import network_plans
from pipeline.formats.labelled_cache import Cache
from pipeline.models import phaseno
from pipeline.records import NS, Int, Labelled, NetworkRecord
from pipeline.stages.adapt_data import Prepared, waveform

LONGEST_NS = 600 * NS  # from the first record of a network to the beginning of its last


@dataclass(frozen=True, slots=True)
class Together:
    """Records that are one network: their places (k,) in the set, by channel; the rest as of `NetworkRecord`."""

    index: Int
    center_deg: tuple[float, float]
    range_km: float | None


def require_settings(config: Config) -> None:
    """Raises ConfigError for what no set can have where a picker of networks is adapted or is a baseline."""
    weight = _weight(config)
    if not weight:
        return
    for one in config.adapt.sets:
        if one.rate_hz != phaseno.RATE_HZ:
            raise ConfigError(
                f"adapt.sets {one.name!r}: rate_hz = {one.rate_hz:g}, but {weight} takes records at "
                f"{phaseno.RATE_HZ:g} Hz: leave rate_hz out, or set it to that"
            )
    if config.adapt.amp and of_network(config.pick.weight):
        raise ConfigError(f"adapt.amp: {config.pick.weight} computes in FP32 alone: leave amp out")


def require(config: Config, sets: Sequence[Prepared]) -> None:
    """Raises ConfigError for records that cannot be put into networks, if a picker of networks is to see them."""
    weight = _weight(config)
    if not weight:
        return
    for one in sets:
        rows = one.cache.rows
        nowhere = ~(np.isfinite(rows.latitude_deg) & np.isfinite(rows.longitude_deg))
        lacking = {
            "have no time": (~rows.has_time, "trace_start_time"),
            "have no coordinates": (nowhere, "station_latitude_deg and station_longitude_deg"),
        }
        for what, (wrong, columns) in lacking.items():
            if wrong.any():
                raise ConfigError(
                    f"adapt.sets {one.settings.name!r}: {np.count_nonzero(wrong)} of {len(rows)} records {what}, the "
                    f"first is {rows.id[wrong][0]!r}, but {weight} hears stations together, each in its place: take "
                    f"archive = true, or seisbench, a dataset with {columns} (an npz has no coordinates)"
                )
        _require_places(rows, config.pick.networks)


def _weight(config: Config) -> str:
    """The first weight of all that picks on networks, or ""."""
    return next((name for name in (config.pick.weight, *config.adapt.baselines) if of_network(name)), "")


def _require_places(rows: Labelled, networks: Sequence[Network]) -> None:
    by_name = {network.name: network for network in networks}
    told = zip(rows.station.tolist(), rows.latitude_deg.tolist(), rows.longitude_deg.tolist(), strict=True)
    for station, latitude_deg, longitude_deg in sorted(set(told)):
        if name := network_plans.name_of(networks, station):
            network_plans.require_place(by_name[name], station, latitude_deg, longitude_deg)


def groups(rows: Labelled, index: Int, networks: Sequence[Network]) -> list[Together]:
    """The networks of the records ``index`` (k,) of a set, each record in one of them.

    The same whatever the order of the rows. Of two records of one channel in a network the later is another network.
    """
    begin, _ = _spans_ns(rows)
    names = {station: network_plans.name_of(networks, station) for station in set(rows.station[index].tolist())}
    keyed: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i in sorted(index.tolist(), key=lambda i: (begin[i], rows.id[i])):
        keyed[str(rows.event[i]), names[str(rows.station[i])]].append(i)
    by_name = {network.name: network for network in networks}
    found = []
    for (_, name), members in keyed.items():
        for run in _runs(rows, members):
            parts = [run] if name else _squares(rows, run)
            found += [_together(rows, layer, by_name.get(name)) for part in parts for layer in _layers(rows, part)]
    return found


def record(cache: Cache, group: Together) -> NetworkRecord:
    """What was recorded; nothing that may not be used is in it."""
    rows, samples = cache.rows.take(group.index), cache.read(group.index)
    waves = (replace(waveform(rows, samples, k), start_ns=int(rows.start_ns[k])) for k in range(len(rows)))
    return NetworkRecord(tuple(waves), rows.latitude_deg, rows.longitude_deg, group.center_deg, group.range_km)


def _spans_ns(rows: Labelled) -> tuple[Int, Int]:
    """(n,) from when to when each record may be used; one whose end is not told counts as `LONGEST_NS` long."""
    first, stop = (np.round(x / rows.rate_hz * NS).astype(np.int64) for x in (rows.first, rows.stop))
    return rows.start_ns + first, rows.start_ns + np.where(rows.stop >= 0, stop, LONGEST_NS)


def _runs(rows: Labelled, members: Sequence[int]) -> Iterator[list[int]]:
    """Records in order of time, cut after `LONGEST_NS`, and those of noise also where none of them goes on."""
    begin, end = _spans_ns(rows)
    run, reach = list[int](), 0
    for i in members:
        if run and (begin[i] - begin[run[0]] >= LONGEST_NS or (not rows.event[i] and begin[i] >= reach)):
            yield run
            run, reach = [], 0
        run.append(i)
        reach = max(reach, int(end[i]))
    yield run


def _squares(rows: Labelled, members: Sequence[int]) -> list[list[int]]:
    """Records by squares of 2 degrees, from the south-western corner of all."""
    east, north = phaseno.eastward(rows.longitude_deg[members]), rows.latitude_deg[members]
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, x, y in zip(members, east - east.min(), north - north.min(), strict=True):
        found[int(x // phaseno.SIDE_DEG), int(y // phaseno.SIDE_DEG)].append(i)
    return list(found.values())


def _layers(rows: Labelled, members: Sequence[int]) -> list[list[int]]:
    """Records so that each channel is once in each list."""
    found, before = defaultdict[int, list[int]](list), defaultdict[str, int](int)
    for i in members:
        channel = str(rows.channel[i])
        found[before[channel]].append(i)
        before[channel] += 1
    return list(found.values())


def _together(rows: Labelled, members: Sequence[int], network: Network | None) -> Together:
    index = np.array(sorted(members, key=lambda i: (rows.channel[i], rows.id[i])), np.int64)
    if network is not None:
        return Together(index, network.center_deg, network.reach_km)
    return Together(index, phaseno.centre(rows.latitude_deg[index], rows.longitude_deg[index]), phaseno.RANGE_KM)
