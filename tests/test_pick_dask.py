"""Picking on Dask workers: the bytes of one process, whatever becomes of the workers."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster

from pipeline import config as configs
from pipeline import meter
from pipeline.cluster import dask, stop
from pipeline.cluster.dask_slurm import Jobs
from pipeline.cluster.world import Alone
from pipeline.config import Slurm
from pipeline.errors import ConfigError
from pipeline.formats import results
from pipeline.rundir import of_pickers
from pipeline.stages import pick, pick_dask, update
from tests import dask_functions, fakes
from tests.test_config import GOOD
from tests.test_pick_stage import SHARDS, planned, snapshot

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hands():
    """Two processes for most tests of this file."""
    with dask.workers(2, Jobs(Slurm(), Path())) as hands:
        yield hands


@pytest.fixture
def configured(tmp_path, hands):
    """The configuration, on the workers of ``hands`` unless told otherwise."""
    (tmp_path / "waves").mkdir()
    (tmp_path / "waves" / "a file").touch()
    (tmp_path / "net.pt").write_bytes(b"tensors")
    (tmp_path / "net.json").write_text("{}")
    (tmp_path / "run.toml").write_text(GOOD.replace("2024-05-07", "2024-05-09"))

    def configured(*overrides, dask=None):
        weight = f"pick.weight=file:{tmp_path}/net.pt"
        where = hands._client.scheduler.address if dask is None else dask
        return configs.load(tmp_path / "run.toml", [weight, f"compute.dask={where}", *overrides])

    return configured


def picked(run_dir, config, make_read=dask_functions.reader):
    return pick.run(run_dir, config, Alone(), dask_functions.scorer, make_read)


@pytest.fixture
def expected(tmp_path, configured):
    run_dir = planned(tmp_path / "alone")
    picked(run_dir, configured(dask=0))
    return snapshot(run_dir)


def test_workers_give_the_bytes_of_one_process(tmp_path, configured, expected):
    run_dir = planned(tmp_path / "run")
    assert picked(run_dir, configured())["picked"] == len(SHARDS)
    assert snapshot(run_dir) == expected
    (record,) = (json.loads(path.read_text()) for path in run_dir.meter.glob("*.json"))
    assert sum(spent["shards"] for spent in record) == len(SHARDS)
    assert [spent["rank"] for spent in record] == [0, 1, 2]


def test_what_a_killed_worker_had_is_noted_and_done_once_more(tmp_path, configured, expected, caplog):
    run_dir, waves = planned(tmp_path / "run"), tmp_path / "waves"
    (waves / "deadly").write_text(f"{SHARDS[9].id} 1")
    assert picked(run_dir, configured(), dask_functions.deadly_reader)["picked"] == len(SHARDS)
    assert f"shard {SHARDS[9].id}: the process died" in caplog.text
    assert sorted((waves / "read").read_text().split()) == [shard.id for shard in SHARDS], "one was done twice"
    assert snapshot(run_dir) == expected


def test_a_worker_that_says_that_it_leaves_blames_nothing(tmp_path, configured, expected, caplog):
    run_dir = planned(tmp_path / "run")
    (tmp_path / "waves" / "leaving").write_text(SHARDS[9].id)
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50) as cluster:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--nthreads", "1"]
        options = ["--no-dashboard", "--local-directory", str(tmp_path)]
        started = [subprocess.Popen(command + options, cwd=ROOT, stderr=subprocess.DEVNULL) for _ in range(2)]
        try:
            picked(run_dir, configured(dask=cluster.scheduler_address), dask_functions.leaving_reader)
        finally:
            for worker in started:
                worker.terminate()
                worker.wait(30)
    assert "has left" in caplog.text
    assert "the process died" not in caplog.text
    assert snapshot(run_dir) == expected


def test_a_shard_that_kills_every_worker_is_set_aside(tmp_path, configured, expected):
    run_dir = planned(tmp_path / "run")
    (tmp_path / "waves" / "deadly").write_text(f"{SHARDS[9].id} 99")
    tally = picked(run_dir, configured("compute.max_tries=2"), dask_functions.deadly_reader)
    assert (tally["failed"], tally["picked"]) == (1, len(SHARDS) - 1)
    (note,) = results.notes(run_dir)
    assert (note.shard, note.tries, note.died) == (SHARDS[9].id, 2, True)
    assert not list(run_dir.claims.iterdir())
    assert update.retry(run_dir, configured()) == [SHARDS[9].id]
    picked(run_dir, configured())
    assert snapshot(run_dir) == expected


def test_too_many_deaths_end_the_run(tmp_path, configured):
    (tmp_path / "waves" / "deadly").write_text(f"{SHARDS[0].id} 99")
    config = configured("compute.max_tries=1", "compute.max_failed=0")
    with pytest.raises(ConfigError, match=r"1 shards failed, more than compute\.max_failed = 0; .*the process died"):
        picked(planned(tmp_path / "run"), config, dask_functions.deadly_reader)


def test_what_workers_spent_outlives_a_kill_of_this_process(tmp_path, configured, monkeypatch):
    run_dir = planned(tmp_path / "run")
    monkeypatch.setattr(meter, "EVERY_S", 0.0)
    monkeypatch.setattr(meter, "close", lambda *given: None)
    picked(run_dir, configured())
    names = sorted(path.name[-14:] for path in run_dir.meter.glob("*.json"))
    assert len(names) > 1, "this process and whichever workers were there in time"
    assert names == [f"rank0000{i}.json" for i in range(len(names))]
    assert sum(spent.shards for spent in meter.read(run_dir.meter)) == len(SHARDS)


def test_each_worker_of_a_node_scores_on_a_gpu_of_its_own():
    shown = ("d", "b", "a", "c")
    assert [pick_dask.device(shown, f"job-3-{i}") for i in range(5)] == [
        "cuda:2",
        "cuda:1",
        "cuda:3",
        "cuda:0",
        "cuda:2",
    ]
    turned = [shown[i:] + shown[:i] for i in range(4)]  # as by CUDA_VISIBLE_DEVICES
    chosen = [seen[int(pick_dask.device(seen, str(i))[-1])] for i, seen in enumerate(turned)]
    assert sorted(chosen) == sorted(shown)
    assert pick_dask.device(("a",), "tcp://10.0.0.1:4711") == pick_dask.device((), "w") == "cuda"
    for name in ("tcp://10.0.0.1:4711", "w"):
        with pytest.raises(ConfigError, match=rf"{name} sees 4 GPUs.*--name NAME.*compute\.device = 'cuda:0'"):
            pick_dask.device(shown, name)


def test_an_exception_is_its_shards_failure(tmp_path, configured, expected):
    run_dir, bad = planned(tmp_path / "run"), SHARDS[4]
    (tmp_path / "waves" / "bad").write_text(bad.id)
    tally = picked(run_dir, configured(), dask_functions.failing_reader)
    assert (tally["failed"], tally["picked"]) == (1, len(SHARDS) - 1)
    (note,) = results.notes(run_dir)
    assert (note.shard, note.reason) == (bad.id, "BadData: x.mseed: nonsense")
    assert "failing_reader" not in note.reason
    assert 'raise BadData("x.mseed: nonsense")' in note.traceback
    picked(run_dir, configured())
    assert snapshot(run_dir) == expected


def test_told_to_stop_it_ends_what_was_begun_and_no_more(tmp_path, configured, expected):
    run_dir = planned(tmp_path / "run")

    def tell():
        while not list(run_dir.root.glob("parts/*/*.parquet")):
            time.sleep(0.01)
        stop.ask("SIGTERM")

    teller = threading.Thread(target=tell)
    teller.start()
    tally = picked(run_dir, configured(), dask_functions.slow_reader)
    teller.join()
    assert tally["stopped"] == 1
    assert 0 < tally["picked"] < len(SHARDS)
    assert not results.failures(run_dir)
    assert not list(run_dir.claims.iterdir())
    picked(run_dir, configured())
    assert snapshot(run_dir) == expected


def test_processes_come_as_there_is_work_and_go(tmp_path, configured, expected):
    run_dir = planned(tmp_path / "run")
    picked(run_dir, configured(dask="1-2"), dask_functions.slow_reader)
    assert snapshot(run_dir) == expected
    (record,) = (json.loads(path.read_text()) for path in run_dir.meter.glob("*.json"))
    assert [spent["rank"] for spent in record] == [0, 1, 2], "there was a second worker, and no third one"


def test_probabilities_are_saved_here(tmp_path, configured):
    config = configured("pick.save_probabilities=true")
    run_dir = planned(tmp_path / "run")
    picked(run_dir, config)
    wave, _ = fakes.read(SHARDS[5])
    ((each, _),) = of_pickers(run_dir, config)
    with np.load(each.probabilities(SHARDS[5])) as saved:
        np.testing.assert_array_equal(saved["probability"], wave.samples[:2].astype(np.float16))


def test_a_worker_without_the_archive_or_with_another_weight_is_refused(tmp_path, configured, monkeypatch):
    config = configured()
    monkeypatch.setattr("pipeline.models.weights.digest", lambda name: "0" * 64)
    with pytest.raises(ConfigError, match=r"net\.pt has sha256 .* on a Dask worker, not 000000000000"):
        picked(planned(tmp_path / "run"), config)
    monkeypatch.undo()
    (tmp_path / "waves" / "a file").unlink()
    with pytest.raises(ConfigError, match=r"archive\.root .*waves: no files there on a Dask worker"):
        picked(planned(tmp_path / "other"), config)
    assert not results.failures(planned(tmp_path / "other"))
