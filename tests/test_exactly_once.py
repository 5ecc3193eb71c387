"""Between processes that work on one run: nobody healthy is blamed, nothing is lost, nothing waits for ever."""

import errno
import hashlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline import meter
from pipeline.cli import exit_code
from pipeline.cluster import scratch, stop
from pipeline.cluster.claims import TAKEN, Claims, look
from pipeline.cluster.world import Alone
from pipeline.commands.common import complete
from pipeline.errors import Incomplete, Storage
from pipeline.formats import results, tables, tries
from pipeline.maths.late import Late, late
from pipeline.models import weights
from pipeline.records import Shard
from pipeline.stages import update
from tests import fakes
from tests.fakes import as_table, nobody
from tests.processes import ended, start
from tests.test_claims import ELSEWHERE, left_behind
from tests.test_pick_stage import config, expected, picked, planned, snapshot, split  # noqa: F401  (fixtures)
from tests.worlds import srun

ROOT = Path(__file__).parents[1]
MPIEXEC = Path(sys.executable).with_name("mpiexec")
SHARDS = fakes.shards(days=3, stations=7)
DAYS_S = 86_400.0


@pytest.fixture(autouse=True)
def _weights(monkeypatch):
    monkeypatch.setattr(weights, "digest", lambda name: "0" * 64)


@pytest.fixture
def nothing_late(monkeypatch):
    monkeypatch.setattr(update, "look", lambda run_dir, _: (*2 * (results.planned(run_dir),), Late()))


@pytest.fixture
def quick(monkeypatch):
    """Heartbeats of 20 ms."""
    make = Claims.__init__
    monkeypatch.setattr(Claims, "__init__", lambda self, folder, timeout_s, died: make(self, folder, 60, died, 0.02))


def larger(run_dir, stations):
    """The plan of a run with blocks of several shards; its shards."""
    shards = fakes.shards(days=3, stations=stations)
    tables.write(run_dir.shards, as_table([(shard, 1) for shard in shards]))
    return shards


# Whose fault it is


def test_an_update_before_each_start_forgets_no_death(tmp_path, config, nothing_late):
    """As `orcolat nightly` does."""
    run_dir, log, bad = planned(tmp_path / "run"), tmp_path / "log", SHARDS[9]
    codes = []
    for _ in range(4):
        update.run(run_dir, config, Alone())
        codes += ended(start(run_dir, config, log, kill_at=bad.id))
    assert codes == [-signal.SIGKILL] * 3 + [0]
    assert [(note.shard, note.tries) for note in results.notes(run_dir)] == [(bad.id, 3)]


@pytest.mark.parametrize(("ranks", "scorers"), [(4, 0), (4, 1)])
def test_shards_that_may_have_killed_a_process_go_last_and_one_by_one(tmp_path, config, expected, ranks, scorers):
    run_dir, order = planned(tmp_path / "run"), []
    suspects = SHARDS[2:20:4]
    for shard in suspects:
        tries.write(run_dir, shard, tries.DIED, "")

    def read(shard):
        order.append(shard)
        time.sleep(0.005)
        if shard in suspects:
            held = [look(path).in_work for path in run_dir.claims.glob("block-*")]
            assert held == [[shard.id]], "nobody else has anything at hand"
        return fakes.read(shard)

    tallies = srun(ranks, lambda world: picked(run_dir, split(config, scorers=scorers), world, read))
    assert (tallies[0]["picked"], tallies[0]["failed"]) == (len(SHARDS), 0)
    assert sorted(order[-len(suspects) :]) == suspects
    assert snapshot(run_dir) == expected


POISON = """
import os, signal, sys, time
from pathlib import Path
from pipeline import config as configs
from pipeline.cluster.world import Mpi
from pipeline.models import weights
from pipeline.rundir import RunDir
from pipeline.stages import pick
from tests import fakes
weights.digest = lambda name: "0" * 64

def read(shard):
    time.sleep(0.05 if shard.id == sys.argv[3] else 0.15)
    if shard.id == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
    return fakes.read(shard)

pick.run(RunDir(Path(sys.argv[1])), configs.load(Path(sys.argv[2])), Mpi(), lambda *_: fakes.Scorer(1), lambda *_: read)
"""


@pytest.mark.skipif(not MPIEXEC.exists(), reason="no mpiexec beside this Python: ranks that die together are not tried")
def test_of_ranks_that_die_together_only_the_poison_is_set_aside(tmp_path, config):
    """mpiexec ends all ranks when one is killed, and each has a shard at hand."""
    run_dir, bad = planned(tmp_path / "run"), SHARDS[10]
    command = [MPIEXEC, "-n", "4", sys.executable, "-m", "mpi4py", "-c", POISON, run_dir.root, tmp_path / "run.toml"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    codes = []
    for _ in range(4):
        done = subprocess.run([*map(str, command), bad.id], cwd=ROOT, env=env, capture_output=True, check=False)
        codes.append(done.returncode)
    assert [code == 0 for code in codes] == [False, False, False, True], codes
    assert [note.shard for note in results.notes(run_dir)] == [bad.id]
    assert len(results.outcomes(run_dir)) == len(SHARDS)


def test_sigterm_in_a_long_call_is_known_at_once(tmp_path):
    """Python calls no handler while the main thread is outside of Python; the claim must say it all the same."""
    pid = os.fork()
    if not pid:
        with stop.listening(), Claims(tmp_path, 60, nobody) as claims:
            claims.take("work").begin("healthy")
            (tmp_path / ".ready").touch()
            hashlib.pbkdf2_hmac("sha256", b"a", b"b", 500_000_000)  # minutes
        os._exit(0)
    until = time.monotonic() + 30
    while not (tmp_path / ".ready").exists() and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(pid, signal.SIGTERM)
    while look(tmp_path / "work").in_work and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert look(tmp_path / "work").in_work == []


def test_a_second_interrupt_ends_at_once():
    with stop.listening():
        signal.raise_signal(signal.SIGINT)
        with stop.listening():  # within another one nothing changes
            assert stop.asked() == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_takeover_that_fails_keeps_the_blame_for_the_next(tmp_path):
    left_behind(tmp_path, lines=["+a"])

    def full(_):
        raise Storage("disk full")

    died = []
    with Claims(tmp_path, 60, full) as claims, pytest.raises(Storage):
        claims.take("work")
    with Claims(tmp_path, 60, died.extend) as claims:
        assert claims.take("work")
    assert died == ["a"]


def test_a_process_killed_while_it_takes_over_keeps_the_blame(tmp_path, monkeypatch):
    left_behind(tmp_path, f"{TAKEN}1", lines=["+a"])
    died = []
    with Claims(tmp_path, 60, died.extend) as claims:
        claims.tidy()
        assert died == [], "whoever moved it may be at it"
        now = claims._now_s
        monkeypatch.setattr(claims, "_now_s", lambda: now() + 61)
        claims.tidy()
    assert died == ["a"]
    assert list(tmp_path.iterdir()) == []


# Claims of processes elsewhere


@pytest.mark.parametrize("name", ["block-0000001", "update", "fold-2024-05-06"])
def test_a_claim_of_a_machine_that_is_gone_stops_nobody(tmp_path, config, expected, nothing_late, quick, name):
    run_dir = planned(tmp_path / "run")
    left_behind(run_dir.claims, name, ELSEWHERE, age_s=10 * DAYS_S)
    update.run(run_dir, config, Alone())
    left_behind(run_dir.claims, name, ELSEWHERE, age_s=10 * DAYS_S)
    assert picked(run_dir, config)["stopped"] == 0
    assert not list(run_dir.claims.glob("[!.]*"))
    assert snapshot(run_dir) == expected


def test_a_block_that_was_taken_away_by_mistake_is_finished(tmp_path, config, expected):
    """By itself, once it is free again: what has been begun there is not published twice."""
    run_dir, taken = planned(tmp_path / "run"), []
    shards = larger(run_dir, 100)

    def read(shard):
        if shard == shards[20] and not taken:
            (path,) = run_dir.claims.glob("block-*")
            taken.append(path.unlink())
        return fakes.read(shard)

    tally = picked(run_dir, config, read=read)
    assert tally["picked"] == len(shards)
    assert not results.missing(run_dir, results.planned(run_dir))


def test_a_rank_that_stops_leaves_its_block_to_the_others(tmp_path, config):
    run_dir, first = planned(tmp_path / "run"), []
    shards = larger(run_dir, 100)

    class Scorer(fakes.Scorer):
        def runs(self, waveform):
            mine = threading.get_ident()
            first[:] = first or [mine]
            if mine == first[0]:
                raise Storage("this node's scratch is full")
            time.sleep(0.0005)
            return super().runs(waveform)

    tallies = srun(3, lambda world: picked(run_dir, config, world, scorer=Scorer))
    assert tallies[0]["stopped"] == 1
    left = results.missing(run_dir, results.planned(run_dir))
    assert len(left) <= 4, "its own block at most, if the others were done before"
    assert tallies[0]["picked"] + len(left) == len(shards)


# File systems that fail


@pytest.mark.parametrize("code", [errno.ESTALE, errno.ESHUTDOWN])
@pytest.mark.parametrize("where", ["parts", "plan", "claim"])
def test_a_run_directory_that_cannot_be_read_ends_a_rank_and_is_no_bug(tmp_path, config, monkeypatch, where, code):
    run_dir, calls = planned(tmp_path / "run"), []
    left_behind(run_dir.claims, "block-0000007", ELSEWHERE)
    name, suspect, after = {
        "parts": ("iterdir", lambda path: "parts" in path.parts, 3),
        "plan": ("stat", lambda path: path.name == "shards.parquet", 8),
        "claim": ("open", lambda path: path.name == "block-0000007", 2),
    }[where]
    true = getattr(Path, name)

    def fails(path, *args, **more):
        if suspect(path):
            calls.append(path)
            if len(calls) > after:
                raise OSError(code, os.strerror(code), str(path))
        return true(path, *args, **more)

    monkeypatch.setattr(Path, name, fails)
    assert picked(run_dir, config)["stopped"]
    assert len(calls) > after
    assert not run_dir.folder("failed").exists()
    assert exit_code(OSError(code, "gone")) == 3


def test_a_scratch_that_is_full_from_the_start_ends_the_readers_and_not_the_scorer(tmp_path, config, monkeypatch):
    run_dir = planned(tmp_path / "run")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scratch.tempfile, "mkdtemp", full)
    tallies = srun(3, lambda world: picked(run_dir, split(config), world))
    assert dict(tallies[0]) == {"stopped": 2}
    assert not run_dir.folder("failed").exists()


def test_a_meter_that_cannot_be_written_blames_no_shard(tmp_path, config, monkeypatch, expected):
    run_dir, write = planned(tmp_path / "run"), meter.write

    def fails(path, records):
        if ".rank" in path.name:
            raise Storage(f"{path}: cannot be written")
        write(path, records)

    monkeypatch.setattr(meter.Meter.keep, "__defaults__", (0.0,))
    monkeypatch.setattr(meter, "write", fails)
    tallies = srun(3, lambda world: picked(run_dir, split(config), world))
    assert dict(tallies[0]) == {"picked": len(SHARDS), "picks": tallies[0]["picks"]}
    assert snapshot(run_dir) == expected


# Folding and late data


def test_who_reads_while_another_folds_sees_every_pick(tmp_path, monkeypatch):
    run_dir, true, calls = planned(tmp_path / "run"), results.folded, []
    for shard in SHARDS:
        results.write_part(run_dir, shard, *fakes.detect(shard))
    before = len(results.picks(run_dir)), len(results.outcomes(run_dir))

    def folds(*args):
        found = true(*args)
        if not calls:
            calls.append(run_dir)
            results.fold(run_dir, results.planned(run_dir))
        return found

    monkeypatch.setattr(results, "folded", folds)
    assert (len(results.picks(run_dir)), len(results.outcomes(run_dir))) == before


def test_told_to_stop_before_the_folding_is_incomplete_and_the_next_start_folds(
    tmp_path, config, monkeypatch, expected
):
    run_dir, true = planned(tmp_path / "run"), results.whole

    def stops(*args):
        if found := true(*args):
            stop.ask("SIGTERM")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(results, "whole", stops)
        assert picked(run_dir, config)["stopped"] == 1
    assert complete(run_dir, Alone()) == 0, "all shards are picked, but"
    assert not run_dir.folder("outcomes").exists()
    assert picked(run_dir, config) == {}
    assert snapshot(run_dir) == expected


def test_a_band_that_is_gone_keeps_its_result_unless_a_better_one_came():
    low, high = (Shard(fakes.day(0), "XD.S0.", band) for band in ("EH", "HH"))
    both, one, other = (as_table([(shard, 1) for shard in shards]) for shards in ((low, high), (high,), (low,)))
    assert late(both, one, all_bands=True) == Late(gone=(low.id,))
    assert late(both, one) == Late(gone=(low.id,))
    assert late(other, one) == Late(new=(high.id,), replaced=(low.id,))
    assert late(other, one, all_bands=True) == Late(new=(high.id,), gone=(low.id,))


def test_two_plans_at_once_are_refused_by_all_ranks(tmp_path, config, monkeypatch):
    run_dir, calls, true = planned(tmp_path / "run"), itertools.count(), results.planned

    def other(run_dir):
        found, n = true(run_dir), next(calls)
        os.utime(run_dir.shards, (n, n))
        return found

    monkeypatch.setattr(results, "planned", other)
    with pytest.raises(Incomplete, match="the plan changed while it was read"):
        srun(3, lambda world: picked(run_dir, config, world))


def test_a_result_that_comes_after_its_shard_was_set_aside_is_not_lost(tmp_path, config, expected):
    """Of a process that was taken for dead and went on: the volume was folded without it."""
    run_dir, bad = planned(tmp_path / "run"), SHARDS[4]
    for _ in range(3):
        tries.write(run_dir, bad, tries.DIED, "")
    assert picked(run_dir, config)["picked"] == len(SHARDS) - 1
    assert results.folded(run_dir) == {"2024-05-06"}
    results.write_part(run_dir, bad, *fakes.detect(bad))
    assert [note.shard for note in results.notes(run_dir)] == [bad.id], "nobody knows of it"
    assert len(results.outcomes(run_dir)) == len(SHARDS)
    run_dir.part(bad).unlink()
    assert update.retry(run_dir, config) == [bad.id]
    assert picked(run_dir, config)["picked"] == 1
    assert snapshot(run_dir) == expected


def test_who_retries_while_another_picks_is_asked_to_wait(tmp_path, config):
    run_dir = planned(tmp_path / "run")
    tries.write(run_dir, SHARDS[4], tries.DIED, "")
    left_behind(run_dir.claims, "block-0000001", ELSEWHERE)
    with pytest.raises(Incomplete, match="pid 4711 on far works on this run"):
        update.retry(run_dir, config)
    assert results.notes(run_dir)


def test_a_note_that_was_removed_by_hand_hides_nothing(tmp_path, config, expected):
    run_dir, bad = planned(tmp_path / "run"), SHARDS[4]
    for _ in range(3):
        tries.write(run_dir, bad, tries.DIED, "")
    picked(run_dir, config)
    tries.forget(run_dir, [bad.id])
    assert picked(run_dir, config) == {}
    assert complete(run_dir, Alone()) == 3
    assert update.retry(run_dir, config) == [bad.id]
    assert picked(run_dir, config)["picked"] == 1
    assert snapshot(run_dir) == expected
