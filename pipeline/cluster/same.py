"""Whether two machines run the same: versions of Python and libraries, and the checksum of our own code."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

from pipeline.errors import ConfigError

SOURCES = (".py", ".cpp", ".h")  # the kernels, which every worker builds for itself, make the scores
COMPARED = (
    "numpy", "scipy", "numba", "scikit-learn", "GMMA", "pyocto", "distributed", "torch", "seisbench", "obspy",
)  # fmt: skip


def require_equal(address: str, theirs: dict[str, str], ours: dict[str, str]) -> None:
    """Raises ConfigError that names what differs: other code or libraries may find other earthquakes, or none."""
    if theirs != ours:
        listed = [f"{name} {theirs.get(name)} (here {ours[name]})" for name in ours if theirs.get(name) != ours[name]]
        raise ConfigError(
            f"the Dask worker {address} has {', '.join(listed)}: install the same there (env/requirements.lock), and "
            "start it again"
        )


@cache
def about() -> dict[str, str]:
    """What decides the results here: the versions of Python and of libraries, and the checksum of our own code."""
    versions = {name: _version(name) for name in COMPARED}
    return {"python": platform.python_version(), "the code of orcolat": _checksum(), **versions}


def _checksum(root: Path = Path(__file__).parents[1]) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.suffix in SOURCES):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
