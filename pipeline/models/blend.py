"""Overlapping answers of windows into one trace, on the device where they are."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.maths.windows import Blender
from pipeline.records import Int


def blend(answers: Tensor, windows: Int, n: int, stacking: str, blinding: tuple[int, int]) -> Tensor:
    """The trace float32 (phases, n) of ``answers`` (w, phases, length) to ``windows`` (w, 2), rows (start, samples).

    The same bytes as `pipeline.maths.windows.Blender` fed with the windows in their order.
    """
    blender = Blender(answers.shape[1], n, stacking, blinding)
    for (start, samples), answer in zip(windows.tolist(), answers.cpu().numpy(), strict=True):
        blender.add(start, samples, answer)
    return torch.from_numpy(blender.result()).to(answers.device)
