"""The reference of every precision: SeisBench's own `annotate` and picks, in FP32 on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.config import Pick
from pipeline.models import weights
from pipeline.models.engine import PHASES
from pipeline.records import NS, Picks, Scores, Waveform


@dataclass(frozen=True, slots=True)
class Reference:
    """A SeisBench WaveformModel and the arguments of its calls: what the configuration leaves open, it decides."""

    model: Any
    arguments: dict[str, Any]

    @classmethod
    def of(cls, pick: Pick) -> Self:
        """Raises ConfigError if the weight is not there."""
        return cls.from_model(weights.load(pick.weight), pick)

    @classmethod
    def from_model(cls, model: Any, pick: Pick) -> Self:
        given = {
            "overlap": pick.overlap_samples,
            "blinding": pick.blinding_samples,
            "stacking": pick.stacking,
            "P_threshold": pick.threshold_p,
            "S_threshold": pick.threshold_s,
        }
        if model.output_type == "point" and pick.overlap_samples is not None:
            given = {**given, "overlap": None, "stride": int(model.in_samples) - pick.overlap_samples}
        return cls(model.cpu().float().eval(), {key: value for key, value in given.items() if value is not None})

    def look(self, stream: Any, wave: Waveform, channel: str, threads: int = 1) -> tuple[Picks, Scores]:
        """Picks and probability traces of an ObsPy ``stream``, the traces on the time axis of ``wave``.

        The two halves of SeisBench's `classify`, so that its network runs once.
        """
        import torch

        torch.set_num_threads(threads)
        annotations = self.model.annotate(stream, **self.arguments)
        found = self.model.classify_aggregate(annotations, {**self.model.default_args, **self.arguments}).picks
        return _picks([pick for pick in found if pick.phase in PHASES], channel), _scores(annotations, wave)


def _picks(found: list[Any], channel: str) -> Picks:
    """SeisBench's picks as a table; what it does not measure is NaN."""
    unknown = np.full(len(found), np.nan, np.float32)
    return Picks(
        np.full(len(found), channel, np.str_(channel).dtype),
        np.array([pick.phase for pick in found], np.str_),
        np.array([pick.peak_time.ns for pick in found], np.int64),
        np.clip(np.array([pick.peak_value for pick in found], np.float32), 0, 1),
        *(unknown, unknown, unknown, unknown),
    ).ordered()


def _scores(annotations: Any, wave: Waveform) -> Scores:
    """The traces of P and S put on the time axis of ``wave``, each sample at the nearest; NaN between slower ones."""
    probability = np.full((len(PHASES), len(wave)), np.nan, np.float32)
    for trace in annotations:
        phase = trace.stats.channel.rpartition("_")[2]
        if phase in PHASES:
            first = round((trace.stats.starttime.ns - wave.start_ns) * wave.rate_hz / NS)
            steps = np.arange(len(trace.data)) * (wave.rate_hz / trace.stats.sampling_rate)
            at = first + np.rint(steps).astype(np.int64)
            inside = (at >= 0) & (at < len(wave))
            probability[PHASES.index(phase), at[inside]] = trace.data[inside]
    return Scores(probability, PHASES, wave.start_ns, wave.rate_hz)
