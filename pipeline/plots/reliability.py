"""The reliability diagram: what probabilities say, against what is so."""

from __future__ import annotations

from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter, StrMethodFormatter

from pipeline.maths.reliability import Reliability
from pipeline.plots.svg import BLUE, GREEN, GREY, INK, ORANGE, RED, style, svg

LOOKS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "D"), (RED, "^"), (GREY, "v"), (BLUE, "P"), (INK, "X"))
AWAY = 0.1  # from the diagonal: the band that is drawn


def reliability_plot(curves: dict[str, Reliability], least: int) -> str:
    """One line a name, with 95 % intervals, above how many events each bin has; bins of fewer than ``least`` events
    are hollow and not joined."""
    with style():
        fig = Figure(figsize=(4.6, 4.6 + 0.16 * len(curves)), layout="constrained")
        ax, count = fig.subplots(2, sharex=True, height_ratios=(4, 1))
        ends = np.array([0.0, 1.0])
        ax.fill_between(ends, ends - AWAY, ends + AWAY, color=GREY, alpha=0.18, linewidth=0)
        ax.plot(ends, ends, color=INK, linewidth=0.6)
        for (name, curve), (colour, marker) in zip(curves.items(), cycle(LOOKS), strict=False):
            line(ax, curve, least, (colour, marker, name))
            count.plot(curve.said, curve.n, marker, color=colour, markersize=4)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="real events")
        count.set(xlabel="probability", ylabel="events", yscale="log")
        count.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))  # the usual one writes formulas
        count.yaxis.set_minor_formatter(NullFormatter())
        for each in (ax.xaxis, ax.yaxis):
            each.set_major_formatter(PercentFormatter(1))
        ax.grid()
        count.grid(axis="y")
        fig.legend(loc="outside upper left")  # below it nothing would be seen
        return svg(fig, "reliability", f"Reliability of the probability of events in {len(curves)} tests")


def line(ax: Axes, curve: Reliability, least: int, look: tuple[str, str, str]) -> None:
    colour, marker, name = look
    enough = curve.n >= least
    few = (curve.n > 0) & ~enough
    ax.vlines(curve.said[enough], curve.low[enough], curve.high[enough], color=colour, linewidth=1, alpha=0.5)
    ax.plot(curve.said[enough], curve.real[enough], marker=marker, color=colour, markersize=5, linewidth=1, label=name)
    ax.plot(curve.said[few], curve.real[few], marker, color=colour, markersize=4, markerfacecolor="none")
