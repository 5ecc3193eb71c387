"""PhaseNet on single records of the microseismic test: as it is, tuned on the validation records, and adapted."""

import logging
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np

from pipeline.config import Pick
from pipeline.maths import tuning
from pipeline.maths.augment import Augmentation, Record, augmented, crop_start, cropped
from pipeline.maths.filters import Filter, filtered
from pipeline.maths.picking_scores import PHASES, Rule, judge
from pipeline.maths.picking_tables import TestSet
from pipeline.maths.resampling import resample
from pipeline.maths.targets import targets
from pipeline.models import objectives, weights
from pipeline.models.adapters import Recipe, attach
from pipeline.models.picker import Picker
from pipeline.models.training import Settings, train
from pipeline.records import Waveform
from tests import microseismic_cases as cases

WEIGHT = "phasenet/original"
WINDOW = 3001
N = {"train": (200, 40), "validation": (96, 24), "test": (264, 60)}  # earthquakes, noise
SET_SEED = 11
SETTINGS = Settings(learning_rate=1e-4, batch=8, epochs=80, patience=15, weight_decay=1e-5)
AUGMENT = Augmentation(outside=0.1, flip=0.5, rotate=0.3)
HALF_WIDTH_S = 0.1
GRID = tuple(np.round(np.arange(0.05, 1.0, 0.05), 2).tolist())
LOWEST = 0.05
CHOOSE = Rule(0.5)
DEFAULT = {"P": 0.3, "S": 0.3}
CONTROL = "lora, shuffled labels"
REPEATED = "lora, verticals repeated"
METHODS = {  # method, rate of learning, most seeds
    "lora": ("lora", 1e-4, 5),
    REPEATED: ("lora", 1e-4, 5),
    "lora, rate 1e-3": ("lora", 1e-3, 2),
    "full": ("full", 1e-4, 2),
    "norm-bias": ("norm-bias", 1e-4, 5),
    "head": ("head", 1e-4, 1),
    CONTROL: ("lora", 1e-4, 1),
}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Results:
    about: str
    tests: dict[str, TestSet]
    ours: tuple[str, ...]


@dataclass(frozen=True)
class FrontEnd:
    """How records are fed: filtered, at ``factor`` times their rate but as if at 100 Hz, and normalised by ``norm``."""

    wanted: Filter | None = None
    factor: Fraction = Fraction(1)
    norm: str = "std"
    repeat: bool = False  # a vertical alone stands for the other components, too; else they are 0

    def __str__(self):
        shape = (
            f"{self.wanted.kind} {'-'.join(f'{hz:g}' for hz in self.wanted.corners_hz)} Hz" if self.wanted else "none"
        )
        return f"filter {shape}, fed at {float(cases.RATE_HZ * self.factor):g} Hz, normalised by {self.norm}"

    def fed(self, record):
        samples = record.samples
        if self.wanted:
            n = samples.shape[1]
            samples = filtered(Waveform(samples, np.ones(n, bool), 0, cases.RATE_HZ, (True,) * 3), self.wanted)
        if self.factor != 1:
            samples = np.stack([resample(row, self.factor) for row in samples]).astype(np.float32)
        if self.repeat and not samples[1:].any():
            samples = np.repeat(samples[:1], 3, axis=0)
        by = float(self.factor)
        return Record(np.ascontiguousarray(samples), record.p * by, record.s * by)

    def network(self):
        model = weights.load(WEIGHT)
        model.norm = self.norm
        return model


FILTERS = (None, Filter("highpass", (1.0,)), Filter("highpass", (2.0,)), Filter("bandpass", (2.0, 20.0)))
FACTORS = (Fraction(1, 2), Fraction(1), Fraction(2))
FRONT_ENDS = tuple(FrontEnd(f, by, norm) for norm in ("std", "peak") for by in FACTORS for f in FILTERS)


class Examples:
    """Random crops of the training records, and of each validation record one crop for good."""

    def __init__(self, labels, training, validation):
        self.labels, self.records = labels, training
        rng = np.random.default_rng(SET_SEED)
        self.fixed = [cropped(record, crop_start(record, WINDOW, rng), WINDOW) for record in validation]

    def training(self, rng, batch):
        order = rng.permutation(len(self.records))
        yield from self._batches([augmented(self.records[k], WINDOW, AUGMENT, rng) for k in order], batch)

    def validation(self, batch):
        yield from self._batches(self.fixed, batch)

    def _batches(self, crops, batch):
        for first in range(0, len(crops), batch):
            some = crops[first : first + batch]
            p, s = (np.array([getattr(crop, phase) for crop in some]) for phase in "ps")
            answers = targets(self.labels, p, s, WINDOW, HALF_WIDTH_S * cases.RATE_HZ)
            yield np.stack([crop.samples for crop in some]), answers


def quiet(samples):
    """Whether PhaseNet stays below `cases.QUIET` for P and S in each of (k, 3, n)."""
    model = weights.load(WEIGHT)
    return np.array(
        [np.nanmax(curve) < cases.QUIET for curve in _curves(model, [Record(x, math.nan, math.nan) for x in samples])]
    )


def _curves(model, records):
    """Probabilities of P and S of each record, by the pipeline's own picker."""
    picker = Picker.from_model(model, Pick(weight=WEIGHT))
    found = []
    for record in records:
        n = record.samples.shape[1]
        there = tuple(record.samples.any(axis=1).tolist())
        found.append(picker.scores(Waveform(record.samples, np.ones(n, bool), 0, cases.RATE_HZ, there)).probability)
    return found


def _picks(curves, front, thresholds):
    rate_hz = cases.RATE_HZ * float(front.factor)
    return tuning.curve_picks(np.stack(curves), PHASES, rate_hz, thresholds)


def _tuned(curves, front, truth):
    """Thresholds by F1 on the validation records, and the mean of the two F1."""
    at = tuning.curves(np.stack(curves), PHASES, cases.RATE_HZ * float(front.factor))
    chosen = [tuning.choose(truth, phase, at, GRID, CHOOSE) for phase in PHASES]
    return {one.phase: one.threshold for one in chosen}, float(np.mean([one.f1 for one in chosen]))


def sets():
    """The three parts; noise where PhaseNet is quiet."""
    found = {}
    for part in cases.PARTS:
        calm = cases.noise(part, quiet)
        found[part] = cases.singles(part, calm, *N[part], SET_SEED)
        log.info("%s: %d pieces of noise, %d earthquakes", part, len(calm), len(cases.earthquakes(part)))
    return found


def best_front_end(given):
    """By F1 on the validation records; all of them with their F1."""
    found = []
    for front in FRONT_ENDS:
        curves = _curves(front.network(), [front.fed(record) for record in given.records])
        thresholds, f1 = _tuned(curves, front, given.truth)
        log.info("%s: F1 %.3f at %s", front, f1, thresholds)
        found.append((f1, front, thresholds))
    return max(found, key=lambda one: one[0])


def shuffled(records, rng):
    """Each earthquake with the onsets of another one."""
    which = [k for k, record in enumerate(records) if np.isfinite(record.p)]
    mixed = rng.permutation(which)
    order = dict(zip(mixed.tolist(), np.roll(mixed, 1).tolist(), strict=True))
    return [
        replace(r, p=records[order[k]].p, s=records[order[k]].s) if k in order else r for k, r in enumerate(records)
    ]


def adapted(name, seed, front, given, folder):
    """The network with its adapter merged in, the history of its training, and the shares of parameters."""
    method, rate, _ = METHODS[name]
    training, validation = ([front.fed(r) for r in given[part].records] for part in ("train", "validation"))
    if name == CONTROL:
        rng = np.random.default_rng(seed)
        training, validation = shuffled(training, rng), shuffled(validation, rng)
    model = front.network()
    put = attach(model, Recipe(method, seed=seed))
    examples = Examples(objectives.labels(model), training, validation)
    checkpoint = folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}" / "checkpoint.safetensors"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    settings = replace(SETTINGS, seed=seed, learning_rate=rate)
    history = train(put, objectives.objective(model), examples, settings, checkpoint)
    shares = put.shares()
    put.merge()
    return model, history, shares


def singles(folder, seeds):
    given = sets()
    test, check = given["test"], given["validation"]
    f1, front, thresholds = best_front_end(check)
    plain = FrontEnd()
    methods, told = {}, [f"tuned-frozen: {front}, thresholds {thresholds}, F1 on validation {f1:.3f}"]

    def score(model, how, at=None):
        found = [_curves(model, [how.fed(r) for r in part.records]) for part in (check, test)]
        at, f1 = (at, math.nan) if at else _tuned(found[0], how, check.truth)
        return _picks(found[1], how, at), at, f1

    methods["frozen"] = [score(plain.network(), plain, DEFAULT)[0]]
    methods["tuned-frozen"] = [score(front.network(), front, thresholds)[0]]
    methods["frozen, verticals repeated"] = [score(plain.network(), replace(plain, repeat=True), DEFAULT)[0]]
    picks, at, f1 = score(front.network(), replace(front, repeat=True))
    methods["tuned-frozen, verticals repeated"] = [picks]
    told.append(f"tuned-frozen, verticals repeated: thresholds {at}, F1 on validation {f1:.3f}")
    for name, (*_, most) in METHODS.items():
        for seed in range(1, min(most, seeds) + 1):
            how = replace(front, repeat=name == REPEATED)
            model, history, shares = adapted(name, seed, how, given, folder)
            picks, at, f1 = score(model, how)
            methods.setdefault(name, []).append(picks)
            told.append(
                f"{name}, seed {seed}: {shares.adapter} parameters, epoch {history.best + 1} of {history.epochs}, "
                f"loss {history.untrained:.4f} to {history.best_loss:.4f}, thresholds {at}, F1 on validation {f1:.3f}"
            )
            log.info(told[-1])
    about = "\n".join(f"- {line}" for line in [*_made_of(given), *told]) + "\n\n" + by_snr(test, methods)
    whole = TestSet(test.truth, methods)
    three = np.array([bool(record.samples.any(axis=1).all()) for record in test.records])
    only = {"of three components": three, "of a vertical alone": ~three}
    more = {f"singles {name}": rows_of(whole, rows) for name, rows in only.items()}
    return Results(about, {"singles": whole, **more}, ("lora", REPEATED, "lora, rate 1e-3", "norm-bias"))


def rows_of(whole, rows):
    """The test of some records alone, bool (n,)."""
    number = np.cumsum(rows) - 1

    def some(found):
        kept = found.take(rows[found.record])
        return replace(kept, record=number[kept.record])

    methods = {name: [some(found) for found in seeds] for name, seeds in whole.methods.items()}
    return TestSet(whole.labels.take(rows), methods)


def by_snr(test, methods):
    """Recall at 0.5 s where the SNR is low, middle and high, a mean over the seeds."""
    edges = [cases.SNR[0], 1.0, 2.0, cases.SNR[1]]
    names = [f"{phase}, SNR {low:g} to {high:g}" for phase in PHASES for low, high in pairwise(edges)]
    lines = [f"| recall at {CHOOSE.tolerance_s} s | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for method, seeds in methods.items():
        hits = {phase: np.mean([judge(test.truth, f, phase, CHOOSE).hit for f in seeds], axis=0) for phase in PHASES}
        shares = [hits[phase][(test.snr >= a) & (test.snr < b)].mean() for phase in PHASES for a, b in pairwise(edges)]
        lines.append(f"| {method} | {' | '.join(f'{share:.3f}' for share in shares)} |")
    return "\n".join(lines)


def _made_of(given):
    for part, one in given.items():
        quakes = [name for name in one.source if name]
        snr = one.snr[np.isfinite(one.snr)]
        yield (
            f"{part}: {len(quakes)} records of {len(set(quakes))} earthquakes, {one.source.count('')} of noise; "
            f"{len(set(one.noise))} pieces of noise; median SNR {np.median(snr):.2f}"
        )
