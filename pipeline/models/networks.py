"""Windows in, probabilities out: the ways in which a model can be evaluated.

A network's answer to a window depends on that window alone, to the bit, or on the group that it is scored with
(``by_group``); never on the number of threads. The first way is SeisBench's own code; the others must agree with it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.records import Int

BATCH = 32  # windows of one call of SeisBench's network; always as many, so that results do not depend on batching
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Network(Protocol):
    """``precisions`` that it can compute in; normalisation and probabilities are FP32 in each of them.

    ``by_group``: the last bits depend on which windows are scored together, so that each group of windows, see
    `pipeline.maths.windows.Plan`, must be scored on its own.
    """

    @property
    def precisions(self) -> tuple[str, ...]: ...

    @property
    def by_group(self) -> bool: ...

    def answers(self, samples: Tensor, windows: Int, precision: str) -> Tensor:
        """Probabilities float32 (w, phases, length) of the ``windows`` (w, 2), rows (start, samples).

        ``samples`` float32 (3, n), rows Z N E, on the network's device. A window with fewer samples than the
        model's length is demeaned and followed by zeros.
        """
        ...


@dataclass(frozen=True, slots=True)
class SeisBench:
    """A SeisBench WaveformModel by its own `annotate_batch_pre`, `forward` and `annotate_batch_post`.

    ``rows`` of the waveform in the order of the model's components; ``columns`` of its output that are wanted.
    """

    model: Any
    device: torch.device
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    threads: int = 1
    by_group: bool = True

    @property
    def precisions(self) -> tuple[str, ...]:
        return precisions_of(self.model)

    def answers(self, samples: Tensor, windows: Int, precision: str) -> Tensor:
        """See `Network`. One thread a batch: torch's own threads would change the last bits."""
        batches = [windows[first : first + BATCH] for first in range(0, len(windows), BATCH)]
        torch.set_num_threads(1)
        if self.threads == 1 or len(batches) == 1:
            parts = [self._batch(samples, batch, precision) for batch in batches]
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                parts = list(pool.map(lambda batch: self._batch(samples, batch, precision), batches))
        return torch.cat(parts)

    def _batch(self, samples: Tensor, batch: Int, precision: str) -> Tensor:
        length = int(self.model.in_samples)
        data = torch.zeros((BATCH, len(self.rows), length), dtype=torch.float32, device=self.device)
        for at, (start, size) in enumerate(batch.tolist()):
            window = samples[list(self.rows), start : start + size]
            data[at, :, :size] = window if size == length else window - window.mean(dim=1, keepdim=True)
        answer = evaluate(self.model, data, precision)
        return answer[: len(batch), :, list(self.columns)].transpose(1, 2).contiguous()


def precisions_of(model: Any) -> tuple[str, ...]:
    """What SeisBench's own code can compute ``model`` in: where an encoder pads with -1e10, that is not FP16."""
    pads = any(any(getattr(part, "paddings", ())) for part in model.modules())
    return ("fp32", "bf16") if pads else ("fp32", "bf16", "fp16")


def evaluate(model: Any, data: Tensor, precision: str) -> Tensor:
    """What a SeisBench WaveformModel makes of ``data`` float32 (b, components, in_samples): float32.

    It is (b, samples, labels) of a model with the output "array", and (b, labels) of one with the output "point".
    """
    arguments = {**model.default_args, "blinding": (0, 0), "sampling_rate": model.sampling_rate}
    low = torch.autocast(data.device.type, DTYPES[precision]) if precision != "fp32" else nullcontext()
    with torch.inference_mode():
        prepared = model.annotate_batch_pre(data, argdict=arguments)
        with low:
            answer = model(prepared)
        answer = tuple(part.float() for part in answer) if isinstance(answer, tuple) else answer.float()
        out: Tensor = model.annotate_batch_post(answer, piggyback=None, argdict=arguments)
    return out
