"""The probability that an event is real: logistic regression on what speaks for it, calibrated on scrambled picks.

A score is the logarithm of how much likelier the features of an event are among events of real picks than among those
of time-scrambled ones (`pipeline.maths.scramble`). How many of a run's events are real to begin with is estimated from
the run itself (`real_share`), or from its own scrambled picks (`share_from_false`). See decision 023.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from pipeline.maths.event_features import Features
from pipeline.records import Float

# How each feature enters, and in which direction it may: +1, more of it can only speak for an event.
TRANSFORMS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "n_p": (np.log1p, 1),
    "n_s": (np.log1p, 1),
    "n_pairs": (np.log1p, 1),
    "n_stations": (np.log1p, 1),
    "sum_probability": (np.log1p, 1),
    "mean_probability": (np.asarray, 1),
    "responsibility": (np.asarray, 1),
    "gap_deg": (np.asarray, -1),
    "nearest_km": (np.log1p, -1),
    "misfit_s": (np.asarray, -1),
    "wadati_s": (np.asarray, -1),
    "near_share": (np.asarray, 1),
    "coincidence": (np.log1p, 1),
    "decay": (np.asarray, -1),
}
# What is fitted. Numbers of picks say how large and how noisy a network is, and so do responsibilities: with them a fit
# holds where it was made and not elsewhere. `Features.coincidence` counts picks against the noise of the run.
USED = (
    "n_pairs",
    "mean_probability",
    "gap_deg",
    "nearest_km",
    "misfit_s",
    "wadati_s",
    "near_share",
    "coincidence",
    "decay",
)
BOUNDS_PERCENT = (1.0, 99.0)  # of the events it was fitted on: beyond, a feature says no more
USUAL_SHARE = 0.9  # of a run's events that are real, before the run is looked at
USUAL_EVENTS = 10.0  # that this belief counts for
LEAST_ODDS = 1e-6


@dataclass(frozen=True, slots=True)
class Calibration:
    """What `fit` found, by feature: a score is intercept + sum of coefficient (value - centre) / scale.

    Values are those of `TRANSFORMS`, kept within ``low`` and ``high``; one that is not known adds nothing.
    """

    names: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    coefficient: tuple[float, ...]
    intercept: float

    def __post_init__(self) -> None:
        for name, coefficient in zip(self.names, self.coefficient, strict=True):
            if name not in TRANSFORMS:
                raise ValueError(f"no feature is called {name!r}: there are {', '.join(TRANSFORMS)}")
            if coefficient * TRANSFORMS[name][1] < 0:
                raise ValueError(f"the coefficient {coefficient} of {name} has the wrong sign")
        columns = (self.centre, self.scale, self.low, self.high, self.coefficient, (self.intercept,))
        if not all(np.isfinite(column).all() for column in columns) or not all(s > 0 for s in self.scale):
            raise ValueError("a number is not finite, or a scale is not positive")


def transformed(found: Features, names: tuple[str, ...] = tuple(TRANSFORMS)) -> Float:
    """(events, features), NaN where not known."""
    return np.column_stack([TRANSFORMS[name][0](getattr(found, name)) for name in names])


def contributions(found: Features, by: Calibration) -> Float:
    """What each feature adds to the score of each event (events, features)."""
    value = np.clip(transformed(found, by.names), by.low, by.high)
    terms = np.asarray(by.coefficient) * (value - by.centre) / by.scale
    return np.where(np.isnan(terms), 0.0, terms)


def scores(found: Features, by: Calibration) -> Float:
    """Logarithm (events,) of how much likelier the features are of a real event than of a coincidence."""
    score: Float = by.intercept + contributions(found, by).sum(1)
    return score


def probability(score: Float, share: float) -> Float:
    """That an event is real (n,), if a ``share`` of the events of its run is."""
    share = min(max(share, LEAST_ODDS), 1 - LEAST_ODDS)
    found: Float = expit(score + np.log(share / (1 - share)))
    return found


def real_share(score: Float, usual: float = USUAL_SHARE, events: float = USUAL_EVENTS) -> float:
    """The share of real events among those with ``score`` (n,): the one that their probabilities then have on average.

    Expectation maximisation (Saerens et al. 2002, doi 10.1162/089976602753284446); ``usual`` counts as ``events``
    more, so that a run of few events, or of none, has a share as well.
    """
    share = usual
    for _ in range(500):
        before, share = share, (float(probability(score, share).sum()) + usual * events) / (len(score) + events)
        if abs(share - before) < 1e-9:
            break
    return share


def share_from_false(n_found: int, n_false: float) -> float:
    """The share of real ones among ``n_found`` events, if as many picks that were scrambled make ``n_false`` on
    average; half an event is added to both sides, so that it is never 0 or 1."""
    return (max(n_found - n_false, 0.0) + 0.5) / (max(n_found, n_false) + 1.0)


def fit(found: Features, real: Float, weight: Float, penalty: float = 1.0, use: tuple[str, ...] = USED) -> Calibration:
    """The calibration by which events (n,) that are ``real`` (1) or of scrambled picks (0) are told apart.

    Logistic regression; coefficients of the wrong sign are 0. ``weight`` (n,), each class has half of the sum;
    ``penalty`` on squared coefficients, in events; ``use`` are the features. One that is never known is left out.
    """
    value = transformed(found, use)
    names = [name for name, known in zip(use, np.isfinite(value).any(0), strict=True) if known]
    value = transformed(found, tuple(names))
    low, high = np.nanpercentile(value, BOUNDS_PERCENT, axis=0)
    value = np.clip(value, low, high)
    centre = np.nanmean(value, 0)
    scale = np.maximum(np.nanstd(value, 0), 1e-6)
    z = np.nan_to_num((value - centre) / scale)
    each = np.where(real > 0.5, weight / weight[real > 0.5].sum(), weight / weight[real <= 0.5].sum()) * len(real) / 2
    answer = _logistic(z, real, each, np.array([TRANSFORMS[name][1] for name in names]), penalty)
    c, s, a, b, k = (tuple(np.round(v, 6).tolist()) for v in (centre, scale, low, high, answer[1:]))
    return Calibration(tuple(names), c, s, a, b, k, round(float(answer[0]), 6))


def _logistic(z: Float, real: Float, weight: Float, sign: Float, penalty: float) -> Float:
    """Intercept and coefficients (features + 1,), each of its ``sign`` or 0."""
    x = np.column_stack([np.ones(len(z)), z])

    def loss(beta: Float) -> tuple[float, Float]:
        s = x @ beta
        value = float(weight @ (np.logaddexp(0.0, s) - real * s)) + 0.5 * penalty * float(beta[1:] @ beta[1:])
        return value, x.T @ (weight * (expit(s) - real)) + penalty * np.concatenate([[0.0], beta[1:]])

    bounds = [(None, None), *((0.0, None) if s > 0 else (None, 0.0) for s in sign)]
    start = np.zeros(x.shape[1])
    found: Float = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 1000}).x
    return found + 0.0  # no -0.0
