"""Dealing work out by claims: an endless hand of shards that ends when nothing is free any more."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from pipeline.cluster import stop
from pipeline.cluster.claims import Claim, Claims
from pipeline.records import Shard

log = logging.getLogger(__name__)
R = TypeVar("R")
NAP_S = 0.5


@dataclass(frozen=True, slots=True)
class Task:
    """One shard to be picked under a claim."""

    shard: Shard
    claim: Claim

    def begin(self) -> None:
        self.claim.begin(self.shard.id)

    def done(self) -> None:
        """It has a result, or a note of its failure."""
        self.claim.done(self.shard.id)


def deal(
    claims: Claims, blocks: Sequence[int], is_open: Callable[[int], bool], left: Callable[[int], Sequence[Shard]]
) -> Iterator[Task | None]:
    """Claim one block after the other and hand out what is ``left`` of it, until this process is told to stop, or each
    block is done or in the hands of a living process. None: there is nothing at the moment, ask again after `NAP_S`.

    ``is_open`` says from memory whether a look is worth it, ``left`` looks.
    """
    todo = list(blocks)
    while todo:
        held: list[int] = []
        for block in todo:
            if stop.asked():
                return
            if not is_open(block):
                continue
            claim = claims.take(_name(block))
            if claim is None or not (yield from _of_block(claim, left(block))):
                held.append(block)
        if len(held) == len(todo):
            held = [block for block in held if _name(block) in claims.suspects]
            if held:
                yield None
        todo = held


def _name(block: int) -> str:
    return f"block-{block:07d}"


def _of_block(claim: Claim, shards: Sequence[Shard]) -> Generator[Task, None, bool]:
    """Hand out ``shards``; whether that came to its end, or another took the block away."""
    claim.expect([shard.id for shard in shards])
    for shard in shards:
        if stop.asked():
            return True
        if claim.lost:
            log.warning("another process took %s for dead and goes on with it", claim.path.name)
            return False
        yield Task(shard, claim)
    return True


def rotated(blocks: Sequence[int], rank: int, size: int) -> list[int]:
    """``blocks`` from where this rank of this array task is to begin, so that few meet at the same block."""
    task, tasks = (int(os.environ.get(f"SLURM_ARRAY_TASK_{name}", d)) for name, d in (("ID", "0"), ("COUNT", "1")))
    first = int(os.environ.get("SLURM_ARRAY_TASK_MIN", "0"))
    share = ((task - first) % tasks + rank / size) / tasks
    at = int(share * len(blocks))
    return [*blocks[at:], *blocks[:at]]


def awaited(tasks: Iterator[Task | None]) -> Task | None:
    """The next task, once there is one; None: there will be no more."""
    for task in tasks:
        if task is not None:
            return task
        time.sleep(NAP_S)
    return None


def in_turn(read: Callable[[Shard], R], tasks: Iterator[Task | None]) -> Iterator[tuple[Task, Callable[[], R]]]:
    """Each task and what reads its shard."""
    while (task := awaited(tasks)) is not None:
        yield task, partial(_begun, read, task)


def ahead(read: Callable[[Shard], R], tasks: Iterator[Task | None]) -> Iterator[tuple[Task, Callable[[], R]]]:
    """As `in_turn`, but a thread reads the next shard while this rank is busy with, or waits for, the present one."""
    with ThreadPoolExecutor(1, "read") as reader:
        task = awaited(tasks)
        coming: Future[R] | None = None
        while task is not None:
            get = coming or reader.submit(_begun, read, task)
            following = next(tasks, None)
            coming = reader.submit(_begun, read, following) if following else None
            yield task, get.result
            task = following or awaited(tasks)


def _begun(read: Callable[[Shard], R], task: Task) -> R:
    task.begin()
    return read(task.shard)
