"""The kernels as a shared library: compiled by the system's compiler for this very processor, once, into the cache.

A library is named by the SHA-256 of everything that it depends on: sources, options and the processor's abilities, and
the compiler with its version. So login and compute nodes may differ, and any number of ranks may build at once: each
publishes the same library under the same name. Where there is no compiler, what one made for this processor serves.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.rundir import publish

SOURCES = Path(__file__).parent
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=fast")
ALWAYS_FUSED = ("--param", "avoid-fma-max-bits=0")  # on some processors GCC fuses no product and sum of 256 bits
TIMEOUT_S = 300
COMPILERS = ("c++", "g++", "clang++")


def folder() -> Path:
    """Where libraries lie: ``$ORCOLAT_CACHE/native``, else the user's cache."""
    given = os.environ.get("ORCOLAT_CACHE")
    try:
        return (Path(given).expanduser().absolute() if given else Path.home() / ".cache" / "orcolat") / "native"
    except RuntimeError as e:
        raise ConfigError(f"no home folder for the compiled kernels: {e}; name a folder in $ORCOLAT_CACHE") from e


@cache
def library(*flags: str) -> ctypes.CDLL:
    """The loaded kernels; ``flags`` are added to `FLAGS`. Raises ConfigError with what the compiler said."""
    path = build(flags)
    require_own(path)
    require_own(path.parent)
    try:
        return ctypes.CDLL(str(path))
    except OSError as e:
        raise ConfigError(f"{path}: cannot be loaded: {e}; delete it, and it is compiled anew") from e


def require_own(path: Path) -> None:
    """Raises ConfigError if somebody else could have put what lies at ``path``: it would run as this user."""
    found = path.stat()
    if found.st_uid not in (os.getuid(), 0) or found.st_mode & 0o022:
        raise ConfigError(
            f"{path}: belongs to user {found.st_uid}, mode {found.st_mode & 0o777:o}: others could have written it; "
            "take a folder of your own (chmod 700), or name one in $ORCOLAT_CACHE"
        )


@cache
def available() -> str:
    """Empty if the kernels can be used here, else the reason why not."""
    try:
        library()
    except ConfigError as e:
        return str(e)
    return ""


def build(flags: tuple[str, ...] = ()) -> Path:
    """Path of the compiled kernels; compiles unless they are in the cache. Raises ConfigError."""
    options = [*FLAGS, *ALWAYS_FUSED, *_vectors(), *flags]
    sources = [path.name + path.read_text("utf-8") for path in sorted([*SOURCES.glob("*.h"), *SOURCES.glob("*.cpp")])]
    what = _digest(" ".join(options), _processor(), *sources)
    try:
        command = compiler()
    except ConfigError:
        built = sorted(folder().glob(f"{what}-*.so"))  # where there is a compiler, on a login node say
        if not built:
            raise
        return built[-1]
    path = folder() / f"{what}-{_digest(*command, _run([*command, '--version']))}.so"
    if not path.exists():
        command += options
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with publish(path) as part:
                _run([*command, str(SOURCES / "kernels.cpp"), "-o", str(part)])
                part.chmod(0o700)
        except OSError as e:
            raise ConfigError(f"{path}: cannot be written: {e}; name a folder in $ORCOLAT_CACHE") from e
    return path


def compiler() -> list[str]:
    """The command of the C++ compiler: $CXX, else the first that is found. Raises ConfigError if there is none."""
    command = shlex.split(os.environ.get("CXX", "")) or [name for name in COMPILERS if shutil.which(name)][:1]
    if not command or shutil.which(command[0]) is None:
        raise ConfigError(
            f"no C++ compiler: {command[0] if command else ', '.join(COMPILERS)} is not on the path; "
            "install one, load its module, or name it in $CXX"
        )
    return command


def _vectors() -> list[str]:
    """x86 compilers shun 512 bits unless told."""
    return ["-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _processor() -> str:
    """What this processor can do, as far as -march=native asks."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    told = ("flags", "features", "model name", "cpu family", "model", "cpu part", "cpu implementer")
    return "\n".join(line for line in lines if line.split(":")[0].strip().lower() in told)


def _run(command: list[str]) -> str:
    """Standard output of a command. Raises ConfigError with its complaint."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise ConfigError(f"{command[0]} cannot be run: {e}; name another compiler in $CXX") from e
    if done.returncode != 0:
        raise ConfigError(f"`{shlex.join(command)}` failed with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def aligned(size: int) -> NDArray[np.uint8]:
    """Zeroed memory of ``size`` bytes that starts at a multiple of 64."""
    memory = np.zeros(size + 64, np.uint8)
    first = -memory.ctypes.data % 64
    return memory[first : first + size]
