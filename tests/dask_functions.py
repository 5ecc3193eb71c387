"""What Dask workers run in test_dask.py; they import nothing heavy with it."""

import os
import signal
import time
from pathlib import Path

from pipeline.errors import BadData
from tests import fakes


def power(base, exponent, modulus):
    return pow(base, exponent, modulus)


def layout(values, shared):
    """How arrays arrive."""
    return [(v.tolist(), v.flags.writeable, v.flags.aligned, v.flags.c_contiguous) for v in (values, shared)]


def die_once(i, folder):
    """The first worker that meets item 5 is killed, as by the system when memory is short."""
    if i == 5 and not (Path(folder) / "died").exists():
        (Path(folder) / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return i


def process(_item, _shared):
    return os.getpid()


def scorer(pick, _compute):
    return fakes.Scorer(len(pick.pickers))


def reader(_config, _scorer):
    return fakes.read


def deadly_reader(config, _scorer):
    """The worker that reads SHARD the first time is killed, as by the system when memory is short."""

    def read(shard):
        told = config.archive.root / "deadly"
        if told.exists() and told.read_text().split()[0] == shard.id:
            times = int(told.read_text().split()[1])
            if times:
                told.write_text(f"{shard.id} {times - 1}")
                os.kill(os.getpid(), signal.SIGKILL)
        with (config.archive.root / "read").open("a") as file:
            file.write(f"{shard.id}\n")
        return fakes.read(shard)

    return read


def failing_reader(config, _scorer):
    def read(shard):
        if shard.id == (config.archive.root / "bad").read_text():
            raise BadData("x.mseed: nonsense")
        return fakes.read(shard)

    return read


def slow_reader(_config, _scorer):
    def read(shard):
        time.sleep(0.3)
        return fakes.read(shard)

    return read


def leaving_reader(config, _scorer):
    """The worker that reads SHARD the first time is told to leave, as before a time limit or a preemption."""

    def read(shard):
        told = config.archive.root / "leaving"
        if told.exists() and told.read_text() == shard.id:
            told.unlink()
            os.kill(os.getppid(), signal.SIGTERM)  # `dask worker`, whose child this is
            time.sleep(2)
        return fakes.read(shard)

    return read


def times_out(i, _shared):
    """As a file server that is away."""
    raise TimeoutError(110, "Connection timed out", f"/archive/{i}")


def meet(_item, folder):
    """Whether two processes were at this at the same time."""
    (Path(folder) / str(os.getpid())).touch()
    for _ in range(150):
        if len(list(Path(folder).iterdir())) > 1:
            return True
        time.sleep(0.1)
    return False


def same(i, _shared):
    return i
