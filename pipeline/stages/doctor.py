"""Stage `doctor`: is this machine fit for a run? Every rank looks at its node, the first one at the rest.

Nothing is changed but for files that are made and removed again in the folders that a run would write to, and the
kernels, which are compiled as the first run would compile them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline import config as configs
from pipeline.cluster import filesystem, gpus, machine, roles, scratch, slurm
from pipeline.cluster.roles import Role
from pipeline.cluster.world import World, library
from pipeline.config import Compute, Config
from pipeline.errors import ConfigError, OrcolatError
from pipeline.maths import checkup
from pipeline.maths.checkup import Finding, Seat, of_error
from pipeline.models import weights
from pipeline.models.native import build

# What brings torch, ObsPy or Numba along is imported where it is used: that it cannot be is a finding.

MESSAGE_BYTES = 1 << 20  # more than fits in the buffers that short messages take
APART = (
    "ranks in containers of their own cannot reach into each other's memory: let those of a node share one (ch-run "
    "--join), or set MPIR_CVAR_NOLOCAL=1 and UCX_TLS=tcp,self"
)
ERRORS = (OrcolatError, OSError, ImportError, RuntimeError, ValueError)
Findings = list[Finding]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line names."""

    config: Path | None = None
    overrides: tuple[str, ...] = ()
    site: Path | None = None
    run_dir: Path | None = None


def run(asked: Asked, world: World) -> Findings:
    """The findings of all ranks, the same list on each. Every rank must call it."""
    _exchange(world)
    config, of_config = _config(asked)
    compute = config.compute if config else Compute()
    everyone = roles.take(world, compute)
    own = [*of_config, *(_node(compute, everyone, world) if world.rank == world.node[0] else [])]
    gathered, seats = world.gather(own), world.gather(_seat(everyone[world.rank], world))
    shared = _run_dir(asked.run_dir, world)
    found: Findings = []
    if world.rank == 0 and gathered and seats:
        found = [
            checkup.launch(world.size, machine.launcher(), _library(), len({seat.host for seat in seats})),
            checkup.sharing(seats),
            *checkup.ranks(seats),
            checkup.processors(seats, compute.threads),
            checkup.devices(seats, compute.device),
            *checkup.merged([finding for findings in gathered for finding in findings]),
            *_inputs(config),
            *shared,
            *_tried("Slurm", lambda: _slurm(config)),
        ]
    return world.bcast(found)


def verdict(findings: Sequence[Finding], as_json: bool) -> tuple[bool, str]:
    """Whether nothing failed, and the findings as lines or as JSON."""
    return checkup.healthy(findings), checkup.as_json(findings) if as_json else checkup.text(findings)


def _exchange(world: World) -> None:
    """Raises ConfigError if long messages do not come through: MPI breaks there, and no other check would end."""
    try:
        world.gather(world.bcast(bytes(MESSAGE_BYTES)))
    except RuntimeError as e:
        failed = of_error("MPI", e, remedy=APART)
        raise ConfigError(f"{failed.name}: a message of {MESSAGE_BYTES} bytes fails: {failed.value}; {APART}") from e


def _tried(name: str, check: Callable[[], Finding | Iterable[Finding]], remedy: str = "") -> Findings:
    """What ``check`` finds; an error of it is a finding, too, with ``remedy`` if it names none itself."""
    try:
        found = check()
    except ERRORS as e:
        return [of_error(name, e, remedy=remedy)]
    return [found] if isinstance(found, Finding) else list(found)


def _here(findings: Findings) -> Findings:
    """The same as findings of this host."""
    host = machine.host()
    return [Finding(f.name, f.state, f.value, f.remedy, host) for f in findings]


def _config(asked: Asked) -> tuple[Config | None, Findings]:
    if asked.config is None:
        return None, []
    try:
        config = configs.load(asked.config, list(asked.overrides), asked.site)
    except ConfigError as e:
        return None, _here([of_error("config", e, remedy="correct it: nothing that needs it was looked at")])
    return config, _here([Finding("config", "ok", f"{asked.config}: valid, digest {config.digest[:12]}")])


def _library() -> str:
    try:
        return library()
    except (ImportError, RuntimeError, OSError):
        return ""


def _seat(role: Role, world: World) -> Seat:
    return Seat(world.rank, machine.host(), world.node, machine.cores(), gpus.visible(), _says(role))


def _says(role: Role) -> str:
    if role.clients:
        return f"scores on {role.device} for rank(s) {checkup.spans(role.clients)}"
    return f"reads for rank {role.server}" if role.server is not None else f"reads and scores on {role.device}"


def _node(compute: Compute, everyone: Sequence[Role], world: World) -> Findings:
    """What is the same for all ranks of this node."""
    n, readers = len(world.node), sum(everyone[rank].server is not None for rank in world.node)
    checks: dict[str, Callable[[], Finding | Iterable[Finding]]] = {
        "versions": _versions,
        "torch": lambda: _torch(compute),
        "kernels": lambda: _kernels(compute),
        "caches": _caches,
        "memory": lambda: checkup.memory(*machine.memory_limit(), n),
        "/dev/shm": lambda: _shared_memory(n),
        "open files": lambda: checkup.open_files(*machine.open_files()),
        "scratch": lambda: _scratch(compute, readers),
    }
    return _here([finding for name, check in checks.items() for finding in _tried(name, check)])


def _versions() -> Finding:
    from pipeline.cluster.same import about

    return Finding("versions", "ok", ", ".join(f"{name} {version}" for name, version in about().items()))


def _torch(compute: Compute) -> Finding:
    from pipeline.models import hardware

    version = hardware.torch_version()
    if not compute.device.startswith("cuda"):
        return Finding("torch", "ok", f"{version}; compute.device = {compute.device!r}")
    return Finding("torch", "ok", f"{version}; {', '.join(hardware.gpus())}")


def _kernels(compute: Compute) -> Finding:
    """Compiles them, unless they are in the cache."""
    reason = build.available()
    if not reason:
        return Finding("kernels", "ok", f"compiled for this processor, in {build.folder()}")
    on_cpu = compute.device == "cpu" and compute.engine != "seisbench"
    state: checkup.State = "FAIL" if on_cpu and compute.engine == "kernels" else "warn" if on_cpu else "ok"
    if state == "ok":
        return Finding("kernels", "ok", "not needed, and not available")
    return of_error("kernels", ConfigError(reason), state, "without them picking takes several times as long")


def _caches() -> Finding:
    """Numba wants a folder for what it compiles, or the associator cannot be imported."""
    try:
        from pipeline.maths import traveltime  # noqa: F401
    except RuntimeError as e:
        return of_error("caches", e, remedy="name a folder of your own in $NUMBA_CACHE_DIR, or make $HOME writable")
    return Finding("caches", "ok", f"kernels in {build.folder()}, Numba's in {_numba_folder()}")


def _numba_folder() -> str:
    return os.environ.get("NUMBA_CACHE_DIR") or "__pycache__ of the package, or the user's cache"


def _shared_memory(n_ranks: int) -> Finding:
    folder = scratch.SHARED_MEMORY
    usable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    free = shutil.disk_usage(folder).free if usable else None
    return checkup.shared_memory(free, len(machine.left_behind(folder)) if usable else 0, n_ranks)


def _scratch(compute: Compute, readers: int) -> Finding:
    folder = scratch.folder(compute, readers)
    room = filesystem.room(folder)
    found = checkup.scratch(f"{folder} ({room.kind})", room.free_bytes, readers * scratch.ROOM_BYTES)
    if found.state == "ok":
        filesystem.take(folder, scratch.ROOM_BYTES if readers else 1 << 20)
    return found


def _inputs(config: Config | None) -> Findings:
    """What the configuration names; without one all weights that are in the store."""
    if config is None:
        return _tried("weights", _store)
    try:
        from pipeline.formats import inputs
    except ImportError as e:
        return [of_error("libraries", e, remedy="install what env/requirements.lock names")]
    checks: dict[str, tuple[str, Callable[[], Finding | Iterable[Finding]]]] = {
        "stations": ("stations.files", lambda: inputs.stations(config.stations)),
        "archive": ("[archive]", lambda: inputs.archive(config)),
        "picks": ("pick.source", lambda: inputs.picks(config.pick.source)),
        "velocity": ("associate.velocity_model", lambda: inputs.velocity(config.associate)),
        "reference": ("[compare]", lambda: inputs.references(config.compare)),
    }
    tried = (_tried(name, check, f"look at {where}") for name, (where, check) in checks.items())
    return [*_weights(config.pick.weights), *(finding for findings in tried for finding in findings)]


def _store() -> Findings:
    names = [row.name for row in weights.available() if row.state != "not fetched"]
    remedy = "orcolat weights fetch phasenet/original, where there is internet"
    return _weights(names) or [Finding("weights", "warn", f"{weights.store()}: none", remedy)]


def _weights(names: Iterable[str]) -> Findings:
    return [finding for name in names for finding in _tried("weights", partial(_weight, name))]


def _weight(name: str) -> Finding:
    return Finding("weights", "ok", f"{name}: sha256 {weights.verify(name)[:12]} as published")


def _run_dir(run_dir: Path | None, world: World) -> Findings:
    """Tries where the run directory is or will be, in a folder of its own, which all ranks must see."""
    parent = filesystem.existing(run_dir or Path.cwd())
    folder, found = world.bcast(_begin(parent) if world.rank == 0 else (None, Findings()))
    if folder is None:
        return found
    try:
        won = world.gather(_wins(folder))
        skews = world.gather(_skew(folder) if world.rank == world.node[0] else None)
    finally:
        if world.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
    if won and skews:
        found = [*found, checkup.exclusive(won), checkup.clock([skew for skew in skews if skew], str(parent))]
    return found


def _begin(parent: Path) -> tuple[Path | None, Findings]:
    """A folder to try things in, None if there can be none, and what one process alone can find out."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=parent))
    except OSError as e:
        remedy = "take a --run-dir that you may write to; is it mounted for writing?"
        return None, [of_error("run: files", e, remedy=remedy)]
    room = _tried("run: space", lambda: _room(parent))
    return folder, [*room, *_tried("run: files", lambda: checkup.fsync(filesystem.publish_s(folder)))]


def _room(folder: Path) -> Finding:
    found = filesystem.room(folder)
    return checkup.room(f"{folder} ({found.kind})", found.free_bytes, found.free_files)


def _wins(folder: Path) -> bool | None:
    """Whether this rank made the file that all try to make; None if it does not see the folder."""
    try:
        return filesystem.made(folder / "claim") if filesystem.appears(folder) else None
    except OSError:
        return None


def _skew(folder: Path) -> tuple[str, float] | None:
    try:
        return machine.host(), filesystem.skew_s(folder)
    except OSError:  # a folder that is not seen is a finding of its own
        return None


def _slurm(config: Config | None) -> Findings:
    """Whether Slurm would take the jobs of this configuration; it is only asked, nothing is handed in."""
    missing = [name for name in ("squeue", "scontrol") if shutil.which(name) is None]
    if missing and os.environ.get("SLURM_JOB_ID"):
        return [checkup.no_client(missing)]
    if shutil.which("sbatch") is None:
        return [Finding("Slurm", "ok", "none here")]
    try:
        version = slurm.call("scontrol", "--version").strip()
        slurm.call("sinfo", "--noheader")
    except OrcolatError as e:
        return [
            of_error("Slurm", e, "warn", "its commands are here, but no cluster: set SLURM_CONF, or ask the operators")
        ]
    if config is None:
        return [Finding("Slurm", "ok", f"{version}; whether it takes jobs is tried with a CONFIG")]
    asked = {
        "array": slurm.array_options(config.slurm, 1),
        "jobs after it": slurm.after_options(config.slurm, config.slurm.after.ranks),
    }
    return [_would_take(name, options, version) for name, options in asked.items()]


def _would_take(name: str, options: Sequence[str], version: str) -> Finding:
    try:
        slurm.call("sbatch", "--test-only", *options, "--wrap=true")
    except OrcolatError as e:
        return of_error("Slurm", e, remedy="correct [slurm] of the configuration or of the site file")
    return Finding("Slurm", "ok", f"{version} would take the {name}")
