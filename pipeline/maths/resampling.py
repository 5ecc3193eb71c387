"""From one sampling rate to another: polyphase filtering, without delay. Arrays in, arrays out."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, kaiserord, resample_poly

from pipeline.records import Float

RATE_TOLERANCE = 1e-4  # a sampling rate this close (relative) to a simple ratio is taken as that ratio
STOPBAND_DB = 80.0
PASSBAND = 0.8  # of the lower of the two Nyquist frequencies
SLOWEST = 0.1  # of the target rate; upsampling cannot make up for what such a channel lacks
ROWS = 32  # of a matrix product
LARGEST = 1 << 17  # elements of a filter matrix; rates of no simple ratio would need more
BLOCK = 1 << 15  # input samples in work at a time: they stay in the cache


def ratio(rate_hz: float, target_hz: float) -> Fraction:
    """The simplest target/rate within `RATE_TOLERANCE`. Raises ValueError if the rates are too far apart.

    99.9999 to 100 Hz is 1; 125 to 100 Hz is 4/5.
    """
    for denominator in (1, 10, 100, 1000) if SLOWEST <= rate_hz / target_hz <= 1 / RATE_TOLERANCE else ():
        found = Fraction(target_hz / rate_hz).limit_denominator(denominator)
        if abs(float(found) * rate_hz / target_hz - 1) < RATE_TOLERANCE:
            return found
    raise ValueError(f"{rate_hz} Hz cannot be resampled to {target_hz} Hz")


@lru_cache(maxsize=32)
def lowpass(up: int, down: int) -> Float:
    """Anti-alias and anti-image filter for resampling by ``up``/``down``: linear phase, odd length, gain 1.

    Kaiser window design: flat to 1e-4 up to `PASSBAND` of the lower Nyquist frequency, 80 dB down from
    that Nyquist frequency on (Oppenheim & Schafer, Discrete-Time Signal Processing, sections 4.6, 7.5).
    """
    nyquist = 1.0 / max(up, down)
    n, beta = kaiserord(STOPBAND_DB, nyquist * (1 - PASSBAND))
    taps: Float = firwin(n | 1, nyquist * (1 + PASSBAND) / 2, window=("kaiser", beta))
    return taps


def resample(values: NDArray[Any], factor: Fraction) -> Float:
    """``values`` (n,) of any real dtype at ``factor`` times the rate, from the first sample to the last; no delay.

    Beyond the ends the signal is continued by point reflection, as in `scipy.signal.filtfilt`.
    """
    if factor == 1 or len(values) < 2:
        return values.astype(np.float64, copy=False)
    up, down = factor.numerator, factor.denominator
    n_out = (len(values) - 1) * up // down + 1
    if len(values) > _reach(up, down) and math.prod(_frame(up, down)) <= LARGEST:
        return _by_matrices(values, n_out, up, down)
    taps = lowpass(up, down)
    out: Float = resample_poly(values.astype(np.float64), up, down, window=taps, padtype="antireflect")[:n_out]
    return out


def _reach(up: int, down: int) -> int:
    """Input samples that the filter spans on each side."""
    return len(lowpass(up, down)) // 2 // up + 1


def _frame(up: int, down: int) -> tuple[int, int]:
    """Input samples and the output samples made of them in one row; about half a filter, so that few zeros are."""
    k = max(1, round(_reach(up, down) / down))
    return k * down, k * up


@lru_cache(maxsize=8)
def _bank(up: int, down: int) -> Float:
    """The filter as matrices, float64 (parts, inputs, outputs).

    The output of frame i is frame i times part 0, plus frame i + 1 times part 1, and so on, where the
    frames begin `_reach` input samples before the first output. Output m is at input m * down / up.
    """
    taps, reach, (inputs, outputs) = lowpass(up, down) * up, _reach(up, down), _frame(up, down)
    parts = -(-(inputs + 2 * reach) // inputs)
    at_input, at_output = np.arange(parts * inputs)[:, None] - reach, np.arange(outputs)
    tap = at_output * down - at_input * up + len(taps) // 2
    matrix = np.where((tap >= 0) & (tap < len(taps)), taps[tap.clip(0, len(taps) - 1)], 0)
    return matrix.reshape(parts, inputs, outputs)


def _by_matrices(values: NDArray[Any], n_out: int, up: int, down: int) -> Float:
    """A polyphase filter as products of small matrices, which a BLAS does many times faster than a loop over taps.

    All products have one size, a small one, so that the number of a BLAS's threads changes no bit (there is a test).
    """
    bank, reach, (inputs, outputs) = _bank(up, down), _reach(up, down), _frame(up, down)
    rows = min(ROWS, 2 * LARGEST // (inputs * outputs))
    products = max(1, min(BLOCK // (rows * inputs), -(-n_out // (rows * outputs))))
    taken, made = products * rows * inputs, products * rows * outputs  # samples a block
    block = np.empty(taken + (len(bank) - 1) * inputs)
    total, part = np.empty((2, products, rows, outputs))
    ends = _reflected(values[: reach + 1][::-1])[::-1], _reflected(values[-reach - 1 :])
    out = np.empty(n_out)
    for k in range(-(-n_out // made)):
        _cut(values, ends, k * taken - reach, block)
        np.matmul(block[:taken].reshape(products, rows, inputs), bank[0], out=total)
        for p in range(1, len(bank)):
            np.matmul(block[p * inputs : p * inputs + taken].reshape(products, rows, inputs), bank[p], out=part)
            total += part
        out[k * made : (k + 1) * made] = total.ravel()[: n_out - k * made]
    return out


def _reflected(values: NDArray[Any]) -> Float:
    """What follows ``values`` (n,) by reflection at the last sample, (n - 1,)."""
    known = values.astype(np.float64)
    after: Float = 2 * known[-1] - known[-2::-1]
    return after


def _cut(values: NDArray[Any], ends: tuple[Float, Float], start: int, block: Float) -> None:
    """Fill ``block`` with ``values`` from index ``start`` on, with ``ends`` before and after them, then zeros."""
    block.fill(0)
    for at, source in ((-len(ends[0]), ends[0]), (0, values), (len(values), ends[1])):
        first, stop = max(start, at), min(start + len(block), at + len(source))
        if first < stop:
            block[first - start : stop - start] = source[first - at : stop - at]
