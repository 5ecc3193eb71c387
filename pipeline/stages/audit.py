"""Stage `audit`: what became of every station-day of the run, and why the gaps are there. It changes nothing but its
own two files, ``audit/index.html`` and ``audit/audit.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.cluster import claims
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.formats import ledger, planning, stations, tables, tries
from pipeline.maths import books as accounts
from pipeline.maths import coverage
from pipeline.maths.coverage import FAILED, MISSING, SET_ASIDE, Coverage, Plan, Standing
from pipeline.maths.days import day_numbers, days_within
from pipeline.maths.late import Late
from pipeline.maths.late import late as compared
from pipeline.maths.names import site
from pipeline.page import audit as page
from pipeline.records import Bool, Shards, Stations
from pipeline.rundir import RunDir, publish, require


@dataclass(frozen=True, slots=True)
class Look:
    """What was ``found`` in the archive that the plan does not know, None if nobody looked; ``note`` says it."""

    note: str
    found: Late | None = None
    asked: bool = True


def run(run_dir: RunDir, config: Config, scan: bool = True) -> tuple[bool, str]:
    """Write the page and the JSON. Returns whether nothing is left to do, and a text of some lines.

    ``scan``: look through the archive for files that came or changed after the plan was made. Raises Incomplete if
    there is no plan, ConfigError if the run has imported its picks.
    """
    if config.pick.source:
        raise ConfigError(f"{run_dir.root}: this run imported its picks: nothing is known of its waveforms")
    books, grid = look(run_dir, config, late(run_dir, config) if scan else Look("not looked for", asked=False))
    with publish(run_dir.audit.with_name("audit.json")) as part, part.open("w", encoding="utf-8") as file:
        json.dump(books, file, ensure_ascii=False)
    with publish(run_dir.audit) as part:
        part.write_text(page.render(config, books, grid), "utf-8")
    last = "complete" if books["complete"] else "incomplete"
    return bool(books["complete"]), f"{page.terminal(books)}\npage         {run_dir.audit}\n{last}"


def look(run_dir: RunDir, config: Config, archive: Look) -> tuple[dict[str, Any], Coverage]:
    """Everything that the audit says, and the grid of its map."""
    notes, plan = tries.notes(run_dir), ledger.plan(run_dir)
    ended, lost = ledger.counted(run_dir, plan, notes, config.compute.max_tries)
    how = coverage.standing(plan, ended)
    sites = tables.read(require(run_dir.stations, "plan"), Stations)
    grid = coverage.coverage(plan, how, sites, days_within(config.run.span_ns), _held(run_dir, plan))
    if archive.found:
        grid = _with_late(grid, archive.found)
    shards, breaches = coverage.account(plan, ended, how)
    books = accounts.books(plan, how, grid, shards, [*breaches, *lost])
    books["late"] = _late_books(archive, plan, how)
    books["asides"] = [_aside(note, config.compute.max_tries) for note in ledger.failed(plan, how, notes)]
    books["complete"] = not page.unfinished(books)
    books["state"] = "bad" if books["breaches"] else "good" if books["complete"] else "open"
    books["verdict"] = page.verdict(books)
    return {"run": config.run.name, "digest": config.digest, **books}, grid


def late(run_dir: RunDir, config: Config) -> Look:
    """What `orcolat update` would do. An archive that cannot be looked at is told in the note."""
    try:
        sites = stations.read(config.stations.files, config.stations.include, config.stations.exclude)
        now = planning.plan_shards(config, sites)
    except ConfigError as e:
        return Look(f"nobody could look for them: {e}")
    found = compared(tables.read(require(run_dir.shards, "plan"), Shards), now, config.archive.all_bands)
    parts = ((found.new, "new"), (found.changed, "changed"), (found.replaced, "replaced by a better channel"))
    told = [f"{len(ids):,} {what}" for ids, what in parts if ids]
    gone = [f"the files of {len(found.gone):,} planned shards are gone"] if found.gone else []
    return Look("; ".join([*([f"{', '.join(told)}: run `orcolat update`"] if told else []), *gone]), found)


def _with_late(grid: Coverage, found: Late) -> Coverage:
    ids = (*found.changed, *found.replaced, *found.new)
    new = np.arange(len(ids)) >= len(ids) - len(found.new)
    return coverage.with_late(grid, [site(id_[11:]) for id_ in ids], day_numbers([id_[:10] for id_ in ids]), new)


def _late_books(archive: Look, plan: Plan, how: Standing) -> dict[str, Any]:
    """``open``: of the late shards those that have no result anyway, which the account counts too."""
    books: dict[str, Any] = {"asked": archive.asked, "looked": archive.found is not None, "note": archive.note}
    found = archive.found or Late()
    shards = (*found.new, *found.changed, *found.replaced)
    rows = coverage.rows_named(plan, shards)
    books["open"] = int(np.isin(how.end[rows[rows >= 0]], (MISSING, FAILED, SET_ASIDE)).sum())
    lists = {name: list(getattr(found, name)) for name in ("new", "changed", "replaced", "gone")}
    return {**books, "n": len(shards), **lists}


def _aside(note: tries.Note, max_tries: int) -> dict[str, Any]:
    """A shard that failed, with its traceback; one that is set aside will not be tried again."""
    end = "set aside" if note.is_aside(max_tries) else "failed"
    return {
        "shard": note.shard,
        "end": end,
        "tries": note.tries,
        "reason": note.reason,
        "traceback": note.traceback,
    }


def _held(run_dir: RunDir, plan: Plan) -> Bool:
    """(n,): shards that a process has begun and not ended."""
    claims_there = [claims.look(path) for path in run_dir.claims.glob("[!.]*")]
    ids = sorted({id_ for claim in claims_there if claim for id_ in claim.in_work if len(id_) > 11})
    rows = coverage.rows_named(plan, ids)
    held = np.zeros(len(plan), np.bool_)
    held[rows[rows >= 0]] = True
    return held
