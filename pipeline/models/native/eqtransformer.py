"""EQTransformer on the CPU by our own kernels (eqtransformer.h): the windows of a waveform in, probabilities out."""

from __future__ import annotations

import ctypes
from typing import Any, Self

import numpy as np

from pipeline.errors import ConfigError
from pipeline.models.native import build, packing
from pipeline.models.native.network import Network
from pipeline.models.native.packing import Float64

LENGTH = 6000
TAPER = 6
MOST = 8  # eqtransformer.h: MOST
FLAVOURS = (False, None, "conservative", "non-conservative")


class Settings(ctypes.Structure):
    """eqtransformer.h: Settings."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("inputs", "blocks", "original", "hard_encoder", "hard_picks")),
        *((name, ctypes.c_int32) for name in ("by_peak", "chosen", "first", "end")),
        ("detection", ctypes.c_int32 * MOST),
        ("rows", ctypes.c_int32 * MOST),
        ("eps", ctypes.c_float),
        ("taper", ctypes.c_float * TAPER),
    )


def covers(model: Any) -> bool:
    """Whether ``model`` is SeisBench's EQTransformer as these kernels know it; its subclasses are not."""
    from seisbench.models import EQTransformer

    if type(model) is not EQTransformer or model.norm_detrend or model.in_samples != LENGTH:
        return False
    known = model.original_compatible in FLAVOURS and (model.norm in ("std", "peak") or model.norm_amp_per_comp)
    return bool(
        known and max(model.in_channels, model.classes + 1, model.lstm_blocks) <= MOST and model.lstm_blocks > 0
    )


class NativeEQTransformer(Network):
    """One EQTransformer, ready to answer; build it with `of`."""

    kernel = "eqtransformer"
    length = LENGTH

    @classmethod
    def of(
        cls,
        model: Any,
        rows: tuple[int, ...],
        columns: tuple[int, ...],
        threads: int,
        blinding: tuple[int, int] = (0, 0),
    ) -> Self:
        """The kernels for a SeisBench EQTransformer in evaluation mode.

        ``rows`` of a waveform in the order of the model's components; ``columns`` of its output that are wanted;
        ``threads`` that work at once; the first and last ``blinding`` positions of an answer are left at zero,
        which saves their work. Raises ConfigError if there are no kernels or they do not cover the model.
        """
        if not covers(model):
            raise ConfigError(
                f"{type(model).__name__} is no EQTransformer that the kernels know: set compute.engine = 'seisbench'"
            )
        if len(rows) != model.in_channels or not columns or not set(columns) <= set(range(model.classes + 1)):
            inside = f"EQTransformer takes {model.in_channels}, has {model.classes + 1}"
            raise ConfigError(f"rows {rows}, columns {columns}: {inside}")
        if min(blinding) < 0 or sum(blinding) >= LENGTH:
            raise ConfigError(f"blinding {blinding} leaves nothing of windows of {LENGTH} samples")
        names = ("fp32", "bf16") if build.library().native_has_bf16() else ("fp32",)
        packed = {name: b"".join(_layers(model, columns, name == "bf16")) for name in names}
        made = cls(_settings(model, rows, columns, blinding), packed, threads)
        made.blind = blinding
        return made


def _settings(model: Any, rows: tuple[int, ...], columns: tuple[int, ...], blinding: tuple[int, int]) -> Settings:
    hard = model.original_compatible == "conservative"
    made = Settings(model.in_channels, model.lstm_blocks, bool(model.original_compatible), hard, hard)
    made.by_peak, made.chosen = model.norm_amp_per_comp or model.norm == "peak", len(columns)
    made.first, made.end = blinding[0], LENGTH - blinding[1]
    made.detection[: len(columns)] = [column == 0 for column in columns]
    made.rows[: len(rows)] = rows
    made.eps = model.transformer_d0.attention.eps
    made.taper[:] = 0.5 * (1 + np.cos(np.linspace(np.pi, 2 * np.pi, TAPER)))
    return made


def _layers(model: Any, columns: tuple[int, ...], bf16: bool) -> list[bytes]:
    """Packed weights in the order of eqtransformer.h: Network."""
    first, *rest = model.encoder.convs
    made = [_plain(first, False), *(_plain(conv, bf16) for conv in rest)]
    made += [part for block in model.res_cnn_stack.members for part in _residual(block, bf16)]
    made += [part for block in model.bi_lstm_stack.members for part in _bidirectional(block)]
    made += [part for layer in (model.transformer_d0, model.transformer_d) for part in _transformer(layer)]
    return made + [part for column in columns for part in _branch(model, column, bf16)]


def _plain(conv: Any, bf16: bool) -> bytes:
    return packing.convolution(packing.array(conv.weight), packing.array(conv.bias), bf16)


def _vector(values: Any) -> bytes:
    return np.ascontiguousarray(values, np.float32).tobytes()


def _residual(block: Any, bf16: bool) -> list[bytes]:
    gain, shift = _affine(block.norm1)
    first = packing.fold(packing.array(block.conv1.weight), packing.array(block.conv1.bias), block.norm2)
    return [_vector(gain), _vector(shift), packing.convolution(*first, bf16), _plain(block.conv2, bf16)]


def _affine(norm: Any) -> tuple[Float64, Float64]:
    """Gain and shift of a batch norm."""
    gain = packing.array(norm.weight) / np.sqrt(packing.array(norm.running_var) + norm.eps)
    return gain, packing.array(norm.bias) - packing.array(norm.running_mean) * gain


def _bidirectional(block: Any) -> list[bytes]:
    merge = packing.fold(packing.array(block.conv.weight), packing.array(block.conv.bias), block.norm)
    return [_gates(block.lstm, "f"), _gates(block.lstm, "b"), packing.convolution(*merge, bf16=False)]


def _gates(lstm: Any, direction: str) -> bytes:
    """All that the gates of one direction, "f" or "b", are made of: the input, then the output of the step before."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    if hasattr(lstm, "cell_f"):
        found = [getattr(getattr(lstm, f"cell_{direction}"), name) for name in names]
    else:
        found = [getattr(lstm, f"{name}_l0{'_reverse' if direction == 'b' else ''}") for name in names]
    from_input, from_output, bias, more = (packing.array(tensor) for tensor in found)
    return packing.convolution(np.concatenate([from_input, from_output], axis=1)[..., None], bias + more, bf16=False)


def _transformer(layer: Any) -> list[bytes]:
    norms = [
        [_vector(packing.array(norm.gamma)), _vector(packing.array(norm.beta))] for norm in (layer.norm1, layer.norm2)
    ]
    wide, narrow = (_linear(part.weight, part.bias) for part in (layer.ff.lin1, layer.ff.lin2))
    return [*_attention(layer.attention), *norms[0], wide, narrow, *norms[1]]


def _attention(layer: Any) -> list[bytes]:
    query, key = _linear(layer.Wt.T, None), _linear(layer.Wx.T, layer.bh)
    return [query, key, _vector(-2 * packing.array(layer.Wa))]


def _linear(weight: Any, bias: Any) -> bytes:
    start = np.zeros(len(weight)) if bias is None else packing.array(bias)
    return packing.convolution(packing.array(weight)[..., None], start, bf16=False)


def _branch(model: Any, column: int, bf16: bool) -> list[bytes]:
    """The decoder of a column and what lies in front of it."""
    crop = 3 if model.original_compatible else 2
    if column == 0:
        made, decoder, last = [], model.decoder_d, model.conv_d
    else:
        made = [_gates(model.pick_lstms[column - 1], "f"), *_attention(model.pick_attentions[column - 1])]
        decoder, last = model.pick_decoders[column - 1], model.pick_convs[column - 1]
    for level, conv in enumerate(decoder.convs):
        weight, bias = packing.array(conv.weight), packing.array(conv.bias)
        made += [packing.convolution(_phase(weight, phase), bias, bf16) for phase in (0, 1)]
        made += [packing.convolution(weight, bias, bf16)] if level == crop else []
    return [*made, _vector(packing.array(last.bias)), _vector(packing.array(last.weight)[0].T)]


def _phase(weight: Float64, phase: int) -> Float64:
    """The taps that give every second position, from ``phase``, of a convolution of twice repeated positions."""
    taps = weight.shape[2]
    at = (phase + np.arange(taps) - taps // 2) // 2
    summed = np.zeros((*weight.shape[:2], (taps + 1) // 2))
    for tap, position in enumerate(at - at[0]):
        summed[..., position] += weight[..., tap]
    return summed
