"""PhaseNet on the CPU by our own kernels (phasenet.h): the windows of a waveform in, probabilities out."""

from __future__ import annotations

import ctypes
from typing import Any, Self

import numpy as np

from pipeline.errors import ConfigError
from pipeline.models.native import build, packing
from pipeline.models.native.network import Network

LENGTH = 3001
MOST = 8  # phasenet.h: MOST_CLASSES
NORMS = {"std": 1, "peak": 2}


class Settings(ctypes.Structure):
    """phasenet.h: Settings."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("inputs", "classes", "roots", "detrend", "norm", "chosen")),
        ("columns", ctypes.c_int32 * MOST),
        ("rows", ctypes.c_int32 * MOST),
    )


def covers(model: Any) -> bool:
    """Whether ``model`` is SeisBench's PhaseNet as these kernels know it; its subclasses are not."""
    from seisbench.models import PhaseNet

    if type(model) is not PhaseNet:
        return False
    shape = (model.depth, model.kernel_size, model.stride, model.filters_root, model.in_samples)
    return shape == (5, 7, 4, 8, LENGTH) and model.classes <= MOST and model.in_channels <= MOST


class NativePhaseNet(Network):
    """One PhaseNet, ready to answer; build it with `of`."""

    kernel = "phasenet"
    length = LENGTH

    @classmethod
    def of(cls, model: Any, rows: tuple[int, ...], columns: tuple[int, ...], threads: int) -> Self:
        """The kernels for a SeisBench PhaseNet in evaluation mode.

        ``rows`` of a waveform in the order of the model's components; ``columns`` of its output that are wanted;
        ``threads`` that work at once. Raises ConfigError if there are no kernels or they do not cover the model.
        """
        if not covers(model):
            raise ConfigError(
                f"{type(model).__name__} is not the PhaseNet that the kernels know: set compute.engine = 'seisbench'"
            )
        if len(rows) != model.in_channels or not columns or not set(columns) <= set(range(model.classes)):
            raise ConfigError(
                f"rows {rows}, columns {columns}: PhaseNet takes {model.in_channels}, has {model.classes}"
            )
        names = ("fp32", "bf16") if build.library().native_has_bf16() else ("fp32",)
        packed = {name: b"".join(_layers(model, name == "bf16")) for name in names}
        return cls(_settings(model, rows, columns), packed, threads)


def _settings(model: Any, rows: tuple[int, ...], columns: tuple[int, ...]) -> Settings:
    norm = 2 if model.norm_amp_per_comp else NORMS.get(model.norm, 0)
    made = Settings(model.in_channels, model.classes, 8 * model.filter_factor, model.norm_detrend, norm, len(columns))
    made.columns[: len(columns)] = columns
    made.rows[: len(rows)] = rows
    return made


def _layers(model: Any, bf16: bool) -> list[bytes]:
    """Packed weights in the order of phasenet.h: Network."""
    first = packing.fold(packing.array(model.inc.weight), packing.array(model.inc.bias), model.in_bn)
    layers = [packing.convolution(*first, bf16=False)]
    for same, norm, down, down_norm in model.down_branch:
        layers.append(_packed(same, norm, bf16))
        layers += [_packed(down, down_norm, bf16)] if down is not None else []
    for up, norm, merged, merged_norm in model.up_branch:
        weight, bias = packing.fold(packing.array(up.weight).transpose(1, 0, 2), None, norm)
        taps = ([4, 0], [5, 1], [6, 2], [3])  # of the output's four phases, on inputs q - 1 and q
        layers += [packing.convolution(weight[..., chosen], bias, bf16) for chosen in taps]
        layers.append(_packed(merged, merged_norm, bf16))
    return [*layers, *(packing.array(x).astype(np.float32).tobytes() for x in (model.out.bias, model.out.weight))]


def _packed(layer: Any, norm: Any, bf16: bool) -> bytes:
    return packing.convolution(*packing.fold(packing.array(layer.weight), None, norm), bf16)
