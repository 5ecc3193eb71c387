"""PhaseNO's graph layers, factorised and edge by edge: ``python -m tests.bench_phaseno``. Prints Markdown.

CPU time and memory of one core, each case in a process of its own. Edge by edge, all edges at once would take tens of
GB: the naive layer is given `AT_A_TIME` edges at a time, which is also its fastest way on a CPU.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

from pipeline.models import phaseno
from pipeline.models.phaseno import PhaseNO
from pipeline.models.phaseno_layers import Graph, GraphLayer
from tests.bench_association import machine
from tests.phaseno_cases import edge_by_edge, window

LAYERS = {(48, 3100): 2, (96, 750): 2, (192, 200): 1}  # channels, samples: how many the published network has
AT_A_TIME = 64
WAYS = ("ours", "naive")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stations", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--case", nargs=5, metavar=("WAY", "STATIONS", "RANGE_KM", "CHANNELS", "SAMPLES"))
    given = parser.parse_args()
    if given.case:
        way, *numbers = given.case
        print(json.dumps(measured(way, *(int(each) for each in numbers))))
        return
    print(f"{machine()}; torch {torch.__version__}, one thread\n")
    for range_km in (0, 30):
        print(table(given.stations, range_km))


def table(stations: list[int], range_km: int) -> str:
    lines = [
        f"### {f'Edges up to {range_km} km, 2 x 2 degrees' if range_km else 'All pairs'}\n",
        "| stations | edges | layer | naive, CPU s | ours, CPU s | ratio | naive, MB | ours, MB | difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for n in stations:
        total = dict.fromkeys(WAYS, 0.0)
        for (channels, samples), times in LAYERS.items():
            ours, naive = (apart(way, n, range_km, channels, samples) for way in WAYS)
            for way, each in zip(WAYS, (ours, naive), strict=True):
                total[way] += times * each["cpu_s"]
            ratio = f"{naive['cpu_s']:.2f} | {ours['cpu_s']:.3f} | {naive['cpu_s'] / ours['cpu_s']:.1f}"
            memory = f"{naive['mb']:.0f} | {ours['mb']:.0f} | {ours['difference']:.1e}"
            lines.append(f"| {n} | {ours['edges']} | {channels} x {samples} ({times}) | {ratio} | {memory} |")
        ratio = f"{total['naive']:.2f} | {total['ours']:.3f} | {total['naive'] / total['ours']:.1f}"
        whole = apart("network", n, range_km, 48, 3000)
        lines.append(f"| {n} | | all five | {ratio} | | | |")
        lines.append(f"| {n} | | the network, a window | | {whole['cpu_s']:.3f} | | | {whole['mb']:.0f} | |")
    return "\n".join(lines) + "\n"


def apart(*case: object) -> dict[str, float]:
    """`measured` in a process of its own."""
    command = [sys.executable, "-m", "tests.bench_phaseno", "--case", *(str(each) for each in case)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@torch.inference_mode()
def measured(way: str, stations: int, range_km: int, channels: int, samples: int) -> dict[str, float]:
    """CPU seconds, memory beyond what was there before, and the largest difference to the naive way on 3 stations."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    given = window(stations, 3000, 0, range_km or None, span_deg=2.0)
    if way == "network":
        network = PhaseNO().eval()
        return timed(lambda: network.probabilities(given), 1) | {"edges": given.edges.shape[1], "difference": 0.0}
    layer, x = GraphLayer(channels), torch.randn(stations, channels, samples)
    graph = Graph.of(given.edges, stations)
    run = {
        "ours": lambda: layer(x, given.places, graph),
        "naive": lambda: edge_by_edge(layer, x, given.places, given.edges, AT_A_TIME),
    }[way]
    found = timed(run, 3 if way == "ours" else 1)
    few = phaseno.edges(given.places[:3], None)
    small = [layer(x[:3], given.places[:3], Graph.of(few, 3)), edge_by_edge(layer, x[:3], given.places[:3], few)]
    return found | {"edges": given.edges.shape[1], "difference": float((small[0] - small[1]).abs().max())}


def timed(work, times: int) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent = []
    for _ in range(times):
        begun = time.process_time()
        work()
        spent.append(time.process_time() - begun)
    return {"cpu_s": min(spent), "mb": (peak - before) / 1024}


if __name__ == "__main__":
    main()
