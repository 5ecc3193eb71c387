"""The ballot of our GaMMA against counting by hand, and that its votes bound the picks of an event."""

import numpy as np
import pytest

from pipeline.maths.traveltime import uniform
from pipeline.maths.velocity import VelocityModel
from pipeline.models import eikonal
from pipeline.models.associators.kernels.origin import voters
from pipeline.models.associators.kernels.scene import arrival, ground, scene
from pipeline.models.associators.kernels.votes import Ballot, best, cast, grid, strike, withdraw
from pipeline.models.associators.observed import Network, Region
from tests.synthetic_picks import START_NS
from tests.test_gamma import NETWORK, SETTINGS, VP, VS, false, observed, quake, together

BIN_S, TOLERANCE_S, NEAR = 2.0, 0.5, 6
SITES = NETWORK.take(slice(0, 12))
CELL_KM = np.array([45.0, 40.0, 20.0])


def region(network=SITES, times=None):
    return Region(SETTINGS, network, uniform(VP, VS) if times is None else times, 0)


def made(picks, where, near=NEAR, cell_km=CELL_KM, seconds=(-60.0, 140.0)):
    """Ground, cells, an empty ballot, and the scene of ``picks``."""
    where = ground(where)
    box = grid(where, cell_km, near, TOLERANCE_S)
    return where, box, empty(box, seconds), scene(picks, where, START_NS, 60.0)


def empty(box, seconds=(-60.0, 140.0)):
    n = int((seconds[1] - seconds[0]) / BIN_S) + 2
    return Ballot(np.zeros((n, len(box.centre_km)), np.uint8), np.full(n, -1, np.int64), seconds[0], BIN_S)


def crowd(seed, n=150):
    """Picks as dense as in a sequence, several of a channel within its tolerance, and which of them are free."""
    rng = np.random.default_rng(seed)
    parts = [quake((*rng.uniform(-60, 60, 2), 8, t), SITES, rng, 0.3, 0.3) for t in (20, 24, 70)]
    picks, _ = together(*parts, noise=false(n, 0, 100, rng, SITES))
    return picks, rng.random(len(picks)) < 0.7


def bins(box, ballot, view, g, m, row):
    """The first and last bin of origin times that a pick votes for in a cell."""
    phase = view.phase[row]
    middle = view.time_s[row] - box.travel_s[g, m, phase] - ballot.from_s
    return [int(np.floor((middle + side * box.pad_s[g, m, phase]) / ballot.bin_s)) for side in (-1, 1)]


def voted(box, ballot, view, free, g, b):
    """By hand: the free picks that vote for a cell and bin."""
    rows = []
    for m, site in enumerate(box.site[g]):
        for row in np.flatnonzero(free & (view.site == site)):
            first, last = bins(box, ballot, view, g, m, row)
            rows += [int(row)] if first <= b <= last else []
    return rows


def test_cells_fill_the_box_and_know_their_nearest_sites():
    picks, _ = crowd(0)
    _, box, _, _ = made(picks, region())
    lower, upper = (np.array([getattr(SETTINGS, k)[i] for k in ("x_km", "y_km", "z_km")]) for i in (0, 1))
    assert (2 * box.half_km <= CELL_KM + 1e-9).all()
    assert (8 * np.prod(box.half_km)) * len(box.centre_km) == pytest.approx(np.prod(upper - lower))
    assert (box.centre_km - box.half_km).min(axis=0) == pytest.approx(lower)
    assert (box.centre_km + box.half_km).max(axis=0) == pytest.approx(upper)
    for g, centre in enumerate(box.centre_km):
        km = np.hypot(SITES.x_km - centre[0], SITES.y_km - centre[1])
        assert box.site[g].tolist() == np.argsort(km)[:NEAR].tolist()
        line = np.hypot(km, centre[2])[box.site[g]]
        assert box.travel_s[g] == pytest.approx(np.column_stack([line / VP, line / VS]))
    for site in range(len(SITES)):
        mine = {tuple(pair) for pair in box.seen_by[box.start[site] : box.start[site + 1]].tolist()}
        assert mine == {(int(g), int(m)) for g, m in zip(*np.nonzero(box.site == site), strict=True)}


@pytest.mark.parametrize("seed", [0, 1])
def test_votes_are_those_counted_by_hand(seed):
    """A station and phase votes once, however many of its picks agree."""
    picks, free = crowd(seed)
    _, box, ballot, view = made(picks, region())
    cast(box, ballot, view, free)
    expected = np.zeros_like(ballot.votes)
    doubled = 0
    for g in range(len(box.centre_km)):
        for m, site in enumerate(box.site[g]):
            for phase in (0, 1):
                seen = np.zeros(len(ballot.top), int)
                for row in np.flatnonzero(free & (view.site == site) & (view.phase == phase)):
                    first, last = bins(box, ballot, view, g, m, row)
                    seen[max(first, 0) : max(last + 1, 0)] += 1
                expected[:, g] += seen > 0
                doubled += (seen > 1).sum()
    assert doubled > 100
    assert expected.max() > 8
    np.testing.assert_array_equal(ballot.votes, expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_votes_taken_back_were_never_cast(seed):
    picks, free = crowd(seed)
    _, box, ballot, view = made(picks, region())
    cast(box, ballot, view, free)
    best(ballot)
    rng = np.random.default_rng(seed)
    claimed = rng.permutation(np.flatnonzero(free))[: len(picks) // 3]
    for row in claimed:
        free[row] = False
        withdraw(box, ballot, view, free, row)
    again = empty(box)
    cast(box, again, view, free)
    np.testing.assert_array_equal(ballot.votes, again.votes)
    assert best(ballot) == best(again)
    for row in np.flatnonzero(free):
        free[row] = False
        withdraw(box, ballot, view, free, row)
    assert not ballot.votes.any()


def test_the_best_is_the_first_of_the_largest_and_can_be_struck():
    picks, free = crowd(3)
    _, box, ballot, view = made(picks, region())
    cast(box, ballot, view, free)
    for _ in range(30):
        g, b, most = best(ballot)
        assert (b, g) == np.unravel_index(int(ballot.votes.argmax()), ballot.votes.shape)
        assert most == ballot.votes.max()
        left = ballot.votes.copy()
        left[b - 1 : b + 2, g] = 0
        strike(ballot, g, b, 1)
        np.testing.assert_array_equal(ballot.votes, left)


def test_voters_are_the_picks_that_voted():
    picks, free = crowd(4)
    where, box, ballot, view = made(picks, region())
    cast(box, ballot, view, free)
    rng = np.random.default_rng(4)
    for _ in range(300):
        g, b = int(rng.integers(len(box.centre_km))), int(rng.integers(len(ballot.top)))
        rows = voters(where, view, free, box, ballot, g, b)
        assert sorted(rows.tolist()) == sorted(voted(box, ballot, view, free, g, b))
        assert len(np.unique(view.channel[rows])) == ballot.votes[b, g]


@pytest.mark.parametrize("layered", [False, True])
def test_an_event_has_at_least_the_votes_of_its_picks_at_the_nearest_sites(layered):
    """Anywhere in its cell and bin, with errors of the picks up to the tolerance; beside a station, at every depth."""
    depth = np.array([-4.0, 400.0])
    model = VelocityModel(depth, 5.0 + 0.06 * depth, (5.0 + 0.06 * depth) / 1.75, "gradient")
    times = eikonal.travel_times(model, np.zeros(1), 190.0, (0.0, 30.0)) if layered else None
    where = region(NETWORK, times)
    rng = np.random.default_rng(6)
    picks, _ = together(quake((0, 0, 5, 0), NETWORK))
    ground_, box, _, _ = made(picks, where, 10, np.array([12.0, 12.0, 20.0]))
    lower, upper = ground_.lower_km, ground_.upper_km
    for case in range(60):
        place = rng.uniform(lower, upper)
        if case % 3 == 0:
            place[:2] = np.array([NETWORK.x_km, NETWORK.y_km])[:, case % len(NETWORK)] + rng.normal(0, 0.5, 2)
        origin_s = rng.uniform(0, 20)
        site, phase = np.tile(np.arange(len(NETWORK)), 2), np.repeat([0, 1], len(NETWORK))
        travel = [arrival(ground_, int(s), int(p), *place)[0] for s, p in zip(site, phase, strict=True)]
        time_s = origin_s + np.array(travel) + rng.uniform(-TOLERANCE_S, TOLERANCE_S, len(site)) * 0.999
        picks, view = _scene(time_s, site, phase, ground_)
        ballot = empty(box)
        cast(box, ballot, view, np.ones(len(picks), bool))
        g = int(np.flatnonzero((np.abs(box.centre_km - place) <= box.half_km).all(axis=1))[0])
        b = int((origin_s - ballot.from_s) / BIN_S)
        assert ballot.votes[b, g] == 20
        near = np.isin(picks.site, box.site[g])
        assert set(voters(ground_, view, np.ones(len(picks), bool), box, ballot, g, b)) == set(np.flatnonzero(near))


def _scene(time_s, site, phase, where):
    picks, _ = together(observed(site, np.array(["P", "S"])[phase], time_s, NETWORK))
    return picks, scene(picks, where, START_NS, 60.0)


def test_two_epochs_of_a_station_vote_from_their_own_places():
    """The later site is 30 km away: each pick votes with the travel times of the site that it is from."""
    moved = Network(SITES.station[:1], SITES.x_km[:1] + 30, SITES.y_km[:1], SITES.z_km[:1])
    both = Network.concat([SITES, moved])
    before, after = quake((0, 0, 8, 20), SITES), quake((0, 0, 8, 60), both)
    picks, _ = together(before, after.take((after.site == 12) | (after.site > 0) & (after.site < 12)))
    _, box, ballot, view = made(picks, region(both), 13)
    free = np.ones(len(picks), bool)
    cast(box, ballot, view, free)
    g = int(np.flatnonzero((np.abs(box.centre_km - [0, 0, 8]) <= box.half_km).all(axis=1))[0])
    for origin_s in (20, 60):
        b = int((origin_s - ballot.from_s) / BIN_S)
        assert ballot.votes[b, g] == len(voted(box, ballot, view, free, g, b)) == 24
