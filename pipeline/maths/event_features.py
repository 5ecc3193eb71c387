"""What speaks for an event being real and what against, in numbers: one row an event."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.maths import geo
from pipeline.maths.names import sites
from pipeline.records import (
    DAY_NS,
    NS,
    Assignments,
    Bool,
    Events,
    Float,
    Int,
    Origins,
    Picks,
    Stations,
    Table,
    Text,
    column,
)

LOOK_S = 3.0  # a pick within this long would have been taken into the event
AROUND_NS = 1800 * NS  # before and after an event: how busy a station is
AWAKE_NS = DAY_NS // 2  # before and after: a station with a pick in this time is alive
FREE = 4  # of a time and a place: what a fit to the picks takes from their residuals
EVENTS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class Features(Table):
    """Of events found by `associate`, one row an event; NaN where not known."""

    n_p: Float = column("float64", "1", "number of P picks")
    n_s: Float = column("float64", "1", "number of S picks")
    n_pairs: Float = column("float64", "1", "number of stations with both")
    n_stations: Float = column("float64", "1", "number of stations")
    sum_probability: Float = column("float64", "1", "of the picks, as the picker sees them")
    mean_probability: Float = column("float64", "1", "of the picks, as the picker sees them")
    responsibility: Float = column(
        "float64", "1", "mean probability of the picks to be of the event (the score a pick)"
    )
    gap_deg: Float = column("float64", "deg", "largest azimuthal gap")
    nearest_km: Float = column("float64", "km", "epicentral distance of the nearest station with a pick")
    misfit_s: Float = column("float64", "s", "of the travel times, the four unknowns of an origin allowed for")
    wadati_s: Float = column("float64", "s", "root mean square of S minus P residual over stations with both")
    near_share: Float = column("float64", "1", "of living stations not beyond the median one, those with a pick")
    coincidence: Float = column("float64", "1", "logarithm of how much likelier the picks are than chance, see there")
    decay: Float = column("float64", "1", "root mean square residual of log10 amplitude against distance")


@dataclass(frozen=True, slots=True)
class Network:
    """Sites with picks or coordinates, and when each has picks. ``first`` (k + 1,) cuts ``pick_ns`` (n,) by site.

    ``record_s`` is how long the stations were listened to.
    """

    site: Text
    latitude_deg: Float
    longitude_deg: Float
    pick_ns: Int  # ascending at each site
    first: Int
    record_s: float

    def __len__(self) -> int:
        return len(self.site)


def network(picks: Picks, stations: Stations, span_ns: tuple[int, int] = (0, 0)) -> Network:
    """The sites of ``stations``, the first epoch of each, with all ``picks`` of a run over ``span_ns``, or from the
    first pick to the last if that is longer. Raises KeyError for a pick of another site."""
    site, row = np.unique(stations.id, return_index=True)
    name = sites(picks.station)
    at = np.searchsorted(site, name).clip(max=max(len(site) - 1, 0))
    if len(picks) and (site[at] != name).any():
        raise KeyError(f"no coordinates for {name[site[at] != name][0]}")
    order = np.lexsort((picks.time_ns, at))
    first = np.searchsorted(at[order], np.arange(len(site) + 1)).astype(np.int64)
    record_s = max(int(np.ptp(picks.time_ns)) + 1 if len(picks) else 1, span_ns[1] - span_ns[0]) / NS
    return Network(site, stations.latitude_deg[row], stations.longitude_deg[row], picks.time_ns[order], first, record_s)


def features(events: Events, assignments: Assignments, pick_probability: Float, net: Network) -> Features:
    """One row for each of ``events``, from their picks ``assignments`` (n,) with the picker's probability (n,)."""
    of, m = event_rows(events, assignments.event), len(events)
    n = np.bincount(of, minlength=m).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = _sum(of, pick_probability, m)
        mean = total / n
        misfit = np.sqrt(_sum(of, assignments.residual_s**2, m) / np.maximum(n - FREE, 1.0))
    site = np.searchsorted(net.site, sites(assignments.station))
    pairs, wadati = _wadati(of, site, assignments, m)
    coincidence, near = _surroundings(events, _count(of, site, m, len(net)), (net, _without(net, assignments, site)))
    return Features(
        n_p=events.n_p.astype(np.float64),
        n_s=events.n_s.astype(np.float64),
        n_pairs=pairs,
        n_stations=events.n_stations.astype(np.float64),
        sum_probability=total,
        mean_probability=mean,
        responsibility=events.score / np.maximum(n, 1.0),
        gap_deg=events.gap_deg,
        nearest_km=events.nearest_km,
        misfit_s=misfit,
        wadati_s=wadati,
        near_share=near,
        coincidence=coincidence,
        decay=events.sigma_log_amplitude,
    )


def _sum(of: Int, value: Float, m: int) -> Float:
    """Of the values (n,) of each event (m,)."""
    return np.bincount(of, value, m).astype(np.float64)


def event_rows(events: Events | Origins, names: Text) -> Int:
    """The row of the event of each of the ``names`` (n,). Raises KeyError if one is not there."""
    by_id = np.argsort(events.id, kind="stable")
    at = np.searchsorted(events.id[by_id], names).clip(max=max(len(events) - 1, 0))
    if len(names) and (not len(events) or (events.id[by_id[at]] != names).any()):
        raise KeyError("an event is named that is not in the catalogue")
    return by_id[at].astype(np.int64) if len(names) else np.empty(0, np.int64)


def _wadati(of: Int, site: Int, picks: Assignments, m: int) -> tuple[Float, Float]:
    """Number of stations with P and S (m,), and how far S minus P is from what the place says (m,), NaN for none.

    The difference of the two residuals of a station knows nothing of the origin time, and little of the station.
    """
    key, is_p = of * (int(site.max(initial=0)) + 1) + site, picks.phase == "P"
    p_key, p_row = np.unique(key[is_p], return_index=True)
    s_key, s_row = np.unique(key[~is_p], return_index=True)
    _, p, s = np.intersect1d(p_key, s_key, assume_unique=True, return_indices=True)
    off_s = picks.residual_s[~is_p][s_row[s]] - picks.residual_s[is_p][p_row[p]]
    event = of[is_p][p_row[p]]
    pairs = np.bincount(event, minlength=m).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return pairs, np.sqrt(_sum(event, off_s**2, m) / pairs)


def _count(of: Int, site: Int, m: int, k: int) -> Int:
    """Picks of each event at each site (m, k)."""
    counts: Int = np.bincount(of * k + site, minlength=m * k).reshape(m, k).astype(np.int64)
    return counts


def _without(net: Network, assignments: Assignments, site: Int) -> Network:
    """The sites with those of their picks that are in no event: what coincidences are made of."""
    of = np.repeat(np.arange(len(net)), np.diff(net.first))
    taken = set(zip(site.tolist(), assignments.time_ns.tolist(), strict=True))
    near = np.isin(net.pick_ns, assignments.time_ns)
    for i in np.flatnonzero(near).tolist():
        near[i] = (int(of[i]), int(net.pick_ns[i])) in taken
    first = np.searchsorted(of[~near], np.arange(len(net) + 1)).astype(np.int64)
    return replace(net, pick_ns=net.pick_ns[~near], first=first)


def _surroundings(events: Events, count: Int, nets: tuple[Network, Network]) -> tuple[Float, Float]:
    """`Features.coincidence` and ``near_share`` (m,), some events at a time. ``nets``: with all picks, with noise."""
    found = [
        _going_out(events.take(slice(a, a + EVENTS_AT_ONCE)), count[a : a + EVENTS_AT_ONCE], nets)
        for a in range(0, len(events), EVENTS_AT_ONCE)
    ]
    return tuple(np.concatenate([np.empty(0), *(part[i] for part in found)]) for i in (0, 1))


def _going_out(events: Events, count: Int, nets: tuple[Network, Network]) -> tuple[Float, Float]:
    """Sites in the order of their distance from each epicentre, picks ``count`` (m, k) beside what chance brings.

    Coincidence: of all circles around the epicentre the one that is most surprising, by the likelihood of its number
    of picks n where chance brings r: n log(n / r) - (n - r) (Kulldorff 1997, the scan statistic of a Poisson process).
    """
    net = nets[0]
    if not len(net) or not len(events):
        return np.full(len(events), np.nan), np.full(len(events), np.nan)
    rate, awake = _activity(events.time_ns, *nets)
    order = np.argsort(_distance_km(events, net), axis=1, kind="stable")
    n, chance, alive, hit = (
        np.take_along_axis(values, order, 1).cumsum(1)
        for values in (count, np.where(awake, rate * LOOK_S, 0.0), awake.astype(np.int64), (count > 0).astype(np.int64))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        likelihood = np.where(n > chance, n * np.log(n / chance) - (n - chance), 0.0)
    middle = np.argmax(2 * hit >= hit[:, -1:], axis=1)[:, None]
    near = np.take_along_axis(hit, middle, 1) / np.maximum(np.take_along_axis(alive, middle, 1), 1)
    return likelihood.max(1), near[:, 0]


def _distance_km(events: Events, net: Network) -> Float:
    """Epicentral distances (m, k), on a plane: only their order counts."""
    centre = float(np.mean(net.latitude_deg)), float(np.mean(net.longitude_deg))
    ex, ey = geo.stereographic(events.latitude_deg, events.longitude_deg, *centre)
    x, y = geo.stereographic(net.latitude_deg, net.longitude_deg, *centre)
    return np.hypot(ex[:, None] - x, ey[:, None] - y)


def _activity(time_ns: Int, every: Network, noise: Network) -> tuple[Float, Bool]:
    """Picks of ``noise`` per second (m, k) at each site around each time, and whether it has any pick then.

    Where there are few, the rate leans on that of the whole record, as if one more pick had been waited for.
    """
    begin, end = int(every.pick_ns.min(initial=2**62)), int(every.pick_ns.max(initial=-(2**62))) + 1
    low, high = np.maximum(time_ns - AROUND_NS, begin), np.minimum(time_ns + AROUND_NS, end)
    near_s = np.maximum(high - low, NS) / NS
    rate, awake = np.zeros((len(time_ns), len(every))), np.zeros((len(time_ns), len(every)), bool)
    for k in range(len(every)):
        own, free = (net.pick_ns[net.first[k] : net.first[k + 1]] for net in (every, noise))
        usual_s = every.record_s / max(len(free), 1)
        rate[:, k] = (_between(free, low, high) + 1.0) / (near_s + usual_s)
        awake[:, k] = _between(own, time_ns - AWAKE_NS, time_ns + AWAKE_NS) > 0
    return rate, awake


def _between(times: Int, low: Int, high: Int) -> Int:
    """How many of ``times`` (n,), ascending, are from ``low`` (m,) to before ``high`` (m,)."""
    found: Int = np.searchsorted(times, high) - np.searchsorted(times, low)
    return found
