"""Where earthquakes may be: every pick votes for the places and origin times that it could have come from.

A coarse grid of cells covers the region. A pick at time t votes, in each cell whose nearest sites include its own, for
the origin times t - travel time, widened by how much the travel time varies inside the cell and by the tolerance; a
station votes once for each phase, however many picks it has. The votes of a cell and time are an upper bound of the
picks that an event there can have.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.models.associators.kernels.compiled import compiled
from pipeline.models.associators.kernels.scene import Ground, Scene, arrival
from pipeline.records import Bool, Float, Int


class Grid(NamedTuple):
    """Cells, and for each its nearest sites in order of distance."""

    centre_km: Float  # (cells, 3)
    half_km: Float  # (3,) half the size of a cell
    site: Int  # (cells, near)
    travel_s: Float  # (cells, near, 2) P and S, from the centre
    pad_s: Float  # (cells, near, 2) how far the travel time from elsewhere in the cell may be from that
    start: Int  # (sites + 1,) of each site in seen_by
    seen_by: Int  # (k, 2) cells that count a site, and its place there


def grid(where: Ground, cell_km: Float, n_near: int, tolerance_s: float) -> Grid:
    """Cells of at most ``cell_km`` (3,) over the bounds of ``where``."""
    size_km = where.upper_km - where.lower_km
    counts = np.maximum(np.ceil(size_km / cell_km).astype(np.int64), 1)
    half_km = size_km / counts / 2
    axes = [low + half * (2 * np.arange(n) + 1) for low, half, n in zip(where.lower_km, half_km, counts, strict=True)]
    centre_km = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    site, travel_s, pad_s = _near(where, centre_km, half_km, min(n_near, len(where.site_km)), tolerance_s)
    cell, place = np.indices(site.shape).reshape(2, -1)
    order = np.argsort(site.ravel(), kind="stable")
    seen_by = np.column_stack([cell, place])[order].astype(np.int64)
    start = np.searchsorted(site.ravel()[order], np.arange(len(where.site_km) + 1)).astype(np.int64)
    return Grid(centre_km, half_km, site, travel_s, pad_s, start, seen_by)


@compiled
def _near(where: Ground, centre_km: Float, half_km: Float, n_near: int, tolerance_s: float) -> tuple[Int, Float, Float]:
    n = len(centre_km)
    sites = np.empty((n, n_near), np.int64)
    travel_s, pad_s = np.zeros((n, n_near, 2)), np.zeros((n, n_near, 2))
    for g in range(n):
        x, y, z = centre_km[g]
        far = (where.site_km[:, 0] - x) ** 2 + (where.site_km[:, 1] - y) ** 2
        sites[g] = np.argsort(far, kind="mergesort")[:n_near]
        for m in range(n_near):
            for phase in range(2):
                t = arrival(where, sites[g, m], phase, x, y, z)[0]
                most = 0.0
                for part in range(8):
                    i, j, k = part // 4 * 2 - 1, part // 2 % 2 * 2 - 1, part % 2 * 2 - 1
                    corner = x + i * half_km[0], y + j * half_km[1], z + k * half_km[2]
                    most = max(most, abs(arrival(where, sites[g, m], phase, *corner)[0] - t))
                travel_s[g, m, phase] = t
                pad_s[g, m, phase] = most + tolerance_s
    return sites, travel_s, pad_s


class Ballot(NamedTuple):
    """Votes of the picks that no event has claimed yet, for origin times from ``from_s`` in bins of ``bin_s``."""

    votes: NDArray[np.uint8]  # (bins, cells)
    top: Int  # (bins,) the most of any cell; -1: to be counted again
    from_s: float
    bin_s: float


@compiled
def _bins(box: Grid, ballot: Ballot, scene: Scene, row: int, g: int, m: int) -> tuple[int, int]:
    """First and last bin of a pick's vote in a cell; may lie outside the ballot."""
    phase = scene.phase[row]
    t = scene.time_s[row] - box.travel_s[g, m, phase] - ballot.from_s
    pad = box.pad_s[g, m, phase]
    return int(np.floor((t - pad) / ballot.bin_s)), int(np.floor((t + pad) / ballot.bin_s))


@compiled
def cast(box: Grid, ballot: Ballot, scene: Scene, free: Bool) -> None:
    """Count the votes of all free picks."""
    n_bins = len(ballot.top)
    for channel in range(len(scene.start) - 1):
        last = -1
        for at in range(scene.start[channel], scene.start[channel + 1]):
            row = scene.rows[at]
            if not free[row]:
                continue
            s = scene.site[row]
            for k in range(box.start[s], box.start[s + 1]):
                g, m = box.seen_by[k]
                lo, hi = _bins(box, ballot, scene, row, g, m)
                if last >= 0 and scene.site[last] == s:
                    lo = max(lo, _bins(box, ballot, scene, last, g, m)[1] + 1)
                for b in range(max(lo, 0), min(hi, n_bins - 1) + 1):
                    if ballot.votes[b, g] < 255:
                        ballot.votes[b, g] += 1
            last = row


@compiled
def withdraw(box: Grid, ballot: Ballot, scene: Scene, free: Bool, row: int) -> None:
    """Take back the vote of a pick that is claimed now (``free`` no more)."""
    n_bins = len(ballot.top)
    channel, s = scene.channel[row], scene.site[row]
    first, stop = scene.start[channel], scene.start[channel + 1]
    at = first
    while scene.rows[at] != row:
        at += 1
    before = at - 1
    while before >= first and not free[scene.rows[before]]:
        before -= 1
    after = at + 1
    while after < stop and not free[scene.rows[after]]:
        after += 1
    for k in range(box.start[s], box.start[s + 1]):
        g, m = box.seen_by[k]
        lo, hi = _bins(box, ballot, scene, row, g, m)
        if before >= first and scene.site[scene.rows[before]] == s:
            lo = max(lo, _bins(box, ballot, scene, scene.rows[before], g, m)[1] + 1)
        if after < stop and scene.site[scene.rows[after]] == s:
            hi = min(hi, _bins(box, ballot, scene, scene.rows[after], g, m)[0] - 1)
        for b in range(max(lo, 0), min(hi, n_bins - 1) + 1):
            if ballot.votes[b, g] > 0:
                ballot.votes[b, g] -= 1
            ballot.top[b] = -1


@compiled
def best(ballot: Ballot) -> tuple[int, int, int]:
    """The cell and bin with most votes (the first of equals by bin, then cell), and how many."""
    n_bins, n_cells = ballot.votes.shape
    most, bin_ = -1, -1
    for b in range(n_bins):
        if ballot.top[b] < 0:
            top = np.uint8(0)
            for g in range(n_cells):
                top = max(top, ballot.votes[b, g])
            ballot.top[b] = top
        if ballot.top[b] > most:
            most, bin_ = ballot.top[b], b
    for g in range(n_cells):
        if ballot.votes[bin_, g] == most:
            return g, bin_, most
    return -1, bin_, most


@compiled
def strike(ballot: Ballot, g: int, b: int, around: int) -> None:
    """Forget the votes of cell ``g`` in bin ``b`` and in those up to ``around`` from it: they lead to no event."""
    for c in range(max(b - around, 0), min(b + around + 1, len(ballot.top))):
        ballot.votes[c, g] = 0
        ballot.top[c] = -1
