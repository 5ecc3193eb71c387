"""The estimate of a run: closed forms, a real plan, and the files of a real small run."""

import tomllib
import zlib
from dataclasses import replace

import numpy as np
import pytest

from pipeline import config as configs
from pipeline import meter
from pipeline.errors import ConfigError, Incomplete
from pipeline.formats import results, tables
from pipeline.maths import estimate
from pipeline.maths.estimate import Cost, Layout, Sizes, Work
from pipeline.maths.spent import DAY_S, Spent
from pipeline.records import DAY_NS, Shards
from pipeline.rundir import RunDir, create
from pipeline.stages import estimate as stage
from tests import bench_cpu, fakes
from tests.test_config import GOOD

COST = Cost(
    "w/x", "fp32", "cpu", "kernels", 2, 3.0, {"read": 0.5, "score": 2.0, "triggers": 0.25, "publish": 0.25}, 100.0
)
WORK = Work(shards=1200, station_days=1200.0, days=12, volumes=12, read_bytes=36 * 10**9)


def test_on_one_rank_it_is_the_sum():
    found = estimate.estimate(WORK, COST, Layout(1, threads=2))
    assert found.wall_h == pytest.approx((3.0 + 1200 * 3.0) / 3600)
    assert found.core_h == pytest.approx(2 * found.wall_h)
    assert (found.gpu_h, found.bound) == (0.0, "ranks")
    assert found.seconds["score"] == 2400.0


@pytest.mark.parametrize(("ranks", "mine"), [(4, 300), (7, 172), (1200, 1), (5000, 1)])
def test_no_rank_does_a_part_of_a_shard(ranks, mine):
    found = estimate.estimate(WORK, COST, Layout(ranks, threads=2))
    assert found.wall_h == pytest.approx((3.0 + mine * 3.0) / 3600)


def test_only_scoring_divides_over_threads():
    found = estimate.estimate(WORK, COST, Layout(1, threads=4))
    assert found.wall_h == pytest.approx((3.0 + 1200 * (1.0 + 1.0)) / 3600)


@pytest.mark.parametrize(
    ("ranks", "gpus", "a_day_s", "bound"), [(3, 1, 2.0, "GPUs"), (8, 4, 0.5, "GPUs"), (5, 4, 1, "ranks")]
)
def test_with_gpus_the_slower_of_reading_and_scoring_sets_the_pace(ranks, gpus, a_day_s, bound):
    found = estimate.estimate(WORK, replace(COST, device="cuda"), Layout(ranks, 1, gpus))
    assert found.wall_h == pytest.approx((3.0 + 1200 * a_day_s) / 3600)
    assert found.bound == bound
    assert found.gpu_h == pytest.approx(gpus * found.wall_h)


@pytest.mark.parametrize(("ranks", "volumes_of_one"), [(1, 12), (5, 3), (100, 1)])
def test_each_volume_is_folded_by_one_rank(ranks, volumes_of_one):
    folding, work = replace(COST, seconds={**COST.seconds, "fold": 0.01}), replace(WORK, days=36)
    alone, with_fold = (estimate.estimate(work, cost, Layout(ranks, threads=2)) for cost in (COST, folding))
    assert (with_fold.wall_h - alone.wall_h) * 3600 == pytest.approx(1200 * 0.01 * volumes_of_one / 12)


def test_short_days_cost_their_share():
    half = estimate.estimate(replace(WORK, station_days=600.0), COST, Layout(1, threads=2))
    assert half.wall_h == pytest.approx((3.0 + 600 * 3.0) / 3600)


def test_no_work_takes_no_space_but_the_run():
    found = estimate.estimate(Work(0, 0.0, 0, 0, 0), COST, Layout(3))
    assert (found.kept_bytes, found.kept_files) == (0.0, estimate.SINGLE_FILES)


def test_a_layout_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one rank"):
        estimate.estimate(WORK, COST, Layout(0))


def test_disk_and_files():
    sizes = Sizes(pick=10.0, outcome=2.0, day_file=100.0, part=1000.0, probability=5000.0)
    found = estimate.estimate(WORK, COST, Layout(1), sizes)
    probabilities = 1200 * 5000
    assert found.kept_bytes == 1200 * 100 * 10 + 1200 * 2 + 2 * 12 * 100 + probabilities
    assert found.peak_bytes == 1200 * 100 * 10 + 1200 * 1000 + probabilities
    assert found.kept_files == 24 + estimate.SINGLE_FILES + 1200 + 12
    assert found.peak_files == 2 * (1200 + 12) + estimate.SINGLE_FILES
    fewer = estimate.estimate(replace(WORK, volumes=5), COST, Layout(1))  # of days that share their files
    assert (fewer.kept_files, fewer.peak_files) == (10 + estimate.SINGLE_FILES, 1200 + 12 + estimate.SINGLE_FILES)


def record(**values):
    base = Spent("a", 0, "n", "cpu", 2, "w/x", "fp32", "kernels", seconds={"score": 20.0})
    return replace(base, **{"wall_s": 40.0, "shards": 10, "data_s": 10 * DAY_S, "picks": 50, **values})


def cost_of(records, precision="fp32", device="cpu", engine="auto"):
    return estimate.cost_of(records, "w/x", precision, device, engine, "here")


def test_the_cost_is_what_the_meter_says_of_the_same_kind_of_work():
    seconds = {"load": 4.0, "read": 10.0, "score": 20.0, "wait": 99.0}
    records = [
        record(seconds=seconds),
        record(rank=1, seconds=seconds),
        record(precision="bf16"),
        record(weight="other"),
    ]
    cost = cost_of(records)
    assert cost == Cost("w/x", "fp32", "cpu", "kernels", 2, 4.0, {"read": 1.0, "score": 2.0}, 5.0, "here")
    assert cost_of(records, "fp16") is None
    assert cost_of([record(data_s=0.0)]) is None
    assert cost_of([record(device="cuda")], device="cuda") is not None


def test_the_cost_is_that_of_one_engine():
    slow = record(start="b", engine="seisbench", seconds={"score": 500.0})
    both = [slow, record()]
    assert cost_of(both).seconds == cost_of(both, engine="kernels").seconds == {"score": 2.0}
    assert cost_of(both, engine="seisbench").seconds == {"score": 50.0}
    assert (cost_of([slow]).engine, cost_of([slow], engine="kernels")) == ("seisbench", None)
    broken = record(seconds={"read": 1.0})
    assert cost_of([slow, broken]).engine == "seisbench", "our kernels left no record that tells a cost"


def test_a_start_whose_scorers_left_no_record_tells_no_cost():
    killed = record(device="cuda", seconds={"read": 10.0, "wait": 30.0})
    assert cost_of([killed], device="cuda") is None
    reader = replace(killed, start="b")
    scorer = record(start="b", rank=1, device="cuda", data_s=0.0, shards=0, picks=0, seconds={"score": 5.0})
    assert cost_of([killed, reader, scorer], device="cuda") == cost_of([reader, scorer], device="cuda")
    assert cost_of([reader, scorer], device="cuda").seconds == {"read": 1.0, "score": 0.5}


def test_loading_is_shared_by_those_that_load():
    readers = [record(rank=rank, device="cuda", seconds={"read": 10.0}) for rank in range(1, 8)]
    scorer = record(device="cuda", data_s=0.0, seconds={"load": 6.0, "score": 5.0})
    assert cost_of([scorer, *readers], device="cuda").load_s == 6.0
    assert cost_of([record()]).load_s == 0.0


def test_the_estimate_of_what_was_done_is_what_it_took():
    """10 shards on one rank, and nothing between the stages: the cost gives the wall time back."""
    done = record(seconds={"load": 4.0, "read": 12.0, "score": 20.0, "publish": 4.0})
    cost = cost_of([done])
    found = estimate.estimate(Work(10, 10.0, 1, 1, 0), cost, Layout(1, 2))
    assert found.wall_h * 3600 == pytest.approx(done.wall_s)


def test_several_pickers_read_once():
    other = replace(COST, weight="y/z", seconds={"read": 0.7, "score": 5.0, "triggers": 1.0, "publish": 1.0})
    cost = estimate.side_by_side([other, COST], ("w/x", "y/z"), "auto")
    assert cost.seconds == {"read": 0.5, "score": 7.0, "triggers": 1.25, "publish": 1.25}
    assert (cost.weight, cost.picks_a_day, cost.load_s) == ("w/x+y/z", 200.0, 6.0)
    assert estimate.side_by_side([COST], ("w/x", "y/z"), "auto") is None
    assert estimate.side_by_side([COST, other], ("w/x",), "auto") == COST
    slow = replace(COST, engine="seisbench", load_s=9.0)
    for table in ([COST, slow], [slow, COST]):
        assert estimate.side_by_side(table, ("w/x",), "auto") == COST
        assert estimate.side_by_side(table, ("w/x",), "seisbench") == slow
    assert estimate.side_by_side([slow, other], ("w/x", "y/z"), "auto").engine == "seisbench+kernels"
    assert estimate.side_by_side([COST], ("w/x",), "seisbench") is None
    two = estimate.estimate(replace(WORK, pickers=2), cost, Layout(1))
    assert two.kept_files == 48 + estimate.SINGLE_FILES


def test_the_work_of_a_plan_is_its_days_within_the_run():
    plan = fakes.as_table([(shard, 10) for shard in fakes.shards(days=3, stations=4)])
    start = fakes.START_NS
    whole = stage.work_of(plan, (start, start + 3 * DAY_NS))
    assert whole == Work(12, 12.0, 3, 1, 120)
    assert stage.work_of(plan, (start + DAY_NS // 2, start + 2 * DAY_NS)).station_days == 4 * 1.5
    assert stage.work_of(Shards.empty(), (start, start + DAY_NS)) == Work(0, 0.0, 0, 0, 0)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run.toml").write_text(GOOD)
    config = configs.load(tmp_path / "run.toml")
    run_dir = RunDir(tmp_path / "run")
    run_dir.root.mkdir()
    plan = fakes.as_table([(shard, 1000) for shard in fakes.shards(days=4, stations=30)])
    tables.write(run_dir.shards, plan)
    return run_dir, config, plan


def many(shard):
    """A detector with 200 picks a shard."""
    return fakes.picks(200, zlib.crc32(shard.id.encode()), station=shard.channel), fakes.detect(shard)[1]


def count(run_dir):
    found = [p for kind in ("parts", "picks", "outcomes") for p in run_dir.folder(kind).rglob("*.parquet")]
    return len(found), sum(p.stat().st_size for p in found)


def test_files_and_bytes_of_a_small_run(run):
    """The number of files exactly, the bytes within a third."""
    run_dir, _, plan = run
    for shard in plan.rows():
        results.write_part(run_dir, shard, *many(shard))
    peak_files, peak_bytes = count(run_dir)
    results.fold(run_dir, plan)
    files, size = count(run_dir)
    work = Work(len(plan), float(len(plan)), 4, 1, 0)
    found = estimate.estimate(work, replace(COST, picks_a_day=200.0), Layout(1))
    assert found.kept_files - estimate.SINGLE_FILES == files
    assert found.peak_files - estimate.SINGLE_FILES - 4 == peak_files  # and a folder a day
    assert found.kept_bytes == pytest.approx(size, rel=1 / 3)
    assert found.peak_bytes == pytest.approx(peak_bytes, rel=1 / 3)


def test_costs_come_from_the_run_named_then_from_this_one_then_from_the_table(run, tmp_path, monkeypatch):
    run_dir, config, _ = run
    table = [Cost(config.pick.weight, "fp32", "cpu", "kernels", 1, 0.0, {"score": 1.0}, 1.0, "the table")]
    monkeypatch.setattr(stage, "reference", lambda: table)
    assert stage.cost_for(run_dir, config, None).source == "the table"
    mine = record(weight=config.pick.weight, shards=1, data_s=DAY_S, seconds={"score": 2.0})
    meter.close(run_dir.meter, [mine])
    assert stage.cost_for(run_dir, config, None).seconds == {"score": 2.0}
    other = create(tmp_path / "other", config)
    meter.close(other.meter, [replace(mine, seconds={"score": 9.0})])
    assert stage.cost_for(run_dir, config, other.root).seconds == {"score": 9.0}


def test_a_run_named_without_costs_of_this_kind_is_refused(run, tmp_path):
    run_dir, config, _ = run
    folder = tmp_path / "other"
    with pytest.raises(ConfigError, match=f"--costs {folder}: not a run directory"):
        stage.look(run_dir, config, ranks=1, costs=folder)
    other = create(folder, config)
    with pytest.raises(ConfigError, match=f"--costs {folder}: no measured .*that it holds: none at all"):
        stage.look(run_dir, config, ranks=1, costs=folder)
    meter.close(other.meter, [record(weight="a/b", precision="bf16")])
    wanted, held = "phasenet/original at fp32 on cpu", "a/b at bf16 on cpu, engine kernels"
    with pytest.raises(ConfigError, match=f"--costs {folder}: no measured cost of {wanted}; .*that it holds: {held}"):
        stage.look(run_dir, config, ranks=1, costs=folder)


def test_gpus_of_a_run_on_cpus_are_refused(run):
    run_dir, config, _ = run
    with pytest.raises(ConfigError, match=r'--gpus 2, but compute\.device = "cpu": add --set compute\.device=cuda'):
        stage.look(run_dir, config, ranks=4, gpus=2)
    on_gpus = config.model_copy(update={"compute": config.compute.model_copy(update={"device": "cuda:1"})})
    assert "no measured cost of phasenet/original at fp32 on cuda" in stage.look(run_dir, on_gpus, ranks=4, gpus=2)


def test_the_engine_asked_for_is_that_of_the_cost(run, monkeypatch):
    run_dir, config, _ = run
    monkeypatch.setattr(stage, "reference", lambda: [replace(COST, weight=config.pick.weight)])
    asked = config.model_copy(update={"compute": config.compute.model_copy(update={"engine": "seisbench"})})
    assert "phasenet/original at fp32 on cpu, engine seisbench;" in stage.look(run_dir, asked, ranks=1)
    assert "at fp32, engine kernels, 2 thread(s)" in stage.look(run_dir, config, ranks=1)


def test_a_broken_record_does_not_stop_an_estimate(run, caplog):
    run_dir, config, _ = run
    meter.close(run_dir.meter, [record(weight=config.pick.weight)])
    (run_dir.meter / "broken.json").write_text('[{"unknown": 1}]')
    assert "by           the meter of this run" in stage.look(run_dir, config, ranks=1)
    assert "broken.json" in caplog.text


def test_the_table_that_the_bench_writes_can_be_read(monkeypatch):
    row = {"weight": "w/x", "way": "bf16", "seconds": {"read": 0.5, "score": 2.0}, "load_s": 3.0, "picks": {"P": 7}}
    monkeypatch.setattr(bench_cpu, "publish_s", lambda: 0.25)
    rows = [row, {**row, "way": "seisbench-256"}, {"weight": "w/x", "way": "fp16", "error": "no"}]
    (cost,) = tomllib.loads(bench_cpu.costs(rows, {"machine": "m", "threads": 2}))["cost"]
    seconds = {"read": 0.5, "score": 2.0, "publish": 0.25}
    assert Cost(**cost) == Cost("w/x", "bf16", "cpu", "kernels", 2, 3.0, seconds, 7.0)


def test_the_text_names_every_quantity(run, monkeypatch):
    run_dir, config, _ = run
    monkeypatch.setattr(stage, "reference", lambda: [replace(COST, weight=config.pick.weight, source="the table")])
    text = stage.look(run_dir, config, ranks=2)
    assert "120 shards, at most 30.00 station-days" in text  # the run spans one day of the plan's four
    for words in ("78.0 s on 2 rank(s)", "core-hours", "kB in 7 files", "in 129", "by           the table"):
        assert words in text
    monkeypatch.setattr(stage, "reference", list)
    assert "no measured cost of phasenet/original at fp32 on cpu" in stage.look(run_dir, config, ranks=2)


def test_without_a_plan_there_is_no_estimate(tmp_path, run):
    with pytest.raises(Incomplete, match="orcolat plan"):
        stage.look(RunDir(tmp_path / "nothing"), run[1], ranks=1)


def test_the_table_that_ships_is_sound():
    for cost in stage.reference():
        assert cost.source.startswith("reference machine")
        assert cost.device in ("cpu", "cuda")
        assert all(np.isfinite(s) and s >= 0 for s in cost.seconds.values())
