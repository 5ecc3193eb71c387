"""A small catalogue of located events with everything that a format may stumble over."""

from math import nan

import numpy as np

from pipeline.formats.located import Catalogue, covariance_row, table
from pipeline.formats.stations import EARLIEST, LATEST
from pipeline.maths import ellipsoids
from pipeline.records import NS, LocatedArrivals, Origins, Stations

SITES = {  # a code of five letters and one of six, one code in two networks, no location, two locations of one site
    "XX.ABCDE": (-41.20, 172.90, 812.0),
    "XX.ABCDEF": (-41.30, 172.70, -12.5),
    "XX.CIMO": (-41.10, 173.10, 713.0),
    "YY.CIMO": (-41.00, 172.60, 0.0),
    "ZZ.A": (-40.90, 172.80, 95.0),
}
STATIONS = ("XX.ABCDE.00.HH", "XX.ABCDEF..EH", "XX.CIMO.10.HN", "YY.CIMO..HH", "ZZ.A.00.BH")
COVARIANCE = np.array([[0.9, 0.2, -0.3], [0.2, 0.5, 0.1], [-0.3, 0.1, 2.5]])


def ns(text):
    return int(np.datetime64(text, "ns").astype(np.int64))


def origin(id_, time, latitude, longitude, depth, **more):
    """A row of `Origins` with a covariance and an ellipsoid that fits it."""
    solid = ellipsoids.ellipsoid(COVARIANCE)
    names = ("major_km", "intermediate_km", "minor_km", "azimuth_deg", "plunge_deg")
    row = {
        "id": id_,
        "time_ns": ns(time),
        "latitude_deg": latitude,
        "longitude_deg": longitude,
        "depth_km": depth,
        "sigma_time_s": 0.123,
        **covariance_row(COVARIANCE),
        **{f"ellipsoid_{name}": value for name, value in zip(names, solid, strict=False)},
        "erh_km": 1.41,
        "erz_km": 1.58,
        "gap_deg": 112.0,
        "secondary_gap_deg": 151.5,
        "nearest_km": 7.0,
        "rms_s": 0.171,
        "n_used": 9,
        "depth_kind": "free",
        "kind": "earthquake",
    }
    return row | more


def picks(event, origin_ns, n=10, first_s=1.2345):
    """``n`` picks, P and S in turn, round the stations."""
    rows = []
    for k in range(n):
        travel_s = first_s + 0.731 * k
        residual_s = 0.05 * (-1) ** k
        rows.append(
            {
                "event": event,
                "station": STATIONS[k // 2 % len(STATIONS)],
                "phase": "PS"[k % 2],
                "time_ns": origin_ns + round(travel_s * 1e6) * 1000,
                "sigma_s": (0.04, 0.15, 0.3, 0.7)[k % 4],
                "weight": 0.0 if k == n - 1 else 1.0 - 0.05 * (k % 10),
                "residual_s": residual_s,
                "predicted_ns": origin_ns + round((travel_s - residual_s) * 1e6) * 1000,
                "distance_km": 7.0 + 3.1 * k,
                "azimuth_deg": (37.0 * k) % 360,
                "takeoff_deg": 95.0 + 5 * (k % 10),
            }
        )
    return rows


def awkward():
    """Seven events; every one has picks."""
    rows = [
        origin("20231231T235959_8a", "2023-12-31T23:59:59.999700", 46.123456, 13.654321, 8.123, magnitude=2.34,
               magnitude_kind="ML", magnitude_sigma=0.21, magnitude_n=4, probability=0.875),
        origin("hem", "2024-01-01T00:00:59.999960", -41.123456, -172.654321, -1.25, magnitude=-0.45,
               magnitude_kind="ML", magnitude_n=1, depth_kind="fixed: nearer than the nearest station"),
        origin('a<b>&"c" d', "2024-02-29T11:59:59.996000", -0.004, 179.9999, 0.0,
               magnitude_reason='no "response" & S/N < 3', kind="quarry blast", is_duplicate_of="hem",
               blast_score=0.75),
        origin("mid", "2024-06-30T23:59:30.005000", 89.5, -0.004, 35.5, magnitude=10.0, magnitude_kind="ML",
               magnitude_n=0),
        origin("many", "2024-07-01T12:00:00.000000", 46.2, 13.1, 12.0, magnitude=1.0, magnitude_kind="ML"),
        origin("kind", "2024-07-02T12:00:00.050000", 46.2, 13.1, 12.0, kind="house party"),
        origin("poor", "2024-07-03T01:02:03.456789", 46.3, 13.2, 9.0, sigma_time_s=nan, erh_km=nan, erz_km=nan,
               gap_deg=nan, secondary_gap_deg=nan, rms_s=nan, nearest_km=nan, n_used=-1, depth_kind="", kind="",
               **{f"cov_{k}_km2": nan for k in ("xx", "xy", "xz", "yy", "yz", "zz")},
               **{f"ellipsoid_{k}": nan for k in
                  ("major_km", "intermediate_km", "minor_km", "azimuth_deg", "plunge_deg")}),
    ]  # fmt: skip
    arrivals = []
    for row in rows:
        arrivals += picks(
            row["id"], row["time_ns"], 130 if row["id"] == "many" else 10, 40 if row["id"] == "mid" else 1.2345
        )
        if row["id"] == "20231231T235959_8a":  # of S picks; the last of them is too far away for the scale
            for k, pick in enumerate(arrivals[-9::2]):
                pick |= {"wood_anderson_mm": 0.5 + k} | ({"magnitude": 2.0 + 0.21 * k} if k < 4 else {})
    for row in arrivals:
        if row["event"] == "poor":
            row |= dict.fromkeys(("sigma_s", "weight", "residual_s", "distance_km", "azimuth_deg", "takeoff_deg"), nan)
            row["predicted_ns"] = 0
    return whole(rows, arrivals)


def whole(rows, arrivals):
    """The tables, sorted, with the counts of picks and the stations."""
    for row in rows:
        mine = [a for a in arrivals if a["event"] == row["id"]]
        row["n_p"] = sum(a["phase"] == "P" for a in mine)
        row["n_s"] = sum(a["phase"] == "S" for a in mine)
        row["n_stations"] = len({".".join(a["station"].split(".")[:2]) for a in mine})
    origins, picked = table(Origins, rows), table(LocatedArrivals, arrivals)
    sites = table(
        Stations,
        [
            {
                "id": id_,
                "latitude_deg": lat,
                "longitude_deg": lon,
                "elevation_m": z,
                "start_ns": EARLIEST,
                "end_ns": LATEST,
            }
            for id_, (lat, lon, z) in SITES.items()
        ],
    )
    return Catalogue(
        origins.take(np.lexsort((origins.id, origins.time_ns))),
        picked.take(np.lexsort((picked.phase, picked.station, picked.time_ns, picked.event))),
        sites,
    )


def swarm(n=6):
    """Events a few hundred metres apart, each with 10 picks at the same stations."""
    rows, arrivals = [], []
    for k in range(n):
        rows.append(
            origin(f"swarm{k}", f"2024-03-01T0{k}:00:00.1234", 46.0 + 0.003 * k, 13.0 - 0.002 * k, 8.0 + 0.1 * k)
        )
        arrivals += picks(rows[-1]["id"], rows[-1]["time_ns"], first_s=1.0 + 0.01 * k)
    return whole(rows, arrivals)


def matched(ours, theirs, dt_ns=NS):
    """For each pick of ``ours`` the row of ``theirs`` of the same event, phase and code that is nearest in time."""
    used, rows = set(), []
    for k in range(len(ours)):
        code = ours.station[k].split(".")[1] if "." in ours.station[k] else ours.station[k]
        same = [
            j for j in np.flatnonzero((theirs.event == ours.event[k]) & (theirs.phase == ours.phase[k])).tolist()
            if j not in used and code in theirs.station[j] and abs(theirs.time_ns[j] - ours.time_ns[k]) <= dt_ns
        ]  # fmt: skip
        assert same, (ours.event[k], ours.station[k], ours.phase[k])
        rows.append(min(same, key=lambda j: abs(theirs.time_ns[j] - ours.time_ns[k])))
        used.add(rows[-1])
    return np.array(rows)
