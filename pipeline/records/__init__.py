"""The nouns of the pipeline: frozen, columnar, validated once, at birth. NumPy only.

Times are int64 nanoseconds since 1970-01-01 UTC. A name carries its unit. ``(n,)`` is length n.
"""

from pipeline.records.catalogue import (
    Assignments,
    Decisions,
    Events,
    LocatedArrivals,
    Origins,
    StationHealth,
    StationTerms,
)
from pipeline.records.compared import Arrivals, ComparedEvents, ComparedPicks, Missed
from pipeline.records.labelled import Labelled, RecordPicks
from pipeline.records.network import NetworkRecord
from pipeline.records.table import DAY_NS, HOUR_NS, NAN, NS, Bool, Float, Float32, Int, Table, Text, column
from pipeline.records.waveforms import ForeignPicks, Picks, Runs, Scores, Stations, Waveform
from pipeline.records.work import Outcome, Outcomes, Shard, Shards

__all__ = [
    "DAY_NS",
    "HOUR_NS",
    "NAN",
    "NS",
    "Arrivals",
    "Assignments",
    "Bool",
    "ComparedEvents",
    "ComparedPicks",
    "Decisions",
    "Events",
    "Float",
    "Float32",
    "ForeignPicks",
    "Int",
    "Labelled",
    "LocatedArrivals",
    "Missed",
    "NetworkRecord",
    "Origins",
    "Outcome",
    "Outcomes",
    "Picks",
    "RecordPicks",
    "Runs",
    "Scores",
    "Shard",
    "Shards",
    "StationHealth",
    "StationTerms",
    "Stations",
    "Table",
    "Text",
    "Waveform",
    "column",
]
