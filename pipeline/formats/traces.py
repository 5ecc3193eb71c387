"""The one place where ObsPy reads waveforms: traces and remarks, or BadData that names the file."""

from __future__ import annotations

import glob
import io
import warnings
from pathlib import Path

import obspy
from obspy.core.util.base import ENTRY_POINTS

from pipeline.errors import BadData

# To find out whether a file is a pickled stream, ObsPy unpickles it: a file in an archive could run anything.
ENTRY_POINTS["waveform"].pop("PICKLE", None)


def read(path: Path, raw: bytes = b"", **options: object) -> tuple[obspy.Stream, list[str]]:
    """Traces of ``path``, or of ``raw``, which is all or a part of it, and the warnings. Raises BadData."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            stream = obspy.read(io.BytesIO(raw) if raw else glob.escape(str(path)), **options)
        except MemoryError:
            raise
        except Exception as e:  # ObsPy's readers raise whatever they like, plain Exception included
            what = f"{type(e).__name__}: {str(e).strip()[:200]}"
            raise BadData(f"{path}: ObsPy cannot read it ({what}); repair or remove the file") from e
    return stream, list(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)))
