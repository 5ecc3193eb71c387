"""The nouns of the pipeline: frozen, columnar, validated once, at birth. NumPy only.

Times are int64 nanoseconds since 1970-01-01 UTC. A name carries its unit. ``(n,)`` is length n.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import Field, dataclass, field, fields
from datetime import date
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

NS = 1_000_000_000  # nanoseconds in one second
DAY_NS = 86_400 * NS
NAN = float("nan")

Text = NDArray[np.str_]
Int = NDArray[np.int64]
Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]


def column(dtype: str, unit: str = "", doc: str = "", name: str = "", default: float | str | None = None) -> Any:
    """A column of a `Table`: its NumPy dtype (``"str"`` for text of any width), unit and meaning.

    ``name`` is what it is called in a file, where that is not the field's own name. A file without the column, as one
    written before there was such a column, is read as if it held ``default`` in every row; None: it must be there.
    """
    return field(metadata={"dtype": dtype, "unit": unit, "doc": doc, "name": name, "default": default})


@dataclass(frozen=True, slots=True)
class Table:
    """Base of the columnar records: columns of one length and of the declared dtypes.

    Raises ValueError on columns of different lengths, TypeError on a wrong dtype.
    """

    def __post_init__(self) -> None:
        columns = fields(self)
        n = len(getattr(self, columns[0].name))
        for f in columns:
            values = getattr(self, f.name)
            where = f"{type(self).__name__}.{f.name}"
            if not isinstance(values, np.ndarray) or values.shape != (n,):
                raise ValueError(f"{where} has shape {np.shape(values)}, expected ({n},)")
            if not _has_dtype(values, f.metadata["dtype"]):
                raise TypeError(f"{where} is {values.dtype}, expected {f.metadata['dtype']}")

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    @classmethod
    def columns(cls) -> tuple[Field[Any], ...]:
        return fields(cls)

    @classmethod
    def empty(cls) -> Self:
        return cls(*(np.empty(0, "U1" if f.metadata["dtype"] == "str" else f.metadata["dtype"]) for f in fields(cls)))

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All rows of ``parts``, in their order."""
        if not parts:
            return cls.empty()
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def take(self, index: NDArray[Any] | slice) -> Self:
        """The rows that ``index`` (integers, booleans or a slice) selects."""
        return type(self)(*(getattr(self, f.name)[index] for f in fields(self)))

    def as_dict(self) -> dict[str, NDArray[Any]]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def _has_dtype(values: NDArray[Any], dtype: str) -> bool:
    return values.dtype.kind == "U" if dtype == "str" else values.dtype == np.dtype(dtype)


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """One unit of work and of restart: one station and one UTC day.

    The id names the data and nothing else, so adding a station renames nothing.
    """

    day: date
    station: str  # "NET.STA.LOC", for example "CI.CCC."
    band: str  # band and instrument code: "HH", "EH", ...

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
        """Half-open [start, stop) of the day, ns UTC: a pick belongs to exactly one shard."""
        start = int(np.datetime64(self.day, "ns").astype(np.int64))
        return start, start + DAY_NS

    def within_ns(self, span_ns: tuple[int, int]) -> tuple[int, int]:
        """The part of the day inside ``span_ns``, half-open too; empty (stop <= start) where they do not meet."""
        start, stop = self.span_ns
        return max(start, span_ns[0]), min(stop, span_ns[1])


@dataclass(frozen=True, slots=True)
class Stations(Table):
    """Sites with coordinates, one row a site and epoch."""

    id: Text = column("str", doc='"NET.STA"')
    latitude_deg: Float = column("float64", "deg", "WGS84, north positive")
    longitude_deg: Float = column("float64", "deg", "WGS84, east positive")
    elevation_m: Float = column("float64", "m", "above sea level")
    start_ns: Int = column("int64", "ns", "first instant of the epoch, UTC")
    end_ns: Int = column("int64", "ns", "end of the epoch, exclusive, UTC")


@dataclass(frozen=True, slots=True)
class Waveform:
    """Three components of one station on one regular time axis.

    ``samples`` float32 (3, n), rows Z N E (or Z 1 2), in counts or m/s; 0 where not valid.
    ``valid`` bool (n,): False in gaps. ``components`` which of the three rows carry data.
    """

    samples: Float32
    valid: Bool
    start_ns: int
    rate_hz: float
    components: tuple[bool, bool, bool]

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.shape[0] != 3 or self.samples.dtype != np.float32:
            raise ValueError(f"Waveform.samples is {self.samples.dtype} {self.samples.shape}, expected float32 (3, n)")
        if self.valid.shape != (self.samples.shape[1],) or self.valid.dtype != np.bool_:
            raise ValueError(f"Waveform.valid is {self.valid.dtype} {self.valid.shape}, expected bool (n,)")
        if not self.rate_hz > 0:
            raise ValueError(f"Waveform.rate_hz is {self.rate_hz}, expected > 0")

    def __len__(self) -> int:
        return self.samples.shape[1]


@dataclass(frozen=True, slots=True)
class Picks(Table):
    """Phase picks, one row a pick, sorted by (time_ns, station, phase)."""

    station: Text = column("str", doc='"NET.STA.LOC.BAND"')
    phase: Text = column("str", doc='"P" or "S"')
    time_ns: Int = column("int64", "ns", "arrival, UTC")
    probability: Float32 = column("float32", "1", "the picker's peak value, 0 to 1")
    width_s: Float32 = column("float32", "s", "full width at half maximum of the probability peak; NaN: not known")
    snr_db: Float32 = column("float32", "dB", "20 log10 of RMS after the pick over RMS before it; NaN: not known")
    gap_s: Float32 = column("float32", "s", "distance to the nearest gap or end of data; NaN: not known")
    amplitude_m_s: Float32 = column("float32", "m/s", "peak ground velocity near the pick; NaN: not known", default=NAN)

    def __post_init__(self) -> None:
        super(Picks, self).__post_init__()
        if len(self) and not ((self.probability >= 0) & (self.probability <= 1)).all():
            raise ValueError("Picks.probability outside [0, 1]")

    def ordered(self) -> Picks:
        """The same picks sorted by (time_ns, station, phase, probability, amplitude_m_s): the one canonical order."""
        keys = (self.amplitude_m_s, self.probability, self.phase, self.station, self.time_ns)
        return self.take(np.lexsort(keys))


@dataclass(frozen=True, slots=True)
class ForeignPicks(Table):
    """Picks as other programs keep them, one row a pick, in any order."""

    station: Text = column("str", doc='station as that program names it: "STA", "NET.STA", "NET.STA.LOC.BAND"')
    phase: Text = column("str", doc='"P" or "S"')
    time_ns: Int = column("int64", "ns", "arrival, UTC", name="timestamp_ns")
    probability: Float = column("float64", "1", "0 to 1")
    amplitude_m_s: Float = column("float64", "m/s", "peak ground velocity near the pick", default=NAN)
    amplitude: Float = column("float64", "m/s", "the same by another name", default=NAN)


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
class Events(Table):
    """Earthquakes, one row an event, sorted by (time_ns, id). NaN where not known."""

    id: Text = column("str", name="event_id")
    time_ns: Int = column("int64", "ns", "origin time, UTC")
    latitude_deg: Float = column("float64", "deg", "WGS84", name="latitude")
    longitude_deg: Float = column("float64", "deg", "WGS84", name="longitude")
    depth_km: Float = column("float64", "km", "below sea level")
    magnitude: Float = column(
        "float64", "1", "of ours the weighted median of the picks' on GaMMA's scale of amplitudes, which is not ML"
    )
    sigma_time_s: Float = column("float64", "s", "root mean square of the travel-time residuals")
    n_p: Int = column("int64", "1", "number of P picks")
    n_s: Int = column("int64", "1", "number of S picks")
    n_stations: Int = column("int64", "1", "number of stations with a pick")
    gap_deg: Float = column("float64", "deg", "largest azimuthal gap between stations with a pick")
    nearest_km: Float = column("float64", "km", "epicentral distance of the nearest station with a pick")
    score: Float = column("float64", "1", "sum of the picks' responsibilities (GaMMA score); NaN: not known")
    kind: Text = column("str", doc='event type: "earthquake", "quarry blast", ...')
    n_pairs: Int = column("int64", "1", "number of stations with a P and an S pick; -1: not known", default=-1)
    sigma_log_amplitude: Float = column(
        "float64", "1", "root mean square of the residuals of log10 amplitude; NaN: no amplitudes", default=NAN
    )


@dataclass(frozen=True, slots=True)
class Assignments(Table):
    """Which pick belongs to which event, one row a pick in an event."""

    event: Text = column("str", doc="id of the event", name="event_id")
    station: Text = column("str", doc='"NET.STA.LOC.BAND"')
    phase: Text = column("str", doc='"P" or "S"')
    time_ns: Int = column("int64", "ns", "arrival, UTC")
    probability: Float = column("float64", "1", "responsibility: that the pick belongs to the event; NaN: not known")
    residual_s: Float = column("float64", "s", "observed minus predicted arrival")
    residual_log_amplitude: Float = column(
        "float64", "1", "log10 of observed over predicted amplitude; NaN: not known", default=NAN
    )


@dataclass(frozen=True, slots=True)
class Scores:
    """Probabilities of one station on one regular time axis.

    ``probability`` float32 (phases, n), NaN where no window saw; ``phases`` names the rows ("P", "S").
    """

    probability: Float32
    phases: tuple[str, ...]
    start_ns: int
    rate_hz: float

    def __post_init__(self) -> None:
        rows = self.probability.shape[0] if self.probability.ndim == 2 else -1
        if rows != len(self.phases) or self.probability.dtype != np.float32:
            shape = self.probability.shape
            raise ValueError(f"Scores.probability is {self.probability.dtype} {shape} for phases {self.phases}")


@dataclass(frozen=True, slots=True)
class Runs:
    """Where probability traces trigger: their runs of samples of at least half the threshold that reach it.

    ``phase`` int64 (k,), index into ``phases``; ``first`` int64 (k,), the sample where each run begins;
    ``probability`` float32 (m,), the runs one after the other, each with the one sample before and the one after
    it, NaN where there is none; ``stop`` int64 (k,), where each ends in ``probability``. Sorted by (phase, first).
    The time axis is that of the waveform: ``n`` samples from ``start_ns`` at ``rate_hz``.
    """

    phase: Int
    first: Int
    stop: Int
    probability: Float32
    phases: tuple[str, ...]
    n: int
    start_ns: int
    rate_hz: float


@dataclass(frozen=True, slots=True)
class Arrivals(Table):
    """Picks of a reference bulletin, one row an arrival."""

    event: Text = column("str", doc="id of the event in its bulletin; empty: none")
    station: Text = column("str", doc='station as the bulletin names it: "STA" or "NET.STA"')
    phase: Text = column("str", doc='"P" or "S"')
    time_ns: Int = column("int64", "ns", "arrival, UTC")
    weight: Int = column("int64", "1", "analyst's weight, 0 best to 4 unused; -1: not known")


@dataclass(frozen=True, slots=True)
class ComparedEvents(Table):
    """Every event of both catalogues, once: "matched", "missed" (only theirs) or "new" (only ours).

    ``our_x`` and ``their_x`` are the column ``x`` of `Events`. What a row lacks is "" or NaN, and 0 for a time
    or a number of picks; a number of picks is -1 where the reference has the event but lists no picks.
    """

    status: Text = column("str", doc='"matched", "missed" or "new"')
    ours: Text = column("str", doc="id in our catalogue")
    theirs: Text = column("str", doc="id in the reference")
    our_time_ns: Int = column("int64", "ns", "origin time, UTC")
    their_time_ns: Int = column("int64", "ns", "origin time, UTC")
    our_latitude_deg: Float = column("float64", "deg")
    our_longitude_deg: Float = column("float64", "deg")
    our_depth_km: Float = column("float64", "km", "below sea level")
    our_magnitude: Float = column("float64", "1")
    our_sigma_time_s: Float = column("float64", "s", "root mean square of the travel-time residuals")
    our_gap_deg: Float = column("float64", "deg", "largest azimuthal gap between stations")
    our_nearest_km: Float = column("float64", "km", "epicentral distance of the nearest station with a pick")
    our_score: Float = column("float64", "1", "sum of the picks' responsibilities (GaMMA score); NaN: not known")
    our_n_stations: Int = column("int64", "1", "number of stations with a pick")
    their_latitude_deg: Float = column("float64", "deg")
    their_longitude_deg: Float = column("float64", "deg")
    their_depth_km: Float = column("float64", "km", "below sea level")
    their_magnitude: Float = column("float64", "1")
    their_sigma_time_s: Float = column("float64", "s", "root mean square of the travel-time residuals")
    their_gap_deg: Float = column("float64", "deg", "largest azimuthal gap between stations")
    their_nearest_km: Float = column("float64", "km", "epicentral distance of the nearest station with a pick")
    their_n_p: Int = column("int64", "1", "their P picks; -1: not known")
    their_n_s: Int = column("int64", "1", "their S picks; -1: not known")
    magnitude: Float = column("float64", "1", "of the reference, ours where it has none")
    n_p: Int = column("int64", "1", "our P picks")
    n_s: Int = column("int64", "1", "our S picks")
    dt_s: Float = column("float64", "s", "origin time, ours minus theirs")
    distance_km: Float = column("float64", "km", "between the epicentres")
    depth_difference_km: Float = column("float64", "km", "ours minus theirs")
    kind: Text = column("str", doc="event type in the reference")


@dataclass(frozen=True, slots=True)
class ComparedPicks(Table):
    """Every pick of both, once: "matched", "missed" (only theirs) or "new" (only ours).

    What a row lacks is "" or NaN, 0 for a time and -1 for a weight.
    """

    status: Text = column("str", doc='"matched", "missed" or "new"')
    station: Text = column("str", doc='"NET.STA"')
    our_phase: Text = column("str", doc='"P", "S" or ""')
    their_phase: Text = column("str", doc='"P", "S" or ""')
    our_time_ns: Int = column("int64", "ns", "arrival, UTC")
    their_time_ns: Int = column("int64", "ns", "arrival, UTC")
    probability: Float = column("float64", "1", "of our pick")
    width_s: Float = column("float64", "s", "of our pick: full width at half maximum of the peak; NaN: not known")
    snr_db: Float = column("float64", "dB", "of our pick: 20 log10 of RMS after over RMS before it; NaN: not known")
    gap_s: Float = column("float64", "s", "from our pick to the nearest gap or end of data; NaN: not known")
    their_weight: Int = column("int64", "1", "analyst's weight, 0 best to 4 unused; -1: not known")
    dt_s: Float = column("float64", "s", "ours minus theirs")
    our_event: Text = column("str", doc="event of our pick; empty: noise")
    their_event: Text = column("str", doc="event of their pick")


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
