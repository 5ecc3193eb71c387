"""Stage `pick`: waveforms in, picks out, one published part a shard and picker, folded by volume."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from pipeline import meter
from pipeline.cluster import exchange, roles, scratch, stop
from pipeline.cluster.claims import Claims, holders
from pipeline.cluster.dealing import Task, ahead, awaited, deal, in_turn, rotated
from pipeline.cluster.exchange import Local, Scorer
from pipeline.cluster.roles import Role
from pipeline.cluster.world import World
from pipeline.config import Config
from pipeline.errors import Incomplete, is_storage, storage
from pipeline.formats import network_hours, results, tries
from pipeline.formats import todo as todos
from pipeline.formats.todo import UPDATE, Seen, Todo
from pipeline.logs import Progress
from pipeline.maths.spent import Spent, sentences, totals
from pipeline.meter import Meter
from pipeline.models import begun
from pipeline.records import Int, Shards
from pipeline.rundir import Hours, RunDir, of_networks, of_pickers, tidy
from pipeline.stages import pick_network, pick_shard
from pipeline.stages.pick_shard import Found, Get, MakeRead, Makers, MakeScorer, Targets

log = logging.getLogger(__name__)
NOBODY: Int = np.empty(0, np.int64)
Given = tuple[Task, Get]
Join = Callable[[RunDir, Shards, Sequence[str], Collection[str]], None]
Settle = Callable[[Seen, Claims, World], Counter[str]]


@dataclass(frozen=True, slots=True)
class Crew:
    """Pickers that work on one plan, that of the first of ``targets``; ``settle`` folds what is whole."""

    targets: Targets
    makers: Makers
    settle: Settle


@dataclass(frozen=True, slots=True)
class Turn:
    """What one rank is to read: about ``n`` shards, one after the other where each goes ``alone``."""

    tasks: Iterator[Task | None]
    n: int
    alone: bool


def run(
    run_dir: RunDir,
    config: Config,
    world: World,
    make_scorer: MakeScorer = pick_shard.local_scorer,
    make_read: MakeRead = pick_shard.archive_reader,
) -> Counter[str]:
    """Pick every shard that has no result yet and that no other living process picks. Safe to kill and to repeat.

    First come the pickers of stations, side by side, then each picker of networks.

    Returns the tally of ends of this call's shards (of networks as "picked hours") over all ranks; "stopped" counts
    ranks that left early, because they were told to, the plan was changed, or nothing could be written. Raises
    ConfigError once more than ``compute.max_failed`` shards of the run have failed, Lost if a scorer does not answer.
    """
    if config.compute.dask:
        from pipeline.cluster.dask import require_alone  # here, so that ranks need no Dask

        require_alone(world.size)
    with stop.listening():
        start = world.bcast(meter.new_start() if world.rank == 0 else "")
        tally = Counter[str]()
        if config.of_stations:
            targets = of_pickers(run_dir, config.of_stations)
            tally = _picked(Crew(targets, (make_scorer, make_read), partial(fold, targets)), start, world)
        for hours, alone in of_networks(run_dir, config):
            if not tally["stopped"]:
                makers = (pick_network.local_scorer, pick_network.archive_reader(hours))
                crew = Crew([(hours, alone)], makers, partial(fold_hours, [(hours, alone)]))
                tally = tally + pick_network.named(_picked(crew, start, world))
    return tally


def _picked(crew: Crew, start: str, world: World) -> Counter[str]:
    """What one crew found to do, done; see `run`."""
    targets = crew.targets
    (run_dir, config), dirs = targets[0], [each for each, _ in targets]
    seen = Seen.of(run_dir)
    require_one_plan(run_dir, seen, world)
    with Claims(run_dir.claims, config.compute.claim_timeout_s, partial(results.blame, dirs, seen.plan)) as claims:
        if world.rank == 0:
            clear(dirs, claims)
        # One look at the disk, by one rank: the answer changes while others publish.
        rows = world.bcast(todos.to_try(run_dir, seen.plan, config.compute.max_tries) if world.rank == 0 else NOBODY)
        todo = Todo(run_dir, seen, rows, config.compute.max_tries, start)
        tally = crew.settle(seen, claims, world)  # what is whole since an earlier start
        own, others = Meter(start, world.rank, config), list[Spent]()
        if len(rows):
            # One rank decides, or nodes with and without a compiler would score differently.
            targets = world.bcast(begun.settled(targets) if world.rank == 0 else [])
            own = Meter(start, world.rank, targets[0][1])
            if world.rank == 0:
                begun.require_same_weights(targets)
            if config.compute.dask:
                found, others = on_dask(targets, claims, todo, crew.makers, own, len(rows))
                tally = tally + found
            else:
                tally = tally + on_ranks(targets, claims, todo, crew.makers, own, world, len(rows))
        if not tally["stopped"]:
            with own.time("fold"):
                tally = tally + crew.settle(seen, claims, world)
    if len(rows):
        _keep(run_dir, world, [own.spent, *others])
    return tally


def require_one_plan(run_dir: RunDir, seen: Seen, world: World) -> None:
    """Raises Incomplete on all ranks if one has read another plan, for it was changed meanwhile."""
    stamps = world.gather(seen.stamp)
    if world.bcast(len(set(stamps)) > 1 if stamps else False):
        raise Incomplete(f"{run_dir.shards}: the plan changed while it was read: run again")


def clear(dirs: Sequence[RunDir], claims: Claims) -> None:
    """Take away what killed processes left: files that were not published, claims, an update that did not end."""
    for each in dirs:
        tidy(each)
        if isinstance(each, Hours):
            tidy(each.home)
            network_hours.reopen_lost(each)
    claims.tidy()
    claims.settle(UPDATE)


def on_ranks(
    targets: Targets, claims: Claims, todo: Todo, make: Makers, own: Meter, world: World, n: int
) -> Counter[str]:
    """Pick all that can be claimed, about ``n`` shards, on the ranks of ``world``; the tally of all.

    Shards of which or beside which a process died come last, one by one, while all other ranks rest: the next death
    is of that shard alone, also where the death of one rank ends all.
    """
    everyone = roles.take(world, targets[0][1].compute)  # here all wait for rank 0
    readers = [rank for rank, role in enumerate(everyone) if role.reads]
    if isinstance(targets[0][0], Hours):
        everyone = pick_network.alone(everyone, targets[0][1].compute.device)
        readers = [rank for rank, role in enumerate(everyone) if role.device]
    own.on(everyone[world.rank].device)

    def turn(blocks: list[int], hands: list[int], suspects: bool) -> Counter[str]:
        tasks: Iterator[Task | None] = iter(())
        if world.rank in hands:
            mine = rotated(blocks, hands.index(world.rank), len(hands))
            tasks = deal(claims, mine, todo.is_open, partial(todo.left, suspects=suspects))
        tally = work(targets, Turn(tasks, -(-n // len(hands)), suspects), everyone[world.rank], world, make, own)
        claims.drop()  # what this rank leaves undone is free for others
        return total(world, tally)

    tally = turn(todo.blocks, readers, suspects=False)
    suspects = world.bcast(todo.suspects() if world.rank == 0 and not tally["stopped"] else [])
    return tally + turn(suspects, readers[:1], suspects=True) if suspects else tally


def with_others(run_dir: RunDir, config: Config) -> str:
    """A sentence on who works on shards that nobody has tried yet; "" if nobody does, or there are none."""
    kinds = [(run_dir, "shards"), *((hours, "hours of networks") for hours, _ in of_networks(run_dir, config))]
    return "; ".join(told for each, what in kinds if (told := _with_others(each, what)))


def _with_others(run_dir: RunDir, what: str) -> str:
    who = holders(run_dir.claims)
    n = len(results.untried(run_dir, results.planned(run_dir))) if who else 0
    return f"{n} {what} are left to {'; '.join(who)}" if n else ""


def total(world: World, tally: Counter[str]) -> Counter[str]:
    """Of all ranks."""
    tallies = world.gather(tally)
    return world.bcast(sum(tallies, Counter()) if tallies else tally)


def fold_hours(targets: Targets, seen: Seen, claims: Claims, world: World) -> Counter[str]:
    """Hand the days over whose hours have all been picked, and fold the volumes of their picker."""
    (hours, config), tally = targets[0], Counter[str]()
    if not isinstance(hours, Hours):
        raise TypeError(f"{hours.root} holds no hours of networks")
    handed = fold(targets, seen, claims, world, network_hours.hand_over)
    with gracefully(tally):
        if world.rank == 0:
            network_hours.tell_failures(hours)
    handed = handed + total(world, tally)
    home: RunDir = hours.home
    return handed + fold([(home, config)], Seen.of(home, hours.claims), claims, world)


def fold(targets: Targets, seen: Seen, claims: Claims, world: World, join: Join = results.fold) -> Counter[str]:
    """Fold the volumes that are whole, each rank its own ones, and nobody those that another is folding.

    The tally counts the ranks that had to leave that to the next start.
    """
    (run_dir, config), tally, volumes = targets[0], Counter[str](), list[str]()
    most, volume_of = config.compute.max_tries, seen.plan.volumes
    with gracefully(tally):
        if world.rank == 0:
            volumes = results.whole(run_dir, seen.plan, tries.aside(run_dir, most))
    volumes = world.bcast(volumes)
    with gracefully(tally):
        for volume in volumes[world.rank :: world.size]:
            if stop.asked():
                break
            claims.settle(f"fold-{volume}")
            if claim := claims.take(f"fold-{volume}"):
                seen.require_same(run_dir)
                plan = seen.plan.take(volume_of == volume)
                aside = tries.aside(run_dir, most, np.unique(plan.day).tolist())
                if results.whole(run_dir, plan, aside):  # still: `orcolat retry` may have been faster
                    for each, _ in reversed(targets):
                        join(each, plan, [volume], aside)
                claim.release()
    claims.drop()
    return total(world, tally)


def _keep(run_dir: RunDir, world: World, own: list[Spent]) -> None:
    """Keep what all ranks spent, and say it."""
    spent = list(chain.from_iterable(world.gather(own) or []))
    if spent:
        with meter.leniently():
            meter.close(run_dir.meter, spent)
        for line in sentences(totals(spent)):
            log.info("%s", line)


def work(targets: Targets, turn: Turn, role: Role, world: World, make: Makers, own: Meter) -> Counter[str]:
    """What ``role`` asks of this rank: score until all its readers are done, or pick its own shards."""
    config, (make_scorer, make_read), tally = targets[0][1], make, Counter[str]()
    compute = config.compute.model_copy(update={"device": role.device})
    if role.clients:
        with own.time("load"):
            scorer = make_scorer(config.pick, compute)
        serve(scorer, role.clients, world, own, targets[0][0])
    elif role.server is not None:
        parent = scratch.folder(compute, readers=len(world.node))
        with (
            gracefully(tally),
            exchange.remote(world, role.server, parent, compute.answer_timeout_s) as remote,
            gracefully(tally),
        ):
            read = own.timed(make_read(config, remote), "read")
            gets = in_turn(read, turn.tasks) if turn.alone else waited(ahead(read, turn.tasks), own)
            pick_shards(targets, remote, gets, own, turn.n, tally)
    else:
        with gracefully(tally):
            if first := awaited(turn.tasks):  # a rank that comes too late need not load anything
                with own.time("load"):
                    scorer = make_scorer(config.pick, compute)
                read, tasks = own.timed(make_read(config, scorer), "read"), chain([first], turn.tasks)
                one_by_one = turn.alone or role.device == "cpu"
                gets = in_turn(read, tasks) if one_by_one else waited(ahead(read, tasks), own)
                pick_shards(targets, scorer, gets, own, turn.n, tally)
    return tally


def on_dask(
    targets: Targets, claims: Claims, todo: Todo, makers: Makers, own: Meter, n: int
) -> tuple[Counter[str], list[Spent]]:
    """Have all that can be claimed, about ``n`` shards, picked by Dask workers; also what these spent."""
    from pipeline.stages import pick_dask

    blame = partial(results.blame, [each for each, _ in targets], todo.plan)
    # A worker has one shard at a time, so that a death is of that one: nothing need go alone.
    turns = (deal(claims, todo.blocks, todo.is_open, partial(todo.left, suspects=last)) for last in (False, True))
    picking = pick_dask.Picking(targets, makers, own, blame)
    with gracefully(picking.tally):
        picking.work(chain.from_iterable(turns), n)
    claims.drop()
    return picking.tally, list(picking.spent.values())


@contextmanager
def gracefully(tally: Counter[str]) -> Iterator[None]:
    """End this rank's work, and no other's, where nothing can be read or written, or it is told to stop."""
    try:
        yield
    except Incomplete as e:  # or the plan was changed; no shard's fault
        log.error("%s", e)
        tally["stopped"] = 1
    except OSError as e:  # an error of a shard's own files does not come here
        if not is_storage(e):
            raise
        log.error("%s", storage(e))
        tally["stopped"] = 1
    if stop.asked():
        log.warning("told to stop by %s: no more shards are begun", stop.asked())
        tally["stopped"] = 1


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


def waited(given: Iterator[Given], own: Meter) -> Iterator[Given]:
    """The same, the time that getting takes counted as waiting."""
    return ((task, own.timed(get, "wait")) for task, get in given)


def pick_shards(
    targets: Targets, scorer: Scorer, given: Iterator[Given], own: Meter, share_n: int, tally: Counter[str]
) -> None:
    """Pick what is ``given``, about ``share_n`` shards, until there is no more or this process is told to stop."""
    progress = Progress("picked shards", share_n)
    for task, get in given:
        if stop.asked():
            break
        ended = pick_shard.find(targets[0][1], len(targets), task.shard, scorer, get, own)
        if task.claim.lost:  # another picks it
            continue
        with own.time("publish"):
            tally.update(pick_shard.keep(targets, task.shard, ended, own.start))
        if isinstance(ended, Found):
            pick_shard.count(own, targets[0][1], task.shard, ended)
        task.done()
        own.keep(targets[0][0].meter)
        progress.step(task.shard.id)
