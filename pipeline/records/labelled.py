"""The noun of a labelled set: records of one station each with what an analyst picked on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.records.table import NAN, NS, Bool, Float, Int, Table, Text, column

UNKNOWN_NS = -1  # of a time: not known
COMPONENTS = ("Z", "N", "E", "ZN", "ZE", "NE", "ZNE")


@dataclass(frozen=True, slots=True)
class Labelled(Table):
    """Records with their picks, one row a record. The waveforms are float32 (n, 3, length), rows Z N E, in this order.

    Samples count from the first of the record, and need not be whole. Only the samples ``first`` to ``stop``
    (exclusive) may be shown to a network: what lies outside is filling, or has picks that are not in the row.
    """

    id: Text = column("str", doc="unique in its set")
    event: Text = column("str", doc='earthquake it belongs to; "": a record of noise')
    station: Text = column("str", doc='"NET.STA"')
    channel: Text = column("str", doc='"NET.STA.LOC.BAND"')
    start_ns: Int = column("int64", "ns", "time of the first sample, UTC; -1: not known")
    rate_hz: Float = column("float64", "Hz", "sampling rate")
    p_sample: Float = column("float64", "sample", "P onset; NaN: none")
    s_sample: Float = column("float64", "sample", "S onset; NaN: none")
    components: Text = column("str", doc='which rows carry data: "ZNE", "Z", ...')
    source: Text = column("str", doc="where it comes from: a file, a dataset, an archive")
    latitude_deg: Float = column("float64", "deg", "of the station, WGS84; NaN: not known", default=NAN)
    longitude_deg: Float = column("float64", "deg", "of the station, WGS84; NaN: not known", default=NAN)
    elevation_m: Float = column("float64", "m", "of the station, above sea level; NaN: not known", default=NAN)
    first: Int = column("int64", "sample", "first sample that may be used", default=0)
    stop: Int = column("int64", "sample", "end of those, exclusive; -1: the end of the record", default=-1)

    def __post_init__(self) -> None:
        super(Labelled, self).__post_init__()
        wrong = {
            "rate_hz is not positive": ~(self.rate_hz > 0),
            "S lies before P": self.s_sample < self.p_sample,
            f"components is none of {', '.join(COMPONENTS)}": ~np.isin(self.components, COMPONENTS),
            "stop does not lie after first": (self.stop >= 0) & (self.stop <= self.first),
            "there are picks and no event": (self.event == "") & self.has_pick,
        }
        for what, rows in wrong.items():
            if rows.any():
                raise ValueError(f"Labelled, record {self.id[rows][0]!r}: {what} ({np.count_nonzero(rows)} rows)")

    @property
    def has_pick(self) -> Bool:
        """(n,) whether a P or an S is known."""
        picked: Bool = np.isfinite(self.p_sample) | np.isfinite(self.s_sample)
        return picked

    @property
    def has_time(self) -> Bool:
        """(n,) whether it is known when the record was made."""
        known: Bool = self.start_ns != UNKNOWN_NS
        return known

    def spans_ns(self) -> tuple[Int, Int]:
        """(n,) from when to when each record may be used, UTC; where ``stop`` is -1, to its last pick or its start.

        A record without time has -1 twice.
        """
        last = np.where(np.isfinite(self.s_sample), self.s_sample, self.p_sample)
        end = np.where(self.stop >= 0, self.stop, np.where(np.isfinite(last), last, self.first))
        begin, until = (
            self.start_ns + np.round(samples / self.rate_hz * NS).astype(np.int64) for samples in (self.first, end)
        )
        known = self.has_time
        return np.where(known, begin, UNKNOWN_NS), np.where(known, np.maximum(begin, until), UNKNOWN_NS)


@dataclass(frozen=True, slots=True)
class RecordPicks(Table):
    """Picks that a picker, or STA/LTA, made on labelled records, sorted by (set, how, record, phase, time)."""

    set: Text = column("str", doc="the labelled set")
    how: Text = column("str", doc='"given": thresholds of [pick]; "tuned": on the validation; "weak": all from 0.05')
    record: Text = column("str", doc="id of the record")
    phase: Text = column("str", doc="P or S")
    time_s: Float = column("float64", "s", "from the first sample of the record")
    probability: Float = column("float64", doc="0 to 1")
