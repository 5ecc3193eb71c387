"""Fabricate the files of a whole run, consistent with one another, without picking or associating anything."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np

from pipeline.config import Config, parse
from pipeline.formats import results, tables, tries
from pipeline.records import (
    DAY_NS,
    NS,
    Assignments,
    ComparedEvents,
    ComparedPicks,
    Events,
    Outcome,
    Picks,
    Shard,
    Shards,
    Stations,
)
from pipeline.rundir import RunDir, create, publish

LAT, LON = 46.2, 12.8
RESIDUALS = ("n", "mean", "mae", "rmse", "median", "mad")


def text(values) -> np.ndarray:
    return np.array(list(values), dtype=np.str_)


def make_config(root: Path, n_days: int, imported: bool = False, **report) -> Config:
    start = datetime(2024, 3, 20, tzinfo=UTC)
    data = {
        "run": {"name": "fabricated", "start": start, "end": start + timedelta(days=n_days)},
        "stations": {"files": ["stations.csv"]},
        "associate": {
            "center_latitude_deg": LAT,
            "center_longitude_deg": LON,
            "x_km": [-80, 80],
            "y_km": [-60, 60],
        },
        "report": report,
        **({"pick": {"source": "bulletin.parquet"}} if imported else {"archive": {"root": "sds"}}),
    }
    return parse(data, root / "given.toml")


def make_stations(n: int, rng, names=()) -> Stations:
    ids = [f"OX.{name}" for name in names] + [f"OX.S{i:03}" for i in range(n - len(names))]
    return Stations(
        text(ids),
        LAT + rng.uniform(-0.45, 0.45, n),
        LON + rng.uniform(-0.8, 0.8, n),
        rng.uniform(0, 2000, n),
        np.zeros(n, np.int64),
        np.full(n, 4_000_000_000 * NS),
    )


def make_events(n: int, start_ns: int, n_days: int, rng) -> Events:
    return Events(
        text(f"ev{i:05}" for i in range(n)),
        np.sort(start_ns + rng.integers(0, n_days * DAY_NS - 60 * NS, n)),
        LAT + rng.normal(0, 0.18, n),
        LON + rng.normal(0, 0.3, n),
        np.abs(rng.normal(9, 4, n)),
        np.full(n, np.nan),
        rng.uniform(0.05, 0.4, n),
        *(np.zeros(n, np.int64) for _ in range(3)),
        rng.uniform(40, 250, n),
        rng.uniform(1, 30, n),
        rng.uniform(5, 30, n),
        text(["earthquake"] * n),
        np.zeros(n, np.int64),
        np.full(n, np.nan),
    )


def make_assignments(events: Events, stations: Stations, rng, most: int = 14) -> Assignments:
    """Each event is seen by 4 to ``most`` stations, each with a P and mostly an S."""
    rows = []
    for event, time_ns in zip(events.id.tolist(), events.time_ns.tolist(), strict=True):
        seen = rng.choice(len(stations), min(len(stations), int(rng.integers(4, most + 1))), replace=False)
        for k, at in enumerate(sorted(seen)):
            channel = f"{stations.id[at]}..HH"
            rows.append((event, channel, "P", time_ns + int((2 + 0.7 * k) * NS) + at))
            if rng.random() < 0.8:
                rows.append((event, channel, "S", time_ns + int((3.5 + 1.2 * k) * NS) + at))
    n = len(rows)
    columns = list(zip(*rows, strict=True)) or [[]] * 4
    return Assignments(
        *(text(columns[i]) if n else np.empty(0, "U1") for i in range(3)),
        np.array(columns[3], np.int64),
        rng.uniform(0.6, 1, n),
        rng.normal(0, 0.15, n),
        np.full(n, np.nan),
    )


def counted(events: Events, assignments: Assignments) -> Events:
    n = Counter(zip(assignments.event.tolist(), assignments.phase.tolist(), strict=True))
    n_p, n_s = (np.array([n[event, phase] for event in events.id.tolist()], np.int64) for phase in "PS")
    return replace(events, n_p=n_p, n_s=n_s, n_stations=n_p.copy())


def make_picks(assignments: Assignments, noise_per_day: int, stations: Stations, days: list[date], rng) -> Picks:
    """The picks of the events and as many of noise a station and day."""
    n = noise_per_day * len(stations) * len(days)
    who = rng.integers(0, len(stations), n)
    start_ns = int(np.datetime64(days[0], "ns").astype(np.int64))
    total = n + len(assignments)
    some = np.full(total, 0.1, np.float32)
    return Picks(
        np.concatenate([assignments.station, text(f"{s}..HH" for s in stations.id)[who]]),
        np.concatenate([assignments.phase, np.array(["P", "S"])[rng.integers(0, 2, n)]]),
        np.concatenate([assignments.time_ns, start_ns + rng.integers(0, len(days) * DAY_NS, n)]),
        rng.uniform(0.3, 1, total).astype(np.float32),
        some,
        some,
        some,
        np.full(total, np.nan, np.float32),
    )


def make_outcome(shard: Shard, n_picks: int, i: int) -> Outcome:
    if i % 17 == 16:
        return Outcome(shard.id, "empty", f"{shard.id}: no file in the archive", 0, 0.0)
    notes = ("2 gaps, 34.5 s in all", "component E is dead") if i % 7 == 3 else ()
    return Outcome(shard.id, "picked", "", n_picks, (0.4, 0.93, 1.0, 1.0)[i % 4], notes)


def compare(events: Events, rng, n_missed: int, first_ns: int) -> ComparedEvents:
    """All but every tenth of ``events`` matched, the others new, and some missed ones."""
    new = np.arange(len(events)) % 10 == 9
    n = len(events) + n_missed
    pad = np.full(n_missed, np.nan)
    their_time = np.where(new, 0, events.time_ns + (rng.normal(0, 0.3, len(events)) * NS).astype(np.int64))
    missed_time = (
        rng.integers(events.time_ns.min(), events.time_ns.max() + 1, n_missed)
        if len(events)
        else first_ns + np.arange(n_missed) * 3600 * NS
    )
    lat, lon = events.latitude_deg, events.longitude_deg
    their = [np.where(new, np.nan, v + rng.normal(0, 0.01, len(events))) for v in (lat, lon)]
    depth = np.where(new, np.nan, events.depth_km + rng.normal(0, 2, len(events)))
    far = [LAT + rng.normal(0, 0.3, n_missed), LON + rng.normal(0, 0.5, n_missed)]
    magnitude = np.where(new, np.nan, rng.exponential(0.5, len(events)) + 0.5)
    both = np.concatenate
    missed_depth = np.abs(rng.normal(8, 3, n_missed))
    magnitude = both([magnitude, rng.exponential(0.3, n_missed) + 0.2])
    none = np.zeros(n_missed, np.int64)
    return ComparedEvents(
        both([np.where(new, "new", "matched"), text(["missed"] * n_missed)]),
        both([events.id, text([""] * n_missed)]),
        both(
            [np.where(new, "", text(f"R{i:04}" for i in range(len(events)))), text(f"M{i:04}" for i in range(n_missed))]
        ),
        both([events.time_ns, np.zeros(n_missed, np.int64)]),
        both([their_time, missed_time]),
        both([lat, pad]),
        both([lon, pad]),
        *(
            both([getattr(events, name), pad])
            for name in ("depth_km", "magnitude", "sigma_time_s", "gap_deg", "nearest_km", "score")
        ),
        both([events.n_stations, none]),
        both([their[0], far[0]]),
        both([their[1], far[1]]),
        both([depth, missed_depth]),
        magnitude,
        *(
            both([np.where(new, np.nan, getattr(events, name)), pad])
            for name in ("sigma_time_s", "gap_deg", "nearest_km")
        ),
        both([np.where(new, 0, events.n_p), none + 4]),
        both([np.where(new, 0, events.n_s), none]),
        magnitude,
        both([events.n_p, none]),
        both([events.n_s, none]),
        both([np.where(new, np.nan, (events.time_ns - their_time) / NS), pad]),
        both([np.where(new, np.nan, np.abs(rng.normal(1.2, 0.8, len(events)))), pad]),
        both([events.depth_km - depth, pad]),
        text(["earthquake"] * n),
    )


def compare_picks(assignments: Assignments, compared: ComparedEvents, rng) -> ComparedPicks:
    """Most assigned picks matched; each missed event has four picks, two of them seen by us."""
    theirs = dict(zip(compared.ours.tolist(), compared.theirs.tolist(), strict=True))
    rows = []
    for event, station, phase, time_ns in zip(
        assignments.event.tolist(),
        assignments.station.tolist(),
        assignments.phase.tolist(),
        assignments.time_ns.tolist(),
        strict=True,
    ):
        site = ".".join(station.split(".")[:2])
        dt = float(rng.normal(0, 0.06))
        if theirs.get(event) and rng.random() < 0.9:
            other = phase if rng.random() < 0.98 else "S"
            rows.append(("matched", site, phase, other, time_ns, time_ns - int(dt * NS), 0.8, dt, event, theirs[event]))
        else:
            rows.append(("new", site, phase, "", time_ns, 0, 0.6, np.nan, event, ""))
    sites = sorted({r[1] for r in rows}) or ["OX.S000"]
    for name, time_ns in zip(
        compared.theirs[compared.status == "missed"], compared.their_time_ns[compared.status == "missed"], strict=True
    ):
        for k in range(4):
            at = int(time_ns) + (3 + k) * NS
            mine = ("matched", "P", at + NS // 20, 0.4, 0.05) if k % 2 else ("missed", "", 0, np.nan, np.nan)
            rows.append((mine[0], sites[k % len(sites)], mine[1], "P", mine[2], at, mine[3], mine[4], "", str(name)))
    columns = list(zip(*rows, strict=True)) or [[]] * 10
    ours, theirs = np.array(columns[2], np.str_) != "", np.array(columns[3], np.str_) != ""
    measured = (np.where(ours, value, np.nan).tolist() for value in (0.2, 12.0, 3600.0))
    columns[7:7] = [*measured, np.where(theirs, 1, -1).tolist()]  # width, SNR, gap and their weight
    kinds = [f.metadata["dtype"] for f in ComparedPicks.columns()]
    return ComparedPicks(
        *(
            text(c) if kind == "str" and c else np.array(c, "U1" if kind == "str" else kind)
            for c, kind in zip(columns, kinds, strict=True)
        )
    )


def _rate(n: int, of: int) -> dict:
    value = n / of if of else None
    return {"value": value, "low": value and max(0.0, value - 0.08), "high": value and min(1.0, value + 0.05)}


def _residuals(values: np.ndarray) -> dict:
    v = values[np.isfinite(values)]
    if not len(v):
        return {"n": 0, **dict.fromkeys(RESIDUALS[1:])}
    mad = float(np.median(np.abs(v - np.median(v))))
    return dict(
        zip(
            RESIDUALS,
            (len(v), float(v.mean()), float(np.abs(v).mean()), float(np.sqrt((v**2).mean())), float(np.median(v)), mad),
            strict=True,
        )
    )


def make_scorecard(config: Config, events: ComparedEvents, picks: ComparedPicks) -> dict:
    ours, theirs, both = (
        int(np.count_nonzero(np.isin(events.status, s)))
        for s in (["matched", "new"], ["matched", "missed"], ["matched"])
    )
    p_ours, p_theirs, p_both = (
        int(np.count_nonzero(np.isin(picks.status, s)))
        for s in (["matched", "new"], ["matched", "missed"], ["matched"])
    )
    known = np.isfinite(events.magnitude) & (events.status != "new")
    edges = np.arange(0, 4, 0.5)
    bins = [(lo, known & (events.magnitude >= lo) & (events.magnitude < lo + 0.5)) for lo in edges]
    by_magnitude = [
        {
            "low": float(lo),
            "high": float(lo + 0.5),
            "n": int(inside.sum()),
            "matched": int((inside & (events.status == "matched")).sum()),
            "recall": _rate(int((inside & (events.status == "matched")).sum()), int(inside.sum())),
        }
        for lo, inside in bins
        if inside.any()
    ]
    return {
        "config_digest": config.digest,
        "inputs_digest": "0" * 64,
        "tolerances": {"pick_s": 0.5, "event_s": 2.0, "event_km": 8.0},
        "n": {
            "events_ours": ours,
            "events_reference": theirs,
            "events_matched": both,
            "events_excluded": 0,
            "picks_ours": p_ours,
            "picks_reference": p_theirs,
            "picks_matched": p_both,
            "bad_lines": 2,
        },
        "events": {
            "recall": _rate(both, theirs),
            "precision": _rate(both, ours),
            "f1": _rate(2 * both, ours + theirs),
            "residuals": {
                "time_s": _residuals(events.dt_s),
                "epicentre_km": _residuals(events.distance_km),
                "depth_km": _residuals(events.depth_difference_km),
            },
            "by_magnitude": by_magnitude,
            "by_day": [],
            "kinds": {},
        },
        "picks": {
            "P": {
                "recall": _rate(p_both, p_theirs),
                "precision": _rate(p_both, p_ours),
                "f1": _rate(p_both, p_ours),
                "residual_s": _residuals(picks.dt_s),
            },
            "S": {
                "recall": _rate(p_both, p_theirs),
                "precision": _rate(p_both, p_ours),
                "f1": _rate(p_both, p_ours),
                "residual_s": _residuals(picks.dt_s),
            },
            "confusion": {
                "rows": ["P", "S", "none"],
                "columns": ["P", "S", "none"],
                "counts": [[p_both, 3, 12], [2, p_both // 2, 9], [140, 90, 0]],
            },
            "by_station": [
                {
                    "station": name,
                    "reference_p": 9,
                    "matched_p": 8,
                    "ours_p": 11,
                    "reference_s": 6,
                    "matched_s": 4,
                    "ours_s": 7,
                    "median_dt_p_s": 0.01,
                    "median_dt_s_s": None,
                    "recall_p": 8 / 9,
                    "precision_p": 8 / 11,
                    "f1_p": 16 / 20,
                    "recall_s": 4 / 6,
                    "precision_s": 4 / 7,
                    "f1_s": 8 / 13,
                }
                for name in sorted(set(picks.station.tolist()))
            ],
            "by_day": [],
        },
    }


def write(run_dir: RunDir, config: Config, stations: Stations, days: list[date], picks: Picks, n_failed: int) -> None:
    """The plan and the results of picking: the last ``n_failed`` shards of the last day failed."""
    shards = [Shard(day, f"{name}.", "HH") for day in days for name in sorted(set(stations.id.tolist()))]
    failed = set(shards[len(shards) - n_failed :])
    tables.write(run_dir.stations, stations)
    table = Shards(
        text(f"{s.day:%Y-%m-%d}" for s in shards),
        text(s.station for s in shards),
        text(s.band for s in shards),
        np.full(len(shards), 10_000_000, np.int64),
        text("" for _ in shards),
        np.zeros(len(shards), np.int64),
    )
    tables.write(run_dir.shards, table if config.archive.root else Shards.empty())
    day_of = picks.time_ns // DAY_NS
    for day in days:
        todays = picks.take(day_of == np.datetime64(day, "D").astype(np.int64))
        if config.archive.root is None:
            results.write_day(run_dir, day, todays, [])
            continue
        names, counts = np.unique(todays.station, return_counts=True)
        n_picks = dict(zip(names.tolist(), counts.tolist(), strict=True))
        members = [(i, s) for i, s in enumerate(shards) if s.day == day]
        if failed & {s for _, s in members}:
            for i, s in members:
                if s in failed:
                    tries.write(run_dir, s, "BadData: samples are NaN", "Traceback ...\nBadData: samples are NaN")
                else:
                    results.write_part(
                        run_dir,
                        s,
                        todays.take(todays.station == s.channel),
                        make_outcome(s, n_picks.get(s.channel, 0), i),
                    )
        else:
            results.write_day(run_dir, day, todays, [make_outcome(s, n_picks.get(s.channel, 0), i) for i, s in members])


def empties(stations: Stations, days: list[date]) -> set[tuple[str, int]]:
    """(channel, day number) of the shards that `make_outcome` leaves empty."""
    shards = [(f"{name}..HH", day) for day in days for name in sorted(set(stations.id.tolist()))]
    return {(c, int(np.datetime64(d, "D").astype(np.int64))) for i, (c, d) in enumerate(shards) if i % 17 == 16}


def fabricate(
    root: Path,
    n_events: int = 31,
    n_stations: int = 14,
    n_days: int = 1,
    noise_per_day: int = 6,
    n_missed: int = 3,
    n_failed: int = 0,
    reference: bool = True,
    imported: bool = False,
    names: tuple[str, ...] = (),
    seed: int = 1,
    **report,
) -> tuple[RunDir, Config]:
    """Write a finished run under ``root``. Picks of empty and failed shards do not exist."""
    rng = np.random.default_rng(seed)
    config = make_config(root, n_days, imported, **report)
    run_dir = create(root / "run", config)
    days = [date(2024, 3, 20) + timedelta(days=i) for i in range(n_days)]
    stations = make_stations(n_stations, rng, names)
    events = make_events(n_events, config.run.span_ns[0], n_days, rng)
    assignments = make_assignments(events, stations, rng)
    picks = make_picks(assignments, noise_per_day, stations, days, rng)
    if not imported:
        gone = empties(stations, days)
        last = sorted(f"{name}..HH" for name in stations.id.tolist())[len(stations) - n_failed :] if n_failed else []
        gone |= {(c, int(np.datetime64(days[-1], "D").astype(np.int64))) for c in last}

        def kept(t):
            at = zip(t.station.tolist(), (t.time_ns // DAY_NS).tolist(), strict=True)
            return t.take(np.array([key not in gone for key in at], bool))

        assignments, picks = kept(assignments), kept(picks)
    events = counted(events, assignments)
    write(run_dir, config, stations, days, picks, n_failed)
    for path, table in ((run_dir.events, events), (run_dir.assignments, assignments)):
        with publish(path) as part:
            tables.write(part, table)
    if reference:
        compared = compare(events, rng, n_missed, config.run.span_ns[0])
        compared_picks = compare_picks(assignments, compared, rng)
        run_dir.scorecard.parent.mkdir(parents=True, exist_ok=True)
        tables.write(run_dir.compared("events"), compared)
        tables.write(run_dir.compared("picks"), compared_picks)
        run_dir.scorecard.write_text(json.dumps(make_scorecard(config, compared, compared_picks)))
    return run_dir, config
