"""Whether probabilities hold what they say: of events with probability p a share p should be real."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.maths.intervals import of_share
from pipeline.records import Float, Int

EDGES = tuple(np.round(np.linspace(0.0, 1.0, 11), 1).tolist())


@dataclass(frozen=True, slots=True)
class Reliability:
    """Events in bins of their probability: how many (b,), what they say on average and what share is real (b,)."""

    n: Int
    said: Float
    real: Float
    low: Float  # bounds of 95 % of the share
    high: Float

    def worst(self, least: int) -> float:
        """The largest distance from the diagonal of the bins with at least ``least`` events; NaN: there are none."""
        far = np.abs(self.said - self.real)[self.n >= least]
        return float(far.max()) if len(far) else float("nan")


def reliability(probability: Float, real: Float, edges: tuple[float, ...] = EDGES) -> Reliability:
    """Of events (n,) with a ``probability`` and whether each is ``real`` (1) or not (0). NaN in empty bins."""
    row = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, len(edges) - 2)
    n = np.bincount(row, minlength=len(edges) - 1).astype(np.int64)
    said, share = np.full(len(n), np.nan), np.full(len(n), np.nan)
    np.divide(np.bincount(row, probability, len(n)), n, out=said, where=n > 0)
    hits = np.bincount(row, real, len(n))
    np.divide(hits, n, out=share, where=n > 0)
    bounds = [of_share(hit, k, 0.95) for hit, k in zip(hits.tolist(), n.tolist(), strict=True)]
    return Reliability(n, said, share, np.array([b.low for b in bounds]), np.array([b.high for b in bounds]))
