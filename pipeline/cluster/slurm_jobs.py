"""Whether Slurm still runs a job."""

from __future__ import annotations

import os
import time

from pipeline.cluster import slurm
from pipeline.errors import OrcolatError

CACHED_S, PATIENCE_S = 20.0, 10.0
LIVING = {"RUNNING", "SUSPENDED", "COMPLETING", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
_looked: dict[str, tuple[float, dict[str, int] | None]] = {}  # at most once in a while: the controller serves everyone


def is_over(cluster: str, job: str, restarts: int) -> bool:
    """Whether the job of the cluster that this process runs on has ended, or begun anew. False where none can tell."""
    if not job or cluster != os.environ.get("SLURM_CLUSTER_NAME", ""):
        return False
    at, found = _looked.get(cluster, (-CACHED_S, None))
    if time.monotonic() - at > CACHED_S:
        found = _running()
        _looked[cluster] = (time.monotonic(), found)
    return found is not None and found.get(job) != restarts


def _running() -> dict[str, int] | None:
    """How often each of the user's living jobs was restarted, by id; None if Slurm does not answer."""
    what = ("squeue", "--noheader", f"--user={os.getuid()}", "--Format=JobID:24,State:24,RestartCnt:12")
    try:
        rows = [line.split() for line in slurm.call(*what, timeout_s=PATIENCE_S).splitlines() if line.strip()]
        return {job: int(restarts) for job, state, restarts in rows if state in LIVING}
    except (OrcolatError, ValueError):  # no Slurm here, no answer, or none that is understood
        return None
