"""One door to every format that located events can leave in and come back from. See docs/decisions/021."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import BadData, ConfigError, kept_in
from pipeline.formats import columns, export_names, hypo71, hypodd, hypoinverse, nordic
from pipeline.formats.export_names import Names
from pipeline.formats.located import Catalogue, require_whole
from pipeline.formats.nonlinloc_hyp import read_nonlinloc_hyp, write_nonlinloc_hyp
from pipeline.formats.nonlinloc_obs import read_nonlinloc_obs, write_nonlinloc_obs
from pipeline.formats.nordic import read_nordic, write_nordic
from pipeline.formats.quakeml_located import read_quakeml_located
from pipeline.formats.quakeml_write import write_quakeml
from pipeline.formats.scml import read_scml, write_scml
from pipeline.rundir import RunDir, publish


@dataclass(frozen=True, slots=True)
class Format:
    """How a catalogue is written and read. ``files`` are those of a format that is a folder.

    ``names`` says what is written for events and stations where the format cannot hold their names; it goes into a
    table beside the file, FILE.names.csv (a folder has its own).
    """

    what: str
    write: Callable[[Path, Catalogue], None]
    read: Callable[[Path], Catalogue]
    files: tuple[str, ...] = ()
    names: Callable[[Catalogue], Names] | None = None


FORMATS: dict[str, Format] = {
    "quakeml": Format("QuakeML 1.2", write_quakeml, read_quakeml_located),
    "scml": Format("SeisComP's SCML 0.12", write_scml, read_scml),
    "nordic": Format("SEISAN's Nordic, version 12", write_nordic, read_nordic, names=nordic.names),
    "nonlinloc-obs": Format("picks for NonLinLoc", write_nonlinloc_obs, read_nonlinloc_obs),
    "nonlinloc-hyp": Format("locations as of NonLinLoc", write_nonlinloc_hyp, read_nonlinloc_hyp),
    "hypo71": Format("phase cards of HYPO71", hypo71.write_hypo71, hypo71.read_hypo71, names=hypo71.names),
    "hypoinverse": Format(
        "HypoInverse 2000 archive", hypoinverse.write_hypoinverse, hypoinverse.read_hypoinverse, names=hypoinverse.names
    ),
    "hypodd": Format("a folder for hypoDD", hypodd.write_hypodd, hypodd.read_hypodd, hypodd.FILES),
    "csv": Format("a folder of CSV", columns.write_csv, columns.read_csv, tuple(f"{n}.csv" for n in columns.KINDS)),
    "parquet": Format(
        "a folder of Parquet", columns.write_parquet, columns.read_parquet, tuple(f"{n}.parquet" for n in columns.KINDS)
    ),
}


def export(name: str, catalogue: Catalogue, output: Path, force: bool = False) -> list[Path]:
    """Write ``catalogue`` to ``output``, whole or not at all; the files that are there now.

    Raises ConfigError if something is there and not ``force``, or if it is nothing that an export wrote.
    """
    form = FORMATS[name]
    require_whole(catalogue)
    require_room(name, output, force)
    if form.files:
        with publish_folder(output, form.files) as folder:
            form.write(folder, catalogue)
        return [output / file for file in form.files]
    names, beside = form.names(catalogue) if form.names else Names({}, {}), names_beside(output)
    needed = bool(names.events or names.stations)
    if needed:
        with publish(beside) as part:
            part.write_text(export_names.dumps(names), "utf-8")
    with publish(output) as part:
        form.write(part, catalogue)
    if form.names and not needed:
        beside.unlink(missing_ok=True)  # of an earlier export
    return [output, beside] if needed else [output]


def read(name: str, path: Path) -> Catalogue:
    """What an export wrote, its names brought back. Raises BadData."""
    found = FORMATS[name].read(path)
    beside = names_beside(path)
    if FORMATS[name].names and beside.exists():
        return export_names.restored(found, export_names.read(beside))
    return found


def names_beside(output: Path) -> Path:
    return output.with_name(f"{output.name}.names.csv")


def require_outside(run_dir: RunDir, output: Path) -> None:
    """Raises ConfigError if ``output``, its links and dots resolved, is the run directory, holds it, or lies in it.

    In a run there is room in its folder ``exports`` only.
    """
    root, target = run_dir.root.resolve(), output.resolve()
    inside = target.is_relative_to(root) and (root / "exports") not in target.parents
    if inside or root.is_relative_to(target):
        room = root / "exports" / (target.name if inside else "export")
        raise ConfigError(f"{output}: would be among the results of the run: take {room}, or a place outside")


def require_room(name: str, output: Path, force: bool) -> None:
    """Raises ConfigError if ``output`` is there and shall stay, or is no place for this format."""
    form = FORMATS[name]
    if not output.name or output.name == "..":
        raise ConfigError(
            f"{output}: no name of a file; write --output {output / ('export' if form.files else 'FILE')}"
        )
    beside = [names_beside(output)] if form.names else []
    there = [path for path in (output, *beside) if path.exists() or path.is_symlink()]
    if not there:
        return
    if not force:
        raise ConfigError(f"{there[0]}: is there already: take another --output, or --force to replace it")
    if form.files:
        require_replaceable(output, form.files)
    elif any(path.is_dir() for path in there):
        raise ConfigError(f"{there[0]}: is a folder, and {name} is a file: take another --output")


def require_replaceable(folder: Path, files: tuple[str, ...]) -> None:
    """Raises ConfigError unless ``folder`` holds nothing but ``files``: others are not ours to delete."""
    if folder.is_symlink() or not folder.is_dir():
        raise ConfigError(f"{folder}: is no folder: take another --output")
    strange = sorted({path.name for path in folder.iterdir()} - set(files))
    if strange:
        raise ConfigError(f"{folder}: holds {', '.join(strange[:3])}, which no export wrote: take another --output")


@contextmanager
def publish_folder(folder: Path, files: tuple[str, ...]) -> Iterator[Path]:
    """Yield a scratch folder; on clean exit it takes the place of ``folder``, whole.

    Raises BadData if one of ``files`` is not in it, Storage if the file system does not take it.
    """
    aside = uuid.uuid4().hex[:8]
    part, old = (folder.with_name(f".{folder.name}.{aside}.{end}") for end in ("part", "old"))
    try:
        with kept_in(folder):
            part.mkdir(parents=True)
            yield part
            lacking = [name for name in files if not (part / name).is_file()]
            if lacking:
                raise BadData(f"{folder}: {', '.join(lacking)} was not written")
            for name in files:
                with (part / name).open("rb") as file:
                    os.fsync(file.fileno())
            _replace(folder, part, old)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _replace(folder: Path, part: Path, old: Path) -> None:
    """``part`` becomes ``folder``; what was there goes to ``old`` and then away, or comes back if that fails."""
    if not folder.exists():
        part.rename(folder)
        return
    folder.rename(old)
    try:
        part.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
