"""Velocity models: what is read, what is refused and how the refusal reads, and what holds between two rows."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.formats.velocity import read
from pipeline.maths.velocity import VelocityModel, deepest_km

DATA = Path(__file__).parents[2] / "shared" / "data"
FILES = [DATA / folder / "velocity_1d.nd" for folder in ("ogs", "central_italy")]
real = pytest.mark.skipif(not DATA.exists(), reason="no real velocity models: reading them is not tested")
ND = """# a crust
0.0  5.0 3.0 2.6  // first
20.0 6.0 3.5
moho
20.0 7.0 4.0
mantle
30.0 8.0 4.5 3.3 1456.0 600.0
"""


def written(tmp_path, text, suffix=".nd"):
    path = tmp_path / f"model{suffix}"
    path.write_text(text, "utf-8")
    return path


def at(model, phase, depth_km):
    """The velocity around one depth."""
    return 1 / model.slowness_s_km(phase, np.array([depth_km - 1e-6, depth_km + 1e-6]))[0]


def test_between_two_depths_linear_or_the_upper_value(tmp_path):
    path = written(tmp_path, ND)
    gradient, layers = read(path, "gradient", 40.0), read(path, "layers", 40.0)
    for depth_km, linear, upper in ((-3, 5, 5), (10, 5.5, 5), (19.99, 5.9995, 5), (25, 7.5, 7), (50, 8, 8)):
        assert at(gradient, "P", depth_km) == pytest.approx(linear, abs=1e-5)
        assert at(layers, "P", depth_km) == pytest.approx(upper, abs=1e-5)
    assert at(gradient, "S", 10.0) == pytest.approx(3.25, abs=1e-5)


def test_vertical_times_are_the_integral_of_the_slowness(tmp_path):
    model = read(written(tmp_path, ND), "gradient", 40.0)
    edges = np.linspace(-2.0, 40.0, 42 * 1000 + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    velocity = np.where(middle < 20, np.interp(middle, [0, 20], [5, 6]), np.interp(middle, [20, 30], [7, 8]))
    total = model.vertical_s("P", np.array([40.0]))[0] - model.vertical_s("P", np.array([-2.0]))[0]
    assert total == pytest.approx((0.001 / velocity).sum(), abs=1e-7)
    assert model.slowness_s_km("P", edges).sum() * 0.001 == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("heading", ["depth_km,vp_km_s,vs_km_s", "Depth, Vp, Vs", "\ufeffvs,vp,depth,rho"])
def test_csv_by_its_heading(tmp_path, heading):
    row = "3.5,6.1,22.0,2.7" if "rho" in heading else "22.0,6.1,3.5"
    model = read(written(tmp_path, f"{heading}\n# a comment\n\n{row}\n", ".csv"), "layers", 40.0)
    assert (model.depth_km.tolist(), model.vp_km_s.tolist(), model.vs_km_s.tolist()) == ([22.0], [6.1], [3.5])


@real
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.parent.name)
def test_obspy_reads_the_same_velocities(path):
    from obspy.taup.velocity_model import VelocityModel as TaupModel

    theirs, ours = TaupModel.read_velocity_file(str(path)), read(path, "gradient", 40.0)
    inside = [z for z in np.random.default_rng(4).uniform(0, 2800, 300) if np.abs(ours.depth_km - z).min() > 1e-3]
    for z in [*inside, 0.5, 5.5, 22.3, 39.7]:
        for phase in "PS":
            assert at(ours, phase, z) == pytest.approx(theirs.evaluate_above(z, phase.lower())[0], rel=1e-6)


@real
@pytest.mark.parametrize("between", ["gradient", "layers"])
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.parent.name)
def test_the_outer_core_ends_a_model(path, between):
    model = read(path, between, 40.0)
    assert model.depth_km[-1] == 2891.0
    assert (model.vs_km_s > 0).all()
    with pytest.raises(ConfigError, match=r"line \d+: .*vs 0 km/s at 2891 km"):
        read(path, between, 3000.0)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("0 5 3\n10 6 3\n8 7 4\n", 3, "depth 8 km after 10 km; sort the rows"),
        ("0 5 3\n\n# x\n5 -6 3\n", 4, "vp -6, vs 3 km/s at 5 km must be above 0"),
        ("0 5 3\n5 6 0\n", 2, "vp 6, vs 0 km/s at 5 km must be above 0"),
        ("0 5 3\n5 3.4 6\n", 2, "vs 6 km/s is not below vp 3.4 km/s at 5 km; look at the order of the columns"),
        ("0 5 3\n5 nan 3\n", 2, "vp nan, vs 3.0: not all are numbers"),
        ("0 5 3\n5 inf 3\n", 2, "vp inf"),
        ("0 5 3\n5 6 3\n5 7 4\n5 8 4\n", 4, "depth 5 km a third time"),
        ("0 5 3\n5 6\n", 2, "'5 6'; expected at least depth (km), vp and vs (km/s)"),
        ("0 5 3\ncrust 6 3\n", 2, "'crust'; expected depth (km)"),
        ("0 5 3\nmantel\n", 2, "'mantel'; expected"),
    ],
)
def test_a_refusal_names_file_line_value_and_remedy(tmp_path, text, line, said):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read(path, "layers", 40.0)
    found = str(caught.value).replace("could not convert string to float: ", "")
    assert f"{path}, line {line}: " in found
    assert said in found


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.nd", "# nothing\nmantle\n", "no depth at all; give at least one row"),
        ("a.csv", "depth_km,vp_km_s,vs_km_s\n", "no depth at all"),
        ("a.csv", "", "no depth at all"),
        ("a.csv", "depth,vp\n0,5\n", "line 1: no column vs_km_s in the heading 'depth,vp'; expected depth_km,"),
        ("a.csv", "depth,vp,vs\n0,5\n", "line 2: '0 5'; expected at least depth"),
        ("a.tvel", "0 5 3\n", "a velocity model is a file .nd or .csv, not '.tvel'"),
        ("a.nd", None, "cannot read the velocity model"),
    ],
)
def test_a_file_that_is_no_model(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / name, "layers", 40.0)
    assert str(tmp_path / name) in str(caught.value)
    assert said in str(caught.value)


def test_a_record_refuses_what_is_no_model():
    with pytest.raises(ValueError, match="row 2: depth 1 km after 2 km"):
        VelocityModel(np.array([2.0, 1.0]), np.array([5.0, 6.0]), np.array([3.0, 3.5]), "layers")
    with pytest.raises(ValueError, match="2 depths, 1 and 1 velocities"):
        VelocityModel(np.array([0.0, 1.0]), np.array([5.0]), np.array([3.0]), "layers")


def test_jumps(tmp_path):
    path = written(tmp_path, ND)
    assert [read(path, "gradient", 40.0).has_jump(z) for z in (20.0, 21.0)] == [False, True]
    assert read(written(tmp_path, "0 5 3\n10 6 3\n"), "layers", 40.0).has_jump(11.0)
    assert not read(written(tmp_path, "0 5 3\n10 5 3\n"), "layers", 40.0).has_jump(11.0)


@pytest.mark.parametrize("reach_km", [50.0, 100.0, 200.0, 300.0])
def test_a_ray_in_a_gradient_dives_as_deep_as_its_circle(reach_km):
    """v = v0 + k z: rays are circles around z = -v0 / k (Slotnick 1959)."""
    v0, k = 5.0, 0.06
    model = VelocityModel(
        np.array([0.0, 400.0]), np.array([v0, v0 + 400 * k]), np.array([v0, v0 + 400 * k]) / 1.7, "gradient"
    )
    circle_km = np.hypot(reach_km / 2, v0 / k) - v0 / k
    assert circle_km <= deepest_km(model, 0.0, 0.0, reach_km) <= circle_km + 3.0


def test_a_refracted_wave_reaches_down_to_its_layer_beyond_the_crossover():
    """The crossover of direct and refracted wave at the surface is 2 h sqrt((v2 + v1) / (v2 - v1))."""
    v1, v2, h_km = 5.85, 8.0, 30.0
    model = VelocityModel(np.array([0.0, h_km]), np.array([v1, v2]), np.array([v1, v2]) / 1.75, "layers")
    crossover_km = 2 * h_km * np.sqrt((v2 + v1) / (v2 - v1))
    assert deepest_km(model, 0.0, 0.0, crossover_km * 1.01) > h_km
    assert deepest_km(model, 0.0, 0.0, crossover_km * 0.99) < h_km
