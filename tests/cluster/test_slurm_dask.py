"""Dask workers in jobs of a real Slurm: the catalogue of a plain run, also if jobs are lost on the way."""

import os
import subprocess

import pytest

from tests.cluster.test_slurm import PYTHON, ROOT, alone, cluster, config, orcolat, snapshot, until

pytestmark = pytest.mark.cluster
__all__ = ["alone", "cluster", "config"]  # fixtures
ASKED = ("--set", "slurm.interface=lo", "--set", "slurm.time_limit=00:10:00", "--set", "slurm.ranks_per_node=1")


@pytest.fixture
def quiet(cluster):
    """No job is left after a test, and none was of another kind."""
    yield
    until(cluster.quiet, "no job is left")


@pytest.mark.usefixtures("quiet")
def test_workers_come_and_go_as_jobs(cluster, config, alone, tmp_path):
    done = orcolat("run", config, "--run-dir", tmp_path / "run", "--dask", "slurm:1-3", *ASKED, env=cluster.env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert snapshot(tmp_path / "run") == alone
    jobs = [job for job in cluster.jobs() if job["JobName"] == "orcolat-dask"]
    assert len(jobs) > 1, "as there was work"
    assert not list((tmp_path / "run" / "logs").glob(".dask-jobqueue*")), "keys are gone"


@pytest.mark.usefixtures("quiet")
def test_a_job_is_killed(cluster, config, alone, tmp_path):
    """Its shard is done by another, and another job takes its place."""
    run_dir = tmp_path / "run"
    assert orcolat("plan", config, "--run-dir", run_dir).returncode == 0
    command = [PYTHON, "-m", "pipeline", "pick", run_dir, "--dask", "slurm:2", *ASKED]
    with (tmp_path / "log").open("w") as log:
        picking = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=cluster.env, stderr=log)
    try:
        until(lambda: list(run_dir.glob("parts/*/*.parquet")) or picking.poll() is not None, "the first shard")
        victim = next(job["JobId"] for job in cluster.jobs() if job["JobState"] == "RUNNING")
        cluster.ask("scancel", "--signal=KILL", victim)
        assert picking.wait(300) == 0, (tmp_path / "log").read_text()[-3000:]
    finally:
        picking.kill()
    assert "is gone" in (tmp_path / "log").read_text()
    done = orcolat("run", config, "--run-dir", run_dir, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert snapshot(run_dir) == alone
