"""What is read, and what is compared and reported: the sections of the first stages and of the last."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from pipeline.config.base import (
    InputPath,
    NotNegative,
    Positive,
    Probability,
    Section,
)


class Run(Section):
    """What period, under which name."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="short name, shown in the report")
    start: datetime = Field(description="first instant, UTC")
    end: datetime = Field(description="end of the period, exclusive, UTC")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of everything that draws random numbers")

    @field_validator("start", "end", mode="before")
    @classmethod
    def _is_a_date(cls, value: Any) -> Any:
        if isinstance(value, (int, float)):
            raise ValueError("write a date and time, 2024-03-20T00:00:00Z")
        return value

    @field_validator("start", "end")
    @classmethod
    def _utc(cls, value: datetime) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"end {self.end.isoformat()} is not after start {self.start.isoformat()}")
        return self

    @property
    def span_ns(self) -> tuple[int, int]:
        """Half-open [start, end), ns UTC."""
        return _ns(self.start), _ns(self.end)


def _ns(instant: datetime) -> int:
    return int(np.datetime64(instant.astimezone(UTC).replace(tzinfo=None), "ns").astype(np.int64))


class Archive(Section):
    """Where the waveforms lie, and which channels are taken."""

    root: InputPath | None = Field(None, description="folder of the archive; without it, picks are imported")
    layout: str = Field(
        "sds",
        description='"sds", or a path template with {year} {month} {day} {julday} {network} {station} {location}'
        " {band} {channel} and * as a wildcard",
    )
    bands: tuple[Annotated[str, Field(pattern=r"^[A-Z0-9]{2}$")], ...] = Field(
        ("HH", "EH", "BH", "CH", "DH", "SH", "HN", "EN", "HL"),
        min_length=1,
        description="band and instrument codes, the preferred first",
    )
    all_bands: bool = Field(False, description="pick every band of a station, not only the preferred one")
    missing_components: Literal["zero", "repeat", "skip"] = Field(
        "zero",
        description="a station with one or two components: feed zeros for the others, as SeisBench does; the same, but "
        "a lone component in place of the others; or skip it",
    )
    context_s: float = Field(60.0, ge=0, le=3600, description="data read on both sides of a shard")
    min_segment_s: NotNegative = Field(1.0, description="shorter pieces of data are treated as gap")

    @field_validator("layout")
    @classmethod
    def _fields(cls, layout: str) -> str:
        if layout == "sds":
            return layout
        known = {
            n: (1 if n in ("year", "month", "day", "julday") else "x")
            for n in ("year", "month", "day", "julday", "network", "station", "location", "band", "channel")
        }
        try:
            layout.format(**known)
        except (KeyError, ValueError, IndexError) as e:
            raise ValueError(f"template {layout!r}: {e}; known fields are {', '.join(known)}") from e
        if "{station}" not in layout or not ("{day" in layout or "{julday" in layout):
            raise ValueError(f"template {layout!r} needs {{station}} and a day ({{day}} or {{julday}})")
        if Path(layout).is_absolute() or ".." in Path(layout).parts:
            raise ValueError(f"template {layout!r} must be relative to the root, without '..'")
        return layout


class StationList(Section):
    """Where the coordinates come from, and which stations are used."""

    files: tuple[InputPath, ...] = Field(min_length=1, description="StationXML or CSV files")
    include: tuple[str, ...] = Field(("*",), description='patterns of "NET.STA" to use')
    exclude: tuple[str, ...] = Field((), description='patterns of "NET.STA" to leave out')


class Reference(Section):
    """One reference file. ``kind`` says what it is made of."""

    path: InputPath
    format: Literal[
        "ogs-dat", "ogs-hpc", "ogs-pun", "ogs-txt", "quakeml", "comcat", "orcolat",
        "nonlinloc-hyp", "nonlinloc-obs", "hypoinverse", "hypodd", "nordic", "scml",
    ]  # fmt: skip


class Floor(Section):
    """How far two analysts' solutions of the same events are apart, medians: nearer to one of them is no better."""

    name: str = Field(description="whose solutions, for the report")
    epicentre_km: Positive
    depth_km: Positive
    time_s: Positive


class Compare(Section):
    """The reference catalogue and the tolerances of the comparison."""

    reference_events: Reference | None = None
    reference_picks: Reference | None = None
    pick_tolerance_s: Positive = 0.5
    event_tolerance_s: Positive = 2.0
    event_tolerance_km: Positive = 8.0
    pick_weights: tuple[NotNegative, NotNegative, NotNegative] = Field(
        (0.97, 0.02, 0.01), description="time, phase, probability"
    )
    event_weights: tuple[NotNegative, NotNegative] = Field((0.99, 0.01), description="time, space")
    polygon: tuple[tuple[float, float], ...] | None = Field(
        None, description="(longitude, latitude) corners; only events inside are compared"
    )
    floor: Floor | None = Field(None, description="of agreement, shown in the report; it changes no score")
    magnitude_bin: Positive = 0.5
    bootstrap_samples: int = Field(1000, ge=10)
    confidence: Probability = 0.95

    @field_validator("pick_weights", "event_weights")
    @classmethod
    def _some(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        if not weights[0] > 0:
            raise ValueError("the weight of the time, the first, must be greater than 0")
        return weights

    @field_validator("polygon")
    @classmethod
    def _corners(cls, polygon: tuple[tuple[float, float], ...] | None) -> tuple[tuple[float, float], ...] | None:
        if polygon is not None and len(polygon) < 3:
            raise ValueError(f"a polygon has at least 3 corners [longitude, latitude], not {len(polygon)}")
        return polygon


class Report(Section):
    title: str = ""
    max_rows: int = Field(500, ge=1, description="rows of each list shown in the page; the files hold all")
    record_sections: int = Field(
        40, ge=0, le=200, description="events with records in the page: missed, new, moved and large ones in turn"
    )
    record_stations: int = Field(
        12, ge=1, le=50, description="records of each: of stations with picks, then the nearest"
    )
