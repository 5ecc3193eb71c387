"""The history of nights: one SQLite file that any number of runs may write to, on any file system. See decision 026.

SQLite never touches the file: it is read whole into memory, and written whole, aside, and renamed. What makes that safe
without locks are the *notes*, one small JSON file a run in the folder ``FILE.notes``, which are published first: the
database is made of itself and the notes, and whoever has published it looks again whether a note is missing in it. So
of two that finish at once the last one has both, and a database that was lost is made again from its notes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.errors import BadData, ConfigError, Incomplete, is_storage, storage
from pipeline.formats.patience import patient
from pipeline.maths.gate import MEASURES, Before
from pipeline.records import StationHealth
from pipeline.rundir import RunDir, publish

log = logging.getLogger(__name__)
Night = dict[str, Any]  # one row of `nights`, with "scores", "checks" and "stations" as in `ROWS`
VERSION = 1
ROUNDS = 50  # of looking again, at most
COUNTS = (
    *("events_ours", "events_reference", "events_matched", "picks_ours", "picks_reference", "picks_matched"),
    *("accepted", "rejected", "undecided", "shards_missing", "stations_watch", "stations_bad"),
)
SQL = {"str": "TEXT", "int64": "INTEGER", "float64": "REAL"}
NIGHT = {
    **dict.fromkeys(("key", "name", "series", "start", "end", "digest", "run_dir", "gate", "verdict"), "TEXT"),
    **dict.fromkeys(("start_ns", "end_ns", "recorded_ns", *COUNTS), "INTEGER"),
}
ROWS = {  # what there is several of in a night: columns, and those that make a row one row
    "scores": ({"name": "TEXT", "value": "REAL", "low": "REAL", "high": "REAL", "n": "INTEGER"}, ("name",)),
    "checks": (
        {"score": "TEXT", "against": "TEXT", "value": "REAL", "limit": "REAL", "state": "TEXT", "reason": "TEXT"},
        ("score", "against"),
    ),
    "stations": ({f.name: SQL[f.metadata["dtype"]] for f in StationHealth.columns()}, ("day", "station")),
}


def path_of(run_dir: RunDir, config: Config) -> Path:
    """Where the nights of this run are kept: `gate.history`, or beside the run directory."""
    return config.gate.history or run_dir.root.parent / "history.sqlite"


def series_of(name: str) -> str:
    """The name that all nights of a configuration share."""
    return re.sub(r"-\d{4}-\d{2}-\d{2}$", "", name)


def key_of(name: str, span_ns: tuple[int, int], digest: str) -> str:
    """What makes a run one run: its name, its period, and all that can change its catalogue."""
    return hashlib.sha256(f"{name} {span_ns[0]} {span_ns[1]} {digest}".encode()).hexdigest()[:16]


def record(path: Path, night: Night) -> None:
    """Put ``night`` into the database, in place of what it has of the same key.

    Raises as `read` does, Storage, and Incomplete if others write all the time.
    """
    read(path)  # refuses what is no history before anything is written
    note = _notes(path) / f"{night['name']}.{night['key']}.json"
    if _content(_json(note)) != _content(night):
        with publish(note) as part:
            part.write_text(json.dumps(night, sort_keys=True, allow_nan=False) + "\n", "utf-8")
    for _ in range(ROUNDS):
        there = read(path)
        whole = {**there, **{each["key"]: each for each in _read_notes(path)}}
        if whole == there:
            return
        with publish(path) as part:
            part.write_bytes(_database([whole[key] for key in sorted(whole)]))
    raise Incomplete(f"{path}: others write to it all the time: run again in a minute; the night is safe in {note}")


def _content(night: Night | None) -> Night | None:
    """A night without the time when it was recorded."""
    return {name: value for name, value in night.items() if name != "recorded_ns"} if night else None


def _notes(path: Path) -> Path:
    return path.with_name(f"{path.name}.notes")


def _read_notes(path: Path) -> list[Night]:
    found = [_json(note) for note in sorted(_notes(path).glob("[!.]*.json"))]
    return [night for night in found if night is not None and night.get("version") == VERSION]


@patient
def _json(path: Path) -> Night | None:
    """None if there is no such file."""
    try:
        found: Night = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as e:
        raise BadData(f"{path}: not a note of a night: {e}; delete it, and run `orcolat gate` on that run again") from e
    return found


@patient
def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise storage(e, path) if is_storage(e) else e from e


def _database(nights: Iterable[Night]) -> bytes:
    """The same nights give the same bytes."""
    with closing(sqlite3.connect(":memory:")) as connection, connection:
        _create(connection)
        for night in nights:
            _insert(connection, "nights", NIGHT, night)
            for name, (columns, _) in ROWS.items():
                for row in night[name]:
                    _insert(connection, name, {"key": "TEXT", **columns}, {"key": night["key"], **row})
        connection.commit()
        return connection.serialize()


def _create(connection: sqlite3.Connection) -> None:
    columns = ", ".join(f'"{name}" {kind}' for name, kind in NIGHT.items())
    connection.execute(f"CREATE TABLE nights ({columns}, PRIMARY KEY (key)) WITHOUT ROWID")
    for table, (own, unique) in ROWS.items():
        columns = ", ".join(f'"{name}" {kind}' for name, kind in {"key": "TEXT REFERENCES nights", **own}.items())
        keys = ", ".join(f'"{name}"' for name in ("key", *unique))
        connection.execute(f"CREATE TABLE {table} ({columns}, PRIMARY KEY ({keys})) WITHOUT ROWID")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _insert(connection: sqlite3.Connection, table: str, columns: dict[str, str], row: Night) -> None:
    names, marks = ", ".join(f'"{name}"' for name in columns), ", ".join("?" * len(columns))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", [row[name] for name in columns])


def read(path: Path) -> dict[str, Night]:
    """Every night by its key; none if there is no file yet.

    Raises BadData if the file is no history of nights, ConfigError if it is one of another version.
    """
    raw = _bytes(path)
    if raw is None:
        return {}
    try:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.deserialize(raw)
            _require_version(path, int(connection.execute("PRAGMA user_version").fetchone()[0]))
            return _nights(connection)
    except sqlite3.Error as e:
        raise BadData(
            f"{path}: not a history of nights, or damaged ({e}): move it away, and the next night makes it again from "
            f"{_notes(path)}"
        ) from e


def _require_version(path: Path, version: int) -> None:
    if version == VERSION:
        return
    newer = version > VERSION
    remedy = "use that version, or name another file in gate.history" if newer else "name another file in gate.history"
    what = "written by a newer version of orcolat" if newer else "no history of nights"
    raise ConfigError(f"{path}: {what} (its schema is {version}, this one knows {VERSION}): {remedy}")


def _nights(connection: sqlite3.Connection) -> dict[str, Night]:
    connection.row_factory = sqlite3.Row
    found = {row["key"]: {"version": VERSION, **dict(row)} for row in connection.execute("SELECT * FROM nights")}
    for night in found.values():
        night.update({name: [] for name in ROWS})
    for name, (_, unique) in ROWS.items():
        for row in connection.execute(f"SELECT * FROM {name} ORDER BY key, {', '.join(unique)}"):
            values = dict(row)
            found[values.pop("key")][name].append(values)
    return found


def last(path: Path, series: str, until_ns: int, n: int) -> list[Night]:
    """The last ``n`` whole nights of ``series`` that ended by ``until_ns``, by time; of one night the latest record."""
    nights = (night for night in read(path).values() if night["series"] == series and night["end_ns"] <= until_ns)
    of_start: dict[int, Night] = {}
    for night in sorted(nights, key=lambda night: (night["recorded_ns"], night["key"])):
        of_start[night["start_ns"]] = night
    whole = [of_start[start] for start in sorted(of_start) if not of_start[start]["shards_missing"]]
    return whole[-n:] if n else []


def values(night: Night) -> dict[str, float | None]:
    """The value of each score of a night, None where it is not known."""
    known = {row["name"]: row["value"] for row in night["scores"]}
    return {measure.name: known.get(measure.name) for measure in MEASURES}


def scores_of(nights: list[Night]) -> Before:
    """The scores of nights as arrays, one value a night."""
    found = [{row["name"]: row for row in night["scores"]} for night in nights]
    value, n = {}, {}
    for name in (measure.name for measure in MEASURES):
        rows = [each.get(name, {"value": None, "n": 0}) for each in found]
        value[name] = np.array([row["value"] for row in rows], np.float64)
        n[name] = np.array([row["n"] for row in rows], np.float64)
    return Before(value, n)


def stations_of(nights: list[Night]) -> StationHealth:
    """How the stations did in nights."""
    rows = [row for night in nights for row in night["stations"]]
    if not rows:
        return StationHealth.empty()
    kinds = {f.name: f.metadata["dtype"] for f in StationHealth.columns()}
    columns = {
        name: np.array([row[name] for row in rows], np.str_ if kind == "str" else kind) for name, kind in kinds.items()
    }
    return StationHealth(**columns).ordered()
