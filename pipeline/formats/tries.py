"""Notes on shards that failed, ``failed/DAY/CHANNEL.json``: reason, traceback, and how often they were tried."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path

from pipeline.errors import kept_in
from pipeline.records import Shard
from pipeline.rundir import RunDir, publish

DIED = "the process died while it was being picked (killed, out of memory, or a lost node)"


@dataclass(frozen=True, slots=True)
class Note:
    """How the last try of a shard failed."""

    shard: str
    reason: str
    traceback: str = ""
    tries: int = 1
    start: str = ""  # of the pick stage, which tries a shard once
    at_once: bool = False  # set aside without another try

    @property
    def died(self) -> bool:
        """Whether nobody knows that it was the shard's fault."""
        return self.reason == DIED

    def is_aside(self, max_tries: int) -> bool:
        """Whether the shard was tried so often that it is tried no more."""
        return self.at_once or self.tries >= max_tries


def write(run_dir: RunDir, shard: Shard, reason: str, traceback: str, start: str = "") -> Note:
    """One more failed try."""
    before = _read(run_dir.failure(shard))
    note = Note(shard.id, reason, traceback, before.tries + 1 if before else 1, start)
    _publish(run_dir, shard, note)
    return note


def put(run_dir: RunDir, shard: Shard, note: Note) -> None:
    """Publish a note, unless it is there."""
    if _read(run_dir.failure(shard)) != note:
        _publish(run_dir, shard, note)


def _publish(run_dir: RunDir, shard: Shard, note: Note) -> None:
    told = {name: value for name, value in asdict(note).items() if value is not False}
    with publish(run_dir.failure(shard)) as part:
        part.write_text(json.dumps(told, indent=1))


def notes(run_dir: RunDir, days: Sequence[str] | None = None) -> list[Note]:
    """All of them, or those of ``days``, sorted by shard; also of shards that have a result by now."""
    return sorted((note for path in _paths(run_dir, days) if (note := _read(path))), key=lambda note: note.shard)


def noted(run_dir: RunDir, days: Sequence[str]) -> list[str]:
    """Ids of the shards of ``days`` of which there are notes."""
    return [_shard(path) for path in _paths(run_dir, days)]


def _paths(run_dir: RunDir, days: Sequence[str] | None) -> Iterator[Path]:
    folder = run_dir.folder("failed")
    if days is None:
        return folder.glob("*/[!.]*.json")
    return (path for day in days for path in (folder / day).glob("[!.]*.json"))


def _shard(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def aside(run_dir: RunDir, max_tries: int, days: Sequence[str] | None = None) -> list[str]:
    """Ids of the shards, of all or of ``days``, that are tried no more."""
    return [note.shard for note in notes(run_dir, days) if note.is_aside(max_tries)]


def count(run_dir: RunDir, limit: int) -> int:
    """How many there are; counted no farther than one more than ``limit``."""
    return sum(1 for _ in islice(_paths(run_dir, None), limit + 1))


def forget(run_dir: RunDir, shards: Sequence[str]) -> None:
    """Remove the notes of ``shards``: they are tried again as if for the first time. Raises Storage."""
    for id_ in shards:
        path = run_dir.failure(Shard.named(id_))
        with kept_in(path):
            path.unlink(missing_ok=True)


def _read(path: Path) -> Note | None:
    """None if there is none (any more); one that cannot be read counts as one try."""
    try:
        text = path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return None
    try:
        found = json.loads(text)
        return Note(**{f.name: found[f.name] for f in fields(Note) if f.name in found})
    except (ValueError, TypeError):
        return Note(_shard(path), "the note of its failure cannot be read")
