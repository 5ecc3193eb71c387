"""Whether the probability of events holds what it says, on other data: ``python -m tests.bench_quality``.

Prints Markdown tables; ``--plot FILE.svg`` draws the reliability diagram. What is found in each set of picks is kept in
``runs/quality``: delete it where the associator has changed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.formats import quality_table
from pipeline.maths.quality import Calibration, contributions, probability, real_share, scores, share_from_false
from pipeline.maths.reliability import Reliability, reliability
from pipeline.plots.reliability import reliability_plot
from pipeline.records import Float
from pipeline.rundir import publish
from tests import blast_cases, calibrate_quality, duplicate_cases, quality_cases
from tests.association_cases import DATA
from tests.quality_cases import HALF_NS, Sample, Set

LEAST = 20  # events of a bin that counts
EDGES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # events are sure or false for the most part: few are between


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="write the reliability diagram to this file")
    parser.add_argument("--keep", action="store_true", help="write the curves to pipeline/quality.json, for the report")
    args = parser.parse_args()
    if not DATA.exists():
        sys.exit(f"no shared data in {DATA}: nothing can be measured")
    by, curves, all_ = quality_table.read(), {}, []
    for name, judge in TESTS.items():
        all_.append(judge(by))
        curves[name] = all_[-1].curve
        print(f"\n### {name}\n\n{all_[-1].said}\n\n{table(curves[name])}", flush=True)
    together = Judged(*(np.concatenate([getattr(one, x) for one in all_]) for x in ("probability", "real")), "")
    curves["all of these together"] = together.curve
    print(f"\n### All of these together\n\n{table(together.curve)}")
    print(f"\n### What tells real events from scrambled ones\n\n{features_table(by)}")
    print(f"\n### Quarry blasts, the list of OGS\n\n{blast_cases.summary()}")
    print(f"\n### Duplicates\n\n{duplicate_cases.summary()}")
    if args.keep:
        text = quality_table.with_judged(quality_table.SHIPPED.read_text("utf-8"), curves)
        with publish(quality_table.SHIPPED) as part:
            part.write_text(text, "utf-8")
    if args.plot:
        args.plot.write_text(
            reliability_plot(curves, LEAST).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        )


@dataclass(frozen=True)
class Judged:
    """Events with a ``probability`` (n,), and whether they are ``real`` (n,)."""

    probability: Float
    real: Float
    said: str

    @property
    def curve(self) -> Reliability:
        return reliability(self.probability, self.real, EDGES)


def held_out(of: Set) -> Set:
    return calibrate_quality.half(of, first=False)


def mixture(by: Calibration, of: Set) -> Judged:
    """Events of the real picks and of all that were scrambled in one list, as if it were one run."""
    parts = (of.found, of.false, of.left)
    score = np.concatenate([scores(part.found, by) for part in parts])
    share = real_share(score)
    real = np.concatenate([_labels(of, by, share), of.false.real, of.left.real])
    said = f"{len(of.found)} events of real picks, {len(of.false) + len(of.left)} of scrambled ones"
    known = f"share of real ones estimated {share:.3f}, by the labels {real.mean():.3f}"
    return Judged(probability(score, share), real, f"{said}; {known}")


def alone(by: Calibration, of: Set) -> Judged:
    """A run as it is, of which nobody knows what is real."""
    score = scores(of.found.found, by)
    share = real_share(score)
    other = share_from_false(len(of.found), of.n_false)
    said = f"{len(score)} events; share of real ones estimated {share:.3f}, by scrambled left-over picks {other:.3f}"
    return Judged(probability(score, share), _labels(of, by, share), said)


def known(by: Calibration, found: Sample) -> Judged:
    """A run as it is, of which it is known what is real."""
    score = scores(found.found, by)
    share = real_share(score)
    said = f"{len(score)} events; share of real ones estimated {share:.3f}, in truth {found.real.mean():.3f}"
    return Judged(probability(score, share), found.real, said)


def _labels(of: Set, by: Calibration, share: float) -> Float:
    """1 for real, 0 for false (n,) of what was found; where nobody knows, the share of real ones in the bin, from the
    number of events of scrambled left-over picks with such probabilities."""
    if not np.isnan(of.found.real).any():
        return of.found.real
    n, false = (
        np.histogram(probability(scores(part.found, by), share), EDGES)[0].astype(float) for part in (of.found, of.left)
    )
    real = np.clip(1.0 - false / of.scrambles / np.maximum(n, 1.0), 0.0, 1.0)
    p = probability(scores(of.found.found, by), share)
    return real[np.clip(np.searchsorted(EDGES, p, "right") - 1, 0, len(real) - 1)]


TESTS: dict[str, Callable[[Calibration], Judged]] = {
    "central Italy, odd hours, with scrambled picks": lambda by: mixture(by, held_out(calibrate_quality.italy())),
    "OGS and 200 false picks, after 5 May, with scrambled picks": lambda by: mixture(
        by, held_out(calibrate_quality.ogs())
    ),
    "central Italy, odd hours": lambda by: alone(by, held_out(calibrate_quality.italy())),
    "OGS and 200 other false picks, after 5 May": lambda by: known(by, other_ogs()),
    "synthetic day, a false pick for each true one": lambda by: known(by, synthetic()),
    "central Italy, the afternoon, with scrambled picks": lambda by: mixture(by, afternoon()),
}


def afternoon() -> Set:
    return quality_cases.made("central-italy-afternoon", quality_cases.afternoon, noisier=False)


def other_ogs() -> Sample:
    found = quality_cases.found_in("ogs-200-other", partial(quality_cases.ogs, 200.0, 7))
    return found.take(found.time_ns >= HALF_NS)


def synthetic() -> Sample:
    return quality_cases.found_in("synthetic-5000", partial(quality_cases.synthetic, 5000, 1.0))


def table(curve: Reliability) -> str:
    rows = ["| probability | events | said | real | 95 % | off |", "|---|---|---|---|---|---|"]
    for k, n in enumerate(curve.n.tolist()):
        if n:
            off = f"{curve.real[k] - curve.said[k]:+.3f}" + ("" if n >= LEAST else " (few)")
            bounds = f"{curve.low[k]:.3f}-{curve.high[k]:.3f}"
            values = f"{n} | {curve.said[k]:.3f} | {curve.real[k]:.3f} | {bounds} | {off}"
            rows.append(f"| {EDGES[k]:g}-{EDGES[k + 1]:g} | {values} |")
    return "\n".join([*rows, f"\nLargest distance of bins with {LEAST} events or more: {curve.worst(LEAST):.3f}"])


def features_table(by: Calibration) -> str:
    """Coefficients, and how far real and scrambled events of the held-out halves lie apart by each feature alone."""
    sets = [held_out(calibrate_quality.italy()), held_out(calibrate_quality.ogs())]
    rows = ["| feature | coefficient | " + " | ".join(f"AUC {of.name}" for of in sets) + " |", "|---|---|---|---|"]
    areas = []
    for of in sets:
        found, false = (contributions(part.found, by) for part in (of.found, of.left))
        both = np.column_stack([found.sum(1), found]), np.column_stack([false.sum(1), false])
        areas.append([area(a, b) for a, b in zip(both[0].T, both[1].T, strict=True)])
    for i, name in enumerate(("all", *by.names)):
        coefficient = "" if i == 0 else f"{by.coefficient[i - 1]:+.3f}"
        rows.append(f"| {name} | {coefficient} | " + " | ".join(f"{a[i]:.3f}" for a in areas) + " |")
    return "\n".join(rows)


def area(real: Float, false: Float) -> float:
    """Under the ROC curve: how often a real event has more than a false one."""
    if not len(false):
        return float("nan")
    return float(np.mean([(real > x).mean() + 0.5 * (real == x).mean() for x in false]))


if __name__ == "__main__":
    main()
