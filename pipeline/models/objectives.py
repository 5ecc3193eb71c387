"""What a picker is trained to: its own normalisation, its own outputs, and the loss that its authors used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from pipeline.errors import ConfigError
from pipeline.models import phaseno
from pipeline.models.generic import ROWS
from pipeline.models.phaseno import NetworkWindow, PhaseNO
from pipeline.models.training import Batch, Loss
from pipeline.records import Bool, Float, Float32

SHARES = {"D": 0.05, "P": 0.40, "S": 0.55}  # Mousavi et al. 2020, doi 10.1038/s41467-020-17591-w


def labels(model: Any) -> tuple[str, ...]:
    """Names of the outputs of a SeisBench model or a PhaseNO, in the order in which a loss wants the answers."""
    return phaseno.PHASES if isinstance(model, PhaseNO) else tuple(model.labels)


def window(model: Any) -> tuple[int, float]:
    """How many samples a model takes, and at which rate, Hz."""
    if isinstance(model, PhaseNO):
        return model.samples, phaseno.RATE_HZ
    return int(model.in_samples), float(model.sampling_rate)


def objective(model: Any) -> Loss:
    """The loss of a model over a batch: -> scalar, the mean over the batch.

    Of a model of one station: (samples (b, 3, n) rows Z N E, answers (b, outputs, n)). Where the outputs are shares of
    one (PhaseNet), the cross entropy (Zhu & Beroza 2019, eq. 2) over samples; where each stands for itself
    (EQTransformer), the binary one of each output, weighted as its authors do. Of a PhaseNO the published loss of what
    `network_batch` makes. Raises ConfigError if the model is of no kind that is known here.
    """
    if isinstance(model, PhaseNO):
        return _of_network(model)
    rows = [ROWS[component] for component in model.component_order]

    def prepared(x: Tensor) -> Tensor:
        normalised: Tensor = model.annotate_batch_pre(x[:, rows], model.default_args)
        return normalised

    letters = [label[:1].upper() for label in labels(model)]
    if model.output_type != "array" or not {"P", "S"} <= set(letters) <= {"P", "S", "N", "D"}:
        raise ConfigError(f"{type(model).__name__} with outputs {list(labels(model))} cannot be trained here")
    if "N" in letters:
        return lambda x, y: -(y * log_softmax(model(prepared(x), logits=True).float(), 1)).sum(1).mean()
    weights = [SHARES[letter] for letter in letters]

    def each(x: Tensor, y: Tensor) -> Tensor:
        answers = model(prepared(x), logits=True)
        losses = [
            weight * binary_cross_entropy_with_logits(answer.float(), y[:, i])
            for i, (weight, answer) in enumerate(zip(weights, answers, strict=True))
        ]
        return torch.stack(losses).sum()

    return each


def _of_network(model: PhaseNO) -> Loss:
    def loss(records: Tensor, valid: Tensor, places: Tensor, edges: Tensor, answers: Tensor) -> Tensor:
        return phaseno.loss(model(phaseno.normalised(records, valid), places, edges), answers)

    return loss


@dataclass(frozen=True, slots=True)
class NetworkCrop:
    """What the stations of a network show in one window, and what a PhaseNO is to answer.

    ``records`` float32 (stations, 3, n) rows Z N E, ``valid`` bool (stations, n), ``answers`` float32 (stations, 2, n)
    of P and S; the places as of `records.NetworkRecord`.
    """

    records: Float32
    valid: Bool
    answers: Float32
    latitude_deg: Float
    longitude_deg: Float
    center_deg: tuple[float, float]
    range_km: float | None


def network_batch(crops: Sequence[NetworkCrop]) -> Batch:
    """Networks as one graph in parts: records, valid, places (stations, 2), edges int64 (2, e), answers."""
    windows = []
    for crop in crops:
        places = phaseno.places(crop.latitude_deg, crop.longitude_deg, crop.center_deg)
        windows.append(NetworkWindow(torch.from_numpy(crop.records), places, phaseno.edges(places, crop.range_km)))
    graph = phaseno.join(windows)
    valid, answers = (np.concatenate([getattr(crop, name) for crop in crops]) for name in ("valid", "answers"))
    return graph.records.numpy(), valid, graph.places.numpy(), graph.edges.numpy(), answers
