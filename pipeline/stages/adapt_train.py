"""One unit of an adaptation: a method, a fold and a seed trained on crops of the training records."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pipeline.adaptdir import AdaptDir, Unit
from pipeline.config import Config
from pipeline.config.adapt import Adapt
from pipeline.models import adapters, objectives, training, weights
from pipeline.models.adapters import Adapted, Base, Recipe
from pipeline.models.picker import device_of
from pipeline.models.training import Settings
from pipeline.rundir import publish
from pipeline.stages import adapt_crops
from pipeline.stages.adapt_data import Prepared

log = logging.getLogger(__name__)


def recipe(adapt: Adapt, unit: Unit) -> Recipe:
    return Recipe(unit.method, adapt.rank, adapt.alpha, adapt.targets, adapt.bottleneck, unit.seed)


def settings(adapt: Adapt, unit: Unit) -> Settings:
    names = ("learning_rate", "batch", "epochs", "patience", "weight_decay", "schedule", "clip", "amp")
    return Settings(**{name: getattr(adapt, name) for name in names}, seed=unit.seed)


def train(
    folder: AdaptDir, config: Config, unit: Unit, sets: list[Prepared], stopped: Callable[[], bool]
) -> Adapted | None:
    """The trained adapter of a unit, published; None if it was stopped before it was done, and goes on the next time.

    Raises ConfigError as `training.train`; RuntimeError if a tensor of the base changed, which is a bug.
    """
    adapt, name = config.adapt, config.pick.weight
    model = weights.load(name).to(device_of(config.compute.device))  # one thread, as wherever it is picked with
    before = adapters.frozen_digests(model)
    adapted = adapters.attach(model, recipe(adapt, unit))
    examples = adapt_crops.of([one for one in sets if not one.settings.replay], model, config, unit)
    history = training.train(
        adapted, objectives.objective(model), examples, settings(adapt, unit), folder.checkpoint(unit), stopped
    )
    if history is None:
        return None
    if adapters.frozen_digests(model) != before:
        raise RuntimeError(f"{unit.id}: training changed tensors of {name} that are frozen")
    about = {
        "unit": asdict(unit),
        "config_digest": adapt.digest,
        "sets": {one.settings.name: one.cache.digest for one in sets if not one.settings.replay},
        "training": asdict(settings(adapt, unit)),
        "epochs": history.epochs,
        "best_epoch": history.best + 1,
    }
    with publish(folder.history(unit)) as part:
        part.write_text(json.dumps({**asdict(history), **_shares(adapted)}), "utf-8")
    adapters.save(folder.adapter(unit), adapted, Base(name, weights.digest(name)), about)
    return adapted


def _shares(adapted: Adapted) -> dict[str, Any]:
    found = adapted.shares()
    return {"shares": {**asdict(found), "of_base": found.of_base, "of_total": found.of_total}}
