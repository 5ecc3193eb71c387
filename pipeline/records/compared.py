"""The nouns of a comparison with a reference."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.records.table import Bool, Float, Int, Table, Text, column


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
class Missed(Table):
    """Every missed event of a comparison with the reason why, in the order of `ComparedEvents`.

    An arrival is a phase at a station: of the reference's picks, or predicted where it has none.
    """

    event: Text = column("str", doc="id in the reference", name="event_id")
    time_ns: Int = column("int64", "ns", "origin time in the reference, UTC")
    kind: Text = column("str", doc="event type in the reference")
    reason: Text = column("str", doc="one of a fixed list, see docs/decisions/024")
    rule: Text = column("str", doc='the rule of [associate] that is not met; "": it is about none')
    detail: Text = column("str", doc="what was found, one sentence")
    other: Text = column("str", doc='id of the event of ours that the reason is about; "": none')
    dt_s: Float = column("float64", "s", "origin time of that, ours minus theirs")
    distance_km: Float = column("float64", "km", "between its epicentre and theirs")
    predicted: Bool = column("bool", doc="the reference has no picks of it: its arrivals are predicted")
    n_arrivals: Int = column("int64", "1", "number of arrivals that could have been picked")
    n_data: Int = column("int64", "1", "of these, with data; -1: not known, the picks are imported")
    n_picked: Int = column("int64", "1", "of these, with a pick of ours")
    n_associated: Int = column("int64", "1", "of these, in an event of ours")
