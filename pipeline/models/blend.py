"""Overlapping answers of windows into one trace, on the device where they are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.maths.windows import Blender
from pipeline.models.native import blend as native
from pipeline.models.native import build
from pipeline.records import Int

CHUNK = 1 << 21  # samples of the trace at once: about 150 MB of temporary memory


def blend(answers: Tensor, windows: Int, n: int, stacking: str, blinding: tuple[int, int]) -> Tensor:
    """The trace float32 (phases, n) of ``answers`` (w, phases, length) to ``windows`` (w, 2), rows (start, samples).

    The same bytes on every device: those of `pipeline.maths.windows.Blender` fed with the windows in their order.
    Raises ValueError on another ``stacking`` than "avg" and "max".
    """
    if answers.device.type != "cpu":
        return by_sample(answers, windows, n, stacking, blinding)
    if not build.available():
        return torch.from_numpy(native.blend(answers.numpy(), windows, n, stacking, blinding))
    blender = Blender(answers.shape[1], n, stacking, blinding)
    for (start, samples), answer in zip(windows.tolist(), answers.numpy(), strict=True):
        blender.add(start, samples, answer)
    return torch.from_numpy(blender.result())


def by_sample(answers: Tensor, windows: Int, n: int, stacking: str, blinding: tuple[int, int]) -> Tensor:
    """See `blend`: every sample looks up the windows that cover it and takes them in their order.

    Nothing is added to by two at once, so that the order is always the same. On the CPU this is the slower way.
    """
    everywhere = np.array([[0, n]], np.int64)
    return blend_in(answers, windows, everywhere, stacking, blinding)


def blend_in(answers: Tensor, windows: Int, spans: Int, stacking: str, blinding: tuple[int, int]) -> Tensor:
    """The same as `blend`, of the samples in ``spans`` only: float32 (phases, m), one span after the other.

    ``spans`` int64 (k, 2) are half-open, ascending and disjoint; m samples in all.
    """
    if stacking not in ("avg", "max"):
        raise ValueError(f"stacking {stacking!r}, expected 'avg' or 'max'")
    total = torch.zeros((answers.shape[1], int((spans[:, 1] - spans[:, 0]).sum())), device=answers.device)
    seen = torch.zeros(total.shape, dtype=torch.int16, device=answers.device)
    begin = 0
    for stop in [*(np.flatnonzero(np.diff(windows[:, 0]) < 0) + 1).tolist(), len(windows)]:
        if stop > begin:  # windows in order of their starts: those that cover a sample are neighbours
            _add(total, seen, spans, answers[begin:stop], windows[begin:stop], (stacking, *blinding))
        begin = stop
    if stacking == "avg":
        total /= seen  # a count is a small integer: exact in float32, and 0 / 0 is NaN
    return total.masked_fill_(seen == 0, torch.nan)


def _add(total: Tensor, seen: Tensor, spans: Int, answers: Tensor, windows: Int, how: tuple[str, int, int]) -> None:
    """Add answers to windows of ascending starts to ``total`` and ``seen`` (phases, m); ``how``: stacking, blinding."""
    first, last = how[1], answers.shape[2] - how[2]
    if first >= last:
        return
    starts = windows[:, 0]
    follow = np.searchsorted(starts, starts + (last - first)) - np.arange(len(starts))  # windows at each one's start
    table = torch.from_numpy(np.ascontiguousarray(windows.T)).to(total.device)
    stops = np.cumsum(spans[:, 1] - spans[:, 0])  # of each span, in ``total``
    begin, end = (_place(spans, stops, int(at)) for at in (starts[0] + first, starts[-1] + last))
    for at in range(begin, end, CHUNK):
        here = slice(at, min(at + CHUNK, end))
        samples = _samples(spans, stops, here, total.device)
        window = torch.searchsorted(table[0], samples - last, right=True)  # the first that has not ended
        lowest, highest = int(samples[0]), int(samples[-1])
        near = slice(np.searchsorted(starts, lowest - last, "right"), np.searchsorted(starts, highest + 1 - first))
        for _ in range(follow[near].max(initial=0)):
            value, known = _look(answers, table, samples, window, (first, last))
            _stack(total[:, here], seen[:, here], value, known, how[0])
            window = window + 1


def _place(spans: Int, stops: Int, sample: int) -> int:
    """How many samples of the ``spans`` come before ``sample``."""
    k = int(np.searchsorted(spans[:, 1], sample, "right"))
    before = int(stops[k - 1]) if k else 0
    return before + (max(0, sample - int(spans[k, 0])) if k < len(spans) else 0)


def _samples(spans: Int, stops: Int, here: slice, device: torch.device) -> Tensor:
    """Those samples of the ``spans`` that lie at ``here`` when the spans are put one after the other."""
    at = torch.arange(here.start, here.stop, device=device)
    if len(spans) == 1:
        return at + int(spans[0, 0])
    span = torch.searchsorted(torch.from_numpy(stops).to(device), at, right=True)
    return at + torch.from_numpy(spans[:, 1] - stops).to(device)[span]


def _look(
    answers: Tensor, table: Tensor, samples: Tensor, window: Tensor, inside: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Answers (phases, k) of each sample's ``window`` (k,), and where it has one; ``inside``: from, to in a window."""
    count, phases, length = answers.shape
    held = window.clamp(max=count - 1)
    offset = samples - table[0][held]
    known = (window < count) & (offset >= inside[0]) & (offset < table[1][held].clamp(max=inside[1]))
    index = held * (phases * length) + offset.clamp(0, length - 1)
    rows = torch.arange(phases, device=answers.device)[:, None] * length
    value = answers.reshape(-1).take(index + rows)
    return value, known & ~value.isnan()


def _stack(total: Tensor, seen: Tensor, value: Tensor, known: Tensor, stacking: str) -> None:
    if stacking == "avg":
        total += value.masked_fill_(~known, 0)
    else:
        total.copy_(torch.where(known & ((seen == 0) | (value > total)), value, total))
    seen += known
