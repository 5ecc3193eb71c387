"""Export and review of a run: what goes out, what may not be overwritten, and decisions that come back."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from obspy import read_events

from pipeline.__main__ import main
from pipeline.cluster.world import Alone
from pipeline.errors import ConfigError, Incomplete
from pipeline.formats import cells, decisions, exports, located_run, tables
from pipeline.formats.provenance import of_files
from pipeline.maths.decisions import carried, counts, merged
from pipeline.records import DAY_NS, NS, Assignments, Decisions, Events, Origins, Stations
from pipeline.stages import compare, export, review
from tests.test_compare import T0, events, finished_run, picks, settings, table

IDS = ["A", "B", "C", "D"]  # A is in the reference, the others are new


@pytest.fixture
def run(tmp_path):
    """A compared run of four events; C has the best probability, then B, then D."""
    theirs = events([("a", 100.0, 46.0, 13.0, 1.2)])
    tables.write(tmp_path / "theirs.parquet", theirs)
    places = [(100.5, 46.01, 13.0), (2000.0, 46.2, 13.2), (3000.0, 46.3, 13.3), (4000.0, 46.4, 13.4)]
    ours = events([(id_, s, lat, lon, np.nan) for id_, (s, lat, lon) in zip(IDS, places, strict=True)])
    ours = replace(ours, score=np.array([9.0, 5.0, 7.0, 3.0]), n_p=np.full(4, 1), n_s=np.full(4, 1))
    rows = [(f"AA.{sta}..HH", phase, s + dt, id_) for id_, (s, _, _) in zip(IDS, places, strict=True)
            for sta, phase, dt in (("ONE", "P", 3.0), ("TWO", "S", 5.25))]  # fmt: skip
    assigned = table(
        Assignments, len(rows), event=[r[3] for r in rows], station=[r[0] for r in rows], phase=[r[1] for r in rows],
        time_ns=[T0 + round(r[2] * NS) for r in rows], residual_s=[0.1] * len(rows),
    )  # fmt: skip
    config = settings(tmp_path, reference_events={"path": "theirs.parquet", "format": "orcolat"})
    our_picks = picks([(*r[:3], 0.9) for r in rows])
    run_dir = finished_run(tmp_path / "run", config, ours, our_picks, assigned, ["AA.ONE", "AA.TWO"])
    known = tables.read(run_dir.stations, Stations)
    tables.write(run_dir.stations, replace(known, end_ns=np.full(2, T0 + 100 * DAY_NS)))
    compare.run(run_dir, config, Alone())
    return run_dir, config


def located(run_dir, **columns):
    """The run as `locate` leaves it, with these columns of its origins."""
    found = located_run.load(run_dir)
    tables.write(run_dir.origins, replace(found.origins, **columns))
    tables.write(run_dir.arrivals, found.arrivals)


def answer(folder, said, name="answers.csv", **more):
    """review.csv filled in: decisions by event id, other columns for all of them."""
    with (folder / "review.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {"decision": said.get(row["event_id"], "")} | more
    path = folder.parent / name
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_events_of_a_run_that_is_not_located_are_where_association_put_them(run):
    found = located_run.load(run[0])
    assert found.origins.id.tolist() == IDS
    assert found.origins.n_used.tolist() == [2] * 4
    a = found.arrivals
    assert a.predicted_ns[0] == a.time_ns[0] - round(0.1 * NS)
    assert np.isnan(a.weight).all()
    assert a.distance_km[0] == pytest.approx(77.5, abs=1)  # 1 degree of longitude at 46 north
    assert a.azimuth_deg[0] == pytest.approx(270, abs=2)


def test_located_events_are_taken_where_there_are_some(run):
    run_dir, _ = run
    located(run_dir, latitude_deg=np.full(4, 45.0))
    assert located_run.load(run_dir).origins.latitude_deg.tolist() == [45.0] * 4
    tables.write(run_dir.origins, tables.read(run_dir.origins, Origins).take(slice(1, None)))
    with pytest.raises(Incomplete, match="orcolat locate"):
        located_run.load(run_dir)


def test_locations_of_other_picks_are_not_taken(run):
    """The events have the ids that they had, and other picks; or `locate` was stopped after half of its files."""
    run_dir, _ = run
    found = located_run.load(run_dir)
    made_of = {"catalogue": of_files([run_dir.events, run_dir.assignments])}
    tables.write(run_dir.origins, found.origins, made_of)
    tables.write(run_dir.arrivals, found.arrivals, made_of)
    assert located_run.load(run_dir).origins.id.tolist() == IDS
    tables.write(run_dir.arrivals, found.arrivals, {"catalogue": "another"})
    with pytest.raises(Incomplete, match="orcolat locate"):
        located_run.load(run_dir)
    tables.write(run_dir.arrivals, found.arrivals, made_of)
    assigned = tables.read(run_dir.assignments, Assignments)
    tables.write(run_dir.assignments, replace(assigned, time_ns=assigned.time_ns + 1))
    with pytest.raises(Incomplete, match="orcolat locate"):
        located_run.load(run_dir)


@pytest.mark.parametrize(("which", "expected"), [("all", IDS), ("new", IDS[1:]), ("review", ["C", "B", "D"])])
def test_all_new_and_waiting_events(run, tmp_path, which, expected):
    """Without probabilities the rank is by score: 7, 5, 3."""
    run_dir, config = run
    said = export.run(run_dir, config, "quakeml", tmp_path / "out.xml", which)
    assert said.startswith(f"{len(expected)} events with {2 * len(expected)} picks as QuakeML")
    found = [e.resource_id.id.rpartition("/")[2] for e in read_events(str(tmp_path / "out.xml"))]
    assert found == expected


def test_new_needs_a_comparison_of_this_catalogue_and_a_reference(run, tmp_path):
    run_dir, config = run
    ours = tables.read(run_dir.events, Events)
    tables.write(run_dir.events, replace(ours, depth_km=ours.depth_km + 1))
    with pytest.raises(Incomplete, match="orcolat compare"):
        export.run(run_dir, config, "csv", tmp_path / "out", "new")
    none = config.model_copy(update={"compare": config.compare.model_copy(update={"reference_events": None})})
    with pytest.raises(ConfigError, match="--events all"):
        export.run(run_dir, none, "csv", tmp_path / "out", "new")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "output",
    ["catalogue/events.parquet", "x.xml", ".", "..", "sub/../config.toml", "../run/picks", "exports", "exports/../x"],
)
def test_the_results_of_a_run_are_not_written_over(run, output):
    run_dir, config = run
    before = {p: p.read_bytes() for p in run_dir.root.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError):
        export.run(run_dir, config, "csv", run_dir.root / output, force=True)
    with pytest.raises(ConfigError):
        review.write(run_dir, config, run_dir.root / output, force=True)
    assert {p: p.read_bytes() for p in run_dir.root.rglob("*") if p.is_file()} == before


def test_nor_through_a_link(run, tmp_path):
    run_dir, config = run
    (tmp_path / "elsewhere").symlink_to(run_dir.root / "catalogue")
    with pytest.raises(ConfigError, match="results of the run"):
        export.run(run_dir, config, "quakeml", tmp_path / "elsewhere" / "events.parquet", force=True)


def test_a_run_has_room_for_exports(run):
    run_dir, config = run
    export.run(run_dir, config, "hypodd", run_dir.root / "exports" / "dd")
    assert (run_dir.root / "exports" / "dd" / "phase.dat").exists()


def test_the_review_folder_holds_the_same_events_in_every_format(run, tmp_path):
    run_dir, config = run
    located(run_dir, probability=np.array([0.99, 0.2, np.nan, 0.95]))
    compare.run(run_dir, config, Alone())
    review.write(run_dir, config, tmp_path / "review")
    assert {p.name for p in (tmp_path / "review").iterdir()} == set(review.FILES)
    rows = list(csv.DictReader((tmp_path / "review" / "review.csv").open()))
    assert [(r["event_id"], r["rank"], r["probability"]) for r in rows] == [
        ("D", "1", "0.9500"), ("B", "2", "0.2000"), ("C", "3", ""),
    ]  # fmt: skip
    assert rows[0]["time"] == "2024-03-20T01:06:40.000000Z"
    assert (rows[0]["latitude_deg"], rows[0]["depth_km"], rows[0]["n_picks"]) == ("46.40000", "10.000", "2")
    assert {r[name] for r in rows for name in decisions.ANSWERED} == {""}
    for name, form in review.EVENTS.items():
        assert exports.read(form, tmp_path / "review" / name).origins.id.tolist() == ["B", "C", "D"]


def test_a_folder_with_decisions_is_not_lost(run, tmp_path):
    run_dir, config = run
    review.write(run_dir, config, tmp_path / "review")
    with pytest.raises(ConfigError, match="maybe with decisions"):
        review.write(run_dir, config, tmp_path / "review")
    (tmp_path / "review" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        review.write(run_dir, config, tmp_path / "review", force=True)
    (tmp_path / "review" / "notes.txt").unlink()
    review.write(run_dir, config, tmp_path / "review", force=True)


def test_decisions_come_back_and_the_queue_gets_shorter(run, tmp_path):
    run_dir, config = run
    review.write(run_dir, config, tmp_path / "review")
    path = answer(
        tmp_path / "review", {"C": "Accept", "B": "quarry_blast", "D": "unsure"}, who="M. Rossi",
        when="2024-03-21T08:00:00", comment='seen at "ONE", clear',
    )  # fmt: skip
    said = review.read(run_dir, config, path)
    assert "3 decisions read, 3 in all (1 accept, 0 reject, 1 quarry blast, 1 unsure), 0 of them" in said
    found = decisions.of_run(run_dir)
    assert found.event.tolist() == ["B", "C", "D"]
    assert set(found.who.tolist()) == {"M. Rossi"}
    assert set(found.comment.tolist()) == {'seen at "ONE", clear'}
    assert set(found.when_ns.tolist()) == {int(np.datetime64("2024-03-21T08:00", "ns").astype(np.int64))}
    origins = located_run.load(run_dir).origins
    assert located_run.decided(run_dir, config, origins).tolist() == ["", "quarry blast", "accept", "unsure"]
    compare.run(run_dir, config, Alone())  # which counts decisions, too
    assert located_run.chosen(run_dir, config, located_run.load(run_dir), "review").origins.id.tolist() == ["D"]


def test_a_decision_outlives_a_run_that_gives_other_ids(run, tmp_path):
    """B is called Z now and is half a second and 300 m away; C's id went to an event an hour later."""
    run_dir, config = run
    review.write(run_dir, config, tmp_path / "review")
    review.read(run_dir, config, answer(tmp_path / "review", {"B": "reject", "C": "accept", "D": "accept"}))
    now = events(
        [("A", 100.5, 46.01, 13.0, np.nan), ("Z", 2000.5, 46.202, 13.202, np.nan), ("D", 4000.0, 46.4, 13.4, np.nan),
         ("C", 6600.0, 46.3, 13.3, np.nan)]
    )  # fmt: skip
    origins = located_run.origins_of(now)
    assert located_run.decided(run_dir, config, origins).tolist() == ["", "reject", "accept", ""]


def decision(event, seconds, what, when=0, latitude=46.0):
    return {"event": [event], "time_ns": [T0 + round(seconds * NS)], "latitude_deg": [latitude],
            "longitude_deg": [13.0], "decision": [what], "when_ns": [when]}  # fmt: skip


def test_of_two_decisions_the_later_one_counts():
    first, second = (
        table(Decisions, 1, **decision("A", 1, what, when)) for what, when in (("accept", 20), ("reject", 10))
    )
    assert merged(first, second).decision.tolist() == ["accept"]  # read later, made earlier
    assert merged(second, first).decision.tolist() == ["accept"]
    unsaid = table(Decisions, 1, **decision("A", 1, "unsure"))
    assert merged(first, unsaid).decision.tolist() == ["unsure"]  # nobody said when: the one read later
    moved = table(Decisions, 1, **decision("A", 1.4, "reject", when=30))
    assert merged(first, moved).decision.tolist() == ["reject"]
    other = table(Decisions, 1, **decision("A", 3600, "reject"))
    assert counts(merged(first, other)) == {"accept": 1, "reject": 1, "quarry blast": 0, "unsure": 0}


def test_a_decision_is_on_one_event_only():
    now = events([("X", 0.0, 46.0, 13.0, np.nan), ("Y", 0.4, 46.0, 13.0, np.nan)])
    said = merged(
        table(Decisions, 1, **decision("X", 0.1, "accept")), table(Decisions, 1, **decision("old", 0.3, "reject"))
    )
    assert carried(said, now, 2.0, 8.0).tolist() == [0, 1]
    assert carried(said, now.take(slice(0, 1)), 2.0, 8.0).tolist() == [0, -1]
    assert carried(Decisions.empty(), now, 2.0, 8.0).tolist() == []
    away = table(Decisions, 1, **decision("X", 0.1, "accept", latitude=46.5))
    assert carried(away, now, 2.0, 8.0).tolist() == [-1]  # 55 km from what has its id now


HEAD = "event_id,time,latitude_deg,longitude_deg,decision,comment,who,when\n"


def test_spreadsheets_write_their_own_csv(tmp_path):
    path = tmp_path / "d.csv"
    path.write_bytes(
        (
            "\ufeff" + HEAD.replace(",", ";") + 'A;2024-03-20T01:00:00Z;46,5;-13,25;ACCEPT;"a;\nb";é;2024-03-21\n'
        ).encode()
    )
    found = decisions.read_decisions(path)
    assert (found.latitude_deg[0], found.longitude_deg[0], found.decision[0]) == (46.5, -13.25, "accept")
    assert (found.comment[0], found.who[0]) == ("a;\nb", "é")
    path.write_bytes((HEAD + "A,2024-03-20T01:00:00Z,46.5,13,Quarry-Blast,,è,\n").encode("latin-1"))
    assert decisions.read_decisions(path).decision.tolist() == ["quarry blast"]


def read(tmp_path, raw):
    (tmp_path / "d.csv").write_bytes(raw)
    return decisions.read_decisions(tmp_path / "d.csv")


LINES = (HEAD + "A,2024-03-20T01:00:00Z,46.5,-13.25,accept,caffè… “sì”,M,2024-03-21T08:00\r\n").replace("\n", "\r\n")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_excel_saves_is_read(tmp_path, encoding, separator):
    """In the encodings of its formats, with separator and decimal comma of Italy. … is a line end in Latin-1."""
    text = LINES.replace(",", separator)
    if separator != ",":
        text = text.replace("46.5", "46,5").replace("13.25", "13,25").replace("2024-03-21T08:00", "21/03/2024 08:00")
    found = read(tmp_path, text.encode(encoding))
    assert (found.latitude_deg[0], found.longitude_deg[0]) == (46.5, -13.25)
    assert (found.comment[0], found.who[0]) == ("caffè… “sì”", "M")
    assert found.when_ns[0] == int(np.datetime64("2024-03-21T08:00", "ns").astype(np.int64))


def test_a_day_alone_and_one_that_cannot_be(tmp_path):
    row = "A;2024-03-20T01:00:00Z;46,5;13;accept;;;"
    head = HEAD.replace(",", ";")
    assert read(tmp_path, f"{head}{row}3.4.2024\n".encode()).when_ns[0] == int(
        np.datetime64("2024-04-03", "ns").astype(np.int64)
    )
    for when in ("13/14/2024", "31/02/2024"):
        with pytest.raises(ConfigError, match="line 2: time '2024-"):
            read(tmp_path, f"{head}{row}{when}\n".encode())
    with pytest.raises(ConfigError, match="3/4/2024"):  # with commas it may be March as well
        read(tmp_path, f"{HEAD}A,2024-03-20T01:00:00Z,46.5,13,accept,,,3/4/2024\n".encode())


def test_one_file_may_not_contradict_itself(tmp_path):
    row = "A,2024-03-20T01:00:00Z,46.5,13,{},,,{}\n"
    with pytest.raises(ConfigError, match="line 3: A is 'reject', but 'accept' in line 2"):
        read(tmp_path, (HEAD + row.format("accept", "") + row.format("reject", "")).encode())
    assert len(read(tmp_path, (HEAD + 2 * row.format("accept", "")).encode())) == 2  # merged into one later
    later = row.format("accept", "2024-03-21") + row.format("reject", "2024-03-22")
    found = merged(Decisions.empty(), read(tmp_path, (HEAD + later).encode()))
    assert found.decision.tolist() == ["reject"]


def test_formulas_of_spreadsheets_do_not_run(run, tmp_path):
    """An id may come from anywhere; it goes out with an apostrophe and comes back without."""
    run_dir, _ = run
    for id_ in ("=1+1", "@x", "'=1", "plain", "-2"):
        assert cells.plain(cells.guarded(id_)) == id_
    origins = located_run.load(run_dir).origins
    origins = replace(origins, id=np.array(["=cmd|' /C calc'!A0", "B", "C", "D"]))
    decisions.write_review(tmp_path / "r.csv", origins, np.zeros(4))
    rows = list(csv.reader((tmp_path / "r.csv").open()))
    assert rows[1][0] == "'=cmd|' /C calc'!A0"
    assert rows[2][0] == "B"
    rows[1][rows[0].index("decision")] = "accept"
    with (tmp_path / "r.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert decisions.read_decisions(tmp_path / "r.csv").event.tolist() == ["=cmd|' /C calc'!A0"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("A,2024-03-20,46,13,maybe,,,", "line 3: decision 'maybe' is none of accept, reject, quarry blast, unsure"),
        ("A,yesterday,46,13,accept,,,", "line 3: time 'yesterday'"),
        ("A,2024-03-20,146,13,accept,,,", "line 3: latitude_deg '146' is not within"),
        ("A,2024-03-20,46,east,accept,,,", "line 3: longitude_deg 'east' is not a number"),
        (",2024-03-20,46,13,accept,,,", "line 3: no event_id"),
        ("A,2024-03-20,46,13,accept,,,soon", "line 3: time 'soon'"),
        ("A,2024-03-20,46,13,accept,seen, but weak,R,2024-03-21", "line 3: more fields than columns"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_taken(run, tmp_path, line, said):
    run_dir, config = run
    path = tmp_path / "d.csv"
    path.write_text(f"{HEAD}B,2024-03-20,46,13,accept,,,\n{line}\nC,nonsense,,,,,,\n")
    with pytest.raises(ConfigError) as caught:
        review.read(run_dir, config, path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert not run_dir.decisions.exists()


def test_lines_are_counted_over_comments_of_several_lines(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text(HEAD + 'A,2024-03-20,46,13,accept,"one\ntwo\nthree",,\nB,2024-03-20,46,13,perhaps,,,\n')
    with pytest.raises(ConfigError, match="line 5: decision 'perhaps'"):
        decisions.read_decisions(path)


def test_a_file_that_is_no_review(tmp_path):
    (tmp_path / "d.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="no column event_id"):
        decisions.read_decisions(tmp_path / "d.csv")
    with pytest.raises(ConfigError, match="cannot be read"):
        decisions.read_decisions(tmp_path / "absent.csv")


def test_commands(run, tmp_path, capsys):
    run_dir, _ = run
    root = str(run_dir.root)
    assert main(["export", root, "--format", "nonlinloc-obs", "--output", str(tmp_path / "x.obs")]) == 0
    assert "4 events with 8 picks" in capsys.readouterr().out
    assert main(["export", root, "--format", "nonlinloc-obs", "--output", str(tmp_path / "x.obs")]) == 2
    assert main(["export", root, "--format", "nonlinloc-obs", "--output", str(tmp_path / "x.obs"), "--force"]) == 0
    assert main(["review", root, "--output", str(tmp_path / "review")]) == 0
    path = answer(tmp_path / "review", {"C": "accept"})
    assert main(["review", root, "--decisions", str(path)]) == 0
    assert "1 decisions read" in capsys.readouterr().out
    path.write_text(path.read_text().replace("accept", "yes"))
    assert main(["review", root, "--decisions", str(path)]) == 2
    assert decisions.of_run(run_dir).event.tolist() == ["C"]
