"""Processes that pick one run with made-up waveforms, for tests of what happens between them."""

import multiprocessing
import os
import signal
import time
from collections import Counter

from pipeline.cluster import stop
from pipeline.cluster.world import Alone
from pipeline.stages import pick
from tests import fakes

FORK = multiprocessing.get_context("fork")


def picking(run_dir, config, log, nap_s=0.0, kill_at="", stop_at="", number=signal.SIGUSR1):
    """Pick with a line in ``log`` for each shard read. The exit code is 3 if it was stopped."""

    def read(shard):
        with log.open("a") as file:
            file.write(f"{os.getpid()} {shard.id}\n")
        if shard.id == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if shard.id == stop_at:
            os.kill(os.getpid(), number)
        time.sleep(nap_s)
        return fakes.read(shard)

    tally = pick.run(run_dir, config, Alone(), lambda *_: fakes.Scorer(1), lambda *_: read)
    os._exit(3 if tally["stopped"] else 0)


def start(*args, **how):
    process = FORK.Process(target=picking, args=args, kwargs=how)
    process.start()
    return process


def ended(*processes):
    """Their exit codes; minus the signal of one that was killed."""
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def reads(log):
    """How often each shard was read."""
    return Counter(line.split()[1] for line in log.read_text().splitlines())


def forgotten():
    """Whether this process is not asked to stop any more."""
    with stop.listening():
        return not stop.asked()
