"""Every export, opened by a reader that we did not write where there is one, and by our own."""

import csv
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import obspy
import pytest
from obspy import read_events
from obspy.io.quakeml.core import _validate as valid_quakeml
from obspy.io.seiscomp.core import validate as valid_scml

from pipeline.commands.exchange import EXPORTS
from pipeline.config import Reference
from pipeline.errors import BadData, ConfigError
from pipeline.formats import columns, export_names, exports, hypo71, hypodd, hypoinverse, located, nonlinloc_obs
from pipeline.formats.bulletins import read_dat, read_hpc
from pipeline.formats.exports import FORMATS, export
from pipeline.formats.located_run import origins_of
from pipeline.formats.nonlinloc_hyp import read_nonlinloc_hyp
from pipeline.formats.reference import read_reference
from pipeline.maths import ellipsoids
from pipeline.records import NS, LocatedArrivals, Stations
from tests.export_cases import COVARIANCE, awkward, matched, ns, origin, picks, swarm, whole

OGS = Path(__file__).parents[2] / "shared" / "data" / "ogs"
OBSPY = Path(obspy.__file__).parent / "io"
MS = 1_000_000
METRE_DEG = 1 / 111_195


@pytest.fixture(scope="module")
def ours():
    return awkward()


@pytest.fixture(scope="module")
def written(ours, tmp_path_factory):
    """A folder with the awkward catalogue in every format."""
    root = tmp_path_factory.mktemp("exports")
    for name in FORMATS:
        export(name, ours, root / name)
    return root


def independent(path, form):
    """The events of ObsPy by our ids, in a dictionary of dictionaries of plain values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = read_events(str(path), format=form)
    return list(found)


def close(a, b, within):
    np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=0, atol=within, equal_nan=True)


# what each format holds: time of events (ns), place (deg), depth (km), magnitude, time of picks (ns)
RESOLUTION = {
    "quakeml": (1000, 1e-8, 1e-6, 1e-9, 1000),
    "scml": (1000, 1e-8, 1e-6, 1e-9, 1000),
    "nordic": (MS // 2 + 1000, 0.51e-5, 0.00051, 0.0501, MS // 2 + 1000),
    "nonlinloc-obs": (None, None, None, None, 50_001),
    "nonlinloc-hyp": (1000, 1e-7, 1e-6, 0.00501, 50_001),
    "hypo71": (None, None, None, None, 5 * MS + 1),
    "hypoinverse": (5 * MS + 1, 0.51 / 6000, 0.00501, 0.00501, 5 * MS + 1),
    "hypodd": (50_001, 0.51e-6, 0.000501, 0.00501, 100_001),
    "csv": (0, 0, 0, 0, 0),
    "parquet": (0, 0, 0, 0, 0),
}


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_written_is_read_back_to_the_resolution_of_the_format(ours, written, name):
    time_ns, place_deg, depth_km, magnitude, pick_ns = RESOLUTION[name]
    back = exports.read(name, written / name)
    assert back.origins.id.tolist() == ours.origins.id.tolist()
    assert len(back.arrivals) == len(ours.arrivals)
    rows = matched(ours.arrivals, back.arrivals)
    assert sorted(rows.tolist()) == list(range(len(rows)))
    assert np.abs(back.arrivals.time_ns[rows] - ours.arrivals.time_ns).max() <= pick_ns
    if time_ns is None:
        assert np.isnan(back.origins.latitude_deg).all()
        return
    assert np.abs(back.origins.time_ns - ours.origins.time_ns).max() <= time_ns
    close(back.origins.latitude_deg, ours.origins.latitude_deg, place_deg)
    close(back.origins.longitude_deg, ours.origins.longitude_deg, place_deg)
    close(back.origins.depth_km, ours.origins.depth_km, depth_km)
    close(back.origins.magnitude, ours.origins.magnitude, magnitude)


@pytest.mark.parametrize("name", ["quakeml", "scml", "csv", "parquet"])
def test_stations_keep_all_of_their_name(ours, written, name):
    back = exports.read(name, written / name).arrivals
    assert back.station[matched(ours.arrivals, back)].tolist() == ours.arrivals.station.tolist()


@pytest.mark.parametrize("name", ["nordic", "hypoinverse"])
def test_long_codes_and_codes_of_two_networks_come_back(ours, written, name):
    back = exports.read(name, written / name).arrivals
    got = back.station[[k for k in range(len(back)) if back.event[k] == "hem"]].tolist()
    expected = ours.arrivals.station[ours.arrivals.event == "hem"].tolist()
    assert sorted(got) == sorted(expected)


def test_two_networks_of_one_code_are_told_apart_where_there_is_no_network(ours, written):
    for name in ("nonlinloc-obs", "nonlinloc-hyp", "hypo71", "hypodd"):
        back = exports.read(name, written / name).arrivals
        sites = {".".join(s.split(".")[:2]) for s in back.station.tolist()}
        assert {"XX.CIMO", "YY.CIMO"} <= sites, name


def test_parquet_and_csv_keep_every_value(ours, written):
    for name in ("csv", "parquet"):
        back = exports.read(name, written / name)
        for table, other in zip(ours, back, strict=True):
            for f in table.columns():
                np.testing.assert_array_equal(getattr(other, f.name), getattr(table, f.name))


@pytest.mark.parametrize("name", FORMATS)
def test_names_that_would_do_harm_do_none(name, tmp_path):
    """Formulas, quotes, separators, paths and ends of lines in the names of events and stations, from any file."""
    rows = picks('=1+1,"x"\n../a', ns("2024-01-01"), n=4)
    for row in rows:
        row["station"] = "=X.A\n B,'\".00.HH"
    cat = whole([origin('=1+1,"x"\n../a', "2024-01-01", 46.0, 13.0, 5.0, kind="@x", depth_kind="+fixed\n<b>")], rows)
    export(name, cat, tmp_path / "out")
    back = exports.read(name, tmp_path / "out")
    assert len(back.origins) == 1
    assert len(back.arrivals) == 4
    if name not in ("nordic", "nonlinloc-obs", "nonlinloc-hyp"):  # which keep no such name
        assert back.origins.id.tolist() == ['=1+1,"x"\n../a']
    if name in ("quakeml", "scml", "csv", "parquet"):
        assert set(back.arrivals.station.tolist()) == {rows[0]["station"]}
    if name == "csv":
        cells = [cell for f in ("origins", "arrivals") for row in _rows(tmp_path / "out" / f"{f}.csv") for cell in row]
        assert not [cell for cell in cells if cell[:1] in ("=", "+", "@")]


def _rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("name", ["quakeml", "scml"])
def test_quakeml_keeps_uncertainties_residuals_and_remarks(ours, written, name):
    back = exports.read(name, written / name)
    o, p = ours.origins, back.origins
    for column in ("sigma_time_s", "cov_xx_km2", "cov_xy_km2", "cov_xz_km2", "cov_yy_km2", "cov_yz_km2", "cov_zz_km2",
                   "erh_km", "gap_deg", "secondary_gap_deg", "rms_s", "probability", "blast_score",
                   "ellipsoid_major_km", "ellipsoid_intermediate_km", "ellipsoid_minor_km", "ellipsoid_azimuth_deg",
                   "ellipsoid_plunge_deg", "magnitude_sigma"):  # fmt: skip
        close(getattr(p, column), getattr(o, column), 1e-6)
    close(p.nearest_km, o.nearest_km, 1e-4)
    for column in ("n_p", "n_s", "n_stations", "n_used", "magnitude_kind", "is_duplicate_of", "kind", "depth_kind",
                   "magnitude_reason"):  # fmt: skip
        assert getattr(p, column).tolist() == getattr(o, column).tolist(), column
    rows = matched(ours.arrivals, back.arrivals)
    for column in ("sigma_s", "weight", "residual_s", "azimuth_deg", "takeoff_deg", "magnitude"):
        close(getattr(back.arrivals, column)[rows], getattr(ours.arrivals, column), 1e-9)
    amplitude, has = ours.arrivals.wood_anderson_mm, np.isfinite(ours.arrivals.magnitude)
    expected = amplitude if name == "quakeml" else np.where(has, amplitude, np.nan)  # as ObsPy reads SCML
    close(back.arrivals.wood_anderson_mm[rows], expected, 1e-9)
    close(back.arrivals.distance_km[rows], ours.arrivals.distance_km, 1e-4)


def test_quakeml_is_valid_and_scml_is(written):
    assert valid_quakeml(str(written / "quakeml"))
    assert valid_scml(str(written / "scml"), version="0.12")


@pytest.mark.parametrize("form", ["QUAKEML", "SCML"])
def test_obspy_reads_the_same(ours, written, form):
    """Times to 1 ms, places and depths to 1 m, magnitudes to 0.01, picks with their station and phase."""
    found = independent(written / form.lower(), form)
    o, a = ours.origins, ours.arrivals
    for row, (event, mine) in enumerate(zip(found, [p for _, p in ours.events()], strict=True)):
        first = event.preferred_origin()
        assert abs(first.time.ns - o.time_ns[row]) <= MS
        assert abs(first.latitude - o.latitude_deg[row]) <= METRE_DEG
        assert abs(first.longitude - o.longitude_deg[row]) <= METRE_DEG
        assert abs(first.depth / 1000 - o.depth_km[row]) <= 1e-3
        if np.isfinite(o.magnitude[row]):
            assert abs(event.preferred_magnitude().mag - o.magnitude[row]) <= 0.01
            assert event.preferred_magnitude().magnitude_type == "ML"
        else:
            assert not event.magnitudes
        assert len(event.picks) == len(first.arrivals) == len(mine)
        seen = sorted(
            (p.time.ns, p.waveform_id.station_code, p.phase_hint, p.waveform_id.network_code) for p in event.picks
        )
        expected = sorted(
            (int(a.time_ns[k]), a.station[k].split(".")[1], str(a.phase[k]), a.station[k].split(".")[0]) for k in mine
        )
        for got, want in zip(seen, expected, strict=True):
            assert abs(got[0] - want[0]) <= MS
            assert got[1:] == want[1:]
    assert (found[2].event_type, found[2].event_type_certainty) == ("quarry blast", "suspected")
    assert found[0].event_type == "earthquake"
    assert len(found[4].picks) == 130


@pytest.mark.parametrize("form", ["QUAKEML", "SCML"])
def test_obspy_reads_amplitudes_and_the_magnitudes_of_stations(ours, written, form):
    """Five amplitudes of S picks of the first event in metres, four of them with an ML; of the others none.

    In SCML amplitudes are of no event, and ObsPy finds only those that have a magnitude.
    """
    assert (written / form.lower()).read_text().count("<amplitude publicID") == 5
    first, *others = independent(written / form.lower(), form)
    assert not any(event.amplitudes or event.station_magnitudes for event in others)
    picks_ = {str(p.resource_id): p for p in first.picks}
    of = {str(a.resource_id): a for a in first.amplitudes}
    assert sorted(a.generic_amplitude for a in of.values()) == pytest.approx(
        [0.0005, 0.0015, 0.0025, 0.0035, 0.0045][: 4 if form == "SCML" else 5]
    )
    assert {(a.type, a.unit, picks_[str(a.pick_id)].phase_hint) for a in of.values()} == {("AML", "m", "S")}
    assert all(a.waveform_id.id == picks_[str(a.pick_id)].waveform_id.id for a in of.values())
    each = {str(m.resource_id): m for m in first.station_magnitudes}
    assert sorted(m.mag for m in each.values()) == pytest.approx([2.0, 2.21, 2.42, 2.63])
    assert {(m.station_magnitude_type, str(m.origin_id)) for m in each.values()} == {
        ("ML", str(first.preferred_origin().resource_id))
    }
    for m in each.values():
        reading = of[str(m.amplitude_id)]
        assert m.mag == pytest.approx(2.0 + 0.21 * (reading.generic_amplitude * 1000 - 0.5))
        assert m.waveform_id.id == reading.waveform_id.id
    made_of = {
        str(c.station_magnitude_id): c.residual for c in first.preferred_magnitude().station_magnitude_contributions
    }
    assert made_of == {name: pytest.approx(m.mag - 2.34) for name, m in each.items()}


def test_amplitudes_of_others_are_not_taken_for_ours(ours, written, tmp_path):
    """Others mean other things by "AML": zero to peak or peak to peak, with another gain."""
    text = (written / "quakeml").read_text()
    (tmp_path / "theirs").write_text(text.replace("wood-anderson-2080-zero-to-peak", "of-somebody"))
    assert np.isnan(exports.read("quakeml", tmp_path / "theirs").arrivals.wood_anderson_mm).all()


def test_obspy_reads_nordic(ours, written):
    found = independent(written / "nordic", "NORDIC")
    o, a = ours.origins, ours.arrivals
    assert len(found) == len(o)
    for row, (event, mine) in enumerate(zip(found, [p for _, p in ours.events()], strict=True)):
        first = event.preferred_origin() or event.origins[0]
        assert abs(first.time.ns - o.time_ns[row]) <= MS
        assert abs(first.latitude - o.latitude_deg[row]) <= METRE_DEG
        assert abs(first.longitude - o.longitude_deg[row]) <= METRE_DEG
        assert abs(first.depth / 1000 - o.depth_km[row]) <= 1e-3
        if np.isfinite(o.magnitude[row]):
            assert abs(event.magnitudes[0].mag - o.magnitude[row]) <= 0.051  # the format has one digit
        else:
            assert not event.magnitudes
        assert len(event.picks) == len(mine)
        times = np.sort([p.time.ns for p in event.picks]) - np.sort(a.time_ns[mine])
        assert np.abs(times).max() <= MS
    assert found[0].picks[0].waveform_id.network_code == "XX"
    assert {p.waveform_id.location_code for p in found[0].picks} == {"00", "10", ""}


def test_obspy_reads_nonlinloc_hyp(ours, written):
    found = independent(written / "nonlinloc-hyp", "NLLOC_HYP")
    o, a = ours.origins, ours.arrivals
    for row, (event, mine) in enumerate(zip(found, [p for _, p in ours.events()], strict=True)):
        first = event.origins[0]
        assert abs(first.time.ns - o.time_ns[row]) <= MS
        assert abs(first.latitude - o.latitude_deg[row]) <= METRE_DEG
        assert abs(first.longitude - o.longitude_deg[row]) <= METRE_DEG
        assert abs(first.depth / 1000 - o.depth_km[row]) <= 1e-3
        assert np.abs([p.time.ns for p in event.picks] - a.time_ns[mine]).max() <= MS
        assert [p.phase_hint for p in event.picks] == a.phase[mine].tolist()
        if np.isfinite(o.cov_xx_km2[row]):
            close([made.time_residual for made in first.arrivals], a.residual_s[mine], 1e-4)
            close([made.azimuth for made in first.arrivals], a.azimuth_deg[mine], 0.01)
            close([made.distance * 111.195 for made in first.arrivals], a.distance_km[mine], 0.001)
            close([made.takeoff_angle for made in first.arrivals], a.takeoff_deg[mine], 0.05)
            assert abs(first.quality.azimuthal_gap - o.gap_deg[row]) < 1e-3
            flat = ellipsoids.ellipse(COVARIANCE)
            assert abs(first.origin_uncertainty.max_horizontal_uncertainty / 1000 - flat.major_km) < 1e-4
            errors = (first.longitude_errors.uncertainty, first.latitude_errors.uncertainty)
            close(
                np.array([*errors, first.depth_errors.uncertainty / 111_195]) * 111.195,
                np.sqrt(np.diag(COVARIANCE)),
                1e-5,
            )


def test_nonlinloc_keeps_covariance_and_the_places_of_stations(ours, written):
    back = exports.read("nonlinloc-hyp", written / "nonlinloc-hyp").origins
    for column in ("cov_xx_km2", "cov_xy_km2", "cov_xz_km2", "cov_yy_km2", "cov_yz_km2", "cov_zz_km2"):
        close(getattr(back, column), getattr(ours.origins, column), 1e-8)
    for column in ("erh_km", "gap_deg", "secondary_gap_deg", "rms_s", "nearest_km", "ellipsoid_major_km"):
        close(getattr(back, column), getattr(ours.origins, column), 1e-4)
    assert back.depth_kind.tolist() == ours.origins.depth_kind.tolist()
    lines = [
        line for line in (written / "nonlinloc-hyp").read_text().splitlines() if " > " in line and "PHASE" not in line
    ]
    second = lines[1].partition(" > ")[2].split()  # 10.1 km from the epicentre, 37 degrees from north to east
    close([float(v) for v in second[3:5]], [10.1 * np.sin(np.radians(37)), 10.1 * np.cos(np.radians(37))], 1e-4)


# SEISAN 12 manual, appendix A: first column and width of line type 1 and of a phase line of the new kind
NORDIC = {"year": (2, 4), "month": (7, 2), "day": (9, 2), "hour": (12, 2), "minute": (14, 2), "second": (17, 4),
          "distance": (22, 1), "event": (23, 1), "lat": (24, 7), "lon": (31, 8), "depth": (39, 5), "fixed": (44, 1),
          "stations": (49, 3), "rms": (52, 4), "magnitude": (56, 4), "scale": (60, 1), "type": (80, 1)}  # fmt: skip
PHASE = {"station": (2, 5), "component": (7, 3), "net": (11, 2), "loc": (13, 2), "phase": (17, 8), "weight": (25, 1),
         "mode": (26, 1), "hour": (27, 2), "minute": (29, 2), "second": (32, 6), "angle": (59, 5), "residual": (64, 5),
         "used": (69, 2), "distance": (71, 5), "azimuth": (77, 3)}  # fmt: skip


def test_columns_of_nordic(ours, written):
    lines = (written / "nordic").read_text().splitlines()
    assert {len(line) for line in lines} == {80}
    heads = [k for k, line in enumerate(lines) if line[79] == "1"]
    found = [fields(lines[k], NORDIC) for k in heads]
    assert found[1] == {
        "year": "2024", "month": " 1", "day": " 1", "hour": " 0", "minute": " 1", "second": " 0.0", "distance": "L",
        "event": " ", "lat": "-41.123", "lon": "-172.654", "depth": " -1.2", "fixed": "F", "stations": "  5",
        "rms": " 0.2", "magnitude": "-0.5", "scale": "L", "type": "1",
    }  # fmt: skip
    assert [f["second"] for f in found[2:4]] == ["59.9", "30.0"]  # cut, not rounded: 59.996 is no 60.0
    assert [f["event"] for f in found[2:4]] == ["E", " "]
    phases = next(k for k in range(heads[3], len(lines)) if lines[k].startswith(" STAT")) + 1
    assert fields(lines[phases - 1 + 10], PHASE) == {  # the last pick of 2024-06-30T23:59:30.005, 46.579 s after it
        "station": "A    ", "component": "BH ", "net": "ZZ", "loc": "00", "phase": "S       ", "weight": "4",
        "mode": "A", "hour": "24", "minute": " 0", "second": "16.584", "angle": "  140", "residual": "-0.05",
        "used": " 0", "distance": " 34.9", "azimuth": "333",
    }  # fmt: skip


def test_our_reader_reads_what_nonlinloc_itself_wrote():
    """Files of NonLinLoc 6 and 7 that ObsPy ships, beside ObsPy's reading of them."""
    for name in ("nlloc_v7.hyp", "nlloc.hyp", "vanua.sum.grid0.loc.hyp"):
        path = OBSPY / "nlloc" / "tests" / "data" / name
        back = read_nonlinloc_hyp(path)
        found = independent(path, "NLLOC_HYP")
        assert len(back.origins) == len(found)
        for event in found:
            first = event.origins[0]
            row = int(np.argmin(np.abs(back.origins.time_ns - first.time.ns)))
            assert abs(back.origins.time_ns[row] - first.time.ns) <= 1000
            assert abs(back.origins.latitude_deg[row] - first.latitude) < 1e-9
            assert abs(back.origins.depth_km[row] * 1000 - first.depth) < 1e-6
            mine = back.arrivals.take(back.arrivals.event == back.origins.id[row])
            assert len(mine) == len(event.picks)
            np.testing.assert_array_equal(
                np.sort(mine.time_ns) // 1000, np.sort([p.time.ns for p in event.picks]) // 1000
            )


def test_our_reader_reads_the_obs_that_obspy_wrote(ours, written, tmp_path):
    """ObsPy writes NLLOC_OBS from our QuakeML: the same picks as in ours; and a file that ObsPy ships."""
    for event in independent(written / "quakeml", "QUAKEML"):
        event.write(str(tmp_path / "obs"), format="NLLOC_OBS")
        theirs = nonlinloc_obs.read_nonlinloc_obs(tmp_path / "obs")
        mine = exports.read("nonlinloc-obs", written / "nonlinloc-obs").arrivals
        mine = mine.take(mine.event == theirs.origins.id[0])
        assert len(mine) == len(theirs.arrivals) == len(event.picks)
        assert np.abs(np.sort(mine.time_ns) - np.sort(theirs.arrivals.time_ns)).max() <= 1000
    shipped = nonlinloc_obs.read_nonlinloc_obs(OBSPY / "nlloc" / "tests" / "data" / "nlloc.obs")
    assert shipped.origins.id.tolist() == ["smi:local/cd1f535c-e75e-4dc6-8170-82e47cb40501"]
    assert len(shipped.arrivals) == 8
    assert (shipped.arrivals.station[0], shipped.arrivals.phase[0], shipped.arrivals.sigma_s[0]) == ("UH3", "P", 0.02)
    assert shipped.arrivals.time_ns[0] == ns("2010-05-27T16:56:25.93")


# NonLinLoc 7.1, src/GridLib.c, ReadArrival: "%s %s %s %s %s %s %ld %ld %lf %s %lf %lf %lf %lf" and the prior weight
ARRIVAL = re.compile(
    r"(\S+) +(\S+) +(\S+) +(\S+) +(\S+) +(\S+) +(\d{8}) +(\d{4}) +([\d.]+) +(GAU) +(\S+) +(\S+) +(\S+) +(\S+) +([\d.]+)"
)


def test_obs_has_the_fields_that_nonlinloc_scans(ours, written):
    lines = [line for line in (written / "nonlinloc-obs").read_text().splitlines() if line and "PUBLIC_ID" not in line]
    fields = [ARRIVAL.fullmatch(line.strip()).groups() for line in lines]
    assert len(fields) == len(ours.arrivals)
    for station, *_, date, hhmm, second in (f[:9] for f in fields):
        assert len(station) < 64
        assert 0 <= float(second) < 60
        np.datetime64(f"{date[:4]}-{date[4:6]}-{date[6:]}T{hhmm[:2]}:{hhmm[2:]}")
    assert sorted(float(f[10]) for f in fields)[0] == -1.0  # of picks without a standard deviation
    assert {"ABCDEF", "XX_CIMO", "YY_CIMO"} <= {f[0] for f in fields}


def test_obspy_reads_hypodd(ours, written):
    found = independent(written / "hypodd" / "phase.dat", "HYPODDPHA")
    o, a = ours.origins, ours.arrivals
    for row, (event, mine) in enumerate(zip(found, [p for _, p in ours.events()], strict=True)):
        first = event.origins[0]
        assert event.resource_id.id.endswith(f"/{row + 1}")
        assert abs(first.time.ns - o.time_ns[row]) <= MS
        assert abs(first.latitude - o.latitude_deg[row]) <= METRE_DEG
        assert abs(first.longitude - o.longitude_deg[row]) <= METRE_DEG
        assert abs(first.depth / 1000 - o.depth_km[row]) <= 1e-3
        assert abs(event.magnitudes[0].mag - (o.magnitude[row] if np.isfinite(o.magnitude[row]) else -9.9)) <= 0.01
        assert np.abs([p.time.ns for p in event.picks] - a.time_ns[mine]).max() <= MS
        assert all(len(p.waveform_id.station_code) <= 7 for p in event.picks)


def test_stations_of_hypodd(ours, written):
    back = hypodd.read_hypodd(written / "hypodd").stations
    order = np.argsort(ours.stations.id)
    assert sorted(back.id.tolist()) == ours.stations.id[order].tolist()
    close(back.latitude_deg[np.argsort(back.id)], ours.stations.latitude_deg[order], 1e-6)
    close(back.elevation_m[np.argsort(back.id)], ours.stations.elevation_m[order], 0.05)


def test_differences_of_hypodd_are_of_common_picks_of_neighbours(tmp_path):
    cat = swarm(6)
    export("hypodd", cat, tmp_path / "dd")
    rows = hypodd.read_differences(tmp_path / "dd" / "dt.ct")
    pairs = {(int(r.first), int(r.second)) for r in rows}
    assert pairs == {(i, j) for i in range(1, 7) for j in range(i + 1, 7)}  # all are near each other
    assert len(rows) == 10 * len(pairs)
    travel = {}
    for row, mine in cat.events():
        for k in mine.tolist():
            code = cat.arrivals.station[k].split(".")[1]
            code = {"XX.CIMO": "CIMO0", "YY.CIMO": "CIMO1"}.get(".".join(cat.arrivals.station[k].split(".")[:2]), code)
            seconds = (cat.arrivals.time_ns[k] - cat.origins.time_ns[row]) / NS
            travel[str(row + 1), code, str(cat.arrivals.phase[k])] = (seconds, cat.arrivals.weight[k])
    for r in rows:
        (t1, w1), (t2, w2) = travel[r.first, r.station, r.phase], travel[r.second, r.station, r.phase]
        assert abs(r.first_s - t1) <= 1.01e-4
        assert abs(r.second_s - t2) <= 1.01e-4
        assert abs(r.weight - (w1 + w2) / 2) <= 5.1e-5
    far = whole(
        [origin("a", "2024-01-01", 46.0, 13.0, 5.0), origin("b", "2024-01-02", 46.1, 13.0, 5.0)],
        picks("a", ns("2024-01-01")) + picks("b", ns("2024-01-02")),
    )
    few = whole(
        [origin("a", "2024-01-01", 46.0, 13.0, 5.0), origin("b", "2024-01-02", 46.01, 13.0, 5.0)],
        picks("a", ns("2024-01-01"), n=7) + picks("b", ns("2024-01-02"), n=7),
    )
    export("hypodd", few, tmp_path / "few")  # 1 km apart, 7 common picks
    assert (tmp_path / "few" / "dt.ct").read_text() == ""
    export("hypodd", far, tmp_path / "far")  # 11 km apart
    assert (tmp_path / "far" / "dt.ct").read_text() == ""


# First column and width, from the Y2000 summary and station archive formats of Klein 2002, USGS Open-File Report 02-171
SUMMARY = {
    "year": (1, 4), "month": (5, 2), "day": (7, 2), "hour": (9, 2), "minute": (11, 2), "second": (13, 4),
    "lat": (17, 2), "south": (19, 1), "lat_min": (20, 4), "lon": (24, 3), "east": (27, 1), "lon_min": (28, 4),
    "depth": (32, 5), "n": (40, 3), "gap": (43, 3), "nearest": (46, 3), "rms": (49, 4), "az1": (53, 3), "dip1": (56, 2),
    "size1": (58, 4), "az2": (62, 3), "dip2": (65, 2), "size2": (67, 4), "size3": (77, 4), "remark": (81, 1),
    "fixed": (82, 1), "n_s": (83, 3), "erh": (86, 4), "erz": (90, 4), "n_valid": (119, 3), "id": (137, 10),
    "scale": (147, 1), "magnitude": (148, 3), "n_magnitude": (151, 4),
}  # fmt: skip
STATION = {
    "code": (1, 5), "net": (6, 2), "component": (10, 3), "p": (14, 2), "p_weight": (17, 1), "year": (18, 4),
    "p_second": (30, 5), "p_residual": (35, 4), "p_used": (39, 3), "s_second": (42, 5), "s": (47, 2),
    "s_weight": (50, 1), "s_residual": (51, 4), "s_used": (64, 3), "distance": (75, 4), "angle": (79, 3),
    "azimuth": (92, 3), "loc": (112, 2),
}  # fmt: skip


def fields(line, layout):
    return {name: line[first - 1 : first - 1 + width] for name, (first, width) in layout.items()}


def test_columns_of_hypoinverse(ours, written):
    lines = (written / "hypoinverse").read_text().splitlines()
    heads = [k for k, line in enumerate(lines) if line[:4].isdigit()]
    assert len(heads) == len(ours.origins)
    assert all(len(lines[k]) == 164 for k in heads)
    # "hem": 2024-01-01T00:00:59.99996, -41.123456, -172.654321, depth -1.25 fixed, ML -0.45 of one station
    assert fields(lines[heads[1]], SUMMARY) == {
        "year": "2024", "month": "01", "day": "01", "hour": "00", "minute": "01", "second": "   0",
        "lat": "41", "south": "S", "lat_min": " 741", "lon": "172", "east": " ", "lon_min": "3926", "depth": " -125",
        "n": "  9", "gap": "112", "nearest": "  7", "rms": "  17", "az1": "280", "dip1": "80", "size1": " 160",
        "az2": " 64", "dip2": " 8", "size2": "  97", "size3": "  63", "remark": " ", "fixed": "-", "n_s": "  5",
        "erh": " 141", "erz": " 158", "n_valid": " 10", "id": "         2", "scale": "L", "magnitude": "-45",
        "n_magnitude": "  10",
    }  # fmt: skip
    first = fields(lines[heads[1] + 1], STATION)
    assert len(lines[heads[1] + 1]) == 113
    assert first == {
        "code": "ABCDE", "net": "XX", "component": "HH ", "p": " P", "p_weight": "0", "year": "2024",
        "p_second": "  123", "p_residual": "   5", "p_used": "100", "s_second": "  197", "s": " S", "s_weight": "1",
        "s_residual": "  -5", "s_used": " 95", "distance": "  70", "angle": " 95", "azimuth": "  0", "loc": "00",
    }  # fmt: skip
    assert lines[heads[2] - 1] == f"{'':62}{2:10d}"
    assert fields(lines[heads[2]], SUMMARY)["remark"] == "Q"
    assert fields(lines[heads[3]], SUMMARY)["magnitude"] == "10."  # does not fit with an implied point


def test_an_s_after_midnight_counts_from_the_minute_of_its_p(tmp_path):
    """HypoInverse and HYPO71 have one minute a line: the S of 00:00:20 is at 80 s of 23:59."""
    time = "2024-12-31T23:59:00"
    rows = picks("a", ns(time), n=2)
    rows[0]["time_ns"], rows[1]["time_ns"] = ns("2024-12-31T23:59:59.996"), ns("2025-01-01T00:01:20.25")
    cat = whole([origin("a", time, 46.0, 13.0, 5.0)], rows)
    export("hypoinverse", cat, tmp_path / "hi")
    line = fields((tmp_path / "hi").read_text().splitlines()[1], STATION)
    assert (line["p_second"], line["s_second"]) == ("    0", " 8025")  # the P rounds to midnight
    for name in ("hypoinverse", "hypo71", "nordic", "hypodd", "nonlinloc-obs"):
        export(name, cat, tmp_path / name)
        back = exports.read(name, tmp_path / name).arrivals
        assert np.abs(np.sort(back.time_ns) - np.sort(cat.arrivals.time_ns)).max() <= 5 * MS


# Lee and Lahr 1975, USGS Open-File Report 75-311, and OFR 02-171, p. 30: the traditional phase format
CARD = {"code": (1, 4), "p": (6, 1), "weight": (8, 1), "time": (10, 10), "p_second": (20, 5), "s_second": (32, 5),
        "s": (38, 1), "s_weight": (40, 1)}  # fmt: skip


def test_columns_of_hypo71(ours, written):
    lines = (written / "hypo71").read_text().splitlines()
    assert fields(lines[0], CARD) == {
        "code": "ABC0", "p": "P", "weight": "0", "time": "2401010000", "p_second": " 0123", "s_second": "  197",
        "s": "S", "s_weight": "1",
    }  # fmt: skip
    assert lines[5][17] == "1"
    assert not lines[5][:17].strip()  # the instruction card that ends an event
    assert not read_dat(written / "hypo71").bad


def test_hypo71_says_that_it_cannot_number_more_events(monkeypatch, tmp_path):
    monkeypatch.setattr(hypo71, "MOST", 3)
    with pytest.raises(ConfigError, match="6 events in a year"):
        export("hypo71", swarm(6), tmp_path / "cards")
    assert list(tmp_path.iterdir()) == []


def test_weights_say_how_sure_a_pick_is():
    assert [located.weight_code(s, 1.0) for s in (0.02, 0.1, 0.11, 0.4, 0.5, 0.8, 3.0, np.nan)] == [
        0,
        0,
        1,
        2,
        3,
        3,
        4,
        0,
    ]
    assert located.weight_code(0.02, 0.0) == 4


def test_codes_are_short_unique_and_the_stations_own_where_they_can_be():
    stations = ["XX.AAAAA", "XX.AAAAB", "XX.AAA0", "YY.AAA0", "XX.B", "CDE"]
    short = export_names.codes(stations, 4)
    assert short["XX.B"] == "B"
    assert short["CDE"] == "CDE"
    assert len(set(short.values())) == len(stations)
    assert all(len(code) <= 4 for code in short.values())
    apart = export_names.codes(stations, 5, networks=True)
    assert apart == {name: name.split(".")[-1] for name in stations}
    many = export_names.codes([f"XX.STATION{k}" for k in range(2000)], 4)
    assert len(set(many.values())) == 2000


def test_an_ellipsoid_goes_there_and_back():
    random = np.random.default_rng(1)
    for _ in range(200):
        root = random.normal(size=(3, 3))
        matrix = root @ root.T
        solid = ellipsoids.ellipsoid(matrix)
        assert solid.major_km >= solid.intermediate_km >= solid.minor_km
        assert 0 <= solid.plunge_deg <= 90
        np.testing.assert_allclose(ellipsoids.covariance(solid), matrix, atol=1e-9)


def test_an_ellipsoid_that_one_can_see():
    """2 km to the north-east and 30 degrees down, 1 km across it and level, 0.5 km at right angles to both."""
    azimuth, plunge = np.radians(45), np.radians(30)
    long = np.array([np.sin(azimuth) * np.cos(plunge), np.cos(azimuth) * np.cos(plunge), np.sin(plunge)])
    level = np.array([np.cos(azimuth), -np.sin(azimuth), 0])
    axes = np.stack([long, level, np.cross(long, level)])
    matrix = np.einsum("k,ki,kj->ij", np.array([4.0, 1.0, 0.25]), axes, axes) / ellipsoids.CHI2_68_3
    solid = ellipsoids.ellipsoid(matrix)
    assert solid == pytest.approx((2.0, 1.0, 0.5, 45.0, 30.0, 90.0))
    assert ellipsoids.directions(matrix)[0] == pytest.approx((2 / np.sqrt(ellipsoids.CHI2_68_3), 45.0, 30.0))
    flat = ellipsoids.ellipse(np.diag([4.0, 1.0, 9.0]))
    assert flat == pytest.approx((2 * np.sqrt(ellipsoids.CHI2_68_2), np.sqrt(ellipsoids.CHI2_68_2), 90.0))


def test_ellipsoids_hold_68_percent():
    random = np.random.default_rng(2)
    drawn = random.multivariate_normal(np.zeros(3), COVARIANCE, 40_000)
    inside = np.einsum("ni,ij,nj->n", drawn, np.linalg.inv(COVARIANCE), drawn) <= ellipsoids.CHI2_68_3
    assert abs(inside.mean() - 0.6827) < 0.01
    flat = np.einsum("ni,ij,nj->n", drawn[:, :2], np.linalg.inv(COVARIANCE[:2, :2]), drawn[:, :2])
    assert abs((flat <= ellipsoids.CHI2_68_2).mean() - 0.6827) < 0.01


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_catalogue_gives_the_same_bytes(ours, written, name, tmp_path):
    for path in export(name, ours, tmp_path / name):
        assert path.read_bytes() == (written / path.relative_to(tmp_path)).read_bytes()


@pytest.mark.parametrize("name", FORMATS)
def test_a_catalogue_without_events_is_written_too(name, ours, tmp_path):
    nothing = ours.of(np.empty(0, np.int64))
    assert all(path.exists() for path in export(name, nothing, tmp_path / name))
    if name != "nordic":  # ObsPy does not take an empty file for Nordic
        assert len(exports.read(name, tmp_path / name).origins) == 0


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_replaced_without_force(name, ours, tmp_path):
    export(name, ours, tmp_path / "out")
    with pytest.raises(ConfigError, match="--force"):
        export(name, ours, tmp_path / "out")
    export(name, ours, tmp_path / "out", force=True)
    assert {p.name for p in tmp_path.iterdir()} <= {"out", "out.names.csv"}


def test_a_table_of_names_goes_where_it_is_not_needed_any_more(ours, tmp_path):
    assert len(export("nordic", ours, tmp_path / "out")) == 2
    plain = ours.of(np.array([], np.int64))
    assert export("nordic", plain, tmp_path / "out", force=True) == [tmp_path / "out"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_force_deletes_nothing_that_no_export_wrote(ours, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        export("csv", ours, tmp_path / "home", force=True)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ConfigError, match="no folder"):
        export("csv", ours, tmp_path / "file", force=True)
    with pytest.raises(ConfigError, match="is a folder"):
        export("quakeml", ours, tmp_path / "home", force=True)
    (tmp_path / "link").symlink_to(tmp_path / "home")
    with pytest.raises(ConfigError, match="no folder"):
        export("csv", ours, tmp_path / "link", force=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == (tmp_path / "file").read_text() == "precious"


def test_what_fails_leaves_what_was_there(ours, tmp_path, monkeypatch):
    export("csv", ours, tmp_path / "out")
    before = (tmp_path / "out" / "origins.csv").read_bytes()
    real, calls = columns.write_table, []

    def broken(path, table):
        calls.append(path)
        if len(calls) == 2:
            raise OSError("no room")
        real(path, table)

    monkeypatch.setattr(columns, "write_table", broken)
    with pytest.raises(OSError, match="no room"):
        export("csv", swarm(), tmp_path / "out", force=True)
    assert (tmp_path / "out" / "origins.csv").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(ours, tmp_path, monkeypatch):
    export("csv", ours, tmp_path / "out")
    before = (tmp_path / "out" / "origins.csv").read_bytes()
    rename = Path.rename

    def fails_once(self, target):
        if self.name.endswith(".part"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(OSError, match="no"):
        export("csv", swarm(), tmp_path / "out", force=True)
    assert (tmp_path / "out" / "origins.csv").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_catalogue_that_contradicts_itself_is_refused(ours, tmp_path):
    with pytest.raises(ValueError, match="not among the events"):
        export("csv", ours._replace(origins=ours.origins.take(slice(1, None))), tmp_path / "x")
    double = replace(ours.origins, id=np.full(len(ours.origins), "one"))
    with pytest.raises(ValueError, match="7 times"):
        export("csv", ours._replace(origins=double), tmp_path / "x")


BROKEN = {
    "nonlinloc-obs": ("FUR ? ? ? P ? 20170319 2018 39.4 GAU\n", "line 1"),
    "nonlinloc-hyp": ('NLLOC "a" "LOCATED" "b"\nGEOGRAPHIC  OT 2022 10 99 05 02 28.9 Lat 1 Long 1 Depth 1\n', "line 2"),
    "hypoinverse": ("202401010000xx\n", "line 1"),
    "hypo71": ("nonsense\n", "line 1"),
    "quakeml": ("<nonsense>", "QUAKEML"),
    "scml": ("<nonsense/>", "SCML"),
    "nordic": ("nonsense\n", "NORDIC"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_its_line(name, tmp_path):
    content, named = BROKEN[name]
    (tmp_path / "x").write_text(content)
    with pytest.raises(BadData, match=named):
        exports.read(name, tmp_path / "x")
    with pytest.raises(BadData):
        exports.read(name, tmp_path / "absent")


def test_broken_tables_are_named_with_their_line(tmp_path, ours):
    export("hypodd", ours, tmp_path / "dd")
    for name, content in (("phase.dat", "# 2024 1 1\n"), ("station.dat", "A 1\n")):
        good = (tmp_path / "dd" / name).read_text()
        (tmp_path / "dd" / name).write_text(content)
        with pytest.raises(BadData, match=f"{name}, line 1"):
            hypodd.read_hypodd(tmp_path / "dd")
        (tmp_path / "dd" / name).write_text(good)
    (tmp_path / "dt.ct").write_text("A 1 2 1 P\n")
    with pytest.raises(BadData, match="no pair before"):
        hypodd.read_differences(tmp_path / "dt.ct")
    export("csv", ours, tmp_path / "csv")
    path = tmp_path / "csv" / "origins.csv"
    path.write_text(path.read_text().replace("-41.123456", "south"))
    with pytest.raises(BadData, match="row 2, latitude_deg: 'south'"):
        exports.read("csv", tmp_path / "csv")


def test_the_command_line_knows_all_formats():
    assert tuple(FORMATS) == EXPORTS


def test_seconds_never_round_to_sixty():
    text = [located.iso(ns("2023-12-31T23:59:59.9999999"), digits) for digits in (3, 6, 9)]
    assert text == ["2024-01-01T00:00:00.000Z", "2024-01-01T00:00:00.000000Z", "2023-12-31T23:59:59.999999900Z"]
    assert hypoinverse._implied(59.999, 4, 2) == "6000"  # which only `clock` can avoid, and does:
    assert located.clock(ns("2024-02-28T23:59:59.996"), 10 * MS).date == "20240229"


@pytest.mark.parametrize("name", ["nonlinloc-hyp", "nonlinloc-obs", "hypoinverse", "nordic", "scml", "hypodd"])
def test_what_was_exported_is_a_reference_to_compare_with(ours, written, name):
    path = written / name / "phase.dat" if name == "hypodd" else written / name
    found = read_reference(Reference(path=path, format=name))
    assert len(found.events) == len(ours.origins)
    assert len(found.arrivals) == len(ours.arrivals)
    assert set(found.arrivals.phase.tolist()) == {"P", "S"}
    assert found.events.n_p.sum() == ours.origins.n_p.sum()
    assert set(found.events.kind.tolist()) >= {"earthquake"}
    assert "" not in found.events.kind.tolist()
    if name != "nonlinloc-obs":
        rows = np.lexsort((found.events.id, found.events.time_ns))
        close(found.events.magnitude[rows], ours.origins.magnitude, 0.051)
    if name not in ("nonlinloc-obs", "hypodd"):
        assert (found.arrivals.weight == 4).sum() == (ours.arrivals.weight == 0).sum()


@pytest.mark.skipif(not OGS.exists(), reason="skips the export of a real bulletin: no shared data")
def test_a_real_bulletin_goes_out_and_comes_back(tmp_path):
    """Sixty earthquakes of OGS with their 1,000 or so picks, through every format and two readers of others."""
    found = read_hpc(OGS / "RSFVG-2024.hpc")
    events, arrivals = found.events.take(slice(300, 360)), found.arrivals
    arrivals = arrivals.take(np.isin(arrivals.event, events.id))
    rows = [
        dict(zip(("event", "station", "phase", "time_ns"), row, strict=True))
        for row in zip(arrivals.event.tolist(), arrivals.station.tolist(), arrivals.phase.tolist(),
                       arrivals.time_ns.tolist(), strict=True)
    ]  # fmt: skip
    picked = located.table(LocatedArrivals, [row | {"station": f"OX.{row['station']}"} for row in rows])
    order = np.lexsort((picked.phase, picked.station, picked.time_ns, picked.event))
    cat = located.Catalogue(origins_of(events), picked.take(order), Stations.empty())
    for name in FORMATS:
        export(name, cat, tmp_path / name)
        back = exports.read(name, tmp_path / name)
        assert sorted(back.origins.id.tolist()) == sorted(events.id.tolist()), name
        np.testing.assert_array_equal(np.sort(back.arrivals.time_ns) // MS, np.sort(arrivals.time_ns) // MS)  # of 10 ms
    for name, form in (("nordic", "NORDIC"), ("nonlinloc-hyp", "NLLOC_HYP")):
        theirs = independent(tmp_path / name, form)
        times = [p.time.ns for event in theirs for p in event.picks]
        assert np.abs(np.sort(times) - np.sort(arrivals.time_ns)).max() < MS
