"""Made-up picks against the laws that they are made by: Fermat's principle, head waves, the shares asked for."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from pipeline.records import DAY_NS, NS
from tests.synthetic_picks import (
    CRUST,
    LEAST_PAIRS,
    LEAST_PICKS,
    START_NS,
    UNIFORM,
    Layers,
    P,
    S,
    Scenario,
    first_arrival_s,
    make,
)

SMALL = Scenario(n_events=300)


def arrivals(layers, km, depth_km, phase=P):
    km, depth_km = np.broadcast_arrays(np.atleast_1d(np.asarray(km, float)), np.asarray(depth_km, float))
    return first_arrival_s(km, depth_km, layers, phase)


def test_rays_of_a_uniform_medium_are_straight():
    rng = np.random.default_rng(1)
    km, z = rng.uniform(0, 300, 200), rng.uniform(0, 250, 200)
    assert arrivals(UNIFORM, km, z) == pytest.approx(np.hypot(km, z) / 6.0, rel=1e-12)
    assert arrivals(UNIFORM, km, z, S) == pytest.approx(np.hypot(km, z) / 3.43, rel=1e-12)


def test_a_source_at_the_surface_sends_a_head_wave_of_the_textbook():
    """Refraction seismics of one layer: t = x / v2 + 2 h cos(i) / v1, first beyond 2 h sqrt((v2 + v1) / (v2 - v1))."""
    v1, v2, h = 5.0, 8.0, 30.0
    layers = Layers((0.0, h), (v1, v2), (v1 / 2, v2 / 2))
    crossover = 2 * h * np.sqrt((v2 + v1) / (v2 - v1))
    near, far = np.linspace(0, crossover, 50)[:-1], np.linspace(crossover, 400, 50)
    assert arrivals(layers, near, 0) == pytest.approx(near / v1, rel=1e-12)
    assert arrivals(layers, far, 0) == pytest.approx(far / v2 + 2 * h * np.sqrt(1 - (v1 / v2) ** 2) / v1, rel=1e-12)
    assert arrivals(layers, far, 0, S) == pytest.approx(2 * arrivals(layers, far, 0), rel=1e-12)


@pytest.mark.parametrize("depth_km", [3.0, 9.0, 15.0, 22.0, 40.0, 80.0])
def test_the_rising_ray_is_the_quickest_way_through_the_layers(depth_km):
    """Fermat: of all lines from source to station that are straight in each layer, the ray is the quickest.

    Only the second layer, of which sources above it get a head wave too, is faster than the one above.
    """
    layers = Layers((0.0, 5.0, 15.0, 35.0), (5.0, 6.6, 6.0, 5.5), (2.9, 3.8, 3.46, 3.2))
    top, speed = np.array(layers.top_km), layers.speed(P)
    thick = np.clip(depth_km - top, 0, np.append(np.diff(top), np.inf))
    crossed = thick > 0
    for km in (1.0, 20.0, 60.0):
        quickest = fermat_s(km, thick[crossed], speed[crossed])
        if depth_km < 5:
            quickest = min(quickest, km / 6.6 + (10 - depth_km) * np.sqrt(1 / 5.0**2 - 1 / 6.6**2))
        assert arrivals(layers, km, depth_km) == pytest.approx([quickest], rel=1e-8)


def fermat_s(km, thick, speed):
    """The least time through layers ``thick`` (n,) km: where to cross from each to the next is tried out."""

    def time_s(across):
        return (np.hypot(np.append(across, km - across.sum()), thick) / speed).sum()

    if len(thick) == 1:
        return time_s(np.empty(0))
    start = np.full(len(thick) - 1, km / len(thick))
    return minimize(time_s, start, method="BFGS", options={"gtol": 1e-10}).fun


def test_no_wave_is_slower_than_the_slowest_or_quicker_than_the_quickest_layer():
    rng = np.random.default_rng(2)
    km, z = rng.uniform(0, 300, 500), rng.uniform(0, 60, 500)
    for phase in (P, S):
        time_s, speed = arrivals(CRUST, km, z, phase), CRUST.speed(phase)
        assert (time_s <= np.hypot(km, z) / speed[0] + 1e-9).all()
        assert (time_s >= np.hypot(km, z) / speed[-1] - 1e-9).all()
    outward = arrivals(CRUST, np.arange(0, 301), 12.0)
    assert (np.diff(outward) > 0).all()
    assert np.diff(outward)[-1] == pytest.approx(1 / 8.0, rel=1e-9)  # far out Pn is first


def test_the_same_seed_gives_the_same_picks_and_another_one_others():
    a, b, c = make(SMALL), make(SMALL), make(replace(SMALL, seed=1))
    for one, other in zip(a, b, strict=True):
        assert all(
            np.array_equal(getattr(one, k), getattr(other, k), equal_nan=k == "log_amplitude") for k in fields(one)
        )
    assert len(a[0]) != len(c[0]) or not np.array_equal(a[0].time_ns, c[0].time_ns)


def fields(table):
    return list(type(table).__dataclass_fields__)


def test_every_event_can_be_found_and_every_pick_is_accounted_for():
    observed, network, truth = make(SMALL)
    assert len(truth) == SMALL.n_events
    true = truth.event >= 0
    assert (~true).sum() == round(SMALL.noise_factor * true.sum())
    seen = np.zeros((len(truth), len(network), 2), int)
    np.add.at(seen, (truth.event[true], observed.site[true], (observed.phase[true] == "S").astype(int)), 1)
    assert seen.max() == 1
    assert seen.sum((1, 2)).min() >= LEAST_PICKS
    assert seen.all(2).sum(1).min() >= LEAST_PAIRS
    assert (np.diff(truth.time_ns) >= 0).all()
    assert START_NS <= truth.time_ns.min() <= truth.time_ns.max() < START_NS + DAY_NS
    order = np.lexsort((observed.phase, observed.station, observed.time_ns))
    assert np.array_equal(order, np.arange(len(order)))
    assert np.array_equal(network.station[observed.site], observed.station)


@pytest.mark.parametrize("layers", [UNIFORM, CRUST], ids=["uniform", "layers"])
def test_arrivals_are_off_by_the_error_that_is_asked_for(layers):
    observed, _, truth = make(replace(SMALL, layers=layers))
    true = truth.event >= 0
    event = truth.event[true]
    km = np.hypot(observed.x_km[true] - truth.x_km[event], observed.y_km[true] - truth.y_km[event])
    is_s = observed.phase[true] == "S"
    predicted = np.where(is_s, *(arrivals(layers, km, truth.z_km[event], phase) for phase in (S, P)))
    off = (observed.time_ns[true] - truth.time_ns[event]) / NS - predicted
    sigma = np.maximum(0.01 * predicted, 0.4)
    n = len(off)
    assert n > 5000
    assert abs((off / sigma).mean()) < 4 / np.sqrt(n)
    assert (off / sigma).std() == pytest.approx(1, abs=4 / np.sqrt(2 * n))


def test_near_stations_miss_a_fifth_and_s_follows_p():
    """Far inside the radius of an event a station has P with 0.8, S with 0.8, and the two correlate by 0.5."""
    observed, network, truth = make(Scenario(n_events=1000, radius_km=(0.0, 400.0), noise_factor=0.0, seed=3))
    seen = np.zeros((len(truth), len(network), 2), bool)
    seen[truth.event, observed.site, (observed.phase == "S").astype(int)] = True
    km = np.hypot(truth.x_km[:, None] - network.x_km, truth.y_km[:, None] - network.y_km)
    p, s = seen[km < 100].T
    assert p.mean() == pytest.approx(0.8, abs=0.005)
    assert s.mean() == pytest.approx(0.8, abs=0.005)
    assert np.corrcoef(p, s)[0, 1] == pytest.approx(0.5, abs=0.01)


def test_large_events_are_rare_and_subduction_dips():
    _, _, truth = make(Scenario(n_events=2000, radius_km=(0.0, 400.0), noise_factor=0.0))
    above = truth.magnitude + 0.5
    assert above.min() >= 0
    assert above.mean() == pytest.approx(1 / np.log(10), rel=0.08)  # Aki (1965): b = 1
    _, _, truth = make(Scenario(n_events=500, subduction=True, radius_km=(80.0, 50.0)))
    assert np.corrcoef(truth.x_km, truth.z_km)[0, 1] > 0.98
    assert truth.z_km.max() > 150
