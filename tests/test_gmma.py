"""The package GMMA behind our functions against itself, on analysts' picks, and against events that we know."""

from dataclasses import replace
from pathlib import Path

import gamma.utils
import numpy as np
import pandas as pd
import pytest

from pipeline.config import Associate
from pipeline.maths import geo
from pipeline.maths.traveltime import uniform
from pipeline.models import associator
from pipeline.models.associators import gmma
from pipeline.models.associators.gmma import NOISE
from pipeline.models.associators.observed import Network, Observed, Region
from pipeline.records import NS

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="no shared data: GaMMA on analysts' picks is not compared")
OGS = Associate(
    associator="gmma",
    center_latitude_deg=46.0,
    center_longitude_deg=12.0,
    x_km=(-300, 400),
    y_km=(-350, 250),
    z_km=(0, 40),
    vp_km_s=5.85,
    vs_km_s=3.28,
    dbscan_eps_s=8.1,
)
GRID = [(float(x), float(y)) for x in (-30, -10, 10, 30) for y in (-30, -10, 10, 30)]


def observed(station, phase, time_ns, weight, x, y, z) -> Observed:
    names, site = np.unique(np.asarray(station, np.str_), return_inverse=True)
    weight, x, y, z = (np.asarray(a, np.float64) for a in (weight, x, y, z))
    rows = Observed(
        names[site],
        np.asarray(phase, np.str_),
        np.asarray(time_ns, np.int64),
        weight,
        np.full(len(site), np.nan),
        site.astype(np.int64),
        x,
        y,
        z,
    )
    return rows.take(np.lexsort((rows.phase, rows.station, rows.time_ns)))


def ogs(start, end) -> Observed:
    """Picks of the OGS earthquakes of a period, with their stations."""
    picks = pd.read_parquet(DATA / "ogs" / "onlyEQ-2024.dat.parquet")
    picks = picks[(picks.time >= start) & (picks.time < end)]
    sites = pd.read_csv(DATA / "ogs" / "stations.csv").set_index("station").loc[picks.station.str.strip(".")]
    x, y = geo.stereographic(sites.latitude, sites.longitude, 46.0, 12.0)
    time_ns = picks.time.to_numpy().astype("datetime64[ns]").astype(np.int64)
    z = -sites.elevation_m.fillna(0).to_numpy() / 1000
    return observed(sites.index.tolist(), picks.phase.tolist(), time_ns, picks.probability, x, y, z)


def central_italy(start, end) -> Observed:
    """Machine picks of a dense sequence."""
    picks = pd.read_parquet(DATA / "central_italy" / "picks_20161014.parquet")
    time = pd.to_datetime(picks.timestamp, utc=True).dt.tz_localize(None)
    picks, time = picks[(time >= start) & (time < end)], time[(time >= start) & (time < end)]
    sites = pd.read_csv(DATA / "central_italy" / "stations.csv").set_index("station").loc[picks.station]
    x, y = geo.stereographic(sites.latitude, sites.longitude, 42.8, 13.2)
    time_ns = time.to_numpy().astype("datetime64[ns]").astype(np.int64)
    return observed(sites.index.tolist(), picks.phase.tolist(), time_ns, picks.probability, x, y, 0 * x)


def quake(x, y, z, time_s, settings=OGS, stations=GRID, weight=0.9) -> Observed:
    """Exact arrivals of P and S at every station."""
    rows = []
    for i, (sx, sy) in enumerate(stations):
        km = np.sqrt((sx - x) ** 2 + (sy - y) ** 2 + z**2)
        for phase, v in (("P", settings.vp_km_s), ("S", settings.vs_km_s)):
            rows.append((f"XX.S{i:02}", phase, round((time_s + km / v) * NS), weight, sx, sy, 0.0))
    return observed(*zip(*rows, strict=True))


def together(*parts) -> Observed:
    all_ = Observed.concat(parts)
    return all_.take(np.lexsort((all_.phase, all_.station, all_.time_ns)))


def gamma_events(o, settings, monkeypatch):
    """What the package finds in the same picks from the same draws, as {rows of the picks: (t, x, y, z)}."""
    original = gamma.utils.init_centers

    def seeded(*args):
        np.random.seed(7)  # noqa: NPY002
        return original(*args)

    monkeypatch.setattr(gamma.utils, "init_centers", seeded)
    picks = pd.DataFrame({"id": o.station, "timestamp": pd.to_datetime(o.time_ns), "type": o.phase, "prob": o.weight})
    sites = pd.DataFrame({"id": o.station, "x(km)": o.x_km, "y(km)": o.y_km, "z(km)": o.z_km}).drop_duplicates("id")
    config = {
        "dims": ["x(km)", "y(km)", "z(km)"],
        "use_dbscan": True,
        "use_amplitude": False,
        "x(km)": settings.x_km,
        "y(km)": settings.y_km,
        "z(km)": settings.z_km,
        "vel": {"p": settings.vp_km_s, "s": settings.vs_km_s},
        "oversample_factor": int(settings.oversample_factor),
        "bfgs_bounds": (settings.x_km, settings.y_km, settings.z_km, (None, None)),
        "dbscan_eps": settings.dbscan_eps_s,
        "dbscan_min_samples": settings.dbscan_min_samples,
        "min_picks_per_eq": settings.min_picks,
        "min_p_picks_per_eq": settings.min_p_picks,
        "min_s_picks_per_eq": settings.min_s_picks,
        "min_stations": settings.min_stations,
        "max_sigma11": settings.max_sigma11_s,
        "ncpu": 1,
    }
    events, assignment = gamma.utils.association(picks, sites, config, method="BGMM")
    rows = {}
    for pick, event, _ in assignment:
        rows.setdefault(event, []).append(pick)
    return {
        tuple(sorted(rows[e["event_index"]])): (pd.Timestamp(e["time"]).value, e["x(km)"], e["y(km)"], e["z(km)"])
        for e in events
    }


def our_events(o, settings, seed=0):
    """What the stage finds in the same picks, by their rows. The network is not looked at."""
    region = Region(settings, Network.empty(), uniform(settings.vp_km_s, settings.vs_km_s), seed)
    return {tuple(e.picks.tolist()): e for e in associator.associate(o, region)}


@needs_data
def test_same_events_as_the_package_from_the_same_draws(monkeypatch):
    o = ogs("2024-03-20", "2024-03-29")
    theirs = gamma_events(o, OGS, monkeypatch)
    monkeypatch.setattr(gmma, "_random", lambda *_: np.random.RandomState(7))
    monkeypatch.setattr(gmma, "STARTS", 1)
    ours = our_events(o, OGS)
    assert len(theirs) > 50
    assert set(ours) == set(theirs)
    for rows, (time_ns, *place) in theirs.items():
        e = ours[rows]
        assert -1e-5 < (e.time_ns - time_ns) / NS < 0.001 + 1e-5  # the package cuts to milliseconds
        assert [e.x_km, e.y_km, e.z_km] == pytest.approx(place, abs=0.01)


@needs_data
def test_same_clusters_as_the_package_in_a_dense_sequence():
    o = central_italy("2016-10-14T00:00", "2016-10-14T02:00")
    settings = OGS.model_copy(update={"dbscan_eps_s": 20.0})
    ours, n = np.full(len(o), NOISE), 0
    for stretch in gmma.segments(o.time_ns, 20.0):
        labels = gmma.clusters(o.take(stretch), settings)
        ours[stretch] = np.where(labels >= 0, labels + n, NOISE)
        n += labels.max() + 1
    theirs = gamma.utils.hierarchical_dbscan_clustering(
        (o.time_ns - o.time_ns[0])[:, None] / NS,
        np.column_stack([o.x_km, o.y_km, o.z_km]),
        o.phase,
        o.weight[:, None],
        {"p": settings.vp_km_s, "s": settings.vs_km_s},
        eps=20.0,
    )
    assert len(o) > 5000
    assert groups(ours) == groups(theirs)
    assert max(map(len, groups(ours))) < max(s.stop - s.start for s in gmma.segments(o.time_ns, 20.0)) / 4


def groups(labels):
    return {tuple(np.flatnonzero(labels == label)) for label in np.unique(labels[labels >= 0])}


def test_two_events_seconds_apart_are_found_where_they_were():
    truth = [(-20.0, 5.0, 8.0, 100.0), (25.0, -12.0, 6.0, 104.0)]
    found = sorted(our_events(together(*(quake(*event) for event in truth)), OGS).values(), key=lambda e: e.time_ns)
    assert len(found) == 2
    for e, (x, y, z, time_s) in zip(found, truth, strict=True):
        assert np.hypot(e.x_km - x, e.y_km - y) < 0.5
        assert abs(e.z_km - z) < 2
        assert e.time_ns / NS == pytest.approx(time_s, abs=0.2)
        assert len(e.picks) >= 30
        assert np.abs(e.residual_s).max() < 0.5


def test_a_pick_carries_the_share_of_its_own_event():
    """Bishop (2006) eq. 9.23 from the events themselves: equal spreads and weights, so only the residuals decide."""
    o = together(quake(-20.0, 5.0, 8.0, 100.0), quake(25.0, -12.0, 6.0, 103.0))
    found = list(our_events(o, OGS).items())
    assert len(found) == 2
    for (rows, mine), (_, other) in (found, found[::-1]):
        away = np.array([late(o, row, other) for row in rows])
        assert (mine.probability > 0.5).all()
        assert (mine.probability[np.abs(away) > 6] > 0.99).all()
        assert mine.probability[np.argmin(np.abs(away))] == mine.probability.min() < 0.97


def late(o, row, e):
    km = np.sqrt((o.x_km[row] - e.x_km) ** 2 + (o.y_km[row] - e.y_km) ** 2 + (o.z_km[row] - e.z_km) ** 2)
    return (o.time_ns[row] - e.time_ns) / NS - km / (OGS.vp_km_s if o.phase[row] == "P" else OGS.vs_km_s)


def test_of_two_picks_of_a_phase_at_a_station_the_better_stays():
    exact = quake(3.0, 4.0, 8.0, 50.0)
    echo = replace(exact.take(slice(0, 6)), time_ns=exact.time_ns[:6] + NS // 2)
    o = together(exact, echo)
    (rows,) = our_events(o, OGS)
    assert len(rows) == 32
    assert len(set(zip(o.station[list(rows)], o.phase[list(rows)], strict=True))) == 32
    assert not set(zip(o.station[list(rows)], o.time_ns[list(rows)], strict=True)) & set(
        zip(echo.station, echo.time_ns, strict=True)
    )


def test_exact_duplicates_leave_one_in_the_event():
    exact = quake(3.0, 4.0, 8.0, 50.0)
    (rows,) = our_events(together(exact, exact), OGS)
    assert len(rows) == len(exact)


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"min_picks": 33}, 0),
        ({"min_p_picks": 17}, 0),
        ({"min_s_picks": 17}, 0),
        ({"min_stations": 17}, 0),
        ({"min_picks": 32, "min_p_picks": 16, "min_s_picks": 16, "min_stations": 16}, 1),
    ],
)
def test_an_event_needs_enough_picks_of_each_kind(change, left):
    assert len(our_events(quake(3.0, 4.0, 8.0, 50.0), OGS.model_copy(update=change))) == left


def test_neither_the_day_nor_the_global_random_state_matters():
    near = together(quake(-20.0, 5.0, 8.0, 100.0), quake(25.0, -12.0, 6.0, 104.0))
    later_ns = 1_700_000_000 * NS
    np.random.seed(1)  # noqa: NPY002
    first = our_events(near, OGS)
    assert np.random.uniform() == np.random.RandomState(1).uniform()  # noqa: NPY002
    later = our_events(replace(near, time_ns=near.time_ns + later_ns), OGS)
    assert repr(later) == repr({rows: replace(e, time_ns=e.time_ns + later_ns) for rows, e in first.items()})


def test_segments_are_cut_only_at_longer_silence():
    time_ns = np.array([0, 5, 15, 26, 26, 40]) * NS
    assert gmma.segments(time_ns, 10.0) == [slice(0, 3), slice(3, 5), slice(5, 6)]
    assert gmma.segments(time_ns[:0], 10.0) == []


def test_few_picks_a_probability_of_zero_and_silence_of_the_package(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exact = quake(3.0, 4.0, 8.0, 50.0)
    assert our_events(exact.take(slice(0, 0)), OGS) == {}
    assert gmma.associate_cluster(exact.take(slice(0, 4)), OGS, 0) == []
    doubtful = replace(exact, weight=np.where(np.arange(32) % 2, 0.0, 0.9))
    (event,) = gmma.associate_cluster(doubtful, OGS, 0)
    assert np.isfinite([event.x_km, event.score, *event.probability, *event.residual_s]).all()
    assert capfd.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
