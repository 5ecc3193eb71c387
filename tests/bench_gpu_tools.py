"""What `tests.bench_gpu` measures and how: records, engines, clocks and counters."""

import time
import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
import seisbench.models as sbm
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from pipeline.errors import ConfigError
from pipeline.maths import triggers
from pipeline.models import cuda, runs
from pipeline.models.engine import Engine
from pipeline.records import NS, Runs, Waveform

RATE_HZ = 100.0
DAY_S = 86_400
START_NS = 1_600_000_000 * NS // (DAY_S * NS) * (DAY_S * NS)
ROWS = {"Z": 0, "N": 1, "E": 2}
PICKERS = {
    "phasenet/original": lambda: sbm.PhaseNet(component_order="ENZ", phases="NPS"),
    "eqtransformer/original": lambda: sbm.EQTransformer(component_order="ENZ", original_compatible="non-conservative"),
    "eqtransformer/conservative": lambda: sbm.EQTransformer(component_order="ENZ", original_compatible="conservative"),
}


@dataclass(frozen=True)
class Setting:
    """How much is measured, and where."""

    device: torch.device
    hours: float = 24.0
    repeats: int = 5
    days: int = 8  # of the end-to-end measurement
    pickers: tuple[str, ...] = tuple(PICKERS)
    precisions: tuple[str, ...] = ("fp32", "bf16", "fp16")
    chunks: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    readers: tuple[int, ...] = (1, 2, 4, 8, 16)
    chunk: int = cuda.CHUNK

    @property
    def per_day(self):
        return 24 / self.hours


# --- what is measured ---


def model_of(name):
    """A model with its published weights if they are at hand; and whether they are."""
    try:
        from pipeline.models import weights

        return weights.load(name), True
    except (ImportError, ConfigError):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return PICKERS[name]().eval(), False


@cache
def record(hours, seed=0):
    """Red noise with a burst every five minutes: some have onsets that networks take for P and S."""
    rng = np.random.default_rng(seed)
    n = round(hours * 3600 * RATE_HZ)
    samples = rng.standard_normal((3, n)).astype(np.float32) * 100
    samples[:, 1:] += 0.8 * samples[:, :-1]
    shape = np.exp(-np.arange(4000) / 700).astype(np.float32)
    for at in range(3000, n - 5000, 30_000):
        for delay, rows, size in ((0, slice(0, 1), 1500), (int(rng.integers(200, 900)), slice(1, 3), 4000)):
            burst = rng.standard_normal((samples[rows].shape[0], 4000)).astype(np.float32) * shape * size
            samples[rows, at + delay : at + delay + 4000] += burst
    return Waveform(samples, np.ones(n, bool), START_NS, RATE_HZ, (True, True, True))


def engine_of(model, setting, precision, **how):
    """The engine that the picker builds, with the model's own windows; ``how`` goes to `cuda.Chunked`."""
    own = {**{key: value for key, (_, value) in model._annotate_args.items()}, **model.default_args}
    rows = tuple(ROWS[component] for component in model.component_order)
    columns = tuple(list(model.labels).index(phase) for phase in "PS")
    network = cuda.Chunked(model, setting.device, rows, columns, **({"chunk": setting.chunk} | how))
    window = {"length": model.in_samples, "overlap": int(own["overlap"]), "blinding": tuple(own["blinding"])}
    return Engine(network, setting.device, precision, RATE_HZ, stacking=own["stacking"], **window)


def score(engine, loaded, thresholds):
    """From windows on the device to runs on the host."""
    trace = engine.trace(loaded, engine.answers(loaded, engine.precision))
    found = runs.find(trace, thresholds)
    return Runs(*found, ("P", "S"), loaded.n, loaded.start_ns, loaded.rate_hz)


def thresholds_of(engine, wave, real):
    """Those of the literature; of random weights such as give some runs."""
    if real:
        return 0.3, 0.3
    loaded = engine.load(wave)
    trace = engine.trace(loaded, engine.answers(loaded, engine.precision)).cpu().numpy()
    return tuple(float(np.nanquantile(row, 0.9999)) for row in trace)


# --- how it is measured ---


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(setting, work, warmups=2):
    """Median wall seconds of ``work``, the device's included."""
    times = []
    for turn in range(warmups + setting.repeats):
        synchronize(setting.device)
        begin = time.perf_counter()
        work()
        synchronize(setting.device)
        times += [time.perf_counter() - begin] if turn >= warmups else []
    return float(np.median(times))


class Traffic(TorchDispatchMode):
    """Counts operators that compute, and the bytes that they read and write: what unfused kernels move."""

    def __init__(self):
        super().__init__()
        self.bytes = self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            held = [t for t in torch.utils._pytree.tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in held)
            self.calls += 1
        return out


def work_of(body, shape, device):
    """FLOP, bytes and operators of one batch of windows."""
    data = torch.randn(shape, device=device)
    with torch.no_grad():
        with FlopCounterMode(display=False) as flop:
            body(data)
        with Traffic() as traffic:
            body(data)
    return {"flop": flop.get_total_flops(), "bytes": traffic.bytes, "operators": traffic.calls}


def f1(ours, theirs, tolerance=2):
    """Agreement of the picks of two `Runs`: one to one, of the same phase, within ``tolerance`` samples."""
    (at, *_), (other, *_) = triggers.peaks(ours), triggers.peaks(theirs)
    matched = 0
    for phase in (0, 1):
        left = other[theirs.phase == phase].tolist()
        for sample in at[ours.phase == phase].tolist():
            near = [x for x in left if abs(x - sample) <= tolerance]
            if near:
                left.remove(min(near, key=lambda x: abs(x - sample)))
                matched += 1
    return 2 * matched / max(len(at) + len(other), 1)


def peak_gb(setting, work):
    if setting.device.type != "cuda":
        return {}
    torch.cuda.reset_peak_memory_stats(setting.device)
    work()
    synchronize(setting.device)
    peak = torch.cuda.max_memory_allocated(setting.device), torch.cuda.max_memory_reserved(setting.device)
    return {"peak_allocated_gb": peak[0] / 1e9, "peak_reserved_gb": peak[1] / 1e9}
