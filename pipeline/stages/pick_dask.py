"""Picking on Dask workers: they read and pick, this process holds the claims and publishes.

A worker needs the archive and the weights at the same paths, and not the run directory. It has one shard at a time, so
that a worker that dies leaves no doubt at which shard that was.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from pipeline import meter
from pipeline.cluster import gpus
from pipeline.cluster.dask import me, workers
from pipeline.cluster.dask_slurm import Jobs
from pipeline.cluster.dealing import Task
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.formats import tries
from pipeline.logs import Progress
from pipeline.maths.spent import Spent
from pipeline.meter import Meter
from pipeline.models import weights
from pipeline.records import Shard
from pipeline.stages import pick_amplitudes, pick_shard
from pipeline.stages.pick_shard import Failed, Found, Makers, Read, Targets

log = logging.getLogger(__name__)
Blame = Callable[[Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker must know."""

    start: str
    config: Config
    pickers: int
    makers: Makers
    weights: Mapping[str, str]  # SHA-256 by name
    responses: Mapping[str, str]  # SHA-256 by path


@dataclass(frozen=True, slots=True)
class Answer:
    ended: Found | Failed
    worker: str
    spent: Spent


@dataclass(frozen=True, slots=True)
class Bench:
    """What a worker keeps from one shard to the next."""

    start: str
    scorer: Any  # as `pick_shard.find` takes it
    read: Read
    own: Meter


_benches: list[Bench] = []  # of this process, one at most


class Picking:
    """Picks on Dask workers. ``tally`` says how shards ended, ``spent`` what each worker spent, up to now."""

    def __init__(self, targets: Targets, makers: Makers, own: Meter, blame: Blame) -> None:
        self._targets, self._own, self._blame = targets, own, blame
        self._run_dir, self._config = targets[0]
        digests = {name: weights.digest(name) for name in self._config.pick.weights}
        responses = pick_amplitudes.digests(self._config)
        self._job = Job(own.start, self._config, len(targets), makers, digests, responses)
        self._kept_s = time.monotonic()
        self.tally, self.spent = Counter[str](), dict[str, Spent]()

    def work(self, tasks: Iterator[Task | None], n: int) -> None:
        """Have ``tasks``, about ``n``, picked. A shard at which a worker died is told to ``blame``, and tried on
        another one at once, ``compute.max_tries`` times in all.

        Raises ConfigError if a worker is not as this process, has other weights or no archive, or if too many shards
        have failed; Incomplete if all workers leave.
        """
        config, progress = self._config, Progress("picked shards", n)
        given = ((task, (task.shard,)) if task else None for task in tasks)
        with (
            workers(config.compute.dask, Jobs(config.slurm, self._run_dir.logs)) as hands,
            closing(hands.each(on_worker, given, self._job, self._died, n)) as answers,
        ):
            for task, answer in answers:
                self._note(answer)
                if not task.claim.lost:  # else another picks it
                    with self._own.time("publish"):
                        self.tally.update(pick_shard.keep(self._targets, task.shard, answer.ended, self._own.start))
                    task.done()
                progress.step(task.shard.id)

    def _died(self, task: Task) -> bool:
        """Whether another worker is to try."""
        if task.claim.lost:
            return False
        shard = task.shard
        self._blame([shard.id])
        notes = {note.shard: note for note in tries.notes(self._run_dir, [shard.id[:10]])}
        if shard.id not in notes or not notes[shard.id].is_aside(self._config.compute.max_tries):
            return True
        log.error("shard %s is set aside: `orcolat retry` forgets that", shard.id)
        self.tally["failed"] += 1
        task.done()
        pick_shard.stop_if_too_many(self._run_dir, self._config)
        return False

    def _note(self, answer: Answer) -> None:
        """What its worker spent, kept now and then beside what this process spent; rank 0 is this process."""
        rank = self.spent[answer.worker].rank if answer.worker in self.spent else len(self.spent) + 1
        self.spent[answer.worker] = replace(answer.spent, rank=rank)
        if time.monotonic() - self._kept_s >= meter.EVERY_S:
            self._kept_s = time.monotonic()
            with meter.leniently():
                for spent in (self._own.spent, *self.spent.values()):
                    meter.write(meter.rank_file(self._run_dir.meter, spent), [spent])


def on_worker(shard: Shard, job: Job) -> Answer:
    """Find what is in one shard; on a worker."""
    bench = _bench(job)
    get = bench.own.timed(lambda: bench.read(shard), "read")
    ended = pick_shard.find(job.config, job.pickers, shard, bench.scorer, get, bench.own)
    if isinstance(ended, Found):
        pick_shard.count(bench.own, job.config, shard, ended)
    spent = bench.own.spent
    return Answer(ended, f"{spent.host}:{os.getpid()}", spent)


def _bench(job: Job) -> Bench:
    if not _benches or _benches[0].start != job.start:
        _require_same_inputs(job)
        config, own, (make_scorer, make_read) = job.config, Meter(job.start, 0, job.config), job.makers
        asked = config.compute.device
        where = device(gpus.visible(), me()) if asked == "cuda" else asked
        own.on(where)
        with own.time("load"):
            scorer = make_scorer(config.pick, config.compute.model_copy(update={"device": where}))
        _benches[:] = [Bench(job.start, scorer, make_read(config, scorer), own)]
    return _benches[0]


def device(seen: Sequence[str], worker: str) -> str:
    """Where ``worker``, by its name, scores if it has ``seen`` these GPUs: each of a node on its own one, in turn.

    The last number of its name counts. In the order of identities, for others may be shown them in another order.
    Raises ConfigError if there is no such number.
    """
    if len(seen) < 2:
        return "cuda"
    number = re.search(r"(\d+)$", worker)
    if number is None or "://" in worker:
        raise ConfigError(
            f"compute.device = 'cuda': the Dask worker {worker} sees {len(seen)} GPUs, and its name does not say which "
            "is its own: start them as `dask worker --nworkers N --name NAME`, show each one GPU by "
            "CUDA_VISIBLE_DEVICES, or set compute.device = 'cuda:0' if one GPU is for all"
        )
    return f"cuda:{seen.index(sorted(seen)[int(number[0]) % len(seen)])}"


def _require_same_inputs(job: Job) -> None:
    """Raises ConfigError unless this worker has the archive, the same weights and the same instrument responses."""
    root = job.config.archive.root
    if root is None or not root.is_dir() or not any(root.iterdir()):
        raise ConfigError(f"archive.root {root}: no files there on a Dask worker: it needs the archive at this path")
    for name, digest in job.weights.items():
        mine = weights.digest(name)
        if mine != digest:
            raise ConfigError(
                f"weight {name} has sha256 {mine[:12]} on a Dask worker, not {digest[:12]}: copy the folder "
                f"{weights.store()} there ($ORCOLAT_WEIGHTS names another)"
            )
    if pick_amplitudes.digests(job.config) != job.responses:
        names = ", ".join(job.responses) or "the files of [stations]"
        raise ConfigError(f"{names}: not the same on a Dask worker: it needs the instrument responses at these paths")
