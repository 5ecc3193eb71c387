"""Whether one method decides more records rightly than another: exact tests on pairs, over seeds and over data sets.

A record is decided rightly or not (`picking_scores.Judged.right`), by both methods: only the records that one of them
alone decides rightly tell them apart.

Seeds are not independent trials, for all of them meet the same records. Each seed has a test of its own, and their
p-values are merged by a rule that holds for any dependence (`merged`). Nothing is pooled, and there is no vote of the
seeds: the vote is another and better method than any seed, and its test claims gains where the seeds have none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

from pipeline.records import Bool, Float, Int


@dataclass(frozen=True, slots=True)
class McNemar:
    """Records that only one of the two decides rightly, and the two-sided p-value."""

    only_ours: int
    only_theirs: int
    p: float


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """``p`` merges the p-values of the seeds, ``p_by_event`` those of `by_group`."""

    seeds: tuple[McNemar, ...]
    median_p: float
    p: float
    p_by_event: float


def exact_mcnemar(only_ours: int, only_theirs: int) -> float:
    """Two-sided p-value: how likely a fair coin is at least as uneven. 1 without discordant pairs.

    McNemar 1947, doi 10.1007/BF02295996; the exact form of his test is the sign test.
    """
    n = only_ours + only_theirs
    return min(1.0, 2 * float(bdtr(min(only_ours, only_theirs), n, 0.5))) if n else 1.0


def paired(ours: Bool, theirs: Bool) -> McNemar:
    """Of records (n,) that are decided rightly or not by each of the two. It takes records for independent."""
    counts = int(np.count_nonzero(ours & ~theirs)), int(np.count_nonzero(theirs & ~ours))
    return McNemar(*counts, exact_mcnemar(*counts))


def by_group(ours: Bool, theirs: Bool, group: Int) -> float:
    """The same where records of one ``group`` (n,), an event, hang together: two-sided p-value, exact.

    If the methods are alike, each event could as well have had them swapped: the distribution of the sum of the
    events' net gains under all changes of sign, by convolution (the permutation test of Fisher 1935). With one record
    an event it is `exact_mcnemar`.
    """
    _, row = np.unique(group, return_inverse=True)
    gain = np.bincount(row, ours.astype(np.float64) - theirs).astype(np.int64)
    sizes = np.abs(gain[gain != 0]).tolist()
    chance = np.zeros(2 * sum(sizes) + 1)
    middle = sum(sizes)
    chance[middle] = 1
    for size in sizes:  # the ends stay zero, so that nothing comes around
        chance = (np.roll(chance, size) + np.roll(chance, -size)) / 2
    far = np.abs(np.arange(len(chance)) - middle) >= abs(int(gain.sum()))
    return min(1.0, float(chance[far].sum()))


def merged(p: Sequence[float]) -> float:
    """One p-value of several for one question, whatever their dependence: K/k times the k-th smallest, k = ceil(K/2).

    Rüger 1978, Metrika 25, 171-178; see Vovk & Wang 2020, doi 10.1093/biomet/asaa027. Of five seeds it is 5/3 of the
    median. Raises ValueError without any.
    """
    if not len(p):
        raise ValueError("no p-value to merge")
    k = math.ceil(len(p) / 2)
    return min(1.0, len(p) / k * sorted(p)[k - 1])


def over_seeds(ours: Bool, theirs: Bool, group: Int) -> OverSeeds:
    """Tests of (seeds, n) against (seeds, n), seed by seed, or against the one run (1, n) of a method without seeds.

    ``group`` (n,) is the event of each record. Raises ValueError where the seeds cannot be paired.
    """
    if ours.shape[1:] != theirs.shape[1:] or len({len(ours), len(theirs)} - {1}) > 1:
        raise ValueError(f"{ours.shape} against {theirs.shape} (seeds, records): as many of both, or one seed")
    n_seeds = max(len(ours), len(theirs))
    pairs = [(ours[k % len(ours)], theirs[k % len(theirs)]) for k in range(n_seeds)]
    tests = tuple(paired(*pair) for pair in pairs)
    p = [test.p for test in tests]
    return OverSeeds(tests, float(np.median(p)), merged(p), merged([by_group(*pair, group) for pair in pairs]))


def holm(p: Sequence[float]) -> Float:
    """Adjusted p-values, in the order of ``p``: Holm 1979, "A simple sequentially rejective multiple test procedure",
    Scandinavian Journal of Statistics 6, 65-70. NaN, which is no test, stays NaN and does not count."""
    raw = np.asarray(p, np.float64)
    found = np.full(len(raw), np.nan)
    order = np.argsort(raw, kind="stable")[: np.count_nonzero(~np.isnan(raw))]
    steps = raw[order] * np.arange(len(order), 0, -1)
    found[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return found
