"""Who works on what: a file for each piece of work in one folder that all processes see. No locks, no server.

A claim is made with O_EXCL, which is atomic on local disks, NFS and Lustre. Its first line says whose it is, then come
"+ID" for each item begun and "-ID" for each that ended; while it is held a thread touches it. Nothing in the results
depends on claims: they keep two processes from doing the same twice, and say what a dead one was at.

A claim is dead if its process is gone (told from the same machine), if Slurm does not run its job any more, or if it
was not touched for ``timeout_s``. That is measured on the file server's clock, the time of a file touched just now; and
never believed before the claim has also stood still for three heartbeats of the observer's own watch, for there are
file systems that take the time of the client.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from pipeline.cluster import slurm, slurm_jobs, stop
from pipeline.cluster.process import born
from pipeline.errors import Storage, kept_in

log = logging.getLogger(__name__)
HEARTBEAT_S = 15.0
LOOK_S = 1.0  # between two looks whether this process is to stop, and at the server's clock
LOST_S = 0.05  # between two looks whether a claim is still there
ASIDE_S = 60.0  # so long a claim that was moved aside may wait for whoever did that
STOPPED = "stopped"
CLOCK, TAKEN = ".clock-", ".taken-"  # small files beside the claims
Died = Callable[[list[str]], None]  # told the items that a dead process was at


@dataclass(frozen=True, slots=True)
class Who:
    """Whose a claim is. ``space`` names the kernel and process numbers that ``pid`` and ``born`` belong to."""

    token: str = ""
    host: str = ""
    space: str = ""
    pid: int = 0
    born: int = 0  # clock ticks since the machine began
    cluster: str = ""
    job: str = ""
    array: str = ""  # "JOB_TASK" of an array's task, else the job
    restarts: int = 0

    def __str__(self) -> str:
        job = f", job {self.array or self.job}" if self.job else ""
        return f"pid {self.pid} on {self.host}{job}" if self.pid else "a process that has not signed yet"


def me() -> Who:
    """This process, with a new token."""
    env, pid = os.environ.get, os.getpid()
    return Who(
        uuid.uuid4().hex,
        socket.gethostname(),
        space(),
        pid,
        born(pid),
        env("SLURM_CLUSTER_NAME", ""),
        env("SLURM_JOB_ID", ""),
        slurm.me(),
        int(env("SLURM_RESTART_COUNT") or 0),
    )


def space() -> str:
    """What this process and another must share to see each other's number; "" where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115  (not a path)
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Found:
    """A claim as it lies in its folder."""

    who: Who
    lines: tuple[str, ...]
    mark: tuple[str, int]  # what tells it from a later one of the same name
    touched_s: float
    moved_s: float  # when it was given its present name

    @property
    def in_work(self) -> list[str]:
        """What was begun and has not ended. That a process was killed after it was told to stop is no fault of that."""
        ended = {line[1:] for line in self.lines if line[:1] == "-"}
        begun = [line[1:] for line in self.lines if line[:1] == "+" and line[1:] not in ended]
        return [] if STOPPED in self.lines else begun


def look(path: Path) -> Found | None:
    """The claim at ``path``; None if there is none."""
    try:
        with path.open("rb") as file:
            status, text = os.fstat(file.fileno()), file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    first, *lines = text.split("\n")
    try:
        found = json.loads(first)
        who = Who(**{f.name: found[f.name] for f in fields(Who)})
    except (ValueError, KeyError, TypeError):  # not written yet, or never
        who = Who()
    return Found(who, tuple(lines[:-1]), (who.token, status.st_ino), status.st_mtime, status.st_ctime)


def holders(folder: Path) -> list[str]:
    """Who has claims in ``folder``, dead or alive."""
    found = (look(path) for path in folder.glob("[!.]*"))
    return sorted({str(held.who) for held in found if held})


class Claim:
    """One piece of work, ours until `release`. Only `Claims` makes one."""

    def __init__(self, path: Path, descriptor: int, forget: Callable[[Claim], None]) -> None:
        self.path, self._descriptor, self._forget = path, descriptor, forget
        self._pending: set[str] = set()
        self._stopped = False

    def expect(self, items: Sequence[str]) -> None:
        """What is to be done; after the last `done` the claim is released."""
        self._pending = set(items)
        if not items:
            self.release()

    def begin(self, item: str) -> None:
        self._write(f"+{item}\n")

    def done(self, item: str) -> None:
        self._write(f"-{item}\n")
        self._pending.discard(item)
        if not self._pending:
            self.release()

    @property
    def lost(self) -> bool:
        """Whether another took this process for dead and took over. An error of the file system is no loss."""
        if self._descriptor < 0:
            return True
        for pause_s in (LOST_S, 0.0):
            try:
                return os.fstat(self._descriptor).st_ino != self.path.stat().st_ino
            except FileNotFoundError:  # moved aside, perhaps by mistake, and about to be put back
                time.sleep(pause_s)
            except OSError:
                return False
        return True

    def touch(self) -> None:
        """Give a sign of life. An error is none of the work's."""
        with suppress(OSError):
            if self._descriptor >= 0:
                os.utime(self._descriptor)

    def note_stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            with suppress(OSError, Storage):
                self._write(f"{STOPPED}\n")

    def release(self) -> None:
        """Raises Storage where it cannot be removed: it is dead once this process has ended."""
        if self._descriptor < 0:
            return
        self._forget(self)
        try:
            if not self.lost:
                with kept_in(self.path):
                    self.path.unlink(missing_ok=True)
        except Storage:
            self.note_stop()  # so that nothing is blamed
            raise
        finally:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, line: str) -> None:
        if self._descriptor >= 0:  # if it was lost, into a file that nobody sees any more
            with kept_in(self.path):
                os.write(self._descriptor, line.encode())


class Claims:
    """What this process holds in ``folder``, and its judgement on what others hold. All is released at the end."""

    def __init__(self, folder: Path, timeout_s: float, died: Died, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._folder, self._timeout_s, self._died, self._heartbeat_s = folder, timeout_s, died, heartbeat_s
        with kept_in(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._held: list[Claim] = []
        self._lock, self._end = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._clock = folder / f"{CLOCK}{uuid.uuid4().hex}"
        self._server_s = (-1.0, 0.0)  # the server's clock, and when it was looked at
        self._seen: dict[Path, tuple[tuple[str, int], float, float]] = {}  # mark, touched, first seen so
        self.suspects: set[str] = set()  # names of claims that a little more watching will settle

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.drop()
        if self._thread:
            self._thread.join()
        with suppress(OSError):
            self._clock.unlink(missing_ok=True)

    def drop(self) -> None:
        """Release all that is held."""
        for claim in list(self._held):
            with suppress(Storage):  # of which whoever works has heard, or does not need to
                claim.release()

    def settle(self, name: str) -> bool:
        """Whether the claim ``name`` is free; a dead one is removed, and until that is sure takes three heartbeats."""
        while not (free := self._bury(self._folder / name)) and name in self.suspects and not stop.asked():
            time.sleep(min(LOOK_S, self._heartbeat_s))
        return free

    def take(self, name: str) -> Claim | None:
        """The claim ``name``, now ours; None if a living process holds it. Raises Storage."""
        path = self._folder / name
        for _ in range(2):  # whoever buries a dead one may lose the race for its work
            if claim := self._create(path):
                return claim
            if not self._bury(path):
                return None
        return None

    def names(self) -> list[str]:
        """Of all claims there are."""
        return sorted(path.name for path in self._folder.glob("[!.]*"))

    def holder(self, name: str) -> str:
        """Who has the claim ``name``; "" if nobody has."""
        held = look(self._folder / name)
        return str(held.who) if held else ""

    def tidy(self) -> None:
        """Remove what killed processes left: claims, also of work that is done, and small files."""
        for name in self.names():
            self._bury(self._folder / name)
        self.suspects.clear()  # nobody waits for these
        for path in self._folder.glob(f"{TAKEN}*"):  # of a process that was killed while it took over
            if (found := look(path)) and self._now_s() - found.moved_s > ASIDE_S:
                self._died(found.in_work)
                path.unlink(missing_ok=True)
        for path in self._folder.glob(f"{CLOCK}*"):
            with suppress(OSError):
                if self._now_s() - path.stat().st_mtime > self._timeout_s + 3600:
                    path.unlink()

    def _create(self, path: Path) -> Claim | None:
        with kept_in(path):
            try:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o644)
            except FileExistsError:
                return None
            claim = Claim(path, descriptor, self._forget)
            try:
                os.write(descriptor, (json.dumps(asdict(me())) + "\n").encode())
            except OSError:
                with suppress(Storage):
                    claim.release()
                raise
        self._keep(claim)
        return claim

    def _keep(self, claim: Claim) -> None:
        with self._lock:
            self._held.append(claim)
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="claims", daemon=True)
            self._thread.start()

    def _forget(self, claim: Claim) -> None:
        with self._lock:
            if claim in self._held:
                self._held.remove(claim)

    def _beat(self) -> None:
        """Touch what is held, until the end."""
        last = time.monotonic()
        while not self._end.wait(min(LOOK_S, self._heartbeat_s)):
            due = time.monotonic() - last >= self._heartbeat_s
            with self._lock:
                for claim in self._held:
                    if due:
                        claim.touch()
                    if stop.asked():
                        claim.note_stop()
            last = time.monotonic() if due else last

    def _bury(self, path: Path) -> bool:
        """Remove the claim at ``path`` if it is dead, and tell what it was at. Returns whether the name may be free."""
        held = look(path)
        if held is None:
            return True
        why = self._why_dead(path, held)
        if not why:
            return False
        now = look(path)  # the judgement may have taken seconds
        if now is None or now.mark != held.mark:
            return now is None
        aside = path.with_name(f"{TAKEN}{uuid.uuid4().hex}")
        try:
            with kept_in(path):
                path.rename(aside)  # of several, one succeeds
        except FileNotFoundError:
            return True
        taken = look(aside)
        try:
            if taken is None or taken.mark != held.mark:  # it had been buried, and a living one is in its place
                with suppress(OSError):
                    os.link(aside, path)
                return False
            log.warning("taking over %s of %s: %s", path.name, held.who, why)
            try:
                self._died(taken.in_work)
            except BaseException:
                with suppress(OSError):
                    os.link(aside, path)  # as dead as before, for the next one
                raise
            return True
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)

    def _why_dead(self, path: Path, held: Found) -> str:
        """Why this claim's process counts as dead; "": it does not."""
        self.suspects.discard(path.name)
        who, now = held.who, time.monotonic()
        if who.space and who.space == space():
            return "" if born(who.pid) == who.born else "its process is gone"
        seen = self._seen.get(path)
        if seen is None or seen[:2] != (held.mark, held.touched_s):
            seen = self._seen[path] = (held.mark, held.touched_s, now)
        age_s, still_s = self._now_s() - held.touched_s, now - seen[2]
        if max(age_s, still_s) > 4 * self._heartbeat_s and slurm_jobs.is_over(who.cluster, who.job, who.restarts):
            return "Slurm does not run its job any more"
        stale = age_s > self._timeout_s
        if still_s >= (3 * self._heartbeat_s if stale else self._timeout_s):
            return f"no sign of life for {max(age_s, still_s):.0f} s"
        if stale:
            self.suspects.add(path.name)
        return ""

    def _now_s(self) -> float:
        """The time of the file server, which may not be that of this machine."""
        now = time.monotonic()
        if self._server_s[0] < 0 or now - self._server_s[0] > LOOK_S:
            with kept_in(self._clock):
                self._clock.touch()
                self._server_s = (now, self._clock.stat().st_mtime)
        return self._server_s[1]
