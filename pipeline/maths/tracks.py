"""From pieces of data to one regular time axis.

Gaps are never filled. Where two pieces claim the same instant with different values, neither is believed.
What is decided here, and why, is in docs/decisions/004-merging-and-resampling.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.maths import resampling, signals
from pipeline.records import NS, Bool, Float, Float32

HEADER_PRECISION = 2e-7  # relative; rates in headers are single precision
MAX_DRIFT = 0.1  # samples; a piece is cut and set to its true time before it drifts further
SAME_INSTANT = 0.05  # samples; closer than this, two time stamps are the same
DEAD_S = 60.0  # a channel that keeps one value for this long is dead


@dataclass(frozen=True, slots=True)
class Piece:
    """Evenly sampled data of one channel, without gaps. ``data`` (n,) of any real dtype, maybe masked."""

    data: NDArray[Any]
    start_ns: int
    rate_hz: float

    @property
    def last_ns(self) -> int:
        """Time of the last sample."""
        return self.start_ns + round((len(self.data) - 1) * NS / self.rate_hz)


@dataclass(frozen=True, slots=True)
class Axis:
    """Regular time axis: sample i is at ``start_ns + i / rate_hz``."""

    start_ns: int
    rate_hz: float
    n: int

    def index(self, time_ns: int) -> int:
        """The sample nearest to ``time_ns``."""
        return _nearest(time_ns, self.start_ns, self.rate_hz)

    def time_ns(self, index: int) -> int:
        return self.start_ns + round(index * NS / self.rate_hz)


@dataclass(frozen=True, slots=True)
class Track:
    """One channel on an axis of n samples: ``values`` (n,), and bool (n,) of each kind of sample.

    Counts stay int32, which halves the traffic of memory; all else is float64.
    """

    axis: Axis
    values: NDArray[Any]
    have: Bool  # a value means something
    clash: Bool  # pieces contradict each other
    bad: Bool  # no number, or a fill value


@dataclass(slots=True)
class Findings:
    """What was wrong with the channels: how many samples, and when first."""

    found: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def add(self, channel: str, what: str, count: int, first_ns: int) -> None:
        before, earliest = self.found.get((channel, what), (0, first_ns))
        if count:
            self.found[channel, what] = before + count, min(earliest, first_ns)

    def add_mask(self, channel: str, what: str, mask: Bool, track: Track) -> None:
        if mask.any():
            self.add(channel, what, int(mask.sum()), track.axis.time_ns(int(mask.argmax())))

    def sentences(self) -> list[str]:
        return [
            f"{channel}: {count} {what}, first at {datetime.fromtimestamp(first_ns // NS, UTC):%Y-%m-%dT%H:%M:%SZ}"
            for (channel, what), (count, first_ns) in sorted(self.found.items())
        ]


def window_axis(pieces: Sequence[Piece], rate_hz: float, window_ns: tuple[int, int]) -> Axis:
    """The axis through the samples of the longest piece, inside the half-open window."""
    phase_ns = longest(pieces).start_ns
    first, stop = (-int((phase_ns - t) * rate_hz // NS) for t in window_ns)
    return Axis(phase_ns + round(first * NS / rate_hz), rate_hz, max(0, stop - first))


def fill_row(
    samples: Float32, axis: Axis, channels: dict[str, list[Piece]], min_samples: int, findings: Findings
) -> Bool:
    """Fill one component's ``samples`` float32 (n,); returns where there are data, bool (n,).

    ``channels`` holds the pieces by channel code, the preferred channel first; what is laid down first
    stays, and of one channel the higher native rate is. Stretches shorter than ``min_samples`` are left
    out; the mean of each stretch is removed in float64, before the cast, so that no offset costs precision.
    """
    values, have = _row(axis, channels, findings)
    if signals.is_constant(values, signals.runs(have)):
        what = "samples of one value: dead channel, left out"
        findings.add(next(iter(channels)), what, int(have.sum()), axis.time_ns(int(have.argmax())))
        have[:] = False
    stretches = signals.drop_short(have, min_samples)
    for start, stop in signals.others(stretches, axis.n):
        samples[start:stop] = 0
    for start, stop in stretches:
        stretch = values[start:stop]
        mean = stretch.mean() if stretch.dtype == np.float64 else int(stretch.sum(dtype=np.int64)) / len(stretch)
        np.subtract(stretch, mean, out=samples[start:stop], dtype=np.float64, casting="same_kind")
    return have


def _row(axis: Axis, channels: dict[str, list[Piece]], findings: Findings) -> tuple[NDArray[Any], Bool]:
    """Cleaned values (n,) of one component, and where there are any, bool (n,)."""
    parts = [
        (name, factor, group)
        for name, pieces in channels.items()
        for factor, group in _by_rate(name, pieces, axis.rate_hz, findings)
    ]
    if len(parts) == 1 and parts[0][1] == 1:
        name, _, group = parts[0]
        track = clean(name, merge(group, axis), findings)
        return track.values, track.have
    values, have = signals.blank(axis.n, np.float64), signals.blank(axis.n, np.bool_)
    for name, factor, group in parts:
        native_hz = axis.rate_hz / float(factor)
        for cluster in [group] if factor == 1 else clusters(group):
            own = axis if factor == 1 else _own_axis(cluster, native_hz)
            _place(axis, values, have, clean(name, merge(cluster, own), findings), factor)
    return values, have


def _own_axis(cluster: Sequence[Piece], rate_hz: float) -> Axis:
    """The axis of a cluster at its native rate, through the samples of its longest piece."""
    phase_ns = longest(cluster).start_ns
    first, stop = min(p.start_ns for p in cluster), max(p.last_ns for p in cluster)
    start = _nearest(first, phase_ns, rate_hz)
    return Axis(phase_ns + round(start * NS / rate_hz), rate_hz, _nearest(stop, phase_ns, rate_hz) - start + 1)


def _by_rate(
    name: str, pieces: Sequence[Piece], rate_hz: float, findings: Findings
) -> list[tuple[Fraction, list[Piece]]]:
    """Pieces by the factor that brings them to ``rate_hz``, the highest native rate first."""
    groups: dict[Fraction, list[Piece]] = {}
    for piece in pieces:
        try:
            groups.setdefault(resampling.ratio(piece.rate_hz, rate_hz), []).append(piece)
        except ValueError as e:
            findings.add(name, f"samples left out: {e}", len(piece.data), piece.start_ns)
    if len(groups) > 1:
        for factor, group in groups.items():
            what = f"samples at {rate_hz / float(factor):g} Hz among other rates"
            findings.add(name, what, sum(len(p.data) for p in group), min(p.start_ns for p in group))
    return sorted(groups.items())


def clean(name: str, track: Track, findings: Findings) -> Track:
    """``track`` without what is no ground motion; all that was found is recorded."""
    findings.add_mask(name, "samples contradict each other where data overlap: left out", track.clash, track)
    if track.bad.any():
        findings.add_mask(name, "samples are no numbers or fill values: left out", track.bad & ~track.have, track)
    known = signals.extremes(track.values)
    lone = [i for i in signals.spikes(track.values, known).tolist() if _calm(track.have, i)]
    if lone:
        what = "single-sample spikes replaced by the mean of their neighbours"
        findings.add(name, what, len(lone), track.axis.time_ns(lone[0]))
        track = replace(track, values=_bridged(track.values, lone))
        known = signals.extremes(track.values)
    values, have = track.values, track.have
    dead = signals.constant(values, have, round(DEAD_S * track.axis.rate_hz))
    if dead is not None:
        findings.add_mask(name, f"samples of one value for {DEAD_S:g} s or more: dead, left out", dead, track)
        have &= ~dead
    stretches = signals.runs(have)
    if not have.all():  # one stretch needs no copy
        values = values[slice(*stretches[0])] if len(stretches) == 1 else values[have]
        known = signals.extremes(values)
    findings.add(name, "samples clipped (flat tops): kept", signals.clipped(values, known), track.axis.start_ns)
    return track


def _calm(have: Bool, i: int) -> bool:
    return bool(have[max(0, i - signals.SPIKE_CALM) : i + signals.SPIKE_CALM + 1].all())


def _bridged(values: NDArray[Any], at: Sequence[int]) -> Float:
    """``values`` as float64, the samples ``at`` halfway between their neighbours."""
    out = values.astype(np.float64)
    for i in at:
        out[i] = (out[i - 1] + out[i + 1]) / 2
    return out


def _place(axis: Axis, values: Float, have: Bool, track: Track, factor: Fraction) -> None:
    """Resample each stretch of ``track`` and lay it on ``axis`` where nothing is yet."""
    for start, stop in signals.runs(track.have):
        data = resampling.resample(track.values[start:stop], factor)
        i, data = _inside(axis.index(track.axis.time_ns(int(start))), data, axis.n)
        where = slice(i, i + len(data))
        np.copyto(values[where], data, where=~have[where])
        have[where] = True


def _inside(i: int, data: NDArray[Any], n: int) -> tuple[int, NDArray[Any]]:
    """What of ``data``, to be laid at index ``i``, falls on an axis of ``n`` samples, and where."""
    return max(i, 0), data[max(0, -i) : max(0, n - i)]


def clusters(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Pieces sorted by time, in groups that touch or overlap; between groups a sample or more is missing."""
    out: list[list[Piece]] = []
    last_ns = 0
    for piece in sorted(pieces, key=lambda p: (p.start_ns, len(p.data), p.rate_hz)):
        if out and (piece.start_ns - last_ns) * piece.rate_hz / NS < 2 - SAME_INSTANT:
            out[-1].append(piece)
            last_ns = max(last_ns, piece.last_ns)
        else:
            out.append([piece])
            last_ns = piece.last_ns
    return out


def longest(pieces: Sequence[Piece]) -> Piece:
    """The piece of the longest duration; of equals the earliest."""
    return min(pieces, key=lambda p: (-len(p.data) / p.rate_hz, p.start_ns))


def merge(pieces: Sequence[Piece], axis: Axis) -> Track:
    """One track from pieces of the axis's rate.

    Each piece goes to the nearest sample of the axis, half a sample off at most. A time tear of less
    than a sample is no gap: the one sample that rounding leaves out is put halfway between its
    neighbours, the one that it doubles is dropped. Equal samples count once; where samples differ none
    is kept. The result does not depend on the order of the pieces.
    """
    ordered = [step for piece in pieces for step in _steps(piece, axis.rate_hz)]
    ordered.sort(key=lambda p: (p.start_ns, len(p.data), p.rate_hz))
    have, clash, bad = (signals.blank(axis.n, np.bool_) for _ in range(3))
    counts = all(piece.data.dtype == np.int32 for piece in ordered)
    if len(ordered) == 1 and _fills(ordered[0], axis):
        have.fill(True)  # nothing to merge, nothing to copy
        return Track(axis, ordered[0].data.astype(np.int32 if counts else np.float64, copy=False), have, clash, bad)
    track = Track(axis, np.empty(axis.n, np.int32 if counts else np.float64), have, clash, bad)
    last_ns, stop, tears = ordered[0].start_ns - 10 * NS, 0, list[int]()
    for piece in ordered:
        i, data = axis.index(piece.start_ns), piece.data
        tear = (piece.start_ns - last_ns) * axis.rate_hz / NS - 1
        if abs(tear) < 1 - SAME_INSTANT and i == stop + 1:
            tears.append(stop)
        elif abs(tear) < 1 - SAME_INSTANT and i == stop - 1:
            i, data = stop, data[1:]
        _lay(track, i, data)
        if piece.last_ns > last_ns:
            last_ns, stop = piece.last_ns, i + len(data)
    for start, end in signals.others(signals.runs(have), axis.n):
        track.values[start:end] = 0
    if clash.any():
        have &= ~clash
    tears = [k for k in tears if 0 < k < axis.n - 1 and have[k - 1] and have[k + 1] and not have[k]]
    have[tears] = True
    return replace(track, values=_bridged(track.values, tears)) if tears else track


def _fills(piece: Piece, axis: Axis) -> bool:
    """Is there a measured sample of ``piece`` for each of ``axis``, and no more?"""
    return (axis.index(piece.start_ns), len(piece.data)) == (0, axis.n) and signals.measured(piece.data) is None


def _nearest(time_ns: int, phase_ns: int, rate_hz: float) -> int:
    return round((time_ns - phase_ns) * rate_hz / NS)


def _steps(piece: Piece, rate_hz: float) -> Iterator[Piece]:
    """``piece`` cut so that no part drifts by more than `MAX_DRIFT` against ``rate_hz``."""
    error = abs(piece.rate_hz / rate_hz - 1)
    if error < HEADER_PRECISION or error * len(piece.data) < MAX_DRIFT:
        yield piece
        return
    step = max(1, int(MAX_DRIFT / error))
    for i in range(0, len(piece.data), step):
        yield Piece(piece.data[i : i + step], piece.start_ns + round(i * NS / piece.rate_hz), piece.rate_hz)


def _lay(track: Track, i: int, data: NDArray[Any]) -> None:
    """Write ``data`` into ``track`` from index ``i`` on, comparing where something is there already."""
    i, data = _inside(i, data, track.axis.n)
    where = slice(i, i + len(data))
    values, have = track.values[where], track.have[where]
    good = signals.measured(data)
    data = np.asarray(data)
    if have.any():
        both = have if good is None else have & good
        track.clash[where] |= both & (values != data)
    if good is None:
        values[:], have[:] = data, True
    else:
        np.copyto(values, data, where=good)
        have |= good
        track.bad[where] |= ~good
