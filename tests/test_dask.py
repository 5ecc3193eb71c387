"""Association on Dask workers: the bytes of the serial run, clear ends, and no process left behind."""

import platform
import sys
from importlib.util import find_spec

import numpy as np
import psutil
import pytest

from pipeline import cli
from pipeline import config as configs
from pipeline.cluster import dask
from pipeline.cluster.world import Alone
from pipeline.errors import ConfigError
from pipeline.maths import traveltime
from pipeline.models.associators.observed import Region
from pipeline.rundir import RunDir
from pipeline.stages import associate
from tests import dask_functions
from tests.test_associate_stage import associated, picked, some_picks, stations
from tests.test_config import GOOD
from tests.worlds import srun

ASSOCIATORS = [name for name in ("gamma", "gmma", "pyocto") if find_spec(f"pipeline.models.associators.{name}")]


@pytest.fixture(scope="module")
def hands():
    """Two processes for all tests of this file."""
    with dask.workers(2) as hands:
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
    with pytest.raises(end), dask.workers(1):  # noqa: PT012
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
        with pytest.raises(ConfigError, match=said), dask.workers(address(hands)):
            pass
    finally:
        dask.about.cache_clear()


def test_no_scheduler_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(dask, "CONNECT_S", 0.3)
    said = r"no scheduler of Dask at tcp://127\.0\.0\.1:9 .*start `dask scheduler`"
    with pytest.raises(ConfigError, match=said), dask.workers("tcp://127.0.0.1:9"):
        pass
    (tmp_path / "scheduler.json").write_text("{}")
    for file in (tmp_path / "scheduler.json", tmp_path / "none.json"):
        said = rf"{file}: no scheduler file.*dask scheduler --scheduler-file"
        with pytest.raises(ConfigError, match=said), dask.workers(file):
            pass


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
    assert configured("compute.dask=scheduler.json").compute.dask == tmp_path / "scheduler.json"
    for wrong in ("-1", "true", '""', "5000", "1.5"):
        with pytest.raises(ConfigError, match=r"compute\.dask.*number of processes"):
            configured(f"compute.dask={wrong}")


def test_where_the_work_is_done_changes_no_digest_and_is_kept_in_the_run(tmp_path, configured):
    for where in ("3", "tcp://host:8786", "scheduler.json"):
        config = configured(f"compute.dask={where}")
        assert config.digest == configured().digest
        (tmp_path / "again.toml").write_text(configs.dumps(config))
        assert configs.load(tmp_path / "again.toml").compute == config.compute
