"""GaMMA (Zhu et al. 2022, doi 10.1029/2021JB023249) behind plain functions: picks in, earthquakes out.

The package ``GMMA`` supplies the mixture model; what surrounds the model there is done here instead, by the
same rules and without its traps: nothing is drawn from the global random state, nothing depends on the order
or on the absolute time of the picks, a pick carries its own probability, and no pick is lost.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from itertools import pairwise

import numpy as np
from gamma import BayesianGaussianMixture, _base
from gamma.seismic_ops import calc_time
from sklearn.cluster import DBSCAN
from threadpoolctl import threadpool_limits

from pipeline.config import Associate
from pipeline.models.associators.observed import ALL_TIMES, Earthquake, Observed, Piece, Region
from pipeline.models.associators.rules import channel, enough, one_each
from pipeline.records import NS, Float, Int

log = logging.getLogger(__name__)
NOISE = -1
MAX_SPLITS = 50  # passes of GaMMA's hierarchical clustering
SHRINK = 1.2  # each pass divides eps by this
STARTS = 5  # of a cluster that could hold an earthquake and gave none
LEAST_WEIGHT = 1e-6  # the model takes the logarithm of a weight

_base.print = lambda *_: None  # the package prints an "x" for a fit that did not converge


def pieces(observed: Observed, region: Region) -> list[Piece]:
    """Stretches of picks between quiet gaps."""
    if region.settings.velocity_model:
        log.warning("associator 'gmma' knows no associate.velocity_model: it takes vp_km_s and vs_km_s for all depths")
    stretches = segments(observed.time_ns, region.settings.dbscan_eps_s)
    return [Piece(s.start, s.stop, ALL_TIMES) for s in stretches]


def solve(picks: Observed, piece: Piece, region: Region) -> list[Earthquake]:
    """The earthquakes of each cluster of the picks of one stretch."""
    labels = clusters(picks, region.settings)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels[labels >= 0])]
    return [
        replace(event, picks=rows[event.picks])
        for rows in sorted(groups, key=lambda rows: int(rows[0]))
        for event in associate_cluster(picks.take(rows), region.settings, region.seed)
    ]


def settle(found: list[Earthquake], observed: Observed, region: Region) -> list[Earthquake]:
    """Clusters share no picks: nothing is left to do."""
    return found


def segments(time_ns: Int, eps_s: float) -> list[slice]:
    """Cut sorted times (n,) wherever nothing happens for longer than ``eps_s``.

    Neighbours in `clusters` are at most ``eps_s`` apart in time alone, so no cluster crosses such a gap:
    segments are independent of each other and of where a run begins and ends.
    """
    cuts = np.flatnonzero(np.diff(time_ns) > eps_s * NS) + 1
    edges = [0, *cuts.tolist(), len(time_ns)]
    return [slice(a, b) for a, b in pairwise(edges) if b > a]


def clusters(observed: Observed, settings: Associate) -> Int:
    """Label (n,) of each pick of a segment: groups near in time and space, `NOISE` for the rest.

    GaMMA's hierarchical DBSCAN: time and distance over the P velocity are the axes; a group of many picks that
    lasts much longer than a wave takes across it is clustered again with a smaller eps.
    """
    labels = np.full(len(observed), NOISE, np.int64)
    axes = np.column_stack([_seconds(observed), _xyz(observed)[:, :2] / settings.vp_km_s])
    open_groups, eps_s, n_labels = [np.arange(len(observed))], settings.dbscan_eps_s, 0
    for _ in range(MAX_SPLITS + 1):
        again = []
        for rows in open_groups:
            for group in _dbscan(axes, observed.weight, rows, eps_s, settings.dbscan_min_samples):
                if _too_long(axes[group], settings):
                    again.append(group)
                labels[group] = n_labels
                n_labels += 1
        for group in again:
            labels[group] = NOISE  # until the next pass finds its parts
        open_groups, eps_s = again, eps_s / SHRINK
    return labels


def _dbscan(axes: Float, weight: Float, rows: Int, eps_s: float, min_samples: int) -> list[Int]:
    found = DBSCAN(eps=eps_s, min_samples=min_samples).fit(axes[rows], sample_weight=weight[rows]).labels_
    return [rows[found == label] for label in range(found.max() + 1)]


def _too_long(axes: Float, settings: Associate) -> bool:
    """A swarm without pause: many picks, over a time much longer than the travel time across the stations."""
    duration_s, *extent_s = np.ptp(axes, axis=0)
    crossing_s = float(np.hypot(*extent_s)) * settings.dbscan_max_time_space_ratio
    return len(axes) >= settings.dbscan_min_cluster_size and bool(duration_s >= crossing_s)


def n_components(observed: Observed, settings: Associate) -> int:
    """How many earthquakes the mixture is given: more than the busiest station can have seen."""
    if not len(observed):
        return 0
    _, counts = np.unique(channel(observed), return_counts=True)
    return int(min(counts.max() * settings.oversample_factor, len(observed) // 3))


def associate_cluster(observed: Observed, settings: Associate, seed: int) -> list[Earthquake]:
    """The earthquakes of one cluster of picks, by a Bayesian mixture of travel-time curves.

    Each pick is in at most one earthquake. ``seed`` and the picks alone decide the result. Where the picks
    could make an earthquake and the fit finds none, it begins again from other first guesses: the likelihood
    has many maxima, and of small clusters GaMMA loses one in a hundred to a bad guess.
    """
    if len(observed) < 3 or not enough(observed, settings):
        return []
    random = _random(observed, seed)
    for _ in range(STARTS):
        starts = _starts(observed, n_components(observed, settings), settings, random)
        found = _earthquakes(_fit(observed, settings, starts), observed, settings)
        if found:
            return found
    return []


def _earthquakes(model: BayesianGaussianMixture, observed: Observed, settings: Associate) -> list[Earthquake]:
    """The components of ``model`` with enough picks that belong to them and arrive when they should."""
    time_s = _seconds(observed)[:, None]
    mine, responsibility = model.predict(time_s), model.predict_proba(time_s)
    found = []
    for i, centre in enumerate(model.centers_):
        rows = np.flatnonzero(mine == i)
        picks = observed.take(rows)
        residual_s = time_s[rows, 0] - _predicted(centre, picks, settings)
        kept = one_each(channel(picks), residual_s) & (np.abs(residual_s) < settings.max_sigma11_s)
        if enough(picks.take(kept), settings):
            event = Earthquake(
                time_ns=int(observed.time_ns[0]) + round(float(centre[3]) * NS),
                x_km=float(centre[0]),
                y_km=float(centre[1]),
                z_km=float(centre[2]),
                score=float(responsibility[:, i].sum()),
                picks=rows[kept],
                probability=responsibility[rows[kept], i],
                residual_s=residual_s[kept],
            )
            found.append(event)
    return found


def _random(observed: Observed, seed: int) -> np.random.RandomState:
    """A generator that belongs to these picks: no other cluster, rank, run or day moves it."""
    after_ns = (observed.time_ns - observed.time_ns[0]).tolist()
    picks = list(zip(observed.station.tolist(), observed.phase.tolist(), after_ns, strict=True))
    return np.random.RandomState(int(hashlib.sha256(repr((seed, picks)).encode()).hexdigest()[:8], 16))


def _starts(observed: Observed, n: int, settings: Associate, random: np.random.RandomState) -> Float:
    """First guesses (n, 4) of x, y, z, t: GaMMA's ``init_centers``. P picks spread over time, then S picks.

    A guess lies at the station of a pick, moved at random by up to the spread of the stations.
    """
    p, s = np.flatnonzero(observed.phase == "P"), np.flatnonzero(observed.phase == "S")
    rows = _spread(p, n) if len(p) >= n else np.concatenate([p, _spread(s, n - len(p))])
    xyz, weight = _xyz(observed), _weight(observed)
    starts = np.empty((n, 4))
    for axis in (0, 1):
        mean = np.average(xyz[:, axis], weights=weight)
        sigma = np.sqrt(np.average((xyz[:, axis] - mean) ** 2, weights=weight))
        starts[:, axis] = xyz[rows, axis] + random.uniform(-1, 1, n) * sigma
    starts[:, 2] = sum(settings.z_km) / 2
    starts[:, 3] = _seconds(observed)[rows]
    return starts


def _spread(rows: Int, n: int) -> Int:
    return rows[:: max(len(rows) // n, 1)][:n]


def _fit(observed: Observed, settings: Associate, starts: Float) -> BayesianGaussianMixture:
    """GaMMA's mixture, fitted from ``starts`` (n, 4)."""
    model = BayesianGaussianMixture(
        n_components=len(starts),
        weight_concentration_prior=1.0 / len(starts),
        covariance_prior=np.array([[_prior_variance_s2(observed)]]),
        init_params="centers",
        centers_init=starts.copy(),
        station_locs=_xyz(observed),
        phase_type=np.char.lower(observed.phase),
        phase_weight=_weight(observed),
        vel=_velocity(settings),
        bounds=(settings.x_km, settings.y_km, settings.z_km, (None, None)),
        random_state=0,
    )
    with threadpool_limits(limits=1):  # sums must not depend on the number of threads
        return model.fit(_seconds(observed)[:, None])


def _prior_variance_s2(observed: Observed) -> float:
    """GaMMA's prior of the squared residual: 0.5 s2 for a point, 4.5 s2 for stations spread over 30 km."""
    xy, weight = _xyz(observed)[:, :2], _weight(observed)
    mean = np.average(xy, axis=0, weights=weight)
    spread_km = np.sqrt(np.average(((xy - mean) ** 2).sum(axis=1), weights=weight))
    return float(0.5 + (15 ** (spread_km / 30) - 1) / 14 * 4.0)


def _predicted(centre: Float, observed: Observed, settings: Associate) -> Float:
    """Arrivals (n,) of an earthquake at ``centre`` (x, y, z, t), seconds."""
    phases = np.char.lower(observed.phase)
    predicted: Float = calc_time(centre[None, :], _xyz(observed), phases, vel=_velocity(settings))[:, 0]
    return predicted


def _seconds(observed: Observed) -> Float:
    """Times (n,) since the first pick: small numbers keep their digits, and no cut of a run changes them."""
    return (observed.time_ns - observed.time_ns[:1]) / NS


def _xyz(observed: Observed) -> Float:
    return np.column_stack([observed.x_km, observed.y_km, observed.z_km])


def _weight(observed: Observed) -> Float:
    return np.maximum(observed.weight, LEAST_WEIGHT)


def _velocity(settings: Associate) -> dict[str, float]:
    return {"p": settings.vp_km_s, "s": settings.vs_km_s}
