"""Overlapping window answers into one trace: `pipeline.maths.windows.Blender` by our own kernels, the same bytes."""

from __future__ import annotations

import ctypes

import numpy as np

from pipeline.models.native import build
from pipeline.records import Float32, Int


class Settings(ctypes.Structure):
    """blend.h: Settings."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("rows", "length", "n", "before", "after", "by_max"))


def blend(answers: Float32, windows: Int, n: int, stacking: str = "avg", blinding: tuple[int, int] = (0, 0)) -> Float32:
    """The trace (rows, n), NaN where nothing saw, of answers (w, rows, length) to ``windows``, rows (start, samples).

    What a `Blender` gives that is fed in the order of ``windows``. Raises ValueError if shapes do not fit or a
    window leaves the trace.
    """
    if stacking not in ("avg", "max"):
        raise ValueError(f"stacking {stacking!r}, expected 'avg' or 'max'")
    plan = np.ascontiguousarray(windows, np.int64).reshape(-1, 2)
    if answers.ndim != 3 or len(answers) != len(plan):
        raise ValueError(f"answers of shape {answers.shape} to {len(plan)} windows")
    rows, length = answers.shape[1:]
    if len(plan) and (plan.min() < 0 or plan.sum(axis=1).max() > n or min(blinding) < 0):
        raise ValueError(f"windows {plan.min(0)} to {plan.max(0)}, blinding {blinding} do not fit {n} samples")
    settings = Settings(rows, length, n, *blinding, stacking == "max")
    values, out = np.ascontiguousarray(answers, np.float32), np.empty((rows, n), np.float32)
    values_at, plan_at, out_at = (ctypes.c_void_p(array.ctypes.data) for array in (values, plan, out))
    build.library().blend_answers(ctypes.byref(settings), values_at, plan_at, ctypes.c_int64(len(plan)), out_at)
    return out
