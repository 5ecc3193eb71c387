"""One shard of the stage `pick`: found here or on another machine, published by whoever holds its claim."""

from __future__ import annotations

import logging
import math
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.cluster import exchange
from pipeline.cluster.exchange import Lost, Scorer
from pipeline.config import Compute, Config, Pick
from pipeline.errors import ConfigError, Incomplete, NoData
from pipeline.formats import results, tries, waveforms
from pipeline.maths import triggers
from pipeline.meter import Meter
from pipeline.models import checked
from pipeline.records import NS, Outcome, Picks, Runs, Scores, Shard, Waveform
from pipeline.rundir import RunDir, publish
from pipeline.stages import pick_amplitudes

log = logging.getLogger(__name__)
Reading = tuple[Waveform, tuple[str, ...]]  # and notes on what was repaired
Get = Callable[[], Any]  # a `Reading`, of a network that of `pick_network`
Read = Callable[[Shard], Any]
MakeScorer = Callable[[Pick, Compute], Any]  # a `Local`, or a picker of networks
MakeRead = Callable[[Config, Any], Read]
Makers = tuple[MakeScorer, MakeRead]
Targets = Sequence[tuple[RunDir, Config]]  # of each picker, the main one first


@dataclass(frozen=True, slots=True)
class Found:
    """How one shard ended for each picker, and the probabilities of each, if they are to be saved.

    ``members``: of a network how each of its station-days ended.
    """

    ended: list[tuple[Picks, Outcome]]
    scores: tuple[Scores, ...] = ()
    members: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """Why one shard has no result."""

    reason: str
    traceback: str


def local_scorer(pick: Pick, compute: Compute) -> exchange.Local:
    """All pickers of the run on this rank. Raises ConfigError. Only a rank that scores carries torch."""
    from pipeline.models.picker import Pickers

    checked.require(pick, compute)
    return Pickers.of(pick, compute)


def archive_reader(config: Config, scorer: Scorer) -> Read:
    """What reads a shard as ``scorer`` needs it."""
    context_s = max(config.archive.context_s, scorer.context_s)

    def read(shard: Shard) -> Reading:
        span_ns, threads = config.run.span_ns, config.compute.threads
        return waveforms.read_shard(config.archive, shard, context_s, scorer.rate_hz, span_ns, threads)

    return read


def find(config: Config, pickers: int, shard: Shard, scorer: Any, get: Get, own: Meter) -> Found | Failed:
    """Read, score and pick one shard with so many ``pickers``; the one place where a shard's errors are caught.

    ``scorer`` is a `Scorer`, or a picker of networks where the shard is of one.
    """
    try:
        if shard.network:
            from pipeline.stages import pick_network  # here, for it builds on this file

            return pick_network.detect(config, shard, scorer, get, own)
        return _detect(config, shard, scorer, get, own)
    except NoData as e:
        return Found([(Picks.empty(), Outcome(shard.id, "empty", str(e), 0, 0.0))] * pickers)
    except (ConfigError, Lost, Incomplete):
        raise
    except Exception as e:  # noqa: BLE001  a bad shard must not end the night: it is recorded and tried again
        return Failed(f"{type(e).__name__}: {e}", traceback.format_exc())


def _detect(config: Config, shard: Shard, scorer: Scorer, get: Get, own: Meter) -> Found:
    span_ns = shard.within_ns(config.run.span_ns)
    waveform, notes = get()
    with own.time("wait" if isinstance(scorer, exchange.Remote) else "score"):
        found, scores = _scored(config, scorer, waveform)
    fraction = valid_fraction(waveform, span_ns)
    apart_s = config.pick.min_separation_s
    with own.time("triggers"):
        picked = [triggers.picks(runs, waveform, shard.channel, apart_s, span_ns) for runs in found]
    with own.time("amplitudes"):
        picked, more = pick_amplitudes.measured(config, shard, waveform, picked)
    ended = [(each, Outcome(shard.id, "picked", "", len(each), fraction, notes + more)) for each in picked]
    return Found(ended, scores)


def _scored(config: Config, scorer: Scorer, waveform: Waveform) -> tuple[tuple[Runs, ...], tuple[Scores, ...]]:
    """The runs of each picker, and its probabilities if they are to be saved."""
    return scorer.both(waveform) if config.pick.save_probabilities else (scorer.runs(waveform), ())


def valid_fraction(wave: Waveform, span_ns: tuple[int, int]) -> float:
    """Share of the span with data."""
    first, stop = (max(0, math.ceil((edge - wave.start_ns) / NS * wave.rate_hz)) for edge in span_ns)
    inside = np.count_nonzero(wave.valid[first:stop])
    return float(min(1.0, inside / ((span_ns[1] - span_ns[0]) / NS * wave.rate_hz)))


def count(own: Meter, config: Config, shard: Shard, found: Found) -> None:
    """Add one shard to what a meter's process did."""
    start, stop = shard.within_ns(config.run.span_ns)
    n_picks = sum(len(picks) for picks, _ in found.ended)
    stations = found.members or (found.ended[0][1],)
    own.count(shards=1, picks=n_picks, data_s=sum(each.valid_fraction for each in stations) * (stop - start) / NS)


def keep(targets: Targets, shard: Shard, ended: Found | Failed, start: str) -> Counter[str]:
    """Publish how one shard ended, for each picker; its end. Raises ConfigError if too many have failed."""
    if isinstance(ended, Failed):
        for run_dir, _ in targets:
            tries.write(run_dir, shard, ended.reason, ended.traceback, start)
        log.error("shard %s failed: %s", shard.id, ended.reason)
        stop_if_too_many(*targets[0])
        return Counter({"failed": 1})
    for (run_dir, _), scores in zip(targets, ended.scores, strict=False):
        _save(run_dir, shard, scores)
    # The main picker last: what it has, all have.
    for (run_dir, _), (picks, outcome) in reversed(list(zip(targets, ended.ended, strict=True))):
        results.write_part(run_dir, shard, picks, outcome, ended.members)
    picks, outcome = ended.ended[0]
    return Counter({outcome.end: 1, "picks": len(picks)})


def stop_if_too_many(run_dir: RunDir, config: Config) -> None:
    """Raises ConfigError if more than ``compute.max_failed`` shards of the run have failed or were set aside."""
    compute = config.compute
    max_failed = compute.max_failed
    if tries.count(run_dir, max_failed) <= max_failed:  # the notes themselves are dear to read
        return
    failed = [note for note in results.notes(run_dir) if not note.died or note.is_aside(compute.max_tries)]
    if len(failed) > max_failed:
        raise ConfigError(
            f"{run_dir.root}: {len(failed)} shards failed, more than compute.max_failed = {max_failed}; the last: "
            f"{failed[-1].shard}: {failed[-1].reason}. Tracebacks lie in {run_dir.folder('failed')}"
        )


def _save(run_dir: RunDir, shard: Shard, scores: Scores) -> None:
    """Probability traces as NPZ: probability float16 (phases, n), phases, start_ns, rate_hz."""
    with publish(run_dir.probabilities(shard)) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            probability=scores.probability.astype(np.float16),
            phases=np.array(scores.phases),
            start_ns=np.int64(scores.start_ns),
            rate_hz=np.float64(scores.rate_hz),
        )
