"""A worker of the soak test: the command `orcolat pick` in a process of its own, with a scorer that only looks busy.

Everything but the scores is the product's: reading, claims, parts, notes, folding, signals, exit codes. What is
changed: each pair of workers takes itself for one machine, claims die after seconds instead of minutes, each shard
takes a moment longer, and a line in the log says what was done. Where no small file system can be had, a file named
"full" stands for one without room.
"""

import errno
import logging
import os
import signal
import time
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline import cli
from pipeline.cluster import claims
from pipeline.formats import results, tries
from pipeline.maths import triggers
from pipeline.models import weights
from pipeline.records import Scores
from pipeline.stages import pick, pick_shard, update

TIMEOUT_S, HEARTBEAT_S = 3.0, 0.25
RATE_HZ = 1.0  # so that a day is small
COUNTS = 1000.0  # of a probability of one


class Scorer:
    """Takes the amplitudes for probabilities."""

    rate_hz, context_s = RATE_HZ, 1.0

    def runs(self, waveform):
        p = np.clip(np.abs(waveform.samples[:2]) / np.float32(COUNTS), 0, 1)
        return (triggers.runs(Scores(p, ("P", "S"), waveform.start_ns, self.rate_hz), {"P": 0.5, "S": 0.5}),)


@dataclass(frozen=True)
class Place:
    root: Path
    nap_s: float

    @property
    def run(self):
        return self.root / "disk" / "run"

    @property
    def log(self):
        return self.root / "log"

    @property
    def full(self):
        return self.root / "full"


def note(log, what, shard=""):
    with log.open("a") as file:
        file.write(f"{time.monotonic():.4f} {os.getpid()} {what} {shard}\n")


def work(place, slot, run=None):
    """`orcolat pick`; the process ends with its exit code."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    move(place, slot)
    hook(place)
    note(place.log, "begins")
    try:
        code = cli.main(["pick", str(run or place.run)])
    except BaseException:  # what the interpreter would print
        logging.getLogger("pipeline").exception("a bug")
        code = 1
    note(place.log, f"ends-{code}")
    os._exit(code)


def retry(place):
    """`orcolat retry`, by an operator on a machine of their own."""
    move(place, "operator")
    os._exit(cli.main(["retry", str(place.run)]))


def move(place, slot):
    """Two slots share a machine; all have quicker clocks than a cluster."""
    os.dup2(os.open(place.root / f"said-{slot}", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
    claims.space = lambda: f"machine {slot if isinstance(slot, str) else slot // 2}"
    claims.LOOK_S = HEARTBEAT_S
    pick.Claims = update.Claims = lambda folder, _, died: claims.Claims(folder, TIMEOUT_S, died, HEARTBEAT_S)


def hook(place):
    weights.digest = lambda name: "0" * 64
    keep, fail, replace, read = results.write_part, tries.write, os.replace, pick_shard.archive_reader

    def kept(run_dir, shard, *about):
        keep(run_dir, shard, *about)
        note(place.log, "kept", shard.id)

    def failed(run_dir, shard, reason, *more):
        note(place.log, "blamed" if reason == tries.DIED else "failed", shard.id)
        return fail(run_dir, shard, reason, *more)

    def replaced(*paths):
        if place.full.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(*paths)

    def reader(*about):
        found = read(*about)

        def slow(shard):
            note(place.log, "read", shard.id)
            time.sleep(place.nap_s * (0.5 + zlib.crc32(shard.id.encode()) % 100 / 100))
            return found(shard)

        return slow

    results.write_part, tries.write, os.replace = kept, failed, replaced
    pick.run = partial(pick.run, make_scorer=lambda *_: Scorer(), make_read=reader)
