"""Travel-time tables against closed forms, TauP, and the times that HYPO71 printed in the bulletin of OGS."""

import logging
from pathlib import Path

import numpy as np
import pytest

from pipeline import config as configs
from pipeline.errors import ConfigError
from pipeline.formats import provenance, tables, traveltimes
from pipeline.formats.velocity import read
from pipeline.maths.traveltime import P, S, levels_km, reach_km, travel_time, uniform
from pipeline.maths.velocity import VelocityModel
from pipeline.models import eikonal
from pipeline.models.associator import Settled
from pipeline.models.associators.observed import Network
from pipeline.records import Picks, Stations
from pipeline.rundir import RunDir
from pipeline.stages import associate, plan
from tests.test_config import GOOD

DATA = Path(__file__).parents[2] / "shared" / "data"
real = pytest.mark.skipif(not DATA.exists(), reason="no real velocity models: HYPO71 and TauP are not compared")
TOPS, VP, RATIO = np.array([0.0, 22.0, 39.5]), np.array([5.85, 6.8, 8.0]), 1.78  # of HYPO71 at OGS
CRUST = VelocityModel(TOPS, VP, VP / RATIO, "layers")


def times_s(table, phase, r_km, z_km, station_km):
    """Times (n,) of `travel_time` for sources at (r_km, z_km)."""
    slowness = table.slowness_s_km[int(table.level(np.array(station_km))), phase]
    place = (*table.step_km, table.depth_km)
    return np.array([travel_time(slowness, *place, r, z, station_km)[0] for r, z in zip(r_km, z_km, strict=True)])


def sources(n, reach=300.0, bottom=40.0, top=0.0):
    random = np.random.default_rng(7)
    return np.sort(random.uniform(0.0, reach, n)), random.uniform(top, bottom, n)


def layered_s(tops, velocity, r_km, z_km, station_km):
    """The first arrival (n,) in flat layers, ever faster downwards, in closed form; the uppermost goes on upwards.

    Direct: the angle in the fastest layer by bisection; refracted along each layer below: distance / velocity + legs
    (Lee and Lahr 1975, HYPO71).
    """
    edges = np.append(np.append(-np.inf, tops[1:]), np.inf)
    low, high = np.minimum(z_km, station_km)[:, None], np.maximum(z_km, station_km)[:, None]
    through = np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0.0, None)
    first = _direct_s(through, velocity, r_km)
    for top, v in zip(tops[1:], velocity[1:], strict=True):
        legs = through + 2 * np.clip(np.minimum(top, edges[1:]) - np.maximum(high, edges[:-1]), 0.0, None)
        root = np.sqrt(np.maximum(velocity**-2.0 - v**-2.0, 0.0))
        least_km = (legs / v / np.where(root > 0, root, np.inf)).sum(axis=1)
        refracted = (high[:, 0] <= top) & (r_km >= least_km)
        first = np.where(refracted, np.minimum(first, r_km / v + (legs * root).sum(axis=1)), first)
    return first


def _direct_s(through_km, velocity, r_km):
    fastest = np.where(through_km > 0, velocity, 0.0).max(axis=1)
    low, high = np.zeros(len(r_km)), np.full(len(r_km), np.pi / 2)
    for _ in range(60):
        angle = (low + high) / 2
        sine = np.minimum(np.sin(angle)[:, None] * velocity / fastest[:, None], 1.0)
        cosine = np.where(velocity == fastest[:, None], np.cos(angle)[:, None], np.sqrt(1 - sine**2))
        here_km = np.divide(through_km * sine, cosine, out=np.zeros_like(sine), where=through_km > 0).sum(axis=1)
        low, high = np.where(here_km < r_km, angle, low), np.where(here_km < r_km, high, angle)
    return (through_km * cosine / velocity).sum(axis=1) + np.sin(angle) / fastest * r_km


def test_a_uniform_medium_from_every_level():
    """At levels on nodes of the solver's grid, beside them, and a rounding error beside them."""
    model = VelocityModel(np.zeros(1), np.array([5.85]), np.array([3.3]), "layers")
    r, z = sources(300, 20.0, 10.0, -1.0)
    levels = np.append(levels_km(np.arange(-4.0, 0.3, 0.05)), [0.25 + 1e-15, 0.25 + 3e-15, 0.5 - 4e-15])
    table = eikonal.travel_times(model, levels, 20.0, (-1.0, 10.0))
    for level in levels:
        for phase, velocity in ((P, 5.85), (S, 3.3)):
            exact = np.hypot(r, z - level) / velocity
            assert np.abs(times_s(table, phase, r, z, level) - exact).max() < 0.004


@pytest.mark.parametrize(("v0", "k", "reach"), [(5.0, 0.06, 300.0), (3.0, 0.2, 100.0)])
def test_a_linear_gradient(v0, k, reach):
    """t = acosh(1 + k2 d2 / (2 v1 v2)) / k (Slotnick 1959); the grid reaches down to where the rays turn."""
    model = VelocityModel(
        np.array([-4.0, 400.0]), v0 + k * np.array([-4.0, 400.0]), (v0 + k * np.array([-4.0, 400.0])) / 1.7, "gradient"
    )
    table = eikonal.travel_times(model, np.array([-1.35, 0.0]), reach, (0.0, 40.0))
    r, z = sources(2000, reach)
    for level in (-1.35, 0.0):
        for phase, slower in ((P, 1.0), (S, 1.7)):
            product = (v0 + k * level) * (v0 + k * z)
            exact = slower * np.arccosh(1 + k**2 * (r**2 + (z - level) ** 2) / (2 * product)) / k
            assert np.abs(times_s(table, phase, r, z, level) - exact).max() < (0.008 if v0 == 5.0 else 0.02)


@pytest.mark.parametrize("level", [-2.15, 0.0])
def test_layers_direct_and_refracted(level):
    table = eikonal.travel_times(CRUST, np.array([level]), 300.0, (0.0, 40.0))
    r, z = sources(3000)
    for phase, slower in ((P, 1.0), (S, RATIO)):
        error = np.abs(times_s(table, phase, r, z, level) - layered_s(TOPS, VP / slower, r, z, level))
        assert np.median(error) < 0.0005
        assert np.percentile(error, 99) < 0.005
        assert error.max() < 0.02 * slower  # within some km of where two refracted waves cross


def test_jumps_between_the_nodes_of_the_grid():
    tops, vp = np.array([0.0, 1.13, 22.37, 39.61]), np.array([5.3, 6.1, 7.1, 8.0])
    table = eikonal.travel_times(VelocityModel(tops, vp, vp / RATIO, "layers"), np.array([-0.1]), 200.0, (0.0, 30.0))
    r, z = sources(2000, 200.0, 30.0)
    error = np.abs(times_s(table, P, r, z, -0.1) - layered_s(tops, vp, r, z, -0.1))
    assert np.median(error) < 0.008
    assert error.max() < 0.02


def test_there_and_back_takes_the_same_time():
    heights = eikonal.travel_times(CRUST, np.array([-1.0, 30.0]), 200.0, (-1.0, 30.0))
    r, _ = sources(200, 200.0)
    down = times_s(heights, S, r, np.full(200, 30.0), -1.0)
    up = times_s(heights, S, r, np.full(200, -1.0), 30.0)
    assert np.median(np.abs(down - up)) < 0.001
    assert np.abs(down - up).max() < 0.04  # 0.001 but within some km of where two refracted waves cross


def flat(depth_km):
    """The depth in a flat Earth that stands for one in the round Earth; its velocities grow as it (Mueller 1985)."""
    return 6371.0 * np.log(6371.0 / (6371.0 - depth_km))


@real
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_taup_has_the_same_times_of_local_rays(tmp_path):
    """TauP's Earth is round: ours gets the flattened model, by which the times become the same."""
    from obspy.taup import TauPyModel
    from obspy.taup.taup_create import build_taup_model

    path = DATA / "central_italy" / "velocity_1d.nd"
    build_taup_model(str(path), str(tmp_path), verbose=False)
    theirs, model = TauPyModel(str(tmp_path / "velocity_1d.npz")), read(path, "gradient", 30.0)
    solid = model.depth_km < 200
    depth, faster = model.depth_km[solid], 6371.0 / (6371.0 - model.depth_km[solid])
    vp, vs = model.vp_km_s[solid] * faster, model.vs_km_s[solid] * faster
    table = eikonal.travel_times(VelocityModel(flat(depth), vp, vs, "gradient"), np.zeros(1), 150.0, (0.0, 30.0))
    for r, z in ((3.0, 4.0), (10.0, 2.0), (20.0, 8.0), (35.0, 12.5), (50.0, 22.0), (60.0, 15.0), (140.0, 10.0)):
        for phase, row in (("P", P), ("S", S)):
            arrivals = theirs.get_travel_times(z, np.degrees(r / 6371.0), [phase, phase.lower(), f"{phase}n"])
            ours = times_s(table, row, [r], [flat(z)], 0.0)[0]
            assert ours == pytest.approx(min(a.time for a in arrivals), abs=0.008 if r < 100 else 0.02), (phase, r, z)


def printed():
    """Depth, distance, TPCAL and predicted S (NaN: no S) of each station line of the bulletin (n, 4)."""
    rows, depth_km = [], np.nan
    for line in (DATA / "ogs" / "RSFVG-2024.hpc").read_text("latin-1").splitlines():
        if line[6:7] == "1":
            depth_km = float(line[44:50])
        elif line.strip() and line[0] not in "^*" and line[48:53].strip() and line[36:41].strip():
            s = [float(line[a:b]) if line[a:b].strip() else np.nan for a, b in ((116, 121), (121, 127))]
            rows.append((depth_km, float(line[11:17]), float(line[48:53]), s[0] - s[1]))
    return np.array(rows)


@real
def test_hypo71_predicted_the_same_times(tmp_path):
    """It prints distances of 0.1 km and times of 0.01 s: 0.014 s are its own. Three layers, Vp / Vs 1.78."""
    depth, r, p, s = printed().T
    near = (depth < 40) & (r < 400)
    assert near.sum() > 7000
    table = eikonal.travel_times(CRUST, np.zeros(1), 400.0, (0.0, 40.0))
    p_error = np.abs(times_s(table, P, r[near], depth[near], 0.0) - p[near])
    assert np.median(p_error) < 0.006
    assert p_error.max() < 0.035
    has_s = near & np.isfinite(s)
    assert has_s.sum() > 5000
    s_error = np.abs(times_s(table, S, r[has_s], depth[has_s], 0.0) - s[has_s])
    assert np.median(s_error) < 0.01
    assert s_error.max() < 0.05


@real
def test_the_ogs_model_as_layers_is_that_of_hypo71_above_the_moho():
    depth, r, p, _ = printed().T
    near = (depth < 20) & (r < 100)
    found = {}
    for between in ("layers", "gradient"):
        model = read(DATA / "ogs" / "velocity_1d.nd", between, 40.0)
        table = eikonal.travel_times(model, np.zeros(1), 100.0, (0.0, 40.0))
        found[between] = np.median(np.abs(times_s(table, P, r[near], depth[near], 0.0) - p[near]))
    assert found["layers"] < 0.006
    assert found["gradient"] > 0.1


def test_derivatives_are_those_of_the_times():
    table = eikonal.travel_times(CRUST, np.array([-1.1]), 100.0, (0.0, 30.0))
    place = (*table.step_km, table.depth_km)
    r, z = sources(500, 110.0, 35.0, -5.0)  # beyond the edges too
    inside = np.abs((r / table.step_km[0] + 0.5) % 1 - 0.5) > 0.01  # away from the kinks at the nodes
    inside &= np.abs(((z - table.depth_km) / table.step_km[1] + 0.5) % 1 - 0.5) > 0.01
    assert inside.sum() > 300
    h = 1e-5
    for phase in (P, S):
        slowness = table.slowness_s_km[0, phase]
        for at_r, at_z in zip(r[inside], z[inside], strict=True):
            t, by_r, by_z = travel_time(slowness, *place, at_r, at_z, -1.1)
            ahead, behind = (travel_time(slowness, *place, at_r + d, at_z, -1.1)[0] for d in (h, -h))
            deeper, higher = (travel_time(slowness, *place, at_r, at_z + d, -1.1)[0] for d in (h, -h))
            assert t > 0
            assert by_r == pytest.approx((ahead - behind) / (2 * h), abs=1e-6)
            assert by_z == pytest.approx((deeper - higher) / (2 * h), abs=1e-6)


def test_a_uniform_table_is_exact_everywhere():
    table, (r, z) = uniform(6.0, 3.4), sources(200, 900.0, 60.0, -4.0)
    assert times_s(table, S, r, z, -0.7) == pytest.approx(np.hypot(r, z + 0.7) / 3.4, rel=1e-12)


def test_the_same_bytes_again_and_whatever_the_other_levels():
    some = eikonal.travel_times(CRUST, np.array([-1.3, -0.4]), 50.0, (0.0, 20.0))
    more = eikonal.travel_times(CRUST, np.array([-1.3, -0.85, -0.4]), 50.0, (0.0, 20.0))
    assert some.slowness_s_km.tobytes() == more.slowness_s_km[[0, 2]].tobytes()
    assert some.slowness_s_km.dtype == np.float64


def test_sources_above_the_sea_and_above_the_station():
    table = eikonal.travel_times(CRUST, np.array([-0.5]), 30.0, (-3.4, 10.0))
    r, z = sources(200, 30.0, 0.0, -3.4)
    assert table.depth_km == -4.0
    assert np.abs(times_s(table, P, r, z, -0.5) - np.hypot(r, z + 0.5) / 5.85).max() < 0.003


def test_levels_and_reach():
    assert levels_km(np.array([-1.234, 0.0, -1.26, -1.25])) == pytest.approx([-1.25, 0.0])
    x, y = np.array([-350.0, 10.0]), np.array([0.0, 20.0])
    assert reach_km(x, y, (-300.0, 400.0), (-350.0, 250.0)) == np.hypot(750.0, 350.0)


MODEL = "depth_km,vp_km_s,vs_km_s\n0,5.85,3.29\n22,6.8,3.82\n"
SITES = Network(np.array(["XX.A", "XX.B"]), np.array([0.0, 5.0]), np.array([0.0, 9.0]), np.array([-0.31, 0.0]))


@pytest.fixture
def config(tmp_path):
    (tmp_path / "run.toml").write_text(GOOD + 'velocity_model = "model.csv"\nvelocity_between = "layers"\n')
    (tmp_path / "model.csv").write_text(MODEL)
    return configs.load(tmp_path / "run.toml", ["associate.x_km=[-20, 20]", "associate.y_km=[-20, 20]"])


def cached(run_dir):
    return sorted((run_dir.root / "traveltimes").glob("*"))


def no_more(*_):
    raise AssertionError("made again")


def test_a_table_is_made_once(tmp_path, config, monkeypatch):
    run_dir = RunDir(tmp_path / "run")
    made = associate.travel_times(run_dir, SITES, config.associate)
    monkeypatch.setattr(eikonal, "travel_times", no_more)
    found = associate.travel_times(run_dir, SITES, config.associate)
    assert found.slowness_s_km.tobytes() == made.slowness_s_km.tobytes()
    assert (found.level_km.tolist(), found.step_km, found.depth_km) == (made.level_km.tolist(), (1.0, 0.25), -1.0)
    assert len(cached(run_dir)) == 1


@pytest.mark.parametrize("change", ["model", "between", "station", "box", "depth"])
def test_what_goes_into_a_table_makes_another(tmp_path, config, change):
    run_dir, sites, settings = RunDir(tmp_path / "run"), SITES, config.associate
    associate.travel_times(run_dir, sites, settings)
    if change == "model":
        (tmp_path / "model.csv").write_text(MODEL.replace("5.85", "5.84"))
    elif change == "station":
        sites = Network(sites.station, sites.x_km, sites.y_km, np.array([-0.31, -0.05]))
    else:
        new = {"between": ("velocity_between", "gradient"), "box": ("x_km", (-20, 40)), "depth": ("z_km", (0, 39))}
        settings = settings.model_copy(update=dict([new[change]]))
    associate.travel_times(run_dir, sites, settings)
    assert len(cached(run_dir)) == 2


def test_a_damaged_or_foreign_table_is_made_again(tmp_path, config, caplog):
    run_dir = RunDir(tmp_path / "run")
    made = associate.travel_times(run_dir, SITES, config.associate)
    (path,) = cached(run_dir)
    whole = path.read_bytes()
    random = np.random.default_rng(3)
    damaged = [b"", b"PK", b"nonsense", whole[:-1], whole[: len(whole) // 2]]
    for at in random.integers(0, 400, 20).tolist() + random.integers(0, len(whole), 10).tolist():
        damaged.append(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    for content in damaged:
        path.write_bytes(content)
        found = traveltimes.read(path, path.stem)  # a byte that says nothing may change unseen
        assert found is None or found.slowness_s_km.tobytes() == made.slowness_s_km.tobytes()
    path.write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING):
        associate.travel_times(run_dir, SITES, config.associate)
    assert str(path) in caplog.text
    assert path.read_bytes() == whole
    assert traveltimes.read(path, "another") is None


def test_another_content_of_the_file_makes_a_catalogue_out_of_date(tmp_path, config):
    before = provenance.catalogue(config, Picks.empty(), Stations.empty())
    assert before == provenance.catalogue(config, Picks.empty(), Stations.empty())
    (tmp_path / "model.csv").write_text(MODEL + "# no other velocity, another file\n")
    after = provenance.catalogue(config, Picks.empty(), Stations.empty())
    assert {key for key in before if before[key] != after[key]} == {"velocity_model"}


def test_a_missing_file_is_found_before_the_work(tmp_path, config):
    config = config.model_copy(update={"pick": config.pick.model_copy(update={"source": tmp_path / "picks.csv"})})
    plan.check_inputs(config)
    (tmp_path / "model.csv").unlink()
    with pytest.raises(ConfigError, match=r"model\.csv"):
        plan.check_inputs(config)
    with pytest.raises(ConfigError, match=r"model\.csv"):
        provenance.catalogue(config, Picks.empty(), Stations.empty())


def test_every_rank_is_given_the_same_table(tmp_path, config, monkeypatch):
    """The stage up to its associator."""
    from tests import test_associate_stage as stage

    given = []

    def seen(_observed, region, world, *_dask):
        given.append((world.rank, region.travel_times.slowness_s_km.tobytes()))
        return Settled([], {})

    monkeypatch.setattr(associate, "find_events", seen)
    run_dir = stage.picked(tmp_path / "run", config, stage.some_picks())
    stage.associated(run_dir, config, 2)
    (path,) = cached(run_dir)
    made = traveltimes.read(path, path.stem).slowness_s_km.tobytes()
    assert sorted(given) == [(0, made), (1, made)]
    assert tables.metadata(run_dir.events)["velocity_model"] == provenance.of_files([tmp_path / "model.csv"])
    (tmp_path / "model.csv").write_text(MODEL.replace("5.85", "5.9"))
    stage.associated(run_dir, config, 1)
    assert len(given) == 3
    assert given[2][1] != made
