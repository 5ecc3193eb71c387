"""A network on a GPU: many windows at once, in chunks of fixed sizes, recorded once and replayed.

What a window's answer is must not depend on how much memory is free or how many ranks there are, to the bit. But a
GPU library takes other kernels for other batch sizes. Therefore windows are scored in chunks of `CHUNK`, filled up
with zeros, and a group of fewer in the next power of two: a seam's windows (`maths.windows`) are the same batch in
both shards. Nothing is tuned at run time, since two ranks might tune differently.

A chunk is one CUDA graph: the networks are hundreds of kernels of microseconds (EQTransformer's recurrence alone
four times 47 steps of 8), which cost more to launch than to run. There is one graph for each precision and size, a
power of two from `SMALLEST` to `CHUNK`: seven sizes. A model without a lean form (`lean`) is not recorded: what
SeisBench's code does on the host between its kernels is not known.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.models import lean
from pipeline.models.networks import DTYPES, evaluate, precisions_of
from pipeline.records import Float32, Int

log = logging.getLogger(__name__)

CHUNK = 1024  # windows at once: a day in few chunks, about 1 GB for the largest intermediate results of either network
SMALLEST = 16
WARMUPS = 3  # runs before a graph is recorded: libraries set themselves up in the first ones
CHANNELS_LAST = ("bf16", "fp16")  # what tensor cores read without a transposition
Body = Callable[[Tensor], Tensor]  # raw windows float32 (k, components, in) to probabilities float32 (k, phases, out)


@dataclass(frozen=True, slots=True)
class Sent:
    """Samples float32 (3, n) on a device, or on their way to it until ``ready``."""

    there: Tensor
    ready: torch.cuda.Event | None = None

    @property
    def samples(self) -> Tensor:
        """The samples, for work that is given to the current stream from now on."""
        if self.ready is not None:
            stream = torch.cuda.current_stream(self.there.device)
            stream.wait_event(self.ready)
            self.there.record_stream(stream)
        return self.there


def send(samples: Float32, device: torch.device) -> Sent:
    """``samples`` (3, n) to the ``device``; to a GPU through pinned memory, beside what it computes meanwhile.

    They may be changed once this returns, if the device is a GPU; on the CPU they are shared, not copied.
    """
    here = torch.from_numpy(samples if min(samples.strides) > 0 else np.ascontiguousarray(samples))
    if device.type != "cuda":
        return Sent(here.to(device))
    with torch.cuda.stream(_copies(device)):
        there = here.pin_memory().to(device, non_blocking=True)
        return Sent(there, torch.cuda.current_stream(device).record_event())


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    """The stream of all transfers to a device."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def body(model: Any, columns: tuple[int, ...], precision: str, channels_last: bool | None = None) -> tuple[Body, bool]:
    """What makes probabilities of ``columns`` of raw windows in a ``precision``, and whether it can be recorded.

    Normalisation is the model's own, in FP32.
    """
    last = precision in CHANNELS_LAST if channels_last is None else channels_last
    module = lean.of(model, columns, DTYPES[precision], last)
    chosen = torch.tensor(columns, device=next(model.parameters()).device)
    if module is None:
        return lambda data: evaluate(model, data, precision).index_select(2, chosen).transpose(1, 2), False
    arguments = {**model.default_args, "blinding": (0, 0), "sampling_rate": model.sampling_rate}
    return lambda data: module(model.annotate_batch_pre(data, argdict=arguments)), True


class Chunked:
    """A `Network` of a SeisBench WaveformModel, in chunks. ``rows`` and ``columns`` are those of `SeisBench`.

    ``body_of`` a precision gives another body than `body` does; ``graphs`` False: launch kernel by kernel.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device,
        rows: tuple[int, ...],
        columns: tuple[int, ...],
        *,
        chunk: int = CHUNK,
        graphs: bool = True,
        body_of: Callable[[str], tuple[Body, bool]] | None = None,
    ) -> None:
        self.device, self.columns, self.chunk = device, columns, chunk
        self.by_group = True
        self._rows = torch.tensor(rows, device=device)
        self._length = int(model.in_samples)
        known = DTYPES if body_of or lean.covers(model, columns) else precisions_of(model)
        old = device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)
        self.precisions = tuple(name for name in known if name != "bf16" or not old)
        self._body_of = cache(body_of or partial(body, model, columns))
        self._graphs = graphs and device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if self._graphs else None
        self._runners: dict[tuple[str, int], Runner] = {}
        self._lock = Lock()  # the runners' memory is shared

    def answers(self, samples: Tensor, windows: Int, precision: str) -> Tensor:
        """See `Network`. Out of memory, the chunk is halved for good.

        Raises ConfigError if there is no room for `SMALLEST` windows.
        """
        with self._lock, torch.no_grad(), _on(self.device):
            while True:
                size = self._size(len(windows))
                found = self._tried(samples, windows, precision, size)
                if found is not None:
                    return found
                self._make_room(size)

    def _size(self, group: int) -> int:
        """How many windows at once for a ``group``."""
        return max(SMALLEST, min(self.chunk, 1 << max(group - 1, 0).bit_length()))

    def _tried(self, samples: Tensor, windows: Int, precision: str, size: int) -> Tensor | None:
        """None: out of memory. What the failed attempt held is free once this has returned."""
        try:
            return self._all(samples, windows, precision, size)
        except RuntimeError as e:
            if not isinstance(e, torch.OutOfMemoryError) and "ALLOC_FAILED" not in str(e):  # cuDNN's and cuBLAS's word
                raise
            return None

    def _make_room(self, size: int) -> None:
        """Forget all that is recorded; if that was not it, halve the chunk."""
        recorded = len(self._runners)
        self._runners.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            self._pool = torch.cuda.graph_pool_handle() if self._graphs else None  # the old one may be half alive
        if recorded > 1:
            return  # others held memory, too: once more, with this one alone
        if self.chunk // 2 < SMALLEST:
            raise ConfigError(
                f"compute.device {str(self.device)!r}: no memory for {size} windows at once: take a GPU with more free "
                "memory or fewer processes on it, pick.precision 'bf16' or 'fp16', or compute.device 'cpu'"
            )
        log.warning(
            "%s is out of memory: %d windows at once from now on instead of %d; probabilities may differ in their "
            "last bits from those before, and from another process's",
            self.device, self.chunk // 2, self.chunk,
        )  # fmt: skip
        self.chunk //= 2

    def _all(self, samples: Tensor, windows: Int, precision: str, size: int) -> Tensor:
        table = _moved(windows, self.device)
        runner = self._runner(precision, size)
        out = torch.empty(0, device=self.device)
        for first in range(0, len(windows), size):
            some = slice(first, min(first + size, len(windows)))
            count, short = some.stop - first, bool((windows[some, 1] < self._length).any())
            runner.windows[:count] = (cut_short if short else cut)(samples, self._rows, table[some], self._length)
            runner.windows[count:] = 0
            answer = runner()
            if first == 0:
                out = torch.empty((len(windows), *answer.shape[1:]), device=self.device)
            out[some] = answer[:count]
        return out

    def _runner(self, precision: str, size: int) -> Runner:
        if (precision, size) not in self._runners:
            compute, recordable = self._body_of(precision)
            shape = size, len(self._rows), self._length
            pool = self._pool if recordable else None
            self._runners[precision, size] = Runner(compute, shape, self.device, pool)
        return self._runners[precision, size]


class Runner:
    """``compute`` on the one place of memory ``windows``, of ``shape``; recorded as a graph if there is a ``pool``."""

    def __init__(self, compute: Body, shape: tuple[int, ...], device: torch.device, pool: Any) -> None:
        self.windows = torch.zeros(shape, device=device)
        self._compute = compute
        self._graph = self._record(pool) if pool is not None else None

    def _record(self, pool: Any) -> torch.cuda.CUDAGraph:
        device = self.windows.device
        beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            for _ in range(WARMUPS):
                self._compute(self.windows)
        torch.cuda.current_stream(device).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Another thread may ask for memory meanwhile, to send the next waveform: that must not break the recording.
        # A stream of its own, for what libraries keep with a stream must not go when another graph goes.
        with torch.cuda.graph(graph, pool=pool, stream=beside, capture_error_mode="thread_local"):
            self._answer = self._compute(self.windows)
        return graph

    def __call__(self) -> Tensor:
        """The answer to ``windows``; of a graph it stays until the next call only."""
        if self._graph is None:
            return self._compute(self.windows)
        self._graph.replay()
        return self._answer


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """The device as the current one: a graph is recorded and replayed there."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _moved(values: Int, device: torch.device) -> Tensor:
    """``values`` on the ``device`` without waiting for it."""
    here = torch.from_numpy(np.ascontiguousarray(values))
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here


def cut(samples: Tensor, rows: Tensor, table: Tensor, length: int) -> Tensor:
    """Windows (k, rows, length) of ``samples`` (3, n) at ``table`` (k, 2), rows (start, length)."""
    return samples.unfold(1, length, 1)[rows[None, :], table[:, :1]]


def cut_short(samples: Tensor, rows: Tensor, table: Tensor, length: int) -> Tensor:
    """As `cut`, and those of fewer samples (start, samples) are demeaned and followed by zeros."""
    start, size = table[:, :1, None], table[:, 1:, None]
    offset = torch.arange(length, device=samples.device)
    inside = offset < size
    data = samples[rows[None, :, None], (start + offset).clamp(max=samples.shape[1] - 1)] * inside
    mean = data.sum(dim=2, keepdim=True) / size
    return torch.where(inside & (size < length), data - mean, data)
