"""The nouns of work: shards, and how they ended."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from pipeline.records.table import DAY_NS, HOUR_NS, Float, Int, Table, Text, column

NETWORK = "net"  # in place of a network code: those have no small letters
HOUR = "1H"  # in place of a band


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """One unit of work and of restart: one station and one UTC day, or one network of stations and one UTC hour.

    The id names the data and nothing else, so adding a station renames nothing. That of a network, "net.NAME.13.1H" in
    the place of a channel, has the form of all others, so that plans, claims, parts and notes are the same.
    """

    day: date
    station: str  # "NET.STA.LOC", for example "CI.CCC.", or "net.NAME.13"
    band: str  # band and instrument code: "HH", "EH", ..., or "1H"

    @classmethod
    def of_network(cls, day: date, name: str, hour: int) -> Shard:
        """The shard of a network and of the UTC hour that begins at ``hour``."""
        return cls(day, f"{NETWORK}.{name}.{hour:02d}", HOUR)

    @property
    def network(self) -> str:
        """The name of the network of stations; "" for one station."""
        kind, _, rest = self.station.partition(".")
        return rest.rpartition(".")[0] if (kind, self.band) == (NETWORK, HOUR) else ""

    @property
    def id(self) -> str:
        return f"{self.day:%Y-%m-%d}/{self.channel}"

    @classmethod
    def named(cls, id_: str) -> Shard:
        """The shard of an id. Raises ValueError if it is none."""
        day, _, channel = id_.partition("/")
        station, _, band = channel.rpartition(".")
        return cls(date.fromisoformat(day), station, band)

    @property
    def channel(self) -> str:
        """ "NET.STA.LOC.BAND", the name that picks carry."""
        return f"{self.station}.{self.band}"

    @property
    def span_ns(self) -> tuple[int, int]:
        """Half-open [start, stop) of the day, or hour, ns UTC: a pick belongs to exactly one shard of its kind."""
        start = int(np.datetime64(self.day, "ns").astype(np.int64))
        if not self.network:
            return start, start + DAY_NS
        start += int(self.station.rpartition(".")[2]) * HOUR_NS
        return start, start + HOUR_NS

    def within_ns(self, span_ns: tuple[int, int]) -> tuple[int, int]:
        """The part of the span inside ``span_ns``, half-open too; empty (stop <= start) where they do not meet."""
        start, stop = self.span_ns
        return max(start, span_ns[0]), min(stop, span_ns[1])


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one shard ended. ``end`` is "picked", "empty" or "failed"."""

    shard: str
    end: str
    reason: str
    n_picks: int
    valid_fraction: float  # share of the shard's span with data on at least one component
    notes: tuple[str, ...] = ()  # what was repaired on the way, one sentence each


@dataclass(frozen=True, slots=True)
class Shards(Table):
    """The plan: one row a shard, sorted by (day, station, band)."""

    day: Text = column("str", doc='UTC day, "YYYY-MM-DD"')
    station: Text = column("str", doc='"NET.STA.LOC"')
    band: Text = column("str", doc='band and instrument code, "HH"')
    bytes: Int = column("int64", "byte", "size of its files when planned: the estimate of its cost")
    volume: Text = column("str", doc='first day of the file its picks go to; "": its own day', default="")
    changes_ns: Int = column("int64", "ns", "times of the last changes of its files, summed; 0: not known", default=0)

    def rows(self) -> list[Shard]:
        """The same as `Shard` objects."""
        keys = zip(self.day.tolist(), self.station.tolist(), self.band.tolist(), strict=True)
        return [Shard(date.fromisoformat(day), station, band) for day, station, band in keys]

    def shard(self, row: int) -> Shard:
        """The same as ``rows()[row]``."""
        return Shard(date.fromisoformat(str(self.day[row])), str(self.station[row]), str(self.band[row]))

    def rows_of(self, ids: Collection[str]) -> Int:
        """The rows of the shards ``ids``, sorted; of those that are in the table."""
        wanted = set(ids)
        rows = np.flatnonzero(np.isin(self.day, sorted({id_[:10] for id_ in wanted})))
        return rows[np.array([self.shard(row).id in wanted for row in rows.tolist()], np.bool_)]

    @property
    def volumes(self) -> Text:
        """(n,) the volume of each row, "YYYY-MM-DD"."""
        return np.where(self.volume == "", self.day, self.volume)


@dataclass(frozen=True, slots=True)
class Outcomes(Table):
    """How the shards ended, one row a shard, sorted by shard."""

    shard: Text = column("str", doc='"YYYY-MM-DD/NET.STA.LOC.BAND"')
    end: Text = column("str", doc='"picked", "empty" or "failed"')
    reason: Text = column("str", doc="why it is empty or failed")
    n_picks: Int = column("int64", "1", "number of picks")
    valid_fraction: Float = column("float64", "1", "share of the shard's span with data")
    notes: Text = column("str", doc='what was repaired, joined by "; "')

    def rows(self) -> list[Outcome]:
        """The same as `Outcome` objects; notes stay one text."""
        columns = (self.shard, self.end, self.reason, self.n_picks, self.valid_fraction, self.notes)
        rows = zip(*(values.tolist() for values in columns), strict=True)
        return [Outcome(s, end, why, n, part, (notes,) if notes else ()) for s, end, why, n, part, notes in rows]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Outcomes:
        rows = sorted(outcomes, key=lambda outcome: outcome.shard)
        return cls(
            np.array([o.shard for o in rows], np.str_),
            np.array([o.end for o in rows], np.str_),
            np.array([o.reason for o in rows], np.str_),
            np.array([o.n_picks for o in rows], np.int64),
            np.array([o.valid_fraction for o in rows], np.float64),
            np.array(["; ".join(o.notes) for o in rows], np.str_),
        )
