"""What each result was made of, as digests: a result whose inputs have changed is out of date and made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import get_args

from pipeline.config import Config
from pipeline.errors import ConfigError, Storage
from pipeline.formats import quality_table, results, tables
from pipeline.records import Picks, Stations, Table
from pipeline.rundir import Folder, RunDir, publish, require


def of_tables(*records: Table) -> str:
    """SHA-256 over every value of ``records``, in their order."""
    total = hashlib.sha256()
    for table in records:
        for name, values in table.as_dict().items():
            total.update(f"{name} {len(values)} ".encode())
            total.update("\n".join(values.tolist()).encode() if values.dtype.kind == "U" else values.tobytes())
    return total.hexdigest()


class Memo:
    """Digests of files as they were when they were last read, so that `status` need not read a whole run every time.

    A cache: a file counts as unchanged while its size, time of change and number on the disk are the same.
    """

    def __init__(self, run_dir: RunDir) -> None:
        self._path = run_dir.digests
        self._before = _json(self._path) if self._path.exists() else {}
        self._now: dict[str, object] = {}

    def recall(self, name: str, paths: Sequence[Path], make: Callable[[], str]) -> str:
        """What ``make`` made of ``paths``, under this name, when they were as they are now; or what it makes now."""
        stamp = hashlib.sha256("\n".join(_stamp(path) for path in paths).encode()).hexdigest()
        known = self._now.get(name) or self._before.get(name)
        digest = known[stamp] if isinstance(known, dict) and stamp in known else make()
        self._now[name] = {stamp: digest}
        return str(digest)

    def save(self) -> None:
        """Keep what was asked for; where that is not possible, nothing is lost but time."""
        if self._now != self._before:
            with suppress(OSError, Storage), publish(self._path) as part:
                part.write_text(json.dumps(self._now), "utf-8")


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e}") from e
    return f"{path} {found.st_size} {found.st_mtime_ns} {found.st_ino}"


def of_files(paths: list[Path], memo: Memo | None = None) -> str:
    """SHA-256 over the names and bytes of ``paths``. Raises ConfigError if one cannot be read."""
    total = hashlib.sha256()
    for path in paths:
        digest = memo.recall(str(path), [path], partial(_of_file, path)) if memo else _of_file(path)
        total.update(f"{path.name}\n{digest}\n".encode())
    return total.hexdigest()


def _of_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e}") from e


def catalogue(config: Config, picks: Picks, stations: Stations) -> dict[str, str]:
    """What a catalogue is made of; `associate` writes it into both files of the catalogue."""
    return _catalogue(config, of_tables(picks, stations))


def is_current(run_dir: RunDir, config: Config, memo: Memo) -> bool:
    """Whether there is a catalogue and it is made of what the run holds now."""
    if not (run_dir.events.exists() and run_dir.assignments.exists()):
        return False

    def inputs() -> str:
        return of_tables(results.picks(run_dir), tables.read(run_dir.stations, Stations))

    files = [*results.pick_files(run_dir), run_dir.stations]
    return has_catalogue(run_dir, _catalogue(config, memo.recall("picks and stations", files, inputs)))


def _catalogue(config: Config, inputs: str) -> dict[str, str]:
    made_of = {"config": config.digest, "inputs": inputs}
    if config.associate.velocity_model is not None:
        made_of["velocity_model"] = of_files([config.associate.velocity_model])
    return made_of


def has_catalogue(run_dir: RunDir, made_of: dict[str, str]) -> bool:
    """Whether the catalogue is there and made of this."""
    paths = (run_dir.assignments, run_dir.events)
    return all(path.exists() and made_of.items() <= tables.metadata(path).items() for path in paths)


def origins(run_dir: RunDir, config: Config, memo: Memo | None = None) -> dict[str, str]:
    """What the locations are made of. Raises Incomplete if there is no catalogue yet.

    Instrument responses are none of it: what was measured with them lies in the picks, and these in the catalogue.
    """
    paths = [require(run_dir.events, "associate"), require(run_dir.assignments, "associate")]
    made_of = {"config": config.digest, "catalogue": of_files(paths, memo)}
    inputs = {
        "velocity_model": config.locate.over(config.associate).velocity_model,
        "station_terms": config.locate.station_terms_file,
        "magnitude_table": config.magnitude.table,
        "magnitude_corrections": config.magnitude.station_corrections,
        "calibration": config.quality.calibration or quality_table.SHIPPED,
    }
    return made_of | {name: of_files([path], memo) for name, path in inputs.items() if path is not None}


def has_origins(run_dir: RunDir, made_of: dict[str, str]) -> bool:
    """Whether all that `locate` writes is there and made of this."""
    paths = (run_dir.station_terms, run_dir.arrivals, run_dir.origins)
    return all(path.exists() and made_of.items() <= tables.metadata(path).items() for path in paths)


def comparison(run_dir: RunDir, config: Config, memo: Memo | None = None) -> dict[str, str]:
    """What a comparison is made of. Raises Incomplete or ConfigError if a file is missing."""
    paths = [require(run_dir.events, "associate"), require(run_dir.assignments, "associate")]
    paths += [require(run_dir.stations, "plan"), *results.pick_files(run_dir)]
    paths += [path for path in (run_dir.origins, run_dir.decisions) if path.exists()]
    references = (config.compare.reference_events, config.compare.reference_picks)
    return {
        "config_digest": config.digest,
        "inputs_digest": of_files(paths + [reference.path for reference in references if reference], memo),
    }


def has_comparison(run_dir: RunDir, made_of: dict[str, str]) -> bool:
    """Whether a whole comparison is there and made of this; a scorecard that cannot be read is none."""
    if not all(p.exists() for p in (run_dir.scorecard, run_dir.compared("events"), run_dir.compared("picks"))):
        return False
    return made_of.items() <= _json(run_dir.scorecard).items()


def reasons(run_dir: RunDir, config: Config, memo: Memo | None = None) -> dict[str, str]:
    """What the reasons of missed events are made of: a comparison, and how the shards ended."""
    ends = sorted(run_dir.folder("outcomes").glob("[!.]*.parquet"))
    inputs = {"compared_digest": of_files([run_dir.compared("events"), run_dir.shards, *ends], memo)}
    return {**comparison(run_dir, config, memo), **inputs}


def has_reasons(run_dir: RunDir, made_of: dict[str, str]) -> bool:
    """Whether the table of missed events is there and made of this."""
    path = run_dir.compared("missed")
    return path.exists() and made_of.items() <= tables.metadata(path).items()


def report(run_dir: RunDir, memo: Memo | None = None) -> str:
    """What a report is made of: every file of the run that it reads, those that are there."""
    single = [run_dir.shards, run_dir.stations, run_dir.imported, run_dir.weights]
    single += [run_dir.events, run_dir.assignments, run_dir.origins, run_dir.arrivals, run_dir.scorecard]
    single += [run_dir.gate, run_dir.health, run_dir.compared("missed"), run_dir.station_terms, run_dir.decisions]
    folders = [sorted(run_dir.folder(kind).rglob("*.*")) for kind in get_args(Folder)]
    found = [path for paths in (single, *folders) for path in paths if path.is_file() and path.name[0] != "."]
    return of_files(sorted(set(found)), memo)


def has_report(run_dir: RunDir, memo: Memo | None = None) -> bool:
    """Whether the page is there and made of what the run holds now."""
    if not (run_dir.report.exists() and run_dir.account.exists()):
        return False
    return _json(run_dir.account).get("inputs_digest") == report(run_dir, memo)


def _json(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
