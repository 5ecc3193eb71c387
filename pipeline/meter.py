"""The meter of the pick stage: what each rank spends, kept beside the results and no part of them.

While a rank works its record lies in a file of its own, written anew every few minutes, so that a kill loses
little. At the end rank 0 puts the records of all ranks into one file and removes those of the ranks: a run keeps
one file a start, and one a rank and start that was killed.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.config import Config
from pipeline.errors import Storage
from pipeline.maths.spent import Spent, sentences, totals
from pipeline.rundir import publish

P = ParamSpec("P")
T = TypeVar("T")
EVERY_S = 300.0
RECORDS = TypeAdapter(list[Spent])
log = logging.getLogger(__name__)


def several(weights: Sequence[str]) -> str:
    """What stands for ``weight`` in the record of several pickers in one pass."""
    return "+".join(weights)


def new_start() -> str:
    """A name for one start of the pick stage, in the order of time; rank 0 makes it and tells the others."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"


class Meter:
    """Times and counts of one rank. Stages do not nest; threads may share a meter."""

    def __init__(self, start: str, rank: int, config: Config) -> None:
        """``start`` as `new_start` made it. ``config.compute.engine`` is what scores, not "auto"."""
        compute, pick = config.compute, config.pick
        device, _, _ = compute.device.partition(":")
        kind = (device, compute.threads, several(pick.weights), pick.precision, compute.engine)
        self._done = Spent(start, rank, socket.gethostname(), *kind)
        self._lock = threading.Lock()
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._written = self._wall

    @property
    def start(self) -> str:
        """Its name."""
        return self._done.start

    def on(self, device: str) -> None:
        """Note where this rank scores: "cuda:0" is a GPU, "cpu" and "" are none."""
        self._done = replace(self._done, gpu=device if device.startswith("cuda") else "")

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add what passes inside to the seconds of ``stage``, also if it ends in an error."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            passed_s = time.perf_counter() - begin
            with self._lock:
                self._done.seconds[stage] = self._done.seconds.get(stage, 0.0) + passed_s

    def timed(self, function: Callable[P, T], stage: str) -> Callable[P, T]:
        """``function``, its calls timed as ``stage``."""

        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.time(stage):
                return function(*args, **kwargs)

        return call

    def count(self, *, shards: int = 0, picks: int = 0, data_s: float = 0.0, gpu_s: float = 0.0) -> None:
        """Add to what was done."""
        with self._lock:
            done = self._done
            self._done = replace(
                done,
                shards=done.shards + shards,
                picks=done.picks + picks,
                data_s=done.data_s + data_s,
                gpu_s=done.gpu_s + gpu_s,
            )

    @property
    def spent(self) -> Spent:
        """The record up to now."""
        wall_s, cpu_s = time.monotonic() - self._wall, time.process_time() - self._cpu
        with self._lock:
            seconds = dict(self._done.seconds)
            return replace(self._done, wall_s=wall_s, cpu_s=cpu_s, peak_gb=peak_gb(), seconds=seconds)

    def write(self, path: Path) -> None:
        """Publish the record in ``path``."""
        self._written = time.monotonic()
        write(path, [self.spent])

    def keep(self, folder: Path, every_s: float = EVERY_S) -> None:
        """`write` the rank's own file in ``folder`` if the last time is ``every_s`` ago."""
        if time.monotonic() - self._written >= every_s:
            with leniently():
                self.write(rank_file(folder, self._done))


@contextmanager
def leniently() -> Iterator[None]:
    """Where records cannot be kept, a warning: they are no part of the results."""
    try:
        yield
    except Storage as e:
        log.warning("%s", e)


def peak_gb() -> float:
    """The largest resident memory of this process, 1e9 byte."""
    status = Path("/proc/self/status")
    if status.exists():  # the other answer is never less than what the parent of this process held
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024) / 1e9


def report(folder: Path) -> list[str]:
    """What the records in ``folder`` say, as lines for people; none before there is one."""
    return sentences(totals(read(folder)))


def rank_file(folder: Path, spent: Spent) -> Path:
    return folder / f"{spent.start}.rank{spent.rank:05d}.json"


def write(path: Path, records: Sequence[Spent]) -> None:
    """Publish ``records`` in one file."""
    with publish(path) as part:
        part.write_text(json.dumps([asdict(record) for record in records], indent=1) + "\n")


def close(folder: Path, records: Sequence[Spent]) -> None:
    """Put the records of all ranks of one start into one file, and remove the ranks' own ones."""
    if not records:
        return
    write(folder / f"{records[0].start}.json", sorted(records, key=lambda record: record.rank))
    for record in records:
        rank_file(folder, record).unlink(missing_ok=True)


def read(folder: Path) -> list[Spent]:
    """All records in ``folder``; none if there is no such folder. Of a broken file there is a warning only."""
    found: dict[tuple[str, int], Spent] = {}
    for path in sorted(folder.glob("*.json"), reverse=True):  # so that the file of all ranks comes last and counts
        try:
            records = _records(path)
        except (OSError, TypeError, ValueError) as e:
            log.warning("%s: not a record of this meter, left out: %s; remove it, nothing else needs it", path, _why(e))
            continue
        found.update({(record.start, record.rank): record for record in records})
    return list(found.values())


def _records(path: Path) -> list[Spent]:
    """The records of one file. Raises OSError, TypeError or ValueError."""
    found = json.loads(path.read_text("utf-8"))
    for fields in found:
        Spent(**fields)  # refuses what it does not know
    return RECORDS.validate_python(found)


def _why(error: Exception) -> str:
    """One line."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
