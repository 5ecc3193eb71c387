"""A network with every kind of layer that takes a low-rank change, and what the tests of adapters share."""

import hashlib

import torch
from torch import nn


class Mixed(nn.Module):
    """(n, 3, samples) in; convolutions both ways, both recurrences, torch's attention, a linear layer."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.conv = nn.Conv1d(3, 12, 5, stride=2, padding=1, dtype=dtype)
        self.same = nn.Conv1d(12, 16, 5, padding="same", bias=False, dtype=dtype)
        self.up = nn.ConvTranspose1d(16, 16, 3, stride=2, padding=1, output_padding=1, dilation=2, dtype=dtype)
        self.norm = nn.BatchNorm1d(16, dtype=dtype)
        self.lstm = nn.LSTM(16, 8, bidirectional=True, batch_first=True, dtype=dtype)
        self.gru = nn.GRU(16, 16, batch_first=True, dtype=dtype)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True, dtype=dtype)
        self.last = nn.Linear(16, 2, dtype=dtype)

    def forward(self, x):
        x = self.norm(self.up(self.same(self.conv(x)).relu())).transpose(1, 2)
        x = self.gru(self.lstm(x)[0])[0]
        return self.last(self.attention(x, x, x)[0])


def filled(adapted, seed=1, scale=0.1):
    """Numbers in all that is trained, for instance in the B of LoRA, which is zero before training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in adapted.trainable().values():
            value.add_(scale * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    return adapted


def outputs(answer):
    return answer if isinstance(answer, tuple) else (answer,)


def hashes(model, names):
    """SHA-256 of the bytes of the tensors ``names`` of a network, read by nothing of ours."""
    found = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: hashlib.sha256(found[name].detach().numpy().tobytes()).hexdigest() for name in names}
