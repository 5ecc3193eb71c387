"""Any SeisBench WaveformModel that labels P and S: what it must be like, and how its answers become windows' answers.

Most models answer for each sample of their window. A model may also answer for a part of it (`Part`), or for one
sample only ("point", for example GPD), and is then moved along in small steps (`Points`).
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.config import Pick
from pipeline.errors import ConfigError
from pipeline.maths import filters
from pipeline.models.engine import PHASES
from pipeline.models.networks import Network, evaluate
from pipeline.records import Int

ROWS = {"Z": 0, "N": 1, "E": 2, "1": 1, "2": 2}  # component -> row of Waveform.samples
POINTS = 256  # windows of a "point" model in one block; always as many
MACHINERY = ("annotate", "annotate_async", "annotate_stream_pre", "annotate_stream_validate", "_get_in_pred_samples")


@dataclass(frozen=True, slots=True)
class Part:
    """A network that answers for the samples [first, last) of its windows of ``length``; NaN for the others."""

    inner: Network
    first: int
    last: int
    length: int

    @property
    def precisions(self) -> tuple[str, ...]:
        return self.inner.precisions

    @property
    def by_group(self) -> bool:
        return self.inner.by_group

    def answers(self, samples: Tensor, windows: Int, precision: str) -> Tensor:
        """See `Network`."""
        answers = self.inner.answers(samples, windows, precision)
        if answers.shape[2] != self.last - self.first:
            raise ConfigError(f"the model gives {answers.shape[2]} values for {self.last - self.first} samples")
        return torch.nn.functional.pad(answers, (self.first, self.length - self.last), value=torch.nan)


@dataclass(frozen=True, slots=True)
class Points:
    """A SeisBench model with one answer a window, at its ``pred_sample``, as a network over longer windows.

    A window of this network is `POINTS` windows of the model, ``stride`` samples apart, and its answer the straight
    lines between theirs; NaN before the first and after the last.
    """

    model: Any
    device: torch.device
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    stride: int
    threads: int = 1
    by_group: bool = True

    @property
    def length(self) -> int:
        return points_length(self.model, self.stride)

    @property
    def precisions(self) -> tuple[str, ...]:
        return ("fp32", "bf16", "fp16")

    def answers(self, samples: Tensor, windows: Int, precision: str) -> Tensor:
        """See `Network`. One thread a window: torch's own threads would change the last bits."""
        torch.set_num_threads(1)
        at = int(self.model.pred_sample)
        out = torch.full((len(windows), len(self.columns), self.length), torch.nan, device=self.device)

        def fill(number: int) -> None:
            start, size = windows[number].tolist()
            found = line(self._points(samples[list(self.rows), start : start + size], precision), self.stride)
            out[number, :, at : at + found.shape[1]] = found

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(fill, range(len(windows))))
        return out

    def _points(self, data: Tensor, precision: str) -> Tensor:
        """Answers (phases, k) to the windows in ``data`` (components, size); to one with zeros behind if none fits."""
        inside = int(self.model.in_samples)
        if data.shape[1] < inside:
            data = data - data.mean(dim=1, keepdim=True)
            data = torch.nn.functional.pad(data, (0, inside - data.shape[1]))
        some = data.unfold(1, inside, self.stride).transpose(0, 1)
        batch = torch.zeros((POINTS, *some.shape[1:]), device=self.device)
        batch[: len(some)] = some
        return evaluate(self.model, batch, precision)[: len(some), list(self.columns)].T


def points_length(model: Any, stride: int) -> int:
    """Samples of a window of `Points`."""
    return int(model.in_samples) + (POINTS - 1) * stride


def line(values: Tensor, stride: int) -> Tensor:
    """``values`` (p, k), ``stride`` samples apart, and straight lines between them: (p, (k - 1) * stride + 1).

    Whatever the rounding, a line stays below the higher of its ends and not below the lower: maxima are at points.
    """
    left, right = values[:, :-1, None], values[:, 1:, None]
    low, high = torch.minimum(left, right), torch.maximum(left, right)
    share = torch.arange(1, stride, device=values.device) / stride
    below = torch.nextafter(high, torch.full_like(high, -torch.inf))
    between = torch.where(low == high, low, (left + (right - left) * share).maximum(low).minimum(below))
    steps = torch.cat([left, between], dim=2).flatten(1)
    return torch.cat([steps, values[:, -1:]], dim=1)


@dataclass(frozen=True, slots=True)
class Layout:
    """How windows lie and are put together; see `Engine` for the fields."""

    length: int
    overlap: int
    blinding: tuple[int, int]
    stacking: str
    grid: int = 1


def layout_of(model: Any, pick: Pick) -> Layout:
    """The windows of ``model``, as ``pick`` or else the model wants them. Raises ConfigError on what cannot be."""
    default = {**{key: value for key, (_, value) in model._annotate_args.items()}, **model.default_args}
    length, overlap = int(model.in_samples), pick.overlap_samples
    stacking = pick.stacking or str(default["stacking"])
    if model.output_type == "point":  # SeisBench speaks of the stride instead of the overlap
        stride = int(default["stride"]) if overlap is None else length - overlap
        if not 0 < stride <= length or pick.blinding_samples not in (None, (0, 0)):
            raise ConfigError(
                f"pick.overlap_samples {overlap}, pick.blinding_samples {pick.blinding_samples}: {pick.weight} answers "
                f"for one sample of {length}: its windows overlap by 0 to {length - 1}, and none of it can be blind"
            )
        return Layout(points_length(model, stride), length, (0, 0), stacking, stride)
    if overlap is None:  # SeisBench: below 1 a share of the window
        overlap = int(default["overlap"] * (length if default["overlap"] < 1 else 1))
    before, after = pick.blinding_samples or default.get("blinding", (0, 0))
    first, last = model.pred_sample
    if not 0 <= overlap < length or min(before, after) < 0 or length - (last - first) + before + after > overlap:
        raise ConfigError(
            f"pick.overlap_samples {overlap} with pick.blinding_samples [{before}, {after}]: windows of {length} "
            f"samples ({pick.weight}) must overlap by less than that, and by no less than both blindings together"
        )
    return Layout(length, overlap, (int(first + before), int(length - last + after)), stacking)


def filter_of(model: Any) -> filters.Filter | None:
    """The filter that ``model`` wants, as ObsPy's `Stream.filter` takes it. Raises ValueError on one we do not have."""
    args, kwargs = model.filter_args, model.filter_kwargs
    if args is None and kwargs is None:
        return None
    if isinstance(args, Mapping):
        raise ValueError(f"it wants a filter for each channel {dict(args)}")
    options = {**({"type": args[0]} if args else {}), **(kwargs or {})}
    kind = str(options.pop("type", ""))
    if kind not in filters.KINDS or len(args or ()) > 1:
        raise ValueError(f"it wants a filter {args or kind}, not among {', '.join(filters.KINDS)}")
    names = ("freqmin", "freqmax") if kind.startswith("band") else ("freq",)
    corners = tuple(float(options.pop(name)) for name in names if name in options)
    order, zerophase = int(options.pop("corners", 4)), bool(options.pop("zerophase", False))
    if options or len(corners) != len(names):
        raise ValueError(f"it wants a filter {args} {kwargs}: expected {', '.join(names)}, corners, zerophase")
    wanted = filters.Filter(kind, corners, order, zerophase)
    wanted.block_s(float(model.sampling_rate or 1))  # raises ValueError
    return wanted


def require_supported(model: Any, name: str) -> None:
    """Raises ConfigError on what `Picker` does not do as SeisBench does: better no picks than other picks."""
    found = [text for text, wrong in _problems(model).items() if wrong]
    if not found:
        try:
            filter_of(model)
        except ValueError as e:
            found = [str(e)]
    if found:
        raise ConfigError(f"weight {name} cannot be used: {'; '.join(found)}")


def _problems(model: Any) -> dict[str, bool]:
    from seisbench.models import WaveformModel

    if not isinstance(model, WaveformModel):
        return {f"{type(model).__name__} is not a SeisBench WaveformModel": True}
    labels = list(model.labels) if isinstance(model.labels, str | list | tuple) else []
    order, samples = model.component_order, model.in_samples or 0
    own = [method for method in MACHINERY if getattr(type(model), method) is not getattr(WaveformModel, method)]
    return {
        f"its output is {model.output_type!r}, not 'array' or 'point'": model.output_type not in ("array", "point"),
        f"its components are {order!r}, not among Z N E 1 2": not order or not set(order) <= set(ROWS),
        f"its labels {labels} lack P or S": not set(PHASES) <= set(labels),
        f"it groups by {model._grouping.grouping!r}, not one station": model._grouping.grouping != "instrument",
        f"it has ways of its own: {', '.join(own)}": bool(own),
        f"it predicts samples {model.pred_sample} of {samples}": not _inside(model.pred_sample, samples),
        f"its sampling rate is {model.sampling_rate}": not model.sampling_rate,
    }


def _inside(predicted: Any, samples: int) -> bool:
    """Is this a sample, or are these samples, of a window?"""
    if isinstance(predicted, int):
        return 0 <= predicted < samples
    return isinstance(predicted, list | tuple) and 0 <= predicted[0] < predicted[1] <= samples
