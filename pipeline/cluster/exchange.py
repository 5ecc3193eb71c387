"""Lend one rank's scorer to its neighbours: a remote call from a waveform to what was found in it.

A reader asks for one thing at a time and waits, so that no more waveforms are under way than there are readers. A
scorer takes the next request, if one is waiting, and loads it while it works on the present one.
"""

from __future__ import annotations

import math
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pipeline.cluster.scratch import Inbox, Outbox, Parcel
from pipeline.cluster.world import World
from pipeline.errors import ConfigError, Incomplete
from pipeline.records import Runs, Scores, Waveform

L = TypeVar("L")
Wanted = Literal["runs", "both"]
Both = tuple[tuple[Runs, ...], tuple[Scores, ...]]


class Lost(RuntimeError):
    """The other side does not answer any more: the run must end."""


class ScoringFailed(Exception):
    """What went wrong in the scorer with one waveform; the scorer's traceback is its cause."""


class Scorer(Protocol):
    """What turns a waveform into the runs of each picker, or into both runs and scores: here, or on another rank."""

    @property
    def rate_hz(self) -> float: ...
    @property
    def context_s(self) -> float: ...
    def runs(self, waveform: Waveform) -> tuple[Runs, ...]: ...
    def both(self, waveform: Waveform) -> Both: ...


class Local(Scorer, Protocol):
    """A `Scorer` on this rank, which can load a waveform while it works on another."""

    def load(self, waveform: Waveform) -> Any: ...
    def runs_of(self, held: Any) -> tuple[Runs, ...]: ...
    def both_of(self, held: Any) -> Both: ...


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a reader must know before it reads."""

    rate_hz: float
    context_s: float


@dataclass(frozen=True, slots=True)
class Request:
    wanted: Wanted
    parcel: Parcel


@dataclass(frozen=True, slots=True)
class Failure:
    reason: str
    traceback: str


class Remote:
    """The `Scorer` of a reader: rank ``server`` of its node. Only `remote` makes one."""

    def __init__(self, world: World, server: int, parent: Path, timeout_s: float) -> None:
        self._world, self._server, self._timeout_s = world, server, timeout_s
        greeting: Greeting = self._answer()
        self.rate_hz, self.context_s = greeting.rate_hz, greeting.context_s
        self._box = Outbox(parent)

    def runs(self, waveform: Waveform) -> tuple[Runs, ...]:
        """Raises ScoringFailed, Lost, and Storage where there is no room for the waveform."""
        found: tuple[Runs, ...] = self._ask("runs", waveform)
        return found

    def both(self, waveform: Waveform) -> Both:
        """Raises as `runs`."""
        found: Both = self._ask("both", waveform)
        return found

    def close(self) -> None:
        self._box.close()

    def _ask(self, wanted: Wanted, waveform: Waveform) -> Any:
        self._world.send(Request(wanted, self._box.put(waveform)), to=self._server)
        answer = self._answer()
        self._box.forget_name()
        if isinstance(answer, Failure):
            raise ScoringFailed(answer.reason) from RuntimeError(f"on scorer rank {self._server}: {answer.traceback}")
        return answer

    def _answer(self) -> Any:
        try:
            return self._world.recv(self._server, self._timeout_s)[0]
        except TimeoutError as e:
            raise Lost(
                f"rank {self._server}, the scorer of rank {self._world.rank}, has not answered for "
                f"{self._timeout_s:g} s: it hangs, or has too much to do; see its last log lines, or raise "
                "compute.answer_timeout_s"
            ) from e


@contextmanager
def remote(world: World, server: int, parent: Path, timeout_s: float) -> Iterator[Remote]:
    """The scorer on rank ``server``; waveforms go through a file in ``parent``. Hangs up on a clean exit.

    It also does where nothing can be written, or more (Incomplete), for that ends this reader alone; any other
    exception ends all ranks. Raises Lost if the scorer does not answer, Storage if ``parent`` is full.
    """
    try:
        with closing(Remote(world, server, parent, timeout_s)) as scorer:
            yield scorer
    except Incomplete:
        world.send(None, to=server)
        raise
    world.send(None, to=server)


def serve(
    world: World,
    greeting: Greeting,
    load: Callable[[Waveform], L],
    answers: Mapping[Wanted, Callable[[L], Any]],
    clients: tuple[int, ...],
) -> int:
    """Answer until every client has hung up. Returns the number of answers.

    ``load`` is called in a thread of its own, one waveform ahead of ``answers``, which are called in this one.
    """
    for client in clients:
        world.send(greeting, to=client)
    calls, listening = 0, set(clients)
    at_hand = deque[tuple[int, Wanted, Future[L]]]()  # the one to work on, and the next
    with closing(Inbox()) as inbox, ThreadPoolExecutor(1, "load") as loader:
        while listening or at_hand:
            while listening and len(at_hand) < 2 and (letter := _letter(world, wait=not at_hand)):
                request, reader = letter
                if request is None:
                    listening.remove(reader)
                else:
                    loading = loader.submit(_load, load, inbox, request.parcel)
                    at_hand.append((reader, request.wanted, loading))
            if at_hand:
                reader, wanted, loading = at_hand.popleft()
                world.send(_answer(answers[wanted], loading), to=reader)
                calls += 1
    return calls


def _letter(world: World, wait: bool) -> tuple[Request | None, int] | None:
    """The next letter and who sent it; None if there is none and nobody shall wait."""
    try:
        return world.recv(timeout_s=math.inf if wait else 0)
    except TimeoutError:
        return None


def _load(load: Callable[[Waveform], L], inbox: Inbox, parcel: Parcel) -> L:
    return load(inbox.get(parcel))


def _answer(answer: Callable[[L], Any], loading: Future[L]) -> Any:
    """The answer, or why there is none: that is the reader's to record."""
    try:
        return answer(loading.result())
    except (ConfigError, Incomplete):
        raise
    except Exception as e:  # noqa: BLE001  one waveform's error is its shard's, and goes back to its owner
        return Failure(f"{type(e).__name__}: {e}", traceback.format_exc())
