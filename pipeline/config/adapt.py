"""The section ``[adapt]``: labelled sets, what of a picker is trained on them, and how it is judged.

A PhaseNO is adapted as a picker of stations is; its sets have 100 Hz, times and coordinates (no npz), and what is said
of a crop of a record goes for the crop of a network, or for each of its stations.

It changes no catalogue, so it is not in the digest of a run; an adaptation has one of its own.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import InputPath, NotNegative, Positive, Probability, Section

Trained = Literal["head", "lora", "adapter", "norm-bias", "full"]
Share = Annotated[float, Field(ge=0, le=1)]


class LabelledSet(Section):
    """Records with analysts' picks, from one source, and how they are split."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$", description="in tables and messages")
    npz: InputPath | None = Field(None, description="records.npz of data, p_sample, s_sample")
    seisbench: InputPath | None = Field(None, description="folder of a SeisBench dataset")
    archive: bool = Field(False, description="picks of compare.reference_picks and the waveforms of [archive]")
    rate_hz: Positive = Field(100.0, description="of the records; others are resampled, those of an npz must have it")
    length_s: Positive = Field(150.0, description="of a record, more than a window of the picker")
    split: Literal["station", "event", "both"] = Field("station", description="what the parts must not share")
    folds: int = Field(5, ge=3, le=20, description="groups; each is the test once, the one before it the validation")
    margin_s: NotNegative = Field(60.0, description="records of two parts are farther apart in time than that")
    replay: bool = Field(
        False, description="of the base's own domain: only tested, is the adapter worse than its base?"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.npz is not None) + (self.seisbench is not None) + self.archive != 1:
            raise ValueError(f"the set {self.name!r} has one source: npz, seisbench, or archive = true")
        return self


class Augment(Section):
    """What happens to a crop in training, each with its probability; 0 switches it off.

    Of a network each station is changed for itself, and a component that is 0 is replaced, as in picking.
    """

    outside: Share = Field(0.05, description="the crop lies where no pick is")
    flip: Share = Field(0.5, description="polarity")
    scale: Share = Field(0.0, description="amplitude, by up to a decade either way")
    noise: Share = Field(0.3, description="noise is added, at noise_snr_db")
    drop: Share = Field(0.1, description="one or two components are 0")
    gap: Share = Field(0.0, description="a gap of at most a fifth")
    rotate: Share = Field(0.3, description="the horizontals turn")
    noise_snr_db: tuple[float, float] = (0.0, 20.0)


class Adapt(Section):
    """Adapters of [pick] weight, be it a picker of stations or of networks."""

    name: str = Field("", pattern=r"^([a-z0-9][a-z0-9_-]{0,59})?$", description="of the adapter: WEIGHT+NAME picks")
    sets: tuple[LabelledSet, ...] = Field((), description="each a table [[adapt.sets]]")
    methods: tuple[Trained, ...] = Field(("lora",), description="what is trained; the first is kept")
    baselines: tuple[str, ...] = Field(
        ("phasenet/original", "eqtransformer/original"), description="further weights in the tables, as they are"
    )
    stalta: bool = Field(True, description="STA/LTA with AIC in the tables, tuned on the validation records")
    feeding: bool = Field(
        True, description="the tuned baseline may be fed otherwise: rate, filter, norm; not a PhaseNO"
    )
    control: bool = Field(True, description="the first method once more, with labels of other records")
    seeds: tuple[int, ...] = Field((1, 2, 3, 4, 5), min_length=1)
    rank: int = Field(8, ge=1, description="of LoRA")
    alpha: Positive = Field(16.0, description="LoRA's change is multiplied with alpha / rank")
    bottleneck: int = Field(8, ge=1, description="width of an adapter's narrow layer")
    targets: tuple[str, ...] = Field((), description="patterns of names of layers; without them, see decision 027")
    learning_rate: Positive = 1e-4
    batch: int = Field(8, ge=1, description="records, or networks, of a step")
    epochs: int = Field(80, ge=1)
    patience: int = Field(15, ge=1, description="epochs without a smaller validation loss that end the training")
    weight_decay: NotNegative = 1e-5
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    clip: NotNegative = Field(0.0, description="norm of the gradients, at most; 0: any")
    amp: bool = Field(False, description="BF16 where the network allows it; a PhaseNO does not")
    crops: int = Field(1, ge=1, description="crops of each record, or network, in an epoch")
    half_width_s: Positive = Field(0.1, description="standard deviation of the label curves")
    label_shape: Literal["gaussian", "triangle"] = "gaussian"
    augment: Augment = Augment()
    tolerances_s: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.1, 0.5), min_length=1, description="of a pick that is right"
    )
    bootstrap_samples: int = Field(2000, ge=100)
    confidence: Probability = 0.95

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for what, values in (("methods", self.methods), ("seeds", self.seeds), ("sets", self.names)):
            if len(set(values)) != len(values):
                raise ValueError(f"{what} {list(values)}: one of them is there twice")
        n_replay = sum(one.replay for one in self.sets)
        if self.sets and n_replay == len(self.sets):
            raise ValueError("all sets are replay: none is left to adapt to")
        if n_replay > 1:
            raise ValueError(f"{n_replay} sets are replay: the report has room for one, so put them together")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.sets)

    @property
    def n_folds(self) -> int:
        """Of the set that has most; a replay set has none."""
        return max((one.folds for one in self.sets if not one.replay), default=0)

    @property
    def digest(self) -> str:
        """SHA-256 over all of it."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
