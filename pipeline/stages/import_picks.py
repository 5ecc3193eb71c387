"""Stage `import-picks`: picks from outside in place of our own: phase cards, QuakeML, a table of picks."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np

from pipeline.cluster.world import World
from pipeline.config import Config
from pipeline.errors import BadData, ConfigError
from pipeline.formats import results, tables
from pipeline.formats.bulletin_rows import Bulletin, iso_ns, optional
from pipeline.formats.bulletins import read_dat, read_hpc
from pipeline.formats.quakeml import read_quakeml
from pipeline.maths import pick_sigma
from pipeline.maths.names import resolve
from pipeline.records import Float, ForeignPicks, Int, Picks, Stations, Text
from pipeline.rundir import RunDir, publish, require

log = logging.getLogger(__name__)

READERS = {
    ".dat": read_dat,
    ".hpc": read_hpc,
    ".hpl": read_hpc,
    ".xml": read_quakeml,
    ".qml": read_quakeml,
    ".quakeml": read_quakeml,
}
COLUMNS = ("station", "timestamp", "phase", "probability")


def run(run_dir: RunDir, config: Config, world: World) -> None:
    """Write the picks of ``pick.source`` by day, once; what was left out goes into ``picks/imported.json``.

    Raises ConfigError if the configuration names no source, or one that cannot be read.
    """
    if config.pick.source is None:
        raise ConfigError("pick.source is not set: nothing to import. Picks of waveforms are made by `orcolat pick`")
    if world.rank == 0 and not run_dir.imported.exists():
        stations = tables.read(require(run_dir.stations, "plan"), Stations)
        picks, problems = import_picks(config.pick.source, stations, config.run.span_ns)
        for day, found in _by_day(picks):
            results.write_day(run_dir, day, found, [])
        about = {"source": str(config.pick.source), "n_picks": len(picks), "left_out": problems}
        with publish(run_dir.imported) as part:
            part.write_text(json.dumps(about, indent=1) + "\n")
        for problem in problems:
            log.warning("%s: %s", config.pick.source.name, problem)
        log.info("imported %d picks from %s", len(picks), config.pick.source)
    world.bcast(None)


def _by_day(picks: Picks) -> list[tuple[date, Picks]]:
    """The picks of each UTC day."""
    days = picks.time_ns.astype("datetime64[ns]").astype("datetime64[D]")
    return [(day.item(), picks.take(days == day)) for day in np.unique(days)]


def import_picks(path: Path, stations: Stations, span_ns: tuple[int, int]) -> tuple[Picks, list[str]]:
    """The picks of ``path`` in the half-open span, and one sentence for whatever was left out or changed.

    The name says the format: .dat .hpc .hpl (OGS), .xml .qml .quakeml (QuakeML), .parquet (our own picks), or .csv
    and .parquet with the columns station, timestamp (UTC), phase, probability and perhaps amplitude_m_s or amplitude,
    either in m/s. A bulletin has no probabilities: its picks get 1, and the standard deviation that the weight
    stands for. Location and band are not known and stay empty: "NET.STA..".
    None may be left of a time between others, such as a quiet night.
    Raises ConfigError if the file cannot be read, or no pick is left and the span is not within its time.
    """
    picks, problems = _read(Path(path))
    picks, nothing = with_amplitudes(picks)
    picks, unknown = with_sites(picks, stations.id.tolist())
    inside = (picks.time_ns >= span_ns[0]) & (picks.time_ns < span_ns[1])
    wanted = without_doubles(picks.take(inside).ordered())
    problems += nothing + unknown
    if not inside.all():
        problems.append(f"{np.count_nonzero(~inside)} of {len(picks)} picks lie outside the period of the run")
    if doubles := np.count_nonzero(inside) - len(wanted):
        problems.append(f"{doubles} picks are there twice: same station, phase and time; one of each was kept")
    is_within = (picks.time_ns < span_ns[0]).any() and (picks.time_ns >= span_ns[1]).any()
    if not len(wanted) and not is_within:
        raise ConfigError(f"pick.source {path}: no pick of a known station within the run's period: {problems}")
    return wanted, problems


def with_amplitudes(picks: Picks) -> tuple[Picks, list[str]]:
    """The picks, an amplitude that is not a finite number greater than 0 taken as not known, and how many were."""
    amplitude = picks.amplitude_m_s
    wrong = (amplitude <= 0) | np.isinf(amplitude)
    n = int(np.count_nonzero(wrong))
    problems = [f"{n} picks have an amplitude of 0, less, or infinity: taken as not known"] if n else []
    return replace(picks, amplitude_m_s=np.where(wrong, np.float32(np.nan), amplitude)), problems


def with_sites(picks: Picks, sites: Sequence[str]) -> tuple[Picks, list[str]]:
    """The picks with their stations as "NET.STA.LOC.BAND"; those of no known site are left out and named."""
    found, reasons = resolve(picks.station.tolist(), sites)
    names = [_channel(name, found[name]) if name in found else "" for name in picks.station.tolist()]
    known = np.array([bool(name) for name in names], bool)
    counts = Counter(picks.station[~known].tolist())
    problems = [f"station {name!r}: {counts[name]} picks left out: {reason}" for name, reason in reasons.items()]
    return replace(picks, station=np.array(names, np.str_)).take(known), problems


def without_doubles(picks: Picks) -> Picks:
    """The best of the picks that agree in station, phase and time, in canonical order."""
    key = np.lexsort((-picks.probability, picks.phase, picks.station, picks.time_ns))
    rows = picks.take(key)
    same = (
        (rows.time_ns[1:] == rows.time_ns[:-1])
        & (rows.station[1:] == rows.station[:-1])
        & (rows.phase[1:] == rows.phase[:-1])
    )
    return rows.take(np.concatenate([[True], ~same])[: len(rows)]).ordered()


def _channel(name: str, site: str) -> str:
    parts = name.split(".")
    return name if len(parts) == 4 and name.startswith(f"{site}.") else f"{site}.."


def _read(path: Path) -> tuple[Picks, list[str]]:
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return _read_parquet(path)
        if suffix == ".csv":
            return _read_csv(path)
        if suffix in READERS:
            return _of_bulletin(READERS[suffix](path))
    except BadData as e:
        raise ConfigError(f"pick.source: {e}") from e
    known = ", ".join([".parquet", ".csv", *READERS])
    raise ConfigError(f"pick.source {path}: the ending {suffix!r} is not one of {known}; rename or convert the file")


def _of_bulletin(found: Bulletin) -> tuple[Picks, list[str]]:
    problems = [f"line {bad.number}, {bad.text.strip()[:60]!r}: {bad.reason}" for bad in found.bad]
    arrivals = found.arrivals
    n = len(arrivals)
    picks = _picks(arrivals.station, arrivals.phase, arrivals.time_ns, np.ones(n), np.full(n, np.nan))
    sigma_s = pick_sigma.of_weights(arrivals.phase, arrivals.weight).astype(np.float32)
    return replace(picks, sigma_s=sigma_s), problems


def _read_parquet(path: Path) -> tuple[Picks, list[str]]:
    """Our own picks, which have a column time, or those of another program, which have a timestamp."""
    if "timestamp" not in tables.names(path):
        return tables.read(path, Picks), []
    found = tables.read(path, ForeignPicks)
    phase = np.char.upper(np.char.strip(found.phase))
    faults = {
        "phase is neither P nor S": ~np.isin(phase, ["P", "S"]),
        "probability is not between 0 and 1": ~((found.probability >= 0) & (found.probability <= 1)),
    }
    problems = [f"{np.count_nonzero(rows)} picks left out: their {why}" for why, rows in faults.items() if rows.any()]
    good = ~np.logical_or.reduce(list(faults.values()))
    found, phase = found.take(good), phase[good]
    amplitude_m_s = np.where(np.isnan(found.amplitude_m_s), found.amplitude, found.amplitude_m_s)
    return _picks(np.char.strip(found.station), phase, found.time_ns, found.probability, amplitude_m_s), problems


def _read_csv(path: Path) -> tuple[Picks, list[str]]:
    rows: list[tuple[str, str, int, float, float]] = []
    problems = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file)
            lacking = [name for name in COLUMNS if name not in (lines.fieldnames or [])]
            if lacking:
                raise BadData(f"{path}: no column {', '.join(lacking)}; it needs {', '.join(COLUMNS)}")
            for line in lines:
                try:
                    rows.append(_csv_row(line))
                except ValueError as e:
                    problems.append(f"line {lines.line_num}: {e}")
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise BadData(f"{path}: cannot be read as CSV: {e}") from e
    station, phase, time_ns, probability, amplitude_m_s = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    numbers = np.array(time_ns, np.int64), np.array(probability, np.float64), np.array(amplitude_m_s, np.float64)
    return _picks(np.array(station, np.str_), np.array(phase, np.str_), *numbers), problems


def _csv_row(line: dict[str, str]) -> tuple[str, str, int, float, float]:
    phase, probability = line["phase"].strip().upper(), optional("probability", line["probability"])
    if phase not in ("P", "S"):
        raise ValueError(f"phase {line['phase']!r} is neither P nor S")
    if not 0 <= probability <= 1:
        raise ValueError(f"probability {line['probability']!r} is not between 0 and 1")
    amplitude_m_s = optional("amplitude", line.get("amplitude_m_s") or line.get("amplitude"))
    return line["station"].strip(), phase, iso_ns(line["timestamp"].strip()), probability, amplitude_m_s


def _picks(station: Text, phase: Text, time_ns: Int, probability: Float, amplitude_m_s: Float) -> Picks:
    unknown = np.full(len(station), np.nan, np.float32)
    numbers = probability.astype(np.float32), unknown, unknown, unknown, amplitude_m_s.astype(np.float32)
    return Picks(station, phase, time_ns, *numbers)
