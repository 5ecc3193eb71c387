"""Picks into events by three associators: ``python -m tests.bench_association [--cases NAME ...] [--ridgecrest RUN]``.

Each associator solves each case in a process of its own on one core, after it has solved a small one (the column
"ready": loading and compiling, which is in no other column). Prints a Markdown table a case, and one of the cost of
1,000 picks in days of ever more events. Case and associators that are not there are left out with a line that says why.
"""

import argparse
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.association_cases import CASES, DATA, ogs_ceiling
from tests.association_scores import Places, agreement

ASSOCIATORS = ("gamma", "gmma", "pyocto")
SIZES = tuple(f"synthetic-{n}" for n in (1500, 5000, 10000))
PREPARING_S = 600  # no case needs as long to be read or made up
COLUMNS = {  # key: (title, format)
    "events": ("events", "{:.0f}"),
    "wall_s": ("wall s", "{:.2f}"),
    "cpu_s": ("CPU s", "{:.2f}"),
    "ready_s": ("ready s", "{:.1f}"),
    "peak_mb": ("peak MB", "{:.0f}"),
    "recall": ("recall", "{:.4f}"),
    "recall_eligible": ("of eligible", "{:.4f}"),
    "precision": ("precision", "{:.4f}"),
    "precision_listed": ("of listed", "{:.4f}"),
    "f1": ("F1", "{:.4f}"),
    "median_km": ("median km", "{:.2f}"),
    "pick_recall": ("pick recall", "{:.4f}"),
    "pick_precision": ("pick precision", "{:.4f}"),
    "picks_in_events": ("picks in events", "{:.0f}"),
    "agreement": ("also found by another", "{:.3f}"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES, metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--associators", nargs="+", default=list(ASSOCIATORS), choices=ASSOCIATORS)
    parser.add_argument("--repeats", type=int, default=1, help="the times are medians; what was found must not change")
    parser.add_argument("--limit-s", type=float, default=300.0, help="what takes longer is ended")
    parser.add_argument(
        "--ridgecrest", type=Path, help="folder of a run of configs/ridgecrest.toml: its picks are taken"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    args = parser.parse_args()
    cases = [case for case in args.cases if not _left_out(case, args.ridgecrest)]
    associators = [name for name in args.associators if not _absent(name)]
    print(f"{machine()}; limit {args.limit_s:g} s; repeats: {args.repeats}", flush=True)
    measured = {}
    for case in cases:
        measured[case] = {name: measure(case, name, args) for name in associators}
        compare(measured[case])
        print(f"\n### {case}\n\n{table(measured[case])}{ceiling(case)}", flush=True)
    print(growth(measured))
    if args.json:
        args.json.write_text(
            json.dumps({"machine": machine(), "limit_s": args.limit_s, "cases": bare(measured)}, indent=1)
        )


def _left_out(case: str, ridgecrest: Path | None) -> bool:
    """Says why on stderr."""
    why = ""
    if not case.startswith(("synthetic", "subduction")) and not DATA.exists():
        why = f"no shared data in {DATA}"
    elif case == "ridgecrest" and ridgecrest is None:
        why = "give --ridgecrest RUN, the folder of a run of configs/ridgecrest.toml"
    if why:
        say(f"{case}: left out: {why}")
    return bool(why)


def _absent(name: str) -> bool:
    there = importlib.util.find_spec(f"pipeline.models.associators.{name}") is not None
    if not there:
        say(f"{name}: left out: there is no pipeline.models.associators.{name}")
    return not there


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(case: str, name: str, args: argparse.Namespace) -> dict:
    """What the worker found, or {"error": why not}."""
    say(f"{case}: {name} ...")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "row.json")
        run = Path.cwd() if args.ridgecrest is None else args.ridgecrest.resolve()
        options = [case, name, args.repeats, args.limit_s, run, out]
        command = [sys.executable, "-m", "tests.bench_association_worker", *map(str, options)]
        once = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
        patience_s = PREPARING_S + args.repeats * args.limit_s
        try:
            done = subprocess.run(
                command, env=os.environ | once, capture_output=True, text=True, timeout=patience_s, check=False
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not ready in {PREPARING_S} s"}
        if done.returncode == -signal.SIGALRM:
            return {"error": f"> {args.limit_s:g} s"}
        if done.returncode:
            say(done.stderr)
            return {"error": f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"}
        row = json.loads(out.read_text())
        say(f"{case}: {name} {row['wall_s']:.2f} s, {json.dumps(row['scores'])}")
        return row


def compare(rows: dict[str, dict]) -> None:
    """Adds to each row the share of its events that another associator has too."""
    found = {name: _catalogue(row) for name, row in rows.items() if "found" in row}
    for name, ours in found.items():
        others = [theirs for other, theirs in found.items() if other != name]
        if others:
            row = rows[name]
            row["scores"]["agreement"] = agreement(ours, others, tuple(row["centre"]), tuple(row["limit"]))


def _catalogue(row: dict) -> tuple[Places, np.ndarray]:
    events = {k: np.array(v, np.int64 if k == "time_ns" else np.float64) for k, v in row["found"].items()}
    return Places(**events), np.array(row["event_of_pick"], np.int64)


def table(rows: dict[str, dict]) -> str:
    """Markdown, the columns that a row has a figure for."""
    flat = {name: {**row, **row.get("scores", {})} for name, row in rows.items()}
    keys = [key for key in COLUMNS if any(np.isfinite(row.get(key, np.nan)) for row in flat.values())]
    picks = {row["picks"] for row in rows.values() if "picks" in row}
    lines = [f"{n:,} picks\n" for n in picks]
    lines.append(f"| associator | {' | '.join(COLUMNS[key][0] for key in keys)} |")
    lines.append("|---" * (len(keys) + 1) + "|")
    for name, row in flat.items():
        cells = [_cell(row, key) for key in keys] if "error" not in row else [row["error"], *[""] * (len(keys) - 1)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    changed = [name for name, row in rows.items() if len(set(row.get("digests", []))) > 1]
    lines += [f"\n{name}: not the same events in every repeat" for name in changed]
    return "\n".join(lines)


def _cell(row: dict, key: str) -> str:
    value = row.get(key, np.nan)
    return COLUMNS[key][1].format(value) if np.isfinite(value) else ""


def ceiling(case: str) -> str:
    if not case.startswith("ogs"):
        return ""
    figures = ogs_ceiling()
    return (
        f"\n\nThe agency's other location of the same events: recall {figures['recall']:.4f}, "
        f"of eligible {figures['recall_eligible']:.4f}, median {figures['median_km']:.2f} km."
    )


def growth(measured: dict[str, dict[str, dict]]) -> str:
    """CPU seconds for 1,000 picks in days of ever more events: the same in each column if cost is linear."""
    sizes = [size for size in SIZES if size in measured]
    names = sorted({name for size in sizes for name in measured[size]})
    if len(sizes) < 2:
        return ""
    lines = ["\n### CPU s for 1,000 picks\n", f"| associator | {' | '.join(sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    for name in names:
        rows = [measured[size][name] for size in sizes]
        cells = [row.get("error") or f"{1000 * row['cpu_s'] / row['picks']:.3f}" for row in rows]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def bare(measured: dict[str, dict[str, dict]]) -> dict:
    """The figures without the lists of events and picks."""
    return {
        case: {
            name: {k: v for k, v in row.items() if k not in ("found", "event_of_pick")} for name, row in rows.items()
        }
        for case, rows in measured.items()
    }


def machine() -> str:
    info = Path("/proc/cpuinfo")
    models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"one core of {len(models)} x {models[0]}" if models else f"one core of {platform.processor()}"


if __name__ == "__main__":
    main()
