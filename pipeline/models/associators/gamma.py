"""Our GaMMA: the mixture model of Zhu et al. (2022, doi 10.1029/2021JB023249), from first guesses that are found.

Picks are pre-clustered by DBSCAN in time and space, which leaves out the lonely ones. Where the others agree on a
place and an origin time, an earthquake is guessed (`kernels.votes`, `kernels.search`). All guesses of a piece are
fitted at once to all of its picks, the lonely ones too (`kernels.mixture`). What has picks and evidence enough stays;
the search goes on among the picks that are still free, and ends with a fit of all that was found.

Nothing is drawn at random, and sums are taken in the order of picks: the same picks give the same bytes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from pipeline.config import Associate
from pipeline.models.associators.kernels.clusters import lonely
from pipeline.models.associators.kernels.mixture import Mixture, Ties, belonging, fit, joined, judge, only, splits
from pipeline.models.associators.kernels.origin import Prior
from pipeline.models.associators.kernels.scene import Ground, Scene, channel_rate, ground, longest_s, scene
from pipeline.models.associators.kernels.search import Needs, search
from pipeline.models.associators.kernels.search import enough as could_be
from pipeline.models.associators.kernels.votes import Ballot, Grid, cast, grid
from pipeline.models.associators.observed import ALL_TIMES, Earthquake, Network, Observed, Piece, Region
from pipeline.models.associators.rules import enough
from pipeline.records import NS, Bool, Float, Int

log = logging.getLogger(__name__)

CELL_KM = (3.0, 12.0)  # least and most of the search's cells; 0.4 of how far the third nearest station is, between
CELLS = 3000  # at most in a layer: over a wider region they are larger
LAYER_KM = 20.0  # most of a cell's depth
TOLERANCE_S = 0.5  # of a vote, beyond what the size of the cell explains
BIN_S = 2.0  # of origin times in the ballot
PIECE_S = 1800  # least length of a piece of picks without a pause
PIECE_REACHES = 20  # and in travel times across the grid: what is solved twice stays a tenth
SEAM_S = 1.0  # an origin this far outside its piece is given too: its neighbour may see it on its own side
FLOORS = (20.0, 14.0, 10.0)  # evidence that a first guess must have, round by round: the clearest first
NEAR = (16, 32, 32)  # nearest sites that vote for a cell, round by round: those that hear most earthquakes first
SOFT = 0.7  # after the first round a guess needs this share of an event's picks, or of the votes that there can be
CROWD = 0.5  # of the votes expected by chance, which a guess must have beyond what it needs
LOOKS = 50  # that the search may take for each pick of a piece, many glances counted as one
STRENGTH = 20.0  # picks that the expected spread of the residuals counts for, beside those of the event
CONCENTRATION = 1.0  # of the Dirichlet prior
SIGMA_LOG_AMPLITUDE = 0.4  # what site and radiation make of an amplitude
ROUNDS = 10  # at most, of the EM algorithm


class Given(NamedTuple):
    """What is made once for a region."""

    where: Ground
    boxes: tuple[Grid, ...]  # for each round
    reach_s: float  # the longest travel time to a site that votes
    bridge_s: float  # to any site
    full: Needs  # of an event
    soft: Needs  # of a guess
    prior: Prior


@lru_cache(maxsize=4)
def given(region: Region) -> Given:
    settings, where = region.settings, ground(region)
    cell_km = _cell_km(region.network, settings)
    made = {n: grid(where, np.array([cell_km, cell_km, LAYER_KM]), n, TOLERANCE_S) for n in sorted(set(NEAR))}
    boxes = tuple(made[n] for n in NEAR)
    reach_s = max(float((box.travel_s + box.pad_s).max()) for box in boxes)
    bridge_s = max(longest_s(where), reach_s)
    full = Needs(
        settings.min_picks,
        settings.min_p_picks,
        settings.min_s_picks,
        settings.min_stations,
        settings.min_pairs,
        settings.min_evidence,
    )
    soft = Needs(
        max(int(SOFT * min(full.picks, 2 * NEAR[-1])), min(full.picks, 5)),
        int(SOFT * min(full.p_picks, NEAR[-1])),
        int(SOFT * min(full.s_picks, NEAR[-1])),
        min(full.stations, 3),
        0,
        FLOORS[-1],
    )
    depth_sigma_km = settings.depth_sigma_km or max(10.0, float(np.ptp(settings.z_km)) / 4)
    prior = Prior(
        sigma_s=settings.sigma_s,
        strength=STRENGTH,
        concentration=CONCENTRATION,
        depth_km=settings.usual_depth_km,
        depth_sigma_km=depth_sigma_km,
        reach_s=settings.max_sigma11_s,
        sigma_log_amplitude=SIGMA_LOG_AMPLITUDE,
        reach_log_amplitude=settings.max_sigma22,
    )
    return Given(where, boxes, reach_s, bridge_s, full, soft, prior)


def _cell_km(network: Network, settings: Associate) -> float:
    """How fine the search is: as fine as the network, if the region is not too large."""
    area_km2 = float(np.ptp(settings.x_km) * np.ptp(settings.y_km))
    coarse_km = float(np.sqrt(area_km2 / CELLS))
    xy = np.unique(np.column_stack([network.x_km, network.y_km]), axis=0)
    if len(xy) < 4:
        return max(CELL_KM[1], coarse_km)
    far_km, _ = KDTree(xy).query(xy, k=4)
    return max(float(np.clip(0.4 * np.median(far_km[:, 3]), *CELL_KM)), coarse_km)


def pieces(observed: Observed, region: Region) -> list[Piece]:
    """Stretches of picks between silences that no earthquake bridges; long ones cut on a grid of UTC.

    A cut piece has the picks of its neighbours that its own events, or those that compete with them, may have.
    """
    if len(observed) < region.settings.min_picks:
        return []
    made = given(region)
    reach_ns = int(made.bridge_s * NS)
    length_ns = max(PIECE_S, 600 * round(PIECE_REACHES * made.reach_s / 600)) * NS
    edges = np.flatnonzero(np.diff(observed.time_ns) > reach_ns) + 1
    found = []
    for first, stop in pairwise([0, *edges.tolist(), len(observed)]):
        if stop - first < region.settings.min_picks:
            continue
        if observed.time_ns[stop - 1] - observed.time_ns[first] <= 1.5 * length_ns:
            found.append(Piece(first, stop, ALL_TIMES))
        else:
            found += _cut(observed.time_ns, first, stop, length_ns, reach_ns)
    return found


def _cut(time_ns: Int, first: int, stop: int, length_ns: int, reach_ns: int) -> list[Piece]:
    found = []
    begin, end = int(time_ns[first]) - reach_ns, int(time_ns[stop - 1])  # of origin times
    for k in range(begin // length_ns, end // length_ns + 1):
        own_ns = k * length_ns, (k + 1) * length_ns
        a, b = np.searchsorted(time_ns[first:stop], [own_ns[0] - reach_ns, own_ns[1] + 2 * reach_ns])
        if b > a:
            found.append(Piece(first + int(a), first + int(b), own_ns))
    return found


@dataclass(frozen=True)
class Fit:
    """Earthquakes of a piece, and the tie (n picks,) by which each pick is in one; -1: in none."""

    mixture: Mixture
    ties: Ties
    mine: Int


def solve(picks: Observed, piece: Piece, region: Region) -> list[Earthquake]:
    """The earthquakes whose origin times are the piece's own, give or take `SEAM_S`."""
    made, settings = given(region), region.settings
    zero_ns = int(picks.time_ns[0])
    if not settings.use_amplitude:
        picks = replace(picks, log_amplitude=np.full(len(picks), np.nan))
    view = scene(picks, made.where, zero_ns, made.reach_s)
    near = clustered(picks, settings)
    budget = LOOKS * len(picks)
    found = Fit(*_nothing(len(picks)))
    for i, (floor, box) in enumerate(zip(FLOORS, made.boxes, strict=True)):
        needs = (made.full if i == 0 else made.soft)._replace(evidence=floor)
        guesses, budget = _guesses(view, made, box, near & (found.mine < 0), needs, budget)
        if not len(guesses) and i > 0:
            break
        if len(guesses):
            found = _fitted(view, made, joined(found.mixture, guesses, made.prior), made.soft)
    if budget <= 0:
        log.warning("%s", _stopped(picks, int((near & (found.mine < 0)).sum())))
    if len(found.mixture.origin):
        found = _fitted(view, made, found.mixture, made.full)
        part = splits(view, found.mixture, found.ties, found.mine)
        if part.any():
            found = _fitted(view, made, only(found.mixture, ~part), made.full)
    events = _earthquakes(found, view, zero_ns)
    first_ns, stop_ns = piece.origin_ns
    return [e for e in events if first_ns - SEAM_S * NS <= e.time_ns < stop_ns + SEAM_S * NS]


def _stopped(picks: Observed, n_left: int) -> str:
    first, last = (np.datetime64(int(t), "ns") for t in picks.time_ns[[0, -1]])
    return (
        f"{first} to {last}: the search of {len(picks)} picks stopped after {LOOKS * len(picks)} looks; "
        f"{n_left} of the clustered picks are in no event. Smaller dbscan_eps_s or more min_picks shorten it"
    )


def clustered(picks: Observed, settings: Associate) -> Bool:
    """Picks (n,) in a cluster of DBSCAN: time and distance over the P velocity are its axes, as in GaMMA."""
    time_s = (picks.time_ns - picks.time_ns[0]) / NS
    axes_s = np.column_stack([time_s, picks.x_km / settings.vp_km_s, picks.y_km / settings.vp_km_s])
    return ~lonely(axes_s, picks.weight, settings.dbscan_eps_s, settings.dbscan_min_samples)


def _guesses(view: Scene, made: Given, box: Grid, free: Bool, needs: Needs, budget: int) -> tuple[Float, int]:
    """Origins (k, 4) from the free picks, searched between their own silences."""
    rows = np.flatnonzero(free)
    noise_hz = channel_rate(view, float(len(rows)))
    chance = CROWD * noise_hz * 4 * float(box.pad_s.mean()) * box.site.shape[1]
    least = int(needs.picks + max(chance - 1, 0))
    found = [np.empty((0, 4))]
    for part in np.split(rows, np.flatnonzero(np.diff(view.time_s[rows]) > made.reach_s) + 1):
        if not could_be(view, part[np.argsort(view.channel[part], kind="stable")], needs):
            continue
        mine = np.zeros(len(free), bool)
        mine[part] = True
        from_s = float(view.time_s[part[0]]) - made.reach_s
        n_bins = int((view.time_s[part[-1]] - from_s) / BIN_S) + 2
        votes = np.zeros((n_bins, len(box.centre_km)), np.uint8)
        ballot = Ballot(votes, np.full(n_bins, -1, np.int64), from_s, BIN_S)
        cast(box, ballot, view, mine)
        origins, budget = search(made.where, view, box, ballot, mine, least, needs, noise_hz, made.prior, budget)
        found.append(origins)
    return np.concatenate(found), budget


def _fitted(view: Scene, made: Given, mixture: Mixture, needs: Needs) -> Fit:
    """The mixture of those earthquakes that hold against each other.

    Of those that do not, the half with the least evidence goes, and the others may take the picks that it had.
    """
    everything = np.ones(len(view.time_s), bool)
    while True:
        ties = fit(made.where, view, everything, mixture, made.prior, ROUNDS)
        mine = belonging(view, ties, len(everything))
        noise_hz = channel_rate(view, float(mixture.weight[-1]))
        good, log_odds = judge(made.where, view, mixture, ties, mine, needs, noise_hz)
        if good.all():
            return Fit(mixture, ties, mine)
        good[~good] = log_odds[~good] > np.median(log_odds[~good])
        mixture = only(mixture, good)


def _nothing(n_picks: int) -> tuple[Mixture, Ties, Int]:
    none, no_ties = np.empty(0), np.empty(0, np.int64)
    mixture = Mixture(np.empty((0, 4)), none, np.array([float(n_picks)]), none)
    ties = Ties(no_ties, no_ties, none, np.empty((0, 3)), none, none, none)
    return mixture, ties, np.full(n_picks, -1, np.int64)


def _earthquakes(found: Fit, view: Scene, zero_ns: int) -> list[Earthquake]:
    rows = np.flatnonzero(found.mine >= 0)
    tie = found.mine[rows]
    order = np.lexsort((rows, found.ties.event[tie]))
    rows, tie = rows[order], tie[order]
    edges = np.searchsorted(found.ties.event[tie], np.arange(len(found.mixture.origin) + 1))
    return [
        Earthquake(
            time_ns=zero_ns + round(float(t) * NS),
            x_km=float(x),
            y_km=float(y),
            z_km=float(z),
            score=float(found.ties.share[tie[a:b]].sum()),
            picks=rows[a:b],
            probability=found.ties.share[tie[a:b]].copy(),
            residual_s=found.ties.residual_s[tie[a:b]].copy(),
        )
        for (x, y, z, t), (a, b) in zip(found.mixture.origin, pairwise(edges.tolist()), strict=True)
    ]


def settle(found: list[Earthquake], observed: Observed, region: Region) -> list[Earthquake]:
    """One event where neighbouring pieces both saw one: the one with more picks keeps those that both claim."""
    taken = np.zeros(len(observed), bool)
    kept = []
    for event in sorted(found, key=lambda e: (-len(e.picks), e.time_ns, e.x_km, e.y_km, e.z_km)):
        mine = ~taken[event.picks]
        if not mine.all():
            event = _with_only(event, mine)
        if enough(observed.take(event.picks), region.settings):
            taken[event.picks] = True
            kept.append(event)
    return sorted(kept, key=lambda e: (e.time_ns, int(e.picks[0])))


def _with_only(event: Earthquake, mine: Bool) -> Earthquake:
    return replace(
        event,
        picks=event.picks[mine],
        probability=event.probability[mine],
        residual_s=event.residual_s[mine],
        score=float(event.probability[mine].sum()),
    )
