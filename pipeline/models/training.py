"""Training of an adapter: deterministic, stopped early, and resumed to the same weights wherever it was killed.

Everything random in an epoch is drawn from (seed, epoch), so that a checkpoint holds tensors and figures alone, and no
state of a generator: it is one safetensors file, published at the end of each epoch. Adam with the weight decay of its
own (Kingma & Ba 2015; an L2 penalty, as in the recipe that this follows), one pass over the records an epoch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.models.adapters import Adapted, frozen_digests
from pipeline.rundir import publish

log = logging.getLogger(__name__)
FORMAT = "orcolat-training-1"
LEAST = 1e-6  # by which a validation loss must be smaller to be better, as a share of it
FACTOR, WAIT = 0.5, 5  # of the schedule "plateau": the rate halves after so many epochs without a better one


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train. ``patience`` epochs without a better validation loss end it; ``clip`` 0 does not clip."""

    learning_rate: float = 1e-4
    batch: int = 8
    epochs: int = 80
    patience: int = 15
    weight_decay: float = 1e-5
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    clip: float = 0.0
    amp: bool = False  # BF16 where the network allows it; parameters and sums stay FP32
    seed: int = 0


Batch = tuple[NDArray[Any], ...]  # what the loss takes: the first has one row a record, the last are the answers
Loss = Callable[..., Tensor]  # the arrays of a batch, as tensors -> scalar, the mean over the batch


class Examples(Protocol):
    """Where training records come from. Both give the same for the same arguments, whoever asks."""

    def training(self, rng: np.random.Generator, batch: int) -> Iterable[Batch]: ...

    def validation(self, batch: int) -> Iterable[Batch]: ...


@dataclass(slots=True)
class History:
    """By epoch: losses and rate. ``best`` is the epoch whose weights are kept; -1: none was better than untrained."""

    untrained: float = math.nan  # validation loss before the first epoch
    training: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    best: int = -1

    @property
    def epochs(self) -> int:
        return len(self.validation)

    @property
    def best_loss(self) -> float:
        return self.untrained if self.best < 0 else self.validation[self.best]

    def stale(self) -> int:
        """Epochs since the best one."""
        return self.epochs - 1 - self.best

    def next_rate(self, settings: Settings) -> float:
        """The learning rate of the next epoch."""
        if settings.schedule == "cosine":
            return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * self.epochs / settings.epochs))
        if settings.schedule == "plateau":
            return settings.learning_rate * FACTOR ** self._plateaus()
        return settings.learning_rate

    def _plateaus(self) -> int:
        """How often the validation loss did not get better for `WAIT` epochs in a row."""
        n, since, best = 0, 0, self.untrained
        for loss in self.validation:
            since = 0 if _better(loss, best) else since + 1
            best = min(best, loss)
            if since == WAIT:
                n, since = n + 1, 0
        return n


def _better(loss: float, best: float) -> bool:
    return loss < best - LEAST * abs(best) or (math.isnan(best) and not math.isnan(loss))


def train(
    adapted: Adapted,
    loss: Loss,
    examples: Examples,
    settings: Settings,
    checkpoint: Path,
    stopped: Callable[[], bool] = lambda: False,
) -> History | None:
    """Train ``adapted``, which then holds the weights of the epoch with the smallest validation loss.

    ``loss`` is what `objectives.objective` gives. ``checkpoint`` is taken up if it is of the same settings, adapter and
    network, and written after each epoch. None: it was ``stopped`` between two epochs, and goes on from there the
    next time. Raises ConfigError if the loss is not finite, or the checkpoint is of something else.
    """
    run = _Run(adapted, settings, checkpoint)
    run.resume()
    adapted.train(False)
    if not run.history.epochs:
        run.history.untrained = _validate(adapted, loss, examples, settings)
    while run.history.epochs < settings.epochs and run.history.stale() < settings.patience:
        if stopped():
            return None
        run.epoch(loss, examples)
    run.take_best()
    return run.history


class _Run:
    def __init__(self, adapted: Adapted, settings: Settings, checkpoint: Path) -> None:
        self.adapted, self.settings, self.path = adapted, settings, checkpoint
        self.trainable = adapted.trainable()
        if not self.trainable:
            raise ConfigError(f"method {adapted.recipe.method!r} has nothing to train")
        self.history = History()
        self.best: dict[str, Tensor] = adapted.state()
        self.optimiser = torch.optim.Adam(
            self.trainable.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        base = frozen_digests(adapted.model)
        told = json.dumps([adapted.recipe.as_dict(), asdict(settings), sorted(self.trainable), base], sort_keys=True)
        self.made_of = hashlib.sha256(told.encode()).hexdigest()

    def epoch(self, loss: Loss, examples: Examples) -> None:
        """One pass over the training records, its validation loss, and the checkpoint."""
        history, settings = self.history, self.settings
        rng = np.random.default_rng([settings.seed, history.epochs])
        torch.manual_seed(int(rng.integers(2**31)))  # what drops out
        rate = history.next_rate(settings)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.adapted.train()
        total, n = 0.0, 0
        for batch in examples.training(rng, settings.batch):
            value = self._step(loss, batch)
            total, n = total + value * len(batch[0]), n + len(batch[0])
        self.adapted.train(False)
        found = _validate(self.adapted, loss, examples, settings)
        if not n or not math.isfinite(total) or not math.isfinite(found):
            raise ConfigError(
                f"{self.path}: epoch {history.epochs + 1}: loss {total / max(n, 1)} over {n} records, validation "
                f"{found}: the training diverged or has no records; lower adapt.learning_rate, or look at the data"
            )
        history.rate.append(rate)
        history.training.append(total / n)
        better = _better(found, history.best_loss)
        history.validation.append(found)
        if better:
            history.best, self.best = history.epochs - 1, self.adapted.state()
        self.publish()
        log.info(
            "%s: epoch %d of at most %d: loss %.5f, validation %.5f%s", self.path.parent.name, history.epochs,
            settings.epochs, total / n, found, " *" if better else "",
        )  # fmt: skip

    def _step(self, loss: Loss, batch: Batch) -> float:
        self.optimiser.zero_grad(set_to_none=True)
        with _arithmetic(self.adapted, self.settings):
            value = loss(*_on_device(self.adapted, batch))
        value.backward()  # type: ignore[no-untyped-call]
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.trainable.values(), self.settings.clip)
        self.optimiser.step()
        return float(value.detach())

    def take_best(self) -> None:
        self.adapted.load_state(self.best)
        self.adapted.train(False)

    def publish(self) -> None:
        from safetensors.torch import save_file

        tensors = {f"now/{name}": value for name, value in self.adapted.state().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        for name, value in self.trainable.items():
            moments = self.optimiser.state.get(value, {})  # none of what the loss does not depend on
            tensors |= {f"{key}/{name}": moment.detach().cpu().clone() for key, moment in moments.items()}
        about = {"format": FORMAT, "made_of": self.made_of, "history": json.dumps(asdict(self.history))}
        with publish(self.path) as part:
            save_file(tensors, part, about)

    def resume(self) -> None:
        """Go on after the last whole epoch, if there is one."""
        if not self.path.exists():
            return
        about, tensors = _read(self.path)
        if about.get("format") != FORMAT or about.get("made_of") != self.made_of:
            raise ConfigError(
                f"{self.path}: a checkpoint of another recipe or base: take another run directory, or delete it"
            )
        part = _parts(tensors)
        self.adapted.load_state(part["now"])
        self.best = dict(part["best"])
        self.history = History(**json.loads(about["history"]))
        for name in part["step"]:
            value = self.trainable[name]
            self.optimiser.state[value] = {
                "step": part["step"][name].clone(),
                **{key: part[key][name].to(value.device).clone() for key in ("exp_avg", "exp_avg_sq")},
            }
        log.info("%s: goes on after epoch %d", self.path.parent.name, self.history.epochs)


def _validate(adapted: Adapted, loss: Loss, examples: Examples, settings: Settings) -> float:
    """The mean loss over the validation records; NaN without any."""
    total, n = 0.0, 0
    with torch.no_grad(), _arithmetic(adapted, settings):
        for batch in examples.validation(settings.batch):
            value = float(loss(*_on_device(adapted, batch)))
            total, n = total + value * len(batch[0]), n + len(batch[0])
    return total / n if n else math.nan


def _on_device(adapted: Adapted, batch: Batch) -> tuple[Tensor, ...]:
    device = next(adapted.model.parameters()).device
    return tuple(torch.from_numpy(each).to(device) for each in batch)


def _arithmetic(adapted: Adapted, settings: Settings) -> AbstractContextManager[Any]:
    device = next(adapted.model.parameters()).device
    return torch.autocast(device.type, torch.bfloat16) if settings.amp else nullcontext()


def _read(path: Path) -> tuple[Mapping[str, str], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as e:
        raise ConfigError(f"{path}: not a readable checkpoint: {e}; delete it, and the training begins anew") from e


def _parts(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by what is before the first slash of their name."""
    found: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "exp_avg": {}, "exp_avg_sq": {}, "step": {}}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        found.setdefault(kind, {})[rest] = value
    return found
