"""Kernels of the locator, compiled by Numba and kept on disk until the code of any of them changes."""

from __future__ import annotations

from collections.abc import Callable
from inspect import getfile
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

from pipeline.maths import traveltime
from pipeline.models.associators.kernels.compiled import digest

F = TypeVar("F", bound=Callable[..., Any])
FILES = [*Path(__file__).parent.glob("*.py"), Path(getfile(traveltime))]
DIGEST = digest(FILES)


def compiled(function: F) -> F:
    """As `numba.njit`; see `pipeline.models.associators.kernels.compiled` for the name."""
    function.__qualname__ += f"_{DIGEST}"
    return cast(F, njit(cache=True, error_model="numpy")(function))
