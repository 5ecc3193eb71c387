"""Where events are: ``python -m tests.bench_location``. Prints Markdown; CPU time of one core, compiling not counted.

Speed by number of picks, how often ellipsoids hold the truth of made-up events, how well made-up station terms are
found again, by all events or by those of a night, and the distance to OGS's own two locations. What needs the shared
data is left out where they are not.
"""

import argparse
import time

import numpy as np

from pipeline.models import locator
from tests import location_cases as cases
from tests.bench_association import machine

EVENTS = 1500
OUTLIERS = (0.0, 0.05, 0.1, 0.15, 0.2)
FEW = (4, 5, 6, 8, 12)  # picks of an event
NIGHT = 30  # events
BEFORE = ("2024-01-01", "2024-03-20")
OGS_CASES = (
    ("velocity_1d.nd", "layers", True, cases.WINDOW),
    ("velocity_1d.nd", "layers", False, cases.WINDOW),
    ("ogs-layers.csv", "layers", True, cases.WINDOW),
    ("velocity_1d.nd", "gradient", True, cases.WINDOW),
    ("velocity_1d.nd", "layers", True, BEFORE),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=EVENTS, help=f"made-up events of a case (default {EVENTS})")
    events = parser.parse_args().events
    ready = time.process_time()
    cases.with_terms(cases.synthetic(3))
    print(f"{machine()}; ready after {time.process_time() - ready:.1f} s of CPU, on the first run with compiling\n")
    print(speed(events))
    print(coverage(events))
    print(few(events))
    print(recovery(events))
    if cases.DATA.exists():
        print(ogs())
    else:
        print(f"OGS: left out: no shared data in {cases.DATA}")


def speed(events: int) -> str:
    lines = [
        "### Speed\n",
        "| picks an event | search, ms | uncertainty, ms | all, ms | events/s |",
        "|---|---|---|---|---|",
    ]
    for n in (6, 10, 20, 40):
        case = cases.synthetic(events, n, layers=True)
        none = locator.no_terms(case.area)
        search = _cpu_s(lambda c=case: locator.search(c.readings, c.area)) / events
        every = _cpu_s(lambda c=case, t=none: locator.locate(c.readings, c.area, t)) / events
        figures = (f"{1e3 * x:.2f}" for x in (search, every - search, every))
        lines.append(f"| {n} | {' | '.join(figures)} | {1 / every:.0f} |")
    return "\n".join(lines) + "\n"


def _cpu_s(work) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def coverage(events: int) -> str:
    lines = [
        f"### Ellipsoids that hold the truth, of {events} made-up events each, 20 picks\n",
        "| outliers | velocity | 68 % | 95 % | epicentre, median km | depth, median km | farthest km |",
        "|---|---|---|---|---|---|---|",
    ]
    for layers in (False, True):
        for share in OUTLIERS:
            case = cases.synthetic(events, outliers=share, seed=11, layers=layers)
            places, _ = cases.without_terms(case)
            held, off = cases.held(places, case.truth), cases.distances(places, case.truth)
            far = np.hypot(places.x_km - case.truth[:, 0], places.y_km - case.truth[:, 1]).max()
            lines.append(
                f"| {share:.0%} | {'layers' if layers else 'uniform'} | {held[0.68]:.1%} | {held[0.95]:.1%} "
                f"| {off['epicentre']:.2f} | {off['depth']:.2f} | {far:.1f} |"
            )
    return "\n".join(lines) + "\n"


def true_term(station: str, phase: str) -> float:
    """A term that anyone can make up again: between -0.2 and 0.2 s, twice that for S."""
    return (2 if phase == "S" else 1) * 0.2 * np.sin(float(station[-3:]) * 2.4)


def few(events: int) -> str:
    """The same for events of few picks, of those that can be located."""
    lines = [
        "### Few picks, layers, 10 % outliers\n",
        "| picks | events | 68 % | 95 % | epicentre, median km | depth, median km | depth fixed |",
        "|---|---|---|---|---|---|---|",
    ]
    for n in FEW:
        case = cases.synthetic(events, n, seed=11, layers=True)
        rows = np.flatnonzero(locator.locatable(case.readings, events) == "")
        places, truth = cases.without_terms(case)[0].take(rows), case.truth[rows]
        held, off = cases.held(places, truth), cases.distances(places, truth)
        fixed = np.char.startswith(places.depth_kind, "fixed").mean()
        shares, km = f"{held[0.68]:.1%} | {held[0.95]:.1%}", f"{off['epicentre']:.2f} | {off['depth']:.2f}"
        lines.append(f"| {n} | {len(rows)} | {shares} | {km} | {fixed:.1%} |")
    return "\n".join(lines) + "\n"


def recovery(events: int) -> str:
    case = cases.synthetic(events, seed=5, terms=true_term)
    *every, terms = cases.with_terms(case)
    nights = [cases.of_events(case, slice(first, first + NIGHT)) for first in range(0, events, NIGHT)]
    alone = [cases.with_terms(night) for night in nights]
    of_nights = (locator.Places.concat([p for p, _, _ in alone]), locator.Fits.concat([f for _, f, _ in alone]))
    lines = [
        "### Known station terms, 10 % outliers\n",
        "| terms | P RMS s | 68 % | 95 % | epicentre, median km | depth, median km |",
        "|---|---|---|---|---|---|",
    ]
    ways = (("none", cases.without_terms(case)), (f"of nights of {NIGHT} events", of_nights), ("of all events", every))
    for name, (found, fit) in ways:
        at, held = cases.distances(found, case.truth), cases.held(found, case.truth)
        rms, shares = cases.rms_p_s(case.readings, fit), f"{held[0.68]:.1%} | {held[0.95]:.1%}"
        lines.append(f"| {name} | {rms:.3f} | {shares} | {at['epicentre']:.2f} | {at['depth']:.2f} |")
    off = term_errors_s(case, terms)
    lines.append(
        f"\nTerms off by {np.sqrt(np.mean(off**2)):.3f} s (root mean square), {np.abs(off).max():.3f} s at most."
    )
    return "\n".join(lines) + "\n"


def term_errors_s(case: cases.Synthetic, terms: locator.Terms) -> np.ndarray:
    """Found minus true of the channels with picks, both without the mean over P picks."""
    names, _ = case.area.channels
    true = np.array([true_term(name, phase) for name in names.tolist() for phase in "PS"])
    seen = terms.n > 0
    p = seen & (np.arange(len(true)) % 2 == 0)
    true -= np.average(true[p], weights=terms.n[p])
    return (terms.term_s - true)[seen]


def ogs() -> str:
    lines = [
        "### OGS: km to its own locations, median (95 %)\n",
        "| from | events | velocity | weights | station terms | P RMS s | HYPO71 epicentre | depth "
        "| NonLinLoc epicentre | depth |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model, between, weights, window in OGS_CASES:
        case = cases.ogs(model, between, weights, window)
        for terms in (False, True):
            places, fits = cases.with_terms(case)[:2] if terms else cases.without_terms(case)
            what = [window[0], str(len(places)), f"{model}, {between}", _yes(weights), _yes(terms)]
            rms = f"{cases.rms_p_s(case.readings, fits):.3f}"
            both = _km(cases.distances(places, case.hypo71)), _km(cases.distances(places, case.nonlinloc))
            lines.append(f"| {' | '.join([*what, rms, *both])} |")
    for window in (cases.WINDOW, BEFORE):
        case = cases.ogs(window=window)
        both, n = _km(cases.apart(case.hypo71, case.nonlinloc)), np.isfinite(case.nonlinloc[:, 0]).sum()
        lines.append(f"| {window[0]} | {n} | OGS's HYPO71 | | | | | | {both} |")
    return "\n".join([*lines, "", *_halves()]) + "\n"


def _km(off: dict[str, float]) -> str:
    return " | ".join(f"{off[k]:.2f} ({off[f'{k} 95 %']:.2f})" for k in ("epicentre", "depth"))


def _halves() -> list[str]:
    """P RMS of each half of the events, with the terms of the other half."""
    case, lines = cases.ogs(), []
    halves = [cases.of_events(case, slice(k, None, 2)) for k in (0, 1)]
    for mine, other in (halves, halves[::-1]):
        terms = cases.with_terms(other)[2]
        pairs = cases.without_terms(mine), cases.with_terms(mine, terms)
        before, after = (cases.rms_p_s(mine.readings, pair[1]) for pair in pairs)
        lines.append(f"P RMS of one half of the events {before:.3f} s, with the terms of the other half {after:.3f} s.")
    return lines


def _yes(value: bool) -> str:
    return "yes" if value else "no"


if __name__ == "__main__":
    main()
