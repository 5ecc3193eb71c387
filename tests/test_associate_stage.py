"""The association stage: any order, any number of ranks, any cut at a pause; every pick accounted for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import config as configs
from pipeline.cluster.world import Alone, one_fails_all_fail
from pipeline.errors import ConfigError, Incomplete
from pipeline.formats import results, tables
from pipeline.maths import geo
from pipeline.records import DAY_NS, NS, Assignments, Events, Outcome, Picks, Shard, Shards, Stations
from pipeline.rundir import RunDir, create, publish
from pipeline.stages import associate
from tests import fakes
from tests.test_config import GOOD
from tests.worlds import srun

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
VP, VS = 6.0, 3.43  # the defaults of the configuration
GRID = [(float(x), float(y)) for x in (-30, -10, 10, 30) for y in (-30, -10, 10, 30)]
LAT, LON = geo.geographic(*np.transpose(GRID), 46.0, 12.0)
HEIGHT_KM = 0.4  # at the depth of a station the travel time is flat, and a search that lands there stays
START_NS = Shard(fakes.day(0), "XD.S00.", "HH").span_ns[0]
TRUTH = [  # x, y, z in km, seconds after the first midnight; three days, two pairs close in time
    (-20.0, 5.0, 8.0, 3_000.0),
    (25.0, -12.0, 6.0, 3_004.0),
    (2.0, 3.0, 10.0, 50_000.0),
    (10.0, 20.0, 7.0, 86_399.0),
    (-5.0, -20.0, 12.0, 86_402.0),
    (15.0, -3.0, 9.0, 2 * 86_400.0 + 60.0),
]


def stations(end_ns=START_NS + 10 * DAY_NS):
    n = len(GRID)
    ids = np.array([f"XD.S{i:02}" for i in range(n)])
    return Stations(ids, LAT, LON, np.full(n, 1000 * HEIGHT_KM), np.full(n, START_NS - DAY_NS), np.full(n, end_ns))


def pick(i, phase, time_s, probability=0.9):
    return f"XD.S{i:02}..HH", phase, START_NS + round(time_s * NS), probability


def table(rows):
    station, phase, time_ns, probability = zip(*rows, strict=True)
    nan = np.full(len(rows), np.nan, np.float32)
    return Picks(
        np.array(station), np.array(phase), np.array(time_ns), np.array(probability, np.float32), nan, nan, nan, nan
    ).ordered()


def some_picks():
    """Exact arrivals of the events of `TRUTH` and lonely false picks."""
    rng = np.random.default_rng(5)
    rows = [
        pick(int(i), "P", t, 0.4) for i, t in zip(rng.integers(0, 16, 60), rng.uniform(0, 250_000, 60), strict=True)
    ]
    for x, y, z, time_s in TRUTH:
        for i, (sx, sy) in enumerate(GRID):
            km = np.sqrt((x - sx) ** 2 + (y - sy) ** 2 + (z + HEIGHT_KM) ** 2)
            rows += [pick(i, "P", time_s + km / VP), pick(i, "S", time_s + km / VS)]
    return table(rows)


@pytest.fixture
def config(tmp_path):
    (tmp_path / "run.toml").write_text(GOOD)
    return configs.load(tmp_path / "run.toml", ["associate.z_km=[0, 20]"])


def observed_by(picks, sites, settings):
    return associate.observe(picks, sites, associate.place(sites, settings))


def planned(shards):
    if not shards:
        return Shards.empty()
    days, ids, bands = zip(*((f"{s.day:%Y-%m-%d}", s.station, s.band) for s in shards), strict=True)
    zeros = np.ones(len(shards), np.int64), np.full(len(shards), ""), np.zeros(len(shards), np.int64)
    return Shards(np.array(days), np.array(ids), np.array(bands), *zeros)


def picked(root, config, picks, sites=None, fold=True):
    """A run directory in which the pick stage has ended with ``picks``."""
    run_dir = create(root, config)
    days = sorted({(t - START_NS) // DAY_NS for t in picks.time_ns.tolist()})
    shards = [Shard(fakes.day(d), f"XD.S{i:02}.", "HH") for d in days for i in range(len(GRID))]
    with publish(run_dir.stations) as part:
        tables.write(part, stations() if sites is None else sites)
    with publish(run_dir.shards) as part:
        tables.write(part, planned(shards))
    for shard in shards:
        a, b = shard.span_ns
        mine = (picks.station == shard.channel) & (picks.time_ns >= a) & (picks.time_ns < b)
        results.write_part(run_dir, shard, picks.take(mine), Outcome(shard.id, "picked", "", int(mine.sum()), 1.0))
    if fold:
        results.fold(run_dir, planned(shards))
    return run_dir


def associated(run_dir, config, ranks=1):
    def body(world):
        with one_fails_all_fail(world, lambda e: 1):
            associate.run(run_dir, config, world)

    srun(ranks, body)
    return run_dir.events.read_bytes(), run_dir.assignments.read_bytes()


def catalogue(run_dir):
    return tables.read(run_dir.events, Events), tables.read(run_dir.assignments, Assignments)


def test_the_events_of_the_truth_with_every_column(tmp_path, config):
    run_dir = picked(tmp_path / "run", config, some_picks())
    associated(run_dir, config)
    events, assignments = catalogue(run_dir)
    assert len(events) == len(TRUTH)
    order = np.argsort([t[3] for t in TRUTH])
    for i, k in enumerate(order):
        x, y, z, time_s = TRUTH[k]
        lat, lon = geo.geographic(x, y, 46.0, 12.0)
        assert (events.time_ns[i] - START_NS) / NS == pytest.approx(time_s, abs=0.5)
        assert geo.distance_km(lat, lon, events.latitude_deg[i], events.longitude_deg[i]) < 1.0
        assert abs(events.depth_km[i] - z) < 3.0
        nearest = geo.distance_km(events.latitude_deg[i], events.longitude_deg[i], LAT, LON).min()
        assert events.nearest_km[i] == pytest.approx(nearest, rel=1e-6)
        own = assignments.take(assignments.event == events.id[i])
        assert (events.n_p[i], events.n_s[i]) == ((own.phase == "P").sum(), (own.phase == "S").sum())
        assert events.n_stations[i] == len(set(own.station)) >= 15
        assert events.sigma_time_s[i] == pytest.approx(np.sqrt(np.mean(own.residual_s**2)))
        assert events.score[i] == pytest.approx(len(own), abs=4)
        assert events.n_pairs[i] == len(set(own.station[own.phase == "P"]) & set(own.station[own.phase == "S"]))
        seen = np.isin([f"XD.S{i:02}..HH" for i in range(16)], own.station)
        around = geo.azimuth_deg(events.latitude_deg[i], events.longitude_deg[i], LAT[seen], LON[seen])
        assert events.gap_deg[i] == pytest.approx(geo.azimuthal_gap_deg(around), abs=0.01)
    assert (events.gap_deg < 200).all()
    assert np.isnan(events.magnitude).all()
    assert np.isnan(events.sigma_log_amplitude).all()
    assert set(events.kind) == {"earthquake"}
    assert (np.diff(events.time_ns) > 0).all()
    assert all(i.startswith("e20240506T") for i in events.id[:2])


def test_events_that_a_rule_refuses_are_counted_and_their_picks_are_noise(tmp_path, config, caplog):
    free = picked(tmp_path / "free", config, some_picks())
    associated(free, config)
    events, _ = catalogue(free)
    limit = float(np.median(events.gap_deg))
    strict = config.model_copy(
        update={"associate": config.associate.model_copy(update={"max_gap_deg": limit, "min_pairs": 15})}
    )
    run_dir = picked(tmp_path / "strict", strict, some_picks())
    with caplog.at_level("INFO", "pipeline.stages.associate"):
        associate.run(run_dir, strict, Alone())
    kept, assignments = catalogue(run_dir)
    inside = events.gap_deg <= limit
    np.testing.assert_equal(kept.as_dict(), events.take(inside).as_dict())
    assert 0 < len(kept) < len(events)
    refused = {"max_gap_deg": int(np.count_nonzero(~inside))}
    assert [tables.metadata(p)["refused"] for p in (run_dir.events, run_dir.assignments)] == [refused, refused]
    assert (
        f"{refused['max_gap_deg']} events were refused by associate.max_gap_deg; their picks are noise" in caplog.text
    )
    assert len(assignments) == (kept.n_p + kept.n_s).sum()
    stamp = run_dir.events.stat().st_mtime_ns
    assert associated(run_dir, strict, ranks=2)
    assert run_dir.events.stat().st_mtime_ns == stamp  # up to date, whatever was refused


def with_amplitudes(picks, magnitude):
    """The amplitudes that events of ``magnitude`` at their true places would have; those of false picks are small."""
    expected = np.full(len(picks), 1e-9)
    for x, y, z, time_s in TRUTH:
        for i, (sx, sy) in enumerate(GRID):
            km = np.sqrt((x - sx) ** 2 + (y - sy) ** 2 + (z + HEIGHT_KM) ** 2)
            at = START_NS + np.round([(time_s + km / VP) * NS, (time_s + km / VS) * NS]).astype(np.int64)
            mine = (picks.station == f"XD.S{i:02}..HH") & (np.abs(picks.time_ns[:, None] - at).min(axis=1) < 1000)
            expected[mine] = 10 ** (1.08 + 0.93 * (magnitude - 3.5) - 1.68 * np.log10(km)) / 100  # cm/s to m/s
    return replace(picks, amplitude_m_s=expected.astype(np.float32))


def test_magnitudes_come_from_the_amplitudes_and_bear_a_wrong_one(tmp_path, config):
    picks = with_amplitudes(some_picks(), 1.7)
    run_dir = picked(tmp_path / "run", config, picks)
    associated(run_dir, config)
    events, assignments = catalogue(run_dir)
    assert events.magnitude == pytest.approx(np.full(len(TRUTH), 1.7), abs=0.05)
    for i, name in enumerate(events.id):
        residual = assignments.residual_log_amplitude[assignments.event == name]
        assert events.sigma_log_amplitude[i] == pytest.approx(np.sqrt(np.mean(residual**2)))
        assert np.median(np.abs(residual)) < 0.05
    wrong = picks.amplitude_m_s.copy()
    wrong[picks.station == "XD.S05..HH"] *= 1000
    wrong[picks.station == "XD.S06..HH"] = np.nan
    run_dir = picked(tmp_path / "wrong", config, replace(picks, amplitude_m_s=wrong))
    associated(run_dir, config)
    events, assignments = catalogue(run_dir)
    assert events.magnitude == pytest.approx(np.full(len(TRUTH), 1.7), abs=0.1)
    loud, mute = (assignments.residual_log_amplitude[assignments.station == f"XD.S{i}..HH"] for i in ("05", "06"))
    assert np.median(loud) == pytest.approx(3, abs=0.1)
    assert np.isnan(mute).all()


def test_amplitudes_that_are_not_to_be_used_give_no_magnitude(tmp_path, config):
    deaf = config.model_copy(update={"associate": config.associate.model_copy(update={"use_amplitude": False})})
    run_dir = picked(tmp_path / "run", deaf, with_amplitudes(some_picks(), 1.7))
    associated(run_dir, deaf)
    events, assignments = catalogue(run_dir)
    assert len(events) == len(TRUTH)
    assert np.isnan(events.magnitude).all()
    assert np.isnan(events.sigma_log_amplitude).all()
    assert np.isnan(assignments.residual_log_amplitude).all()


def test_amplitudes_are_observed_as_logarithms(config):
    picks = some_picks()
    amplitude = np.full(len(picks), 1e-6, np.float32)
    amplitude[:2] = np.nan, 1e-9
    observed = observed_by(replace(picks, amplitude_m_s=amplitude), stations(), config.associate)
    assert np.isnan(observed.log_amplitude[0])
    assert observed.log_amplitude[1:] == pytest.approx([-9, *[-6] * (len(picks) - 2)], abs=1e-6)


def test_every_pick_is_in_one_event_or_in_noise(tmp_path, config):
    picks = some_picks()
    run_dir = picked(tmp_path / "run", config, picks)
    associated(run_dir, config)
    _, assignments = catalogue(run_dir)
    keys = list(zip(assignments.station, assignments.phase, assignments.time_ns, strict=True))
    assert len(set(keys)) == len(keys)
    assert set(keys) <= set(zip(picks.station, picks.phase, picks.time_ns, strict=True))
    assert len(keys) == int(catalogue(run_dir)[0].n_p.sum() + catalogue(run_dir)[0].n_s.sum())


def test_a_broken_account_is_an_error():
    none, no_picks = Events.empty(), Assignments.empty()
    twice = [np.array([1, 2]), np.array([2])]
    with pytest.raises(RuntimeError, match="of 9 picks 3 are in events, 2 different"):
        associate.check_account(9, twice, none, no_picks)
    with pytest.raises(RuntimeError, match="3 picks in events, 0 counted, 0 assigned"):
        associate.check_account(9, [np.array([1, 2, 4])], none, no_picks)


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_same_bytes_on_any_number_of_ranks(tmp_path, config, ranks):
    run_dirs = [picked(tmp_path / str(n), config, some_picks()) for n in (1, ranks)]
    alone = associate.run(run_dirs[0], config, Alone())
    assert alone is None
    assert associated(run_dirs[1], config, ranks) == (
        run_dirs[0].events.read_bytes(),
        run_dirs[0].assignments.read_bytes(),
    )


def test_same_bytes_from_parts_from_days_and_from_a_day_in_any_order(tmp_path, config):
    picks = some_picks()
    whole = associated(picked(tmp_path / "days", config, picks), config)
    loose = picked(tmp_path / "parts", config, picks, fold=False)
    assert not loose.picks(fakes.day(0)).exists()
    assert associated(loose, config) == whole
    shuffled = picked(tmp_path / "shuffled", config, picks)
    order = np.random.default_rng(3)
    for day in range(3):
        path = shuffled.picks(fakes.day(day))
        mixed = tables.read(path, Picks)
        tables.write(path, mixed.take(order.permutation(len(mixed))))
    assert associated(shuffled, config) == whole


def test_a_cut_at_any_pause_gives_the_same_events(tmp_path, config):
    picks = some_picks()
    whole = picked(tmp_path / "whole", config, picks)
    associated(whole, config)
    events, assignments = catalogue(whole)
    pauses = np.flatnonzero(np.diff(picks.time_ns) > config.associate.dbscan_eps_s * NS) + 1
    assert len(pauses) > 20
    for cut in pauses[[len(pauses) // 4, len(pauses) // 2, -9]]:
        halves = [
            picked(tmp_path / f"{cut}-{i}", config, p)
            for i, p in enumerate((picks.take(slice(0, cut)), picks.take(slice(cut, None))))
        ]
        for half in halves:
            associated(half, config)
        parts = [catalogue(half) for half in halves]
        assert repr(Events.concat([p[0] for p in parts]).as_dict()) == repr(events.as_dict())
        joined = Assignments.concat([p[1] for p in parts])
        np.testing.assert_equal(joined.as_dict(), assignments.as_dict())


def test_a_repeat_does_nothing_and_new_picks_make_a_new_catalogue(tmp_path, config):
    picks = some_picks()
    run_dir = picked(tmp_path / "run", config, picks)
    first = associated(run_dir, config)
    stamp = run_dir.events.stat().st_mtime_ns, run_dir.assignments.stat().st_mtime_ns
    assert associated(run_dir, config, ranks=2) == first
    assert (run_dir.events.stat().st_mtime_ns, run_dir.assignments.stat().st_mtime_ns) == stamp
    run_dir.events.unlink()  # killed between the two files
    assert associated(run_dir, config) == first
    kept = tables.read(run_dir.picks(fakes.day(2)), Picks).take(slice(0, 3))  # that day picked again, differently
    results.write_day(run_dir, fakes.day(2), kept, [Outcome("2024-05-08/XD.S00..HH", "picked", "", len(kept), 1.0)])
    associated(run_dir, config)
    assert len(catalogue(run_dir)[0]) == len(TRUTH) - 1
    assert tables.metadata(run_dir.events) == tables.metadata(run_dir.assignments)


def test_a_pick_of_an_unknown_station_is_named(tmp_path, config):
    sites = stations()
    run_dir = picked(tmp_path / "run", config, some_picks(), sites.take(sites.id != "XD.S03"))
    with pytest.raises(ConfigError, match=r"XD\.S03 \(\d+ picks, the first at 2024-05-06T.*stations\.files") as e:
        associated(run_dir, config, ranks=2)
    assert "XD.S04" not in str(e.value)
    assert not run_dir.events.exists()


def test_an_epoch_that_has_ended_gives_no_coordinates_and_the_next_gives_its_own(tmp_path, config):
    picks = some_picks()
    ended = stations(end_ns=START_NS + DAY_NS)
    with pytest.raises(ConfigError, match="the first at 2024-05-07T00"):
        observed_by(picks, ended, config.associate)
    moved = replace(stations(), latitude_deg=LAT + 0.5, start_ns=ended.end_ns)
    observed = observed_by(picks, Stations.concat([moved, ended]), config.associate)
    later = picks.time_ns >= START_NS + DAY_NS
    assert (np.sort(np.unique(observed.y_km[~later].round()))[[0, -1]] == [-30, 30]).all()
    assert observed.y_km[later].min() == pytest.approx(-30 + 55.6, abs=0.3)


def test_height_is_negative_depth_and_an_unknown_one_is_zero(config):
    sites = replace(stations(), elevation_m=np.where(np.arange(16) == 2, np.nan, 1500.0))
    observed = observed_by(some_picks(), sites, config.associate)
    assert set(observed.z_km[observed.station == "XD.S02"]) == {0.0}
    assert set(observed.z_km[observed.station != "XD.S02"]) == {-1.5}
    flat = config.associate.model_copy(update={"station_elevation": False})
    assert set(observed_by(some_picks(), sites, flat).z_km) == {0.0}


def test_no_catalogue_before_all_shards_are_picked(tmp_path, config):
    run_dir = picked(tmp_path / "run", config, some_picks(), fold=False)
    run_dir.part(Shard(fakes.day(1), "XD.S07.", "HH")).unlink()
    with pytest.raises(Incomplete, match=r"2024-05-07/XD\.S07\.\.HH"):
        associate.run(run_dir, config, Alone())


def test_no_picks_give_an_empty_catalogue(tmp_path, config):
    run_dir = picked(tmp_path / "run", config, Picks.empty())
    associated(run_dir, config, ranks=2)
    assert [len(t) for t in catalogue(run_dir)] == [0, 0]


@pytest.mark.skipif(not DATA.exists(), reason="no shared data: recall on the analysts' picks of OGS is not checked")
def test_most_earthquakes_of_the_analysts_come_back(tmp_path):
    """Two weeks of phase cards without their events, by the shipped configuration, against the OGS hypocentres."""
    config = configs.load(ROOT / "configs" / "ogs-2024.toml")
    cards = pd.read_parquet(DATA / "ogs" / "onlyEQ-2024.dat.parquet")
    cards = cards[(cards.time >= "2024-05-20") & (cards.time < "2024-06-03")]
    sites = pd.read_csv(DATA / "ogs" / "stations.csv", keep_default_na=False)
    n, m = len(sites), len(cards)
    network = sites.set_index("station").network
    codes = [f"{network[s]}.{s}" for s in cards.station.str.strip(".")]
    nan = np.full(m, np.nan, np.float32)
    picks = Picks(
        np.array([f"{c}.." for c in codes]),
        np.array(cards.phase.tolist()),
        cards.time.to_numpy().astype("datetime64[ns]").astype(np.int64),
        np.ones(m, np.float32),
        nan,
        nan,
        nan,
        nan,
    ).ordered()
    known = Stations(
        np.array((sites.network + "." + sites.station).tolist()),
        sites.latitude.to_numpy(),
        sites.longitude.to_numpy(),
        pd.to_numeric(sites.elevation_m).to_numpy(),
        np.zeros(n, np.int64),
        np.full(n, 2**62),
    )
    observed, region = associate._given(RunDir(tmp_path), associate.Task(picks, known, {}), config)
    found = associate.find_events(observed, region, Alone()).events
    events, _ = associate.catalogue(found, picks, observed, config.associate)
    truth = pd.read_parquet(DATA / "ogs" / "onlyEQ-2024.hpl.parquet")
    truth = truth[(truth.time >= "2024-05-20") & (truth.time < "2024-06-03")]
    dt_s = np.abs(truth.time.to_numpy().astype("datetime64[ns]").astype(np.int64)[:, None] - events.time_ns) / NS
    km = geo.distance_km(
        truth.latitude.to_numpy()[:, None],
        truth.longitude.to_numpy()[:, None],
        events.latitude_deg,
        events.longitude_deg,
    )
    near = (dt_s <= 2.0) & (km <= 8.0)
    assert len(truth) > 50
    assert near.any(axis=1).mean() >= 0.927
    assert near.any(axis=0).mean() >= 0.98
    assert np.median(km[near]) <= 0.27
