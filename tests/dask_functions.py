"""What Dask workers run in test_dask.py; they import this and nothing heavy with it."""

import os
import signal
from pathlib import Path


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
