"""What analysts decide on new events: review.csv as it goes out, the same with decisions as it comes back."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.formats import tables
from pipeline.formats.bulletin_rows import iso_ns
from pipeline.formats.cells import guarded, plain
from pipeline.formats.located import iso, table
from pipeline.maths.decisions import DECISIONS
from pipeline.records import Decisions, Float, Origins
from pipeline.rundir import RunDir

ASKED = ("event_id", "rank", "probability", "score", "time", "latitude_deg", "longitude_deg", "depth_km", "n_picks")
ANSWERED = ("decision", "comment", "who", "when")
NEEDED = ("event_id", "time", "latitude_deg", "longitude_deg", "decision")
MORE = "fields without a column"
NAMED = 10  # wrong lines in a message


def write_review(path: Path, origins: Origins, score: Float) -> None:
    """One line an event, in the order given, with empty columns for decision, comment, who and when."""
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*ASKED, *ANSWERED])
        for row in range(len(origins)):
            n_picks = max(int(origins.n_p[row]), 0) + max(int(origins.n_s[row]), 0)
            place = (origins.latitude_deg[row], origins.longitude_deg[row])
            numbers = [_digits(v, 5) for v in place] + [_digits(origins.depth_km[row], 3)]
            rank = [row + 1, _digits(origins.probability[row], 4), _digits(score[row], 2)]
            rows.writerow(
                [
                    guarded(str(origins.id[row])),
                    *rank,
                    iso(int(origins.time_ns[row])),
                    *numbers,
                    n_picks,
                    "",
                    "",
                    "",
                    "",
                ]
            )


def _digits(value: float, n: int) -> str:
    return f"{value:.{n}f}" if isfinite(value) else ""


def read_decisions(path: Path) -> Decisions:
    """The lines of a review.csv with a decision: accept, reject, quarry blast or unsure, in any letters.

    Fields may be between commas, semicolons or tabs (the latter two with decimal commas), in UTF-8, UTF-16 or
    Windows-1252, as spreadsheets write them. Raises ConfigError that names each wrong line and its value, and lines
    that contradict each other; then nothing is taken.
    """
    rows: list[dict[str, Any]] = []
    wrong: list[str] = []
    first: dict[str, tuple[int, dict[str, Any]]] = {}  # line and row of each event
    for number, row, local in _lines(path):
        if (row.get("decision") or "").strip():
            try:
                rows.append(_decision(row, local))
                _require_agreement(rows[-1], *first.setdefault(rows[-1]["event"], (number, rows[-1])))
            except ValueError as e:
                wrong.append(f"line {number}: {e}")
    if wrong:
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise ConfigError(
            f"{path}: {'; '.join(wrong[:NAMED])}{more}. Nothing was taken: correct them and read it again"
        )
    found = table(Decisions, rows)
    return found.take(np.lexsort((found.event, found.time_ns)))


def _require_agreement(row: dict[str, Any], line: int, other: dict[str, Any]) -> None:
    """Raises ValueError if two lines of one file decide differently on an event, and not one after the other."""
    later = row["when_ns"] and other["when_ns"] and row["when_ns"] != other["when_ns"]
    if row["decision"] != other["decision"] and not later:
        raise ValueError(f"{row['event']} is {row['decision']!r}, but {other['decision']!r} in line {line}")


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any], bool]]:
    """Number of the first line of each row, its fields by name, and whether numbers and dates are a country's own."""
    lines = _text(path)
    heading = lines.readline()
    separator = max(",;\t", key=heading.count)
    lines.seek(0)
    reader = csv.DictReader(lines, delimiter=separator, restkey=MORE)
    names = [name.strip().lower() for name in reader.fieldnames or []]
    lacking = [name for name in NEEDED if name not in names]
    if lacking:
        raise ConfigError(f"{path}: no column {', '.join(lacking)}; a review.csv has {', '.join([*ASKED, *ANSWERED])}")
    reader.fieldnames = names
    number = 2
    try:
        for row in reader:
            yield number, row, separator != ","
            number = reader.line_num + 1
    except csv.Error as e:
        raise ConfigError(f"{path}, line {number}: cannot be read as CSV: {e}") from e


def _text(path: Path) -> io.StringIO:
    try:
        raw = Path(path).read_bytes()
        encoding = "utf-16" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
        try:
            return io.StringIO(raw.decode(encoding), newline="")
        except UnicodeDecodeError:
            return io.StringIO(raw.decode("cp1252", "replace"), newline="")
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e}") from e


def _decision(row: dict[str, Any], local: bool) -> dict[str, Any]:
    if any(value.strip() for value in row.get(MORE, ())):
        raise ValueError("more fields than columns: put a comment with separators between double quotes")
    said = (row["decision"] or "").strip()
    decision = " ".join(said.lower().replace("_", " ").replace("-", " ").split())
    if decision not in DECISIONS:
        raise ValueError(f"decision {said!r} is none of {', '.join(DECISIONS)}")
    event = plain((row["event_id"] or "").strip())
    if not event:
        raise ValueError("no event_id")
    return {
        "event": event,
        "time_ns": iso_ns((row["time"] or "").strip()),
        "latitude_deg": _number(row, "latitude_deg", local, 90),
        "longitude_deg": _number(row, "longitude_deg", local, 360),
        "decision": decision,
        "comment": (row.get("comment") or "").strip(),
        "who": (row.get("who") or "").strip(),
        "when_ns": _when_ns((row.get("when") or "").strip(), local),
    }


def _when_ns(text: str, local: bool) -> int:
    """ISO 8601, or where numbers have decimal commas also 21/03/2024 08:00, as spreadsheets there make of it."""
    day = re.fullmatch(r"(\d\d?)[/.](\d\d?)[/.](\d{4})(?: (\d\d?)[:.](\d\d)(?:[:.](\d\d))?)?", text) if local else None
    if day:
        d, m, y, hour, minute, second = (int(part or 0) for part in day.groups())
        text = f"{y:04d}-{m:02d}-{d:02d}T{hour:02d}:{minute:02d}:{second:02d}"
    return iso_ns(text) if text else 0


def _number(row: dict[str, Any], name: str, comma: bool, largest: float) -> float:
    text = (row[name] or "").strip()
    try:
        value = float(text.replace(",", ".") if comma else text)
    except ValueError as e:
        raise ValueError(f"{name} {text!r} is not a number") from e
    if not abs(value) <= largest:
        raise ValueError(f"{name} {text!r} is not within {-largest:g} and {largest:g}")
    return value


def of_run(run_dir: RunDir) -> Decisions:
    """The decisions that a run has been told, if any."""
    return tables.read_if_there(run_dir.decisions, Decisions)
