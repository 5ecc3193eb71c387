"""Make ``pipeline/quality.json``, the calibration of the probability of events: ``python -m tests.calibrate_quality``.

Events of real picks against events of scrambled ones, of one half of the data: the even hours of the first half of
14 October 2016 in central Italy, and OGS with 200 false picks a station and day before 5 May 2024. Scrambled are the
picks that are in no event, for false events are made of them; a tenth of the weight is of events of all picks
scrambled, as of a noisier day. What is found in real picks holds false events too; their number is that of the
scrambled ones. `tests/bench_quality.py` judges on other data.
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np

from pipeline.formats import quality_table
from pipeline.maths.event_features import Features
from pipeline.maths.quality import Calibration, fit, probability, scores, share_from_false
from pipeline.records import Float
from pipeline.rundir import publish
from tests import quality_cases
from tests.quality_cases import HALF_NS, HOUR_NS, Sample, Set

ROUNDS = 30
NOISIER = 0.1  # of the weight of false events is that of all picks scrambled, as on a day with far more noise
FALSE_PICKS = 200.0  # a station and day, as in the figures of association


def main() -> None:
    sets = [half(of, first=True) for of in (italy(), ogs())]
    found = calibrated(sets)
    about = {
        "made by": "python -m tests.calibrate_quality",
        "events of real picks": {of.name: len(of.found) for of in sets},
        "events of scrambled picks": {of.name: len(of.left) for of in sets},
        "events of all picks scrambled": {of.name: len(of.false) for of in sets},
        "times scrambled": quality_cases.SCRAMBLES,
    }
    with publish(quality_table.SHIPPED) as part:
        part.write_text(quality_table.text(found, about), "utf-8")
    sys.stdout.write(quality_table.text(found, about))


def italy() -> Set:
    return quality_cases.made("central-italy", quality_cases.central_italy)


def ogs() -> Set:
    return quality_cases.made("ogs-200", partial(quality_cases.ogs, FALSE_PICKS))


def half(of: Set, first: bool) -> Set:
    """The half for fitting, or the other: by the hour in central Italy, by the season at OGS."""
    return Set(of.name, *(part.take(_first(of.name, part) == first) for part in (of.found, of.false, of.left)))


def _first(name: str, part: Sample) -> Float:
    even = part.time_ns // HOUR_NS % 2 == 0
    return part.time_ns < HALF_NS if name.startswith("ogs") else even


def calibrated(sets: list[Set]) -> Calibration:
    """Fitted to all ``sets``, each with the same weight.

    Who is real among the found is not known: each counts as real with its probability, and as false with the rest,
    in turn with the fit (EM), under the share of real ones that the scrambled left-over picks tell.
    """
    all_ = Features.concat([part.found for of in sets for part in (of.found, of.left, of.false)])
    shares = [share_from_false(len(of.found), of.n_false) for of in sets]
    real = [np.full(len(of.found), share) for of, share in zip(sets, shares, strict=True)]
    for _ in range(ROUNDS):
        answer = _fitted(sets, all_, real)
        real = [probability(scores(of.found.found, answer), share) for of, share in zip(sets, shares, strict=True)]
    return answer


def _fitted(sets: list[Set], all_: Features, real: list[Float]) -> Calibration:
    """Every found event twice: as a real one and as a false one, by how ``real`` each is."""
    rows, label, weight, start = [], [], [], 0
    for of, p in zip(sets, real, strict=True):
        found, left, every = np.split(start + np.arange(len(of)), np.cumsum([len(of.found), len(of.left)]))
        start += len(of)
        n_false = ((1 - p).sum() + of.n_false) / (1 - NOISIER)
        parts = (
            (1 - p) / n_false,
            np.full(len(left), 1 / of.scrambles / n_false),
            np.full(len(every), NOISIER / len(every)),
        )
        rows += [found, found, left, every]
        label += [np.ones(len(p)), np.zeros(len(of))]
        weight += [p / p.sum(), *parts]
    total = sum(len(of.found) for of in sets) / len(sets)
    return fit(all_.take(np.concatenate(rows)), np.concatenate(label), np.concatenate(weight) * total)


if __name__ == "__main__":
    main()
