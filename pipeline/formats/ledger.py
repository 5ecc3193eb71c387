"""The plan of a run and how its shards ended, as arrays: what `status` and `audit` count, a million shards at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from pipeline.formats import results, tables
from pipeline.formats.tries import Note
from pipeline.maths import coverage
from pipeline.maths.coverage import ENDS, FAILED, SET_ASIDE, Ended, Labels, Plan, Standing
from pipeline.maths.days import day_numbers, day_text
from pipeline.records import Float, Int
from pipeline.rundir import RunDir, require

REASON_CHARACTERS = 300  # of a reason that is counted: the files hold it all
SHARD = re.compile(r"\b\d{4}-\d\d-\d\d/[\w.-]+: ")
FILE = re.compile(r"(?<!\S)/\S*/[^\s:;,]+")
CHANNEL = re.compile(r"\b[\w-]{1,8}\.[\w-]{1,8}\.[\w-]{0,8}\.[A-Z0-9]{2,3}\b")


def plan(run_dir: RunDir) -> Plan:
    """The shards of the plan, in its order. Raises Incomplete if there is none yet."""
    parts: dict[str, tables.Part] = {name: (name, 0, None) for name in ("day", "station", "band")}
    found, _ = tables.labels([require(run_dir.shards, "plan")], parts)
    return Plan(_joined(found["station"], found["band"]), _days(found["day"]))


def ended(run_dir: RunDir, planned: Plan, notes: Sequence[Note], max_tries: int) -> Ended:
    """Every result of the run and, of planned shards without one, the ``notes`` that they failed.

    Raises Incomplete if others fold all the time.
    """
    found = results.steady(run_dir, lambda volumes: _look(run_dir, volumes)[0])
    return _with_notes(found, planned, notes, max_tries)


def counted(run_dir: RunDir, planned: Plan, notes: Sequence[Note], max_tries: int) -> tuple[Ended, list[str]]:
    """As `ended`, and a breach if the very files that were looked at hold another number of picks than they report."""

    def look(volumes: Collection[str]) -> tuple[Ended, int]:
        found, files = _look(run_dir, volumes)
        return found, sum(tables.n_rows(path) for path in files)

    found, held = results.steady(run_dir, look)
    told = int(found.n_picks.sum())
    lost = [f"the shards report {told:,} picks, the files hold {held:,}"] if told != held else []
    return _with_notes(found, planned, notes, max_tries), lost


def failed(planned: Plan, how: Standing, notes: Sequence[Note]) -> list[Note]:
    """Those of the ``notes`` that stand: a kill can leave one of a shard that has a result, or is planned no more."""
    rows = coverage.rows_named(planned, [note.shard for note in notes])
    return [
        note for note, row in zip(notes, rows.tolist(), strict=True) if row >= 0 and how.end[row] in (FAILED, SET_ASIDE)
    ]


def _with_notes(found: Ended, planned: Plan, notes: Sequence[Note], max_tries: int) -> Ended:
    done = np.zeros(len(planned) + 1, np.bool_)
    done[coverage.rows_of(planned, found.channel, found.day)] = True
    done[-1] = True  # what is not planned
    rows = coverage.rows_named(planned, [note.shard for note in notes])
    left = [note for note, row in zip(notes, rows.tolist(), strict=True) if not done[row]]
    ends = [ENDS[SET_ASIDE if note.is_aside(max_tries) else FAILED] for note in left]
    return _both(found, _of([(note.shard, end, note.reason, 0.0, 0) for note, end in zip(left, ends, strict=True)]))


def _look(run_dir: RunDir, volumes: Collection[str]) -> tuple[Ended, list[Path]]:
    """The results of the folded ``volumes`` and of the parts of all others, and the files that hold their picks."""
    found = _read([run_dir.folder("outcomes") / f"{day}.parquet" for day in sorted(volumes)])
    over = set(map(day_text, np.unique(found.day).tolist()))
    parts = sorted(p for p in run_dir.folder("parts").glob("*/[!.]*.parquet") if p.parent.name not in over)
    picks = sorted(p for p in run_dir.folder("picks").glob("[!.]*.parquet") if p.stem in volumes)
    return _both(found, _of([_told(path) for path in parts])), picks + parts


def _told(part: Path) -> tuple[str, str, str, float, int]:
    """The shard of a part, its end, reason, share with data and number of picks."""
    found = results.outcome(part)
    return found.shard, found.end, found.reason, found.valid_fraction, found.n_picks


def _read(files: list[Path]) -> Ended:
    parts: dict[str, tables.Part] = {
        "channel": ("shard", 11, None),
        "day": ("shard", 0, 10),
        "end": ("end", 0, None),
        "reason": ("reason", 0, REASON_CHARACTERS),
    }
    found, numbers = tables.labels(files, parts, ["valid_fraction", "n_picks"])
    return _ended(list(found.values()), numbers["valid_fraction"], numbers["n_picks"])


def _ended(labels: list[Labels], fraction: Float, n_picks: Int) -> Ended:
    """From labels of channel, day, end and reason."""
    channel, day, end, reason = labels
    index = np.array([ENDS.index(name) for name in end.names] or [0], np.int8)
    numbers = fraction.astype(np.float32), n_picks.astype(np.int64)
    return Ended(channel, _days(day), index[end.code], _without_names(reason), *numbers)


def _without_names(reason: Labels) -> Labels:
    """Reasons without the names of shards, channels and files: what is the same is counted as the same."""
    names = [SHARD.sub("", name) for name in reason.names] or [""]
    short = Labels.of([CHANNEL.sub("its channel", FILE.sub("a file", name)) for name in names])
    return Labels(short.code[reason.code], short.names)


def _of(rows: Sequence[tuple[str, str, str, float, int]]) -> Ended:
    """From shard, end, reason, share with data and number of picks of some thousand."""
    names, ends, reasons, fraction, n_picks = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    short = [reason[:REASON_CHARACTERS] for reason in reasons]
    columns = ([name[11:] for name in names], [name[:10] for name in names], ends, short)
    return _ended([Labels.of(values) for values in columns], np.array(fraction, float), np.array(n_picks, np.int64))


def _both(a: Ended, b: Ended) -> Ended:
    return Ended(
        _chained(a.channel, b.channel),
        np.concatenate([a.day, b.day]),
        np.concatenate([a.end, b.end]),
        _chained(a.reason, b.reason),
        np.concatenate([a.fraction, b.fraction]),
        np.concatenate([a.n_picks, b.n_picks]),
    )


def _chained(a: Labels, b: Labels) -> Labels:
    """The rows of both."""
    index = {name: i for i, name in enumerate(a.names)}
    code = np.array([index.setdefault(name, len(index)) for name in b.names] or [0], np.int32)
    return Labels(np.concatenate([a.code, code[b.code]]), tuple(index))


def _joined(station: Labels, band: Labels) -> Labels:
    """ "NET.STA.LOC.BAND" of both."""
    key = station.code.astype(np.int64) * max(1, len(band.names)) + band.code
    values, code = np.unique(key, return_inverse=True)
    pairs = (divmod(value, max(1, len(band.names))) for value in values.tolist())
    return Labels(code.ravel().astype(np.int32), tuple(f"{station.names[s]}.{band.names[b]}" for s, b in pairs))


def _days(text: Labels) -> Int:
    """Days since 1970 of "YYYY-MM-DD"."""
    return day_numbers(text.names)[text.code] if len(text) else np.empty(0, np.int64)
