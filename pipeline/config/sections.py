"""The sections that can change a catalogue, one for each stage."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from pipeline.config.base import (
    Degrees,
    InputPath,
    NotNegative,
    NotNegativeInt,
    Positive,
    Probability,
    Section,
    resolve,
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
    missing_components: Literal["zero", "skip"] = Field(
        "zero", description="a station with one or two components: feed zeros for the others, or skip it"
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


def _weight(value: Any, info: ValidationInfo) -> Any:
    """A ``file:`` path starts at the configuration, as every path."""
    if isinstance(value, str) and not value.strip():
        raise ValueError("name the weights, as `orcolat weights list` shows them")
    if not isinstance(value, str) or not value.startswith("file:"):
        return value
    return f"file:{resolve(value.removeprefix('file:'), info)}"


Weight = Annotated[str, BeforeValidator(_weight)]


class Windows(Section):
    """A picker's weights, and how its windows lie and are put together; what is not given is the model's own."""

    weight: Weight = Field("phasenet/original", description="name of the weights; `orcolat weights list` shows them")
    overlap_samples: int | None = Field(None, ge=0, description="overlap of windows; without it, the model's own")
    blinding_samples: tuple[NotNegativeInt, NotNegativeInt] | None = Field(
        None, description="without it, the model's own"
    )
    stacking: Literal["avg", "max"] | None = Field(
        None, description="how overlapping windows are blended; without it, the model's own"
    )

    @property
    def slug(self) -> str:
        """The weight as a name of a folder: "phasenet-original"."""
        return self.weight.replace("/", "-").replace(":", "-")


class Also(Windows):
    """A further picker on the same waveforms."""

    weight: Weight = Field(description="name of the weights; `orcolat weights list` shows them")
    threshold_p: Probability | None = Field(None, description="without it, that of [pick]")
    threshold_s: Probability | None = Field(None, description="without it, that of [pick]")


def _each_a_table(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(one, dict | Also) for one in value):
        raise ValueError("write each further picker as a table [[pick.also]]")
    return value


class Pick(Windows):
    """How probabilities become picks."""

    source: InputPath | None = Field(None, description="import picks from this file instead of picking waveforms")
    threshold_p: Probability = 0.3
    threshold_s: Probability = 0.3
    precision: Literal["fp32", "bf16", "fp16", "screened"] = Field(
        "fp32", description="arithmetic of the network; screened: all in 16 bits, and again in FP32 what may be a pick"
    )
    allow_unchecked_precision: bool = Field(
        False, description="run in a precision that `orcolat parity` has not passed with this weight on this device"
    )
    min_separation_s: NotNegative = Field(
        0.0, description="of two picks of one phase closer than this the better stays"
    )
    save_probabilities: bool = Field(False, description="keep the probability traces as compressed NPZ")
    ensemble: Literal["mean", "max"] | None = Field(
        None, description="make one trace of all pickers' probabilities; without it, each has picks of its own"
    )
    also: Annotated[tuple[Also, ...], BeforeValidator(_each_a_table)] = Field(
        (), description="further pickers in the same pass, each a table [[pick.also]]"
    )

    @model_validator(mode="after")
    def _pickers(self) -> Self:
        everyone: tuple[Windows, ...] = (self, *self.also)
        slugs = [picker.slug for picker in everyone]
        twice = sorted({slug for slug in slugs if slugs.count(slug) > 1})
        if twice:
            raise ValueError(f"two pickers have the weight {', '.join(twice)}: give each another, or leave one out")
        if self.ensemble and not self.also:
            raise ValueError(f"ensemble = {self.ensemble!r} of one picker: name the others in [[pick.also]]")
        if self.ensemble and any(a.threshold_p or a.threshold_s for a in self.also):
            raise ValueError("an ensemble takes the thresholds of [pick]: leave those of [[pick.also]] out")
        return self

    @property
    def weights(self) -> tuple[str, ...]:
        """The weights of all pickers, the main one's first; none where picks are imported."""
        return () if self.source else tuple(picker.weight for picker in self.pickers)

    @property
    def pickers(self) -> tuple[Pick, ...]:
        """Each picker as if it were the only one, the main one first."""
        return tuple(self._alone(picker) for picker in (self, *self.also))

    def _alone(self, picker: Windows) -> Pick:
        own = {name: getattr(picker, name) for name in Also.model_fields}
        own |= {name: own[name] or getattr(self, name) for name in ("threshold_p", "threshold_s")}
        return self.model_copy(update={**own, "ensemble": None, "also": ()})


class Associate(Section):
    """GaMMA (Zhu et al. 2022, doi 10.1029/2021JB023249) on a local stereographic plane."""

    associator: Literal["gamma", "gmma", "pyocto"] = Field(
        "gamma", description="our own GaMMA, the package GMMA, or PyOcto"
    )
    center_latitude_deg: float = Field(ge=-90, le=90)
    center_longitude_deg: Degrees
    x_km: tuple[float, float] = Field(description="east, relative to the centre")
    y_km: tuple[float, float] = Field(description="north, relative to the centre")
    z_km: tuple[float, float] = (0.0, 40.0)
    vp_km_s: Positive = Field(6.0, description="P velocity; with a velocity_model only the scale of the clustering")
    vs_km_s: Positive = Field(3.43, description="S velocity, as vp_km_s")
    velocity_model: InputPath | None = Field(
        None,
        description="1-D model, .nd (TauP) or .csv with depth_km, vp_km_s, vs_km_s; without it, vp_km_s and vs_km_s",
    )
    velocity_between: Literal["gradient", "layers"] = Field(
        "gradient", description="between two depths of the model: linear, or the upper value (layers of HYPO71)"
    )
    station_elevation: bool = Field(True, description="false: all stations at sea level, as HYPO71 has them")
    dbscan_eps_s: Positive = 10.0
    dbscan_min_samples: int = Field(3, ge=1)
    dbscan_min_cluster_size: int = Field(500, ge=1)
    dbscan_max_time_space_ratio: Positive = 10.0
    oversample_factor: Positive = 5.0
    min_picks: int = Field(5, ge=1)
    min_p_picks: int = Field(3, ge=0)
    min_s_picks: int = Field(2, ge=0)
    min_stations: int = Field(3, ge=1)
    min_pairs: int = Field(0, ge=0, description="stations with a P and an S pick")
    min_evidence: float = Field(
        14.0, description="logarithm of how much likelier an event is than a coincidence of picks, at least"
    )
    sigma_s: Positive = Field(0.35, description="expected standard deviation of the residuals of a near station")
    depth_km: float | None = Field(None, description="depth where nothing is known; without it, the middle of z_km")
    depth_sigma_km: Positive | None = Field(
        None, description="how far a depth is from that; without it, a quarter of z_km, and 10 at least"
    )
    max_gap_deg: float = Field(360.0, gt=0, le=360, description="largest azimuthal gap of an event; 360: any")
    max_rms_s: Positive | None = Field(
        None, description="largest root mean square of an event's travel-time residuals; without it, any"
    )
    max_sigma11_s: Positive = Field(1.5, description="largest travel-time residual of a pick of an event")
    use_amplitude: bool = Field(
        True, description="amplitudes take part where picks have them, in m/s; false: and give no magnitudes"
    )
    max_sigma22: Positive = Field(1.0, description="a log10 amplitude that is off by more is wrong: it counts no more")

    @field_validator("x_km", "y_km", "z_km")
    @classmethod
    def _range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[1] <= value[0]:
            raise ValueError(f"the range {value} is empty")
        return value


class Magnitude(Section):
    """Amplitudes in the pick pass, and the local magnitude ML from them."""

    amplitudes: bool = Field(True, description="measure amplitudes of picks where an instrument response is known")
    responses: tuple[InputPath, ...] = Field(
        (), description="StationXML with instrument responses; without it, the files of [stations]"
    )
    pre_filter_hz: tuple[Positive, Positive, Positive, Positive] = Field(
        (0.2, 0.5, 35.0, 45.0), description="the band in which a response is removed: 0, 1 ... 1, 0, a cosine between"
    )
    water_level_db: Positive = Field(60.0, description="a response is taken as at most that much below its maximum")
    window_s: Positive = Field(10.0, le=60, description="after an S pick, in which the largest amplitude counts")
    snr: NotNegative = Field(3.0, description="of that amplitude over the largest one before the P wave, at least")
    horizontals: Literal["mean", "max"] = Field(
        "mean", description="the geometric mean of both horizontals, which is the mean of their ML, or the larger one"
    )
    clip_counts: Positive = Field(
        0.8 * 2**23, description="a record that reaches this is taken as clipped (0.8 of 24 bits), and has no amplitude"
    )
    scale: Literal["hutton-boore", "richter", "ogs", "table"] = "hutton-boore"
    table: InputPath | None = Field(None, description="of -log10 A0: .csv with distance_km, minus_log_a0")
    station_corrections: InputPath | None = Field(None, description=".csv with station (NET.STA), correction")
    estimate_corrections: bool = Field(False, description="station corrections from the run's own residuals")
    min_stations: int = Field(2, ge=1, description="with a usable amplitude, for a magnitude of an event")
    min_km: NotNegative | None = Field(None, description="nearest station that counts; without it, the scale's own")
    max_km: Positive | None = Field(None, description="farthest station that counts; without it, the scale's own")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.pre_filter_hz) != sorted(set(self.pre_filter_hz)):
            raise ValueError(f"pre_filter_hz {self.pre_filter_hz}: each frequency must be above the one before it")
        if (self.scale == "table") != (self.table is not None):
            raise ValueError('scale = "table" and table = "FILE.csv" belong together')
        return self


class Locate(Section):
    """Where events are, from the picks that `associate` gave them; what is not given is that of [associate]."""

    velocity_model: InputPath | None = Field(None, description="without it, the velocity of [associate]")
    velocity_between: Literal["gradient", "layers"] | None = Field(None, description="as in [associate]")
    station_elevation: bool | None = Field(None, description="as in [associate]")
    z_km: tuple[float, float] | None = Field(None, description="depths that are possible; without it, of [associate]")
    depth_km: float | None = Field(None, description="where the picks cannot tell the depth; as in [associate]")
    station_terms: bool = Field(True, description="estimate what each station adds to the model, and apply it")
    station_terms_file: InputPath | None = Field(
        None,
        description="apply these terms and estimate none: station_terms.parquet of another run with the same velocity "
        "model, such as a campaign for its nights, or .csv with station (NET.STA), phase, term_s",
    )
    term_sigma_s: Positive = Field(
        0.06, description="expected standard deviation of station terms: what keeps all places from moving together"
    )
    max_rounds: int = Field(6, ge=1, description="of station terms and locations in turn")
    outliers: Probability = Field(0.1, description="expected share of picks that have nothing to do with their event")
    reach_s: Positive = Field(3.0, description="how far such a pick lies from its prediction, at most")
    model_error: float = Field(0.018, ge=0, lt=1, description="of predicted travel times, as a share of them")
    near_km: Positive = Field(50.0, description="how far the nearest station with a pick is expected to be")

    def over(self, associate: Associate) -> Associate:
        """``associate`` with what is given here in its place."""
        names = ("velocity_model", "velocity_between", "station_elevation", "z_km", "depth_km")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return associate.model_copy(update=given)

    @field_validator("z_km")
    @classmethod
    def _range(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[1] <= value[0]:
            raise ValueError(f"the range {value} is empty")
        return value

    @model_validator(mode="after")
    def _terms(self) -> Self:
        if self.station_terms_file is not None and not self.station_terms:
            raise ValueError(f"station_terms = false, but there is a station_terms_file ({self.station_terms_file})")
        return self


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
