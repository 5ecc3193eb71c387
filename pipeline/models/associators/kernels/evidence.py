"""How much more likely picks are as one earthquake than as a coincidence."""

from __future__ import annotations

import numpy as np

from pipeline.models.associators.kernels.compiled import compiled
from pipeline.models.associators.kernels.scene import Ground, Scene
from pipeline.records import Float, Int

SEEN = 0.6  # share of the channels within an earthquake's reach that have a pick of it
LOOK_S = 3.0  # a pick within this long is counted as a hit


@compiled
def evidence(
    where: Ground, scene: Scene, rows: Int, residual_s: Float, sigma_s: Float, origin: Float, noise_hz: float
) -> float:
    """Logarithm of the ratio of likelihoods.

    Going outwards from the epicentre, each channel either has a pick of the event or has none. An earthquake is seen
    by `SEEN` of the channels within its reach, whichever reach suits it best; a coincidence hits near and far channels
    alike, ``noise_hz`` times the time that is looked at. The residuals of an earthquake are normal with ``sigma_s``
    (n,), those of a coincidence are uniform. Channels without any pick in the piece count as well: a near station that
    should have seen it, and did not, speaks against it.
    """
    n_sites = len(where.site_km)
    far = np.empty(n_sites)
    for s in range(n_sites):
        far[s] = np.hypot(where.site_km[s, 0] - origin[0], where.site_km[s, 1] - origin[1])
    hit = np.zeros(len(scene.start) - 1, np.bool_)
    for row in rows:
        hit[scene.channel[row]] = True
    chance = 1 - np.exp(-noise_hz * LOOK_S)
    gain, loss = np.log(SEEN / chance), np.log((1 - SEEN) / (1 - chance))
    total, best = 0.0, 0.0
    seen = np.zeros(len(hit), np.bool_)
    for s in np.argsort(far, kind="mergesort"):
        for channel in (2 * where.sensor[s], 2 * where.sensor[s] + 1):
            if not seen[channel]:
                seen[channel] = True
                total += gain if hit[channel] else loss
        best = max(best, total)
    for i in range(len(rows)):
        density = np.exp(-0.5 * (residual_s[i] / sigma_s[i]) ** 2) / (sigma_s[i] * np.sqrt(2 * np.pi))
        best += np.log(density * LOOK_S + 1e-3)
    return best
