"""The fences: arrows go down only, and each giant library lives in one room."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "pipeline"
BASE = {"config", "records", "errors"}
LOWER = BASE | {"rundir", "adaptdir", "logs", "meter"}
MAY_IMPORT = {  # room -> rooms of the project that it may import
    "records": set(),
    "errors": set(),
    "config": {"errors"},
    "logs": set(),
    "rundir": BASE,
    "adaptdir": BASE | {"rundir"},
    "meter": BASE | {"maths", "rundir"},
    "maths": {"records", "errors"},
    "formats": BASE | {"maths", "logs", "rundir"},
    "models": BASE | {"maths", "logs", "rundir"},
    "cluster": BASE | {"logs"},
    "stages": LOWER | {"maths", "formats", "models", "cluster", "plots", "page"},
    "plots": LOWER | {"maths"},
    "page": LOWER | {"maths", "plots"},
    "cli": LOWER | {"commands", "cluster"},
    "commands": LOWER | {"stages", "cluster", "models"},
    "__main__": {"cli"},
    "__init__": set(),
}
FENCED = {
    "mpi4py": {"cluster/world.py"},
    "dask": {"cluster/dask.py"},
    "distributed": {"cluster/dask.py", "cluster/dask_each.py"},
    "dask_jobqueue": {"cluster/dask_slurm.py"},
    "torch": {"models"},
    "seisbench": {"models"},
    "safetensors": {"models"},
    "h5py": {"formats/labelled_cache.py", "formats/labelled_seisbench.py", "models/conversion.py"},
    "obspy": {"formats"},
    "gamma": {"models/associators"},
    "sklearn": {"models/associators"},
    "pyocto": {"models/associators/pyocto.py"},
    "fteikpy": {"models/eikonal.py"},
    "pyarrow": {"formats/tables.py"},
    "matplotlib": {"plots"},
    "pickle": set(),
}
FILES = sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [
                f"{node.module}.{a.name}" if node.module in ("pipeline", "pipeline.stages") else str(node.module)
                for a in node.names
            ]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_stay_inside_the_fences(path):
    here = path.relative_to(ROOT)
    room = here.parts[0].removesuffix(".py")
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "pipeline":
            target = rest.split(".")[0]
            inside = target == room != "stages"
            mine = f"stages.{here.stem.split('_')[0]}_"  # a stage of several files
            inside |= room == "stages" and rest.startswith(mine)
            assert inside or target in MAY_IMPORT[room], f"{here} may not import {name}"
        if top in FENCED:
            assert {str(here), str(here.parent), room} & FENCED[top], f"{top} is fenced off from {here}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_bare_except_and_no_print(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}:{node.lineno} bare except"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "eval", "exec"), f"{path}:{node.lineno} {node.func.id}"
