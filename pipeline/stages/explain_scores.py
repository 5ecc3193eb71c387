"""The minutes around the arrivals of one event, scored once more with the picker of the run."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config import Config
from pipeline.errors import BadData, ConfigError, NoData
from pipeline.formats import results, waveforms
from pipeline.maths import reasons
from pipeline.maths.names import site
from pipeline.maths.reasons import Expected
from pipeline.models import begun, checked, weights
from pipeline.records import NS, Float, Float32, Int, Scores, Shard, Waveform
from pipeline.rundir import RunDir
from pipeline.stages.explain_inputs import Inputs

if TYPE_CHECKING:  # it brings torch along
    from pipeline.models.picker import Picker

log = logging.getLogger(__name__)
AROUND_S = 30.0  # before the first and after the last arrival at a station


@dataclass(frozen=True, slots=True)
class Trace:
    """What a station recorded around the arrivals, and what the picker makes of it."""

    shard: Shard
    waveform: Waveform
    scores: Scores


@dataclass(frozen=True, slots=True)
class Scored:
    """What scoring once more found. ``about`` says with what, or why it was not tried.

    ``traces`` are by station; ``problems`` says why one has none. Of each arrival (n,): the probability of its phase at
    our pick, or the highest peak within the tolerance (NaN: not known), and when that is (0: not known).
    """

    about: str
    traces: dict[str, Trace]
    problems: dict[str, str]
    probability: Float
    time_ns: Int

    @property
    def tried(self) -> bool:
        return bool(self.traces or self.problems)


def scored(inputs: Inputs, seen: Expected) -> tuple[Expected, Scored]:
    """The arrivals of one event scored once more, one station at a time; those in a gap of the data say so now.

    The windows are those of the run, and so are the probabilities, but for a run in another precision than FP32.
    """
    unknown = np.full(len(seen), np.nan), np.zeros(len(seen), np.int64)
    if inputs.imported:
        return seen, Scored("not tried: the picks are imported", {}, {}, *unknown)
    try:
        picker = _picker(inputs)
    except ConfigError as e:
        return seen, Scored(f"not tried: {e}", {}, {}, *unknown)
    traces, problems, empty = dict[str, Trace](), dict[str, str](), set[str]()
    for station, shard in _shards(inputs, seen).items():
        try:
            traces[station] = _trace(inputs.config, picker, shard, seen.time_ns[seen.station == station])
        except NoData as e:
            problems[station] = str(e)
            empty.add(station)
        except BadData as e:  # the run could read it: nothing new is known
            problems[station] = str(e)
    found = Scored(f"with {picker.name}", traces, problems, *_read_off(inputs.config, seen, traces))
    return _gaps(seen, traces, empty), found


def _picker(inputs: Inputs) -> Picker:
    """The main picker of the run, or its ensemble. Raises ConfigError if it is not to be had here."""
    config = inputs.config
    if config.archive.root is None or not config.archive.root.is_dir():
        raise ConfigError(f"archive.root {config.archive.root} is not here")
    pick = config.pick if config.pick.ensemble else config.pick.pickers[0]
    if pick.of_networks:
        raise ConfigError(f"{pick.weight} scores networks as a whole, which this does not do again")
    _require_same(inputs.run_dir)
    from pipeline.models.picker import Pickers

    _, settled = begun.settled([(inputs.run_dir, config)])[0]
    checked.require(pick, settled.compute)
    return Pickers.of(pick, settled.compute).pickers[0]


def _require_same(run_dir: RunDir) -> None:
    """Raises ConfigError if the weights here are not those of the run."""
    noted = json.loads(run_dir.weights.read_text("utf-8")) if run_dir.weights.exists() else []
    for each in noted if isinstance(noted, list) else [noted]:
        if weights.digest(each["name"]) != each["sha256"]:
            raise ConfigError(f"the weights {each['name']} here are not those of the run")


def _shards(inputs: Inputs, seen: Expected) -> dict[str, Shard]:
    """The shard to score of each station that has one: of its first arrival's day, one with our picks if there is."""
    plan, wanted = results.planned(inputs.run_dir), dict[str, str]()
    with_scores = np.isin(seen.state, (reasons.SCORED, reasons.FAILED, reasons.WAITING))
    for i in np.lexsort((seen.station, seen.time_ns)).tolist():
        if with_scores[i]:
            day = np.datetime64(int(seen.time_ns[i]), "ns").astype("datetime64[D]")
            wanted.setdefault(str(seen.station[i]), str(day))
    picked = set(inputs.picks.station[np.isin(inputs.picks.time_ns, seen.our_time_ns)].tolist())
    found: dict[str, Shard] = {}
    for shard in plan.take(np.isin(plan.day, sorted(set(wanted.values())))).rows():
        station = site(shard.station)
        if wanted.get(station) == f"{shard.day:%Y-%m-%d}" and (station not in found or shard.channel in picked):
            found[station] = shard
    return dict(sorted(found.items()))


def _trace(config: Config, picker: Picker, shard: Shard, time_ns: Int) -> Trace:
    """The shard read as the run did, so that its windows are the run's, and scored around its arrivals alone."""
    context_s = max(config.archive.context_s, picker.context_s)
    wave, _ = waveforms.read_shard(
        config.archive, shard, context_s, picker.rate_hz, config.run.span_ns, config.compute.threads
    )
    around = round(AROUND_S * NS)
    ends = int(time_ns.min()) - around - wave.start_ns, int(time_ns.max()) + around - wave.start_ns
    first, stop = (int(np.clip(round(end / NS * wave.rate_hz), 0, len(wave))) for end in ends)
    if first == stop:
        raise NoData(f"no data of {shard.channel} around the arrivals")
    scores = picker.scores_in(wave, first, stop)
    cut = Waveform(wave.samples[:, first:stop], wave.valid[first:stop], scores.start_ns, wave.rate_hz, wave.components)
    return Trace(shard, cut, scores)


def _read_off(config: Config, seen: Expected, traces: dict[str, Trace]) -> tuple[Float, Int]:
    """Of each arrival the probability of its phase at our pick of it, else at the highest peak within the tolerance."""
    probability, time_ns = np.full(len(seen), np.nan), np.zeros(len(seen), np.int64)
    for i, station in enumerate(seen.station.tolist()):
        if station not in traces:
            continue
        scores, phase = traces[station].scores, str(seen.phase[i])
        values = scores.probability[scores.phases.index(phase)]
        own = seen.our_phase[i] == phase
        tolerance_s = config.associate.max_sigma11_s if seen.predicted[i] else config.compare.pick_tolerance_s
        at_ns = int(seen.our_time_ns[i] if own else seen.time_ns[i])
        at = round((at_ns - scores.start_ns) / NS * scores.rate_hz)
        best = at if own else _highest(values, at, int(tolerance_s * scores.rate_hz))
        if 0 <= best < len(values) and np.isfinite(values[best]):
            probability[i] = values[best]
            time_ns[i] = scores.start_ns + round(best / scores.rate_hz * NS)
    return probability, time_ns


def _highest(values: Float32, at: int, reach: int) -> int:
    """The highest peak of ``values`` (n,) within ``reach`` samples of ``at``; that itself where there is none.

    The flank of a peak beyond is none: it is of a pick that is too far away.
    """
    first, stop = max(1, at - reach), min(len(values) - 1, at + reach + 1)
    if first >= stop:
        return at
    middle = values[first:stop]
    peaks = np.flatnonzero((middle >= values[first - 1 : stop - 1]) & (middle >= values[first + 1 : stop + 1]))
    return first + int(peaks[np.argmax(middle[peaks])]) if len(peaks) else at


def _gaps(seen: Expected, traces: dict[str, Trace], empty: set[str]) -> Expected:
    """The same arrivals; the state of one without a pick, where the data have a gap, is that."""
    state = seen.state.tolist()
    for i, station in enumerate(seen.station.tolist()):
        if state[i] == reasons.SCORED and not seen.our_phase[i]:
            at_gap = station in traces and _in_gap(traces[station], int(seen.time_ns[i]))
            state[i] = reasons.GAP if at_gap or station in empty else state[i]
    return replace(seen, state=np.array(state, np.str_)) if len(seen) else seen


def _in_gap(trace: Trace, time_ns: int) -> bool:
    """Whether there is no sample at a time of the shard's day."""
    wave, (start, stop) = trace.waveform, trace.shard.span_ns
    at = round((time_ns - wave.start_ns) / NS * wave.rate_hz)
    return start <= time_ns < stop and not (0 <= at < len(wave) and bool(wave.valid[at]))
