"""How much speaks for a quarry blast: the hour and the day of the week, the depth, and what else happens at the place.

Bayes' rule with numbers that are believed, not fitted: each of them stands below, and `pipeline.config` has those that
differ from country to country. A score is a reason to look, not a verdict. Only in the long run do earthquakes come at
all hours: an afternoon of aftershocks is in working hours altogether. So the events of one day count as one, those of
its own day tell an event nothing, and a catalogue of a few days has no scores but where a quarry is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial import cKDTree
from scipy.special import expit

from pipeline.maths import geo
from pipeline.records import NS, Bool, Events, Float, Int, Origins

AT_WORK = 0.95  # of the blasts are fired in working hours
DEPTH_KM = 1.5  # standard deviation of the depth of blasts where locations are good
DEPTH_RANGE_KM = 15.0  # over which earthquakes are spread
QUARRY = 0.03  # of the places with events are quarries, before their events are looked at
BLASTS_THERE = 0.8  # of the events at a quarry are blasts
BLASTS_ELSEWHERE = 0.01
LEAST_DAYS = 7  # from the first event to the last: a week has working days and others
AT_ONCE = 4096
FREE = "free"  # the depth kind of an event with a depth of its own


@dataclass(frozen=True, slots=True)
class Custom:
    """When and where people blast. ``zone``: IANA name of the local time; "": the sun's time, from the longitude."""

    zone: str = ""
    hours: tuple[float, float] = (7.0, 18.0)  # half-open, local
    days: tuple[int, ...] = (0, 1, 2, 3, 4)  # Monday is 0
    near_km: float = 4.0  # how far apart two events of one quarry may be
    quarries: tuple[tuple[float, float], ...] = ()  # latitude and longitude of those that are known

    @property
    def share_of_time(self) -> float:
        """How much of all time is working hours; never all of it, for then they would tell nothing."""
        return min((self.hours[1] - self.hours[0]) / 24.0 * len(self.days) / 7.0, 0.99)


def blast_scores(events: Events | Origins, custom: Custom) -> Float:
    """The probability (n,) that each event is a blast, by what is believed above; NaN where nothing can be said.

    The place counts through the events near it on other days: many, and almost all in working hours, make a quarry of
    it; by night as well, they do not. Near a quarry that is known it counts as one. The depth counts if it is not
    fixed, with its error where that is known. Without such a quarry there is no score if `LEAST_DAYS` are not reached.
    """
    at_work, day = _working(events.time_ns, events.longitude_deg, custom)
    share = custom.share_of_time
    time = np.where(at_work, np.log(AT_WORK / share), np.log((1 - AT_WORK) / (1 - share)))
    known = _known(events, custom)
    quarry = np.where(known, 1.0, expit(_place(events, (at_work, day), custom)))
    prior = quarry * BLASTS_THERE + (1 - quarry) * BLASTS_ELSEWHERE
    score: Float = expit(np.log(prior / (1 - prior)) + time + _depth(events))
    return np.where(known | (np.ptp(day) + 1 >= LEAST_DAYS if len(day) else False), score, np.nan)


def working(time_ns: Int, longitude_deg: Float, custom: Custom) -> Bool:
    """Which times (n,) are in the working hours of their place."""
    return _working(time_ns, longitude_deg, custom)[0]


def _working(time_ns: Int, longitude_deg: Float, custom: Custom) -> tuple[Bool, Int]:
    """Which times (n,) are in the working hours of their place, and their local days."""
    hour, day = local_time(time_ns, longitude_deg, custom.zone)
    weekday = (day + 3) % 7  # 1970-01-01 was a Thursday
    at_work: Bool = (hour >= custom.hours[0]) & (hour < custom.hours[1]) & np.isin(weekday, custom.days)
    return at_work, day


def local_time(time_ns: Int, longitude_deg: Float, zone: str) -> tuple[Float, Int]:
    """Hour of the day (n,), [0, 24), and day (n,), 0 is 1 January 1970, in ``zone`` or by the sun.

    Raises KeyError (ZoneInfoNotFoundError) for a zone that this machine does not know.
    """
    if zone:
        seconds = time_ns / NS + np.array(list(_offset_s(time_ns, ZoneInfo(zone))), np.float64)
    else:
        seconds = time_ns / NS + longitude_deg * 240.0
    days = np.floor(seconds / 86400.0)
    return (seconds - 86400.0 * days) / 3600.0, days.astype(np.int64)


def _offset_s(time_ns: Int, zone: ZoneInfo) -> Iterator[float]:
    for second in (time_ns // NS).tolist():
        offset = datetime.fromtimestamp(second, UTC).astimezone(zone).utcoffset()
        yield offset.total_seconds() if offset else 0.0


def _depth(events: Events | Origins) -> Float:
    """Logarithm (n,) of how much likelier a depth is of a blast: normal around 0, against an even spread;
    0 where it is not known."""
    depth = np.where(np.isfinite(events.depth_km), events.depth_km, 0.0)
    error, known = np.zeros(len(events)), np.isfinite(events.depth_km)
    if isinstance(events, Origins):
        error = np.nan_to_num(events.erz_km)
        known = known & np.isin(events.depth_kind, (FREE, ""))
    sigma = np.hypot(DEPTH_KM, error)
    blast = np.exp(-0.5 * (np.maximum(depth, 0.0) / sigma) ** 2) * 2 / (sigma * np.sqrt(2 * np.pi))
    return np.where(known, np.log(np.maximum(blast * DEPTH_RANGE_KM, 1e-3)), 0.0)


def _known(events: Events | Origins, custom: Custom) -> Bool:
    """Which events (n,) are near a quarry that is known."""
    near = np.zeros(len(events), bool)
    for latitude_deg, longitude_deg in custom.quarries:
        near |= (
            geo.distance_km(events.latitude_deg, events.longitude_deg, latitude_deg, longitude_deg) <= custom.near_km
        )
    return near


def _place(events: Events | Origins, when: tuple[Bool, Int], custom: Custom) -> Float:
    """Log odds (n,) that the place is a quarry, by the other days with events there: in working hours or not.

    ``when``: which events (n,) are in working hours, and their days."""
    n, k = _other_days(events, when, custom.near_km)
    there = BLASTS_THERE * AT_WORK + (1 - BLASTS_THERE) * custom.share_of_time
    gain, loss = np.log(there / custom.share_of_time), np.log((1 - there) / (1 - custom.share_of_time))
    odds: Float = np.log(QUARRY / (1 - QUARRY)) + k * gain + (n - k) * loss
    return odds


def _other_days(events: Events | Origins, when: tuple[Bool, Int], near_km: float) -> tuple[Float, Float]:
    """On how many other days there were events near each (n,), and how many of these days, each by the share of its
    events, were in working hours. Places are rounded to a tenth of ``near_km``: a swarm is then a few places."""
    n, k = np.zeros(len(events)), np.zeros(len(events))
    place, near = _places(events, near_km)
    days, day = np.unique(when[1], return_inverse=True)
    size = near.shape[0], len(days)
    count = csr_array((np.ones(len(events)), (place, day)), size)
    at_work = csr_array((when[0].astype(np.float64), (place, day)), size)
    for a in range(0, size[0], AT_ONCE):
        every, then = near[a : a + AT_ONCE] @ count, near[a : a + AT_ONCE] @ at_work
        share = then.multiply(every.power(-1)).tocsr()
        rows = np.flatnonzero((place >= a) & (place < a + AT_ONCE))
        mine = place[rows] - a
        n[rows] = np.diff(every.indptr)[mine] - 1
        k[rows] = share.sum(1)[mine] - share[mine, day[rows]]
    return n, k


def _places(events: Events | Origins, near_km: float) -> tuple[Int, csr_array]:
    """The place of each event (n,), and which places (m, m) are near each other, 1 or nothing."""
    if not len(events):
        return np.empty(0, np.int64), csr_array((0, 0))
    centre = float(np.mean(events.latitude_deg)), float(np.mean(events.longitude_deg))
    xy = np.column_stack(geo.stereographic(events.latitude_deg, events.longitude_deg, *centre))
    places, place = np.unique(np.rint(10 * xy / near_km).astype(np.int64), axis=0, return_inverse=True)
    i, j = cKDTree(places).query_pairs(10.0, output_type="ndarray").T
    itself = np.arange(len(places))
    rows, columns = np.concatenate([i, j, itself]), np.concatenate([j, i, itself])
    return place.ravel(), csr_array((np.ones(len(rows)), (rows, columns)), (len(places), len(places)))
