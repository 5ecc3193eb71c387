"""Association on Dask workers: the bytes of the serial run, clear ends, and no process left behind."""

import asyncio
import os
import platform
import signal
import sys
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from distributed import LocalCluster
from distributed.deploy.adaptive import Adaptive

from pipeline import cli
from pipeline import config as configs
from pipeline.cluster import dask, dask_each, dask_slurm, same
from pipeline.cluster.dask_each import Need
from pipeline.cluster.dask_slurm import Jobs
from pipeline.cluster.world import Alone
from pipeline.config import Slurm
from pipeline.errors import ConfigError, Incomplete
from pipeline.maths import traveltime
from pipeline.models.associators.observed import Region
from pipeline.rundir import RunDir
from pipeline.stages import associate
from tests import dask_functions
from tests.test_associate_stage import associated, picked, some_picks, stations
from tests.test_config import GOOD
from tests.worlds import srun

JOBS = Jobs(Slurm(), Path())
ASSOCIATORS = [name for name in ("gamma", "gmma", "pyocto") if find_spec(f"pipeline.models.associators.{name}")]


@pytest.fixture(scope="module")
def hands():
    """Two processes for all tests of this file."""
    with dask.workers(2, JOBS) as hands:
        yield hands


@pytest.fixture
def configured(tmp_path):
    """The configuration with ``overrides``."""
    (tmp_path / "run.toml").write_text(GOOD)
    return lambda *overrides: configs.load(tmp_path / "run.toml", ["associate.z_km=[0, 20]", *overrides])


def address(hands):
    return hands._client.scheduler.address


def alive():
    return set(psutil.Process().children(recursive=True))


def columns(config, world, where=0):
    """Every column of the catalogue, as bytes; None on ranks that have none."""
    picks, settings = some_picks(), config.associate
    network = associate.place(stations(), settings)
    region = Region(settings, network, traveltime.uniform(settings.vp_km_s, settings.vs_km_s), config.run.seed)
    observed = associate.observe(picks, stations(), network)
    found = associate.find_events(observed, region, world, where)
    if world.rank:
        return None
    tables = associate.catalogue(found.events, picks, observed, settings)
    return len(tables[0]), [(name, v.dtype, v.tobytes()) for table in tables for name, v in table.as_dict().items()]


@pytest.mark.parametrize("name", ASSOCIATORS)
def test_workers_and_ranks_find_what_one_process_finds(hands, configured, name):
    config = configured(f"associate.associator={name}")
    expected = columns(config, Alone())
    assert expected[0] >= 4
    assert columns(config, Alone(), address(hands)) == expected
    assert srun(2, lambda world: columns(config, world)) == [expected, None]


def test_a_process_of_its_own_writes_the_same_files_and_ends(tmp_path, hands, configured):
    before, alone = alive(), configured("associate.associator=pyocto")
    run_dir = picked(tmp_path / "run", alone, some_picks())
    expected = associated(run_dir, alone)
    run_dir.events.unlink(), run_dir.assignments.unlink()
    assert associated(run_dir, configured("associate.associator=pyocto", "compute.dask=1")) == expected
    assert alive() == before


def test_an_exception_names_its_piece_and_leaves_no_file(tmp_path, hands, configured):
    config = configured("associate.associator=gmma", f"compute.dask={address(hands)}")
    run_dir = picked(tmp_path / "run", config, some_picks())
    wrong = config.associate.model_copy(update={"dbscan_min_samples": 0})  # refused by scikit-learn, in each piece
    with pytest.raises(ValueError, match="min_samples") as caught:
        associate.run(run_dir, config.model_copy(update={"associate": wrong}), Alone())
    notes = " ".join(caught.value.__notes__)
    assert "in the picks " in notes
    assert "2024-05-0" in notes
    assert "on a Dask worker, in the items" in notes
    assert not run_dir.events.parent.exists() or not list(run_dir.events.parent.iterdir())


@pytest.mark.parametrize("end", [ValueError, KeyboardInterrupt])
def test_processes_end_with_the_block_however_it_ends(hands, end):
    before = alive()
    with pytest.raises(end), dask.workers(1, JOBS):  # noqa: PT012
        assert len(alive() - before) == 1
        raise end
    assert alive() == before


def test_results_come_in_the_order_of_the_items_whatever_they_cost(hands):
    costs = np.random.default_rng(3).pareto(0.8, 500) + 0.01
    items = [(3, i) for i in range(500)]
    expected = [pow(3, i, 1009) for i in range(500)]
    assert hands.map(dask_functions.power, items, 1009, costs.tolist()) == expected
    assert hands.map(dask_functions.power, [], 1009, []) == []


def test_arrays_arrive_as_they_left(hands):
    """Aligned, as Numba takes every array to be, and writeable: for others it would compile its kernels anew."""
    table = np.arange(100.0)
    for n, (item, shared) in enumerate(
        hands.map(dask_functions.layout, [(table[3 : 3 + n],) for n in range(9)], table, [1.0] * 9)
    ):
        assert item == (table[3 : 3 + n].tolist(), True, True, True)
        assert shared == (table.tolist(), True, True, True)


def test_no_more_than_a_few_tasks_are_on_their_way(hands, monkeypatch):
    """Else all picks of a year would wait in the memory of the scheduler."""
    sent, most = [], []
    pack, result = dask.pack, dask._result
    monkeypatch.setattr(dask, "pack", lambda items: sent.append(1) or pack(items))
    monkeypatch.setattr(dask, "_result", lambda *given: (most.append(len(sent)), sent.pop(), result(*given))[-1])
    hands.map(dask_functions.power, [(2, i) for i in range(200)], 7, [1.0] * 200)
    assert len(most) == 2 * dask.TASKS
    assert dask.IN_FLIGHT <= max(most) <= 2 * dask.IN_FLIGHT


def test_what_a_killed_worker_had_is_done_again(hands, tmp_path):
    before = set(hands.map(dask_functions.process, [(i,) for i in range(40)], None, [1.0] * 40))
    assert hands.map(dask_functions.die_once, [(i,) for i in range(40)], str(tmp_path), [1.0] * 40) == list(range(40))
    assert (tmp_path / "died").exists()
    assert sum(psutil.pid_exists(pid) for pid in before) == 1


def test_a_killed_process_is_replaced_however_long_that_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(dask, "PATIENCE_S", 15.0)
    with dask.dask.config.set({"distributed.deploy.lost-worker-timeout": "1ms"}), dask.workers(1, JOBS) as hands:
        assert hands.map(dask_functions.die_once, [(i,) for i in range(9)], str(tmp_path), [1.0] * 9) == list(range(9))
    assert (tmp_path / "died").exists()


def test_processes_that_come_late_get_their_part(tmp_path, monkeypatch):
    """Tasks are cut for all that may come, and handed to a newcomer while the others are busy."""
    cut, bundles = [], dask.bundles
    monkeypatch.setattr(dask, "bundles", lambda costs, n: cut.append(n) or bundles(costs, n))
    monkeypatch.setattr(dask, "IN_FLIGHT", 1)
    with dask.workers("1-2", JOBS) as hands:
        assert hands.map(dask_functions.meet, [(i,) for i in range(3)], str(tmp_path), [1.0] * 3) == [True] * 3
    assert cut == [2 * dask.TASKS]


@contextmanager
def guarded(seconds=30):
    """What would go on for ever fails."""

    def end(*_):
        raise AssertionError("it does not end")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_timeout_of_the_work_itself_is_raised(hands):
    """It is no sign that the result has not arrived."""
    each = hands.each(dask_functions.times_out, iter([("a", (1,))]), None, lambda tag: True, 1)
    with guarded(), closing(each), pytest.raises(TimeoutError, match="/archive/1"):
        list(each)


def test_answers_come_while_nothing_is_free(hands):
    """Others hold the rest, and it may come back."""
    got = []

    def items():
        yield "a", (1,)
        while not got:
            yield None
        yield "b", (2,)

    with guarded():
        for answer in hands.each(dask_functions.same, items(), None, lambda tag: True, 2):
            got.append(answer)
    assert got == [("a", 1), ("b", 2)]


def test_bundles_hold_every_item_once_and_cost_about_the_same():
    rng = np.random.default_rng(11)
    for m, n in ((1, 64), (10, 64), (1000, 64), (1000, 7)):
        costs = (rng.pareto(1.5, m) + 0.01).tolist()
        found = dask.bundles(costs, n)
        assert sorted(i for rows in found for i in range(rows.start, rows.stop)) == list(range(m))
        assert len(found) <= n
        total = [sum(costs[rows]) for rows in found]
        assert max(total) <= sum(costs) / n + max(costs)
        assert total == sorted(total, reverse=True)
    assert dask.bundles([], 4) == []


def test_a_worker_with_other_versions_is_refused(hands, monkeypatch):
    monkeypatch.setattr(platform, "python_version", lambda: "2.7.18")
    dask.about.cache_clear()
    try:
        said = rf"python {sys.version.split()[0]} \(here 2\.7\.18\)"
        with pytest.raises(ConfigError, match=said), dask.workers(address(hands), JOBS):
            pass
    finally:
        dask.about.cache_clear()


def test_no_scheduler_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(dask, "CONNECT_S", 0.3)
    said = r"no scheduler of Dask at tcp://127\.0\.0\.1:9 .*start `dask scheduler`"
    with pytest.raises(ConfigError, match=said), dask.workers("tcp://127.0.0.1:9", JOBS):
        pass
    (tmp_path / "scheduler.json").write_text("{}")
    for file in (tmp_path / "scheduler.json", tmp_path / "none.json"):
        said = rf"{file}: no scheduler file.*dask scheduler --scheduler-file"
        with pytest.raises(ConfigError, match=said), dask.workers(file, JOBS):
            pass


def test_no_worker_yet_is_a_reason_to_run_again(monkeypatch):
    monkeypatch.setattr(dask, "PATIENCE_S", 0.5)
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50) as cluster,
        pytest.raises(Incomplete, match=r"no Dask worker for 0\.5 s: start some with `dask worker tcp://127"),
        dask.workers(cluster.scheduler_address, JOBS),
    ):
        pass


class Leaving:
    """A client whose worker, and then the scheduler, leaves."""

    def __init__(self):
        self.there = [{"tcp://w": 1}, {}]

    def nthreads(self):
        return self.there.pop(0)

    def get_events(self, _worker):
        raise OSError("the client is closed")

    def cancel(self, _futures):
        pass


class Lost:
    status = "lost"

    def add_done_callback(self, _callback):
        pass


def test_a_scheduler_that_leaves_with_its_worker_is_said():
    hands = dask_each.OneEach(Leaving(), lambda given, worker: Lost(), lambda tag: True, Need(), lambda seconds: None)
    with pytest.raises(Incomplete, match="the scheduler of Dask is gone"):
        list(hands.results(iter([("a", (1,))]), 1))


def test_the_kernels_are_part_of_the_code(tmp_path):
    for name in ("a.py", "a.cpp", "a.h"):
        (tmp_path / name).write_text("1")
        before = same._checksum(tmp_path)
        (tmp_path / name).write_text("2")
        assert same._checksum(tmp_path) != before, name


def test_dask_under_several_ranks_is_refused(tmp_path, configured):
    with pytest.raises(ConfigError, match=r"2 MPI ranks.*without mpiexec.*--dask 0"):
        associated(RunDir(tmp_path), configured("compute.dask=2"), ranks=2)


def test_where_the_workers_are(tmp_path, configured):
    def where(text):
        return configured(*cli.parser().parse_args(["associate", "RUN", "--dask", text]).set).compute.dask

    assert configured().compute.dask == 0
    assert where("4") == 4
    assert where("tcp://host:8786") == "tcp://host:8786"
    assert where(str(tmp_path / "scheduler.json")) == tmp_path / "scheduler.json"
    assert [where(text) for text in ("1-8", "slurm", "slurm:4", "slurm:1-64")] == [
        "1-8",
        "slurm",
        "slurm:4",
        "slurm:1-64",
    ]
    assert where("./slurm").name == "slurm", "a file"
    assert configured("compute.dask=scheduler.json").compute.dask == tmp_path / "scheduler.json"
    for wrong in ("-1", "true", '""', "5000", "1.5", "8-1", "slurm:0", "0-4"):
        with pytest.raises(ConfigError, match=r"compute\.dask.*number of processes"):
            configured(f"compute.dask={wrong}")


def test_a_job_of_slurm_is_as_large_as_a_task_of_the_array(tmp_path):
    """What sbatch is given, by the library that gives it."""
    slurm = Slurm(
        account="seis", partition="main", qos="normal", ranks_per_node=8, cpus_per_rank=2, gpus_per_node=1, mem="16G",
        time_limit="02:00:00", signal_s=300, extra=("--mail-type=FAIL",), env=tmp_path / "my env.sh",
    )  # fmt: skip
    asked = dask_slurm.job(Jobs(slurm, tmp_path))
    script = pytest.importorskip("dask_jobqueue.slurm").SLURMJob("tls://here:1", name="w", **asked).job_script()
    directives = {line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert directives == {
        "-J orcolat-dask", "-p main", "-A seis", "-n 1", "--cpus-per-task=16", "--mem=16G", "-t 02:00:00",
        "--no-requeue", "--qos=normal", "--gres=gpu:1", "--mail-type=FAIL",
        f"-e {tmp_path}/orcolat-dask-%J.err", f"-o {tmp_path}/orcolat-dask-%J.out",
    }  # fmt: skip
    *_, before, command = script.split("\n")[:-1]
    assert before == f"source '{tmp_path}/my env.sh'"
    assert "--nworkers 8" in command
    assert command.index("--nthreads 2") < command.index("--nthreads 1"), "the last counts: one shard at a time"
    assert "--lifetime 6900s" in command
    assert '--local-directory "${ORCOLAT_SCRATCH:-${TMPDIR:-/tmp}}"' in command


def test_slurm_without_slurm_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    pytest.importorskip("dask_jobqueue"), pytest.importorskip("cryptography")
    with pytest.raises(ConfigError, match="sbatch: no such command"), dask.workers("slurm", Jobs(Slurm(), tmp_path)):
        pass


def test_no_job_goes_in_which_somebody_works(monkeypatch):
    """Dask knows workers, and would end a job with those in it that have nothing to do."""
    went = []

    async def scale_down(self, workers):
        went.append(workers)

    monkeypatch.setattr(Adaptive, "scale_down", scale_down)
    there = {name: SimpleNamespace(name=name, processing=name == "c-1-0") for name in ("c-1-0", "c-1-1", "c-2-0")}
    cluster = SimpleNamespace(workers={}, scheduler=SimpleNamespace(workers=there))
    for a_job, may_go in ((2, ["c-2-0"]), (1, ["c-1-1", "c-2-0"])):
        needed = dask.AsNeeded(cluster, Need(), a_job=a_job, interval=0)
        asyncio.run(needed.scale_down(workers=list(there)))
        assert went.pop() == may_go
    assert [dask.whole(n, 4) for n in (0, 1, 4, 5)] == [0, 4, 4, 8]


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Slurm's commands: sbatch says what lies in "refusal" and else runs the script, squeue lists "queued"."""
    pytest.importorskip("dask_jobqueue"), pytest.importorskip("cryptography")
    commands = {
        "sbatch": f"""cd {tmp_path}; echo handed in >> attempts
            if [ -s refusal ]; then cat refusal >&2; echo -n "$(cat later)" > refusal; exit 1; fi
            cp "$1" script; setsid bash script >log 2>&1 & echo Submitted batch job $!""",
        "squeue": f"cat {tmp_path}/queued",
        "scancel": 'kill -- "-$1"',
    }
    (tmp_path / "bin").mkdir()
    for name, text in commands.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    for name in ("refusal", "later", "queued", "env"):
        (tmp_path / name).touch()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    return Jobs(Slurm(interface="lo", env=tmp_path / "env", ranks_per_node=2), tmp_path)


def test_what_sbatch_refuses_is_said(queue):
    for name in ("refusal", "later"):
        (queue.folder / name).write_text("sbatch: error: invalid partition specified: nope\n")
    said = pytest.raises(ConfigError, match=r"no worker came.*invalid partition specified: nope")
    with guarded(), said, dask.workers("slurm:1-3", queue):
        pass
    assert (queue.folder / "attempts").read_text().count("handed in") >= 3


def test_a_job_that_slurm_could_not_take_is_handed_in_again_and_then_waited_for(queue, caplog):
    """One is as many workers as it holds, more than were asked for, and not taken back for that."""
    queue.slurm.env.write_text("sleep 5")
    (queue.folder / "refusal").write_text("sbatch: error: Unable to contact slurm controller (connect failure)\n")
    with guarded(), dask.workers("slurm:1-2", queue) as hands:
        assert hands.map(dask_functions.power, [(2, i) for i in range(9)], 7, [1.0] * 9) == [2**i % 7 for i in range(9)]
    assert "Unable to contact slurm controller" in caplog.text
    assert (queue.folder / "attempts").read_text().count("handed in") == 2


def test_jobs_that_end_before_a_worker_comes_of_them_are_said(queue, monkeypatch):
    monkeypatch.setattr(dask_slurm, "LOOK_S", 0.0)
    queue.slurm.env.write_text("exit 3")
    said = pytest.raises(ConfigError, match=rf"jobs \d+ of Dask workers have ended.*{queue.folder}")
    with guarded(), said, dask.workers("slurm:1", queue):
        pass


def test_where_the_work_is_done_changes_no_digest_and_is_kept_in_the_run(tmp_path, configured):
    for where in ("3", "1-8", "slurm:1-64", "tcp://host:8786", "scheduler.json"):
        config = configured(f"compute.dask={where}")
        assert config.digest == configured().digest
        (tmp_path / "again.toml").write_text(configs.dumps(config))
        assert configs.load(tmp_path / "again.toml").compute == config.compute
