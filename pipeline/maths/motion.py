"""Ground motion near picks: peak velocity, and the amplitude that a Wood-Anderson seismometer would have written.

A response is removed from blocks of `CORE_S`, which begin at fixed instants, with `MARGIN_S` around them, and only from
those that a pick needs: what a block holds depends neither on the picks nor on where the record begins. Windows are
those of PhaseNet's amplitudes, which GaMMA's relation (`pipeline.maths.amplitude`) is used with: the largest value of
any component from the pick to 10 s after a P and 5 s after an S pick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from pipeline.maths.response import Band, Response, band, frequencies, inverted, within, wood_anderson
from pipeline.maths.windows import midnights
from pipeline.records import NS, Bool, Float32, Int, Picks, Waveform

CORE_S, MARGIN_S, TAPER_S = 60, 15, 5
BATCH = 16  # blocks at once: they stay in the cache
VELOCITY_S = {"P": (-0.5, 10.0), "S": (-0.5, 5.0)}  # relative to the pick
NOISE_S = (-6.0, -1.0)  # relative to the P pick that belongs to an S pick, or to the S pick itself
S_MINUS_P_S = 30.0  # an earlier P pick of the same station belongs to it
GUARD_S = 5.0  # on both sides of what is measured, without a gap: the filter rings
FLAT_COUNTS = 5000.0  # five equal samples in a row that are that large are a clipped record
NO_RESPONSE, GAP, CLIPPED, NO_HORIZONTAL, NOISE = "no response", "gap", "clipped", "no horizontal", "noise"
Complex64 = NDArray[np.complex64]
Piece = tuple[int, int, int, Float32]  # [start, stop) in the core of a block, kind of trace, and where its peak goes


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says."""

    pre_filter_hz: Band
    water_level_db: float
    window_s: float
    snr: float
    both: bool  # the geometric mean of both horizontals, not the larger one
    clip_counts: float


@dataclass(frozen=True, slots=True)
class Operators:
    """To ground velocity and to a Wood-Anderson's mm, by frequency of a block, complex64 (3, m); 0 where not known."""

    velocity: Complex64
    wood_anderson: Complex64
    known: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """Half-open [start, stop) samples (k, 2) of each pick; an S pick's last two are of no use for a P pick."""

    velocity: Int
    signal: Int
    noise: Int
    is_s: Bool

    @property
    def whole(self) -> Int:
        """(k, 2) from the first to the last sample that counts."""
        parts = [self.velocity, np.where(self.is_s[:, None], self.signal, self.velocity)]
        parts.append(np.where(self.is_s[:, None], self.noise, self.velocity))
        return np.stack([np.min([p[:, 0] for p in parts], axis=0), np.max([p[:, 1] for p in parts], axis=0)], axis=1)


@dataclass(frozen=True, slots=True)
class Looked:
    """What is seen of k picks: the largest velocity (k, 1), and Wood-Anderson amplitudes of N and E (k, 2), signal and
    noise. ``faults`` (2, bins, 3): is a component dead, is it clipped, in bins of ``bin`` samples from ``first`` on."""

    velocity: Float32
    signal: Float32
    noise: Float32
    first: int
    bin: int
    faults: NDArray[np.int32]


def block(rate_hz: float) -> tuple[int, int, int]:
    """Samples of a whole block, of its core, and of its margin."""
    core, margin = CORE_S * round(rate_hz), round(MARGIN_S * rate_hz)
    return core + 2 * margin, core, margin


def grid(rate_hz: float) -> NDArray[np.float64]:
    """The frequencies of a block, Hz."""
    return frequencies(block(rate_hz)[0], rate_hz)


def operators(response: Response, rate_hz: float, rules: Rules) -> Operators:
    """Of a response on the frequencies of `grid`. Raises ValueError if it has nothing in the band."""
    frequency_hz = grid(rate_hz)
    shape = band(frequency_hz, within(rules.pre_filter_hz, min(rate_hz, response.rate_hz)))
    velocity = inverted(response.counts_per_m_s, rules.water_level_db) * shape
    both = velocity.astype(np.complex64), (velocity * wood_anderson(frequency_hz)).astype(np.complex64)
    return Operators(*both, response.known)


def with_amplitudes(
    picks: Picks, waveform: Waveform, known: Sequence[tuple[Response, Operators]], rules: Rules
) -> Picks:
    """``picks`` of one station with their amplitudes, each by the response of its time; and why one has none."""
    n = len(picks)
    found = replace(
        picks,
        amplitude_m_s=np.full(n, np.nan, np.float32),
        wood_anderson_mm=np.full(n, np.nan, np.float32),
        amplitude_reason=np.full(n, NO_RESPONSE, "U16"),
    )
    windows = _windows(picks, waveform, rules.window_s)
    for response, operator in known:
        mine = np.flatnonzero((response.start_ns <= picks.time_ns) & (picks.time_ns < response.end_ns))
        _measure(found, mine, windows, waveform, operator, rules)
    return found


def _windows(picks: Picks, waveform: Waveform, window_s: float) -> Windows:
    rate_hz = waveform.rate_hz
    at = np.rint((picks.time_ns - waveform.start_ns) / NS * rate_hz).astype(np.int64)
    is_s = picks.phase == "S"
    onset = np.where(is_s, _p_before(at, picks.phase == "P", S_MINUS_P_S * rate_hz), at)

    def around(where: Int, start_s: float, stop_s: float) -> Int:
        return np.stack([where + round(start_s * rate_hz), where + round(stop_s * rate_hz)], axis=1)

    velocity = np.where(is_s[:, None], around(at, *VELOCITY_S["S"]), around(at, *VELOCITY_S["P"]))
    return Windows(velocity, around(at, 0.0, window_s), around(onset, *NOISE_S), is_s)


def _p_before(at: Int, is_p: Bool, reach: float) -> Int:
    """Of each pick the P pick before it that is nearest, or itself if there is none within ``reach`` samples."""
    p = np.append(np.sort(at[is_p]), np.iinfo(np.int64).max)
    nearest = p[np.searchsorted(p, at, side="right") - 1] if len(p) > 1 else at
    return np.where((nearest <= at) & (at - nearest <= reach), nearest, at)


def _measure(found: Picks, mine: Int, windows: Windows, waveform: Waveform, known: Operators, rules: Rules) -> None:
    """Fill in the rows ``mine`` of ``found``."""
    there = np.array(known.known) & np.array(waveform.components)
    if not there.any():
        return
    whole = windows.whole
    gap = _has_gap(waveform, whole[mine])
    found.amplitude_reason[mine[gap]] = GAP
    rows = mine[~gap]
    looked = _looked(rows, windows, waveform, known, rules.clip_counts)
    alive, clipped = _condition(looked, whole[rows])
    use = alive & there
    reason = np.where(~use.any(axis=1), GAP, np.where((clipped & use).any(axis=1), CLIPPED, ""))
    value, why = _horizontal(looked, use[:, 1:], rules)
    is_s, good = windows.is_s[rows], reason == ""
    found.amplitude_reason[rows] = np.where(good & is_s, why, reason)
    found.amplitude_m_s[rows] = np.where(good, looked.velocity[:, 0], np.nan)
    found.wood_anderson_mm[rows] = np.where(good & is_s, value, np.nan)


def _has_gap(waveform: Waveform, windows: Int) -> Bool:
    """Whether any of the windows (k, 2), and `GUARD_S` around them, is not all data."""
    guard = round(GUARD_S * waveform.rate_hz)
    gaps = np.flatnonzero(~waveform.valid)
    start, stop = windows[:, 0] - guard, windows[:, 1] + guard
    outside = (start < 0) | (stop > len(waveform))
    return outside | (np.searchsorted(gaps, start) < np.searchsorted(gaps, stop))


def _condition(looked: Looked, windows: Int) -> tuple[Bool, Bool]:
    """Of each window (k, 2) whether each component is alive, and whether it is clipped, (k, 3)."""
    first, last = (windows[:, 0] - looked.first) // looked.bin, (windows[:, 1] - 1 - looked.first) // looked.bin
    until = np.pad(np.cumsum(looked.faults, axis=1), ((0, 0), (1, 0), (0, 0)))
    dead, clipped = (until[:, last + 1] - until[:, first]) > 0
    return ~dead, clipped


def _horizontal(looked: Looked, present: Bool, rules: Rules) -> tuple[Float32, NDArray[np.str_]]:
    """One Wood-Anderson amplitude of the two of each pick (k,), and why there is none; both or the larger count."""
    if rules.both:
        value, before = np.sqrt(looked.signal.prod(axis=1)), np.sqrt(looked.noise.prod(axis=1))
        there = present.all(axis=1)
    else:
        k = np.argmax(np.where(present, looked.signal, -1), axis=1)[:, None]
        value, before = (np.take_along_axis(each, k, axis=1)[:, 0] for each in (looked.signal, looked.noise))
        there = present.any(axis=1)
    loud = (value > 0) & (value >= rules.snr * before)
    return np.where(there & loud, value, np.nan), np.where(there, np.where(loud, "", NOISE), NO_HORIZONTAL)


def _looked(rows: Int, windows: Windows, waveform: Waveform, known: Operators, clip_counts: float) -> Looked:
    """Go through the blocks that the picks ``rows`` need."""
    size, core, margin = block(waveform.rate_hz)
    first = int([*midnights(waveform.start_ns, waveform.rate_hz, len(waveform), CORE_S * NS), 0][0]) - core
    n_bins = (len(waveform) - first) // core * CORE_S + CORE_S
    faults = np.zeros((2, n_bins, 3), np.int32)
    velocity, (signal, noise) = np.zeros((len(rows), 1), np.float32), np.zeros((2, len(rows), 2), np.float32)
    looked = Looked(velocity, signal, noise, first, core // CORE_S, faults)
    pieces = _pieces(looked, windows, rows, core)
    numbers = sorted(pieces)
    for k in range(0, len(numbers), BATCH):
        some = numbers[k : k + BATCH]
        cut, valid = _cut(waveform, [first + n * core - margin for n in some], size)
        middle = slice(margin, margin + core)
        for n, *kinds in zip(some, *_faults(cut[..., middle], clip_counts), strict=True):
            faults[:, n * CORE_S : (n + 1) * CORE_S] = kinds
        motion = _motion(cut, valid, round(TAPER_S * waveform.rate_hz), middle, known)
        for n, *traces in zip(some, *motion, strict=True):
            for start, stop, kind, into in pieces[n]:
                np.maximum(into, traces[kind][:, start:stop].max(axis=1), out=into)
    return looked


def _pieces(looked: Looked, windows: Windows, rows: Int, core: int) -> dict[int, list[Piece]]:
    """What is wanted of each block, by its number."""
    found: dict[int, list[Piece]] = {}
    everyone = np.arange(len(rows))
    s = everyone[windows.is_s[rows]]
    kinds = (windows.velocity, looked.velocity, everyone, 0), (windows.signal, looked.signal, s, 1)
    for spans, into, of, kind in (*kinds, (windows.noise, looked.noise, s, 1)):
        for (start, stop), row in zip((spans[rows[of]] - looked.first).tolist(), of.tolist(), strict=True):
            for number in range(start // core, (stop - 1) // core + 1):
                begin = number * core
                piece = max(start - begin, 0), min(stop - begin, core), kind, into[row]
                found.setdefault(number, []).append(piece)
    return found


def _cut(waveform: Waveform, starts: Sequence[int], size: int) -> tuple[Float32, Bool]:
    """Blocks of samples (b, 3, size), and where they are data (b, 1, size); 0 beyond the record."""
    cut, known = np.zeros((len(starts), 3, size), np.float32), np.zeros((len(starts), 1, size), np.bool_)
    for k, start in enumerate(starts):
        first, last = max(start, 0), min(start + size, len(waveform))
        cut[k, :, first - start : last - start] = waveform.samples[:, first:last]
        known[k, 0, first - start : last - start] = waveform.valid[first:last]
    return cut, known


def _faults(cut: Float32, clip_counts: float) -> tuple[Bool, Bool]:
    """Which seconds of blocks (b, 3, core) are nothing but zeros, and which are clipped; (b, bins, 3)."""
    b, rows, core = cut.shape
    size = np.abs(cut)
    largest = size.reshape(b, rows, CORE_S, core // CORE_S).max(axis=-1)
    clipped = largest >= clip_counts
    if (largest >= FLAT_COUNTS).any():
        same = (cut[..., 1:] == cut[..., :-1]) & (size[..., 1:] >= FLAT_COUNTS)
        pairs = same[..., 1:] & same[..., :-1]
        flat = pairs[..., 2:] & pairs[..., :-2]  # five equal samples
        if flat.any():
            k, row, at = np.nonzero(flat)
            clipped[k, row, at * CORE_S // core] = True
    return (largest == 0).swapaxes(1, 2), clipped.swapaxes(1, 2)


def _motion(cut: Float32, valid: Bool, width: int, middle: slice, known: Operators) -> tuple[Float32, Float32]:
    """Largest |velocity| of any component (b, 1, core) and |Wood-Anderson| of N and E (b, 2, core) of blocks."""
    size = cut.shape[-1]
    mean = cut.sum(axis=-1, keepdims=True) / np.maximum(np.count_nonzero(valid, axis=-1, keepdims=True), 1)
    cut = (cut - mean.astype(np.float32)) * (valid * _taper(size, width))
    spectrum = fft.rfft(cut, axis=-1)
    velocity = np.abs(fft.irfft(spectrum * known.velocity, size, axis=-1)[..., middle])
    mm = np.abs(fft.irfft(spectrum[:, 1:] * known.wood_anderson[1:], size, axis=-1)[..., middle])
    return velocity.max(axis=1, keepdims=True), mm


def _taper(n: int, width: int) -> Float32:
    """1, falling to 0 in half a cosine over ``width`` samples at both ends, (n,)."""
    edge = (1 - np.cos(np.pi * np.arange(width) / width)) / 2
    shape: Float32 = np.concatenate([edge, np.ones(n - 2 * width), edge[::-1]]).astype(np.float32)
    return shape
