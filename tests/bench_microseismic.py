"""The semi-synthetic microseismic test: ``python -m tests.bench_microseismic [singles networks] [--out FOLDER]``.

Real earthquakes buried in real noise (`tests.microseismic_cases`). ``singles``: PhaseNet as it is, tuned on the
validation records, and adapted. ``networks``: a small PhaseNO with and without its edges. Prints Markdown. What is
trained is kept in the folder, and a run that is begun again goes on there. One thread.
"""

import argparse
import logging
import tempfile
import time
from pathlib import Path

import torch

from pipeline.maths import picking_tables
from pipeline.maths.picking_scores import Bootstrap, Rule
from pipeline.maths.picking_tables import TestSet
from tests import microseismic_cases as cases
from tests.bench_association import machine
from tests.microseismic_networks import networks
from tests.microseismic_singles import singles

RULES = (Rule(0.1), Rule(0.5))
SHOWN = ("precision", "recall", "accuracy")
PARTS = {"singles": singles, "networks": networks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, help="folder of what is trained (default: a temporary one)")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    if not cases.DATA.exists():
        raise SystemExit(f"no shared data in {cases.DATA}: there is nothing to bury")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    print(f"{machine()}; torch {torch.__version__}, one thread\n")
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.parts:
            begun = time.process_time()
            found = PARTS[name](given.out or Path(scratch), given.seeds)
            print(f"{found.about}\n")
            for title, test in found.tests.items():
                print(scores(title, test))
                for ours in found.ours:
                    print(against(title, test, ours))
            print(f"{time.process_time() - begun:.0f} s of CPU\n", flush=True)


def scores(name: str, test: TestSet) -> str:
    lines = [
        f"| {name}: method | seeds | phase | tolerance s | precision | recall | F1 (95 % by earthquake) | SD of seeds "
        "| accuracy | mean residual s | MAD s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in picking_tables.score_rows({name: test}, Bootstrap(), RULES):
        f1 = row["f1"]
        sd = "" if f1["sd_seeds"] is None else f"{f1['sd_seeds']:.3f}"
        share = (f"{row[key]['value']:.3f}" if row[key]["value"] is not None else "-" for key in SHOWN)
        precision, recall, accuracy = share
        residual = (
            f"{row['residuals'][k]:.3f}" if row["residuals"][k] is not None else "-" for k in ("mean_s", "mad_s")
        )
        lines.append(
            f"| {row['method']} | {f1['n_seeds']} | {row['phase']} | {row['tolerance_s']} | {precision} | {recall} "
            f"| {f1['value']:.3f} ({f1['low']:.3f} to {f1['high']:.3f}) | {sd} | {accuracy} | {' | '.join(residual)} |"
        )
    return "\n".join(lines) + "\n"


def against_one(name: str, test: TestSet, ours: str, other: str) -> list[dict]:
    """Seed by seed: as many as both have, or all against the one run of a method without seeds."""
    pair = {method: test.methods[method] for method in (ours, other)}
    n = min(len(found) for found in pair.values())
    some = {method: found[:n] if n > 1 else found for method, found in pair.items()}
    return picking_tables.against_rows({name: TestSet(test.labels, some)}, ours, Bootstrap(), RULES)


def against(name: str, test: TestSet, ours: str) -> str:
    lines = [
        f"| {name}: {ours} against | phase | tolerance s | difference of F1 (95 %) | only ours right | only theirs | p "
        "| p, Holm | p by earthquake |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = [row for other in test.methods if other != ours for row in against_one(name, test, ours, other)]
    for row in sorted(rows, key=lambda row: row["tolerance_s"]):
        f1 = row["difference"]["f1"]
        lines.append(
            f"| {row['other']} | {row['phase']} | {row['tolerance_s']} | {f1['value']:+.3f} ({f1['low']:+.3f} to "
            f"{f1['high']:+.3f}) | {row['only_ours']:.1f} | {row['only_theirs']:.1f} | {row['p']:.2g} "
            f"| {row['p_holm']:.2g} | {row['p_by_event']:.2g} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
