"""Workers of `dask.distributed`, the other way than MPI ranks to share pure work out. The only importer of Dask.

What goes to a worker and comes back is serialised in memory by Dask's own protocol. Workers import the function
they are to run from their own installation, which must therefore be the same as ours.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from itertools import islice, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import uuid4

import dask
import numpy as np
from distributed import Client, Future, LocalCluster, WorkerPlugin, get_worker, wait
from distributed.protocol.pickle import dumps as pack
from distributed.protocol.pickle import loads as unpack

from pipeline.errors import ConfigError, Incomplete
from pipeline.logs import Progress

log = logging.getLogger(__name__)
R = TypeVar("R")
TASKS = 32  # for each thread of a worker: few enough to cost nothing, enough for all to end at the same time
IN_FLIGHT = 4  # tasks for each thread of a worker that are sent ahead
CONNECT_S, PATIENCE_S = 30.0, 600.0  # for a scheduler and its first worker; for workers after all have left
GONE = "the scheduler of Dask is gone: start it and its workers, and run again"
COMPARED = ("numpy", "scipy", "numba", "scikit-learn", "GMMA", "pyocto", "distributed")
LOCAL: dict[str, Any] = {  # of a scheduler and workers of our own
    "distributed.scheduler.http.routes": [],  # Dask always opens a port for pages: on loopback, and without a page
    "distributed.worker.http.routes": [],
    "distributed.scheduler.worker-ttl": None,  # a compiled kernel may keep a worker silent
    "distributed.admin.tick.limit": "1h",
    "distributed.worker.profile.enabled": False,
}


def require_alone(size: int) -> None:
    """Raises ConfigError in a world of ``size`` MPI ranks: the work is shared out once."""
    if size > 1:
        raise ConfigError(
            f"compute.dask under {size} MPI ranks: start without mpiexec or srun to associate on Dask workers, or give "
            "`--dask 0` to associate on the ranks"
        )


@contextmanager
def workers(where: int | str | Path) -> Iterator[Workers]:
    """``where``: how many processes to start here, the address of a scheduler ("tcp://host:8786"), or its file.

    Processes started here end with the block, however it ends. Raises ConfigError if there is no scheduler, if it
    has no workers, or if what is installed there differs from what is installed here.
    """
    with _started(where) if isinstance(where, int) else _joined(where) as client:
        _require_workers(client, where if isinstance(where, int) else 1, where)
        _require_same(client)
        yield Workers(client)


class Workers:
    """Processes that work for this one."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._seen: set[str] = set()

    def map(
        self, function: Callable[..., R], items: Sequence[tuple[Any, ...]], shared: Any, costs: list[float]
    ) -> list[R]:
        """``function(*item, shared)`` of each item, in their order, whoever did it.

        ``function`` is pure, and workers can import it; ``shared`` is sent to each of them once. ``costs`` (n,), > 0
        in any unit, say which items are worth a task and which are bundled. Work of a worker that died is done again.
        Raises what ``function`` raises, Incomplete if all workers or their scheduler leave.
        """
        name = f"orcolat-{uuid4()}"
        self._client.register_plugin(Shared(shared), name)
        try:
            return self._results(function, items, name, bundles(costs, TASKS * self._threads()))
        finally:
            with suppress(OSError):  # a scheduler that is gone
                self._client.unregister_worker_plugin(name)

    def _results(
        self, function: Callable[..., R], items: Sequence[tuple[Any, ...]], name: str, tasks: list[slice]
    ) -> list[R]:
        """Of all tasks; at most `IN_FLIGHT` of them a thread are on their way at any time."""
        results: dict[int, list[R]] = {}
        todo, running = iter(tasks), dict[Future[bytes], slice]()
        progress = Progress("tasks on Dask workers", len(tasks))
        try:
            while len(results) < len(tasks):
                for rows in islice(todo, max(IN_FLIGHT * self._threads() - len(running), 0)):
                    running[self._client.submit(work, function, pack(items[rows]), name, pure=False)] = rows
                for future in self._ended(list(running)):
                    rows = running.pop(future)
                    results[rows.start] = _result(future, rows, len(items))
                    progress.step()
        finally:
            self._client.cancel(list(running))
        return [result for first in sorted(results) for result in results[first]]

    def _ended(self, running: list[Future[bytes]]) -> list[Future[bytes]]:
        """One of them at least."""
        while True:
            try:
                return list(wait(running, PATIENCE_S, "FIRST_COMPLETED").done)
            except TimeoutError:
                if not self._nthreads():
                    raise Incomplete(f"no Dask worker for {PATIENCE_S:g} s: start some, and run again") from None
            except CancelledError as e:
                raise Incomplete(GONE) from e

    def _nthreads(self) -> dict[str, int]:
        """Of each worker that is there now."""
        try:
            threads: dict[str, int] = self._client.nthreads()
        except OSError as e:
            raise Incomplete(GONE) from e
        return threads

    def _threads(self) -> int:
        """Of all workers that are there now; one if there is none, for others may come."""
        threads = self._nthreads()
        for address in self._seen - threads.keys():
            log.warning("the Dask worker %s is gone: what it had not ended is done again", address)
        self._seen = set(threads)
        return max(sum(threads.values()), 1)


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


class Shared(WorkerPlugin):
    """What all tasks need. A plugin goes once to each worker, and to those that come later."""

    def __init__(self, value: Any) -> None:
        self.value, self.about = value, about()


def work(function: Callable[..., R], items: bytes, name: str) -> bytes:
    """On a worker: the results of one task.

    Packed by hand: arrays that Dask unpacks may begin at odd addresses, and Numba takes every array to be aligned.
    """
    shared: Any = get_worker().plugins[name]
    _require_equal(get_worker().address, about(), shared.about)
    results: bytes = pack([function(*item, shared.value) for item in unpack(items)])
    return results


def _result(future: Future[bytes], rows: slice, n: int) -> list[Any]:
    try:
        results: list[Any] = unpack(future.result())
    except Exception as e:
        e.add_note(f"on a Dask worker, in the items {rows.start} to {rows.stop - 1} of {n}")
        raise
    return results


@contextmanager
def _started(n: int) -> Iterator[Client]:
    """A scheduler and ``n`` processes of one thread, which talk over loopback and spill nothing to disk."""
    how = {"host": "127.0.0.1", "dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    quiet = {"silence_logs": logging.CRITICAL}  # what fails is raised
    with (
        TemporaryDirectory(prefix="orcolat-dask-", ignore_cleanup_errors=True) as scratch,
        dask.config.set({**LOCAL, "temporary-directory": scratch}),
        LocalCluster(n_workers=n, threads_per_worker=1, memory_limit=0, **how, **quiet) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _joined(where: str | Path) -> Iterator[Client]:
    """The scheduler of somebody else."""
    address = _address(where) if isinstance(where, Path) else where
    try:
        client = Client(address, timeout=CONNECT_S)
    except (OSError, ValueError, TypeError) as e:  # nobody there, no address, no certificates for tls://
        raise ConfigError(
            f"no scheduler of Dask at {where} ({e}): start `dask scheduler` there, or give a number of processes"
        ) from e
    with client:
        yield client


def _address(file: Path) -> str:
    """Of the scheduler that wrote ``file``."""
    try:
        return str(json.loads(file.read_text("utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ConfigError(
            f"{file}: no scheduler file of Dask ({e!r}): start `dask scheduler --scheduler-file {file}` first"
        ) from e


def _require_workers(client: Client, n: int, where: int | str | Path) -> None:
    try:
        client.wait_for_workers(n, CONNECT_S)
    except TimeoutError as e:
        start = f"dask worker --scheduler-file {where}" if isinstance(where, Path) else f"dask worker {where}"
        raise ConfigError(f"no Dask worker at {where} within {CONNECT_S:g} s: start some with `{start}`") from e


def _require_same(client: Client) -> None:
    """Other code or libraries may find other earthquakes, or none."""
    for address, theirs in client.run(about, on_error="return").items():
        if isinstance(theirs, BaseException):
            raise ConfigError(f"the Dask worker {address} cannot run orcolat ({theirs}): install it there") from theirs
        _require_equal(address, theirs, about())


def _require_equal(address: str, theirs: dict[str, str], ours: dict[str, str]) -> None:
    if theirs != ours:
        listed = [f"{name} {theirs.get(name)} (here {ours[name]})" for name in ours if theirs.get(name) != ours[name]]
        raise ConfigError(
            f"the Dask worker {address} has {', '.join(listed)}: install the same there (env/requirements.lock), and "
            "start it again"
        )


@cache
def about() -> dict[str, str]:
    """What decides the results here: the versions of Python and of libraries, and the checksum of our own code."""
    versions = {name: _version(name) for name in COMPARED}
    return {"python": platform.python_version(), "the code of orcolat": _checksum(), **versions}


def _checksum() -> str:
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
