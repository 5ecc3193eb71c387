"""A cluster made of threads: enough MPI to test a stage without MPI."""

import math
import threading
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any


class Ended(BaseException):
    """A sibling ended all ranks: as a signal would, it passes every `except Exception`."""


class Post:
    """Letters between threads. Each gets a copy, as between processes."""

    def __init__(self, size: int) -> None:
        self._boxes: list[list[tuple[Any, int]]] = [[] for _ in range(size)]
        self._news = threading.Condition()

    def send(self, value: Any, source: int, to: int) -> None:
        with self._news:
            self._boxes[to].append((deepcopy(value), source))
            self._news.notify_all()

    def take(self, rank: int, source: int | None) -> tuple[Any, int] | None:
        """The first letter from ``source`` (None: anyone), or None after a short wait."""
        with self._news:
            box = self._boxes[rank]
            found = next((i for i, (_, sender) in enumerate(box) if source in (None, sender)), None)
            if found is None:
                self._news.wait(0.01)
            return None if found is None else box.pop(found)

    def waiting(self, rank: int) -> int:
        with self._news:
            return len(self._boxes[rank])


class ThreadWorld:
    def __init__(self, rank: int, node: tuple[int, ...], board: list, barrier: threading.Barrier, post: Post) -> None:
        self.rank, self.size, self.node = rank, len(board), node
        self._board, self._barrier, self._post = board, barrier, post

    def bcast(self, value: Any) -> Any:
        if self.rank == 0:
            self._board[0] = value
        self._barrier.wait(timeout=60)
        value = self._board[0]
        self._barrier.wait(timeout=60)
        return value

    def gather(self, value: Any) -> list[Any] | None:
        self._board[self.rank] = value
        self._barrier.wait(timeout=60)
        values = list(self._board) if self.rank == 0 else None
        self._barrier.wait(timeout=60)
        return values

    def send(self, value: Any, to: int) -> None:
        self._post.send(value, self.rank, to)

    def recv(self, source: int | None = None, timeout_s: float = math.inf) -> tuple[Any, int]:
        until = time.monotonic() + min(timeout_s, 60)
        while (letter := self._post.take(self.rank, source)) is None:
            if self._barrier.broken:
                raise Ended
            if time.monotonic() > until:
                raise TimeoutError(f"no letter from {source}")
        return letter

    @property
    def letters(self) -> int:
        """How many wait for this rank."""
        return self._post.waiting(self.rank)

    def abort(self, code: int = 1) -> None:
        self._barrier.abort()


def srun(size: int, body: Callable, per_node: int | None = None) -> list[Any]:
    """Run ``body(world)`` on ``size`` threads, ``per_node`` a node; results in rank order, first error raised."""
    board, barrier, post = [None] * size, threading.Barrier(size), Post(size)
    out: list[Any] = [None] * size
    errors: list[BaseException] = []
    per_node = per_node or size

    def main(rank: int) -> None:
        first = rank // per_node * per_node
        world = ThreadWorld(rank, tuple(range(first, min(first + per_node, size))), board, barrier, post)
        try:
            out[rank] = body(world)
        except (threading.BrokenBarrierError, Ended):
            pass  # the error of the sibling that aborted is the one worth showing
        except BaseException as e:  # noqa: BLE001
            errors.append(e)
            barrier.abort()

    threads = [threading.Thread(target=main, args=(r,)) for r in range(size)]
    [t.start() for t in threads], [t.join() for t in threads]
    if errors:
        raise errors[0]
    return out
