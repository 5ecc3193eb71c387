"""Told to stop, or unable to write: the shard at hand is ended or dropped, none is blamed, the next run completes."""

import errno
import os
import signal
import threading
from pathlib import Path

import pytest

from pipeline import rundir
from pipeline.cli import exit_code
from pipeline.cluster import scratch, stop
from pipeline.cluster.claims import holders
from pipeline.errors import BadData, Storage, kept_in
from pipeline.formats import patience, results
from pipeline.formats.patience import patient
from pipeline.models import weights
from tests import fakes
from tests.processes import ended, reads, start
from tests.test_pick_stage import config, expected, picked, planned, several, snapshot, split  # noqa: F401  (fixtures)
from tests.worlds import srun

SHARDS = fakes.shards(days=3, stations=7)


@pytest.fixture(autouse=True)
def _weights(monkeypatch):
    monkeypatch.setattr(weights, "digest", lambda name: "0" * 64)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_the_shard_at_hand(tmp_path, config, expected, number):
    run_dir, log, last = planned(tmp_path / "run"), tmp_path / "log", SHARDS[5]
    assert ended(start(run_dir, config, log, stop_at=last.id, number=number)) == [3]
    assert sorted(reads(log)) == [shard.id for shard in SHARDS[:6]]
    assert results.missing(run_dir, results.planned(run_dir)) == SHARDS[6:], "the shard at hand was ended"
    assert not holders(run_dir.claims)
    assert not run_dir.folder("picks").exists(), "nothing is folded"
    assert ended(start(run_dir, config, log)) == [0]
    assert set(reads(log).values()) == {1}
    assert snapshot(run_dir) == expected


def test_readers_that_are_told_to_stop_do_not_leave_their_scorer_waiting(tmp_path, config, expected):
    run_dir, n = planned(tmp_path / "run"), [0]

    def stops(shard):
        n[0] += 1
        if n[0] == 6:
            stop.ask("SIGTERM")
        return fakes.read(shard)

    tallies = srun(4, lambda world: picked(run_dir, split(config), world, stops))
    assert tallies[0]["stopped"] >= 1
    assert 0 < len(results.missing(run_dir, results.planned(run_dir))) < len(SHARDS)
    assert not holders(run_dir.claims)
    picked(run_dir, config)
    assert snapshot(run_dir) == expected


def test_signals_are_taken_only_while_listening():
    before = signal.getsignal(signal.SIGUSR1)
    with stop.listening():
        assert stop.asked() == ""
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked() == "SIGUSR1"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGUSR1) is before
    assert stop.asked() == "SIGUSR1", "still known to whoever asks for another go"
    with stop.listening():
        assert stop.asked() == ""


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE, errno.EDQUOT])
@pytest.mark.parametrize("size", [1, 3])
def test_a_file_system_that_takes_no_more_is_no_shards_fault(tmp_path, config, expected, monkeypatch, code, size):
    run_dir, replace, n, lock = planned(tmp_path / "run"), os.replace, [0], threading.Lock()

    def fails(source, target):
        with lock:
            n[0] += "parts" in Path(target).parts
        if n[0] > 5:
            raise OSError(code, os.strerror(code))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    tallies = srun(size, lambda world: picked(run_dir, split(config), world))
    assert tallies[0]["stopped"] >= 1
    assert len(results.missing(run_dir, results.planned(run_dir))) == len(SHARDS) - 5
    assert not run_dir.folder("failed").exists()
    assert not holders(run_dir.claims)
    monkeypatch.undo()
    monkeypatch.setattr(weights, "digest", lambda name: "0" * 64)
    picked(run_dir, config)
    assert snapshot(run_dir) == expected


def test_no_room_for_claims_ends_the_run_too(tmp_path, config, monkeypatch):
    run_dir, write = planned(tmp_path / "run"), os.write

    def full(descriptor, data):
        if b"token" in bytes(data):
            raise FULL
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    assert picked(run_dir, config) == {"stopped": 1}
    assert not holders(run_dir.claims)


def test_a_storage_error_names_file_and_number_and_ends_with_3(tmp_path, monkeypatch):
    def half():
        with rundir.publish(tmp_path / "a.parquet") as part:
            part.write_text("half")
            raise FULL

    with pytest.raises(Storage, match=r"a\.parquet: cannot be read or written.*errno 28, ENOSPC.*run again") as caught:
        half()
    assert exit_code(caught.value) == 3
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotADirectoryError), kept_in(tmp_path):
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory")


def test_a_full_scratch_ends_the_run_and_is_no_failure_of_a_shard(tmp_path, config, monkeypatch):
    def full(*_):
        raise FULL

    run_dir = planned(tmp_path / "run")
    monkeypatch.setattr(scratch.os, "posix_fallocate", full)
    tallies = srun(3, lambda world: picked(run_dir, split(config), world))
    assert tallies[0]["stopped"] == 2
    assert not run_dir.folder("failed").exists()


def test_what_a_kill_left_while_publishing_is_cleared_away(tmp_path, config):
    run_dir = planned(tmp_path / "run")
    for name in (".shards.parquet.0a.part", ".new.part"):
        (run_dir.root / name).touch()
    os.utime(run_dir.root / ".shards.parquet.0a.part", (0, 0))
    picked(run_dir, config)
    assert [path.name for path in run_dir.root.glob(".*")] == [".new.part"]


def stumbling(times, error):
    calls = []

    @patient
    def read():
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "data"

    return read, calls


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO])
def test_reading_is_tried_again_after_an_error_that_may_pass(monkeypatch, code):
    monkeypatch.setattr(patience, "PAUSES_S", (0.0, 0.0))
    wrapped = BadData("x.mseed: cannot be read")
    wrapped.__cause__ = OSError(code, "")
    for error in (OSError(code, ""), wrapped):
        assert stumbling(2, error)[0]() == "data"
        read, calls = stumbling(9, error)
        with pytest.raises(type(error)):
            read()
        assert len(calls) == 3


def test_other_errors_are_raised_at_once():
    for error in (FileNotFoundError(errno.ENOENT, ""), BadData("nonsense")):
        read, calls = stumbling(9, error)
        with pytest.raises(type(error)):
            read()
        assert len(calls) == 1


def test_a_volume_may_be_folded_by_two_at_once(tmp_path, several, monkeypatch):
    """Both read the same parts; the slower one finds them gone, or makes the same bytes."""
    run_dir, whole = planned(tmp_path / "run"), planned(tmp_path / "whole")
    for shard in SHARDS:
        for each in (run_dir, whole):
            results.write_part(each, shard, *fakes.detect(shard))
    plan = results.planned(run_dir)
    results.fold(whole, plan)
    volumes, read, once = results.whole(run_dir, plan), results.tables._open, []

    def other_is_faster(path):
        if len(once) == 5:
            once.append(path)
            results.fold(run_dir, plan, volumes)
        once.append(path)
        return read(path)

    monkeypatch.setattr(results.tables, "_open", other_is_faster)
    results.fold(run_dir, plan, volumes)
    assert snapshot(run_dir) == snapshot(whole)
    barrier, errors = threading.Barrier(4), []

    def folds():
        try:
            barrier.wait(20)
            results.fold(again, plan, volumes)
        except Exception as e:  # noqa: BLE001
            errors.append(e)

    monkeypatch.undo()
    again = planned(tmp_path / "again")
    for shard in SHARDS:
        results.write_part(again, shard, *fakes.detect(shard))
    threads = [threading.Thread(target=folds) for _ in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert not errors
    results.fold(again, plan)
    assert snapshot(again) == snapshot(whole)


def test_picks_can_be_read_while_they_are_folded(tmp_path, monkeypatch):
    run_dir, once = planned(tmp_path / "run"), []
    for shard in SHARDS:
        results.write_part(run_dir, shard, *fakes.detect(shard))
    before, read = results.picks(run_dir), results.tables.read

    def folded_meanwhile(path, kind):
        if path.parent.parent.name == "parts" and not once:
            once.append(path)
            results.fold(run_dir, results.planned(run_dir))
        return read(path, kind)

    monkeypatch.setattr(results.tables, "read", folded_meanwhile)
    assert repr(results.picks(run_dir).as_dict()) == repr(before.as_dict())
    assert once


def test_a_plan_that_changed_ends_the_run(tmp_path, config):
    run_dir, n = planned(tmp_path / "run"), [0]

    def replanned(shard):
        n[0] += 1
        if n[0] == 3:
            data = run_dir.shards.read_bytes()
            with rundir.publish(run_dir.shards) as part:
                part.write_bytes(data)
        return fakes.read(shard)

    tally = picked(run_dir, config, read=replanned)
    assert (tally["picked"], tally["stopped"]) == (3, 1)
    assert picked(run_dir, config)["picked"] == len(SHARDS) - 3
