"""A network of the kernels at work: windows of a waveform in, probabilities out, on any number of threads."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, ClassVar

import numpy as np

from pipeline.models.native import build
from pipeline.records import Float32, Int

BLOCKS = 4  # of as many windows as a vector has lanes, in one call of the kernels


class Network:
    """Weights and scratch memory of one network. ``precisions`` are those that this processor offers.

    A subclass names the kernels (``kernel``) and the ``length`` of their windows. Its settings are what the kernels
    are told, among it ``rows`` of the waveform and the number of ``chosen`` columns of the output.
    """

    kernel: ClassVar[str]
    length: ClassVar[int]
    blind: tuple[int, int] = (0, 0)  # positions at the start and end of an answer that the kernels leave alone
    precisions: tuple[str, ...]

    def __init__(self, settings: Any, packed: dict[str, bytes], threads: int) -> None:
        kernels = build.library()
        self._sizes, self._answers = (getattr(kernels, f"{self.kernel}_{name}") for name in ("sizes", "answers"))
        self._lanes = kernels.native_lanes()
        self._settings = settings
        self._packed = packed
        self.precisions = tuple(packed)
        self._scratch = {name: self._memory(name, threads) for name in packed}
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def answers(self, samples: Float32, windows: Int, precision: str = "fp32") -> Float32:
        """Probabilities (w, columns, length) of the windows, rows (start, samples), of ``samples`` (rows, n).

        A window shorter than the network's is demeaned and followed by zeros. Raises ValueError on a precision
        that is not among ``precisions`` and on windows that leave the samples.
        """
        if precision not in self.precisions:
            raise ValueError(f"precision {precision!r} is none of {', '.join(self.precisions)}")
        samples, plan = _with_rows(samples), self._checked(windows, samples.shape)
        if max(self._settings.rows) >= len(samples):
            raise ValueError(f"samples have {len(samples)} rows, but row {max(self._settings.rows)} is asked for")
        out = np.empty((len(plan), self._settings.chosen, self.length), np.float32)
        out[..., : self.blind[0]] = out[..., self.length - self.blind[1] :] = 0
        size = BLOCKS * self._lanes
        firsts = range(0, len(plan), size)

        def work(first: int) -> None:
            self._evaluate(precision, samples, plan[first : first + size], out[first : first + size])

        for _ in map(work, firsts) if self._pool is None else self._pool.map(work, firsts):
            pass
        return out

    def _checked(self, windows: Int, shape: tuple[int, ...]) -> Int:
        """The windows as contiguous int64 rows. Raises ValueError if one leaves the samples or is too long."""
        plan: Int = np.ascontiguousarray(windows, np.int64).reshape(-1, 2)
        start, size = plan.T
        fits = not len(plan) or (start.min() >= 0 and (start + size).max() <= shape[1])
        if not fits or (len(plan) and (size.min() < 1 or size.max() > self.length)):
            bounds = f"windows (start, samples) from {plan.min(0)} to {plan.max(0)}"
            raise ValueError(f"{bounds} do not fit {shape[1]} samples and length {self.length}")
        return plan

    def _evaluate(self, precision: str, samples: Float32, plan: Int, out: Float32) -> None:
        """One call of the kernels, with scratch memory that no other thread has."""
        scratch = self._scratch[precision].get()
        scratch_at, samples_at, plan_at, out_at = (
            ctypes.c_void_p(x.ctypes.data) for x in (scratch, samples, plan, out)
        )
        n, count, bf16 = (
            ctypes.c_int64(samples.strides[0] // samples.itemsize),
            ctypes.c_int64(len(plan)),
            ctypes.c_int32(precision == "bf16"),
        )
        told, packed = ctypes.byref(self._settings), self._packed[precision]
        try:
            self._answers(told, bf16, packed, scratch_at, samples_at, n, plan_at, count, out_at)
        finally:
            self._scratch[precision].put(scratch)

    def _memory(self, precision: str, threads: int) -> SimpleQueue[Any]:
        """Scratch memory for each thread. Raises ValueError unless the packed weights have the kernels' size."""
        weights, scratch = ctypes.c_int64(), ctypes.c_int64()
        pointers = ctypes.byref(weights), ctypes.byref(scratch)
        self._sizes(ctypes.byref(self._settings), ctypes.c_int32(precision == "bf16"), *pointers)
        if weights.value != len(self._packed[precision]):
            raise ValueError(f"{len(self._packed[precision])} bytes of weights, but the kernels read {weights.value}")
        queue: SimpleQueue[Any] = SimpleQueue()
        for _ in range(threads):
            queue.put(build.aligned(scratch.value))
        return queue


def _with_rows(samples: Float32) -> Float32:
    """``samples`` float32 with each row in one piece of memory, wherever the rows are; a copy only if need be."""
    if samples.dtype == np.float32 and samples.strides[1] == samples.itemsize and samples.strides[0] > 0:
        return samples
    return np.ascontiguousarray(samples, np.float32)
