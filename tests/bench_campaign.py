"""A campaign on paper: ``python -m tests.bench_campaign [--stations 10000 --years 10 --nodes 100] [--measure]``.

With --measure what planning, dealing, publishing and folding cost on this machine is measured first (five minutes,
300,000 small files for a while) and kept beside this script as campaign.json; without it the kept figures are used.
Costs of reading and scoring come from `pipeline/costs.toml`. What is assumed and not measured is `ASSUMED`.
"""

import argparse
import json
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path

from pipeline import meter
from pipeline.cluster.world import share
from pipeline.config import Archive
from pipeline.formats import archive, results, tables, waveforms
from pipeline.maths.estimate import Cost, Sizes
from pipeline.records import DAY_NS, Outcome, Picks, Shard, Shards
from pipeline.rundir import RunDir
from pipeline.stages import estimate
from tests import fakes
from tests.bench_day import REAL, ROOT, real_or_made_up, shard_of

KEPT = Path(__file__).with_name("campaign.json")
ASSUMED = {
    "gpu_s": 0.02,  # of one A100 for one station-day; not measured: this project's aim for PhaseNet on an H200
    "bandwidth_gb_s": 50.0,  # that the file system gives to this job
    "metadata_per_s": 20_000.0,  # operations that its servers give to this job
    "operation_s": 0.0005,  # that one process waits for one metadata operation
    "gpus": 4,  # a node, each with a rank that scores
    "cores": 32,  # a node, each of the others with a rank that reads
    "bytes": 30_515_200,  # of the real station-day: three channels, 100 Hz, miniSEED with Steim-2
}
MONTH = 30.4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stations", type=int, default=10_000)
    parser.add_argument("--years", type=int, default=10)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--weight", default="phasenet/original")
    parser.add_argument("--precision", default="screened")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        name, *numbers = args.part
        print(json.dumps({**PARTS[name](*map(int, numbers)), "peak_gb": meter.peak_gb()}))
        return
    if args.measure:
        KEPT.write_text(json.dumps(measure(), indent=1) + "\n")
    print(paper(json.loads(KEPT.read_text()), cost_of(args.weight, args.precision), args))


def cost_of(weight: str, precision: str) -> Cost:
    found = [c for c in estimate.reference() if (c.weight, c.precision, c.device) == (weight, precision, "cpu")]
    if not found:
        raise SystemExit(
            f"pipeline/costs.toml has no {weight} at {precision}: run `python -m tests.bench_cpu --reference`"
        )
    return found[0]


def measure() -> dict:
    """Each in a process of its own, so that each has a peak of memory of its own."""
    jobs = {
        "nothing": ["nothing"],
        "tree": ["tree", "1000", "100"],
        "plan of 100,000": ["plan", "100000"],
        "plan of 1,000,000": ["plan", "1000000"],
        "parts": ["parts", "4", "500"],
        "sizes": ["sizes"],
    }
    found = {}
    for name, arguments in jobs.items():
        command = [sys.executable, "-m", "tests.bench_campaign", "--part", *arguments]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        found[name] = json.loads(done.stdout)
        print(name, found[name], file=sys.stderr)
    return found | {"operations": operations()}


def timed(what: Callable[[], object]) -> tuple[float, object]:
    """CPU seconds and result: on a shared machine the wall tells little. What waits for a disk is not in them."""
    begin = time.process_time()
    found = what()
    return time.process_time() - begin, found


def nothing() -> dict:
    """What a process holds before it does anything."""
    return {}


def tree(stations: int, days: int) -> dict:
    """Find the shards of an SDS archive of small files, all days and the last one alone."""
    first = date(2024, 1, 1)
    with tempfile.TemporaryDirectory() as folder:
        for s in range(stations):
            for channel in ("HHE", "HHN", "HHZ"):
                place = Path(folder, "2024", "XX", f"S{s:04d}", f"{channel}.D")
                place.mkdir(parents=True)
                for day in range(days):
                    (place / f"XX.S{s:04d}..{channel}.D.2024.{day + 1:03d}").write_bytes(b"x")
        start = Shard(first, "", "").span_ns[0]

        def find(since: int) -> list:
            return archive.find_shards(
                Archive(root=folder), lambda _: True, (start + since * DAY_NS, start + days * DAY_NS)
            )

        all_s, found = timed(lambda: find(0))
        one_s, last = timed(lambda: find(days - 1))
        shards = [shard for shard, _ in found]
        some = shards[:: max(1, len(shards) // 200)]
        files_s, _ = timed(lambda: [archive.files_for(Archive(root=folder), s, s.span_ns) for s in some])
        shutil.rmtree(folder, ignore_errors=True)
        Path(folder).mkdir()
    return {"shards": len(found), "files": 3 * len(found), "all_s": all_s, "last_day_s": one_s,
            "last_day_shards": len(last), "files_for_s": files_s / len(some)}  # fmt: skip


def plan(n: int) -> dict:
    """Write, read, send and deal a plan of ``n`` shards; ask what is missing of it."""
    per_day = min(n, 10_000)
    rows = [
        (Shard(fakes.day(0) + timedelta(k // per_day), f"XX.S{k % per_day:04d}.", "HH"), 30_000_000 + k % 1000)
        for k in range(n)
    ]
    with tempfile.TemporaryDirectory() as folder:
        run_dir = RunDir(Path(folder))
        table_s, table = timed(lambda: fakes.as_table(rows))
        write_s, _ = timed(lambda: tables.write(run_dir.shards, table))
        size = run_dir.shards.stat().st_size
        rows.clear()
        read_s, table = timed(lambda: tables.read(run_dir.shards, Shards))
        rows_s, shards = timed(table.rows)
        missing_s, todo = timed(lambda: results.missing(run_dir, table))
        send_s, letter = timed(lambda: pickle.dumps(todo))
        cost = dict(zip(shards, table.bytes.tolist(), strict=True))
        deal_s = {ranks: timed(lambda r=ranks: share(todo[:20_000], cost.__getitem__, r))[0] for ranks in (32, 3200)}
    return {"n": n, "table_s": table_s, "write_s": write_s, "read_s": read_s, "rows_s": rows_s, "missing_s": missing_s,
            "send_s": send_s, "letter_bytes": len(letter), "file_bytes": size,
            "deal_20000_s": deal_s}  # fmt: skip


def parts(days: int, stations: int) -> dict:
    """Publish so many parts of 200 picks, and fold them."""
    shards = fakes.shards(days, stations)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = RunDir(Path(folder))
        ended = [
            (s, fakes.picks(200, k, s.span_ns[0], station=s.channel), fakes.detect(s)[1]) for k, s in enumerate(shards)
        ]
        publish_s, _ = timed(lambda: [results.write_part(run_dir, *end) for end in ended])
        fold_s, _ = timed(lambda: results.fold(run_dir, fakes.as_table([(shard, 1) for shard in shards])))
    return {"parts": len(shards), "publish_s": publish_s / len(shards), "fold_s": fold_s / len(shards)}


def sizes() -> dict:
    """Bytes of picks, outcomes and parts, from files of few and of many."""
    picks = Picks.concat([fakes.picks(200, s, station=f"XD.S{s:03d}..HH") for s in range(1000)]).ordered()
    outcomes = [fakes.detect(s)[1] for s in fakes.shards(1, 1000)]
    with tempfile.TemporaryDirectory() as folder:
        run_dir, day = RunDir(Path(folder)), fakes.day(0)

        def written(some: Picks, ends: list[Outcome]) -> tuple[int, int]:
            results.write_day(run_dir, day, some, ends)
            return run_dir.picks(day).stat().st_size, run_dir.outcomes(day).stat().st_size

        none, all_ = written(Picks.empty(), outcomes[:1]), written(picks, outcomes)
        part = Path(folder, "part")
        tables.write(part, Picks.empty(), {"outcome": asdict(outcomes[0])})
        found = Sizes(
            pick=(all_[0] - none[0]) / len(picks),
            outcome=(all_[1] - none[1]) / 999,
            day_file=sum(none) / 2,
            part=part.stat().st_size,
        )
    return asdict(found)


def reads(times: int) -> dict:
    """Read the day so many times."""
    with tempfile.TemporaryDirectory() as folder:
        root = real_or_made_up(Path(folder))
        shard, _ = shard_of(root)
        for _ in range(times):
            waveforms.read_shard(Archive(root=root), shard, 60.0, 100.0, shard.span_ns)
    return {}


PARTS = {"nothing": nothing, "tree": tree, "plan": plan, "parts": parts, "sizes": sizes, "reads": reads}


def operations() -> dict[str, float]:
    """Calls to the file system for one more shard, by name, as `strace` counts them; none where there is no strace."""
    if not shutil.which("strace"):
        return {}
    return {
        "reading": calls(["reads", "4"]) / 2 - calls(["reads", "2"]) / 2,
        "a part": (calls(["parts", "1", "300"]) - calls(["parts", "1", "100"])) / 200,
    }


def calls(part: list[str]) -> int:
    """Calls with a path in the temporary folder or in the archive, and flushes to disk."""
    with tempfile.NamedTemporaryFile("r") as log:
        command = ["strace", "-f", "-qq", "-e", "trace=%file,fsync,getdents64", "-o", log.name]
        command += [sys.executable, "-m", "tests.bench_campaign", "--part", *part]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        of_ours = (tempfile.gettempdir() + "/tmp", str(REAL), "fsync(")
        return sum(any(name in line for name in of_ours) for line in log)


def paper(measured: dict, cost: Cost, args: argparse.Namespace) -> str:
    """Markdown: by resource what there is to do, at what rate, and how long it takes."""
    a, days = ASSUMED, args.years * 365
    n, months = args.stations * days, args.years * 12
    cores, gpus = args.nodes * a["cores"], args.nodes * a["gpus"]
    readers = cores - gpus
    reading_s = sum(s for name, s in cost.seconds.items() if name != "score")
    alone_s = reading_s + cost.seconds["score"] * cost.threads
    tree_, fold_s, million = measured["tree"], measured["parts"]["fold_s"], measured["plan of 1,000,000"]
    calls_, deal_s = sum(measured["operations"].values()), million["deal_20000_s"]["3200"] / 20_000
    folding = f"{fold_s * 1e3:.1f} ms a shard"
    lines = [  # what, how much of it a station-day takes, by what, seconds
        ("scoring on GPUs", f"{a['gpu_s']} s (assumed)", f"{gpus} GPUs", n * a["gpu_s"] / gpus),
        ("reading and triggers", f"{reading_s:.2f} s of a core", f"{readers} readers", n * reading_s / readers),
        ("all on CPUs, no GPU", f"{alone_s:.2f} s of a core", f"{cores} cores", n * alone_s / cores),
        ("bytes read", f"{a['bytes'] / 1e6:.1f} MB", f"{a['bandwidth_gb_s']:g} GB/s (assumed)",
         n * a["bytes"] / a["bandwidth_gb_s"] / 1e9),
        ("metadata", f"{calls_:.0f} operations", f"{a['metadata_per_s']:g} a second (assumed)",
         n * calls_ / a["metadata_per_s"]),
        ("planning, local disk", f"{tree_['all_s'] / tree_['shards'] * 1e6:.0f} us", "1 process",
         n * tree_["all_s"] / tree_["shards"]),
        ("planning over the net", f"3 operations of {a['operation_s'] * 1e3:g} ms (assumed)", "1 process",
         3 * n * a["operation_s"]),
        ("dealing", f"{deal_s * 1e6:.1f} us for 3200 ranks", "each rank", n * deal_s),
        ("folding", folding, "1 process", n * fold_s),
        ("folding, dealt by day", folding, f"{readers} readers", fold_s * args.stations * -(-days // readers)),
    ]  # fmt: skip
    out = ["| what | a station-day | by | hours |", "|---|---|---|---|"]
    out += [f"| {what} | {much} | {by} | {seconds / 3600:.2f} |" for what, much, by, seconds in lines]
    size, memory = Sizes(), (million["peak_gb"] - measured["nothing"]["peak_gb"]) / 1e6
    out += [
        "",
        f"- {n:,} station-days in one run: {memory * n:.0f} GB for the plan in each rank ({memory * 1e9:.0f} byte a "
        f"shard measured), {million['letter_bytes'] / 1e6 * n / 1e9:.1f} GB to send, {n:,} parts before the fold.",
        f"- in {months} runs of a month: {n // months:,} shards each, {memory * n / months:.2f} GB a rank, "
        f"{million['letter_bytes'] / 1e6 * n / months / 1e6:.0f} MB to send, a plan of "
        f"{million['file_bytes'] / 1e6 * n / months / 1e6:.1f} MB; {2 * MONTH:.0f} files of results each, "
        f"{2 * days:,} in all.",
        f"- results: {cost.picks_a_day:.0f} picks a station-day x {size.pick:g} byte = "
        f"{n * cost.picks_a_day * size.pick / 1e12:.2f} TB.",
        f"- to keep the GPUs busy: {n * a['bytes'] * gpus / (n * a['gpu_s']) / 1e9:.0f} GB/s and "
        f"{calls_ * gpus / a['gpu_s']:,.0f} metadata operations a second.",
    ]
    return "\n".join(out)


if __name__ == "__main__":
    main()
