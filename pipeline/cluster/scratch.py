"""Waveforms between two processes of one node: a file in node-local scratch, mapped into the memory of both.

A reader owns one file and writes each of its waveforms over the last one. It lies in a folder that only the user may
enter, and both lose their names as soon as the scorer has the file open: what is left of it ends with the processes,
however they end. Until then the folder's name says whose it is, so that a later run can clear away what a killed one
left behind.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import socket
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.cluster.process import born
from pipeline.config import Compute
from pipeline.errors import ConfigError, Storage, kept_in
from pipeline.records import Waveform

PREFIX = "orcolat"
SHARED_MEMORY = Path("/dev/shm")
ROOM_BYTES = 1 << 27  # a reader's file: a day at 100 Hz is 112 MB
SAMPLE_BYTES = 3 * 4 + 1  # three components in float32, and whether they are valid


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a waveform is, but for its samples, which lie in the file ``path``."""

    path: str
    n: int
    start_ns: int
    rate_hz: float
    components: tuple[bool, bool, bool]


def folder(compute: Compute, readers: int) -> Path:
    """Where the files of a node's ``readers`` lie: ``compute.scratch``, $ORCOLAT_SCRATCH, $TMPDIR, memory, /tmp.

    Raises ConfigError if what is named cannot be written to.
    """
    named = compute.scratch or os.environ.get("ORCOLAT_SCRATCH")
    if named and not _writable(Path(named)):
        raise ConfigError(
            f"{named}: scratch for waveforms that cannot be written to: set compute.scratch (or $ORCOLAT_SCRATCH) to "
            "a folder of this node's own memory or disk"
        )
    if named or "TMPDIR" in os.environ:
        return Path(named or tempfile.gettempdir())
    if _writable(SHARED_MEMORY) and shutil.disk_usage(SHARED_MEMORY).free > readers * ROOM_BYTES:
        return SHARED_MEMORY
    return Path(tempfile.gettempdir())


def _writable(path: Path) -> bool:
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


class Outbox:
    """A reader's file in ``parent``, which is first cleared of what dead processes left there. Raises Storage."""

    def __init__(self, parent: Path) -> None:
        clear(parent)
        host, pid = _me()
        with kept_in(parent):
            self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}.{host}.{pid}.{born(pid)}.", dir=parent))
            self._path = self.folder / "waveform"
            self._file = self._path.open("x+b", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._bytes = 0

    def put(self, waveform: Waveform) -> Parcel:
        """Write ``waveform`` over the one before. Raises Storage where there is no room."""
        self._reserve(len(waveform) * SAMPLE_BYTES)
        self._file.seek(0)
        for array in (*waveform.samples, waveform.valid):
            _write_all(self._file.fileno(), np.ascontiguousarray(array).view(np.uint8).data)
        return Parcel(str(self._path), len(waveform), waveform.start_ns, waveform.rate_hz, waveform.components)

    def _reserve(self, n_bytes: int) -> None:
        """Make the file as long as that on the disk: a mapping of a file without its blocks kills who reads it."""
        if n_bytes <= self._bytes:
            return
        try:
            os.posix_fallocate(self._file.fileno(), 0, n_bytes)
        except OSError as e:
            free = shutil.disk_usage(self.folder.parent).free
            raise Storage(
                f"{self.folder.parent}: no room for a waveform of {n_bytes} bytes ({free} are free): {e.strerror}. "
                "Every reader needs as much: set compute.scratch to a larger node-local folder, or take fewer ranks a "
                "node"
            ) from e
        self._bytes = n_bytes

    def forget_name(self) -> None:
        """The other side has the file open: nobody needs its name any more."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def close(self) -> None:
        with suppress(OSError):
            self.forget_name()
        self._file.close()


def _write_all(descriptor: int, data: memoryview) -> None:
    while len(data):
        data = data[os.write(descriptor, data) :]


class Inbox:
    """A scorer's view of its readers' files, each mapped once and again only where it grew."""

    def __init__(self) -> None:
        self._maps: dict[str, mmap.mmap] = {}
        self._files: dict[str, int] = {}

    def get(self, parcel: Parcel) -> Waveform:
        """The waveform itself, not a copy: it holds until the reader has its answer."""
        data = self._mapped(parcel.path, parcel.n * SAMPLE_BYTES)
        samples = np.frombuffer(data, np.float32, 3 * parcel.n).reshape(3, parcel.n)
        valid = np.frombuffer(data, np.bool_, parcel.n, offset=samples.nbytes)
        return Waveform(samples, valid, parcel.start_ns, parcel.rate_hz, parcel.components)

    def _mapped(self, path: str, n_bytes: int) -> mmap.mmap:
        if path not in self._files:
            self._files[path] = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        if path not in self._maps or len(self._maps[path]) < n_bytes:
            self._maps[path] = mmap.mmap(self._files[path], 0)
        return self._maps[path]

    def close(self) -> None:
        self._maps.clear()
        while self._files:
            os.close(self._files.popitem()[1])


def clear(parent: Path) -> None:
    """Remove what dead processes of this user and this machine left in ``parent``."""
    for left in parent.glob(f"{PREFIX}.*.*.*.*"):
        with suppress(OSError, ValueError):  # another was faster; not a name of ours
            if left.lstat().st_uid == os.getuid() and _is_dead(left):
                shutil.rmtree(left)


def _is_dead(left: Path) -> bool:
    """Whether its process has ended on this machine, also as seen from a container that cannot see the process."""
    host, pid, begun, _ = left.name.removeprefix(f"{PREFIX}.").rsplit(".", 3)
    if host != _me()[0] or born(int(pid)) == int(begun):
        return False
    return not any(_held(path) for path in left.iterdir())


def _held(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _me() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()
