"""Tables of travel times on disk: made once, found again by everything that went into them."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.config import Associate
from pipeline.formats import velocity
from pipeline.maths import traveltime
from pipeline.maths.traveltime import TravelTimes
from pipeline.maths.velocity import VelocityModel
from pipeline.records import Float
from pipeline.rundir import RunDir, publish

log = logging.getLogger(__name__)
Make = Callable[[VelocityModel, Float, float, tuple[float, float]], TravelTimes]


def of_run(
    run_dir: RunDir, settings: Associate, site_km: tuple[Float, Float, Float], recipe: str, make: Make
) -> TravelTimes:
    """From the whole box to all sites at x, y, z (n,); tables are made once and kept in the run directory.

    ``make`` is what ``recipe`` names: it gets the model, the levels of the sites, the reach and the range of depths.
    """
    if settings.velocity_model is None:
        return traveltime.uniform(settings.vp_km_s, settings.vs_km_s)
    model = velocity.read(settings.velocity_model, settings.velocity_between, settings.z_km[1])
    level_km = traveltime.levels_km(site_km[2])
    reach_km = traveltime.reach_km(*site_km[:2], settings.x_km, settings.y_km)
    made_of = digest(model, level_km, reach_km, settings.z_km, recipe)
    found = read(run_dir.travel_times(made_of), made_of)
    if found is None:
        log.info("travel times of %s: %d levels, %.0f km far", settings.velocity_model, len(level_km), reach_km)
        found = make(model, level_km, reach_km, settings.z_km)
        write(run_dir.travel_times(made_of), found, made_of)
    return found


def digest(model: VelocityModel, level_km: Float, reach_km: float, z_km: tuple[float, float], recipe: str) -> str:
    """SHA-256 over all that a table is made of; ``recipe`` names the program that makes it."""
    total = hashlib.sha256(repr((recipe, model.between, float(reach_km), tuple(map(float, z_km)))).encode())
    for values in (model.depth_km, model.vp_km_s, model.vs_km_s, level_km):
        total.update(f"{len(values)} ".encode() + np.ascontiguousarray(values, "<f8").tobytes())
    return total.hexdigest()


def read(path: Path, made_of: str) -> TravelTimes | None:
    """The table in ``path``; None, with a warning, if the file is damaged or not ``made_of`` this; None if absent."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in ("made_of", "slowness_s_km", "level_km", "step_km", "depth_km")}
        if str(found["made_of"]) != made_of:
            raise ValueError("made of something else")
        step_r, step_z = found["step_km"].tolist()
        return TravelTimes(found["slowness_s_km"], found["level_km"], (step_r, step_z), float(found["depth_km"]))
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile) as e:
        log.warning("%s: no usable table of travel times (%s); it is made again", path, e)
        return None


def write(path: Path, times: TravelTimes, made_of: str) -> None:
    """Publish ``times``, so that `read` finds them."""
    with publish(path) as part, part.open("wb") as file:
        np.savez(
            file,
            made_of=np.array(made_of),
            slowness_s_km=times.slowness_s_km,
            level_km=times.level_km,
            step_km=np.array(times.step_km),
            depth_km=np.array(times.depth_km),
        )
