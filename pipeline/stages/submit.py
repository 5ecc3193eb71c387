"""Stage `submit`: what is left of a run becomes jobs of Slurm: an array that picks, the events, the report."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from math import ceil

from pipeline import config as configs
from pipeline.cluster import slurm
from pipeline.cluster.slurm import HOME, Limits, Wanted, env_of
from pipeline.config import Config, Slurm
from pipeline.errors import ConfigError, Incomplete, OrcolatError
from pipeline.formats import submissions
from pipeline.formats.todo import Seen, to_try
from pipeline.maths.spent import duration
from pipeline.rundir import RunDir, of_networks, open_config, publish

PICK, ASSOCIATE, REPORT = "pick", "associate", "report"
SCRIPTS = {PICK: "array.sh", ASSOCIATE: "associate.sh", REPORT: "report.sh"}


def run(run_dir: RunDir, config: Config, wall_s: float | None, dry: bool = False) -> str:
    """Hand in the jobs that the planned run still needs; with ``dry`` only say them. A text of a few lines.

    ``wall_s`` is how long the whole picking would take one array task, if that is known. Handing in twice is safe:
    what one job has claimed or done, the other leaves alone. Raises ConfigError if Slurm refuses a job, which takes
    back the others.
    """
    wanted = config.slurm
    left, planned = counts(run_dir, config)
    require_scripts(wanted)
    limits = None if dry else slurm.limits(wanted.partition)
    if limits:
        require_limits(wanted, limits)
    wall_s = wall_s * left / max(1, planned) if wall_s is not None else None
    tasks = array_size(wanted, left, wall_s, limits.tasks if limits else wanted.max_tasks)
    jobs = chain(run_dir, wanted, tasks)
    lines = [said(wanted, left, tasks, wall_s)]
    if dry:
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment(wanted).items())
        before = ["", *(f"ID_OF_{job.name}" for job in jobs)]
        shown = [replace(job, options=_after(job, last)) for job, last in zip(jobs, before, strict=False)]
        return "\n".join([*lines, *(f"{variables} {shlex.join(slurm.command(job))}" for job in shown)])
    _keep_config(run_dir, config)
    run_dir.logs.mkdir(parents=True, exist_ok=True)
    ids = hand_in(jobs, environment(wanted))
    submissions.write(run_dir, ids, tasks)
    return "\n".join([*lines, *(f"{name:12} job {job}" for name, job in ids.items()), f"logs         {run_dir.logs}"])


def counts(run_dir: RunDir, config: Config) -> tuple[int, int]:
    """Shards, and hours of networks, that a task could still pick, and all that are planned.

    Raises Incomplete if picks are not imported.
    """
    if config.pick.source:
        if not run_dir.imported.exists():
            raise Incomplete(
                f"{run_dir.root}: this run takes its picks from pick.source: run `orcolat import-picks` first"
            )
        return 0, 0
    dirs = [*([run_dir] if config.of_stations else []), *(hours for hours, _ in of_networks(run_dir, config))]
    plans = [(each, Seen.of(each).plan) for each in dirs]
    left = (len(to_try(each, plan, config.compute.max_tries)) for each, plan in plans)
    return sum(left), sum(len(plan) for _, plan in plans)


def array_size(wanted: Slurm, left: int, wall_s: float | None, most: int) -> int:
    """How many array tasks ``left`` shards are worth: none idle, none with less than ``wanted.task_s`` of work.

    ``wall_s`` is what one task would need for all, ``most`` what the cluster allows.
    """
    tasks = min(wanted.max_tasks, most, ceil(left / wanted.ranks))
    return tasks if wall_s is None or not tasks else min(tasks, max(1, ceil(wall_s / wanted.task_s)))


def said(wanted: Slurm, left: int, tasks: int, wall_s: float | None) -> str:
    """One line on the array."""
    if not tasks:
        return "array        none: every shard is picked, or was set aside (`orcolat status`)"
    text = f"array        {left} shards for {tasks} tasks of {wanted.nodes} node(s) x {wanted.ranks_per_node} ranks"
    if wall_s is None:
        return f"{text}; no estimate of the time"
    each_s, limit_s = wall_s / tasks, wanted.time_limit_s - wanted.signal_s
    text += f", about {duration(each_s)} each"
    again = ceil(each_s / limit_s) - 1
    if again > wanted.max_requeues:
        return (
            f"{text}: {again + 1} times slurm.time_limit, and slurm.max_requeues {wanted.max_requeues} does not let a "
            "task come back so often: raise it, max_tasks or time_limit, or hand in again later"
        )
    return f"{text}: more than slurm.time_limit, so each puts itself back in line {again} times" if again else text


def require_limits(wanted: Slurm, limits: Limits) -> None:
    """Raises ConfigError for what the partition would refuse, or keep waiting for ever."""
    if wanted.time_limit_s > limits.time_s:
        allowed = duration(limits.time_s)
        raise ConfigError(f"slurm.time_limit {wanted.time_limit}: partition {wanted.partition} allows {allowed}")
    if limits.tasks < 1:
        raise ConfigError("this cluster allows no job arrays (MaxArraySize): hand in jobs/array.sh as single jobs")
    if wanted.nodes > limits.nodes:
        raise ConfigError(f"slurm.nodes {wanted.nodes}: partition {wanted.partition} allows {limits.nodes:g} a job")


def require_scripts(wanted: Slurm) -> None:
    """Raises ConfigError that names a script which is not there."""
    for path in (HOME / "jobs" / name for name in SCRIPTS.values()):
        if not path.is_file():
            raise ConfigError(f"{path}: no such script; install the project from its folder: pip install -e .")
    if not env_of(wanted).is_file():
        raise ConfigError(f"slurm.env {env_of(wanted)}: no such script; a relative path starts at its file's folder")


def environment(wanted: Slurm) -> Mapping[str, str]:
    """What the scripts find in theirs: jobs run with the Python that hands them in."""
    venv = os.environ.get("ORCOLAT_VENV", sys.prefix)
    return {"ORCOLAT_HOME": str(HOME), "ORCOLAT_ENV": str(env_of(wanted)), "ORCOLAT_VENV": venv}


def chain(run_dir: RunDir, wanted: Slurm, tasks: int) -> list[Wanted]:
    """The jobs, each to follow the one before it however that ends: a later one looks itself whether all is there."""
    names = [PICK, ASSOCIATE, REPORT] if tasks else [ASSOCIATE, REPORT]
    jobs = []
    for name in names:
        array, ranks = name == PICK, 1 if name == REPORT else wanted.after.ranks
        options = slurm.array_options(wanted, tasks) if array else slurm.after_options(wanted, ranks)
        output = f"--output={run_dir.logs / name}-{'%A_%a' if array else '%j'}.log"
        jobs.append(Wanted(name, HOME / "jobs" / SCRIPTS[name], (str(run_dir.root),), (*options, output)))
    return jobs


def hand_in(jobs: list[Wanted], variables: Mapping[str, str]) -> dict[str, str]:
    """The id of each job by its name; all of them or, with an error, none."""
    ids: dict[str, str] = {}
    try:
        for job in jobs:
            before = list(ids.values())[-1] if ids else ""
            ids[job.name] = slurm.submit(replace(job, options=_after(job, before)), variables)
    except OrcolatError:
        if ids:
            slurm.cancel(list(ids.values()))
        raise
    return ids


def _after(job: Wanted, before: str) -> tuple[str, ...]:
    return (f"--dependency=afterany:{before}", *job.options) if before and job.name != PICK else job.options


def _keep_config(run_dir: RunDir, config: Config) -> None:
    """Tasks read the saved configuration: the present [compute] and [slurm] go there, too."""
    if open_config(run_dir.root) != config:
        with publish(run_dir.config) as part:
            part.write_text(configs.dumps(config), "utf-8")
