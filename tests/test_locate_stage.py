"""The location stage: any number of ranks, any order of picks; every pick accounted for; out of date when it should."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import config as configs
from pipeline.cluster.world import Alone
from pipeline.config import Locate, Magnitude
from pipeline.config.quality import Quality
from pipeline.errors import ConfigError, Incomplete
from pipeline.formats import origins, provenance, quality_table, tables
from pipeline.maths import geo
from pipeline.records import NS, Assignments, Events, LocatedArrivals, Origins, Stations, StationTerms
from pipeline.rundir import create, publish
from pipeline.stages import locate, status
from tests.test_associate_stage import START_NS, TRUTH, VP, VS, pick, picked, stations, table
from tests.test_config import GOOD
from tests.worlds import srun

FILES = ("origins", "arrivals", "station_terms")
CENTRE = (46.0, 12.0)
SEEN = 12  # stations with a pick of an event


@pytest.fixture
def config(tmp_path):
    (tmp_path / "run.toml").write_text(GOOD)
    return configs.load(tmp_path / "run.toml", ["associate.z_km=[0, 20]"])


def catalogue(late_s=0.0):
    """Exact picks of the events of `TRUTH`, a later one with too few, and a catalogue that puts all 5 km off.

    ``late_s`` is about how much stations are early or late.
    """
    sites = stations()
    x, y = geo.stereographic(sites.latitude_deg, sites.longitude_deg, *CENTRE)
    rows, events, of = [], [], []
    for e, (ex, ey, ez, at_s) in enumerate([*TRUTH, (0.0, 0.0, 9.0, 2.5 * 86_400.0)]):
        km = np.sqrt((x - ex) ** 2 + (y - ey) ** 2 + (ez + sites.elevation_m / 1000) ** 2)
        near = np.argsort(km)[: SEEN if e < len(TRUTH) else 2]
        new = [
            pick(int(i), p, at_s + km[i] / v + late_s * np.sin(i))
            for i in near.tolist()
            for p, v in (("P", VP), ("S", VS))
        ]
        rows += new
        of += [f"e{e}"] * len(new)
        events.append((f"e{e}", new[0][2] - NS, *geo.geographic(ex + 5, ey, *CENTRE), ez, len(new)))
    picks = table(rows)
    order = np.lexsort((np.array([r[1] for r in rows]), np.array([r[0] for r in rows]), np.array([r[2] for r in rows])))
    nan = np.full(len(rows), np.nan)
    station, phase, time_ns = (np.array([r[k] for r in rows])[order] for k in range(3))
    assignments = Assignments(np.array(of)[order], station, phase, time_ns, nan, nan)
    return picks, sites, _events(events), assignments


def _events(rows):
    rows = sorted(rows, key=lambda row: (row[1], row[0]))
    id_, time_ns, lat, lon, depth, n = (np.array(column) for column in zip(*rows, strict=True))
    nan, half = np.full(len(rows), np.nan), n // 2
    return Events(
        id_, time_ns, lat.astype(float), lon.astype(float), depth, nan, nan, half, half, half, nan, nan, nan,
        np.full(len(rows), "earthquake"),
    )  # fmt: skip


@pytest.fixture
def made(config, tmp_path):
    """A run with a catalogue."""
    return build(tmp_path / "run", config, *catalogue())


def build(root, config, picks, sites, events, assignments):
    run_dir = picked(root, config, picks, sites)
    publish_catalogue(run_dir, events, assignments)
    return run_dir


def publish_catalogue(run_dir, events, assignments):
    for path, rows in ((run_dir.assignments, assignments), (run_dir.events, events)):
        with publish(path) as part:
            tables.write(part, rows)


def written(run_dir):
    return {name: getattr(run_dir, name).read_bytes() for name in FILES}


def test_events_are_where_they_are(made, config):
    locate.run(made, config, Alone())
    found = tables.read(made.origins, Origins)
    order = np.argsort(found.id)
    x, y = geo.stereographic(found.latitude_deg, found.longitude_deg, *CENTRE)
    for row, (ex, ey, ez, at_s) in zip(order[:-1].tolist(), TRUTH, strict=True):
        assert np.hypot(x[row] - ex, y[row] - ey) < 0.3
        assert abs(found.depth_km[row] - ez) < 1.0
        assert found.depth_kind[row] == "free"
        assert (found.n_used[row], found.n_p[row], found.n_s[row]) == (2 * SEEN, SEEN, SEEN)
        assert found.erh_km[row] == pytest.approx(np.sqrt(found.cov_xx_km2[row] + found.cov_yy_km2[row]))
        assert found.rms_s[row] < 0.05
        assert found.gap_deg[row] <= found.secondary_gap_deg[row]
        assert abs(found.time_ns[row] - START_NS - at_s * NS) < 0.1 * NS
    assert (np.diff(found.time_ns) >= 0).all()


def test_what_cannot_be_located_stays_where_it_was_and_says_why(made, config):
    locate.run(made, config, Alone())
    found, events = tables.read(made.origins, Origins), tables.read(made.events, Events)
    (row,), (before,) = np.flatnonzero(found.id == "e6"), np.flatnonzero(events.id == "e6")
    assert "not located (2 stations, 3 are needed)" in found.depth_kind[row]
    assert found.depth_kind[row].startswith("fixed: ")
    assert found.time_ns[row] == events.time_ns[before]
    assert found.latitude_deg[row] == events.latitude_deg[before]
    assert np.isnan([found.erh_km[row], found.rms_s[row], found.cov_zz_km2[row]]).all()
    arrivals = tables.read(made.arrivals, LocatedArrivals)
    own = arrivals.take(arrivals.event == "e6")
    assert len(own) == 4
    assert np.isnan(own.residual_s).all()
    assert np.isfinite(own.distance_km).all()


def test_every_pick_of_an_event_is_an_arrival(made, config):
    locate.run(made, config, Alone())
    arrivals, assignments = tables.read(made.arrivals, LocatedArrivals), tables.read(made.assignments, Assignments)
    keys = [set(zip(t.event, t.station, t.phase, t.time_ns, strict=True)) for t in (arrivals, assignments)]
    assert keys[0] == keys[1]
    assert len(arrivals) == len(assignments)
    located = arrivals.take(arrivals.event != "e6")
    off = (located.time_ns - located.predicted_ns) / NS
    np.testing.assert_allclose(off, located.residual_s, atol=1e-8)
    assert ((located.takeoff_deg > 90) & (located.takeoff_deg < 180)).all(), "straight rays to stations above go up"
    origins = tables.read(made.origins, Origins)
    nearest = [arrivals.distance_km[arrivals.event == name].min() for name in origins.id.tolist() if name != "e6"]
    np.testing.assert_allclose(nearest, origins.nearest_km[origins.id != "e6"])


@pytest.mark.parametrize("ranks", [2, 3, 9])
def test_any_number_of_ranks_and_any_order_of_rows_write_the_same_bytes(made, config, tmp_path, ranks):
    locate.run(made, config, Alone())
    picks, sites, events, assignments = catalogue()
    shuffled = assignments.take(np.random.default_rng(1).permutation(len(assignments)))
    other = build(tmp_path / "other", config, picks, sites, events, shuffled)
    with publish(other.assignments) as part:  # the same digest of the catalogue: rows may lie as they like within
        tables.write(part, assignments)
    srun(ranks, lambda world: locate.run(other, config, world))
    assert written(other) == written(made)
    rows = tables.read(made.origins, Origins).as_dict()
    publish_catalogue(other, events, shuffled)
    srun(ranks, lambda world: locate.run(other, config, world))
    again = tables.read(other.origins, Origins).as_dict()
    assert all(np.array_equal(rows[k], again[k], equal_nan=rows[k].dtype.kind == "f") for k in rows)


def test_it_is_done_once_until_the_catalogue_changes(made, config):
    locate.run(made, config, Alone())
    assert provenance.has_origins(made, provenance.origins(made, config))
    stamps = [getattr(made, name).stat().st_mtime_ns for name in FILES]
    locate.run(made, config, Alone())
    assert [getattr(made, name).stat().st_mtime_ns for name in FILES] == stamps
    events = tables.read(made.events, Events)
    publish_catalogue(made, replace(events, depth_km=events.depth_km + 1), tables.read(made.assignments, Assignments))
    assert "locate       missing or out of date" in status.look(made, config)[1]
    assert not provenance.has_origins(made, provenance.origins(made, config))


def test_it_is_made_again_when_the_program_brings_another_calibration(made, config, tmp_path, monkeypatch):
    locate.run(made, config, Alone())
    newer = tmp_path / quality_table.SHIPPED.name
    newer.write_text(quality_table.SHIPPED.read_text() + "\n")
    monkeypatch.setattr(quality_table, "SHIPPED", newer)
    assert not provenance.has_origins(made, provenance.origins(made, config))
    locate.run(made, config, Alone())
    assert provenance.has_origins(made, provenance.origins(made, config))


def test_no_catalogue_is_incomplete(config, tmp_path):
    with pytest.raises(Incomplete, match="orcolat associate"):
        locate.run(create(tmp_path / "new", config), config, Alone())


def test_picks_of_another_run_are_refused(made, config):
    assignments = tables.read(made.assignments, Assignments)
    publish_catalogue(made, tables.read(made.events, Events), replace(assignments, time_ns=assignments.time_ns + 1))
    with pytest.raises(ConfigError, match="not among the run's picks"):
        locate.run(made, config, Alone())


def test_an_empty_catalogue_has_no_origins(made, config):
    publish_catalogue(made, Events.empty(), Assignments.empty())
    locate.run(made, config, Alone())
    assert len(tables.read(made.origins, Origins)) == len(tables.read(made.station_terms, StationTerms)) == 0


def test_the_catalogue_is_that_of_the_locations(made, config):
    plain = origins.events(made)
    locate.run(made, config, Alone())
    moved, located = origins.events(made), tables.read(made.origins, Origins)
    assert moved.id.tolist() == located.id.tolist()
    assert np.array_equal(moved.latitude_deg, located.latitude_deg)
    assert not np.array_equal(np.sort(moved.longitude_deg), np.sort(plain.longitude_deg))
    events = tables.read(made.events, Events)
    publish_catalogue(made, events.take(events.id != "e0"), tables.read(made.assignments, Assignments))
    assert "e0" not in origins.events(made).id.tolist(), "locations of other events are none"


@pytest.mark.parametrize(("ml", "shown"), [((2.0, np.nan), (2.0, np.nan)), ((np.nan, np.nan), (0.5, 0.6))])
def test_magnitudes_of_one_catalogue_are_of_one_kind(ml, shown):
    events = _events([("a", 1, 46.0, 12.0, 5.0, 4), ("b", 2, 46.0, 12.0, 5.0, 4)])
    events = replace(events, magnitude=np.array([0.5, 0.6]))
    known = {f.name: getattr(events, f.name) for f in Origins.columns() if hasattr(events, f.name)}
    rest = {
        f.name: np.full(2, {"str": "", "int64": 0}.get(f.metadata["dtype"], np.nan), f.metadata["dtype"])
        for f in Origins.columns()
        if f.name not in known
    }
    found = origins.located(events, Origins(**{**known, **rest, "magnitude": np.array(ml)}))
    np.testing.assert_array_equal(found.magnitude, shown)


def test_without_terms_there_are_none(made, config):
    locate.run(made, config.model_copy(update={"locate": Locate(station_terms=False)}), Alone())
    assert len(tables.read(made.station_terms, StationTerms)) == 0


def as_values(path, kind):
    return {name: values.tolist() for name, values in tables.read(path, kind).as_dict().items()}


def with_terms_of(config, path):
    return config.model_copy(update={"locate": Locate(station_terms_file=path)})


def test_terms_of_another_run_are_applied_as_they_are(config, tmp_path, caplog):
    """With the terms of a campaign a night of one event has that event where the campaign has it."""
    picks, sites, events, assignments = catalogue(late_s=0.1)
    campaign = build(tmp_path / "campaign", config, picks, sites, events, assignments)
    locate.run(campaign, config, Alone())
    terms, located = as_values(campaign.station_terms, StationTerms), tables.read(campaign.origins, Origins)
    assert max(map(abs, terms["term_s"])) > 0.02
    one = picks, sites, events.take(events.id == "e2"), assignments.take(assignments.event == "e2")
    night = build(tmp_path / "night", config, *one)
    srun(2, lambda world: locate.run(night, with_terms_of(config, campaign.station_terms), world))
    assert as_values(night.station_terms, StationTerms) == terms
    alone, whole = tables.read(night.origins, Origins), located.take(located.id == "e2")
    for name in ("time_ns", "latitude_deg", "longitude_deg", "depth_km", "cov_zz_km2", "rms_s"):
        assert getattr(alone, name).tolist() == getattr(whole, name).tolist()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    other = tmp_path / "other.parquet"
    tables.write(other, tables.read(campaign.station_terms, StationTerms), {"velocity_model": "of another digest"})
    locate.run(night, with_terms_of(config, other), Alone())
    assert "terms of another velocity model" in caplog.text
    locate.run(night, config, Alone())
    assert tables.read(night.origins, Origins).depth_km[0] != alone.depth_km[0], "its own terms are others"


def test_a_term_shifts_what_is_predicted(made, config, tmp_path):
    path = tmp_path / "terms.csv"
    station = tables.read(made.stations, Stations).id[0]
    path.write_text(f"station,phase,term_s\n{station},P,0.5\nZZ.NONE,S,9\n")
    without = config.model_copy(update={"locate": Locate(station_terms=False)})
    residual = []
    for settings in (without, with_terms_of(config, path)):
        locate.run(made, settings, Alone())
        found = tables.read(made.arrivals, LocatedArrivals)
        mine = (found.station == f"{station}..HH") & (found.phase == "P") & (found.event != "e6")
        residual.append(found.residual_s[mine])
    assert len(residual[0])
    np.testing.assert_allclose(residual[1] - residual[0], -0.5, atol=0.15)  # the events move, too
    assert as_values(made.station_terms, StationTerms)["term_s"] == [0.5]


def test_the_origins_are_made_again_when_a_file_of_the_configuration_changes(made, config, tmp_path):
    station = tables.read(made.stations, Stations).id[0]
    texts = {"terms": f"station,phase,term_s\n{station},P,0.1\n", "table": "distance_km,minus_log_a0\n1,1\n200,3\n"}
    texts["corrections"] = "station,correction\nXX.A,0.1\n"
    texts["calibration"] = Path(quality_table.__file__).parents[1].joinpath("quality.json").read_text()
    files = {name: tmp_path / f"{name}.csv" for name in texts}
    for name, path in files.items():
        path.write_text(texts[name])
    magnitude = Magnitude(scale="table", table=files["table"], station_corrections=files["corrections"])
    parts = {"locate": Locate(station_terms_file=files["terms"]), "magnitude": magnitude}
    config = config.model_copy(update={**parts, "quality": Quality(calibration=files["calibration"])})
    for path in files.values():
        locate.run(made, config, Alone())
        assert provenance.has_origins(made, provenance.origins(made, config))
        path.write_text(path.read_text() + "\n")
        assert not provenance.has_origins(made, provenance.origins(made, config)), path
        assert "locate       missing or out of date" in status.look(made, config)[1]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("station,phase,term_s\nXD.S00,P,0.1\nXD.S00,P,0.2\n", "line 3: P of station XD.S00 is there twice"),
        ("station,phase,term_s\nXD.S00,Pn,0.1\n", "line 2: phase 'Pn' is neither P nor S"),
        ("station,phase,term_s\nXD.S00,P,late\n", "line 2: 'late' is not a number"),
        ("station,phase\nXD.S00,P\n", "no column term_s"),
        ("station,phase,term_s\nS00,P,0.1\n", r"no term of a station of this run; it has S00 \.\.\., the run XD\.S00"),
    ],
)
def test_wrong_terms_are_named(made, config, tmp_path, text, wrong):
    path = tmp_path / "terms.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=wrong):
        locate.run(made, with_terms_of(config, path), Alone())
    path = tmp_path / "terms.parquet"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"terms\.parquet"):
        locate.run(made, with_terms_of(config, path), Alone())


def test_terms_are_given_or_not_wanted(tmp_path):
    with pytest.raises(ValueError, match="station_terms = false, but there is a station_terms_file"):
        Locate(station_terms=False, station_terms_file=tmp_path / "terms.csv")


def test_a_section_at_its_defaults_leaves_the_digest_alone(config):
    other = config.model_copy(update={"locate": Locate(term_sigma_s=0.2)})
    assert config.digest == config.model_copy(update={"locate": Locate()}).digest != other.digest


def test_what_is_not_given_is_that_of_the_associator(config):
    same = Locate().over(config.associate)
    assert same == config.associate
    own = Locate(z_km=(0.0, 60.0), velocity_model=Path("x.nd"), station_elevation=False).over(config.associate)
    assert (own.z_km, own.velocity_model, own.station_elevation) == ((0.0, 60.0), Path("x.nd"), False)


def test_a_station_without_coordinates_is_named(config):
    picks, sites, events, assignments = catalogue()
    lacking = Stations(*(column[1:] for column in sites.as_dict().values()))
    where = None, CENTRE
    with pytest.raises(ConfigError, match=r"XD\.S00"):
        locate.prepare((events, assignments, lacking), np.full(len(assignments), 0.1), where, {})
    assert len(picks) == len(assignments)
