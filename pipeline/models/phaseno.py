"""PhaseNO: P and S on all stations of a network at once (Sun et al. 2023, doi 10.1029/2023GL106434).

A window is 30 s of some stations with their places. The network is a U of Fourier layers, which see one station
each, and graph layers, in which stations hear their neighbours (`pipeline.models.phaseno_layers`); it takes any
number of stations, and several networks as one graph in parts (`join`). What it is fed is what the authors fed it:

- 100 Hz, highpass of 1 Hz, each component less its mean, over its standard deviation, over 10; rows E N Z;
- places: longitude and latitude as parts of the square of 2 x 2 degrees around the network's centre;
- edges both ways between stations up to 30 km apart, and of each station to itself.

docs/decisions/028 says how this was found out, and what of it is peculiar.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import ConfigError
from pipeline.maths.filters import Filter, filtered
from pipeline.maths.geo import east_deg
from pipeline.models.phaseno_layers import FourierLayer, Graph, GraphLayer
from pipeline.records import NS, Bool, Float, Float32, Waveform

RATE_HZ = 100.0
SAMPLES = 3000
OVERLAP = 1000
RANGE_KM = 30.0  # of version 1.0.1; version 1.0.0 took all pairs
SIDE_DEG = 2.0  # of the square that places are parts of
SIDE_KM = 222.0  # the same as the authors count it, in longitude too
EPSILON = 1e-6  # beside the standard deviation: in counts nothing, in m/s much
TENTH = 10.0
SEEN_MORE = 5.0  # weight of samples near an arrival in the loss
PADDING = 50  # samples mirrored at both ends of a window
PHASES = ("P", "S")
OF_TRAINING = {"criterion.pos_weight"}  # kept in the published checkpoint beside the parameters
FILTER = Filter("highpass", (1.0,), 4)


@dataclass(frozen=True, slots=True)
class NetworkWindow:
    """What stations recorded at the same time.

    ``records`` float32 (stations, 3, n), rows Z N E at `RATE_HZ`, filtered or not, in any unit; ``places`` float32
    (stations, 2), see `places`; ``edges`` int64 (2, e), rows (source, target), see `edges`.
    """

    records: Tensor
    places: Tensor
    edges: Tensor

    def __post_init__(self) -> None:
        n, shapes = len(self.records), [tuple(each.shape) for each in (self.records, self.places, self.edges)]
        fits = len(shapes[0]) == 3 and shapes[0][1] == 3 and shapes[1] == (n, 2)
        if not fits or len(shapes[2]) != 2 or shapes[2][0] != 2:
            raise ConfigError(f"a window of shapes {shapes}: expected (stations, 3, n), (stations, 2) and (2, e)")


class PhaseNO(nn.Module):
    """The network; the defaults are those of the published one, of 2,364,914 parameters.

    ``modes`` frequencies at full length (a half and a third of them further down), ``width`` channels, windows of
    ``samples``, and ``lengths`` of the two levels below. Raises ConfigError where these do not go together.
    """

    def __init__(
        self, modes: int = 24, width: int = 48, samples: int = SAMPLES, lengths: tuple[int, int] = (750, 200)
    ) -> None:
        super().__init__()
        half, third, (middle, low) = modes // 2, modes // 3, lengths
        if third < 1 or third > low // 2 + 1 or half > middle // 2 + 1 or samples <= PADDING or width < 1:
            raise ConfigError(
                f"PhaseNO of {modes} modes, width {width}, {samples} samples, lengths {lengths}: give 3 modes or more, "
                f"but not more than its level's samples have, and more than {PADDING} samples"
            )
        self.samples = samples
        full = samples + 2 * PADDING
        self.fc0 = nn.Linear(6, width)
        self.fno0, self.gno0 = FourierLayer(width, width, full, modes), GraphLayer(width)
        self.fno1, self.gno1 = FourierLayer(width, 2 * width, middle, half), GraphLayer(2 * width)
        self.fno2, self.gno3 = FourierLayer(2 * width, 4 * width, low, third), GraphLayer(4 * width)
        self.fno4, self.gno4 = FourierLayer(8 * width, 2 * width, middle, third), GraphLayer(2 * width)
        self.fno5, self.gno5 = FourierLayer(4 * width, width, full, half), GraphLayer(width)
        self.fno6 = FourierLayer(2 * width, width, full, modes)
        self.fno7 = FourierLayer(width, width, full, modes, bent=False)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, 2)

    def forward(self, traces: Tensor, places: Tensor, edges: Tensor) -> Tensor:
        """Logits (stations, 2, samples) of P and S.

        ``traces`` (stations, 3, samples) as `normalised` gives them, ``places`` (stations, 2), ``edges`` int64
        (2, e). Raises ConfigError for windows of another length, and edges between stations that are not there.
        """
        if traces.shape[-1] != self.samples:
            raise ConfigError(f"windows of {traces.shape[-1]} samples, but this PhaseNO takes {self.samples}")
        graph = Graph.of(edges, len(traces))
        x0 = self.fno0(self._lifted(traces, places))
        x1 = self.fno1(self.gno0(x0, places, graph))
        x2 = self.fno2(self.gno1(x1, places, graph))
        x = self.fno4(torch.cat([x2, self.gno3(x2, places, graph)], 1))
        x = self.fno5(torch.cat([x1, self.gno4(x, places, graph)], 1))
        x = self.fno6(torch.cat([x0, self.gno5(x, places, graph)], 1))
        x = self.fno7(x)[..., PADDING:-PADDING].transpose(1, 2).contiguous()
        return self.fc2(functional.gelu(self.fc1(x))).transpose(1, 2)  # type: ignore[no-any-return]

    def _lifted(self, traces: Tensor, places: Tensor) -> Tensor:
        """Traces, places and time of the window (0 to 1), mirrored at the ends, as ``width`` channels."""
        n, _, samples = traces.shape
        time = torch.from_numpy(np.linspace(0, 1, samples)).to(traces).expand(n, 1, -1)
        where = places.to(traces.dtype)[..., None].expand(-1, -1, samples)
        x = functional.pad(torch.cat([traces, where, time], 1), (PADDING, PADDING), mode="reflect")
        return self.fc0(x.transpose(1, 2).contiguous()).transpose(1, 2)  # type: ignore[no-any-return]

    def logits(self, window: NetworkWindow) -> Tensor:
        """Logits (stations, 2, samples) of a window as it was recorded. Raises ConfigError as `forward`."""
        return self(normalised(window.records), window.places, window.edges)  # type: ignore[no-any-return]

    def probabilities(self, window: NetworkWindow) -> Tensor:
        """Probabilities (stations, 2, samples) of P and S. Raises ConfigError as `forward`."""
        return torch.sigmoid(self.logits(window))


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The published loss: cross-entropy, mean of P and S; both arguments (stations, 2, n), targets 0 to 1."""
    weight = torch.tensor(SEEN_MORE, dtype=logits.dtype, device=logits.device)
    return functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)


def normalised(records: Tensor, valid: Tensor | None = None) -> Tensor:
    """Input of the network (..., 3, n), rows E N Z, of ``records`` (..., 3, n), rows Z N E.

    Each component less its mean, over its standard deviation (+ 1e-6), over 10. Of samples that are not ``valid``,
    bool (..., n), nothing counts; they become 0.
    """
    traces = records.flip(-2)
    if valid is None:
        deviation, mean = torch.std_mean(traces, -1, correction=0, keepdim=True)
        return (traces - mean) / (deviation + EPSILON) / TENTH
    known = valid[..., None, :].to(traces.dtype)
    n = known.sum(-1, keepdim=True).clamp(min=1)
    centred = (traces - (traces * known).sum(-1, keepdim=True) / n) * known
    deviation = (centred.square().sum(-1, keepdim=True) / n).sqrt()
    return centred / (deviation + EPSILON) / TENTH


def places(latitude_deg: ArrayLike, longitude_deg: ArrayLike, centre_deg: tuple[float, float] | None = None) -> Tensor:
    """Places float32 (n, 2), east and north, of stations: 0 to 1 within a degree of ``centre_deg``, 0.5 in it.

    ``centre_deg`` is (latitude, longitude); None: the middle between the outermost stations. The network knows a
    station by this: give the centre where the stations change from window to window.
    """
    latitude, longitude = np.atleast_1d(np.asarray(latitude_deg, np.float64), np.asarray(longitude_deg, np.float64))
    east = eastward(longitude)
    if centre_deg is None:
        centre_deg = centre(latitude, longitude)
    along = east_deg(east, centre_deg[1])
    both = np.stack([along, latitude - centre_deg[0]], axis=1) / SIDE_DEG + 0.5
    return torch.from_numpy(both.astype(np.float32))


def centre(latitude_deg: Float, longitude_deg: Float) -> tuple[float, float]:
    """The middle (latitude, longitude) between the outermost of stations (n,), as `places` takes it without one."""
    return _middle(latitude_deg), _middle(eastward(longitude_deg))


def eastward(longitude_deg: Float) -> Float:
    """Longitudes (n,) without a step at the date line, counted on from the first of them."""
    return east_deg(longitude_deg, longitude_deg[:1]) + longitude_deg[:1]


def _middle(values: Float) -> float:
    return float(values.min() + values.max()) / 2 if len(values) else 0.0


def edges(where: Tensor, range_km: float | None = RANGE_KM) -> Tensor:
    """Edges int64 (2, e), rows (source, target), both ways between stations at ``where`` (n, 2) and to themselves.

    Between those not further apart than ``range_km`` in the authors' measure, in which a degree is 111 km in latitude
    and in longitude; None: all pairs. Sorted by target.
    """
    apart_km = torch.cdist(where.double(), where.double(), compute_mode="donot_use_mm_for_euclid_dist") * SIDE_KM
    target, source = torch.nonzero(apart_km <= (np.inf if range_km is None else range_km), as_tuple=True)
    return torch.stack([source, target])


def join(parts: Sequence[NetworkWindow]) -> NetworkWindow:
    """Several networks as one window: their stations one after the other, no edge between two networks."""
    firsts = np.cumsum([0, *(len(part.records) for part in parts)]).tolist()
    moved = [part.edges + first for part, first in zip(parts, firsts, strict=False)]
    return NetworkWindow(
        torch.cat([part.records for part in parts]), torch.cat([part.places for part in parts]), torch.cat(moved, 1)
    )


@torch.inference_mode()
def answer_to(network: PhaseNO, records: Float32, valid: Bool, where: Tensor, range_km: float | None) -> Float32:
    """Probabilities (stations, 2, samples) of one window, which may be short; NaN where a station has no data."""
    short = ((0, 0), (0, network.samples - records.shape[2]))
    there, known = valid.any(1), np.pad(valid, short)
    device = next(network.parameters()).device
    whole = torch.from_numpy(np.pad(records, ((0, 0), *short))[there]).to(device)
    traces = normalised(whole, torch.from_numpy(known[there]).to(device))
    present = where[torch.from_numpy(there).to(where.device)]
    logits = network(traces, present.to(device), edges(present, range_km).to(device))
    answer = np.full((len(records), 2, network.samples), np.nan, np.float32)
    answer[there] = torch.sigmoid(logits).cpu().numpy()
    answer[np.broadcast_to(~known[:, None], answer.shape)] = np.nan
    return answer


def together(waveforms: Sequence[Waveform], start_ns: int) -> tuple[Float32, Bool, list[int]]:
    """Filtered records (stations, 3, n), what of them is valid (stations, n), and where each waveform begins in them.

    They begin at ``start_ns``, which is not after any sample; to the nearest sample. Components without data are left
    to `substituted`. Raises ConfigError on another sampling rate than `RATE_HZ`.
    """
    sample_ns = round(NS / RATE_HZ)
    firsts = [(each.start_ns - start_ns + sample_ns // 2) // sample_ns for each in waveforms]
    n = max(first + len(each) for each, first in zip(waveforms, firsts, strict=True))
    records, valid = np.zeros((len(waveforms), 3, n), np.float32), np.zeros((len(waveforms), n), np.bool_)
    for row, (each, first) in enumerate(zip(waveforms, firsts, strict=True)):
        if each.rate_hz != RATE_HZ:
            raise ConfigError(f"waveform {row} at {each.rate_hz} Hz, but PhaseNO takes {RATE_HZ} Hz: resample it")
        records[row, :, first : first + len(each)] = filtered(each, FILTER)
        valid[row, first : first + len(each)] = each.valid
    return records, valid, firsts


def substituted(records: Float32, waveforms: Sequence[Waveform], firsts: Sequence[int], here: slice) -> Float32:
    """The window ``here`` of ``records``, where a component without data in it is another one, as with the authors.

    What other windows see does not matter, so that it is the same window in whatever part of a record.
    """
    cut = records[..., here].copy()
    for row, (each, first) in enumerate(zip(waveforms, firsts, strict=True)):
        there = each.samples[:, max(0, here.start - first) : max(0, here.stop - first)].any(axis=1).tolist()
        cut[row] = complete(cut[row], there)
    return cut


def complete(samples: Float32, there: Sequence[bool]) -> Float32:
    """``samples`` (3, n), each component that is not ``there`` being the vertical, or else the first that is."""
    if all(there):
        return samples
    found = there.index(True) if any(there) else 0
    return samples[[number if is_there else found for number, is_there in enumerate(there)]]


def load_checkpoint(path: Path, network: PhaseNO | None = None) -> PhaseNO:
    """The published network, or ``network``, with the tensors of a checkpoint, for evaluation.

    Read are a Lightning checkpoint, or a state dict alone, its names with any prefix that all have. Every parameter
    must be there in its shape, and nothing else. Only tensors and plain values are unpickled, no code is run. Raises
    ConfigError with the file, the name and the shape.
    """
    network = network or PhaseNO()
    found, wanted = _unprefixed(_tensors(path)), network.state_dict()
    for name in sorted(wanted.keys() - found.keys()):
        raise ConfigError(f"{path}: no {name} {tuple(wanted[name].shape)}: this is no checkpoint of this PhaseNO")
    for name in sorted(found.keys() - wanted.keys() - OF_TRAINING):
        raise ConfigError(f"{path}: {name} {tuple(found[name].shape)} is no parameter of PhaseNO")
    for name, here in wanted.items():
        given = found[name]
        kinds = [(each.is_complex(), each.is_floating_point()) for each in (given, here)]
        if given.shape != here.shape or kinds[0] != kinds[1]:
            raise ConfigError(
                f"{path}: {name} is {given.dtype} {tuple(given.shape)}, expected {here.dtype} {tuple(here.shape)}: "
                "give the modes and the width that it was trained with"
            )
        if not torch.isfinite(torch.view_as_real(given) if given.is_complex() else given).all():
            raise ConfigError(f"{path}: {name} holds values that are not finite: the file is damaged")
    network.load_state_dict({name: found[name] for name in wanted})
    return network.eval()


def _unprefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with the names of PhaseNO, if all begin with the same and the like of "model." or "module."."""
    prefix = next((name.removesuffix("fc0.weight") for name in state if name.endswith(".fc0.weight")), "")
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint. Raises ConfigError."""
    refused = torch.serialization.pickle.UnpicklingError  # type: ignore[attr-defined]  # what weights_only raises
    damaged = EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError, struct.error
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, refused, *damaged) as e:
        raise ConfigError(
            f"{path}: cannot be read as tensors (weights_only): {e}; if it is the published file, save its "
            '["state_dict"] alone with torch.save, where you trust it'
        ) from e
    state = held.get("state_dict", held) if isinstance(held, dict) else held
    found: dict[str, Tensor] = state if isinstance(state, dict) else {}
    if not found or not all(isinstance(name, str) and _is_plain(each) for name, each in found.items()):
        raise ConfigError(f"{path}: no state dict of tensors in it: this is no checkpoint of PhaseNO")
    return found


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
