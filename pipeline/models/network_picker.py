"""What a network recorded in, each station's runs of high probability out: PhaseNO as a picker.

Windows begin at multiples of their step since 1970, so that the same samples lie in the same windows whatever part of
the record was read; a window is scored on its own, so that no batch decides on the last bits. Blending, thresholds and
runs are those of `pipeline.models.picker`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from pipeline.config import Compute, Pick
from pipeline.errors import ConfigError
from pipeline.maths.windows import Blender
from pipeline.models import phaseno, runs, weights
from pipeline.models.phaseno import FILTER, OVERLAP, PHASES, RATE_HZ, PhaseNO
from pipeline.models.picker import Pickers, device_of
from pipeline.records import NS, NetworkRecord, Runs, Scores

STEP_NS = round(NS / RATE_HZ)  # of the samples of the grid


@dataclass(frozen=True, slots=True)
class NetworkPicker:
    """A PhaseNO with its windows, which overlap by ``overlap`` samples, and a threshold for each of its phases.

    ``blinding`` and ``stacking`` as of `pipeline.models.engine.Engine`.
    """

    name: str
    network: PhaseNO
    thresholds: tuple[float, ...]
    overlap: int
    blinding: tuple[int, int] = (0, 0)
    stacking: str = "avg"

    @classmethod
    def of(cls, pick: Pick, compute: Compute) -> Self:
        """The picker of ``pick.weight``, its adapter merged. Raises ConfigError."""
        network = weights.load(pick.weight)
        if not isinstance(network, PhaseNO):
            raise ConfigError(f"weight {pick.weight}: {type(network).__name__} does not pick on networks")
        return cls.from_network(network, pick, compute)

    @classmethod
    def from_network(cls, network: PhaseNO, pick: Pick, compute: Compute) -> Self:
        """What ``pick`` leaves open is as published: a third of a window is overlap, and the mean is taken."""
        overlap = pick.overlap_samples
        if overlap is None:
            overlap = min(OVERLAP, network.samples // 3)
        blinding = pick.blinding_samples or (0, 0)
        if overlap >= network.samples or overlap < sum(blinding):
            raise ConfigError(
                f"pick.overlap_samples {overlap}, pick.blinding_samples {blinding}: windows of {network.samples} "
                f"samples ({pick.weight}) must overlap by less than that, and by no less than both blindings together"
            )
        thresholds = pick.threshold_p, pick.threshold_s
        network = network.to(device_of(compute.device)).eval()
        return cls(pick.weight, network, thresholds, overlap, blinding, pick.stacking or "avg")

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def rate_hz(self) -> float:
        return RATE_HZ

    @property
    def context_s(self) -> float:
        """What a shard must read beyond its hour for the same bytes half a window beyond it, s."""
        length = self.network.samples
        return (length + length // 2 + 10) / RATE_HZ + FILTER.context_s(RATE_HZ)

    def runs(self, record: NetworkRecord) -> tuple[Runs, ...]:
        """Of each station where its probabilities reach the thresholds. Raises ConfigError on another sampling rate."""
        return tuple(
            Runs(*runs.find(torch.from_numpy(each.probability), self.thresholds), PHASES, n, each.start_ns, RATE_HZ)
            for each, n in zip(self.scores(record), map(len, record.waveforms), strict=True)
        )

    def scores(self, record: NetworkRecord) -> tuple[Scores, ...]:
        """Of each station the probabilities (2, n) of P and S on the time axis of its waveform; NaN in its gaps.

        Raises ConfigError on another sampling rate than `RATE_HZ`.
        """
        if not len(record):
            return ()
        length, step = self.network.samples, self.network.samples - self.overlap
        earliest = min(wave.start_ns for wave in record.waveforms) // STEP_NS  # samples since 1970
        origin = ((earliest - length) // step + 1) * step  # the first window that sees it
        traces, valid, firsts = phaseno.together(record.waveforms, origin * STEP_NS)
        places = phaseno.places(record.latitude_deg, record.longitude_deg, record.center_deg)
        blender = Blender(2 * len(record), valid.shape[1], self.stacking, self.blinding)
        for start in range(0, valid.shape[1], step):
            here = slice(start, start + length)
            if valid[:, here].any():
                seen = phaseno.substituted(traces, record.waveforms, firsts, here)
                answer = phaseno.answer_to(self.network, seen, valid[:, here], places, record.range_km)
                blender.add(start, min(length, valid.shape[1] - start), answer.reshape(2 * len(record), -1))
        found = blender.result().reshape(len(record), 2, -1)
        triples = zip(found, record.waveforms, firsts, strict=True)
        return tuple(
            Scores(trace[:, at : at + len(wave)], PHASES, wave.start_ns, wave.rate_hz) for trace, wave, at in triples
        )


def require(pick: Pick, compute: Compute) -> None:
    """Raises ConfigError if a picker of ``pick``, of stations or of networks, cannot be had."""
    if pick.of_stations:
        Pickers.of(pick.of_stations, compute)
    for each in pick.of_networks:
        NetworkPicker.of(each, compute)
