"""A reader process of `tests.bench_gpu`: miniSEED into shared memory. It imports no torch."""

from multiprocessing.shared_memory import SharedMemory

import numpy as np
import obspy


def write_day(path, samples, start_ns, rate_hz):
    """``samples`` (3, n) in rows Z N E as one miniSEED file of integers (Steim-2)."""
    stream = obspy.Stream()
    for component, row in zip("ZNE", samples, strict=True):
        header = {"network": "XX", "station": "A", "channel": f"HH{component}", "sampling_rate": rate_hz}
        header["starttime"] = obspy.UTCDateTime(ns=start_ns)
        stream.append(obspy.Trace(np.round(row).astype(np.int32), header))
    stream.write(str(path), format="MSEED", encoding="STEIM2")


def stream_of(samples, start_ns, rate_hz):
    """``samples`` (3, n) in rows Z N E as ObsPy has them."""
    header = {"network": "XX", "station": "A", "sampling_rate": rate_hz, "starttime": obspy.UTCDateTime(ns=start_ns)}
    rows = zip("ZNE", samples, strict=True)
    return obspy.Stream([obspy.Trace(row.copy(), header | {"channel": f"HH{component}"}) for component, row in rows])


def read_day(path, memory, n):
    """The file's three components as float32 (3, n) in the shared ``memory``; gives its name back."""
    block = SharedMemory(memory)
    view = np.ndarray((3, n), np.float32, block.buf)
    stream = obspy.read(str(path))
    for row, component in enumerate("ZNE"):
        view[row] = stream.select(component=component)[0].data
    del view
    block.close()
    return memory
