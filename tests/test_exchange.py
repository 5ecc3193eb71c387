"""Readers and scorers: who is what, how waveforms pass between them, and what happens when one of them dies."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pipeline.cluster import exchange, roles, scratch
from pipeline.cluster.roles import Role, Seat
from pipeline.cluster.world import Alone
from pipeline.config import Compute
from pipeline.errors import ConfigError, Storage
from pipeline.records import Waveform
from tests import fakes
from tests.worlds import srun

ROOT = Path(__file__).parents[1]
MPIEXEC = Path(sys.executable).with_name("mpiexec")
SHARDS = fakes.shards(days=2, stations=6)
A, B, C, D = (letter * 32 for letter in "abcd")


def seats(size, per_node, gpus=()):
    nodes = [tuple(range(first, min(first + per_node, size))) for first in range(0, size, per_node)]
    return [Seat(node, tuple(gpus)) for node in nodes for _ in node]


def test_without_gpus_every_rank_reads_and_scores():
    assert roles.deal(seats(5, 2), "auto", "cpu") == [Role("cpu")] * 5


def test_readers_are_dealt_to_the_scorers_of_their_node():
    node = [Role("cuda:0", None, (2, 4)), Role("cuda:1", None, (3, 5))] + [Role("", server) for server in (0, 1, 0, 1)]
    other = [Role("cuda:0", None, (8, 10)), Role("cuda:1", None, (9, 11))]
    other += [Role("", server) for server in (6, 7, 6, 7)]
    assert roles.deal(seats(12, 6, (A, B)), "auto", "cuda") == node + other


@pytest.mark.parametrize(
    ("ranks", "gpus", "scorers"), [(1, 1, 0), (2, 1, 1), (3, 2, 1), (5, 4, 2), (32, 4, 4), (32, 8, 8)]
)
def test_no_scorer_is_without_a_reader(ranks, gpus, scorers):
    dealt = roles.deal(
        seats(ranks, ranks, (A, B, C, D, A[::-1] + "1", B + "1", C + "1", D + "1")[:gpus]), "auto", "cuda"
    )
    assert [bool(role.clients) for role in dealt].count(True) == scorers
    assert sorted(client for role in dealt for client in role.clients) == [
        rank for rank, role in enumerate(dealt) if role.server is not None
    ]


def test_a_rank_alone_on_its_node_does_both():
    assert roles.deal(seats(1, 1, (A,)), "auto", "cuda") == [Role("cuda:0")]
    assert roles.deal([*seats(2, 2, (A,)), Seat((2,), (A,))], "auto", "cuda")[2] == Role("cuda:0")


def test_ranks_that_see_one_gpu_each_take_that():
    """As a batch system may bind them: two GPUs on the node, but each rank sees only one, as its first."""
    node = tuple(range(6))
    bound = [Seat(node, (A,))] * 3 + [Seat(node, (B,))] * 3
    dealt = roles.deal(bound, "auto", "cuda")
    assert [(rank, role.device) for rank, role in enumerate(dealt) if role.clients] == [(0, "cuda:0"), (3, "cuda:0")]
    assert {role.server for role in dealt if not role.clients} == {0, 3}


def test_a_device_that_is_named_is_kept():
    assert [role.device for role in roles.deal(seats(3, 3), "auto", "cuda:2")] == ["cuda:2", "", ""]
    assert [role.device for role in roles.deal(seats(4, 4, (A, B)), 0, "cuda")] == ["cuda:0", "cuda:1"] * 2


def test_scorers_on_the_processor_can_be_asked_for():
    assert roles.deal(seats(3, 3), 1, "cpu") == [Role("cpu", None, (1, 2)), Role("", 0), Role("", 0)]


def test_all_ranks_agree_on_the_roles():
    found = srun(5, lambda world: roles.take(world, Compute(scorers=1)), per_node=3)
    assert found == [roles.deal(seats(5, 3), 1, "cpu")] * 5
    assert roles.take(Alone(), Compute(scorers=1)) == [Role("cpu")]


def test_a_waveform_arrives_as_it_was_sent(tmp_path):
    inbox = scratch.Inbox()
    with closing(scratch.Outbox(tmp_path)) as box:
        for k, shard in enumerate(SHARDS[:4]):
            sent, _ = fakes.read(shard)
            sent = Waveform(
                sent.samples[:, k : 500 * (k + 1)], sent.valid[k : 500 * (k + 1)], k, 50.0, (True, False, True)
            )
            got = inbox.get(box.put(sent))
            box.forget_name()
            assert (got.start_ns, got.rate_hz, got.components) == (k, 50.0, (True, False, True))
            np.testing.assert_array_equal(got.samples, sent.samples)
            np.testing.assert_array_equal(got.valid, sent.valid)
    inbox.close()


def test_the_file_is_the_users_own_and_gone_once_it_is_open(tmp_path):
    with closing(scratch.Outbox(tmp_path)) as box:
        parcel = box.put(fakes.read(SHARDS[0])[0])
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        inbox = scratch.Inbox()
        first = inbox.get(parcel).samples.copy()
        box.forget_name()
        assert list(tmp_path.iterdir()) == []
        second = inbox.get(box.put(fakes.read(SHARDS[1])[0])).samples
        assert not np.array_equal(first, second)
    inbox.close()


def test_the_file_goes_on_every_way_out(tmp_path):
    def interrupted(world):
        if world.rank == 0:
            return exchanged(world, tmp_path, fakes.Scorer(), [])
        with exchange.remote(world, 0, tmp_path, 30):
            assert len(list(tmp_path.iterdir())) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        srun(2, interrupted)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_says_what_to_do(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        closing(scratch.Outbox(tmp_path)) as box,
        pytest.raises(Storage, match=r"no room for a waveform of 26000 bytes.*scratch"),
    ):
        box.put(fakes.read(SHARDS[0])[0])


def test_what_dead_processes_left_is_cleared(tmp_path):
    """A process that was killed while its file had a name; and what looks like it but is another's."""
    code = (
        "import os, sys; from pathlib import Path; from pipeline.cluster import scratch;"
        "scratch.Outbox(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=False)
    (left,) = tmp_path.iterdir()
    host, pid, born, _ = left.name.removeprefix("orcolat.").rsplit(".", 3)
    kept = [tmp_path / f"orcolat.elsewhere.{pid}.{born}.abc", tmp_path / "orcolat.notes", tmp_path / "orcolat.a.b.c.d"]
    reused = tmp_path / f"orcolat.{host}.{os.getpid()}.1.abc"  # a number that another process has now
    [path.mkdir() for path in (*kept, reused)]
    with closing(scratch.Outbox(tmp_path)) as mine:
        with closing(scratch.Outbox(tmp_path)):
            assert mine.folder.exists()
        assert sorted(tmp_path.iterdir()) == sorted([*kept, mine.folder])


def test_a_process_that_cannot_be_seen_but_holds_its_file_is_alive(tmp_path):
    with closing(scratch.Outbox(tmp_path)) as box:
        host, _, _, tail = box.folder.name.removeprefix("orcolat.").rsplit(".", 3)
        box.folder.rename(tmp_path / f"orcolat.{host}.{2**22 + 1}.1.{tail}")  # beyond the largest process number
        scratch.clear(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1


def test_where_scratch_is(tmp_path, monkeypatch):
    for name in ("ORCOLAT_SCRATCH", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    assert scratch.folder(Compute(), readers=10**9) == Path("/tmp")  # nowhere is so much memory
    monkeypatch.setenv("ORCOLAT_SCRATCH", str(tmp_path))
    assert scratch.folder(Compute(), 1) == tmp_path
    assert scratch.folder(Compute(scratch=ROOT), 1) == ROOT
    with pytest.raises(ConfigError, match=r"nowhere: scratch .* cannot be written to: set compute\.scratch"):
        scratch.folder(Compute(scratch=tmp_path / "nowhere"), 1)


def exchanged(world, parent, scorer, shards, timeout_s=30.0, load=lambda wave: wave):
    """The first rank scores, the others ask for ``shards`` in turn; what each got."""
    readers = tuple(range(1, world.size))
    if world.rank == 0:
        answers = {"runs": scorer.runs, "both": scorer.both}
        return exchange.serve(world, exchange.Greeting(100.0, 1.0), load, answers, readers)
    with exchange.remote(world, 0, parent, timeout_s) as remote:
        assert (remote.rate_hz, remote.context_s) == (100.0, 1.0)
        return [remote.runs(fakes.read(shard)[0]) for shard in shards[world.rank - 1 :: len(readers)]]


def assert_same(runs, expected):
    for mine, other in zip(runs, expected, strict=True):
        for name in type(mine).__slots__:
            np.testing.assert_array_equal(getattr(mine, name), getattr(other, name))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_another_rank_answers_as_this_one_would(tmp_path, size):
    calls, *answers = srun(size, lambda world: exchanged(world, tmp_path, fakes.Scorer(2), SHARDS))
    assert calls == len(SHARDS)
    expected = [fakes.Scorer(2).runs(fakes.read(shard)[0]) for shard in SHARDS]
    assert sum(len(runs.first) for pair in expected for runs in pair) > 100
    for rank, got in enumerate(answers):
        for runs, others in zip(got, expected[rank :: size - 1], strict=True):
            assert_same(runs, others)
    assert list(tmp_path.iterdir()) == []


def test_scores_come_too(tmp_path):
    wave, _ = fakes.read(SHARDS[0])

    def body(world):
        if world.rank == 0:
            return exchanged(world, tmp_path, fakes.Scorer(), [])
        with exchange.remote(world, 0, tmp_path, 30) as remote:
            return remote.both(wave)

    _, (runs, scores) = srun(2, body)
    expected = fakes.Scorer().both(wave)
    assert_same(runs, expected[0])
    assert_same(scores, expected[1])


def test_the_next_waveform_is_loaded_while_the_present_one_is_scored(tmp_path):
    """The first answer waits until all three readers have asked, the second until the third waveform is loaded."""
    loaded, scored = [], []

    def wait_until(done):
        until = time.monotonic() + 20
        while not done():
            if time.monotonic() > until:
                raise RuntimeError(f"loaded {len(loaded)}, scored {len(scored)}")
            time.sleep(0.001)

    def body(world):
        class Waits(fakes.Scorer):
            def runs(self, waveform):
                wait_until(lambda: len(loaded) + world.letters == 3 if not scored else len(loaded) == 3)
                scored.append(waveform)
                return super().runs(waveform)

        return exchanged(world, tmp_path, Waits(), SHARDS[:3], load=lambda wave: loaded.append(wave) or wave)

    assert srun(4, body)[0] == 3


def test_an_error_of_one_waveform_goes_back_to_its_reader(tmp_path):
    bad = fakes.read(SHARDS[0])[0].samples.sum()

    class Fails(fakes.Scorer):
        def runs(self, waveform):
            if waveform.samples.sum() == bad:
                raise ValueError("nonsense")
            return super().runs(waveform)

    def body(world):
        if world.rank == 0:
            return exchanged(world, tmp_path, Fails(), [])
        with exchange.remote(world, 0, tmp_path, 30) as remote:
            with pytest.raises(exchange.ScoringFailed, match="ValueError: nonsense") as e:
                remote.runs(fakes.read(SHARDS[0])[0])
            assert "Traceback" in str(e.value.__cause__)
            return remote.runs(fakes.read(SHARDS[1])[0])

    calls, runs = srun(2, body)
    assert calls == 2
    assert_same(runs, fakes.Scorer().runs(fakes.read(SHARDS[1])[0]))


def test_a_wrong_configuration_ends_the_scorer(tmp_path):
    class Refuses(fakes.Scorer):
        def runs(self, waveform):
            raise ConfigError("another rate")

    with pytest.raises(ConfigError, match="another rate"):
        srun(2, lambda world: exchanged(world, tmp_path, Refuses(), SHARDS))


def test_a_scorer_that_does_not_answer_is_given_up(tmp_path):
    def body(world):
        if world.rank == 1:
            with exchange.remote(world, 0, tmp_path, 0.1):
                pytest.fail("nobody greeted")
        return None

    with pytest.raises(
        exchange.Lost, match=r"rank 0, the scorer of rank 1, has not answered for 0.1 s: .*answer_timeout"
    ):
        srun(2, body)


PROGRAM = """
import os, sys, time
from pathlib import Path
from pipeline.cluster.world import here, one_fails_all_fail
from tests.test_exchange import SHARDS, exchanged, fakes
world, parent, timeout_s = here(), Path(sys.argv[1]), float(sys.argv[2])
calls = 0

class Scorer(fakes.Scorer):
    def runs(self, waveform):
        global calls
        calls += 1
        if calls == 6:  # each reader has had an answer
            (parent / "begun").touch()
        time.sleep(0.05)
        return super().runs(waveform)

(parent / f"rank{world.rank}").write_text(str(os.getpid()))
with one_fails_all_fail(world, lambda e: 1):
    exchanged(world, parent / "scratch", Scorer(), SHARDS * int(sys.argv[3]), timeout_s)
"""


@pytest.fixture
def ranks(tmp_path):
    """Start a scorer and two readers under mpiexec; ends what is left of them."""
    (tmp_path / "scratch").mkdir()
    started = []

    def start(rounds, timeout_s=60.0):
        command = [
            MPIEXEC,
            "-n",
            "3",
            sys.executable,
            "-m",
            "mpi4py",
            "-c",
            PROGRAM,
            tmp_path,
            str(timeout_s),
            str(rounds),
        ]
        process = subprocess.Popen(
            list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def pids(folder):
    """The process of each rank, once they have begun to ask and answer."""
    until = time.monotonic() + 60
    while not (folder / "begun").exists():
        assert time.monotonic() < until, "the ranks did not start"
        time.sleep(0.02)
    return [int((folder / f"rank{rank}").read_text()) for rank in range(3)]


def running(pid):
    """Whether a process is there and not waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone(processes):
    until = time.monotonic() + 20
    while any(map(running, processes)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(running, processes))


needs_mpiexec = pytest.mark.skipif(
    not MPIEXEC.exists(), reason="no mpiexec beside this Python: real ranks are not tested"
)


@needs_mpiexec
def test_real_ranks_exchange_and_end(ranks, tmp_path):
    process = ranks(rounds=1)
    assert process.wait(60) == 0, process.stderr.read()
    assert list((tmp_path / "scratch").iterdir()) == []


@needs_mpiexec
@pytest.mark.parametrize("victim", [0, 2], ids=["scorer", "reader"])
def test_a_killed_rank_ends_all(ranks, tmp_path, victim):
    process = ranks(rounds=1000)
    processes = pids(tmp_path)
    os.kill(processes[victim], signal.SIGKILL)
    assert process.wait(60) != 0
    assert gone(processes)
    assert list((tmp_path / "scratch").iterdir()) == []


@needs_mpiexec
def test_a_scorer_that_hangs_ends_all(ranks, tmp_path):
    process = ranks(rounds=1000, timeout_s=2)
    processes = pids(tmp_path)
    os.kill(processes[0], signal.SIGSTOP)
    assert process.wait(60) != 0
    assert "rank 0, the scorer of rank" in process.stderr.read()
    assert gone(processes)
