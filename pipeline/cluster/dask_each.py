"""One task at a time on each Dask worker: who was at what when a worker died is never in doubt."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from distributed import Client, Future
from distributed.scheduler import KilledWorker

from pipeline.cluster import stop
from pipeline.errors import Incomplete

log = logging.getLogger(__name__)
T = TypeVar("T")
LOOK_S = 1.0  # between two looks at who is there
NAP_S = 0.5  # until items are asked for again, when none was free
ANSWER_S = 10.0  # for a result that is ready to arrive
GONE = "the scheduler of Dask is gone: start it and its workers, and run again"
Alone = Callable[[float], None]  # told for how many seconds no worker has been there; raises when waiting is no use


class Need:
    """How many workers could have something to do now; those of our own are as many, within their bounds."""

    n = 0


@contextmanager
def answering() -> Iterator[None]:
    """Raises Incomplete where the scheduler does not answer any more."""
    try:
        yield
    except (OSError, CancelledError) as e:
        raise Incomplete(GONE) from e


class Roll:
    """Who is there."""

    def __init__(self, client: Client, alone: Alone) -> None:
        self._client, self._alone = client, alone
        self._since = time.monotonic()

    def call(self) -> dict[str, int]:
        """The threads of each worker, by address. Raises Incomplete if the scheduler is gone, and as ``alone``."""
        with answering():
            threads: dict[str, int] = self._client.nthreads()
        now = time.monotonic()
        self._since = now if threads else self._since
        self._alone(now - self._since)
        return threads


@dataclass(frozen=True, slots=True)
class Turn(Generic[T]):
    """One item, and the worker that has it."""

    tag: T
    given: tuple[Any, ...]
    worker: str = ""


Items = Iterator[tuple[T, tuple[Any, ...]] | None]  # a tag, and what is given; None: nothing is free at the moment


class OneEach(Generic[T]):
    """Hands items out. ``send(given, worker)`` starts one, ``died(tag)`` says whether another worker is to try it."""

    def __init__(
        self,
        client: Client,
        send: Callable[[tuple[Any, ...], str], Future[bytes]],
        died: Callable[[T], bool],
        need: Need,
        alone: Alone,
    ) -> None:
        self._client, self._send, self._died, self._need = client, send, died, need
        self._roll = Roll(client, alone)
        self._running: dict[Future[bytes], Turn[T]] = {}
        self._ended: SimpleQueue[Future[bytes]] = SimpleQueue()
        self._again: deque[Turn[T]] = deque()
        self._more, self._ask_s = True, 0.0  # whether there may be more items, and when to ask for them

    def results(self, items: Items[T], n: int) -> Iterator[tuple[T, bytes]]:
        """Of all ``items``, about ``n``, as they end.

        Raises what a task raises, Incomplete if the scheduler leaves, and as ``alone``.
        """
        try:
            while self._more or self._running or self._again:
                there = set(self._roll.call())
                self._forget_gone(there)
                if stop.asked():
                    self._more = False
                    self._again.clear()
                self._fill(there, items)
                self._need.n = max(n if self._more else 0, len(self._running) + len(self._again))
                for future in self._some():
                    if (answer := self._answer(future)) is not None:
                        n -= 1
                        yield answer
        finally:
            self._need.n = 0
            self._client.cancel(list(self._running))

    def _fill(self, there: set[str], items: Items[T]) -> None:
        """Give each idle worker something."""
        for worker in sorted(there - {turn.worker for turn in self._running.values()}):
            turn = self._again.popleft() if self._again else self._next(items)
            if turn is None:
                return
            future = self._send(turn.given, worker)
            self._running[future] = Turn(turn.tag, turn.given, worker)
            future.add_done_callback(self._ended.put)

    def _next(self, items: Items[T]) -> Turn[T] | None:
        """None if there is no more, or nothing is free at the moment."""
        if not self._more or time.monotonic() < self._ask_s:
            return None
        for item in items:
            if item is None:
                self._ask_s = time.monotonic() + NAP_S
                return None
            return Turn(*item)
        self._more = False
        return None

    def _some(self) -> list[Future[bytes]]:
        """Those that have ended, after a moment at most."""
        try:
            found = [self._ended.get(timeout=LOOK_S if self._running else LOOK_S / 4)]
        except Empty:
            return []
        while not self._ended.empty():
            found.append(self._ended.get())
        return [future for future in found if future in self._running]

    def _answer(self, future: Future[bytes]) -> tuple[T, bytes] | None:
        """None if it was lost with its worker, or has not arrived."""
        if future.status == "error":
            self._raise(future)
            return None
        try:
            answer = self._running[future].tag, future.result(ANSWER_S)
        except TimeoutError:  # none of the task's; `_forget_gone` may see why
            self._ended.put(future)
            return None
        except (OSError, CancelledError) as e:
            raise Incomplete(GONE) from e
        del self._running[future]
        return answer

    def _raise(self, future: Future[bytes]) -> None:
        """What the task raised, unless that is the death of its worker, which the scheduler noticed first."""
        try:
            future.result()
        except KilledWorker:
            self._lost(future)

    def _forget_gone(self, there: set[str]) -> None:
        for future in [future for future, turn in self._running.items() if turn.worker not in there]:
            if future.status not in ("finished", "error"):
                self._lost(future)

    def _lost(self, future: Future[bytes]) -> None:
        """What becomes of the item of a worker that is gone."""
        turn = self._running.pop(future)
        with answering():
            self._client.cancel([future])
            left = self._had_said(turn.worker)
        if stop.asked():  # whoever stopped this process may have stopped the worker as well
            return
        log.warning("the Dask worker %s %s", turn.worker, "has left" if left else "is gone")
        if left or self._died(turn.tag):
            self._again.append(turn)

    def _had_said(self, worker: str) -> bool:
        """Whether ``worker`` told the scheduler that it leaves: at the end of its time, or on a signal."""
        events = [event for _, event in self._client.get_events(worker) if isinstance(event, dict)]
        return any(event.get("expected") or str(event.get("status", "")).startswith("clos") for event in events)
