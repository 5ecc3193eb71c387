"""Functions compiled by Numba and kept on disk for the next run, until the code of any of them changes.

Numba compiles a function together with those that it calls, and keeps the result until the file of that one function
changes: after an update of another file the old machine code would go on. So the name under which a kernel is kept
says what was in all of the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from inspect import getfile
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

from pipeline.maths import amplitude, traveltime

F = TypeVar("F", bound=Callable[..., Any])


def digest(files: Iterable[Path]) -> str:
    """Of the names and the content of ``files``, in any order."""
    found = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        found.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:12]


CALLED = [Path(getfile(module)) for module in (amplitude, traveltime)]  # by kernels, beside each other
DIGEST = digest([*Path(__file__).parent.glob("*.py"), *CALLED])


def compiled(function: F) -> F:
    """As `numba.njit`."""
    function.__qualname__ += f"_{DIGEST}"  # a part of the name of the file in which Numba keeps it
    return cast(F, njit(cache=True)(function))
