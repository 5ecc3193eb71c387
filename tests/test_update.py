"""Late data: what came or changed is planned anew by name, and nothing else is done again."""

import os
import shutil

import numpy as np
import pytest

from pipeline import config as configs
from pipeline.cluster.claims import Claims
from pipeline.cluster.world import Alone
from pipeline.errors import ConfigError, Incomplete
from pipeline.formats import planning, results, tables, todo, tries
from pipeline.maths.late import ids, late
from pipeline.maths.volumes import extended, volumes
from pipeline.models import weights
from pipeline.records import Shards
from pipeline.rundir import create, of_pickers
from pipeline.stages import pick, update
from tests import fakes
from tests.fakes import nobody
from tests.test_claims import ELSEWHERE, left_behind
from tests.test_config import GOOD
from tests.test_pick_stage import ALSO, snapshot

DAYS = ("2024.127", "2024.128", "2024.129")  # 6, 7, 8 May


@pytest.fixture(autouse=True)
def _weights(monkeypatch):
    monkeypatch.setattr(weights, "digest", lambda name: "0" * 64)


def add(archive, station, day, data=b"x" * 100, band="HH"):
    path = archive / f"2024/XD/{station}/{band}Z.D/XD.{station}..{band}Z.D.{day}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


@pytest.fixture
def archive(tmp_path):
    for station in ("S00", "S01", "S02"):
        for day in DAYS[:2]:
            add(tmp_path / "archive", station, day)
    rows = [f"XD,S{k:02d},{46 + k / 10},13.0,100.0" for k in range(9)]
    (tmp_path / "sites.csv").write_text("\n".join(["network,station,latitude,longitude,elevation_m", *rows]))
    return tmp_path / "archive"


@pytest.fixture
def config(tmp_path, archive):
    (tmp_path / "run.toml").write_text(GOOD.replace("2024-05-07", "2024-05-10") + ALSO)
    wanted = [f'archive.root="{archive}"', f'stations.files=["{tmp_path / "sites.csv"}"]', 'archive.bands=["HH","EH"]']
    return configs.load(tmp_path / "run.toml", wanted)


@pytest.fixture(autouse=True)
def _sites(monkeypatch):
    """Stations that are there for ever."""
    from pipeline.records import Stations

    n = 9
    sites = Stations(
        np.array([f"XD.S{k:02d}" for k in range(n)]),
        np.full(n, 46.0),
        np.full(n, 13.0),
        np.zeros(n),
        np.zeros(n, np.int64),
        np.full(n, 2**62),
    )
    monkeypatch.setattr(planning.stations, "read", lambda *_: sites)


def plan(root, config):
    run_dir = create(root, config)
    sites = planning.stations.read()
    shards = planning.plan_shards(config, sites)
    for each, alone in reversed(of_pickers(run_dir, config)):
        create(each.root, alone)
        tables.write(each.stations, sites)
        tables.write(each.shards, shards)
    return run_dir


def picked(run_dir, config):
    """The shards that were read."""
    done = []
    read = lambda shard: done.append(shard.id) or fakes.read(shard)  # noqa: E731
    pick.run(run_dir, config, Alone(), lambda *_: fakes.Scorer(3), lambda *_: read)
    return sorted(done)


def test_nothing_late_changes_nothing(tmp_path, config):
    run_dir = plan(tmp_path / "run", config)
    assert len(picked(run_dir, config)) == 6
    before = snapshot(run_dir)
    assert not update.run(run_dir, config, Alone()).any
    assert snapshot(run_dir) == before
    assert picked(run_dir, config) == []


@pytest.mark.parametrize("folded", [True, False])
def test_a_changed_file_is_done_again_by_name_and_nothing_else(tmp_path, config, archive, folded, monkeypatch):
    run_dir = plan(tmp_path / "run", config)
    if not folded:
        monkeypatch.setattr(results, "fold", lambda *_: None)
    picked(run_dir, config)
    monkeypatch.undo()
    monkeypatch.setattr(weights, "digest", lambda name: "0" * 64)
    _sites.__wrapped__(monkeypatch) if hasattr(_sites, "__wrapped__") else None
    add(archive, "S01", DAYS[1], b"y" * 200)
    found = update.run(run_dir, config, Alone())
    assert (found.changed, found.new, found.gone) == (("2024-05-07/XD.S01..HH",), (), ())
    assert picked(run_dir, config) == ["2024-05-07/XD.S01..HH"]
    fresh = plan(tmp_path / "fresh", config)
    picked(fresh, config)
    assert snapshot(run_dir) == snapshot(fresh), "as if it had been there from the beginning"
    assert len(of_pickers(run_dir, config)) == 3


def test_a_file_of_the_same_size_and_another_time_has_changed(tmp_path, config, archive):
    run_dir = plan(tmp_path / "run", config)
    picked(run_dir, config)
    os.utime(add(archive, "S01", DAYS[1]), (1_600_000_000, 1_600_000_000))
    assert update.run(run_dir, config, Alone()).changed == ("2024-05-07/XD.S01..HH",)


def test_new_files_join_and_the_others_keep_their_results(tmp_path, config, archive):
    run_dir = plan(tmp_path / "run", config)
    picked(run_dir, config)
    add(archive, "S03", DAYS[0])
    add(archive, "S00", DAYS[2])
    found = update.run(run_dir, config, Alone())
    assert found.new == ("2024-05-06/XD.S03..HH", "2024-05-08/XD.S00..HH")
    assert picked(run_dir, config) == list(found.new)
    fresh = plan(tmp_path / "fresh", config)
    picked(fresh, config)
    assert snapshot(run_dir) == snapshot(fresh)


def test_a_file_that_is_gone_keeps_its_result(tmp_path, config, archive):
    run_dir = plan(tmp_path / "run", config)
    picked(run_dir, config)
    before = len(results.picks(run_dir))
    shutil.rmtree(archive / "2024/XD/S02")
    add(archive, "S03", DAYS[0])
    assert update.run(run_dir, config, Alone()).gone == ("2024-05-06/XD.S02..HH", "2024-05-07/XD.S02..HH")
    picked(run_dir, config)
    assert len(results.picks(run_dir)) > before
    assert len(results.planned(run_dir)) == 7


def test_a_better_channel_takes_the_place_of_the_planned_one(tmp_path, config, archive):
    add(archive, "S04", DAYS[0], band="EH")
    run_dir = plan(tmp_path / "run", config)
    picked(run_dir, config)
    add(archive, "S04", DAYS[0], band="HH")
    found = update.run(run_dir, config, Alone())
    assert (found.new, found.replaced) == (("2024-05-06/XD.S04..HH",), ("2024-05-06/XD.S04..EH",))
    assert picked(run_dir, config) == ["2024-05-06/XD.S04..HH"]
    assert "XD.S04..EH" not in results.picks(run_dir).station.tolist()
    results.require_picked(run_dir, imported=False)


def test_a_changed_shard_that_was_set_aside_is_tried_again(tmp_path, config, archive):
    run_dir = plan(tmp_path / "run", config)
    shard = results.planned(run_dir).shard(4)
    for _ in range(3):
        for each, _ in of_pickers(run_dir, config):
            tries.write(each, shard, "BadData: nonsense", "")
    assert shard.id not in picked(run_dir, config)
    add(archive, shard.station[3:6], DAYS[1], b"repaired")
    update.run(run_dir, config, Alone())
    assert picked(run_dir, config) == [shard.id]
    assert results.failures(run_dir) == []


def test_nobody_updates_a_run_that_is_being_picked_and_the_other_way_round(tmp_path, config, archive):
    run_dir = plan(tmp_path / "run", config)
    add(archive, "S03", DAYS[0])
    left_behind(run_dir.claims, "block-0000001", ELSEWHERE)
    with pytest.raises(Incomplete, match="pid 4711 on far works on this run"):
        update.run(run_dir, config, Alone())
    (run_dir.claims / "block-0000001").unlink()
    with Claims(run_dir.claims, 60, nobody) as claims:
        claims.take(todo.UPDATE)
        assert picked(run_dir, config) == []
        with pytest.raises(Incomplete, match="is updating this run"):
            update.run(run_dir, config, Alone())
    assert update.run(run_dir, config, Alone()).any


def test_a_kill_while_updating_loses_nothing(tmp_path, config, archive, monkeypatch):
    run_dir = plan(tmp_path / "run", config)
    picked(run_dir, config)
    add(archive, "S01", DAYS[1], b"y" * 200)
    write, n = results.write_part, []

    def dies(*args):
        n.append(1)
        if len(n) == 4:
            raise KeyboardInterrupt
        write(*args)

    monkeypatch.setattr(results, "write_part", dies)
    with pytest.raises(KeyboardInterrupt):
        update.run(run_dir, config, Alone())
    monkeypatch.setattr(results, "write_part", write)
    assert update.run(run_dir, config, Alone()).changed == ("2024-05-07/XD.S01..HH",)
    assert picked(run_dir, config) == ["2024-05-07/XD.S01..HH"]
    fresh = plan(tmp_path / "fresh", config)
    picked(fresh, config)
    assert snapshot(run_dir) == snapshot(fresh)


def test_retry_forgets_failures_of_all_pickers(tmp_path, config):
    run_dir = plan(tmp_path / "run", config)
    shards = results.planned(run_dir).rows()
    for each, _ in of_pickers(run_dir, config):
        for shard in shards[:2]:
            tries.write(each, shard, "BadData: nonsense", "")
    assert update.retry(run_dir, config, [shards[0].id]) == [shards[0].id]
    with pytest.raises(ConfigError, match="have not failed: 2024-05-07"):
        update.retry(run_dir, config, [shards[5].id])
    assert update.retry(run_dir, config) == [shards[1].id]
    assert not any(tries.notes(each) for each, _ in of_pickers(run_dir, config))


def day(n):
    return f"{fakes.day(n):%Y-%m-%d}"


def test_volumes_hold_250_shards_or_more():
    days = np.repeat([day(n) for n in range(10)], 75)
    found = volumes(days)
    assert dict(zip(days.tolist(), found.tolist(), strict=True)) == {
        day(n): day(n // 4 * 4 if n < 8 else 4) for n in range(10)
    }
    assert volumes(days[::-1]).tolist() == found[::-1].tolist()
    assert len(np.unique(volumes(np.repeat([day(n) for n in range(300)], 1000)))) == 300
    assert len(np.unique(volumes(np.repeat([day(n) for n in range(3000)], 100)))) == 1000
    many = volumes(np.repeat([day(n) for n in range(3000)], 400))
    assert len(np.unique(many)) == 1500, "1,200,000 // 2000 = 600 each"
    assert len(volumes(np.empty(0, "U10"))) == 0


def test_days_keep_their_volumes_when_new_ones_come():
    old = np.repeat([day(n) for n in (2, 4, 5, 6)], 150)
    before = volumes(old)
    assert sorted(set(before.tolist())) == [day(2), day(5)]
    now = np.repeat([day(n) for n in range(12)], 150)
    found = dict(zip(now.tolist(), extended(now, old, before).tolist(), strict=True))
    wanted = {0: 0, 1: 0, 2: 2, 3: 2, 4: 2, 5: 5, 6: 5, 7: 7, 8: 7, 9: 9, 10: 9, 11: 9}
    assert found == {day(a): day(b) for a, b in wanted.items()}


def test_few_new_days_join_a_small_last_volume():
    old = np.repeat([day(0)], 75)
    now = np.repeat([day(n) for n in range(6)], 75)
    found = dict(zip(now.tolist(), extended(now, old, volumes(old)).tolist(), strict=True))
    assert found == {day(n): day(0 if n < 4 else 4) for n in range(6)}


def test_an_old_plan_has_a_volume_a_day_and_no_times():
    shards = fakes.shards(2, 2)
    now = fakes.as_table([(shard, 7) for shard in shards])
    old = Shards(now.day, now.station, now.band, now.bytes, np.full(4, ""), now.changes_ns)
    assert old.volumes.tolist() == old.day.tolist()
    dated = Shards(now.day, now.station, now.band, now.bytes, now.volume, np.full(4, 5))
    assert not late(old, dated).any
    assert ids(old) == [shard.id for shard in shards]
