"""PyOcto (Münchmeyer 2024, doi 10.26443/seismica.v3i1.1130) behind the same functions, to compare with.

PyOcto halves space and time again and again and keeps the parts that enough picks could come from. It says which
picks make an event and where that was, not how probable it is: probabilities of picks and scores of events are NaN.
Of two events less than `Options.min_interevent_time` apart, wherever they are, it keeps the one with more picks.
"""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyocto

from pipeline.config import Associate
from pipeline.maths.traveltime import P, S, reach_km, travel_time
from pipeline.models.associators.observed import ALL_TIMES, Earthquake, Network, Observed, Piece, Region
from pipeline.models.associators.rules import enough
from pipeline.records import NS, Float, Int

PIECE_PICKS = 2000  # of a piece, at least: each costs PyOcto a start
TABLE_KM = 1.0  # step of the table of travel times that PyOcto reads, as in its own examples


@dataclass(frozen=True, slots=True)
class Options:
    """What the configuration leaves open, by PyOcto's names. Values are its defaults but for those that say why."""

    min_node_size: float = 10.0  # km; a part of space so small is tried as an event: 5 to 25, by the station spacing
    min_node_size_location: float = 0.5  # km; how fine events are located: 1.5 leaves epicentres half a km off
    min_interevent_time: float = 1.0  # s; of two events closer in time one is dropped. 3.0 drops more true ones
    max_pick_overlap: int = 4  # picks that events of two blocks of time may share; `_each_once` deals them out
    min_pick_fraction: float = 0.25  # far picks are dropped where fewer of the stations nearer by have any
    refinement_iterations: int = 3  # how often an event is located and its picks gathered again
    location_split_depth: int = 6  # halvings that are looked at together when an event is located
    location_split_return: int = 4  # and those of them that are not descended
    time_slicing: float = 1200.0  # s; length of a block of time, beside the longest travel time
    queue_memory_protection_dfs_size: int = 500_000  # parts that wait at most: a bound of the memory
    n_threads: int = 1  # more would end in an order of their own, and ranks share the cores already


OPTIONS = Options()


def pieces(observed: Observed, region: Region) -> list[Piece]:
    """Parts between silences longer than any travel time, joined until each has `PIECE_PICKS`."""
    if not len(observed):
        return []
    silence_ns = round((_longest_s(region) + 2 * region.settings.max_sigma11_s) * NS)
    cuts = np.flatnonzero(np.diff(observed.time_ns) > silence_ns) + 1
    edges = [0]
    for cut in cuts.tolist():
        if cut - edges[-1] >= PIECE_PICKS:
            edges.append(cut)
    return [Piece(first, stop, ALL_TIMES) for first, stop in pairwise([*edges, len(observed)])]


def solve(picks: Observed, piece: Piece, region: Region) -> list[Earthquake]:
    """What PyOcto finds in the picks of one piece. They and the configuration alone decide it."""
    if not enough(picks, region.settings):
        return []
    with TemporaryDirectory(prefix="orcolat-") as folder:
        associator = _associator(region, Path(folder))
        events, assigned = associator.associate(_picks(picks), _stations(np.unique(picks.site), region))
    assigned = assigned.sort_values(["event_idx", "pick_idx"])
    rows, residual_s = assigned.pick_idx.to_numpy(np.int64), assigned.residual.to_numpy(np.float64)
    parts = np.searchsorted(assigned.event_idx, np.arange(len(events) + 1))
    found = [
        Earthquake(
            time_ns=int(picks.time_ns[0]) + round(event.time * NS),
            x_km=event.x,
            y_km=event.y,
            z_km=event.z + _top_km(region),
            score=float("nan"),
            picks=rows[a:b],
            probability=np.full(b - a, np.nan),
            residual_s=residual_s[a:b],
        )
        for event, (a, b) in zip(events.itertuples(), pairwise(parts.tolist()), strict=True)
    ]
    return _each_once(found, picks, region.settings)


def settle(found: list[Earthquake], observed: Observed, region: Region) -> list[Earthquake]:
    """Pieces share no picks: nothing is left to do."""
    return found


def _each_once(found: list[Earthquake], picks: Observed, settings: Associate) -> list[Earthquake]:
    """``found`` with no pick twice and none that is too late; events with too few left are dropped.

    Of two events that share a pick the one with more picks keeps it, of equals the earlier one.
    """
    taken, kept = np.zeros(len(picks), bool), []
    for event in sorted(found, key=lambda event: (-len(event.picks), event.time_ns)):
        mine = ~taken[event.picks] & (np.abs(event.residual_s) < settings.max_sigma11_s)
        rows = event.picks[mine]
        if enough(picks.take(rows), settings):
            taken[rows] = True
            kept.append(
                replace(event, picks=rows, probability=event.probability[mine], residual_s=event.residual_s[mine])
            )
    return kept


def _associator(region: Region, folder: Path) -> pyocto.OctoAssociator:
    settings = region.settings
    n_p, n_s = (max(least, settings.min_pairs) for least in (settings.min_p_picks, settings.min_s_picks))
    return pyocto.OctoAssociator(
        xlim=settings.x_km,
        ylim=settings.y_km,
        zlim=tuple(z - _top_km(region) for z in settings.z_km),
        velocity_model=_velocity(region, folder),
        time_before=_longest_s(region),
        pick_match_tolerance=settings.max_sigma11_s,
        n_picks=max(settings.min_picks, n_p + n_s),
        n_p_picks=n_p,
        n_s_picks=n_s,
        n_p_and_s_picks=settings.min_pairs,
        **asdict(OPTIONS),
    )


def _picks(picks: Observed) -> pd.DataFrame:
    """Picks as PyOcto has them; seconds since the first keep their digits."""
    time_s = (picks.time_ns - picks.time_ns[0]) / NS
    return pd.DataFrame({"station": picks.site.astype(str), "time": time_s, "phase": picks.phase})


def _stations(sites: Int, region: Region) -> pd.DataFrame:
    """The ``sites`` with picks, by their row. Where travel times are tabulated a height is a delay to PyOcto."""
    network = region.network.take(sites)
    table = pd.DataFrame({"id": sites.astype(str), "x": network.x_km, "y": network.y_km, "z": network.z_km})
    if region.settings.velocity_model:
        table["p_residual"], table["s_residual"] = (_delays_s(network, region, phase) for phase in (P, S))
        table["z"] = 0.0
    return table


def _delays_s(network: Network, region: Region, phase: int) -> list[float]:
    """How much later than at sea level a wave from straight below arrives at each site."""
    here, below = np.zeros(1), np.array([region.settings.z_km[1]])
    at_zero = _times_s(region, phase, here, below, 0.0).item()
    return [_times_s(region, phase, here, below, z_km).item() - at_zero for z_km in network.z_km.tolist()]


def _velocity(region: Region, folder: Path) -> pyocto.VelocityModel0D | pyocto.VelocityModel1D:
    """Straight rays, or the run's own travel times in the file that PyOcto reads: sizes, step, P and S (x, z)."""
    settings = region.settings
    if not settings.velocity_model:
        return pyocto.VelocityModel0D(settings.vp_km_s, settings.vs_km_s, settings.max_sigma11_s)
    r_km = np.arange(0.0, _farthest_km(region) + 3 * TABLE_KM, TABLE_KM)
    z_km = np.arange(settings.z_km[0], settings.z_km[1] + 3 * TABLE_KM, TABLE_KM)
    path = folder / "times"
    with path.open("wb") as file:
        file.write(struct.pack("iid", len(r_km), len(z_km), TABLE_KM))
        for phase in (P, S):
            file.write(_times_s(region, phase, r_km[:, None], z_km, 0.0).tobytes())
    return pyocto.VelocityModel1D(path, settings.max_sigma11_s)


def _times_s(region: Region, phase: int, r_km: Float, z_km: Float, station_z_km: float) -> Float:
    """Travel times of sources at depths ``z_km`` to a station ``r_km`` away, of the shape of both together."""
    times = region.travel_times
    table = times.slowness_s_km[int(times.level(np.array(station_z_km))), phase]
    about = *times.step_km, times.depth_km
    flat = zip(*(a.ravel().tolist() for a in np.broadcast_arrays(r_km, z_km)), strict=True)
    found = np.array([travel_time(table, *about, r, z, station_z_km)[0] for r, z in flat])
    return found.reshape(np.broadcast_shapes(r_km.shape, z_km.shape))


def _top_km(region: Region) -> float:
    """The depth that PyOcto calls 0: its tables begin there."""
    return region.settings.z_km[0] if region.settings.velocity_model else 0.0


def _longest_s(region: Region) -> float:
    """The longest travel time to any station: from the farthest corner."""
    far, corners = np.array([_farthest_km(region)]), np.array(region.settings.z_km)
    return float(_times_s(region, S, far, corners, 0.0).max())


def _farthest_km(region: Region) -> float:
    return reach_km(region.network.x_km, region.network.y_km, region.settings.x_km, region.settings.y_km)
