"""What the pick stage has published: one part a shard, folded into one file a volume.

A part is a Parquet file of picks with its `Outcome` in the schema. A volume is a few consecutive days, as the plan has
them. When every shard of a volume has a part, `fold` joins them to ``picks/DAY.parquet`` and ``outcomes/DAY.parquet``,
named by its first day, and removes the parts: the outcomes are published last, so their presence says that the volume
is whole. Several processes may fold, for they make the same bytes. A shard that failed has no part, only a note in
``failed/`` (`pipeline.formats.tries`); one that was set aside keeps no volume from being folded, and is not in it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TypeVar

import numpy as np

from pipeline.errors import BadData, Incomplete, kept_in
from pipeline.formats import tables, tries
from pipeline.records import Int, Outcome, Outcomes, Picks, Shard, Shards, Text
from pipeline.rundir import RunDir, publish, require

log = logging.getLogger(__name__)
T = TypeVar("T")
FEW = 20_000  # rows of a plan in which there are few volumes
LOOKS = 5  # at files that another process may be folding


def planned(run_dir: RunDir) -> Shards:
    """The plan. Raises Incomplete if there is none yet."""
    return tables.read(require(run_dir.shards, "plan"), Shards)


def missing(run_dir: RunDir, plan: Shards) -> list[Shard]:
    """Shards that are still to be picked; those that failed before are among them."""
    return [plan.shard(row) for row in open_rows(run_dir, plan).tolist()]


def open_rows(run_dir: RunDir, plan: Shards, rows: Int | None = None) -> Int:
    """The rows of the plan (or of ``rows``, sorted) whose shards have no part, and are in no folded volume."""
    among = np.arange(len(plan)) if rows is None else rows
    volumes = plan.volumes if rows is None else plan.take(rows).volumes  # a block is asked for often: not all of it
    among = among[~np.isin(volumes, sorted(folded(run_dir, volumes)))]
    days = plan.day[among]
    starts = np.flatnonzero(np.concatenate([[True], days[1:] != days[:-1]])) if len(days) else np.empty(0, np.int64)
    found = [_without_part(run_dir, plan, some) for some in np.split(among, starts[1:])] if len(days) else []
    return np.concatenate(found) if found else np.empty(0, np.int64)


def folded(run_dir: RunDir, volumes: Text | None = None) -> set[str]:
    """The volumes that are folded, by their first days; of a few ``volumes`` it is faster to look for each."""
    some = np.unique(volumes).tolist() if volumes is not None and len(volumes) <= FEW else []
    if some:
        return {volume for volume in some if run_dir.outcomes(date.fromisoformat(volume)).exists()}
    return {path.stem for path in run_dir.folder("outcomes").glob("[!.]*.parquet")}


def _without_part(run_dir: RunDir, plan: Shards, rows: Int) -> Int:
    """Of ``rows`` of one day."""
    folder = run_dir.folder("parts") / str(plan.day[rows[0]])
    try:
        there = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return rows
    names = zip(plan.station[rows].tolist(), plan.band[rows].tolist(), strict=True)
    return rows[np.array([f"{station}.{band}.parquet" not in there for station, band in names], np.bool_)]


def write_part(run_dir: RunDir, shard: Shard, picks: Picks, outcome: Outcome, members: Sequence[Outcome] = ()) -> None:
    """Publish the result of one shard, of a network also how its ``members`` ended.

    The note of an earlier failure goes when its volume is folded.
    """
    about: dict[str, object] = {"outcome": asdict(outcome)}
    if members:
        about["members"] = [asdict(member) for member in members]
    try:
        _write_part(run_dir, shard, picks, about)
    except FileNotFoundError:  # its folder went away under it: another has done it, too, and folded
        _write_part(run_dir, shard, picks, about)


def _write_part(run_dir: RunDir, shard: Shard, picks: Picks, about: dict[str, object]) -> None:
    with publish(run_dir.part(shard)) as part:
        tables.write(part, picks, about)


def whole(run_dir: RunDir, plan: Shards, aside: Collection[str] = ()) -> list[str]:
    """The volumes that can be folded: all their shards have a result or are set ``aside``, and parts are there."""
    try:
        there = [path.name for path in run_dir.folder("parts").iterdir()]
    except FileNotFoundError:
        return []
    volumes = plan.volumes
    rows = np.setdiff1d(open_rows(run_dir, plan), plan.rows_of(aside), assume_unique=True)
    open_ = set(np.unique(volumes[rows]).tolist())
    return sorted(set(np.unique(volumes[np.isin(plan.day, there)]).tolist()) - open_)


def fold(run_dir: RunDir, plan: Shards, volumes: Sequence[str] | None = None, aside: Collection[str] = ()) -> None:
    """Join the parts of every volume that has them all but of shards set ``aside``, or of ``volumes``, which do."""
    volume_of = plan.volumes
    for volume in whole(run_dir, plan, aside) if volumes is None else volumes:
        rows = plan.take(volume_of == volume)
        if not run_dir.outcomes(date.fromisoformat(volume)).exists():
            without = np.intersect1d(open_rows(run_dir, rows), rows.rows_of(aside), assume_unique=True)
            kept = rows.take(np.setdiff1d(np.arange(len(rows)), without, assume_unique=True))
            if not _join(run_dir, date.fromisoformat(volume), kept):
                continue
        for day in np.unique(rows.day).tolist():
            remove_parts(run_dir, date.fromisoformat(day))


def _join(run_dir: RunDir, volume: date, rows: Shards) -> bool:
    """Publish a volume of the parts of ``rows``; False: another has, and takes the parts away."""
    paths = [run_dir.part(shard) for shard in rows.rows()]
    try:
        found, abouts = tables.read_all(paths, Picks)
    except BadData as e:
        if vanished(e) and run_dir.outcomes(volume).exists():
            return False
        raise
    ends = [outcome(path, about) for path, about in zip(paths, abouts, strict=True)]
    write_day(run_dir, volume, found, ends)
    # Not earlier, and of no other: a part that comes too late for its volume would take its note along.
    noted = tries.noted(run_dir, np.unique(rows.day).tolist())
    tries.forget(run_dir, sorted({end.shard for end in ends}.intersection(noted)))
    return True


def write_day(run_dir: RunDir, day: date, picks: Picks, outcomes: list[Outcome]) -> None:
    """Publish all picks of the volume that begins on ``day``, then how its shards ended."""
    with publish(run_dir.picks(day)) as part:
        tables.write(part, picks.ordered())
    with publish(run_dir.outcomes(day)) as part:
        tables.write(part, Outcomes.of(outcomes))


def take_back(run_dir: RunDir, shards: Sequence[str]) -> None:
    """Forget the results of ``shards`` (ids) in volumes that are not folded, and that they failed."""
    for path in (run_dir.part(shard) for shard in map(Shard.named, shards)):
        with kept_in(path):
            path.unlink(missing_ok=True)
    tries.forget(run_dir, shards)


def blame(run_dirs: Sequence[RunDir], plan: Shards, ids: Sequence[str]) -> None:
    """Note that a process died at the shards ``ids``: one more try of those that are planned and have no result."""
    for shard in missing(run_dirs[0], plan.take(plan.rows_of(ids))):
        for run_dir in run_dirs:
            tries.write(run_dir, shard, tries.DIED, "")
        log.warning("shard %s: %s", shard.id, tries.DIED)


def unfold(run_dir: RunDir, volume: date) -> None:
    """Parts again of the shards of a volume; nothing if it is not folded.

    A kill in between loses nothing; no other process may pick or fold meanwhile.
    """
    if not run_dir.outcomes(volume).exists():
        return
    picks, ends = tables.read(run_dir.picks(volume), Picks), tables.read(run_dir.outcomes(volume), Outcomes).rows()
    picks = picks.take(np.argsort(picks.station, kind="stable"))
    for end in ends:
        shard = Shard.named(end.shard)
        first, last = (int(np.searchsorted(picks.station, shard.channel, side)) for side in ("left", "right"))
        mine = picks.take(slice(first, last))
        start, stop = shard.span_ns
        write_part(run_dir, shard, mine.take((mine.time_ns >= start) & (mine.time_ns < stop)).ordered(), end)
    with kept_in(run_dir.outcomes(volume)):
        run_dir.outcomes(volume).unlink()
        run_dir.picks(volume).unlink(missing_ok=True)


def remove_parts(run_dir: RunDir, day: date) -> None:
    """Take away the parts of a day; what is in them is kept elsewhere, or is to be made again."""
    folder = run_dir.parts(day)
    try:
        with kept_in(folder):
            for path in list(folder.iterdir()):
                path.unlink(missing_ok=True)
    except FileNotFoundError:  # by another
        return
    with suppress(OSError):  # one that came late; the next fold will find it
        folder.rmdir()


def outcome(path: Path, about: dict[str, object] | None = None) -> Outcome:
    """How the shard of the part at ``path`` ended, by its metadata ``about``. Raises BadData."""
    entry = (tables.metadata(path) if about is None else about).get("outcome")
    if not isinstance(entry, dict):
        raise BadData(f"{path}: holds no outcome of its shard; delete it and run `orcolat pick` again")
    return Outcome(**{**entry, "notes": tuple(entry["notes"])})


def _loose_parts(run_dir: RunDir, volumes: Collection[str]) -> list[Path]:
    """Parts of other volumes than ``volumes``, which are folded."""
    parts = sorted(run_dir.folder("parts").glob("*/[!.]*.parquet"))
    if not parts:
        return []
    plan, days = planned(run_dir), np.array(sorted({path.parent.name for path in parts}))
    rows = plan.take(np.isin(plan.day, days))
    gone = set(rows.day[np.isin(rows.volumes, sorted(volumes))].tolist())
    return [path for path in parts if path.parent.name not in gone]


def pick_files(run_dir: RunDir, volumes: Collection[str] | None = None) -> list[Path]:
    """Every file with picks of the run, sorted by name; a pick lies in one of them only.

    ``volumes`` are those that are folded. Other processes may fold meanwhile: what is read while they do goes through
    `steady`.
    """
    if volumes is None:
        return steady(run_dir, lambda volumes: pick_files(run_dir, volumes))
    days = [p for p in sorted(run_dir.folder("picks").glob("[!.]*.parquet")) if p.stem in volumes]
    return days + _loose_parts(run_dir, volumes)


def picks(run_dir: RunDir) -> Picks:
    """All picks so far, in canonical order."""
    found = steady(run_dir, lambda volumes: [tables.read(path, Picks) for path in pick_files(run_dir, volumes)])
    return Picks.concat(found).ordered()


def outcomes(run_dir: RunDir) -> Outcomes:
    """How each shard ended so far, those that failed included."""

    def look(volumes: Collection[str]) -> Outcomes:
        days = [tables.read(run_dir.outcomes(date.fromisoformat(day)), Outcomes) for day in sorted(volumes)]
        return Outcomes.concat([*days, loose(run_dir, volumes)])

    return steady(run_dir, look)


def loose(run_dir: RunDir, volumes: Collection[str]) -> Outcomes:
    """The outcomes that are not in ``volumes``, which are folded, and those of the shards that failed."""
    return Outcomes.of([outcome(path) for path in _loose_parts(run_dir, volumes)] + failures(run_dir))


def steady(run_dir: RunDir, read: Callable[[Collection[str]], T]) -> T:
    """What ``read`` finds, given the volumes that are folded; again if another process folded one meanwhile.

    Raises Incomplete if that goes on and on.
    """
    for _ in range(LOOKS):
        before = folded(run_dir)
        try:
            found = read(before)
        except BadData as e:
            if not vanished(e):
                raise
            continue
        if folded(run_dir) == before:
            return found
    raise Incomplete(f"{run_dir.root}: others are folding volumes all the time: run again in a minute")


def vanished(error: BadData) -> bool:
    """Whether a file was not bad but gone: another process folded meanwhile."""
    return isinstance(error.__cause__, FileNotFoundError)


def failures(run_dir: RunDir) -> list[Outcome]:
    """Shards that failed and have not succeeded since, sorted."""
    return [Outcome(note.shard, "failed", note.reason, 0, 0.0) for note in notes(run_dir)]


def tracebacks(run_dir: RunDir) -> dict[str, str]:
    """Where each of the `failures` happened, by shard."""
    return {note.shard: note.traceback for note in notes(run_dir)}


def notes(run_dir: RunDir) -> list[tries.Note]:
    """Of the `failures`: there are notes of shards that have a result by now."""
    plan, found = planned(run_dir), {note.shard: note for note in tries.notes(run_dir)}
    lacking = {shard.id for shard in missing(run_dir, plan.take(plan.rows_of(found)))}
    left_out = _left_out(run_dir, plan)
    ids = sorted(left_out | (lacking & found.keys()))
    return [found.get(id_) or tries.Note(id_, "the note of its failure is gone") for id_ in ids]


def _left_out(run_dir: RunDir, plan: Shards) -> set[str]:
    """The shards that their volumes were folded without."""
    lacking, volumes = set[str](), plan.volumes
    sizes = dict(zip(*(each.tolist() for each in np.unique(volumes, return_counts=True)), strict=True))
    for volume in folded(run_dir) & sizes.keys():
        path = run_dir.outcomes(date.fromisoformat(volume))
        if tables.n_rows(path) < sizes[volume]:
            ended = set(tables.read(path, Outcomes).shard.tolist())
            lacking |= {shard.id for shard in plan.take(volumes == volume).rows()} - ended
    return lacking


def untried(run_dir: RunDir, plan: Shards) -> Int:
    """The rows of ``plan`` whose shards have not ended, not even in failure."""
    noted = plan.rows_of([note.shard for note in tries.notes(run_dir)])
    return np.setdiff1d(open_rows(run_dir, plan), noted, assume_unique=True)


def unpicked(run_dir: RunDir) -> int:
    """How many planned shards have no result; those that failed, and those of pickers of networks, are among them."""
    every = [run_dir, *pickers_of_networks(run_dir)]
    return sum(len(untried(each, planned(each))) + len(notes(each)) for each in every)


def pickers_of_networks(run_dir: RunDir) -> list[RunDir]:
    """The run directories of further pickers of networks, which have shards of their own."""
    return [RunDir(path.parents[1]) for path in sorted(run_dir.root.glob("pickers/*/hours/shards.parquet"))]


def require_picked(run_dir: RunDir, imported: bool) -> None:
    """Raises Incomplete unless every planned shard has ended, be it in failure."""
    plan = planned(run_dir)
    open_ = untried(run_dir, plan)
    if len(open_):
        names = ", ".join(plan.shard(row).id for row in open_[:5].tolist())
        raise Incomplete(
            f"{run_dir.root}: {len(open_)} shards are not picked yet ({names}, ...): run `orcolat pick` first"
        )
    if imported and not run_dir.imported.exists():
        raise Incomplete(f"{run_dir.root}: no picks imported yet: run `orcolat import-picks` first")
    _require_all_picks(run_dir, imported)


def _require_all_picks(run_dir: RunDir, imported: bool) -> None:
    """Raises BadData unless the files hold as many picks as were reported when they were made."""
    if imported:
        expected = int(json.loads(run_dir.imported.read_text("utf-8"))["n_picks"])
    else:
        expected = int(outcomes(run_dir).n_picks.sum())
    found = steady(run_dir, lambda volumes: sum(tables.n_rows(path) for path in pick_files(run_dir, volumes)))
    if found != expected:
        raise BadData(
            f"{run_dir.folder('picks')}: holds {found} picks, but {expected} were made: a file is missing or changed. "
            "Bring it back, or delete outcomes/DAY.parquet (of imported picks: picks/imported.json) to make it again"
        )
