"""The classical baseline: STA/LTA triggers, onsets refined by AIC; P on the vertical, S on the horizontals after P.

STA/LTA: Allen 1978, "Automatic earthquake recognition and timing from single traces", BSSA 68, 1521-1532; here with
the energy as characteristic function and boxcar windows, as ObsPy's `classic_sta_lta`. AIC: Maeda 1985, "A method for
reading and checking phase times in autoprocessing system of seismic wave data", Zisin 38, 365-379.

It is blind for the first `StaLta.lta_s` of what may be used of a record. The number that goes with a pick is
1 - 1/ratio, so that it grows with the ratio and lies between 0 and 1: no probability.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import butter, sosfilt

from pipeline.maths import tuning
from pipeline.maths.picking_scores import Found, Rule, Truth
from pipeline.maths.windows import segments
from pipeline.records import Bool, Float, Float32

P_GRID = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0)  # ratios that are tried
S_GRID = (1.2, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0)
NOTHING = 1e-12  # of the largest energy: an LTA below it is that of a dead trace
EDGE = 3  # samples at either end of a window in which an onset says nothing


@dataclass(frozen=True, slots=True)
class StaLta:
    """``p_on``, ``s_on``: ratios that trigger; a P trigger lasts until the ratio falls below ``off_share`` of it.

    An onset is looked for from ``before_s`` before the trigger to ``after_s`` after it, S not until ``s_after_s``
    after P. ``corners_hz``: of the band-pass, of order 2. The windows of S are those that did best on 35 records of
    Northern California; only the ratios are tuned on a data set's own validation part.
    """

    p_on: float = 4.0
    s_on: float = 3.0
    sta_s: float = 0.5
    lta_s: float = 5.0
    s_sta_s: float = 0.2
    s_lta_s: float = 5.0
    off_share: float = 0.5
    corners_hz: tuple[float, float] = (1.0, 20.0)
    before_s: float = 1.5
    after_s: float = 0.3
    s_after_s: float = 0.3


@dataclass(frozen=True, slots=True)
class Traces:
    """A record made ready: band-passed Z, N, E (3, n), and the ratios (n,) of the vertical and of both horizontals."""

    samples: Float
    vertical: Float
    horizontal: Float
    rate_hz: float


def ratio(energy: Float, n_sta: int, n_lta: int) -> Float:
    """STA/LTA (n,) of ``energy`` (n,) over the last ``n_sta`` and ``n_lta`` samples; 0 where the LTA is not full.

    Also 0 where the trace is dead. Raises ValueError unless 0 < n_sta < n_lta.
    """
    if not 0 < n_sta < n_lta:
        raise ValueError(f"STA of {n_sta} samples, LTA of {n_lta}: the STA must be the shorter one, and not empty")
    found = np.zeros(len(energy))
    if len(energy) < n_lta:
        return found
    total = np.concatenate([[0.0], np.cumsum(energy)])
    last = np.arange(n_lta, len(energy) + 1)
    sta, lta = (total[last] - total[last - n_sta]) / n_sta, (total[last] - total[last - n_lta]) / n_lta
    alive = lta > NOTHING * energy.max()
    np.divide(sta, lta, out=found[n_lta - 1 :], where=alive)
    return np.maximum(found, 0)


def aic(x: Float) -> Float:
    """Maeda's criterion (n,) for an onset after each sample of ``x`` (n,): small where two noises meet.

    k log(var(x[:k])) + (n - k - 1) log(var(x[k:])) for k = 1 .. n - 1; the last value stands twice, as in ObsPy.
    """
    n = len(x)
    if n <= 2:
        return np.zeros(n)
    y = x - x.mean()
    first, square = np.cumsum(y), np.cumsum(y * y)
    k = np.arange(1, n)
    before = square[:-1] / k - (first[:-1] / k) ** 2
    after = (square[-1] - square[:-1]) / (n - k) - ((first[-1] - first[:-1]) / (n - k)) ** 2
    least = np.finfo(np.float64).tiny
    head = k * np.log(np.maximum(before, least))
    head[0] = 0  # one sample has no variance
    found = head + (n - k - 1) * np.log(np.maximum(after, least))
    return np.append(found, found[-1])


def prepare(samples: Float32, rate_hz: float, settings: StaLta, valid: Bool | None = None) -> Traces:
    """From ``samples`` (3, n), rows Z N E; the mean is taken away before the filter, whose start is at rest.

    It begins at the first of the ``valid`` samples (n,) and ends at the last: at the edge of a filling the ratio would
    rise. A corner above 0.9 of the Nyquist frequency is lowered to that.
    """
    n = samples.shape[1]
    used = slice(0, n) if valid is None else slice(int(valid.argmax()), n - int(valid[::-1].argmax()))
    low_hz, high_hz = settings.corners_hz
    corners = low_hz, min(high_hz, 0.45 * rate_hz)
    sections = butter(2, corners, "bandpass", output="sos", fs=rate_hz)
    part = np.asarray(samples[:, used], np.float64)
    x, vertical, horizontal = np.zeros((3, n)), np.zeros(n), np.zeros(n)
    x[:, used] = part = sosfilt(sections, part - part.mean(axis=1, keepdims=True))
    energy = part * part
    vertical[used] = ratio(energy[0], round(settings.sta_s * rate_hz), round(settings.lta_s * rate_hz))
    both = energy[1] + energy[2]
    horizontal[used] = ratio(both, round(settings.s_sta_s * rate_hz), round(settings.s_lta_s * rate_hz))
    return Traces(x, vertical, horizontal, rate_hz)


def triggers(values: Float, on: float, off: float) -> list[tuple[int, int]]:
    """Where a ratio (n,) reaches ``on``, and where it then falls below ``off``: samples, half-open."""
    found = []
    for start, stop in segments(values >= off).tolist():
        reached = np.flatnonzero(values[start:stop] >= on)
        if len(reached):
            found.append((start + int(reached[0]), stop))
    return found


def onset(x: Float, first: int, stop: int) -> int:
    """The sample of ``x`` in [first, stop) where AIC puts the onset; ``first`` where that is too short to tell."""
    first, stop = max(first, 0), min(stop, len(x))
    if stop - first <= 2 * EDGE:
        return first
    values = aic(x[first:stop])[EDGE:-EDGE]
    return first + EDGE + int(np.argmin(values)) + 1  # the value at i is that of a new noise from i + 1 on


def pick_record(traces: Traces, settings: StaLta) -> list[tuple[str, int, float]]:
    """Phase, sample and ratio of the picks of one record, P first, then at most one S after each P."""
    reach = round(settings.before_s * traces.rate_hz), round(settings.after_s * traces.rate_hz)
    p_picks, free = [], 0
    for on, stop in triggers(traces.vertical, settings.p_on, settings.off_share * settings.p_on):
        at = onset(traces.samples[0], max(free, on - reach[0]), on + reach[1])
        p_picks.append(("P", at, float(traces.vertical[on:stop].max())))
        free = stop
    s_picks = []
    ends = [at for _, at, _ in p_picks[1:]] + [traces.samples.shape[1]]
    for (_, p_at, _), end in zip(p_picks, ends, strict=False):
        s_picks += _s_after(traces, settings, p_at + round(settings.s_after_s * traces.rate_hz), end, reach)
    return p_picks + s_picks


def _s_after(
    traces: Traces, settings: StaLta, begin: int, end: int, reach: tuple[int, int]
) -> list[tuple[str, int, float]]:
    """The largest of the triggers of the horizontals that begin in (begin, end), or none.

    A ratio that has been high since P is no trigger: it must rise.
    """
    values = traces.horizontal[begin:end]
    rising = [(on, stop) for on, stop in triggers(values, settings.s_on, settings.s_on) if on > 0]
    if not rising:
        return []
    on, stop = max(rising, key=lambda one: values[one[0] : one[1]].max())
    first, last = max(begin, begin + on - reach[0]), min(end, begin + on + reach[1])
    row = 1 + int(np.argmax((traces.samples[1:, first:last] ** 2).sum(axis=1)))
    return [("S", onset(traces.samples[row], first, last), float(values[on:stop].max()))]


def pick(records: Sequence[Traces], settings: StaLta) -> Found:
    """The picks of all ``records``, by their place in the sequence."""
    rows = [(k, *one) for k, traces in enumerate(records) for one in pick_record(traces, settings)]
    time_s = [at / records[k].rate_hz for k, _, at, _ in rows]
    return Found(
        np.array([k for k, *_ in rows], np.int64),
        np.array([phase for _, phase, _, _ in rows], "U1"),
        np.array(time_s, np.float64),
        np.array([1 - 1 / max(value, 1.0) for *_, value in rows], np.float64),
    )


def tuned(
    records: Sequence[Traces],
    labels: Truth,
    rule: Rule,
    start: StaLta,
    grids: tuple[Iterable[float], Iterable[float]] = (P_GRID, S_GRID),
) -> StaLta:
    """``start`` with the ratios of the best F1 on these validation records: that of P, then with it that of S."""
    p_grid, s_grid = (tuple(grid) for grid in grids)
    p = tuning.choose(labels, "P", lambda on: pick(records, replace(start, p_on=on)), p_grid, rule, start.p_on)
    with_p = replace(start, p_on=p.threshold)
    s = tuning.choose(labels, "S", lambda on: pick(records, replace(with_p, s_on=on)), s_grid, rule, start.s_on)
    return replace(with_p, s_on=s.threshold)
