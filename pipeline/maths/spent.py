"""What picking took: each rank's record, and sums over ranks and starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

DAY_S = 86_400.0
HOUR_S = 3600.0
STAGES = ("load", "read", "score", "triggers", "publish", "wait", "fold")  # the order in which they are shown


@dataclass(frozen=True, slots=True)
class Spent:
    """What one rank did from one start of the pick stage on. Times are of the wall but for ``cpu_s``."""

    start: str  # the same for all ranks that were started together
    rank: int
    host: str
    device: str  # of the run: "cpu" or "cuda"; with "cuda" some ranks may only read
    threads: int
    weight: str
    precision: str
    engine: str  # whose code scores: "kernels", "seisbench", ...
    gpu: str = ""  # of this rank: "cuda:0", or none
    wall_s: float = 0.0
    cpu_s: float = 0.0  # of all threads of the process
    gpu_s: float = 0.0  # that a GPU worked for this rank
    peak_gb: float = 0.0  # the largest resident memory so far, 1e9 byte
    shards: int = 0
    picks: int = 0
    data_s: float = 0.0  # seconds of data, three components together counted once
    seconds: dict[str, float] = field(default_factory=dict)  # by stage


@dataclass(frozen=True, slots=True)
class Totals:
    """`Spent` by all ranks of all starts. What is held counts until the last rank of a start is done."""

    starts: int
    ranks: int  # of the start with the most
    wall_s: float
    rank_s: float  # held by ranks
    core_s: float  # held by ranks, each with its threads
    gpu_held_s: float
    gpu_busy_s: float
    cpu_s: float
    idle_s: float  # of ranks that were done before the last one
    peak_gb: float
    shards: int
    picks: int
    data_s: float
    seconds: dict[str, float]

    @property
    def station_days(self) -> float:
        return self.data_s / DAY_S

    @property
    def waiting(self) -> float:
        """Share of the ranks' time in which they waited for another."""
        return (self.seconds.get("wait", 0.0) + self.idle_s) / self.rank_s if self.rank_s else 0.0

    def a_day(self, seconds: float) -> float:
        """``seconds`` a station-day; 0 before there is one."""
        return seconds / self.station_days if self.data_s else 0.0


def totals(spent: Sequence[Spent]) -> Totals:
    """The sum of all records."""
    starts = [list(group) for _, group in groupby(sorted(spent, key=lambda s: s.start), key=lambda s: s.start)]
    walls = [max(s.wall_s for s in group) for group in starts]
    held = list(zip(starts, walls, strict=True))
    gpus = [len({(s.host, s.gpu) for s in group if s.gpu}) for group in starts]
    return Totals(
        starts=len(starts),
        ranks=max((len(group) for group in starts), default=0),
        wall_s=sum(walls),
        rank_s=sum(len(group) * wall for group, wall in held),
        core_s=sum(sum(s.threads for s in group) * wall for group, wall in held),
        gpu_held_s=sum(n * wall for n, wall in zip(gpus, walls, strict=True)),
        gpu_busy_s=sum(s.gpu_s for s in spent),
        cpu_s=sum(s.cpu_s for s in spent),
        idle_s=sum(wall - s.wall_s for group, wall in held for s in group),
        peak_gb=max((s.peak_gb for s in spent), default=0.0),
        shards=sum(s.shards for s in spent),
        picks=sum(s.picks for s in spent),
        data_s=sum(s.data_s for s in spent),
        seconds=_by_stage(spent),
    )


def _by_stage(spent: Sequence[Spent]) -> dict[str, float]:
    """Seconds by stage: the known ones in their order, then others by name."""
    names = {name for s in spent for name in s.seconds}
    order = [*(n for n in STAGES if n in names), *sorted(names - set(STAGES))]
    return {name: sum(s.seconds.get(name, 0.0) for s in spent) for name in order}


def duration(seconds: float) -> str:
    """For people: "8.5 s", "12.0 min", "30.1 h"."""
    for unit, name in ((HOUR_S, "h"), (60.0, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.1f} s"


def sentences(total: Totals) -> list[str]:
    """What was done, at what rate, and where the time went: one line each."""
    if not total.shards:
        return []
    days = total.station_days
    lines = [
        f"{total.shards} shards, {days:.2f} station-days of data in {duration(total.wall_s)} "
        f"on up to {total.ranks} rank(s), {total.starts} start(s)"
    ]
    if days:
        held = {"": total.wall_s, " a core-hour": total.core_s, " a GPU-hour": total.gpu_held_s}
        rates = [f"{days * HOUR_S / s:.1f}{name or ' an hour'}" for name, s in held.items() if s > 0]
        stages = ", ".join(f"{name} {total.a_day(s):.3f}" for name, s in total.seconds.items())
        lines += [
            f"station-days: {', '.join(rates)}",
            f"seconds a station-day: {stages}; CPU {total.a_day(total.cpu_s):.3f}"
            + (f", GPU {total.a_day(total.gpu_busy_s):.3f}" if total.gpu_busy_s else ""),
        ]
    return [*lines, f"waiting {total.waiting:.1%} of the ranks' time; peak memory {total.peak_gb:.2f} GB a rank"]
