"""Tables of travel times in a model of depth alone: the eikonal equation, solved on a fine grid for each station level.

The solver is fteikpy: Noble et al. 2014, doi 10.1093/gji/ggu358 (plane waves, and spherical ones near the source,
where plane ones are wrong). The station is its source: by reciprocity one solution holds the times from all depths
and distances. The Earth is flat, as the local plane of the associator is.

Errors of P against closed forms, by tests/test_eikonal.py: 0.002 s nearly everywhere, 0.01 s from a jump of the model
that lies between two nodes of the grid, 0.02 s within some km of where two refracted waves cross; of S, Vp / Vs times.
"""

from __future__ import annotations

import math
from importlib.metadata import version

import numpy as np

from pipeline.maths.traveltime import TravelTimes
from pipeline.maths.velocity import VelocityModel, deepest_km
from pipeline.records import Float

GRID_KM = 0.25  # of the solver, in both directions; a binary fraction: nodes lie exactly where they should
EVERY = 4  # nodes of the solver from one distance of the table to the next
NEVER_S = 1e4  # the solver leaves more than this where it did not come
RECIPE = f"fteikpy {version('fteikpy')}, grid {GRID_KM} km, every {EVERY}, 1"  # what besides the input makes a table


def travel_times(model: VelocityModel, level_km: Float, reach_km: float, z_km: tuple[float, float]) -> TravelTimes:
    """The table for stations at ``level_km`` (levels,), ascending, and sources in ``z_km`` as far as ``reach_km``.

    Distances are 1 km apart, depths too, or 0.25 km where the model has jumps: there the slowness has kinks.
    """
    top_km = math.floor(min(z_km[0], level_km[0]))
    bottom_km = math.ceil(z_km[1])
    deepest = max(bottom_km, math.ceil(deepest_km(model, float(level_km[-1]), z_km[1], reach_km)))
    edges_km = np.arange(top_km, deepest + GRID_KM / 2, GRID_KM)
    every_z = 1 if model.has_jump(deepest) else EVERY
    step_km = (GRID_KM * EVERY, GRID_KM * every_z)
    n_distance, n_depth = math.ceil(reach_km / step_km[0]) + 1, round((bottom_km - top_km) / step_km[1]) + 1
    slowness = np.empty((len(level_km), 2, n_distance, n_depth))
    for phase, name in enumerate(("P", "S")):
        cells = model.slowness_s_km(name, edges_km)
        for i, level in enumerate(level_km.tolist()):
            time_s = _solve(cells, level - top_km, n_distance)
            slowness[i, phase] = _mean_slowness(time_s, cells, level - top_km)[:, ::every_z][:, :n_depth]
    return TravelTimes(slowness, level_km, step_km, float(top_km))


def _solve(cells_s_km: Float, source_km: float, n_distance: int) -> Float:
    """Times (n_distance, nodes) from a source ``source_km`` below the first node of cells of ``cells_s_km``.

    A source that rounding puts a hair beside a node is put on it: the solver divides by that hair.
    """
    from fteikpy import Eikonal2D  # compiles itself where it is new

    nearest = round(source_km / GRID_KM)
    source = nearest * GRID_KM if abs(source_km / GRID_KM - nearest) < 1e-6 else source_km
    velocity = np.repeat(1 / cells_s_km[:, None], (n_distance - 1) * EVERY, axis=1)
    solved = Eikonal2D(velocity, (GRID_KM, GRID_KM), (0.0, 0.0)).solve(np.array([source, 0.0]))
    time_s: Float = np.ascontiguousarray(solved.grid.T[::EVERY])
    if not time_s.max() < NEVER_S:
        raise RuntimeError(f"no travel time to {int((time_s >= NEVER_S).sum())} nodes from {source} km")
    return time_s


def _mean_slowness(time_s: Float, cells_s_km: Float, source_km: float) -> Float:
    """Time over distance of the straight line; at the source itself the slowness of its cell."""
    r_km = np.arange(len(time_s))[:, None] * (GRID_KM * EVERY)
    below_km = np.arange(time_s.shape[1])[None, :] * GRID_KM - source_km
    line_km = np.hypot(r_km, below_km)
    here = line_km < GRID_KM * 1e-6
    return np.where(
        here, cells_s_km[min(int(source_km / GRID_KM), len(cells_s_km) - 1)], time_s / np.where(here, 1.0, line_km)
    )
