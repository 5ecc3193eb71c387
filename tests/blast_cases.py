"""What the score of quarry blasts calls a blast: among earthquakes of analysts, and with blasts made up among them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.config.quality import Quality
from pipeline.formats import bulletins
from pipeline.maths.blasts import Custom, blast_scores
from pipeline.records import NS, Bool, Float, Origins
from tests.association_cases import OGS

ROME = Custom(zone="Europe/Rome")
TRIALS = 100
THURSDAY_S = int(np.datetime64("2024-04-18T10:00", "s").astype(np.int64))
QUARRIES = (46.6, 13.2), (45.6, 11.2), (46.1, 12.2)
KM_PER_DEG = 111.2, 77.0


def summary() -> str:
    """The bulletin calls all of its events earthquakes. With times drawn at random the places and depths are the same,
    and no blast is left: what is called one then is called so by chance."""
    listed, rng = ogs(), np.random.default_rng(0)
    drawn = [called(anytime(listed, rng)).sum() for _ in range(TRIALS)]
    lines = [
        f"{len(listed)} earthquakes, {called(listed).sum()} of them called blasts; with origin times drawn at random,"
        f" {TRIALS} times, on average {np.mean(drawn):.2f}"
    ]
    lines += [made_up(listed, n, km) for n, km in ((5, 1.0), (10, 1.0), (10, 2.5), (20, 2.5))]
    lines += [sequence(listed, days) for days in (0.2, 2.0, 10.0)]
    return "\n".join(f"- {line}" for line in lines)


def ogs() -> Origins:
    listed = bulletins.read_txt(OGS / "RSFVG-2024.txt").events
    names = ("id", "time_ns", "latitude_deg", "longitude_deg", "depth_km")
    return Origins(*(getattr(listed, name) for name in names))


def called(events: Origins) -> Bool:
    found: Bool = blast_scores(events, ROME) >= Quality().blast_score
    return found


def anytime(events: Origins, rng: np.random.Generator) -> Origins:
    low, high = int(events.time_ns.min()), int(events.time_ns.max())
    return replace(events, time_ns=rng.integers(low, high, len(events)))


def made_up(listed: Origins, n: int, km: float) -> str:
    """Three quarries of ``n`` blasts each, 8 to 15 h UTC on weekdays, at depths and places that scatter by ``km``."""
    rng = np.random.default_rng(n)
    hit = wrong = 0
    for _ in range(TRIALS // 10):
        blasts = quarries(listed, n, km, rng)
        found = called(Origins.concat([anytime(listed, rng), blasts]))
        hit, wrong = hit + int(found[len(listed) :].sum()), wrong + int(found[: len(listed)].sum())
    recall, precision = hit / (TRIALS // 10 * 3 * n), hit / max(hit + wrong, 1)
    return f"3 x {n} made-up blasts among them, scattered by {km:g} km: recall {recall:.3f}, precision {precision:.3f}"


def sequence(listed: Origins, days: float, n: int = 200) -> str:
    """Aftershocks by the law of Omori, 2 km deep, from a Thursday at 10 h UTC: alone, and among the events of OGS."""
    rng, alone, among = np.random.default_rng(5), 0, 0
    for _ in range(TRIALS // 10):
        made = Origins(
            np.array([f"aftershock {i}" for i in range(n)]),
            ((THURSDAY_S + 4320 * ((days / 0.05 + 1) ** rng.random(n) - 1)) * NS).astype(np.int64),
            46.3 + rng.normal(0, 1.5 / KM_PER_DEG[0], n),
            13.0 + rng.normal(0, 1.5 / KM_PER_DEG[1], n),
            np.abs(rng.normal(2.0, 1.5, n)),
        )
        alone += int(called(made).sum())
        among += int(called(Origins.concat([listed, made]))[len(listed) :].sum())
    alone_each, among_each = alone / (TRIALS // 10), among / (TRIALS // 10)
    return (
        f"of {n} shallow aftershocks in {days:g} days {alone_each:.1f} called blasts alone, {among_each:.1f} among them"
    )


def quarries(listed: Origins, n: int, km: float, rng: np.random.Generator) -> Origins:
    def around(degrees: list[float], km_per_deg: float) -> Float:
        return np.repeat(degrees, n) + rng.normal(0, km / km_per_deg, 3 * n)

    day = int(listed.time_ns.min()) // NS // 86400 + rng.integers(0, 170, 3 * n)
    weekday = (day + 3) % 7
    second = (day + np.where(weekday > 4, 7 - weekday, 0)) * 86400 + rng.integers(8 * 3600, 15 * 3600, 3 * n)
    lat, lon = (around([q[i] for q in QUARRIES], KM_PER_DEG[i]) for i in (0, 1))
    name = np.array([f"blast {i}" for i in range(3 * n)])
    return Origins(name, second * NS, lat, lon, np.abs(rng.normal(0, km, 3 * n)))
