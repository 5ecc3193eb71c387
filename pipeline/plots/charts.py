"""Charts of events and picks: in time, recall against magnitude, residuals."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.maths.completeness import Completeness
from pipeline.maths.overview import times
from pipeline.plots.svg import BLUE, INK, ORANGE, PAPER, RED, STATUS, Drawing, date_axis, style
from pipeline.records import DAY_NS, NS, ComparedEvents, Float

MINUTE_NS = 60 * NS
BINS_MIN = (1, 2, 5, 10, 20, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080, 43200, 525600)
LEGEND: dict[str, Any] = {
    "loc": "lower right",
    "bbox_to_anchor": (1, 1),
    "borderpad": 0.1,
    "handlelength": 1,
    "ncols": 5,
}


def timeline(events: ComparedEvents, span_ns: tuple[int, int]) -> Drawing:
    """Number of events in time, stacked by status; ``span_ns`` is the half-open period, ns UTC."""
    minutes = next((m for m in BINS_MIN if (span_ns[1] - span_ns[0]) / (m * MINUTE_NS) <= 100), BINS_MIN[-1])
    edges = np.arange(span_ns[0], span_ns[1] + minutes * MINUTE_NS, minutes * MINUTE_NS)
    day = edges / DAY_NS  # matplotlib's time: days since 1970
    base = np.zeros(len(edges) - 1)
    with style():
        fig = Figure(figsize=(9.45, 2.1), layout="constrained")
        ax = fig.add_subplot()
        for status in reversed(STATUS):
            n = np.histogram(times(events)[events.status == status], edges)[0]
            if n.any():
                look: dict[str, Any] = {"color": STATUS[status][0], "edgecolor": PAPER, "linewidth": 0.4}
                ax.bar(day[:-1], n, np.diff(day), base, align="edge", label=status, **look)
                base += n
        ax.set(xlim=(day[0], span_ns[1] / DAY_NS), ylabel=f"events in {_words(minutes)}")
        _counts(ax)
        date_axis(ax)
        if base.any():
            ax.legend(**LEGEND)
        return Drawing(fig, "time", f"Number of events in bins of {_words(minutes)}")


def _words(minutes: int) -> str:
    size, name = next((s, n) for s, n in ((1440, "day"), (60, "hour"), (1, "minute")) if minutes % s == 0)
    return f"{minutes // size} {name}{'s' if minutes > size else ''}"


def _counts(ax: Axes) -> None:
    """A y axis of whole numbers."""
    ax.set_ylim(0, max(ax.get_ylim()[1], 1))
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.grid(axis="y")


def recall_by_magnitude(bins: list[dict[str, Any]], whole: list[Completeness]) -> Drawing:
    """Recall with its interval, that of all events from a magnitude on, and the number of reference events."""
    bins = [b for b in bins if b["low"] is not None]  # the last one holds events without a magnitude
    low, high, n, matched = (np.array([b[key] for b in bins], float) for key in ("low", "high", "n", "matched"))
    value, bottom, top = (np.array([b["recall"][key] for b in bins], float) for key in ("value", "low", "high"))
    middle, width = (low + high) / 2, (high - low) * 0.9
    with style():
        fig = Figure(figsize=(4.6, 3.9), layout="constrained")
        rate, count = fig.subplots(2, sharex=True, height_ratios=(3, 2))
        _complete(rate, whole)
        rate.vlines(middle, bottom, top, color=BLUE, linewidth=1.4, alpha=0.6)
        rate.plot(middle, value, "o", color=BLUE, markersize=5, label="in a bin")
        rate.set(ylim=(-0.04, 1.06), ylabel="recall")
        rate.yaxis.set_major_formatter(PercentFormatter(1))
        rate.grid(axis="y")
        rate.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=2, handlelength=1.2)
        count.bar(middle, matched, width, color=BLUE, label="matched")
        count.bar(middle, n - matched, width, matched, color=RED, edgecolor=PAPER, linewidth=0.4, label="missed")
        count.set(xlabel="magnitude in the reference", ylabel="events")
        count.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.96), ncols=2, handlelength=1)
        _counts(count)
        return Drawing(fig, "recall", f"Recall against magnitude in {len(bins)} bins, and of all events from there on")


def _complete(ax: Axes, whole: list[Completeness]) -> None:
    """A line of the recall from each magnitude on, with its interval as a band."""
    if len(whole) < 2:
        return
    last = [whole[-1].magnitude + whole[1].magnitude - whole[0].magnitude]
    from_on = np.array([one.magnitude for one in whole] + last)
    value, low, high = (
        np.array([getattr(one, key) for one in [*whole, whole[-1]]]) for key in ("recall", "low", "high")
    )
    ax.fill_between(from_on, low, high, step="post", color=ORANGE, alpha=0.25, linewidth=0)
    ax.step(from_on, value, where="post", color=ORANGE, linewidth=1.4, label="of this magnitude or larger")


def event_residuals(events: ComparedEvents, floor: tuple[float, float, float] | None = None) -> Drawing:
    """Histograms of matched events: origin time, epicentre, depth; ``floor`` is how far apart two analysts are."""
    both = events.take(events.status == "matched")
    with style():
        fig = Figure(figsize=(9.45, 2.5), layout="constrained")
        time, place, depth = fig.subplots(1, 3)
        _histogram(time, both.dt_s, _span(both.dt_s), BLUE)
        _histogram(place, both.distance_km, (0, _span(both.distance_km)[1]), BLUE)
        _histogram(depth, both.depth_difference_km, _span(both.depth_difference_km), BLUE)
        for ax, limit, signed in zip((time, place, depth), floor or (), (True, False, True), strict=bool(floor)):
            ax.axvspan(-limit if signed else 0, limit, color=ORANGE, alpha=0.18, linewidth=0, zorder=0)
        time.set(xlabel="origin time, ours − theirs (s)", ylabel="events")
        place.set(xlabel="distance of epicentres (km)")
        depth.set(xlabel="depth, ours − theirs (km)")
        alt = f"Residuals of {len(both)} matched events in time, epicentre and depth"
        return Drawing(fig, "residuals", alt + (", with what lies between two analysts" if floor else ""))


def pick_residuals(p_s: Float, s_s: Float) -> Drawing:
    """Histograms of matched picks, ours minus theirs (s), one panel a phase of the reference."""
    span = _span(np.concatenate([p_s, s_s]))
    with style():
        fig = Figure(figsize=(4.6, 3.9), layout="constrained")
        p, s = fig.subplots(2, sharex=True)
        _histogram(p, p_s, span, BLUE, "P · ")
        _histogram(s, s_s, span, ORANGE, "S · ")
        p.set(ylabel="picks")
        s.set(xlabel="arrival, ours − theirs (s)", ylabel="picks")
        return Drawing(fig, "picks", f"Residuals of {len(p_s)} P and {len(s_s)} S picks")


def _span(values: Float) -> tuple[float, float]:
    """Symmetric, up to the 99th percentile of the sizes."""
    known = np.abs(values[np.isfinite(values)])
    end = max(float(np.percentile(known, 99)), 0.05) if len(known) else 1.0
    return -end, end


def _histogram(ax: Axes, values: Float, span: tuple[float, float], colour: str, name: str = "") -> None:
    """Bars over ``span``, what lies beyond in the last ones; a line at the median."""
    known = values[np.isfinite(values)]
    ax.hist(np.clip(known, *span), np.linspace(*span, 32).tolist(), color=colour, alpha=0.85)
    _counts(ax)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    if not len(known):
        ax.set_title(f"{name}none")
        return
    median = float(np.median(known))
    ax.axvline(median, color=INK, linewidth=1)
    told = format(round(median, 2) + 0.0, "+.2f" if span[0] < 0 else ".2f").replace("-", "−")
    ax.set_title(f"{name}n = {len(known):,} · median {told}")
