"""What a campaign will take, from what picking took before: arithmetic only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from pipeline.maths.spent import HOUR_S, Spent, totals

SCORING, FOLDING = "score", "fold"
AUTO, OURS = "auto", "kernels"  # engines
SINGLE_FILES = 5  # config.toml, shards.parquet, stations.parquet, weights.json, the meter


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to pick."""

    shards: int
    station_days: float  # of data, at most: gaps are not known before the files are read
    days: int  # calendar days: folders of parts
    volumes: int  # of days that share a file of picks and one of outcomes
    read_bytes: int
    pickers: int = 1  # each with files of its own


@dataclass(frozen=True, slots=True)
class Cost:
    """What picking costs with one weight, precision, kind of device and engine; ``source`` says how that is known."""

    weight: str
    precision: str
    device: str  # "cpu" or "cuda"
    engine: str  # as in `Spent`
    threads: int  # with which the seconds were measured
    load_s: float  # once a rank
    seconds: dict[str, float]  # by stage, of one rank for one station-day
    picks_a_day: float  # a station-day
    source: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """``ranks`` of ``threads`` threads each; with ``gpus`` as many of the ranks score and do not read.

    Without GPUs, and where there are no more ranks than GPUs, each rank reads and scores for itself.
    """

    ranks: int
    threads: int = 1
    gpus: int = 0

    @property
    def readers(self) -> int:
        return self.ranks - self.gpus if self.ranks > self.gpus else self.ranks


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of what is kept; measured by ``python -m tests.bench_campaign``."""

    pick: float = 28.0  # of one pick in the file of its volume
    outcome: float = 6.0  # of one shard in the outcomes of its volume
    day_file: float = 2600.0  # of a file with no row in it
    part: float = 2600.0  # of a shard's own file, before it is folded, without its picks
    probability: float = 0.0  # of one station-day, where they are kept


@dataclass(frozen=True, slots=True)
class Estimate:
    """``peak_*``: while shards are picked and no volume is folded, the worst case."""

    wall_h: float
    core_h: float
    gpu_h: float
    bound: str  # what the time goes by: "ranks" or "GPUs"
    kept_bytes: float
    kept_files: int
    peak_bytes: float
    peak_files: int
    seconds: dict[str, float] = field(default_factory=dict)  # by stage, of all ranks together


def engines(there: Iterable[str], wanted: str) -> list[str]:
    """Those of ``there`` that do for ``wanted``, the best first; for "auto" all do, our kernels before others."""
    return sorted({e for e in there if wanted in (AUTO, e)}, key=lambda e: (e != OURS, e))


def whole(spent: Sequence[Spent]) -> list[Spent]:
    """The records of starts that tell a cost: with data, and with the time that it took to score them.

    Scorers that were killed leave no record, though their readers may.
    """
    with_data, with_scores = {s.start for s in spent if s.data_s}, {s.start for s in spent if s.seconds.get(SCORING)}
    return [s for s in spent if s.start in with_data & with_scores]


def kinds(spent: Sequence[Spent]) -> list[str]:
    """Of what `cost_of` would find a cost, for people."""
    return sorted({f"{s.weight} at {s.precision} on {s.device}, engine {s.engine}" for s in whole(spent)})


def cost_of(spent: Sequence[Spent], weight: str, precision: str, device: str, engine: str, source: str) -> Cost | None:
    """The cost by the records of this weight, precision, kind of device and engine; None if no start is `whole`."""
    alike = [s for s in whole(spent) if (s.weight, s.precision, s.device) == (weight, precision, device)]
    found = engines((s.engine for s in alike), engine)
    if not found:
        return None
    same = [s for s in alike if s.engine == found[0]]
    total = totals(same)
    working = {name: total.a_day(s) for name, s in total.seconds.items() if name not in ("load", "wait")}
    threads = max(s.threads for s in same)
    loads_s = [s.seconds["load"] for s in same if s.seconds.get("load")]  # with scorers, readers load nothing
    load_s, picks_a_day = sum(loads_s) / max(1, len(loads_s)), total.picks / total.station_days
    return Cost(weight, precision, device, found[0], threads, load_s, working, picks_a_day, source)


def side_by_side(costs: Sequence[Cost], weights: Sequence[str], engine: str) -> Cost | None:
    """The cost of several pickers in one pass over the data: read once, all else once a picker. None: one lacks."""
    found = engines((cost.engine for cost in costs), engine)
    by_weight = {cost.weight: cost for best in reversed(found) for cost in costs if cost.engine == best}
    chosen = [by_weight[weight] for weight in weights if weight in by_weight]
    if not chosen or len(chosen) < len(weights):
        return None
    seconds = {n: sum(c.seconds.get(n, 0.0) for c in chosen) for n in chosen[0].seconds}
    return replace(
        chosen[0],
        weight="+".join(weights),
        engine="+".join(dict.fromkeys(c.engine for c in chosen)),
        load_s=sum(c.load_s for c in chosen),
        seconds={**seconds, "read": chosen[0].seconds.get("read", 0.0)},
        picks_a_day=sum(c.picks_a_day for c in chosen),
    )


def estimate(work: Work, cost: Cost, layout: Layout, sizes: Sizes | None = None) -> Estimate:
    """Time and space that ``work`` takes.

    Shards are dealt evenly and no rank is done before its last: a rank has ``ceil(shards / readers)`` of them.
    Scoring on a CPU divides over the threads of a rank, all else runs on one. With GPUs, ranks read while GPUs
    score, and the slower of the two sets the pace. In the end the volumes are folded, each by one rank.
    """
    if layout.ranks < 1 or layout.threads < 1 or layout.gpus < 0:
        raise ValueError(f"{layout}: at least one rank and one thread")
    on_ranks, on_gpus = _day_s(cost, layout)
    mine = ceil(work.shards / layout.readers) * (work.station_days / work.shards) if work.shards else 0.0
    ranks_s = mine * on_ranks
    gpus_s = ceil(work.shards / layout.gpus) / work.shards * work.station_days * on_gpus if on_gpus and mine else 0.0
    folders = max(1, min(layout.ranks, work.volumes))
    fold_s = cost.seconds.get(FOLDING, 0.0) * work.station_days * ceil(work.volumes / folders) / max(1, work.volumes)
    wall_h = (cost.load_s + max(ranks_s, gpus_s) + fold_s) / HOUR_S
    kept, peak, files, peak_files = _space(work, cost, sizes or Sizes())
    return Estimate(
        wall_h=wall_h,
        core_h=wall_h * layout.ranks * layout.threads,
        gpu_h=wall_h * layout.gpus,
        bound="GPUs" if gpus_s > ranks_s else "ranks",
        kept_bytes=kept,
        kept_files=files,
        peak_bytes=peak,
        peak_files=peak_files,
        seconds={name: s * work.station_days for name, s in cost.seconds.items()},
    )


def _day_s(cost: Cost, layout: Layout) -> tuple[float, float]:
    """Seconds of one rank, and of one GPU, for one station-day."""
    scoring_s = cost.seconds.get(SCORING, 0.0)
    others_s = sum(seconds for name, seconds in cost.seconds.items() if name not in (SCORING, FOLDING))
    if layout.gpus:
        return others_s, scoring_s
    return others_s + scoring_s * (cost.threads / layout.threads if cost.device == "cpu" else 1.0), 0.0


def _space(work: Work, cost: Cost, sizes: Sizes) -> tuple[float, float, int, int]:
    """Bytes kept, bytes at the peak, files kept, files and folders at the peak."""
    shards, days, volumes = (n * work.pickers for n in (work.shards, work.days, work.volumes))
    picks = cost.picks_a_day * work.station_days * sizes.pick
    kept = picks + shards * sizes.outcome + 2 * volumes * sizes.day_file
    probabilities = work.pickers * work.station_days * sizes.probability
    probability_files = shards + days if sizes.probability else 0
    peak = max(kept, picks + shards * sizes.part) + probabilities
    files = 2 * volumes + SINGLE_FILES + probability_files
    peak_files = max(files, shards + days + SINGLE_FILES + probability_files)
    return kept + probabilities, peak, files, peak_files
