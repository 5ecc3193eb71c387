"""What amplitudes cost beside the pick pass, CPU s on one thread: ``python -m tests.bench_amplitudes [WEIGHT ...]``.

On a real station-day and on Ridgecrest's 21 stations, all with the STS-2 response that ObsPy ships: a day's worth of
arithmetic is the same for any response.
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import obspy
from obspy.core.inventory import Channel, Inventory, Network, Station

from pipeline import config as configs
from pipeline.config import Compute
from pipeline.formats import waveforms
from pipeline.formats.archive import find_shards
from pipeline.maths import triggers
from pipeline.models import weights
from pipeline.models.picker import Picker
from pipeline.records import Picks
from pipeline.stages import pick_amplitudes
from tests.bench_cpu import THRESHOLD
from tests.test_response import SHIPPED

ROOT = Path(__file__).parents[1]
CASES = {"station-day": ROOT / "tests" / "station_day.toml", "Ridgecrest": ROOT / "configs" / "ridgecrest.toml"}


def responses(path, shards):
    """A StationXML that gives every channel of ``shards`` the response of ObsPy's own."""
    made = obspy.read_inventory(SHIPPED)[0][0][0].response
    networks = []
    for shard in shards:
        network, station, location = shard.station.split(".")
        letters = "12Z" if shard.band == "EH" else "NEZ"
        channels = [
            Channel(f"{shard.band}{c}", location, 0.0, 0.0, 0.0, 0.0, sample_rate=100.0, response=made) for c in letters
        ]
        networks.append(Network(network, [Station(station, 0.0, 0.0, 0.0, channels=channels)]))
    Inventory(networks, source="bench").write(str(path), format="STATIONXML")


def measure(config, shards, picker, level):
    """CPU seconds by part, and how the amplitudes of S picks ended."""
    spent, ends, context_s = Counter(), Counter(), max(config.archive.context_s, picker.context_s)

    def timed(what, function, *args):
        begin = time.process_time()
        found = function(*args)
        spent[what] += time.process_time() - begin
        return found

    for shard in shards:
        span_ns = config.run.span_ns
        wave, _ = timed("read", waveforms.read_shard, config.archive, shard, context_s, 100.0, span_ns)
        runs = timed("score", picker.runs, wave)
        picks = timed("triggers", triggers.picks, runs, wave, shard.channel, 0.0, shard.within_ns(span_ns))
        timed("responses", pick_amplitudes.measured, config, shard, wave, [Picks.empty()])  # kept for a shard
        (found,), _ = timed("amplitudes", pick_amplitudes.measured, config, shard, wave, [picks])
        ends.update(np.where(found.amplitude_reason == "", "measured", found.amplitude_reason)[found.phase == "S"])
        spent["picks"] += len(picks)
    return spent, ends


def main(names):
    for name in names or ["phasenet/original", "eqtransformer/original"]:
        weights.fetch(name)
        for case, path in CASES.items():
            for precision in ("fp32", "screened"):
                with tempfile.TemporaryDirectory() as folder:
                    xml = Path(folder, "stations.xml")
                    level = THRESHOLD[name.partition("/")[0]]
                    settings = [
                        f'pick.weight="{name}"',
                        f'pick.precision="{precision}"',
                        f'magnitude.responses=["{xml}"]',
                    ]
                    settings += [f"pick.threshold_{phase}={level}" for phase in "ps"]
                    config = configs.load(path, settings)
                    shards = [s for s, _ in find_shards(config.archive, lambda _: True, config.run.span_ns)]
                    responses(xml, shards)
                    picker = Picker.of(config.pick, Compute(threads=1))
                    measure(
                        config, shards[:1], picker, level
                    )  # what is compiled or allocated at the first run is there
                    spent, ends = measure(config, shards, picker, level)
                before = sum(spent[part] for part in ("read", "score", "triggers"))
                print(
                    f"{case}, {name}, {precision}: {spent['picks']} picks, pass {before:.2f} s of CPU without,", end=" "
                )
                print(f"amplitudes {spent['amplitudes']:.3f} s, responses {spent['responses']:.3f} s:", end=" ")
                print(
                    f"{100 * (spent['amplitudes'] + spent['responses']) / before:.1f} %; S picks {dict(ends)}",
                    flush=True,
                )


if __name__ == "__main__":
    main(sys.argv[1:])
