"""Who am I among the ranks, and what is mine to do. The only importer of mpi4py."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from heapq import heapreplace
from typing import Any, Protocol, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")
HYDRA = "MPI_LOCALNRANKS"  # set by MPICH's mpiexec
LAUNCHERS = ("PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE", HYDRA)
LEAVE_S = 0.3
HEAR_S = 10.0  # how long rank 0 waits for the others to hear that all end
NAP_S = (2e-5, 2e-3)  # between two looks for a message: the first, the longest


class World(Protocol):
    rank: int
    size: int
    node: tuple[int, ...]  # ranks that share this rank's memory, ascending, itself among them

    def bcast(self, value: T) -> T: ...
    def gather(self, value: Any) -> list[Any] | None: ...
    def abort(self, code: int) -> None: ...

    def leave(self, code: int) -> None:
        """The last call of a process whose ranks have all agreed to end with ``code``."""

    def send(self, value: Any, to: int) -> None:
        """A letter to one rank."""

    def recv(self, source: int | None = None, timeout_s: float = math.inf) -> tuple[Any, int]:
        """The next letter and who sent it; ``source`` None: from anyone. Raises TimeoutError.

        Waiting costs no processor time to speak of.
        """


class Alone:
    """A world of one: laptop, debugger, reference for every other world."""

    rank, size = 0, 1
    node: tuple[int, ...] = (0,)

    def bcast(self, value: T) -> T:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def abort(self, code: int) -> None:
        """Nobody else to stop; the exception itself is enough."""

    def leave(self, code: int) -> None:
        """Nobody else to wait for."""

    def send(self, value: Any, to: int) -> None:
        raise ValueError(f"a world of one has no rank {to} to write to")

    def recv(self, source: int | None = None, timeout_s: float = math.inf) -> tuple[Any, int]:
        raise ValueError("nobody writes in a world of one")


class Mpi:
    def __init__(self) -> None:
        from mpi4py import MPI  # here, so that login nodes and tests need no MPI

        self._comm = MPI.COMM_WORLD
        self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()
        node = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.node: tuple[int, ...] = tuple(sorted(node.allgather(self.rank)))
        node.Free()
        self._word = self._comm.Dup()  # on it rank 0 says before each broadcast: 0, or with which code all end

    def bcast(self, value: T) -> T:
        self._hear()
        received: T = self._comm.bcast(value, root=0)
        return received

    def gather(self, value: Any) -> list[Any] | None:
        return self._comm.gather(value, root=0)

    def send(self, value: Any, to: int) -> None:
        self._comm.send(value, dest=to)

    def recv(self, source: int | None = None, timeout_s: float = math.inf) -> tuple[Any, int]:
        """Looks and naps: a rank that blocks inside MPI keeps its core busy, and cannot give up."""
        from mpi4py import MPI

        status, until, nap_s = MPI.Status(), time.monotonic() + timeout_s, NAP_S[0]
        while (letter := self._comm.improbe(MPI.ANY_SOURCE if source is None else source, status=status)) is None:
            if time.monotonic() > until:
                raise TimeoutError(f"rank {self.rank}: no letter from rank {source} within {timeout_s:g} s")
            time.sleep(nap_s)
            nap_s = min(2 * nap_s, NAP_S[1])
        return letter.recv(), status.Get_source()

    def _hear(self) -> None:
        """Does not return if rank 0 says that all end."""
        word = array("i", [0])
        self._word.Ibcast(word).Wait()
        if word[0]:
            self._word.Ibarrier().Wait()
            self._go(word[0])

    def abort(self, code: int) -> None:
        """End all ranks; none is killed, which srun would call 137, if rank 0 ends and the others hear it in time.

        Under some launchers MPI_Abort returns to its caller: leave anyway.
        """
        if HYDRA not in os.environ and self._all_hear(code):
            self._go(code)
        logging.shutdown()
        sys.stderr.flush()
        time.sleep(LEAVE_S)  # mpiexec ends its helpers at once, and with them what they have not passed on
        self._comm.Abort(code)
        os._exit(code)

    def _all_hear(self, code: int) -> bool:
        """Whether rank 0 ends, too, and each rank is here or in `_hear`, and knows it, before `HEAR_S` are over."""
        word, until = array("i", [code if self.rank == 0 else 0]), time.monotonic() + HEAR_S
        return _done(self._word.Ibcast(word), until) and word[0] != 0 and _done(self._word.Ibarrier(), until)

    def leave(self, code: int) -> None:
        """Only rank 0 gives a code other than 0, when the others have gone.

        A launcher that shall end all at the first bad exit (srun --kill-on-bad-exit=1) would otherwise kill those that
        are still on their way out, and report 137; mpi4py would even call MPI_Abort. MPICH's own mpiexec wants just
        that, and takes a late code for none.
        """
        self._hear()  # rank 0 may have failed after its last broadcast
        if code and HYDRA not in os.environ:
            self._go(code)

    def _go(self, code: int) -> None:
        from mpi4py import MPI

        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        MPI.Finalize()
        if self.rank == 0:
            time.sleep(LEAVE_S)
        os._exit(code if self.rank == 0 else 0)


def _done(request: Any, until: float) -> bool:
    """Whether ``request`` of MPI is, before that time of the monotonic clock."""
    while not request.Test():
        if time.monotonic() > until:
            return False
        time.sleep(NAP_S[1])
    return True


def here() -> World:
    """The world this process was started in: MPI ranks if a launcher made several, else one."""
    started = any(name in os.environ for name in LAUNCHERS) or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
    return Mpi() if started else Alone()


def library() -> str:
    """Name and version of the MPI library; a process without siblings does not join MPI for that.

    Raises ImportError or RuntimeError if there is none that can be loaded.
    """
    import mpi4py

    if "mpi4py.MPI" not in sys.modules:
        mpi4py.rc.initialize = False
    from mpi4py import MPI

    return " ".join(MPI.Get_library_version().split("\n")[0].rstrip("\0").split())


@contextmanager
def one_fails_all_fail(world: World, code: Callable[[BaseException], int]) -> Iterator[None]:
    """A rank that dies alone leaves its siblings waiting until the wall clock: end all ranks at once.

    ``code`` gives the exit code for an exception. In a world of one the exception goes on its way.
    """
    try:
        yield
    except BaseException as e:
        if world.size > 1:
            log.critical("rank %d of %d ends all ranks: %s", world.rank, world.size, e, exc_info=code(e) == 1)
        world.abort(code(e))
        raise


def share(items: Sequence[T], cost: Callable[[T], float], size: int) -> list[list[T]]:
    """Deal ``items`` to ``size`` ranks, dearest first, each to the least loaded.

    Deterministic in ``items``: ranks that hold the same list need send nothing.
    """
    hands: list[list[T]] = [[] for _ in range(size)]
    loads = [(0.0, rank) for rank in range(size)]  # a heap: the least loaded first
    for item in sorted(items, key=cost, reverse=True):
        load, poorest = loads[0]
        hands[poorest].append(item)
        heapreplace(loads, (load + cost(item), poorest))
    return hands
