"""The history of nights: opened by plain SQLite, written by many at once, refused where it is somebody else's."""

import json
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from pipeline.errors import BadData, ConfigError
from pipeline.formats import history
from pipeline.records import DAY_NS, StationHealth
from tests.test_compare import table


def night(number, **changed):
    """The night ``number``, with two scores and one station."""
    station = {"day": "2024-05-06", "station": "OX.CIMO", "status": "bad", "reason": "no pick", "hours": 24.0}
    empty = table(StationHealth, 1).as_dict()
    one = {name: None if isinstance(v[0], float) else v[0].item() for name, v in empty.items()} | station
    check = {"score": "recall", "against": "limit", "value": 0.5, "limit": 0.8, "state": "fail", "reason": "low"}
    made = {
        "version": history.VERSION,
        **{name: "" for name, kind in history.NIGHT.items() if kind == "TEXT"},
        **{name: 0 for name, kind in history.NIGHT.items() if kind == "INTEGER"},
        **{"name": f"net-{number:04}", "series": "net", "gate": "fail", "accepted": None, "recorded_ns": 1000 + number},
        **{"start_ns": number * DAY_NS, "end_ns": (number + 1) * DAY_NS, "start": f"night {number}"},
        "scores": [
            {"name": "precision", "value": None, "low": None, "high": None, "n": 0},
            {"name": "recall", "value": number / 100, "low": 0.0, "high": 1.0, "n": number},
        ],
        "checks": [check],
        "stations": [one],
        **changed,
    }
    return {**made, "key": history.key_of(made["name"], (made["start_ns"], made["end_ns"]), made["digest"])}


def rows(path, query):
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def test_any_sqlite_reads_it_and_what_went_in_comes_out(tmp_path):
    path = tmp_path / "history.sqlite"
    for number in (3, 1, 2):
        history.record(path, night(number))
    assert rows(path, "SELECT name, gate, accepted FROM nights ORDER BY start_ns") == [
        (f"net-{n:04}", "fail", None) for n in (1, 2, 3)
    ]
    joined = "SELECT n.name, s.value FROM nights n JOIN scores s USING (key) WHERE s.name = 'recall' ORDER BY 1"
    assert rows(path, joined) == [(f"net-{n:04}", n / 100) for n in (1, 2, 3)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert rows(path, "PRAGMA journal_mode") == [("delete",)]  # no -wal beside it
    assert history.read(path) == {each["key"]: each for each in map(night, (1, 2, 3))}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["history.sqlite", "history.sqlite.notes"]


def test_a_night_that_comes_again_takes_its_own_place(tmp_path):
    path = tmp_path / "history.sqlite"
    history.record(path, night(1))
    before = path.read_bytes(), path.stat().st_mtime_ns
    history.record(path, night(1, recorded_ns=5))  # nothing new
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    history.record(path, night(1, gate="pass"))
    assert rows(path, "SELECT gate FROM nights") == [("pass",)]
    history.record(path, night(1, digest="another"))
    assert len(history.read(path)) == 2


def test_the_same_nights_are_the_same_bytes_in_any_order(tmp_path):
    one, other = tmp_path / "a.sqlite", tmp_path / "b.sqlite"
    for number in range(6):
        history.record(one, night(number))
        history.record(other, night(5 - number))
    assert one.read_bytes() == other.read_bytes()


def test_none_is_lost_where_many_finish_at_once(tmp_path):
    path = tmp_path / "shared" / "history.sqlite"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: history.record(path, night(number)), range(24)))
    assert {each["name"] for each in history.read(path).values()} == {f"net-{n:04}" for n in range(24)}


WRITER = """
import sys
from pathlib import Path
from pipeline.formats import history
from tests.test_history import night
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    history.record(Path(sys.argv[1]), night(number))
"""


def test_none_is_lost_among_processes(tmp_path):
    path = tmp_path / "history.sqlite"
    started = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(first), str(first + 5)])
        for first in range(0, 15, 5)
    ]
    assert [one.wait(60) for one in started] == [0] * 3
    assert len(rows(path, "SELECT * FROM nights")) == 15


def test_whoever_is_overtaken_looks_again(tmp_path, monkeypatch):
    """A reads, B writes all of its night, A publishes what it had read: B's night is missing, and A sees that."""
    path, first = tmp_path / "history.sqlite", [True]
    history.record(path, night(0))
    make = history._database

    def overtaken(nights):
        made = make(nights)
        if first:
            first.clear()
            history.record(path, night(2))
            assert len(history.read(path)) == 3, "B has seen the note of A, too"
        return made

    monkeypatch.setattr(history, "_database", overtaken)
    history.record(path, night(1))
    assert {each["name"] for each in history.read(path).values()} == {"net-0000", "net-0001", "net-0002"}


def test_a_lost_database_is_made_again_and_lost_notes_stay_in_it(tmp_path):
    path = tmp_path / "history.sqlite"
    for number in range(3):
        history.record(path, night(number))
    whole = path.read_bytes()
    path.unlink()
    history.record(path, night(2))
    assert path.read_bytes() == whole
    for note in (tmp_path / "history.sqlite.notes").iterdir():
        note.unlink()
    history.record(path, night(3))
    assert len(history.read(path)) == 4


def of_version(path, version):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE nights (key)")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.commit()


def test_what_is_not_ours_is_refused_and_stays(tmp_path):
    newer, foreign, damaged = (tmp_path / name for name in ("newer.sqlite", "foreign.sqlite", "damaged.sqlite"))
    of_version(newer, history.VERSION + 1)
    of_version(foreign, 0)
    damaged.write_text("event_id,magnitude\n" * 400)
    for path, error, message in (
        (newer, ConfigError, r"newer version of orcolat \(its schema is 2, this one knows 1\)"),
        (foreign, ConfigError, "no history of nights"),
        (damaged, BadData, "not a history of nights, or damaged"),
    ):
        before = path.read_bytes()
        with pytest.raises(error, match=message):
            history.record(path, night(1))
        assert path.read_bytes() == before
        assert not path.with_name(f"{path.name}.notes").exists()


def test_a_broken_note_is_named(tmp_path):
    path = tmp_path / "history.sqlite"
    history.record(path, night(1))
    (note,) = (tmp_path / "history.sqlite.notes").iterdir()
    note.write_text("{")
    with pytest.raises(BadData, match=r"net-0001.*not a note of a night"):
        history.record(path, night(2))


def test_the_last_nights_are_whole_and_of_the_series_and_the_latest_of_their_day(tmp_path):
    path = tmp_path / "history.sqlite"
    history.record(path, night(1))
    history.record(path, night(2, shards_missing=4))
    history.record(path, night(3, digest="first", gate="pass", recorded_ns=1))
    history.record(path, night(3, digest="second", recorded_ns=2))
    history.record(path, night(4, name="other-0004", series="other"))
    history.record(path, night(5))
    found = history.last(path, "net", 5 * DAY_NS, 10)
    assert [(each["name"], each["digest"]) for each in found] == [("net-0001", ""), ("net-0003", "second")]
    assert history.last(path, "net", 5 * DAY_NS, 0) == []
    assert [each["name"] for each in history.last(path, "net", 6 * DAY_NS, 1)] == ["net-0005"]
    scores = history.scores_of(found)
    assert scores.value["recall"].tolist() == [0.01, 0.03]
    assert np.isnan(scores.value["precision"]).all()
    stations = history.stations_of(found)
    assert (stations.station.tolist(), stations.hours.tolist()) == (["OX.CIMO"] * 2, [24.0] * 2)
    assert np.isnan(stations.median_p_s).all()
    assert len(history.stations_of([])) == 0


def test_the_notes_are_plain_json(tmp_path):
    history.record(tmp_path / "h.sqlite", night(7))
    (note,) = (tmp_path / "h.sqlite.notes").iterdir()
    assert json.loads(note.read_text())["scores"][1]["value"] == 0.07


@pytest.mark.parametrize(
    ("name", "series"),
    [("ogs-2024-05-06", "ogs"), ("ogs-2024", "ogs-2024"), ("a-2024-01-01-2024-05-06", "a-2024-01-01")],
)
def test_all_nights_of_a_configuration_are_one_series(name, series):
    assert history.series_of(name) == series
