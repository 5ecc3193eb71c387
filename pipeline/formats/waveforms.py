"""Reading one shard: three components of one station on one time axis at the picker's rate.

What is decided here, and why, is in docs/decisions/004-merging-and-resampling.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import numpy as np
import obspy

from pipeline.config import Archive
from pipeline.errors import BadData, NoData
from pipeline.formats import mseed, traces
from pipeline.formats.archive import DataFile, files_for
from pipeline.formats.patience import patient
from pipeline.maths import signals
from pipeline.maths.tracks import Axis, Findings, Piece, fill_row, window_axis
from pipeline.records import NS, Bool, Float32, Shard, Waveform

MARGIN_NS = 2 * NS  # read beyond the window, so that rounding and filters see no edge there
EDGE = 1 << 18  # bytes of a neighbouring day's file, a multiple of any record length; half an hour at 100 Hz
MAX_REMARKS = 5  # of ObsPy, a file
Channels = dict[str, list[Piece]]  # pieces by channel code


def read_shard(
    archive: Archive,
    shard: Shard,
    context_s: float,
    rate_hz: float,
    span_ns: tuple[int, int],
    threads: int = 1,
) -> tuple[Waveform, tuple[str, ...]]:
    """The waveform of ``shard`` at ``rate_hz``, and notes on what was left out or repaired.

    It covers the shard's day within the run's half-open ``span_ns``, with ``context_s`` on both sides
    from the same and the neighbouring days' files, trimmed to where data exist. A sample is valid where
    at least one component has data, the others being 0 (``archive.missing_components`` "zero"; "repeat": a
    lone one in place of the others), or where all three have ("skip"). The mean of each stretch between gaps
    is removed. Up to three ``threads`` clean a component each.

    Raises NoData ("no usable component", "too short") and BadData ("no file"; or file, value, remedy).
    """
    core = shard.within_ns(span_ns)
    window = core[0] - round(context_s * NS), core[1] + round(context_s * NS)
    files = files_for(archive, shard, window)
    if not any(shard.day in file.days for file in files):  # those of its neighbours tell nothing of it
        raise BadData(f"no file: the plan found some and none is left; is the archive mounted? ({archive.root})")
    channels, notes = _load(files, shard, window)
    if not channels:
        raise NoData("; ".join([f"no usable component: no data of {shard.channel} in the span", *notes]))
    axis = window_axis([p for pieces in channels.values() for p in pieces], rate_hz, window)
    samples, have, more = _assemble(channels, axis, archive.min_segment_s, threads)
    notes += more
    valid = have.all(axis=0) if archive.missing_components == "skip" else have.any(axis=0)
    stretches = signals.drop_short(valid, _samples(archive.min_segment_s, rate_hz))
    inside = slice(max(0, axis.index(core[0])), max(0, axis.index(core[1])))
    reason = _unusable(have, valid[inside], archive.missing_components == "skip")
    if reason:
        raise NoData("; ".join([reason, *notes]))
    for start, stop in signals.others(stretches, axis.n):
        samples[:, start:stop] = 0
    wave = _trimmed(samples, have, valid, axis, (int(stretches[0, 0]), int(stretches[-1, 1])))
    lost = [row for row, there in zip("ZNE", wave.components, strict=True) if not there]
    filled = signals.repeated(wave) if archive.missing_components == "repeat" else wave
    if lost:
        instead = "zeros" if filled is wave else "the other"
        notes.append(f"no usable data of component {' and '.join(lost)}: {instead} instead")
    return filled, tuple(notes)


def _samples(duration_s: float, rate_hz: float) -> int:
    return max(1, round(duration_s * rate_hz))


def _assemble(channels: Channels, axis: Axis, min_segment_s: float, threads: int) -> tuple[Float32, Bool, list[str]]:
    """Samples float32 (3, n), where each component has data, bool (3, n), and notes. A thread fills a row."""
    samples, have = np.empty((3, axis.n), np.float32), np.empty((3, axis.n), np.bool_)
    rows, notes = component_rows(sorted(channels))
    at_least = _samples(min_segment_s, axis.rate_hz)

    def fill(row: int) -> Findings:
        findings = Findings()
        pieces = {name: channels.pop(name) for name in rows[row]}  # a component's memory is free once it is laid
        if pieces:
            have[row] = fill_row(samples[row], axis, pieces, at_least, findings)
        else:
            samples[row], have[row] = 0, False
        return findings

    everything = Findings()
    with ThreadPoolExecutor(threads) as pool:
        for findings in pool.map(fill, range(3)):
            everything.found |= findings.found  # each is of other channels
    return samples, have, notes + everything.sentences()


def component_rows(codes: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Channel codes for each of the rows Z N E, the preferred first, and notes.

    Letters come before numbers: beside Z, 1 is N and 2 is E; where there is a 3, 2 is N, 3 is E and 1
    is Z. Others (U V W, R T) would have to be rotated and are left out.
    """
    by_letter = {code[2:]: code for code in codes}
    order = ("Z1", "N2", "E3") if "3" in by_letter else ("Z", "N1", "E2")
    rows = [[by_letter[letter] for letter in letters if letter in by_letter] for letters in order]
    unused = sorted(set(codes) - {code for row in rows for code in row})
    return rows, [f"{', '.join(unused)}: not one of Z N E, Z 1 2, Z 2 3 or 1 2 3: left out"] if unused else []


def _unusable(have: Bool, valid_inside: Bool, all_three: bool) -> str:
    """Why there is nothing to pick; "" if there is."""
    missing = [name for name, row in zip("ZNE", have, strict=True) if not row.any()]
    if len(missing) == 3:
        return "no usable component"
    if all_three and missing:
        return f'no usable component: {", ".join(missing)} missing, and archive.missing_components is "skip"'
    if not valid_inside.any():
        return "too short: no stretch of archive.min_segment_s inside the span"
    return ""


def _trimmed(samples: Float32, have: Bool, valid: Bool, axis: Axis, within: tuple[int, int]) -> Waveform:
    """What lies ``within`` first (inclusive) and stop (exclusive)."""
    first, stop = within
    z, n, e = (bool(row[first:stop].any()) for row in have)
    return Waveform(samples[:, first:stop], valid[first:stop], axis.time_ns(first), axis.rate_hz, (z, n, e))


def _load(files: Sequence[DataFile], shard: Shard, window: tuple[int, int]) -> tuple[Channels, list[str]]:
    """All pieces of ``shard`` in its files, and notes. Raises BadData."""
    channels: Channels = {}
    notes, strangers = list[str](), set[str]()
    for file in files:
        try:
            found, remarks = _read_file(file, shard.day, window)
        except BadData as e:
            if shard.day in file.days:
                raise
            found, remarks = [], [f"{e}; only context is lost"]
        notes += remarks
        for trace in found:
            fits = _belongs(trace, file, shard)
            if fits is None:
                strangers.add(f"{file.path} holds {trace.id}, not {shard.channel}")
            elif fits and len(trace.data):
                name = trace.stats.channel.strip() or file.codes["channel"]
                piece = Piece(trace.data, int(trace.stats.starttime.ns), float(trace.stats.sampling_rate))
                channels.setdefault(name, []).append(piece)
    if strangers and not channels:
        raise BadData(f"{'; '.join(sorted(strangers))}: move the file or correct its headers")
    return channels, notes + [f"{stranger}: left out" for stranger in sorted(strangers)]


def _belongs(trace: obspy.Trace, file: DataFile, shard: Shard) -> bool | None:
    """Is this a channel of the shard? None: no, and it should not be in this file.

    What a header leaves blank (SAC often does) the path may tell.
    """
    told, stats = file.codes, trace.stats
    network, station, location = shard.station.split(".")
    if stats.network.strip() not in ("", network) or stats.station.strip() not in ("", station):
        return None
    channel = stats.channel.strip() or told.get("channel", "")
    place = stats.location.strip("- ") or (location if "location" in told else "")
    if channel != told.get("channel", channel) or (file.band and channel[:2] != file.band):
        return None
    if "location" in told and place != location:
        return None
    return channel[:2] == shard.band and place == location


def _bytes(file: DataFile, day: date, window: tuple[int, int]) -> bytes:
    """Of a miniSEED file all or, of a neighbouring day's, the end that faces ``day`` if that holds all of the window.

    b"" for other formats, which are ObsPy's to find out, from the path. Raises BadData.
    """
    try:
        with file.path.open("rb", buffering=0) as f:
            if not mseed.is_data(f.read(mseed.HEADER_BYTES)):
                return b""
            edge = _edge(file, day, window)
            if edge:
                f.seek(edge[0])
                raw = f.read(EDGE)
                if mseed.covers(raw, edge[1], edge[2]):
                    return raw
            f.seek(0)
            return f.read()
    except OSError as e:
        raise BadData(f"{file.path}: cannot be read ({e}); look at its permissions and at the disk") from e


def _edge(file: DataFile, day: date, window: tuple[int, int]) -> tuple[int, int, int] | None:
    """Offset of that end of a neighbouring day's file, and from when to when it must have data; None for others."""
    start, stop = Shard(day, "", "").span_ns
    if file.size <= EDGE or not {"channel", "location"} <= file.codes.keys():
        return None  # small, or of several channels, which may follow one another
    if max(file.days) < day:
        return file.size - EDGE, min(window[0] - MARGIN_NS, start), start
    if min(file.days) > day:
        return 0, stop, max(window[1] + MARGIN_NS, stop)
    return None


@patient
def _read_file(file: DataFile, day: date, window: tuple[int, int]) -> tuple[list[obspy.Trace], list[str]]:
    """Traces of one file within the window around ``day``, and ObsPy's remarks. Raises BadData."""
    if file.size == 0:
        return [], [f"{file.path}: empty (0 bytes)"]
    start, stop = (obspy.UTCDateTime(ns=t) for t in (window[0] - MARGIN_NS, window[1] + MARGIN_NS))
    raw = _bytes(file, day, window)
    form = "MSEED" if raw else None
    stream, remarks = traces.read(file.path, raw=raw, format=form, starttime=start, endtime=stop)
    if remarks and not stream and not traces.read(file.path, headonly=True)[0]:
        raise BadData(f"{file.path}: nothing in it can be read ({remarks[0]}); repair or remove the file")
    if stream and stream[0].stats.get("_format") == "MSEED":
        raw = raw or file.path.read_bytes()
        offsets = mseed.cuts(raw, stream[0].stats.sampling_rate)
        if offsets:
            remarks.append(f"its clock drifts against its sampling rate; cut into {len(offsets) + 1} parts")
            pieces = (
                traces.read(file.path, raw=part, format=form, starttime=start, endtime=stop)[0]
                for part in mseed.parts(raw, offsets)
            )
            stream = [trace for piece in pieces for trace in piece]
    return list(stream), [f"{file.path}: {remark}" for remark in remarks[:MAX_REMARKS]]
