"""Velocity as a function of depth alone: what a model says between its rows, and how deep its first arrivals dive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.records import Float

Between = Literal["gradient", "layers"]
CELL_KM = 1.0  # of the search for the deepest ray


@dataclass(frozen=True, slots=True)
class VelocityModel:
    """``vp_km_s`` and ``vs_km_s`` (n,) at ``depth_km`` (n,) below sea level, ascending; a depth given twice is a jump.

    ``between`` two depths the velocity is linear ("gradient"), or that of the upper one ("layers"). Above the first
    depth it is that of the first, below the last that of the last. Raises ValueError if that is no model of rock.
    """

    depth_km: Float
    vp_km_s: Float
    vs_km_s: Float
    between: Between

    def __post_init__(self) -> None:
        found = fault(self.depth_km, self.vp_km_s, self.vs_km_s)
        if found is not None:
            raise ValueError(f"row {found[0] + 1}: {found[1]}")

    def velocity_km_s(self, phase: str) -> Float:
        """Velocity (n,) of "P" or "S" at the depths of the model."""
        return {"P": self.vp_km_s, "S": self.vs_km_s}[phase]

    def vertical_s(self, phase: str, depth_km: Float) -> Float:
        """Travel time (m,) straight down from the first depth of the model to ``depth_km`` (m,), exact."""
        velocity, step_km = self.velocity_km_s(phase), np.diff(self.depth_km)
        gradient = np.zeros(len(velocity))
        if self.between == "gradient":
            gradient[:-1] = np.diff(velocity) / np.where(step_km > 0, step_km, np.inf)
        reached_s = np.append(0.0, np.cumsum(_linear_s(velocity[:-1], gradient[:-1], step_km)))
        row = np.searchsorted(self.depth_km, depth_km, side="right") - 1
        above, row = row < 0, np.maximum(row, 0)
        below_km = depth_km - self.depth_km[row]
        passed_s: Float = reached_s[row] + _linear_s(velocity[row], np.where(above, 0.0, gradient[row]), below_km)
        return passed_s

    def slowness_s_km(self, phase: str, edges_km: Float) -> Float:
        """Mean slowness (m - 1,) between neighbouring depths ``edges_km`` (m,): vertical times stay exact."""
        slowness: Float = np.diff(self.vertical_s(phase, edges_km)) / np.diff(edges_km)
        return slowness

    def has_jump(self, bottom_km: float) -> bool:
        """Whether a velocity changes at once anywhere above ``bottom_km``."""
        one_depth = np.diff(self.depth_km) == 0 if self.between == "gradient" else np.full(len(self.depth_km) - 1, True)
        changes = (np.diff(self.vp_km_s) != 0) | (np.diff(self.vs_km_s) != 0)
        return bool((one_depth & changes & (self.depth_km[1:] < bottom_km)).any())


def _linear_s(velocity_km_s: Float, gradient: Float, step_km: Float) -> Float:
    """Time down ``step_km`` from where the velocity is ``velocity_km_s`` and grows by ``gradient`` (1/s)."""
    growth = gradient * step_km / velocity_km_s
    small = np.abs(growth) < 1e-12
    factor = np.where(small, 1.0, np.log1p(np.where(small, 0.0, growth)) / np.where(small, 1.0, growth))
    passed_s: Float = step_km / velocity_km_s * factor
    return passed_s


def fault(depth_km: Float, vp_km_s: Float, vs_km_s: Float) -> tuple[int, str] | None:
    """The first row that cannot be, and what is wrong with it; None: all can."""
    if not len(depth_km) == len(vp_km_s) == len(vs_km_s):
        return 0, f"{len(depth_km)} depths, {len(vp_km_s)} and {len(vs_km_s)} velocities; give each depth both"
    if not len(depth_km):
        return 0, "no depth at all; give at least one row of depth, vp and vs"
    for i, (depth, vp, vs) in enumerate(zip(depth_km.tolist(), vp_km_s.tolist(), vs_km_s.tolist(), strict=True)):
        if not np.isfinite([depth, vp, vs]).all():
            return i, f"depth {depth}, vp {vp}, vs {vs}: not all are numbers"
        if i and depth < depth_km[i - 1]:
            return i, f"depth {depth:g} km after {depth_km[i - 1]:g} km; sort the rows, depths must ascend"
        if i > 1 and depth == depth_km[i - 2]:
            return i, f"depth {depth:g} km a third time; a jump has two rows, the velocities above and below it"
        if not vp > 0 or not vs > 0:
            return (
                i,
                f"vp {vp:g}, vs {vs:g} km/s at {depth:g} km must be above 0; give water the velocities of the rock",
            )
        if vs >= vp:
            return i, f"vs {vs:g} km/s is not below vp {vp:g} km/s at {depth:g} km; look at the order of the columns"
    return None


def deepest_km(model: VelocityModel, level_km: float, source_km: float, reach_km: float) -> float:
    """How deep the first arrivals from ``source_km`` to ``level_km``, ``reach_km`` away, dive, and a little more.

    Of all waves that run along a cell of the model the fastest counts: time = distance x slowness + the legs down to
    it and up again (the intercept time of a refracted wave). Nearer and shallower sources dive less.
    """
    lowest_km = max(level_km, source_km)
    edges_km = np.arange(lowest_km, lowest_km + reach_km + 2 * CELL_KM, CELL_KM)
    starts_km = np.linspace(min(level_km, source_km), lowest_km, 101)
    deepest = 0
    for phase in ("P", "S"):
        below = model.slowness_s_km(phase, edges_km)
        time_s = reach_km * below + 2 * np.tril(_legs_s(below, below, CELL_KM), -1).sum(axis=1)
        if starts_km[0] < lowest_km:
            upper = model.slowness_s_km(phase, starts_km)
            time_s += _legs_s(below, upper, starts_km[1] - starts_km[0]).sum(axis=1)
        deepest = max(deepest, int(time_s.argmin()))
    return float(edges_km[deepest] + 2 * CELL_KM)


def _legs_s(along: Float, through: Float, step_km: float) -> Float:
    """Intercept times (n, m) of waves along slownesses (n,), for each step through slownesses (m,)."""
    legs_s: Float = np.sqrt(np.maximum(through[None, :] ** 2 - along[:, None] ** 2, 0.0)) * step_km
    return legs_s
