"""Jobs handed in to Slurm, with programs in its place that note how they are called. A real one: tests/cluster."""

import errno
import os
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import config as configs
from pipeline.cli import main
from pipeline.cluster import slurm
from pipeline.config import Slurm
from pipeline.errors import ConfigError, Incomplete
from pipeline.formats import submissions, tables, tries
from pipeline.maths.billing import bill
from pipeline.records import Shards
from pipeline.rundir import RunDir, create
from pipeline.stages import accounting, submit
from tests.fabricate import make_config

CONTROL = """echo 'MaxArraySize            = 1001'
echo 'PartitionName=main Default=YES MaxNodes=2 MaxTime=1-00:00:00 State=UP'"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put a program of this name and script first in the path; all note their calls in one file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)

    def make(name, script):
        path = folder / name
        path.write_text(f'#!/bin/sh\necho {name} "$@" >> {folder}/calls\n{script}\n')
        path.chmod(0o755)

    (folder / "calls").touch()
    make.calls = lambda: [shlex.split(line) for line in (folder / "calls").read_text().splitlines()]
    return make


@pytest.fixture
def planned(tmp_path):
    """A run of 40 shards, none picked."""
    run_dir = create(tmp_path / "run", make_config(tmp_path, 10))
    days = np.repeat([f"2024-03-{day}" for day in range(20, 30)], 4)
    stations = np.tile([f"OX.S{i}." for i in range(4)], 10)
    zeros = np.zeros(40, np.int64)
    tables.write(run_dir.shards, Shards(days, stations, np.full(40, "HH"), zeros, np.full(40, ""), zeros))
    return run_dir


def set_aside(run_dir, n):
    """The first ``n`` shards, by as many failures as are allowed."""
    for shard in list(tables.read(run_dir.shards, Shards).rows())[:n]:
        for _ in range(3):
            tries.write(run_dir, shard, "corrupt", "")


def with_slurm(tmp_path, **settings):
    config = make_config(tmp_path, 10)
    return config.model_copy(update={"slurm": Slurm(**settings)})


@pytest.mark.parametrize(
    ("settings", "left", "wall_s", "most", "tasks"),
    [
        ({}, 1000, None, 1001, 16),  # as many as allowed
        ({"max_tasks": 50}, 1000, None, 20, 20),  # by the cluster, too
        ({"ranks_per_node": 4}, 10, None, 1001, 3),  # none without a shard for each rank
        ({}, 1000, 1500.0, 1001, 3),  # none with less work than task_s
        ({}, 1000, 1.0, 1001, 1),
        ({}, 0, 0.0, 1001, 0),
    ],
)
def test_the_array_is_as_large_as_the_work(settings, left, wall_s, most, tasks):
    assert submit.array_size(Slurm(**settings), left, wall_s, most) == tasks


def test_a_chain_is_handed_in_and_noted(tmp_path, fake, planned):
    fake("scontrol", CONTROL)
    fake("sbatch", 'env | grep ^ORCOLAT_ | sort >> "$0.env"; n=$(wc -l < "$0.env"); echo "$n;cluster"')
    config = with_slurm(
        tmp_path, account="acc", ranks_per_node=4, gpus_per_node=2, max_running=2, extra=("--comment=a b",)
    )
    said = submit.run(planned, config, 40 * 600.0)
    array, associate, report = [call[1:] for call in fake.calls() if call[0] == "sbatch"]
    assert "--array=0-9%2" in array
    for option in ("--requeue", "--signal=USR1@120", "--gres=gpu:2", "--ntasks-per-node=4", "--account=acc"):
        assert option in array
    assert "--dependency=afterany:3" in associate
    assert "--dependency=afterany:6" in report
    assert not [option for option in associate + report if option.startswith(("--gres", "--array", "--signal"))]
    assert [call[-2:] for call in (array, associate, report)] == [
        [str(submit.HOME / "jobs" / name), str(planned.root)] for name in ("array.sh", "associate.sh", "report.sh")
    ]
    assert submissions.read(planned) == [{"pick": "3", "associate": "6", "report": "9"}]
    assert "40 shards for 10 tasks" in said
    variables = (tmp_path / "bin" / "sbatch.env").read_text().splitlines()
    assert variables[:3] == [
        f"ORCOLAT_ENV={submit.HOME / 'env' / 'cpu.sh'}",
        f"ORCOLAT_HOME={submit.HOME}",
        f"ORCOLAT_VENV={sys.prefix}",  # jobs run with the Python that hands them in
    ]
    submit.run(planned, config, None)
    assert len(submissions.read(planned)) == 2


def test_a_refused_job_takes_back_the_others(tmp_path, fake, planned):
    fake("scontrol", CONTROL)
    fake("scancel", "")
    fake("sbatch", 'case "$*" in *associate*) echo "sbatch: error: invalid account" >&2; exit 1;; esac; echo 77')
    with pytest.raises(ConfigError, match="sbatch: error: invalid account"):
        submit.run(planned, with_slurm(tmp_path), None)
    assert ["scancel", "77"] in fake.calls()
    assert not planned.jobs.exists()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"time_limit": "2-00:00:00"}, "slurm.time_limit 2-00:00:00"),
        ({"nodes": 3}, "slurm.nodes 3"),
        ({"env": Path("/nowhere/env.sh")}, "/nowhere/env.sh: no such script"),
    ],
)
def test_what_cannot_run_is_said_before_anything_is_handed_in(tmp_path, fake, planned, settings, named):
    fake("scontrol", CONTROL)
    fake("sbatch", "echo 1")
    with pytest.raises(ConfigError, match=named):
        submit.run(planned, with_slurm(tmp_path, **settings), None)
    assert not [call for call in fake.calls() if call[0] == "sbatch"]


def test_a_dry_run_needs_no_slurm_and_leaves_nothing(tmp_path, planned, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    said = submit.run(planned, with_slurm(tmp_path), None, dry=True)
    array, associate, report = said.splitlines()[1:]
    assert "--dependency" not in array
    assert "--dependency=afterany:ID_OF_pick" in associate
    assert "--dependency=afterany:ID_OF_associate" in report
    assert f"ORCOLAT_ENV={submit.HOME}/env/cpu.sh" in array
    assert not planned.jobs.exists()
    assert not planned.logs.exists()


def test_no_array_for_what_no_task_would_pick(tmp_path, planned):
    set_aside(planned, 40)
    said = submit.run(planned, with_slurm(tmp_path), None, dry=True).splitlines()
    assert said[0] == "array        none: every shard is picked, or was set aside (`orcolat status`)"
    assert [line.split()[-2].rpartition("/")[2] for line in said[1:]] == ["associate.sh", "report.sh"]
    assert "--dependency" not in said[1]
    assert "--dependency=afterany:ID_OF_associate" in said[2]


def test_only_what_can_be_picked_sizes_the_array(tmp_path, planned):
    set_aside(planned, 38)
    assert "2 shards for 2 tasks" in submit.run(planned, with_slurm(tmp_path), None, dry=True)


def test_picks_must_be_imported_before_jobs_are_handed_in(tmp_path):
    config = make_config(tmp_path, 1, imported=True)
    with pytest.raises(Incomplete, match="orcolat import-picks"):
        submit.run(create(tmp_path / "run", config), config, None, dry=True)


def test_a_task_that_may_not_come_back_often_enough_is_told(tmp_path, planned):
    slow = with_slurm(tmp_path, max_tasks=1, time_limit="01:00:00", max_requeues=5)
    assert "puts itself back in line 3 times" in submit.run(planned, slow, 3.9 * 3480, dry=True)
    assert "slurm.max_requeues 5 does not let" in submit.run(planned, slow, 30 * 3480, dry=True)


def test_gpus_and_other_resources_are_asked_for_together(tmp_path):
    wanted = Slurm(gpus_per_node=4, gres="tmpfs:20g")
    assert [o for o in slurm.array_options(wanted, 1) if "gres" in o] == ["--gres=gpu:4,tmpfs:20g"]
    assert not [o for o in slurm.after_options(wanted, 1) if "gres" in o]
    with pytest.raises(ValueError, match="--gres is set by `orcolat submit`"):
        Slurm(extra=("--gres=tmpfs:20g",))


def test_slurm_that_does_not_answer_is_no_wrong_input(fake, monkeypatch):
    fake("squeue", "sleep 5")
    with pytest.raises(Incomplete, match="no answer"):
        slurm.call("squeue", timeout_s=0.2)
    fake("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1")
    with pytest.raises(Incomplete, match="Unable to contact"):
        slurm.call("squeue")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="no such command here"):
        slurm.call("squeue")


@pytest.mark.parametrize(
    ("variables", "state", "asked"),
    [
        ({}, "RUNNING", None),  # not in Slurm
        ({"SLURM_JOB_ID": "7"}, "RUNNING", "7"),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3"}, "RUNNING", "9_3"),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "4"}, "RUNNING", "7"),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "5"}, "RUNNING", None),  # often enough
        ({"SLURM_JOB_ID": "7"}, "COMPLETING", None),  # scancel, or the time is over
    ],
)
def test_a_job_puts_itself_back_a_counted_number_of_times(fake, monkeypatch, variables, state, asked):
    fake("squeue", f"echo {state}")
    fake("scontrol", "")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert slurm.requeue(5) == (asked is not None)
    if asked:
        assert fake.calls()[-1] == ["scontrol", "requeue", asked]


RECORDS = """9_0|orcolat-pick|PREEMPTED|0:0|60|240|cpu=4,gres/gpu:a100=2,gres/gpu=2,mem=4G,node=1|
9_0.0|python|CANCELLED|0:9|60|240|cpu=4,gres/gpu=2|1500000K
9_0|orcolat-pick|COMPLETED|0:0|1800|7200|cpu=4,gres/gpu=2,mem=4G,node=1|
9_0.batch|batch|COMPLETED|0:0|1800|7200|cpu=4,gres/gpu=2|3M
10|orcolat-associate|CANCELLED by 0|0:0|0||cpu=1|"""


def test_the_bill_counts_every_start_once(fake, tmp_path):
    fake("sacct", f"cat <<'E'\n{RECORDS}\nE")
    found = bill(slurm.accounting(["9", "10"]))
    assert (found.starts, found.ends) == (3, {"CANCELLED": 1, "COMPLETED": 1, "PREEMPTED": 1})
    assert found.core_h == pytest.approx((240 + 7200) / 3600)
    assert found.gpu_h == pytest.approx(2 * (60 + 1800) / 3600)
    assert found.peak_gb == pytest.approx(1500000 * 1024 / 1e9)
    run_dir = RunDir(tmp_path)
    assert "no job was handed in" in accounting.run(run_dir)
    submissions.write(run_dir, {"pick": "9", "associate": "10"}, 1)
    assert "3 starts (1 CANCELLED, 1 COMPLETED, 1 PREEMPTED): 2.07 core-hours, 1.03 GPU-hours" in accounting.run(
        run_dir
    )
    assert "--jobs=9,10" in fake.calls()[-1]
    before = run_dir.accounting.read_bytes()
    fake("sacct", "")  # purged
    assert "Slurm has no record of jobs 9, 10" in accounting.run(run_dir)
    assert run_dir.accounting.read_bytes() == before
    fake("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert "none: sacct" in accounting.run(run_dir)


def test_a_night_says_one_line_whatever_happens(tmp_path, monkeypatch, capsys):
    def bug(*_):
        raise RuntimeError("a bug")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "nights")

    night = ["--for", "2024-05-06", "--runs", str(tmp_path / "nights")]
    assert main(["nightly", "nowhere.toml", *night]) == 2
    config = tmp_path / "my.toml"
    config.write_text(configs.dumps(make_config(tmp_path, 1)))
    monkeypatch.setattr("pipeline.commands.whole.all_stages", bug)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["nightly", str(config), *night])
    monkeypatch.setattr("pipeline.commands.whole.all_stages", full)
    assert main(["nightly", str(config), *night]) == 3
    wrong, buggy, room = capsys.readouterr().out.splitlines()
    assert wrong.startswith("2024-05-06 FAILED: nowhere.toml: cannot read the configuration")
    assert buggy == "2024-05-06 FAILED: RuntimeError: a bug"
    assert room.startswith("2024-05-06 INCOMPLETE: nights: ")
