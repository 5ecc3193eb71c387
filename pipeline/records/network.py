"""The noun between readers and pickers of networks."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.records.table import Float
from pipeline.records.waveforms import Waveform


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    """What the stations of a network recorded in the same time.

    ``latitude_deg`` and ``longitude_deg`` float64 (stations,); ``center_deg`` (latitude, longitude) is the middle of
    the square that the network lies in; stations hear one another up to ``range_km``, None: all.
    """

    waveforms: tuple[Waveform, ...]
    latitude_deg: Float
    longitude_deg: Float
    center_deg: tuple[float, float]
    range_km: float | None

    def __post_init__(self) -> None:
        n, shapes = len(self.waveforms), (self.latitude_deg.shape, self.longitude_deg.shape)
        if shapes != ((n,), (n,)):
            raise ValueError(f"NetworkRecord of {n} waveforms has places of shapes {shapes}, expected ({n},) each")

    def __len__(self) -> int:
        return len(self.waveforms)
