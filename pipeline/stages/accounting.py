"""Stage `account`: what Slurm has on record of the jobs of a run, kept in the run; no part of the results."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict

from pipeline.cluster import slurm
from pipeline.errors import ConfigError, Incomplete
from pipeline.formats import submissions
from pipeline.maths.billing import Bill, bill
from pipeline.rundir import RunDir, publish

log = logging.getLogger(__name__)


def run(run_dir: RunDir) -> str:
    """Collect the records into ``accounting.json``; one line that says the sums, or why there are none."""
    jobs = [job for submission in submissions.read(run_dir) for job in submission.values()]
    if not jobs:
        return "accounting   none: no job was handed in with `orcolat submit`"
    try:
        records = slurm.accounting(jobs)
    except (ConfigError, Incomplete) as e:  # no reason to fail: nothing depends on it
        log.warning("%s", e)
        return f"accounting   none: {e}"
    if not records:  # purged, or of another cluster: what was collected before stays
        return f"accounting   none: Slurm has no record of jobs {', '.join(jobs)}"
    found = bill(records)
    with publish(run_dir.accounting) as part:
        part.write_text(json.dumps({**asdict(found), "records": records}, indent=1) + "\n", "utf-8")
    return f"accounting   {sentence(found)}; {run_dir.accounting}"


def sentence(found: Bill) -> str:
    """For people."""
    ends = ", ".join(f"{n} {state}" for state, n in found.ends.items())
    gpus = f", {found.gpu_h:.3g} GPU-hours" if found.gpu_h else ""
    held = f"{found.core_h:.3g} core-hours{gpus}"
    return f"{found.starts} starts ({ends}): {held}; at most {found.peak_gb:.2f} GB in one rank"
