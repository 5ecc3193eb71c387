"""What befalls the workers of the soak test, drawn by a seeded generator and brought about as the work goes on."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import Storage
from pipeline.formats import tries
from pipeline.records import Shard
from pipeline.rundir import RunDir
from tests.soak_worker import TIMEOUT_S

KINDS = {  # how often, of a hundred
    "kill": 30,
    "stop": 14,  # and go on, after others took it for dead
    "pause": 6,  # and go on before
    "term": 12,
    "usr1": 10,
    "delayed start": 8,
    "double start": 6,
    "disk full": 5,
    "read-only": 4,
    "corrupt file": 5,
}
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "usr1": signal.SIGUSR1, "delayed start": signal.SIGKILL}


@dataclass
class Fault:
    kind: str
    at: float  # when so many shards are done
    lasts_s: float
    luck: float  # in [0, 1): which worker, which shard
    pid: int = 0
    begun_s: float = 0.0
    ended_s: float = 0.0
    shard: str = ""
    undo: object = field(default=None, repr=False)


def drawn(n, n_shards, rng):
    """``n`` faults in order, one of each kind at least if there is room."""
    kinds = [*KINDS, *rng.choices(list(KINDS), list(KINDS.values()), k=n)][:n]
    long = {"stop": (TIMEOUT_S + 1, TIMEOUT_S + 4), "pause": (0.1, TIMEOUT_S / 4), "delayed start": (2, 6)}
    found = [
        Fault(kind, rng.uniform(0.02, 0.93) * n_shards, rng.uniform(*long.get(kind, (1.0, 2.5))), rng.random())
        for kind in kinds
    ]
    return sorted(found, key=lambda fault: fault.at)


class Faults:
    def __init__(self, place, queue, n_shards):
        self.place, self.queue, self.n_shards = place, queue, n_shards
        self.going: list[Fault] = []
        self.done: list[Fault] = []
        self.pauses: dict[int, float] = {}  # by pid: how long until its place is filled again

    def step(self, campaign):
        """End what has lasted long enough, begin what is due."""
        now = time.monotonic()
        for fault in [fault for fault in self.going if now >= fault.begun_s + fault.lasts_s]:
            if fault.kind != "corrupt file" or not any(other.kind == "read-only" for other in self.going):
                self._end(fault)
        for fault in [fault for fault in self.queue if len(campaign.log.kept) >= fault.at]:
            if fault.kind not in ("disk full", "read-only") or not any(
                other.kind in ("disk full", "read-only") for other in self.going
            ):
                self._begin(fault, campaign)

    def end_all(self):
        for fault in list(self.going):
            self._end(fault)

    def _end(self, fault):
        self.going.remove(fault)
        fault.undo()
        fault.ended_s = time.monotonic()
        self.done.append(fault)

    def _begin(self, fault, campaign):
        fault.begun_s = fault.ended_s = time.monotonic()
        begin = {
            "stop": self._halt,
            "pause": self._halt,
            "double start": self._double,
            "disk full": self._fill,
            "read-only": self._forbid,
            "corrupt file": self._spoil,
        }.get(fault.kind, self._signal)
        if not begin(fault, campaign):
            return  # later
        self.queue.remove(fault)
        (self.going if fault.undo else self.done).append(fault)

    def _victim(self, fault, campaign):
        """A worker that is at work, and not halted."""
        halted = {other.pid for other in self.going if other.kind in ("stop", "pause")}
        hit = {other.pid for other in self.done if other.kind in SIGNALS}
        could = [w for w in campaign.workers if w.pid in campaign.log.readers and w.pid not in halted | hit]
        return could[int(fault.luck * len(could))] if could else None

    def _signal(self, fault, campaign):
        worker = self._victim(fault, campaign)
        if worker:
            fault.pid = worker.pid
            if fault.kind == "delayed start":
                self.pauses[worker.pid] = fault.lasts_s
            os.kill(worker.pid, SIGNALS[fault.kind])
        return worker

    def _halt(self, fault, campaign):
        worker = self._victim(fault, campaign)
        if worker:
            fault.pid = worker.pid
            os.kill(worker.pid, signal.SIGSTOP)
            fault.undo = lambda: os.kill(worker.pid, signal.SIGCONT)
        return worker

    def _double(self, fault, campaign):
        campaign.start(int(fault.luck * 4), again=False)
        return True

    def _fill(self, fault, _):
        disk = self.place.run.parent
        if not os.path.ismount(disk):
            self.place.full.touch()
            fault.undo = self.place.full.unlink
            return True
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass
        fault.undo = ballast.unlink
        return True

    def _forbid(self, fault, _):
        folders = [self.place.run, *(path for path in self.place.run.rglob("*") if path.is_dir())]
        for folder in folders:
            with suppress(FileNotFoundError):
                folder.chmod(0o555)

        def undo():
            for folder in folders:
                with suppress(FileNotFoundError):
                    folder.chmod(0o755)

        fault.undo = undo
        return True

    def _spoil(self, fault, campaign):
        """Noise in place of a file that nobody has read yet; then it is brought back, and the operator says so."""
        files = sorted((self.place.root / "waves").rglob("*.D.*"))
        there = {shard_of(path): path for path in files}
        could = sorted(set(there) - set(campaign.log.read))
        if not could:
            could = sorted(there)
        fault.shard = could[int(fault.luck * min(len(could), 40))]
        path = there[fault.shard]
        good, when = path.read_bytes(), path.stat().st_mtime_ns
        put(path, bytes(len(good)), when)

        def undo():
            put(path, good, when)
            with suppress(Storage):
                tries.forget(RunDir(self.place.run), [fault.shard])

        fault.undo, fault.lasts_s = undo, fault.lasts_s + 4
        return True


def put(path: Path, data: bytes, when: int) -> None:
    other = path.with_name("other")
    other.write_bytes(data)
    other.chmod(0o644)
    os.utime(other, ns=(when, when))
    other.replace(path)


def shard_of(path):
    from datetime import date, timedelta

    network, station, _, channel, _, year, day = path.name.split(".")
    return Shard(date(int(year), 1, 1) + timedelta(int(day) - 1), f"{network}.{station}.", channel[:2]).id
