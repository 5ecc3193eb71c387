"""What a cluster charges for the jobs of a run, from the scheduler's records: arithmetic only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.maths.spent import HOUR_S

SIZES = {"": 1.0, "K": 1024.0, "M": 1024.0**2, "G": 1024.0**3, "T": 1024.0**4}
Record = Mapping[str, str]  # one line of sacct, by field


@dataclass(frozen=True, slots=True)
class Bill:
    """Of all starts of the jobs together."""

    starts: int  # of jobs and array tasks, those that were put back in line included
    core_h: float  # held
    gpu_h: float  # held
    peak_gb: float  # of one rank, the largest; 1e9 byte
    ends: dict[str, int]  # how often a start ended in which state


def bill(records: Sequence[Record]) -> Bill:
    """The sum of ``records``. A line with a dot in its id is a step of a job, and only tells of memory."""
    jobs = [record for record in records if "." not in record["JobID"]]
    states = [record["State"].partition(" ")[0] for record in jobs]  # "CANCELLED by 0"
    return Bill(
        starts=len(jobs),
        core_h=sum(_number(record["CPUTimeRAW"]) for record in jobs) / HOUR_S,
        gpu_h=sum(gpus(record["AllocTRES"]) * _number(record["ElapsedRaw"]) for record in jobs) / HOUR_S,
        peak_gb=max((size(record["MaxRSS"]) for record in records), default=0.0) / 1e9,
        ends={state: states.count(state) for state in sorted(set(states))},
    )


def gpus(allocated: str) -> float:
    """How many GPUs "cpu=2,gres/gpu=4,mem=1G,node=1" holds; those with a type are counted in the sum, too."""
    found = re.search(r"(?:^|,)gres/gpu=(\d+)", allocated)
    return float(found[1]) if found else 0.0


def size(text: str) -> float:
    """Bytes of "12345K"; 0 of what is no size."""
    found = re.fullmatch(r"([\d.]+)([KMGT]?)", text)
    return float(found[1]) * SIZES[found[2]] if found else 0.0


def _number(text: str) -> float:
    return float(text) if text.isdecimal() else 0.0
