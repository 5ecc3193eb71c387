"""Events of real and of time-scrambled picks with their features, and what is known of each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from pipeline.maths import geo
from pipeline.maths.event_features import Features, Network, event_rows, features, network
from pipeline.maths.scramble import scrambled_ns
from pipeline.models import associator
from pipeline.models.associators.observed import Earthquake, Observed
from pipeline.records import DAY_NS, Bool, Float, Int, Picks, Stations
from pipeline.rundir import publish
from pipeline.stages import associate
from tests import association_cases, synthetic_picks
from tests.association_cases import Case, Scenario
from tests.association_scores import NOT_KNOWN, event_of_pick

KEPT = association_cases.KEPT.parent / "quality"
SCRAMBLES = 4
SINGLE = ("time_ns", "x_km", "y_km", "z_km", "score", "magnitude")
OF_PICKS = ("picks", "probability", "residual_s")
HOUR_NS = DAY_NS // 24
HALF_NS = int(np.datetime64("2024-05-05", "ns").astype(np.int64))  # of the study window of OGS


@dataclass(frozen=True)
class Sample:
    """Events (m,) found in one set of picks. ``real``: 1, 0, or NaN where nobody knows."""

    time_ns: Int
    real: Float
    found: Features

    def __len__(self) -> int:
        return len(self.time_ns)

    def take(self, rows: Bool | slice) -> Sample:
        return Sample(self.time_ns[rows], self.real[rows], self.found.take(rows))


def kept(name: str, make: Callable[[], Sample]) -> Sample:
    """What ``make`` finds, or found before: a file of `KEPT`, to be deleted where the associator has changed."""
    path = KEPT / f"{name}.npz"
    if not path.exists():
        sample = make()
        with publish(path) as part, part.open("wb") as file:
            np.savez(file, time_ns=sample.time_ns, real=sample.real, **sample.found.as_dict())
    with np.load(path) as file:
        columns = dict(file)
    return Sample(columns.pop("time_ns"), columns.pop("real"), Features(**columns))


def sample(case: Case, observed: Observed, found: Sequence[Earthquake], event: Int | None = None) -> Sample:
    """What was ``found`` in ``observed``; ``event`` (n picks,) is the true event of each pick, see `is_real`."""
    picks = as_picks(observed)
    events, assignments = associate.catalogue(list(found), picks, observed, case.region.settings)
    named = zip(picks.time_ns.tolist(), picks.station.tolist(), picks.phase.tolist(), strict=True)
    row = {key: i for i, key in enumerate(named)}
    asked = zip(assignments.time_ns.tolist(), assignments.station.tolist(), assignments.phase.tolist(), strict=True)
    rows = np.array([row[key] for key in asked], np.int64)
    of, real = event_rows(events, assignments.event), np.full(len(events), np.nan)
    if event is not None:
        real = np.array([is_real(event[rows[of == i]]) for i in range(len(events))], np.float64)
    table = features(events, assignments, observed.weight[rows], _net(case, picks))
    return Sample(events.time_ns, real, table)


def is_real(event: Int) -> float:
    """1 for an event with more than half of its picks from one true event, or of events that no list has; else 0.

    ``event`` (n,) is the true event of each pick, -1 of none, `NOT_KNOWN` of one that no list has. An event of the
    picks of two true ones is false.
    """
    true = event[event >= 0]
    most = np.bincount(true).max() if len(true) else 0
    return float(2 * max(most, int((event == NOT_KNOWN).sum())) > len(event))


def as_picks(observed: Observed) -> Picks:
    none = np.full(len(observed), np.nan, np.float32)
    station = np.char.add(observed.station, "..HH") if len(observed) else observed.station
    return Picks(station, observed.phase, observed.time_ns, observed.weight.astype(np.float32), none, none, none)


def _net(case: Case, picks: Picks) -> Network:
    sites = case.region.network
    lat, lon = geo.geographic(sites.x_km, sites.y_km, *case.centre)
    always = np.full(len(sites), -(2**62)), np.full(len(sites), 2**62)
    return network(picks, Stations(sites.station, lat, lon, -1000.0 * sites.z_km, *always))


def scrambled(observed: Observed, seed: int) -> Observed:
    """The same picks at other times, in canonical order."""
    moved = replace(observed, time_ns=scrambled_ns(observed.station, observed.time_ns, _span(observed), seed))
    return moved.take(np.lexsort((moved.weight, moved.phase, moved.station, moved.time_ns)))


def _span(observed: Observed) -> tuple[int, int]:
    """The whole hours that hold the picks, ns."""
    first, last = int(observed.time_ns.min()) // HOUR_NS, int(observed.time_ns.max()) // HOUR_NS
    return first * HOUR_NS, (last + 1) * HOUR_NS


@dataclass(frozen=True)
class Set:
    """One set of picks: its events, those of all its picks scrambled (once), and those of the left-over picks, which
    are in no event, scrambled ``scrambles`` times."""

    name: str
    found: Sample
    false: Sample
    left: Sample
    scrambles: int = SCRAMBLES

    def __len__(self) -> int:
        return len(self.found) + len(self.false) + len(self.left)

    @property
    def n_false(self) -> float:
        """How many of the events found are false, by the left-over picks."""
        return len(self.left) / self.scrambles


def made(name: str, make: Callable[[], tuple[Case, Int | None]], noisier: bool = True) -> Set:
    """What the associator finds in the picks of a case, and in those scrambled; done once. Without ``noisier``, no
    event is of all picks scrambled."""
    case = cache(make)
    left = [kept(f"{name}-left-{k}", partial(_false, name, case, k)) for k in range(1, SCRAMBLES + 1)]
    found = found_in(name, case)
    false = kept(f"{name}-false", partial(_false, name, case, 0)) if noisier else found.take(slice(0, 0))
    return Set(name, found, false, _joined(left))


def found_in(name: str, make: Callable[[], tuple[Case, Int | None]]) -> Sample:
    """What the associator finds in the picks of a case; done once."""

    def describe() -> Sample:
        case, event = make()
        return sample(case, case.observed, solved(name, case, case.observed), event)

    return kept(f"{name}-found", describe)


def _false(name: str, make: Callable[[], tuple[Case, Int | None]], seed: int) -> Sample:
    """Events of scrambled picks: of those that are in no event; seed 0: of all."""
    case = make()[0]
    moved = scrambled(
        _left_over(case.observed, solved(name, case, case.observed)) if seed else case.observed, seed or 1
    )
    events = sample(case, moved, solved(f"{name}-{seed}", case, moved))
    return replace(events, real=np.zeros(len(events)))


def solved(name: str, case: Case, observed: Observed) -> list[Earthquake]:
    """The events of ``observed``, kept in a file of `KEPT`."""
    path = KEPT / f"{name}-events.npz"
    if not path.exists():
        found = associator.associate(observed, case.region)
        columns = {key: np.array([getattr(e, key) for e in found]) for key in SINGLE}
        columns["n"] = np.array([len(e.picks) for e in found], np.int64)
        columns |= {key: np.concatenate([np.empty(0), *(getattr(e, key) for e in found)]) for key in OF_PICKS}
        with publish(path) as part, part.open("wb") as file:
            np.savez(file, **columns)
    with np.load(path) as file:
        stop = np.cumsum(file["n"])
        each = {key: np.split(file[key], stop)[:-1] for key in OF_PICKS}
        rows = zip(
            *(file[key].tolist() for key in SINGLE), each["picks"], *(each[k] for k in OF_PICKS[1:]), strict=True
        )
        return [
            Earthquake(*one[:5], one[6].astype(np.int64), one[7], one[8], one[5])  # the magnitude comes last
            for one in rows
        ]


def _joined(parts: Sequence[Sample]) -> Sample:
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("time_ns", "real")]
    return Sample(*columns, Features.concat([part.found for part in parts]))


def _left_over(observed: Observed, found: Sequence[Earthquake]) -> Observed:
    """The picks of no event."""
    return observed.take(event_of_pick(found, len(observed)) < 0)


def central_italy() -> tuple[Case, None]:
    """Half a day of the sequence."""
    return association_cases.central_italy("2016-10-14T00:00", "2016-10-14T12:00"), None


def afternoon() -> tuple[Case, None]:
    """The other half of it, which nothing was chosen or fitted on."""
    return association_cases.central_italy("2016-10-14T12:00", "2016-10-15T00:00"), None


def ogs(false: float, seed: int = 0) -> tuple[Case, Int]:
    """OGS with so many false picks a station and day, and the true event of each pick."""
    case = association_cases.ogs(false, seed)
    return case, case.score.args[0]  # type: ignore[attr-defined]


def synthetic(n_events: int, noise_factor: float, seed: int = 0) -> tuple[Case, Int]:
    """A made-up day, so many false picks for each true one, and the true event of each pick."""
    scenario = Scenario(n_events, noise_factor=noise_factor, seed=seed)
    return association_cases.synthetic(scenario), synthetic_picks.make(scenario)[2].event
