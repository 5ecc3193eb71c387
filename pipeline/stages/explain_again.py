"""Which rule kept picks from being an event: they are associated again, with one rule after the other out of force."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pipeline.config import Associate
from pipeline.maths.names import sites
from pipeline.maths.reasons import HOLDS, UNKNOWN, Expected, Reason, refused
from pipeline.models import associator
from pipeline.models.associators.observed import Earthquake, Observed, Region
from pipeline.records import Int, Picks
from pipeline.stages.explain_inputs import Inputs, network_rows, of_event

log = logging.getLogger(__name__)
ALL = "all rules"
AT_LEAST = ("min_picks", "min_p_picks", "min_s_picks", "min_stations", "min_pairs")


def relaxed(settings: Associate) -> Iterator[tuple[str, dict[str, object]]]:
    """Each rule of ``settings`` that can refuse picks that are enough, and values that put it out of force."""
    if settings.max_gap_deg < 360:
        yield "max_gap_deg", {"max_gap_deg": 360.0}
    if settings.max_rms_s is not None:
        yield "max_rms_s", {"max_rms_s": None}
    if settings.associator == "gamma":
        yield "min_evidence", {"min_evidence": -1e6}
    yield "max_sigma11_s", {"max_sigma11_s": 3 * settings.max_sigma11_s}
    if settings.associator != "pyocto":
        yield "dbscan_eps_s", {"dbscan_eps_s": 5 * settings.dbscan_eps_s, "dbscan_min_samples": 1}
    for name in AT_LEAST:
        if (least := getattr(settings, name)) > 1:
            yield name, {name: least // 2}


def named(inputs: Inputs, open_: dict[int, Reason], seen: Expected) -> dict[int, Reason]:
    """The events of ``open_`` (by row; `UNKNOWN`) again, with the rule that refused each, where one did.

    Each piece that holds free picks of them is associated again without a rule. The first rule without which an event
    has at least half of an event's free picks is the one; `ALL` where it takes more than one.
    """
    if not open_:
        return {}
    picks, settings = inputs.picks, inputs.config.associate
    free = {row: _rows(picks, of_event(seen, row)) for row in open_}
    observed, found = _observed(inputs), dict(open_)
    each = list(relaxed(settings))
    together = {name: value for _, values in each for name, value in values.items()}
    for rule, values in [*each, (ALL, together)]:
        left = {row: rows for row, rows in free.items() if found[row].reason == UNKNOWN}
        if not left:
            break
        region = replace(inputs.region, settings=settings.model_copy(update=values))
        events = _associated(observed, region, np.concatenate(list(left.values())))
        for row, rows in left.items():
            if any(np.isin(rows, event.picks).sum() >= max(2, HOLDS * len(rows)) for event in events):
                found[row] = refused(of_event(seen, row), rule, _said(settings, values))
    log.info("associated %d events again: %d have a rule", len(open_), sum(r.reason != UNKNOWN for r in found.values()))
    return found


def _said(settings: Associate, values: dict[str, object]) -> str:
    """The changed values, for a sentence."""

    def told(value: object) -> str:
        return "none" if value is None else f"{value:g}"

    each = (f"{name} {told(value)} instead of {told(getattr(settings, name))}" for name, value in values.items())
    return ", ".join(each)


def _rows(picks: Picks, seen: Expected) -> Int:
    """The rows of the picks in no event that are of these arrivals."""
    some = seen.take((seen.our_phase != "") & (seen.our_event == ""))
    near = np.flatnonzero(np.isin(picks.time_ns, some.our_time_ns))
    rows = zip(
        sites(picks.station[near]).tolist(), picks.phase[near].tolist(), picks.time_ns[near].tolist(), strict=True
    )
    wanted = set(zip(some.station.tolist(), some.our_phase.tolist(), some.our_time_ns.tolist(), strict=True))
    return near[np.array([row in wanted for row in rows], np.bool_)]


def _observed(inputs: Inputs) -> Observed:
    """All picks of the run as `associate` gives them to the associator."""
    picks = inputs.picks
    network, row = network_rows(inputs, picks)
    known = picks.amplitude_m_s > 0
    log_amplitude = np.log10(picks.amplitude_m_s, out=np.full(len(picks), np.nan), where=known, dtype=np.float64)
    site = network.take(row)
    return Observed(
        station=sites(picks.station),
        phase=picks.phase,
        time_ns=picks.time_ns,
        weight=picks.probability.astype(np.float64),
        log_amplitude=log_amplitude,
        site=row,
        x_km=site.x_km,
        y_km=site.y_km,
        z_km=site.z_km,
    )


def _associated(observed: Observed, region: Region, rows: Int) -> Sequence[Earthquake]:
    """The events of the pieces that hold any of ``rows``."""
    rows, found = np.unique(rows), list[Earthquake]()
    for piece in associator.pieces(observed, region):
        first, stop = np.searchsorted(rows, [piece.first, piece.stop])
        if stop > first:
            found += [e.shifted(piece.first) for e in associator.solve(observed.take(piece.rows), piece, region)]
    return associator.settle(found, observed, region).events
