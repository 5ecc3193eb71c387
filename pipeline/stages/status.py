"""Stage `status`: what is done and what is missing, from the files alone."""

from __future__ import annotations

from collections import Counter

from pipeline import meter
from pipeline.config import Config
from pipeline.formats import provenance, results, tables
from pipeline.records import Shard, Stations
from pipeline.rundir import RunDir, of_associators, of_pickers

DONE = "done"


def unpicked(run_dir: RunDir) -> list[Shard]:
    """Planned shards without a result; those that failed are among them. All, if there is no plan yet."""
    return results.missing(run_dir, results.planned(run_dir))


def look(run_dir: RunDir, config: Config) -> tuple[bool, str]:
    """Whether the run is complete, and a text of a few lines that says what is missing."""
    if not run_dir.shards.exists():
        return False, f"{run_dir.root}: run {config.run.name!r}, not planned yet: run `orcolat plan`"
    ends = Counter(results.outcomes(run_dir).end.tolist())
    planned = len(results.planned(run_dir))
    waiting = planned - sum(ends.values())
    lines = [
        f"run {config.run.name} ({config.digest[:12]}) in {run_dir.root}",
        f"shards     {planned} planned = {ends['picked']} picked + {ends['empty']} empty + {ends['failed']} failed "
        f"+ {waiting} missing",
        *(f"{'spent' if at == 0 else '':10} {line}" for at, line in enumerate(meter.report(run_dir.meter))),
        *(f"  failed   {failed.shard}: {failed.reason}" for failed in results.failures(run_dir)[:10]),
    ]
    states = _states(run_dir, config, waiting == 0)
    lines += [f"{name:12} {state}" for name, state in states.items()]
    further = of_pickers(run_dir, config)[1:]
    lines += [f"picker       {alone.pick.weight} in {each.root}: {_of_picker(each, alone)}" for each, alone in further]
    lines += [
        f"associator   {alone.associate.associator} in {each.root}: {_catalogue_of(each, alone)}"
        for each, alone in of_associators(run_dir, config)
    ]
    complete = not waiting and not ends["failed"] and all(state == DONE for state in states.values())
    complete = complete and all(_is_there(each) for each, _ in further)
    return complete, "\n".join([*lines, "complete" if complete else "incomplete: run it again"])


def _is_there(run_dir: RunDir) -> bool:
    return run_dir.shards.exists() and run_dir.stations.exists()


def _of_picker(run_dir: RunDir, config: Config) -> str:
    """Of a further picker's run directory: whether it is there and has a catalogue. Its later stages are not needed."""
    if not _is_there(run_dir):
        return "missing, and no stage makes it again: bring it back, or plan a new run"
    return _catalogue_of(run_dir, config)


def _catalogue_of(run_dir: RunDir, config: Config) -> str:
    stations = tables.read(run_dir.stations, Stations)
    if run_dir.events.exists() and provenance.has_catalogue(
        run_dir, provenance.catalogue(config, results.picks(run_dir), stations)
    ):
        return "has a catalogue"
    return f"no catalogue, or out of date: run `orcolat associate {run_dir.root}`"


def _states(run_dir: RunDir, config: Config, all_ended: bool) -> dict[str, str]:
    """Of each later stage whether its result is there and made of what the run holds now."""
    done = {}
    if config.pick.source:
        done["import-picks"] = run_dir.imported.exists()
        all_ended = done["import-picks"]
    made_of = provenance.catalogue(config, results.picks(run_dir), tables.read(run_dir.stations, Stations))
    done["associate"] = all_ended and provenance.has_catalogue(run_dir, made_of)
    done["compare"] = done["associate"] and provenance.has_comparison(run_dir, provenance.comparison(run_dir, config))
    done["report"] = done["compare"] and provenance.has_report(run_dir)
    return {
        name: DONE if yes else f"missing or out of date: run `orcolat {name} {run_dir.root}`"
        for name, yes in done.items()
    }
