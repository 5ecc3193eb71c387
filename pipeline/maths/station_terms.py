"""Static station terms: what the ground below a station adds to the travel times of a model of depth alone.

Terms and places are one linear problem (Pavlis and Booker 1983, doi 10.1029/JB088iB10p08353; Jordan and Sverdrup 1981):
what new places of the events could explain is taken out of the residuals first, so that terms do not creep towards the
solution over many rounds of terms and locations in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.records import Bool, Float, Int

ROUNDS = 200  # of conjugate gradients, at most
ENOUGH = 1e-9  # of the first error, squared, is left
STIFF = np.array([1e-4, 1e-4, 1e-4, 1e-2])  # 1 / variance of a move: 100 km, 100 km, 100 s, 10 km


@dataclass(frozen=True, slots=True)
class Terms:
    """Of each channel (n,), a station and a phase: the term (s), its standard deviation (s), number of picks."""

    term_s: Float
    sigma_s: Float
    n: Int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What each pick (m,) says. ``residual_s`` has the term in it; ``slope`` (m, 4) is how the prediction grows with
    x, y (s/km), the origin time (1) and z; ``weight`` counts: the probability to be of the event / variance, 1/s2."""

    event: Int
    channel: Int
    residual_s: Float
    slope: Float
    weight: Float


def estimate(picks: Evidence, n_channels: int, prior_s: float) -> Terms:
    """The terms that explain the residuals best, with places of the events that may change too.

    Terms are expected to be 0, with a standard deviation of ``prior_s``: one or two picks make no term, and neither
    does what events elsewhere would explain. ``sigma_s`` is for places that are known. No BLAS: its sums depend on
    the number of threads.
    """
    n_events = int(picks.event.max()) + 1 if len(picks.event) else 0
    inverse = _inverses(picks, n_events)

    def seen(values: Float) -> Float:
        """Sums over the picks of each channel (n,) of what is left of ``values`` (m,), weighted."""
        share = picks.weight * values
        moment = np.stack([np.bincount(picks.event, share * picks.slope[:, k], n_events) for k in range(4)], axis=1)
        move = (inverse * moment[:, None, :]).sum(axis=2)
        left = share - picks.weight * (picks.slope * move[picks.event]).sum(axis=1)
        sums: Float = np.bincount(picks.channel, left, n_channels).astype(np.float64)
        return sums

    total = np.bincount(picks.channel, picks.weight, n_channels) + 1 / prior_s**2
    term = _conjugate(lambda t: seen(t[picks.channel]) + t / prior_s**2, seen(picks.residual_s), total)
    n = np.bincount(picks.channel, picks.weight > 0, n_channels).astype(np.int64)
    return Terms(term, 1 / np.sqrt(total), n)


def _inverses(picks: Evidence, n_events: int) -> Float:
    """(n_events, 4, 4): how each event moves by what its picks say."""
    normal = np.zeros((n_events, 4, 4))
    for p in range(4):
        for q in range(4):
            slopes = picks.slope[:, p] * picks.slope[:, q]
            normal[:, p, q] = np.bincount(picks.event, picks.weight * slopes, n_events)
        normal[:, p, p] += STIFF[p]
    inverse: Float = np.linalg.inv(normal)
    return inverse


def _conjugate(apply: Callable[[Float], Float], right: Float, scale: Float) -> Float:
    """The solution of ``apply(x) = right`` by conjugate gradients, preconditioned by ``scale`` (Jacobi)."""
    found = np.zeros(len(right))
    left = right.copy()
    step = eased = left / scale
    size = first = float((left * eased).sum())
    for _ in range(ROUNDS):
        if size <= ENOUGH * first or size == 0:
            break
        applied = apply(step)
        length = size / float((step * applied).sum())
        found, left = found + length * step, left - length * applied
        eased = left / scale
        size, before = float((left * eased).sum()), size
        step = eased + size / before * step
    return found


def centred(terms: Terms, is_p: Bool) -> Terms:
    """The same without their mean over P picks, which no one can tell from the origin times; 0 without picks."""
    seen = terms.n > 0
    some = seen & is_p
    shift = float(np.average(terms.term_s[some], weights=terms.n[some])) if some.any() else 0.0
    return Terms(np.where(seen, terms.term_s - shift, 0.0), terms.sigma_s, terms.n)
