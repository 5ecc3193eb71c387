"""A waveform in, runs of high probability out: one engine for any network, device and precision.

On the device, windows are cut from the waveform, scored, and their overlaps blended into one trace; only the
runs of the trace that trigger come back (`Runs`), or the whole trace if it is asked for (`Scores`). What is done
with the traces is `pipeline.models.picker`.

The precision "screened" scores every window in 16 bits, and again in FP32 the windows that see a candidate: a
run of the trace that would trigger at `SCREEN` of the thresholds. Only FP32 makes picks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.maths import windows
from pipeline.models.blend import blend
from pipeline.models.networks import Network
from pipeline.records import Bool, Int, Waveform

Precision = Literal["fp32", "bf16", "fp16", "screened"]
PHASES = ("P", "S")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A waveform on the device: ``samples`` float32 (3, n), and the ``groups`` of windows that see it."""

    samples: Tensor
    groups: tuple[Int, ...]
    start_ns: int
    rate_hz: float

    @property
    def n(self) -> int:
        return int(self.samples.shape[1])

    @property
    def windows(self) -> Int:
        """All windows (w, 2), rows (start, samples), in the order of the answers."""
        return np.concatenate(self.groups) if self.groups else np.empty((0, 2), np.int64)


@dataclass(frozen=True, slots=True)
class Engine:
    """A network with its windows: of ``length`` samples at ``rate_hz``, overlapping by ``overlap``.

    ``blinding`` samples at a window's start and end are ignored; ``stacking`` is "avg" or "max"; segments shorter
    than ``min_segment`` samples are gap.
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

    @property
    def context_s(self) -> float:
        """What a shard must read beyond each midnight for exact seams, s: 1.5 windows, and 10 samples of rounding."""
        return (self.length + self.length // 2 + 10) / self.rate_hz

    def load(self, waveform: Waveform) -> Loaded:
        """``waveform`` on the device. Raises ConfigError on another sampling rate than the model's."""
        if waveform.rate_hz != self.rate_hz:
            raise ConfigError(f"waveform at {waveform.rate_hz} Hz, but the model takes {self.rate_hz} Hz: resample it")
        midnights = windows.midnights(waveform.start_ns, waveform.rate_hz, len(waveform))
        plan = windows.plan(waveform.valid, self.length, self.overlap, self.min_segment, midnights)
        samples = torch.from_numpy(np.ascontiguousarray(waveform.samples)).to(self.device)
        return Loaded(samples, plan.groups, waveform.start_ns, waveform.rate_hz)

    def trace(self, loaded: Loaded, answers: Tensor) -> Tensor:
        """Blended probabilities float32 (phases, n); NaN where no window saw."""
        return blend(answers, loaded.windows, loaded.n, self.stacking, self.blinding)

    def answers(self, loaded: Loaded, precision: str, wanted: Bool | None = None) -> Tensor:
        """Answers (w, phases, length) to all windows, or to those ``wanted`` (w,), in order.

        A group is scored on its own: a seam's windows must be the same batch in both shards.
        """
        parts, begin = [torch.empty((0, len(self.phases), self.length), device=self.device)], 0
        for group in loaded.groups:
            chosen = group if wanted is None else group[wanted[begin : begin + len(group)]]
            begin += len(group)
            if len(chosen):
                parts.append(self.network.answers(loaded.samples, chosen, precision))
        return torch.cat(parts) if len(parts) != 2 else parts[1]

    @property
    def screen_precision(self) -> str:
        """What "screened" scores with first. Raises ConfigError if the network has no 16 bits here."""
        for name in ("bf16", "fp16") if self.device.type == "cpu" else ("fp16", "bf16"):
            if name in self.network.precisions:
                return name
        raise ConfigError(f"pick.precision 'screened': {self.network} has no 16 bits on this machine: take 'fp32'")
