"""Every path of an adaptation, and which of its units are done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pipeline import config as configs
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.rundir import publish

ALL = -1  # the fold of the adapter that is kept: trained on the test records of fold 0, too


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """One training: a method (or the control of it), a fold and a seed. It is what one process does, and is resumed."""

    method: str
    fold: int
    seed: int
    control: bool = False

    @property
    def id(self) -> str:
        fold = "all" if self.fold == ALL else f"fold{self.fold}"
        return f"{'control-' if self.control else ''}{self.method}-{fold}-seed{self.seed}"


class AdaptDir:
    """The folder of one adaptation; a file that is there is whole."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()  # the adapter's path is in the name of a weight

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def weights(self) -> Path:
        """Which weights are adapted and compared."""
        return self.root / "weights.json"

    def records(self, name: str) -> Path:
        """The labelled set of a name, as a cache."""
        return self.root / "sets" / f"{name}.h5"

    @property
    def gate(self) -> Path:
        """How the sets were split, and that the parts share nothing."""
        return self.root / "sets" / "split.json"

    @property
    def claims(self) -> Path:
        return self.root / "claims"

    def checkpoint(self, unit: Unit) -> Path:
        return self.root / "units" / unit.id / "checkpoint.safetensors"

    def adapter(self, unit: Unit) -> Path:
        """What a unit has learned; its presence says that it is trained."""
        return self.root / "units" / unit.id / "adapter.safetensors"

    def history(self, unit: Unit) -> Path:
        return self.root / "units" / unit.id / "history.json"

    def picks(self, name: str) -> Path:
        """Picks on test, validation and replay records, of a unit or of a baseline."""
        return self.root / "picks" / f"{name}.parquet"

    @property
    def kept(self) -> Path:
        """The adapter that is used: the first method on all records but one fold, which stops its training."""
        return self.root / "adapter.safetensors"

    @property
    def scores(self) -> Path:
        return self.root / "report" / "scores.json"

    @property
    def report(self) -> Path:
        return self.root / "report" / "index.html"

    def catalogue(self, which: str) -> Path:
        """The run directory of the whole pipeline "before" and "after"."""
        return self.root / "catalogues" / which


def units(config: Config) -> list[Unit]:
    """All trainings of an adaptation, in order."""
    adapt = config.adapt
    folds = range(adapt.n_folds)
    found = [Unit(method, fold, seed) for method in adapt.methods for fold in folds for seed in adapt.seeds]
    if adapt.control:
        found += [Unit(adapt.methods[0], fold, seed, True) for fold in folds for seed in adapt.seeds]
    return [*found, final(config)]


def final(config: Config) -> Unit:
    """The training whose adapter is kept."""
    return Unit(config.adapt.methods[0], ALL, config.adapt.seeds[0])


def require_same(folder: AdaptDir, config: Config, digests: dict[str, str]) -> None:
    """Keep the configuration and the ``digests`` of the weights by name, or compare them with what is kept.

    Raises ConfigError if the folder was begun with others, by this process or by another; [compute] may differ.
    """
    if not folder.config.exists():
        with publish(folder.config, once=True) as part:
            part.write_text(configs.dumps(config), "utf-8")
    saved = configs.load(folder.config)
    if (saved.digest, saved.adapt.digest) != (config.digest, config.adapt.digest):
        raise ConfigError(
            f"{folder.config}: this adaptation was begun with another configuration: take a new --run-dir, or the "
            "configuration that is saved there"
        )
    if not folder.weights.exists():
        with publish(folder.weights, once=True) as part:
            part.write_text(json.dumps(digests, indent=1, sort_keys=True), "utf-8")
    kept = json.loads(folder.weights.read_text("utf-8"))
    if odd := sorted(name for name in {*kept, *digests} if kept.get(name) != digests.get(name)):
        raise ConfigError(
            f"{folder.weights}: {odd[0]} was {kept.get(odd[0])} when this adaptation was begun and is "
            f"{digests.get(odd[0])} now: take a new --run-dir, or bring those weights back"
        )
