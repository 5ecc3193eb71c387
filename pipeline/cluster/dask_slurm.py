"""Dask workers as jobs of Slurm, one job as large as one task of the array that `orcolat submit` would hand in."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.cluster.slurm import HOME, call, env_of
from pipeline.config import Slurm
from pipeline.errors import ConfigError, Incomplete

log = logging.getLogger(__name__)
FAILURES = 3  # in a row, without any worker, end the run
LOOK_S, PAUSE_S = 30.0, 300.0  # between two looks at the queue; the longest pause between two attempts


@dataclass(frozen=True, slots=True)
class Jobs:
    """What is asked of Slurm, and a folder that all nodes see, for logs of workers and their key."""

    slurm: Slurm
    folder: Path


class Line:
    """The jobs of one cluster in Slurm's queue: where one was refused or has ended, another is handed in, ever later.

    Dask would wait for ever for a job that sbatch did not take, or that ended before a worker came of it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._said, self._failures = folder, "", 0
        self._last_s, self._pause_s = -2 * PAUSE_S, 0.0
        self._looked_s, self._gone, self._ended = time.monotonic(), set[str](), set[str]()

    async def hand_in(self, script: str) -> str:
        """What sbatch says. Raises as `call`."""
        try:
            return await asyncio.to_thread(call, "sbatch", script)
        except ConfigError as e:
            self._said = str(e)
            raise
        except Incomplete as e:  # Slurm will answer again
            self._said = ""
            log.warning("%s", e)
            raise

    async def tend(self, jobs: dict[Any, Any]) -> None:
        """Forget those of the cluster's ``jobs`` that were refused or have ended, for it to hand others in."""
        await self._look({job.job_id for job in jobs.values() if job.job_id})
        refused = [name for name, job in jobs.items() if not job.job_id]
        ended = [name for name, job in jobs.items() if job.job_id in self._ended]
        now = time.monotonic()
        if not refused + ended or now - self._last_s < self._pause_s:
            return
        if ended:
            numbers = ", ".join(jobs[name].job_id for name in ended)
            self._said = f"jobs {numbers} of Dask workers have ended: their logs lie in {self._folder}"
        if self._said:  # else Slurm did not answer
            log.warning("%s", self._said)
            self._failures += bool(ended) or len(refused) == len(jobs)
        for name in refused + ended:
            del jobs[name]
        calm = now - self._last_s > 2 * PAUSE_S
        self._last_s, self._pause_s = now, 1.0 if calm else min(2 * self._pause_s, PAUSE_S)

    def alone(self, seconds: float) -> None:
        """Raises ConfigError if for some ``seconds`` no worker has been there, and none will come."""
        if not seconds:
            self._failures = 0
        elif self._failures >= FAILURES:
            raise ConfigError(f"compute.dask = 'slurm': no worker came, {FAILURES} times in a row; {self._said}")

    async def _look(self, mine: set[str]) -> None:
        """Which jobs have ended: of two looks, neither found them. The first may be too early for Slurm or for Dask."""
        if time.monotonic() - self._looked_s < LOOK_S:
            return
        what = ("squeue", "--noheader", f"--user={os.getuid()}", "--format=%A")
        try:
            queued = set((await asyncio.to_thread(call, *what)).split())
        except (ConfigError, Incomplete) as e:
            log.warning("which jobs of Dask workers have ended is not known: %s", e)
            queued = mine
        gone = mine - queued
        self._gone, self._ended, self._looked_s = gone, gone & self._gone, time.monotonic()


@contextmanager
def cluster(jobs: Jobs, line: Line) -> Iterator[Any]:
    """A scheduler in this process and, as it is scaled, workers in jobs that ``line`` hands in; all end with the block.

    Whoever talks to the scheduler could run code as this user, so both sides show certificates made for this once.
    Raises ConfigError where Slurm or a library is missing.
    """
    try:
        import_module("cryptography")  # what makes the certificates
        from dask_jobqueue.slurm import SLURMCluster, SLURMJob
    except ImportError as e:
        raise ConfigError(f"compute.dask = 'slurm': {e}: pip install dask-jobqueue cryptography") from e
    if shutil.which("sbatch") is None:
        raise ConfigError("compute.dask = 'slurm': sbatch: no such command here: run this on a login node with Slurm")
    jobs.folder.mkdir(parents=True, exist_ok=True)

    class Job(SLURMJob):
        async def _submit_job(self, script_filename: str) -> str:
            failed = type(self.status).failed
            try:
                return await line.hand_in(script_filename)
            except (ConfigError, Incomplete):
                self.status = failed  # else Dask would find it half done when it closes
                raise

    with SLURMCluster(
        job_cls=Job,  # type: ignore[arg-type]  # the class, not a job, whatever the library declares
        security=True,
        shared_temp_directory=str(jobs.folder),
        interface=jobs.slurm.interface or None,
        scheduler_options={"dashboard_address": "127.0.0.1:0"},
        silence_logs=logging.CRITICAL,
        **job(jobs),
    ) as started:
        yield started


def job(jobs: Jobs) -> dict[str, Any]:
    """The job of so many workers as an array task has ranks a node, in the words of `SLURMCluster`.

    Before its time limit, by ``signal_s``, a worker says that it leaves: what it had in hand is nobody's fault.
    """
    slurm = jobs.slurm
    options = {"--nthreads": "1", "--memory-limit": "0", "--lifetime": f"{slurm.time_limit_s - slurm.signal_s}s"}
    return {
        "job_name": "orcolat-dask",
        "queue": slurm.partition or None,
        "account": slurm.account or None,
        "walltime": slurm.time_limit,
        "processes": slurm.ranks_per_node,
        "cores": slurm.ranks_per_node * slurm.cpus_per_rank,
        "memory": "1GiB",  # must be given; what counts is job_mem
        "job_mem": slurm.mem or "0",
        "job_directives_skip": () if slurm.mem else ("--mem",),
        "job_extra_directives": _directives(slurm),
        "job_script_prologue": _prologue(slurm),
        "worker_extra_args": [*(word for option in options.items() for word in option), "--no-dashboard"],
        "log_directory": str(jobs.folder),
        "local_directory": '"${ORCOLAT_SCRATCH:-${TMPDIR:-/tmp}}"',  # of the node; the next worker there tidies
        "death_timeout": 120,
    }


def _directives(slurm: Slurm) -> list[str]:
    asked = {
        "qos": slurm.qos,
        "exclude": slurm.exclude,
        "gres": slurm.all_gres,
    }
    return ["--no-requeue", *(f"--{name}={value}" for name, value in asked.items() if value), *slurm.extra]


def _prologue(slurm: Slurm) -> list[str]:
    return [f"export ORCOLAT_HOME={shlex.quote(str(HOME))}", f"source {shlex.quote(str(env_of(slurm)))}"]
