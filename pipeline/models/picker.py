"""Waveforms in, runs of high probability out: one picker, several side by side, or an ensemble.

The precision "screened" scores every window in 16 bits, and again in FP32 the windows that see a candidate: a run
that would trigger at `SCREEN` of the thresholds. Outside of the candidates there is no pick, and inside them all is
FP32, so that a pick never comes from 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Compute, Pick
from pipeline.errors import ConfigError
from pipeline.models import cuda, generic, runs, weights
from pipeline.models.engine import PHASES, Engine, Loaded, Precision
from pipeline.models.generic import ROWS, Layout, Part, Points
from pipeline.models.kernels import kernels_for
from pipeline.models.networks import Network, SeisBench
from pipeline.records import NS, Int, Runs, Scores, Waveform

SCREEN = 0.7  # of the thresholds
AROUND = 150  # samples on both sides of a candidate that are FP32 too


@dataclass(frozen=True, slots=True)
class Traced:
    """Probabilities (phases, n) on a device, and after screening its candidates.

    ``spans`` int64 (k, 2) are the candidates, half-open, ascending, and ``refined`` (phases, m) their probabilities
    in FP32, one candidate after the other; None: all is in the precision asked for.
    """

    trace: Tensor
    spans: Int | None = None
    refined: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Picker:
    """One trace of probabilities: of one engine, or of several, by their mean or their maximum."""

    name: str
    engines: tuple[Engine, ...]
    thresholds: tuple[float, ...]  # one a phase of `PHASES`
    combine: str = "mean"

    @classmethod
    def of(cls, pick: Pick, compute: Compute) -> Self:
        """The main picker of a configuration. Raises ConfigError."""
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
        return _scores(self.traced(load(self.engines, waveform)), waveform)

    def scores_in(self, waveform: Waveform, first: int, stop: int) -> Scores:
        """The `scores` of samples ``first`` to ``stop`` (exclusive) alone, in FP32.

        They are of the windows that ``waveform`` as a whole has, but only those that see the samples are evaluated.
        """
        spans = np.array([[first, stop]], np.int64)
        pairs = zip(self.engines, load(self.engines, waveform), strict=True)
        trace = self._combined([engine.refined(part, spans) for engine, part in pairs])
        start_ns = waveform.start_ns + round(first * NS / waveform.rate_hz)
        return Scores(trace.cpu().numpy(), PHASES, start_ns, waveform.rate_hz)

    def runs(self, waveform: Waveform) -> Runs:
        """Where the probabilities reach the thresholds. Raises ConfigError as `scores`."""
        return self._runs(self.traced(load(self.engines, waveform)), waveform)

    def _runs(self, traced: Traced, waveform: Waveform) -> Runs:
        if traced.spans is None or traced.refined is None:
            columns = runs.find(traced.trace, self.thresholds)
        else:
            columns = runs.find_in(traced.refined, traced.spans, self.thresholds)
        return Runs(*columns, PHASES, len(waveform), waveform.start_ns, waveform.rate_hz)

    def traced(self, loaded: Sequence[Loaded]) -> Traced:
        """The trace of a waveform that is on the device, ``loaded`` for each engine."""
        if self.engines[0].precision == "screened":
            return self._screened(loaded)
        pairs = zip(self.engines, loaded, strict=True)
        return Traced(self._combined([e.trace(part, e.answers(part, e.precision)) for e, part in pairs]))

    def _screened(self, loaded: Sequence[Loaded]) -> Traced:
        """The trace in 16 bits, and its candidates in FP32."""
        pairs = list(zip(self.engines, loaded, strict=True))
        rough = self._combined([e.trace(part, e.answers(part, e.screen_precision)) for e, part in pairs])
        spans = runs.candidates(rough, [SCREEN * threshold for threshold in self.thresholds], AROUND)
        return Traced(rough, spans, self._combined([engine.refined(part, spans) for engine, part in pairs]))

    def _combined(self, traces: Sequence[Tensor]) -> Tensor:
        """One trace of the engines' traces; NaN where one of them did not see."""
        if len(traces) == 1:
            return traces[0]
        together = torch.add if self.combine == "mean" else torch.maximum
        total = reduce(together, traces)  # one after the other: always the same order
        return total / len(traces) if self.combine == "mean" else total


@dataclass(frozen=True, slots=True)
class Held:
    """A waveform, and what the engines of all pickers have of it on their device."""

    waveform: Waveform
    loaded: tuple[Loaded, ...]


@dataclass(frozen=True, slots=True)
class Pickers:
    """The pickers of a run, the main one first, or their ensemble: one waveform on the device for all of them."""

    pickers: tuple[Picker, ...]

    @classmethod
    def of(cls, pick: Pick, compute: Compute) -> Self:
        """The pickers of a configuration. Raises ConfigError."""
        return cls.from_models([weights.load(each.weight) for each in pick.pickers], pick, compute)

    @classmethod
    def from_models(cls, models: Sequence[Any], pick: Pick, compute: Compute | None = None) -> Self:
        """Pickers of SeisBench WaveformModels, one for each of ``pick.pickers``. Raises ConfigError."""
        pairs = zip(models, pick.pickers, strict=True)
        pickers = tuple(Picker.from_model(model, each, compute) for model, each in pairs)
        _require_one_rate(pickers)
        if pick.ensemble:
            engines = tuple(picker.engines[0] for picker in pickers)
            name = f"{pick.ensemble} of {', '.join(picker.name for picker in pickers)}"
            pickers = (Picker(name, engines, pickers[0].thresholds, pick.ensemble),)
        return cls(pickers)

    @property
    def names(self) -> tuple[str, ...]:
        """The weight of each, or what an ensemble is made of."""
        return tuple(picker.name for picker in self.pickers)

    @property
    def rate_hz(self) -> float:
        return self.pickers[0].rate_hz

    @property
    def context_s(self) -> float:
        """What a shard must read beyond each midnight, s."""
        return max(picker.context_s for picker in self.pickers)

    def load(self, waveform: Waveform) -> Held:
        """``waveform`` on the device, or on its way there while the one before is scored. Raises as `Picker.scores`."""
        return Held(waveform, load([engine for picker in self.pickers for engine in picker.engines], waveform))

    def runs(self, waveform: Waveform) -> tuple[Runs, ...]:
        """Of each picker where its probabilities reach its thresholds. Raises ConfigError as `Picker.scores`."""
        return self.runs_of(self.load(waveform))

    def runs_of(self, held: Held) -> tuple[Runs, ...]:
        """`runs` of what is on the device."""
        return tuple(picker._runs(traced, held.waveform) for picker, traced in self._traced(held))

    def scores(self, waveform: Waveform) -> tuple[Scores, ...]:
        """The probabilities of each picker, see `Picker.scores`."""
        return self.both(waveform)[1]

    def both(self, waveform: Waveform) -> tuple[tuple[Runs, ...], tuple[Scores, ...]]:
        """`runs` and `scores` of one evaluation."""
        return self.both_of(self.load(waveform))

    def both_of(self, held: Held) -> tuple[tuple[Runs, ...], tuple[Scores, ...]]:
        """`both` of what is on the device."""
        found = [(p._runs(traced, held.waveform), _scores(traced, held.waveform)) for p, traced in self._traced(held)]
        return tuple(first for first, _ in found), tuple(second for _, second in found)

    def _traced(self, held: Held) -> Iterator[tuple[Picker, Traced]]:
        loaded = iter(held.loaded)
        for picker in self.pickers:
            yield picker, picker.traced([next(loaded) for _ in picker.engines])


def _require_one_rate(pickers: Sequence[Picker]) -> None:
    first = pickers[0]
    for picker in pickers:
        if picker.rate_hz != first.rate_hz:
            raise ConfigError(
                f"pick.also: {picker.name} takes {picker.rate_hz:g} Hz and {first.name} {first.rate_hz:g} Hz, but the "
                "pickers of a run share one waveform: pick with one of them in a run of its own"
            )


def load(engines: Sequence[Engine], waveform: Waveform) -> tuple[Loaded, ...]:
    """``waveform`` on the device for each engine, once for all that want the same filter, or none."""
    samples = {engine.filter: engine for engine in engines}
    held = {wanted: engine.upload(waveform) for wanted, engine in samples.items()}
    return tuple(engine.planned(waveform, held[engine.filter]) for engine in engines)


def _scores(traced: Traced, waveform: Waveform) -> Scores:
    probability = traced.trace.cpu().numpy()
    if traced.spans is not None and traced.refined is not None:
        probability[:, runs.places(traced.spans)] = traced.refined.cpu().numpy()
    return Scores(probability, PHASES, waveform.start_ns, waveform.rate_hz)


def engine_of(model: Any, pick: Pick, compute: Compute) -> Engine:
    """The engine of a SeisBench WaveformModel; what ``pick`` leaves open is the model's own default.

    Raises ConfigError if the model is not one that this pipeline can run as SeisBench does.
    """
    generic.require_supported(model, pick.weight)
    layout = generic.layout_of(model, pick)
    device = device_of(compute.device)
    network = _network(model, device, compute, layout)
    precision: Precision = pick.precision
    if precision != "screened" and precision not in network.precisions:
        raise ConfigError(
            f"pick.precision {precision!r}: {type(network).__name__} of {pick.weight} offers "
            f"{', '.join(network.precisions)} on this machine"
        )
    engine = Engine(
        network=network,
        device=device,
        precision=precision,
        rate_hz=float(model.sampling_rate),
        length=layout.length,
        overlap=layout.overlap,
        blinding=layout.blinding,
        stacking=layout.stacking,
        grid=layout.grid,
        filter=generic.filter_of(model),
    )
    if precision == "screened":
        _ = engine.screen_precision  # raises ConfigError now, not at the first waveform
    return engine


def _network(model: Any, device: torch.device, compute: Compute, layout: Layout) -> Network:
    """The way in which ``model`` is evaluated."""
    rows = tuple(ROWS[component] for component in model.component_order)
    columns = tuple(list(model.labels).index(phase) for phase in PHASES)
    model = model.to(device).eval()
    if model.output_type == "point":
        return Points(model, device, rows, columns, layout.grid, compute.threads)
    own = device.type == "cpu" and compute.engine != "seisbench"
    must = compute.engine == "kernels"
    kernels = kernels_for(model, rows, columns, compute.threads, layout.blinding, must) if own else None
    if kernels is not None:
        return kernels
    network: Network = SeisBench(model, device, rows, columns, compute.threads)
    if device.type == "cuda" and compute.engine != "seisbench":
        network = cuda.Chunked(model, device, rows, columns)
    first, last = model.pred_sample
    return network if last - first == model.in_samples else Part(network, first, last, layout.length)


def device_of(name: str) -> torch.device:
    """The device with plain FP32 arithmetic and deterministic algorithms."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"compute.device is {name!r}, but torch sees no GPU here: take 'cpu', or a node with a GPU")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(1)  # threads are ours: see `compute.threads`
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    return torch.device(name)
