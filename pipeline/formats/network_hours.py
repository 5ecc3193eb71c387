"""From the hours of networks to the station-days of their picker: what was found is handed over day by day.

An hour's part holds the picks of all stations of its network, and how each of them ended in that hour. Once all hours
of a day have ended, the station-days get their parts, and then ``hours/outcomes/DAY.parquet`` says that this is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np

from pipeline.errors import BadData, kept_in
from pipeline.formats import results, tables, tries
from pipeline.formats.network_plans import names
from pipeline.records import Outcome, Outcomes, Picks, Shard, Shards
from pipeline.rundir import Hours, RunDir, open_config, publish

Ends = dict[str, list[tuple[Shard, Outcome]]]  # of each station-day by its id: the hours, and how it ended in each


def hand_over(hours: RunDir, plan: Shards, volumes: Sequence[str], aside: Collection[str] = ()) -> None:
    """Hand over the days ``volumes`` of ``plan``, all of whose hours have a part or are set ``aside``.

    A network with an hour that is set aside gives nothing that day: `tell_failures` says why. Several processes may
    hand over, for they make the same bytes. Raises BadData if picks would be lost.
    """
    if not isinstance(hours, Hours):
        raise TypeError(f"{hours.root} holds no hours of networks")
    for volume in volumes:
        day = date.fromisoformat(volume)
        if hours.outcomes(day).exists() or _hand_over(hours, day, plan.take(plan.volumes == volume).rows(), aside):
            results.remove_parts(hours, day)


def _hand_over(hours: Hours, day: date, shards: Sequence[Shard], aside: Collection[str]) -> bool:
    """False: another has done it, and takes the parts away."""
    # An hour that was set aside may have been picked all the same: its note goes only when its day is handed over.
    gone = [shard for shard in shards if shard.id in aside and not hours.part(shard).exists()]
    lost = {shard.network for shard in gone}
    try:
        found, ends, told = _read(hours, [shard for shard in shards if shard not in gone])
    except BadData as e:
        if results.vanished(e) and hours.outcomes(day).exists():
            return False
        raise
    kept = {id_: rows for id_, rows in ends.items() if rows[0][0].network not in lost}
    _require_members(hours, day, kept, Counter(shard.network for shard in shards if shard.network not in lost))
    given = _give(hours, found, kept)
    made = sum(outcome.n_picks for outcome in told if Shard.named(outcome.shard).network not in lost)
    if given != made:
        raise BadData(f"{hours.parts(day)}: {made} picks were made, but the stations of the networks have {given}")
    ended = {outcome.shard for outcome in told}
    tries.forget(hours, sorted(ended.intersection(tries.noted(hours, [f"{day:%Y-%m-%d}"]))))
    with publish(hours.outcomes(day)) as part:
        tables.write(part, Outcomes.of(told))
    return True


def _read(hours: Hours, shards: Sequence[Shard]) -> tuple[Picks, Ends, list[Outcome]]:
    """The picks of all ``shards``, how the station-days ended in each, and how the shards did."""
    paths, ends = [hours.part(shard) for shard in shards], Ends()
    found, abouts = tables.read_all(paths, Picks) if paths else (Picks.empty(), [])
    for shard, about in zip(shards, abouts, strict=True):
        for member in about.get("members", ()):
            outcome = _outcome(member)
            ends.setdefault(outcome.shard, []).append((shard, outcome))
    return found, ends, [results.outcome(path, about) for path, about in zip(paths, abouts, strict=True)]


def _require_members(hours: Hours, day: date, ends: Ends, networks: Mapping[str, int]) -> None:
    """Raises BadData unless all hours of ``networks``, so many of each, were picked with the stations of the plan."""
    config, plan = open_config(hours.home.root), results.planned(hours.home)
    rows = plan.take(plan.day == f"{day:%Y-%m-%d}")
    rows = rows.take(np.isin(names(config.pick.networks, rows), sorted(networks)))
    odd = {shard.id for shard in rows.rows()} ^ ends.keys()
    odd |= {id_ for id_, found in ends.items() if len(found) != networks[found[0][0].network]}
    if odd:
        raise BadData(
            f"{hours.parts(day)}: {len(odd)} station-days are in the plan or in some of these hours alone, as "
            f"{min(odd)}: remove this folder, and run `orcolat pick` again"
        )


def _outcome(entry: dict[str, Any]) -> Outcome:
    return Outcome(**{**entry, "notes": tuple(entry["notes"])})


def _give(hours: Hours, found: Picks, ends: Ends) -> int:
    """Parts of the station-days; one that could not be read in an hour is set aside instead. Returns their picks."""
    span_ns, given = open_config(hours.home.root).run.span_ns, 0
    for id_, rows in sorted(ends.items()):
        shard = Shard.named(id_)
        mine, outcome = found.take(found.station == shard.channel), _joined(id_, rows, span_ns)
        if outcome.n_picks != len(mine):
            raise BadData(f"{hours.root}: {outcome.n_picks} picks of {id_} were made, and {len(mine)} are there")
        given += len(mine)
        if outcome.end == "failed":
            results.take_back(hours.home, [id_])  # what it had before another station was tried again
            tries.put(hours.home, shard, tries.Note(id_, outcome.reason, at_once=True))
        else:
            results.write_part(hours.home, shard, mine.ordered(), outcome)
    return given


def _joined(id_: str, rows: Sequence[tuple[Shard, Outcome]], span_ns: tuple[int, int]) -> Outcome:
    """How a station-day ended that ended so in its hours."""
    outcomes = [outcome for _, outcome in rows]
    n_picks, ends = sum(outcome.n_picks for outcome in outcomes), {outcome.end for outcome in outcomes}
    end = next(end for end in ("failed", "picked", "empty") if end in ends)
    reasons = _once(outcome.reason for outcome in outcomes if outcome.end == end)
    if end != "picked":
        return Outcome(id_, end, "; ".join(reasons), n_picks, 0.0)
    spans = [stop - start for start, stop in (shard.within_ns(span_ns) for shard, _ in rows)]
    share = sum(part * outcome.valid_fraction for part, outcome in zip(spans, outcomes, strict=True)) / sum(spans)
    notes = _once(note for outcome in outcomes for note in outcome.notes)
    return Outcome(id_, end, "", n_picks, min(1.0, share), notes)


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def tell_failures(hours: Hours) -> None:
    """Note at the open station-days of a network that one of its hours failed, and how often it was tried."""
    failed = [note for note in tries.notes(hours) if not hours.part(Shard.named(note.shard)).exists()]
    if not failed:
        return
    plan, networks = results.planned(hours.home), open_config(hours.home.root).pick.networks
    days = sorted({note.shard[:10] for note in failed})
    rows = plan.take(results.open_rows(hours.home, plan, np.flatnonzero(np.isin(plan.day, days))))
    for shard, network in zip(rows.rows(), names(networks, rows).tolist(), strict=True):
        where = shard.day, network
        mine = [note for note in failed if (Shard.named(note.shard).day, Shard.named(note.shard).network) == where]
        if mine:
            worst = max(mine, key=lambda note: note.tries)
            reason = worst.reason if worst.died else f"{worst.shard}: {worst.reason}"
            tries.put(hours.home, shard, tries.Note(shard.id, reason, worst.traceback, worst.tries, worst.start))


def reopen_lost(hours: Hours) -> None:
    """`reopen` the days that were handed over, and of which a station-day has neither result nor note all the same.

    Somebody has removed it, or a process was killed while it did so.
    """
    tell_failures(hours)
    plan, days = results.planned(hours.home), results.folded(hours)
    noted = plan.rows_of([note.shard for note in tries.notes(hours.home)])
    rows = np.setdiff1d(np.flatnonzero(np.isin(plan.day, sorted(days))), noted, assume_unique=True)
    for _ in range(2):  # another process that folds may move a result between two looks
        rows = results.open_rows(hours.home, plan, rows)
    reopen(hours, set(plan.day[rows].tolist()))


def reopen(hours: Hours, days: Collection[str]) -> None:
    """Forget all results and failures of the hours of ``days``; no other process may pick or hand over meanwhile."""
    for text in sorted(days):
        day = date.fromisoformat(text)
        results.remove_parts(hours, day)
        tries.forget(hours, tries.noted(hours, [text]))
        with kept_in(hours.outcomes(day)):
            hours.outcomes(day).unlink(missing_ok=True)
