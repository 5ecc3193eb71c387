"""What the locator is measured on: made-up earthquakes whose place is known, and the picks of OGS's analysts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy.stats import chi2

from pipeline import config
from pipeline.cluster.world import Alone
from pipeline.config import Locate
from pipeline.formats import stations
from pipeline.maths import geo, pick_sigma, traveltime
from pipeline.maths.traveltime import TravelTimes, travel_time
from pipeline.maths.velocity import VelocityModel
from pipeline.models import eikonal, locator
from pipeline.models.associators.observed import Network, place
from pipeline.models.locator import Area, Places, Readings
from pipeline.models.locators.scene import Belief
from pipeline.records import NS, Float, Int
from pipeline.rundir import RunDir
from pipeline.stages import associate, locate

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
OGS = DATA / "ogs"
KEPT = ROOT / "runs" / "location"  # tables of travel times that are made once
WINDOW = ("2024-03-20", "2024-06-21")  # the end is exclusive
BELIEF = Belief(*(Locate.model_fields[name].default for name in ("outliers", "reach_s", "model_error", "near_km")))
ZERO_NS = 1_700_000_000 * NS
LEVELS = {0.68: float(chi2.ppf(0.68, 3)), 0.95: float(chi2.ppf(0.95, 3))}
LAYERS = VelocityModel(
    np.array([0.0, 22.0, 39.5]), np.array([5.85, 6.8, 8.0]), np.array([5.85, 6.8, 8.0]) / 1.78, "layers"
)


@dataclass(frozen=True)
class Synthetic:
    """Readings of events at ``truth`` (events, 3) x, y, z km and ``time_ns``; ``wrong`` (n,) are not of the event."""

    readings: Readings
    area: Area
    truth: Float
    time_ns: Int
    wrong: np.ndarray


def network(n: int, side_km: float, rng: np.random.Generator) -> Network:
    """Stations anywhere in a square around the centre, up to 1.5 km high."""
    names = np.array([f"XX.S{i:03d}" for i in range(n)])
    return Network(names, *rng.uniform(-side_km / 2, side_km / 2, (2, n)), -rng.uniform(0.0, 1.5, n))


def area(net: Network, times: TravelTimes, half_km: float = 150.0, z_km: tuple[float, float] = (0.0, 40.0)) -> Area:
    box = np.array([[-half_km, half_km], [-half_km, half_km], list(z_km)])
    return Area(net, times, box, BELIEF, 10.0)


@cache
def layered(seed: int, n: int, side_km: float) -> tuple[Network, TravelTimes]:
    """Travel times of layers to a network, by the eikonal solver."""
    net = network(n, side_km, np.random.default_rng(seed))
    level = traveltime.levels_km(net.z_km)
    return net, eikonal.travel_times(LAYERS, level, 350.0, (0.0, 40.0))


def synthetic(
    n_events: int = 400,
    n_picks: int = 20,
    outliers: float = 0.1,
    seed: int = 0,
    layers: bool = False,
    terms: Callable[[str, str], float] | None = None,
    spread_s: float = 3.0,
) -> Synthetic:
    """Events anywhere in a network of 40 stations, with picks of the nearest ones.

    Residuals are Gaussian with the deviation that the locator is told, 0.1 s (P) or 0.16 s (S) and the error of the
    model; ``outliers`` of the picks are uniform within ``spread_s`` of their prediction instead. ``terms`` gives the
    term of a station and phase.
    """
    rng = np.random.default_rng([seed, n_events, n_picks])
    net, times = layered(1, 40, 120.0) if layers else (network(40, 120.0, rng), traveltime.uniform(6.0, 3.43))
    ground = area(net, times)
    truth = np.column_stack([*rng.uniform(-60, 60, (2, n_events)), rng.uniform(2, 20, n_events)])
    origin_ns = ZERO_NS + np.arange(n_events) * 600 * NS + rng.integers(0, NS, n_events)
    rows = [_event(e, truth[e], ground, n_picks, rng) for e in range(n_events)]
    event, site, phase, travel_s = (np.concatenate(column) for column in zip(*rows, strict=True))
    sigma_s = np.where(phase == "P", 0.1, 0.16)
    wrong = rng.random(len(event)) < outliers
    noise = rng.standard_normal(len(event)) * np.hypot(sigma_s, BELIEF.model_error * travel_s)
    noise = np.where(wrong, rng.uniform(-spread_s, spread_s, len(event)), noise)
    if terms is not None:
        noise += np.array([terms(net.station[s], p) for s, p in zip(site.tolist(), phase.tolist(), strict=True)])
    time_ns = origin_ns[event] + np.rint((travel_s + noise) * NS).astype(np.int64)
    return Synthetic(Readings(event, site, phase, time_ns, sigma_s), ground, truth, origin_ns, wrong)


def _event(
    e: int, at: Float, where: Area, n_picks: int, rng: np.random.Generator
) -> tuple[Int, Int, np.ndarray, Float]:
    """Picks of one event: some of the P and S of the stations nearest to it."""
    net = where.network
    near = np.argsort(np.hypot(net.x_km - at[0], net.y_km - at[1]))[: max(n_picks * 3 // 5, 4)]
    chosen = np.sort(rng.permutation(2 * len(near))[:n_picks])
    site, is_s = near[chosen // 2], chosen % 2
    travel = [predicted_s(where, int(s), int(p), at) for s, p in zip(site, is_s, strict=True)]
    return np.full(len(site), e), site.astype(np.int64), np.array(["P", "S"])[is_s], np.array(travel)


def predicted_s(where: Area, site: int, phase: int, at: Float) -> float:
    """Travel time from ``at`` (3,) to a row of the network."""
    net, times = where.network, where.travel_times
    level = int(times.level(net.z_km[site : site + 1])[0])
    r = float(np.hypot(at[0] - net.x_km[site], at[1] - net.y_km[site]))
    table = times.slowness_s_km[level, phase], *times.step_km, times.depth_km
    return float(travel_time(*table, r, float(at[2]), float(net.z_km[site]))[0])


def held(places: Places, truth: Float) -> dict[float, float]:
    """The share of the ellipsoids of each level that hold the truth."""
    away = truth - np.column_stack([places.x_km, places.y_km, places.z_km])
    distance2 = np.einsum("ei,eij,ej->e", away, np.linalg.inv(places.covariance_km2), away)
    return {level: float((distance2 < bound).mean()) for level, bound in LEVELS.items()}


@dataclass(frozen=True)
class Ogs:
    """The analysts' picks of the study window; ``hypo71`` and ``nonlinloc`` (events, 3) are x, y, z of their places."""

    readings: Readings
    area: Area
    hypo71: Float
    nonlinloc: Float  # NaN where there is none


def ogs(
    model: str = "velocity_1d.nd", between: str = "layers", weights: bool = True, window: tuple[str, str] = WINDOW
) -> Ogs:
    """With one of the velocity models of OGS; without ``weights`` all picks of a phase are equally good."""
    whole = config.load(ROOT / "configs" / "ogs-2024.toml")
    path = OGS / model if (OGS / model).exists() else ROOT / "configs" / model
    settings = whole.associate.model_copy(update={"velocity_model": path, "velocity_between": between})
    sites = stations.read([OGS / "stations.csv"])
    net = place(sites, settings)
    times = associate.travel_times(RunDir(KEPT), net, settings)
    box = np.array([settings.x_km, settings.y_km, settings.z_km])
    theirs = pd.read_parquet(OGS / "onlyEQ-2024.hpl.parquet")
    theirs = theirs[(theirs.time >= window[0]) & (theirs.time < window[1])].sort_values("time").reset_index(drop=True)
    picks = pd.read_parquet(OGS / "onlyEQ-2024.dat.parquet")
    row = {int(i): k for k, i in enumerate(theirs.idx)}
    picks = picks[picks["index"].isin(row)].assign(event=lambda t: t["index"].map(row))
    picks = picks.sort_values(["event", "station", "phase", "time"]).drop_duplicates(["event", "station", "phase"])
    code = {name.partition(".")[2]: i for i, name in enumerate(net.station.tolist())}
    phase = np.array(picks.phase.tolist(), "U1")
    weight = picks.WEIGHT.to_numpy(np.int64) if weights else np.full(len(picks), -1)
    readings = Readings(
        picks.event.to_numpy(np.int64),
        np.array([code[name.strip(".")] for name in picks.station], np.int64),
        phase,
        picks.time.to_numpy().astype("datetime64[ns]").astype(np.int64),
        pick_sigma.of_weights(phase, weight),
    )
    where = Area(net, times, box, BELIEF, 10.0)
    centre = settings.center_latitude_deg, settings.center_longitude_deg
    return Ogs(readings, where, _places(theirs, centre), _twins(theirs, centre))


def _places(table: pd.DataFrame, centre: tuple[float, float]) -> Float:
    return np.column_stack([*geo.stereographic(table.latitude, table.longitude, *centre), table.depth])


def _twins(theirs: pd.DataFrame, centre: tuple[float, float]) -> Float:
    """The other location of the same event: the one nearest in time, if within 3 s (the tables are numbered apart)."""
    other = pd.read_parquet(OGS / "onlyEQ_NLL1D-2024.hpl.parquet").sort_values("time").reset_index(drop=True)
    ours, them = (t.time.to_numpy().astype("datetime64[ns]").astype(np.int64) for t in (theirs, other))
    nearest = np.abs(them[None, :] - ours[:, None]).argmin(axis=1)
    found = _places(other, centre)[nearest]
    found[np.abs(them[nearest] - ours) > 3 * NS] = np.nan
    return found


Case = TypeVar("Case", Ogs, Synthetic)


def of_events(case: Case, events: slice) -> Case:
    """With the readings of some of the events alone, which are numbered anew."""
    numbers = np.unique(case.readings.event)[events]
    own = case.readings.take(np.flatnonzero(np.isin(case.readings.event, numbers)))
    return replace(case, readings=replace(own, event=np.searchsorted(numbers, own.event)))


def with_terms(
    case: Ogs | Synthetic, given: locator.Terms | None = None, **settings: float
) -> tuple[Places, locator.Fits, locator.Terms]:
    """Places, fits and station terms, as the stage `locate` has them."""
    found = locate.find(case.readings, case.area, Locate(**settings), Alone(), given)
    assert found is not None
    return found


def without_terms(case: Ogs | Synthetic) -> tuple[Places, locator.Fits]:
    return locator.locate(case.readings, case.area, locator.no_terms(case.area))


def distances(places: Places, theirs: Float) -> dict[str, float]:
    """Median and 95 % of the distances in epicentre and in depth, km, of the events that they have, too."""
    return apart(np.column_stack([places.x_km, places.y_km, places.z_km]), theirs)


def apart(ours: Float, theirs: Float) -> dict[str, float]:
    """The same of places (events, 3)."""
    known = np.isfinite(theirs[:, 0])
    x, y, deep = np.abs(ours - theirs)[known].T
    flat = np.hypot(x, y)
    return {
        "epicentre": float(np.median(flat)),
        "epicentre 95 %": float(np.percentile(flat, 95)),
        "depth": float(np.median(deep)),
        "depth 95 %": float(np.percentile(deep, 95)),
    }


def rms_p_s(readings: Readings, fits: locator.Fits) -> float:
    """Median over the events of the root mean square residual of their P picks that count."""
    use = (readings.phase == "P") & (fits.weight > locate.USED)
    total = np.bincount(readings.event[use], fits.residual_s[use] ** 2)
    n = np.bincount(readings.event[use])
    return float(np.median(np.sqrt(total[n > 0] / n[n > 0])))


def believing(case: Synthetic, **changes: float) -> Synthetic:
    """The same, located with another belief."""
    return replace(case, area=replace(case.area, belief=case.area.belief._replace(**changes)))
