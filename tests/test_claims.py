"""Claims: one of many gets a piece of work, a dead one's is taken over, a living one's never is."""

import dataclasses
import errno
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pipeline.cluster import claims as module
from pipeline.cluster import slurm_jobs
from pipeline.cluster.claims import STOPPED, Claims, Who, born, holders, look, me
from pipeline.cluster.dealing import awaited, deal, rotated
from pipeline.errors import Storage
from pipeline.formats import results, tables, tries
from pipeline.formats.todo import Seen, Todo, to_try
from pipeline.models import weights
from pipeline.stages import update
from tests import fakes, processes
from tests.fakes import nobody
from tests.processes import FORK, ended, reads, start
from tests.test_pick_stage import config, expected, planned, snapshot  # noqa: F401  (fixtures)

SHARDS = fakes.shards(days=3, stations=7)
HOUR_S = 3600.0


@pytest.fixture(autouse=True)
def _weights(monkeypatch):
    monkeypatch.setattr(weights, "digest", lambda name: "0" * 64)


def left_behind(folder, name="work", who=None, age_s=0.0, lines=()):
    """A claim as a process that is no more, or is elsewhere, left it."""
    who = who or dataclasses.replace(me(), pid=2**22 + 1)
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("\n".join([json.dumps(dataclasses.asdict(who)), *lines, ""]))
    touched = time.time() - age_s
    os.utime(path, (touched, touched))
    return path


ELSEWHERE = dataclasses.replace(me(), space="another machine", host="far", pid=4711, born=1)


def test_one_has_it_and_after_that_another_may(tmp_path):
    with Claims(tmp_path, 60, nobody) as mine, Claims(tmp_path, 60, nobody) as yours:
        claim = mine.take("work")
        assert claim is not None
        assert yours.take("work") is None
        assert yours.take("other") is not None
        assert f"pid {os.getpid()} on" in yours.holder("work")
        claim.release()
        assert yours.take("work") is not None
    assert list(tmp_path.iterdir()) == []


def test_the_claim_of_a_process_that_is_gone_is_taken_at_once_and_says_what_it_was_at(tmp_path):
    left_behind(tmp_path, lines=["+a", "-a", "+b", "+c"])
    died = []
    with Claims(tmp_path, 60, died.extend) as claims:
        assert claims.take("work") is not None
        assert died == ["b", "c"]


def test_a_process_that_was_told_to_stop_and_then_killed_leaves_no_blame(tmp_path):
    left_behind(tmp_path, lines=["+a", STOPPED])
    died = []
    with Claims(tmp_path, 60, died.extend) as claims:
        assert claims.take("work") is not None
    assert died == []


def test_where_a_claim_cannot_be_removed_it_stays_and_blames_nothing(tmp_path, monkeypatch):
    unlink, died = Path.unlink, []

    def refuses(path, missing_ok=False):
        if path.name.startswith("work"):
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(path, missing_ok)

    with Claims(tmp_path, 60, nobody) as claims:
        first, second = claims.take("work-1"), claims.take("work-2")
        first.begin("a"), second.begin("b")
        monkeypatch.setattr(Path, "unlink", refuses)
        with pytest.raises(Storage, match=r"work-1.*EROFS"):
            first.release()
    monkeypatch.undo()
    monkeypatch.setattr(module, "born", lambda pid: -1)
    with Claims(tmp_path, 60, died.extend) as claims:
        assert claims.take("work-1") is not None
        assert claims.take("work-2") is not None
    assert died == []


def test_dead_claims_of_work_that_is_done_are_cleared_away(tmp_path):
    left_behind(tmp_path, "work-1", lines=["+a"])
    left_behind(tmp_path, "work-2", who=me())
    left_behind(tmp_path, "work-3", who=ELSEWHERE, age_s=100)
    left_behind(tmp_path, ".clock-1", age_s=2 * HOUR_S)
    died = []
    with Claims(tmp_path, 60, died.extend) as claims:
        claims.tidy()
        assert claims.names() == ["work-2", "work-3"]
        assert died == ["a"]
        assert not claims.suspects
        assert [path.name for path in tmp_path.glob(".clock-1")] == []


def test_a_process_number_that_was_given_again_is_not_the_same_process(tmp_path):
    left_behind(tmp_path, who=dataclasses.replace(me(), born=born(os.getpid()) - 1))
    with Claims(tmp_path, 60, nobody) as claims:
        assert claims.take("work") is not None


def test_a_living_process_of_this_machine_keeps_its_claim_however_old_it_looks(tmp_path):
    left_behind(tmp_path, who=me(), age_s=10 * HOUR_S)
    with Claims(tmp_path, 60, nobody, heartbeat_s=0.01) as claims:
        assert claims.take("work") is None
        time.sleep(0.1)
        assert claims.take("work") is None


def test_an_old_claim_of_another_machine_is_taken_after_a_second_look_and_a_fresh_one_is_not(tmp_path):
    left_behind(tmp_path, "old", ELSEWHERE, age_s=100)
    left_behind(tmp_path, "fresh", ELSEWHERE, age_s=10)
    with Claims(tmp_path, 60, nobody, heartbeat_s=0.02) as claims:
        assert claims.take("old") is None
        assert claims.take("fresh") is None
        assert claims.suspects == {"old"}
        time.sleep(0.1)
        assert claims.take("old") is not None
        assert claims.take("fresh") is None


@pytest.mark.parametrize("skew_s", [-HOUR_S, HOUR_S])
def test_the_clock_of_this_machine_does_not_count(tmp_path, monkeypatch, skew_s):
    left_behind(tmp_path, "old", ELSEWHERE, age_s=100)
    left_behind(tmp_path, "fresh", ELSEWHERE, age_s=10)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + skew_s)
    with Claims(tmp_path, 60, nobody, heartbeat_s=0.02) as claims:
        claims.take("old")
        time.sleep(0.1)
        assert claims.take("old") is not None
        assert claims.take("fresh") is None


@pytest.mark.parametrize("skew_s", [-HOUR_S, HOUR_S])
def test_a_claim_that_is_touched_with_a_wrong_clock_is_alive(tmp_path, skew_s):
    path = left_behind(tmp_path, who=ELSEWHERE, age_s=skew_s)
    with Claims(tmp_path, 60, nobody, heartbeat_s=0.02) as claims:
        for k in range(10):
            assert claims.take("work") is None
            os.utime(path, (time.time() - skew_s + k, time.time() - skew_s + k))
            time.sleep(0.03)


def test_a_claim_from_the_future_that_stands_still_is_dead_in_the_end(tmp_path, monkeypatch):
    left_behind(tmp_path, who=ELSEWHERE, age_s=-HOUR_S)
    with Claims(tmp_path, 60, nobody, heartbeat_s=1.0) as claims:
        assert claims.take("work") is None
        now = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: now() + 61)
        assert claims.take("work") is not None


def test_a_claim_that_was_never_signed_is_dead_when_it_is_old(tmp_path):
    path = tmp_path / "work"
    path.touch()
    with Claims(tmp_path, 60, nobody, heartbeat_s=0.02) as claims:
        assert claims.take("work") is None
        os.utime(path, (time.time() - 100,) * 2)
        claims.take("work")
        time.sleep(0.1)
        assert claims.take("work") is not None


@pytest.mark.parametrize(("running", "dead"), [({"7": 1}, False), ({"7": 2}, True), ({}, True), (None, False)])
def test_slurm_knows_whether_a_job_is_over(tmp_path, monkeypatch, running, dead):
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "leo")
    monkeypatch.setattr(slurm_jobs, "_running", lambda: running)
    monkeypatch.setattr(slurm_jobs, "_looked", {})
    who = dataclasses.replace(ELSEWHERE, cluster="leo", job="7", restarts=1)
    left_behind(tmp_path, who=who, age_s=100)
    left_behind(tmp_path, "fresh", who)
    with Claims(tmp_path, 600, nobody) as claims:
        assert (claims.take("work") is not None) == dead
        assert claims.take("fresh") is None, "Slurm is asked of those only that are silent for a while"


def test_what_is_held_is_touched_and_hung_up_when_it_is_lost(tmp_path):
    with Claims(tmp_path, 60, nobody, heartbeat_s=0.02) as claims:
        claim = claims.take("work")
        os.utime(claim.path, (0, 0))
        until = time.monotonic() + 20
        while claim.path.stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.01)
        assert claim.path.stat().st_mtime > 0
        claim.path.rename(tmp_path / "aside")
        assert claim.lost
        left_behind(tmp_path, who=ELSEWHERE)
        assert claim.lost
        claim.release()
        assert look(tmp_path / "work").who == ELSEWHERE


def racing(folder, barrier, wins, rounds):
    for k in range(rounds):
        with Claims(folder, 60, nobody) as claims:
            barrier.wait(60)
            claim = claims.take(f"work-{k}")
            if claim is not None:
                wins[k] += 1
            barrier.wait(60)


def test_of_two_that_take_a_dead_claim_one_wins(tmp_path):
    """Two processes, two hundred times."""
    rounds, barrier, wins = 200, FORK.Barrier(2), FORK.Array("i", 200)
    for k in range(rounds):
        left_behind(tmp_path, f"work-{k}")
    both = [FORK.Process(target=racing, args=(tmp_path, barrier, wins, rounds)) for _ in range(2)]
    [each.start() for each in both]
    assert ended(*both) == [0, 0]
    assert list(wins) == [1] * rounds
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("looks", [1, 2])
def test_a_living_claim_is_not_moved_or_put_back(tmp_path, monkeypatch, looks):
    """Between a look at a dead claim and its removal another has buried it and begun."""
    left_behind(tmp_path)
    old, late = module.look, []

    def slow(path):
        held = old(path)
        if path.name == "work":
            late.append(path)
            if len(late) == looks:
                left_behind(tmp_path, who=dataclasses.replace(me(), token="new"))
        return held

    monkeypatch.setattr(module, "look", slow)
    with Claims(tmp_path, 60, nobody) as claims:
        assert claims.take("work") is None
    assert look(tmp_path / "work").who.token == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_the_hands_of_several_cover_everything_once(tmp_path):
    hands = []

    def deals(rank):
        with Claims(tmp_path, 60, nobody) as claims:
            done = set()
            tasks = deal(claims, rotated(range(21), rank, 4), lambda b: b not in finished, lambda b: [SHARDS[b]])
            while (task := awaited(tasks)) is not None:
                if task.shard in finished_shards:
                    task.done()
                    continue
                finished.add(SHARDS.index(task.shard))
                finished_shards.add(task.shard)
                done.add(task.shard)
                time.sleep(0.001)
                task.done()
            hands.append(done)

    finished, finished_shards = set(), set()
    threads = [threading.Thread(target=deals, args=(rank,)) for rank in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert sorted(shard for hand in hands for shard in hand) == SHARDS


def test_array_tasks_begin_in_different_places(monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "4")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "1")
    firsts = []
    for task in range(1, 5):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        firsts += [rotated(range(80), rank, 2)[0] for rank in range(2)]
    assert firsts == list(range(0, 80, 10))
    assert sorted(rotated(range(80), 1, 2)) == list(range(80))


def test_two_processes_on_one_run_do_each_shard_once(tmp_path, config, expected):
    run_dir, log = planned(tmp_path / "run"), tmp_path / "log"
    both = [start(run_dir, config, log, nap_s=0.02) for _ in range(2)]
    assert ended(*both) == [0, 0]
    assert reads(log) == dict.fromkeys((shard.id for shard in SHARDS), 1)
    assert len({line.split()[0] for line in log.read_text().splitlines()}) == 2, "both worked"
    assert not holders(run_dir.claims)
    assert snapshot(run_dir) == expected


def test_a_killed_process_blames_its_shard_once_and_the_next_run_takes_over(tmp_path, config, expected):
    run_dir, log, bad = planned(tmp_path / "run"), tmp_path / "log", SHARDS[9]
    assert ended(start(run_dir, config, log, kill_at=bad.id)) == [-signal.SIGKILL]
    assert len(holders(run_dir.claims)) == 1
    before = time.monotonic()
    assert ended(start(run_dir, config, log)) == [0]
    assert time.monotonic() - before < 20
    assert reads(log) == {shard.id: 1 + (shard == bad) for shard in SHARDS}
    assert snapshot(run_dir) == expected


def test_three_kills_at_the_same_shard_set_it_aside(tmp_path, config, expected):
    run_dir, log, bad = planned(tmp_path / "run"), tmp_path / "log", SHARDS[9]
    codes = [ended(start(run_dir, config, log, kill_at=bad.id))[0] for _ in range(4)]
    assert codes == [-signal.SIGKILL] * 3 + [0]
    (note,) = results.notes(run_dir)
    assert (note.shard, note.tries, note.died) == (bad.id, 3, True)
    assert reads(log)[bad.id] == 3
    results.require_picked(run_dir, imported=False)
    assert len(results.outcomes(run_dir)) == len(SHARDS)
    assert results.folded(run_dir) == {"2024-05-06"}, "it keeps its volume from being folded no longer"
    assert update.retry(run_dir, config) == [bad.id]
    assert ended(start(run_dir, config, log)) == [0]
    assert snapshot(run_dir) == expected


def test_a_block_of_another_living_machine_is_left_to_it_and_named(tmp_path, config):
    run_dir, log = planned(tmp_path / "run"), tmp_path / "log"
    left_behind(run_dir.claims, "block-0000004", dataclasses.replace(ELSEWHERE, job="17"))
    assert ended(start(run_dir, config, log)) == [0]
    assert reads(log) == dict.fromkeys((shard.id for shard in SHARDS if shard != SHARDS[4]), 1)
    assert processes.pick.with_others(run_dir, config) == "1 shards are left to pid 4711 on far, job 17"


def test_a_claim_says_who(tmp_path, monkeypatch):
    for name, value in {"JOB_ID": "18", "ARRAY_JOB_ID": "12", "ARRAY_TASK_ID": "5", "RESTART_COUNT": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with Claims(tmp_path, 60, nobody) as claims:
        claims.take("work")
        (path,) = tmp_path.glob("work")
        who = look(path).who
        assert (who.job, who.array, who.restarts, who.pid) == ("18", "12_5", 2, os.getpid())
        assert claims.holder("work").endswith("job 12_5")
    assert str(Who()) == "a process that has not signed yet"


def test_a_shard_that_may_have_killed_a_process_has_a_turn_of_its_own(tmp_path, config):
    run_dir = planned(tmp_path / "run")
    plan = fakes.as_table([(shard, 1) for shard in fakes.shards(days=10, stations=30)])
    tables.write(run_dir.shards, plan)
    first, second = plan.shard(0), plan.shard(1)
    tries.write(run_dir, first, tries.DIED, "", "earlier")
    tries.write(run_dir, second, "BadData: nonsense", "Traceback", "this")
    seen = Seen.of(run_dir)
    work = Todo(run_dir, seen, to_try(run_dir, plan, 3), 3, "this")
    assert work.left(0) == [plan.shard(2), plan.shard(3)], "tried once a start"
    assert (work.left(0, suspects=True), work.suspects()) == ([first], [0])
    for _ in range(2):
        tries.write(run_dir, first, tries.DIED, "", "earlier")
    assert (work.left(0, suspects=True), work.suspects()) == ([], []), "three times is enough"
    assert 0 not in to_try(run_dir, plan, 3)
