"""How a shard or a run may end badly. Every message says what, where, the number, and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard


class OrcolatError(Exception):
    """Base of the errors that are answered with a message, not with a traceback."""


class ConfigError(OrcolatError):
    """The configuration or an input that the whole run depends on is wrong. Ends the run with exit code 2."""


class NoData(OrcolatError):
    """Nothing to work on: no file, no usable component, too short. A normal end of a shard (``empty``)."""


class BadData(OrcolatError):
    """Data exist and cannot be used: corrupt, contradictory. The shard ends ``failed``; the run goes on."""


class Incomplete(OrcolatError):
    """An earlier stage has not finished. Ends the run with exit code 3: run again."""


class Storage(Incomplete):
    """The file system does not take what is to be kept, or lost its hold: nobody's fault but its own. Exit code 3."""


# The server is away, or the client was evicted: it may be back in a moment.
AWAY = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        errno.EHOSTDOWN,
        errno.EREMOTEIO,
        errno.ENODEV,
        errno.ENXIO,
    }
)
STORAGE = AWAY | {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def is_storage(error: BaseException) -> TypeGuard[OSError]:
    """Whether a file system failed, and not whoever called it."""
    return isinstance(error, OSError) and error.errno in STORAGE


def storage(error: OSError, path: Path | None = None) -> Storage:
    """What ``error``, one of `STORAGE`, is to a run."""
    name = errno.errorcode[error.errno or 0]
    return Storage(
        f"{path or error.filename}: cannot be read or written: {error.strerror or error} (errno {error.errno}, "
        f"{name}): make room, mend its permissions, or wait until the file system is back, and run again; nothing that "
        "was published is lost"
    )


@contextmanager
def kept_in(path: Path) -> Iterator[None]:
    """Raises Storage where the file system of ``path`` is full, read-only, or away; other errors go on their way."""
    try:
        yield
    except OSError as e:
        if not is_storage(e):
            raise
        raise storage(e, path) from e
