"""UTC days as numbers: int64 days since 1970-01-01."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.records import DAY_NS, Int, Text


def day_numbers(days: Text | Sequence[str]) -> Int:
    """Of each "YYYY-MM-DD", (n,)."""
    return np.asarray(days, "datetime64[D]").astype(np.int64)


def day_text(day: int) -> str:
    """The "YYYY-MM-DD" of a number."""
    return str(np.datetime64(day, "D"))


def days_within(span_ns: tuple[int, int]) -> range:
    """The days that a half-open span meets; none if it is empty."""
    return range(span_ns[0] // DAY_NS, -(-span_ns[1] // DAY_NS))
