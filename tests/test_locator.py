"""The locator against closed forms, SciPy, made-up earthquakes whose place is known, and OGS's own locations."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from pipeline.maths.traveltime import uniform
from pipeline.models import locator
from pipeline.models.associators.observed import Network
from pipeline.models.locator import Readings
from pipeline.models.locators import batch, posterior, sampling
from pipeline.models.locators.refine import solve
from pipeline.models.locators.scene import Belief
from pipeline.records import NS
from tests import location_cases as cases
from tests.bench_location import term_errors_s, true_term
from tests.location_cases import BELIEF, ZERO_NS, area

real = pytest.mark.skipif(not cases.DATA.exists(), reason="no OGS bulletin: locations are not compared with theirs")
VP, VS = 6.0, 3.43
TIGHT = Belief(0.01, 3.0, 0.0, 1e6)  # hardly anything but Gaussian picks


def ring(n=12, radius_km=30.0, z_km=0.0):
    """Stations around the centre."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    names = np.array([f"XX.S{i:03d}" for i in range(n)])
    return Network(names, radius_km * np.sin(angle), radius_km * np.cos(angle), np.full(n, z_km))


def exact(net, at, phases="PS", sigma_s=0.1):
    """Readings without error of one event, straight rays."""
    rows = [
        (i, p, np.sqrt((net.x_km[i] - at[0]) ** 2 + (net.y_km[i] - at[1]) ** 2 + (net.z_km[i] - at[2]) ** 2))
        for i in range(len(net))
        for p in phases
    ]
    site, phase, line = (np.array(column) for column in zip(*rows, strict=True))
    time_ns = ZERO_NS + np.rint(line / np.where(phase == "P", VP, VS) * NS).astype(np.int64)
    return Readings(np.zeros(len(rows), np.int64), site, phase, time_ns, np.full(len(rows), sigma_s))


def located(readings, where):
    return locator.locate(readings, where, locator.no_terms(where))


@pytest.mark.parametrize("at", [(0.0, 0.0, 10.0), (12.0, -7.0, 5.0), (-25.0, 20.0, 30.0)])
def test_exact_picks_give_the_exact_place(at):
    net = ring()
    places, fits = located(exact(net, at, sigma_s=0.01), replace(area(net, uniform(VP, VS)), belief=TIGHT))
    np.testing.assert_allclose([places.x_km[0], places.y_km[0], places.z_km[0]], at, atol=0.02)
    assert abs(places.time_ns[0] - ZERO_NS) < 5_000_000
    assert np.abs(fits.residual_s).max() < 0.005


def test_the_covariance_of_a_linear_problem_is_that_of_least_squares():
    """Gaussian picks around a deep event: the inverse of the normal equations."""
    net, at = ring(), np.array([3.0, -4.0, 20.0])
    readings = exact(net, at, sigma_s=0.03)
    where = replace(area(net, uniform(VP, VS)), belief=TIGHT)
    away = at - np.column_stack([net.x_km, net.y_km, net.z_km])[readings.site]
    line = np.linalg.norm(away, axis=1)
    slope = away / line[:, None] / np.where(readings.phase == "P", VP, VS)[:, None]
    design = np.column_stack([slope, np.ones(len(slope))]) / 0.03
    expected = np.linalg.inv(design.T @ design)
    places, _ = located(readings, where)
    scale = np.sqrt(np.diag(expected)[:3])
    np.testing.assert_allclose(
        places.covariance_km2[0] / np.outer(scale, scale), expected[:3, :3] / np.outer(scale, scale), atol=0.1
    )
    assert np.sqrt(places.tt_s2[0]) == pytest.approx(np.sqrt(expected[3, 3]), rel=0.06)


def test_the_maximum_is_that_of_scipy():
    case = cases.synthetic(6, outliers=0.15, seed=2)
    ground = case.area.ground
    scene, start, _ = locator._scene(case.readings, case.area, locator.no_terms(case.area))
    best = batch.search_all(ground, scene, start, BELIEF)
    for e in range(len(best)):
        own = batch.part(scene, start[e], start[e + 1])

        def off(v, own=own):
            return -posterior.log_posterior(ground, own, BELIEF, *v)

        found = minimize(off, best[e] + [1.0, -1.0, 0.1, 0.5], method="Nelder-Mead", options={"maxiter": 4000})
        assert off(best[e]) <= found.fun + 0.02


def test_a_wrong_pick_moves_nothing():
    """From 2 s on it does not matter how wrong it is, as long as that is within reach."""
    net, at = ring(), (5.0, 5.0, 12.0)
    where, right = area(net, uniform(VP, VS)), exact(net, at)
    plain, _ = located(right, where)
    for late_s in (2.0, 2.9, -2.5):
        time_ns = right.time_ns.copy()
        time_ns[4] += round(late_s * NS)
        places, fits = located(replace(right, time_ns=time_ns), where)
        assert np.hypot(places.x_km[0] - plain.x_km[0], places.y_km[0] - plain.y_km[0]) < 0.1
        assert abs(places.z_km[0] - plain.z_km[0]) < 0.2
        assert fits.weight[4] < 0.01
        assert np.delete(fits.weight, 4).min() > 0.95


def test_the_order_of_picks_and_the_other_events_change_nothing():
    case = cases.synthetic(20, seed=4)
    all_, _ = located(case.readings, case.area)
    rows = np.flatnonzero(case.readings.event == 7)
    alone = case.readings.take(rows)
    alone, _ = located(replace(alone, event=np.zeros(len(rows), np.int64)), case.area)
    assert alone.take(np.array([0])).as_dict() == all_.take(np.array([7])).as_dict()


def test_elevation_counts():
    """Stations 2 km up: an event below is as far away as it is deep, and 2 km."""
    net, at = ring(z_km=-2.0), (0.0, 0.0, 3.0)
    places, _ = located(exact(net, at, sigma_s=0.02), replace(area(net, uniform(VP, VS)), belief=TIGHT))
    assert places.z_km[0] == pytest.approx(3.0, abs=0.3)


def test_a_depth_that_picks_cannot_tell_is_fixed_and_says_so():
    """P alone at far stations on all sides: depth and origin time cannot be told apart."""
    net = ring(radius_km=140.0)
    readings = exact(net, (0.0, 0.0, 8.0), phases="P")
    where = area(net, uniform(VP, VS))
    places, _ = located(readings, where)
    assert places.depth_kind[0].startswith("fixed: picks allow ")
    assert places.z_km[0] == where.depth_km
    low, high = map(float, re.findall(r"\d+", places.depth_kind[0]))
    assert low <= where.depth_km <= high
    deep, _ = located(readings, replace(where, depth_km=39.0))
    assert (deep.depth_kind[0], deep.z_km[0] < 37) == ("free", True), "not at a depth that picks rule out"
    assert np.hypot(places.x_km[0], places.y_km[0]) < 1.0
    assert np.sqrt(places.zz_km2[0]) > 5, "the uncertainty is that of all depths that could be"
    near, _ = located(exact(ring(radius_km=15.0), (0.0, 0.0, 8.0)), area(ring(radius_km=15.0), uniform(VP, VS)))
    assert near.depth_kind[0] == "free"


def test_a_depth_is_as_unsure_as_the_box_is_deep_at_most():
    """Second moments about a place in the box cannot be larger, wherever the depth is fixed."""
    case = cases.synthetic(400, 4, seed=11)
    places, _ = cases.without_terms(case)
    low, high = case.area.box_km[2]
    assert 20 < np.char.startswith(places.depth_kind, "fixed").sum() < 100
    assert (places.zz_km2 <= np.maximum(places.z_km - low, high - places.z_km) ** 2).all()
    assert (np.linalg.eigvalsh(places.covariance_km2) > 0).all()


def test_two_stations_are_too_few():
    net = ring()
    readings = exact(net, (0.0, 0.0, 10.0))
    assert locator.locatable(readings, 1).tolist() == [""]
    assert locator.locatable(readings.take(slice(0, 4)), 1).tolist() == ["2 stations, 3 are needed"]
    assert locator.locatable(readings.take(slice(0, 3)), 2).tolist() == [
        "3 picks, 4 are needed",
        "0 picks, 4 are needed",
    ]


def test_no_event_at_all():
    net = ring()
    where = area(net, uniform(VP, VS))
    places, fits = located(Readings.empty(), where)
    assert len(places) == len(fits) == 0
    assert len(places.covariance_km2) == 0


@pytest.mark.parametrize("outliers", [0.0, 0.1, 0.2])
def test_ellipsoids_hold_the_truth_as_often_as_they_say(outliers):
    """500 events: three standard errors of a share are 6 % and 3 % (the benchmark has more events)."""
    case = cases.synthetic(500, outliers=outliers, seed=11)
    places, _ = cases.without_terms(case)
    held = cases.held(places, case.truth)
    assert held[0.68] == pytest.approx(0.68, abs=0.06)
    assert held[0.95] == pytest.approx(0.95, abs=0.03)
    assert cases.distances(places, case.truth)["epicentre"] < 0.8


def test_known_station_terms_are_found_again():
    case = cases.synthetic(300, seed=5, terms=true_term)
    places, fits, terms = cases.with_terms(case, term_sigma_s=0.3)
    off = term_errors_s(case, terms)
    assert np.sqrt(np.mean(off**2)) < 0.06  # they are 0.22 s
    plain, plain_fits = cases.without_terms(case)
    before, after = (cases.distances(p, case.truth) for p in (plain, places))
    assert after["epicentre"] < 0.75 * before["epicentre"]
    assert after["depth"] < 0.75 * before["depth"]
    assert cases.rms_p_s(case.readings, fits) < 0.9 * cases.rms_p_s(case.readings, plain_fits)


def test_where_there_are_no_terms_none_are_found():
    _, _, terms = cases.with_terms(cases.synthetic(300, seed=6))
    assert np.abs(terms.term_s).max() < 0.08


def test_the_points_of_the_sampling_are_students():
    points = sampling.points().reshape(-1, 4)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(points.var(axis=0), sampling.FREEDOM / (sampling.FREEDOM - 2), rtol=0.08)


def test_equations_are_solved():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((4, 4))
    matrix, right = root @ root.T + np.eye(4), rng.standard_normal(4)
    for n in (3, 4):
        np.testing.assert_allclose(solve(matrix, right, n), np.linalg.solve(matrix[:n, :n], right[:n]))


@real
def test_ogs_as_they_have_it():
    """The distances that the analysts' own two locations are apart are 0.91 and 1.55 km (median)."""
    case = cases.ogs()
    plain, fits = cases.without_terms(case)
    mine, mine_fits, terms = cases.with_terms(case)
    assert cases.rms_p_s(case.readings, mine_fits) <= 0.13 < cases.rms_p_s(case.readings, fits)
    assert np.abs(terms.term_s).max() < 0.6
    for places in (plain, mine):
        for theirs in (case.hypo71, case.nonlinloc):
            off = cases.distances(places, theirs)
            assert off["epicentre"] <= 1.0
            assert off["depth"] <= 1.7
            assert off["epicentre 95 %"] <= 5.1
        assert cases.distances(places, case.hypo71)["depth 95 %"] <= 5.0
