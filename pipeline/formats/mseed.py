"""The clock of miniSEED records.

ObsPy joins records that follow each other within half a sample, and keeps the time of the first only. A
digitiser whose true rate is 99.99 Hz where its headers say 100 Hz is 8.6 s off at the end of a day,
though every record carries its right time. Here such a file is found, and told where to cut it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.records import DAY_NS, NS, Int

DRIFT = 0.25  # samples
HEADER = [  # SEED 2.4 manual, chapter 8: fixed section of the data header, 48 bytes
    ("sequence", "S6"),
    ("quality", "S1"),
    ("reserved", "S1"),
    ("channel", "S12"),
    ("year", ">u2"),
    ("day", ">u2"),
    ("hour", "u1"),
    ("minute", "u1"),
    ("second", "u1"),
    ("unused", "u1"),
    ("fraction", ">u2"),
    ("samples", ">u2"),
    ("others", "S16"),
]
HEADER_BYTES = 48


def is_data(raw: bytes) -> bool:
    """Does ``raw`` begin with a data record? ObsPy then reads it as miniSEED, whatever its name."""
    return raw[:6].isdigit() and raw[6:7] in (b"D", b"R", b"Q", b"M")


def covers(raw: bytes, first_ns: int, stop_ns: int) -> bool:
    """Are these records of one channel that follow each other without a gap from ``first_ns`` to ``stop_ns``?

    False where it cannot be told. Other records of the file can then only repeat or contradict what is here.
    """
    records = _records(raw)[1]
    records = records[records["samples"] > 0]
    if len(records) < 2 or (records["channel"] != records["channel"][0]).any():
        return False
    start_ns, count = _start_ns(records), records["samples"].astype(np.float64)
    steps_ns = np.diff(start_ns)
    delta_ns = float(np.median(steps_ns / count[:-1]))
    joined = bool((np.abs(steps_ns - count[:-1] * delta_ns) < 0.5 * delta_ns).all())
    stop = int(start_ns[-1]) + count[-1] * delta_ns
    return joined and int(start_ns[0]) < first_ns + delta_ns and stop > stop_ns - delta_ns


def cuts(raw: bytes, rate_hz: float) -> list[int]:
    """Byte offsets at which to cut a miniSEED file so that no part's clock drifts by more than `DRIFT`.

    Empty if the clock is good, and for a file whose records have not all one length and byte order.
    """
    length, records = _records(raw)
    start_ns = _start_ns(records)
    found: set[int] = set()
    for channel in np.unique(records["channel"]):
        index = np.flatnonzero((records["channel"] == channel) & (records["samples"] > 0))
        counted = np.concatenate([[0], np.cumsum(records["samples"][index], dtype=np.int64)[:-1]])
        error = (start_ns[index] - start_ns[index][0]) * (rate_hz / NS) - counted  # samples
        joined = np.concatenate([[False], np.abs(np.diff(error)) < 0.5])
        found |= set((index[_resets(error, joined)] * length).tolist())
    return sorted(found)


def _resets(error: NDArray[np.float64], joined: NDArray[np.bool_]) -> Int:
    """Where a running clock is `DRIFT` away from that of the part's first record."""
    resets, reference = [], error[0] if len(error) else 0.0
    for k in np.flatnonzero(~joined | (np.abs(error - error[0]) > DRIFT)).tolist() if len(error) else []:
        if not joined[k]:
            reference = error[k]
        elif abs(error[k] - reference) > DRIFT:
            reference = error[k]
            resets.append(k)
    return np.array(resets, np.int64)


def _records(raw: bytes) -> tuple[int, NDArray[Any]]:
    """Record length in bytes and the headers of all records; no header if they are not all of one kind."""
    for order in (">", "<"):
        header = np.dtype(HEADER).newbyteorder(order)
        at = _blockette_1000(raw, f"{order}u2")
        if at == 0 or not 7 <= raw[at + 6] <= 20:
            continue
        length = 1 << raw[at + 6]
        blocks = np.frombuffer(raw, np.uint8)[: len(raw) // length * length].reshape(-1, length)
        where = [at, at + 1, at + 6]  # blockette number and record length
        if len(blocks) and at + 7 <= length and (blocks[:, where] == blocks[0, where]).all():
            records: NDArray[Any] = np.ascontiguousarray(blocks[:, : header.itemsize]).view(header)[:, 0]
            return length, records
    return 0, np.empty(0, HEADER)


def _blockette_1000(raw: bytes, u2: str) -> int:
    """Offset of blockette 1000 (record length) in the first record; 0 if there is none in this byte order."""
    at = 46  # where the offset of the first blockette stands
    while at + 2 <= min(len(raw), 4096):
        following = int(np.frombuffer(raw, u2, 1, at)[0])
        if following <= at or following + 8 > len(raw):
            return 0
        if np.frombuffer(raw, u2, 1, following)[0] == 1000:
            return following
        at = following + 2
    return 0


def _start_ns(records: NDArray[Any]) -> Int:
    years = (records["year"].astype(np.int64) - 1970).astype("datetime64[Y]").astype("datetime64[D]")
    days = years.astype(np.int64) + records["day"].astype(np.int64) - 1
    seconds = records["hour"].astype(np.int64) * 3600 + records["minute"].astype(np.int64) * 60 + records["second"]
    return np.asarray(days * DAY_NS + seconds * NS + records["fraction"].astype(np.int64) * 100_000, np.int64)


def parts(raw: bytes, offsets: list[int]) -> list[bytes]:
    """``raw`` cut at ``offsets``."""
    return [raw[a:b] for a, b in pairwise([0, *offsets, len(raw)])]
