"""Slurm, asked through its commands: the only module that runs sbatch, scancel, squeue, scontrol and sacct."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Slurm
from pipeline.errors import ConfigError, Incomplete

log = logging.getLogger(__name__)
HOME = Path(__file__).parents[2]  # the project's folder, where jobs/ and env/ lie
TIMEOUT_S = 60.0
BUSY = ("Socket timed out", "Unable to contact slurm controller", "Connection refused", "temporarily unavailable")
FIELDS = ("JobID", "JobName", "State", "ExitCode", "ElapsedRaw", "CPUTimeRAW", "AllocTRES", "MaxRSS")


def call(*command: str, variables: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S) -> str:
    """What a command of Slurm prints.

    Raises ConfigError if there is no such command here or it refuses, Incomplete if Slurm does not answer.
    """
    if shutil.which(command[0]) is None:
        raise ConfigError(f"{command[0]}: no such command here: run this on a login node of a cluster with Slurm")
    try:
        env = {**os.environ, **(variables or {})}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as e:
        raise Incomplete(f"{command[0]}: no answer from Slurm within {timeout_s:g} s; try again later") from e
    if done.returncode == 0:
        return done.stdout
    said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
    kind = Incomplete if any(sign in said for sign in BUSY) else ConfigError
    raise kind(f"{' '.join(command)}: {said}")


def env_of(slurm: Slurm) -> Path:
    """The script that readies a node."""
    return slurm.env or HOME / "env" / "cpu.sh"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One job of a chain."""

    name: str  # "pick"
    script: Path
    arguments: tuple[str, ...]
    options: tuple[str, ...]  # of sbatch


def array_options(slurm: Slurm, tasks: int) -> tuple[str, ...]:
    """Options of sbatch for an array of so many tasks, each of ``slurm.nodes`` nodes."""
    at_once = f"%{slurm.max_running}" if slurm.max_running else ""
    asked = {
        "array": f"0-{tasks - 1}{at_once}",
        "nodes": str(slurm.nodes),
        "ntasks-per-node": str(slurm.ranks_per_node),
        "partition": slurm.partition,
        "qos": slurm.qos,
        "gres": slurm.all_gres,
        "mem": slurm.mem,
        "time": slurm.time_limit,
        "signal": f"USR1@{slurm.signal_s}",
    }
    return ("--requeue", *_given(asked), *_common(slurm, slurm.cpus_per_rank))


def after_options(slurm: Slurm, ranks: int) -> tuple[str, ...]:
    """Options of sbatch for a job after the array, with so many ``ranks``."""
    own = slurm.after
    asked = {
        "nodes": "1",
        "ntasks": str(ranks),
        "partition": own.partition or slurm.partition,
        "qos": own.qos if own.partition else slurm.qos,
        "mem": own.mem or slurm.mem,
        "time": own.time_limit or slurm.time_limit,
    }
    return (*_given(asked), *_common(slurm, own.cpus_per_rank))


def _common(slurm: Slurm, cpus: int) -> tuple[str, ...]:
    asked = {
        "account": slurm.account,
        "cpus-per-task": str(cpus),
        "exclude": slurm.exclude,
        "open-mode": "append",
        "export": "ALL",
    }
    return (*_given(asked), *slurm.extra)


def _given(asked: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in asked.items() if value]


def command(job: Wanted) -> list[str]:
    """The call of sbatch that hands in ``job``."""
    return ["sbatch", "--parsable", f"--job-name=orcolat-{job.name}", *job.options, str(job.script), *job.arguments]


def submit(job: Wanted, variables: Mapping[str, str]) -> str:
    """Hand in ``job``, with ``variables`` in its environment; its id. Raises ConfigError if Slurm refuses it."""
    return call(*command(job), variables=variables).strip().partition(";")[0]


def cancel(jobs: Sequence[str]) -> None:
    """Take jobs back. Raises as `call`."""
    call("scancel", *jobs)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the cluster allows: tasks of an array, seconds and nodes of a job."""

    tasks: int
    time_s: float
    nodes: float


def limits(partition: str) -> Limits:
    """Of ``partition``, or with "" of the cluster's default one. Raises ConfigError if there is none."""
    settings = call("scontrol", "show", "config")
    array = re.search(r"^MaxArraySize\s*=\s*(\d+)", settings, re.MULTILINE)
    lines = call("scontrol", "show", "partition", "--oneliner", *([partition] if partition else [])).splitlines()
    fields = [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines]
    chosen = next((f for f in fields if partition or f.get("Default") == "YES"), None)
    if chosen is None:
        raise ConfigError("this cluster has no default partition: set slurm.partition")
    time, nodes = (chosen.get(name, "UNLIMITED") for name in ("MaxTime", "MaxNodes"))
    return Limits(
        int(array[1]) if array else 1000,
        Slurm(time_limit=time).time_limit_s if time != "UNLIMITED" else float("inf"),
        float(nodes) if nodes.isdecimal() else float("inf"),
    )


def me() -> str:
    """The job, or the task of an array ("12_3"), that this process is of; "" outside of Slurm.

    SLURM_JOB_ID is not it: to Slurm the number of an array's last task is the whole array.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def requeue(max_times: int | None) -> bool:
    """Put this process's own job back in line, at most ``max_times`` if given; Slurm ends the process soon after.

    Only while Slurm calls it running, which it is no more after scancel or at the time limit. What goes wrong here
    is logged: the work that is left is named by `orcolat status` in any case.
    """
    job, times = me(), int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    if not job:
        return False
    if max_times is not None and times >= max_times:
        log.warning("job %s has been put back %d times, as often as slurm.max_requeues allows: it ends", job, times)
        return False
    try:
        if call("squeue", "--noheader", f"--jobs={job}", "--format=%T").split() != ["RUNNING"]:
            return False
        call("scontrol", "requeue", job)
    except (ConfigError, Incomplete) as e:
        log.warning("job %s cannot put itself back in line: %s", job, e)
        return False
    log.info("job %s is back in line (%d of %s)", job, times + 1, "any" if max_times is None else max_times)
    return True


def accounting(jobs: Sequence[str]) -> list[dict[str, str]]:
    """What Slurm has on record of jobs, their steps, and their earlier starts: `FIELDS`.

    Raises ConfigError where Slurm keeps no records.
    """
    # Records of jobs that were put back would hide the later ones without --duplicates.
    said = call(
        "sacct", "--parsable2", "--noheader", "--duplicates", f"--jobs={','.join(jobs)}", f"--format={','.join(FIELDS)}"
    )
    return [dict(zip(FIELDS, line.split("|"), strict=True)) for line in said.splitlines() if line]
