"""On what published pickers were trained, as far as it is published, and whether records may be among it.

A box is south, north, west, east. Years are inclusive; None: not published. Sources: PhaseNet: Zhu and Beroza 2019
(doi 10.1093/gji/ggy423), "over thirty years" of the Northern California Earthquake Data Center, of which the archive
of waveforms begins in 1984, submitted in 2018. STEAD: Mousavi et al. 2019 (doi 10.1109/ACCESS.2019.2947848), January
1984 to August 2018. INSTANCE: Michelini et al. 2021 (doi 10.5194/essd-13-5509-2021), January 2005 to January 2020. The
others: the descriptions of SeisBench's data sets. The boxes are ours, drawn widely around the regions named there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.records import Bool, Labelled


@dataclass(frozen=True, slots=True)
class Trained:
    """One training set."""

    data: str
    region: str
    box: tuple[float, float, float, float] | None = None  # None: the world
    years: tuple[int, int] | None = None
    networks: tuple[str, ...] = ()  # where a record has no coordinates, these tell; without them, any


NCEDC = Trained(
    "NCEDC",
    "northern and central California and Nevada",
    (34.0, 43.0, -127.0, -116.0),
    (1984, 2018),
    ("BG", "BK", "BP", "CE", "CI", "GM", "NC", "NN", "NP", "PB", "PG", "SF", "TA", "UO", "UW", "WR"),
)
STEAD = Trained("STEAD", "world, up to 350 km", None, (1984, 2018))
BY_WEIGHT = {"phasenet/original": NCEDC, "eqtransformer/original": STEAD, "eqtransformer/conservative": STEAD}
BY_DATA = {  # SeisBench's names of weights: seisbench:PhaseNet/instance
    "stead": STEAD,
    "instance": Trained("INSTANCE", "Italy", (34.5, 48.5, 5.0, 20.0), (2005, 2020)),
    "ethz": Trained("ETHZ", "Switzerland and around it", (44.5, 49.0, 5.0, 11.5), (2013, 2020)),
    "scedc": Trained("SCEDC", "southern California", (31.5, 37.5, -122.0, -113.5), (2000, 2020)),
    "geofon": Trained("GEOFON", "world", None, (2009, 2013)),
    "iquique": Trained("Iquique", "northern Chile", (-25.0, -17.0, -73.0, -67.0), (2014, 2014)),
    "lendb": Trained("LEN-DB", "world, local distances"),
    "neic": Trained("NEIC", "world"),
    "obs": Trained("OBS", "15 deployments at the bottom of the oceans"),
}


def trained_on(weight: str) -> Trained | None:
    """What ``weight`` (with or without "+adapter") was trained on; None if this is not known here."""
    base = weight.split("+")[0]
    return BY_WEIGHT.get(base) or (BY_DATA.get(base.rpartition("/")[2]) if base.startswith("seisbench:") else None)


def may_know(rows: Labelled, trained: Trained) -> Bool:
    """(n,) whether a record lies in the region and the years of a training set; what is not known counts as inside."""
    return _in_region(rows, trained) & _in_years(rows, trained)


def _in_region(rows: Labelled, trained: Trained) -> Bool:
    if trained.box is None:
        return np.ones(len(rows), np.bool_)
    south, north, west, east = trained.box
    longitude = (rows.longitude_deg - west) % 360 + west
    inside = (rows.latitude_deg >= south) & (rows.latitude_deg <= north) & (longitude <= east)
    networks = np.array([name.split(".")[0] for name in rows.station.tolist()], np.str_)
    listed = np.isin(networks, trained.networks) if trained.networks else np.ones(len(rows), np.bool_)
    found: Bool = np.where(np.isfinite(rows.latitude_deg) & np.isfinite(rows.longitude_deg), inside, listed)
    return found


def _in_years(rows: Labelled, trained: Trained) -> Bool:
    if trained.years is None:
        return np.ones(len(rows), np.bool_)
    year = rows.start_ns.astype("datetime64[ns]").astype("datetime64[Y]").astype(np.int64) + 1970
    found: Bool = ~rows.has_time | ((year >= trained.years[0]) & (year <= trained.years[1]))
    return found


def warning(rows: Labelled, weight: str) -> str:
    """One sentence if records may be among those that ``weight`` was trained on, or nobody can tell; "" if not."""
    trained = trained_on(weight)
    if trained is None:
        return f"{weight}: what it was trained on is not known here; whether it knows these records nobody can tell"
    known = np.flatnonzero(may_know(rows, trained))
    if not len(known):
        return ""
    years = f"{trained.years[0]} to {trained.years[1]}" if trained.years else "years not published"
    shown = ", ".join(rows.id[known[:3]].tolist()) + (", ..." if len(known) > 3 else "")
    return (
        f"{weight} was trained on {trained.data} ({trained.region}; {years}), and {len(known)} of {len(rows)} records "
        f"may be among it ({shown}): its own scores on them are flattered"
    )
