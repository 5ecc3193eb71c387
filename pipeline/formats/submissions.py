"""What was handed in to Slurm for a run: a file for each time in ``jobs/``, so that two at once lose nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from pipeline.rundir import RunDir, publish


def write(run_dir: RunDir, jobs: dict[str, str], tasks: int) -> None:
    """Note the id of each job by its name, and how many ``tasks`` the array has."""
    now = datetime.now(UTC)
    path = run_dir.jobs / f"{now:%Y%m%dT%H%M%S%f}-{'-'.join(jobs.values())}.json"
    with publish(path) as part:
        about = {"submitted": f"{now:%Y-%m-%dT%H:%M:%SZ}", "tasks": tasks, "jobs": jobs}
        part.write_text(json.dumps(about, indent=1) + "\n", "utf-8")


def read(run_dir: RunDir) -> list[dict[str, str]]:
    """The id of each job by its name, of each submission, the oldest first."""
    return [json.loads(path.read_text("utf-8"))["jobs"] for path in sorted(run_dir.jobs.glob("[!.]*.json"))]
