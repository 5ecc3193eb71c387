"""What of a plan is still to be picked, as far as one process knows; it looks again where it claims."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from pipeline.errors import Incomplete
from pipeline.formats import results, tries
from pipeline.records import Int, Shard, Shards
from pipeline.rundir import RunDir

BLOCK = 16  # shards of the largest block
BLOCKS = 64  # of a plan at least, where it has as many shards


@dataclass(frozen=True, slots=True)
class Seen:
    """The plan's file as it was read: another one has another stamp."""

    plan: Shards
    stamp: tuple[int, int, int]
    claims: Path  # where whoever changes the plan claims it

    @classmethod
    def of(cls, run_dir: RunDir, claims: Path | None = None) -> Self:
        """``claims`` None: they lie in ``run_dir``. Raises Incomplete if there is no plan, or it is being replaced."""
        before, plan = _stamp(run_dir), results.planned(run_dir)
        if before != _stamp(run_dir):
            raise Incomplete(f"{run_dir.shards}: the plan changed while it was read: run again")
        return cls(plan, before, claims or run_dir.claims)

    def require_same(self, run_dir: RunDir) -> None:
        """Raises Incomplete if there is another plan by now, or one is being made."""
        if self.stamp != _stamp(run_dir) or (self.claims / UPDATE).exists():
            raise Incomplete(f"{run_dir.shards}: the plan is not what it was: `orcolat update` changed it; run again")


UPDATE = "update"  # the claim under which a plan is changed


def _stamp(run_dir: RunDir) -> tuple[int, int, int]:
    try:
        found = run_dir.shards.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return found.st_ino, found.st_mtime_ns, found.st_size


def to_try(run_dir: RunDir, plan: Shards, max_tries: int) -> Int:
    """The rows of shards that have no result and are not set aside."""
    aside = plan.rows_of(tries.aside(run_dir, max_tries))
    return np.setdiff1d(results.open_rows(run_dir, plan), aside, assume_unique=True)


class Todo:
    """Blocks of consecutive shards of a plan. Which shards make a block depends on the plan alone."""

    def __init__(self, run_dir: RunDir, seen: Seen, rows: Int, max_tries: int, start: str) -> None:
        """``rows`` as `to_try` found them; ``start`` names this start of the stage, which tries a shard once."""
        self._run_dir, self._seen, self._max_tries, self._start = run_dir, seen, max_tries, start
        self._open = np.zeros(len(seen.plan), np.bool_)
        self._open[rows] = True
        self._size = int(np.clip(len(seen.plan) // BLOCKS, 1, BLOCK))
        self.blocks: list[int] = np.unique(rows // self._size).tolist()

    @property
    def plan(self) -> Shards:
        return self._seen.plan

    def is_open(self, block: int) -> bool:
        """Whether a shard of ``block`` was still to be done when this process looked last."""
        return bool(self._open[self._rows(block)].any())

    def suspects(self) -> list[int]:
        """Blocks with a shard that is still to be tried, and of which or beside which a process died."""
        ids = [note.shard for note in tries.notes(self._run_dir) if note.died and self._wanted(note)]
        rows = results.open_rows(self._run_dir, self.plan, self.plan.rows_of(ids))
        blocks: list[int] = np.unique(rows // self._size).tolist()
        return blocks

    def left(self, block: int, suspects: bool = False) -> list[Shard]:
        """The shards of ``block`` that are to be tried; ``suspects``: those alone of which or beside which a process
        died, or else none of these. Raises Incomplete if the plan is not what it was."""
        self._seen.require_same(self._run_dir)
        plan, rows = self._seen.plan, self._rows(block)
        days = np.unique(plan.day[rows]).tolist()
        for day in days:
            todays = np.arange(*(int(np.searchsorted(plan.day, day, side)) for side in ("left", "right")))
            self._open[np.setdiff1d(todays, results.open_rows(self._run_dir, plan, todays))] = False
        notes = {note.shard: note for note in tries.notes(self._run_dir, days)}
        shards = [plan.shard(row) for row in range(rows.start, rows.stop) if self._open[row]]
        died = {note.shard for note in notes.values() if note.died}
        return [s for s in shards if self._wanted(notes.get(s.id)) and (s.id in died) == suspects]

    def _wanted(self, note: tries.Note | None) -> bool:
        return note is None or not (note.is_aside(self._max_tries) or note.start == self._start)

    def _rows(self, block: int) -> slice:
        return slice(block * self._size, min((block + 1) * self._size, len(self._open)))
