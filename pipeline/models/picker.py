"""Waveforms in, runs of high probability out: one picker, several side by side, or an ensemble.

The precision "screened" scores every window in 16 bits, and again in FP32 the windows that see a candidate: a run
that would trigger at `SCREEN` of the thresholds. Outside of the candidates there is no pick, and inside them all is
FP32, so that a pick never comes from 16 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Compute, Pick
from pipeline.errors import ConfigError
from pipeline.models import weights
from pipeline.models.engine import PHASES, Engine, Loaded, Precision
from pipeline.models.networks import Network, SeisBench
from pipeline.models.runs import cut, mask_of, spans
from pipeline.records import Bool, Int, Runs, Scores, Waveform

ROWS = {"Z": 0, "N": 1, "E": 2, "1": 1, "2": 2}  # component -> row of Waveform.samples
SCREEN = 0.6  # of the thresholds
AROUND = 50  # samples on both sides of a candidate that are FP32 too


@dataclass(frozen=True, slots=True)
class Picker:
    """One trace of probabilities: of one engine, or of several, by their mean or their maximum."""

    name: str
    engines: tuple[Engine, ...]
    thresholds: tuple[float, ...]  # one a phase of `PHASES`
    combine: str = "mean"

    @classmethod
    def of(cls, pick: Pick, compute: Compute) -> Self:
        """The picker of a configuration. Raises ConfigError."""
        return cls.from_model(weights.load(pick.weight), pick, compute)

    @classmethod
    def from_model(cls, model: Any, pick: Pick, compute: Compute | None = None) -> Self:
        """A picker of a SeisBench WaveformModel; what ``pick`` leaves open is the model's own default."""
        engine = engine_of(model, pick, compute or Compute())
        return cls(pick.weight, (engine,), (pick.threshold_p, pick.threshold_s))

    @property
    def rate_hz(self) -> float:
        return self.engines[0].rate_hz

    @property
    def context_s(self) -> float:
        """What a shard must read beyond each midnight, s."""
        return max(engine.context_s for engine in self.engines)

    def scores(self, waveform: Waveform) -> Scores:
        """Probabilities (2, n) of P and S on the time axis of ``waveform``; NaN where no window saw.

        A segment shorter than one window is demeaned and followed by zeros. Raises ConfigError on another
        sampling rate than the model's.
        """
        trace, _ = self._trace(self._load(waveform))
        return Scores(trace.cpu().numpy(), PHASES, waveform.start_ns, waveform.rate_hz)

    def runs(self, waveform: Waveform) -> Runs:
        """Where the probabilities reach the thresholds. Raises ConfigError as `scores`."""
        trace, certain = self._trace(self._load(waveform))
        if certain is not None:
            trace = trace.masked_fill(~certain, torch.nan)
        found = [spans(row, threshold) for row, threshold in zip(trace, self.thresholds, strict=True)]
        cuts = [cut(row, span) for row, span in zip(trace, found, strict=True)]
        phase = np.repeat(np.arange(len(found)), [len(span) for span in found])
        first = torch.cat([span[:, 0] for span in found]).cpu().numpy()
        values = torch.cat([part for part, _ in cuts]).cpu().numpy()
        shift = len(cuts[0][0])
        stops = torch.cat([cuts[0][1], *(stop + shift for _, stop in cuts[1:])]).cpu().numpy()
        return Runs(phase, first, stops, values, PHASES, len(waveform), waveform.start_ns, waveform.rate_hz)

    def _load(self, waveform: Waveform) -> tuple[Loaded, ...]:
        return tuple(engine.load(waveform) for engine in self.engines)

    def _trace(self, loaded: Sequence[Loaded]) -> tuple[Tensor, Tensor | None]:
        """The trace (phases, n), and where it is certain, bool (n,); None: everywhere."""
        if self.engines[0].precision == "screened":
            return self._screened(loaded)
        pairs = zip(self.engines, loaded, strict=True)
        return self._combined(loaded, [engine.answers(load, engine.precision) for engine, load in pairs]), None

    def _screened(self, loaded: Sequence[Loaded]) -> tuple[Tensor, Tensor]:
        """The trace, FP32 where it can trigger, and where that is."""
        pairs = list(zip(self.engines, loaded, strict=True))
        answers = [engine.answers(load, engine.screen_precision) for engine, load in pairs]
        rough = self._combined(loaded, answers)
        found = [spans(row, SCREEN * threshold) for row, threshold in zip(rough, self.thresholds, strict=True)]
        candidates = mask_of(torch.cat(found), rough.shape[1], AROUND)
        for (engine, load), answer in zip(pairs, answers, strict=True):
            wanted = sees(load.windows, candidates.cpu().numpy())
            answer[torch.from_numpy(wanted).to(answer.device)] = engine.answers(load, "fp32", wanted)
        return self._combined(loaded, answers), candidates

    def _combined(self, loaded: Sequence[Loaded], answers: Sequence[Tensor]) -> Tensor:
        """One trace of the engines' traces; NaN where one of them did not see."""
        traces = [e.trace(load, answer) for e, load, answer in zip(self.engines, loaded, answers, strict=True)]
        if len(traces) == 1:
            return traces[0]
        stacked = torch.stack(traces)
        return stacked.mean(dim=0) if self.combine == "mean" else stacked.amax(dim=0)


def sees(windows: Int, mask: Bool) -> Bool:
    """Which of ``windows`` (w, 2), rows (start, samples), hold a sample of ``mask`` (n,)."""
    before = np.concatenate([[0], np.cumsum(mask)])
    return np.asarray(before[windows.sum(axis=1)] > before[windows[:, 0]], np.bool_)


def engine_of(model: Any, pick: Pick, compute: Compute) -> Engine:
    """The engine of a SeisBench WaveformModel.

    Raises ConfigError if the model is not one that this pipeline can run as SeisBench does.
    """
    _require_supported(model, pick.weight)
    default = {**{key: value for key, (_, value) in model._annotate_args.items()}, **model.default_args}
    length, overlap = int(model.in_samples), pick.overlap_samples
    if overlap is None:  # SeisBench: below 1 a share of the window
        overlap = int(default["overlap"] * (length if default["overlap"] < 1 else 1))
    before, after = pick.blinding_samples or default.get("blinding", (0, 0))
    if not 0 <= overlap < length or min(before, after) < 0 or before + after > overlap:
        raise ConfigError(
            f"pick.overlap_samples {overlap} with pick.blinding_samples [{before}, {after}]: windows of {length} "
            f"samples ({pick.weight}) must overlap by less than that, and by no less than both blindings together"
        )
    device = device_of(compute.device)
    network = _network(model, device, compute)
    precision: Precision = pick.precision
    if precision != "screened" and precision not in network.precisions:
        raise ConfigError(
            f"pick.precision {precision!r}: {type(network).__name__} of {pick.weight} offers "
            f"{', '.join(network.precisions)} on this machine"
        )
    return Engine(
        network=network,
        device=device,
        precision=precision,
        rate_hz=float(model.sampling_rate),
        length=length,
        overlap=overlap,
        blinding=(int(before), int(after)),
        stacking=pick.stacking or str(default["stacking"]),
    )


def _network(model: Any, device: torch.device, compute: Compute) -> Network:
    rows = tuple(ROWS[component] for component in model.component_order)
    columns = tuple(list(model.labels).index(phase) for phase in PHASES)
    return SeisBench(model.to(device).eval(), device, rows, columns, compute.threads)


def device_of(name: str) -> torch.device:
    """The device with plain FP32 arithmetic and deterministic algorithms."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"compute.device is {name!r}, but torch sees no GPU here: take 'cpu', or a node with a GPU")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    return torch.device(name)


def _require_supported(model: Any, name: str) -> None:
    """Raises ConfigError on what `Picker` does not do as SeisBench does: better no picks than other picks."""
    from seisbench.models import WaveformModel

    labels = list(model.labels) if isinstance(model.labels, str | list | tuple) else []
    order = str(model.component_order)
    problems = {
        f"its output is {model.output_type!r}, not an array over time": model.output_type != "array",
        f"its components are {order!r}, not among Z N E 1 2": not set(order) <= set(ROWS),
        f"its labels {labels} lack P or S": not set(PHASES) <= set(labels),
        f"it wants a filter {model.filter_args}": model.filter_args is not None or model.filter_kwargs is not None,
        "it prepares the stream in a way of its own": type(model).annotate_stream_pre
        is not WaveformModel.annotate_stream_pre,
        f"it predicts samples {model.pred_sample} of {model.in_samples}": model.pred_sample
        not in [(0, model.in_samples), [0, model.in_samples]],
        f"its sampling rate is {model.sampling_rate}": not model.sampling_rate,
    }
    found = [text for text, wrong in problems.items() if wrong]
    if found:
        raise ConfigError(f"weight {name} cannot be used: {'; '.join(found)}")
