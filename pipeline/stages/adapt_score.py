"""Picks of adapted networks, of their base and of others, on records that they were not trained on."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.adaptdir import ALL, AdaptDir, Unit
from pipeline.config import Compute, Config, Pick
from pipeline.config.pick import Windows
from pipeline.config.weight_names import of_network
from pipeline.formats import tables
from pipeline.formats.labelled_cache import Cache
from pipeline.maths import picking_scores, splits, stalta, tuning
from pipeline.maths.filters import Filter, filtered
from pipeline.maths.picking_scores import PHASES, Bootstrap, Found, Rule, Truth
from pipeline.maths.resampling import resample
from pipeline.maths.signals import repeated
from pipeline.maths.stalta import StaLta
from pipeline.models import adapter_store, weights
from pipeline.models.adapter_file import Base
from pipeline.models.network_picker import NetworkPicker
from pipeline.models.phaseno import PhaseNO
from pipeline.models.picker import Picker
from pipeline.records import Float32, Int, Labelled, RecordPicks, Scores, Waveform
from pipeline.rundir import publish
from pipeline.stages import adapt_networks
from pipeline.stages.adapt_data import Prepared, waveform

log = logging.getLogger(__name__)
AT_ONCE = 64  # records whose curves are in memory
WEAK = 0.05  # threshold of the picks that a reliability curve is made of
GIVEN, TUNED, WEAKLY = "given", "tuned", "weak"
HOWS = (GIVEN, TUNED, WEAKLY)
SIGMA = Bootstrap(500, 0.6827)  # half of the interval is a standard error
FED, STALTA = "tuned-frozen", "sta-lta"
RATES = (1.0, 0.5, 2.0)  # a record is also tried as if it were sampled so much faster
FILTERS: tuple[Filter | None, ...] = (None, Filter("highpass", (1.0,)), Filter("bandpass", (2.0, 30.0)))
NORMS = ("std", "peak")


@dataclass(frozen=True, slots=True)
class Feeding:
    """How records are given to a network: a lone component thrice, at another rate, filtered, normalised otherwise."""

    repeat: bool = False
    rate: float = 1.0
    filter: Filter | None = None
    norm: str = ""

    def __str__(self) -> str:
        rate = f"at {self.rate:g} times its rate" if self.rate != 1 else "at its rate"
        filter_ = f"{self.filter.kind} {'-'.join(f'{f:g}' for f in self.filter.corners_hz)} Hz" if self.filter else ""
        repeat = "a lone component in place of the others" if self.repeat else ""
        return ", ".join(
            text for text in (rate, repeat, filter_, f"normalised by {self.norm}" if self.norm else "") if text
        )


@dataclass(frozen=True, slots=True)
class Given:
    """Some records of one set."""

    cache: Cache
    index: Int

    @property
    def rows(self) -> Labelled:
        return self.cache.rows.take(self.index)

    @property
    def truth(self) -> Truth:
        rows = self.rows
        return picking_scores.truth(rows.event, rows.p_sample, rows.s_sample, rows.rate_hz)

    def pieces(self) -> Iterator[tuple[int, list[Waveform]]]:
        """Some records at a time, and the place of the first; nothing that may not be used is in them."""
        for at in range(0, len(self.index), AT_ONCE):
            index = self.index[at : at + AT_ONCE]
            rows, samples = self.cache.rows.take(index), self.cache.read(index)
            yield at, [waveform(rows, samples, k) for k in range(len(index))]


@dataclass(frozen=True, slots=True)
class Tuned:
    """Thresholds by phase, the mean F1 of P and S with them, and its standard error (by events)."""

    thresholds: dict[str, float]
    f1: float
    sigma: float


Curves = Iterator[tuple[Int, Float32, float]]  # places (k,) of records, their P and S (k, 2, n), and the rate of these
PLAIN = Pick(threshold_p=WEAK, threshold_s=WEAK, allow_unchecked_precision=True)


def _alone(model: Any, config: Config, feeding: Feeding) -> Callable[[Given], Curves]:
    """The curves of a picker of stations, some records at a time."""
    compute = _compute(config)
    if feeding.norm and feeding.norm != getattr(model, "norm", feeding.norm):  # some have none
        model.norm, compute = feeding.norm, compute.model_copy(update={"engine": "seisbench"})
    picker = Picker.from_model(model, PLAIN, compute)

    def curves(given: Given) -> Curves:
        for at, waveforms in given.pieces():
            fed = [feed(one, feeding, picker.rate_hz) for one in waveforms]
            found = _known([picker.scores(one) for one in fed])
            yield np.arange(at, at + len(found)), found, picker.rate_hz * feeding.rate

    return curves


def _together(model: PhaseNO, config: Config) -> Callable[[Given], Curves]:
    """The curves of a picker of networks, a network at a time; only the records that are given are heard."""
    picker = NetworkPicker.from_network(model, PLAIN, _compute(config))

    def curves(given: Given) -> Curves:
        place = {row: k for k, row in enumerate(given.index.tolist())}
        for group in adapt_networks.groups(given.cache.rows, given.index, config.pick.networks):
            found = _known(picker.scores(adapt_networks.record(given.cache, group)))
            yield np.array([place[row] for row in group.index.tolist()], np.int64), found, picker.rate_hz

    return curves


def _compute(config: Config) -> Compute:
    return Compute(threads=config.compute.threads, device=config.compute.device)


def _known(found: Sequence[Scores]) -> Float32:
    return np.stack([np.nan_to_num(one.probability, nan=0.0) for one in found])


class Scored:
    """A network on records: its curves, and what is picked of them. A PhaseNO is fed in one way."""

    def __init__(self, model: Any, config: Config, feeding: Feeding | None = None) -> None:
        of_networks = isinstance(model, PhaseNO)
        self.curves = _together(model, config) if of_networks else _alone(model, config, feeding or Feeding())
        self._apart_s = config.pick.min_separation_s

    def picks(self, given: Given, ways: Mapping[str, dict[str, float]]) -> dict[str, Found]:
        """What is picked, by the name of its thresholds; times of the records themselves."""
        parts: dict[str, list[Found]] = {how: [] for how in ways}
        for at, probability, rate_hz in self.curves(given):
            for how, thresholds in ways.items():
                found = tuning.curve_picks(probability, PHASES, rate_hz, thresholds, self._apart_s)
                parts[how].append(replace(found, record=at[found.record]))
        return {how: Found.concat(some) for how, some in parts.items()}

    def tuned(self, given: Given, rule: Rule, start: dict[str, float]) -> Tuned:
        """Thresholds of the best F1 on these records."""
        kept = list(self.curves(given))

        def at(threshold: float) -> Found:
            wanted = dict.fromkeys(PHASES, threshold)
            parts = [(rows, tuning.curve_picks(p, PHASES, hz, wanted, self._apart_s)) for rows, p, hz in kept]
            return Found.concat([replace(found, record=rows[found.record]) for rows, found in parts])

        picks, labels = {threshold: at(threshold) for threshold in tuning.GRID}, given.truth
        chosen = {p: tuning.choose(labels, p, picks.__getitem__, tuning.GRID, rule, start[p]) for p in PHASES}
        found = {p: picks.get(one.threshold) or at(one.threshold) for p, one in chosen.items()}
        scores = [picking_scores.scores([picking_scores.judge(labels, found[p], p, rule)], SIGMA) for p in PHASES]
        f1 = [one.metrics["f1"] for one in scores]
        values, widths = (np.nan_to_num(x) for x in zip(*((one.value, one.high - one.low) for one in f1), strict=True))
        thresholds = {phase: one.threshold for phase, one in chosen.items()}
        return Tuned(thresholds, float(values.mean()), 0.25 * math.hypot(*widths))


def feed(given: Waveform, how: Feeding, rate_hz: float) -> Waveform:
    """A record at ``rate_hz`` times ``how.rate``, which the network takes for ``rate_hz``."""
    wave = repeated(given) if how.repeat else given
    wave = wave if how.filter is None else replace(wave, samples=filtered(wave, how.filter))
    factor = Fraction(rate_hz * how.rate / given.rate_hz).limit_denominator(1000)
    samples, valid = wave.samples, wave.valid
    if factor != 1:
        samples = np.ascontiguousarray(np.stack([resample(row, factor) for row in samples]), np.float32)
        at = np.minimum(np.arange(samples.shape[1]) / float(factor), len(wave) - 1).astype(np.int64)
        valid = wave.valid[at]
    return Waveform(samples, valid, 0, rate_hz, wave.components)


def thresholds(config: Config) -> dict[str, float]:
    return {"P": config.pick.threshold_p, "S": config.pick.threshold_s}


def of_unit(folder: AdaptDir, config: Config, unit: Unit, sets: list[Prepared]) -> None:
    """Publish the picks of a trained unit on what it has not seen."""
    if unit.fold == ALL or folder.picks(unit.id).exists():
        return
    name = config.pick.weight
    model = adapter_store.load(weights.load(name), folder.adapter(unit), Base(name, weights.digest(name)))
    scored = Scored(model, config)
    keep(folder.picks(unit.id), every(sets, unit.fold, lambda v: tune(scored, config, v), scored_at(scored, config)))


Picking = Callable[[Given, dict[str, float]], dict[str, Found]]  # what is picked in each of `HOWS`


def scored_at(scored: Scored, config: Config) -> Picking:
    """Picks of ``scored`` by what `HOWS` means."""
    fixed = {GIVEN: thresholds(config), WEAKLY: dict.fromkeys(PHASES, WEAK)}
    return lambda given, tuned: scored.picks(given, {**fixed, TUNED: tuned})


def rule(config: Config) -> Rule:
    """By which thresholds are chosen."""
    return Rule(config.adapt.tolerances_s[0])


def largest(validation: Sequence[Given]) -> Given:
    """The records of the set that has most labels: on these all is tuned."""
    return max(validation, key=lambda given: int(given.rows.has_pick.sum()))


def tune(scored: Scored, config: Config, validation: Sequence[Given]) -> dict[str, float]:
    """Thresholds chosen on validation records."""
    return scored.tuned(largest(validation), rule(config), thresholds(config)).thresholds


def every(
    sets: list[Prepared], fold: int, choose: Callable[[list[Given]], dict[str, float]], picking: Picking
) -> tuple[RecordPicks, dict[str, float]]:
    """Picks on the test records of a fold and on replay sets, in every way, and the thresholds that were chosen."""
    validation = [Given(o.cache, o.of(fold, splits.VALIDATION)) for o in sets if not o.settings.replay]
    chosen = choose(validation)
    seen = [one for one in sets if fold < len(one.parts)]  # some have fewer folds: each record once
    parts = []
    for one in seen:
        given = Given(one.cache, one.of(fold, splits.TEST))
        found = picking(given, chosen)
        parts += [_rows(found[how], given.rows, one.settings.name, how) for how in HOWS]
    return RecordPicks.concat(parts), chosen


def _rows(found: Found, rows: Labelled, name: str, how: str) -> RecordPicks:
    n = len(found)
    record = rows.id[found.record] if n else np.empty(0, "U1")
    order = np.lexsort((found.time_s, found.phase, record))
    columns = (np.full(n, name), np.full(n, how), record, found.phase, found.time_s, found.probability)
    return RecordPicks(*columns).take(order)


def keep(path: Path, found: tuple[RecordPicks, dict[str, float]], **more: str) -> None:
    """Publish picks, and with them the thresholds that were chosen and what ``more`` there is to say."""
    rows, chosen = found
    about = {f"threshold_{phase.lower()}": repr(value) for phase, value in chosen.items()}
    with publish(path) as part:
        tables.write(part, rows, about | more)


def frozen(folder: AdaptDir, config: Config, weight: str, fold: int, sets: list[Prepared]) -> None:
    """Publish the picks of a weight as it is; its thresholds tuned on the fold's validation records."""
    name = f"{slug(weight)}-fold{fold}"
    if not folder.picks(name).exists():
        scored = Scored(weights.load(weight), config)
        keep(folder.picks(name), every(sets, fold, lambda v: tune(scored, config, v), scored_at(scored, config)))


def fed_otherwise(folder: AdaptDir, config: Config, fold: int, sets: list[Prepared]) -> None:
    """Publish the picks of the base, fed otherwise if the validation records say so: the tuned baseline.

    Of all `feedings` the first whose F1 is within one standard error of the best (Breiman et al. 1984, section 3.4.3):
    on a dozen of records the best of 27 is mostly luck.
    """
    name = f"{FED}-fold{fold}"
    if folder.picks(name).exists():
        return
    fed: list[Feeding] = []

    def choose(validation: list[Given]) -> dict[str, float]:
        most = largest(validation)
        tried = [(how, _scored(config, how).tuned(most, rule(config), thresholds(config))) for how in feedings(config)]
        best = max((one for _, one in tried), key=lambda one: one.f1)
        how, chosen = next((how, one) for how, one in tried if one.f1 >= best.f1 - best.sigma)
        log.info("fold %d: F1 %.3f, at best %.3f +- %.3f: fed %s", fold, chosen.f1, best.f1, best.sigma, how)
        fed.append(how)
        return chosen.thresholds

    def picking(given: Given, tuned: dict[str, float]) -> dict[str, Found]:
        return scored_at(_scored(config, fed[0]), config)(given, tuned)

    found = every(sets, fold, choose, picking)
    keep(folder.picks(name), found, feeding=str(fed[0]))


def feedings(config: Config) -> list[Feeding]:
    """All ways of feeding that are tried, the network's own first; a PhaseNO has that one alone."""
    if not config.adapt.feeding or of_network(config.pick.weight):
        return [Feeding()]
    ways = product(("", *NORMS), FILTERS, RATES, (False, True))
    return [Feeding(repeat, rate, filter_, norm) for norm, filter_, rate, repeat in ways]


def _scored(config: Config, feeding: Feeding) -> Scored:
    return Scored(weights.load(config.pick.weight), config, feeding)


def by_stalta(folder: AdaptDir, config: Config, fold: int, sets: list[Prepared]) -> None:
    """Publish the picks of STA/LTA with AIC, its ratios tuned on the fold's validation records."""
    name = f"{STALTA}-fold{fold}"
    if folder.picks(name).exists():
        return
    start = StaLta()

    def choose(validation: list[Given]) -> dict[str, float]:
        most = largest(validation)
        traces = [one for _, piece in _traces(most, start) for one in piece]
        found = stalta.tuned(traces, most.truth, rule(config), start)
        return {"P": found.p_on, "S": found.s_on}

    def picking(given: Given, tuned: dict[str, float]) -> dict[str, Found]:
        chosen = replace(start, p_on=tuned["P"], s_on=tuned["S"])
        untuned = _picked(given, start)
        return {GIVEN: untuned, TUNED: _picked(given, chosen), WEAKLY: untuned}

    keep(folder.picks(name), every(sets, fold, choose, picking))


def _picked(given: Given, settings: StaLta) -> Found:
    pieces = [(at, stalta.pick(traces, settings)) for at, traces in _traces(given, settings)]
    return Found.concat([replace(found, record=found.record + at) for at, found in pieces])


def _traces(given: Given, settings: StaLta) -> Iterator[tuple[int, list[stalta.Traces]]]:
    """Some records at a time, and the place of the first."""
    for at, piece in given.pieces():
        yield at, [stalta.prepare(w.samples, w.rate_hz, settings, w.valid) for w in piece]


def slug(weight: str) -> str:
    """A weight's name as part of a file's."""
    return Windows(weight=weight).slug
