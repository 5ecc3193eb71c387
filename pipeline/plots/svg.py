"""A matplotlib figure as an inline SVG element or a PNG, and what all figures share: style, colours, status marks.

Text stays text, so that it is searchable, takes the page's font and is escaped by matplotlib; ink, paper
and status colours become CSS, so that one figure serves light, dark and print. The same input gives the
same bytes. Colours are those of Okabe and Ito (2008), and every status has a shape of its own too.
"""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, num2date
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK, PAPER = "#010101", "#fefefe"  # stand for the page's own colours
BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#8c8c8c"
CSS = {
    INK: "currentColor",
    PAPER: "var(--paper)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
    RED: "var(--red)",
    GREY: "var(--grey)",
}
STATUS = {  # status of an event -> colour, marker; drawn in this order
    "not scored": (GREY, "o"),
    "found": (BLUE, "o"),
    "matched": (BLUE, "o"),
    "new": (GREEN, "D"),
    "missed": (RED, "s"),
}
PNG_DPI = 130
ZERO = ["", "%Y", "%b", "%d %b", "%H:%M", "%H:%M"]  # how a tick names what begins there
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "orcolat",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,  # a station may be called $x$
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.6,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "timezone": "UTC",
}


@dataclass(frozen=True, slots=True)
class Link:
    """Where a mark leads (an id of the page), and what it says under the pointer."""

    anchor: str
    title: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure, a name that keeps its ids apart from those of others, what it shows in words, and its links."""

    figure: Figure
    name: str
    alt: str
    links: tuple[Link, ...] = ()

    def svg(self) -> str:
        """An inline SVG element."""
        with style():
            text = svg(self.figure, self.name, self.alt, list(self.links))
        self.figure.set_layout_engine("none")  # what it has found stays: to find it again takes as long as to draw
        return text

    def png(self) -> bytes:
        """On white, for a mail. The same figure gives the same bytes."""
        buffer = io.BytesIO()
        with style():
            self.figure.savefig(buffer, format="png", dpi=PNG_DPI, facecolor="white", metadata={"Software": None})
        return buffer.getvalue()


def style() -> AbstractContextManager[None]:
    """The context in which figures are drawn and written."""
    return mpl.rc_context(STYLE)


def svg(fig: Figure, name: str, alt: str, links: list[Link] | None = None) -> str:
    """``fig`` as an inline SVG element; ``name`` keeps its ids apart from those of other figures."""
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", body, flags=re.S)
    body = re.sub(r'(\bid="|href="#|url\(#)(?!to-)', rf"\g<1>{name}-", body)
    for colour, css in CSS.items():
        body = body.replace(f": {colour}", f": {css}")
    titles = {link.anchor: link.title for link in links or []}
    body = re.sub(r'<a xlink:href="#to-([^"]*)"[^>]*>', lambda found: _open_link(found[1], titles), body)
    width, height = fig.get_size_inches() * 72
    size = f'viewBox="0 0 {width:g} {height:g}" style="max-width:{width * 1.5:.0f}px"'
    return f'<svg class="plot" role="img" aria-label="{escape(alt)}" {size}>{body.strip()}'


def _open_link(anchor: str, titles: dict[str, str]) -> str:
    return f'<a href="#{escape(anchor)}"><title>{escape(titles[anchor])}</title>'


def target(link: Link) -> str:
    """The address to give to matplotlib for ``link``; `svg` makes a link with a title of it."""
    return f"#to-{link.anchor}"


def mark(status: str, label: str) -> Line2D:
    """The legend entry of a status."""
    colour, marker = STATUS[status]
    hollow = status == "missed"
    line = Line2D([], [], linestyle="", marker=marker, markersize=5.5, label=label)
    line.set(markerfacecolor="none" if hollow else colour, markeredgecolor=colour, markeredgewidth=1.1 if hollow else 0)
    return line


class Dates(ConciseDateFormatter):
    """Short labels, the first with what all of them leave out in a second line: the month and the year, or the day."""

    def format_ticks(self, values: Any) -> list[str]:
        labels: list[str] = super().format_ticks(values)  # type: ignore[no-untyped-call]
        if labels:
            step = min(np.diff(values), default=1.0)  # days
            form = "%H:%M\n%d %b %Y" if step < 1 else "%d\n%b %Y" if step < 28 else "%b\n%Y" if step < 365 else "%Y"
            labels[0] = f"{num2date(values[0]):{form}}"  # type: ignore[no-untyped-call]
        return labels


def date_axis(ax: Axes, most: int = 9) -> None:
    """Label the x axis, in days since 1970, with UTC dates and times."""
    locator: Any = AutoDateLocator(minticks=2, maxticks=most)  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(Dates(locator, zero_formats=ZERO, show_offset=False))  # type: ignore[no-untyped-call]
