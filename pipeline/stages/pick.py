"""Stage `pick`: waveforms in, picks out, one published part a shard and picker, folded by day."""

from __future__ import annotations

import json
import logging
import math
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from pipeline import meter
from pipeline.cluster import exchange, roles, scratch
from pipeline.cluster.exchange import Local, Lost, Scorer
from pipeline.cluster.roles import Role
from pipeline.cluster.world import World, share
from pipeline.config import Compute, Config, Pick
from pipeline.errors import ConfigError, NoData
from pipeline.formats import results, tables, waveforms
from pipeline.logs import Progress
from pipeline.maths import triggers
from pipeline.maths.spent import sentences, totals
from pipeline.meter import Meter
from pipeline.models import checked, weights
from pipeline.models.native import build
from pipeline.records import NS, Outcome, Picks, Runs, Scores, Shard, Shards, Waveform
from pipeline.rundir import RunDir, of_pickers, publish, require

log = logging.getLogger(__name__)
Reading = tuple[Waveform, tuple[str, ...]]  # and notes on what was repaired
Get = Callable[[], Reading]
Read = Callable[[Shard], Reading]
MakeScorer = Callable[[Pick, Compute], Local]
MakeRead = Callable[[Config, Scorer], Read]
Makers = tuple[MakeScorer, MakeRead]
Targets = Sequence[tuple[RunDir, Config]]  # of each picker, the main one first


def local_scorer(pick: Pick, compute: Compute) -> Local:
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


def run(
    run_dir: RunDir,
    config: Config,
    world: World,
    make_scorer: MakeScorer = local_scorer,
    make_read: MakeRead = archive_reader,
) -> Counter[str]:
    """Pick every shard that has no result yet. Safe to kill and to repeat.

    Returns the tally of ends of this call's shards over all ranks. Raises ConfigError once more than
    ``compute.max_failed`` shards of the run have failed, Lost if a scorer does not answer.
    """
    plan = tables.read(require(run_dir.shards, "plan"), Shards)
    targets = of_pickers(run_dir, config)
    # One look at the disk, by one rank: the answer changes while others publish.
    todo = world.bcast(results.missing(run_dir, plan.rows()) if world.rank == 0 else [])
    tally: Counter[str] = Counter()
    start = world.bcast(meter.new_start() if world.rank == 0 else "")
    own = Meter(start, world.rank, config)
    if todo:
        # One rank decides, or nodes with and without a compiler would score differently.
        targets = world.bcast(settled(targets) if world.rank == 0 else [])
        own = Meter(start, world.rank, targets[0][1])
        if world.rank == 0:
            require_same_weights(targets)
        everyone = roles.take(world, config.compute)  # here all wait for rank 0
        mine = hand(plan, todo, [rank for rank, role in enumerate(everyone) if role.reads], world.rank)
        own.on(everyone[world.rank].device)
        tally = work(targets, mine, everyone[world.rank], world, (make_scorer, make_read), own)
    tallies = world.gather(tally)
    world.bcast(None)  # all parts are published
    with own.time("fold"):
        for each, _ in reversed(targets):
            results.fold(each, of_days(plan.rows(), world))
    world.gather(None)  # all days are folded
    if todo:
        _keep(run_dir, world, own)
    return world.bcast(sum(tallies, Counter()) if tallies else tally)


def of_days(shards: list[Shard], world: World) -> list[Shard]:
    """The shards of the days that are this rank's to fold."""
    days = set(sorted({shard.day for shard in shards})[world.rank :: world.size])
    return [shard for shard in shards if shard.day in days]


def _keep(run_dir: RunDir, world: World, own: Meter) -> None:
    """Keep what all ranks spent, and say it."""
    spent = world.gather(own.spent)
    if spent:
        meter.close(run_dir.meter, spent)
        for line in sentences(totals(spent)):
            log.info("%s", line)


def settled(targets: Targets) -> list[tuple[RunDir, Config]]:
    """The same with ``compute.engine`` "kernels" or "seisbench" instead of "auto", on CPUs."""
    compute = targets[0][1].compute
    if compute.engine != "auto" or compute.device != "cpu":
        return list(targets)
    reason = build.available()
    if reason:
        log.warning("picking with SeisBench's own networks, which takes several times as long: %s", reason)
    chosen = compute.model_copy(update={"engine": "seisbench" if reason else "kernels"})
    return [(run_dir, config.model_copy(update={"compute": chosen})) for run_dir, config in targets]


def require_same_weights(targets: Targets) -> None:
    """Note in each run directory with which weights it is picked, and by what: the last bits depend on that, too.

    Raises ConfigError if it was begun with others.
    """
    for run_dir, config in targets:
        names = config.pick.weights if config.pick.ensemble else (config.pick.weight,)
        by = f"{config.compute.engine} on {config.compute.device.partition(':')[0]}"
        mine = [{"name": name, "sha256": weights.digest(name), "engine": by} for name in names]
        if not run_dir.weights.exists():
            with publish(run_dir.weights) as part:
                part.write_text(json.dumps(mine if config.pick.ensemble else mine[0], indent=1) + "\n")
        noted = json.loads(run_dir.weights.read_text("utf-8"))
        for old, new in zip(noted if isinstance(noted, list) else [noted], mine, strict=True):
            if old.get("engine", by) != by:
                raise ConfigError(
                    f"{run_dir.weights}: this run was begun with {old['engine']}, not {by}, and probabilities would "
                    "differ in their last bits: set compute.engine and compute.device as they were, begin a new run "
                    'directory, or take the line "engine" out of this file to go on with a mixture'
                )
            if (old["name"], old["sha256"]) != (new["name"], new["sha256"]):
                raise ConfigError(
                    f"{run_dir.weights}: this run was begun with weights {old['name']} of sha256 {old['sha256'][:12]}, "
                    f"not {new['sha256'][:12]}: bring those back, or begin a new run directory"
                )


def hand(plan: Shards, todo: Sequence[Shard], readers: list[int], rank: int) -> list[Shard]:
    """The part of ``todo`` that is this ``rank``'s to read."""
    size = dict(zip(plan.rows(), plan.bytes.tolist(), strict=True))
    hands = share(todo, lambda shard: size[shard] + 1.0, len(readers))
    return hands[readers.index(rank)] if rank in readers else []


def work(targets: Targets, mine: list[Shard], role: Role, world: World, make: Makers, own: Meter) -> Counter[str]:
    """What ``role`` asks of this rank: score until all its readers are done, or pick its own shards."""
    config, (make_scorer, make_read) = targets[0][1], make
    compute = config.compute.model_copy(update={"device": role.device})
    if role.clients:
        with own.time("load"):
            scorer = make_scorer(config.pick, compute)
        serve(scorer, role.clients, world, own, targets[0][0])
    elif role.server is not None:
        parent = scratch.folder(compute, readers=len(world.node))
        with exchange.remote(world, role.server, parent, compute.answer_timeout_s) as remote:
            read = own.timed(make_read(config, remote), "read")
            return pick_shards(targets, mine, remote, waited(ahead(read, mine), own), own)
    elif mine:
        with own.time("load"):
            scorer = make_scorer(config.pick, compute)
        read = own.timed(make_read(config, scorer), "read")
        gets = in_turn(read, mine) if role.device == "cpu" else waited(ahead(read, mine), own)
        return pick_shards(targets, mine, scorer, gets, own)
    return Counter()


def serve(scorer: Local, clients: tuple[int, ...], world: World, own: Meter, run_dir: RunDir) -> None:
    """Score for ``clients`` until they hang up."""

    def metered(answer: Callable[[Any], object]) -> Callable[[Any], object]:
        def call(held: Any) -> object:
            with own.time("score"):
                found = answer(held)
            own.keep(run_dir.meter)
            return found

        return call

    greeting = exchange.Greeting(scorer.rate_hz, scorer.context_s)
    answers: dict[exchange.Wanted, Callable[[Any], object]] = {
        "runs": metered(scorer.runs_of),
        "both": metered(scorer.both_of),
    }
    calls = exchange.serve(world, greeting, scorer.load, answers, clients)
    log.info("scored %d waveforms for ranks %s", calls, ", ".join(map(str, clients)))


def in_turn(read: Read, shards: Sequence[Shard]) -> Iterator[Get]:
    """What reads each shard."""
    yield from (partial(read, shard) for shard in shards)


def ahead(read: Read, shards: Sequence[Shard]) -> Iterator[Get]:
    """As `in_turn`, but a thread reads the next shard while this rank is busy with, or waits for, the present one."""
    with ThreadPoolExecutor(1, "read") as reader:
        coming = deque(reader.submit(read, shard) for shard in shards[:1])
        for i in range(len(shards)):
            coming.extend(reader.submit(read, shard) for shard in shards[i + 1 : i + 2])
            yield coming.popleft().result


def waited(gets: Iterator[Get], own: Meter) -> Iterator[Get]:
    """``gets``, the time that they take counted as waiting."""
    return (own.timed(get, "wait") for get in gets)


def pick_shards(
    targets: Targets, shards: Sequence[Shard], scorer: Scorer, gets: Iterator[Get], own: Meter
) -> Counter[str]:
    """Pick ``shards``, each read by one of ``gets``."""
    tally, progress = Counter[str](), Progress("picked shards", len(shards))
    for shard, get in zip(shards, gets, strict=True):
        tally += pick_shard(targets, shard, scorer, get, own)
        own.keep(targets[0][0].meter)
        progress.step(shard.id)
    return tally


def pick_shard(targets: Targets, shard: Shard, scorer: Scorer, get: Get, own: Meter) -> Counter[str]:
    """Pick one shard and publish how it ended; the one place where a shard's errors are caught."""
    try:
        ended = detect(targets, shard, scorer, get, own)
    except NoData as e:
        ended = [(Picks.empty(), Outcome(shard.id, "empty", str(e), 0, 0.0))] * len(targets)
    except (ConfigError, Lost):
        raise
    except Exception as e:  # noqa: BLE001  a bad shard must not end the night: it is recorded and tried again
        for run_dir, _ in targets:
            results.write_failure(run_dir, shard, f"{type(e).__name__}: {e}", traceback.format_exc())
        log.error("shard %s failed: %s", shard.id, e)
        _stop_if_too_many(*targets[0])
        return Counter({"failed": 1})
    # The main picker last: what it has, all have.
    with own.time("publish"):
        for (run_dir, _), (picks, outcome) in reversed(list(zip(targets, ended, strict=True))):
            results.write_part(run_dir, shard, picks, outcome)
    picks, outcome = ended[0]
    start, stop = shard.within_ns(targets[0][1].run.span_ns)
    n_picks = sum(len(found) for found, _ in ended)
    own.count(shards=1, picks=n_picks, data_s=outcome.valid_fraction * (stop - start) / NS)
    return Counter({outcome.end: 1, "picks": len(picks)})


def detect(targets: Targets, shard: Shard, scorer: Scorer, get: Get, own: Meter) -> list[tuple[Picks, Outcome]]:
    """Read, score and pick one shard: what each picker found."""
    config = targets[0][1]
    span_ns = shard.within_ns(config.run.span_ns)
    waveform, notes = get()
    with own.time("wait" if isinstance(scorer, exchange.Remote) else "score"):
        found = _scored(targets, shard, scorer, waveform)
    fraction = _valid_fraction(waveform, span_ns)
    ended = []
    for runs in found:
        with own.time("triggers"):
            picks = triggers.picks(runs, waveform, shard.channel, config.pick.min_separation_s, span_ns)
        ended.append((picks, Outcome(shard.id, "picked", "", len(picks), fraction, notes)))
    return ended


def _scored(targets: Targets, shard: Shard, scorer: Scorer, waveform: Waveform) -> tuple[Runs, ...]:
    """The runs of each picker; their probabilities are saved if that is wished."""
    if not targets[0][1].pick.save_probabilities:
        return scorer.runs(waveform)
    found, scores = scorer.both(waveform)
    for (run_dir, _), each in zip(targets, scores, strict=True):
        _save(run_dir, shard, each)
    return found


def _stop_if_too_many(run_dir: RunDir, config: Config) -> None:
    failed, max_failed = results.failures(run_dir), config.compute.max_failed
    if len(failed) > max_failed:
        raise ConfigError(
            f"{run_dir.root}: {len(failed)} shards failed, more than compute.max_failed = {max_failed}; the last: "
            f"{failed[-1].shard}: {failed[-1].reason}. Tracebacks lie in {run_dir.folder('failed')}"
        )


def _valid_fraction(wave: Waveform, span_ns: tuple[int, int]) -> float:
    """Share of the span with data."""
    first, stop = (max(0, math.ceil((edge - wave.start_ns) / NS * wave.rate_hz)) for edge in span_ns)
    inside = np.count_nonzero(wave.valid[first:stop])
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
