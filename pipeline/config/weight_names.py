"""The name of a weight with an adapter: ``BASE+ADAPTER``, ``BASE+file:/path/to/adapter.safetensors``.

A base ``phaseno/NAME`` or ``phaseno:/path/to/checkpoint`` is a PhaseNO, which picks on whole networks of stations.
"""

from __future__ import annotations

import re

AND_FILE = "+file:"
IN_STORE, CHECKPOINT = "phaseno/", "phaseno:"


def split(name: str) -> tuple[str, str]:
    """The base and the adapter of a weight's name; the adapter is "" without one.

    The name of an adapter has no dot, so that the file ``file:/path/a+b.pt`` has none.
    """
    base, plus, path = name.partition(AND_FILE)
    if plus:
        return base, f"file:{path}"
    found = re.fullmatch(r"(.*)\+([A-Za-z0-9][A-Za-z0-9_-]*)", name)
    return (found[1], found[2]) if found else (name, "")


def of_network(name: str) -> bool:
    """Whether this weight, or its base, picks on a whole network at once, and not station by station."""
    return name.startswith((IN_STORE, CHECKPOINT))
