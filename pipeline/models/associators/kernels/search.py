"""First guesses of the earthquakes of a piece: the place and time with most votes, again and again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.models.associators.kernels.compiled import compiled
from pipeline.models.associators.kernels.evidence import evidence
from pipeline.models.associators.kernels.origin import Prior, begin, locate, members, voters
from pipeline.models.associators.kernels.scene import Ground, Scene
from pipeline.models.associators.kernels.votes import Ballot, Grid, best, strike, withdraw
from pipeline.records import Bool, Float, Int


class Needs(NamedTuple):
    """What an event must have."""

    picks: int
    p_picks: int
    s_picks: int
    stations: int
    pairs: int  # stations with P and S
    evidence: float  # see `evidence`


@compiled
def enough(scene: Scene, rows: Int, needs: Needs) -> bool:
    """Whether ``rows``, ascending by channel, are picks enough."""
    n_p, stations, pairs, last, last_row = 0, 0, 0, -1, -1
    for row in rows:
        sensor = scene.channel[row] // 2
        if scene.phase[row] == 0:
            n_p += 1
        if sensor != last:
            stations += 1
        elif scene.phase[last_row] != scene.phase[row]:
            pairs += 1
        last, last_row = sensor, row
    return (
        len(rows) >= needs.picks
        and n_p >= needs.p_picks
        and len(rows) - n_p >= needs.s_picks
        and stations >= needs.stations
        and pairs >= needs.pairs
    )


AGAIN = 4  # looks at one set of picks, each from another cell
GLANCES = 20  # at votes that cannot make an event, or were looked at before, take as long as one look
SPARE = 10  # so many for each cell are not counted


@compiled
def remember(looked: NDArray[np.uint64], rows: Int) -> bool:
    """Whether this set of picks is new; it is not from now on. Forgets what a full table has no room for."""
    code = np.uint64(0)
    for row in rows:
        x = np.uint64(row + 1) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        code += x ^ (x >> np.uint64(31))
    code -= code % np.uint64(AGAIN + 1)
    at = (code >> np.uint64(20)) % np.uint64(len(looked))
    times = looked[at] - code if looked[at] >= code and looked[at] - code <= np.uint64(AGAIN) else np.uint64(0)
    if times == np.uint64(AGAIN):
        return False
    looked[at] = code + times + np.uint64(1)
    return True


@compiled
def search(
    where: Ground,
    scene: Scene,
    box: Grid,
    ballot: Ballot,
    free: Bool,
    least: int,
    needs: Needs,
    noise_hz: float,
    prior: Prior,
    budget: int,
) -> tuple[Float, int]:
    """Origins (k, 4) of x, y, z (km), t (s), the clearest first, and what is left of the budget of looks.

    ``free`` (n,) becomes False for the picks that they claim. A look takes the cell and time with most votes: it
    gives an event, or is struck from the ballot. The search ends when fewer than ``least`` votes agree anywhere.
    Where the votes are too few of a kind, or looked at before, it is a glance: many of these count as a look.
    """
    origins = np.empty((len(free) // max(needs.picks, 1) + 1, 4))
    n, glances = 0, 0
    looked = np.zeros(1 << 16, np.uint64)
    while budget > 0:
        g, b, most = best(ballot)
        if most < least:
            break
        rows = voters(where, scene, free, box, ballot, g, b)
        if not enough(scene, rows, needs) or not remember(looked, rows):
            strike(ballot, g, b, 0)
            glances += 1
            if glances > SPARE * len(box.centre_km) and glances % GLANCES == 0:
                budget -= 1
            continue
        budget -= 1
        origin = begin(where, scene, rows, box, ballot, g, b)
        origin = locate(where, scene, rows, origin, 2 * prior.sigma_s, noise_hz, prior)
        origin = locate(where, scene, rows, origin, prior.sigma_s, noise_hz, prior)
        claimed, _, _ = members(where, scene, free, origin, noise_hz, prior)
        origin = locate(where, scene, claimed, origin, prior.sigma_s, noise_hz, prior)
        claimed, residual_s, sigma_s = members(where, scene, free, origin, noise_hz, prior)
        if (
            enough(scene, claimed, needs)
            and evidence(where, scene, claimed, residual_s, sigma_s, origin, noise_hz) >= needs.evidence
        ):
            origins[n] = origin
            n += 1
            for row in claimed:
                free[row] = False
                withdraw(box, ballot, scene, free, row)
        else:
            strike(ballot, g, b, 1)
    return origins[:n], budget
