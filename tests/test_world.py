"""With which code ranks end under a launcher that kills all at the first bad exit, as srun does."""

import subprocess
import sys
from pathlib import Path

import pytest

MPIEXEC = Path(sys.executable).parent / "mpiexec"
pytestmark = pytest.mark.skipif(
    not MPIEXEC.exists(), reason="no mpiexec beside this Python: real ranks are not looked at"
)
PROGRAM = """
import sys
from pipeline.cluster import world as worlds
worlds.HEAR_S = float(sys.argv[2])
world = worlds.here()
with worlds.one_fails_all_fail(world, lambda error: 3):
    world.gather(world.rank)
    if eval(sys.argv[1])(world.rank):
        raise RuntimeError("no more")
    if sys.argv[3] == "waits":
        world.bcast(None)
        raise SystemExit("rank 0 has not said that it ends")
    world.leave(0)
"""
# MPICH's mpiexec would kill all when the first one has gone.
SHELL = (
    '"$@"; echo $? >"$NOTES/$PMI_RANK"; until [ -e "$NOTES/0" -a -e "$NOTES/1" -a -e "$NOTES/2" ]; do sleep 0.05; done'
)


def ends(notes, who, hear_s=30.0, others="waits"):
    """The exit code of each of three ranks that was not killed, and what they said; ``who`` raise an error."""
    python = (sys.executable, "-m", "mpi4py", "-c", PROGRAM, who, str(hear_s), others)
    ranks = ("env", "-u", "MPI_LOCALNRANKS", f"NOTES={notes}", "sh", "-c", SHELL, "sh", *python)
    done = subprocess.run([MPIEXEC, "-n", "3", *ranks], capture_output=True, text=True, check=False, timeout=60)
    return {path.name: int(path.read_text()) for path in notes.iterdir()}, done.stderr


@pytest.mark.parametrize(
    ("who", "others"),
    [("lambda rank: rank == 0", "waits"), ("lambda rank: True", "waits"), ("lambda rank: rank == 0", "leaves")],
)
def test_nobody_is_killed_where_all_hear_that_rank_0_ends(tmp_path, who, others):
    codes, said = ends(tmp_path, who, others=others)
    assert codes == {"0": 3, "1": 0, "2": 0}, said
    assert "no more" in said


def test_a_rank_that_fails_alone_ends_all(tmp_path):
    codes, said = ends(tmp_path, "lambda rank: rank == 1", hear_s=0.2)
    assert "0" not in codes, said
    assert "rank 1 of 3 ends all ranks: no more" in said
