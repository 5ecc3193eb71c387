"""The section ``[gate]``: when a night is good enough. It changes no result, so it is not in the digest."""

from __future__ import annotations

from pydantic import Field

from pipeline.config.base import InputPath, NotNegative, Positive, Probability, Section

Share = Probability | None


class Gate(Section):
    """Limits of a run's scores: absolute ones, of which none is set at first, and against the last nights."""

    min_recall: Share = Field(None, description="of events; without it, any")
    min_precision: Share = Field(None, description="of events, with what analysts decided on new ones; without it, any")
    min_recall_p: Share = Field(None, description="of P picks; without it, any")
    min_recall_s: Share = Field(None, description="of S picks; without it, any")
    min_precision_p: Share = Field(None, description="of P picks; without it, any")
    min_precision_s: Share = Field(None, description="of S picks; without it, any")
    max_epicentre_km: Positive | None = Field(None, description="median distance to the reference; without it, any")
    max_depth_km: Positive | None = Field(None, description="median difference of depth; without it, any")
    max_time_s: Positive | None = Field(None, description="median difference of origin time; without it, any")
    max_residual_p_s: Positive | None = Field(None, description="median difference of P picks; without it, any")
    max_residual_s_s: Positive | None = Field(None, description="median difference of S picks; without it, any")
    min_coverage: Share = Field(None, description="share of the planned hours with data; without it, any")
    nights: int = Field(14, ge=0, description="the median of so many nights before is the measure; 0: none")
    min_nights: int = Field(5, ge=1, description="fewer nights before are no measure")
    recent_nights: int = Field(10, ge=1, description="so many nights, with this one, are judged together, too; 1: none")
    max_fall: Positive | None = Field(0.15, description="of a rate below that median; without it, any")
    max_growth: NotNegative | None = Field(
        1.0, description="of a median difference above that median, as a share of it; without it, any"
    )
    confidence: Probability = Field(
        0.99, description="a check fails if the whole interval of this confidence is on the wrong side of its limit"
    )
    history: InputPath | None = Field(None, description="database of nights; without it, history.sqlite beside the run")
    own_days: int = Field(60, ge=1, description="a station is compared with so many days of its own before")
