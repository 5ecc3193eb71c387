"""The longer sections of `tests.bench_gpu`: ways to launch, kernels, SeisBench beside us, reader processes."""

import os
import tempfile
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import torch

from pipeline.models import cuda, lean
from tests import bench_gpu_reader as reader
from tests.bench_gpu_tools import (
    RATE_HZ,
    engine_of,
    model_of,
    record,
    score,
    seconds,
    synchronize,
    thresholds_of,
)


def modes(setting):
    """Graphs, launches one by one, torch.compile; and the two layouts of memory."""
    out = {}
    for name in setting.pickers:
        model, _ = model_of(name)
        model.to(setting.device)
        for precision in setting.precisions:
            for label, how in _ways(model, precision, setting).items():
                out.setdefault(name, {})[f"{precision} {label}"] = _mode(model, setting, precision, how)
    return out


def _ways(model, precision, setting):
    columns = tuple(list(model.labels).index(phase) for phase in "PS")
    layouts = {
        label: lambda p, last=last: cuda.body(model, columns, p, last)
        for label, last in (("rows", False), ("channels-last", True))
    }
    ways = {f"{label} graphs": {"body_of": body} for label, body in layouts.items()}
    ways |= {f"{label} eager": {"body_of": body, "graphs": False} for label, body in layouts.items()}
    if setting.device.type == "cuda":
        ways["fused graphs"] = {"body_of": partial(_fused, model, columns)}
    return ways


def _fused(model, columns, precision):
    """Convolution, bias and rectifier in one call of cuDNN."""
    module = lean.of(model, columns, cuda.DTYPES[precision], precision in cuda.CHANNELS_LAST)
    for part in module.modules():
        if type(part) is lean.Conv and part.active:
            part.forward = partial(_fused_conv, part)
    return lambda data: module(model.annotate_batch_pre(data, argdict=model.default_args)), True


def _fused_conv(part, x):
    y = torch.cudnn_convolution_relu(x, part.weight, part.bias, (1, part.step), (0, part.pad), (1, 1), 1)
    return part.interleaved(y)


def _mode(model, setting, precision, how):
    engine = engine_of(model, setting, precision, **how)
    loaded = engine.load(record(setting.hours))
    begin = time.perf_counter()
    try:
        engine.answers(loaded, precision)
    except RuntimeError as e:  # what the library cannot do here is a figure, too
        return {"failed": f"{type(e).__name__}: {str(e)[:200]}"}
    synchronize(setting.device)
    warmup_s = time.perf_counter() - begin
    took = seconds(setting, lambda: engine.answers(loaded, precision)) * setting.per_day
    plain = engine_of(model, setting, precision, graphs=False)
    difference = engine.answers(loaded, precision) - plain.answers(loaded, precision)
    return {"s_per_day": took, "warmup_s": warmup_s, "differs_from_eager": float(difference.abs().max())}


def kernels(setting):
    """The kernels that take longest in a station-day of the network, milliseconds and how often they run."""
    activity = "CUDA" if setting.device.type == "cuda" else "CPU"
    out = {}
    for name in setting.pickers:
        model, _ = model_of(name)
        model.to(setting.device)
        for precision in setting.precisions:
            engine = engine_of(model, setting, precision)
            loaded = engine.load(record(setting.hours))
            engine.answers(loaded, precision)
            with torch.profiler.profile(activities=[getattr(torch.profiler.ProfilerActivity, activity)]) as profile:
                engine.answers(loaded, precision)
                synchronize(setting.device)
            key = "self_device_time_total" if activity == "CUDA" else "self_cpu_time_total"
            rows = sorted(profile.key_averages(), key=lambda row: -getattr(row, key))[:10]
            out.setdefault(name, {})[precision] = {
                row.key[:90]: {"ms": getattr(row, key) / 1e3 * setting.per_day, "calls": row.count} for row in rows
            }
    return out


def seisbench(setting):
    """SeisBench's `classify` of the same record on the same device, and ours, in FP32."""
    out, wave = {}, record(setting.hours)
    stream = reader.stream_of(wave.samples, wave.start_ns, RATE_HZ)
    few = replace(setting, repeats=max(1, setting.repeats // 2))
    for name in setting.pickers:
        model, real = model_of(name)
        model.to(setting.device)
        engine = engine_of(model, setting, "fp32")
        limits = thresholds_of(engine, wave, real)
        ours = seconds(setting, lambda e=engine, t=limits: score(e, e.load(wave), t)) * setting.per_day
        figures = {"ours_s": ours}
        for batch in (256, 1024):
            options = {"batch_size": batch, "P_threshold": limits[0], "S_threshold": limits[1]}
            theirs = seconds(few, lambda m=model, o=options: m.classify(stream, **o), 1) * setting.per_day
            figures[f"batches of {batch}"] = {"s": theirs, "ratio": theirs / ours}
        out[name] = figures
    return out


def readers(setting):
    """Reader processes that read miniSEED into shared memory, and one process that scores what they read."""
    out, wave = {}, record(setting.hours)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "day.mseed"
        reader.write_day(path, wave.samples, wave.start_ns, RATE_HZ)
        for name in setting.pickers[:2]:
            model, real = model_of(name)
            engine = engine_of(model.to(setting.device), setting, setting.precisions[0])
            limits, out[name] = thresholds_of(engine, wave, real), {}
            for count in setting.readers:
                if not _fits(2 * count * wave.samples.nbytes):
                    out[name][f"{count} readers"] = "skipped: /dev/shm is too small"
                    continue
                took = _fed(engine, limits, path, wave, count, setting)
                out[name][f"{count} readers"] = {"s_per_day": took * setting.per_day}
    return out


def _fits(size):
    """Whether the memory that processes share has room for ``size`` bytes."""
    shared = os.statvfs("/dev/shm")
    return size < 0.9 * shared.f_bavail * shared.f_frsize


def _fed(engine, limits, path, wave, count, setting):
    """Seconds a record with ``count`` readers, each with two places to read to, and one thread that sends."""
    blocks = [SharedMemory(create=True, size=wave.samples.nbytes) for _ in range(2 * count)]
    held = {block.name: np.ndarray(wave.samples.shape, np.float32, block.buf) for block in blocks}
    try:
        with ThreadPoolExecutor(1) as sender, ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
            list(pool.map(reader.read_day, [path] * count, list(held)[:count], [len(wave)] * count))  # they are up

            def ask(name):
                reading = pool.submit(reader.read_day, path, name, len(wave))
                return sender.submit(lambda: engine.load(replace(wave, samples=held[reading.result()]))), name

            begin = time.perf_counter()
            total = max(setting.days, 4 * count)
            return (_all_of(engine, limits, ask, list(held), total) - begin) / total
    finally:
        held.clear()
        for block in blocks:
            block.close()
            block.unlink()


def _all_of(engine, limits, ask, names, total):
    """Score ``total`` records, or as many as there are places, in the order asked for; when that was done."""
    queue, left = deque(ask(name) for name in names), total - len(names)
    while queue:
        coming, name = queue.popleft()
        loaded = coming.result()
        if left > 0:
            queue.append(ask(name))
            left -= 1
        score(engine, loaded, limits)
    return time.perf_counter()


def compiled(setting):
    """torch.compile in place of SeisBench's and our launches. Takes minutes; only if asked for with ``--only``."""
    out = {}
    for name in setting.pickers:
        model, _ = model_of(name)
        model.to(setting.device)
        columns = tuple(list(model.labels).index(phase) for phase in "PS")
        how = {"body_of": partial(_compiled, model, columns)}
        out[name] = {precision: _mode(model, setting, precision, how) for precision in setting.precisions}
    return out


def _compiled(model, columns, precision):
    return torch.compile(cuda.body(model, columns, precision)[0], dynamic=False), True
