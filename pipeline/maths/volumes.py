"""Volumes: consecutive days whose results share a file, so that a long run of few stations keeps few files."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from pipeline.records import Text

LEAST, MOST = 250, 2000  # shards in a volume: two files, so that 500 shards keep ten at most; volumes of a run, about


def volumes(day: Text) -> Text:
    """The first day of each row's volume, (n,); ``day`` (n,) is "YYYY-MM-DD" in any order."""
    days, where, counts = np.unique(day, return_inverse=True, return_counts=True)
    named = _grouped(days.tolist(), counts.tolist(), _least(len(day)))
    return np.array([named[d] for d in days.tolist()], np.str_)[where] if len(day) else np.empty(0, "U10")


def extended(day: Text, old_day: Text, old_volume: Text) -> Text:
    """As `volumes`, where the days of ``old_day`` (m,) keep their ``old_volume`` (m,).

    A new day joins the volume before it if that is not the last one, or is too small; the others make new volumes.
    """
    known = dict(zip(old_day.tolist(), old_volume.tolist(), strict=True))
    days, where, counts = np.unique(day, return_inverse=True, return_counts=True)
    size, least = dict(zip(days.tolist(), counts.tolist(), strict=True)), _least(len(day))
    firsts, last_day = sorted(set(known.values())), max(known, default="")
    in_last = sum(size.get(d, 0) for d, volume in known.items() if volume == firsts[-1])
    before, after = list[str](), list[str]()
    for d in days.tolist():
        at = bisect_right(firsts, d)
        if d in known:
            continue
        if at == 0:
            before.append(d)
        elif at < len(firsts) or d <= last_day or (in_last < least and not after):
            known[d] = firsts[at - 1]
            in_last += size[d] if at == len(firsts) else 0
        else:
            after.append(d)
    for some in (before, after):
        known |= _grouped(some, [size[d] for d in some], least)
    return np.array([known[d] for d in days.tolist()], np.str_)[where] if len(day) else np.empty(0, "U10")


def _least(n: int) -> int:
    return max(LEAST, n // MOST)


def _grouped(days: list[str], counts: list[int], least: int) -> dict[str, str]:
    """The volume of each of the sorted ``days``; what is left at the end joins the last one."""
    groups: list[list[str]] = []
    n = least  # of the group at hand: the first day opens one
    for day, count in zip(days, counts, strict=True):
        if n >= least:
            groups.append([])
            n = 0
        groups[-1].append(day)
        n += count
    if n < least and len(groups) > 1:
        last = groups.pop()
        groups[-1] += last
    return {day: group[0] for group in groups for day in group}
