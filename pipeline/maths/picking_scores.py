"""How good picks are against labels: each record judged, then precision, recall, F1, accuracy and residuals over seeds.

A label gets at most one pick: the nearest within the tolerance. Every other pick of the phase is one too many, and
there are two ways to count those:

- ``strict``: all of them. A real record may hold further earthquakes that nobody labelled: this is a lower bound of
  the precision.
- ``near``: only those within `Rule.margin_s` of the span from the first to the last label of their record. Of a record
  without any label, which is noise, all count. This says nothing of what lies outside the span.

Accuracy is the share of records that are decided rightly: one with a label of the phase has its pick and none too
many, one without has none.

A method that learns is judged once a seed. Its value is the mean over the seeds; its interval is a bootstrap that draws
whole events (the same for all seeds), so it tells what other events would have changed with these seeds; how far the
seeds are apart is told beside it and is no part of the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.maths import stats
from pipeline.maths.reliability import Reliability, reliability
from pipeline.records import NS, Bool, Float, Int, Table, Text, column

PHASES = ("P", "S")
COUNTED = ("strict", "near")
TOLERANCES_S = (0.1, 0.5)
WITHIN_S = 0.1  # residuals up to which are counted apart
METRICS = ("precision", "recall", "f1", "accuracy", "within", "mean_s")  # the last two are of the matched picks
SHARES = METRICS[:5]  # those that lie between 0 and 1
COUNTS = 7  # hits, misses, extra picks, records right, records, hits within WITHIN_S, sum of residuals


@dataclass(frozen=True, slots=True)
class Truth(Table):
    """One row a record: what the analyst says."""

    event: Text = column("str", doc="its earthquake; empty: noise")
    p_s: Float = column("float64", "s", "P from the first sample; NaN: none")
    s_s: Float = column("float64", "s", "S from the first sample; NaN: none")

    def label_s(self, phase: str) -> Float:
        return self.p_s if phase == "P" else self.s_s

    def groups(self) -> Int:
        """The event of each record as a number; a record of noise is a group of its own."""
        names, group = np.unique(self.event, return_inverse=True)
        noise = self.event == ""
        group = group.astype(np.int64)
        group[noise] = len(names) + np.arange(np.count_nonzero(noise))
        return group


@dataclass(frozen=True, slots=True)
class Found(Table):
    """One row a pick."""

    record: Int = column("int64", doc="row of its record in Truth")
    phase: Text = column("str", doc="P or S")
    time_s: Float = column("float64", "s", "from the first sample of the record")
    probability: Float = column("float64", doc="0 to 1")


@dataclass(frozen=True, slots=True)
class Judged(Table):
    """One row a record, for one phase."""

    group: Int = column("int64", doc="what hangs together: its event")
    labelled: Bool = column("bool", doc="has a label of the phase")
    hit: Bool = column("bool", doc="the label has its pick")
    extra: Int = column("int64", doc="picks too many")
    residual_s: Float = column("float64", "s", "pick minus label; NaN without a hit")

    @property
    def right(self) -> Bool:
        """Whether the record is decided rightly, (n,)."""
        found: Bool = (self.hit == self.labelled) & (self.extra == 0)
        return found


@dataclass(frozen=True, slots=True)
class Rule:
    """What a hit is and which extra picks count. Raises ValueError on a rule that makes no sense."""

    tolerance_s: float = TOLERANCES_S[0]
    counted: str = "strict"
    margin_s: float = 1.0

    def __post_init__(self) -> None:
        if self.counted not in COUNTED:
            raise ValueError(f"counted is {self.counted!r}; there are {', '.join(COUNTED)}")
        if not 0 < self.tolerance_s <= self.margin_s:
            raise ValueError(f"tolerance_s {self.tolerance_s} must be above 0, margin_s {self.margin_s} not below it")


RULES = tuple(Rule(tolerance_s, counted) for tolerance_s in TOLERANCES_S for counted in COUNTED)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    n_samples: int = 2000
    confidence: float = 0.95
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean over the seeds, its interval by event, the spread of the seeds (SD: NaN of one). NaN: nothing to count."""

    value: float
    low: float
    high: float
    sd_seeds: float
    least: float
    most: float
    n_seeds: int


@dataclass(frozen=True, slots=True)
class Residuals:
    """Of the matched picks, each a mean over the seeds; ``mad_s``: the median distance from the median, not scaled."""

    n: float
    mean_s: float
    sd_s: float
    median_s: float
    mad_s: float


@dataclass(frozen=True, slots=True)
class PhaseScores:
    """``metrics``: an Estimate for each of METRICS. ``hits``, ``extra``: means over the seeds."""

    n_records: int
    n_groups: int
    n_labels: int
    hits: float
    extra: float
    metrics: dict[str, Estimate]
    residuals: Residuals


def truth(event: Text, p_sample: Float, s_sample: Float, rate_hz: Float) -> Truth:
    """From samples (n,), which need not be whole, at ``rate_hz`` (n,)."""
    return Truth(event, p_sample / rate_hz, s_sample / rate_hz)


def judge(labels: Truth, found: Found, phase: str, rule: Rule) -> Judged:
    """Every record of ``labels`` for one phase. Raises ValueError for a pick of a record that is not there."""
    if len(found) and not 0 <= found.record.min() <= found.record.max() < len(labels):
        raise ValueError(
            f"a pick of record {found.record.max()} or {found.record.min()}: there are {len(labels)} records"
        )
    picks = found.take(found.phase == phase)
    label_s = labels.label_s(phase)
    chosen = matched(labels, picks, phase, rule.tolerance_s)
    too_many = _counts(labels, picks, rule)
    too_many[chosen] = False
    hit, residual_s = np.zeros(len(labels), np.bool_), np.full(len(labels), np.nan)
    hit[picks.record[chosen]] = True
    residual_s[picks.record[chosen]] = picks.time_s[chosen] - label_s[picks.record[chosen]]
    extra = np.bincount(picks.record[too_many], minlength=len(labels)).astype(np.int64)
    return Judged(labels.groups(), ~np.isnan(label_s), hit, extra, residual_s)


def matched(labels: Truth, picks: Found, phase: str, tolerance_s: float) -> Int:
    """Rows of ``picks``, all of one phase, that have a label: at most one a label, the nearest; the earlier of equals.

    A record has one label of a phase at most, so this is the one-to-one matching of `match` with the weight on time.
    Differences are compared in whole ns: 30.1 s is 0.1 s from 30.0 s, whatever the last bit says.
    """
    apart_ns = np.abs(np.rint((picks.time_s - labels.label_s(phase)[picks.record]) * NS))
    order = np.lexsort((-picks.probability, picks.time_s, apart_ns, picks.record))
    near = order[apart_ns[order] <= round(tolerance_s * NS)]  # False where there is no label
    found: Int = near[np.unique(picks.record[near], return_index=True)[1]]
    return found


def _counts(labels: Truth, picks: Found, rule: Rule) -> Bool:
    """Which picks (k,) count as too many if they have no label."""
    if rule.counted == "strict":
        return np.ones(len(picks), np.bool_)
    first_s, last_s = np.fmin(labels.p_s, labels.s_s)[picks.record], np.fmax(labels.p_s, labels.s_s)[picks.record]
    inside = (picks.time_s >= first_s - rule.margin_s) & (picks.time_s <= last_s + rule.margin_s)
    return np.asarray(inside | np.isnan(first_s), np.bool_)


def scores(judged: Sequence[Judged], boot: Bootstrap) -> PhaseScores:
    """The scores of one method for one phase, judged once a seed on the same records.

    A seed without any pick has no precision and is left out of that mean; its F1 is 0.
    """
    counts = _by_group(judged)
    values, drawn = _metrics(counts.sum(axis=0)), _metrics(_drawn(counts, boot))
    n_trials = (~np.isnan(_metrics(counts))).any(axis=2).sum(axis=1).tolist()  # groups with something to count
    found = {}
    for row, name in enumerate(METRICS):
        bounds = _interval(_mean(values[row]), _mean(drawn[row]), boot, n_trials[row] if name in SHARES else None)
        known = values[row][~np.isnan(values[row])]
        sd = float(known.std(ddof=1)) if len(known) > 1 else np.nan
        ends = (float(known.min()), float(known.max())) if len(known) else (np.nan, np.nan)
        found[name] = Estimate(bounds.value, bounds.low, bounds.high, sd, *ends, len(judged))
    one = judged[0]
    n_labels, n_seeds = int(np.count_nonzero(one.labelled)), len(judged)
    hits, extra = (float(counts[:, :, k].sum() / n_seeds) for k in (0, 2))
    return PhaseScores(len(one), len(counts), n_labels, hits, extra, found, _residuals(judged))


def difference(ours: Sequence[Judged], theirs: Sequence[Judged], boot: Bootstrap) -> dict[str, stats.Interval]:
    """Ours minus theirs of each of METRICS, each a mean over its seeds, with a paired bootstrap by event.

    The same events are drawn for both. Where no event tells them apart the interval is one point; where very few
    events do, it is too narrow, which is why a gain is claimed only together with an exact test.
    """
    counts = _by_group([*ours, *theirs])
    n = len(ours)
    value, drawn = (
        np.stack([_mean(part[..., :n]) - _mean(part[..., n:]) for part in _metrics(total)])
        for total in (counts.sum(axis=0), _drawn(counts, boot))
    )
    return {name: _interval(value[row], drawn[row], boot, None) for row, name in enumerate(METRICS)}


def calibration(labels: Truth, found: Found, phase: str, rule: Rule) -> Reliability:
    """What the probabilities of one seed's picks say, against the share that has a label; picks as `rule` counts.

    ``found`` should hold weak picks too. Its intervals take picks for independent.
    """
    picks = found.take(found.phase == phase)
    real = np.zeros(len(picks))
    real[matched(labels, picks, phase, rule.tolerance_s)] = 1
    told = (real == 1) | _counts(labels, picks, rule)
    return reliability(picks.probability[told], real[told])


def calibration_error(curve: Reliability) -> float:
    """Mean distance from the diagonal, weighted with the picks (ECE); NaN without picks."""
    some = curve.n > 0
    n = int(curve.n.sum())
    return float((curve.n[some] * np.abs(curve.said - curve.real)[some]).sum() / n) if n else float("nan")


def _by_group(judged: Sequence[Judged]) -> Float:
    """Sums (groups, seeds, COUNTS). Raises ValueError where seeds judged other records."""
    first = judged[0]
    if any(not np.array_equal(one.group, first.group) for one in judged):
        raise ValueError("seeds or methods were judged on different records: judge all of them on the same ones")
    _, row = np.unique(first.group, return_inverse=True)
    sums = np.zeros((int(row.max(initial=-1)) + 1, len(judged), COUNTS))
    for k, one in enumerate(judged):
        near = np.abs(np.rint(one.residual_s * NS)) <= round(WITHIN_S * NS)
        missed = one.labelled & ~one.hit
        columns = (one.hit, missed, one.extra, one.right, np.ones(len(one)), near, np.nan_to_num(one.residual_s))
        np.add.at(sums[:, k], row, np.stack(columns, axis=1).astype(np.float64))
    return sums


def _drawn(counts: Float, boot: Bootstrap) -> Float:
    """Totals (n_samples, seeds, COUNTS) of groups drawn with replacement."""
    if not len(counts):
        return np.full((1, *counts.shape[1:]), np.nan)
    rows: Int = counts.reshape(len(counts), -1)  # type: ignore[assignment]  # sums of rows, whole or not
    drawn = stats.resample(rows, boot.n_samples, np.random.default_rng(boot.seed))
    return np.asarray(drawn, np.float64).reshape(-1, *counts.shape[1:])


def _metrics(totals: Float) -> Float:
    """METRICS (6, ..., seeds) of totals (..., seeds, COUNTS); NaN where the denominator is zero."""
    hit, missed, extra, right, records, near, sum_s = np.moveaxis(totals, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * hit / (2 * hit + missed + extra)
        return np.stack([hit / (hit + extra), hit / (hit + missed), f1, right / records, near / hit, sum_s / hit])


def _mean(values: Float) -> Float:
    """Over the last axis, of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    n = known.sum(axis=-1)
    total = np.where(known, values, 0).sum(axis=-1)
    return np.asarray(np.divide(total, n, out=np.full(np.shape(total), np.nan), where=n > 0), np.float64)


def _interval(value: Float, sample: Float, boot: Bootstrap, n_groups: int | None) -> stats.Interval:
    """Percentiles; of a share that is 0 or 1 the far bound as in `stats.rates`, for the groups that it counts."""
    tails = [50 * (1 - boot.confidence), 50 * (1 + boot.confidence)]
    surest = ((1 - boot.confidence) / 2) ** (1 / max(1, n_groups)) if n_groups is not None else None
    return stats.interval(float(value), sample, tails, surest)


def _residuals(judged: Sequence[Judged]) -> Residuals:
    each = []
    for one in judged:
        x = one.residual_s[one.hit]
        known = stats.residuals(x)
        sd = float(x.std(ddof=1)) if len(x) > 1 else np.nan
        each.append((known.n, known.mean, sd, known.median, known.mad))
    return Residuals(*_mean(np.array(each, np.float64).T).tolist())
