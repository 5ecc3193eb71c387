"""A campaign under fire: `python -m tests.soak [--faults 100] [--shards 600] [--seed 1] [--workers 4]`

Some hundred small shards (real miniSEED, a scorer that only looks busy: see `tests.soak_worker`) are picked by a few
processes, each started again when it ends, while seeded random faults befall them. In the end each shard must have
one result, the same bytes as of a run without faults; each shard that was read more than once must be explained by a
fault; every process must have ended by itself, and no claim, part or scratch file may be left. Exit code 1 otherwise.

Root gets a file system of its own that can be full, and gives up its right to write where it may not, so that a
folder can be read-only. For anyone else a file system is full only when a file is to be published.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from pipeline.formats import results, tables
from pipeline.formats.demo_archive import Recording, write_sds
from pipeline.records import NS, Shard
from pipeline.rundir import RunDir
from tests import fakes, soak_worker
from tests.processes import FORK
from tests.soak_checks import Log, unexplained
from tests.soak_faults import Faults, drawn
from tests.soak_worker import RATE_HZ, Place, work

CONFIG = """
[run]
name = "soak"
start = 2024-01-01
end = 2026-01-01
[archive]
root = "waves"
[stations]
files = ["stations.csv"]
[associate]
center_latitude_deg = 46.0
center_longitude_deg = 12.0
x_km = [-100, 100]
y_km = [-100, 100]
[compute]
engine = "seisbench"
"""
DISK_MB = 24
STATIONS = 30
SILENCE_S = 60.0  # without progress: the workers hang, or will never end
OWN = "SOAK_HAS_ITS_OWN_MOUNTS"


@dataclass
class Worker:
    slot: int
    process: object  # multiprocessing.Process
    again: bool = True  # it is started again when it ends

    @property
    def pid(self):
        return self.process.pid


class Campaign:
    """The workers of one run, kept at work until it is complete."""

    def __init__(self, place, n_workers, queue, n_shards):
        self.place, self.log, self.faults = place, Log(place.log), Faults(place, queue, n_shards)
        self.workers: list[Worker] = []
        self.due = dict.fromkeys(range(n_workers), 0.0)  # when each is started
        self.ends: list[tuple[int, int]] = []  # pid and exit code
        self.complete = False
        self.retried = 0  # shards that three faults have hit

    def run(self):
        try:
            self._run()
        finally:
            self.abandon()

    def _run(self):
        before, since = 0, time.monotonic()
        while self.workers or not self.complete or self.faults.going:
            self._reap()
            if not self.complete:
                self._start()
            self.log.listen()
            self.faults.step(self)
            so_far = len(self.log.kept) + len(self.faults.done)
            if so_far > before:
                before, since = so_far, time.monotonic()
            if not self.retried and time.monotonic() - since > SILENCE_S / 4:
                self.retried = retry(self.place)
            if time.monotonic() - since > SILENCE_S or any(code in (1, 2) for _, code in self.ends):
                return
            time.sleep(0.01)

    def start(self, slot, again=True):
        process = FORK.Process(target=work, args=(self.place, slot))
        process.start()
        self.workers.append(Worker(slot, process, again))

    def _start(self):
        for slot, due in list(self.due.items()):
            if time.monotonic() >= due:
                del self.due[slot]
                self.start(slot)

    def _reap(self):
        for worker in [worker for worker in self.workers if worker.process.exitcode is not None]:
            code = worker.process.exitcode
            self.ends.append((worker.pid, code))
            self.workers.remove(worker)
            self.complete |= code == 0
            if worker.again:
                pause_s = self.faults.pauses.pop(worker.pid, 0.5 if code == 3 else 0.05)
                self.due[worker.slot] = time.monotonic() + pause_s

    def abandon(self):
        """End what is still there, which is a failure."""
        for worker in self.workers:
            self.ends.append((worker.pid, -99))
            worker.process.kill()
            worker.process.join()
        self.faults.end_all()


def make(root, n):
    """An archive of ``n`` small files and two run directories with its plan."""
    (root / "run.toml").write_text(CONFIG)
    (root / "stations.csv").write_text("id,latitude_deg,longitude_deg,elevation_m\n")
    rng, shards = np.random.default_rng(1), []
    for k in range(n):
        day = date(2024, 1, 1) + timedelta(days=2 * (k // STATIONS))  # no day has a neighbour: no file is read twice
        shard = Shard(day, f"XX.S{k % STATIONS:02d}.", "HH")
        samples = rng.normal(0, 60, 3000)
        for at in rng.integers(300, 2700, 1 + k % 5):
            samples[at : at + 20] += 900
        piece = (shard.span_ns[0] + (k % 80_000) * NS, samples.astype(np.int32))
        write_sds(root / "waves", Recording("XX", shard.station.split(".")[1], "HHZ", RATE_HZ, (piece,)))
        shards.append((shard, 1000))
    plan = fakes.as_table(shards)
    days = np.unique(plan.day)
    plan = replace(plan, volume=days[np.searchsorted(days, plan.day) // 2 * 2])  # two days a volume: many are folded
    for folder in (root / "disk" / "run", root / "calm"):
        folder.mkdir(parents=True)
        text = CONFIG.replace('"waves"', json.dumps(str(root / "waves")))
        (folder / "config.toml").write_text(text.replace('"stations.csv"', json.dumps(str(root / "stations.csv"))))
        tables.write(folder / "shards.parquet", plan)
    return plan


def snapshot(run):
    run_dir = RunDir(run)
    found = (path for path in sorted(run.rglob("*")) if path.is_file() and run_dir.meter not in path.parents)
    return {str(path.relative_to(run)): path.read_bytes() for path in found if path.name != "config.toml"}


def alone(place, run, slot=0):
    """The exit code of one worker that nothing befalls."""
    process = FORK.Process(target=work, args=(place, slot, run))
    process.start()
    process.join(600)
    return process.exitcode


def age(run):
    """Make what lies about look hours old: only then it is cleared away."""
    for path in run.rglob(".*"):
        os.utime(path, (time.time() - 7200,) * 2)


def retry(place):
    """`orcolat retry`; how many shards had failed or been set aside, 0 while others work."""
    n = len(results.notes(RunDir(place.run)))
    process = FORK.Process(target=soak_worker.retry, args=(place,))
    process.start()
    process.join(600)
    return 0 if process.exitcode else n


def last_run(place, workers):
    """What an operator does after all: `orcolat retry` where shards were set aside, `orcolat pick`. Returns the exit
    codes and how many shards were set aside."""
    aside = retry(place)
    age(place.run)
    calm = replace(place, nap_s=0.0)
    return [alone(calm, place.run, slot) for slot in range(0, workers, 2)], aside  # one a machine


def soak(args, root):
    place = Place(root, args.nap)
    (root / "disk").mkdir()
    if OWN in os.environ:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "soak", root / "disk"], check=True)
    maker = FORK.Process(target=make, args=(root, args.shards))  # in a child: what comes after only forks
    maker.start()
    maker.join()
    place.log.touch()
    calm = alone(replace(place, nap_s=0.0), root / "calm")
    place.log.write_text("")
    began = time.monotonic()
    queue = drawn(args.faults, args.shards, random.Random(args.seed))
    campaign = Campaign(place, args.workers, queue, args.shards)
    campaign.run()
    took_s = time.monotonic() - began
    last, aside = last_run(place, args.workers)
    campaign.log.listen()
    return judge(
        args,
        place,
        campaign,
        {"calm": calm, "last": last, "set aside": campaign.retried + aside, "seconds": round(took_s)},
    )


def judge(args, place, campaign, about):
    log, faults = campaign.log, campaign.faults.done
    calm, found = snapshot(place.root / "calm"), snapshot(place.run)
    with_signal = {fault.pid for fault in faults}
    odd = {pid: code for pid, code in campaign.ends if code not in (0, 3) and not (code < 0 and pid in with_signal)}
    figures = {
        **about,
        "shards": args.shards,
        "faults": dict(Counter(fault.kind for fault in faults)),
        "processes": len(campaign.ends),
        "exit codes": dict(Counter(code for _, code in campaign.ends)),
        "takeovers": sum(
            (place.root / f"said-{slot}").read_text().count("taking over") for slot in range(args.workers)
        ),
        "read again": dict(sorted(Counter(log.again()).items())),
        "blamed": log.count("blamed"),
        "folded": sum(name.startswith("outcomes/") for name in found),
    }
    wrong = {
        "unexplained": unexplained(log, faults, campaign.ends),
        "odd ends": odd,
        "faults that did not happen": args.faults - len(faults),
        "other bytes": sorted(name for name in calm if name in found and calm[name] != found[name]),
        "missing": sorted(set(calm) - set(found)),
        "left over": sorted(
            name for name in found if name not in calm or re.match(r"claims/|parts/|failed/|.*/\.", name)
        ),
        "not computed": args.shards - len(log.kept),
        "bugs": sum(path.read_text().count("Traceback") for path in place.root.glob("said-*")),
        "exit codes of the calm and the last run": [code for code in (about["calm"], *about["last"]) if code],
    }
    return figures, {name: what for name, what in wrong.items() if what}


def works(command):
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--shards", type=int, default=600)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nap", type=float, default=0.25, help="seconds that a shard takes longer")
    parser.add_argument("--keep", action="store_true", help="leave the folder where it is")
    args = parser.parse_args()
    inside = ["unshare", "--mount", "--propagation", "private", "setpriv", "--bounding-set=-dac_override"]
    if OWN not in os.environ and os.geteuid() == 0 and works([*inside, "mount", "-t", "tmpfs", "try", "/mnt"]):
        os.environ[OWN] = "1"
        os.execvp(inside[0], [*inside, sys.executable, "-m", "tests.soak", *sys.argv[1:]])
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    root.chmod(0o755)
    try:
        figures, wrong = soak(args, root)
    finally:
        if args.keep:
            if OWN in os.environ:
                shutil.copytree(root / "disk", root / "kept")
            print(root)
        if OWN in os.environ:
            subprocess.run(["umount", root / "disk"], check=False)
        if not args.keep:
            shutil.rmtree(root)
    print(json.dumps(figures))
    if wrong:
        print(f"WRONG: {json.dumps(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
