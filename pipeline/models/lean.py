"""PhaseNet and EQTransformer with less to do than SeisBench's modules, and the same answers to rounding.

Batch norms are folded into the convolutions beside them. "Upsample by s, then convolve" and the transposed
convolution are one ordinary convolution with s times the outputs, whose weights are summed beforehand (the
polyphase form). Only the wanted outputs of EQTransformer are computed, and its LSTMs, both directions or both
phases at once, are one recurrence, of which all inputs are multiplied beforehand.

Convolutions compute in the ``dtype`` asked for. What is small and delicate computes in FP32 always: the LSTMs, the
attention, the layer norms (whose epsilon of 1e-14 is zero in FP16) and the last activation. The -1e10 with which
EQTransformer pads before its maxima is no number in FP16: minus infinity is.
The recurrence is plain torch, not cuDNN's, whose results are not bound to repeat to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN = 16  # of EQTransformer's LSTMs


def of(
    model: Any, columns: tuple[int, ...], dtype: torch.dtype = torch.float32, channels_last: bool = False
) -> nn.Module | None:
    """The lean form of a SeisBench model on the model's device; None if it has none.

    Takes prepared windows float32 (w, 3, length), gives probabilities float32 (w, columns, length): the
    ``columns`` of the model's output, in that order. ``channels_last``: the layout of memory inside.
    """
    if not covers(model, columns):
        return None
    built: nn.Module = {"PhaseNet": PhaseNet, "EQTransformer": EQTransformer}[type(model).__name__](model, columns)
    built = built.eval().to(next(model.parameters()).device).requires_grad_(False)
    for part in built.modules():
        if isinstance(part, (Conv, Scale)):
            part.to(dtype=dtype)
        if isinstance(part, Conv) and channels_last:
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)
    return built


def covers(model: Any, columns: tuple[int, ...]) -> bool:
    """Whether ``model`` has a lean form; subclasses of SeisBench's models have ways of their own."""
    import seisbench.models as known

    if type(model) is known.EQTransformer:
        return 0 not in columns and _plain_cells(model)  # column 0 is the detector
    return type(model) is known.PhaseNet


class Conv(nn.Module):
    """A convolution over time of (w, in, 1, n) with zeros at both ends, and a rectifier if ``active``.

    ``weight`` (phases * out, in, taps): with several ``phases`` there are as many answers to an input, which
    become neighbours in time. Without a copy if memory is channels-last.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, pad: int, step: int = 1, phases: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.float()[:, :, None])
        self.bias = nn.Parameter(bias.float())
        self.pad, self.step, self.phases, self.active = pad, step, phases, active

    def forward(self, x: Tensor) -> Tensor:
        y = functional.conv2d(x, self.weight, self.bias, stride=(1, self.step), padding=(0, self.pad))
        return self.interleaved(y.relu_() if self.active else y)

    def interleaved(self, y: Tensor) -> Tensor:
        """(w, phases * out, 1, n) as (w, out, 1, n * phases)."""
        if self.phases == 1:
            return y
        w, outputs, _, n = y.shape
        split = y.view(w, self.phases, outputs // self.phases, n)
        return split.permute(0, 2, 3, 1).reshape(w, outputs // self.phases, 1, n * self.phases)


class Halving(Conv):
    """A convolution and a rectifier, and of two neighbours in time the higher; past an odd end there is nothing.

    What comes last in SeisBench comes first: bias and rectifier are for half as many. Not torch's pooling, which on
    a GPU also writes where each maximum was, in 8 bytes.
    """

    def forward(self, x: Tensor) -> Tensor:
        y = functional.conv2d(x, self.weight, padding=(0, self.pad))
        y = functional.pad(y, (0, 1), value=-torch.inf) if y.shape[-1] % 2 else y
        return torch.maximum(y[..., 0::2], y[..., 1::2]).add_(self.bias[:, None, None]).relu_()


class Scale(nn.Module):
    """A batch norm that no convolution precedes, and a rectifier; of (w, channels, 1, n)."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        gain, start = _gain(norm)
        self.gain = nn.Parameter(gain.float().view(1, -1, 1, 1))
        self.start = nn.Parameter(start.float().view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.start, x, self.gain).relu_()


class PhaseNet(nn.Module):
    """Zhu & Beroza (2019), doi 10.1093/gji/ggy423, as SeisBench has it."""

    def __init__(self, model: Any, columns: tuple[int, ...]) -> None:
        super().__init__()
        downs, ups = list(model.down_branch), list(model.up_branch)
        self.inc = Conv(*_folded(model.inc, model.in_bn), pad=3)
        self.same = nn.ModuleList(Conv(*_folded(conv, norm), pad=3) for conv, norm, _, _ in downs)
        self.down = nn.ModuleList(_down(down, norm, level) for level, (_, _, down, norm) in enumerate(downs[:-1]))
        self.up = nn.ModuleList(_up(up, norm) for up, norm, _, _ in ups)
        self.merge = nn.ModuleList(Conv(*_folded(conv, norm), pad=3) for _, _, conv, norm in ups)
        self.out = Conv(_double(model.out.weight), _double(model.out.bias), pad=0, active=False)
        self.columns: Tensor
        self.register_buffer("columns", torch.tensor(columns))

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.inc(_enter(x, self.inc)), []
        for same, down in zip(self.same, self.down, strict=False):
            skips.append(same(x))
            x = down(skips[-1])
        x = self.same[-1](x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            n, first = skip.shape[-1], 1 + (4 * x.shape[-1] - skip.shape[-1]) // 2
            x = merge(torch.cat([skip, up(x)[..., first : first + n]], dim=1))
        logits: Tensor = self.out(x)[:, :, 0].float()
        return logits.softmax(dim=1).index_select(1, self.columns)


def _down(conv: Any, norm: Any, level: int) -> Conv:
    """Every fourth answer. SeisBench pads by hand: fewer zeros before than the 3 after are leading taps of zero."""
    weight, bias = _folded(conv, norm)
    before = {1: 2, 2: 1, 3: 2}.get(level, 3)
    return Conv(functional.pad(weight, (3 - before, 0)), bias, pad=3, step=4)


def _up(conv: Any, norm: Any) -> Conv:
    """A transposed convolution (in, out, 7) in steps of 4 as one of 2 taps with 4 phases: y[4m + p] is
    x[m - 1] w[4 + p] + x[m] w[p], and one sample longer at the end."""
    gain, bias = _gain(norm)
    weight = functional.pad(_double(conv.weight).transpose(0, 1) * gain[:, None, None], (0, 1))
    taps = weight.view(*weight.shape[:2], 2, 4).flip(2).permute(3, 0, 1, 2)  # (phase, out, in, tap)
    return Conv(taps.flatten(0, 1), bias.repeat(4), pad=1, phases=4)


class EQTransformer(nn.Module):
    """Mousavi et al. (2020), doi 10.1038/s41467-020-17591-w, as SeisBench has it, without its detector."""

    def __init__(self, model: Any, columns: tuple[int, ...]) -> None:
        super().__init__()
        branches = [column - 1 for column in columns]
        self.encoder = nn.ModuleList(
            Halving(_double(conv.weight), _double(conv.bias), conv.kernel_size[0] // 2) for conv in model.encoder.convs
        )
        self.residual = nn.ModuleList(Residual(block) for block in model.res_cnn_stack.members)
        self.stack = nn.ModuleList(BiLSTM(block) for block in model.bi_lstm_stack.members)
        steps = model.in_samples
        for _ in model.encoder.convs:
            steps = (steps + 1) // 2
        self.transformers = nn.ModuleList(
            Transformer(part, steps) for part in (model.transformer_d0, model.transformer_d)
        )
        self.lstms = Recurrence([_cells(model.pick_lstms[b])[0] for b in branches], [False] * len(branches))
        self.attentions = nn.ModuleList(Attention(model.pick_attentions[b], steps) for b in branches)
        self.decoders = nn.ModuleList(Decoder(model.pick_decoders[b], model.pick_convs[b]) for b in branches)

    def forward(self, x: Tensor) -> Tensor:
        x = _enter(x, self.encoder[0])
        for conv in self.encoder:
            x = conv(x)
        for block in self.residual:
            x = block(x)
        x = x[:, :, 0].transpose(1, 2).float()  # (w, steps, channels)
        for part in (*self.stack, *self.transformers):
            x = part(x)
        branches = self.lstms(x).split(HIDDEN, dim=2)
        pairs = zip(branches, self.attentions, self.decoders, strict=True)
        return torch.cat([decoder(attention(branch)) for branch, attention, decoder in pairs], dim=1)


class Residual(nn.Module):
    """Two convolutions with their norms before them, added to what came in; of (w, channels, 1, n)."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm = Scale(block.norm1)
        self.first = Conv(*_folded(block.conv1, block.norm2, _three), pad=1)
        self.second = Conv(_three(block.conv2), _double(block.conv2.bias), pad=1, active=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(self.norm(x)))
        return y.add_(x)


class Recurrence(nn.Module):
    """LSTM cells side by side: (w, steps, in) to (w, steps, cells * HIDDEN), each ``backward`` in time or not.

    A cell is `_cells`'. Gates are in the order input, forget, output, candidate.
    """

    def __init__(self, cells: list[Any], backward: list[bool]) -> None:
        super().__init__()
        self.hard, self.backward = cells[0][3], backward
        inputs, hidden, biases = zip(*(_gates(*cell) for cell in cells), strict=True)
        self.inputs = nn.Parameter(torch.cat(inputs).float())
        self.bias = nn.Parameter(torch.cat(biases).float())
        self.hidden = nn.Parameter(torch.stack([weight.T for weight in hidden]).float())

    def forward(self, x: Tensor) -> Tensor:
        w, steps, _ = x.shape
        given = functional.linear(x, self.inputs, self.bias).view(w, steps, len(self.backward), -1).unbind(2)
        gates = torch.stack(
            [part.flip(1) if back else part for part, back in zip(given, self.backward, strict=True)], 1
        )
        gates = gates.permute(2, 1, 0, 3).contiguous()  # (steps, cells, w, gates)
        state = torch.zeros(gates.shape[1], w, HIDDEN, device=x.device)
        out = torch.zeros(steps + 1, *state.shape, device=x.device)
        for step in range(steps):
            all_four = torch.baddbmm(gates[step], out[step], self.hidden)
            three, candidate = all_four[..., : 3 * HIDDEN], all_four[..., 3 * HIDDEN :].tanh()
            three = three.clamp_(0, 1) if self.hard else three.sigmoid_()
            state = torch.addcmul(state * three[..., HIDDEN : 2 * HIDDEN], three[..., :HIDDEN], candidate)
            torch.mul(three[..., 2 * HIDDEN :], state.tanh(), out=out[step + 1])
        parts = [part.flip(0) if back else part for part, back in zip(out[1:].unbind(1), self.backward, strict=True)]
        return torch.cat(parts, dim=2).transpose(0, 1)


class BiLSTM(nn.Module):
    """Forward and backward in time, then HIDDEN mixtures of both; (w, steps, in) to (w, steps, HIDDEN)."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.lstm = Recurrence(_cells(block.lstm), [False, True])
        weight, bias = _folded(block.conv, block.norm)
        self.weight, self.bias = nn.Parameter(weight[:, :, 0].float()), nn.Parameter(bias.float())

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(self.lstm(x), self.weight, self.bias)


class Attention(nn.Module):
    """Additive attention over the steps of (w, steps, channels), of ``width`` steps if that is given."""

    def __init__(self, part: Any, steps: int) -> None:
        super().__init__()
        self.query, self.key, self.bias, self.emit = (
            nn.Parameter(p.data) for p in (part.Wt, part.Wx, part.bh, part.Wa)
        )
        self.eps, self.width = float(part.eps), part.attention_width
        lower = torch.arange(steps) - (self.width or 0) // 2
        here = torch.arange(steps)[:, None]
        self.band: Tensor
        self.register_buffer("band", ((lower <= here) & (here < lower + (self.width or 0))).float())

    def forward(self, x: Tensor) -> Tensor:
        query = torch.matmul(x, self.query) + self.bias
        both = (query[:, :, None] + torch.matmul(x, self.key)[:, None]).tanh_()
        emission = torch.matmul(both, self.emit)[..., 0]  # its bias cancels in what follows
        weight = (emission - emission.amax(dim=2, keepdim=True)).exp_()
        weight = weight if self.width is None else weight * self.band
        return torch.bmm(weight / (weight.sum(dim=2, keepdim=True) + self.eps), x)


class Transformer(nn.Module):
    """Attention and a layer of neurons, each added to what came in and normalised; of (w, steps, channels)."""

    def __init__(self, part: Any, steps: int) -> None:
        super().__init__()
        self.attention = Attention(part.attention, steps)
        self.first, self.second = part.ff.lin1, part.ff.lin2
        self.norms = nn.ModuleList(_layer_norm(norm) for norm in (part.norm1, part.norm2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](x + self.attention(x))
        out: Tensor = self.norms[1](y + self.second(self.first(y).relu_()))
        return out


class Decoder(nn.Module):
    """(w, steps, channels) to probabilities (w, 1, length): doubled in time and convolved, seven times."""

    def __init__(self, part: Any, last: Any) -> None:
        super().__init__()
        self.crops = [_crop(part, stage) for stage in range(len(part.convs))]
        self.convs = nn.ModuleList(
            _plain(conv) if any(crop) else _doubled(conv) for conv, crop in zip(part.convs, self.crops, strict=True)
        )
        self.last = _plain(last, active=False)

    def forward(self, x: Tensor) -> Tensor:
        x = _enter(x.transpose(1, 2), self.last)
        for conv, (left, right) in zip(self.convs, self.crops, strict=True):
            if left or right:
                x = functional.interpolate(x, scale_factor=(1.0, 2.0))
                x = x[..., left : x.shape[-1] - right]
            x = conv(x)
        out: Tensor = self.last(x)[:, :, 0].float().sigmoid_()
        return out


def _enter(x: Tensor, conv: Any) -> Tensor:
    """(w, channels, n) as (w, channels, 1, n), in the arithmetic and layout of ``conv``."""
    layout = torch.contiguous_format if conv.weight.is_contiguous() else torch.channels_last
    return x.unsqueeze(2).to(dtype=conv.weight.dtype, memory_format=layout)


def _double(tensor: Any) -> Tensor:
    doubled: Tensor = tensor.detach().double()
    return doubled


def _gain(norm: Any) -> tuple[Tensor, Tensor]:
    """What a batch norm multiplies with and adds, (channels,), FP64."""
    gain = _double(norm.weight) / (_double(norm.running_var) + norm.eps).sqrt()
    return gain, _double(norm.bias) - _double(norm.running_mean) * gain


def _folded(conv: Any, norm: Any, weight_of: Any = None) -> tuple[Tensor, Tensor]:
    """Weight (out, in, taps) and bias of a convolution that a batch norm follows, FP64."""
    gain, start = _gain(norm)
    bias = start if conv.bias is None else start + gain * _double(conv.bias)
    return (weight_of(conv) if weight_of else _double(conv.weight)) * gain[:, None, None], bias


def _plain(conv: Any, active: bool = True) -> Conv:
    return Conv(_double(conv.weight), _double(conv.bias), pad=conv.kernel_size[0] // 2, active=active)


def _three(conv: Any) -> Tensor:
    """Two taps, of this sample and the next, are three of which the first is zero."""
    weight = _double(conv.weight)
    return functional.pad(weight, (3 - weight.shape[2], 0))


def _doubled(conv: Any) -> Conv:
    """Each sample twice, then ``conv``: phase p of tap k sees sample floor((p + k - pad) / 2)."""
    weight, pad = _double(conv.weight), conv.kernel_size[0] // 2
    reach = (pad + 1) // 2
    taps = weight.new_zeros(2, *weight.shape[:2], 2 * reach + 1)
    for phase in (0, 1):
        for k in range(weight.shape[2]):
            taps[phase, :, :, (phase + k - pad) // 2 + reach] += weight[:, :, k]
    return Conv(taps.flatten(0, 1), _double(conv.bias).repeat(2), pad=reach, phases=2)


def _crop(part: Any, stage: int) -> tuple[int, int]:
    """How many samples SeisBench cuts off at both ends after doubling."""
    if part.original_compatible:
        return (1, 1) if stage == 3 else (0, 0)
    return (0, 1) if stage in part.crops else (0, 0)


def _layer_norm(norm: Any) -> nn.Module:
    out = nn.LayerNorm(norm.gamma.shape[0], eps=norm.eps)
    out.weight, out.bias = nn.Parameter(norm.gamma.data[:, 0]), nn.Parameter(norm.beta.data[:, 0])
    return out


def _cells(lstm: Any) -> list[tuple[Any, Any, Any, bool]]:
    """Input and hidden weights, bias, and whether its gates are hard sigmoids, of each cell, forward first."""
    if isinstance(lstm, nn.LSTM):
        names = ["_l0", "_l0_reverse"][: 1 + lstm.bidirectional]
        return [_cell(lstm, name, False) for name in names]
    cells = [lstm.cell_f, *([lstm.cell_b] if lstm.bidirectional else [])]
    return [_cell(cell, "", cell.gate_activation is not torch.sigmoid) for cell in cells]


def _cell(owner: Any, name: str, hard: bool) -> tuple[Any, Any, Any, bool]:
    bias = _double(getattr(owner, "bias_ih" + name)) + _double(getattr(owner, "bias_hh" + name))
    return _double(getattr(owner, "weight_ih" + name)), _double(getattr(owner, "weight_hh" + name)), bias, hard


def _gates(inputs: Tensor, hidden: Tensor, bias: Tensor, hard: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gates in our order; a hard sigmoid, clip(x / 5 + 1 / 2, 0, 1), is only clipped: the rest is in the weights."""
    i, f, g, o = torch.arange(4 * HIDDEN, device=bias.device).chunk(4)
    order = torch.cat([i, f, o, g])
    factor, start = torch.ones_like(bias), torch.zeros_like(bias)
    if hard:
        factor[: 3 * HIDDEN], start[: 3 * HIDDEN] = 0.2, 0.5
    return inputs[order] * factor[:, None], hidden[order] * factor[:, None], bias[order] * factor + start


def _plain_cells(model: Any) -> bool:
    """Whether the LSTMs are such as are written here: gates of plain or hard sigmoids, nothing dropped."""
    cells = [part for part in model.modules() if type(part).__name__ == "ActivationLSTMCell"]
    known = (
        torch.sigmoid,
        *(cell.gate_activation for cell in cells if cell.gate_activation.__name__ == "hard_sigmoid"),
    )
    return all(cell.gate_activation in known and cell.recurrent_dropout == 0 for cell in cells)
