"""Stage `adapt`: labelled sets, one training a unit, picks on records that were held out, tables, one adapter.

Any number of processes work on one folder: they claim units, as `pick` claims shards, and a killed one leaves its
unit to the next, which goes on after its last whole epoch. The same bytes come out of any number of them.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from pipeline.adaptdir import AdaptDir, Unit, final, require_same, units
from pipeline.cluster import stop
from pipeline.cluster.claims import Claims
from pipeline.cluster.world import World
from pipeline.config import Config
from pipeline.config.weight_names import split
from pipeline.errors import ConfigError
from pipeline.models import adapter_file, adapter_store, adapters, objectives, weights
from pipeline.page import adapt as page
from pipeline.rundir import publish
from pipeline.stages import adapt_data, adapt_networks, adapt_score, adapt_tables, adapt_train
from pipeline.stages.adapt_data import Prepared

log = logging.getLogger(__name__)
NAP_S = 0.5
SETS = "sets"  # the claim of who reads the records


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work that one process does; ``done`` is there when it is."""

    name: str
    done: Path
    work: Callable[[], object]


def run(folder: AdaptDir, config: Config, world: World) -> bool:
    """Everything that is missing; whether all is there now. False: it was told to stop, or others still work on it.

    Raises ConfigError as `adapt_data.prepare`, `adapt_networks.require` and `training.train`.
    """
    if world.rank == 0:
        adapt_networks.require_settings(config)
        require_same(folder, config, _require_possible(folder, config))
    world.bcast(None)
    with Claims(folder.claims, config.compute.claim_timeout_s, lambda items: None) as claims:
        own = _prepared(folder, config, claims) if world.rank == 0 else None
        if not world.bcast(own is not None):
            return False
        sets = own or adapt_data.load(folder, config)
        jobs = _jobs(folder, config, sets)
        _work(jobs, claims, world)
    world.gather(None)  # until each rank has ended its last unit
    complete: bool = world.bcast(all(job.done.exists() for job in jobs) if world.rank == 0 else False)
    if complete and world.rank == 0:
        adapt_tables.run(folder, config, sets)
        keep(folder, config)
    world.bcast(None)
    return complete


def _prepared(folder: AdaptDir, config: Config, claims: Claims) -> list[Prepared] | None:
    """The sets, read and split by one process of all; None: it was told to stop. Raises ConfigError as `run`."""
    while not folder.gate.exists():
        if stop.asked():
            return None
        claim = claims.take(SETS)
        if claim is None:
            time.sleep(NAP_S)
            continue
        try:
            claim.begin(SETS)
            adapt_data.prepare(folder, config)
            claim.done(SETS)
        finally:
            claim.release()
    sets = adapt_data.prepare(folder, config)  # the same as at first?
    adapt_networks.require(config, sets)
    return sets


def _require_possible(folder: AdaptDir, config: Config) -> dict[str, str]:
    """The digests of all weights. Raises ConfigError for what would else be found after hours of training."""
    adapt, name = config.adapt, config.pick.weight
    if split(weight(folder, config)) != (name, adapt.name or f"file:{folder.kept}"):
        raise ConfigError(f"pick.weight {name}: on the file of an adapter no other can be: put it into the store")
    digests = {each: weights.digest(each) for each in adapt_tables.others(config)}
    model = weights.load(name)
    objectives.objective(model)
    for method in adapt.methods:
        adapters.attach(model, adapt_train.recipe(adapt, Unit(method, 0, adapt.seeds[0]))).remove()
    _, rate_hz = objectives.window(model)
    for one in adapt.sets:
        if one.rate_hz != rate_hz and not one.replay:
            raise ConfigError(
                f"adapt.sets {one.name!r}: rate_hz = {one.rate_hz:g}, and {name} is trained at {rate_hz:g} Hz: set it "
                "to that (records of an archive or a SeisBench dataset are resampled; resample an npz)"
            )
    _require_free(config)
    return digests


def _require_free(config: Config) -> None:
    """Raises ConfigError if an adapter of another adaptation has the name."""
    path = adapter_store.path_of(weights.store(), config.adapt.name)
    if config.adapt.name and path.exists():
        header, _ = adapter_file.read(path)
        if header.about.get("config_digest") != config.adapt.digest:
            raise ConfigError(f"{path}: there is another adapter of that name: choose another adapt.name, or remove it")


def _jobs(folder: AdaptDir, config: Config, sets: list[Prepared]) -> list[Job]:
    """All of it, the longest first."""
    found = [
        Job(unit.id, folder.adapter(unit) if unit == final(config) else folder.picks(unit.id), partial(
            _unit, folder, config, unit, sets
        ))
        for unit in units(config)
    ]  # fmt: skip
    score = adapt_score
    for fold in adapt_tables.folds(config):
        ways: list[tuple[str, Callable[[], object]]] = [
            (score.FED, partial(score.fed_otherwise, folder, config, fold, sets)),
            *(
                (score.slug(w), partial(score.frozen, folder, config, w, fold, sets))
                for w in adapt_tables.others(config)
            ),
        ]
        if config.adapt.stalta:
            ways.append((score.STALTA, partial(score.by_stalta, folder, config, fold, sets)))
        found += [Job(f"{name}-fold{fold}", folder.picks(f"{name}-fold{fold}"), work) for name, work in ways]
    return found


def _unit(folder: AdaptDir, config: Config, unit: Unit, sets: list[Prepared]) -> None:
    """Train a unit, unless that is done, and pick with it."""
    trained = folder.adapter(unit).exists()
    if not trained and adapt_train.train(folder, config, unit, sets, lambda: bool(stop.asked())) is None:
        return
    folder.checkpoint(unit).unlink(missing_ok=True)
    adapt_score.of_unit(folder, config, unit, sets)


def _work(jobs: list[Job], claims: Claims, world: World) -> None:
    """Do what nobody else does, until nothing is free any more or this process is told to stop."""
    begun = time.monotonic()
    while (todo := [job for job in jobs if not job.done.exists()]) and not stop.asked():
        moved = False
        for job in todo[world.rank :] + todo[: world.rank]:
            if stop.asked() or job.done.exists():
                continue
            claim = claims.take(job.name)
            if claim is None:
                continue
            try:
                claim.begin(job.name)
                job.work()
                claim.done(job.name)
            finally:
                claim.release()
            moved = True
            _tell(jobs, time.monotonic() - begun, len(todo))
        if not moved:
            if not any(job.name in claims.suspects for job in todo):
                log.info("the rest is in the hands of others")
                return
            time.sleep(NAP_S)  # a little more watching will tell whether they live


def _tell(jobs: list[Job], spent_s: float, at_first: int) -> None:
    left = sum(not job.done.exists() for job in jobs)
    done = at_first - left
    rest = f", about {spent_s / done * left / 60:.0f} min to go" if done > 0 else ""
    log.info("%d of %d units done%s", len(jobs) - left, len(jobs), rest)


def keep(folder: AdaptDir, config: Config) -> Path:
    """The adapter that is used, in the folder, and with a name in the store. Raises ConfigError if that is taken."""
    made = folder.adapter(final(config))
    with publish(folder.kept) as part:
        shutil.copyfile(made, part)
    if not config.adapt.name:
        return folder.kept
    path = adapter_store.path_of(weights.store(), config.adapt.name)
    if path.exists() and path.read_bytes() != made.read_bytes():
        raise ConfigError(
            f"{path}: there is another adapter of that name: choose another adapt.name, or remove the file; the new "
            f"one is {folder.kept}, and {config.pick.weight}+file:{folder.kept} picks with it, too"
        )
    with publish(path) as part:
        shutil.copyfile(made, part)
    return path


def weight(folder: AdaptDir, config: Config) -> str:
    """The name under which the adapted picker picks."""
    return f"{config.pick.weight}+{config.adapt.name or f'file:{folder.kept}'}"


def verdict(folder: AdaptDir) -> str:
    """What the page says first."""
    return page.verdict(cast("page.Report", adapt_tables.read(folder)))[0]


def compare(folder: AdaptDir, config: Config, cards: list[dict[str, Any]]) -> None:
    """The page once more, with the scorecards of the catalogues before and after."""
    adapt_tables.add_catalogues(folder, config, adapt_data.load(folder, config), adapt_tables.catalogue_rows(*cards))
