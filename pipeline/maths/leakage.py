"""The gate before any score: what training, validation and test share that they must not. Tables in, names out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from pipeline.errors import ConfigError
from pipeline.maths.splits import NAMES, PROMISES, Kind, Method, places
from pipeline.records import NS, Float32, Int, Labelled, Text

SHOWN = 5  # leaks of a kind that a message names
ALIKE = 0.98  # correlation from which two records show the same
BLOCK = 4096


class Leak(NamedTuple):
    """One thing that two parts share."""

    kind: Kind
    name: str  # of the earthquake, the station, or of both records
    parts: tuple[str, ...]
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name} in {' and '.join(self.parts)}{f' ({self.detail})' if self.detail else ''}"


def require(
    rows: Labelled,
    part: Int,
    method: Method,
    margin_s: float,
    digests: Text | None = None,
    shows: Float32 | None = None,
) -> list[str]:
    """Raises ConfigError that names every leak (five of a kind) against what ``method`` promises.

    Returns warnings, one sentence each: what the parts share that they may with this method, and what could not be
    checked. ``digests`` (n,) are those of `fingerprints`; ``shows`` (n, m) are `snippets`.
    """
    found = leaks(rows, part, margin_s, digests, shows)
    bad = [leak for leak in found if leak.kind in PROMISES[method]]
    if bad:
        raise ConfigError(f"the split by {method} leaks, so that nothing is reported on it: {summary(bad)}")
    allowed = summary([leak for leak in found if leak.kind not in PROMISES[method]])
    remarks = [f"the split by {method} lets parts share: {allowed}"] if allowed else []
    timeless = int(np.count_nonzero(~rows.has_time & (part >= 0)))
    if timeless:
        remarks.append(f"{timeless} records have no time: whether they are near to others in time was not checked")
    if digests is None:
        remarks.append("waveforms were not compared")
    return remarks


def summary(found: Sequence[Leak]) -> str:
    """All leaks in one line, some of each kind by name."""
    said = []
    for kind in dict.fromkeys(leak.kind for leak in found):
        of_kind = [leak for leak in found if leak.kind == kind]
        more = f", and {len(of_kind) - SHOWN} more" if len(of_kind) > SHOWN else ""
        said.append(", ".join(map(str, of_kind[:SHOWN])) + more)
    return "; ".join(said)


def leaks(
    rows: Labelled, part: Int, margin_s: float, digests: Text | None = None, shows: Float32 | None = None
) -> list[Leak]:
    """Everything that two parts share: records by id, earthquakes, sites, times nearer than ``margin_s``, waveforms.

    ``part`` (n,) is that of `splits.split`; dropped records (-1) leak nothing. Sorted by kind and name.
    """
    found = _shared("record", rows.id, part)
    found += [leak for leak in _shared("event", rows.event, part) if leak.name]
    found += _shared("station", places(rows), part)
    found += _near(rows, part, margin_s)
    if digests is not None:
        for leak in _shared("waveform", digests, part):
            same = rows.id[(digests == leak.name) & (part >= 0)].tolist()
            found.append(leak._replace(name=" = ".join(same), detail="identical samples"))
    if shows is not None:
        found += _alike(rows, part, shows)
    return found


def _shared(kind: Kind, names: Text, part: Int) -> list[Leak]:
    """Names that are in several parts."""
    used = part >= 0
    values, code = np.unique(names[used], return_inverse=True)
    there = np.zeros((len(values), len(NAMES)), np.bool_)
    there[code.ravel(), part[used]] = True
    both = np.flatnonzero(there.sum(axis=1) > 1)
    return [Leak(kind, str(values[i]), tuple(NAMES[q] for q in np.flatnonzero(there[i]))) for i in both]


def _near(rows: Labelled, part: Int, margin_s: float) -> list[Leak]:
    """Of each record the last one of another part that ends less than the margin before it begins, or later."""
    begin, end = rows.spans_ns()
    found: dict[tuple[str, str], Leak] = {}
    for a, b in _ordered_pairs(np.unique(part[part >= 0])):
        early, late = (np.flatnonzero((part == q) & rows.has_time) for q in (a, b))
        early = early[np.argsort(begin[early], kind="stable")]
        if not len(early):
            continue
        last = np.maximum.accumulate(end[early])
        which = early[np.maximum.accumulate(np.where(end[early] == last, np.arange(len(early)), 0))]
        before = np.searchsorted(begin[early], begin[late], side="right")
        for i, k in zip(late[before > 0].tolist(), (before[before > 0] - 1).tolist(), strict=True):
            gap_s = (int(begin[i]) - int(last[k])) / NS
            if gap_s < margin_s:
                pair = sorted((int(which[k]), i), key=lambda row: (int(part[row]), str(rows.id[row])))
                names = " and ".join(str(rows.id[row]) for row in pair)
                how = "they overlap" if gap_s < 0 else f"{gap_s:.1f} s apart"
                parts = NAMES[part[pair[0]]], NAMES[part[pair[1]]]
                found[str(rows.id[pair[0]]), str(rows.id[pair[1]])] = Leak("time", names, parts, how)
    return [found[key] for key in sorted(found)]


def _ordered_pairs(parts: Iterable[int]) -> list[tuple[int, int]]:
    return [pair for a, b in combinations(parts, 2) for pair in ((a, b), (b, a))]


def fingerprints(waveforms: Float32, rows: Labelled) -> Text:
    """SHA-256 of the usable samples of each record, (k,); equal where two records show the very same numbers."""
    found = []
    for samples, first, stop in zip(waveforms, rows.first.tolist(), rows.stop.tolist(), strict=True):
        used = samples[:, first : stop if stop >= 0 else None]
        found.append(hashlib.sha256(np.ascontiguousarray(used).tobytes()).hexdigest())
    return np.array(found, np.str_)


def snippets(waveforms: Float32, rows: Labelled, before_s: float = 0.5, after_s: float = 4.0) -> Float32:
    """The first component with data around the first pick, without mean and of norm 1: float32 (k, m); 0 for noise."""
    rate_hz = float(rows.rate_hz[0]) if len(rows) else 1.0
    before, m = round(before_s * rate_hz), round((before_s + after_s) * rate_hz)
    out = np.zeros((len(rows), m), np.float32)
    onsets = np.where(np.isfinite(rows.p_sample), rows.p_sample, rows.s_sample)
    for i in np.flatnonzero(np.isfinite(onsets)).tolist():
        row = "ZNE".index(rows.components[i][0])
        start = round(float(onsets[i])) - before
        piece = waveforms[i, row, max(0, start) : max(0, start + m)].astype(np.float64)
        piece = piece - piece.mean() if len(piece) else piece
        norm = float(np.linalg.norm(piece))
        at = max(0, -start)
        if norm > 0:
            out[i, at : at + len(piece)] = piece / norm
    return out


def _alike(rows: Labelled, part: Int, shows: Float32) -> list[Leak]:
    """Records of two parts that show nearly the same, whatever their size and sign."""
    found = []
    for a, b in combinations(range(len(NAMES)), 2):
        ours, theirs = np.flatnonzero(part == a), np.flatnonzero(part == b)
        for k in range(0, len(ours), BLOCK):
            block = ours[k : k + BLOCK]
            value = np.abs(shows[block] @ shows[theirs].T)
            for i, j in zip(*np.nonzero(value >= ALIKE), strict=True):
                names = f"{rows.id[block[i]]} ~ {rows.id[theirs[j]]}"
                found.append(Leak("waveform", names, (NAMES[a], NAMES[b]), f"correlation {value[i, j]:.3f}"))
    return found
