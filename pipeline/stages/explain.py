"""Stage and command `explain`: why each missed event of the reference was missed. See docs/decisions/024."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster.world import World
from pipeline.config import Config
from pipeline.errors import ConfigError, Incomplete
from pipeline.formats import provenance, tables
from pipeline.maths import reasons
from pipeline.maths.event_features import event_rows
from pipeline.maths.reasons import HAS_DATA, Expected, Reason
from pipeline.maths.scorecard import EARTHQUAKE
from pipeline.records import ComparedEvents, Events, Missed
from pipeline.rundir import RunDir, publish
from pipeline.stages import explain_again, explain_event, explain_inputs, explain_scores
from pipeline.stages.explain_inputs import Inputs

log = logging.getLogger(__name__)
Said = tuple[str, dict[str, Any]]  # text, and the same for a program


def run(run_dir: RunDir, config: Config, world: World) -> None:
    """Write ``compare/missed.parquet``, unless it is up to date; rank 0 works. No waveform is looked at.

    Nothing to do where there is no reference of events. Raises Incomplete unless there is a comparison of what the run
    holds now.
    """
    if world.rank == 0 and config.compare.reference_events is not None:
        made_of = require_compared(run_dir, config)
        if provenance.has_reasons(run_dir, made_of):
            log.info("explained already: %s", run_dir.compared("missed"))
        else:
            _publish(run_dir, explained(run_dir, config), made_of)
    world.bcast(None)


def require_compared(run_dir: RunDir, config: Config) -> dict[str, str]:
    """What reasons are made of. Raises Incomplete unless there is a comparison of what the run holds now."""
    memo = provenance.Memo(run_dir)  # the picks of the run are read once for both
    if not provenance.has_comparison(run_dir, provenance.comparison(run_dir, config, memo)):
        raise Incomplete(f"{run_dir.root}: no comparison, or out of date: run `orcolat compare {run_dir.root}` first")
    return provenance.reasons(run_dir, config, memo)


def explained(run_dir: RunDir, config: Config) -> Missed:
    """Every missed event with its reason."""
    compared = tables.read(run_dir.compared("events"), ComparedEvents)
    missed = compared.take(compared.status == "missed")
    inputs = explain_inputs.read(run_dir, config)
    events = inputs.theirs.take(event_rows(inputs.theirs, missed.theirs))
    seen = explain_inputs.expected(inputs, events)
    return table(inputs, events, seen, decide(inputs, events, seen))


def decide(inputs: Inputs, events: Events, seen: Expected) -> list[Reason]:
    """The reason of each of the missed ``events``; ``seen`` are the arrivals of all."""
    found = []
    for row in range(len(events)):
        mine, event = explain_inputs.of_event(seen, row), events.take(slice(row, row + 1))
        found.append(reasons.decide(mine, explain_inputs.facts(inputs, event, mine), inputs.rules))
    open_ = {row: reason for row, reason in enumerate(found) if reason.reason == reasons.UNKNOWN}
    again = explain_again.named(inputs, open_, seen)
    return [again.get(row, reason) for row, reason in enumerate(found)]


def table(inputs: Inputs, events: Events, seen: Expected, why: list[Reason]) -> Missed:
    """One row an event, in the order of ``events``."""
    n = len(events)
    data = np.isin(seen.state, HAS_DATA)
    predicted = np.bincount(seen.event[seen.predicted], minlength=n) > 0
    return Missed(
        event=events.id,
        time_ns=events.time_ns,
        kind=events.kind,
        reason=_text(reason.reason for reason in why),
        rule=_text(reason.rule for reason in why),
        detail=_text(reason.detail for reason in why),
        other=_text(reason.other.id for reason in why),
        dt_s=np.array([reason.other.dt_s for reason in why], np.float64),
        distance_km=np.array([reason.other.distance_km for reason in why], np.float64),
        predicted=predicted,
        n_arrivals=np.bincount(seen.event, minlength=n),
        n_data=np.full(n, -1) if inputs.imported else np.bincount(seen.event[data], minlength=n),
        n_picked=np.bincount(seen.event[seen.our_phase != ""], minlength=n),
        n_associated=np.bincount(seen.event[seen.our_event != ""], minlength=n),
    )


def one(run_dir: RunDir, config: Config, asked: tuple[str | None, datetime | None], output: Path | None) -> Said:
    """Follow one event of the reference, by id or time, through all stages, and draw it; as text and as JSON.

    Where the archive and the weights are here, the minutes around its arrivals are scored once more. Raises ConfigError
    if there is no such event, Incomplete unless there is a comparison of what the run holds now.
    """
    require_compared(run_dir, config)
    inputs = explain_inputs.read(run_dir, config)
    event = explain_event.chosen(inputs, *asked)
    before = explain_inputs.expected(inputs, event)
    seen, scored = explain_scores.scored(inputs, before)
    known = explain_event.found(inputs, event)
    first = known or decide(inputs, event, before)[0]
    same = known is not None or bool((seen.state == before.state).all())
    reason = first if same else decide(inputs, event, seen)[0]
    what = explain_event.Explanation(event, reason, first, seen, scored)
    files = explain_event.keep(inputs, what, output)
    return explain_event.text(inputs, what, files), explain_event.as_json(inputs, what)


def _text(values: Any) -> Any:
    found = list(values)
    return np.array(found, np.str_) if found else np.empty(0, "U1")


def _publish(run_dir: RunDir, missed: Missed, made_of: dict[str, str]) -> None:
    counts = reasons.tally(missed.reason)
    with publish(run_dir.compared("missed")) as part:
        tables.write(part, missed, {**made_of, "reasons": counts})
    log.info("%d missed events: %s", len(missed), ", ".join(f"{n} {name}" for name, n in counts.items()) or "none")


def summary(run_dir: RunDir, config: Config) -> Said:
    """The reasons of all missed earthquakes and their sum, and those of other kinds of events.

    Raises ConfigError where there is no reference of events.
    """
    if config.compare.reference_events is None:
        raise ConfigError(f"{run_dir.root}: compare.reference_events is not set: nothing can have been missed")
    missed = tables.read(run_dir.compared("missed"), Missed)
    scored = missed.kind == EARTHQUAKE
    counts, n_others = reasons.tally(missed.reason[scored]), int(np.count_nonzero(~scored))
    lines = [f"{n:6,}  {name}" for name, n in counts.items()]
    lines.append(f"{sum(counts.values()):6,}  missed earthquakes")
    if n_others:
        lines.append(f"{n_others:6,}  missed events of other kinds, which do not count")
    for row in range(len(missed)):
        time = np.datetime64(int(missed.time_ns[row]), "ns").astype("datetime64[s]")
        lines.append(f"{missed.event[row]}  {time}  {missed.reason[row]}: {missed.detail[row]}")
    told = {"reasons": counts, "missed": sum(counts.values()), "of_other_kinds": n_others}
    events = [{name: explain_event.plain(v[row]) for name, v in missed.as_dict().items()} for row in range(len(missed))]
    return "\n".join([*lines, str(run_dir.compared("missed"))]), {**told, "events": events}
