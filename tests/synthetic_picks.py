"""A made-up day of picks whose events are known, after the design of PyOcto's benchmark.

Münchmeyer (2024), PyOcto: A high-throughput seismic phase associator, Seismica 3(1), doi 10.26443/seismica.v3i1.1130:
events uniform in time, Gutenberg-Richter magnitudes, stations that see an event with a probability that falls with
distance, P and S seen together more often than not, arrivals with errors, and false picks anywhere at any time.

The same scenario and seed give the same picks. Arrivals are computed here, from the laws of rays in flat layers, and
know nothing of the tables of any associator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.models.associators.observed import Network, Observed
from pipeline.records import DAY_NS, NS, Bool, Float, Int

BISECTIONS = 60
START_NS = int(np.datetime64("2024-06-01", "ns").astype(np.int64))
BATCH = 2000  # events tried at once
MISSED = 0.2  # of the picks, however near the station
TOGETHER = 0.5  # correlation of P and S of one station
LEAST_PICKS, LEAST_PAIRS = 10, 4  # of an event that can be found
P, S = 0, 1


@dataclass(frozen=True)
class Layers:
    """Flat layers from the surface down: ``top_km`` (n,) and the speeds below it (n,), km/s. One layer: uniform."""

    top_km: tuple[float, ...]
    vp_km_s: tuple[float, ...]
    vs_km_s: tuple[float, ...]

    def speed(self, phase: int) -> Float:
        return np.array(self.vp_km_s if phase == P else self.vs_km_s)


UNIFORM = Layers((0.0,), (6.0,), (3.43,))
CRUST = Layers((0.0, 5.0, 15.0, 35.0), (5.0, 6.0, 6.6, 8.0), (2.9, 3.46, 3.8, 4.5))


@dataclass(frozen=True)
class Scenario:
    """What is made up.

    At a * magnitude + b km from an event, where (a, b) is ``radius_km``, a station sees half of what it sees beside
    it; the share falls from all to nothing over some tenths of that distance, or some times ``least_width_km``.
    """

    n_events: int = 1500
    noise_factor: float = 0.3  # false picks for each true one
    n_stations: int = 100
    side_km: float = 250.0
    radius_km: tuple[float, float] = (50.0, 50.0)
    least_width_km: float = 5.0
    layers: Layers = UNIFORM
    subduction: bool = False  # events on a plane that dips from 10 to 250 km, not in the crust
    seed: int = 0

    @property
    def z_km(self) -> tuple[float, float]:
        return (0.0, 260.0) if self.subduction else (0.0, 30.0)


@dataclass(frozen=True)
class Truth:
    """``event`` (n,) of each pick, a row of the other columns (m,), or -1: a false pick."""

    event: Int
    time_ns: Int
    x_km: Float
    y_km: Float
    z_km: Float
    magnitude: Float

    def __len__(self) -> int:
        return len(self.time_ns)


def make(scenario: Scenario) -> tuple[Observed, Network, Truth]:
    """One day of picks in canonical order, all stations, and where the picks come from."""
    rng = np.random.default_rng(scenario.seed)
    network = _network(scenario, rng)
    events, seen = _events(scenario, network, rng)
    event, site, phase = np.nonzero(seen)
    time_ns = events[event, 3].astype(np.int64) + _travel_ns(events[event], network.take(site), phase, scenario, rng)
    n_false = round(scenario.noise_factor * len(event))
    event = np.concatenate([event, np.full(n_false, -1)])
    site = np.concatenate([site, rng.integers(0, len(network), n_false)])
    phase = np.concatenate([phase, rng.integers(0, 2, n_false)])
    time_ns = np.concatenate([time_ns, START_NS + rng.integers(0, DAY_NS, n_false)])
    observed = observe(network, site, np.array(["P", "S"])[phase], time_ns)
    order = np.lexsort((observed.phase, observed.station, observed.time_ns))
    x, y, z, t, magnitude = events.T
    return observed.take(order), network, Truth(event[order], t.astype(np.int64), x, y, z, magnitude)


def observe(network: Network, site: Int, phase: np.ndarray, time_ns: Int) -> Observed:
    """Picks (n,) of full weight and unknown amplitude at rows ``site`` of the network, in the order given."""
    at, n = network.take(site), len(site)
    weight, amplitude = np.ones(n), np.full(n, np.nan)
    return Observed(at.station, phase, time_ns, weight, amplitude, site.astype(np.int64), at.x_km, at.y_km, at.z_km)


def _network(scenario: Scenario, rng: np.random.Generator) -> Network:
    """Stations on a grid, each moved at random by up to a third of the spacing."""
    n = scenario.n_stations
    across = int(np.ceil(np.sqrt(n)))
    cell_km = scenario.side_km / across
    row, column = np.divmod(np.sort(rng.permutation(across * across)[:n]), across)
    xy = np.column_stack([column + 0.5, row + 0.5]) + rng.uniform(-1 / 3, 1 / 3, (n, 2))
    name = np.array([f"SY.S{i:03d}" for i in range(n)])
    return Network(name, *(xy * cell_km).T.copy(), np.zeros(n))


def _events(scenario: Scenario, network: Network, rng: np.random.Generator) -> tuple[Float, Bool]:
    """Events (m, 5) x, y, z, time (ns), magnitude by time, and which stations and phases saw them, (m, stations, 2).

    What too few stations saw is drawn again: no associator could find it.
    """
    events, seen, n = [], [], 0
    while n < scenario.n_events:
        tried = _draw(scenario, rng)
        saw = _seen(tried, scenario, network, rng)
        enough = (saw.sum((1, 2)) >= LEAST_PICKS) & (saw.all(2).sum(1) >= LEAST_PAIRS)
        events.append(tried[enough])
        seen.append(saw[enough])
        n += int(enough.sum())
    all_events, all_seen = np.concatenate(events)[: scenario.n_events], np.concatenate(seen)[: scenario.n_events]
    order = np.argsort(all_events[:, 3], kind="stable")
    return all_events[order], all_seen[order]


def _draw(scenario: Scenario, rng: np.random.Generator) -> Float:
    """Events (BATCH, 5) anywhere in the square, the magnitudes by Gutenberg and Richter's law, b = 1, from -0.5."""
    x, y = rng.uniform(0, scenario.side_km, (2, BATCH))
    low, high = scenario.z_km
    z = rng.uniform(low, high, BATCH)
    if scenario.subduction:
        z = np.clip(10 + 240 * x / scenario.side_km + rng.normal(0, 5, BATCH), low, high)
    time = START_NS + rng.integers(0, DAY_NS, BATCH)
    magnitude = -0.5 + rng.exponential(1 / np.log(10), BATCH)
    return np.column_stack([x, y, z, time, magnitude])


def _seen(events: Float, scenario: Scenario, network: Network, rng: np.random.Generator) -> Bool:
    """Which picks (m, stations, 2) there are: P, and S that follows P with the correlation `TOGETHER`."""
    km = np.sqrt(
        (events[:, None, 0] - network.x_km) ** 2
        + (events[:, None, 1] - network.y_km) ** 2
        + (events[:, None, 2] - network.z_km) ** 2
    )
    a, b = scenario.radius_km
    radius = np.maximum(a * events[:, 4] + b, 0.0)[:, None]
    width = np.maximum(0.1 * radius, scenario.least_width_km)
    share = (1 - MISSED) / (1 + np.exp((km - radius) / width))
    p = rng.random(share.shape) < share
    s = rng.random(share.shape) < np.where(p, share + TOGETHER * (1 - share), share - TOGETHER * share)
    return np.stack([p, s], axis=2)


def _travel_ns(events: Float, at: Network, phase: Int, scenario: Scenario, rng: np.random.Generator) -> Int:
    """Travel times (n,) with errors: normal, of 1 % of the travel time and 0.4 s at least."""
    km = np.hypot(events[:, 0] - at.x_km, events[:, 1] - at.y_km)
    time_s = np.empty(len(km))
    for which in (P, S):
        rows = phase == which
        time_s[rows] = first_arrival_s(km[rows], events[rows, 2], scenario.layers, which)
    error_s = rng.normal(0, np.maximum(0.01 * time_s, 0.4))
    return np.round((time_s + error_s) * NS).astype(np.int64)


def first_arrival_s(km: Float, depth_km: Float, layers: Layers, phase: int) -> Float:
    """First arrivals (n,) at the surface ``km`` (n,) away: the direct ray or a head wave, by Snell's law."""
    speed, top = layers.speed(phase), np.array(layers.top_km)
    bottom = np.append(top[1:], np.inf)
    above = np.clip(depth_km[:, None], top, bottom) - top  # (n, layers): km of each layer above the source
    best = _direct_s(km, above, speed)
    for k in range(1, len(top)):
        below = bottom - np.clip(depth_km[:, None], top, bottom)
        rays = (bottom - top)[:k] + below[:, :k]  # up through every layer, and down through those below the source
        head = _head_s(km, rays, speed[:k], float(speed[k]))
        best = np.where(depth_km <= top[k], np.minimum(best, head), best)
    return best


def _direct_s(km: Float, above: Float, speed: Float) -> Float:
    """The ray that only rises: its angle in the fastest layer by bisection of the distance where it comes out."""
    crossed = np.where(above > 0, speed, 0.0)
    fastest = np.maximum(crossed.max(1), speed[0])
    thick = np.where(crossed == fastest[:, None], above, 0.0).sum(1)
    ratio = np.where(above > 0, speed, 0.0) / fastest[:, None]
    low, high = np.zeros(len(km)), np.where(thick > 0, km / np.maximum(thick, 1e-12), 0.0)
    for _ in range(BISECTIONS):
        tangent = (low + high) / 2
        sine = tangent / np.hypot(1, tangent)
        out = (above * _tangent(sine, tangent, ratio)).sum(1)
        low, high = np.where(out < km, tangent, low), np.where(out < km, high, tangent)
    sine = high / np.hypot(1, high)
    path = above * np.hypot(1, _tangent(sine, high, ratio))
    rest = np.where(thick > 0, 0.0, km / speed[0])  # a source at the surface: along it
    return (path / speed).sum(1) + rest


def _tangent(sine: Float, tangent: Float, ratio: Float) -> Float:
    """Of the angle from the vertical in each layer (n, layers), by Snell's law from that in the fastest."""
    s = sine[:, None] * ratio
    cosine = np.sqrt(np.maximum(1 - s * s, 1e-300))
    return np.where(ratio == 1, tangent[:, None], s / cosine)


def _head_s(km: Float, rays: Float, speed: Float, below: float) -> Float:
    """The wave along the top of a faster layer; infinite where there is none. ``rays`` (n, layers) are km of height."""
    if (speed >= below).any():
        return np.full(len(km), np.inf)
    cosine = np.sqrt(1 - (speed / below) ** 2)
    reach = (rays * (speed / below) / cosine).sum(1)
    return np.where(km >= reach, km / below + (rays * cosine / speed).sum(1), np.inf)
