"""The kernels of our GaMMA against SciPy, scikit-learn, the package GMMA and brute force."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.special import digamma as scipy_digamma
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.mixture import BayesianGaussianMixture

from pipeline.maths.traveltime import uniform
from pipeline.maths.velocity import VelocityModel
from pipeline.models import eikonal
from pipeline.models.associators import gamma, gmma, rules
from pipeline.models.associators.kernels.evidence import evidence
from pipeline.models.associators.kernels.mixture import (
    Mixture,
    Ties,
    belonging,
    digamma,
    expect,
    judge,
    maximise,
    tie,
    tie_again,
)
from pipeline.models.associators.kernels.origin import Prior
from pipeline.models.associators.kernels.scene import arrival, ground, scene, spread
from pipeline.models.associators.kernels.search import Needs, enough
from pipeline.models.associators.observed import Network, Region
from pipeline.records import NS
from tests.synthetic_picks import START_NS
from tests.test_gamma import NETWORK, SETTINGS, VP, VS, false, quake, region, together
from tests.test_gmma import OGS, needs_data, ogs

PRIOR = Prior(
    sigma_s=0.35,
    strength=20.0,
    concentration=1.0,
    depth_km=15.0,
    depth_sigma_km=10.0,
    reach_s=1.5,
    sigma_log_amplitude=0.4,
    reach_log_amplitude=1.0,
)
NEEDS = Needs(picks=5, p_picks=3, s_picks=2, stations=3, pairs=0, evidence=10.0)
BOX = np.array([SETTINGS.x_km, SETTINGS.y_km, SETTINGS.z_km], float).T


def seen(picks, where=None):
    """What the kernels read: the ground, and the scene of ``picks`` in canonical order."""
    where = ground(region() if where is None else where)
    return where, scene(picks, where, START_NS, 60.0)


def free(view):
    return np.ones(len(view.time_s), bool)


def mixture_of(origin, variance_s2, count) -> Mixture:
    """Earthquakes whose magnitudes nobody knows."""
    return Mixture(origin, variance_s2, count, np.full(len(origin), np.nan))


def mixed(seed=0, noise=120):
    """Picks of three earthquakes close in time and false ones, with weights, and a mixture that is not yet fitted."""
    rng = np.random.default_rng(seed)
    origins = np.array([(-20.0, 5.0, 8.0, 100.0), (25.0, -12.0, 6.0, 104.0), (-5.0, 20.0, 12.0, 112.0)])
    parts = [quake(event, rng=rng, error_s=0.3, missing=0.2) for event in origins]
    picks, label = together(*parts, noise=false(noise, 95, 140, rng))
    picks = replace(picks, weight=rng.uniform(0.2, 1.0, len(picks)))
    start = origins + rng.normal(0, [2.0, 2.0, 2.0, 0.3], (3, 4))
    return picks, label, mixture_of(start, rng.uniform(0.05, 0.4, 3), np.array([30.0, 25.0, 35.0, 50.0]))


def fitted(where, view, mixture, prior=PRIOR, rounds=300, still_km=1e-7):
    """EM until nothing moves."""
    for _ in range(rounds):
        ties = tie(where, view, free(view), mixture.origin, prior.reach_s)
        expect(view, free(view), ties, mixture, prior)
        if np.abs(maximise(where, view, free(view), ties, mixture, prior)[:, :3]).max() < still_km:
            break
    else:
        raise AssertionError("it still moves")
    ties = tie(where, view, free(view), mixture.origin, prior.reach_s)
    expect(view, free(view), ties, mixture, prior)
    return ties


def travel_s(where_km, picks):
    km = np.sqrt((picks.x_km - where_km[0]) ** 2 + (picks.y_km - where_km[1]) ** 2 + (picks.z_km - where_km[2]) ** 2)
    return km / np.where(picks.phase == "P", VP, VS)


def test_digamma_is_that_of_scipy():
    x = np.concatenate([np.logspace(-3, 6, 200), np.arange(1, 20) / 2, [5.999999, 6.0, 6.000001]])
    assert np.array([digamma(v) for v in x]) == pytest.approx(scipy_digamma(x), rel=1e-9, abs=1e-9)


def test_ties_are_all_pairs_within_reach():
    picks, _, mixture = mixed()
    where, view = seen(picks)
    some = np.random.default_rng(2).random(len(picks)) < 0.8
    ties = tie(where, view, some, mixture.origin, 1.5)
    expected = {}
    for k, origin in enumerate(mixture.origin):
        late = view.time_s - origin[3] - travel_s(origin, picks)
        expected.update({(k, int(i)): late[i] for i in np.flatnonzero(some & (np.abs(late) <= 1.5))})
    pairs = list(zip(ties.event.tolist(), ties.row.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs) > 100
    assert set(pairs) == set(expected)
    assert ties.residual_s == pytest.approx([expected[pair] for pair in pairs], abs=1e-9)
    assert ties.spread == pytest.approx(
        [spread(t) for t in view.time_s[ties.row] - mixture.origin[ties.event, 3] - ties.residual_s]
    )
    order = np.lexsort((view.time_s[ties.row], view.channel[ties.row], ties.event))
    assert (order == np.arange(len(order))).all()


def test_an_earthquake_that_moves_little_keeps_its_ties():
    """Their residuals are those of the new place, to what the curvature of the travel times makes of 300 m."""
    picks, _, mixture = mixed()
    where, view = seen(picks)
    before = tie(where, view, free(view), mixture.origin, PRIOR.reach_s)
    moved = np.array([[0.2, -0.2, 0.1, 0.05], [30.0, 0, 0, 0], [0.0, 0, 0, 0.1]])
    again = tie_again(where, view, free(view), mixture.origin + moved, PRIOR.reach_s, before, moved)
    anew = tie(where, view, free(view), mixture.origin + moved, PRIOR.reach_s)
    for k, near in enumerate((True, False, True)):
        mine, theirs = again.event == k, (before if near else anew).event == k
        assert again.row[mine].tolist() == (before if near else anew).row[theirs].tolist()
        both = np.intersect1d(again.row[mine], anew.row[anew.event == k])
        assert len(both) > 10 or not near
        for row in both:
            residual_s = anew.residual_s[(anew.event == k) & (anew.row == row)]
            assert again.residual_s[mine & (again.row == row)] == pytest.approx(residual_s, abs=2e-3)


@pytest.mark.parametrize("layered", [False, True])
def test_slopes_are_finite_differences_of_travel_times(layered):
    """In a uniform medium at any place; in a table inside its cells, from stations at two heights."""
    sites = replace(NETWORK, z_km=np.where(np.arange(len(NETWORK)) % 2, -1.0, 0.0))
    depth = np.array([-4.0, 400.0])
    model = VelocityModel(depth, 5.0 + 0.06 * depth, (5.0 + 0.06 * depth) / 1.75, "gradient")
    times = eikonal.travel_times(model, np.array([-1.0, 0.0]), 185.0, (0.0, 30.0)) if layered else uniform(VP, VS)
    where = ground(Region(SETTINGS, sites, times, 0))
    rng, step = np.random.default_rng(1), 1e-5
    for _ in range(300):
        site, phase, place = int(rng.integers(len(sites))), int(rng.integers(2)), rng.uniform(BOX[0], BOX[1])
        _, *slope = arrival(where, site, phase, *place)
        for axis in range(3):
            ahead, behind = place.copy(), place.copy()
            ahead[axis] += step
            behind[axis] -= step
            change = arrival(where, site, phase, *ahead)[0] - arrival(where, site, phase, *behind)[0]
            assert slope[axis] == pytest.approx(change / (2 * step), abs=1e-5)


def test_responsibilities_are_those_of_bishop():
    """Eq. 10.46 to 10.67 for one dimension, with a uniform background; the means are points, as for an endless beta."""
    picks, _, mixture = mixed()
    where, view = seen(picks)
    ties = tie(where, view, free(view), mixture.origin, PRIOR.reach_s)
    total = expect(view, free(view), ties, mixture, PRIOR)
    alpha = PRIOR.concentration + mixture.weight
    log_weight = scipy_digamma(alpha) - scipy_digamma(alpha.sum())
    log_density = np.full((4, len(picks)), -np.inf)
    log_density[3] = log_weight[3] - np.log(view.duration_s)
    for k, origin in enumerate(mixture.origin):
        travel = travel_s(origin, picks)
        late = view.time_s - origin[3] - travel
        nu = PRIOR.strength + mixture.weight[k]
        excess = scipy_digamma(nu / 2) + np.log(2 / nu)  # of E[ln Lambda] over the logarithm of E[Lambda]
        sigma = np.sqrt(mixture.variance_s2[k] * np.array([spread(t) for t in travel]))
        log_density[k] = log_weight[k] + excess / 2 + norm.logpdf(late, 0, sigma)
        log_density[k, np.abs(late) > PRIOR.reach_s] = -np.inf
    evidence_ = logsumexp(log_density, axis=0)
    share = np.exp(log_density - evidence_)
    assert ties.share == pytest.approx(share[ties.event, ties.row], rel=1e-7, abs=1e-12)
    assert total == pytest.approx((picks.weight * evidence_).sum(), rel=1e-9)
    assert ((share[:3] > 0.05) & (share[:3] < 0.95)).sum() > 20  # there is something to share
    assert np.bincount(ties.row, ties.share, len(picks)) == pytest.approx(1 - share[3])


def test_amplitudes_take_part_in_the_responsibilities():
    """log10 of the amplitude is normal about that of the magnitude and distance (Picozzi et al. 2018), and at large
    about what is usual; P and S count half, for they are no two measurements. What is off by more than 1 is a wrong
    gain, counts as 1, never for the earthquake, and has no part in the magnitude.
    """
    picks, label, mixture = mixed()
    rng, true = np.random.default_rng(9), np.array([1.5, 2.5, 3.0])
    km = np.array([travel_s(origin, picks) for origin in mixture.origin]) * np.where(picks.phase == "P", VP, VS)
    expected = 1.08 - 2 + 0.93 * (true[:, None] - 3.5) - 1.68 * np.log10(km)  # cm/s to m/s
    loud = np.where(label >= 0, expected[label, np.arange(len(picks))], -6) + rng.normal(0, 0.4, len(picks))
    loud[rng.random(len(picks)) < 0.2] = np.nan
    loud[rng.random(len(picks)) < 0.1] = -12.0
    where, view = seen(picks)
    _, heard = seen(replace(picks, log_amplitude=loud))
    ties = tie(where, view, free(view), mixture.origin, PRIOR.reach_s)
    expect(view, free(view), ties, mixture, PRIOR)
    both = tie(where, heard, free(view), mixture.origin, PRIOR.reach_s)
    expect(heard, free(view), both, mixture, PRIOR)
    assert both.share == pytest.approx(ties.share)  # no magnitude is known yet
    mixture = mixture._replace(magnitude=true)
    expect(heard, free(view), both, mixture, PRIOR)
    usual = norm.logpdf(loud, np.nanmean(loud), np.nanstd(loud))
    off = np.minimum(np.abs(loud - expected), 1.0)
    ratio = np.where(np.isnan(loud), 1.0, np.exp((norm.logpdf(off, 0, 0.4) - usual) / 2))
    assert (ratio[:, loud == -12] > 2).all()  # so little is likely anywhere
    ratio = np.where(np.abs(loud - expected) > 1.0, np.minimum(ratio, 1.0), ratio)
    silent = np.zeros((3, len(picks)))
    silent[ties.event, ties.row] = ties.share
    weighed = silent * ratio
    share = weighed / (1 - silent.sum(axis=0) + weighed.sum(axis=0))
    assert both.share == pytest.approx(share[both.event, both.row], rel=1e-7, abs=1e-12)
    maximise(where, heard, free(view), both, mixture, PRIOR)
    counts = np.abs(loud - expected)[both.event, both.row] <= 1.0
    weight = np.where(counts, both.share * picks.weight[both.row], 0.0)
    each = 3.5 + (np.nan_to_num(loud[both.row]) + 2 - 1.08 + 1.68 * np.log10(km[both.event, both.row])) / 0.93
    assert mixture.magnitude == pytest.approx(np.bincount(both.event, weight * each) / np.bincount(both.event, weight))
    assert mixture.magnitude == pytest.approx(true, abs=0.4)


def test_responsibilities_are_those_of_scikit_learn():
    """Its one-dimensional mixture of a Dirichlet prior, in the same state.

    It differs in two things: its means are uncertain by 1 / mean_precision, ours are points (set to nothing here); and
    all its components are normal: our background is made infinitely thin, and its place taken by one far away.
    """
    picks, _ = together(false(200, 0, 20, np.random.default_rng(1)))
    _, view = seen(picks)
    view = view._replace(duration_s=np.inf)
    mean, variance, count = np.array([5.0, 9.0, 14.0]), np.array([4.0, 1.0, 9.0]), np.array([60.0, 20.0, 100.0, 20.0])
    event, row = (a.ravel() for a in np.indices((3, len(picks))))
    m = len(event)
    ties = Ties(
        event, row, view.time_s[row] - mean[event], np.zeros((m, 3)), np.ones(m), np.zeros(m), np.full(m, np.nan)
    )
    total = expect(view, free(view), ties, mixture_of(np.zeros((3, 4)), variance, count), PRIOR)
    theirs = BayesianGaussianMixture(n_components=4, weight_concentration_prior_type="dirichlet_distribution")
    theirs.weight_concentration_ = PRIOR.concentration + count
    theirs.means_ = np.append(mean, 1e9)[:, None]
    theirs.degrees_of_freedom_ = PRIOR.strength + count
    theirs.precisions_cholesky_ = 1 / np.sqrt(np.append(variance, 1.0))[:, None, None]
    theirs.mean_precision_ = np.full(4, 1e15)
    log_density, log_share = theirs._estimate_log_prob_resp(view.time_s[:, None])
    share = np.exp(log_share[:, :3]).T.ravel()
    assert ties.share == pytest.approx(share, rel=1e-7, abs=1e-12)
    assert total == pytest.approx(log_density.sum(), rel=1e-9)


def test_an_m_step_is_the_damped_solution_of_weighted_least_squares():
    picks, _, mixture = mixed()
    where, view = seen(picks)
    ties = tie(where, view, free(view), mixture.origin, PRIOR.reach_s)
    expect(view, free(view), ties, mixture, PRIOR)
    before = Mixture(*(a.copy() for a in mixture))
    moved = maximise(where, view, free(view), ties, mixture, PRIOR)
    weight = ties.share * view.weight[ties.row]
    count = np.bincount(ties.event, weight)
    squares = np.bincount(ties.event, weight * ties.residual_s**2 / ties.spread)
    assert mixture.weight[:3] == pytest.approx(count)
    assert mixture.weight.sum() == pytest.approx(picks.weight.sum())
    assert mixture.variance_s2 == pytest.approx((20 * 0.35**2 + squares) / (20 + count))
    for k in range(3):
        mine = ties.event == k
        root = np.sqrt(weight[mine] / (ties.spread[mine] * before.variance_s2[k]))
        rows = np.column_stack([ties.slope[mine], np.ones(mine.sum())]) * root[:, None]
        rows = np.vstack([rows, [0, 0, 1 / PRIOR.depth_sigma_km, 0]])
        goal = np.append(ties.residual_s[mine] * root, (PRIOR.depth_km - before.origin[k, 2]) / PRIOR.depth_sigma_km)
        step = np.linalg.lstsq(rows, goal, rcond=None)[0]
        assert mixture.origin[k] - before.origin[k] == pytest.approx(step, rel=0.05, abs=0.01)
    assert moved == pytest.approx(mixture.origin - before.origin)


@pytest.mark.parametrize(
    ("event", "held"),
    [
        ((3.0, 4.0, 8.0, 100.0), []),
        ((-35.0, 30.0, 2.0, 100.0), []),
        ((62.0, 10.0, 8.0, 100.0), []),
        ((10.0, 5.0, 36.0, 100.0), [2]),
        ((86.0, 5.0, 9.0, 100.0), [0]),
        ((10.0, -84.0, 39.0, 100.0), [1, 2]),
    ],
)
def test_the_fixed_point_of_em_is_the_optimum_of_scipy(event, held):
    """The weighted squares of the residuals and the prior of the depth, within the bounds, by another solver.

    A little error in the picks; a wide prior for depths, so that the bounds are met.
    """
    prior = PRIOR._replace(reach_s=4.0, depth_sigma_km=100.0, sigma_s=0.5)
    picks, _ = together(quake(event, rng=np.random.default_rng(3), error_s=0.1))
    where, view = seen(picks)
    start = np.append(np.clip(event[:3], BOX[0] + 1, BOX[1] - 1), event[3])
    mixture = mixture_of(start[None, :].copy(), np.array([0.25]), np.array([40.0, 10.0]))
    ties = fitted(where, view, mixture, prior)
    root = np.sqrt(ties.share * view.weight[ties.row] / (ties.spread * mixture.variance_s2[0]))
    mine = picks.take(ties.row)

    def residuals(at):
        late = view.time_s[ties.row] - at[3] - travel_s(at, mine)
        return np.append(root * late, (prior.depth_km - at[2]) / prior.depth_sigma_km)

    bounds = np.append(BOX, [[-np.inf], [np.inf]], axis=1)
    start[:3] = np.clip(start[:3], BOX[0] + 0.5, BOX[1] - 0.5)
    best = least_squares(residuals, start, bounds=bounds, xtol=1e-14, ftol=1e-14, gtol=1e-14, x_scale=[1, 1, 1, 0.1])
    assert mixture.origin[0] == pytest.approx(best.x, abs=2e-3)
    assert (residuals(mixture.origin[0]) ** 2).sum() <= 2 * best.cost * (1 + 1e-6)
    on_bound = (np.abs(mixture.origin[0, :3] - BOX) < 1e-6).any(axis=0)
    assert np.flatnonzero(on_bound).tolist() == held
    assert len(ties.event) >= 40


def test_em_never_makes_the_likelihood_much_worse():
    """Steps of Gauss-Newton are no exact M-steps, yet the bound must rise from a start some km away."""
    picks, label, mixture = mixed()
    where, view = seen(picks)
    totals = []
    for _ in range(30):
        ties = tie(where, view, free(view), mixture.origin, PRIOR.reach_s)
        totals.append(expect(view, free(view), ties, mixture, PRIOR))
        maximise(where, view, free(view), ties, mixture, PRIOR)
    assert totals[-1] > totals[0] + 10
    assert np.abs(np.diff(totals[-5:])).max() < 0.01
    mine = belonging(view, ties, len(picks))
    event = np.where(mine >= 0, ties.event[mine], -1)
    assert (event == label).mean() > 0.9


def test_each_pick_belongs_where_most_of_it_is():
    """By brute force, on shares drawn at random; noise has its share too."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        picks, _ = together(false(60, 0, 30, rng, NETWORK.take(slice(0, 4))))
        where, view = seen(picks, region(NETWORK.take(slice(0, 4))))
        ties = tie(where, view, free(view), rng.uniform([-50, -50, 0, -10], [50, 50, 30, 20], (5, 4)), 8.0)
        raw = rng.exponential(1, len(ties.event)) * 3
        ties = ties._replace(share=raw / (1 + np.bincount(ties.row, raw, len(picks))[ties.row]))
        mine = belonging(view, ties, len(picks))
        assert mine.tolist() == _belonging(view, ties, len(picks))
        assert 3 < (mine >= 0).sum() < len(picks)


def _belonging(view, ties, n):
    best: dict[tuple[int, int], int] = {}
    for row in range(n):
        tied = np.flatnonzero(ties.row == row)
        if not len(tied):
            continue
        i = int(tied[np.argmax(ties.share[tied])])
        if ties.share[i] <= 1 - ties.share[tied].sum():
            continue
        key = int(ties.event[i]), int(view.channel[row])
        if key not in best or abs(ties.residual_s[i]) < abs(ties.residual_s[best[key]]):
            best[key] = i
    mine = [-1] * n
    for i in best.values():
        mine[ties.row[i]] = i
    return mine


def test_a_true_event_is_worth_more_than_the_same_picks_at_other_times():
    """Residuals as large as they may be; fewer picks; far picks without near ones: each is worth less."""
    rng = np.random.default_rng(5)
    event = np.array([3.0, 4.0, 8.0, 100.0])
    picks, _ = together(quake(event, rng=rng, error_s=0.2, missing=0.2))
    where, view = seen(picks)
    order = np.argsort(view.channel, kind="stable")

    def worth(rows, residual_s, noise_hz=1e-3):
        return evidence(where, view, rows, residual_s, np.full(len(rows), 0.35), event, noise_hz)

    late = view.time_s - event[3] - travel_s(event, picks)
    true = worth(order, late[order])
    assert true > 100
    assert true - worth(order, rng.uniform(-1.5, 1.5, len(order))) > 50
    assert true - worth(order, late[order], 1e-2) > 50  # where noise is dense a coincidence is likelier
    few = order[rng.permutation(len(order))[:8]]
    few = few[np.argsort(view.channel[few])]
    assert worth(few, late[few]) < true - 50
    away = np.hypot(picks.x_km - event[0], picks.y_km - event[1])
    by_distance = np.lexsort((picks.phase, away))
    near, far = (np.sort(rows) for rows in (by_distance[:10], by_distance[-10:]))
    near, far = (rows[np.argsort(view.channel[rows])] for rows in (near, far))
    assert worth(near, np.zeros(10)) > worth(far, np.zeros(10)) + 5


def test_judge_keeps_the_true_and_drops_what_has_too_few():
    picks, _, mixture = mixed()
    where, view = seen(picks)
    lost = np.array([[60.0, 60.0, 10.0, 70.0]])  # an origin of nothing
    mixture = mixture_of(
        np.concatenate([mixture.origin, lost]), np.append(mixture.variance_s2, 0.1), np.insert(mixture.weight, 3, 5.0)
    )
    for _ in range(20):
        ties = tie(where, view, free(view), mixture.origin, PRIOR.reach_s)
        expect(view, free(view), ties, mixture, PRIOR)
        maximise(where, view, free(view), ties, mixture, PRIOR)
    mine = belonging(view, ties, len(picks))
    kept, log_odds = judge(where, view, mixture, ties, mine, NEEDS, 1e-3)
    assert kept.tolist() == [True, True, True, False]
    assert (log_odds[:3] > log_odds[3]).all()
    sizes = [int((ties.event[mine[mine >= 0]] == k).sum()) for k in range(3)]
    most, _ = judge(where, view, mixture, ties, mine, NEEDS._replace(picks=max(sizes)), 1e-3)
    assert most[:3].tolist() == [size == max(sizes) for size in sizes]


def test_enough_is_that_of_the_rules():
    rng = np.random.default_rng(1)
    picks, _ = together(false(400, 0, 60, rng))
    _, view = seen(picks)
    answers = []
    for _ in range(1000):
        rows = rng.permutation(len(picks))[: rng.integers(1, 14)]
        rows = rows[np.lexsort((rows, view.channel[rows]))]
        needs = Needs(*(int(n) for n in rng.integers(0, [12, 6, 6, 9, 3])), 0.0)
        names = ("min_picks", "min_p_picks", "min_s_picks", "min_stations", "min_pairs")
        settings = SETTINGS.model_copy(update=dict(zip(names, needs[:5], strict=True)))
        answers.append(enough(view, rows, needs))
        assert answers[-1] == rules.enough(picks.take(np.sort(rows)), settings)
    assert 0.1 < np.mean(answers) < 0.9


@needs_data
def test_one_event_is_where_the_package_gmma_puts_it():
    """Real events of OGS one by one, in the same uniform medium, without a belief about depth."""
    o = ogs("2024-03-27", "2024-03-29")
    names, first = np.unique(o.station, return_index=True)
    network = Network(names, o.x_km[first], o.y_km[first], o.z_km[first])
    wide = OGS.model_copy(update={"associator": "gamma", "depth_sigma_km": 1e3, "min_evidence": 0.0})
    where = Region(wide, network, uniform(OGS.vp_km_s, OGS.vs_km_s), 0)
    apart = []
    for stretch in gmma.segments(o.time_ns, 60.0):
        picks = o.take(stretch)
        if len(picks) < 16 or np.ptp(picks.time_ns) > 100 * NS:
            continue
        theirs = gmma.associate_cluster(picks, OGS, 0)
        ours = gamma.solve(picks, gamma.Piece(0, len(picks), gamma.ALL_TIMES), where)
        if len(theirs) > 1:
            continue
        (a,), (b,) = ours, theirs
        assert len(set(a.picks) ^ set(b.picks)) <= 1
        if set(a.picks) == set(b.picks):
            apart.append((np.hypot(a.x_km - b.x_km, a.y_km - b.y_km), a.z_km - b.z_km, (a.time_ns - b.time_ns) / NS))
    km, depth_km, late_s = np.abs(apart).T
    assert len(km) > 15
    assert km.max() < 0.3
    assert np.median(km) < 0.05
    assert np.median(depth_km) < 0.2
    assert late_s.max() < 0.1
