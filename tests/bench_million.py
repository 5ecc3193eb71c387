"""Plan, status and audit of a run of a million station-days.

    python -m tests.bench_million [--stations 1000] [--days 1000] [--components ZNE] [--folder DIR] [--keep]

An SDS archive of so many stations and days is made, three files a station-day, sparse (they have a size and hold
nothing) because no command of these opens one. `orcolat plan` makes the plan of it, as it would of any. Then the
results of all volumes but the last are written as the pick stage folds them, and half of the shards of the last one as
parts: made up, a few picks each; of the other half 150 have failed. Each command runs in a process of its own; its
wall time, processor time and peak memory are those of that process. The time to plan includes finding and checking the
weights, as `orcolat plan` does.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path

import numpy as np

from pipeline.formats import results, tables, tries
from pipeline.records import DAY_NS, NS, Outcome, Outcomes, Picks, Shard, Shards
from pipeline.rundir import RunDir
from tests.bench_day import ROOT

START = date(2021, 1, 1)
LIMITS = {"plan": 60.0, "status": 5.0, "audit": 120.0}  # seconds; of memory 2 GB
MEMORY_GB = 2.0
N_PICKS = 2  # a station-day
N_FAILED = 150
CONFIG = """
[run]
name = "million"
start = {}T00:00:00Z
end = {}T00:00:00Z
[archive]
root = "sds"
[stations]
files = ["stations.csv"]
[associate]
center_latitude_deg = 46.0
center_longitude_deg = 12.0
x_km = [-100, 100]
y_km = [-100, 100]
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stations", type=int, default=1000)
    parser.add_argument("--days", type=int, default=1000)
    parser.add_argument("--components", default="ZNE")
    parser.add_argument("--folder", type=Path, help="where to make it; default: a temporary folder")
    parser.add_argument("--keep", action="store_true", help="leave it there; what is there is not made again")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="million-"))
    try:
        rows = measured(folder, args)
    finally:
        if not args.keep:
            shutil.rmtree(folder)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "million.json").write_text(json.dumps(rows, indent=1))
    return 1 if any(row["wall_s"] > LIMITS[row["what"]] or row["peak_gb"] > MEMORY_GB for row in rows) else 0


def measured(folder: Path, args: argparse.Namespace) -> list[dict]:
    root = folder / "input"
    if not root.exists():
        begin = time.perf_counter()
        make_archive(root, args.stations, args.days, args.components)
        n = args.stations * args.days * len(args.components)
        print(f"made {n:,} files in {time.perf_counter() - begin:.0f} s", flush=True)
    run_dir, rows = RunDir(folder / "run"), []
    if not run_dir.shards.exists():
        rows.append(command("plan", root / "run.toml", "--run-dir", run_dir.root))
        begin = time.perf_counter()
        fill(run_dir)
        print(f"made the results in {time.perf_counter() - begin:.0f} s", flush=True)
    rows.append(command("status", run_dir.root))
    rows.append(command("audit", run_dir.root, "--no-scan"))
    rows.append(command("audit", run_dir.root))
    files, widest = sizes(run_dir.root)
    print(f"the run has {files:,} files and folders, {widest:,} in the fullest folder")
    return rows


def make_archive(root: Path, n_stations: int, n_days: int, components: str) -> None:
    """SDS under ``root``/sds, stations.csv, run.toml."""
    days = [START + timedelta(i) for i in range(n_days)]
    for station in range(n_stations):
        for component in components:
            for year, of_year in groupby(days, key=lambda day: day.year):
                name = f"XX.S{station:04}..HH{component}.D.{year}"
                folder = root / "sds" / str(year) / "XX" / f"S{station:04}" / f"HH{component}.D"
                folder.mkdir(parents=True)
                at = os.open(folder, os.O_RDONLY)
                for day in of_year:
                    file = os.open(f"{name}.{day:%j}", os.O_CREAT | os.O_WRONLY, dir_fd=at)
                    os.ftruncate(file, 4_000_000 + 512 * station)
                    os.close(file)
                os.close(at)
    rows = [f"XX,S{i:04},{46 + i % 40 / 40},{12 + i // 40 / 40},100" for i in range(n_stations)]
    (root / "stations.csv").write_text("\n".join(["network,station,latitude,longitude,elevation_m", *rows]) + "\n")
    (root / "run.toml").write_text(CONFIG.format(START, START + timedelta(n_days)))


def fill(run_dir: RunDir) -> None:
    """Results of all volumes but the last, and of half of the shards of that one; notes that some others failed."""
    plan = tables.read(run_dir.shards, Shards)
    first = np.unique(plan.volumes, return_index=True)[1]
    edges = [*np.sort(first).tolist(), len(plan)]
    for i in range(len(edges) - 2):
        rows = plan.take(slice(edges[i], edges[i + 1])).rows()
        results.write_day(run_dir, rows[0].day, picks(rows), Outcomes.of([outcome(shard) for shard in rows]).rows())
    last = plan.take(slice(edges[-2], edges[-1])).rows()
    for shard in last[: len(last) // 2]:
        results.write_part(run_dir, shard, picks([shard]), outcome(shard))
    for i, shard in enumerate(last[len(last) // 2 :][:N_FAILED]):
        for _ in range(1 + 2 * (i % 2)):  # every other one is set aside
            tries.write(run_dir, shard, f"BadData: /data/{shard.channel}.D: nothing in it can be read", "Traceback")


def outcome(shard: Shard) -> Outcome:
    kind = hash_of(shard) % 25
    if kind == 0:
        return Outcome(shard.id, "empty", "no usable component: all gaps", 0, 0.0)
    return Outcome(shard.id, "picked", "", N_PICKS, 1.0 - kind / 100)


def hash_of(shard: Shard) -> int:
    return shard.day.toordinal() // 7 * 31 + int(shard.station[4:8]) * 7


def picks(shards: list[Shard]) -> Picks:
    some = [shard for shard in shards if outcome(shard).end == "picked"]
    start = np.repeat([shard.span_ns[0] for shard in some], N_PICKS).astype(np.int64)
    n = len(start)
    time_ns = start + np.arange(n) % N_PICKS * (DAY_NS // 4) + 60 * NS
    station = np.repeat(np.array([shard.channel for shard in some] or [""][:0], np.str_), N_PICKS)
    one = np.full(n, 0.5, np.float32)
    phase = np.where(np.arange(n) % 2, "S", "P")
    return Picks(station, phase, time_ns, one, one, one, one, one)


def command(what: str, *arguments: object) -> dict:
    """Run one command and print what it took."""
    with tempfile.TemporaryFile() as said:
        begin = time.perf_counter()
        line = [sys.executable, "-m", "pipeline", what, *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        actions = [(os.POSIX_SPAWN_DUP2, said.fileno(), 1)]
        pid = os.posix_spawn(sys.executable, line, environment, file_actions=actions)
        _, status, used = os.wait4(pid, 0)
        row = {
            "what": what,
            "arguments": " ".join(arg for arg in map(str, arguments) if arg.startswith("--no")),
            "code": os.waitstatus_to_exitcode(status),
            "wall_s": time.perf_counter() - begin,
            "cpu_s": used.ru_utime + used.ru_stime,
            "peak_gb": used.ru_maxrss * 1024 / 1e9,
        }
        said.seek(0)
        text = said.read().decode()
    print(text.rstrip())
    print(
        f"--- {what} {row['arguments']}: {row['wall_s']:.1f} s wall, {row['cpu_s']:.1f} s CPU, "
        f"peak {row['peak_gb']:.2f} GB, exit code {row['code']}\n",
        flush=True,
    )
    return row


def sizes(root: Path) -> tuple[int, int]:
    """Files and folders under ``root``, and entries of the fullest folder."""
    counts = [len(folders) + len(files) for _, folders, files in os.walk(root)]
    return sum(counts), max(counts)


if __name__ == "__main__":
    sys.exit(main())
