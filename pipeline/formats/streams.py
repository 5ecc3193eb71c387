"""Waveforms as ObsPy's streams, for those who want to see them as SeisBench does."""

from __future__ import annotations

import obspy

from pipeline.config import Archive
from pipeline.errors import NoData
from pipeline.formats import traces
from pipeline.formats.archive import files_for
from pipeline.maths.windows import segments
from pipeline.records import NS, Shard, Waveform

HAIR_NS = 10_000  # this little before midnight is midnight: the times of records are rounded


def of_waveform(wave: Waveform, shard: Shard) -> obspy.Stream:
    """One trace a component and contiguous segment, named after ``shard`` and Z N E."""
    network, station, location = shard.station.split(".")
    header = {"network": network, "station": station, "location": location, "sampling_rate": wave.rate_hz}
    stream = obspy.Stream()
    for start, stop in segments(wave.valid).tolist():
        at = obspy.UTCDateTime(ns=wave.start_ns + round(start * NS / wave.rate_hz))
        for row, component in zip(wave.samples, "ZNE", strict=True):
            stats = header | {"channel": shard.band + component, "starttime": at}
            stream.append(obspy.Trace(row[start:stop].copy(), stats))
    return stream


def of_archive(archive: Archive, shard: Shard, span_ns: tuple[int, int]) -> obspy.Stream:
    """The traces of ``shard`` as they lie in its files, within the half-open ``span_ns``.

    Raises NoData if there is none, and BadData for a file that ObsPy cannot read.
    """
    start, stop = (obspy.UTCDateTime(ns=t - HAIR_NS) for t in span_ns)
    network, station, location = shard.station.split(".")
    stream = obspy.Stream()
    for file in files_for(archive, shard, span_ns):
        stream += traces.read(file.path, starttime=start - 1, endtime=stop + 1)[0]
    stream = stream.select(network=network, station=station, location=location, channel=f"{shard.band}?")
    stream.trim(start, stop, nearest_sample=False)
    if not stream:
        raise NoData(f"no trace named {shard.channel} in its files")
    return stream
