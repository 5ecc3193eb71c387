"""The audit: every gap of a made-up run is named with its reason, what does not balance is said; status agrees."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.cluster.claims import Claims
from pipeline.config import parse
from pipeline.errors import BadData, ConfigError, Incomplete
from pipeline.formats import planning, provenance, results, stations, tables, tries
from pipeline.records import Outcome, Outcomes, Picks, Shard
from pipeline.rundir import create, publish
from pipeline.stages import audit, report, status
from tests import fakes
from tests.fabricate import fabricate
from tests.fakes import nobody
from tests.test_report import EVIL, Page

DAYS = [f"2024-05-{d:02}" for d in range(1, 9)]  # days 122 to 129 of the year
SITES = """network,station,latitude,longitude,elevation_m,start,end
XX,ALL,46,12,100,,
XX,HOLE,46.1,12,100,,
XX,LATE,46.2,12,100,2024-05-03T12:00:00,
XX,NONE,46.3,12,100,2024-05-01,2024-05-04T00:00:00
"""
END = {  # how shards end; all others are picked
    "2024-05-02/XX.ALL..HH": ("empty", "no usable component: no data of XX.ALL..HH in the span"),
    "2024-05-03/XX.ALL..HH": ("empty", "2024-05-03/XX.ALL..HH: no usable component: no data of XX.ALL..HH in the span"),
    "2024-05-04/XX.ALL..HH": ("failed", 1, "BadData: /data/x/XX.ALL..HHZ.D: nothing in it can be read"),
    "2024-05-05/XX.ALL..HH": ("failed", 3, "ValueError: <b>poison</b>"),
    "2024-05-08/XX.ALL..HH": ("missing",),
    "2024-05-07/XX.HOLE..HH": ("missing",),
}
WANTED = {  # every gap: (station, first, last) -> kind, reason
    ("XX.ALL", "2024-05-02", "2024-05-03"): ("empty", "no usable component: no data of its channel in the span"),
    ("XX.ALL", "2024-05-04", "2024-05-04"): ("failed", "BadData: a file: nothing in it can be read"),
    ("XX.ALL", "2024-05-05", "2024-05-05"): ("set aside", "ValueError: <b>poison</b>"),
    ("XX.ALL", "2024-05-08", "2024-05-08"): ("missing", ""),
    ("XX.HOLE", "2024-05-02", "2024-05-04"): ("no file", ""),
    ("XX.HOLE", "2024-05-07", "2024-05-07"): ("being picked", ""),
    ("XX.LATE", "2024-05-05", "2024-05-05"): ("no file", ""),
    ("XX.NONE", "2024-05-01", "2024-05-03"): ("no file", ""),
}


def waveform(root, station, day, size=100):
    julday = 122 + DAYS.index(day)
    path = root / f"sds/2024/XX/{station}/HHZ.D/XX.{station}..HHZ.D.2024.{julday:03}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


@pytest.fixture
def config(tmp_path):
    (tmp_path / "stations.csv").write_text(SITES)
    for day in DAYS:
        waveform(tmp_path, "ALL", day)
        if not "2024-05-02" <= day <= "2024-05-04":
            waveform(tmp_path, "HOLE", day)
        if day >= "2024-05-03" and day != "2024-05-05":
            waveform(tmp_path, "LATE", day)
    data = {
        "run": {"name": "audited", "start": "2024-05-01T00:00:00Z", "end": "2024-05-08T06:00:00Z"},
        "archive": {"root": "sds"},
        "stations": {"files": ["stations.csv"]},
        "associate": {"center_latitude_deg": 46, "center_longitude_deg": 12, "x_km": [-9, 9], "y_km": [-9, 9]},
    }
    return parse(data, tmp_path / "run.toml")


@pytest.fixture
def run_dir(tmp_path, config):
    """Planned as `orcolat plan` does, and ended as `END` says."""
    run_dir = create(tmp_path / "run", config)
    sites = stations.read(config.stations.files)
    plan = planning.plan_shards(config, sites)
    tables.write(run_dir.shards, plan)
    tables.write(run_dir.stations, sites)
    for shard in plan.rows():
        how, *more = END.get(shard.id, ("picked",))
        if how == "failed":
            for _ in range(more[0]):
                tries.write(run_dir, shard, more[1], f"Traceback of {shard.id}")
        elif how != "missing":
            picks = fakes.picks(5, 1, shard.span_ns[0], station=shard.channel) if how == "picked" else Picks.empty()
            results.write_part(run_dir, shard, picks, Outcome(shard.id, how, *(more or [""]), len(picks), 0.5))
    return run_dir


def written(run_dir):
    return json.loads(run_dir.audit.with_name("audit.json").read_text("utf-8"))


def found_gaps(books):
    return {(g["station"], g["first"], g["last"]): (g["kind"], g["reason"]) for g in books["gaps"]}


def test_every_gap_is_named_with_its_reason(run_dir, config):
    with Claims(run_dir.claims, 60, nobody) as claims:
        claim = claims.take("block")
        claim.expect(["2024-05-07/XX.HOLE..HH", "2024-05-08/XX.ALL..HH"])
        claim.begin("2024-05-07/XX.HOLE..HH")
        complete, text = audit.run(run_dir, config)
    books = written(run_dir)
    assert not complete
    assert found_gaps(books) == WANTED
    assert books["shards"] == {"planned": 18, "picked": 12, "empty": 2, "failed": 1, "set aside": 1, "missing": 2}
    assert books["station_days"]["all"] == 8 + 8 + 6 + 3
    assert books["station_days"]["picked"] == 12
    assert books["silent"] == ["XX.NONE"]
    assert books["breaches"] == []
    assert {row["station"]: row["shards"]["planned"] for row in books["stations"]} == {
        "XX.ALL": 8,
        "XX.HOLE": 5,
        "XX.LATE": 5,
        "XX.NONE": 0,
    }
    assert [row["day"] for row in books["days"]] == DAYS
    assert [(row["shard"], row["end"], row["tries"]) for row in books["asides"]] == [
        ("2024-05-04/XX.ALL..HH", "failed", 1),
        ("2024-05-05/XX.ALL..HH", "set aside", 3),
    ]
    assert "18 planned = 12 picked + 2 empty + 1 failed + 1 set aside + 2 missing" in text
    assert books["verdict"] == ("12 of 25 station-days have picks (48.0 %); to do: 2 missing, 1 failed, 1 set aside.")


def finish(run_dir):
    """Everything picked that was not."""
    plan = results.planned(run_dir)
    for shard in results.missing(run_dir, plan):
        results.write_part(run_dir, shard, Picks.empty(), Outcome(shard.id, "picked", "", 0, 1.0))
    results.fold(run_dir, plan)


def test_the_exit_code_says_whether_anything_is_left(run_dir, config, capsys):
    assert main(["audit", str(run_dir.root)]) == 3
    finish(run_dir)
    assert main(["audit", str(run_dir.root)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "complete"
    assert said[-2].endswith("run/audit/index.html")
    books = written(run_dir)
    assert {kind for kind, _ in found_gaps(books).values()} == {"empty", "no file"}
    assert books["verdict"].endswith("every planned shard has ended.")


def test_late_files_are_named_and_nothing_is_changed(run_dir, config, tmp_path):
    finish(run_dir)
    waveform(tmp_path, "HOLE", "2024-05-03")
    os.utime(waveform(tmp_path, "LATE", "2024-05-06", size=101), (1, 1))
    before = {p: p.read_bytes() for p in run_dir.root.rglob("*.parquet")}
    complete, text = audit.run(run_dir, config)
    books = written(run_dir)
    assert not complete
    assert (books["late"]["new"], books["late"]["changed"]) == (["2024-05-03/XX.HOLE..HH"], ["2024-05-06/XX.LATE..HH"])
    gaps = found_gaps(books)
    assert gaps["XX.HOLE", "2024-05-03", "2024-05-03"] == ("late", audit.coverage.NEW)
    assert ("XX.LATE", "2024-05-06", "2024-05-06") not in gaps
    assert "late files   1 new, 1 changed: run `orcolat update`" in text
    assert {p: p.read_bytes() for p in run_dir.root.rglob("*.parquet")} == before
    assert audit.run(run_dir, config, scan=False)[0]
    late = written(run_dir)["late"]
    assert (late["asked"], late["looked"], late["note"], late["n"]) == (False, False, "not looked for", 0)


def test_files_that_are_late_turn_no_pick_into_a_gap_and_nothing_is_counted_twice(run_dir, config, tmp_path):
    audit.run(run_dir, config, scan=False)
    before = written(run_dir)
    for station, day in (("LATE", "2024-05-06"), ("ALL", "2024-05-04"), ("ALL", "2024-05-02")):  # picked, failed, empty
        waveform(tmp_path, station, day, size=101)
    audit.run(run_dir, config)
    books = written(run_dir)
    assert books["shards"] == before["shards"]
    assert books["station_days"]["picked"] == before["station_days"]["picked"]
    assert (books["station_days"]["late"], books["late"]["n"], books["late"]["open"]) == (2, 3, 1)
    left = "to do: 2 missing, 1 failed, 1 set aside, 3 late (of which 1 counted already)."
    assert books["verdict"].endswith(left)
    said = "".join(Page(run_dir.audit.read_text("utf-8")).text)
    assert "Late files: 3 changed: run `orcolat update`." in said
    assert "2024-05-06/XX.LATE..HHchanged after they were planned" in said


def test_an_archive_that_is_away_hides_no_gap(run_dir, config, tmp_path):
    (tmp_path / "sds").rename(tmp_path / "elsewhere")
    _, text = audit.run(run_dir, config)
    assert "nobody could look for late files" in text
    assert len(written(run_dir)["gaps"]) == len(WANTED)


def test_a_look_for_late_files_that_nobody_could_make_leaves_the_audit_open(run_dir, config, tmp_path):
    finish(run_dir)
    assert audit.run(run_dir, config)[0]
    (tmp_path / "sds").rename(tmp_path / "elsewhere")
    complete, text = audit.run(run_dir, config)
    assert (complete, written(run_dir)["state"]) == (False, "open")
    assert "every planned shard has ended; nobody could look for late files." in text
    assert text.endswith("incomplete")
    assert audit.run(run_dir, config, scan=False)[0], "nobody asked for it"


def test_files_that_are_gone_are_named(run_dir, config, tmp_path):
    finish(run_dir)
    waveform(tmp_path, "HOLE", "2024-05-07").unlink()
    assert audit.run(run_dir, config)[0], "its result stays"
    assert written(run_dir)["late"]["gone"] == ["2024-05-07/XX.HOLE..HH"]
    assert "2024-05-07/XX.HOLE..HHare gone" in "".join(Page(run_dir.audit.read_text("utf-8")).text)


@pytest.mark.parametrize("folds", [False, True])
def test_a_result_that_comes_while_the_audit_looks_is_no_breach(run_dir, config, monkeypatch, folds):
    """Shards are picked between the look at the ends and the count of the picks; in the end the volume is folded."""
    plan = results.planned(run_dir)
    left = results.missing(run_dir, plan)

    def while_it(does):
        function = getattr(tables, does)

        def meanwhile(path):
            if left:
                shard = left.pop()
                picks = fakes.picks(5, 1, shard.span_ns[0], station=shard.channel)
                results.write_part(run_dir, shard, picks, Outcome(shard.id, "picked", "", 5, 1.0))
                if folds and not left:
                    results.fold(run_dir, plan)
            return function(path)

        monkeypatch.setattr(tables, does, meanwhile)

    while_it("n_rows" if folds else "metadata")
    audit.run(run_dir, config, scan=False)
    books = written(run_dir)
    assert (books["breaches"], left) == ([], [])
    assert books["shards"]["picked"] == (16 if folds else 12), "what was folded meanwhile is looked at again"


def test_the_plan_and_the_notes_are_read_once(run_dir, config, monkeypatch):
    read = []

    def watched(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args: read.append((name, str(args[0]))) or function(*args))

    for module, name in ((tables, "read"), (tables, "labels"), (tries, "notes")):
        watched(module, name)
    for look in (status.look, lambda *args: audit.run(*args, scan=False)):
        read.clear()
        look(run_dir, config)
        assert [name for name, what in read if "shards.parquet" in what] == ["labels"]
        assert [name for name, _ in read].count("notes") == 1


def test_columns_without_a_shard_are_left_out(run_dir, config):
    def headings():
        audit.run(run_dir, config)
        table = run_dir.audit.read_text("utf-8").split('id="stations"')[1].split("</tr>")[0]
        return re.findall(r"<th>([\w ]+) <small>shards", table)

    assert headings() == ["planned", "picked", "empty", "failed", "set aside", "missing"]
    finish(run_dir)
    assert headings() == ["planned", "picked", "empty"]


def stranger(run_dir):
    shard = Shard(fakes.day(0), "XX.NEW.", "HH")
    results.write_part(run_dir, shard, Picks.empty(), Outcome(shard.id, "picked", "", 0, 1.0))


def twice(run_dir):
    [path] = run_dir.folder("outcomes").glob("*.parquet")
    rows = tables.read(path, Outcomes)
    with publish(path) as part:
        tables.write(part, Outcomes.concat([rows, replace(rows.take(slice(0, 1)), n_picks=np.zeros(1, np.int64))]))


def lose_picks(run_dir):
    [path] = run_dir.folder("picks").glob("*.parquet")
    with publish(path) as part:
        tables.write(part, tables.read(path, Picks).take(slice(1, None)))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (stranger, "1 shards have a result and are not in the plan, first 2024-05-06/XX.NEW..HH"),
        (twice, "1 shards have more than one result, first 2024-05-01/XX.ALL..HH"),
        (lose_picks, "the shards report 60 picks, the files hold 59"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_does_not_balance_is_said(run_dir, config, damage, sentence):
    if damage is not stranger:
        finish(run_dir)
    damage(run_dir)
    complete, text = audit.run(run_dir, config)
    books = written(run_dir)
    assert not complete
    assert sentence in books["breaches"]
    assert books["state"] == "bad"
    assert f"BREACH       {sentence}" in text
    assert "does not balance" in run_dir.audit.read_text("utf-8")


def test_the_page_is_harmless_whole_and_the_same_every_time(run_dir, config):
    audit.run(run_dir, config)
    text = run_dir.audit.read_text("utf-8")
    page = Page(text)
    assert page.tags["script"] == 1
    assert page.handlers == []
    assert [a for a in page.addresses if not a.startswith(("#", "data:image/png;base64,"))] == []
    assert {a[1:] for a in page.addresses if a.startswith("#")} >= {"account", "map", "reasons", "gaps"}
    assert all(page.ids[a[1:]] == 1 for a in page.addresses if re.fullmatch("#[a-z]+", a))
    assert "ValueError: <b>poison</b>" in "".join(page.text)
    assert "<b>poison" not in text
    audit.run(run_dir, config)
    assert run_dir.audit.read_text("utf-8") == text


def test_a_station_of_an_evil_name_is_harmless(tmp_path):
    run_dir, config = fabricate(tmp_path, n_days=2, n_stations=8, n_events=3, names=(EVIL,), title=f"</title>{EVIL}")
    audit.run(run_dir, config, scan=False)
    page = Page(run_dir.audit.read_text("utf-8"))
    assert page.tags["script"] == 1
    assert f"OX.{EVIL}" in "".join(page.text)


def test_a_run_without_a_plan_or_without_waveforms_is_refused(tmp_path, config):
    with pytest.raises(Incomplete, match="orcolat plan"):
        audit.run(create(tmp_path / "empty", config), config, scan=False)
    run_dir, imported = fabricate(tmp_path / "imported", n_events=3, n_stations=5, imported=True)
    with pytest.raises(ConfigError, match="nothing is known"):
        audit.run(run_dir, imported)


def test_a_file_of_outcomes_that_is_none_is_named(run_dir, config):
    finish(run_dir)
    [path] = run_dir.folder("outcomes").glob("*.parquet")
    path.write_bytes(b"PAR1")
    with pytest.raises(BadData, match=re.escape(str(path))):
        audit.run(run_dir, config, scan=False)


# ------------------------------------------------------------------------------------------------------------ status


def test_status_counts_as_the_audit_does(run_dir, config):
    complete, text = status.look(run_dir, config)
    assert not complete
    assert "18 planned = 12 picked + 2 empty + 1 failed + 1 set aside + 2 missing" in text
    assert "  aside    2024-05-05/XX.ALL..HH: ValueError" in text
    assert "more\n" not in text


def test_status_says_how_many_more_have_failed(run_dir, config):
    shards = [shard for shard in results.planned(run_dir).rows() if shard.id not in END]
    for shard in shards:
        run_dir.part(shard).unlink()
        tries.write(run_dir, shard, "BadData: no file", "")
    text = status.look(run_dir, config)[1]
    lines = text.splitlines()
    assert sum(line.startswith(("  failed ", "  aside ")) for line in lines) == 10
    assert f"           and {len(shards) + 2 - 10} more" in lines


def test_results_of_nobodys_shards_hide_no_missing_shard_from_status(run_dir, config):
    for station in ("XX.NEW.", "XX.NEW2.", "XX.NEW3."):
        shard = Shard(fakes.day(0), station, "HH")
        results.write_part(run_dir, shard, Picks.empty(), Outcome(shard.id, "picked", "", 0, 1.0))
    complete, text = status.look(run_dir, config)
    assert "18 planned = 12 picked + 2 empty + 1 failed + 1 set aside + 2 missing" in text
    assert "BREACH     3 shards have a result and are not in the plan, first 2024-05-06/XX.NEW..HH" in text
    assert not complete
    finish(run_dir)
    twice(run_dir)
    assert (
        "BREACH     1 shards have more than one result, first 2024-05-01/XX.ALL..HH" in status.look(run_dir, config)[1]
    )


def test_status_reads_a_run_once_and_sees_what_changed(tmp_path, monkeypatch):
    run_dir, config = fabricate(tmp_path, n_days=2, n_stations=6, n_events=8)
    picks, sites = results.picks(run_dir), tables.read(run_dir.stations, stations.Stations)
    made_of = provenance.catalogue(config, picks, sites)
    for path, kind in ((run_dir.events, "Events"), (run_dir.assignments, "Assignments")):
        rows = tables.read(path, getattr(report, kind))
        tables.write(path, rows, made_of)
    assert "associate    done" in status.look(run_dir, config)[1]
    monkeypatch.setattr(results, "picks", lambda run_dir: pytest.fail("the picks were read again"))
    assert "associate    done" in status.look(run_dir, config)[1]
    monkeypatch.undo()
    first = sorted(run_dir.folder("picks").glob("*.parquet"))[0]
    with publish(first) as part:
        tables.write(part, tables.read(first, Picks).take(slice(1, None)))
    assert "associate    missing or out of date" in status.look(run_dir, config)[1]


# ------------------------------------------------------------------------------------------------------------ inodes


@pytest.mark.parametrize(("n_stations", "n_days"), [(1, 500), (4, 130), (40, 13), (300, 2), (13, 400)])
def test_a_folded_run_has_a_file_for_fifty_shards_at_most(tmp_path, config, n_stations, n_days):
    shards = [Shard(fakes.day(d), f"XX.S{s:03}.", "HH") for d in range(n_days) for s in range(n_stations)]
    run_dir = create(tmp_path / "run", config)
    plan = fakes.as_table([(shard, 1) for shard in shards])
    tables.write(run_dir.shards, plan)
    tables.write(run_dir.stations, stations.read(config.stations.files))
    run_dir.weights.write_text("{}")
    run_dir.meter.mkdir()
    (run_dir.meter / "start.json").write_text("[]")
    for volume in np.unique(plan.volumes).tolist():
        rows = plan.take(plan.volumes == volume).rows()
        ends = [Outcome(shard.id, "picked", "", 0, 1.0) for shard in rows]
        results.write_day(run_dir, rows[0].day, Picks.empty(), ends)
    assert results.missing(run_dir, plan) == []
    files = [path for path in run_dir.root.rglob("*") if path.is_file()]
    assert len(files) <= len(shards) / 50
    assert max(len(list(path.iterdir())) for path in run_dir.root.rglob("*") if path.is_dir()) <= 4096


def test_a_run_of_a_million_shards_has_no_folder_of_more_than_4096_files():
    """Of one station in 2,700 years, and of a thousand in three: only the days of volumes are looked at."""
    for n_stations, n_days in ((1, 1_000_000), (1000, 1000)):
        day = np.repeat((np.arange(n_days) + np.datetime64("1970-01-01")).astype(str), n_stations)
        named = planning.volumes(day)
        assert len(np.unique(named)) <= 4096
