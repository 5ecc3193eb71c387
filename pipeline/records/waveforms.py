"""The nouns from stations and waveforms to picks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.records.table import NAN, Bool, Float, Float32, Int, Table, Text, column


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
    wood_anderson_mm: Float32 = column(
        "float32", "mm", "largest Wood-Anderson amplitude after an S pick, zero to peak; NaN: not known", default=NAN
    )
    amplitude_reason: Text = column("str", doc='why an amplitude is not known; "": it is, or nobody asked', default="")
    sigma_s: Float32 = column(
        "float32", "s", "standard deviation of the time, as an analyst's weight says; NaN: not known", default=NAN
    )

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
