"""Removing an instrument's response: ObsPy's own removal and simulation, and closed forms."""

from pathlib import Path

import numpy as np
import obspy
import pytest
from obspy.core.inventory import Channel, Inventory, Network, Response, Station
from obspy.signal.invsim import cosine_taper, simulate_seismometer

from pipeline.errors import ConfigError
from pipeline.formats import responses
from pipeline.maths import motion, response
from pipeline.records import NS

DATA = Path(__file__).parents[2] / "shared" / "data"
SHIPPED = Path(obspy.__file__).parent / "core" / "data" / "BW_RJOB.xml"  # an STS-2 with its whole chain of stages
BAND = (0.2, 0.5, 35.0, 45.0)
AT = (obspy.UTCDateTime(2009, 8, 24).ns, obspy.UTCDateTime(2009, 8, 25).ns)


def inventory(*channels, network="XX", station="ABC"):
    site = Station(station, 46.0, 12.0, 0.0, channels=list(channels))
    return Inventory([Network(network, [site])], source="test")


def channel(code, made, location="", start=None, end=None):
    return Channel(
        code, location, 46.0, 12.0, 0.0, 0.0, sample_rate=100.0, response=made, start_date=start, end_date=end
    )


def accelerometer():
    made = Response.from_paz([], [-400 + 300j, -400 - 300j], 2e5, input_units="M/S**2", output_units="COUNTS")
    made.recalculate_overall_sensitivity(1.0)
    return made


def flat(value, units):
    sensitivity = obspy.core.inventory.response.InstrumentSensitivity(value, 1.0, units, "COUNTS")
    return Response(instrument_sensitivity=sensitivity)


def saved(tmp_path, *channels):
    path = tmp_path / "stations.xml"
    inventory(*channels).write(str(path), format="STATIONXML")
    return path


def tapered(data):
    values = data - data.mean()
    return values * cosine_taper(len(values), 0.05, sactaper=True, halfcosine=False)


def removed(data, path, name, row, span_ns, rate_hz=100.0, water_level_db=60.0):
    """As the pipeline does it, over as many frequencies as ObsPy takes."""
    n_fft = obspy.signal.util._npts2nfft(len(data))
    frequency_hz = response.frequencies(n_fft, rate_hz)
    (found,) = responses.of([path], name, span_ns, frequency_hz)
    operator = response.inverted(found.counts_per_m_s[row], water_level_db) * response.band(frequency_hz, BAND)
    return response.filtered(tapered(data), operator), operator, frequency_hz


def same(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def test_a_real_earthquake_and_a_real_response_as_obspy():
    for row, trace in enumerate(obspy.read().select(component="Z") + obspy.read().select(component="N")):
        theirs = trace.copy().remove_response(
            obspy.read_inventory(SHIPPED), output="VEL", pre_filt=BAND, water_level=60, taper_fraction=0.05
        )
        ours, _, _ = removed(trace.data.astype(float), SHIPPED, "BW.RJOB..EH", row, AT)
        assert same(ours, theirs.data) < 1e-7


@pytest.mark.parametrize("name", ["BW_RJOB.xml", "BW_GR_misc.xml", "AU.MEEK.xml", "IU_ANMO_BH.xml", "IM_IL31__BHZ.xml"])
def test_what_is_interpolated_is_what_obspy_evaluates(name):
    path = next((p for p in (SHIPPED.parent / name, SHIPPED.parents[1] / "tests" / "data" / name) if p.exists()), None)
    if path is None:
        pytest.skip(f"this ObsPy comes without {name}")
    frequency_hz = motion.grid(100.0)
    for network in obspy.read_inventory(path):
        for made in {site.channels[0].code: site.channels[0] for site in network}.values():
            span_ns = max(responses.EARLIEST, made.start_date.ns), made.start_date.ns + NS
            where = f"{network.code}.{network[0].code}.{made.location_code}.{made.code[:2]}"
            for found in responses.of([path], where, span_ns, frequency_hz):
                inside = (frequency_hz > 0.2) & (frequency_hz < 0.45 * min(made.sample_rate, 100.0))
                theirs = made.response.get_evalresp_response_for_frequencies(frequency_hz[inside], output="VEL")
                ours = np.abs(found.counts_per_m_s[:, inside] - theirs).max(axis=1).min()
                assert ours <= 5e-5 * np.abs(theirs).max(initial=0)


@pytest.mark.parametrize("water_level_db", [10.0, 60.0])
def test_an_accelerometer_and_low_and_high_water_as_obspy(tmp_path, water_level_db):
    path = saved(tmp_path, channel("HNZ", accelerometer()))
    data = np.cumsum(np.random.default_rng(1).normal(0, 100, 4001))
    trace = obspy.Trace(data, {"network": "XX", "station": "ABC", "channel": "HNZ", "sampling_rate": 100.0})
    theirs = trace.remove_response(
        obspy.read_inventory(path), output="VEL", pre_filt=BAND, water_level=water_level_db, taper_fraction=0.05
    )
    ours, _, _ = removed(data, path, "XX.ABC..HN", 0, (0, NS), water_level_db=water_level_db)
    assert same(ours, theirs.data) < 1e-4


@pytest.mark.skipif(not DATA.exists(), reason="no real station-day: its response removal is not compared with ObsPy's")
def test_an_hour_of_a_real_station_day_as_obspy():
    path = DATA / "station_day" / "sds" / "2020" / "CM" / "BAR2" / "HHN.D" / "CM.BAR2.00.HHN.D.2020.266"
    start = obspy.UTCDateTime(2020, 9, 22, 5)
    trace = obspy.read(path, starttime=start, endtime=start + 3600)[0]
    made = obspy.read_inventory(SHIPPED)[0][0].select(channel="EHN")[0].response
    trace.stats.response = made
    theirs = trace.copy().remove_response(output="VEL", pre_filt=BAND, water_level=60, taper_fraction=0.05)
    ours, _, _ = removed(trace.data.astype(float), SHIPPED, "BW.RJOB..EH", 1, AT)
    assert same(ours, theirs.data) < 1e-4


def test_wood_anderson_in_the_same_step_as_obspy_simulates_it():
    trace = obspy.read()[0]
    velocity, operator, frequency_hz = removed(trace.data.astype(float), SHIPPED, "BW.RJOB..EH", 0, AT)
    ours = response.filtered(tapered(trace.data.astype(float)), operator * response.wood_anderson(frequency_hz))
    seismometer = {"poles": list(response.POLES_RAD_S), "zeros": [0j], "gain": 1.0, "sensitivity": response.GAIN}
    theirs = 1000 * simulate_seismometer(
        velocity, 100.0, paz_simulate=seismometer, taper=False, zero_mean=False, pitsasim=False
    )
    middle = slice(500, 2500)  # theirs begins at rest a second time
    assert np.abs(ours - theirs)[middle].max() / np.abs(theirs).max() < 1e-4


@pytest.mark.parametrize("frequency_hz", [0.2, 1.25, 5.0, 20.0])
def test_a_wood_anderson_is_a_pendulum_of_a_period_and_a_damping(frequency_hz):
    omega, natural = 2 * np.pi * frequency_hz, abs(response.POLES_RAD_S[0])
    damping = -response.POLES_RAD_S[0].real / natural
    assert natural / (2 * np.pi) == pytest.approx(1.25, abs=1e-3)
    assert damping == pytest.approx(0.7, abs=1e-3)
    gain = omega**2 / np.sqrt((natural**2 - omega**2) ** 2 + (2 * damping * natural * omega) ** 2)
    of_velocity = response.wood_anderson(np.array([frequency_hz]))[0]
    assert abs(of_velocity) * omega == pytest.approx(1000 * 2080 * gain, rel=1e-9)


def test_the_band_falls_as_sac_has_it_and_moves_down_with_the_rate():
    shape = response.band(np.array([0.1, 0.2, 0.35, 0.5, 35.0, 40.0, 45.0, 50.0]), BAND)
    np.testing.assert_allclose(shape, [0, 0, 0.5, 1, 1, 0.5, 0, 0], atol=1e-12)
    assert response.within(BAND, 100.0) == BAND
    assert response.within(BAND, 40.0) == pytest.approx((0.2, 0.5, 14.0, 18.0))
    with pytest.raises(ValueError, match="begins too high"):
        response.within((5.0, 8.0, 30.0, 40.0), 20.0)


def test_nothing_is_divided_by_zero():
    found = response.inverted(np.array([0, 1e-9j, 2.0]), 40.0)
    assert found[0] == 0
    assert abs(found[1]) == pytest.approx(1 / 0.02)
    assert found[2] == 0.5
    assert abs(response.inverted(np.array([0, 1e-9j, 2.0]), None)[1]) == pytest.approx(1e9)


def test_epochs_follow_one_another_and_another_location_is_another_instrument(tmp_path):
    change, end = obspy.UTCDateTime(2024, 6, 1, 12), obspy.UTCDateTime(2025, 1, 1)
    path = saved(
        tmp_path,
        *(channel(f"HH{c}", flat(1e9, "M/S"), end=change) for c in "ZNE"),
        *(channel(f"HH{c}", flat(2e9, "M/S"), start=change, end=end) for c in "ZNE"),
        channel("HHZ", flat(5e9, "M/S"), location="10"),
    )
    day = obspy.UTCDateTime(2024, 6, 1).ns, obspy.UTCDateTime(2024, 6, 2).ns
    first, second = responses.of([path], "XX.ABC..HH", day, np.array([0.0, 1.0]))
    assert first.end_ns == second.start_ns == change.ns
    assert (first.counts_per_m_s[:, 1] == 1e9).all()
    assert (second.counts_per_m_s[:, 1] == 2e9).all()
    (other,) = responses.of([path], "XX.ABC.10.HH", day, np.array([1.0]))
    assert other.known == (True, False, False)
    assert other.counts_per_m_s[0, 0] == 5e9
    assert not responses.of([path], "XX.ABC..HH", (end.ns, end.ns + NS), np.array([1.0]))
    assert not responses.of([path], "XX.ABD..HH", day, np.array([1.0]))


def test_a_sensitivity_alone_is_flat_and_said_so(tmp_path):
    path = saved(tmp_path, channel("HNZ", flat(2e5, "M/S**2")), channel("HN1", flat(3e5, "M/S**2")))
    (found,) = responses.of([path], "XX.ABC..HN", (0, NS), np.array([0.0, 1.0, 10.0]))
    np.testing.assert_allclose(np.abs(found.counts_per_m_s[0]), [0, 2e5 * 2 * np.pi, 2e6 * 2 * np.pi])
    assert found.known == (True, True, False)
    assert found.notes == ("HNZ, HN1: only a sensitivity is known, taken as flat",)


@pytest.mark.parametrize("made", [flat(1.0, "PA"), flat(0.0, "M/S"), Response()])
def test_what_is_no_ground_motion_is_named(tmp_path, made):
    path = saved(tmp_path, channel("HDZ", made))
    (found,) = responses.of([path], "XX.ABC..HD", (0, NS), np.array([1.0]))
    assert found.known == (False, False, False)
    assert any(note.startswith("HDZ: ") for note in found.notes)


@pytest.mark.parametrize(
    ("name", "channel_name", "told"),
    [
        ("hydrophone_response_PA.xml", "3F.MRO01..HD", None),  # H is no component that is known
        ("polynomial_response.xml", "NZ.CHIT.41.LT", "a polynomial response"),
        ("TM.SKLT.__.BHZ_faulty_response.xml", "TM.SKLT..BH", "ObsPy cannot evaluate its response"),
    ],
)
def test_responses_that_obspy_ships_and_that_are_none(name, channel_name, told):
    path = SHIPPED.parents[1] / "tests" / "data" / name
    if not path.exists():
        pytest.skip(f"this ObsPy comes without {name}")
    (found,) = responses.of([path], channel_name, (responses.EARLIEST, responses.LATEST), np.array([1.0]))
    assert not any(found.known)
    assert [told in note for note in found.notes] == ([True] if told else [])


def test_files_without_responses(tmp_path):
    (tmp_path / "stations.csv").write_text("network,station,latitude,longitude\n")
    path = saved(tmp_path, channel("HHZ", None))
    assert responses.of([tmp_path / "stations.csv", path], "XX.ABC..HH", (0, NS), np.array([1.0])) == ()
    (tmp_path / "broken.xml").write_text("<FDSN")
    for name in ("broken.xml", "absent.xml"):
        with pytest.raises(ConfigError, match=name):
            responses.of([tmp_path / name], "XX.ABC..HH", (0, NS), np.array([1.0]))
