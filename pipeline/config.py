"""The configuration of a run: TOML in, frozen models, the filled-in TOML and its digest out.

Everything that can change the catalogue is in the digest. The section ``[compute]`` (device, threads,
tolerated failures) is not: it says how the work is done, and a run may be resumed with another.
Paths in a file are relative to that file.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipeline.errors import ConfigError

Degrees = Annotated[float, Field(ge=-180, le=360)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
NotNegativeInt = Annotated[int, Field(ge=0)]


def _resolve(value: Any, info: ValidationInfo) -> Any:
    base = (info.context or {}).get("base")
    return value if base is None or not isinstance(value, str) else Path(base, value).expanduser().resolve()


InputPath = Annotated[Path, BeforeValidator(_resolve)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


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
    return f"file:{_resolve(value.removeprefix('file:'), info)}"


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


class Reference(Section):
    """One reference file. ``kind`` says what it is made of."""

    path: InputPath
    format: Literal["ogs-dat", "ogs-hpc", "ogs-pun", "ogs-txt", "quakeml", "comcat", "orcolat"]


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


def _auto_or_number(value: Any) -> Any:
    """One message where a union would give one for each of its members; true is no number."""
    if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ValueError("'auto' or an integer >= 0")
    return value


def _workers(value: Any, info: ValidationInfo) -> Any:
    """A number of processes, the address of a scheduler, or the path of a scheduler file."""
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if type(number) not in (int, str) or number == "" or (isinstance(number, int) and not 0 <= number <= 1024):
        raise ValueError("a number of processes (0 to 1024), tcp://HOST:PORT of a scheduler, or a scheduler file")
    return number if str(number).startswith(("tcp://", "tls://")) else _resolve(number, info)


class Compute(Section):
    """How the work is done; not part of the digest."""

    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    threads: int = Field(1, ge=1, le=256, description="threads of each rank")
    engine: Literal["auto", "kernels", "seisbench"] = Field(
        "auto",
        description="our own kernels for the networks that they know, or SeisBench's code for all; auto: the kernels "
        "where they can be built",
    )
    max_failed: int = Field(100, ge=0, description="more failed shards than this stop the run")
    scorers: Annotated[Literal["auto"] | int, BeforeValidator(_auto_or_number)] = Field(
        "auto",
        description="ranks of a node that score for the others, which read: half of its ranks at most; auto: one a "
        "GPU, on CPUs none",
    )
    scratch: InputPath | None = Field(
        None,
        description="node-local folder through which waveforms go to the scorers; without it, $ORCOLAT_SCRATCH, "
        "$TMPDIR or /dev/shm",
    )
    answer_timeout_s: Positive = Field(600.0, description="a reader without an answer for this long ends the run")
    dask: Annotated[int | str | Path, BeforeValidator(_workers)] = Field(
        0,
        description="associate on Dask workers: so many processes of this machine, those of a scheduler "
        "(tcp://HOST:PORT), or of a scheduler file; 0: in this process, or on its MPI ranks",
    )


class Config(Section):
    run: Run
    archive: Archive = Archive()
    stations: StationList
    pick: Pick = Pick()
    associate: Associate
    compare: Compare = Compare()
    report: Report = Report()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _input(self) -> Self:
        if (self.archive.root is None) == (self.pick.source is None):
            raise ValueError("give either archive.root (waveforms) or pick.source (picks to import)")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 over everything that can change the catalogue."""
        data = self.model_dump(mode="json", exclude={"compute"})
        if not self.pick.also:  # the same digest as before there were several pickers
            del data["pick"]["also"], data["pick"]["ensemble"]
        del data["pick"]["allow_unchecked_precision"]  # a leave, which changes no pick
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def of_picker(self, weight: str) -> Config:
        """The configuration of one of several pickers alone. Raises ConfigError if there is none with ``weight``."""
        for picker in self.pick.pickers:
            if picker.weight == weight:
                return self.model_copy(update={"pick": picker})
        raise ConfigError(f"no picker has the weight {weight!r}: there are {', '.join(self.pick.weights)}")


def load(path: Path, overrides: list[str] | None = None) -> Config:
    """Read a TOML file; ``overrides`` are ``key.sub=value`` with TOML values (bare words are text).

    Raises ConfigError that names the file, each wrong key, its value and what is allowed.
    """
    try:
        data = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: cannot read the configuration: {e}") from e
    except tomllib.TOMLDecodeError as e:
        raise ConfigError(f"{path}: not valid TOML: {e}") from e
    for override in overrides or []:
        _apply(data, override)
    return parse(data, Path(path))


def parse(data: dict[str, Any], path: Path) -> Config:
    """Validate ``data`` as read from ``path``; relative paths start at its folder."""
    try:
        return Config.model_validate(data, context={"base": path.parent})
    except ValidationError as e:
        raise ConfigError(f"{path}: " + "; ".join(_explain(error) for error in e.errors())) from e


def _apply(data: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set {override!r}: write it as section.key=value")
    *sections, last = key.split(".")
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {override!r}: {section} is a value, not a section")
    try:
        data[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        data[last] = text


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key (value {error['input']!r}); known keys: {_known(error['loc'])}"
    if error["type"] == "missing":
        return f"{key}: missing, please give it"
    shown = "" if isinstance(error["input"], dict) else f" is {error['input']!r}"
    return f"{key}{shown}: {error['msg'].removeprefix('Value error, ')}{_bounds(error['loc'])}"


def _known(loc: tuple[Any, ...]) -> str:
    model = _model(loc[:-1])
    return ", ".join(model.model_fields) if model else "none"


def _bounds(loc: tuple[Any, ...]) -> str:
    """The limits of a number, if its key has any: " (allowed: > 0, < 1)"."""
    model = _model(loc[:-1])
    field = model.model_fields.get(loc[-1]) if model and loc else None
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    options = getattr(field.annotation, "__args__", ()) if field else ()  # of "float or none"
    inner = [
        m for option in options for known in getattr(option, "__metadata__", ()) for m in getattr(known, "metadata", ())
    ]
    limits = [
        f"{sign} {getattr(m, name)}"
        for m in (*(field.metadata if field else ()), *inner)
        for name, sign in signs.items()
        if getattr(m, name, None) is not None
    ]
    return f" (allowed: {', '.join(limits)})" if limits else ""


def _model(loc: tuple[Any, ...]) -> type[BaseModel] | None:
    """The section that a key's path leads to; None where it leads to something else."""
    model: Any = Config
    for part in loc:
        if isinstance(part, int):  # of a list of sections
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        options = [a for a in (annotation, *getattr(annotation, "__args__", ())) if hasattr(a, "model_fields")]
        if not options:
            return None
        model = options[0]
    found: type[BaseModel] = model
    return found


def dumps(config: Config) -> str:
    """The filled-in configuration as TOML; `load` gives it back."""
    lines: list[str] = []
    for name, section in config.model_dump(mode="json", exclude_none=True).items():
        lines += ["", *_table(f"[{name}]", {k: v for k, v in section.items() if not _tables(v)})]
        for key, value in section.items():
            head = f"[{name}.{key}]" if isinstance(value, dict) else f"[[{name}.{key}]]"
            lines += [line for table in _tables(value) for line in ("", *_table(head, table))]
    return "\n".join(lines).lstrip() + "\n"


def _tables(value: Any) -> list[dict[str, Any]]:
    """The sections that a value is, or is a list of; none if it is neither."""
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, dict)]


def _table(head: str, values: dict[str, Any]) -> list[str]:
    return [head, *(f"{key} = {_toml(value)}" for key, value in values.items())]


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
