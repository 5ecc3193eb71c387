"""What several commands share: exit codes, opening and making a run directory, and arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, get_args

from pipeline import config as configs
from pipeline.cluster.world import World
from pipeline.config import Associate, Config, Pick, is_no_path
from pipeline.rundir import RunDir, create, open_config, require_same

COMPLETE, BUG, BAD_INPUT, INCOMPLETE, GATE_FAILED = 0, 1, 2, 3, 4
ASSOCIATORS: tuple[str, ...] = get_args(Associate.model_fields["associator"].annotation)
PRECISIONS: tuple[str, ...] = get_args(Pick.model_fields["precision"].annotation)
Command = Callable[[argparse.Namespace, World], int]
Verbs = Any  # what `ArgumentParser.add_subparsers` gives, a class that argparse keeps to itself

# The stages are imported where they are used: they bring torch, ObsPy and Matplotlib along, which take seconds,
# and `--help` or `config check` shall answer at once.


def say(text: str, world: World | None = None) -> None:
    """Results go to stdout, once; the log goes to stderr."""
    if world is None or world.rank == 0:
        sys.stdout.write(text.rstrip("\n") + "\n")
        sys.stdout.flush()


def create_run(root: Path, config: Config, world: World) -> RunDir:
    if world.rank == 0:
        create(root, config)
    world.bcast(None)
    return RunDir(root)


def open_run(args: argparse.Namespace) -> tuple[RunDir, Config]:
    """The run directory and its saved configuration, ``--set compute...`` applied."""
    open_config(args.run_dir)
    config = configs.load(args.config or RunDir(args.run_dir).config, args.set)
    require_same(RunDir(args.run_dir), config)
    return RunDir(args.run_dir), config


def one_stage(stage: Callable[[RunDir, Config, World], None], args: argparse.Namespace, world: World) -> int:
    """One stage on the run directory of the command line."""
    run_dir, config = open_run(args)
    stage(run_dir, config, world)
    return COMPLETE


def balanced(run_dir: RunDir, world: World) -> int:
    from pipeline.stages import report

    return BUG if world.bcast(bool(report.breaches(run_dir)) if world.rank == 0 else False) else COMPLETE


def complete(run_dir: RunDir, world: World) -> int:
    """0 if every planned shard has a result, else 3."""
    from pipeline.stages import status

    return INCOMPLETE if world.bcast(bool(status.unpicked(run_dir)) if world.rank == 0 else False) else COMPLETE


def gate_ended(run_dir: RunDir, world: World) -> tuple[int, str]:
    """The exit code of the last gate, and its sentence."""
    from pipeline.stages import gate

    state, sentence = world.bcast(gate.state(run_dir) if world.rank == 0 else ("", ""))
    return GATE_FAILED if state == gate.FAIL else COMPLETE, sentence


def summary_of(run_dir: RunDir, config: Config, world: World) -> int:
    """Print the account and the scores; 1 if the account does not balance, for that is a bug."""
    say_summary(run_dir, config, world)
    return balanced(run_dir, world)


def say_summary(run_dir: RunDir, config: Config, world: World) -> None:
    from pipeline.stages import report

    if world.rank == 0:
        say(report.summary(run_dir, config))


def with_config(sub: argparse.ArgumentParser, function: object) -> argparse.ArgumentParser:
    sub.add_argument("config", type=Path, metavar="CONFIG", help="TOML file")
    add_set(sub)
    sub.set_defaults(command=function)
    return sub


def with_run_dir(sub: argparse.ArgumentParser, function: object) -> None:
    sub.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a directory made by `orcolat plan` or `run`")
    sub.add_argument("--config", type=Path, help="refuse the run directory unless it was made with this file")
    add_set(sub)
    sub.set_defaults(command=function)


def add_set(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, for example compute.threads=4"
    )


def add_site(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--site", type=Path, metavar="FILE", help="TOML file with [slurm] and [compute] of this machine")


def add_dask(sub: argparse.ArgumentParser) -> None:
    """A short way to set compute.dask; a path is one of the command line's folder."""
    sub.add_argument(
        "--dask",
        dest="set",
        action="append",
        type=lambda text: f"compute.dask={text if is_no_path(text) else Path(text).resolve()}",
        metavar="WORKERS",
        help="work on so many processes of Dask (4, or 1-8 as there is work), in jobs of Slurm (slurm:1-64), or on the "
        "workers of a scheduler: tcp://HOST:PORT, or its file",
    )


def listed(kind: Callable[[str], Any], allowed: tuple[str, ...] = ()) -> Callable[[str], tuple[Any, ...]]:
    """Parser of values with commas between."""

    def parse(text: str) -> tuple[Any, ...]:
        values = tuple(dict.fromkeys(kind(part.strip()) for part in text.split(",")))
        wrong = [value for value in values if allowed and value not in allowed]
        if wrong:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(allowed)}")
        return values

    return parse


def utc_day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"{text!r} is no day: write 2024-06-01") from e


def integer_from(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        if not text.strip().isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no integer of at least {least}")
        return int(text)

    return integer
