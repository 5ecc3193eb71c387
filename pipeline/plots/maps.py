"""The map of events and stations with two depth sections. Equirectangular, true at the middle latitude."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pipeline.maths import geo
from pipeline.maths.overview import positions
from pipeline.plots.svg import INK, PAPER, STATUS, Drawing, Link, mark, style, target
from pipeline.records import Bool, ComparedEvents, Float, Stations

MAX_VECTOR = 2000  # more events than this are drawn as pixels, without links and lines
MAX_CODES = 60  # more stations than this stay without their codes
Extent = tuple[float, float, float, float]  # west, east, south, north


def event_map(events: ComparedEvents, stations: Stations, links: list[Link | None]) -> Drawing:
    """Map of events (links (n,)) and stations, with a depth section to the east and one to the south."""
    _, first = np.unique(stations.id, return_index=True)  # one triangle a site, however many epochs
    sites = stations.take(first)
    lat, lon, depth = positions(events)
    extent = _extent(lat, lon, sites)
    sites = sites.take(_inside(extent, sites))
    up_km = -np.nan_to_num(sites.elevation_m) / 1000
    with style():
        fig, (plan, east, south) = _axes(extent, _depths(np.r_[depth, up_km]))
        for ax, x, y in ((plan, lon, lat), (east, depth, lat), (south, lon, depth)):
            _draw_events(ax, x, y, events, links if ax is plan else [])
        if len(events) <= MAX_VECTOR:
            _draw_displacements(plan, events)
        _draw_sites(plan, sites.longitude_deg, sites.latitude_deg, 26.0 if len(sites) <= MAX_CODES else 12.0)
        _draw_sites(east, up_km, sites.latitude_deg, 8.0)
        _draw_sites(south, sites.longitude_deg, up_km, 8.0)
        if len(sites) <= MAX_CODES:
            _write_codes(fig, plan, sites, extent)
        _scale_and_north(plan, extent)
        _legend(fig, east, south, events, len(sites), len(first))
        alt = f"Map of {len(events)} events and {len(sites)} stations, with depth sections"
        return Drawing(fig, "map", alt, tuple(link for link in links if link))


def _extent(lat: Float, lon: Float, sites: Stations) -> Extent:
    """A box round all events and the stations near them (all stations if there is no event)."""
    known = np.isfinite(lat) & np.isfinite(lon)
    if not known.any():
        return _box(sites.latitude_deg, sites.longitude_deg, 1.12) if len(sites) else (-1.0, 1.0, -1.0, 1.0)
    near = _inside(_box(lat[known], lon[known], 1.6), sites)
    lat, lon = np.r_[lat[known], sites.latitude_deg[near]], np.r_[lon[known], sites.longitude_deg[near]]
    return _box(lat, lon, 1.12)


def _box(lat: Float, lon: Float, grow: float) -> Extent:
    """The box of the points times ``grow``, of a height between 0.65 and 0.9 of its width on the ground."""
    x, y = float(lon.min() + lon.max()) / 2, float(lat.min() + lat.max()) / 2
    shrink = _shrink(y)
    width, height = grow * max(float(np.ptp(lon)) * shrink, 0.2), grow * max(float(np.ptp(lat)), 0.2)
    width, height = max(width, height / 0.9), max(height, width * 0.65)
    return x - width / shrink / 2, x + width / shrink / 2, y - height / 2, y + height / 2


def _inside(extent: Extent, sites: Stations) -> Bool:
    west, east, south, north = extent
    lat, lon = sites.latitude_deg, sites.longitude_deg
    return (lon >= west) & (lon <= east) & (lat >= south) & (lat <= north)


def _shrink(latitude_deg: float) -> float:
    """Length of a degree of longitude over one of latitude."""
    return max(float(np.cos(np.radians(latitude_deg))), 0.05)


def _depths(depth_km: Float) -> tuple[float, float]:
    """Range of the sections: the surface, all depths and a margin."""
    known = depth_km[np.isfinite(depth_km)]
    top, bottom = min(known.min(initial=0), 0), max(known.max(initial=5), 5)
    return top - 0.06 * (bottom - top), bottom + 0.06 * (bottom - top)


def _axes(extent: Extent, depths: tuple[float, float]) -> tuple[Figure, tuple[Axes, Axes, Axes]]:
    """The plan, the section to its east and the one to its south, side by side to scale."""
    west, east, south, north = extent
    width, section, gap, left, under, over, right = 6.75, 1.85, 0.12, 0.65, 0.5, 0.5, 0.08
    height = width * (north - south) / ((east - west) * _shrink((south + north) / 2))
    size = np.array([left + width + gap + section + right, under + section + gap + height + over])
    fig = Figure(figsize=tuple(size))

    def box(x: float, y: float, w: float, h: float) -> Axes:
        ax = fig.add_axes((x / size[0], y / size[1], w / size[0], h / size[1]))
        ax.spines[:].set_visible(True)
        ax.grid()
        ax.xaxis.set_major_locator(MaxNLocator(6 if w > section else 4))
        ax.yaxis.set_major_locator(MaxNLocator(6 if h > section else 4))
        return ax

    plan = box(left, under + section + gap, width, height)
    side = box(left + width + gap, under + section + gap, section, height)
    below = box(left, under, width, section)
    plan.set(xlim=(west, east), ylim=(south, north), ylabel="latitude (°)")
    side.set(xlim=depths, ylim=(south, north), xlabel="depth (km)")
    below.set(xlim=(west, east), ylim=depths[::-1], xlabel="longitude (°)", ylabel="depth (km)")
    plan.tick_params(labelbottom=False)
    side.tick_params(labelleft=False, bottom=False, labelbottom=False, top=True, labeltop=True)
    side.xaxis.set_label_position("top")
    return fig, (plan, side, below)


def _diameters(magnitude: Float, n_events: int) -> Float:
    """Marker diameters in points: 2.8 at M 0, a factor 1.55 per unit, 3.6 where not known; smaller in a crowd."""
    crowd = float(np.clip((400 / max(n_events, 1)) ** 0.5, 0.45, 1))
    return crowd * np.clip(np.where(np.isfinite(magnitude), 2.8 * 1.55 ** np.nan_to_num(magnitude), 3.6), 2.2, 40.0)


def _draw_events(ax: Axes, x: Float, y: Float, events: ComparedEvents, links: list[Link | None]) -> None:
    size = _diameters(events.magnitude, len(events)) ** 2
    many = len(events) > MAX_VECTOR
    for status, (colour, marker) in STATUS.items():
        at = np.flatnonzero((events.status == status) & np.isfinite(x) & np.isfinite(y))
        at = at[np.argsort(-size[at], kind="stable")]  # small ones on top
        hollow = status == "missed"
        points = ax.scatter(
            x[at],
            y[at],
            s=size[at],
            marker=marker,
            facecolors="none" if hollow else to_rgba(colour, 0.72),
            edgecolors=colour if hollow else "none" if many else PAPER,
            linewidths=(0.6 if many else 1.1) if hollow else 0.3,
            rasterized=many,
            zorder=4 if hollow else 3,
        )
        if links and not many:
            points.set_urls([target(link) if (link := links[i]) else None for i in at])


def _draw_displacements(ax: Axes, events: ComparedEvents) -> None:
    both = events.take(events.status == "matched")
    ours = np.stack([both.our_longitude_deg, both.our_latitude_deg], 1)
    theirs = np.stack([both.their_longitude_deg, both.their_latitude_deg], 1)
    lines = LineCollection(list(np.stack([theirs, ours], 1)), colors=INK, linewidths=0.6, alpha=0.55, zorder=5)
    ax.add_collection(lines, autolim=False)


def _draw_sites(ax: Axes, x: Float, y: Float, area: float) -> None:
    ax.scatter(x, y, s=area, marker="^", facecolors=PAPER, edgecolors=INK, linewidths=0.7, zorder=2.5)


def _write_codes(fig: Figure, ax: Axes, sites: Stations, extent: Extent) -> None:
    """Write the station codes where no other code or triangle is; a code without room is left out."""
    west, east, south, north = extent
    box = ax.get_position()
    width, height = fig.get_size_inches() * 72 * (box.width, box.height)
    x = (sites.longitude_deg - west) / (east - west) * width
    y = (sites.latitude_deg - south) / (north - south) * height
    taken = [(a - 3.5, b - 3.5, a + 3.5, b + 3.5) for a, b in zip(x, y, strict=True)]
    for i, name in enumerate(sites.id.tolist()):
        code = name.rpartition(".")[2]
        free = [spot for spot in _spots(x[i], y[i], 4.5 * len(code)) if _fits(spot[0], taken, i, (width, height))]
        if free:
            label, offset, align = free[0]
            taken.append(label)
            at = (sites.longitude_deg[i], sites.latitude_deg[i])
            ax.annotate(
                code, at, offset, textcoords="offset points", ha=align, va="center_baseline", fontsize=7, zorder=6
            )


def _spots(x: float, y: float, long: float) -> list[tuple[Extent, tuple[float, float], str]]:
    """Where a code of ``long`` points may stand around (x, y): its box, offset and alignment, the best first."""
    tries = ((6, 0, "left", 0.0), (-6, 0, "right", 1.0), (0, 8, "center", 0.5), (0, -8, "center", 0.5))
    boxes = []
    for dx, dy, align, share in tries:
        left = x + dx - share * long
        boxes.append(((left, y + dy - 4, left + long, y + dy + 4), (float(dx), float(dy)), align))
    return boxes


def _fits(label: Extent, taken: list[Extent], own: int, size: tuple[float, float]) -> bool:
    inside = label[0] > 2 and label[2] < size[0] - 2 and label[1] > 2 and label[3] < size[1] - 2
    return inside and not any(_overlap(label, other) for k, other in enumerate(taken) if k != own)


def _overlap(a: Extent, b: Extent) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _scale_and_north(ax: Axes, extent: Extent) -> None:
    """Above the plan: a bar of a round number of km, true at the middle latitude, and an arrow to the north."""
    west, east, south, north = extent
    middle = (south + north) / 2
    km_per_deg = float(geo.distance_km(middle, west, middle, west + 1))
    room = 0.25 * (east - west) * km_per_deg
    step = 10 ** np.floor(np.log10(room))
    km = float(step * max(m for m in (1, 2, 5) if m * step <= room))
    end = west + km / km_per_deg
    ax.plot([west, end], [1.025, 1.025], color=INK, linewidth=2.2, transform=ax.get_xaxis_transform(), clip_on=False)
    ax.annotate(f"{km:g} km", (end, 1.025), (5, 0), ax.get_xaxis_transform(), "offset points", va="center")
    arrow: dict[str, Any] = {"arrowstyle": "-|>", "color": INK, "linewidth": 0.9}
    ax.annotate("", (0.985, 1.055), (0.985, 1.005), "axes fraction", arrowprops=arrow)
    ax.annotate("N", (0.975, 1.025), xycoords="axes fraction", ha="right", va="center", fontweight="bold")


def _legend(fig: Figure, side: Axes, below: Axes, events: ComparedEvents, n_sites: int, n_all: int) -> None:
    """Statuses with their numbers, and the sizes of magnitudes, in the corner between the sections."""
    handles = []
    for status in reversed(STATUS):
        n = int(np.count_nonzero(events.status == status))
        if n:
            handles.append(mark(status, f"{n:,} {status}"))
    if len(events) <= MAX_VECTOR and np.any(events.status == "matched"):
        handles.append(Line2D([], [], color=INK, linewidth=0.8, alpha=0.7, label="ours to theirs"))
    label = f"{n_sites:,} stations" + (f" ({n_all - n_sites:,} farther away)" if n_all > n_sites else "")
    triangle = Line2D([], [], linestyle="", marker="^", markersize=5.5, label=label)
    triangle.set(markerfacecolor=PAPER, markeredgecolor=INK, markeredgewidth=0.7)
    left, bottom, top = side.get_position().x0, below.get_position().y0, below.get_position().y1
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (left, top), "borderaxespad": 0, "borderpad": 0}
    fig.legend(handles=[*handles, triangle], handlelength=1.4, handletextpad=0.6, labelspacing=0.45, **place)
    _magnitude_scale(fig, left, bottom, events.magnitude)


def _magnitude_scale(fig: Figure, left: float, bottom: float, magnitude: Float) -> None:
    """Circles of up to four whole magnitudes, from ``left`` on (figure coordinates)."""
    known = magnitude[np.isfinite(magnitude)]
    if not len(known):
        return
    wide, high = fig.get_size_inches() * 72
    shown = np.unique(np.round(np.linspace(np.floor(known.min()), np.ceil(known.max()), 4)))
    diameters = _diameters(shown, len(magnitude))
    x, y = left * wide, bottom + (12 + max(20, float(diameters.max())) / 2) / high
    for magnitude_shown, diameter in zip(shown.tolist(), diameters.tolist(), strict=True):
        x += max(diameter, 20) / 2
        circle = Line2D([x / wide], [y], linestyle="", marker="o", markersize=diameter)
        circle.set(markerfacecolor="none", markeredgecolor=INK, markeredgewidth=0.6)
        fig.add_artist(circle)
        fig.text(x / wide, bottom, f"M {magnitude_shown:g}", ha="center", va="bottom", fontsize=7)
        x += max(diameter, 20) / 2 + 6
