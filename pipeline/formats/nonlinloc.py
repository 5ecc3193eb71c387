"""What the two text formats of NonLinLoc share: a line of a phase (Lomax, NonLinLoc 7, ``GridLib.c``, ReadArrival).

Fields are free, with blanks between: station, instrument, component, onset, phase, first motion, date, hour and minute,
second, kind and size of the error, coda, amplitude, period, prior weight. The instrument is not used and the component
is the band ("HH"); the location code is left out. A station is its code, or "NET_STA" where two networks have that
code. Times have 0.1 ms, errors three digits.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.formats.export_names import codes
from pipeline.formats.located import clock, known, minute_ns, seconds_ns, split
from pipeline.formats.quakeml_write import NOT_IN_ID
from pipeline.maths.names import site, sites
from pipeline.records import LocatedArrivals, Text

STEP_NS = 100_000
NONE = "?"


def labels(stations: Text) -> dict[str, str]:
    """What is written for each "NET.STA" of ``stations`` (n,) "NET.STA.LOC.BAND"."""
    short = codes(sites(stations).tolist(), 64)
    own = {name: name.split(".")[-1] for name in short}
    return {name: own[name] if own[name] == code else name.replace(".", "_") for name, code in short.items()}


def observed(a: LocatedArrivals, row: int, names: dict[str, str]) -> str:
    """The observed part of a phase line, with its prior weight."""
    at = clock(int(a.time_ns[row]), STEP_NS)
    band = split(str(a.station[row]))[3] or NONE
    label = NOT_IN_ID.sub("-", names[site(str(a.station[row]))])
    error = f"GAU {known(a.sigma_s[row], -1.0):9.2e}"
    return (
        f"{label:<12} {NONE:<4} {band:<4} {NONE} {a.phase[row]!s:<6} {NONE} {at.date} {at.minute:%H%M}"
        f" {at.steps / 10_000:9.4f} {error} -1.00e+00 -1.00e+00 -1.00e+00    1.0000"
    )


def pick(fields: Sequence[str]) -> dict[str, object]:
    """The columns of `LocatedArrivals` that the observed part holds. Raises ValueError."""
    if len(fields) < 11:
        raise ValueError(f"{len(fields)} fields, expected station ... period")
    date, hhmm = fields[6], fields[7].zfill(4)
    if len(date) != 8 or not (date + hhmm).isdecimal():
        raise ValueError(f"{date} {hhmm} is not a date and a time of day")
    minute = minute_ns(int(date[:4]), int(date[4:6]), int(date[6:]), int(hhmm[:2]), int(hhmm[2:]))
    station = fields[0].replace("_", ".")
    if fields[2] != NONE and len(fields[2]) > 1:
        station = f"{station if '.' in station else '.' + station}..{fields[2]}"
    error = float(fields[10])
    row: dict[str, object] = {"station": station, "phase": fields[4], "time_ns": minute + seconds_ns(float(fields[8]))}
    return row | ({"sigma_s": error} if fields[9] == "GAU" and error >= 0 else {})
