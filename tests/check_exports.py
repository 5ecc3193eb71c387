"""Every export of a run that ObsPy can read, read by ObsPy and held against the run's own tables.

    python -m tests.check_exports RUN_DIR

Largest differences over all events and picks, and whether QuakeML and SCML are valid by their schemas.
"""

import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from obspy import read_events
from obspy.io.quakeml.core import _validate as valid_quakeml
from obspy.io.seiscomp.core import validate as valid_scml

from pipeline.formats import exports, tables
from pipeline.formats.located_run import load
from pipeline.records import LocatedArrivals, Origins
from pipeline.rundir import RunDir

READERS = {  # export -> ObsPy's format, and the file
    "quakeml": ("QUAKEML", ""),
    "scml": ("SCML", ""),
    "nordic": ("NORDIC", ""),
    "nonlinloc-hyp": ("NLLOC_HYP", ""),
    "hypodd": ("HYPODDPHA", "phase.dat"),
}
M_PER_DEG = 111_195.0


def row(event, origins, arrivals, i):
    """Differences of one event: time (ms), place and depth (m), magnitude, latest pick (ms), and wrong picks."""
    origin = event.preferred_origin() or event.origins[0]
    magnitude = event.preferred_magnitude() or (event.magnitudes[0] if event.magnitudes else None)
    latitude = origins.latitude_deg[i]
    east = (origin.longitude - origins.longitude_deg[i]) * np.cos(np.radians(latitude))
    mine = arrivals.take(arrivals.event == origins.id[i])
    wanted = sorted(
        zip(mine.time_ns.tolist(), (s.split(".")[1] for s in mine.station.tolist()), mine.phase.tolist(), strict=True)
    )
    got = sorted((p.time.ns, p.waveform_id.station_code, p.phase_hint) for p in event.picks)
    wrong = abs(len(got) - len(wanted)) + sum(g[1:] != w[1:] for g, w in zip(got, wanted, strict=False))
    known = np.isfinite(origins.magnitude[i]) and magnitude is not None
    return (
        abs(origin.time.ns - int(origins.time_ns[i])) / 1e6,
        float(np.hypot(origin.latitude - latitude, east)) * M_PER_DEG,
        abs(origin.depth - 1000 * origins.depth_km[i]),
        abs(magnitude.mag - origins.magnitude[i]) if known else np.nan,
        max((abs(g[0] - w[0]) / 1e6 for g, w in zip(got, wanted, strict=False)), default=0.0),
        wrong,
    )


def main(root):
    warnings.simplefilter("ignore")
    run_dir = RunDir(Path(root))
    found = load(run_dir)
    origins, arrivals = tables.read(run_dir.origins, Origins), tables.read(run_dir.arrivals, LocatedArrivals)
    print(f"{len(origins)} events, {len(arrivals)} picks")
    print("| format | events | time, ms | epicentre, m | depth, m | magnitude | picks, ms | picks lost or wrong |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, (form, file) in READERS.items():
            path = Path(folder) / name
            exports.export(name, found, path)
            read = read_events(str(path / file if file else path), format=form)
            assert len(read) == len(origins), f"{name}: {len(read)} events"
            rows = np.array([row(event, origins, arrivals, i) for i, event in enumerate(read)])
            worst = ["-" if np.isnan(c).all() else f"{np.nanmax(c):.3g}" for c in rows[:, :5].T]
            print(f"| {name} | {len(read)} | {' | '.join(worst)} | {int(rows[:, 5].sum())} |")
        schemas = Counter(quakeml=valid_quakeml(f"{folder}/quakeml"), scml=valid_scml(f"{folder}/scml", version="0.12"))
        print("valid by their schemas:", ", ".join(name for name, is_so in schemas.items() if is_so) or "none")


if __name__ == "__main__":
    main(*sys.argv[1:])
