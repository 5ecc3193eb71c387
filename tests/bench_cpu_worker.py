"""One way from files to picks, in a process of its own: `tests.bench_cpu` starts it and tells it when to go."""

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import obspy
import torch

from pipeline import meter
from pipeline.config import Archive, Compute, Pick
from pipeline.errors import ConfigError
from pipeline.formats import waveforms
from pipeline.maths import triggers
from pipeline.models import weights
from pipeline.models.picker import Picker
from tests.bench_cpu import THRESHOLD
from tests.bench_day import shard_of

PHASES = ("P", "S")
Day = Callable[[], tuple[dict, dict]]  # picks by phase (sorted ns), seconds by stage


def seisbench_day(weight: str, root: Path, threads: int, batch: int) -> Day:
    """`obspy.read` and SeisBench's `classify` on all cores."""
    model, (_, paths) = weights.load(weight), shard_of(root)
    torch.set_num_threads(threads)
    level = THRESHOLD[weight.partition("/")[0]]

    def day() -> tuple[dict, dict]:
        begin = time.perf_counter()
        stream = obspy.Stream([trace for path in paths for trace in obspy.read(path)])
        read = time.perf_counter()
        found = model.classify(stream, batch_size=batch, P_threshold=level, S_threshold=level).picks
        passed = time.perf_counter()
        times = {phase: sorted(int(p.peak_time.ns) for p in found if p.phase == phase) for phase in PHASES}
        return times, {"read": read - begin, "score": passed - read, "triggers": 0.0}

    return day


def our_day(weight: str, root: Path, threads: int, precision: str) -> Day:
    """What the stage `pick` does with a shard, its publication apart."""
    level = THRESHOLD[weight.partition("/")[0]]
    pick = Pick(weight=weight, precision=precision, threshold_p=level, threshold_s=level)
    picker, archive, (shard, _) = Picker.of(pick, Compute(threads=threads)), Archive(root=root), shard_of(root)
    context_s = max(archive.context_s, picker.context_s)
    everything = -(2**62), 2**62  # SeisBench's picks do not end at midnight

    def day() -> tuple[dict, dict]:
        begin = time.perf_counter()
        wave, _ = waveforms.read_shard(archive, shard, context_s, picker.rate_hz, shard.span_ns, threads)
        read = time.perf_counter()
        runs = picker.runs(wave)
        scored = time.perf_counter()
        found = triggers.picks(runs, wave, shard.channel, 0.0, everything)
        passed = time.perf_counter()
        times = {phase: np.sort(found.time_ns[found.phase == phase]).tolist() for phase in PHASES}
        return times, {"read": read - begin, "score": scored - read, "triggers": passed - scored}

    return day


def main() -> None:
    way, weight, root, threads = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library says goes to stderr
    logging.getLogger("seisbench").setLevel(logging.ERROR)

    def answer(what: dict) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    begin = time.perf_counter()
    try:
        weights.fetch(weight)
        theirs, _, batch = way.partition("-")
        make, how = (seisbench_day, int(batch)) if theirs == "seisbench" else (our_day, way)
        day = make(weight, root, threads, how)
    except ConfigError as e:
        answer({"error": str(e)})
        return
    load_s = time.perf_counter() - begin
    picks, _ = day()  # what is compiled or allocated at the first run is there afterwards
    answer({"error": None, "load_s": load_s})
    for word in sys.stdin:
        if word.strip() == "picks":
            answer(picks)
            continue
        wall, cpu = time.perf_counter(), time.process_time()
        picks, seconds = day()
        passed = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        answer({**passed, "seconds": seconds, "peak_gb": meter.peak_gb()})


if __name__ == "__main__":
    main()
