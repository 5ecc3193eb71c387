"""How far off a pick may be: standard deviations of readings, calibrated on picks that analysts made, too.

A machine's pick: `tests/calibrate_picks.py` compares the picks of PhaseNet and EQTransformer on the labelled records of
the NCEDC with the labels, 268 pairs, and fits log sigma = a + b (1 - probability) + c log(width / 0.25 s), where it is
wider, + d (SNR / 20 dB - 1); the scale is such that 68 % of the pairs lie within one sigma. The labels' own errors are
in it. An analyst's pick: from the residuals of OGS's bulletin of 2024 within 30 km, by weight.
"""

from __future__ import annotations

import numpy as np

from pipeline.records import Float, Int, Picks, Text

USUAL_WIDTH_S = 0.25  # of a clear peak of probability, full width at half maximum
USUAL_SNR_DB = 20.0
OF_UNSURE, OF_WIDE, OF_LOUD = 1.69, 1.63, -0.67  # b, c, d
CLEAR_S = {"P": 0.038, "S": 0.023}  # exp(a): of a sure, narrow pick
LEAST_S = {"P": 0.03, "S": 0.03}
MOST_S = 0.5
# By OGS's weights 0 (best) to 4 (not used in their location), and where the weight is not known.
ANALYST_S = {"P": (0.10, 0.12, 0.13, 0.18, 0.50), "S": (0.11, 0.11, 0.16, 0.22, 0.50)}
SOME_ANALYST_S = {"P": 0.15, "S": 0.18}


def of_weights(phase: Text, weight: Int) -> Float:
    """Standard deviations (n,), s, of analysts' picks of weights 0 to 4; -1: not known."""
    out = np.empty(len(phase))
    for name, known in ANALYST_S.items():
        table = np.array([*known, SOME_ANALYST_S[name]])
        out = np.where(phase == name, table[np.clip(weight, -1, 4)], out)
    return out


def of_picks(picks: Picks) -> Float:
    """Standard deviations (n,), s: what the pick says itself, else from its probability, width and SNR.

    A pick without a width is not of a trace of probability: an analyst's, of a weight that is not known, or as far
    off as its probability says.
    """
    is_p = picks.phase == "P"
    width, snr = picks.width_s.astype(np.float64), picks.snr_db.astype(np.float64)
    wide = np.log(np.maximum(np.where(np.isnan(width), 0.0, width) / USUAL_WIDTH_S, 1.0))
    loud = np.where(np.isnan(snr), 0.0, np.clip(snr, 0.0, 30.0) / USUAL_SNR_DB - 1.0)
    clear = np.where(is_p, CLEAR_S["P"], CLEAR_S["S"])
    analyst = np.where(is_p, SOME_ANALYST_S["P"], SOME_ANALYST_S["S"])
    scale = np.where(np.isnan(width), analyst, clear)
    sigma = scale * np.exp(OF_UNSURE * (1.0 - picks.probability) + OF_WIDE * wide + OF_LOUD * loud)
    sigma = np.clip(sigma, np.where(is_p, LEAST_S["P"], LEAST_S["S"]), MOST_S)
    own = picks.sigma_s.astype(np.float64)
    return np.where(np.isnan(own), sigma, own)
