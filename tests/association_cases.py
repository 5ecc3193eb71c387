"""What associators are measured on: picks, their region, and how the answer is scored.

The synthetic cases are made here; the real ones need the folder of shared data beside the repository.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import config
from pipeline.config import Associate
from pipeline.formats import comcat, results, stations, tables
from pipeline.maths import geo
from pipeline.models.associators.observed import Earthquake, Network, Observed, Region
from pipeline.records import DAY_NS, Int, Stations
from pipeline.rundir import RunDir, publish
from pipeline.stages import associate
from tests import synthetic_picks
from tests.association_scores import NOT_KNOWN, Places, by_picks, by_place, event_of_pick, paired
from tests.synthetic_picks import CRUST, UNIFORM, Layers, Scenario

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
OGS = DATA / "ogs"
OGS_WINDOW = ("2024-03-20", "2024-06-21")  # the end is exclusive
OGS_LIMIT = (2.0, 8.0)
LOOSE_LIMIT = (3.0, 15.0)
CENTRAL_ITALY = DATA / "central_italy"
KEPT = ROOT / "runs" / "association"  # what is made once
FADING = {"radius_km": (50.0, 30.0), "least_width_km": 30.0}  # no sharp edge: some picks come from afar


@dataclass(frozen=True)
class Case:
    """``score`` makes figures of what an associator found in ``observed``; ``limit`` (s, km): two events are one."""

    name: str
    observed: Observed
    region: Region
    score: Callable[[Sequence[Earthquake]], dict[str, float]]
    limit: tuple[float, float] = LOOSE_LIMIT

    @property
    def centre(self) -> tuple[float, float]:
        return self.region.settings.center_latitude_deg, self.region.settings.center_longitude_deg

    def by(self, associator: str) -> Region:
        """The region for another associator."""
        settings = self.region.settings.model_copy(update={"associator": associator})
        return Region(settings, self.region.network, self.region.travel_times, self.region.seed)


def region(settings: Associate, network: Network, seed: int = 0) -> Region:
    """With the travel times that a run would have; tables of layers are kept in `KEPT`."""
    return Region(settings, network, associate.travel_times(RunDir(KEPT), network, settings), seed)


def synthetic(scenario: Scenario, name: str = "") -> Case:
    """A day of made-up picks, scored by the picks that events share."""
    observed, network, truth = synthetic_picks.make(scenario)
    settings = synthetic_settings(scenario)
    true = Places(truth.time_ns, truth.x_km, truth.y_km, truth.z_km)
    return Case(
        name or f"synthetic {scenario.n_events}",
        observed,
        region(settings, network),
        lambda found: by_picks(found, truth.event, true).as_dict(),
    )


def synthetic_settings(scenario: Scenario) -> Associate:
    """The rules by which `synthetic_picks` says that an event can be found."""
    layers, n, pairs = scenario.layers, synthetic_picks.LEAST_PICKS, synthetic_picks.LEAST_PAIRS
    return Associate(
        center_latitude_deg=46.0,
        center_longitude_deg=12.0,
        x_km=(0.0, scenario.side_km),
        y_km=(0.0, scenario.side_km),
        z_km=scenario.z_km,
        vp_km_s=layers.vp_km_s[0] if layers == UNIFORM else 6.0,  # of layers: what fits the arrivals best
        vs_km_s=layers.vs_km_s[0] if layers == UNIFORM else 3.46,
        velocity_model=None if layers == UNIFORM else _velocity_model(layers),
        velocity_between="layers",
        dbscan_eps_s=25.0,
        oversample_factor=4.0,
        min_picks=n,
        min_p_picks=pairs,
        min_s_picks=pairs,
        min_stations=pairs,
        max_sigma11_s=2.0,
    )


def _velocity_model(layers: Layers) -> Path:
    """The layers as a file that a configuration can name."""
    path = KEPT / "layers.csv"
    rows = zip(layers.top_km, layers.vp_km_s, layers.vs_km_s, strict=True)
    with publish(path) as part:
        part.write_text("depth_km,vp_km_s,vs_km_s\n" + "".join(f"{z},{vp},{vs}\n" for z, vp, vs in rows))
    return path


@dataclass(frozen=True)
class OgsReference:
    """The analysts' events (m,) of the study window, and which of them has picks enough to be asked for."""

    events: Places
    eligible: np.ndarray
    id: Int


def ogs(false_per_station_day: float = 0.0, seed: int = 0) -> Case:
    """The study window of OGS: analysts' picks, and false ones among them."""
    settings = config.load(ROOT / "configs" / "ogs-2024.toml").associate
    network = associate.place(stations.read([OGS / "stations.csv"]), settings)
    reference = ogs_reference("onlyEQ-2024.hpl", settings)
    observed, event = _ogs_picks(network, reference)
    observed, event = with_false(observed, event, network, false_per_station_day, seed)
    name = f"OGS + {false_per_station_day:g} false picks" if false_per_station_day else "OGS"
    centre = settings.center_latitude_deg, settings.center_longitude_deg
    return Case(name, observed, region(settings, network), partial(_ogs_score, event, reference, centre), OGS_LIMIT)


def ogs_reference(name: str, settings: Associate) -> OgsReference:
    table = _window(pd.read_parquet(OGS / f"{name}.parquet"), "time", OGS_WINDOW).sort_values("time")
    x, y = geo.stereographic(
        table.latitude, table.longitude, settings.center_latitude_deg, settings.center_longitude_deg
    )
    events = Places(_ns(table.time), x, y, table.depth.to_numpy(np.float64))
    n, n_p, n_s = (table[c].to_numpy() for c in ("number_picks", "number_p_picks", "number_s_picks"))
    return OgsReference(events, (n >= 6) & (n_p >= 3) & (n_s >= 2), table.idx.to_numpy(np.int64))


def ogs_ceiling() -> dict[str, float]:
    """The agency's own second location of the same events (NonLinLoc), scored as ours are."""
    settings = config.load(ROOT / "configs" / "ogs-2024.toml").associate
    truth, twin = (ogs_reference(name, settings) for name in ("onlyEQ-2024.hpl", "onlyEQ_NLL1D-2024.hpl"))
    centre = settings.center_latitude_deg, settings.center_longitude_deg
    pairs = paired(twin.events, truth.events, centre, OGS_LIMIT)
    found = np.isin(np.arange(len(truth.events)), pairs[:, 1])
    km = np.hypot(
        twin.events.x_km[pairs[:, 0]] - truth.events.x_km[pairs[:, 1]],
        twin.events.y_km[pairs[:, 0]] - truth.events.y_km[pairs[:, 1]],
    )
    return {
        "recall": float(found.mean()),
        "recall_eligible": float(found[truth.eligible].mean()),
        "median_km": float(np.median(km)),
    }


def _ogs_picks(network: Network, reference: OgsReference) -> tuple[Observed, Int]:
    """Picks of the window, and of each the row of its event, `NOT_KNOWN` for events that the reference lacks."""
    table = _window(pd.read_parquet(OGS / "onlyEQ-2024.dat.parquet"), "time", OGS_WINDOW)
    code = {name.partition(".")[2]: row for row, name in enumerate(network.station.tolist())}
    site = np.array([code[name.strip(".")] for name in table.station], np.int64)
    row = {int(i): k for k, i in enumerate(reference.id)}
    event = np.array([row.get(int(i), NOT_KNOWN) for i in table["index"]], np.int64)
    observed = _observe(network, site, table.phase, _ns(table.time), table.probability)
    return _ordered(observed, event)


def _ogs_score(
    event: Int, reference: OgsReference, centre: tuple[float, float], found: Sequence[Earthquake]
) -> dict[str, float]:
    scores = by_place(found, event, reference.events, centre, OGS_LIMIT)
    lacking = _of_events_that_the_reference_lacks(found, event, scores.pairs)
    return {
        **scores.as_dict(),
        "recall_eligible": scores.recall_of(reference.eligible),
        "not_listed": lacking,
        "precision_listed": len(scores.pairs) / max(len(found) - lacking, 1),
    }


def _of_events_that_the_reference_lacks(found: Sequence[Earthquake], event: Int, pairs: Int) -> int:
    """How many of our unpaired events are made, for the most part, of picks of events without a place to score by.

    The analysts' picks are of 431 events, their list has 427.
    """
    mine = event_of_pick(found, len(event))
    of_these = np.bincount(mine[(mine >= 0) & (event == NOT_KNOWN)], minlength=len(found))
    sizes = np.array([len(e.picks) for e in found])
    alone = ~np.isin(np.arange(len(found)), pairs[:, 0])
    return int((alone & (2 * of_these > sizes)).sum())


def with_false(
    observed: Observed, event: Int, network: Network, per_station_day: float, seed: int
) -> tuple[Observed, Int]:
    """The picks and false ones: any station, phase and time of the study window; weights like those of the others."""
    rng = np.random.default_rng(seed)
    start, stop = (int(np.datetime64(day, "ns").astype(np.int64)) for day in OGS_WINDOW)
    n = round(len(network) * (stop - start) / DAY_NS * per_station_day)
    phase = np.array(["P", "S"])[rng.integers(0, 2, n)]
    time_ns = rng.integers(start, stop, n)
    false = _observe(network, rng.integers(0, len(network), n), phase, time_ns, rng.choice(observed.weight, n))
    return _ordered(Observed.concat([observed, false]), np.concatenate([event, np.full(n, -1)]))


def central_italy(start: str = "2016-10-14T06:00", stop: str = "2016-10-14T07:00") -> Case:
    """Machine picks of a dense sequence; there is no catalogue, so only the events are counted."""
    settings = Associate(
        center_latitude_deg=42.8,
        center_longitude_deg=13.2,
        x_km=(-60.0, 60.0),
        y_km=(-60.0, 60.0),
        z_km=(0.0, 30.0),
        vp_km_s=6.0,
        vs_km_s=3.4,
    )
    table = _window(pd.read_parquet(CENTRAL_ITALY / "picks_20161014.parquet"), "timestamp", (start, stop))
    network = associate.place(_stations(pd.read_csv(CENTRAL_ITALY / "stations.csv")), settings)
    row = {name: i for i, name in enumerate(network.station.tolist())}
    site = np.array([row[name] for name in table.station], np.int64)
    observed = _observe(network, site, table.phase, _ns(table.timestamp), table.probability, table.amplitude)
    observed, _ = _ordered(observed, np.zeros(len(observed), np.int64))
    name = f"central Italy {start[5:]} to {stop[5:]}"
    return Case(name, observed, region(settings, network), lambda found: {"events": len(found), **in_events(found)})


def in_events(found: Sequence[Earthquake]) -> dict[str, float]:
    return {"picks_in_events": float(sum(len(e.picks) for e in found))}


def ridgecrest(run: Path) -> Case:
    """The picks of a run of configs/ridgecrest.toml, against the events that analysts have reviewed."""
    run_dir, whole = RunDir(run), config.load(ROOT / "configs" / "ridgecrest.toml")
    settings, centre = whole.associate, (whole.associate.center_latitude_deg, whole.associate.center_longitude_deg)
    sites = tables.read(run_dir.stations, Stations)
    network = associate.place(sites, settings)
    observed = associate.observe(results.picks(run_dir), sites, network)
    listed = comcat.read_comcat(DATA / "ridgecrest" / "comcat_reviewed_20190704.csv").events
    inside = (listed.time_ns >= whole.run.span_ns[0]) & (listed.time_ns < whole.run.span_ns[1])
    listed = listed.take(inside)
    x, y = geo.stereographic(listed.latitude_deg, listed.longitude_deg, *centre)
    truth = Places(listed.time_ns, x, y, listed.depth_km)
    event = np.full(len(observed), NOT_KNOWN)
    return Case(
        "Ridgecrest",
        observed,
        region(settings, network),
        lambda found: {**by_place(found, event, truth, centre, LOOSE_LIMIT).as_dict(), **in_events(found)},
    )


def _window(table: pd.DataFrame, column: str, window: tuple[str, str]) -> pd.DataFrame:
    return table[(table[column] >= window[0]) & (table[column] < window[1])]


def _ns(times: pd.Series) -> Int:
    return times.to_numpy().astype("datetime64[ns]").astype(np.int64)


def _stations(table: pd.DataFrame) -> Stations:
    n = len(table)
    lat, lon, elevation = (table[c].to_numpy(np.float64) for c in ("latitude", "longitude", "elevation_m"))
    always = np.full(n, -(2**62)), np.full(n, 2**62)
    return Stations(np.array(table.station.tolist()), lat, lon, elevation, *always)


def _observe(network, site, phase, time_ns, weight, amplitude=None) -> Observed:
    """Picks (n,) at rows ``site`` of the network, in the order given; ``amplitude`` in m/s."""
    at, n = network.take(site), len(site)
    log = np.full(n, np.nan) if amplitude is None else np.log10(np.asarray(amplitude, np.float64))
    weight = np.asarray(weight, np.float64)
    phase = np.array(np.asarray(phase).tolist(), "U1")
    return Observed(at.station, phase, time_ns, weight, log, site.astype(np.int64), at.x_km, at.y_km, at.z_km)


def _ordered(observed: Observed, event: Int) -> tuple[Observed, Int]:
    order = np.lexsort((observed.weight, observed.phase, observed.station, observed.time_ns))
    return observed.take(order), event[order]


def _of_data(make: Callable[[], Case]) -> Callable[[Path], Case]:
    """A case that needs no run."""
    return lambda _: make()


CASES: dict[str, Callable[[Path], Case]] = {  # each is given the run of Ridgecrest
    **{f"synthetic-{n}": _of_data(partial(synthetic, Scenario(n))) for n in (500, 1500, 5000, 10000)},
    **{
        f"synthetic-{n}-fading": _of_data(
            partial(synthetic, Scenario(n, **FADING), f"synthetic {n}, seen by far stations")
        )
        for n in (1500, 10000)
    },
    "synthetic-1500-noisy": _of_data(partial(synthetic, Scenario(noise_factor=1.0), "synthetic 1500, noise 1.0")),
    "synthetic-1500-wide": _of_data(
        partial(
            synthetic, Scenario(side_km=210.0, radius_km=(120.0, 80.0), least_width_km=30.0), "synthetic 1500, wide"
        )
    ),
    "synthetic-1500-layers": _of_data(partial(synthetic, Scenario(layers=CRUST), "synthetic 1500, layers")),
    "subduction-1500": _of_data(
        partial(synthetic, Scenario(subduction=True, radius_km=(80.0, 50.0), least_width_km=30.0), "subduction 1500")
    ),
    "ogs": _of_data(ogs),
    "ogs-50": _of_data(partial(ogs, 50)),
    "ogs-200": _of_data(partial(ogs, 200)),
    "central-italy-hour": _of_data(central_italy),
    "central-italy-day": _of_data(partial(central_italy, "2016-10-14", "2016-10-15")),
    "ridgecrest": ridgecrest,
}
