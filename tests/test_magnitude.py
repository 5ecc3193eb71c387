"""ML: anchors of the published scales, what outliers and missing amplitudes do, corrections that were put in."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from pipeline.config import Associate, Config, Magnitude, Run, StationList
from pipeline.errors import ConfigError
from pipeline.formats import corrections
from pipeline.maths import magnitude
from pipeline.maths.magnitude import SCALES, Readings, Scale
from pipeline.records import NS, LocatedArrivals, Origins, Picks, Stations
from pipeline.stages import locate_magnitudes

KM = np.array([10.0, 17.0, 60.0, 100.0, 150.0])


def readings(mm, km, event=None, station=None, reason=None):
    n = len(mm)
    return Readings(
        np.zeros(n, np.int64) if event is None else np.array(event),
        np.array([f"XX.S{k:02d}" for k in range(n)] if station is None else station),
        np.array(mm, float),
        np.array([""] * n if reason is None else reason, "U16"),
        np.array(km, float),
        np.array(km, float),
    )


def of(scale, mm, km, n_events=1, **more):
    return magnitude.magnitudes(readings(mm, km, **more), n_events, SCALES[scale])


def test_the_scales_meet_where_their_authors_say():
    assert magnitude.hutton_boore(np.array([100.0]))[0] == pytest.approx(3.0)  # 1 mm at 100 km is ML 3: Richter (1935)
    assert magnitude.hutton_boore(np.array([17.0]))[0] == pytest.approx(2.0, abs=0.02)  # 10 mm at 17 km: the same
    assert of("richter", [1.0], [100.0]).value[0] == pytest.approx(3.0)
    assert of("richter", [1.0], [20.0]).value[0] == pytest.approx(1.7)
    assert of("richter", [1.0], [605.0]).reason == (
        "0 stations with an amplitude, 1 needed; S picks without: 1 too far",
    )
    assert of("richter", [10.0], [225.0]).value[0] == pytest.approx(4.675)  # between 3.65 and 3.7
    assert np.diff(magnitude.RICHTER_KM).min() > 0
    assert len(magnitude.RICHTER_KM) == len(magnitude.RICHTER)


def test_ogs_is_its_own_formula_and_near_richter_at_100_km():
    by_hand = -18.0471 + 1.105 * np.log10(KM) + 147.111 * np.log10(4.015e-5 * KM + 1.33885)
    for mm in (0.01, 1.0, 70.0):
        each = of("ogs", [mm] * len(KM), KM).of_reading
        np.testing.assert_allclose(each, np.log10(mm) + by_hand, atol=1e-12)
    assert by_hand[3] == pytest.approx(3.0, abs=0.01)
    assert np.isnan(of("ogs", [1.0, 1.0], [2.9, 150.1]).value[0])


def test_the_hypocentral_distance_counts_from_the_station_and_richters_from_the_epicentre():
    origins, arrivals, picks, stations = network(depth_km=30.0)
    given = magnitude.readings(origins, arrivals, picks, stations)
    np.testing.assert_allclose(given.hypocentral_km, np.hypot(given.epicentral_km, 31.0))
    for name, km in (("hutton-boore", given.hypocentral_km), ("richter", given.epicentral_km)):
        found = magnitude.magnitudes(given, 1, SCALES[name])
        expected = np.log10(given.amplitude_mm) + SCALES[name].minus_log_a0(km)
        np.testing.assert_allclose(found.of_reading, expected)


def network(n=5, depth_km=5.0):
    """One event, a P and an S pick of each of n stations 1 km high, 20 km apart."""
    station = np.repeat([f"XX.S{k:02d}..HH" for k in range(n)], 2)
    phase, time_ns = np.tile(["P", "S"], n), np.arange(2 * n, dtype=np.int64) * NS
    one = np.ones(2 * n, np.float32)
    mm = np.where(phase == "S", 2.0, np.nan).astype(np.float32)
    picks = Picks(station, phase, time_ns, one, one, one, one, one, mm)
    km = np.repeat(20.0 * np.arange(1, n + 1), 2)
    arrivals = LocatedArrivals(np.full(2 * n, "e1"), station, phase, time_ns, distance_km=km)
    origins = Origins(np.array(["e1"]), np.zeros(1, np.int64), *(np.array([v]) for v in (46.0, 12.0, depth_km)))
    ids, far = np.array([f"XX.S{k:02d}" for k in range(n)]), np.zeros(n, np.int64)
    stations = Stations(ids, np.full(n, 46.0), np.full(n, 12.0), np.full(n, 1000.0), far, far + 1)
    return origins, arrivals, picks, stations


def test_origins_get_their_magnitude_or_the_reason():
    origins, arrivals, picks, stations = network()
    order = np.random.default_rng(0).permutation(len(picks))
    found, each = locate_magnitudes.with_magnitudes(origins, arrivals, picks.take(order), stations, Magnitude())
    assert found.magnitude[0] == pytest.approx(np.median(each.magnitude[1::2]))
    assert each.wood_anderson_mm[1::2].tolist() == [2.0] * 5
    assert np.isnan(each.magnitude[::2]).all()  # of P picks
    assert (found.magnitude_kind[0], found.magnitude_n[0], found.magnitude_reason[0]) == ("ML", 5, "")
    assert found.magnitude_sigma[0] > 0
    silent = replace(
        picks,
        wood_anderson_mm=np.where(np.arange(10) == 1, picks.wood_anderson_mm, np.nan).astype(np.float32),
        amplitude_reason=np.array(["", "", "", "noise", "", "noise", "", "gap", "", ""]),
    )
    found, _ = locate_magnitudes.with_magnitudes(origins, arrivals, silent, stations, Magnitude())
    assert np.isnan(found.magnitude[0])
    assert found.magnitude_kind[0] == ""
    reason = "1 station with an amplitude, 2 needed; S picks without: 2 noise, 1 gap, 1 not measured"
    assert found.magnitude_reason[0] == reason
    nobody = arrivals.take(arrivals.phase == "P")
    found, _ = locate_magnitudes.with_magnitudes(origins, nobody, picks, stations, Magnitude())
    assert found.magnitude_reason[0] == "no S pick"
    none, rows = np.zeros(0, np.int64), nobody.take(np.zeros(0, np.int64))
    assert len(locate_magnitudes.with_magnitudes(origins.take(none), rows, picks, stations, Magnitude())[0]) == 0


def test_picks_of_nobody_and_of_old_files():
    origins, arrivals, picks, stations = network()
    old = replace(picks, wood_anderson_mm=None, amplitude_reason=None)
    for given in (old, Picks.empty()):
        found, _ = locate_magnitudes.with_magnitudes(origins, arrivals, given, stations, Magnitude())
        assert found.magnitude_reason[0] == "0 stations with an amplitude, 2 needed; S picks without: 5 not measured"


def test_one_wrong_station_moves_the_median_little():
    mm = [1.0, 1.1, 0.9, 1.05, 0.95, 1000.0]
    found = of("hutton-boore", mm, [100.0] * 6)
    assert found.value[0] == pytest.approx(3.0, abs=0.03)
    assert found.spread[0] < 0.1
    assert found.n_stations[0] == 6
    normal = 10 ** np.random.default_rng(0).normal(0, 0.25, 4000)
    assert of("hutton-boore", normal, [100.0] * 4000).spread[0] == pytest.approx(0.25, rel=0.05)


def test_a_station_with_two_channels_is_one_station():
    found = of("hutton-boore", [1.0, 10.0, 100.0], [100.0] * 3, station=["XX.A", "XX.B", "XX.B"])
    assert found.n_stations[0] == 2
    assert found.value[0] == pytest.approx((3.0 + 4.5) / 2)


def made_up(seed=0, n_events=60, n_stations=12):
    """Readings of events of known magnitude, with station terms, scatter and outliers."""
    rng = np.random.default_rng(seed)
    term = rng.normal(0, 0.3, n_stations)
    term -= np.median(term)
    ml, km = rng.uniform(1, 4, n_events), rng.uniform(10, 140, (n_events, n_stations))
    log_mm = ml[:, None] - magnitude.hutton_boore(km) - term + rng.normal(0, 0.1, km.shape)
    log_mm[rng.random(km.shape) < 0.05] += 1.5
    heard = rng.random(km.shape) < 0.7
    event, station = np.nonzero(heard)
    names = np.array([f"XX.S{k:02d}" for k in range(n_stations)])
    return readings(10 ** log_mm[heard], km[heard], event, names[station]), ml, dict(zip(names, term, strict=True))


def test_station_corrections_that_were_put_in_are_found():
    given, ml, term = made_up()
    scale = SCALES["hutton-boore"]
    found = magnitude.estimate(given, len(ml), scale)
    difference = np.array([found[name] - term[name] for name in sorted(term)])
    assert set(found) == set(term)
    assert np.abs(difference - np.median(difference)).max() < 0.06
    before, after = (magnitude.magnitudes(given, len(ml), scale, 1, each).value - ml for each in ({}, found))
    assert after.std() < before.std() / 1.5
    assert np.abs(np.median(after)) < 0.05
    shuffled = np.random.default_rng(1).permutation(len(given.event))
    again = Readings(*(getattr(given, name)[shuffled] for name in Readings.__slots__))
    assert magnitude.estimate(again, len(ml), scale) == found


def test_a_station_with_few_events_has_no_correction():
    given, ml, _ = made_up()
    few = np.flatnonzero(given.station == "XX.S03")[magnitude.LEAST_EVENTS - 1 :]
    less = Readings(*(np.delete(getattr(given, name), few) for name in Readings.__slots__))
    assert "XX.S03" not in magnitude.estimate(less, len(ml), SCALES["hutton-boore"])


def test_tables_of_the_configuration(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("station,correction,note\nXX.A, 0.25,rock\nXX.B,-0.1,\n")
    assert corrections.read_corrections(path) == {"XX.A": 0.25, "XX.B": -0.1}
    assert of("hutton-boore", [1.0], [100.0]).value[0] == pytest.approx(3.0)
    given = readings([1.0], [100.0], station=["XX.A"])
    assert magnitude.magnitudes(given, 1, SCALES["hutton-boore"], 1, {"XX.A": 0.25}).value[0] == pytest.approx(3.25)
    path.write_text("distance_km,minus_log_a0\n10,1.5\n100,3.0\n")
    scale = locate_magnitudes.chosen(Magnitude(scale="table", table=path, min_km=20.0))
    assert (scale.least_km, scale.most_km) == (20.0, 100.0)
    assert scale.minus_log_a0(np.array([55.0]))[0] == pytest.approx(2.25)
    assert isinstance(locate_magnitudes.chosen(Magnitude(scale="ogs")), Scale)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("station,correction\nXX.A,0.1\nXX.A,0.2\n", "line 3: station XX.A is there twice"),
        ("station,correction\nXX.A,large\n", "line 2: 'large' is not a number"),
        ("station,correction\nXX.A,nan\n", "not a finite number"),
        ("name,correction\nXX.A,1\n", "no column station"),
    ],
)
def test_wrong_corrections_are_named(tmp_path, text, wrong):
    path = tmp_path / "c.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=wrong):
        corrections.read_corrections(path)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("distance_km,minus_log_a0\n10,1\n10,2\n", "line 3: distance 10 km after"),
        ("distance_km,minus_log_a0\n10,1\n", "1 rows"),
    ],
)
def test_wrong_tables_are_named(tmp_path, text, wrong):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=wrong):
        corrections.read_table(path)
    with pytest.raises(ConfigError, match=r"absent\.csv"):
        corrections.read_table(tmp_path / "absent.csv")


def test_the_section_is_consistent_and_does_not_change_digests_of_runs_without_it():
    for wrong in ({"pre_filter_hz": (1, 0.5, 30, 40)}, {"scale": "table"}, {"table": "x.csv"}, {"snr": -1}):
        with pytest.raises(ValueError, match=r"pre_filter_hz|belong together|snr"):
            Magnitude(**wrong)
    where = {"center_latitude_deg": 46, "center_longitude_deg": 12, "x_km": (-1, 1), "y_km": (-1, 1)}
    start = datetime(2024, 5, 6, tzinfo=UTC)
    run = Run(name="t", start=start, end=start.replace(day=7))
    usual = {
        "run": run,
        "stations": StationList(files=("s.csv",)),
        "associate": Associate(**where),
        "pick": {"source": "p"},
    }
    digests = [Config(**usual, **more).digest for more in ({}, {"magnitude": Magnitude()}, {"magnitude": {"snr": 4}})]
    assert digests[0] == digests[1] != digests[2]
