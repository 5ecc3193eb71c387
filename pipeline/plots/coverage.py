"""The audit's heat map: each station on each day, and above it all stations together."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.maths.coverage import COVERED, KINDS, NOTHING, Coverage, by_kind
from pipeline.plots.svg import BLUE, ORANGE, RED, date_axis, style, svg

LITTLE = "#d3e5f2"  # picked, of hardly any data; full blue is a whole day
COLOURS = {
    "picked": BLUE,
    "no file": "#d0d0d0",
    "empty": "#8c8c8c",
    "failed": RED,
    "set aside": "#7a2a00",
    "missing": ORANGE,
    "being picked": "#f0e442",
    "late": "#009e73",
}
LABEL_PT = 9.0


def heat_map(grid: Coverage) -> str:
    """Stations that have at least one day with something other than no file, one row each."""
    of_site, of_day = by_kind(grid)
    rows = np.flatnonzero(of_site[:, [NOTHING, KINDS.index("no file")]].sum(axis=1) < grid.kind.shape[1])
    n = max(1, len(rows))
    row_pt = float(np.clip(900 / n, 0.5, 13))
    map_in, above, between, top, under = row_pt * n / 72, 0.9, 0.12, 0.46, 0.45
    height = map_in + above + between + top + under
    with style():
        fig = Figure(figsize=(9.45, height))
        cells = fig.add_axes((0.1, under / height, 0.89, map_in / height))
        total = fig.add_axes((0.1, (under + map_in + between) / height, 0.89, above / height), sharex=cells)
        _cells(cells, grid, rows, row_pt)
        _days(total, grid, of_day)
        _key(fig, of_site.sum(axis=0), height)
        return svg(fig, "coverage", f"What became of {len(rows)} stations on {grid.kind.shape[1]} days")


def colours(grid: Coverage, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """RGBA cells (rows, days, 4): the kind's colour, paler where a picked day has gaps."""
    palette = np.zeros((len(KINDS), 4), np.uint8)
    for i, name in enumerate(KINDS):
        if name:
            palette[i] = [*(round(255 * value) for value in to_rgb(COLOURS[name])), 255]
    kind = grid.kind[rows]
    cells: NDArray[np.uint8] = palette[kind]
    picked = kind == COVERED
    share = np.clip(grid.fraction[rows][picked], 0, 1)[:, None]
    pale = np.array(to_rgb(LITTLE)) * 255
    cells[picked, :3] = np.rint(pale + (palette[COVERED, :3] - pale) * share).astype(np.uint8)
    return cells


def _cells(ax: Axes, grid: Coverage, rows: NDArray[np.int64], row_pt: float) -> None:
    n, n_days = len(rows), grid.kind.shape[1]
    extent = (float(grid.first_day), float(grid.first_day + n_days), n - 0.5, -0.5)
    if n:
        ax.imshow(colours(grid, rows), aspect="auto", interpolation="none", extent=extent)
    at = list(range(0, n, int(np.ceil(LABEL_PT / row_pt))))
    ax.set_yticks(at, [grid.sites[rows[i]] for i in at], fontsize=7)
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=extent[:2], ylim=extent[2:] if n else (0.5, -0.5))
    date_axis(ax)


def _days(ax: Axes, grid: Coverage, of_day: NDArray[np.int64]) -> None:
    """Station-days of each day, stacked by kind."""
    kinds = [i for i in range(COVERED, len(KINDS)) if of_day[:, i].any()]
    edges = np.arange(grid.first_day, grid.first_day + len(of_day) + 1)
    base = np.zeros(len(edges))
    for i in kinds:
        step = np.append(of_day[:, i], of_day[-1:, i]) + base
        ax.fill_between(edges, base, step, step="post", color=COLOURS[KINDS[i]], linewidth=0)
        base = step
    ax.set_ylim(0, max(1.0, float(base.max(initial=1))))
    ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    ax.tick_params(axis="x", labelbottom=False)
    ax.set_ylabel("stations")


def _key(fig: Figure, counts: NDArray[np.int64], height: float) -> None:
    """Which colour is what, and how many station-days there are of it."""
    shown = [i for i in range(COVERED, len(KINDS)) if counts[i]]
    look: dict[str, Any] = {"linestyle": "", "marker": "s", "markersize": 6}
    marks = [Line2D([], [], color=COLOURS[KINDS[i]], label=f"{KINDS[i]} {counts[i]:,}", **look) for i in shown]
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.1, 1 - 0.06 / height)}
    fig.legend(
        handles=marks,
        ncols=len(marks) if len(marks) < 7 else 5,
        columnspacing=1.2,
        handletextpad=0,
        borderpad=0,
        borderaxespad=0,
        **place,
    )
