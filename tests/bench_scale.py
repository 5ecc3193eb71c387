"""Does cost grow linearly, and memory not at all?

    python -m tests.bench_scale scaling [--days 1 8 64] [--ranks 1 2 4] [--hours 24] [--weight W] [--precision P]
    python -m tests.bench_scale growth  [--after 5 25 50] [--weight W] [--precision P]

`scaling` picks copies of a day under other station codes with real `mpiexec`, one thread a rank. `growth` reads,
or reads and picks, one day again and again in a process of its own. The day is the real one where it is there, else
a made-up one; it is shorter with --hours.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from pipeline import meter
from pipeline.config import Archive, Compute, Pick
from pipeline.formats import waveforms
from pipeline.maths import triggers
from pipeline.records import Waveform
from tests.bench_day import ROOT, copies, cut, real_or_made_up, shard_of

CONFIG = """
[run]
name = "scaling"
start = {}T00:00:00Z
end = {}T00:00:00Z
[archive]
root = "sds"
[stations]
files = ["stations.csv"]
[pick]
weight = "{}"
precision = "{}"
{}
[associate]
center_latitude_deg = 46.0
center_longitude_deg = 12.0
x_km = [-100, 100]
y_km = [-100, 100]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["scaling", "growth", "growth-of"])
    parser.add_argument("kind", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--days", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--after", type=int, nargs="+", default=[5, 25, 50])
    parser.add_argument("--weight", default="phasenet/original")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench")
    args = parser.parse_args()
    if args.what == "growth-of":
        grow(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        day = cut(real_or_made_up(Path(folder, "made")), Path(folder, "day"), args.hours)
        rows = scaling(day, Path(folder, "copies"), args) if args.what == "scaling" else growth(day, args)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{args.what}.json").write_text(json.dumps(rows, indent=1))


def scaling(day: Path, folder: Path, args: argparse.Namespace) -> list[dict]:
    rows = []
    for n in args.days:
        root = copies(day, folder / str(n), n)
        start = shard_of(day)[0].day
        unchecked = "" if args.precision == "fp32" else "allow_unchecked_precision = true"
        text = CONFIG.format(start, start + timedelta(1), args.weight, args.precision, unchecked)
        (root / "run.toml").write_text(text)
        for ranks in args.ranks:
            rows.append({"days": n, "ranks": ranks, "hours": args.hours, **picked(root, ranks)})
            print(line(rows[-1]), flush=True)
        shutil.rmtree(root)
    for ranks in args.ranks:
        print(slope([row for row in rows if row["ranks"] == ranks]))
    return rows


def picked(root: Path, ranks: int) -> dict:
    """Plan and pick the copies in ``root`` on so many ranks."""
    run_dir, peaks = root / f"run{ranks}", root / f"peaks{ranks}"
    peaks.mkdir()
    command = [sys.executable, "-m", "mpi4py", "-m", "tests.bench_rank", str(peaks)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    plan = [sys.executable, "-m", "pipeline", "plan", str(root / "run.toml"), "--run-dir", str(run_dir)]
    quiet = {"cwd": ROOT, "env": environment, "check": True, "capture_output": True}
    subprocess.run(plan, **quiet)
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([mpiexec(), "-n", str(ranks), *command, "pick", str(run_dir)], **quiet)
    wall_s, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall_s, "cpu_s": cpu_s, "peak_gb": [float(p.read_text()) for p in sorted(peaks.iterdir())]}


def mpiexec() -> str:
    beside = Path(sys.executable).parent / "mpiexec"
    return str(beside) if beside.exists() else "mpiexec"


def line(row: dict) -> str:
    return (
        f"{row['days']:3} station-days of {row['hours']:g} h on {row['ranks']} rank(s): "
        f"{row['wall_s']:7.1f} s wall, {row['wall_s'] / row['days']:6.2f} a day; "
        f"{row['cpu_s']:7.1f} s CPU, {row['cpu_s'] / row['days']:6.2f} a day; "
        f"peak {max(row['peak_gb']):.2f} GB a rank"
    )


def slope(rows: list[dict]) -> str:
    """What one more station-day costs, between neighbouring sizes: equal numbers are linear growth."""
    steps = [
        f"{a['days']} to {b['days']}: {(b['wall_s'] - a['wall_s']) / (b['days'] - a['days']):.2f} s wall, "
        f"{(b['cpu_s'] - a['cpu_s']) / (b['days'] - a['days']):.2f} s CPU"
        for a, b in pairwise(rows)
    ]
    return f"one more station-day on {rows[0]['ranks']} rank(s): {'; '.join(steps)}"


def growth(day: Path, args: argparse.Namespace) -> list[dict]:
    """Memory of a reader, and of a reader that scores, after so many station-days."""
    rows = []
    for kind in ("reader", "reader-scorer"):
        command = [sys.executable, "-m", "tests.bench_scale", "growth-of", kind, "--root", str(day)]
        command += ["--after", *map(str, args.after), "--weight", args.weight, "--precision", args.precision]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        rows += [json.loads(text) for text in done.stdout.splitlines()]
    for row in rows:
        now, peak = f"{row['now_gb']:.3f} GB", f"peak {row['peak_gb']:.3f} GB"
        print(f"{row['kind']:14} after {row['days']:3} station-days: {now}, {peak}")
    return rows


def grow(args: argparse.Namespace) -> None:
    """One JSON line after each of ``args.after`` days. A reader imports no torch, as on a node with scorers."""
    (shard, _), archive = shard_of(args.root), Archive(root=args.root)
    use, context_s, rate_hz = (lambda _wave: None), archive.context_s, 100.0
    if args.kind == "reader-scorer":
        from pipeline.models.picker import Picker  # which brings torch

        picker = Picker.of(Pick(weight=args.weight, precision=args.precision), Compute())
        context_s, rate_hz = max(context_s, picker.context_s), picker.rate_hz

        def use(wave: Waveform) -> None:
            triggers.picks(picker.runs(wave), wave, shard.channel, 0.0, shard.span_ns)

    for day in range(1, max(args.after) + 1):
        wave, _ = waveforms.read_shard(archive, shard, context_s, rate_hz, shard.span_ns)
        use(wave)
        del wave
        if day in args.after:
            row = {"kind": args.kind, "days": day, "now_gb": resident_gb(), "peak_gb": meter.peak_gb()}
            print(json.dumps(row), flush=True)


def resident_gb() -> float:
    """Resident memory now, 1e9 byte."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9


if __name__ == "__main__":
    main()
