"""All sections together, and the digest."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime, timedelta
from typing import Self

from pydantic import model_validator

from pipeline.config.adapt import Adapt
from pipeline.config.base import Section
from pipeline.config.catalogue import Associate, Locate, Magnitude
from pipeline.config.gate import Gate
from pipeline.config.pick import Pick
from pipeline.config.quality import Quality
from pipeline.config.sections import Archive, Compare, Report, Run, StationList
from pipeline.config.site import Compute, Site, Slurm
from pipeline.errors import ConfigError

NOT_IN_DIGEST = frozenset({*Site.model_fields, "gate", "adapt"})


class Config(Section):
    run: Run
    archive: Archive = Archive()
    stations: StationList
    pick: Pick = Pick()
    associate: Associate
    locate: Locate = Locate()
    magnitude: Magnitude = Magnitude()
    quality: Quality = Quality()
    compare: Compare = Compare()
    report: Report = Report()
    gate: Gate = Gate()
    adapt: Adapt = Adapt()
    compute: Compute = Compute()
    slurm: Slurm = Slurm()

    @model_validator(mode="after")
    def _input(self) -> Self:
        if (self.archive.root is None) == (self.pick.source is None):
            raise ValueError("give either archive.root (waveforms) or pick.source (picks to import)")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 over everything that can change the catalogue."""
        data = self.model_dump(mode="json", exclude=set(NOT_IN_DIGEST))
        if not self.pick.also:  # the same digest as before there were several pickers
            del data["pick"]["also"], data["pick"]["ensemble"]
        if not self.pick.networks:  # the same digest as before there were pickers of networks
            del data["pick"]["networks"]
        if self.locate == Locate():  # the same digest as before events were located
            del data["locate"]
        if self.magnitude == Magnitude():  # the same digest as before there were magnitudes
            del data["magnitude"]
        if self.quality == Quality():  # the same digest as before events had a probability
            del data["quality"]
        del data["compare"]["floor"], data["report"]["record_sections"], data["report"]["record_stations"]  # only shown
        del data["pick"]["allow_unchecked_precision"]  # a leave, which changes no pick
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def of_day(self, day: date) -> Config:
        """The same for one UTC day alone."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        name = f"{self.run.name[:53]}-{day:%Y-%m-%d}"
        alone = {"name": name, "start": start, "end": start + timedelta(days=1)}
        return self.model_copy(update={"run": self.run.model_copy(update=alone)})

    @property
    def of_stations(self) -> Config | None:
        """The same with the pickers that pick station by station; None if there are none."""
        pick = self.pick.of_stations
        return self.model_copy(update={"pick": pick}) if pick else None

    def of_picker(self, weight: str) -> Config:
        """The configuration of one of several pickers alone. Raises ConfigError if there is none with ``weight``."""
        for picker in self.pick.pickers:
            if picker.weight == weight:
                return self.model_copy(update={"pick": picker})
        raise ConfigError(f"no picker has the weight {weight!r}: there are {', '.join(self.pick.weights)}")
