"""Workers of `dask.distributed`, the other way than MPI ranks to share pure work out. The only importer of Dask.

What goes to a worker and comes back is serialised in memory by Dask's own protocol. Workers import the function
they are to run from their own installation, which must therefore be the same as ours.
"""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import dask
import numpy as np
from distributed import Client, Future, LocalCluster, WorkerPlugin, get_worker, wait
from distributed.deploy.adaptive import Adaptive
from distributed.protocol.pickle import dumps as pack
from distributed.protocol.pickle import loads as unpack

from pipeline.cluster import dask_slurm, stop
from pipeline.cluster.dask_each import GONE, LOOK_S, Alone, Items, Need, OneEach, Roll
from pipeline.cluster.dask_slurm import Jobs, Line
from pipeline.cluster.same import about, require_equal
from pipeline.errors import ConfigError, Incomplete
from pipeline.logs import Progress

log = logging.getLogger(__name__)
R = TypeVar("R")
T = TypeVar("T")
TASKS = 32  # for each thread of a worker: few enough to cost nothing, enough for all to end at the same time
IN_FLIGHT = 4  # tasks for each thread of a worker that are sent ahead
CONNECT_S, PATIENCE_S = 30.0, 600.0  # for a scheduler; for a first worker, or another after all have left
OWN: dict[str, Any] = {  # of a scheduler and workers of our own
    "distributed.scheduler.http.routes": [],  # Dask always opens a port for pages: on loopback, and without a page
    "distributed.worker.http.routes": [],
    "distributed.scheduler.worker-ttl": None,  # a compiled kernel may keep a worker silent
    "distributed.admin.tick.limit": "1h",
    "distributed.worker.profile.enabled": False,
}
# A process that was killed is started again in its place, however long that takes: Dask would give the place up.
HERE = {**OWN, "distributed.deploy.lost-worker-timeout": "1h"}


def require_alone(size: int) -> None:
    """Raises ConfigError in a world of ``size`` MPI ranks: the work is shared out once."""
    if size > 1:
        raise ConfigError(
            f"compute.dask under {size} MPI ranks: start without mpiexec or srun to work on Dask workers, or give "
            "`--dask 0` to work on the ranks"
        )


@contextmanager
def workers(where: int | str | Path, jobs: Jobs) -> Iterator[Workers]:
    """``where``: how many processes to start here, 4 or "1-8" as there is work; "slurm:1-64", so many of them in
    ``jobs`` of Slurm; the address of a scheduler, "tcp://host:8786"; or its file.

    What is started here ends with the block, however it ends. Raises ConfigError if there is no scheduler, if Slurm
    takes no job, or if what is installed there differs from what is installed here; Incomplete if no worker comes.
    """
    if isinstance(where, Path) or "://" in str(where):
        started = _joined(where if isinstance(where, Path) else str(where))
    else:
        started = _in_jobs(str(where), jobs) if str(where).startswith("slurm") else _here(str(where))
    with started as hands:
        hands.require_same_code()
        yield hands


class AsNeeded(Adaptive):
    """Dask would go by the tasks that wait at its scheduler, where few are: the rest waits here.

    With ``a_job`` workers in each job, whole jobs come, and those go in which nobody works.
    """

    def __init__(self, cluster: Any, need: Need, line: Line | None = None, a_job: int = 1, **options: Any) -> None:
        self._need, self._line, self._a_job = need, line, a_job
        self._started, self._there = cluster.workers, cluster.scheduler.workers
        super().__init__(cluster, worker_key=_job_of if a_job > 1 else None, **options)

    async def target(self) -> int:
        if self._line:
            await self._line.tend(self._started)
        return whole(self._need.n, self._a_job)

    async def scale_down(self, workers: Any) -> None:
        busy = {self._end(worker.name) for worker in self._there.values() if worker.processing}
        await super().scale_down([name for name in workers if self._end(name) not in busy])

    def _end(self, name: Any) -> Any:
        """What ends with the worker ``name``: its whole job, or itself."""
        return _job(name) if self._a_job > 1 else name


def whole(n: int, a_job: int) -> int:
    """So many workers as ``n`` at least are in jobs of ``a_job`` each."""
    return -(-n // a_job) * a_job


def _job(name: str) -> str:
    """Of one of its workers, as Dask numbers them: "cluster-3-0", "cluster-3-1"."""
    return name.rpartition("-")[0]


def _job_of(worker: Any) -> str:
    return _job(worker.name)


class Workers:
    """Processes that work for this one, ``most`` of them, or an unknown number with 0."""

    def __init__(self, client: Client, need: Need, most: int, alone: Alone) -> None:
        self._client, self.need, self._most, self._alone = client, need, most, alone
        self._seen: set[str] = set()

    def wait_for(self, n: int) -> None:
        """Until ``n`` are there, which may take hours. Raises Incomplete if told to stop, and as `Roll.call`."""
        roll = Roll(self._client, self._alone)
        while len(roll.call()) < n:
            if stop.asked():
                raise Incomplete(f"told to stop by {stop.asked()} before a Dask worker had come: run again")
            time.sleep(LOOK_S / 4)

    def require_same_code(self) -> None:
        """Other code or libraries may find other earthquakes, or none. Raises ConfigError."""
        for address, theirs in self._client.run(about, on_error="return").items():
            if isinstance(theirs, BaseException):
                raise ConfigError(
                    f"the Dask worker {address} cannot run orcolat ({theirs}): install it there"
                ) from theirs
            require_equal(address, theirs, about())

    def each(
        self, function: Callable[..., R], items: Items[T], shared: Any, died: Callable[[T], bool], n: int
    ) -> Generator[tuple[T, R], None, None]:
        """``function(*given, shared)`` of each item (its tag, what is given), about ``n``, with the tag, as they end.

        A process has one item at a time, and the next is taken from ``items`` when one is free; None says that there
        is none at the moment. If a process ends in the middle, ``died(tag)`` says whether another is to try; not if
        it had said that it leaves. Told to stop, this waits for what was begun and begins no more. Raises what
        ``function`` raises, Incomplete as `map`.
        """
        with self._sent(shared) as name:

            def send(given: tuple[Any, ...], worker: str) -> Future[bytes]:
                return self._client.submit(work, function, pack([given]), name, pure=False, workers=[worker])

            hands = OneEach(self._client, send, died, self.need, self._alone)
            for tag, answer in hands.results(items, n):
                yield tag, unpack(answer)[0]

    def map(
        self, function: Callable[..., R], items: Sequence[tuple[Any, ...]], shared: Any, costs: list[float]
    ) -> list[R]:
        """``function(*item, shared)`` of each item, in their order, whoever did it.

        ``function`` is pure, and workers can import it; ``shared`` is sent to each of them once. ``costs`` (n,), > 0
        in any unit, say which items are worth a task and which are bundled. Work of a worker that died is done again.
        Raises what ``function`` raises, Incomplete if all workers or their scheduler leave.
        """
        with self._sent(shared) as name:
            roll = Roll(self._client, self._alone)
            tasks = bundles(costs, TASKS * max(self._most, self._threads(roll)))
            return self._results(function, items, name, tasks, roll)

    @contextmanager
    def _sent(self, shared: Any) -> Iterator[str]:
        """The name under which all workers have what is ``shared``, also those that come later."""
        name = f"orcolat-{uuid4()}"
        self._client.register_plugin(Shared(shared), name)
        try:
            yield name
        finally:
            with suppress(OSError, CancelledError):  # a scheduler that is gone
                self._client.unregister_worker_plugin(name)

    def _results(
        self,
        function: Callable[..., R],
        items: Sequence[tuple[Any, ...]],
        name: str,
        tasks: list[slice],
        roll: Roll,
    ) -> list[R]:
        """Of all tasks; at most `IN_FLIGHT` of them a thread are on their way at any time."""
        results: dict[int, list[R]] = {}
        todo, running = iter(tasks), dict[Future[bytes], slice]()
        progress = Progress("tasks on Dask workers", len(tasks))
        try:
            while len(results) < len(tasks):
                self.need.n = len(tasks) - len(results)
                for rows in islice(todo, max(IN_FLIGHT * self._threads(roll) - len(running), 0)):
                    running[self._client.submit(work, function, pack(items[rows]), name, pure=False)] = rows
                for future in _ended(list(running)):
                    rows = running.pop(future)
                    results[rows.start] = _result(future, rows, len(items))
                    progress.step()
        finally:
            self.need.n = 0
            self._client.cancel(list(running))
        return [result for first in sorted(results) for result in results[first]]

    def _threads(self, roll: Roll) -> int:
        """Of all workers that are there now; one if there is none, for others may come."""
        threads = roll.call()
        for address in self._seen - threads.keys():
            log.warning("the Dask worker %s is gone: what it had not ended is done again", address)
        self._seen = set(threads)
        return max(sum(threads.values()), 1)


def _ended(running: list[Future[bytes]]) -> list[Future[bytes]]:
    """Some, after a moment at most: there may be others by then, who have nothing to do."""
    try:
        return list(wait(running, LOOK_S, "FIRST_COMPLETED").done)
    except TimeoutError:
        return []
    except CancelledError as e:
        raise Incomplete(GONE) from e


def bundles(costs: list[float], n: int) -> list[slice]:
    """Items of these ``costs`` (m,) cut into at most ``n`` bundles of neighbours of like cost, dearest first."""
    if not costs:
        return []
    cost = np.asarray(costs, np.float64)
    ends = np.cumsum(cost)
    bundle = np.floor((ends - cost / 2) / ends[-1] * n)
    cuts = (np.flatnonzero(np.diff(bundle)) + 1).tolist()
    found = [slice(a, b) for a, b in pairwise([0, *cuts, len(cost)])]
    return sorted(found, key=lambda rows: float(cost[rows].sum()), reverse=True)


class Calm(WorkerPlugin):
    """A signal to the whole process group, Ctrl-C or Slurm's, is for the process that shares the work out."""

    def setup(self, worker: Any) -> None:
        for number in stop.SIGNALS:
            signal.signal(number, signal.SIG_IGN)


class Shared(WorkerPlugin):
    """What all tasks need. A plugin goes once to each worker, and to those that come later."""

    def __init__(self, value: Any) -> None:
        self.value, self.about = value, about()


def me() -> str:
    """On a worker: its name."""
    return str(get_worker().name)


def work(function: Callable[..., R], items: bytes, name: str) -> bytes:
    """On a worker: the results of one task.

    Packed by hand: arrays that Dask unpacks may begin at odd addresses, and Numba takes every array to be aligned.
    """
    shared: Any = get_worker().plugins[name]
    require_equal(get_worker().address, about(), shared.about)
    results: bytes = pack([function(*item, shared.value) for item in unpack(items)])
    return results


def _result(future: Future[bytes], rows: slice, n: int) -> list[Any]:
    try:
        results: list[Any] = unpack(future.result())
    except CancelledError as e:
        raise Incomplete(GONE) from e
    except Exception as e:
        e.add_note(f"on a Dask worker, in the items {rows.start} to {rows.stop - 1} of {n}")
        raise
    return results


def bounds(text: str) -> tuple[int, int]:
    """The fewest and the most workers of "4", "1-8", "slurm:4" and "slurm:1-64"."""
    first, _, last = text.rpartition(":")[2].partition("-")
    return int(first), int(last or first)


@contextmanager
def _here(where: str) -> Iterator[Workers]:
    """Processes of this machine, which end with the block."""
    least, most = bounds(where)
    advice = "something ends each process that is started here, as a system does that is short of memory"
    with dask.config.set(HERE), _processes(least) as cluster, Client(cluster) as client:
        hands = Workers(client, Need(), most, _impatient(advice))
        if least < most:
            cluster.adapt(AsNeeded, need=hands.need, minimum=least, maximum=most, interval="1s")
        client.register_plugin(Calm())
        hands.wait_for(least)
        yield hands


@contextmanager
def _in_jobs(where: str, jobs: Jobs) -> Iterator[Workers]:
    """Processes in jobs of Slurm, which are replaced when they have ended, and cancelled with the block."""
    slurm, line = jobs.slurm, Line(jobs.folder)
    a_job = slurm.ranks_per_node
    asked = bounds(where) if ":" in where else (1, slurm.max_tasks * a_job)
    least, most = (whole(n, a_job) for n in asked)
    with dask.config.set(OWN), dask_slurm.cluster(jobs, line) as cluster, Client(cluster) as client:
        hands = Workers(client, Need(), most, line.alone)
        options = {"need": hands.need, "line": line, "a_job": a_job}
        cluster.adapt(AsNeeded, minimum=least, maximum=most, interval="1s", **options)
        log.info("waiting for the first job of Slurm to begin")
        hands.wait_for(1)
        yield hands


def _processes(n: int) -> LocalCluster:
    """Of one thread each, which talk over loopback and spill nothing to disk."""
    how = {"host": "127.0.0.1", "dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    quiet = {"silence_logs": logging.CRITICAL}  # what fails is raised
    return LocalCluster(n_workers=n, threads_per_worker=1, memory_limit=0, **how, **quiet)


@contextmanager
def _joined(where: str | Path) -> Iterator[Workers]:
    """The workers of somebody else's scheduler."""
    address = _address(where) if isinstance(where, Path) else where
    try:
        client = Client(address, timeout=CONNECT_S)
    except (OSError, ValueError, TypeError) as e:  # nobody there, no address, no certificates for tls://
        raise ConfigError(
            f"no scheduler of Dask at {where} ({e}): start `dask scheduler` there, or give a number of processes"
        ) from e
    option = "--scheduler-file " if isinstance(where, Path) else ""
    with client:
        hands = Workers(client, Need(), 0, _impatient(f"start some with `dask worker {option}{where}`"))
        hands.wait_for(1)
        yield hands


def _address(file: Path) -> str:
    """Of the scheduler that wrote ``file``."""
    try:
        return str(json.loads(file.read_text("utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ConfigError(
            f"{file}: no scheduler file of Dask ({e!r}): start `dask scheduler --scheduler-file {file}` first"
        ) from e


def _impatient(advice: str) -> Alone:
    """Raises Incomplete once no worker has been there for `PATIENCE_S`."""

    def alone(seconds: float) -> None:
        if seconds > PATIENCE_S:
            raise Incomplete(f"no Dask worker for {PATIENCE_S:g} s: {advice}; then run again")

    return alone
