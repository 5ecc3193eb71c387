"""Numbers out of a comparison: the sections "events" and "picks" of the scorecard, as plain values for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import floor, isfinite, isnan, nan
from typing import Any

import numpy as np

from pipeline.maths import stats
from pipeline.maths.decisions import DECISIONS
from pipeline.records import DAY_NS, Bool, ComparedEvents, ComparedPicks, Int, Text

PHASES = ("P", "S")
EARTHQUAKE = "earthquake"


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are made: number of samples, confidence, seed."""

    samples: int
    confidence: float
    seed: int

    def rates(self, counts: Int, stream: int) -> stats.Rates:
        """``stream`` tells the random numbers of one score from those of another."""
        return stats.rates(counts, self.samples, self.confidence, [self.seed, stream])


def scored(table: ComparedEvents) -> Bool:
    """Rows that count: earthquakes of the reference, and what is only ours. Blasts and the like do not."""
    rows: Bool = (table.kind == EARTHQUAKE) | (table.status == "new")
    return rows


def score_events(table: ComparedEvents, magnitude_bin: float, bootstrap: Bootstrap) -> dict[str, Any]:
    """Rates, residuals and tallies of the events (in scope) of ``table``."""
    rows = table.take(scored(table))
    rates = bootstrap.rates(_singles(rows.status), 0)
    return {
        "recall": asdict(rates.recall),
        "precision": asdict(rates.precision),
        "f1": asdict(rates.f1),
        "residuals": {
            "time_s": asdict(stats.residuals(rows.dt_s)),
            "epicentre_km": asdict(stats.residuals(rows.distance_km)),
            "depth_km": asdict(stats.residuals(rows.depth_difference_km)),
        },
        "by_magnitude": _by_magnitude(rows.take(rows.status != "new"), magnitude_bin, bootstrap),
        "by_day": _by_day(
            rows.status,
            np.where(rows.theirs != "", rows.their_time_ns, rows.our_time_ns),
            {"": _singles(rows.status)},
        ),
        "kinds": _kinds(table.take(~scored(table))),
    }


def after_review(table: ComparedEvents, decision: Text, bootstrap: Bootstrap) -> dict[str, Any]:
    """The rates of `score_events` with what analysts decided on new events: ``decision`` (n,), "" where nothing.

    A new event that was accepted is as good as one of the reference, which lacked it; a blast does not count; all
    others are still false alarms. Decisions on events that the reference has change nothing.
    """
    new = table.status == "new"
    said = {name: new & (decision == name) for name in DECISIONS}
    keep = scored(table) & ~said["quarry blast"]
    counts = _singles(np.where(said["accept"], "matched", table.status)[keep])
    matched, missed, left = counts.sum(axis=0).tolist() if len(counts) else (0, 0, 0)
    rates = bootstrap.rates(counts, 3)
    return {
        "accepted": int(said["accept"].sum()),
        "rejected": int(said["reject"].sum()),
        "quarry_blasts": int(said["quarry blast"].sum()),
        "unsure": int(said["unsure"].sum()),
        "undecided": int((new & (decision == "")).sum()),
        "ours": matched + left,
        "reference": matched + missed,
        "matched": matched,
        "recall": asdict(rates.recall),
        "precision": asdict(rates.precision),
        "f1": asdict(rates.f1),
    }


def _kinds(rows: ComparedEvents) -> dict[str, dict[str, int]]:
    return {
        kind: {
            "reference": int(np.count_nonzero(rows.kind == kind)),
            "matched": int(np.count_nonzero((rows.kind == kind) & (rows.status == "matched"))),
        }
        for kind in np.unique(rows.kind).tolist()
    }


def _by_magnitude(rows: ComparedEvents, width: float, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Recall in bins [low, high) of the reference's magnitude; the last bin, without bounds, has none.

    There is no precision by magnitude: it would need the magnitude of what only we have, which is not known.
    """
    index = [None if isnan(m) else floor(m / width + 1e-9) for m in rows.magnitude.tolist()]
    out = []
    for stream, k in enumerate(sorted(set(index), key=lambda k: (k is None, k or 0))):
        status = rows.status[[i == k for i in index]]
        recall = bootstrap.rates(_singles(status), 100 + stream).recall
        out.append(
            {
                "low": None if k is None else round(k * width, 9),
                "high": None if k is None else round((k + 1) * width, 9),
                "n": len(status),
                "matched": int(np.count_nonzero(status == "matched")),
                "recall": asdict(recall),
            }
        )
    return out


def score_picks(table: ComparedPicks, groups: Text, bootstrap: Bootstrap) -> dict[str, Any]:
    """Rates and residuals of each phase, confusion and tallies of the picks (in scope) of ``table``.

    A phase is found where both have it: a P paired with an S is a miss of the one and new for the other.
    """
    return {
        **{phase: _score_phase(table, groups, phase, bootstrap) for phase in PHASES},
        "confusion": {"rows": [*PHASES, "none"], "columns": [*PHASES, "none"], "counts": _confusion(table)},
        "by_station": _by_station(table),
        "by_day": _by_day(
            table.status,
            np.where(table.their_phase != "", table.their_time_ns, table.our_time_ns),
            {f"_{phase.lower()}": phase_flags(table, phase).astype(np.int64) for phase in PHASES},
        ),
    }


def _score_phase(table: ComparedPicks, groups: Text, phase: str, bootstrap: Bootstrap) -> dict[str, Any]:
    flags = phase_flags(table, phase)
    counts = stats.by_group(groups[flags.any(axis=1)], flags[flags.any(axis=1)])
    rates = bootstrap.rates(counts, 1 + PHASES.index(phase))
    return {
        "recall": asdict(rates.recall),
        "precision": asdict(rates.precision),
        "f1": asdict(rates.f1),
        "residual_s": asdict(stats.residuals(table.dt_s[flags[:, 0]])),
    }


def phase_flags(table: ComparedPicks, phase: str) -> Bool:
    """(n, 3): both have the phase, only the reference has, only we have."""
    theirs, ours = table.their_phase == phase, table.our_phase == phase
    return np.stack([theirs & ours, theirs & ~ours, ours & ~theirs], axis=1)


def _singles(status: Text) -> Int:
    """Counts (n, 3) of rows that stand for themselves."""
    counts: Int = np.stack([status == name for name in ("matched", "missed", "new")], axis=1).astype(np.int64)
    return counts


def _confusion(table: ComparedPicks) -> list[list[int]]:
    names = [*PHASES, ""]
    return [
        [int(np.count_nonzero((table.their_phase == row) & (table.our_phase == column))) for column in names]
        for row in names
    ]


def _by_station(table: ComparedPicks) -> list[dict[str, Any]]:
    order = np.argsort(table.station, kind="stable")
    names, first = np.unique(table.station[order], return_index=True)
    parts = np.split(order, first[1:]) if len(names) else []
    return [_station(name, table.take(rows)) for name, rows in zip(names.tolist(), parts, strict=True)]


def _station(name: str, rows: ComparedPicks) -> dict[str, Any]:
    out: dict[str, Any] = {"station": name}
    for phase in PHASES:
        flags = phase_flags(rows, phase)
        both, missed, new = flags.T
        key = phase.lower()
        out[f"reference_{key}"] = int(np.count_nonzero(both | missed))
        out[f"matched_{key}"] = int(np.count_nonzero(both))
        out[f"ours_{key}"] = int(np.count_nonzero(both | new))
        out[f"median_dt_{key}_s"] = stats.residuals(rows.dt_s[both]).median
        out |= _rates(flags.astype(np.int64), f"_{key}")
    return out


def _by_day(status: Text, time_ns: Int, counts: dict[str, Int]) -> list[dict[str, Any]]:
    """Tallies of each day, and the rates of each of ``counts`` (n, 3), its key appended to their names."""
    days = (time_ns // DAY_NS * DAY_NS).astype("datetime64[ns]").astype("datetime64[D]").astype(str)
    out = []
    for day in np.unique(days).tolist():
        here = days == day
        matched, missed, new = _singles(status[here]).sum(axis=0).tolist()
        row = {"day": day, "ours": matched + new, "reference": matched + missed, "matched": matched}
        for suffix, of in counts.items():
            row |= _rates(of[here], suffix)
        out.append(row)
    return out


def _rates(counts: Int, suffix: str) -> dict[str, float]:
    """Recall, precision and F1 of ``counts`` (n, 3): matched, missed and new; NaN where nothing is there to count."""
    matched, missed, new = counts.sum(axis=0).tolist()
    shares = {
        "recall": (matched, matched + missed),
        "precision": (matched, matched + new),
        "f1": (2 * matched, 2 * matched + missed + new),
    }
    return {name + suffix: part / whole if whole else nan for name, (part, whole) in shares.items()}


def plain(value: Any) -> Any:
    """The same value with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
