"""Told to stop: by the scheduler before the time limit (SIGUSR1), by a preemption (SIGTERM), by hand (SIGINT).

A signal only leaves a note; whoever works looks at it between two shards. A second SIGINT ends at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
TIME_IS_UP = "SIGUSR1"
COMING_BACK = (TIME_IS_UP, "SIGTERM")  # Slurm starts a preempted job again only if it does not end by itself before
_asked: list[str] = []
_notes: list[int] = []  # the reading end of a pipe, while this process listens
_interrupts: list[int] = []


@contextmanager
def listening() -> Iterator[None]:
    """Take the signals as a wish to stop while inside.

    Nothing changes within another `listening`, or in a thread that is not the main one.
    """
    if _notes or threading.current_thread() is not threading.main_thread():
        if not _notes:
            _asked.clear()
        yield
        return
    _asked.clear()
    _interrupts.clear()
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    # Python calls a handler only between two instructions of the main thread, which may be long in a read that hangs;
    # the byte in the pipe is there at once, for any thread to see.
    other = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _note) for number in SIGNALS}
    _notes.append(reading)
    try:
        yield
    finally:
        asked()
        _notes.clear()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(other)
        os.close(reading)
        os.close(writing)


def _note(number: int, _: FrameType | None) -> None:
    """No lock and no log: it runs between any two instructions of the main thread."""
    if number == signal.SIGINT:
        _interrupts.append(number)
        if len(_interrupts) > 1 or asked() not in ("", "SIGINT"):
            raise KeyboardInterrupt


def ask(name: str) -> None:
    """Ask this process to stop, as the signal ``name`` would."""
    _asked.append(name)


def asked() -> str:
    """The signal that asked first since `listening` began; "" if none did."""
    with suppress(OSError, IndexError):  # nothing new, or not listening
        _asked.extend(signal.Signals(byte).name for byte in os.read(_notes[0], 64) if byte in SIGNALS)
    return _asked[0] if _asked else ""
