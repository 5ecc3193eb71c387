"""A small PhaseNO on networks of the microseismic test, with its edges and without those between stations."""

import logging
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from pipeline.maths import tuning
from pipeline.maths.picking_scores import PHASES, Truth
from pipeline.maths.picking_tables import TestSet
from pipeline.maths.targets import curve
from pipeline.models import phaseno
from pipeline.models.phaseno import NetworkWindow, PhaseNO
from tests import microseismic_cases as cases
from tests.microseismic_singles import CHOOSE, GRID, Results, quiet

SAMPLES = 1500
SHAPE = {"modes": 24, "width": 8, "samples": SAMPLES, "lengths": (375, 100)}
STATIONS = (4, 8)
N = {"train": 480, "validation": 40, "test": 80}
SET_SEED = 21
SIDE_KM = 24.0  # of the square that places are parts of
BATCH = 4  # networks
STEPS, CHECKS = 300, 10  # of training, and how often the validation loss is looked at
RATE = 1e-2  # of Adam, falling to 0 as a cosine
HALF_WIDTH_S = 0.15
RARE = -2.0  # logit
SEEDS = 3
EDGES = {"with edges": True, "without edges": False}
log = logging.getLogger(__name__)


def window(network, with_edges):
    """What PhaseNO is fed; without edges each station hears itself alone."""
    where = torch.from_numpy((network.places_km / SIDE_KM + 0.5).astype(np.float32))
    k = len(where)
    edges = phaseno.edges(where, None) if with_edges else torch.arange(k).repeat(2, 1)
    return NetworkWindow(torch.from_numpy(np.stack([r.samples for r in network.records])), where, edges)


def answers(network):
    p, s = (np.array([getattr(r, phase) for r in network.records]) for phase in "ps")
    rows = [curve(onset, SAMPLES, HALF_WIDTH_S * cases.RATE_HZ) for onset in (p, s)]
    return torch.from_numpy(np.stack(rows, axis=1).astype(np.float32))


def loss_of(model, some, with_edges):
    joined = phaseno.join([window(network, with_edges) for network in some])
    return phaseno.loss(model.logits(joined), torch.cat([answers(network) for network in some]))


def trained(seed, with_edges, given, path):
    """The network with the smallest validation loss of a training of `STEPS`, and what is to be told of it."""
    torch.manual_seed(seed)
    model = PhaseNO(**SHAPE)
    with torch.no_grad():
        model.fc2.bias.fill_(RARE)  # what a picker says that knows nothing
    if path.exists():
        model.load_state_dict(load_file(path))
        return model.eval(), "kept"
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    rng, best, state = np.random.default_rng(seed), math.inf, {}
    for step in range(1, STEPS + 1):
        some = [given["train"][k] for k in rng.choice(len(given["train"]), BATCH, replace=False)]
        optimiser.zero_grad()
        loss = loss_of(model, [turned(one, rng) for one in some], with_edges)
        loss.backward()
        optimiser.step()
        falling.step()
        if step % (STEPS // CHECKS) == 0:
            found = validated(model, given["validation"], with_edges)
            log.info("seed %d, edges %s, step %d: %.4f, validation %.4f", seed, with_edges, step, loss.item(), found)
            if found < best:
                best, at, state = found, step, {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return model.eval(), f"validation loss {best:.4f} at step {at} of {STEPS}"


@torch.no_grad()
def validated(model, some, with_edges):
    parts = [some[first : first + BATCH] for first in range(0, len(some), BATCH)]
    return float(np.mean([float(loss_of(model, part, with_edges)) for part in parts]))


def turned(network, rng):
    """The polarity of all stations, and the whole network about its middle, at random."""
    sign = np.float32(rng.choice([-1, 1]))
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    records = [replace(record, samples=sign * record.samples) for record in network.records]
    return replace(network, records=records, places_km=network.places_km @ turn)


@torch.inference_mode()
def curves(model, given, with_edges):
    """Probabilities (stations of all networks, 2, n)."""
    return np.concatenate([model.probabilities(window(network, with_edges)).numpy() for network in given])


def truth(given):
    """One row a station; the event is the network's, so that intervals draw whole networks."""
    rows = [(f"network {k}", r.p / cases.RATE_HZ, r.s / cases.RATE_HZ) for k, n in enumerate(given) for r in n.records]
    event, p_s, s_s = zip(*rows, strict=True)
    return Truth(np.array(event), np.array(p_s), np.array(s_s))


def sets():
    found = {}
    for part in cases.PARTS:
        calm = {name: cases.seen(samples) for name, samples in cases.noise(part, quiet).items()}
        rng = np.random.default_rng([SET_SEED, cases.PARTS.index(part)])
        found[part] = list(cases.networks(part, calm, N[part], STATIONS, SAMPLES, rng))
    return found


def networks(folder: Path, seeds: int) -> Results:
    given = sets()
    check, test = truth(given["validation"]), truth(given["test"])
    methods, told = {}, list(_made_of(given))
    for seed in range(1, min(seeds, SEEDS) + 1):
        for name, with_edges in EDGES.items():
            begun = time.process_time()
            model, how = trained(seed, with_edges, given, folder / f"phaseno-{with_edges}-{seed}.safetensors")
            spent = time.process_time() - begun
            for also in (True, False) if with_edges else (False,):
                called = name if also == with_edges else "with edges, tested without"
                at = _thresholds(curves(model, given["validation"], also), check)
                picks = tuning.curve_picks(curves(model, given["test"], also), PHASES, cases.RATE_HZ, at)
                methods.setdefault(called, []).append(picks)
                told.append(f"{called}, seed {seed}: {how}, {spent:.0f} s of CPU, thresholds {at}")
                log.info(told[-1])
    return Results("\n".join(f"- {line}" for line in told), {"networks": TestSet(test, methods)}, ("with edges",))


def _thresholds(probability, labels):
    at = tuning.curves(probability, PHASES, cases.RATE_HZ)
    return {phase: tuning.choose(labels, phase, at, GRID, CHOOSE).threshold for phase in PHASES}


def _made_of(given):
    model = PhaseNO(**SHAPE)
    yield f"PhaseNO of {SHAPE}: {sum(p.numel() for p in model.parameters()):,} parameters"
    for part, some in given.items():
        n, waves = sum(len(one.records) for one in some), {name for one in some for name in one.source}
        yield f"{part}: {len(some)} networks, {n} records of {len(waves)} earthquakes"
