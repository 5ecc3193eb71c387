"""Stage `parity`: the picks of any precision beside those of FP32 SeisBench, on the data of a configuration.

It has no run directory: the result is a text, a JSON file if wanted, and a record of the checks that the run of
another precision than FP32 asks for (`pipeline.models.checked`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster.world import World, share
from pipeline.config import Config
from pipeline.errors import BadData, ConfigError, NoData
from pipeline.formats import archive, stations, streams, waveforms
from pipeline.logs import Progress
from pipeline.maths import parity, triggers
from pipeline.maths.parity import Agreement
from pipeline.models import checked, weights
from pipeline.models.checked import Check
from pipeline.models.engine import PHASES
from pipeline.models.parity import Reference
from pipeline.models.picker import Picker, Pickers
from pipeline.records import Float, Picks, Shard

log = logging.getLogger(__name__)
SHOWN = 5  # picks of one side only that are printed, a precision and phase
ALWAYS = (-(2**62), 2**62)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is compared: nothing named means FP32 and the configuration's precision, all stations, all days."""

    precisions: tuple[str, ...] = ()
    stations: tuple[str, ...] = ()  # patterns of "NET.STA"
    days: tuple[date, ...] = ()
    limit: int = 20  # station-days
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Looked:
    """One shard: picks of SeisBench, and of each precision ours, with the largest differences of the traces (2,)."""

    shard: Shard
    left_out: str  # why it could not be compared; "" if it was
    theirs: Picks
    ours: dict[str, tuple[Picks, Float]]
    seconds: float = 0.0  # of data
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All shards together: a check and the agreement of P and S for each precision."""

    checks: list[Check]
    agreements: dict[str, list[Agreement]]
    seconds: float
    left_out: dict[str, str]
    refused: dict[str, str]  # why a precision is not offered here


Look = Callable[[Shard], Looked]


def run(config: Config, wanted: Wanted, world: World) -> list[Report]:
    """One report a picker of the configuration, on rank 0; none elsewhere. Raises ConfigError as `compare`."""
    if config.archive.root is None:
        raise ConfigError("pick.source is set: there are no waveforms to compare on; give archive.root")
    found = [compare(config.of_picker(weight), wanted, world) for weight in _weights(config)]
    return [report for report in found if report is not None]


def _weights(config: Config) -> tuple[str, ...]:
    """Of the pickers of stations: PhaseNO is in FP32 alone, and SeisBench has none. Raises ConfigError."""
    if config.pick.of_stations is None:
        raise ConfigError(f"{config.pick.weight} picks on networks: there is no SeisBench model to compare it with")
    return config.pick.of_stations.weights


def require_targets(config: Config, json_path: Path | None, record: Path | None) -> None:
    """Raises ConfigError if the results could not be written, before hours of work."""
    if json_path is not None:
        checked.require_writable(json_path, "--json")
    for path in [record] if record else [checked.store(weights.digest(name)) for name in _weights(config)]:
        checked.require_writable(path, "--record")
        checked.read(path)
        if json_path is not None and json_path.resolve() == path.resolve():
            raise ConfigError(f"{path}: both --json and --record: name another file with --json")


def compare(config: Config, wanted: Wanted, world: World) -> Report | None:
    """Compare one picker on a sample of the configuration's shards, dealt to the ranks; None but on rank 0.

    Raises ConfigError where there is nothing to compare, or the network offers no wanted precision on this machine.
    """
    sample, size = world.bcast(chosen(config, wanted) if world.rank == 0 else ([], {}))
    mine = share(sample, lambda shard: size[shard] + 1.0, world.size)[world.rank]  # rank 0 has at least one
    pickers, refused = _pickers(config, wanted) if mine else ({}, {})
    parts: list[Looked] = []
    if mine:
        look, progress = looker(config, wanted, pickers), Progress("compared station-days", len(mine))
        for shard in mine:
            parts.append(look(shard))
            progress.step(shard.id)
    gathered = world.gather((parts, refused))
    if gathered is None:
        return None
    looked = sorted((part for rank, _ in gathered for part in rank), key=lambda part: part.shard)
    refused = {name: why for _, one in gathered for name, why in one.items()}  # by any rank
    everywhere = {name: picker for name, picker in pickers.items() if name not in refused}
    if not everywhere:
        raise ConfigError(f"no wanted precision is offered on all ranks: {'; '.join(refused.values())}")
    return replace(summed_up(config, wanted, everywhere, looked), refused=refused)


def chosen(config: Config, wanted: Wanted) -> tuple[list[Shard], dict[Shard, int]]:
    """The shards to compare, spread over stations and days, and the bytes of each."""
    names = config.stations

    def taken(name: str) -> bool:
        return stations.wanted(name, names.include, names.exclude) and stations.wanted(
            name, wanted.stations or ("*",), ()
        )

    found: dict[Shard, int] = {}
    for start, stop in _spans(config.run.span_ns, wanted.days):
        found |= dict(archive.find_shards(config.archive, taken, (start, stop)))
    if not found:
        raise ConfigError(
            f"archive.root {config.archive.root}: no waveforms to compare between {config.run.start} and "
            f"{config.run.end}; look at --stations, --days, archive.layout and stations.include"
        )
    return parity.sample(list(found), wanted.limit), found


def _spans(run_ns: tuple[int, int], days: tuple[date, ...]) -> list[tuple[int, int]]:
    if not days:
        return [run_ns]
    within = [Shard(day, "..", "").within_ns(run_ns) for day in days]
    return [(start, stop) for start, stop in within if stop > start]


def _pickers(config: Config, wanted: Wanted) -> tuple[dict[str, Picker], dict[str, str]]:
    """A picker of each precision, and why the network does not offer the others on this machine.

    Raises ConfigError if there is none: then the reason may be another than the precision.
    """
    names = wanted.precisions or tuple(dict.fromkeys(("fp32", config.pick.precision)))
    pickers, refused = {}, {}
    for name in names:
        try:
            pickers[name] = Picker.of(config.pick.model_copy(update={"precision": name}), config.compute)
        except ConfigError as e:
            refused[name] = str(e)
    if not pickers:
        raise ConfigError("; ".join(dict.fromkeys(refused.values())))
    return pickers, refused


def looker(config: Config, wanted: Wanted, pickers: dict[str, Picker]) -> Look:
    """Load the reference once; the function it returns compares one shard."""
    reference = Reference.of(config.pick)

    def look(shard: Shard) -> Looked:
        try:
            return _look(config, wanted.raw, pickers, reference, shard)
        except (NoData, BadData) as e:
            log.warning("%s cannot be compared: %s", shard.id, e)
            return Looked(shard, str(e), Picks.empty(), dict.fromkeys(pickers, (Picks.empty(), np.zeros(2))))

    return look


def _look(config: Config, raw: bool, pickers: dict[str, Picker], reference: Reference, shard: Shard) -> Looked:
    """Both see the same span, without midnights and without segments shorter than a window."""
    span_ns, first = shard.within_ns(config.run.span_ns), next(iter(pickers.values()))
    wave, _ = waveforms.read_shard(config.archive, shard, 0.0, first.rate_hz, config.run.span_ns)
    wave = parity.comparable(wave, span_ns, int(reference.model.in_samples))
    if not wave.valid.any():
        raise NoData("no stretch of data as long as a window")
    stream = streams.of_archive(config.archive, shard, span_ns) if raw else streams.of_waveform(wave, shard)
    theirs, traces = reference.look(stream, wave, shard.channel, config.compute.threads)
    ours = {}
    for name, picker in pickers.items():
        (found,), (scores,) = Pickers((picker,)).both(wave)
        picks = triggers.picks(found, wave, shard.channel, 0.0, ALWAYS)
        ours[name] = picks, parity.trace_difference(scores, traces)
    return Looked(shard, "", theirs, ours, np.count_nonzero(wave.valid) / wave.rate_hz, parity.digest(wave))


def summed_up(config: Config, wanted: Wanted, pickers: dict[str, Picker], looked: list[Looked]) -> Report:
    """Raises ConfigError if no shard could be compared."""
    some = [part for part in looked if not part.left_out]
    if not some:
        raise ConfigError(f"none of {len(looked)} station-days could be compared: {looked[0].left_out}")
    theirs = Picks.concat([part.theirs for part in some])
    agreements = {}
    for name in pickers:
        ours = Picks.concat([part.ours[name][0] for part in some])
        traces = np.fmax.reduce([part.ours[name][1] for part in some])
        agreements[name] = [
            parity.agreement(phase, ours, theirs, float(trace)) for phase, trace in zip(PHASES, traces, strict=True)
        ]
    data = hashlib.sha256("".join(part.digest for part in some).encode()).hexdigest()
    about = {"raw": wanted.raw, "n_shards": len(some), "data": data}
    checks = [
        checked.check_of(config.pick, config.compute, picker, agreements[name], about)
        for name, picker in pickers.items()
    ]
    left_out = {part.shard.id: part.left_out for part in looked if part.left_out}
    return Report(checks, agreements, sum(part.seconds for part in some), left_out, {})


def text(report: Report) -> str:
    """What is printed: one line a precision and phase, the picks that only one side has, and the verdicts."""
    one = report.checks[0]
    lines = [
        f"{one.weight} on {one.device} ({one.engine}) and SeisBench {one.versions['seisbench']} in FP32 on cpu, "
        f"{'the raw archive' if one.raw else 'the same waveforms'}: {one.n_shards} station-days, "
        f"{report.seconds / 3600:.1f} h of data",
        f"{'':9} phase SeisBench    ours  common      F1 | |dt| s median     max | |dp| median     max"
        " | |dp| of traces max",
    ]
    for name, phases in report.agreements.items():
        lines += [_row(name, agreement) for agreement in phases]
    for name, phases in report.agreements.items():
        lines += [line for agreement in phases for line in _alone(name, agreement)]
    lines += [f"left out: {shard}: {why}" for shard, why in report.left_out.items()]
    lines += [f"{check.precision}: {check.verdict}" for check in report.checks]
    lines += [
        f"{name}: not offered here, the exit code is that of the others: {w}" for name, w in report.refused.items()
    ]
    return "\n".join(lines)


def _row(name: str, a: Agreement) -> str:
    (dt, dp), (dt_max, dp_max) = a.median, a.largest
    return (
        f"{name:9} {a.phase:5} {a.n_theirs:9} {a.n_ours:7} {a.n_common:7} {a.f1:7.4f} | {dt:13.6f} {dt_max:7.4f} | "
        f"{dp:11.1e} {dp_max:7.1e} | {a.trace:18.1e}"
    )


def _alone(name: str, a: Agreement) -> list[str]:
    lines = []
    for side, picks in (("ours", a.only_ours), ("SeisBench", a.only_theirs)):
        lines += [f"{name} {a.phase} only {side}: {pick}" for pick in _listed(picks)[:SHOWN]]
        lines += [f"{name} {a.phase} only {side}: {len(picks) - SHOWN} more"] * (len(picks) > SHOWN)
    return lines


def _listed(picks: Picks) -> list[str]:
    times = picks.time_ns.astype("datetime64[ns]").astype("datetime64[us]").astype(str)
    return [f"{c} {t}Z probability {p:.4f}" for c, t, p in zip(picks.station, times, picks.probability, strict=True)]


def write_json(reports: list[Report], path: Path) -> None:
    """Raises ConfigError if ``path`` cannot be written."""
    with checked.written(path, "--json") as part:
        part.write_text(as_json(reports), "utf-8")


def as_json(reports: list[Report]) -> str:
    """All figures, and every pick of one side only."""
    return json.dumps([_plain(_body(report)) for report in reports], indent=1, allow_nan=False) + "\n"


def _body(report: Report) -> dict[str, Any]:
    return {
        "checks": checked.CHECKS.dump_python(report.checks, mode="json"),
        "agreements": {name: [_figures(a) for a in phases] for name, phases in report.agreements.items()},
        "hours": report.seconds / 3600,
        "left_out": report.left_out,
        "refused": report.refused,
    }


def _figures(a: Agreement) -> dict[str, Any]:
    figures = {f.name: getattr(a, f.name) for f in fields(a)}
    return figures | {"f1": a.f1, "only_ours": _listed(a.only_ours), "only_theirs": _listed(a.only_theirs)}


def _plain(value: Any) -> Any:
    """NaN is not JSON: null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value
