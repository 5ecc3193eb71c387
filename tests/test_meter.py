"""The meter: what is added up is what was done, and its files are few."""

import json
import threading
import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipeline import config as configs
from pipeline import meter
from pipeline.errors import BadData
from pipeline.formats import provenance, results, tables
from pipeline.maths.spent import Spent, duration, sentences, totals
from pipeline.meter import Meter
from pipeline.records import Assignments, Events, Stations
from pipeline.rundir import RunDir, create, of_pickers
from pipeline.stages import status
from tests import fakes
from tests.test_config import ALSO, GOOD


def spent(rank=0, start="a", **values):
    return replace(Spent(start, rank, "node1", "cpu", 2, "phasenet/original", "fp32", "kernels"), **values)


def configured(more=""):
    return configs.parse(tomllib.loads(GOOD + more), Path("run.toml"))


def started(rank=0, start="a"):
    return Meter(start, rank, configured())


def test_the_engine_is_that_of_the_configuration():
    assert Meter("a", 0, configured('[compute]\nengine = "seisbench"')).spent.engine == "seisbench"


def test_times_and_counts_add_up(monkeypatch):
    clock = iter([10.0, 11.5, 20.0, 20.25, 30.0, 33.0])
    own = started()
    monkeypatch.setattr(meter.time, "perf_counter", lambda: next(clock))
    for stage in ("read", "score", "read"):
        with own.time(stage):
            own.count(shards=1, data_s=600.0, picks=3, gpu_s=0.5)
    found = own.spent
    assert found.seconds == {"read": 4.5, "score": 0.25}
    assert (found.shards, found.data_s, found.picks, found.gpu_s) == (3, 1800.0, 9, 1.5)
    assert 0.01 < found.peak_gb < 100


def test_time_counts_when_the_work_ends_in_an_error():
    own = started()
    with pytest.raises(BadData), own.time("read"):
        raise BadData("x")
    assert own.spent.seconds["read"] >= 0


def test_a_timed_function_is_the_function(monkeypatch):
    clock = iter([1.0, 3.0])
    own = started()
    monkeypatch.setattr(meter.time, "perf_counter", lambda: next(clock))
    assert own.timed(divmod, "score")(17, 5) == (3, 2)
    assert own.spent.seconds == {"score": 2.0}


def test_only_a_gpu_is_noted():
    own = started()
    for device, gpu in (("cuda:1", "cuda:1"), ("cpu", ""), ("", "")):
        own.on(device)
        assert own.spent.gpu == gpu


def test_threads_share_a_meter():
    own = started()

    def work():
        for _ in range(2000):
            with own.time("read"):
                own.count(shards=1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert own.spent.shards == 8000


def test_the_largest_memory_is_that_of_this_process():
    before = meter.peak_gb()
    block = bytearray(200_000_000)
    block[::4096] = b"x" * len(block[::4096])
    assert meter.peak_gb() >= max(before, 0.2)


def test_ranks_write_seldom_and_one_file_is_left(tmp_path):
    ranks = [started(rank) for rank in range(3)]
    for own in ranks:
        own.keep(tmp_path, every_s=3600.0)
    assert list(tmp_path.iterdir()) == []
    for own in ranks:
        own.count(shards=1)
        own.keep(tmp_path, every_s=0.0)
    assert len(list(tmp_path.iterdir())) == 3
    killed = meter.read(tmp_path)
    assert sorted(s.rank for s in killed) == [0, 1, 2]
    assert totals(killed).shards == 3
    meter.close(tmp_path, [own.spent for own in ranks])
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert totals(meter.read(tmp_path)).shards == 3


def test_a_kill_between_the_common_file_and_the_removal_counts_nothing_twice(tmp_path):
    own = started()
    own.count(shards=5)
    own.keep(tmp_path, every_s=0.0)
    own.count(shards=1)
    meter.write(tmp_path / "a.json", [own.spent])
    assert totals(meter.read(tmp_path)).shards == 6


def test_what_is_read_is_what_was_written(tmp_path):
    record = spent(wall_s=1.5, seconds={"read": 0.5}, shards=2, data_s=86_400.0)
    meter.close(tmp_path, [record])
    assert meter.read(tmp_path) == [record]
    assert meter.read(tmp_path / "nowhere") == []


WHOLE = asdict(spent(shards=2))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[1]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'[{"rank": 1}]',
        json.dumps([WHOLE, {**WHOLE, "unknown": 1}]).encode(),
        json.dumps([{**WHOLE, "seconds": {"read": "long"}}]).encode(),
        json.dumps([WHOLE])[:-9].encode(),
    ],
)
def test_a_broken_file_is_named_and_left_out(tmp_path, caplog, text):
    (tmp_path / "a.json").write_bytes(text)
    meter.close(tmp_path, [spent(start="b", shards=3)])
    assert meter.read(tmp_path) == [spent(start="b", shards=3)]
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path / 'a.json'}: not a record of this meter, left out: ")
    assert "\n" not in line


def test_names_of_starts_are_in_order_of_time_and_differ():
    names = [meter.new_start() for _ in range(20)]
    assert len(set(names)) == 20
    assert [name[:16] for name in names] == sorted(name[:16] for name in names)


def test_totals_hold_a_start_until_its_last_rank_is_done():
    first = [spent(0, wall_s=100.0, shards=6, data_s=6 * 86_400.0), spent(1, wall_s=80.0, shards=4, data_s=4 * 86_400)]
    second = [spent(0, "b", wall_s=50.0, seconds={"wait": 10.0, "read": 20.0})]
    total = totals([*second, *first])
    assert (total.starts, total.ranks, total.shards) == (2, 2, 10)
    assert (total.wall_s, total.rank_s, total.core_s) == (150.0, 250.0, 500.0)
    assert total.idle_s == 20.0
    assert total.waiting == pytest.approx(30 / 250)
    assert total.a_day(total.seconds["read"]) == 2.0


def test_gpus_that_ranks_share_count_once():
    ranks = [spent(r, wall_s=10.0, device="cuda", gpu=f"cuda:{r // 2}", gpu_s=4.0, host="n1") for r in range(4)]
    other = spent(4, wall_s=10.0, device="cuda", gpu="cuda:0", host="n2")
    total = totals([*ranks, other, spent(5, wall_s=10.0, device="cuda")])
    assert (total.gpu_held_s, total.gpu_busy_s) == (30.0, 16.0)


def test_the_sentences_give_rates_of_what_was_held():
    ranks = [spent(r, wall_s=360.0, shards=5, data_s=5 * 86_400.0, cpu_s=100.0, peak_gb=0.5 + r) for r in range(2)]
    ranks[0].seconds.update(read=20.0, score=100.0)
    text = "\n".join(sentences(totals(ranks)))
    assert "10 shards, 10.00 station-days" in text
    assert "station-days: 100.0 an hour, 25.0 a core-hour" in text
    assert "GPU" not in text
    assert "seconds a station-day: read 2.000, score 10.000; CPU 20.000" in text
    assert "peak memory 1.50 GB" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.54, "8.5 s"), (119.0, "119.0 s"), (120.0, "2.0 min"), (7199, "120.0 min"), (7200, "2.0 h")]
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_nothing_done_says_nothing():
    assert sentences(totals([])) == []
    assert sentences(totals([spent()])) == []
    assert len(sentences(totals([spent(shards=2, wall_s=1.0)]))) == 2  # shards without data have no rate


# --- what `status` shows --------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """A planned run of two pickers, without a shard."""
    config = configured(ALSO)
    for each, alone in of_pickers(RunDir(tmp_path), config):
        create(each.root, alone)
        tables.write(each.stations, Stations.empty())
        tables.write(each.shards, fakes.as_table([]))
    return RunDir(tmp_path), config


def finish(run_dir, config):
    """Give a run directory an empty catalogue that is up to date."""
    made_of = provenance.catalogue(config, results.picks(run_dir), Stations.empty())
    run_dir.events.parent.mkdir(exist_ok=True)
    tables.write(run_dir.events, Events.empty(), made_of)
    tables.write(run_dir.assignments, Assignments.empty(), made_of)


def line_of_picker(run_dir, config):
    return next(line for line in status.look(run_dir, config)[1].splitlines() if line.startswith("picker "))


def test_status_names_each_further_picker_and_whether_it_has_a_catalogue(run):
    run_dir, config = run
    (own, alone) = of_pickers(run_dir, config)[1]
    assert line_of_picker(*run).startswith(f"picker       b/c in {own.root}: no catalogue")
    assert line_of_picker(*run).endswith(f"run `orcolat associate {own.root}`")
    finish(own, alone)
    assert line_of_picker(*run) == f"picker       b/c in {own.root}: has a catalogue"
    shard = fakes.shards(1, 1)[0]
    results.write_part(own, shard, fakes.picks(5, 1), fakes.detect(shard)[1])
    results.fold(own, fakes.as_table([(shard, 1)]))
    assert "out of date" in line_of_picker(*run)


def test_a_run_that_lost_a_picker_is_incomplete(run, monkeypatch):
    run_dir, config = run
    monkeypatch.setattr(status, "_states", lambda *_: {})
    assert status.look(run_dir, config)[0]
    run_dir.picker("b-c").shards.unlink()
    complete, text = status.look(run_dir, config)
    assert not complete
    assert f"{run_dir.picker('b-c').root}: missing" in text


def test_an_ensemble_has_no_further_pickers_to_show(run):
    run_dir, config = run
    together = config.model_copy(update={"pick": config.pick.model_copy(update={"ensemble": "mean"})})
    assert "picker " not in status.look(run_dir, together)[1]


def test_a_broken_record_does_not_stop_status(run, caplog):
    run_dir, config = run
    meter.close(run_dir.meter, [spent(shards=3)])
    (run_dir.meter / "broken.json").write_text("[")
    assert "3 shards" in status.look(run_dir, config)[1]
    assert "broken.json" in caplog.text
