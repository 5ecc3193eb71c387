"""The day that the benchmarks pick: the real one where it is there, else a made-up one; shorter; many times over."""

from datetime import datetime
from pathlib import Path

import numpy as np
import obspy

from pipeline.records import Shard
from tests import synth

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data" / "station_day" / "sds"


def real_or_made_up(folder: Path) -> Path:
    """An SDS archive of one station-day; a made-up one is written to ``folder``."""
    return REAL if REAL.exists() else made_up_day(folder)


def made_up_day(root: Path) -> Path:
    """A day of noise with 60 pairs of decaying bursts."""
    rng, rate_hz = np.random.default_rng(0), 100
    onsets = np.sort(rng.integers(60, 86_300, 60))
    for row, component in enumerate("ZNE"):
        data = rng.normal(0, 100, 86_400 * rate_hz)
        for onset in onsets:
            for delay_s, gain in ((0, (3000, 800, 800)), (6, (900, 4000, 4000))):
                at, t = (onset + delay_s) * rate_hz, np.arange(20 * rate_hz) / rate_hz
                burst = gain[row] * np.exp(-t / 3) * np.sin(2 * np.pi * 6 * t)
                data[at : at + len(t)] += burst[: len(data) - at]
        code = f"XX.ABC..HH{component}"
        synth.write(synth.sds_path(root, code), synth.trace(np.round(data).astype(np.int32), 0, code))
    return root


def shard_of(root: Path) -> tuple[Shard, list[Path]]:
    """The one station-day of an SDS archive, and its files."""
    paths = sorted(path for path in root.rglob("*.D.*") if path.is_file())
    network, station, location, channel, _, year, julday = paths[0].name.split(".")
    day = datetime.strptime(f"{year}{julday}", "%Y%j").date()
    return Shard(day, f"{network}.{station}.{location}", channel[:2]), paths


def cut(root: Path, folder: Path, hours: float) -> Path:
    """The first ``hours`` of the day, or all of it as it is."""
    if hours >= 24:
        return root
    for path in shard_of(root)[1]:
        stream = obspy.read(path)
        stream.trim(endtime=min(t.stats.starttime for t in stream) + hours * 3600)
        (folder / path.relative_to(root)).parent.mkdir(parents=True)
        stream.write(str(folder / path.relative_to(root)), format="MSEED")
    return folder


def copies(day: Path, root: Path, n: int) -> Path:
    """``n`` stations ZZ.S000 ... with the data of ``day``: the same records, other codes in their headers."""
    for path in shard_of(day)[1]:
        raw = np.frombuffer(path.read_bytes(), np.uint8)
        length = obspy.read(path, headonly=True)[0].stats.mseed.record_length
        records = raw.reshape(-1, length).copy()
        _, _, location, channel, quality, year, julday = path.name.split(".")
        for i in range(n):
            code = f"S{i:03d}"
            records[:, 8:13] = np.frombuffer(code.ljust(5).encode(), np.uint8)
            records[:, 18:20] = np.frombuffer(b"ZZ", np.uint8)
            name = f"ZZ.{code}.{location}.{channel}.{quality}.{year}.{julday}"
            copy = root / "sds" / year / "ZZ" / code / f"{channel}.D" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(records.tobytes())
    rows = [f"ZZ,S{i:03d},46.0,12.0,0.0" for i in range(n)]
    (root / "stations.csv").write_text("\n".join(["network,station,latitude,longitude,elevation", *rows]) + "\n")
    return root
