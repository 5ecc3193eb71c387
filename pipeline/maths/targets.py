"""What a picker should answer: label curves around onsets. Arrays in, arrays out.

A curve is a Gaussian of standard deviation ``half_width`` samples, or a triangle of so wide a half base, as in
SeisBench (``seisbench.generate.labeling``), around an onset that need not be whole. EQTransformer's detection is 1
from P to S + 1.4 (S - P) (Mousavi et al. 2020, doi 10.1038/s41467-020-17591-w).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from pipeline.records import Float, Float32

Shape = Literal["gaussian", "triangle"]
CODA = 1.4  # of S minus P, after S


def curve(onset: Float, samples: int, half_width: float, shape: Shape = "gaussian") -> Float:
    """Label curves (k, samples) around ``onset`` (k,), which may lie outside; NaN gives zeros."""
    away = np.abs(np.arange(samples) - onset[:, None]) / half_width
    values = np.exp(-0.5 * away**2) if shape == "gaussian" else np.clip(1 - away, 0, None)
    out: Float = np.nan_to_num(values, nan=0.0)
    return out


def detection(p: Float, s: Float, samples: int, coda: float = CODA) -> Float:
    """1 from P to S + ``coda`` (S - P), rounded down as SeisBench does, (k, samples); 0 without both picks."""
    at = np.arange(samples)
    with np.errstate(invalid="ignore"):
        first, stop = np.trunc(p)[:, None], np.trunc(s + coda * (s - p))[:, None]
        out: Float = ((at >= first) & (at < stop)).astype(np.float64)
    return out


def targets(
    labels: Sequence[str], p: Float, s: Float, samples: int, half_width: float, shape: Shape = "gaussian"
) -> Float32:
    """What a network with the outputs ``labels`` should say: float32 (k, len(labels), samples).

    ``labels`` are a SeisBench model's: "NPS", "PSN", ("Detection", "P", "S"), ...; the first letter counts, N noise,
    D detection. Where there is a noise row, P and S are scaled down where their sum exceeds 1, and noise is the rest.
    Onsets ``p``, ``s`` (k,) count from the first sample, NaN for none. Raises ValueError on another label.
    """
    order = [label[:1].upper() for label in labels]
    if sorted(set(order)) != sorted(order) or not {"P", "S"} <= set(order) <= {"P", "S", "N", "D"}:
        raise ValueError(f"labels {list(labels)}: expected P, S and perhaps N (noise) and D (detection), each once")
    rows = {"P": curve(p, samples, half_width, shape), "S": curve(s, samples, half_width, shape)}
    if "N" in order:
        total = np.maximum(1, rows["P"] + rows["S"])
        rows = {phase: values / total for phase, values in rows.items()}
        rows["N"] = np.clip(1 - rows["P"] - rows["S"], 0, 1)
    if "D" in order:
        rows["D"] = detection(p, s, samples)
    return np.stack([rows[letter] for letter in order], axis=1).astype(np.float32)
