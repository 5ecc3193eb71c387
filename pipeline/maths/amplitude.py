"""Peak ground velocity of an earthquake of a magnitude at a distance, as GaMMA has it, and the magnitude from it.

log10(A) = 1.08 + 0.93 (M - 3.5) - 1.68 log10(r), A in cm/s and the hypocentral distance r in km: Picozzi et al. 2018,
doi 10.1038/s41598-018-26938-9, with the coefficients of GaMMA (Zhu et al. 2022, doi 10.1029/2021JB023249), which
leaves their term of M squared out. That magnitude is GaMMA's, not ML. Here amplitudes are in m/s, P and S alike.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.records import Float

CONSTANT, BY_MAGNITUDE, BY_LOG_R = 1.08, 0.93, -1.68
REFERENCE_MAGNITUDE = 3.5
LOG_CM = 2.0  # log10 of the cm in a metre
LEAST_KM = 0.1  # a source nearer than this to a station is as far as this, as in GaMMA


@njit(cache=True)
def log_amplitude(magnitude: float | Float, r_km: float | Float) -> Float:
    """The expected log10 of the amplitude in m/s; numbers or arrays that broadcast."""
    by_distance = CONSTANT - LOG_CM + BY_LOG_R * np.log10(np.maximum(r_km, LEAST_KM))
    found: Float = by_distance + BY_MAGNITUDE * (magnitude - REFERENCE_MAGNITUDE)
    return found


@njit(cache=True)
def magnitude(log_amplitude: float | Float, r_km: float | Float) -> Float:
    """The magnitude that ``log_amplitude`` (log10 of m/s) at ``r_km`` speaks for: the inverse of `log_amplitude`."""
    by_distance = CONSTANT - LOG_CM + BY_LOG_R * np.log10(np.maximum(r_km, LEAST_KM))
    found: Float = (log_amplitude - by_distance) / BY_MAGNITUDE + REFERENCE_MAGNITUDE
    return found


@njit(cache=True)
def event_magnitude(log_amplitude: Float, r_km: Float, weight: Float) -> float:
    """The weighted median of the magnitudes that the picks of an event speak for; all (n,).

    Each value stands in the middle of its weight and the median lies between two of them: with equal weights it is
    the ordinary one. Picks of no weight or of no known amplitude (NaN) say nothing; NaN where all are such.
    """
    known = np.isfinite(log_amplitude) & (weight > 0)
    if not known.any():
        return np.nan
    each = magnitude(log_amplitude[known], r_km[known])
    order = np.argsort(each, kind="mergesort")  # stable
    heavy = weight[known][order]
    middle = np.cumsum(heavy) - heavy / 2
    return float(np.interp(heavy.sum() / 2, middle, each[order]))
