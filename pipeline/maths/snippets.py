"""Short records for the eye: band-passed, few samples, one byte each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import sosfilt

from pipeline.maths.filters import Filter
from pipeline.maths.windows import segments
from pipeline.records import NS, Bool, Float, Waveform

RATE_HZ = 100.0  # of the records that `snippet` takes
BAND = Filter("bandpass", (1.0, 9.0), 3).sections(RATE_HZ)
EVERY = 4  # samples of them make one
ZERO, MOST = 128, 127  # a byte of 128 is zero, 1 and 255 are the largest amplitude
GAP = 0  # a byte where there are no data


@dataclass(frozen=True, slots=True)
class Snippet:
    """Two components of a channel. ``samples`` uint8 (2, n), vertical and one horizontal; a row of `GAP` is not there.

    ``peak`` is the amplitude that 127 steps stand for, in the units of the record.
    """

    station: str  # "NET.STA.LOC.BAND"
    samples: NDArray[np.uint8]
    peak: tuple[float, float]
    start_ns: int
    rate_hz: float


def snippet(station: str, waveform: Waveform, span_ns: tuple[int, int]) -> Snippet | None:
    """The part of ``waveform`` (at `RATE_HZ`) within ``span_ns``, half-open; None where it has no data."""
    values = _filtered(waveform)
    first, stop = (
        int(np.clip(-(-(t - waveform.start_ns) * round(waveform.rate_hz) // NS), 0, len(waveform))) for t in span_ns
    )
    part = slice(first, stop, EVERY)
    valid = waveform.valid[part]
    if not valid.any():
        return None
    rows = [0, 1 if waveform.components[1] else 2]
    packed = [_packed(values[row, part], valid & waveform.components[row]) for row in rows]
    start_ns = waveform.start_ns + round(first * NS / waveform.rate_hz)
    samples = np.stack([one for one, _ in packed])
    return Snippet(station, samples, (packed[0][1], packed[1][1]), start_ns, waveform.rate_hz / EVERY)


def _filtered(waveform: Waveform) -> Float:
    """The samples float64 (3, n) in the band, each segment from rest; 0 where not valid."""
    out = np.zeros(waveform.samples.shape)
    for start, stop in segments(waveform.valid).tolist():
        out[:, start:stop] = sosfilt(BAND, waveform.samples[:, start:stop].astype(np.float64))
    return out


def _packed(values: Float, valid: Bool) -> tuple[NDArray[np.uint8], float]:
    """Bytes (n,), and the amplitude of the largest one."""
    peak = float(np.abs(values[valid]).max(initial=0))
    scaled = np.rint(values * (MOST / peak if peak else 0)) + ZERO
    return np.where(valid, scaled, GAP).astype(np.uint8), peak
