"""Weights as the kernels read them: batch norm folded, output channels in groups of eight, one run of bytes.

Arithmetic is FP64 up to the last step, which rounds to FP32 and, for BF16, from there to the nearest BF16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PACK = 8  # lanes.h: PACK

Float64 = NDArray[np.float64]


def array(tensor: Any) -> Float64:
    """A torch tensor as FP64."""
    values: Float64 = tensor.detach().cpu().double().numpy()
    return values


def fold(weight: Float64, bias: Float64 | None, norm: Any) -> tuple[Float64, Float64]:
    """Weight (outputs, inputs, taps) and bias (outputs,) of a convolution followed by the batch norm ``norm``."""
    gain = array(norm.weight) / np.sqrt(array(norm.running_var) + norm.eps)
    start = np.zeros(len(gain)) if bias is None else bias
    return weight * gain[:, None, None], (start - array(norm.running_mean)) * gain + array(norm.bias)


def convolution(weight: Float64, bias: Float64, bf16: bool, inputs: tuple[int, ...] = ()) -> bytes:
    """What `lanes::Conv::read` reads: bias, then weights [output / 8][tap][cell][8 outputs]([2 channels]).

    ``weight`` (outputs, inputs, taps). ``inputs`` are the channels of each track if there are two; BF16 takes
    two channels to a cell, so that every track's channels are filled up to an even number.
    """
    filled = -(-len(weight) // PACK) * PACK
    packed = np.zeros((filled, *weight.shape[1:]))
    packed[: len(weight)] = weight
    start = np.zeros(filled, np.float32)
    start[: len(bias)] = bias
    return start.tobytes() + (_pairs(packed, inputs) if bf16 else _singles(packed))


def _singles(weight: Float64) -> bytes:
    _, inputs, taps = weight.shape
    return weight.reshape(-1, PACK, inputs, taps).transpose(0, 3, 2, 1).astype(np.float32).tobytes()


def _pairs(weight: Float64, inputs: tuple[int, ...]) -> bytes:
    parts = np.split(weight, np.cumsum(inputs)[:-1], axis=1) if inputs else [weight]
    even = [np.pad(part, ((0, 0), (0, part.shape[1] % 2), (0, 0))) for part in parts]
    joined = np.concatenate(even, axis=1)
    _, channels, taps = joined.shape
    cells = joined.reshape(-1, PACK, channels // 2, 2, taps).transpose(0, 4, 2, 1, 3)
    return bfloat16(cells.astype(np.float32)).tobytes()


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest BF16, ties to even; for finite values."""
    bits = values.view(np.uint32)
    rounded: NDArray[np.uint16] = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return rounded
