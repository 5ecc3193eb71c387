"""The bulletin readers against the tables that others parsed from the same bulletins, and against ObsPy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from obspy import UTCDateTime
from obspy.core import event as quake

from pipeline.config import Reference
from pipeline.errors import ConfigError
from pipeline.formats import bulletins, bulletins_write, tables
from pipeline.formats.quakeml import read_quakeml
from pipeline.formats.reference import read_reference
from pipeline.maths import geo
from pipeline.maths.names import resolve
from pipeline.records import NS, Arrivals, Assignments, Events, Picks, Stations
from pipeline.stages.import_picks import import_picks

DATA = Path(__file__).parents[2] / "shared" / "data"
OGS = DATA / "ogs"
real = pytest.mark.skipif(not OGS.exists(), reason="skips the OGS bulletins of 2024: no shared data")

# The area in which the parsed tables were kept: (longitude, latitude).
PARSED_AREA = ((10, 45.5), (10, 46.5), (11.5, 47), (12.5, 47), (14.5, 46.5), (14.5, 45.5), (12.5, 44.5), (11.5, 44.5))
# Located again between the raw files and the parsed tables, number in the year; for the last four, picks changed too.
RELOCATED = {49, 120, 185, 610, 706, 58, 88, 326, 751}
REPICKED = {58, 88, 326, 751}
FEWER_PICKS = {49, 484, 610}  # one to six picks of the raw files are not in the parsed tables

DAT = (
    "DAVOePc212401010351 0226         466 S 2                       LD       240   1 gg",
    "                 1                                              D",
)
HPC = (
    "      1240101  350 59.05 46-49.99  10- 4.83   9.27   1.54 20 16  94 1 0.25  0.6  1.4 B B/B 0.40 10 20 0.00 0.18",
    "       DAVO  16.4 249 119 ePc2  351  2.26  3.21  3.22  0.00 -0.02  1.98   0  0  0.00 0       LD 240 1.6"
    "   S 2  4.66  5.61 -0.13   2.0      DAVO    gg",
)


def ns(text):
    return int(np.datetime64(text, "ns").astype(np.int64))


def parsed(name):
    rows = pd.read_parquet(OGS / f"onlyEQ-2024.{name}.parquet")
    rows["time_ns"] = (rows.time.astype("datetime64[ns]").astype(np.int64) + 5_000_000) // 10_000_000 * 10_000_000
    return rows


def in_parsed_area(events):
    north = events.latitude_deg > 44.95
    return geo.inside(PARSED_AREA, events.longitude_deg, events.latitude_deg) & north


def keys(arrivals):
    return list(zip(arrivals.station.tolist(), arrivals.phase.tolist(), arrivals.time_ns.tolist(), strict=True))


def numbers(ids):
    return {int(i.split("_")[1]) for i in ids}


def write(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def raw():
    readers = {
        "dat": bulletins.read_dat,
        "hpc": bulletins.read_hpc,
        "pun": bulletins.read_pun,
        "txt": bulletins.read_txt,
    }
    return {name: read(OGS / f"RSFVG-2024.{name}") for name, read in readers.items()}


@real
def test_every_line_of_2024_is_understood(raw):
    assert {name: (len(b.events), len(b.arrivals), len(b.bad)) for name, b in raw.items()} == {
        "dat": (792, 12641, 0),  # 7,417 cards and 792 separators = 8,209 lines
        "hpc": (792, 12641, 0),
        "pun": (792, 0, 0),
        "txt": (792, 0, 0),
    }
    assert all(set(b.events.kind.tolist()) == {"earthquake"} for b in raw.values())


@real
def test_the_four_files_join(raw):
    for a, b in zip(raw["dat"].arrivals.as_dict().values(), raw["hpc"].arrivals.as_dict().values(), strict=True):
        assert np.array_equal(a, b)
    hpc = raw["hpc"].events
    for name in ("pun", "txt"):
        other = raw[name].events
        assert np.array_equal(other.id, hpc.id)
        assert np.array_equal(other.time_ns, hpc.time_ns)
    assert np.array_equal(raw["pun"].events.latitude_deg, hpc.latitude_deg)
    assert np.array_equal(raw["pun"].events.magnitude, hpc.magnitude, equal_nan=True)
    assert np.abs(raw["txt"].events.depth_km - hpc.depth_km).max() < 0.051


@real
def test_picks_are_those_that_others_parsed(raw):
    """11,591 of their 11,641 to the hundredth of a second; 50 are of four events that were picked again."""
    rows = parsed("dat")
    ours = dict(zip(keys(raw["dat"].arrivals), raw["dat"].arrivals.weight.tolist(), strict=True))
    assert len(ours) == 12641
    theirs = list(zip(rows.station.str.strip("."), rows.phase, rows.time_ns, strict=True))
    absent = [key not in ours for key in theirs]
    assert sum(absent) == 50
    assert set(rows["index"][absent]) == {2024000056, 2024000086, 2024000287, 2024000698}
    again = rows[~np.array(absent)]
    weights = [ours[key] for key in zip(again.station.str.strip("."), again.phase, again.time_ns, strict=True)]
    assert np.count_nonzero(weights != again.WEIGHT) == 1
    kept = set(theirs)
    left = {
        e
        for e, key in zip(raw["dat"].arrivals.event.tolist(), keys(raw["dat"].arrivals), strict=True)
        if key not in kept
    }
    events = raw["hpc"].events
    assert numbers(left) & numbers(events.id[in_parsed_area(events)]) == REPICKED | FEWER_PICKS | {784}


@real
@pytest.mark.parametrize("name", ["hpl", "pun", "txt"])
def test_events_are_those_that_others_parsed(raw, name):
    """All but nine that were located again; the parsed tables hold what lies in their area, but for one event."""
    rows = parsed(name)
    events = raw["hpc" if name == "hpl" else name].events
    row_of = {t: i for i, t in enumerate(events.time_ns.tolist())}
    same = rows.time_ns.isin(list(row_of))
    assert (len(rows), np.count_nonzero(~same)) == {"hpl": (733, 9), "pun": (733, 9), "txt": (636, 9)}[name]
    rows = rows[same]
    found = events.take(np.array([row_of[t] for t in rows.time_ns]))
    assert np.abs(found.latitude_deg - rows.latitude).max() < 5e-5
    assert np.abs(found.longitude_deg - rows.longitude).max() < 5e-5
    assert np.abs(found.depth_km - rows.depth).max() == 0
    assert np.nanmax(np.abs(found.gap_deg - rows.azimuthal_gap)) == 0
    if name == "hpl":
        assert np.array_equal(found.magnitude, pd.to_numeric(rows.ML, errors="coerce"), equal_nan=True)
        assert np.count_nonzero(found.n_p != rows.number_p_picks) == 1
        assert np.array_equal(found.n_s, rows.number_s_picks)
        absent = set(events.id.tolist()) - set(found.id.tolist())
        assert numbers(absent) & numbers(events.id[in_parsed_area(events)]) == RELOCATED | {784}
    if name == "pun":
        assert np.array_equal(found.magnitude, rows.MD, equal_nan=True)
        assert np.array_equal(found.sigma_time_s, rows.RMS)
        assert np.array_equal(found.nearest_km, rows.DMIN)
    if name == "txt":  # they call "MD" the column that the header of the file calls "ml"
        assert np.array_equal(found.magnitude, rows.MD)


def test_one_card(tmp_path):
    found = bulletins.read_dat(write(tmp_path / "a.dat", DAT))
    assert keys(found.arrivals) == [
        ("DAVO", "P", ns("2024-01-01T03:51:02.26")),
        ("DAVO", "S", ns("2024-01-01T03:51:04.66")),
    ]
    assert found.arrivals.weight.tolist() == [2, 2]
    assert found.events.id.tolist() == ["2024_00001"]
    assert np.isnan(found.events.latitude_deg[0])


@pytest.mark.parametrize(
    ("date", "p", "s", "times"),
    [
        ("2401010351", " 6000", " 6543", ("2024-01-01T03:52:00.00", "2024-01-01T03:52:05.43")),
        ("2401010359", " 5990", "12001", ("2024-01-01T03:59:59.90", "2024-01-01T04:01:00.01")),
        ("2402282359", " 5990", " 6001", ("2024-02-28T23:59:59.90", "2024-02-29T00:00:00.01")),
        ("2312312359", " 6000", " 6001", ("2024-01-01T00:00:00.00", "2024-01-01T00:00:00.01")),
        ("2401010060", " 0001", "  2.5", ("2024-01-01T01:00:00.01", "2024-01-01T01:00:02.50")),
        ("7705062000", " 0001", "   50", ("1977-05-06T20:00:00.01", "1977-05-06T20:00:00.50")),
    ],
)
def test_cards_over_the_edges_of_minute_hour_day_and_year(tmp_path, date, p, s, times):
    card = f"GEMOePc21{date}{p}{'':7}{s} S 2".ljust(63) + "LD" + " " * 10 + "   7 gg"
    found = bulletins.read_dat(write(tmp_path / "a.dat", [card]))
    assert found.arrivals.time_ns.tolist() == [ns(t) for t in times]
    assert found.bad == []


def test_hypocentre_over_midnight(tmp_path):
    """The hour of a station line has no date; an S of a P moved to the next minute counts from the minute before."""
    event = HPC[0].replace("240101  350 59.05", "231231 2359 59.05")
    line = HPC[1].replace(" 351  2.26  3.21", "   0  0.26  1.21").replace(" 4.66  5.61", "62.66  3.61")
    found = bulletins.read_hpc(write(tmp_path / "a.hpc", [event, line]))
    assert found.arrivals.time_ns.tolist() == [ns("2024-01-01T00:00:00.26"), ns("2024-01-01T00:00:02.66")]
    assert found.events.id.tolist() == ["2023_00001"]
    assert found.events.time_ns.tolist() == [ns("2023-12-31T23:59:59.05")]


def test_degrees_and_minutes_on_all_hemispheres(tmp_path):
    south = HPC[0].replace("46-49.99  10- 4.83", "46S49.99  10W 4.83")
    found = bulletins.read_hpc(write(tmp_path / "a.hpc", [HPC[0], south])).events
    assert found.latitude_deg.tolist() == pytest.approx([46 + 49.99 / 60, -46 - 49.99 / 60])
    assert found.longitude_deg.tolist() == pytest.approx([10 + 4.83 / 60, -10 - 4.83 / 60])


def test_types_are_kept_apart(tmp_path):
    cards = [DAT[0][:63] + letter + DAT[0][64:75] + f"{n:4d} gg" for n, letter in enumerate("LEB FX", start=1)]
    found = bulletins.read_dat(write(tmp_path / "a.dat", [line for card in cards for line in (card, DAT[1])]))
    kinds = dict(zip(found.events.id.tolist(), found.events.kind.tolist(), strict=True))
    assert [kinds[k] for k in sorted(kinds)] == [
        "earthquake",
        "quarry blast",
        "bomb",
        "earthquake",
        "landslide",
        "type X",
    ]
    hpc = bulletins.read_hpc(write(tmp_path / "a.hpc", [HPC[0], HPC[1][:93] + "E" + HPC[1][94:]])).events
    assert hpc.kind.tolist() == ["quarry blast"]
    line = (
        "00001;2024_00001;2024-01-01T03:50:59.050; 0.25;46.8;10.1; 0.6;  9.3; 0.6; 94; 1.4;----;X;[suspected explosion]"
    )
    txt = bulletins.read_txt(write(tmp_path / "a.txt", [bulletins.TXT_HEADER, line])).events
    assert txt.kind.tolist() == ["suspected explosion"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (DAT[0].replace("2401010351", "2413010351"), "month must be"),
        (DAT[0].replace("2401010351", "2401012561"), "hhmm"),
        (DAT[0].replace(" 0226", " 02x6"), "columns 20-24: ' 02x6' is not a number"),
        (DAT[0].replace("  466 S 2", "  466 X 2"), "column 38: 'X' where a time needs 'S'"),
        (DAT[0].replace("  466 S 2", "  466 S q"), "column 40: weight 'q'"),
        (DAT[0][:19] + " " * 30, "neither a P nor an S"),
        ("    " + DAT[0][4:], "no station code"),
        ("\x00\x01garbage", "not yymmdd"),
    ],
)
def test_a_bad_card_is_named_and_the_others_stay(tmp_path, broken, reason):
    found = bulletins.read_dat(write(tmp_path / "a.dat", [DAT[0], broken, DAT[0].replace("DAVO", "FUOR"), DAT[1]]))
    assert len(found.arrivals) == 4
    assert [(bad.number, bad.text) for bad in found.bad] == [(2, broken)]
    assert reason in found.bad[0].reason


def test_a_bad_hypocentre_takes_its_stations_with_it(tmp_path):
    other = HPC[0].replace("46-49.99", "46x49.99")
    found = bulletins.read_hpc(write(tmp_path / "a.hpc", [*HPC, other, HPC[1], *HPC]))
    assert [bad.number for bad in found.bad] == [3, 4]
    assert "degrees-minutes" in found.bad[0].reason
    assert "without a hypocentre" in found.bad[1].reason
    assert found.events.id.tolist() == ["2024_00001", "2024_00003"]  # the bad one keeps its number
    assert len(found.arrivals) == 4


@pytest.mark.parametrize("form", ["ogs-dat", "ogs-hpc", "ogs-pun", "ogs-txt", "comcat", "quakeml", "orcolat"])
def test_files_that_cannot_be_read_are_named(tmp_path, form):
    other = write(tmp_path / "recipe.doc", ["Take two eggs,", "and a spoon of sugar."])
    for path in (other, tmp_path / "absent", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            read_reference(Reference(path=path, format=form))


def test_an_empty_bulletin_is_empty(tmp_path):
    found = bulletins.read_dat(write(tmp_path / "a.dat", [""]))
    assert (len(found.events), len(found.arrivals), found.bad) == (0, 0, [])


@real
def test_written_bulletins_read_back(raw, tmp_path):
    """All of 2024 through the writers; one year of the same is the same, but for whole km of the nearest station."""
    events, arrivals = raw["hpc"].events, raw["hpc"].arrivals
    bulletins_write.write_dat(tmp_path / "a.dat", events, arrivals)
    bulletins_write.write_hpc(tmp_path / "a.hpc", events, arrivals)
    bulletins_write.write_pun(tmp_path / "a.pun", raw["pun"].events)
    bulletins_write.write_txt(tmp_path / "a.txt", events)
    dat, hpc = bulletins.read_dat(tmp_path / "a.dat"), bulletins.read_hpc(tmp_path / "a.hpc")
    for found in (dat.arrivals, hpc.arrivals):
        assert all(
            np.array_equal(a, b) for a, b in zip(found.as_dict().values(), arrivals.as_dict().values(), strict=True)
        )
    whole_km = replace(events, nearest_km=np.round(events.nearest_km))
    assert same(hpc.events, whole_km)
    assert same(bulletins.read_pun(tmp_path / "a.pun").events, raw["pun"].events)
    txt = bulletins.read_txt(tmp_path / "a.txt").events
    assert np.abs(txt.latitude_deg - events.latitude_deg).max() < 5.1e-5
    for name in ("id", "time_ns", "depth_km", "magnitude", "gap_deg", "kind"):
        a, b = getattr(txt, name), getattr(events, name)
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def same(a, b):
    pairs = zip(a.as_dict().values(), b.as_dict().values(), strict=True)
    return all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in pairs)


def test_written_over_midnight_south_west_with_blast_and_lone_s(tmp_path):
    """Times that round up to the next minute, an S alone, an S before the P, a station with two P."""
    at = ns("2023-12-31T23:59:59.996")
    events = one_event(at, latitude_deg=-0.0001, longitude_deg=-70.99999, kind="quarry blast")
    rows = [
        ("AA.ONE", "P", 1.0),
        ("AA.ONE", "S", 100.0),
        ("AA.TWO", "S", 70.0),
        ("THRE", "P", 30.0),
        ("THRE", "S", 5.0),
    ]
    rows += [("FOUR", "P", 3.0), ("FOUR", "P", 4.0)]
    arrivals = Arrivals(
        np.array(["x"] * 7),
        np.array([r[0] for r in rows]),
        np.array([r[1] for r in rows]),
        np.array([at + int(r[2] * NS) for r in rows]),
        np.zeros(7, np.int64),
    )
    bulletins_write.write_dat(tmp_path / "a.dat", events, arrivals)
    bulletins_write.write_hpc(tmp_path / "a.hpc", events, arrivals)
    bulletins_write.write_txt(tmp_path / "a.txt", events)
    midnight = ns("2024-01-01")
    expected = sorted((r[0].removeprefix("AA."), r[1], midnight + int(r[2] * NS)) for r in rows)
    for found in (bulletins.read_dat(tmp_path / "a.dat"), bulletins.read_hpc(tmp_path / "a.hpc")):
        assert found.bad == []
        assert sorted(keys(found.arrivals)) == expected
        assert found.events.kind.tolist() == ["quarry blast"]
        assert found.events.id.tolist() == ["2024_00001"]
    hpc = bulletins.read_hpc(tmp_path / "a.hpc").events
    assert (hpc.time_ns[0], hpc.latitude_deg[0], hpc.longitude_deg[0]) == (midnight, -0.01 / 60, -71.0)
    assert bulletins.read_txt(tmp_path / "a.txt").events.time_ns[0] == midnight


def one_event(time_ns, **columns):
    values = {"id": np.array(["x"]), "time_ns": np.array([time_ns]), "kind": np.array(["earthquake"])}
    for f in Events.columns():
        if f.name in columns:
            values[f.name] = np.array([columns[f.name]])
        elif f.metadata["dtype"] != "str" and f.name not in values:
            values[f.name] = np.zeros(1, f.metadata["dtype"])
    return Events(**values)


@pytest.mark.parametrize(("station", "event"), [("LONGER", "x"), ("AB", "y")])
def test_what_the_cards_cannot_hold_is_refused(tmp_path, station, event):
    arrivals = Arrivals(
        np.array([event]), np.array([station]), np.array(["P"]), np.zeros(1, np.int64), np.zeros(1, np.int64)
    )
    with pytest.raises(ValueError, match=f"{station}|{event}"):
        bulletins_write.write_dat(tmp_path / "a.dat", one_event(0), arrivals)


@pytest.mark.skipif(not DATA.exists(), reason="skips the ComCat events of Ridgecrest: no shared data")
def test_comcat_as_pandas_reads_it():
    path = DATA / "ridgecrest" / "comcat_reviewed_20190704.csv"
    found = read_reference(Reference(path=path, format="comcat"))
    rows = pd.read_csv(path).sort_values(["time", "id"])
    assert found.bad == []
    assert found.events.id.tolist() == rows.id.tolist()
    assert np.array_equal(
        found.events.time_ns, pd.to_datetime(rows.time).dt.tz_localize(None).astype("datetime64[ns]").astype(np.int64)
    )
    for ours, theirs in (("latitude_deg", "latitude"), ("depth_km", "depth"), ("magnitude", "mag"), ("gap_deg", "gap")):
        assert np.array_equal(getattr(found.events, ours), rows[theirs], equal_nan=True)
    assert set(found.events.kind.tolist()) == set(rows.type)


def quakeml(path):
    """An event with two origins and magnitudes, the second ones preferred; picks with and without arrival."""
    origins = [
        quake.Origin(time=UTCDateTime(2024, 1, 1, 23, 59, 59, 990000), latitude=46.0 + k, longitude=13.0, depth=8500.0)
        for k in (0, 1)
    ]
    origins[1].quality = quake.OriginQuality(standard_error=0.2, azimuthal_gap=90.0)
    picks = [
        quake.Pick(time=origins[0].time + dt, waveform_id=quake.WaveformStreamID("OX", sta), phase_hint=hint)
        for dt, sta, hint in ((2.0, "CIMO", "P"), (3.5, "CIMO", "?"), (4.0, "ZOU", "Pn"), (5.0, "ZOU", "AML"))
    ]
    origins[1].arrivals = [quake.Arrival(pick_id=picks[1].resource_id, phase="Sg", time_weight=0.0)]
    event = quake.Event(
        origins=origins,
        magnitudes=[quake.Magnitude(mag=1.0), quake.Magnitude(mag=2.5)],
        picks=picks,
        event_type="quarry blast",
    )
    event.preferred_origin_id, event.preferred_magnitude_id = origins[1].resource_id, event.magnitudes[1].resource_id
    lost = quake.Event()
    quake.Catalog([event, lost]).write(str(path), format="QUAKEML")
    return event, lost


def test_quakeml_written_by_obspy(tmp_path):
    event, lost = quakeml(tmp_path / "a.xml")
    found = read_quakeml(tmp_path / "a.xml")
    assert found.events.id.tolist() == [event.resource_id.id]
    assert found.events.time_ns.tolist() == [ns("2024-01-01T23:59:59.99")]
    assert (found.events.latitude_deg[0], found.events.depth_km[0], found.events.magnitude[0]) == (47.0, 8.5, 2.5)
    assert (found.events.sigma_time_s[0], found.events.gap_deg[0]) == (0.2, 90.0)
    assert found.events.kind.tolist() == ["quarry blast"]
    assert keys(found.arrivals) == [
        ("OX.CIMO", "P", ns("2024-01-02T00:00:01.99")),
        ("OX.CIMO", "S", ns("2024-01-02T00:00:03.49")),
        ("OX.ZOU", "P", ns("2024-01-02T00:00:03.99")),
    ]
    assert found.arrivals.weight.tolist() == [-1, 4, -1]
    assert [(bad.number, bad.text) for bad in found.bad] == [
        (1, event.picks[3].resource_id.id),
        (2, lost.resource_id.id),
    ]


def sites(*names):
    n = len(names)
    return Stations(np.array(names), np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n, np.int64), np.full(n, 2**62))


def test_names_of_stations():
    found, problems = resolve(
        ["CIMO", ".ZOU.", "OX.ZOU", "OX.ZOU..HH", "IV.ZOU", "TWO", "NO"], ["OX.CIMO", "OX.ZOU", "A.TWO", "B.TWO"]
    )
    assert found == {"CIMO": "OX.CIMO", ".ZOU.": "OX.ZOU", "OX.ZOU": "OX.ZOU", "OX.ZOU..HH": "OX.ZOU"}
    assert problems["TWO"] == "may be A.TWO or B.TWO"
    assert set(problems) == {"TWO", "NO", "IV.ZOU"}


def test_import_of_csv_says_what_it_left_out(tmp_path):
    path = write(
        tmp_path / "picks.csv",
        [
            "station,timestamp,phase,probability,note",
            "OX.CIMO,2024-01-01T00:00:01.123456,P,0.9,",
            "ZOU,2024-01-01T00:00:02Z,s,0.5,",
            "ZOU,2024-01-01T00:00:02Z,S,0.7,",
            "GONE,2024-01-01T00:00:02,P,0.5,",
            "ZOU,yesterday,P,0.5,",
            "ZOU,2024-01-01T00:00:02,P,1.5,",
            "ZOU,2025-01-01T00:00:02,P,0.5,",
        ],
    )
    picks, problems = import_picks(path, sites("OX.CIMO", "OX.ZOU"), (ns("2024-01-01"), ns("2024-01-02")))
    assert picks.station.tolist() == ["OX.CIMO..", "OX.ZOU.."]
    assert picks.phase.tolist() == ["P", "S"]
    assert picks.time_ns.tolist() == [ns("2024-01-01T00:00:01.123456"), ns("2024-01-01T00:00:02")]
    assert picks.probability.tolist() == pytest.approx([0.9, 0.7])
    text = "\n".join(problems)
    for said in (
        "line 6: time 'yesterday'",
        "line 7: probability '1.5'",
        "'GONE': 1 picks",
        "1 of 4 picks lie outside",
        "1 picks are there twice",
    ):
        assert said in text


def test_a_time_between_picks_may_be_quiet_but_not_one_beside_them(tmp_path):
    lines = ["OX.ZOU,2024-01-01T00:00:01,P,0.9", "OX.ZOU,2024-01-03T00:00:02,S,0.9"]
    path = write(tmp_path / "picks.csv", ["station,timestamp,phase,probability", *lines])
    picks, problems = import_picks(path, sites("OX.ZOU"), (ns("2024-01-02"), ns("2024-01-03")))
    assert len(picks) == 0
    assert problems == ["2 of 2 picks lie outside the period of the run"]
    with pytest.raises(ConfigError, match="no pick of a known station"):
        import_picks(path, sites("OX.ZOU"), (ns("2024-01-04"), ns("2024-01-05")))


def test_import_of_csv_with_amplitudes(tmp_path):
    lines = ["OX.ZOU,2024-01-01T00:00:01,P,0.9,3e-7", "OX.ZOU,2024-01-01T00:00:02,S,0.9,-3e-7"]
    lines += ["OX.ZOU,2024-01-01T00:00:03,P,0.9,", "OX.ZOU,2024-01-01T00:00:04,P,0.9,0"]
    lines += ["OX.ZOU,2024-01-01T00:00:05,P,0.9,inf", "OX.ZOU,2024-01-01T00:00:06,P,0.9,loud"]
    for name in ("amplitude", "amplitude_m_s"):
        path = write(tmp_path / f"{name}.csv", [f"station,timestamp,phase,probability,{name}", *lines])
        picks, problems = import_picks(path, sites("OX.ZOU"), (0, 2**62))
        np.testing.assert_array_equal(picks.amplitude_m_s, np.array([3e-7, *[np.nan] * 4], "f4"))
        assert problems[0] == "line 7: amplitude 'loud' is not a number"
        assert problems[1].startswith("3 picks have an amplitude of 0, less, or infinity")


def foreign(path, **columns):
    rows = {
        "station": ["OX.CIMO", "ZOU", "ZOU", "OX.ZOU"],
        "timestamp": pd.to_datetime([f"2024-01-01T00:00:0{i}.250" for i in range(4)]),
        "probability": [0.25, 1.5, 0.5, 0.75],
        "amplitude": [1e-7, 2e-7, 3e-7, 0.0],
        "phase": ["P", "S", "Pn", " s"],
    }
    pd.DataFrame(rows | columns).to_parquet(path)
    return path


def test_import_of_a_foreign_table(tmp_path):
    picks, problems = import_picks(foreign(tmp_path / "a.parquet"), sites("OX.CIMO", "OX.ZOU"), (0, 2**62))
    assert picks.station.tolist() == ["OX.CIMO..", "OX.ZOU.."]
    assert picks.phase.tolist() == ["P", "S"]
    assert picks.time_ns.tolist() == [ns("2024-01-01T00:00:00.25"), ns("2024-01-01T00:00:03.25")]
    assert picks.probability.tolist() == [0.25, 0.75]
    np.testing.assert_array_equal(picks.amplitude_m_s, np.array([1e-7, np.nan], "f4"))
    assert problems == [
        "1 picks left out: their phase is neither P nor S",
        "1 picks left out: their probability is not between 0 and 1",
        "1 picks have an amplitude of 0, less, or infinity: taken as not known",
    ]


def test_the_time_zone_of_a_foreign_table_counts_and_amplitudes_may_be_absent(tmp_path):
    there = pd.to_datetime([f"2024-01-01T01:00:0{i}.250" for i in range(4)]).tz_localize("Europe/Rome")
    path = foreign(tmp_path / "a.parquet", timestamp=there)
    pd.read_parquet(path).drop(columns="amplitude").to_parquet(path)
    picks, _ = import_picks(path, sites("OX.CIMO", "OX.ZOU"), (0, 2**62))
    assert picks.time_ns.tolist() == [ns("2024-01-01T00:00:00.25"), ns("2024-01-01T00:00:03.25")]
    assert np.isnan(picks.amplitude_m_s).all()


@pytest.mark.skipif(not (DATA / "central_italy").exists(), reason="skips the import of real PhaseNet picks")
def test_import_of_the_picks_of_central_italy():
    path = DATA / "central_italy" / "picks_20161014.parquet"
    rows = pd.read_parquet(path)
    names = pd.read_csv(DATA / "central_italy" / "stations.csv").station.tolist()
    picks, problems = import_picks(path, sites(*names), (ns("2016-10-14"), ns("2016-10-15")))
    assert problems == []
    rows["time_ns"] = rows.timestamp.astype("datetime64[ns]").astype(np.int64)
    rows = rows.sort_values(["time_ns", "station", "phase"])
    assert len(picks) == len(rows) == 115_440
    assert picks.station.tolist() == [f"{name}.." for name in rows.station]
    assert picks.phase.tolist() == rows.phase.tolist()
    np.testing.assert_array_equal(picks.time_ns, rows.time_ns)
    np.testing.assert_array_equal(picks.amplitude_m_s, rows.amplitude.to_numpy(np.float32))


def test_a_foreign_table_that_lacks_a_column_is_named(tmp_path):
    path = foreign(tmp_path / "a.parquet")
    pd.read_parquet(path).drop(columns="phase").to_parquet(path)
    with pytest.raises(ConfigError, match=r"pick\.source: .*a\.parquet: no column 'phase'; it has station, timestamp"):
        import_picks(path, sites("OX.ZOU"), (0, 2**62))


def test_import_of_our_own_table_keeps_the_channel(tmp_path):
    nan = np.full(2, np.nan, np.float32)
    ours = Picks(
        np.array(["OX.ZOU..HH", "OX.CIMO.00.EH"]),
        np.array(["P", "S"]),
        np.array([5, 6]),
        np.ones(2, "f4"),
        nan,
        nan,
        nan,
        np.array([np.nan, 3e-7], "f4"),
    )
    tables.write(tmp_path / "a.parquet", ours)
    picks, problems = import_picks(tmp_path / "a.parquet", sites("OX.CIMO", "OX.ZOU"), (0, 10))
    assert same(picks, ours)
    assert problems == []


def test_import_without_any_pick_is_an_error(tmp_path):
    path = write(tmp_path / "a.dat", DAT)
    with pytest.raises(ConfigError, match="DAVO"):
        import_picks(path, sites("OX.ZOU"), (0, 2**62))
    with pytest.raises(ConfigError, match=r"\.doc"):
        import_picks(tmp_path / "a.doc", sites("OX.ZOU"), (0, 2**62))


def test_our_own_tables_as_reference(tmp_path):
    assigned = Assignments(
        np.array(["e", "e"]),
        np.array(["OX.ZOU..HH", "OX.CIMO..HH"]),
        np.array(["P", "S"]),
        np.array([7, 6]),
        np.ones(2),
        np.zeros(2),
        np.zeros(2),
    )
    tables.write(tmp_path / "a.parquet", assigned)
    found = read_reference(Reference(path=tmp_path / "a.parquet", format="orcolat"))
    assert keys(found.arrivals) == [("OX.CIMO", "S", 6), ("OX.ZOU", "P", 7)]
    assert found.arrivals.event.tolist() == ["e", "e"]
    tables.write(tmp_path / "e.parquet", one_event(5))
    assert read_reference(Reference(path=tmp_path / "e.parquet", format="orcolat")).events.id.tolist() == ["x"]
