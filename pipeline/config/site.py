"""How and where the work is done: ``[compute]`` and ``[slurm]``, which change no result."""

from __future__ import annotations

import re
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from pipeline.config.base import InputPath, Positive, Section, resolve


def _auto_or_number(value: Any) -> Any:
    """One message where a union would give one for each of its members; true is no number."""
    if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ValueError("'auto' or an integer >= 0")
    return value


def _workers(value: Any, info: ValidationInfo) -> Any:
    """A number of processes, the address of a scheduler, or the path of a scheduler file."""
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if type(number) not in (int, str) or number == "" or (isinstance(number, int) and not 0 <= number <= 1024):
        raise ValueError(f"{WORKERS_ARE} (0 to 1024)")
    if found := re.fullmatch(r"(?:slurm:)?(\d+)(?:-(\d+))?", str(number)):
        first, last = int(found[1]), int(found[2] or found[1])
        if isinstance(number, str) and not 1 <= first <= last <= 9999:
            raise ValueError(f"{WORKERS_ARE}: 1 <= MIN <= MAX <= 9999")
    return number if is_no_path(str(number)) else resolve(number, info)


WORKERS_ARE = (
    "a number of processes or MIN-MAX of them, slurm:MIN-MAX for jobs of Slurm, tcp://HOST:PORT of a scheduler, or a "
    "scheduler file"
)


def is_no_path(workers: str) -> bool:
    """Whether ``compute.dask`` names something else than a scheduler file."""
    return re.fullmatch(r"(slurm:)?\d+(-\d+)?|slurm|(tcp|tls)://.*", workers) is not None


class Compute(Section):
    """How the work is done; not part of the digest."""

    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    threads: int = Field(1, ge=1, le=256, description="threads of each rank")
    engine: Literal["auto", "kernels", "seisbench"] = Field(
        "auto",
        description="our own kernels for the networks that they know, or SeisBench's code for all; auto: the kernels "
        "where they can be built",
    )
    max_failed: int = Field(100, ge=0, description="more failed shards than this stop the run")
    max_tries: int = Field(
        3, ge=1, description="a shard that failed so often, or whose process died, is set aside; `orcolat retry`"
    )
    claim_timeout_s: float = Field(
        180.0, ge=60, description="a process elsewhere that gave no sign for so long is taken for dead"
    )
    scorers: Annotated[Literal["auto"] | int, BeforeValidator(_auto_or_number)] = Field(
        "auto",
        description="ranks of a node that score for the others, which read: half of its ranks at most; auto: one a "
        "GPU, on CPUs none",
    )
    scratch: InputPath | None = Field(
        None,
        description="node-local folder through which waveforms go to the scorers; without it, $ORCOLAT_SCRATCH, "
        "$TMPDIR or /dev/shm",
    )
    answer_timeout_s: Positive = Field(600.0, description="a reader without an answer for this long ends the run")
    dask: Annotated[int | str | Path, BeforeValidator(_workers)] = Field(
        0,
        description="pick and associate on Dask workers: so many processes of this machine, or MIN-MAX of them as "
        'there is work; "slurm:MIN-MAX": in jobs of Slurm ("slurm": up to max_tasks jobs); those of a scheduler '
        "(tcp://HOST:PORT), or of a scheduler file; 0: in this process, or on its MPI ranks",
    )


def _seconds(text: str) -> int:
    """Of a time as Slurm writes it: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS."""
    days, dash, rest = text.rpartition("-")
    numbers = [int(part) for part in rest.split(":")]
    units = (3600, 60, 1) if dash or len(numbers) == 3 else (60, 1)
    return int(days or 0) * 86400 + sum(n * unit for n, unit in zip(numbers, units, strict=False))


def _bare(value: Any) -> Any:
    """What TOML takes for a number or for a time of day is a word to Slurm: mem = 0, time_limit = 04:00:00."""
    return str(value) if isinstance(value, time) or (isinstance(value, int) and not isinstance(value, bool)) else value


Word = Annotated[str, BeforeValidator(_bare), Field(pattern=r"^[\w.,:@&|*()+\[\]/-]*$")]
Time = Annotated[str, BeforeValidator(_bare), Field(pattern=r"^(\d+-)?\d+(:\d\d){0,2}$")]


def _not_ours(option: str) -> str:
    name = option.removeprefix("--").partition("=")[0]
    if name in OURS:
        raise ValueError(f"--{name} is set by `orcolat submit`, from the other keys of [slurm]")
    return option


OURS = (
    *(
        "array",
        "dependency",
        "export",
        "gres",
        "output",
        "signal",
        "requeue",
        "no-requeue",
        "parsable",
        "job-name",
        "time",
    ),
    *(
        "nodes",
        "ntasks",
        "ntasks-per-node",
        "cpus-per-task",
        "account",
        "partition",
        "qos",
        "mem",
        "exclude",
        "open-mode",
    ),
)


class After(Section):
    """The jobs after the array, on one node without GPUs. What is "" is as for the array."""

    partition: Word = ""
    qos: Word = Field("", description="with a partition")
    ranks: int = Field(1, ge=1, description="that associate; the report needs one")
    cpus_per_rank: int = Field(1, ge=1)
    mem: Word = ""
    time_limit: Time | Literal[""] = ""


class Slurm(Section):
    """What `orcolat submit` asks Slurm for; not part of the digest. What is "" is left to the cluster's default."""

    account: Word = ""
    partition: Word = Field("", description="of the array, which picks")
    qos: Word = Field("", description="of the array")
    nodes: int = Field(1, ge=1, description="of one array task")
    ranks_per_node: int = Field(1, ge=1)
    cpus_per_rank: int = Field(1, ge=1)
    gpus_per_node: int = Field(0, ge=0)
    gres: Word = Field("", description='further resources of a node of the array, without GPUs: "tmpfs:20g"')
    mem: Word = Field("", description='of a node: "16G"; "0" is all of it')
    time_limit: Time = Field("04:00:00", description="of an array task: HH:MM:SS, or D-HH:MM:SS")
    max_tasks: int = Field(16, ge=1, description="tasks of the array at most")
    max_running: int = Field(0, ge=0, description="tasks that run at once at most; 0: no limit")
    task_s: Positive = Field(600.0, description="fewer tasks, if by the estimate one would have less work than this")
    signal_s: int = Field(
        120, ge=1, le=65535, description="a task is told to stop so long before its time limit: one shard must fit in"
    )
    max_requeues: int = Field(5, ge=0, description="times that a task which was told to stop puts itself back in line")
    exclude: Word = Field("", description="nodes not to use: n[3,7-9]")
    interface: Word = Field("", description='network over which Dask workers in jobs reach this machine: "ib0"')
    extra: tuple[Annotated[str, Field(pattern=r"^--[a-z][a-z-]+(=.*)?$"), AfterValidator(_not_ours)], ...] = Field(
        (), description='further options of sbatch for all jobs: "--mail-type=FAIL"'
    )
    after: After = After()
    env: InputPath | None = Field(
        None, description="script that readies a node: modules, environment, launcher; without it, env/cpu.sh"
    )

    @property
    def ranks(self) -> int:
        """Of one array task."""
        return self.nodes * self.ranks_per_node

    @property
    def all_gres(self) -> str:
        """As sbatch takes them: GPUs and others in one list, for of two lists it believes the last."""
        gpus = f"gpu:{self.gpus_per_node}" if self.gpus_per_node else ""
        return ",".join(part for part in (gpus, self.gres) if part)

    @property
    def time_limit_s(self) -> int:
        return _seconds(self.time_limit)

    @model_validator(mode="after")
    def _time(self) -> Self:
        if self.signal_s >= self.time_limit_s:
            raise ValueError(f"time_limit {self.time_limit} is not more than signal_s {self.signal_s}")
        return self


class Site(Section):
    """A site file: how and where work is done on one machine, for any run."""

    slurm: Slurm = Slurm()
    compute: Compute = Compute()
