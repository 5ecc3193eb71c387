"""One hour of a network: all its stations read, scored together by PhaseNO, and picked each on its own.

A station without data in the hour is not in the graph, nor is one whose files cannot be read: that ends its
station-day as failed, and no other (`pipeline.formats.network_hours`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipeline.cluster.roles import Role
from pipeline.config import Compute, Config, Pick
from pipeline.errors import BadData, ConfigError, Incomplete, NoData
from pipeline.formats import network_plans, results, stations, tables, waveforms
from pipeline.maths import triggers
from pipeline.maths.names import site
from pipeline.meter import Meter
from pipeline.records import NS, NetworkRecord, Outcome, Picks, Shard, Shards, Stations, Waveform
from pipeline.rundir import Hours, require
from pipeline.stages import pick_amplitudes
from pipeline.stages.pick_shard import Found, Get, MakeRead, Read, valid_fraction

if TYPE_CHECKING:
    from pipeline.models.network_picker import NetworkPicker  # only a rank that scores carries torch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NetworkReading:
    """The station-days ``shards`` that are heard, their ``record`` and notes; how the others ended.

    ``empty``: why one has no data in the hour, though it has some close by; "" if it has.
    """

    shards: tuple[Shard, ...]
    record: NetworkRecord
    notes: tuple[tuple[str, ...], ...]
    empty: tuple[str, ...]
    others: tuple[Outcome, ...]


def local_scorer(pick: Pick, compute: Compute) -> NetworkPicker:
    """The picker of networks on this rank. Raises ConfigError."""
    from pipeline.models.network_picker import NetworkPicker

    return NetworkPicker.of(pick, compute)


def archive_reader(hours: Hours) -> MakeRead:
    """What makes a reader of the station-days that the picker of ``hours`` has planned."""
    sites = tables.read(require(hours.home.stations, "plan"), Stations)
    return partial(_reader, members=results.planned(hours.home), sites=sites)


def alone(roles: Sequence[Role], device: str) -> list[Role]:
    """Each rank for itself: a network is scored where it was read. Ranks beside a GPU that is not theirs rest."""
    own = device if device == "cpu" else ""
    return [replace(role, device=role.device or own, server=None, clients=()) for role in roles]


def named(tally: Counter[str]) -> Counter[str]:
    """The tally of hours, so that it is told from one of station-days."""
    return Counter({key if key == "stopped" else f"{key} hours": n for key, n in tally.items()})


def _reader(config: Config, scorer: NetworkPicker, members: Shards, sites: Stations) -> Read:
    network_of = network_plans.names(config.pick.networks, members)
    context_s = max(config.archive.context_s, scorer.context_s)

    def read(hour: Shard) -> NetworkReading:
        here = (members.day == f"{hour.day:%Y-%m-%d}") & (network_of == hour.network)
        span_ns, found, others = hour.within_ns(config.run.span_ns), list[Member](), list[Outcome]()
        for shard in members.take(here).rows():
            try:
                found.append((shard, *_heard(config, shard, context_s, scorer.rate_hz, span_ns)))
            except NoData as e:
                others.append(Outcome(shard.id, "empty", str(e), 0, 0.0))
            except (ConfigError, Incomplete, MemoryError):
                raise
            except Exception as e:  # an odd file of one station must not cost all others their hour
                log.warning("%s in %s: %s", shard.id, hour.id, e, exc_info=not isinstance(e, BadData))
                others.append(Outcome(shard.id, "failed", f"{type(e).__name__}: {e}", 0, 0.0))
        shards, waves, notes, empty = (tuple(each) for each in zip(*found, strict=True)) if found else ((), (), (), ())
        return NetworkReading(shards, _record(config, hour, shards, waves, sites), notes, empty, tuple(others))

    return read


Member = tuple[Shard, Waveform, tuple[str, ...], str]


def _heard(
    config: Config, shard: Shard, context_s: float, rate_hz: float, span_ns: tuple[int, int]
) -> tuple[Waveform, tuple[str, ...], str]:
    """The waveform of a station-day in and around ``span_ns``, notes, and why there are no data inside, if so.

    What is only around it counts too: others hear it in the windows that reach across the limits of the hour, as they
    do in the next one. Raises NoData and BadData.
    """
    archive, threads = config.archive, config.compute.threads
    try:
        return (*waveforms.read_shard(archive, shard, context_s, rate_hz, span_ns, threads), "")
    except NoData as e:
        reach_ns = round(context_s * NS)
        wide_ns = span_ns[0] - reach_ns, span_ns[1] + reach_ns
        return waveforms.read_shard(archive, shard, 0.0, rate_hz, wide_ns, threads)[0], (), str(e)


def _record(
    config: Config, hour: Shard, shards: Sequence[Shard], waves: Sequence[Waveform], sites: Stations
) -> NetworkRecord:
    network = next(each for each in config.pick.networks if each.name == hour.network)
    ids = np.array([site(shard.station) for shard in shards], np.str_)
    rows = stations.at(sites, ids, np.full(len(ids), hour.span_ns[0], np.int64))
    for i in np.flatnonzero(rows < 0).tolist():  # its epoch begins later
        rows[i] = np.flatnonzero(sites.id == ids[i])[0]
    places_deg = sites.latitude_deg[rows], sites.longitude_deg[rows]
    return NetworkRecord(tuple(waves), *places_deg, network.center_deg, network.reach_km)


def detect(config: Config, hour: Shard, scorer: NetworkPicker, get: Get, own: Meter) -> Found:
    """The picks of all stations of a network in one hour, and how each of them ended.

    Raises BadData if there are no data, and files that cannot be read.
    """
    reading: NetworkReading = get()
    with own.time("score"):
        found = scorer.runs(reading.record)
    ended, span_ns = list[tuple[Picks, Outcome]](), hour.within_ns(config.run.span_ns)
    rows = zip(reading.shards, reading.record.waveforms, found, reading.notes, reading.empty, strict=True)
    for shard, wave, runs, notes, empty in rows:
        with own.time("triggers"):
            picks = triggers.picks(runs, wave, shard.channel, config.pick.min_separation_s, span_ns)
        with own.time("amplitudes"):
            (picks,), more = pick_amplitudes.measured(config, shard, wave, [picks])
        outcome = Outcome(shard.id, "picked", "", len(picks), valid_fraction(wave, span_ns), notes + more)
        ended.append((Picks.empty(), Outcome(shard.id, "empty", empty, 0, 0.0)) if empty else (picks, outcome))
    members = tuple(sorted([outcome for _, outcome in ended] + list(reading.others), key=lambda each: each.shard))
    return Found([(Picks.concat([picks for picks, _ in ended]).ordered(), _ended(hour, members))], (), members)


def _ended(hour: Shard, members: Sequence[Outcome]) -> Outcome:
    """How the hour of a network ended whose station-days ended so."""
    n = Counter(member.end for member in members)
    if n["picked"]:
        share = sum(member.valid_fraction for member in members) / len(members)
        return Outcome(hour.id, "picked", "", sum(member.n_picks for member in members), share)
    if n["failed"]:
        first = next(member for member in members if member.end == "failed")
        raise BadData(f"{first.shard}: {first.reason}; {n['failed']} of {len(members)} stations, and no other has data")
    return Outcome(hour.id, "empty", f"no data of {len(members)} stations", 0, 0.0)
