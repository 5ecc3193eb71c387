"""The figures of docs/performance.md that no other command makes: ``python -m tests.bench [NAME ...]``."""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.cluster.world import Alone
from pipeline.config import Associate
from pipeline.formats import waveforms
from pipeline.maths import match
from pipeline.models.associators import gmma
from pipeline.models.associators.observed import Observed
from pipeline.records import DAY_NS, NS, Picks
from pipeline.stages import report
from tests import fakes, parity, synth
from tests.fabricate import fabricate


def timed(what, function, repeats=3):
    """Print the median wall and CPU time of ``function`` and the largest memory so far."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{what:60} {np.median(walls):7.2f} s wall {np.median(cpus):7.2f} s CPU, peak {peak_gb:.2f} GB", flush=True)


def read():
    """One station-day of three channels at 100 Hz."""
    if not parity.DATA.exists():
        print(f"read: skipped, no real records in {parity.DATA}")
        return
    (shard,) = [s for s in parity.shards("station_day") if s.day.isoformat() == "2020-09-22"]
    archive = parity.archive("station_day")
    timed("read a station-day", lambda: waveforms.read_shard(archive, shard, 60.0, 100.0, shard.span_ns))


def resample():
    """The same amount of noise at other rates, brought to 100 Hz."""
    for rate_hz in (200.0, 125.0, 50.0, 20.0):
        with tempfile.TemporaryDirectory() as folder:
            synth.station(folder, seconds=86_400, rate_hz=rate_hz)
            archive, shard = synth.archive(folder), synth.shard()
            what = f"read a station-day at {rate_hz:g} Hz"
            timed(what, lambda a=archive, s=shard: waveforms.read_shard(a, s, 60.0, 100.0, s.span_ns), repeats=1)


def cluster():
    """Half a million picks of 100 stations in a day without a pause."""
    n, rng = 500_000, np.random.default_rng(0)
    xy_km = rng.uniform(-100, 100, (100, 2))
    at = rng.integers(0, 100, n)
    observed = Observed(
        np.char.add("XD.S", at.astype(str)),
        rng.choice(["P", "S"], n),
        np.sort(rng.integers(0, DAY_NS, n)),
        rng.uniform(0.3, 1, n),
        np.full(n, np.nan),
        at,
        xy_km[at, 0],
        xy_km[at, 1],
        np.zeros(n),
    )
    ranges = {"x_km": (-100, 100), "y_km": (-100, 100)}
    settings = Associate(center_latitude_deg=46, center_longitude_deg=12, **ranges)
    timed("cluster 500,000 picks of one day", lambda: gmma.clusters(observed, settings), repeats=1)


def compare():
    """A million picks of ours against a million of theirs, 100 stations, 90 days."""
    n = 10_000
    ours = Picks.concat([fakes.picks(n, s, span_s=90 * 86_400, station=f"XD.S{s:02d}") for s in range(100)])
    rng = np.random.default_rng(1)
    moved = rng.normal(0, 0.1 * NS, len(ours)).astype(np.int64)
    ours_of = (ours.station, ours.phase, ours.time_ns, ours.probability.astype(float))
    theirs_of = (ours.station, ours.phase, ours.time_ns + moved)
    weights = (0.97, 0.02, 0.01)
    timed("match a million picks", lambda: match.match_picks(ours_of, theirs_of, 0.5, weights), repeats=1)


def page():
    """The report of a season: 10,000 events, 500 stations, 90 days."""
    with tempfile.TemporaryDirectory() as folder:
        size = {"n_events": 10_000, "n_stations": 500, "n_days": 90, "noise_per_day": 80}
        run_dir, config = fabricate(Path(folder), **size)
        timed("report of 10,000 events", lambda: report.run(run_dir, config, Alone()), repeats=1)
        print(f"{'its page':60} {run_dir.report.stat().st_size / 1e6:7.2f} MB")


BENCHES = {bench.__name__: bench for bench in (read, resample, cluster, compare, page)}

OTHERS = {  # in files of their own, with options of their own
    "cpu": ["tests.bench_cpu"],
    "scaling": ["tests.bench_scale", "scaling"],
    "growth": ["tests.bench_scale", "growth"],
    "campaign": ["tests.bench_campaign"],
}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in OTHERS:
        sys.exit(subprocess.run([sys.executable, "-m", *OTHERS[sys.argv[1]], *sys.argv[2:]], check=False).returncode)
    for name in sys.argv[1:] or BENCHES:
        BENCHES[name]()
