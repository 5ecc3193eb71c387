"""What this process may use of the machine it is on: asked of the kernel and of the launcher's variables."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path

from pipeline.cluster.world import HYDRA

STARTED = {  # variable that counts the started processes -> who set it
    "OMPI_COMM_WORLD_SIZE": "Open MPI's mpiexec",
    "SLURM_STEP_NUM_TASKS": "srun",
    "PMI_SIZE": "mpiexec",
}
SEGMENTS = "mpich_shm_*"
CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
NO_LIMIT = 1 << 60  # cgroups of version 1 write "none" as a number near 2^63


def host() -> str:
    return socket.gethostname()


def launcher() -> tuple[str, int]:
    """Who started this process, and how many of its kind."""
    # Inside a job of Slurm, MPICH's mpiexec is itself started by srun.
    names = ["PMI_SIZE"] if HYDRA in os.environ else list(STARTED)
    found = [(STARTED[name], int(os.environ[name])) for name in names if os.environ.get(name, "").isdecimal()]
    return found[0] if found else ("hand", 1)


def cores() -> tuple[int, ...]:
    """That this process may run on."""
    return tuple(sorted(os.sched_getaffinity(0)))


def open_files() -> tuple[int, int]:
    """The soft and the hard limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def memory_limit() -> tuple[int, str]:
    """Bytes that the processes of this job may take on this node, and what limits them."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = [(total, "the machine's"), *((limit, "its cgroup's limit") for limit in _cgroup_limits())]
    return min(found, key=lambda pair: pair[0])


def _cgroup_limits() -> list[int]:
    """Of this process's memory cgroup and those above it, version 1 or 2."""
    limits = []
    for line in _text(OWN_CGROUP).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root, name = CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        inner = root / path.lstrip("/")
        texts = [_text(folder / name).strip() for folder in (inner, *inner.parents) if folder.is_relative_to(root)]
        limits += [int(text) for text in texts if text.isdecimal() and int(text) < NO_LIMIT]
    return limits


def _text(path: Path) -> str:
    """Empty if it cannot be read."""
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""


def left_behind(folder: Path) -> list[Path]:
    """Segments of MPI in ``folder`` that are this user's and that no process has mapped any more."""
    own = [path for path in folder.glob(SEGMENTS) if _uid(path) == os.getuid()]
    if not own:
        return []
    maps = "".join(_text(process / "maps") for process in Path("/proc").glob("[0-9]*"))
    return [path for path in own if str(path) not in maps]


def _uid(path: Path) -> int:
    try:
        return path.stat().st_uid
    except OSError:  # it ended meanwhile
        return -1
