"""Butterworth filters over records with gaps, the same to the bit in two records that overlap.

A recursive filter remembers all that came before, and two neighbouring day shards do not begin at the same sample.
Therefore the record is filtered in blocks that begin at fixed instants, each from rest and so long before its first
sample that the memory of the rest is gone (`FORGOTTEN`). A segment's first block begins from rest at its start, as
ObsPy's and so SeisBench's filters do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy.signal import butter, sos2zpk, sosfilt

from pipeline.maths.windows import midnights, segments
from pipeline.records import NS, Float, Float32, Waveform

FORGOTTEN = 1e-10  # of what was before may be left
BLOCKS_S = (60, 120, 300, 600, 1200, 3600, 7200, 21_600)  # divisors of a day
SHARE = 4  # a block is at least that many times longer than the filter's memory
KINDS = ("highpass", "lowpass", "bandpass", "bandstop")


@dataclass(frozen=True, slots=True)
class Filter:
    """A Butterworth filter of ``order`` with one corner frequency, or two; ``zerophase``: forth and back."""

    kind: str
    corners_hz: tuple[float, ...]
    order: int = 4
    zerophase: bool = False

    def sections(self, rate_hz: float) -> Float:
        """Second-order sections (k, 6). Raises ValueError if the corners do not suit the sampling rate."""
        return _designed(self, rate_hz)[0].copy()

    def memory(self, rate_hz: float) -> int:
        """Samples after which less than `FORGOTTEN` of an impulse is left: by the slowest pole."""
        return _designed(self, rate_hz)[1]

    def block_s(self, rate_hz: float) -> int:
        """Length of a block, s. Raises ValueError if the filter remembers too much for any."""
        for block_s in BLOCKS_S:
            if block_s * rate_hz >= SHARE * self.memory(rate_hz):
                return block_s
        raise ValueError(f"a corner of {min(self.corners_hz)} Hz is too low: the filter remembers hours")

    def context_s(self, rate_hz: float) -> float:
        """How far the data must reach beyond a sample for the same bytes in any record, s."""
        return self.block_s(rate_hz) + 2 * self.memory(rate_hz) / rate_hz


@lru_cache(64)
def _designed(wanted: Filter, rate_hz: float) -> tuple[Float, int]:
    """Sections and memory of a filter."""
    corners = wanted.corners_hz[0] if len(wanted.corners_hz) == 1 else wanted.corners_hz
    sections: Float = butter(wanted.order, corners, wanted.kind, output="sos", fs=rate_hz)
    _, poles, _ = sos2zpk(sections)
    return sections, math.ceil(math.log(FORGOTTEN) / math.log(np.abs(poles).max()))


def filtered(waveform: Waveform, wanted: Filter) -> Float32:
    """The samples float32 (3, n) of ``waveform`` after the filter; 0 where not valid."""
    rate_hz, n = waveform.rate_hz, len(waveform)
    sections, memory = wanted.sections(rate_hz), wanted.memory(rate_hz)
    edges = [0, *midnights(waveform.start_ns, rate_hz, n, wanted.block_s(rate_hz) * NS).tolist(), n]
    out = np.zeros_like(waveform.samples)
    for start, stop in segments(waveform.valid).tolist():
        inside = [start, *(edge for edge in edges if start < edge < stop), stop]
        for first, last in pairwise(inside):
            begin, end = max(start, first - memory), min(stop, last + memory) if wanted.zerophase else last
            values = sosfilt(sections, waveform.samples[:, begin:end].astype(np.float64))
            if wanted.zerophase:
                values = sosfilt(sections, values[:, ::-1])[:, ::-1]
            out[:, first:last] = values[:, first - begin : last - begin]
    return out
