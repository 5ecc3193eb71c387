"""From files to picks, beside SeisBench: ``python -m tests.bench_cpu [--repeats 5] [--weights NAME ...] [--out DIR]``.

One station-day (the real one where it is there, else a made-up one) is read and picked by SeisBench (`obspy.read`,
`classify` on all cores, as it comes and with the fastest of three batch sizes) and by ours in each precision. Each
way lives in a process of its own, which has its model loaded and one run behind it; the ways take turns, so that a
busy machine is busy for all.
Prints a table and writes it with all times as cpu.md and cpu.json; ``--reference`` makes `pipeline/costs.toml` of it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

from tests.bench_day import REAL, ROOT, real_or_made_up

THRESHOLD = {"phasenet": 0.3, "eqtransformer": 0.1}  # SeisBench's own for EQTransformer
PRECISIONS = ("fp32", "screened", "bf16")
DEFAULT = "seisbench-256"
BATCHES = (64, 256, 1024)  # of SeisBench
TOLERANCE_NS = 20_000_000
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--weights", nargs="+", default=["phasenet/original", "eqtransformer/original"])
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--threads", type=int, default=CORES)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench")
    parser.add_argument("--reference", action="store_true", help="write pipeline/costs.toml")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = real_or_made_up(Path(folder))
        rows = [row for weight in args.weights for row in measure(weight, root, args)]
    about = {"machine": machine(), "threads": args.threads, "repeats": args.repeats, "real": root == REAL}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "cpu.json").write_text(json.dumps({**about, "rows": rows}, indent=1))
    (args.out / "cpu.md").write_text(table(rows))
    print(json.dumps(about), table(rows), sep="\n")
    if args.reference:
        (ROOT / "pipeline" / "costs.toml").write_text(costs(rows, about))


def machine() -> str:
    model = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"{len(model) or CORES} x {model[0] if model else platform.processor()}, {platform.system()}, shared"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def measure(weight: str, root: Path, args: argparse.Namespace) -> list[dict]:
    """One row a way; every process picks once a round, in turn."""
    tuned = seisbench(weight, root, args.threads)
    ways = list(dict.fromkeys([DEFAULT, tuned, *args.precisions]))
    workers = {way: Worker(way, weight, root, args.threads) for way in ways}
    usable = {way: worker for way, worker in workers.items() if worker.ready["error"] is None}
    runs: dict[str, list[dict]] = {way: [] for way in usable}
    for round_ in range(args.repeats):
        for way, worker in usable.items():
            runs[way].append(worker.go())
            print(f"{weight} {way:10} {round_ + 1}/{args.repeats} {runs[way][-1]['wall_s']:.2f} s", file=sys.stderr)
    found = {way: worker.picks() for way, worker in usable.items()}
    for worker in workers.values():
        worker.end()
    rows = [row(weight, way, runs[way], found[way], workers[way].ready) for way in usable]
    walls = {r["way"]: r["wall_s"] for r in rows}
    for r in rows:
        r["times_faster"] = [walls[rival] / r["wall_s"] for rival in (DEFAULT, tuned)]
        scores = {phase: f1(times, found[DEFAULT][phase]) for phase, times in found[r["way"]].items()}
        r["f1"] = {phase: score for phase, (score, _) in scores.items()}
        r["median_dt_s"] = {phase: dt_s for phase, (_, dt_s) in scores.items()}
    lacking = {way: worker.ready["error"] for way, worker in workers.items() if way not in usable}
    return [*rows, *({"weight": weight, "way": way, "error": error} for way, error in lacking.items())]


def seisbench(weight: str, root: Path, threads: int) -> str:
    """SeisBench's way with the fastest batch size, each tried in a process of its own: memory is measured, too."""

    def seconds(way: str) -> float:
        worker = Worker(way, weight, root, threads)
        if worker.ready["error"]:
            raise SystemExit(worker.ready["error"])
        passed = worker.go()["wall_s"]
        worker.end()
        return passed

    return min((f"seisbench-{batch}" for batch in BATCHES), key=seconds)


def row(weight: str, way: str, runs: list[dict], picks: dict, ready: dict) -> dict:
    """Medians of the repeats."""
    walls = [run["wall_s"] for run in runs]
    return {
        "weight": weight,
        "way": way,
        "wall_s": float(np.median(walls)),
        "min_s": min(walls),
        "max_s": max(walls),
        "cpu_s": float(np.median([run["cpu_s"] for run in runs])),
        "seconds": {name: float(np.median([run["seconds"][name] for run in runs])) for name in runs[0]["seconds"]},
        "peak_gb": runs[-1]["peak_gb"],
        "load_s": ready["load_s"],
        "picks": {phase: len(times) for phase, times in picks.items()},
        "walls_s": walls,
    }


def f1(ours: list[int], theirs: list[int]) -> tuple[float, float]:
    """F1 of sorted times (ns), one to one within the tolerance, and the median |dt| of the pairs, s."""
    i = j = 0
    dt = []
    while i < len(ours) and j < len(theirs):
        difference = ours[i] - theirs[j]
        if abs(difference) <= TOLERANCE_NS:
            dt.append(abs(difference) / 1e9)
        i, j = i + (difference <= TOLERANCE_NS), j + (difference >= -TOLERANCE_NS)
    return 2 * len(dt) / max(1, len(ours) + len(theirs)), float(np.median(dt)) if dt else float("nan")


def table(rows: list[dict]) -> str:
    """Markdown."""
    lines = [
        "| weight | way | median s (min-max) | times faster than batch 256, than the fastest "
        "| CPU s | read / score / triggers s | peak GB | picks P, S "
        "| F1 P, S with SeisBench's | median dt s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        if "error" in r:
            lines.append(f"| {r['weight']} | {r['way']} | {r['error']} | | | | | | | |")
            continue
        stages = " / ".join(f"{s:.2f}" for s in r["seconds"].values())
        ours, _, batch = r["way"].partition("-")
        way = f"obspy.read + classify, batch {batch}" if batch else f"ours, {ours}"
        shares = [", ".join(form(v) for v in r[key].values()) for key, form in FORMS.items()]
        faster = ", ".join(f"{times:.1f}" for times in r["times_faster"])
        median = f"{r['wall_s']:.2f} ({r['min_s']:.2f}-{r['max_s']:.2f})"
        lines.append(
            f"| {r['weight']} | {way} | {median} | {faster} | {r['cpu_s']:.2f} "
            f"| {stages} | {r['peak_gb']:.2f} | {' | '.join(shares)} |"
        )
    return "\n".join(lines) + "\n"


FORMS = {"picks": str, "f1": "{:.4f}".format, "median_dt_s": "{:.3g}".format}


def costs(rows: list[dict], about: dict) -> str:
    """Our rows as the table of reference costs."""
    publish = publish_s()
    lines = [f"machine = {json.dumps(about['machine'])}", f"date = {date.today()}"]
    lines += ['command = "python -m tests.bench_cpu --reference"', ""]
    for r in rows:
        if r["way"].startswith("seisbench") or "error" in r:
            continue
        seconds = ", ".join(f"{name} = {s:.3f}" for name, s in {**r["seconds"], "publish": publish}.items())
        entries = {"weight": r["weight"], "precision": r["way"], "device": "cpu", "engine": "kernels"}
        entries |= {"threads": about["threads"]}
        lines += ["[[cost]]", *(f"{key} = {json.dumps(value)}" for key, value in entries.items())]
        lines += [f"load_s = {r['load_s']:.1f}", f"seconds = {{ {seconds} }}"]
        lines += [f"picks_a_day = {float(sum(r['picks'].values()))}", ""]
    return "\n".join(lines)


def publish_s() -> float:
    """Seconds that a part of 200 picks takes to be on the disk here."""
    from pipeline.formats import results
    from pipeline.rundir import RunDir
    from tests import fakes

    passed = []
    with tempfile.TemporaryDirectory() as folder:
        for k, shard in enumerate(fakes.shards(1, 20)):
            found, (_, outcome) = fakes.picks(200, k, station=shard.channel), fakes.detect(shard)
            begin = time.perf_counter()
            results.write_part(RunDir(Path(folder)), shard, found, outcome)
            passed.append(time.perf_counter() - begin)
    return float(np.median(passed))


class Worker:
    """A process that picks the day in one way, each time it is told to."""

    def __init__(self, way: str, weight: str, root: Path, threads: int) -> None:
        command = [sys.executable, "-m", "tests.bench_cpu_worker", way, weight, str(root), str(threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ready = self._answer()

    def go(self) -> dict:
        return self._ask("go")

    def picks(self) -> dict:
        return self._ask("picks")

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait(60)

    def _ask(self, word: str) -> dict:
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._process.args)} ended with {self._process.wait()}")
        return json.loads(line)


if __name__ == "__main__":
    begun = time.monotonic()
    main()
    print(f"{time.monotonic() - begun:.0f} s in all", file=sys.stderr)
