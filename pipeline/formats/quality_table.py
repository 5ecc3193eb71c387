"""The calibration of the probability of events, as JSON: numbers that can be read, and what they were made of."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BadData
from pipeline.maths.quality import Calibration
from pipeline.maths.reliability import Reliability

SHIPPED = Path(__file__).parents[1] / "quality.json"  # `python -m tests.calibrate_quality` writes it
PARTS = ("centre", "scale", "low", "high", "coefficient")


def read(path: Path | None = None) -> Calibration:
    """The calibration of ``path``, or the one that comes with the package. Raises BadData if it is none."""
    path = path or SHIPPED
    try:
        data = json.loads(path.read_text("utf-8"))
        features = data["features"]
        columns = {part: tuple(float(feature[part]) for feature in features.values()) for part in PARTS}
        return Calibration(tuple(features), **columns, intercept=float(data["intercept"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise _none(path, e) from e


def judged(path: Path | None = None) -> dict[str, Reliability]:
    """How the probabilities held on data that the calibration was not fitted on, by the name of the test; as
    `tests.bench_quality` found. Empty where nobody has looked. Raises BadData if it cannot be read."""
    path = path or SHIPPED
    try:
        found = json.loads(path.read_text("utf-8")).get("judged", {})
        return {name: Reliability(**{k: np.array(v) for k, v in curve.items()}) for name, curve in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as e:
        raise _none(path, e) from e


def _none(path: Path, why: Exception) -> BadData:
    remedy = "write one with python -m tests.calibrate_quality, or leave out quality.calibration"
    return BadData(f"{path}: not a calibration of events ({why}): {remedy}")


def with_judged(text: str, curves: dict[str, Reliability]) -> str:
    """The file ``text`` with ``curves`` as what `judged` reads; empty bins are left out."""
    data = json.loads(text)
    data["judged"] = {
        name: {part: np.round(values[curve.n > 0], 4).tolist() for part, values in asdict(curve).items()}
        for name, curve in curves.items()
    }
    return json.dumps(data, indent=1) + "\n"


def text(calibration: Calibration, about: dict[str, Any]) -> str:
    """``calibration`` as a file that `read` reads, with what it was made of."""
    columns = asdict(calibration)
    features = {name: {part: columns[part][i] for part in PARTS} for i, name in enumerate(calibration.names)}
    return json.dumps({"about": about, "intercept": calibration.intercept, "features": features}, indent=1) + "\n"
