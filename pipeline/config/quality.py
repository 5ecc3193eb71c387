"""How sure an event is: its probability, what it repeats, whether it may be a blast."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from pipeline.config.base import InputPath, Positive, Probability, Section


class Quality(Section):
    """Columns of the catalogue that say how sure an event is. Nothing is removed."""

    calibration: InputPath | None = Field(
        None, description="JSON as `python -m tests.calibrate_quality` writes it; without it, the one that comes along"
    )
    duplicate_s: Positive = Field(3.0, description="origin times of two events that may be one, at most so far apart")
    duplicate_km: Positive = Field(15.0, description="and their epicentres")
    duplicate_stations: Probability = Field(
        0.5, description="share of the stations of the event with fewer that both have, at least"
    )
    time_zone: str = Field("", description='of working hours, such as "Europe/Rome"; without it, the time of the sun')
    working_hours: tuple[float, float] = Field((7.0, 18.0), description="in which quarries blast, local time")
    working_days: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1, description="of the week, Monday is 0")
    quarry_km: Positive = Field(4.0, description="how far from each other two blasts of one quarry may be located")
    quarries: tuple[tuple[float, float], ...] = Field(
        (), description="latitude and longitude of known ones; a run of less than a week has blasts only there"
    )
    blast_score: Probability = Field(0.5, description='from which an event is called "quarry blast"')

    @field_validator("time_zone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            return value if not value else ZoneInfo(value).key
        except (KeyError, ValueError, OSError) as e:
            raise ValueError(f'no time zone is called {value!r} here: write one such as "Europe/Rome", or none') from e

    @field_validator("working_hours")
    @classmethod
    def _hours(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1] <= 24:
            raise ValueError(f"working_hours {value}: 0 <= from < to <= 24")
        return value

    @field_validator("working_days")
    @classmethod
    def _days(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not set(value) <= set(range(7)) or len(set(value)) != len(value):
            raise ValueError(f"working_days {value}: each of 0 (Monday) to 6 (Sunday) once at most")
        return value

    @field_validator("quarries")
    @classmethod
    def _places(cls, value: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        for place in value:
            if not (-90 <= place[0] <= 90 and -180 <= place[1] <= 360):
                raise ValueError(f"quarries {place}: write latitude and longitude in degrees, [46.05, 13.65]")
        return value
