"""A waveform in, runs of high probability out: one engine for any network, device and precision.

On the device, windows are cut from the waveform, scored, and their overlaps blended into one trace; from the
traces `pipeline.models.picker` makes runs.

What the precision "screened" does is told there, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.maths import filters, windows
from pipeline.models import runs
from pipeline.models.blend import blend, blend_in
from pipeline.models.cuda import Sent, send
from pipeline.models.networks import Network
from pipeline.records import Bool, Int, Waveform

Precision = Literal["fp32", "bf16", "fp16", "screened"]
PHASES = ("P", "S")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A waveform on the device, or on its way there, and the ``groups`` of windows that see it."""

    sent: Sent
    groups: tuple[Int, ...]
    start_ns: int
    rate_hz: float
    seams: int = 0  # so many groups, the last ones, are seams

    @property
    def samples(self) -> Tensor:
        """float32 (3, n), for work that is asked of the device from now on."""
        return self.sent.samples

    @property
    def n(self) -> int:
        return int(self.sent.there.shape[1])

    @property
    def windows(self) -> Int:
        """All windows (w, 2), rows (start, samples), in the order of the answers."""
        return np.concatenate(self.groups) if self.groups else np.empty((0, 2), np.int64)


@dataclass(frozen=True, slots=True)
class Engine:
    """A network with its windows: of ``length`` samples at ``rate_hz``, overlapping by ``overlap``.

    ``blinding`` samples at a window's start and end are ignored; ``stacking`` is "avg" or "max"; segments shorter
    than ``min_segment`` samples are gap. Windows start at multiples of ``grid`` samples from the start of their
    piece. ``filter`` is what the network wants done to the waveform first.
    """

    network: Network
    device: torch.device
    precision: Precision
    rate_hz: float
    length: int
    overlap: int
    blinding: tuple[int, int]
    stacking: str
    min_segment: int = 1
    phases: tuple[str, ...] = PHASES
    grid: int = 1
    filter: filters.Filter | None = None

    @property
    def context_s(self) -> float:
        """What a shard must read beyond each midnight for exact seams, s: 1.5 windows, and 10 samples of rounding."""
        before_s = self.filter.context_s(self.rate_hz) if self.filter else 0.0
        return (self.length + self.length // 2 + 10) / self.rate_hz + before_s

    def load(self, waveform: Waveform) -> Loaded:
        """``waveform`` on the device. Raises ConfigError on another sampling rate than the model's.

        Does not wait for a GPU: the next waveform may be loaded, from the same thread or another, while this one is
        scored, and is copied meanwhile.
        """
        return self.planned(waveform, self.upload(waveform))

    def upload(self, waveform: Waveform) -> Sent:
        """The samples float32 (3, n), filtered if the network wants that, on the device."""
        if waveform.rate_hz != self.rate_hz:
            raise ConfigError(f"waveform at {waveform.rate_hz} Hz, but the model takes {self.rate_hz} Hz: resample it")
        samples = filters.filtered(waveform, self.filter) if self.filter else waveform.samples
        return send(samples, self.device)

    def planned(self, waveform: Waveform, sent: Sent) -> Loaded:
        """The windows of ``waveform``, whose samples were ``sent`` to the device."""
        midnights = windows.midnights(waveform.start_ns, waveform.rate_hz, len(waveform))
        plan = windows.plan(waveform.valid, self.length, self.overlap, self.min_segment, midnights, self.grid)
        return Loaded(sent, plan.groups, waveform.start_ns, waveform.rate_hz, plan.seams)

    def trace(self, loaded: Loaded, answers: Tensor) -> Tensor:
        """Blended probabilities float32 (phases, n); NaN where no window saw."""
        return blend(answers, loaded.windows, loaded.n, self.stacking, self.blinding)

    def answers(self, loaded: Loaded, precision: str, wanted: Bool | None = None) -> Tensor:
        """Answers (w, phases, length) to all windows, or to those ``wanted`` (w,), in order.

        A group is scored on its own: a seam's windows must be the same batch in both shards. So must those of them
        that are wanted, and the two shards may want others, therefore a seam is scored as a whole.
        """
        if not self.network.by_group:
            chosen = loaded.windows if wanted is None else loaded.windows[wanted]
            return self.network.answers(loaded.samples, chosen, precision)
        parts, begin = [torch.empty((0, len(self.phases), self.length), device=self.device)], 0
        for number, group in enumerate(loaded.groups, loaded.seams - len(loaded.groups)):
            here = np.ones(len(group), np.bool_) if wanted is None else wanted[begin : begin + len(group)]
            begin += len(group)
            if here.all() or (here.any() and number >= 0):
                answers = self.network.answers(loaded.samples, group, precision)
                parts.append(answers if here.all() else answers[torch.from_numpy(here).to(answers.device)])
            elif here.any():
                parts.append(self.network.answers(loaded.samples, group[here], precision))
        return torch.cat(parts) if len(parts) != 2 else parts[1]

    def refined(self, loaded: Loaded, spans: Int) -> Tensor:
        """FP32 probabilities (phases, m) of the samples in ``spans``, see `blend_in`, of the windows that see them."""
        wanted = runs.sees(seeing(loaded.windows, self.length, self.blinding), spans)
        answers = self.answers(loaded, "fp32", wanted)
        return blend_in(answers, loaded.windows[wanted], spans, self.stacking, self.blinding)

    @property
    def screen_precision(self) -> str:
        """What "screened" scores with first. Raises ConfigError if the network has no 16 bits here."""
        for name in ("bf16", "fp16") if self.device.type == "cpu" else ("fp16", "bf16"):
            if name in self.network.precisions:
                return name
        raise ConfigError(
            f"pick.precision 'screened': {type(self.network).__name__} has no 16 bits on {self.device}: take 'fp32'"
        )


def seeing(windows: Int, length: int, blinding: tuple[int, int]) -> Int:
    """The parts of ``windows`` (w, 2), rows (start, samples), that are not blind."""
    first = np.minimum(windows[:, 1], blinding[0])
    last = np.minimum(windows[:, 1], length - blinding[1])
    return np.stack([windows[:, 0] + first, np.maximum(last - first, 0)], axis=1)
