"""Commands before the first run: weights, config, demo."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import config as configs
from pipeline.cluster.world import World
from pipeline.commands.common import COMPLETE, Verbs, say, with_config
from pipeline.config import Compute, Pick
from pipeline.models import weights


def add(verbs: Verbs) -> None:
    _weights_parser(verbs.add_parser("weights", help="the pretrained pickers in the local store"))
    _config_parser(verbs.add_parser("config", help="check or show a configuration"))
    sub = verbs.add_parser("demo", help="write the synthetic demo archive")
    sub.add_argument("folder", type=Path, metavar="DIR", help="new folder for the archive")
    sub.add_argument("--seed", type=int, help="seed of the random numbers (default: the year 1976)")
    sub.set_defaults(command=run_demo)


def _weights_parser(sub: argparse.ArgumentParser) -> None:
    sub.description = "The store is $ORCOLAT_WEIGHTS, or the user's cache. Nothing is ever downloaded during a run."
    verbs = sub.add_subparsers(title="commands", required=True, metavar="COMMAND")
    verbs.add_parser("list", help="names, state, licence").set_defaults(command=list_weights)
    fetch = verbs.add_parser("fetch", help="download, check and convert (needs internet)")
    fetch.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="phasenet/original, seisbench:PhaseNet/instance, ..., or a configuration: what it needs",
    )
    fetch.set_defaults(command=fetch_weights)
    verify = verbs.add_parser("verify", help="compare the files with their checksums")
    verify.add_argument("names", nargs="*", metavar="NAME", help="default: all that are there")
    verify.set_defaults(command=verify_weights)


def _config_parser(sub: argparse.ArgumentParser) -> None:
    verbs = sub.add_subparsers(title="commands", required=True, metavar="COMMAND")
    with_config(verbs.add_parser("check", help="is it valid?"), check_config)
    with_config(verbs.add_parser("show", help="print it with every default filled in"), show_config)


def run_demo(args: argparse.Namespace, world: World) -> int:
    from pipeline.stages import demo

    if world.rank == 0:
        say(f"demo archive: {demo.write_demo(args.folder, demo.SEED if args.seed is None else args.seed)}")
    world.bcast(None)
    return COMPLETE


def list_weights(args: argparse.Namespace, world: World) -> int:
    say(f"store: {weights.store()}", world)
    for row in weights.available():
        say(f"{row.name:28} {row.state:12} {(row.sha256 or '-')[:16]:16}  {row.licence}  {row.citation}", world)
    return COMPLETE


def fetch_weights(args: argparse.Namespace, world: World) -> int:
    from pipeline.models import network_picker

    for name in args.names:
        pick = configs.load(Path(name)).pick if name.endswith(".toml") else Pick().model_copy(update={"weight": name})
        if world.rank == 0 and pick.weights:
            for weight in pick.weights:
                say(f"{weight}: {weights.fetch(weight)}")
            network_picker.require(
                pick.model_copy(update={"precision": "fp32"}), Compute()
            )  # refuses what cannot be run
    world.bcast(None)
    return COMPLETE


def verify_weights(args: argparse.Namespace, world: World) -> int:
    for name in args.names or [row.name for row in weights.available() if row.state != "not fetched"]:
        say(f"{name}: sha256 {weights.verify(name)} ok", world)
    return COMPLETE


def check_config(args: argparse.Namespace, world: World) -> int:
    config = configs.load(args.config, args.set)
    say(f"{args.config}: valid, digest {config.digest}", world)
    return COMPLETE


def show_config(args: argparse.Namespace, world: World) -> int:
    say(configs.dumps(configs.load(args.config, args.set)), world)
    return COMPLETE
