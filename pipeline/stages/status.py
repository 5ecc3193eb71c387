"""Stage `status`: what is done and what is missing, from the files alone."""

from __future__ import annotations

import numpy as np

from pipeline import meter
from pipeline.config import Config
from pipeline.formats import ledger, provenance, results, tries
from pipeline.maths import coverage
from pipeline.maths.coverage import ENDS
from pipeline.rundir import Hours, RunDir, of_associators, of_networks, of_pickers

DONE = "done"
SHOWN = 10  # of the shards that failed


def unpicked(run_dir: RunDir) -> int:
    """As `pipeline.formats.results.unpicked`."""
    return results.unpicked(run_dir)


def look(run_dir: RunDir, config: Config) -> tuple[bool, str]:
    """Whether the run is complete, and a text of a few lines that says what is missing."""
    if not run_dir.shards.exists():
        return False, f"{run_dir.root}: run {config.run.name!r}, not planned yet: run `orcolat plan`"
    n, failed, breaches = _counts(run_dir, config.compute.max_tries)
    set_aside = f"+ {n['set aside']} set aside " if n["set aside"] else ""
    memo = provenance.Memo(run_dir)
    states = _states(run_dir, config, not n["missing"], memo)
    lines = [
        f"run {config.run.name} ({config.digest[:12]}) in {run_dir.root}",
        f"shards     {n['planned']} planned = {n['picked']} picked + {n['empty']} empty + {n['failed']} failed "
        f"{set_aside}+ {n['missing']} missing",
        *(f"{'spent' if at == 0 else '':10} {line}" for at, line in enumerate(meter.report(run_dir.meter))),
        *(_failure(note, config.compute.max_tries) for note in failed[:SHOWN]),
        *([f"           and {len(failed) - SHOWN:,} more"] if len(failed) > SHOWN else []),
        *(f"BREACH     {breach}: look at `orcolat audit {run_dir.root}`" for breach in breaches),
        *(f"{name:12} {state}" for name, state in states.items()),
    ]
    further = of_pickers(run_dir, config)[1:]
    lines += [
        f"picker       {alone.pick.weight} in {each.root}: {_of_picker(run_dir, each, alone)}"
        for each, alone in further
    ]
    lines += [line for hours, alone in of_networks(run_dir, config) if (line := _of_hours(hours, alone))]
    lines += [
        f"associator   {alone.associate.associator} in {each.root}: {_catalogue_of(each, alone)}"
        for each, alone in of_associators(run_dir, config)
    ]
    memo.save()
    complete = n["planned"] == n["picked"] + n["empty"] and all(state == DONE for state in states.values())
    complete = complete and not breaches and all(_is_there(each) for each, _ in further)
    of_hours = results.pickers_of_networks(run_dir)
    complete = complete and not any(results.unpicked(each) for each in of_hours)
    n_aside = n["set aside"] + sum(_aside(each, config.compute.max_tries) for each in of_hours)
    return complete, "\n".join([*lines, "complete" if complete else f"incomplete: {_remedy(run_dir, n_aside)}"])


def _remedy(run_dir: RunDir, n_aside: int) -> str:
    """What to do about shards that were set aside, which no run tries again, and about the rest."""
    retry = f"{n_aside} set aside: mend what ails them, then `orcolat retry {run_dir.root}`"
    return f"{retry}, and run it again" if n_aside else "run it again"


def _aside(run_dir: RunDir, max_tries: int) -> int:
    return sum(note.is_aside(max_tries) for note in results.notes(run_dir))


def _of_hours(hours: Hours, config: Config) -> str:
    """A line on the hours of days that have not been handed over; "" if there are none."""
    plan = results.planned(hours)
    n, days = len(results.open_rows(hours, plan)), len(np.unique(plan.day)) - len(results.folded(hours))
    return (
        f"hours        of networks for {config.pick.weight}: {n} of {len(plan)} to pick, {days} days open" if n else ""
    )


def _counts(run_dir: RunDir, max_tries: int) -> tuple[dict[str, int], list[tries.Note], list[str]]:
    """Shards planned, and by how they ended; why some failed; results that are beyond the plan."""
    notes, plan = tries.notes(run_dir), ledger.plan(run_dir)
    ended = ledger.ended(run_dir, plan, notes, max_tries)
    how = coverage.standing(plan, ended)
    ends = np.bincount(how.end, minlength=len(ENDS)).tolist()
    counts = {**dict(zip(ENDS, ends, strict=True)), "planned": len(plan)}
    return counts, ledger.failed(plan, how, notes), coverage.beyond(ended, how)


def _failure(note: tries.Note, max_tries: int) -> str:
    return f"  {'aside ' if note.is_aside(max_tries) else 'failed'}   {note.shard}: {note.reason}"


def _is_there(run_dir: RunDir) -> bool:
    return run_dir.shards.exists() and run_dir.stations.exists()


def _of_picker(main: RunDir, run_dir: RunDir, config: Config) -> str:
    """Of a further picker's run directory: whether it is there and has a catalogue. Its later stages are not needed."""
    if not _is_there(run_dir):
        return "missing, and no stage makes it again: bring it back, or plan a new run"
    n = results.unpicked(run_dir) if config.pick.of_networks else 0
    if not n:
        return _catalogue_of(run_dir, config)
    aside = _aside(run_dir, config.compute.max_tries)
    told = (
        f"{n} station-days have no result, {aside} of them set aside (`orcolat status {run_dir.root}` says why): run "
    )
    return f"{told}{f'`orcolat retry {main.root}`, then ' if aside else ''}`orcolat pick {main.root}`"


def _catalogue_of(run_dir: RunDir, config: Config) -> str:
    memo = provenance.Memo(run_dir)
    if provenance.is_current(run_dir, config, memo):
        memo.save()
        return "has a catalogue"
    return f"no catalogue, or out of date: run `orcolat associate {run_dir.root}`"


def _states(run_dir: RunDir, config: Config, all_ended: bool, memo: provenance.Memo) -> dict[str, str]:
    """Of each later stage whether its result is there and made of what the run holds now."""
    done = {}
    if config.pick.source:
        done["import-picks"] = all_ended = run_dir.imported.exists()
    done["associate"] = all_ended and provenance.is_current(run_dir, config, memo)
    done["locate"] = done["associate"] and provenance.has_origins(run_dir, provenance.origins(run_dir, config, memo))
    done["compare"] = done["locate"] and provenance.has_comparison(
        run_dir, provenance.comparison(run_dir, config, memo)
    )
    if config.compare.reference_events is not None:
        done["explain"] = done["compare"] and provenance.has_reasons(run_dir, provenance.reasons(run_dir, config, memo))
    done["report"] = all(done.values()) and provenance.has_report(run_dir, memo)
    return {
        name: DONE if yes else f"missing or out of date: run `orcolat {name} {run_dir.root}`"
        for name, yes in done.items()
    }
