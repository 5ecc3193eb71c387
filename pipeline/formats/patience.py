"""Reading from a file system that stumbles: a stale handle or an I/O error may be gone a moment later."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from pipeline.errors import AWAY, BadData

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
PAUSES_S = (0.5, 2.0, 8.0)


def patient(function: Callable[P, T]) -> Callable[P, T]:
    """``function``, tried again after growing pauses where the file system is `AWAY`; the last error is raised."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for pause_s in PAUSES_S:
            try:
                return function(*args, **kwargs)
            except (OSError, BadData) as e:
                if not _passes(e):
                    raise
                log.warning("%s: tried again in %g s", e, pause_s)
            time.sleep(pause_s)
        return function(*args, **kwargs)

    return call


def _passes(error: BaseException) -> bool:
    cause = error.__cause__ if isinstance(error, BadData) else error
    return isinstance(cause, OSError) and cause.errno in AWAY
