"""Kernels that are kept on disk: one is compiled again when a file of those that it calls has changed."""

import importlib
import sys
from pathlib import Path

import pytest

from pipeline.models.associators.kernels import compiled, search
from pipeline.models.locators import compiled as locators

INNER = "from {home} import {name}\n\n\n@{name}{how}\ndef one():\n    return {value}\n"
OUTER = "from {home} import {name}\nfrom inner_ import one\n\n\n@{name}{how}\ndef outer():\n    return 10 * one()\n"
OURS = {"home": compiled.__name__, "name": "compiled", "how": ""}
NUMBAS = {"home": "numba", "name": "njit", "how": "(cache=True)"}


@pytest.mark.parametrize(("kept", "after"), [(OURS, 20), (NUMBAS, 10)])
def test_a_change_of_another_file_is_seen(tmp_path, monkeypatch, kept, after):
    """Numba alone goes on with what it compiled when `one` was another."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("numba.config.CACHE_DIR", "")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python's own cache knows a file by its second and size
    files = [tmp_path / "inner_.py", tmp_path / "outer_.py"]
    files[1].write_text(OUTER.format(**kept))
    for value, expected in ((1, 10), (2, after)):
        files[0].write_text(INNER.format(value=value, **kept))
        monkeypatch.setattr(compiled, "DIGEST", compiled.digest(files))
        for path in files:
            monkeypatch.delitem(sys.modules, path.stem, raising=False)
        importlib.invalidate_caches()
        assert importlib.import_module("outer_").outer() == expected


def test_the_digest_is_that_of_the_files_in_any_order(tmp_path):
    files = [tmp_path / name for name in ("a.py", "b.py")]
    for path in files:
        path.write_text("x = 1\n")
    first = compiled.digest(files)
    assert compiled.digest(files[::-1]) == first
    files[1].write_text("x = 2\n")
    assert compiled.digest(files) != first


def test_all_files_with_kernels_count(monkeypatch):
    """Also those of other folders whose functions ours call."""
    root = Path(compiled.__file__).parents[3]
    counted = {*Path(compiled.__file__).parent.glob("*.py"), *compiled.CALLED}
    counted |= set(locators.FILES)  # which are kept under a name of their own
    with_kernels = {
        path for path in root.rglob("*.py") if "njit" in path.read_text() or "@compiled" in path.read_text()
    }
    assert with_kernels <= counted
    assert len(with_kernels) > 8
    assert compiled.DIGEST in search.search.__qualname__
