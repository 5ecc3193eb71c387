"""Labelled records from an archive and the picks that analysts made of it, and records of noise of the same stations.

The waveforms are those that the pick stage reads: same channels, resampling, means and gaps. A record shows one
earthquake at one station. Where picks of others come near, `Labelled.first` and `stop` end the usable part before
them: a wave that somebody picked is never shown without its label. Where they lie between the record's own picks, or
a pick has no data, the record is left out and counted.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.config import Config
from pipeline.errors import ConfigError, NoData
from pipeline.formats import stations, waveforms
from pipeline.formats.bulletin_rows import Bulletin
from pipeline.formats.labelled_rows import NO_EVENT, Part, Row, components, part
from pipeline.formats.planning import plan_shards
from pipeline.formats.reference import read_reference
from pipeline.maths.names import resolve, site
from pipeline.records import NAN, NS, Arrivals, Bool, Float, Float32, Int, Shard, Shards, Stations, Waveform

GUARD_S = 1.0  # a record ends so long before a pick that is not its own, and begins so long after one
AROUND_S = 0.5  # data must be there so long before and after a pick


@dataclass(frozen=True, slots=True)
class Cutting:
    """How records are cut. They are longer than any network's window, which is cropped from them at random later."""

    length_s: float = 150.0
    before_s: float = 70.0  # of that before the first pick, on average
    jitter_s: float = 10.0  # and so much more or less, different from record to record
    noise_share: float = 0.25  # records of noise for each record with picks
    noise_s: float = 75.0  # usable part of a record of noise
    quiet_s: float = 30.0  # which lies so far from every pick and origin time of the reference
    max_weight: int = 3  # picks of a larger weight (4: unused by the analysts) are no labels
    seed: int = 0


class Own(NamedTuple):
    """The picks of one earthquake at one station that are labels, UTC; -1: none."""

    event: str
    p_ns: int
    s_ns: int

    @property
    def all_ns(self) -> list[int]:
        return [ns for ns in (self.p_ns, self.s_ns) if ns >= 0]

    @property
    def first_ns(self) -> int:
        return min(self.all_ns)


@dataclass(frozen=True, slots=True)
class Labels:
    """What the reference says of each station of the run ("NET.STA"), and all instants that are not quiet."""

    own: dict[str, list[Own]]  # in the order of time
    arrivals: dict[str, Arrivals]  # all picks, labels or not
    busy_ns: Int  # sorted
    cutting: Cutting
    source: Path
    notes: tuple[str, ...]

    def within(self, shard: Shard, span_ns: tuple[int, int]) -> list[Own]:
        """The earthquakes whose first label at the station of ``shard`` lies in it."""
        start, stop = shard.within_ns(span_ns)
        every = self.own.get(site(shard.station), [])
        times = [one.first_ns for one in every]
        return every[bisect_left(times, start) : bisect_left(times, stop)]


def plan(config: Config, cutting: Cutting | None = None) -> tuple[Labels, Stations, Shards]:
    """Labels, coordinates, and the shards with a label: what `records` needs, of each shard on its own.

    Raises ConfigError: no reference, one without picks, none of them at a station of the run, no such waveforms.
    """
    sites = stations.read(config.stations.files, config.stations.include, config.stations.exclude)
    labels = read_labels(config, sites, cutting)
    shards = plan_shards(config, sites)
    rows = [i for i, shard in enumerate(shards.rows()) if labels.within(shard, config.run.span_ns)]
    if not rows:
        raise ConfigError(
            f"{labels.source}: none of its picks lies on a station and day with waveforms in the archive "
            f"{config.archive.root} between {config.run.start} and {config.run.end}"
        )
    return labels, sites, shards.take(np.array(rows))


def read_labels(config: Config, sites: Stations, cutting: Cutting | None = None) -> Labels:
    """The picks of compare.reference_picks, else of compare.reference_events. Raises ConfigError if there is none."""
    cutting = cutting or Cutting()
    reference = config.compare.reference_picks or config.compare.reference_events
    if reference is None:
        raise ConfigError("no reference to take labels from: name a bulletin with picks in compare.reference_picks")
    found = read_reference(reference)
    if not len(found.arrivals):
        raise ConfigError(
            f"{reference.path}: format {reference.format!r} gives {len(found.events)} events and no picks, and labels "
            "are picks: name a bulletin that has them in compare.reference_picks (ogs-dat, quakeml, nordic, ...)"
        )
    also = config.compare.reference_events
    busy_ns = _busy(found, read_reference(also) if also not in (None, reference) else found)
    names, reasons = resolve(found.arrivals.station.tolist(), sites.id.tolist())
    notes = [f"{reference.path}: {len(found.bad)} lines not understood"] if found.bad else []
    notes += [f"{reference.path}: station {name!r}: {why}: its picks are no labels" for name, why in reasons.items()]
    arrivals = _by_station(found.arrivals, names)
    own = {station: _own(picks, cutting.max_weight) for station, picks in arrivals.items()}
    if not any(own.values()):
        raise ConfigError(
            f"{reference.path}: none of its {len(found.arrivals)} picks belongs to an event and to a station of "
            f"stations.files: {'; '.join(notes) or 'its picks name no events'}"
        )
    return Labels(own, arrivals, busy_ns, cutting, reference.path, tuple(notes))


def _busy(found: Bulletin, other: Bulletin) -> Int:
    times = (found.arrivals.time_ns, found.events.time_ns, other.arrivals.time_ns, other.events.time_ns)
    return np.unique(np.concatenate(times))


def _by_station(arrivals: Arrivals, names: dict[str, str]) -> dict[str, Arrivals]:
    """The picks of each station of the run; ``names`` says which it is."""
    station = np.array([names.get(name, "") for name in arrivals.station.tolist()], np.str_)
    return {name: arrivals.take(station == name) for name in sorted(set(names.values()))}


def _own(here: Arrivals, max_weight: int) -> list[Own]:
    """The earthquakes of one station, in the order of time: the earliest P and the earliest S of each."""
    here = here.take((here.event != NO_EVENT) & (here.weight <= max_weight))
    first: dict[str, dict[str, int]] = {}
    for event, phase, ns in zip(here.event.tolist(), here.phase.tolist(), here.time_ns.tolist(), strict=True):
        picks = first.setdefault(event, {})
        picks[phase] = min(ns, picks.get(phase, ns))
    found = [Own(event, picks.get("P", -1), picks.get("S", -1)) for event, picks in first.items()]
    return sorted(found, key=lambda one: (one.first_ns, one.event))


def records(config: Config, shard: Shard, labels: Labels, sites: Stations, rate_hz: float) -> Part:
    """The records of one shard at ``rate_hz``, and some of noise; none where there are no waveforms, with a note why.

    The same for any order and number of shards, runs and machines. Raises BadData as `waveforms.read_shard` does.
    """
    cutting = labels.cutting
    length = round(cutting.length_s * rate_hz)
    own = labels.within(shard, config.run.span_ns)
    if not own:
        return part([], length, [f"{shard.id}: no picks"])
    try:
        wave, notes = waveforms.read_shard(config.archive, shard, cutting.length_s, rate_hz, config.run.span_ns)
    except NoData as e:
        return part([], length, [f"{shard.id}: {e}"])
    cut = _Cutter(wave, shard, cutting, labels.source.name, _place(sites, shard, own[0].first_ns))
    left_out: Counter[str] = Counter()
    found = []
    for one in own:
        record = cut.event(one, _foreign(labels.arrivals[site(shard.station)], one, cutting.max_weight))
        if isinstance(record, str):
            left_out[record] += 1
        else:
            found.append(record)
    found += cut.noise(math.ceil(cutting.noise_share * len(found)), labels.busy_ns, shard.within_ns(config.run.span_ns))
    told = [f"{n} records left out: {why}" for why, n in sorted(left_out.items())]
    return part(found, length, [f"{shard.id}: {note}" for note in (*notes, *told)])


def noise(config: Config, shard: Shard, busy_ns: Int, n: int, rate_hz: float, cutting: Cutting | None = None) -> Part:
    """At most ``n`` records of noise of one shard, far from all of ``busy_ns`` (sorted or not), without coordinates.

    For an archive of which nobody has picks: whether there is an earthquake in them depends on ``busy_ns`` alone.
    Raises NoData and BadData as `waveforms.read_shard` does.
    """
    cutting = cutting or Cutting()
    wave, notes = waveforms.read_shard(config.archive, shard, 0.0, rate_hz, config.run.span_ns)
    cut = _Cutter(wave, shard, cutting, config.run.name, (NAN, NAN, NAN))
    found = cut.noise(n, busy_ns, shard.within_ns(config.run.span_ns))
    return part(found, round(cutting.length_s * rate_hz), [f"{shard.id}: {note}" for note in notes])


def _place(sites: Stations, shard: Shard, time_ns: int) -> tuple[float, float, float]:
    row = int(stations.at(sites, np.array([site(shard.station)]), np.array([time_ns], np.int64))[0])
    columns = sites.latitude_deg, sites.longitude_deg, sites.elevation_m
    latitude, longitude, elevation = (float(column[row]) if row >= 0 else NAN for column in columns)
    return latitude, longitude, elevation


def _foreign(here: Arrivals, own: Own, max_weight: int) -> Int:
    """Times of all other picks of the station, those of the same earthquake that are no labels among them."""
    times: Int = here.time_ns[(here.event != own.event) | (here.weight > max_weight)]
    return times


def _generator(*key: str | int) -> np.random.Generator:
    """Random numbers that depend on ``key`` alone."""
    digest = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


@dataclass(frozen=True, slots=True)
class _Cutter:
    """Cuts records out of the waveform of one shard."""

    wave: Waveform
    shard: Shard
    cutting: Cutting
    source: str
    place: tuple[float, float, float]

    def event(self, own: Own, foreign_ns: Int) -> tuple[Row, Float32] | str:
        """The record of one earthquake, or why there is none."""
        picks = self._samples(np.array(own.all_ns, np.int64))
        if not all(self._has_data(sample) for sample in picks.tolist()):
            return "no data at a pick"
        if own.s_ns >= 0 and own.s_ns < own.p_ns:
            return "S before P"
        first, stop = self._between(self._samples(foreign_ns), float(picks.min()), float(picks.max()))
        if first >= picks.min() - 1 or stop <= picks.max() + 1:
            return "a pick of another earthquake between or beside its own"
        name = f"{own.event}/{self.shard.channel}"
        shift_s = _generator(self.cutting.seed, name).uniform(-1, 1) * self.cutting.jitter_s
        start = int(picks.min()) - self._n(self.cutting.before_s + shift_s)
        p, s = (float(self._samples(np.array([ns]))[0]) - start if ns >= 0 else NAN for ns in (own.p_ns, own.s_ns))
        if max(picks.tolist()) - start >= self._n(self.cutting.length_s):
            return "picks farther apart than a record is long"
        record = self._record(name, start, (first, stop))
        if not record[0].components:
            return "no usable component"
        return record[0]._replace(event=own.event, p_sample=p, s_sample=s), record[1]

    def noise(self, n: int, busy_ns: Int, core_ns: tuple[int, int]) -> list[tuple[Row, Float32]]:
        """At most ``n`` records that do not overlap and lie within ``core_ns``, far from all that is known."""
        usable, quiet = self._n(self.cutting.noise_s), self._n(self.cutting.quiet_s)
        free = self._free(usable, quiet, busy_ns, core_ns)
        rng = _generator(self.cutting.seed, self.shard.id, "noise")
        found: list[tuple[Row, Float32]] = []
        while len(found) < n and free.any():
            start = int(rng.choice(np.flatnonzero(free)))
            free[max(0, start - usable) : start + usable] = False
            at_ns = self.wave.start_ns + round(start / self.wave.rate_hz * NS)
            name = f"noise/{self.shard.channel}/{np.datetime64(at_ns, 'ms')}"
            record = self._record(name, start, (start, start + usable))
            if record[0].components:
                found.append(record)
        return found

    def _free(self, usable: int, quiet: int, busy_ns: Int, core_ns: tuple[int, int]) -> Bool:
        """(n,) at which samples a record of noise may begin."""
        valid = np.concatenate([[0], np.cumsum(self.wave.valid)])
        free = np.zeros(len(self.wave), np.bool_)
        last = len(self.wave) - usable
        if last >= 0:
            free[: last + 1] = valid[usable:] - valid[: last + 1] == usable
        begin, end = self._samples(np.array(core_ns, np.int64))
        free[: max(0, int(np.ceil(begin)))] = False
        free[max(0, int(end) - usable) :] = False
        for sample in self._samples(busy_ns).astype(np.int64).tolist():
            free[max(0, sample - quiet - usable) : max(0, sample + quiet)] = False
        return free

    def _record(self, name: str, start: int, within: tuple[int, int]) -> tuple[Row, Float32]:
        """A record from sample ``start`` of the waveform on, of which the part ``within`` may be used; no picks yet."""
        length, n = self._n(self.cutting.length_s), len(self.wave)
        first, stop = (min(max(edge - start, 0), length) for edge in (max(within[0], 0), min(within[1], n)))
        samples = np.zeros((3, length), np.float32)
        samples[:, first:stop] = self.wave.samples[:, start + first : start + stop]
        start_ns = self.wave.start_ns + round(start / self.wave.rate_hz * NS)
        there = components(samples[:, first:stop].astype(np.float64)) if stop > first else ""
        row = Row(
            name, NO_EVENT, site(self.shard.station), self.shard.channel, start_ns, self.wave.rate_hz, NAN, NAN, there,
            self.source, *self.place, first, stop,
        )  # fmt: skip
        return row, samples

    def _n(self, duration_s: float) -> int:
        return round(duration_s * self.wave.rate_hz)

    def _samples(self, time_ns: Int) -> Float:
        """Positions on the time axis of the waveform, not whole."""
        return np.asarray((time_ns - self.wave.start_ns) / NS * self.wave.rate_hz)

    def _has_data(self, sample: float) -> bool:
        first, stop = int(sample - AROUND_S * self.wave.rate_hz), int(sample + AROUND_S * self.wave.rate_hz) + 1
        return first >= 0 and stop <= len(self.wave) and bool(self.wave.valid[first:stop].all())

    def _between(self, foreign: Float, first: float, last: float) -> tuple[int, int]:
        """From which sample to which there is no foreign pick, where the own ones are ``first`` to ``last``."""
        guard = self._n(GUARD_S)
        if ((foreign >= first - guard) & (foreign <= last + guard)).any():
            return int(last), int(first)  # empty
        before, after = foreign[foreign < first], foreign[foreign > last]
        return (
            int(before.max()) + guard if len(before) else 0,
            int(after.min()) - guard if len(after) else len(self.wave),
        )
