"""Why events were missed, on fabricated runs whose truth is known by construction, and on Ridgecrest's waveforms."""

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from pipeline import config as configs
from pipeline.cli import main
from pipeline.cluster.world import Alone
from pipeline.config import Pick
from pipeline.formats import results, tables, tries
from pipeline.maths import reasons
from pipeline.models.picker import Picker
from pipeline.plots.explained import Row, section, write
from pipeline.plots.svg import style
from pipeline.records import NS, Assignments, ComparedEvents, Events, Missed, Outcome, Picks, Shard, Stations
from pipeline.rundir import create
from pipeline.stages import associate, compare, explain, explain_event, explain_inputs, pick, plan
from tests.fakes import as_table
from tests.test_compare import table
from tests.test_picker import phasenet, waveform
from tests.weights_at_hand import need

ROOT = Path(__file__).parents[1]
RIDGECREST = ROOT.parent / "shared" / "data" / "ridgecrest"
LAT, LON, VP, VS = 46.0, 12.0, 6.0, 3.5
KM = 111.2  # of a degree of latitude
T0 = int(np.datetime64("2024-03-20T00:00", "ns").astype(np.int64))
DAYS = [date(2024, 3, 20 + k) for k in range(3)]
N = 8  # stations, on a circle of 30 km


def place(k):
    angle = 2 * np.pi * k / N
    return LAT + 30 * np.cos(angle) / KM, LON + 30 * np.sin(angle) / (KM * np.cos(np.radians(LAT)))


def travel_s(k, north_km, east_km, phase):
    angle = 2 * np.pi * k / N
    far = np.hypot(np.hypot(30 * np.cos(angle) - north_km, 30 * np.sin(angle) - east_km), 10.0)
    return far / (VP if phase == "P" else VS)


class World:
    """What the analysts and we have, filled event by event; times are s after T0, places km from the centre."""

    def __init__(self):
        self.theirs, self.arrivals, self.ours, self.picks, self.assigned = [], [], [], [], []

    def quake(self, name, at_s, north_km=0.0, east_km=0.0, channels=None):
        """An event of the reference with a pick at each of ``channels`` (k, phase)."""
        self.theirs.append((name, at_s, north_km, east_km))
        for k, phase in all_channels() if channels is None else channels:
            self.arrivals.append((name, k, phase, at_s + travel_s(k, north_km, east_km, phase)))

    def picked(self, at_s, channels, event="", north_km=0.0, east_km=0.0):
        """Our picks of an earthquake there, and the event of ours that has them."""
        for k, phase in channels:
            time_s = at_s + travel_s(k, north_km, east_km, phase) + 0.01
            self.picks.append((k, phase, time_s))
            if event:
                self.assigned.append((event, k, phase, time_s))

    def found(self, name, at_s, north_km=0.0, east_km=0.0):
        self.ours.append((name, at_s, north_km, east_km))


def all_channels(stations=range(N)):
    return [(k, phase) for k in stations for phase in "PS"]


def ns(seconds):
    return T0 + round(seconds * NS)


def event_table(rows):
    rows = sorted(rows, key=lambda r: r[1])
    n = len(rows)
    return table(
        Events,
        n,
        id=[r[0] for r in rows],
        time_ns=[ns(r[1]) for r in rows],
        latitude_deg=[LAT + r[2] / KM for r in rows],
        longitude_deg=[LON + r[3] / (KM * np.cos(np.radians(LAT))) for r in rows],
        depth_km=[10.0] * n,
        magnitude=[1.0] * n,
        kind=["earthquake"] * n,
    )


def write_run(folder, world, reference_picks=True, **sections):
    """A run directory of waveforms, as it is after `associate`: of 8 stations on 3 days, those of the third failed on 6
    stations, those of the second are there on 2."""
    theirs = [(e, f"AA.S{k}", p, ns(t)) for e, k, p, t in world.arrivals]
    columns = list(zip(*theirs, strict=True)) or [[]] * 4
    names = dict(zip(("event", "station", "phase", "time_ns"), columns, strict=True))
    tables.write(folder / "events.parquet", event_table(world.theirs))
    tables.write(folder / "picks.parquet", table(Assignments, len(theirs), **names))
    (folder / "sds").mkdir()
    compared = {"reference_events": {"path": "events.parquet", "format": "orcolat"}, "bootstrap_samples": 10}
    if reference_picks:
        compared["reference_picks"] = {"path": "picks.parquet", "format": "orcolat"}
    data = {
        "run": {"name": "test", "start": "2024-03-20", "end": "2024-03-23"},
        "stations": {"files": ["stations.csv"]},
        "archive": {"root": "sds"},
        "associate": {
            **{"center_latitude_deg": LAT, "center_longitude_deg": LON, "x_km": [-60, 60], "y_km": [-60, 60]},
            **{"vp_km_s": VP, "vs_km_s": VS, "z_km": [0, 20], "station_elevation": False, "min_stations": 3},
            **sections.pop("associate", {}),
        },
        "compare": compared,
        **sections,
    }
    config = configs.parse(data, folder / "config.toml")
    run_dir = create(folder / "run", config)
    where = np.array([place(k) for k in range(N)])
    ends = {"start_ns": [T0 - 10**18] * N, "end_ns": [T0 + 10**18] * N, "elevation_m": [0.0] * N}
    sites = table(
        Stations, N, id=[f"AA.S{k}" for k in range(N)], latitude_deg=where[:, 0], longitude_deg=where[:, 1], **ends
    )
    tables.write(run_dir.stations, sites)
    shards = [Shard(day, f"AA.S{k}.", "HH") for n, day in enumerate(DAYS) for k in range(2 if n == 1 else N)]
    tables.write(run_dir.shards, as_table([(shard, 1) for shard in shards]))
    picks = table(
        Picks,
        len(world.picks),
        station=[f"AA.S{k}..HH" for k, _, _ in world.picks],
        phase=[p for _, p, _ in world.picks],
        time_ns=[ns(t) for _, _, t in world.picks],
        probability=[0.7] * len(world.picks),
    ).ordered()
    failed = [shard for shard in shards if shard.day == DAYS[2] and int(shard.station[4]) >= 2]
    for shard in failed:
        tries.write(run_dir, shard, "BadData: made to fail", "")
    for day in DAYS:
        start, stop = Shard(day, "", "").span_ns
        mine = picks.take((picks.time_ns >= start) & (picks.time_ns < stop))
        done = [shard for shard in shards if shard.day == day and shard not in failed]
        outcomes = [Outcome(s.id, "picked", "", int((mine.station == s.channel).sum()), 1.0) for s in done]
        results.write_day(run_dir, day, mine, outcomes)
    run_dir.events.parent.mkdir()
    tables.write(run_dir.events, event_table(world.ours))
    given = [(e, f"AA.S{k}..HH", p, ns(t)) for e, k, p, t in world.assigned]
    columns = list(zip(*given, strict=True)) or [[]] * 4
    names = dict(zip(("event", "station", "phase", "time_ns"), columns, strict=True))
    tables.write(run_dir.assignments, table(Assignments, len(given), **names))
    return run_dir, config


def whole_world():
    """An event for each reason; the events of the reference are named by it."""
    day = 86_400.0
    world = World()
    world.quake("found", 1000)
    world.found("F", 1000.2)
    world.picked(1000, all_channels(), "F")
    world.quake(reasons.OUTSIDE, 2000, north_km=80.0)
    world.quake(reasons.MERGED, 3000.8, north_km=1.0)
    world.quake("its neighbour", 3000)
    world.found("M", 3000)
    world.picked(3000, all_channels(), "M")
    world.quake(reasons.TOLERANCE, 4000)
    world.found("T", 4004.5, north_km=20.0)
    world.picked(4000, all_channels(), "T")
    world.quake(reasons.FEW, 5000, channels=[(0, "P"), (1, "P"), (2, "P"), (2, "S")])
    world.picked(5000, [(0, "P"), (1, "P"), (2, "P"), (2, "S")])
    world.quake(reasons.NO_DATA, day + 1000)
    world.picked(day + 1000, all_channels([0, 1]))
    world.quake(reasons.NOT_SCORED, 2 * day + 1000)
    world.picked(2 * day + 1000, all_channels([0, 1]))
    world.quake(reasons.NOT_PICKED, 6000)
    world.picked(6000, [(0, "P"), (0, "S"), (4, "P")])
    world.quake(reasons.GIVEN, 7000, channels=all_channels([0, 1, 2, 3]))
    world.quake("that has its picks", 7001, north_km=-25.0)
    world.found("G", 7001, north_km=-25.0)
    world.picked(7000, all_channels([0, 1, 2]), "G")
    world.picked(7000, [(3, "P")])
    world.picked(7001, all_channels([4, 5, 6, 7]), "G", north_km=-25.0)
    south = all_channels([3, 4, 5])  # of an earthquake in the middle: two thirds of the horizon are empty
    world.quake(reasons.REFUSED, 8000, channels=south)
    world.picked(8000, south)
    world.quake(reasons.UNKNOWN, 9000)
    for i, (k, phase) in enumerate(all_channels()):  # at nobody's times: of no earthquake at all
        at_s = 9000 + 40 * ((7 * i) % 16)
        world.arrivals = [(e, *c, at_s if (e, *c) == (reasons.UNKNOWN, k, phase) else t) for e, *c, t in world.arrivals]
        world.picks.append((k, phase, at_s))
    return world


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    run_dir, config = write_run(folder, whole_world(), associate={"max_gap_deg": 200.0})
    compare.run(run_dir, config, Alone())
    explain.run(run_dir, config, Alone())
    return run_dir, config


def test_each_event_has_the_reason_that_it_was_made_with(explained):
    run_dir, _ = explained
    missed = tables.read(run_dir.compared("missed"), Missed)
    assert set(reasons.REASONS) == set(missed.event.tolist())
    assert dict(zip(missed.event.tolist(), missed.reason.tolist(), strict=True)) == {r: r for r in reasons.REASONS}


def test_the_rows_are_the_missed_events_and_the_reasons_add_up(explained):
    run_dir, _ = explained
    missed, events = (
        tables.read(run_dir.compared("missed"), Missed),
        tables.read(run_dir.compared("events"), ComparedEvents),
    )
    assert missed.event.tolist() == events.theirs[events.status == "missed"].tolist()
    card = json.loads(run_dir.scorecard.read_text())["n"]
    counts = tables.metadata(run_dir.compared("missed"))["reasons"]
    assert sum(counts.values()) == card["events_reference"] - card["events_matched"] == len(reasons.REASONS)


def test_the_numbers_and_the_rules_are_those_of_the_construction(explained):
    missed = tables.read(explained[0].compared("missed"), Missed)
    row = {name: i for i, name in enumerate(missed.event.tolist())}

    def at(reason):
        i = row[reason]
        counts = missed.n_arrivals[i], missed.n_data[i], missed.n_picked[i], missed.n_associated[i]
        return str(missed.rule[i]), str(missed.other[i]), *map(int, counts)

    assert at(reasons.OUTSIDE) == ("", "", 16, 16, 0, 0)
    assert at(reasons.MERGED) == ("", "M", 16, 16, 6, 6) or at(reasons.MERGED)[:2] == ("", "M")
    assert at(reasons.TOLERANCE) == ("", "T", 16, 16, 16, 16)
    assert at(reasons.FEW) == ("min_picks", "", 4, 4, 4, 0)
    assert at(reasons.NO_DATA) == ("min_picks", "", 16, 4, 4, 0)
    assert at(reasons.NOT_SCORED) == ("min_picks", "", 16, 16, 4, 0)
    assert at(reasons.NOT_PICKED) == ("min_picks", "", 16, 16, 3, 0)
    assert at(reasons.GIVEN) == ("min_picks", "G", 8, 8, 7, 6)
    assert at(reasons.REFUSED) == ("max_gap_deg", "", 6, 6, 6, 0)
    assert at(reasons.UNKNOWN) == ("", "", 16, 16, 16, 0)
    i = row[reasons.TOLERANCE]
    assert missed.dt_s[i] == pytest.approx(4.5)
    assert missed.distance_km[i] == pytest.approx(20, rel=0.01)


def test_the_table_is_kept_made_again_when_its_inputs_change_and_the_same_to_the_byte(explained):
    run_dir, config = explained
    path = run_dir.compared("missed")
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    explain.run(run_dir, config, Alone())
    assert path.stat().st_mtime_ns == stamp
    path.unlink()
    explain.run(run_dir, config, Alone())
    assert path.read_bytes() == before


def test_one_event_alone_has_the_reason_of_the_table(explained):
    run_dir, config = explained
    missed, inputs = tables.read(run_dir.compared("missed"), Missed), explain_inputs.read(run_dir, config)
    for i, name in enumerate(missed.event.tolist()):
        event = explain_event.chosen(inputs, name, None)
        (found,) = explain.decide(inputs, event, explain_inputs.expected(inputs, event))
        assert (found.reason, found.rule, found.detail) == (missed.reason[i], missed.rule[i], missed.detail[i])


def test_one_event_is_told_and_drawn(explained, tmp_path, capsys):
    run_dir, _ = explained
    assert main(["explain", str(run_dir.root), "--event", reasons.GIVEN, "--output", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["reason"]["reason"] == reasons.GIVEN
    assert told["reason"]["other"]["partner"] == "that has its picks"
    assert len(told["arrivals"]) == 8
    assert json.loads((tmp_path / "explanation.json").read_text()) == told
    assert (tmp_path / "section.png").read_bytes()[:4] == b"\x89PNG"
    svg = (tmp_path / "section.svg").read_text()
    for words in (reasons.GIVEN, "AA.S0", "AA.S3", "our pick, in the event near it", "our pick, noise"):
        assert words in svg
    assert "AA.S5" not in svg  # the analysts have no pick there


def test_the_predictions_are_straight_rays(explained, tmp_path, capsys):
    assert main(["explain", str(explained[0].root), "--event", "found", "--output", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    for arrival in told["arrivals"]:
        expected = ns(1000 + travel_s(int(arrival["station"][-1]), 0, 0, arrival["phase"]))
        assert arrival["predicted_ns"] == pytest.approx(expected, abs=0.05 * NS)
        assert arrival["our_event"] == "F"


def test_a_found_event_is_said_to_be_found_and_a_time_finds_the_nearest(explained, tmp_path, capsys):
    root, out = str(explained[0].root), ["--output", str(tmp_path)]
    assert main(["explain", root, "--time", "2024-03-20T00:16:45", *out]) == 0
    text = capsys.readouterr().out
    assert "found" in text
    assert "F is +0.20 s" in text
    assert main(["explain", root, "--time", "2024-03-20T00:25:00", *out]) == 2
    assert main(["explain", root, "--event", "nobody", *out]) == 2


def test_without_a_choice_the_sum_is_told(explained, capsys):
    assert main(["explain", str(explained[0].root)]) == 0
    assert f"{len(reasons.REASONS):6}  missed earthquakes" in capsys.readouterr().out


def test_without_picks_of_the_reference_arrivals_are_predicted(tmp_path):
    world = World()
    world.quake("weak", 1000)
    world.picked(1000, [(0, "P"), (3, "P")])
    world.quake("clear", 2000)  # picked everywhere, and the associator made nothing of it
    world.picked(2000, all_channels())
    run_dir, config = write_run(tmp_path, world, reference_picks=False, associate={"max_rms_s": 1e-6})
    compare.run(run_dir, config, Alone())
    explain.run(run_dir, config, Alone())
    missed = tables.read(run_dir.compared("missed"), Missed)
    assert missed.predicted.all()
    assert missed.n_arrivals.tolist() == [16, 16]
    assert missed.n_picked.tolist() == [2, 16]
    assert missed.reason.tolist() == [reasons.NOT_PICKED, reasons.REFUSED]
    assert missed.rule.tolist() == ["min_picks", "max_rms_s"]


def test_a_comparison_that_is_not_there_is_asked_for(tmp_path):
    run_dir, _ = write_run(tmp_path, whole_world())
    assert main(["explain", str(run_dir.root)]) == 3


def test_an_event_of_ours_is_found_too_far_away_for_one_missed_event_only(tmp_path):
    """Two missed events, one of ours without picks of either between them: it is that of the nearer one."""
    world = World()
    world.quake("nearer", 1000)
    world.quake("farther", 1008)
    world.found("X", 1003)
    world.picked(1003, all_channels(), "X", north_km=40.0)
    run_dir, config = write_run(tmp_path, world)
    compare.run(run_dir, config, Alone())
    explain.run(run_dir, config, Alone())
    missed = tables.read(run_dir.compared("missed"), Missed)
    assert missed.reason.tolist() == [reasons.TOLERANCE, reasons.NOT_PICKED]


@pytest.mark.parametrize("span", [(0, 9000), (5000, 5400), (29_000, 30_000)])
def test_a_part_is_scored_as_the_whole_is(span):
    picker, wave = Picker.from_model(phasenet(), Pick()), waveform(30_000)
    part = picker.scores_in(wave, *span)
    whole = picker.scores(wave).probability[:, span[0] : span[1]]
    assert part.start_ns == wave.start_ns + span[0] * 10_000_000
    np.testing.assert_allclose(part.probability, whole, atol=1e-6)


@pytest.fixture(scope="module")
def ridgecrest(tmp_path_factory):
    """Five minutes of Ridgecrest at ten stations, picked and associated; the magnitude 2.5 of 17:58:19 is missed."""
    if not RIDGECREST.exists():
        pytest.skip("skips scoring real waveforms again: no shared data")
    need("phasenet/original")
    root = tmp_path_factory.mktemp("ridgecrest") / "run"
    asked = {
        "run": {"start": "2019-07-04T17:55:00Z", "end": "2019-07-04T18:00:00Z"},
        "stations": {"include": ["CI.*"], "exclude": ["CI.W*"]},
        "magnitude": {"amplitudes": False},
    }
    given = [f"{section}.{key}={json.dumps(v)}" for section, keys in asked.items() for key, v in keys.items()]
    config = configs.load(ROOT / "configs" / "ridgecrest.toml", given)
    run_dir = create(root, config)
    for stage in (plan, pick, associate, compare, explain):
        stage.run(run_dir, config, Alone())
    return run_dir, config


def test_probabilities_of_real_waveforms_are_those_of_the_picks(ridgecrest, capsys):
    run_dir, _ = ridgecrest
    assert main(["explain", str(run_dir.root), "--event", "ci37222940", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "phasenet/original" in told["scored"]["about"]
    assert told["scored"]["problems"] == {}
    picked = [arrival for arrival in told["arrivals"] if arrival["our_phase"]]
    others = [arrival for arrival in told["arrivals"] if not arrival["our_phase"]]
    assert len(picked) >= 4
    for arrival in picked:
        assert arrival["probability"] == pytest.approx(
            arrival["our_probability"], abs=0.01
        )  # its peak, between samples
        assert arrival["probability_time_ns"] == pytest.approx(arrival["our_time_ns"], abs=0.02 * NS)
    for arrival in others:
        assert arrival["probability"] < told["scored"]["thresholds"][arrival["phase"]]
    missed = tables.read(run_dir.compared("missed"), Missed)
    row = missed.event.tolist().index("ci37222940")
    assert told["reason"]["reason"] == missed.reason[row]
    assert {path.name for path in run_dir.explained("ci37222940").iterdir()} == {
        "explanation.json",
        "section.svg",
        "section.png",
    }


def test_other_weights_are_not_asked(ridgecrest, tmp_path, capsys):
    run_dir, _ = ridgecrest
    noted = run_dir.weights.read_text()
    try:
        run_dir.weights.write_text(json.dumps(json.loads(noted) | {"sha256": "0" * 64}))
        assert main(["explain", str(run_dir.root), "--event", "ci37222940", "--output", str(tmp_path), "--json"]) == 0
    finally:
        run_dir.weights.write_text(noted)
    told = json.loads(capsys.readouterr().out)
    assert "not tried" in told["scored"]["about"]
    assert "not those of the run" in told["scored"]["about"]
    assert {arrival["probability"] for arrival in told["arrivals"]} == {None}


def test_an_id_of_any_reference_is_one_folder_and_a_title(tmp_path):
    """Of a path no part leaves the folder, and a dollar is no formula of matplotlib."""
    names = ["../../etc/passwd", "smi:local/a?b=1&c", "..", "a\nb", "é" * 300, "$x_{"]
    folders = [explain_event.folder_name(name) for name in names]
    assert folders[:4] == ["_.._etc_passwd", "smi_local_a_b_1_c", "event", "a_b"]
    for folder in folders:
        (tmp_path / folder).mkdir()
    assert {path.name for path in tmp_path.iterdir()} == set(folders)
    with style():
        fig = section("$x_{\n$", [Row("AA.$\\frac$", 1.0, (), (), ())], {"P": 0.3, "S": 0.3})
    write(fig, tmp_path / "a.svg", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
