"""Stage `pick`: waveforms in, picks out, one published part a shard, folded by day."""

from __future__ import annotations

import json
import logging
import traceback
from collections import Counter
from collections.abc import Callable

import numpy as np

from pipeline.cluster.world import World, share
from pipeline.config import Config
from pipeline.errors import ConfigError, NoData
from pipeline.formats import results, tables, waveforms
from pipeline.logs import Progress
from pipeline.maths import triggers
from pipeline.models import weights
from pipeline.models.picker import Picker
from pipeline.records import NS, Outcome, Picks, Scores, Shard, Shards, Waveform
from pipeline.rundir import RunDir, publish, require

log = logging.getLogger(__name__)
Detect = Callable[[Shard], tuple[Picks, Outcome]]


def run(run_dir: RunDir, config: Config, world: World, make_detect: Callable[[], Detect] | None = None) -> Counter[str]:
    """Pick every shard that has no result yet. Safe to kill and to repeat.

    Returns the tally of ends of this call's shards over all ranks. Raises ConfigError once more than
    ``compute.max_failed`` shards of the run have failed.
    """
    plan = tables.read(require(run_dir.shards, "plan"), Shards)
    shards = plan.rows()
    # One look at the disk, by one rank: the answer changes while others publish.
    todo = world.bcast(results.missing(run_dir, shards) if world.rank == 0 else [])
    if todo and world.rank == 0 and make_detect is None:
        require_same_weights(run_dir, config.pick.weight)
    world.bcast(None)
    size = dict(zip(shards, plan.bytes.tolist(), strict=True))
    mine = share(todo, lambda shard: size[shard] + 1.0, world.size)[world.rank]
    tally: Counter[str] = Counter()
    if mine:
        detect = make_detect() if make_detect else detector(run_dir, config)
        progress = Progress("picked shards", len(mine))
        for shard in mine:
            tally += pick_shard(run_dir, config, shard, detect)
            progress.step(shard.id)
    tallies = world.gather(tally)
    if world.rank == 0:
        results.fold(run_dir, shards)
    return world.bcast(sum(tallies, Counter()) if tallies else tally)


def require_same_weights(run_dir: RunDir, name: str) -> None:
    """Note which weights this run is picked with. Raises ConfigError if it was begun with others."""
    mine = {"name": name, "sha256": weights.digest(name)}
    if not run_dir.weights.exists():
        with publish(run_dir.weights) as part:
            part.write_text(json.dumps(mine, indent=1) + "\n")
    noted = json.loads(run_dir.weights.read_text("utf-8"))
    if noted != mine:
        raise ConfigError(
            f"{run_dir.weights}: this run was begun with weights {noted['name']} of sha256 {noted['sha256'][:12]}, not "
            f"{mine['sha256'][:12]}: bring those back, or begin a new run directory"
        )


def pick_shard(run_dir: RunDir, config: Config, shard: Shard, detect: Detect) -> Counter[str]:
    """Pick one shard and publish how it ended; the one place where a shard's errors are caught."""
    try:
        picks, outcome = detect(shard)
    except NoData as e:
        picks, outcome = Picks.empty(), Outcome(shard.id, "empty", str(e), 0, 0.0)
    except ConfigError:
        raise
    except Exception as e:  # noqa: BLE001  a bad shard must not end the night: it is recorded and tried again
        results.write_failure(run_dir, shard, f"{type(e).__name__}: {e}", traceback.format_exc())
        log.error("shard %s failed: %s", shard.id, e)
        _stop_if_too_many(run_dir, config.compute.max_failed)
        return Counter({"failed": 1})
    results.write_part(run_dir, shard, picks, outcome)
    return Counter({outcome.end: 1, "picks": len(picks)})


def _stop_if_too_many(run_dir: RunDir, max_failed: int) -> None:
    failed = results.failures(run_dir)
    if len(failed) > max_failed:
        raise ConfigError(
            f"{run_dir.root}: {len(failed)} shards failed, more than compute.max_failed = {max_failed}; the last: "
            f"{failed[-1].shard}: {failed[-1].reason}. Tracebacks lie in {run_dir.folder('failed')}"
        )


def detector(run_dir: RunDir, config: Config) -> Detect:
    """Load the picker once; the function it returns reads and picks one shard."""
    picker = Picker.of(config.pick, config.compute)
    context_s = max(config.archive.context_s, picker.context_s)

    def detect(shard: Shard) -> tuple[Picks, Outcome]:
        span_ns = shard.within_ns(config.run.span_ns)
        wave, notes = waveforms.read_shard(config.archive, shard, context_s, picker.rate_hz, config.run.span_ns)
        if config.pick.save_probabilities:
            _save(run_dir, shard, picker.scores(wave))
        picks = triggers.picks(picker.runs(wave), wave, shard.channel, config.pick.min_separation_s, span_ns)
        return picks, Outcome(shard.id, "picked", "", len(picks), _valid_fraction(wave, span_ns), notes)

    return detect


def _valid_fraction(wave: Waveform, span_ns: tuple[int, int]) -> float:
    """Share of the span with data."""
    at_ns = wave.start_ns + np.flatnonzero(wave.valid) * (NS / wave.rate_hz)
    inside = np.count_nonzero((at_ns >= span_ns[0]) & (at_ns < span_ns[1]))
    return float(min(1.0, inside / ((span_ns[1] - span_ns[0]) / NS * wave.rate_hz)))


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
