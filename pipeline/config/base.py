"""What all sections share: kinds of values, paths, strictness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

Degrees = Annotated[float, Field(ge=-180, le=360)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
NotNegativeInt = Annotated[int, Field(ge=0)]


def resolve(value: Any, info: ValidationInfo) -> Any:
    base = (info.context or {}).get("base")
    return value if base is None or not isinstance(value, str) else Path(base, value).expanduser().resolve()


InputPath = Annotated[Path, BeforeValidator(resolve)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)
