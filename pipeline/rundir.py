"""The run directory: every path, atomic publication, and whose run it is."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Literal, get_args

from pipeline import config as configs
from pipeline.config import Associate, Config
from pipeline.errors import ConfigError, Incomplete, Storage, kept_in
from pipeline.records import Shard

Folder = Literal["picks", "outcomes", "parts", "failed"]


class RunDir:
    """Names of everything in a run directory. Nothing here reads or writes data, `create` apart."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def shards(self) -> Path:
        return self.root / "shards.parquet"

    @property
    def stations(self) -> Path:
        return self.root / "stations.parquet"

    @property
    def events(self) -> Path:
        return self.root / "catalogue" / "events.parquet"

    @property
    def assignments(self) -> Path:
        return self.root / "catalogue" / "assignments.parquet"

    @property
    def origins(self) -> Path:
        """The events, located; its presence says that they are."""
        return self.root / "catalogue" / "origins.parquet"

    @property
    def arrivals(self) -> Path:
        return self.root / "catalogue" / "arrivals.parquet"

    @property
    def station_terms(self) -> Path:
        return self.root / "catalogue" / "station_terms.parquet"

    @property
    def decisions(self) -> Path:
        """What analysts decided on new events."""
        return self.root / "review" / "decisions.parquet"

    @property
    def scorecard(self) -> Path:
        return self.root / "compare" / "scorecard.json"

    @property
    def report(self) -> Path:
        return self.root / "report" / "index.html"

    @property
    def summary(self) -> Path:
        """The report as a few lines of plain text."""
        return self.root / "report" / "summary.txt"

    def picture(self, name: str) -> Path:
        """A figure of the report as PNG."""
        return self.root / "report" / f"{name}.png"

    @property
    def gate(self) -> Path:
        """Whether the run is good enough."""
        return self.root / "report" / "gate.json"

    @property
    def health(self) -> Path:
        """How each station did on each day."""
        return self.root / "report" / "health.parquet"

    def folder(self, kind: Folder) -> Path:
        """Where the results of the pick stage of one kind lie."""
        return self.root / kind

    def part(self, shard: Shard) -> Path:
        """The published result of one shard, before its volume is folded."""
        return self.folder("parts") / f"{shard.id}.parquet"

    def parts(self, day: date) -> Path:
        return self.folder("parts") / f"{day:%Y-%m-%d}"

    def failure(self, shard: Shard) -> Path:
        """Traceback and reason of a shard that failed, and how often it was tried."""
        return self.folder("failed") / f"{shard.id}.json"

    def picks(self, day: date) -> Path:
        """All picks of a finished volume, the days of the plan from ``day`` on that share one file."""
        return self.folder("picks") / f"{day:%Y-%m-%d}.parquet"

    def outcomes(self, day: date) -> Path:
        """How each shard of a finished volume ended; its presence says that the volume is folded."""
        return self.folder("outcomes") / f"{day:%Y-%m-%d}.parquet"

    @property
    def claims(self) -> Path:
        """Who works on what right now; no part of the results."""
        return self.root / "claims"

    @property
    def imported(self) -> Path:
        """What an import of picks took and what it could not; its presence says that it is whole."""
        return self.folder("picks") / "imported.json"

    @property
    def weights(self) -> Path:
        """Which weights the picks of this run are made with."""
        return self.root / "weights.json"

    @property
    def account(self) -> Path:
        return self.root / "report" / "account.json"

    @property
    def audit(self) -> Path:
        """The page of the audit; its figures lie beside it as audit.json."""
        return self.root / "audit" / "index.html"

    @property
    def digests(self) -> Path:
        """Digests of files as they were last read: a cache, no part of the results."""
        return self.root / "digests.json"

    @property
    def jobs(self) -> Path:
        """Which jobs were handed in to Slurm for this run; no part of the results."""
        return self.root / "jobs"

    @property
    def accounting(self) -> Path:
        """What Slurm has on record of those jobs; no part of the results."""
        return self.root / "accounting.json"

    @property
    def logs(self) -> Path:
        """Folder of what the jobs say."""
        return self.root / "logs"

    @property
    def meter(self) -> Path:
        """Folder of what picking took; no part of the results."""
        return self.root / "meter"

    def probabilities(self, shard: Shard) -> Path:
        return self.root / "probabilities" / f"{shard.id}.npz"

    def travel_times(self, made_of: str) -> Path:
        """The table of travel times that is made of this: a cache, no part of the results."""
        return self.root / "traveltimes" / f"{made_of}.npz"

    def compared(self, name: str) -> Path:
        return self.root / "compare" / f"{name}.parquet"

    def explained(self, event: str) -> Path:
        """Folder of what was found out on one event of the reference; no part of the results."""
        return self.root / "explain" / event

    def picker(self, slug: str) -> RunDir:
        """The run directory of a further picker, complete in itself."""
        return RunDir(self.root / "pickers" / slug)

    def associator(self, name: str) -> RunDir:
        """The run directory of another associator, which shares the picks of this one."""
        return RunDir(self.root / "associators" / name)

    def between(self, name: str, reference: str) -> RunDir:
        """Where the comparison of two associators lies: no run, only its tables and its scorecard."""
        return self.associator(f"{name}-against-{reference}")


class Hours(RunDir):
    """Where a ``picker`` of networks keeps its plan of hours, their claims, results and failures while it works.

    What it finds is handed over to the station-days of the picker's own run directory.
    """

    def __init__(self, picker: RunDir) -> None:
        super().__init__(picker.root / "hours")
        self.home = picker

    @property
    def meter(self) -> Path:
        return self.home.meter

    @property
    def weights(self) -> Path:
        return self.home.weights


def create(root: Path, config: Config) -> RunDir:
    """Make ``root`` a run directory of ``config``, or check that it already is one.

    Until there is a plan, another configuration replaces the one that is there. Raises ConfigError if ``root``
    belongs to another configuration or cannot be written.
    """
    run_dir = RunDir(root)
    if run_dir.shards.exists():
        require_same(run_dir, config)
        return run_dir
    try:
        with publish(run_dir.config) as part:
            part.write_text(configs.dumps(config), "utf-8")
    except (OSError, Storage) as e:
        raise ConfigError(f"{root}: cannot be made a run directory: {e}; take another --run-dir") from e
    return run_dir


def open_config(root: Path) -> Config:
    """The configuration saved in a run directory. Raises ConfigError if there is none."""
    if not RunDir(root).config.is_file():
        raise ConfigError(
            f"{root}: no config.toml, not a run directory; make one with `orcolat plan CONFIG --run-dir {root}`"
        )
    return configs.load(RunDir(root).config)


def of_pickers(run_dir: RunDir, config: Config) -> list[tuple[RunDir, Config]]:
    """The run directory of each picker, and its configuration alone. The first is the run itself: the main picker, or
    the ensemble."""
    further = () if config.pick.ensemble or config.pick.source else config.pick.also
    alone = [(run_dir.picker(picker.slug), config.of_picker(picker.weight)) for picker in further]
    return [(run_dir, config), *alone]


def of_networks(run_dir: RunDir, config: Config) -> list[tuple[Hours, Config]]:
    """Where the pickers of networks work, and the configuration of each alone."""
    names = set() if config.pick.source else {picker.weight for picker in config.pick.of_networks}
    pickers = [(each, alone.pick.weight) for each, alone in of_pickers(run_dir, config)]
    return [(Hours(each), config.of_picker(weight)) for each, weight in pickers if weight in names]


def of_associator(run_dir: RunDir, config: Config, name: str) -> tuple[RunDir, Config]:
    """Where the catalogue of one associator is, and its configuration: the run itself, or a directory inside it."""
    if name == config.associate.associator:
        return run_dir, config
    settings = config.associate.model_copy(update={"associator": name})
    return run_dir.associator(name), config.model_copy(update={"associate": settings})


def of_associators(run_dir: RunDir, config: Config) -> list[tuple[RunDir, Config]]:
    """The further associators that have been given the run's picks."""
    names = get_args(Associate.model_fields["associator"].annotation)
    all_ = [of_associator(run_dir, config, name) for name in names]
    return [(each, alone) for each, alone in all_ if each.root != run_dir.root and each.shards.exists()]


def share_picks(run_dir: RunDir, other: RunDir, config: Config) -> None:
    """Make ``other`` a run directory of ``config`` on the plan, the stations and the picks of ``run_dir``, by links.

    Raises Incomplete if there is no plan yet, ConfigError if ``other`` cannot be written.
    """
    if other.root == run_dir.root:
        return
    require(run_dir.shards, "plan")
    folders = [*(run_dir.folder(kind) for kind in get_args(Folder)), run_dir.travel_times("").parent]
    try:
        with publish(other.config) as part:
            part.write_text(configs.dumps(config), "utf-8")
        for folder in folders:
            folder.mkdir(exist_ok=True)
        for path in (*folders, run_dir.meter, run_dir.weights, run_dir.stations, run_dir.shards):
            link = other.root / path.name
            if not (link.is_symlink() or link.exists()):
                link.symlink_to(os.path.relpath(path, other.root))
    except (OSError, Storage) as e:
        raise ConfigError(f"{other.root}: cannot share the picks of {run_dir.root} by links: {e}") from e


def require_same(run_dir: RunDir, config: Config) -> None:
    """Raises ConfigError unless ``run_dir`` was made with ``config``."""
    saved = open_config(run_dir.root)
    if saved.digest == config.digest:
        return
    ours, theirs = config.model_dump(mode="json"), saved.model_dump(mode="json")
    differing = [
        f"{s}.{k} is {theirs[s][k]!r} there, {v!r} here"
        for s in ours
        if s not in configs.NOT_IN_DIGEST
        for k, v in ours[s].items()
        if theirs[s][k] != v
    ]
    raise ConfigError(
        f"{run_dir.root}: this run has another configuration (digest {saved.digest[:12]}, not {config.digest[:12]}): "
        f"{'; '.join(differing)}. Take another --run-dir, or the configuration it was made with."
    )


def require(path: Path, stage: str) -> Path:
    """``path`` if it exists. Raises Incomplete that names the stage that makes it."""
    if not path.exists():
        raise Incomplete(f"{path} is missing: run `orcolat {stage}` on this run directory first")
    return path


@contextmanager
def publish(path: Path, once: bool = False) -> Iterator[Path]:
    """Yield a scratch path; on clean exit it becomes ``path`` in one step, whole and on the disk.

    With ``once`` what another process has published there before stays.

    A killed process leaves at most a hidden ``.part`` file, which no reader looks at. Its name is
    random: process numbers repeat across the nodes of one shared file system. Raises Storage.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with kept_in(path):
            if not path.parent.is_dir():  # a look costs a file server less than a vain try
                path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            if once:
                with suppress(FileExistsError):
                    os.link(part, path)
                part.unlink()
            else:
                os.replace(part, path)  # noqa: PTH105  (what a test makes fail)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def tidy(run_dir: RunDir, older_s: float = 3600.0) -> None:
    """Remove what `publish` of a killed process left, if it is so old."""
    by_day = (folder for kind in ("failed", "probabilities") for folder in (run_dir.root / kind).glob("*/"))
    for folder in (run_dir.root, *run_dir.root.glob("*/"), *by_day):
        for left in folder.glob(".*.part"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > older_s:
                    left.unlink()
