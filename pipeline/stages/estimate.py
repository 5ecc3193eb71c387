"""What the planned run will take: hours, core-hours, disk and files, from what picking took before."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

import numpy as np

from pipeline import meter
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.formats import tables
from pipeline.maths import estimate as maths
from pipeline.maths.days import day_numbers
from pipeline.maths.estimate import Cost, Estimate, Layout, Sizes, Work
from pipeline.maths.spent import HOUR_S, duration
from pipeline.records import DAY_NS, Shards
from pipeline.rundir import RunDir, of_pickers, require

REFERENCE = "costs.toml"  # beside this package's modules; `python -m tests.bench_cpu --reference` writes it
PROBABILITY_BYTES = 8_640_000 * 2 * 2  # of a station-day at 100 Hz, two phases, float16, before compression


def look(run_dir: RunDir, config: Config, ranks: int, gpus: int = 0, costs: Path | None = None) -> str:
    """A text of a few lines. ``costs`` is a run directory whose meter is taken before all else.

    Raises Incomplete if there is no plan, ConfigError for GPUs of a run on CPUs and for ``costs`` that tell none.
    """
    if gpus and config.compute.device == "cpu":
        raise ConfigError(
            f'--gpus {gpus}, but compute.device = "cpu": add --set compute.device=cuda, or leave --gpus out'
        )
    layout, work = Layout(ranks, config.compute.threads, gpus), _work(run_dir, config)
    size = f"{work.shards} shards, at most {work.station_days:.2f} station-days, {_size(work.read_bytes)} to read"
    cost = cost_for(run_dir, config, costs)
    if cost is None:
        return "\n".join([f"plan         {size}", f"estimate     none: {_no_cost(config)}", *_beside(config)])
    sizes = Sizes(probability=PROBABILITY_BYTES if config.pick.save_probabilities else 0.0)
    found = maths.estimate(work, cost, layout, sizes)
    return "\n".join([f"plan         {size}", *_lines(found, cost, layout), *_beside(config)])


def wall_s(run_dir: RunDir, config: Config, ranks: int, gpus: int) -> float | None:
    """Seconds that picking all of the plan would take; None where no cost is known. Raises Incomplete."""
    cost = cost_for(run_dir, config, None)
    if cost is None or _beside(config):
        return None
    return maths.estimate(_work(run_dir, config), cost, Layout(ranks, config.compute.threads, gpus)).wall_h * HOUR_S


def _work(run_dir: RunDir, config: Config) -> Work:
    """What the plan asks of all its pickers. Raises Incomplete if there is none."""
    plan = tables.read(require(run_dir.shards, "plan"), Shards)
    return work_of(plan, config.run.span_ns, len(of_pickers(run_dir, config.of_stations or config)))


def work_of(plan: Shards, span_ns: tuple[int, int], pickers: int = 1) -> Work:
    """What a plan asks of so many pickers within the run's half-open ``span_ns``."""
    start = day_numbers(plan.day) * DAY_NS
    inside = np.minimum(start + DAY_NS, span_ns[1]) - np.maximum(start, span_ns[0])
    days = float((np.maximum(inside, 0) / DAY_NS).sum())  # in ns the sum of a long run is more than int64 holds
    n_days, volumes = len(np.unique(plan.day)), len(np.unique(plan.volumes))
    return Work(len(plan), days, n_days, volumes, int(plan.bytes.sum()), pickers)


def cost_for(run_dir: RunDir, config: Config, costs: Path | None) -> Cost | None:
    """The cost by the meter of ``costs``, else of this run, else by the table that ships with the project."""
    if costs is not None:
        return _named(costs, config)
    weights, precision, device, engine = _kind(config)
    own = maths.cost_of(
        meter.read(run_dir.meter), meter.several(weights), precision, device, engine, "the meter of this run"
    )
    alike = [cost for cost in reference() if (cost.precision, cost.device) == (precision, device)]
    return own or maths.side_by_side(alike, weights, engine)


def _named(costs: Path, config: Config) -> Cost:
    """The cost by the meter of the run directory ``costs``. Raises ConfigError if it has none of this kind."""
    if not RunDir(costs).config.is_file():
        raise ConfigError(f"--costs {costs}: not a run directory (no config.toml); name one that has been picked")
    weights, precision, device, engine = _kind(config)
    spent = meter.read(RunDir(costs).meter)
    found = maths.cost_of(spent, meter.several(weights), precision, device, engine, f"the meter of {costs}")
    if found is None:
        held = "; ".join(maths.kinds(spent)) or "none at all"
        raise ConfigError(f"--costs {costs}: {_no_cost(config)}. Costs that it holds: {held}")
    return found


def _kind(config: Config) -> tuple[tuple[str, ...], str, str, str]:
    """Weights, precision, kind of device and engine, which tell what picking costs."""
    device, _, _ = config.compute.device.partition(":")
    pick = config.pick.of_stations or config.pick  # a picker of networks beside those of stations is not estimated
    return pick.weights, config.pick.precision, device, config.compute.engine


def reference() -> list[Cost]:
    """Costs measured on the reference machine, as they ship with the project."""
    found = tomllib.loads(resources.files("pipeline").joinpath(REFERENCE).read_text("utf-8"))
    source = f"reference machine ({found['machine']}), `{found['command']}`"
    return [Cost(**row, source=source) for row in found["cost"]]


def _beside(config: Config) -> list[str]:
    """A line on what is not in the estimate."""
    left_out = [pick.weight for pick in config.pick.of_networks] if config.pick.of_stations else []
    if not left_out:
        return []
    return [f"without      {', '.join(left_out)}: of pickers of networks beside others no cost is known"]


def _no_cost(config: Config) -> str:
    weights, precision, device, engine = _kind(config)
    by = "" if engine == maths.AUTO else f", engine {engine}"
    return (
        f"no measured cost of {meter.several(weights)} at {precision} on {device}{by}; pick one day of one "
        "station in another run directory and name it with --costs"
    )


def _size(n_bytes: float) -> str:
    """For people: "12.3 MB"."""
    for unit, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:.1f} {name}"
    return f"{n_bytes / 1e3:.1f} kB"


def _lines(found: Estimate, cost: Cost, layout: Layout) -> list[str]:
    stages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in cost.seconds.items())
    gpus = f", {found.gpu_h:.3g} GPU-hours" if layout.gpus else ""
    return [
        f"estimate     {duration(found.wall_h * HOUR_S)} on {layout.ranks} rank(s) of {layout.threads} thread(s)"
        f"{f' and {layout.gpus} GPU(s)' if layout.gpus else ''}: {found.core_h:.3g} core-hours{gpus}; "
        f"the {found.bound} set the pace",
        f"disk         {_size(found.kept_bytes)} in {found.kept_files} files; "
        f"at the peak {_size(found.peak_bytes)} in {found.peak_files}",
        f"by           {cost.source}: seconds a station-day of {cost.weight} at {cost.precision}, "
        f"engine {cost.engine}, {cost.threads} thread(s): {stages}; load {cost.load_s:.1f} s a rank; "
        f"{cost.picks_a_day:.0f} picks",
    ]
