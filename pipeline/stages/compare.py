"""Stage `compare`: our catalogue and picks beside those of the analysts."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np

from pipeline.cluster.world import World
from pipeline.config import Compare, Config, Reference
from pipeline.errors import ConfigError, Incomplete
from pipeline.formats import decisions, origins, provenance, results, tables
from pipeline.formats.bulletin_rows import Bulletin
from pipeline.formats.reference import read_reference
from pipeline.maths import match
from pipeline.maths.account import events_of
from pipeline.maths.comparison import compare_events, compare_picks, events_in_scope, pick_groups, picks_in_scope
from pipeline.maths.decisions import by_event, carried
from pipeline.maths.names import resolve, sites
from pipeline.maths.scorecard import EARTHQUAKE, Bootstrap, after_review, plain, score_events, score_picks, scored
from pipeline.records import (
    Arrivals,
    Assignments,
    ComparedEvents,
    ComparedPicks,
    Decisions,
    Events,
    Picks,
    Stations,
    Text,
)
from pipeline.rundir import RunDir, of_associator, publish, require

log = logging.getLogger(__name__)
Card = dict[str, Any]
SAME_S = 1e-6  # a pick of two catalogues of one run is the same pick
DIFFERENCES = {"time_s": "s", "epicentre_km": "km", "depth_km": "km of depth"}


def run(run_dir: RunDir, config: Config, world: World) -> None:
    """Write ``compare/events.parquet``, ``picks.parquet`` and, last, ``scorecard.json``; rank 0 works.

    Does nothing where there is a scorecard of the same inputs and configuration. Raises Incomplete if an
    earlier stage has not finished, ConfigError if a reference cannot be read.
    """
    if world.rank == 0:
        results.require_picked(run_dir, imported=config.pick.source is not None)
        made_of = provenance.comparison(run_dir, config)
        if provenance.has_comparison(run_dir, made_of):
            log.info("compared already: %s", run_dir.scorecard)
        else:
            compare(run_dir, config, made_of)
    world.bcast(None)


def compare(run_dir: RunDir, config: Config, made_of: dict[str, str]) -> None:
    """Compare and publish. ``made_of`` names the inputs."""
    settings = config.compare
    their_events, their_picks = read(settings.reference_events), read(settings.reference_picks)
    ours, picks = origins.events(run_dir), results.picks(run_dir)
    assignments = tables.read(run_dir.assignments, Assignments)
    known = np.unique(tables.read(require(run_dir.stations, "plan"), Stations).id).tolist()
    bootstrap = Bootstrap(settings.bootstrap_samples, settings.confidence, config.run.seed)

    all_events = pair_events(ours, their_events, settings)
    listed = all_events.take(events_in_scope(all_events, config.run.span_ns, settings.polygon))
    event_n, event_card = _event_card(len(ours), their_events, all_events, listed, settings, bootstrap)
    if event_card and len(said := decisions.of_run(run_dir)):
        event_card["after_review"] = after_review(listed, _decided(said, ours, listed, settings), bootstrap)

    all_picks = pair_picks(picks, assignments, their_picks, known, settings)
    others = left_out(their_events, listed) | not_earthquakes(their_picks)
    pick_rows = all_picks.take(picks_in_scope(all_picks, config.run.span_ns, known, others))
    pick_n, pick_card = _pick_card(len(picks), their_picks, all_picks, pick_rows, listed, bootstrap)

    card = {
        **made_of,
        "tolerances": {
            "pick_s": settings.pick_tolerance_s,
            "event_s": settings.event_tolerance_s,
            "event_km": settings.event_tolerance_km,
        },
        "n": {**event_n, **pick_n, "bad_lines": sum(len(b.bad) for b in (their_events, their_picks) if b)},
        "events": event_card,
        "picks": pick_card,
    }
    _publish(run_dir, listed, pick_rows, card)


def _decided(said: Decisions, ours: Events, listed: ComparedEvents, settings: Compare) -> Text:
    """What analysts decided on our event in each row (n,), "" where nothing."""
    found = by_event(said, ours, carried(said, ours, settings.event_tolerance_s, settings.event_tolerance_km))
    return np.array([found.get(id_, "") for id_ in listed.ours.tolist()], np.str_)


def associators(run_dir: RunDir, config: Config, name: str, reference: str, world: World) -> str:
    """Compare the catalogues of two associators of one run; a summary as text. Rank 0 works.

    All events of both count, whenever and wherever they are, and the picks in them. Writes into `RunDir.between` the
    same files as `run`. Raises ConfigError if the two are one, Incomplete if one has no catalogue of the run's picks.
    """
    if name == reference:
        raise ConfigError(f"--associators {name} {reference}: a catalogue is compared with another one")
    target = run_dir.between(name, reference)
    if world.rank == 0:
        ours, theirs = (_catalogue_of(run_dir, config, each) for each in (name, reference))
        if tables.metadata(ours.events).get("inputs") != tables.metadata(theirs.events).get("inputs"):
            raise Incomplete(
                f"{run_dir.root}: {name} and {reference} had other picks: run `{_command(run_dir, config, name)}` "
                f"and `{_command(run_dir, config, reference)}` again"
            )
        paths = [path for each in (ours, theirs) for path in (each.events, each.assignments)]
        made_of = {"config_digest": config.digest, "inputs_digest": provenance.of_files(paths)}
        if not provenance.has_comparison(target, made_of):
            compare_associators(ours, theirs, config, target, {**made_of, "associators": [name, reference]})
    world.bcast(None)
    return summary(json.loads(target.scorecard.read_text("utf-8")))


def _catalogue_of(run_dir: RunDir, config: Config, name: str) -> RunDir:
    """Where the catalogue of ``name`` is. Raises Incomplete with the command that makes it."""
    found, _ = of_associator(run_dir, config, name)
    if not (found.events.exists() and found.assignments.exists()):
        command = _command(run_dir, config, name)
        raise Incomplete(f"{run_dir.root}: no catalogue of {name} yet: run `{command}` first")
    return found


def _command(run_dir: RunDir, config: Config, name: str) -> str:
    own = name == config.associate.associator
    return f"orcolat associate {run_dir.root}{'' if own else f' --associator {name}'}"


def compare_associators(ours: RunDir, theirs: RunDir, config: Config, target: RunDir, made_of: Card) -> None:
    """Compare two catalogues of the same picks and publish in ``target``."""
    settings = config.compare
    bulletin = read_reference(Reference(path=theirs.events, format="orcolat"))
    arrivals = read_reference(Reference(path=theirs.assignments, format="orcolat")).arrivals
    events, assignments = tables.read(ours.events, Events), tables.read(ours.assignments, Assignments)
    bootstrap = Bootstrap(settings.bootstrap_samples, settings.confidence, config.run.seed)

    listed = _paired(events, bulletin.events, settings)
    event_n, event_card = _event_card(len(events), bulletin, listed, listed, settings, bootstrap)

    picks = results.picks(ours)
    event = events_of(picks, assignments)
    picks, event = picks.take(event != ""), event[event != ""]
    rows = compare_picks(picks, event, arrivals, arrivals.station, _same(picks, arrivals, settings))
    pick_n, pick_card = _pick_card(len(picks), bulletin, rows, rows, listed, bootstrap)
    pick_n["picks_same_event"] = _agreed(listed, rows)

    tolerances = {"pick_s": SAME_S, "event_s": settings.event_tolerance_s, "event_km": settings.event_tolerance_km}
    card = {**made_of, "tolerances": tolerances, "n": {**event_n, **pick_n}, "events": event_card, "picks": pick_card}
    _publish(target, listed, rows, card)


def _same(picks: Picks, arrivals: Arrivals, settings: Compare) -> match.Pairs:
    """Each pick with itself."""
    mine = (sites(picks.station), picks.phase, picks.time_ns, picks.probability.astype(np.float64))
    return match.match_picks(mine, (arrivals.station, arrivals.phase, arrivals.time_ns), SAME_S, settings.pick_weights)


def _agreed(events: ComparedEvents, picks: ComparedPicks) -> int:
    """How many picks are in events of both that are matched with each other."""
    pairs = events.take(events.status == "matched")
    theirs_of = dict(zip(pairs.ours.tolist(), pairs.theirs.tolist(), strict=True))
    both = picks.take(picks.status == "matched")
    rows = zip(both.our_event.tolist(), both.their_event.tolist(), strict=True)
    return sum(theirs_of.get(ours) == theirs for ours, theirs in rows)


def summary(card: Card) -> str:
    """The scorecard of two associators in a few lines."""
    name, reference = card["associators"]
    n, limits, residuals = card["n"], card["tolerances"], card["events"]["residuals"]
    counts = card["picks"]["confusion"]["counts"]  # rows theirs, columns ours: P, S, none
    lines = [
        f"{name} against {reference}: events within {limits['event_s']:g} s and {limits['event_km']:g} km are common",
        f"{'':8} {name:>9} {reference:>9}    common only {name:>6} only {reference:>6} precision    recall        F1",
        _line("events", n["events_ours"], n["events_reference"], n["events_matched"]),
        *(
            _line(f"{phase} picks", sum(row[k] for row in counts), sum(counts[k]), counts[k][k])
            for k, phase in enumerate("PS")
        ),
        f"of {n['picks_matched']:,} picks in events of both {n['picks_same_event']:,} are in common events",
    ]
    if n["events_matched"]:
        far = [f"{residuals[key]['mae']:.2f} {unit}" for key, unit in DIFFERENCES.items()]
        lines.append(f"mean distance of common events: {', '.join(far)}")
    return "\n".join(lines)


def _line(what: str, ours: int, theirs: int, both: int) -> str:
    shares = [(both, ours), (both, theirs), (2 * both, ours + theirs)]
    rates = " ".join(f"{part / whole:9.3f}" if whole else f"{'-':>9}" for part, whole in shares)
    return f"{what:8} {ours:9,} {theirs:9,} {both:9,} {ours - both:11,} {theirs - both:11,} {rates}"


def read(reference: Reference | None) -> Bulletin | None:
    """The reference, its bad lines named in the log. Raises ConfigError if it cannot be read."""
    if reference is None:
        return None
    found = read_reference(reference)
    for bad in found.bad:
        log.warning("%s, line %d, %r: %s", reference.path, bad.number, bad.text.rstrip()[:80], bad.reason)
    return found


def pair_events(ours: Events, theirs: Bulletin | None, settings: Compare) -> ComparedEvents:
    """All events of both. Raises ConfigError if the reference has no places."""
    if theirs is None:
        return ComparedEvents.empty()
    reference = theirs.events
    if not np.isfinite(reference.latitude_deg).any():
        path = settings.reference_events.path if settings.reference_events else ""
        raise ConfigError(f"compare.reference_events {path}: no event with a place; a file of picks has none")
    return _paired(ours, reference, settings)


def _paired(ours: Events, reference: Events, settings: Compare) -> ComparedEvents:
    pairs = match.match_events(
        (ours.time_ns, ours.latitude_deg, ours.longitude_deg),
        (reference.time_ns, reference.latitude_deg, reference.longitude_deg),
        settings.event_tolerance_s,
        settings.event_tolerance_km,
        settings.event_weights,
    )
    return compare_events(ours, reference, pairs)


def pair_picks(
    ours: Picks, assignments: Assignments, theirs: Bulletin | None, known: list[str], settings: Compare
) -> ComparedPicks:
    """All picks of both. A station of the reference that the run does not know keeps its name, and is logged."""
    if theirs is None:
        return ComparedPicks.empty()
    arrivals = theirs.arrivals
    station = their_stations(arrivals, known)
    pairs = match.match_picks(
        (sites(ours.station), ours.phase, ours.time_ns, ours.probability.astype(np.float64)),
        (station, arrivals.phase, arrivals.time_ns),
        settings.pick_tolerance_s,
        settings.pick_weights,
    )
    return compare_picks(ours, events_of(ours, assignments), arrivals, station, pairs)


def their_stations(arrivals: Arrivals, known: list[str]) -> Text:
    """ "NET.STA" of each arrival, or the name as it is where it means no station of the run."""
    found, reasons = resolve(arrivals.station.tolist(), known)
    for name, reason in reasons.items():
        n = np.count_nonzero(arrivals.station == name)
        log.warning("reference station %r: %s; its %d arrivals are left out of the scores", name, reason, n)
    return np.array([found.get(name, name) for name in arrivals.station.tolist()], np.str_)


def left_out(theirs: Bulletin | None, listed: ComparedEvents) -> set[str]:
    """Ids of the reference whose picks do not count: out of scope, or no earthquakes."""
    if theirs is None:
        return set()
    return set(theirs.events.id.tolist()) - set(listed.theirs[scored(listed)].tolist())


def not_earthquakes(theirs: Bulletin | None) -> set[str]:
    """Ids of what the file of picks itself calls something else."""
    return set() if theirs is None else set(theirs.events.id[theirs.events.kind != EARTHQUAKE].tolist())


def _event_card(
    n_ours: int,
    theirs: Bulletin | None,
    every: ComparedEvents,
    listed: ComparedEvents,
    settings: Compare,
    bootstrap: Bootstrap,
) -> tuple[Card, Card | None]:
    names = ("events_ours", "events_reference", "events_matched", "events_excluded")
    if theirs is None:
        return dict(zip(names, (n_ours, None, None, None), strict=True)), None
    rows = listed.take(scored(listed))
    counts = (*_counts(rows.status), len(every) - len(rows))
    return dict(zip(names, counts, strict=True)), score_events(listed, settings.magnitude_bin, bootstrap)


def _pick_card(
    n_ours: int,
    theirs: Bulletin | None,
    every: ComparedPicks,
    rows: ComparedPicks,
    events: ComparedEvents,
    bootstrap: Bootstrap,
) -> tuple[Card, Card | None]:
    names = ("picks_ours", "picks_reference", "picks_matched", "picks_excluded")
    if theirs is None:
        return dict(zip(names, (n_ours, None, None, None), strict=True)), None
    pairs = events.take(events.status == "matched")
    groups = pick_groups(rows, dict(zip(pairs.ours.tolist(), pairs.theirs.tolist(), strict=True)))
    counts = (*_counts(rows.status), len(every) - len(rows))
    return dict(zip(names, counts, strict=True)), score_picks(rows, groups, bootstrap)


def _counts(status: Text) -> tuple[int, int, int]:
    """How many are ours, theirs and both."""
    n = {name: int(np.count_nonzero(status == name)) for name in ("matched", "missed", "new")}
    return n["matched"] + n["new"], n["matched"] + n["missed"], n["matched"]


def _publish(run_dir: RunDir, events: ComparedEvents, picks: ComparedPicks, card: Card) -> None:
    for name, table in (("events", events), ("picks", picks)):
        with publish(run_dir.compared(name)) as part:
            tables.write(part, table, {"inputs_digest": card["inputs_digest"]})
    with publish(run_dir.scorecard) as part:
        part.write_text(json.dumps(plain(card), indent=1, allow_nan=False) + "\n", "utf-8")
    log.info("compared %d events and %d picks: %s", len(events), len(picks), run_dir.scorecard)
