"""What each result was made of, as digests: a result whose inputs have changed is out of date and made again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import get_args

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.formats import results, tables
from pipeline.records import Picks, Stations, Table
from pipeline.rundir import Folder, RunDir, require


def of_tables(*records: Table) -> str:
    """SHA-256 over every value of ``records``, in their order."""
    total = hashlib.sha256()
    for table in records:
        for name, values in table.as_dict().items():
            total.update(f"{name} {len(values)} ".encode())
            total.update("\n".join(values.tolist()).encode() if values.dtype.kind == "U" else values.tobytes())
    return total.hexdigest()


def of_files(paths: list[Path]) -> str:
    """SHA-256 over the names and bytes of ``paths``. Raises ConfigError if one cannot be read."""
    total = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                total.update(f"{path.name}\n{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        except OSError as e:
            raise ConfigError(f"{path}: cannot be read: {e}") from e
    return total.hexdigest()


def catalogue(config: Config, picks: Picks, stations: Stations) -> dict[str, str]:
    """What a catalogue is made of; `associate` writes it into both files of the catalogue."""
    made_of = {"config": config.digest, "inputs": of_tables(picks, stations)}
    if config.associate.velocity_model is not None:
        made_of["velocity_model"] = of_files([config.associate.velocity_model])
    return made_of


def has_catalogue(run_dir: RunDir, made_of: dict[str, str]) -> bool:
    """Whether the catalogue is there and made of this."""
    paths = (run_dir.assignments, run_dir.events)
    return all(path.exists() and made_of.items() <= tables.metadata(path).items() for path in paths)


def comparison(run_dir: RunDir, config: Config) -> dict[str, str]:
    """What a comparison is made of. Raises Incomplete or ConfigError if a file is missing."""
    paths = [require(run_dir.events, "associate"), require(run_dir.assignments, "associate")]
    paths += [require(run_dir.stations, "plan"), *results.pick_files(run_dir)]
    references = (config.compare.reference_events, config.compare.reference_picks)
    return {
        "config_digest": config.digest,
        "inputs_digest": of_files(paths + [reference.path for reference in references if reference]),
    }


def has_comparison(run_dir: RunDir, made_of: dict[str, str]) -> bool:
    """Whether a whole comparison is there and made of this; a scorecard that cannot be read is none."""
    if not all(p.exists() for p in (run_dir.scorecard, run_dir.compared("events"), run_dir.compared("picks"))):
        return False
    return made_of.items() <= _json(run_dir.scorecard).items()


def report(run_dir: RunDir) -> str:
    """What a report is made of: every file of the run that it reads, those that are there."""
    single = [run_dir.shards, run_dir.stations, run_dir.imported, run_dir.weights]
    single += [run_dir.events, run_dir.assignments, run_dir.scorecard]
    folders = [sorted(run_dir.folder(kind).rglob("*.*")) for kind in get_args(Folder)]
    found = [path for paths in (single, *folders) for path in paths if path.is_file() and path.name[0] != "."]
    return of_files(sorted(set(found)))


def has_report(run_dir: RunDir) -> bool:
    """Whether the page is there and made of what the run holds now."""
    if not (run_dir.report.exists() and run_dir.account.exists()):
        return False
    return _json(run_dir.account).get("inputs_digest") == report(run_dir)


def _json(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
