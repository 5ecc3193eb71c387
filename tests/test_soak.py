"""Picking under fire, in small: `make soak` is the same with a hundred faults."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak_checks import Log, unexplained
from tests.soak_faults import KINDS, Fault


def test_ten_faults_lose_nothing_and_double_nothing():
    command = [sys.executable, "-m", "tests.soak", "--faults", "10", "--shards", "100", "--nap", "0.08", "--seed", "2"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["faults"] == dict.fromkeys(KINDS, 1)
    assert figures["takeovers"] > 0


@pytest.mark.parametrize(
    ("fault", "explained"),
    [
        (Fault("kill", 0, 0, 0, pid=1, begun_s=11, ended_s=11), True),
        (Fault("kill", 0, 0, 0, pid=2, begun_s=11, ended_s=11), False),
        (Fault("kill", 0, 0, 0, pid=1, begun_s=30, ended_s=30), False),
        (Fault("stop", 0, 0, 0, pid=1, begun_s=9, ended_s=15), True),
        (Fault("pause", 0, 0, 0, pid=1, begun_s=9, ended_s=15), False),
        (Fault("disk full", 0, 0, 0, begun_s=11, ended_s=12), True),
        (Fault("term", 0, 0, 0, pid=1, begun_s=11, ended_s=11), False),
    ],
)
def test_a_shard_that_was_read_twice_must_be_explained(tmp_path, fault, explained):
    (tmp_path / "log").write_text("10 1 read a\n20 2 read a\n21 2 kept a\n22 2 read b\n")
    log = Log(tmp_path / "log")
    log.listen()
    assert log.again() == [2]
    assert bool(unexplained(log, [fault], [(1, 3), (2, 0)])) == (not explained)
