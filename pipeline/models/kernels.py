"""Our own C++ kernels (`pipeline.models.native`) as a `Network`, for the models that they know."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pipeline.models.native import build, eqtransformer, phasenet
from pipeline.models.native.network import Network as Native
from pipeline.records import Int

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kernels:
    """A network of the kernels between tensors, which share memory with its arrays."""

    inner: Native
    by_group: bool = False

    @property
    def precisions(self) -> tuple[str, ...]:
        return self.inner.precisions

    def answers(self, samples: Tensor, windows: Int, precision: str) -> Tensor:
        """See `pipeline.models.networks.Network`."""
        return torch.from_numpy(self.inner.answers(samples.numpy(), windows, precision))


def kernels_for(
    model: Any,
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    threads: int,
    blinding: tuple[int, int],
    must: bool = False,
) -> Kernels | None:
    """The kernels for ``model``, see `SeisBench` for the arguments; None if they do not know it or cannot be built.

    The ``blinding`` samples at both ends of an answer may be anything. Raises ConfigError if they ``must`` be built
    and cannot.
    """
    known = phasenet.covers(model) or eqtransformer.covers(model)
    if not known or not (must or usable()):
        return None
    if phasenet.covers(model):
        return Kernels(phasenet.NativePhaseNet.of(model, rows, columns, threads))
    return Kernels(eqtransformer.NativeEQTransformer.of(model, rows, columns, threads, blinding))


@cache
def usable() -> bool:
    """Whether the kernels can be used on this machine; if not, the reason is logged, once."""
    reason = build.available()
    if reason:
        log.warning("picking with SeisBench's own networks, which takes several times as long: %s", reason)
    return not reason
