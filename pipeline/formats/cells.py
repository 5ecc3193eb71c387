"""Text in cells of CSV that a spreadsheet will open: it takes one that begins with =, +, - or @ for a formula."""

from __future__ import annotations

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "'")


def guarded(text: str) -> str:
    """``text`` with an apostrophe before it where a spreadsheet would run it; `plain` takes that away."""
    return f"'{text}" if text.startswith(FORMULAS) else text


def plain(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULAS) else text
