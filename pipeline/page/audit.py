"""The audit as a page and as text. Everything is escaped; nothing is loaded from anywhere."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from markupsafe import Markup

from pipeline.config import Config
from pipeline.maths.books import GAP_KINDS
from pipeline.maths.coverage import ENDS, Coverage
from pipeline.page import html
from pipeline.page.words import plural
from pipeline.plots.coverage import COLOURS, heat_map

SHOWN = ("picked", "empty", "failed", "set aside", "missing")  # ends, in the order of the account
WIDTH = 110  # of a line on the terminal
LATE = {
    "new": "came after the plan was made",
    "changed": "changed after they were planned",
    "replaced": "those of a better channel came after the plan was made",
    "gone": "are gone; a result of theirs stays",
}


def render(config: Config, books: dict[str, Any], grid: Coverage) -> str:
    """The page as text. ``books`` as the stage made them."""
    n, shards = books["station_days"], books["shards"]
    return html.fill(
        "audit.html.j2",
        config,
        books=books,
        ends=SHOWN,
        columns=[end for end in SHOWN if end == "picked" or shards[end]],
        kinds=[kind for kind in GAP_KINDS if n[kind]],
        colours=COLOURS,
        late=_late_rows(books["late"]),
        most=config.report.max_rows,
        figure=Markup(heat_map(grid)) if n["all"] else "",
    )


def _late_rows(late: dict[str, Any]) -> list[tuple[str, str]]:
    """Shard, and what is with its files."""
    return sorted((shard, what) for key, what in LATE.items() for shard in late[key])


def verdict(books: dict[str, Any]) -> str:
    """One sentence: how much there is, and what is left to do."""
    n, shards = books["station_days"], books["shards"]
    share = f" ({_percent(n['picked'], n['all'])} %)" if n["all"] else ""
    found = f"{n['picked']:,} of {plural(n['all'], 'station-day')} have picks{share}"
    left = {end: shards[end] for end in ("missing", "failed", "set aside") if shards[end]}
    to_do = [f"{n:,} {end}" for end, n in left.items()]
    late = books["late"]
    if late["n"]:
        both = f" (of which {late['open']:,} counted already)" if late["open"] else ""
        to_do += [f"{late['n']:,} late{both}"]
    if books["breaches"]:
        return f"{found}; the account does not balance."
    rest = f"to do: {', '.join(to_do)}" if to_do else "every planned shard has ended"
    return f"{found}; {rest}{'; nobody could look for late files' if unseen(late) else ''}."


def unseen(late: dict[str, Any]) -> bool:
    """Whether late files were to be looked for, and could not be."""
    return bool(late["asked"] and not late["looked"])


def _percent(part: int, whole: int) -> str:
    """With one decimal, and 100.0 only where nothing lacks."""
    return f"{min(100 * part / whole, 99.9) if part < whole else 100:.1f}"


def equation(shards: dict[str, int]) -> str:
    return f"{shards['planned']:,} planned = " + " + ".join(f"{shards[end]:,} {end}" for end in SHOWN)


def terminal(books: dict[str, Any]) -> str:
    """The audit in a few lines of plain text."""
    n = books["station_days"]
    lines = [books["verdict"], f"shards       {equation(books['shards'])}"]
    lines += [f"gaps         {n['all'] - n['picked']:,} of {plural(n['all'], 'station-day')}"]
    for kind, rows in groupby(books["reasons"], key=lambda row: row["kind"]):
        found = list(rows)
        lines += [_cut(f"  {kind:12} {n[kind]:>9,}  first: {found[0]['first']}")]
        lines += [_cut(f"{'':15} {row['station_days']:>9,}  {row['reason']}") for row in found[:3] if row["reason"]]
        lines += [f"{'':26} and {plural(len(found) - 3, 'other reason')}"] if len(found) > 3 else []
    worst = sorted(books["stations"], key=lambda row: row["station_days"]["picked"] - row["station_days"]["all"])[:3]
    gaps = [(row["station"], row["station_days"]["all"] - row["station_days"]["picked"]) for row in worst]
    told = ", ".join(f"{name} {lacking:,}" for name, lacking in gaps if lacking)
    lines += [f"most gaps    {told}"] if told else []
    lines += [_cut(f"{row['end']:12} {row['shard']}: {row['reason']}") for row in books["asides"][:3]]
    lines += [f"late files   {books['late']['note']}"] if books["late"]["note"] else []
    return "\n".join([*lines, *(f"BREACH       {breach}" for breach in books["breaches"])])


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def unfinished(books: dict[str, Any]) -> bool:
    """Whether anything is left to do or to look at, or does not add up."""
    left = sum(books["shards"][end] for end in ENDS if end not in ("picked", "empty"))
    return bool(left or books["late"]["n"] or unseen(books["late"]) or books["breaches"])
