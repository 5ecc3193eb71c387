"""Sampled signals: stretches of data, and what can be wrong with a channel. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.records import Bool, Float, Int, Waveform

FILL_VALUES = (2.0**31 - 1, 2.0**31, -(2.0**31))  # int32 extremes (as float32 too): overflow, or "no data"
SPIKE_FACTOR = 50.0  # times the robust scatter of the differences
SPIKE_CALM = 20  # samples on both sides
BLOCK = 4096  # samples of which the extremes are known
CLIP_RUN = 5  # equal samples in a row at the extreme value
CLIP_FACTOR = 5.0  # the extreme is this many standard deviations away


@dataclass(frozen=True, slots=True)
class Extremes:
    """Lowest and highest value of each `BLOCK` samples, float64 (k,): most blocks need no closer look."""

    low: Float
    high: Float


def extremes(values: NDArray[Any]) -> Extremes:
    """Of ``values`` (n,), any real dtype, no NaN."""
    whole = len(values) // BLOCK * BLOCK
    blocks, rest = values[:whole].reshape(-1, BLOCK), values[whole:]
    low, high = blocks.min(axis=1).astype(np.float64), blocks.max(axis=1).astype(np.float64)
    if len(rest):
        low, high = np.append(low, rest.min()), np.append(high, rest.max())
    return Extremes(low, high)


def blank(n: int, dtype: type[np.generic]) -> NDArray[Any]:
    """(n,) zeros. Filling an empty array is faster than `numpy.zeros`, whose memory comes in small pages."""
    out = np.empty(n, dtype)
    out.fill(0)
    return out


def runs(mask: Bool) -> Int:
    """(k, 2) start and stop (exclusive) of each run of True."""
    count = int(np.count_nonzero(mask))
    start = int(mask.argmax()) if count else 0
    if count and mask[start : start + count].all():  # one run, as on most days
        return np.array([[start, start + count]], np.int64)
    edges = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    bounds = np.concatenate([[0], edges, [len(mask)]]).astype(np.int64)
    first = 0 if len(mask) and mask[0] else 1
    starts = bounds[first:-1:2]
    return np.stack([starts, bounds[first + 1 :: 2][: len(starts)]], axis=1)


def drop_short(mask: Bool, at_least: int) -> Int:
    """Set runs of True shorter than ``at_least`` samples to False, in place; returns the `runs` that are left."""
    found = runs(mask)
    short = found[:, 1] - found[:, 0] < at_least
    for start, stop in found[short]:
        mask[start:stop] = False
    return found[~short]


def others(found: Int, n: int) -> Int:
    """(k, 2) what the `runs` ``found`` leave out of n samples; some may be empty."""
    return np.concatenate([[0], found.ravel(), [n]]).reshape(-1, 2)


def measured(data: NDArray[Any]) -> Bool | None:
    """(n,) False at masked samples, NaN, infinities and fill values; None if all is well."""
    mask = np.broadcast_to(data.mask, data.shape) if isinstance(data, np.ma.MaskedArray) else None
    data = np.asarray(data)
    if len(data) == 0:
        return None
    low, high = data.min(), data.max()
    if mask is None and min(FILL_VALUES) < low and high < min(map(abs, FILL_VALUES)):  # False for NaN
        return None
    good: Bool = np.isfinite(data) & (np.abs(data, dtype=np.float64) < 1e30)
    for value in FILL_VALUES:
        good &= data != value
    return good if mask is None else good & ~mask


def constant(values: NDArray[Any], have: Bool, at_least: int) -> Bool | None:
    """(n,) True in runs of at least ``at_least`` equal samples that ``have``; None if there is none."""
    step = max(at_least // 2, 1)  # so that a run holds two probes
    probes = values[::step]
    candidates = np.flatnonzero((probes[1:] == probes[:-1]) & have[::step][1:]) * step
    if not any((values[i : i + step] == values[i]).all() for i in candidates):
        return None
    mask = np.zeros(len(values), np.bool_)
    for start, stop in runs((values[1:] == values[:-1]) & have[1:] & have[:-1]):
        if stop - start + 1 >= at_least:
            mask[start : stop + 1] = True
    return mask if mask.any() else None


def clipped(values: NDArray[Any], known: Extremes) -> int:
    """How many samples lie in flat tops: `CLIP_RUN` or more in a row at the largest or smallest value,
    which must stand out by `CLIP_FACTOR` standard deviations. ``known`` are the extremes of ``values``."""
    count = 0
    if len(values) == 0:
        return 0
    blocks_of = {float(known.low.min()): known.low, float(known.high.max()): known.high}
    for extreme, blocks in blocks_of.items():
        at = np.concatenate([_where(values, extreme, k * BLOCK) for k in np.flatnonzero(blocks == extreme)])
        if len(at) < CLIP_RUN:
            continue
        lengths = np.diff(np.flatnonzero(np.concatenate([[True], np.diff(at) > 1, [True]])))
        flat = int(lengths[lengths >= CLIP_RUN].sum())
        if flat and abs(extreme - values.mean()) > CLIP_FACTOR * values[:: max(1, len(values) // 1_000_000)].std():
            count += flat
    return count


def _where(values: NDArray[Any], value: float, start: int) -> Int:
    """Indices of the samples of one block that equal ``value``."""
    return np.flatnonzero(values[start : start + BLOCK] == values.dtype.type(value)) + start


def is_constant(values: NDArray[Any], where: Int) -> bool:
    """Is there but one value in the runs ``where`` (k, 2)? False if there is no run."""
    parts = [values[start:stop] for start, stop in where]
    first = parts[0][:1] if parts else np.empty(0)
    return bool(parts) and all((part[:BLOCK] == first).all() and (part == first).all() for part in parts)


def spikes(values: NDArray[Any], known: Extremes) -> Int:
    """Indices of isolated single samples that no ground motion can make.

    Such a sample leaves both its neighbours, to the same side, by more than `SPIKE_FACTOR` times the robust
    scatter of all differences (1.4826 MAD), while no other difference within `SPIKE_CALM` samples reaches a
    tenth of that. An impulse that has passed a digitiser's anti-alias filter rings; a lone sample is an error.
    ``known`` are the extremes of ``values``: blocks that span less than such a step are not searched.
    """
    if len(values) < 3:
        return np.empty(0, np.int64)
    limit = SPIKE_FACTOR * _scatter(values)
    low, high = (np.append(each, each[-1]) for each in (known.low, known.high))
    span = np.maximum(high[:-1], high[1:]) - np.minimum(low[:-1], low[1:])  # of a block and the next
    found: list[int] = []
    for start in (np.flatnonzero(span > limit) * BLOCK).tolist():
        steps = np.diff(values[start : start + BLOCK + 2].astype(np.float64))
        large = np.flatnonzero(np.abs(steps) > limit)
        at = large[:-1][np.diff(large) == 1]  # two large steps in a row,
        at = at[np.sign(steps[at]) != np.sign(steps[at + 1])]  # there and back,
        at = at[np.abs(steps[at] + steps[at + 1]) < 0.1 * np.abs(steps[at])]  # to where it was
        found += (at + start + 1).tolist()
    return np.array([i for i in found if _is_lone(values, i)], np.int64)


def _is_lone(values: NDArray[Any], i: int) -> bool:
    """Does nothing around sample ``i`` move by a tenth of what it does?"""
    first = max(0, i - SPIKE_CALM)
    around = values[first : i + SPIKE_CALM + 1].astype(np.float64)
    step = abs(around[i - first] - around[i - first - 1])
    return bool(np.abs(np.diff(np.delete(around, i - first))).max() < 0.1 * step)


def _scatter(values: NDArray[Any]) -> float:
    """Robust standard deviation of the differences, one count at least."""
    step = max(1, len(values) // 100_000)
    moves = np.abs(values[1::step].astype(np.float64) - values[:-1:step])
    scatter = 1.4826 * float(np.median(moves))
    if scatter > 0:
        return scatter
    moves = np.abs(np.diff(values.astype(np.float64)))  # more than half of the steps are zero
    return float(moves[moves > 0].min(initial=np.inf))


def repeated(waveform: Waveform) -> Waveform:
    """Where one component alone has data, it in place of the others, too: networks were trained on three.

    ``components`` still says which there is. With two or three components the same waveform.
    """
    if sum(waveform.components) != 1:
        return waveform
    row = waveform.components.index(True)
    return replace(waveform, samples=np.ascontiguousarray(waveform.samples[[row, row, row]]))
