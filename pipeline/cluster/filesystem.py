"""What a file system can do, tried out in a folder: the run needs exclusive creation, atomic renames and fsync."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError

PATIENCE_S = 5.0  # until a node sees what another made; NFS keeps what it knows of a folder for so long


@dataclass(frozen=True, slots=True)
class Room:
    kind: str  # "ext4", "lustre", ...
    free_bytes: int
    free_files: int | None  # None: it does not count them


def existing(path: Path) -> Path:
    """``path``, or the nearest folder above it that is there."""
    path = Path(path).absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def room(folder: Path) -> Room:
    """What is left for this user on the file system of ``folder``. Raises OSError."""
    found = os.statvfs(folder)
    return Room(kind(folder), found.f_frsize * found.f_bavail, found.f_favail if found.f_files else None)


def kind(folder: Path) -> str:
    """The type of file system that ``folder`` lies on."""
    best, name = "", "unknown"
    for line in Path("/proc/self/mounts").read_text("utf-8").splitlines():
        where, what = line.split()[1:3]
        where = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), where)
        if folder.resolve().is_relative_to(where) and len(where) >= len(best):
            best, name = where, what
    return name


def publish_s(folder: Path) -> float:
    """Seconds to publish a file as a run does: exclusive creation, fsync, rename over another, fsync of the folder.

    Raises OSError if one of them does not work, ConfigError if it does something else.
    """
    old, new = folder / "old", folder / "new"
    old.write_text("old")
    began = time.perf_counter()
    descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        os.write(descriptor, b"new")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if made(new):
        raise ConfigError(f"{folder}: O_EXCL does not refuse a file that is there; take another file system")
    new.replace(old)
    _sync(folder)
    took_s = time.perf_counter() - began
    if new.exists() or old.read_text() != "new":
        raise ConfigError(f"{folder}: a rename did not replace the file; take another file system")
    return took_s


def made(path: Path) -> bool:
    """Whether this process was the one that made the file ``path``, of all that try. Raises OSError."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True


def appears(folder: Path) -> bool:
    """Whether this node sees ``folder`` within `PATIENCE_S`."""
    until = time.monotonic() + PATIENCE_S
    while not folder.is_dir():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def skew_s(folder: Path) -> float:
    """How far the clock that stamps files in ``folder`` is ahead of this node's. Raises OSError."""
    path = folder / f"clock-{os.uname().nodename}-{os.getpid()}"
    before_s = time.time()
    path.write_text("now")
    after_s = time.time()
    found_s = path.stat().st_mtime
    path.unlink()
    return found_s - min(max(found_s, before_s), after_s)


def take(folder: Path, n_bytes: int) -> None:
    """Reserve so many bytes in ``folder`` and give them back. Raises OSError where there is no room."""
    path = folder / f".orcolat-{os.getpid()}-{time.monotonic_ns()}"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, n_bytes)
    finally:
        os.close(descriptor)
        path.unlink()
