"""What the engine costs on a GPU: ``python -m tests.bench_gpu [FIGURES.json] [--only SECTION,...] [--hours H]``.

Prints tables and writes all figures as JSON, after each section (`SECTIONS`) those so far: to the path given, else
to ``$OUT/gpu.json``, else nowhere. Needs torch, SeisBench, ObsPy and NumPy, no real data and no network; weights are
those of the store (``$ORCOLAT_WEIGHTS``), else random ones. Without a GPU, or with ``--self-check``, it only tries
itself on the CPU with two minutes of noise. Times are medians after warm-up, per station-day of 24 h at 100 Hz.
"""

import argparse
import json
import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from pipeline.models import cuda, runs
from pipeline.models.networks import evaluate
from tests.bench_gpu_sections import compiled, kernels, modes, readers, seisbench
from tests.bench_gpu_tools import (
    DAY_S,
    RATE_HZ,
    Setting,
    engine_of,
    f1,
    model_of,
    peak_gb,
    record,
    score,
    seconds,
    thresholds_of,
    work_of,
)

# --- the sections ---


def ceilings(setting):
    """What this device does at most: copies, and products of random matrices, by precision."""
    device, side = setting.device, 8192 if setting.device.type == "cuda" else 256
    block = torch.randn(side * side * 16 if side > 1000 else side * side, device=device)
    out = {"copy_gb_s": 2 * block.numel() * 4 / seconds(setting, lambda: block.clone()) / 1e9}
    for name in setting.precisions:
        matrix = torch.randn(side, side, device=device).to(cuda.DTYPES[name])
        out[f"{name}_tflop_s"] = 2 * side**3 / seconds(setting, lambda m=matrix: m @ m) / 1e12
    return out


def transfers(setting):
    """A waveform to the device: as it is, by way of pinned memory, and from memory that is pinned already."""
    wave = record(setting.hours)
    here = torch.from_numpy(wave.samples)
    ways = {"pageable": lambda: here.to(setting.device), "send": lambda: cuda.send(wave.samples, setting.device)}
    if setting.device.type == "cuda":
        pinned = here.pin_memory()
        ways["pinned"] = lambda: pinned.to(setting.device, non_blocking=True)
    out = {"bytes": wave.samples.nbytes}
    for name, way in ways.items():
        took = seconds(setting, way)
        out[name] = {"s": took * setting.per_day, "gb_s": wave.samples.nbytes / took / 1e9}
    return out


def networks(setting):
    """The network alone, windows on the device to answers on the device, and its bounds."""
    limits, out = ceilings(setting), {}
    for name in setting.pickers:
        model, real = model_of(name)
        model.to(setting.device)
        out[name] = {"real_weights": real, "seisbench": _seisbench_work(model, setting)}
        for precision in setting.precisions:
            out[name][precision] = _alone(engine_of(model, setting, precision), model, setting, limits)
    return {"ceilings": limits, **out}


def _seisbench_work(model, setting):
    shape = min(64, setting.chunk), len(model.component_order), model.in_samples
    found = work_of(partial(evaluate, model, precision="fp32"), shape, setting.device)
    return {"flop_per_window": found["flop"] / shape[0], "operators": found["operators"]}


def _alone(engine, model, setting, limits):
    precision, loaded = engine.precision, engine.load(record(setting.hours))
    count = len(loaded.windows)
    shape = min(64, setting.chunk), len(model.component_order), model.in_samples
    work = work_of(engine.network._body_of(precision)[0], shape, setting.device)
    flop, moved = (work[key] / shape[0] * count * setting.per_day for key in ("flop", "bytes"))
    took = seconds(setting, lambda: engine.answers(loaded, precision)) * setting.per_day
    peak = peak_gb(setting, lambda: engine.answers(loaded, precision))
    return {
        "s_per_day": took,
        "windows_per_day": count * setting.per_day,
        "flop_per_window": work["flop"] / shape[0],
        "operators_per_chunk": work["operators"],
        "tflop_s": flop / took / 1e12,
        "gb_s": moved / took / 1e9,
        "bound_by_arithmetic_s": flop / limits[f"{precision}_tflop_s"] / 1e12,
        "bound_by_bytes_layer_by_layer_s": moved / limits["copy_gb_s"] / 1e9,
        "bound_by_bytes_in_and_out_s": DAY_S * RATE_HZ * (3 + 2) * 4 / limits["copy_gb_s"] / 1e9,
        **peak,
    }


def parts(setting):
    """Where a station-day's time goes after its transfer: windows to answers, to a trace, to runs."""
    out = {}
    for name in setting.pickers:
        model, real = model_of(name)
        engine = engine_of(model.to(setting.device), setting, "fp32")
        wave = record(setting.hours)
        thresholds, loaded = thresholds_of(engine, wave, real), engine.load(wave)
        answers = engine.answers(loaded, "fp32")
        trace = engine.trace(loaded, answers)
        steps = {
            "answers": lambda e=engine, w=loaded: e.answers(w, "fp32"),
            "trace": lambda e=engine, w=loaded, a=answers: e.trace(w, a),
            "runs": lambda t=trace, limits=thresholds: runs.find(t, limits),
        }
        out[name] = {step: seconds(setting, work) * setting.per_day for step, work in steps.items()}
    return out


def chunks(setting):
    """Other chunks: their time, their memory, and whether their answers are the same bytes."""
    out = {}
    for name in setting.pickers:
        model, _ = model_of(name)
        model.to(setting.device)
        for precision in setting.precisions:
            base = None
            for chunk in setting.chunks:
                engine = engine_of(model, setting, precision, chunk=chunk)
                loaded = engine.load(record(setting.hours))
                answers = engine.answers(loaded, precision).cpu()
                base = answers if base is None else base
                again = engine.answers(loaded, precision).cpu()
                out.setdefault(name, {})[f"{precision} {chunk}"] = {
                    "s_per_day": seconds(setting, partial(engine.answers, loaded, precision)) * setting.per_day,
                    "same_bytes_again": torch.equal(answers, again),
                    f"same_bytes_as_{setting.chunks[0]}": torch.equal(answers, base),
                    "largest_difference": float((answers - base).abs().max()),
                    **peak_gb(setting, partial(engine.answers, loaded, precision)),
                }
    return out


def agreement(setting):
    """Picks of each precision against those of FP32, and of FP32 against SeisBench's modules on the same device."""
    out = {}
    for name in setting.pickers:
        model, real = model_of(name)
        wave = record(setting.hours)
        exact = engine_of(model.to(setting.device), setting, "fp32")
        thresholds = thresholds_of(exact, wave, real)
        base = score(exact, exact.load(wave), thresholds)
        out[name] = {"real_weights": real, "picks": len(base.phase)}
        for precision in setting.precisions[1:]:
            engine = replace(exact, precision=precision)
            out[name][precision] = f1(score(engine, engine.load(wave), thresholds), base)
        network = partial(_own_body, model, exact.network.columns)
        engine = replace(exact, network=engine_of(model, setting, "fp32", body_of=network).network)
        out[name]["SeisBench's modules"] = f1(score(engine, engine.load(wave), thresholds), base)
    return out


def _own_body(model, columns, precision):
    return lambda data: evaluate(model, data, precision)[..., list(columns)].transpose(1, 2), False


def end_to_end(setting):
    """From waveforms in host memory to runs there: one by one, the next sent before one is scored, or by a thread."""
    out, waves = {}, [record(setting.hours, seed) for seed in range(2)]
    days = [waves[k % 2] for k in range(setting.days)]
    for name in setting.pickers:
        model, real = model_of(name)
        model.to(setting.device)
        for precision in setting.precisions:
            engine = engine_of(model, setting, precision)
            limits = thresholds_of(engine, waves[0], real)

            def serial(engine=engine, limits=limits):
                return [score(engine, engine.load(wave), limits) for wave in days]

            def ahead(engine=engine, limits=limits):
                loaded = engine.load(days[0])
                for following in [*days[1:], None]:
                    coming = engine.load(following) if following is not None else None
                    score(engine, loaded, limits)
                    loaded = coming

            def beside(engine=engine, limits=limits):
                with ThreadPoolExecutor(1) as loader:
                    coming = loader.submit(engine.load, days[0])
                    for following in [*days[1:], None]:
                        loaded = coming.result()
                        coming = loader.submit(engine.load, following) if following is not None else None
                        score(engine, loaded, limits)

            scale = setting.per_day / len(days)
            out.setdefault(name, {})[precision] = {
                "one_by_one_s": seconds(setting, serial, 1) * scale,
                "next_sent_ahead_s": seconds(setting, ahead, 1) * scale,
                "next_sent_by_a_thread_s": seconds(setting, beside, 1) * scale,
            }
    return out


USUAL = networks, parts, end_to_end, transfers, modes, kernels, chunks, agreement, seisbench, readers
SECTIONS = {section.__name__: section for section in (*USUAL, compiled)}


# --- the command ---


def show(name, figures, indent=""):
    """``figures`` as indented lines."""
    if not isinstance(figures, dict):
        text = f"{figures:.4g}" if isinstance(figures, float) else figures
        print(f"{indent}{name:40} {text}", flush=True)
    elif figures and not any(isinstance(value, dict) for value in figures.values()):
        flat = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())
        print(f"{indent}{name:28} {flat}", flush=True)
    else:
        print(f"{indent}{name}", flush=True)
        for key, value in figures.items():
            show(key, value, indent + "  ")


def about(setting):
    name = torch.cuda.get_device_name(setting.device) if setting.device.type == "cuda" else platform.processor()
    return {"device": name, "torch": torch.__version__, "cores": os.cpu_count(), "chunk": setting.chunk}


def prepare(device):
    """As `picker.device_of` does: plain FP32, nothing tuned at run time."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    if device.type == "cpu":
        torch.set_num_threads(1)


def tiny():
    """A setting in which every section takes a moment on one core."""
    few = {"precisions": ("fp32", "bf16"), "chunks": (16, 32), "readers": (1,), "chunk": 16}
    return Setting(torch.device("cpu"), 2 / 60, 1, 2, ("phasenet/original",), **few)


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", nargs="?", type=Path)
    parser.add_argument("--only", default=",".join(s.__name__ for s in USUAL), help="sections, by commas")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--self-check", action="store_true")
    options = parser.parse_args(arguments)
    small = options.self_check or not torch.cuda.is_available()
    if small:
        print("self-check on the CPU: these are no figures", "" if options.self_check else "(torch sees no GPU here)")
    setting = tiny() if small else Setting(torch.device("cuda", 0), options.hours)
    prepare(setting.device)
    path = options.figures or (Path(os.environ["OUT"]) / "gpu.json" if "OUT" in os.environ else None)
    found = {"about": about(setting)}
    for name in options.only.split(","):
        found[name] = SECTIONS[name](setting)
        if not small:
            show(name, found[name])
        if path:
            path.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
