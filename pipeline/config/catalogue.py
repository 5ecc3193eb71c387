"""The sections that make events of picks: ``[associate]``, ``[locate]`` and ``[magnitude]``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import Degrees, InputPath, NotNegative, Positive, Probability, Section


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

    @property
    def usual_depth_km(self) -> float:
        """Where earthquakes are of which nothing is known."""
        return self.depth_km if self.depth_km is not None else sum(self.z_km) / 2

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
