"""Where a trace on a device triggers: what `pipeline.maths.triggers.runs` finds, found where the trace is."""

from __future__ import annotations

import torch
from torch import Tensor


def spans(row: Tensor, threshold: float) -> Tensor:
    """Half-open [start, stop), int64 (k, 2), of the runs of at least half the ``threshold`` that reach it.

    ``row`` float32 (n,) may hold NaN, which ends a run.
    """
    limit = torch.tensor(threshold, dtype=torch.float32, device=row.device)
    low = torch.nn.functional.pad(row >= limit / 2, (1, 1))
    edges = (low[1:] != low[:-1]).nonzero().view(-1, 2)
    hits = (row >= limit).nonzero().flatten()
    return edges[torch.unique(torch.searchsorted(edges[:, 0].contiguous(), hits, right=True) - 1)]


def cut(row: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """The samples of the spans ``found``, each with one more at both sides (NaN beyond the ends), and their stops."""
    sizes = found[:, 1] - found[:, 0] + 2
    stops = sizes.cumsum(0)
    index = torch.arange(int(sizes.sum()), device=row.device) + torch.repeat_interleave(
        found[:, 0] - 1 - (stops - sizes), sizes
    )
    outside = (index < 0) | (index >= len(row))
    return row[index.clamp(0, len(row) - 1)].masked_fill(outside, torch.nan), stops


def mask_of(found: Tensor, n: int, around: int) -> Tensor:
    """True (n,) in the spans ``found`` and ``around`` samples on both sides of each."""
    steps = torch.zeros(n + 1, dtype=torch.int32, device=found.device)
    one = torch.ones(len(found), dtype=torch.int32, device=found.device)
    steps.index_add_(0, (found[:, 0] - around).clamp(min=0), one)
    steps.index_add_(0, (found[:, 1] + around).clamp(max=n), -one)
    return steps[:n].cumsum(0) > 0
