"""The record section of one event: what was recorded and scored at each station, and who picked what when."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline.plots.svg import BLUE, GREY, INK, ORANGE, RED, style
from pipeline.records import Bool, Float

COLOUR = {"P": BLUE, "S": ORANGE}
REACH = 0.44  # of a row, from its middle, that is drawn on
MOST = 40  # stations that are drawn, the nearest
POINTS = 400  # bins of a waveform, at most
LEAST = 0.01  # probability that is drawn
WIDE = 118  # letters of a line of the title
DPI = 160
DOTS = (0, (1.5, 1.5))


@dataclass(frozen=True, slots=True)
class Mark:
    """A time of one phase, s after the origin. ``event`` says whose pick ours is: "this", "other", "" for noise."""

    phase: str
    time_s: float
    event: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One station. Traces have a time axis ``time_s`` (n,); None: not known."""

    name: str
    distance_km: float
    theirs: tuple[Mark, ...]
    predicted: tuple[Mark, ...]
    ours: tuple[Mark, ...]
    remark: str = ""  # at the right
    time_s: Float | None = None
    vertical: Float | None = None
    probability: dict[str, Float] | None = None  # by phase


def section(title: str, rows: list[Row], thresholds: dict[str, float]) -> Figure:
    """The stations by distance, one a line, times after the origin. Call it in `svg.style`."""
    rows = sorted(rows, key=lambda row: (not np.isfinite(row.distance_km), row.distance_km, row.name))
    left_out, rows = len(rows) - MOST, rows[:MOST]
    fig = Figure(figsize=(9.45, 1.5 + 0.36 * max(len(rows), 3)), layout="constrained")
    ax = fig.add_subplot()
    first_s, last_s = _span_s(rows)
    for y, row in enumerate(rows):
        _draw_traces(ax, y, row, (first_s, last_s))
        _draw_marks(ax, y, row)
        if row.remark:
            ax.annotate(row.remark, (1.005, y), xycoords=("axes fraction", "data"), va="center", fontsize=6.5)
    ax.axvline(0, color=INK, linewidth=0.8, alpha=0.5)
    ax.set(xlim=(first_s, last_s), ylim=(max(len(rows), 1) - 0.4, -0.6), xlabel="time after the origin (s)")
    ax.set_yticks(
        range(len(rows)), [f"{row.name}  {row.distance_km:.0f} km" for row in rows], fontsize=7, parse_math=False
    )
    ax.grid(axis="x")
    more = f"\n{left_out} farther stations are not drawn" if left_out > 0 else ""
    lines = [part for line in title.split("\n") for part in textwrap.wrap(line, WIDE)]
    ax.set_title("\n".join(lines) + more, fontsize=8.5, parse_math=False)
    fig.legend(handles=_legend(rows, thresholds), loc="outside lower center", ncols=4, fontsize=7)
    return fig


def _span_s(rows: list[Row]) -> tuple[float, float]:
    """From before the origin to after the last expected arrival."""
    times = [mark.time_s for row in rows for mark in (*row.theirs, *row.predicted)]
    last = max(times, default=20.0)
    return -max(2.0, 0.08 * last), last + max(4.0, 0.15 * last)


def _draw_traces(ax: Axes, y: int, row: Row, span_s: tuple[float, float]) -> None:
    """The vertical component, each row by its own maximum, and the probabilities from the row's lower edge up."""
    if row.time_s is None:
        ax.axhline(y, color=INK, linewidth=0.4, alpha=0.25)
        return
    inside = (row.time_s >= span_s[0]) & (row.time_s <= span_s[1])
    time_s = row.time_s[inside]
    if row.vertical is not None and np.isfinite(row.vertical[inside]).any():
        at, wave = _thinned(time_s, row.vertical[inside])
        peak = float(np.nanmax(np.abs(wave))) or 1.0
        ax.plot(at, y - REACH * wave / peak, color=GREY, linewidth=0.35, alpha=0.8)
    for phase, values in (row.probability or {}).items():
        height = np.nan_to_num(values[inside])
        for first, stop in _stretches(height > LEAST):
            at, part = time_s[first:stop], height[first:stop]
            curve = y + REACH - 2 * REACH * part
            ax.fill_between(at, np.full(len(part), y + REACH), curve, color=COLOUR[phase], alpha=0.45, linewidth=0)
            ax.plot(at, curve, color=COLOUR[phase], linewidth=0.7)


def _thinned(time_s: Float, values: Float) -> tuple[Float, Float]:
    """``values`` (n,) as the least and the largest of each of at most `POINTS` bins, and times of these."""
    step = -(-len(values) // POINTS)
    if step <= 2:
        return time_s, values
    n = len(values) // step
    bins = values[: n * step].reshape(n, step)
    ends = np.column_stack([bins.min(axis=1), bins.max(axis=1)])  # NaN in a bin with a gap: a gap
    return np.repeat(time_s[: n * step : step], 2), ends.ravel()


def _stretches(there: Bool) -> list[tuple[int, int]]:
    """First (inclusive) and stop (exclusive) of each run of True."""
    edges = np.flatnonzero(np.diff(there.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
    return [(int(first), int(stop)) for first, stop in edges]


def _draw_marks(ax: Axes, y: int, row: Row) -> None:
    for mark in row.predicted:
        ends = [y - REACH, y + REACH]
        ax.plot([mark.time_s] * 2, ends, color=COLOUR[mark.phase], linestyle=DOTS, linewidth=1.1)
    for mark in row.theirs:
        ax.plot([mark.time_s] * 2, [y - REACH, y + REACH], color=RED, linewidth=1.3)
        before = any(each.phase == mark.phase and each.time_s <= mark.time_s for each in row.predicted)
        look: dict[str, Any] = {"ha": "left" if before else "right", "va": "top", "fontsize": 6, "color": RED}
        shift = 2 if before else -2, 0
        ax.annotate(mark.phase, (mark.time_s, y - REACH), shift, textcoords="offset points", **look)
    for mark in row.ours:
        face = COLOUR[mark.phase] if mark.event else "none"
        shape = "D" if mark.event == "other" else "o"
        ax.plot(mark.time_s, y, shape, markersize=4.2, zorder=5, mfc=face, mec=COLOUR[mark.phase], mew=1.0)


def _legend(rows: list[Row], thresholds: dict[str, float]) -> list[Any]:
    """What each mark that occurs means."""
    scored = any(row.probability for row in rows)

    def dot(shape: str, filled: bool, label: str) -> Line2D:
        face = INK if filled else "none"
        return Line2D([], [], linestyle="", marker=shape, markersize=4.2, mfc=face, mec=INK, label=label)

    look: dict[str, Any] = {
        "red": {"color": RED, "linewidth": 1.3},
        "dots": {"color": INK, "linewidth": 1.1, "linestyle": DOTS},
    }
    ours = {mark.event for row in rows for mark in row.ours}
    entries: list[tuple[bool, Any]] = [
        (any(row.theirs for row in rows), Line2D([], [], **look["red"], label="pick of the reference")),
        (any(row.predicted for row in rows), Line2D([], [], **look["dots"], label="predicted from the reference")),
        ("this" in ours, dot("o", True, "our pick, in the event near it")),
        ("other" in ours, dot("D", True, "our pick, in another event")),
        ("" in ours, dot("o", False, "our pick, noise")),
        (True, Patch(color=BLUE, alpha=0.6, label="P" + _limit(thresholds if scored else {}, "P"))),
        (True, Patch(color=ORANGE, alpha=0.6, label="S" + _limit(thresholds if scored else {}, "S"))),
        (scored, Line2D([], [], color=GREY, linewidth=0.6, label="vertical component, above 1 Hz")),
    ]
    return [entry for occurs, entry in entries if occurs]


def _limit(thresholds: dict[str, float], phase: str) -> str:
    return f": probability, 0 to 1 in a row (threshold {thresholds[phase]:g})" if thresholds else ""


def write(fig: Figure, svg: Path, png: Path) -> None:
    """``fig`` in both formats; the same figure gives the same bytes of SVG."""
    with style():
        text = io.StringIO()
        fig.savefig(text, format="svg", metadata={"Date": None}, facecolor="white")
        svg.write_text(text.getvalue(), "utf-8")
        fig.savefig(png, format="png", dpi=DPI, metadata={"Software": None}, facecolor="white")
