"""The section ``[pick]``: pickers of stations and of networks."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

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
from pipeline.config.weight_names import CHECKPOINT, of_network, split


def _weight(value: Any, info: ValidationInfo) -> Any:
    """A ``file:`` or ``phaseno:`` path starts at the configuration, as every path; that of an adapter, too."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        raise ValueError("name the weights, as `orcolat weights list` shows them")
    return "+".join(_with_path(part, info) for part in split(value) if part)


def _with_path(name: str, info: ValidationInfo) -> str:
    kind = next((kind for kind in ("file:", CHECKPOINT) if name.startswith(kind)), "")
    return f"{kind}{resolve(name.removeprefix(kind), info)}" if kind else name


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


class Network(Section):
    """Stations that a picker of networks (PhaseNO) sees together, and the square of 2 x 2 degrees they lie in.

    Its middle is given, not found: a station keeps its place there, and its picks their names, when another comes.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,16}$", description="short name, part of the names of its shards")
    stations: tuple[str, ...] = Field(("*",), min_length=1, description='patterns of "NET.STA" that belong to it')
    center_latitude_deg: float = Field(ge=-90, le=90)
    center_longitude_deg: Degrees
    range_km: Positive | Literal["all pairs"] = Field(
        30.0, description='how far stations hear one another, counted with 111 km a degree; or "all pairs"'
    )

    @property
    def center_deg(self) -> tuple[float, float]:
        """Latitude and longitude."""
        return self.center_latitude_deg, self.center_longitude_deg

    @property
    def reach_km(self) -> float | None:
        """``range_km``; None: all pairs."""
        return None if self.range_km == "all pairs" else self.range_km


def _each_a_network(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(one, dict | Network) for one in value):
        raise ValueError("write each network as a table [[pick.networks]]")
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
    networks: Annotated[tuple[Network, ...], BeforeValidator(_each_a_network)] = Field(
        (), description="of a picker of networks (phaseno), each a table [[pick.networks]]"
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

    @model_validator(mode="after")
    def _of_networks(self) -> Self:
        found = [weight for weight in (self.weight, *(a.weight for a in self.also)) if of_network(weight)]
        names = [network.name for network in self.networks]
        if names and not found and not self.source:
            raise ValueError(f"networks {', '.join(names)} are of a picker phaseno/NAME, and there is none: add one")
        if found and not names:
            raise ValueError(f"{found[0]} picks on networks: say which, each a table [[pick.networks]]")
        if len(set(names)) < len(names):
            raise ValueError(f"two networks have one name: {', '.join(names)}")
        if found and self.ensemble:
            raise ValueError(f"{found[0]} picks on networks, and cannot be part of an ensemble: leave that out")
        if of_network(self.weight) and len(found) <= len(self.also):
            raise ValueError(f"{self.weight} picks on networks: beside pickers of stations, name it in [[pick.also]]")
        return self

    @property
    def weights(self) -> tuple[str, ...]:
        """The weights of all pickers, the main one's first; none where picks are imported."""
        return () if self.source else tuple(picker.weight for picker in self.pickers)

    @property
    def pickers(self) -> tuple[Pick, ...]:
        """Each picker as if it were the only one, the main one first."""
        return tuple(self._alone(picker) for picker in (self, *self.also))

    @property
    def of_networks(self) -> tuple[Pick, ...]:
        """Those of the `pickers` that pick on networks."""
        return tuple(picker for picker in self.pickers if of_network(picker.weight))

    @property
    def of_stations(self) -> Pick | None:
        """The same with the pickers that pick station by station; None if there are none."""
        also = tuple(picker for picker in self.also if not of_network(picker.weight))
        return None if of_network(self.weight) else self.model_copy(update={"also": also, "networks": ()})

    def _alone(self, picker: Windows) -> Pick:
        own = {name: getattr(picker, name) for name in Also.model_fields}
        own |= {name: own[name] or getattr(self, name) for name in ("threshold_p", "threshold_s")}
        # PhaseNO has FP32 alone, and its probabilities are not kept.
        kind = {"precision": "fp32", "save_probabilities": False} if of_network(picker.weight) else {"networks": ()}
        return self.model_copy(update={**own, **kind, "ensemble": None, "also": ()})
