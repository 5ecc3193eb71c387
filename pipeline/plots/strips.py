"""Data and picks of every channel and day: bars for one day, a map of days for more."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from pipeline.maths.overview import Grid
from pipeline.plots.svg import BLUE, INK, ORANGE, RED, Drawing, date_axis, style

END_COLOURS = {"empty": "#b8b8b8", "failed": RED, "missing": ORANGE}
NO_DATA = "#d9e7f2"  # picked, of no data; full blue is all data


def station_strips(grid: Grid) -> Drawing:
    """Data (where there is any) and picks, one row a channel."""
    n, has_data = len(grid.channels), bool((grid.end != "").any())
    row_pt = float(np.clip(1000 / n, 2, 13))
    rows, over, under = row_pt * n / 72, 0.46, 0.45
    with style():
        fig = Figure(figsize=(9.45, rows + over + under))
        span = (under / (rows + over + under), rows / (rows + over + under))
        boxes = [(0.125, 0.41), (0.57, 0.41)] if has_data else [(0.125, 0.855)]
        axes = [fig.add_axes((left, span[0], width, span[1])) for left, width in boxes]
        data, picks = (_data_bars, _pick_bars) if len(grid.days) == 1 else (_data_cells, _pick_cells)
        if has_data:
            data(fig, axes[0], grid)
        picks(fig, axes[-1], grid)
        for ax in axes:
            _channel_axis(ax, grid.channels, row_pt, ax is axes[0])
        what = "Data and picks" if has_data else "Picks"
        return Drawing(fig, "stations", f"{what} of {n} channels on {len(grid.days)} days")


def _channel_axis(ax: Axes, channels: list[str], row_pt: float, labels: bool) -> None:
    every = int(np.ceil(9 / row_pt))
    at = list(range(0, len(channels), every))
    ax.set_yticks(at, [channels[i] for i in at] if labels else [""] * len(at), fontsize=7)
    ax.set_ylim(len(channels) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)


def _key(fig: Figure, ax: Axes, title: str, colours: list[tuple[str, Any]]) -> None:
    """Title and legend of a panel, in two lines above it."""
    above = ax.get_position().y1 + 19 / 72 / fig.get_size_inches()[1]
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (ax.get_position().x0, above)}
    marks = [Line2D([], [], linestyle="", marker="s", markersize=6, color=c, label=name) for name, c in colours]
    fig.legend(handles=marks, ncols=6, columnspacing=1, handletextpad=0, borderpad=0, borderaxespad=0, **place)
    ax.set_title(title)


def _data_bars(fig: Figure, ax: Axes, grid: Grid) -> None:
    ax.barh(np.arange(len(grid.channels)), np.nan_to_num(grid.fraction[:, 0]), 0.7, color=BLUE, alpha=0.85)
    for row, end in enumerate(grid.end[:, 0].tolist()):
        if end in END_COLOURS:
            colour = INK if end == "empty" else END_COLOURS[end]
            ax.text(0.012, row, end, va="center_baseline", fontsize=7, color=colour)
    ax.set(xlim=(0, 1))
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.grid(axis="x")
    _key(fig, ax, "share of the period with data", [])


def _pick_bars(fig: Figure, ax: Axes, grid: Grid) -> None:
    rows = np.arange(len(grid.channels))
    ax.barh(rows, grid.n_p[:, 0], 0.7, color=BLUE, alpha=0.85)
    ax.barh(rows, grid.n_s[:, 0], 0.7, grid.n_p[:, 0], color=ORANGE, alpha=0.85)
    ax.set_xlim(0, max(ax.get_xlim()[1], 1))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.grid(axis="x")
    _key(fig, ax, "picks", [("P", BLUE), ("S", ORANGE)])


def _data_cells(fig: Figure, ax: Axes, grid: Grid) -> None:
    fraction = np.clip(np.nan_to_num(grid.fraction), 0, 1)[..., None]
    cells = np.array(to_rgba(NO_DATA)) * (1 - fraction) + np.array(to_rgba(BLUE)) * fraction
    cells[grid.end == ""] = 0
    for end, colour in END_COLOURS.items():
        cells[grid.end == end] = to_rgba(colour)
    _draw_cells(ax, cells, grid)
    ends = [(end, to_rgba(colour)) for end, colour in END_COLOURS.items() if (grid.end == end).any()]
    _key(fig, ax, "share of each day with data", [("0 %", NO_DATA), ("100 %", to_rgba(BLUE)), *ends])


def _pick_cells(fig: Figure, ax: Axes, grid: Grid) -> None:
    n = grid.n_p + grid.n_s
    some = n[n > 0]
    low, high = (max(1.0, float(np.percentile(some, q))) for q in (1, 99)) if len(some) else (1.0, 2.0)
    high = max(high, 2 * low)
    norm = LogNorm(low, high, clip=True)
    colours = mpl.colormaps["viridis_r"]
    cells = colours(norm(np.maximum(n, low)))
    cells[n == 0] = 0
    _draw_cells(ax, cells, grid)
    shown = np.unique(np.geomspace(low, high, 4).round().astype(int)).tolist()
    _key(fig, ax, "picks on each day", [(f"{v:,}", colours(norm(v))) for v in shown])


def _draw_cells(ax: Axes, cells: NDArray[np.float64], grid: Grid) -> None:
    """RGBA cells (n, m, 4) with the days on the x axis."""
    days = np.array(grid.days, "datetime64[D]").astype(np.int64)
    extent = (float(days[0]), float(days[-1] + 1), len(grid.channels) - 0.5, -0.5)
    ax.imshow(cells, aspect="auto", interpolation="none", extent=extent)
    date_axis(ax, 6)
