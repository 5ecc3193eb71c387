"""Which precision was checked against SeisBench, of which weight, on which device: the records and the gate.

The checks that the project made come with it (``checks.json`` beside this file), a user's own lie in the store of
weights (``checks/DIGEST.json``). Of all that tell of one weight, precision and device, the last decides.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.config import Compute, Pick
from pipeline.errors import ConfigError
from pipeline.maths.parity import LEAST_F1, LEAST_PICKS, Agreement
from pipeline.models import weights
from pipeline.rundir import publish

if TYPE_CHECKING:  # it brings torch along, which takes seconds
    from pipeline.models.picker import Picker

SHIPPED = Path(__file__).with_name("checks.json")
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Check(BaseModel):
    """One comparison of one precision with FP32 SeisBench on the CPU. Picks are counted on SeisBench's side."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weight: str
    sha256: Sha256 = Field(description="digest of the weight, as in a run's weights.json")
    precision: str
    device: str = Field(description='"cpu", or the name of the GPU')
    engine: str = Field(description="class of the network")
    versions: dict[str, str]
    raw: bool = Field(description="SeisBench read the archive's traces, not our waveforms")
    n_shards: Count
    n_picks_p: Count
    n_picks_s: Count
    f1_p: Share
    f1_s: Share
    threshold_p: Share
    threshold_s: Share
    overlap_samples: Count
    blinding_samples: tuple[Count, Count]
    stacking: str
    data: Sha256 = Field(description="digest of the waveforms")
    day: date

    @property
    def counts(self) -> bool:
        """Is it of enough picks to tell?"""
        return min(self.n_picks_p, self.n_picks_s) >= LEAST_PICKS

    @property
    def agrees(self) -> bool:
        return min(self.f1_p, self.f1_s) >= LEAST_F1

    @property
    def about(self) -> tuple[str, str, str, str]:
        """What the gate asks for."""
        return self.sha256, self.precision, self.device, self.engine

    @property
    def verdict(self) -> str:
        counted = f"{self.n_picks_p} P, {self.n_picks_s} S; at least {LEAST_PICKS} of each: take more station-days"
        found = "passed" if self.agrees else f"FAILED: F1 below {LEAST_F1}, not for use with this weight on this device"
        if self.counts:
            return found
        return f"too few picks to tell: {counted}" if self.agrees else f"{found}; but of too few picks: {counted}"


def check_of(
    pick: Pick, compute: Compute, picker: Picker, agreements: Sequence[Agreement], about: dict[str, Any]
) -> Check:
    """The record of the ``agreements`` of P and S of a ``picker``; ``about`` what it was compared on."""
    p, s = agreements
    (engine,) = picker.engines
    return Check(
        weight=pick.weight,
        sha256=weights.digest(pick.weight),
        precision=engine.precision,
        device=device_kind(compute.device) or compute.device,
        engine=type(engine.network).__name__,
        versions=versions(),
        n_picks_p=p.n_theirs,
        n_picks_s=s.n_theirs,
        f1_p=p.f1,
        f1_s=s.f1,
        threshold_p=pick.threshold_p,
        threshold_s=pick.threshold_s,
        overlap_samples=engine.overlap,
        blinding_samples=engine.blinding,
        stacking=engine.stacking,
        day=datetime.now(UTC).date(),
        **about,
    )


def versions() -> dict[str, str]:
    """Of the programs that a check compares."""
    return {name: _version(name) for name in ("orcolat", "seisbench", "torch")}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "checkout"


CHECKS = TypeAdapter(list[Check])


def store(digest: str) -> Path:
    """Where the user's own checks of a weight lie."""
    return weights.store() / "checks" / f"{digest[:16]}.json"


def read(path: Path) -> list[Check]:
    """The checks of a file, none if it does not exist. Raises ConfigError if it cannot be read, or is not `add`'s."""
    try:
        return CHECKS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as e:
        raise ConfigError(
            f"{path}: the checks cannot be read: {e}; put the path right (it is that of --record, or in the store of "
            "weights, $ORCOLAT_WEIGHTS)"
        ) from e
    except ValidationError as e:
        what = e.errors()[0]
        where = f"{'.'.join(map(str, what['loc']))}: {what['msg']}"
        raise ConfigError(f"{path}: not a list of checks: {where}; delete it and run `orcolat parity` again") from e


@contextmanager
def written(path: Path, option: str) -> Iterator[Path]:
    """`publish`; raises ConfigError where ``path`` cannot be written, ``option`` names another."""
    with _remedy(path, option), publish(path) as part:
        yield part


def require_writable(path: Path, option: str) -> None:
    """Raises ConfigError if `written` would; makes the folder."""
    with _remedy(path, option):
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()


@contextmanager
def _remedy(path: Path, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise ConfigError(f"{path}: cannot be written: {e}; name a file with {option}") from e


def add(path: Path, checks: list[Check]) -> None:
    """Publish ``checks`` behind those that are in the file; what is said again on the same data is replaced."""
    said = {(*check.about, check.data) for check in checks}
    kept = [check for check in read(path) if (*check.about, check.data) not in said]
    data = CHECKS.dump_python([*kept, *checks], mode="json")
    with written(path, "--record") as part:
        part.write_text(json.dumps(data, indent=1) + "\n", "utf-8")


def record(checks: list[Check], path: Path | None = None) -> list[Path]:
    """Add ``checks`` to ``path``, or each to the file of its weight in the store; the files."""
    files = {path or store(check.sha256): None for check in checks}
    for file in files:
        add(file, [check for check in checks if file == (path or store(check.sha256))])
    return list(files)


def device_kind(device: str) -> str | None:
    """ "cpu", or the name of the GPU; None if it cannot be seen from here."""
    if device == "cpu":
        return "cpu"
    import torch

    index = int(device.partition(":")[2] or 0)
    return torch.cuda.get_device_name(index) if index < torch.cuda.device_count() else None


def network_kind(pick: Pick, compute: Compute) -> str:
    """The class of the network that evaluates ``pick.weight`` here. Raises ConfigError."""
    from pipeline.models.picker import engine_of

    return type(engine_of(weights.load(pick.weight), pick, compute).network).__name__


def require(pick: Pick, compute: Compute) -> None:
    """Raises ConfigError unless ``pick.precision`` of each weight was checked on this device, and passed.

    The check must be of the network that would be used: our kernels, SeisBench's own code, that of a GPU.

    FP32 needs no check, and nothing does with ``pick.allow_unchecked_precision``. A GPU that cannot be seen from
    here (a run is planned on a login node) is not asked for: the pick stage asks again.
    """
    if pick.precision == "fp32" or pick.allow_unchecked_precision:
        return
    device = device_kind(compute.device)
    for each in pick.pickers if device else ():
        name, digest, network = each.weight, weights.digest(each.weight), network_kind(each, compute)
        about = digest, pick.precision, device, network
        found = [check for check in (*read(SHIPPED), *read(store(digest))) if check.about == about and check.counts]
        if not found or not found[-1].agrees:
            raise ConfigError(
                f"pick.precision {pick.precision!r} with weight {name} (sha256 {digest[:12]}) on {device} by {network} "
                f"{_why(found)}: run `orcolat parity CONFIG --precision {pick.precision}` on such a device with at "
                f"least {LEAST_PICKS} picks of each phase, or take pick.precision = 'fp32', or set "
                "pick.allow_unchecked_precision = true"
            )


def _why(found: list[Check]) -> str:
    if not found:
        return "was never checked against SeisBench"
    last = found[-1]
    return f"differs from SeisBench (F1 P {last.f1_p:.4f}, S {last.f1_s:.4f} < {LEAST_F1} on {last.day})"
