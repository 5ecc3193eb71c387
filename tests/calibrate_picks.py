"""How far off picks are: ``python -m tests.calibrate_picks`` prints the constants of `pipeline.maths.pick_sigma`.

Needs the labelled records of the NCEDC (shared data), OGS's bulletin of 2024, and the weights of PhaseNet and
EQTransformer.
"""

import numpy as np
from scipy.optimize import minimize

from pipeline.config import Compute, Pick
from pipeline.maths import pick_sigma, triggers
from pipeline.models.picker import Pickers
from pipeline.records import NS, Picks
from tests.location_cases import OGS
from tests.test_parity import labelled

PICKERS = (("phasenet/original", 0.3), ("eqtransformer/original", 0.1))
PAIR_S = 1.0  # a pick farther from the label is another one
RESOLUTION_S = 0.005  # half a sample
NEAR_KM = 30.0


def pairs(weight: str, threshold: float) -> tuple[Picks, np.ndarray]:
    """The picks (n,) nearest to a label, and how far they are from it, s."""
    waveform, labels = labelled()
    pick = Pick(weight=weight, threshold_p=threshold, threshold_s=threshold)
    runs = Pickers.of(pick, Compute()).runs(waveform)[0]
    picks = triggers.picks(runs, waveform, "X.A..HH", 0.0, (0, round(len(waveform) / waveform.rate_hz * NS)))
    rows, off = [], []
    for phase, at in labels.items():
        mine = np.flatnonzero(picks.phase == phase)
        for label in at.tolist():
            away = picks.time_ns[mine] / NS - label / waveform.rate_hz
            nearest = int(np.abs(away).argmin())
            if abs(away[nearest]) < PAIR_S:
                rows.append(mine[nearest])
                off.append(away[nearest])
    return picks.take(np.array(rows, np.int64)), np.array(off)


def features(picks: Picks) -> np.ndarray:
    """(n, 5): 1, is S, 1 - probability, log width beyond the usual, SNR beyond the usual (P only)."""
    wide = np.log(np.maximum(picks.width_s / pick_sigma.USUAL_WIDTH_S, 1.0))
    snr = np.clip(picks.snr_db, 0.0, 30.0) / pick_sigma.USUAL_SNR_DB - 1.0
    loud = np.where(np.isnan(snr), 0.0, snr)
    return np.column_stack([np.ones(len(picks)), picks.phase == "S", 1.0 - picks.probability, wide, loud])


def fit(known: np.ndarray, off: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Coefficients of log scale by maximum likelihood of Laplace's distribution, which no outlier pulls far; and the
    scales of a clear P and S with which 68 % of the picks lie within."""
    size = np.abs(off) + RESOLUTION_S

    def loss(b: np.ndarray) -> float:
        return float(np.sum(known @ b + size * np.exp(-known @ b)))

    found = minimize(loss, np.array([-3.0, 0, 0, 0, 0])).x
    found[0], found[1] = 0.0, 0.0
    ratio = np.abs(off) / np.exp(known @ found)
    return found, [float(np.quantile(ratio[known[:, 1] == is_s], 0.68)) for is_s in (0, 1)]


def analysts() -> list[str]:
    """Residuals of the bulletin's own location, by weight: 1.48 times the median of their size."""
    lines = []
    sizes: dict[tuple[str, int], list[float]] = {}
    for line in (OGS / "RSFVG-2024.hpc").read_text("latin-1").splitlines():
        if line[:1] in ("^", "*") or line[6:7] == "1" or not line[12:17].strip():
            continue
        for phase, at, weight, off in (("P", 36, 29, slice(60, 66)), ("S", 110, 108, slice(122, 127))):
            if line[at : at + 5].strip() and line[off].strip() and float(line[12:17]) < NEAR_KM:
                sizes.setdefault((phase, int(line[weight : weight + 1] or 0)), []).append(abs(float(line[off])))
    for (phase, weight), values in sorted(sizes.items()):
        lines.append(f"{phase} weight {weight}: {len(values)} picks, {1.4826 * np.median(values):.3f} s")
    return lines


def main() -> None:
    found = [pairs(*each) for each in PICKERS]
    picks, off = Picks.concat([p for p, _ in found]), np.concatenate([o for _, o in found])
    b, clear = fit(features(picks), off)
    print(f"{len(off)} pairs; CLEAR_S P {clear[0]:.3f}, S {clear[1]:.3f}")
    print("OF_UNSURE, OF_WIDE, OF_LOUD", np.round(b[2:], 2))
    inside = np.abs(off) < pick_sigma.of_picks(picks)
    print("within sigma:", {p: round(float(inside[picks.phase == p].mean()), 2) for p in "PS"})
    print("\n".join(analysts()))


if __name__ == "__main__":
    main()
