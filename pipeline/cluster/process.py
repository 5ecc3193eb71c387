"""Is a process that I read of still there?"""

from __future__ import annotations

from pathlib import Path


def born(pid: int) -> int:
    """When a process began, in clock ticks since the machine did; -1: it has ended, though perhaps not been reaped."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return -1 if state in "ZX" else int(rest[18])
