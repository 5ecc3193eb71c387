"""The layers of PhaseNO: neural operators along time (Fourier) and between stations (graph).

Sun, Ross, Zhu and Azizzadenesheli (2023), Geophys. Res. Lett. 50, e2023GL106434. Names and shapes of the parameters
are those of the published checkpoint; the code is our own. Traces are (stations, channels, samples).

The published graph layer evaluates on each edge j -> i, with places p,

    message = W2 gelu(W1 [x_i, p_j, x_j, p_i] + b1) + b2,    y_i = V2 gelu(V1 [mean of messages, x_i] + c1) + c2

(the places of the two ends are exchanged: so the authors' program has it, and so it must be run). W1 is linear: what it
makes of (x_i, p_i) and of (p_j, x_j) is computed once a station and added on the edges. W2 is linear: it is applied
to the mean over the edges. What is left to the edges is an addition, the GELU and the sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import ConfigError

PLACE = 2  # coordinates of a station
BLOCK = {"cpu": 1 << 18, "cuda": 1 << 25}  # values on edges at a time: what a core's cache holds, what fills a GPU


@dataclass(frozen=True, slots=True)
class Graph:
    """Who hears whom: ``sources`` int64 (e,), of which those of target i are ``bounds[i]`` to ``bounds[i + 1]``."""

    sources: Tensor
    bounds: tuple[int, ...]

    @classmethod
    def of(cls, edges: Tensor, stations: int) -> Self:
        """The graph of ``edges`` int64 (2, e), rows (source, target), in any order, between so many stations.

        Sources are sorted within each target: no sum depends on the order of edges. Raises ConfigError.
        """
        if edges.ndim != 2 or edges.shape[0] != 2 or edges.dtype != torch.int64:
            raise ConfigError(f"edges are {edges.dtype} {tuple(edges.shape)}, expected int64 (2, e): source, target")
        low, high = (int(edges.min()), int(edges.max())) if edges.numel() else (0, -1)
        if low < 0 or high >= stations:
            raise ConfigError(f"edges name stations {low} to {high}, but there are {stations}: count from 0")
        key = torch.sort(edges[1] * stations + edges[0]).values
        counts = torch.bincount(edges[1].cpu(), minlength=stations)
        return cls(key % max(stations, 1), (0, *counts.cumsum(0).tolist()))

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Each target that hears somebody, with its sources int64 (k,)."""
        for target, (first, stop) in enumerate(pairwise(self.bounds)):
            if stop > first:
                yield target, self.sources[first:stop]

    def hears(self, like: Tensor) -> Tensor:
        """(stations, 1, 1): 1 where a station hears somebody, else 0; type and device of ``like``."""
        bounds = torch.tensor(self.bounds)
        return (bounds[1:] > bounds[:-1]).to(like).reshape(-1, 1, 1)


class _MeanGelu(torch.autograd.Function):
    """Mean over the edges j -> i of gelu(here_i + there_j); ``here``, ``there`` and the answer are (stations, m).

    Of the values on edges at most a block exists at a time; the way back computes them again. Each sum is over the
    sources of one target, in order, without atomic additions: the same bits each time, on CPUs and GPUs.
    """

    @staticmethod
    def forward(ctx: Any, here: Tensor, there: Tensor, graph: Graph) -> Tensor:
        ctx.save_for_backward(here, there)
        ctx.graph = graph
        mean = torch.zeros_like(here)
        for target, sources, part in _blocks(graph, here):
            values = there[:, part].index_select(0, sources).add_(here[target, part])
            mean[target, part] = functional.gelu(values).mean(0)
        return mean

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None]:
        here, there = ctx.saved_tensors
        d_here, d_there = torch.zeros_like(here), torch.zeros_like(there)
        for target, sources, part in _blocks(ctx.graph, here):
            values = there[:, part].index_select(0, sources).add_(here[target, part])
            shared = (slope[target, part] / len(sources)).expand_as(values)
            change = torch.ops.aten.gelu_backward(shared, values)
            d_here[target, part] = change.sum(0)
            d_there[:, part].index_add_(0, sources, change)  # an edge given twice adds equal values: no order matters
        return d_here, d_there, None


def _blocks(graph: Graph, values: Tensor) -> Iterator[tuple[int, Tensor, slice]]:
    """(target, its sources, columns) so that few enough values (stations, m) are on edges; columns change last."""
    budget, m = BLOCK.get(values.device.type, BLOCK["cpu"]), values.shape[1]
    for target, sources in graph:
        width = max(budget // len(sources), 1)
        for first in range(0, m, width):
            yield target, sources, slice(first, min(first + width, m))


class Messages(nn.Module):
    """What each station hears: the mean of fc2(gelu(fc1(both ends))) over its edges, factorised.

    The linear layers are called, with inputs of stations: whatever an adapter puts beside them must be linear in its
    input, too (a LoRA is), or else a changed layer is not the published equation any more.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2 * channels + 2 * PLACE, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor, places: Tensor, graph: Graph) -> Tensor:
        """(stations, channels, samples) to the same shape; ``places`` (stations, 2). Who hears nobody hears 0."""
        rows = x.transpose(1, 2)
        place = places[:, None].expand(-1, rows.shape[1], -1).to(rows.dtype)
        blank, nowhere = torch.zeros_like(rows), torch.zeros_like(place)
        here = self.fc1(torch.cat([rows, nowhere, blank, place], 2))
        there = self.fc1(torch.cat([blank, place, rows, nowhere], 2))
        there = there - self.fc1(rows.new_zeros(self.fc1.in_features))  # once is enough of the bias
        mean: Tensor = _MeanGelu.apply(here.flatten(1), there.flatten(1), graph)  # type: ignore[no-untyped-call]
        heard: Tensor = self.fc2(mean.view_as(here)) * graph.hears(mean)
        return heard.transpose(1, 2)


class Update(nn.Module):
    """What a station makes of what it hears and of itself: fc2(gelu(fc1)), sample by sample."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2 * channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(stations, 2 channels, samples) to (stations, channels, samples).

        Contiguous, here and at the other linear layers: of anything else torch computes products in one way where the
        weights are trained and in another where they are frozen, and the last bits differ.
        """
        y: Tensor = self.fc2(functional.gelu(self.fc1(x.transpose(1, 2).contiguous())))
        return y.transpose(1, 2)


class GraphLayer(nn.Module):
    """What each station makes of its neighbours and itself: the equation at the head of this file."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.edge, self.aggre = Messages(channels), Update(channels)

    def forward(self, x: Tensor, places: Tensor, graph: Graph) -> Tensor:
        """(stations, channels, samples) to the same shape; ``places`` (stations, 2)."""
        return self.aggre(torch.cat([self.edge(x, places, graph), x], 1))  # type: ignore[no-any-return]


class SpectralLayer(nn.Module):
    """The lowest ``modes`` frequencies, mixed between channels by complex weights; answers ``samples`` samples."""

    def __init__(self, inputs: int, outputs: int, samples: int, modes: int) -> None:
        super().__init__()
        self.samples, self.modes = samples, modes
        scale = 1 / (inputs * outputs)
        self.weights1 = nn.Parameter(scale * torch.rand(inputs, outputs, modes, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, any) to (n, outputs, samples), float32 or float64."""
        known = x if x.dtype == torch.float64 else x.float()  # no transform in 16 bits
        spectrum = torch.fft.rfft(known, norm="forward")[..., : self.modes]
        mixed = torch.einsum("nim,iom->nom", spectrum, self.weights1.to(spectrum.dtype))
        back: Tensor = torch.fft.irfft(mixed, n=self.samples, norm="forward")  # higher frequencies are 0
        return back


class PointLayer(nn.Module):
    """A linear map between channels, sample by sample, stretched to ``samples`` samples."""

    def __init__(self, inputs: int, outputs: int, samples: int) -> None:
        super().__init__()
        self.samples = samples
        self.conv = nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, any) to (n, outputs, samples). Both steps are linear: the one that makes less comes first."""
        if x.shape[-1] > self.samples:
            return self.conv(stretched(x, self.samples))  # type: ignore[no-any-return]
        return stretched(self.conv(x), self.samples)


class FourierLayer(nn.Module):
    """Spectral and pointwise map added, normalised a trace and channel, and GELU if ``bent``."""

    def __init__(self, inputs: int, outputs: int, samples: int, modes: int, bent: bool = True) -> None:
        super().__init__()
        self.conv = SpectralLayer(inputs, outputs, samples, modes)
        self.w = PointLayer(inputs, outputs, samples)
        self.normalize_layer = nn.InstanceNorm1d(outputs, affine=True)
        self.bent = bent

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, any) to (n, outputs, samples)."""
        y = self.normalize_layer(self.conv(x) + self.w(x))
        return functional.gelu(y) if self.bent else y


def stretched(x: Tensor, samples: int) -> Tensor:
    """``x`` (..., n) by straight lines to ``samples`` samples, first on first and last on last.

    As `torch.nn.functional.interpolate` with align_corners, to the bit of its indices; its way back on a GPU adds in
    any order, that of `index_select` in one order if `torch.use_deterministic_algorithms` asks for it.
    """
    n = x.shape[-1]
    if n == samples:
        return x
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    step = torch.tensor((n - 1) / (samples - 1), dtype=exact, device=x.device)
    at = torch.arange(samples, dtype=exact, device=x.device) * step
    low = at.long().clamp(max=n - 1)
    part = (at - low).to(x.dtype)
    high = (low + 1).clamp(max=n - 1)
    return x.index_select(-1, low) * (1 - part) + x.index_select(-1, high) * part
