"""The nouns of a catalogue: events, where and how sure, and what analysts say of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.records.table import NAN, Float, Int, Table, Text, column


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
class Origins(Table):
    """Located events, one row an event, sorted by (time_ns, id). NaN where not known, -1 for a number.

    The covariance is of east (x), north (y) and down (z). The ellipsoid holds the place with 68 %; its major axis
    points to ``ellipsoid_azimuth_deg`` and down by ``ellipsoid_plunge_deg``.
    """

    id: Text = column("str", name="event_id")
    time_ns: Int = column("int64", "ns", "origin time, UTC")
    latitude_deg: Float = column("float64", "deg", "WGS84")
    longitude_deg: Float = column("float64", "deg", "WGS84")
    depth_km: Float = column("float64", "km", "below sea level; negative: above it")
    sigma_time_s: Float = column("float64", "s", "standard deviation of the origin time", default=NAN)
    cov_xx_km2: Float = column("float64", "km2", "variance of east", default=NAN)
    cov_xy_km2: Float = column("float64", "km2", "covariance of east and north", default=NAN)
    cov_xz_km2: Float = column("float64", "km2", "covariance of east and down", default=NAN)
    cov_yy_km2: Float = column("float64", "km2", "variance of north", default=NAN)
    cov_yz_km2: Float = column("float64", "km2", "covariance of north and down", default=NAN)
    cov_zz_km2: Float = column("float64", "km2", "variance of down", default=NAN)
    erh_km: Float = column("float64", "km", "horizontal error", default=NAN)
    erz_km: Float = column("float64", "km", "vertical error", default=NAN)
    ellipsoid_major_km: Float = column("float64", "km", "longest semi-axis, 68 %", default=NAN)
    ellipsoid_intermediate_km: Float = column("float64", "km", "middle semi-axis, 68 %", default=NAN)
    ellipsoid_minor_km: Float = column("float64", "km", "shortest semi-axis, 68 %", default=NAN)
    ellipsoid_azimuth_deg: Float = column("float64", "deg", "of the longest axis, clockwise from north", default=NAN)
    ellipsoid_plunge_deg: Float = column("float64", "deg", "of the longest axis, down from horizontal", default=NAN)
    gap_deg: Float = column("float64", "deg", "largest azimuthal gap between stations with a pick", default=NAN)
    secondary_gap_deg: Float = column("float64", "deg", "largest gap that one station closes", default=NAN)
    nearest_km: Float = column("float64", "km", "epicentral distance of the nearest station with a pick", default=NAN)
    rms_s: Float = column("float64", "s", "root mean square of the residuals of the picks used", default=NAN)
    n_p: Int = column("int64", "1", "number of P picks", default=-1)
    n_s: Int = column("int64", "1", "number of S picks", default=-1)
    n_stations: Int = column("int64", "1", "number of stations with a pick", default=-1)
    n_used: Int = column("int64", "1", "number of picks that the location used", default=-1)
    depth_kind: Text = column("str", doc='"free", or "fixed: " and the reason; "": not known', default="")
    magnitude: Float = column("float64", "1", "NaN: none", default=NAN)
    magnitude_kind: Text = column("str", doc='"ML"; "": of no known scale, or none', default="")
    magnitude_sigma: Float = column("float64", "1", "spread of the stations' magnitudes", default=NAN)
    magnitude_n: Int = column("int64", "1", "number of stations with a magnitude", default=-1)
    magnitude_reason: Text = column("str", doc="why there is no magnitude", default="")
    probability: Float = column("float64", "1", "that it is a real event", default=NAN)
    is_duplicate_of: Text = column("str", doc='id of the event that this one repeats; "": none', default="")
    blast_score: Float = column("float64", "1", "how much speaks for a quarry blast", default=NAN)
    kind: Text = column("str", doc='event type: "earthquake", "quarry blast", ...', default="earthquake")


@dataclass(frozen=True, slots=True)
class LocatedArrivals(Table):
    """The picks of located events, one row a pick, sorted by (event, time_ns, station, phase)."""

    event: Text = column("str", doc="id of the event", name="event_id")
    station: Text = column("str", doc='"NET.STA.LOC.BAND"')
    phase: Text = column("str", doc='"P" or "S"')
    time_ns: Int = column("int64", "ns", "arrival, UTC")
    sigma_s: Float = column("float64", "s", "standard deviation of the pick", default=NAN)
    weight: Float = column("float64", "1", "in the location, 0 for a pick that it left out", default=NAN)
    residual_s: Float = column("float64", "s", "observed minus predicted, station terms applied", default=NAN)
    predicted_ns: Int = column("int64", "ns", "predicted arrival, station terms applied, UTC; 0: not known", default=0)
    distance_km: Float = column("float64", "km", "epicentral", default=NAN)
    azimuth_deg: Float = column("float64", "deg", "from epicentre to station, clockwise from north", default=NAN)
    takeoff_deg: Float = column(
        "float64", "deg", "of the ray at the source: 0 down, 90 horizontal, 180 up", default=NAN
    )
    wood_anderson_mm: Float = column("float64", "mm", "amplitude of an S pick, zero to peak; NaN: none", default=NAN)
    magnitude: Float = column(
        "float64", "1", "ML of this amplitude, station correction applied; NaN: none", default=NAN
    )


@dataclass(frozen=True, slots=True)
class StationTerms(Table):
    """What each station adds to the travel times of the model, one row a station and phase with picks, sorted."""

    station: Text = column("str", doc='"NET.STA"')
    phase: Text = column("str", doc='"P" or "S"')
    term_s: Float = column("float64", "s", "added to predicted arrivals; 0 on average over P picks")
    sigma_s: Float = column("float64", "s", "standard deviation of the term")
    n: Int = column("int64", "1", "number of picks it is made of")


@dataclass(frozen=True, slots=True)
class Decisions(Table):
    """What analysts decided on events of ours, one row a decision, sorted by (time_ns, event)."""

    event: Text = column("str", doc="id of the event in the catalogue that was reviewed", name="event_id")
    time_ns: Int = column("int64", "ns", "origin time there, UTC")
    latitude_deg: Float = column("float64", "deg", "WGS84")
    longitude_deg: Float = column("float64", "deg", "WGS84")
    decision: Text = column("str", doc='"accept", "reject", "quarry blast" or "unsure"')
    comment: Text = column("str", doc="free text", default="")
    who: Text = column("str", doc="who decided", default="")
    when_ns: Int = column("int64", "ns", "when that was, UTC; 0: not said", default=0)


@dataclass(frozen=True, slots=True)
class StationHealth(Table):
    """How each station did on each UTC day, sorted by (day, station). NaN where not known.

    Residuals are without station terms: what is the station's own shows in them. Drifts are of the last picks, of at
    most a week, from the station's own days before.
    """

    day: Text = column("str", doc='UTC day, "YYYY-MM-DD"')
    station: Text = column("str", doc='"NET.STA"')
    status: Text = column("str", doc='"ok", "watch", "bad"; "": not judged')
    reason: Text = column("str", doc="what is wrong, in words")
    hours: Float = column("float64", "h", "of data; NaN: picks were imported")
    hours_planned: Float = column("float64", "h", "of the day in the run's period; NaN: picks were imported")
    n_picks: Int = column("int64", "1", "number of picks")
    n_in_events: Int = column("int64", "1", "number of them in events")
    n_p: Int = column("int64", "1", "number of P picks with a residual")
    median_p_s: Float = column("float64", "s", "median residual of P picks")
    n_s: Int = column("int64", "1", "number of S picks with a residual")
    median_s_s: Float = column("float64", "s", "median residual of S picks")
    snr_db: Float = column("float64", "dB", "median signal to noise of its picks")
    exposed: Int = column("int64", "1", "number of events that most of its neighbours picked")
    heard: Int = column("int64", "1", "number of these that it picked, too")
    drift_p_s: Float = column("float64", "s", "of the residual of P picks", default=NAN)
    drift_s_s: Float = column("float64", "s", "of the residual of S picks", default=NAN)
    clock_s: Float = column("float64", "s", "how much its clock may be late; NaN: no suspicion", default=NAN)

    def ordered(self) -> StationHealth:
        """The same sorted by day and station."""
        return self.take(np.lexsort((self.station, self.day)))
