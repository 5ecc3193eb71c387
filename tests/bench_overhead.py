"""What a shard costs beside reading and scoring: claims, parts, folding. `python -m tests.bench_overhead [N] [DIR]`

Shards of a made-up plan are picked by one process with a reader and a scorer that do nothing.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline import config as configs
from pipeline.cluster.world import Alone
from pipeline.formats import results, tables
from pipeline.models import weights
from pipeline.records import NS, Runs, Waveform
from pipeline.rundir import RunDir
from pipeline.stages import pick
from tests import fakes
from tests.test_config import GOOD


class Nobody:
    rate_hz, context_s = 100.0, 1.0

    def runs(self, waveform):
        none = np.empty(0, np.int64)
        return (Runs(none, none, np.empty(0, np.float32), none, ("P", "S"), 100, waveform.start_ns, 100.0),)


def main(n: int, folder: str | None) -> None:
    wave = np.zeros((3, 100), np.float32), np.ones(100, np.bool_)

    def read(shard):
        return Waveform(*wave, shard.span_ns[0] + 3600 * NS, 100.0, (True, True, True)), ()

    weights.digest = lambda name: "0" * 64
    with tempfile.TemporaryDirectory(dir=folder) as root:
        file = Path(root, "run.toml")
        file.write_text(GOOD.replace("2024-05-07", "2025-05-07"))
        run_dir, shards = RunDir(Path(root, "run")), fakes.shards(days=n // 100, stations=100)
        run_dir.root.mkdir()
        tables.write(run_dir.shards, fakes.as_table([(shard, 1) for shard in shards]))
        wall, cpu = time.perf_counter(), time.process_time()
        tally = pick.run(run_dir, configs.load(file), Alone(), lambda *_: Nobody(), lambda *_: read)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        (spent,) = json.loads(next(run_dir.meter.glob("*.json")).read_text())
        left = len(results.missing(run_dir, results.planned(run_dir)))
    per = {name: round(1e3 * seconds / len(shards), 3) for name, seconds in spent["seconds"].items()}
    found = {"shards": len(shards), "picked": tally["picked"], "missing": left}
    print(json.dumps({**found, "wall_ms": 1e3 * wall / len(shards), "cpu_ms": 1e3 * cpu / len(shards), "ms": per}))


if __name__ == "__main__":
    main(int((sys.argv[1:] or ["5000"])[0]), (sys.argv[2:] or [None])[0])
