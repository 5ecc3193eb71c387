"""Our picks against SeisBench's `classify` with the same weights and arguments.

    python -m tests.parity [--weight phasenet/original] [--threshold 0.3] [--stations CCC CLC]

reads the real records beside the checkout and prints one line a record and phase, and each pick that differs.
"""

import argparse
import logging
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import obspy
import torch

from pipeline.config import Archive, Compute, Pick
from pipeline.formats.waveforms import read_shard
from pipeline.maths import triggers
from pipeline.models import weights
from pipeline.models.engine import PHASES
from pipeline.models.picker import Picker
from pipeline.records import Picks, Shard, Waveform

DATA = Path(__file__).parents[2] / "shared" / "data"
RECORDS = {"station_day": date(2020, 9, 22), "ridgecrest": date(2019, 7, 4)}
TOLERANCE_NS = 20_000_000


@dataclass
class Compared:
    """Times (ns) and probabilities of both; ``pairs`` are the indices of the matched."""

    ours: Picks
    theirs_ns: np.ndarray
    theirs_probability: np.ndarray
    pairs: np.ndarray

    @property
    def f1(self) -> float:
        return 2 * len(self.pairs) / max(1, len(self.ours) + len(self.theirs_ns))

    @property
    def largest(self) -> tuple[float, float]:
        """Largest difference of time (s) and of probability of a pair."""
        i, j = self.pairs.T
        dt = np.abs(self.ours.time_ns[i] - self.theirs_ns[j]) / 1e9
        return max(dt, default=0.0), max(np.abs(self.ours.probability[i] - self.theirs_probability[j]), default=0.0)


def archive(record: str) -> Archive:
    folder = DATA / record
    return Archive(root=folder / "sds" if (folder / "sds").exists() else folder)


def shards(record: str) -> list[Shard]:
    files = sorted(path for path in archive(record).root.rglob("*.D.*") if path.is_file())
    parts = sorted({(*path.name.split(".")[:3], path.name.split(".")[3][:2]) for path in files})
    return [Shard(RECORDS[record], f"{net}.{sta}.{loc}", band) for net, sta, loc, band in parts]


def stream_of(record: str, shard: Shard) -> obspy.Stream:
    net, sta, loc = shard.station.split(".")
    stream = obspy.Stream()
    for path in sorted(archive(record).root.rglob(f"{net}.{sta}.{loc}.{shard.band}?.D.*")):
        stream += obspy.read(path)
    return stream


def waveform_of(record: str, shard: Shard, rate_hz: float, context_s: float) -> Waveform:
    start = shard.span_ns[0]
    span = start, start + int(timedelta(days=1).total_seconds() * 1e9) + 2_000_000_000
    return read_shard(archive(record), shard, context_s, rate_hz, span)[0]


def seisbench_picks(picker: Picker, stream: obspy.Stream, thresholds: dict[str, float]) -> list:
    named = {f"{phase}_threshold": value for phase, value in thresholds.items()}
    (engine,) = picker.engines
    arguments = {"overlap": engine.overlap, "blinding": engine.blinding, "stacking": engine.stacking}
    return list(engine.network.model.classify(stream, **named, **arguments).picks)


def compare(
    picker: Picker, wave: Waveform, stream: obspy.Stream, shard: Shard, threshold: float
) -> dict[str, Compared]:
    """Both picks of one record by phase."""
    thresholds = dict.fromkeys(PHASES, threshold)
    everything = (-(2**62), 2**62)
    found = triggers.runs(picker.scores(wave), thresholds)
    ours = triggers.picks(found, wave, shard.channel, 0.0, everything)
    theirs = seisbench_picks(picker, stream, thresholds)
    out = {}
    for phase in PHASES:
        mine = ours.take(ours.phase == phase)
        times = np.array([pick.peak_time.ns for pick in theirs if pick.phase == phase], np.int64)
        peaks = np.array([pick.peak_value for pick in theirs if pick.phase == phase])
        out[phase] = Compared(mine, times, peaks, _pairs(mine.time_ns, times))
    return out


def _pairs(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """One to one, each time with the nearest free one within the tolerance; rows (ours, theirs)."""
    pairs, free = [], set(range(len(theirs)))
    for i, time in enumerate(ours):
        j = min(free, key=lambda k: abs(theirs[k] - time), default=None)
        if j is not None and abs(theirs[j] - time) <= TOLERANCE_NS:
            pairs.append((i, j))
            free.remove(j)
    return np.array(pairs, np.int64).reshape(-1, 2)


def differences(shard: Shard, phase: str, compared: Compared) -> list[str]:
    """One line for each pick that only one of the two has."""
    lines = []
    for side, times, peaks, matched in (
        ("ours", compared.ours.time_ns, compared.ours.probability, compared.pairs[:, 0]),
        ("SeisBench", compared.theirs_ns, compared.theirs_probability, compared.pairs[:, 1]),
    ):
        for i in sorted(set(range(len(times))) - set(matched.tolist())):
            at = np.datetime64(int(times[i]), "ns")
            lines.append(f"    only {side}: {shard.channel} {phase} {at} probability {peaks[i]:.4f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weight", default="phasenet/original")
    parser.add_argument("--threshold", type=float, default=0.3)
    parser.add_argument("--records", nargs="+", default=list(RECORDS), choices=list(RECORDS))
    parser.add_argument("--stations", nargs="+", help="station codes; default all")
    args = parser.parse_args()
    logging.getLogger("seisbench").setLevel(logging.ERROR)
    weights.fetch(args.weight)
    picker = Picker.of(Pick(weight=args.weight), Compute(threads=1))
    torch.set_num_threads(1)
    rows = [compared for record in args.records for compared in _run(record, picker, args)]
    for record, phase in sorted({row[:2] for row in rows}):
        some = [compared for *key, compared in rows if key == [record, phase]]
        print(f"{record:32} {phase}", _line(some))


def _run(record: str, picker: Picker, args: argparse.Namespace) -> list[tuple[str, str, Compared]]:
    rows = []
    for shard in shards(record):
        if args.stations and shard.station.split(".")[1] not in args.stations:
            continue
        wave = waveform_of(record, shard, picker.rate_hz, picker.context_s)
        for phase, compared in compare(picker, wave, stream_of(record, shard), shard, args.threshold).items():
            print(f"{shard.id:32} {phase}", _line([compared]), flush=True)
            for line in differences(shard, phase, compared):
                print(line)
            rows.append((record, phase, compared))
    return rows


def _line(parts: list[Compared]) -> str:
    ours, theirs = sum(len(part.ours) for part in parts), sum(len(part.theirs_ns) for part in parts)
    both = sum(len(part.pairs) for part in parts)
    dt_s, dp = (max(part.largest[k] for part in parts) for k in (0, 1))
    f1 = 2 * both / max(1, ours + theirs)
    return f"ours {ours:5} SeisBench {theirs:5} both {both:5} F1 {f1:.4f}  largest |dt| {dt_s:.6f} s |dp| {dp:.1e}"


if __name__ == "__main__":
    main()
