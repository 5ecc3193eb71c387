"""What a run was begun with: its engine and its weights, which decide the last bits of its probabilities."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from pipeline.config import Config
from pipeline.config.weight_names import of_network
from pipeline.errors import ConfigError
from pipeline.models import weights
from pipeline.models.native import build
from pipeline.rundir import RunDir, publish

log = logging.getLogger(__name__)


def settled(targets: Sequence[tuple[RunDir, Config]]) -> list[tuple[RunDir, Config]]:
    """The same with ``compute.engine`` "kernels" or "seisbench" instead of "auto", on CPUs; PhaseNO has neither."""
    compute = targets[0][1].compute
    if compute.engine != "auto" or compute.device != "cpu" or of_network(targets[0][1].pick.weight):
        return list(targets)
    reason = build.available()
    if reason:
        log.warning("picking with SeisBench's own networks, which takes several times as long: %s", reason)
    chosen = compute.model_copy(update={"engine": "seisbench" if reason else "kernels"})
    return [(run_dir, config.model_copy(update={"compute": chosen})) for run_dir, config in targets]


def require_same_weights(targets: Sequence[tuple[RunDir, Config]]) -> None:
    """Note in each run directory with which weights it is picked, and by what: the last bits depend on that, too.

    Raises ConfigError if it was begun with others.
    """
    for run_dir, config in targets:
        names = config.pick.weights if config.pick.ensemble else (config.pick.weight,)
        engine = "PhaseNO" if of_network(config.pick.weight) else config.compute.engine
        by = f"{engine} on {config.compute.device.partition(':')[0]}"
        mine = [{"name": name, "sha256": weights.digest(name), "engine": by} for name in names]
        if not run_dir.weights.exists():
            with publish(run_dir.weights, once=True) as part:  # of several that begin at once, the first counts
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
