"""Instrument responses in the frequency domain, as ObsPy's `Trace.remove_response` takes them off. Arrays only.

A record's spectrum times an operator is the spectrum of ground motion. An operator is the inverse of a response, raised
to a water level, times a band; times a Wood-Anderson seismometer's response too where its amplitude is wanted: the
instrument goes and the other comes in one step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from pipeline.records import Float

Complex = NDArray[np.complex128]
Band = tuple[float, float, float, float]
POLES_RAD_S = (-5.49779 + 5.60886j, -5.49779 - 5.60886j)  # IASPEI standard Wood-Anderson: 0.8 s, damping 0.7
GAIN = 2080.0  # of displacement at high frequencies (Uhrhammer and Collins 1990, BSSA 80, 702-716)
MM = 1000.0  # in a metre
HIGHEST = 0.9, 0.7  # of a Nyquist frequency: where a band ends at the latest, and begins to


@dataclass(frozen=True, slots=True)
class Response:
    """Of one station's rows Z N E in one epoch, half-open, on some frequencies.

    ``counts_per_m_s`` (3, m), 0 where a row has none. ``rate_hz`` at which it records: nothing is known beyond the
    Nyquist frequency. ``notes`` say what is missing or was assumed.
    """

    start_ns: int
    end_ns: int
    counts_per_m_s: Complex
    rate_hz: float
    notes: tuple[str, ...] = ()

    @property
    def known(self) -> tuple[bool, ...]:
        """Of each row."""
        return tuple(bool(row.any()) for row in self.counts_per_m_s)


def frequencies(n_fft: int, rate_hz: float) -> Float:
    """Those of `numpy.fft.rfft` over ``n_fft`` samples, Hz, (n_fft // 2 + 1,)."""
    return np.fft.rfftfreq(n_fft, 1 / rate_hz)


def band(frequency_hz: Float, corners_hz: Band) -> Float:
    """0 up to the first corner, 1 from the second to the third, 0 from the fourth on, a cosine between: SAC's taper."""
    f1, f2, f3, f4 = corners_hz
    rise = np.clip((frequency_hz - f1) / (f2 - f1), 0, 1)
    fall = np.clip((frequency_hz - f3) / (f4 - f3), 0, 1)
    shape: Float = (1 - np.cos(np.pi * rise)) / 2 * (1 + np.cos(np.pi * fall)) / 2
    return shape


def within(corners_hz: Band, rate_hz: float) -> Band:
    """The same corners, the upper two moved down where a record of ``rate_hz`` does not reach so far.

    Raises ValueError if nothing is left between the lower and the upper ones.
    """
    f1, f2, f3, f4 = corners_hz
    end, edge = (share * rate_hz / 2 for share in HIGHEST)
    found = f1, f2, min(f3, edge), min(f4, end)
    if found[1] >= found[2]:
        raise ValueError(f"the band {corners_hz} Hz begins too high for {rate_hz:g} samples a second")
    return found


def inverted(response: Complex, water_level_db: float | None) -> Complex:
    """1 / response (..., m), its modulus taken as at most ``water_level_db`` below its largest one; 0 where it is 0."""
    size = np.abs(response)
    least = 0.0 if water_level_db is None else size.max(axis=-1, keepdims=True) * 10 ** (-water_level_db / 20)
    safe = np.where(size > 0, size, 1)
    found: Complex = np.where(size > 0, np.conj(response) / safe / np.maximum(safe, least), 0)
    return found


def wood_anderson(frequency_hz: Float) -> Complex:
    """What a Wood-Anderson seismometer writes, mm, of a ground velocity in m/s, by frequency (m,).

    Of displacement it has two zeros at 0; one of them makes displacement of velocity.
    """
    s = 2j * np.pi * frequency_hz
    found: Complex = MM * GAIN * s / ((s - POLES_RAD_S[0]) * (s - POLES_RAD_S[1]))
    return found


def filtered(samples: Float, operator: Complex) -> Float:
    """``samples`` (..., n) padded with zeros to 2 (m - 1), times ``operator`` (..., m), in their precision."""
    n_fft = 2 * (operator.shape[-1] - 1)
    found: Float = fft.irfft(fft.rfft(samples, n_fft) * operator, n_fft)[..., : samples.shape[-1]]
    return found
