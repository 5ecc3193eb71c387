"""Where a trace on a device triggers: what `pipeline.maths.triggers.runs` finds, found where the trace is.

The device looks for edges and picks out the samples between them; only these come back, in two small copies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.records import Bool, Float32, Int


def find(trace: Tensor, thresholds: Sequence[float]) -> tuple[Int, Int, Int, Float32]:
    """The first four columns of `pipeline.records.Runs` of ``trace`` float32 (phases, n), which may hold NaN.

    phase (k,), first (k,), stop (k,) in ``probability``, and probability float32 of the runs of at least half a
    phase's threshold that reach it, each with one sample more at both sides; ordered by phase and time.
    """
    limits = np.asarray(thresholds, np.float32)
    phase, first, last = _lows(trace, limits)
    if not len(phase):
        return phase, first, first, np.empty(0, np.float32)
    sizes = last - first + 2
    values = _cut(trace, phase, first, sizes)
    reaches = values >= np.repeat(limits[phase], sizes)  # the samples beside a run are lower than all of it, or NaN
    kept = np.logical_or.reduceat(reaches, np.cumsum(sizes) - sizes)
    return phase[kept], first[kept], np.cumsum(sizes[kept]), values[np.repeat(kept, sizes)]


def candidates(trace: Tensor, thresholds: Sequence[float], around: int) -> Int:
    """Where any phase has a run (see `find`), ``around`` samples before and after it included: disjoint half-open
    [start, stop), int64 (k, 2), ascending."""
    _, first, stop, _ = find(trace, thresholds)
    if not len(first):
        return np.empty((0, 2), np.int64)
    last = first + np.diff(stop, prepend=0) - 2
    order = np.argsort(first, kind="stable")
    starts = np.maximum(first[order] - around, 0)
    stops = np.maximum.accumulate(np.minimum(last[order] + around, trace.shape[1]))
    new = np.flatnonzero(np.append(True, starts[1:] > stops[:-1]))
    return np.stack([starts[new], stops[np.append(new[1:], len(starts)) - 1]], axis=1)


def find_in(values: Tensor, spans: Int, thresholds: Sequence[float]) -> tuple[Int, Int, Int, Float32]:
    """`find` in a trace of which ``values`` (phases, m) are known: those of its ``spans``, one after the other.

    ``spans`` int64 (k, 2) are half-open, ascending and do not touch.
    """
    sizes = spans[:, 1] - spans[:, 0]
    starts = np.cumsum(sizes + 1) - sizes  # of the spans in a trace with one NaN before each
    apart = torch.full((values.shape[0], int((sizes + 1).sum())), torch.nan, device=values.device)
    apart[:, torch.from_numpy(places(np.stack([starts, starts + sizes], axis=1))).to(values.device)] = values
    phase, first, stop, probability = find(apart, thresholds)
    span = np.searchsorted(starts, first, side="right") - 1
    return phase, first + (spans[:, 0] - starts)[span] if len(first) else first, stop, probability


def places(spans: Int) -> Int:
    """The samples (m,) of ``spans`` (k, 2), half-open, one after the other."""
    sizes = spans[:, 1] - spans[:, 0]
    at: Int = np.arange(int(sizes.sum())) + np.repeat(spans[:, 0] - (np.cumsum(sizes) - sizes), sizes)
    return at


def sees(windows: Int, spans: Int) -> Bool:
    """Which of ``windows`` (w, 2), rows (start, samples), hold a sample of the disjoint ascending ``spans`` (k, 2)."""
    ended = np.searchsorted(spans[:, 1], windows[:, 0], side="right")
    begun = np.searchsorted(spans[:, 0], windows.sum(axis=1), side="left")
    return np.asarray(begun > ended, np.bool_)


def _lows(trace: Tensor, limits: Float32) -> tuple[Int, Int, Int]:
    """phase, first and last (exclusive) sample of the runs of at least half the ``limits``."""
    n = trace.shape[1]
    half = torch.from_numpy(limits / np.float32(2)).to(trace.device)[:, None]
    low = torch.zeros((trace.shape[0], n + 2), dtype=torch.bool, device=trace.device)
    torch.ge(trace, half, out=low[:, 1:-1])
    edges = _where((low[:, 1:] != low[:, :-1]).view(-1)).reshape(-1, 2)
    return edges[:, 0] // (n + 1), edges[:, 0] % (n + 1), edges[:, 1] % (n + 1)


def _where(mask: Tensor) -> Int:
    """Indices (k,) of the True in ``mask`` (n,); on the CPU NumPy is the quicker one."""
    return np.flatnonzero(mask.numpy()) if mask.device.type == "cpu" else mask.nonzero().view(-1).cpu().numpy()


def _cut(trace: Tensor, phase: Int, first: Int, sizes: Int) -> Float32:
    """The samples of runs of ``sizes``, of which one at each side is not theirs: NaN beyond the trace."""
    n = trace.shape[1]
    at = np.arange(sizes.sum()) + np.repeat(first - 1 - (np.cumsum(sizes) - sizes), sizes)
    index = np.clip(at, 0, n - 1) + np.repeat(phase * n, sizes)
    values: Float32 = trace.take(torch.from_numpy(index).to(trace.device)).cpu().numpy()
    values[(at < 0) | (at >= n)] = np.nan
    return values
