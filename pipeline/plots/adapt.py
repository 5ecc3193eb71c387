"""Figures of an adaptation: scores and differences with intervals, learning curves, reliability, residuals.

Rows are those of `maths/picking_tables.py`; None is what is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.maths.reliability import Reliability
from pipeline.plots.reliability import AWAY, line
from pipeline.plots.svg import BLUE, GREY, INK, ORANGE, RED, Drawing, style
from pipeline.records import Float

WIDTH_IN = 4.6
ROW_IN = 0.24
LONGEST = 26  # letters of a name beside a figure
FEW_PICKS = 10  # in a bin of probability, with which it tells little
PHASES = ("P", "S")


def short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def f1_figure(rows: Sequence[dict[str, Any]], ours: str, name: str) -> Drawing:
    """F1 of the methods of one data set and rule: interval by event as a bar, the seeds from least to most as ticks."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    with style():
        fig = Figure(figsize=(WIDTH_IN, 0.75 + 2 * ROW_IN * (len(methods) + 0.7)), layout="constrained")
        for ax, phase in zip(fig.subplots(2, sharex=True, squeeze=False)[:, 0], PHASES, strict=True):
            found = {row["method"]: row["f1"] for row in rows if row["phase"] == phase}
            for k, method in enumerate(methods):
                colour = BLUE if method == ours else GREY
                one = found.get(method)
                _bar(ax, k, one, colour)
                if one and one.get("n_seeds", 1) > 1:
                    ends = _numbers([one["least"], one["most"]])
                    ax.plot(ends, [k, k], "|", color=INK, markersize=6, markeredgewidth=0.8)
            _names(ax, [short(method) for method in methods])
            ax.set_title(phase)
            ax.set_xlim(-0.02, 1.02)
        ax.set_xlabel("F1")
        return Drawing(fig, name, f"F1 of {len(methods)} methods for P and S, with intervals")


def difference_figure(rows: Sequence[dict[str, Any]], name: str) -> Drawing:
    """F1 of ours minus that of each other method, with intervals: right of the line ours is better."""
    labels = [f"{row['phase']} · {short(row['other'])}" for row in rows]
    with style():
        fig = Figure(figsize=(WIDTH_IN, 0.6 + ROW_IN * (len(rows) + 0.6)), layout="constrained")
        ax = fig.add_subplot()
        ax.axvline(0, color=INK, linewidth=0.8)
        for k, row in enumerate(rows):
            one = row["difference"]["f1"]
            low, high = _numbers([one["low"], one["high"]])
            _bar(ax, k, one, BLUE if low > 0 else RED if high < 0 else GREY)
        _names(ax, labels)
        ax.set_xlabel("F1, ours − theirs")
        return Drawing(fig, name, f"Differences of F1 to other methods in {len(rows)} comparisons, with intervals")


def _bar(ax: Axes, k: int, one: dict[str, Any] | None, colour: str) -> None:
    value, low, high = _numbers([one[key] for key in ("value", "low", "high")]) if one else (np.nan,) * 3
    ax.plot([low, high], [k, k], color=colour, linewidth=2.4, alpha=0.55)
    ax.plot([value], [k], "o", color=colour, markersize=4.5)


def _names(ax: Axes, labels: list[str]) -> None:
    """Rows from the top down."""
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.grid(axis="x")


def learning_curves(runs: Sequence[dict[str, Any]], name: str = "curves") -> Drawing:
    """Losses by epoch: training orange, validation blue, one pair of lines a seed, the chosen epoch a dot."""
    with style():
        fig = Figure(figsize=(WIDTH_IN, 2.9), layout="constrained")
        ax = fig.add_subplot()
        for k, run in enumerate(runs):
            epochs, train, validation = (_numbers(run[key]) for key in ("epochs", "train", "validation"))
            label = ("training", "validation", "chosen") if k == 0 else ("", "", "")
            ax.plot(epochs, train, color=ORANGE, linewidth=0.8, alpha=0.4, label=label[0])
            ax.plot(epochs, validation, color=BLUE, linewidth=1.2, alpha=0.9, label=label[1])
            chosen = epochs == run["chosen"]
            ax.plot(epochs[chosen], validation[chosen], "o", color=BLUE, markersize=4.5, label=label[2])
        ax.set(xlabel="epoch", ylabel="loss")
        ax.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        ax.grid(axis="y")
        ax.legend(loc="upper right", handlelength=1.4)
        return Drawing(fig, name, f"Training and validation loss by epoch of {len(runs)} runs")


def reliability_figure(curves: Sequence[dict[str, Any]], name: str = "reliability") -> Drawing:
    """Of picks with a probability the share that has a label, before and after; few picks are hollow."""
    by_phase = {curve["phase"]: curve for curve in curves}
    with style():
        fig = Figure(figsize=(WIDTH_IN, 2.6), layout="constrained")
        for ax, phase in zip(fig.subplots(1, 2, sharey=True), PHASES, strict=True):
            ends = np.array([0.0, 1.0])
            ax.fill_between(ends, ends - AWAY, ends + AWAY, color=GREY, alpha=0.18, linewidth=0)
            ax.plot(ends, ends, color=INK, linewidth=0.6)
            for key, colour, marker in (("before", GREY, "s"), ("after", BLUE, "o")):
                told = by_phase.get(phase, {}).get(key)
                if told:
                    line(ax, _curve(told), FEW_PICKS, (colour, marker, key))
            ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="probability", title=phase)
            for each in (ax.xaxis, ax.yaxis):
                each.set_major_formatter(PercentFormatter(1))
                each.set_major_locator(MaxNLocator(5))
            ax.grid()
            if phase == PHASES[0]:
                ax.set_ylabel("with a label")
                ax.legend(loc="upper left", handlelength=1.2)
        return Drawing(fig, name, "Reliability of the probabilities of P and S picks before and after")


def _curve(told: dict[str, Any]) -> Reliability:
    columns = (_numbers(told[key]) for key in ("said", "real", "low", "high"))
    return Reliability(np.asarray(told["n"], np.int64), *columns)


def residual_figure(rows: Sequence[dict[str, Any]], name: str) -> Drawing:
    """Histograms of pick minus label (s), of one data set: after filled, before as an outline."""
    by_phase = {row["phase"]: row for row in rows}
    values = {
        (phase, key): _known(by_phase.get(phase, {}).get(f"{key}_s", []))
        for phase in PHASES
        for key in ("before", "after")
    }
    every = np.abs(np.concatenate(list(values.values())))
    end = max(float(np.percentile(every, 99)), 0.05) if len(every) else 1.0
    edges = np.linspace(-end, end, 32).tolist()
    with style():
        fig = Figure(figsize=(WIDTH_IN, 3.4), layout="constrained")
        for ax, phase in zip(fig.subplots(2, sharex=True), PHASES, strict=True):
            before, after = (np.clip(values[phase, key], -end, end) for key in ("before", "after"))
            ax.hist(after, edges, color=BLUE, alpha=0.6, label="after")
            ax.hist(before, edges, histtype="step", color=INK, linewidth=1, label="before")
            ax.axvline(0, color=INK, linewidth=0.5)
            ax.set(title=f"{phase} · {len(before):,} before, {len(after):,} after", ylabel="picks")
            ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            ax.grid(axis="y")
        ax.set_xlabel("pick − label (s)")
        fig.axes[0].legend(loc="upper right", handlelength=1.2)
        return Drawing(fig, name, "Residuals of P and S picks before and after")


def _known(values: Sequence[float | None]) -> Float:
    every = _numbers(values)
    found: Float = every[np.isfinite(every)]
    return found


def _numbers(values: Sequence[float | None]) -> Float:
    return np.array([np.nan if value is None else value for value in values], np.float64)
