"""Late data: what an archive holds now against what was planned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.maths.volumes import extended
from pipeline.records import Shards


@dataclass(frozen=True, slots=True)
class Late:
    """Ids of shards, sorted."""

    new: tuple[str, ...] = ()  # not planned, though there are files
    changed: tuple[str, ...] = ()  # planned, and their files are not what they were
    replaced: tuple[str, ...] = ()  # planned, and the archive has a better channel of the station and day now
    gone: tuple[str, ...] = ()  # planned, and their files are gone; they stay in the plan with the results they have

    @property
    def any(self) -> bool:
        """Whether there is something to be picked."""
        return bool(self.new or self.changed or self.replaced)


def late(planned: Shards, now: Shards, all_bands: bool = False) -> Late:
    """What of the archive as it is ``now`` is not what was ``planned``.

    Both are plans of one configuration: where a station-day has another channel now that it did not have, that one
    takes its place, unless it may have several (``all_bands``).
    """
    old, new = ids(planned), ids(now)
    at = {name: row for row, name in enumerate(old)}
    before, after = planned.as_dict(), now.as_dict()
    same = {name: (at[name], row) for row, name in enumerate(new) if name in at}
    changed = [name for name, rows in same.items() if _differs(before, after, *rows)]
    better = set() if all_bands else {_site_day(name) for name in new if name not in at}
    missing = [name for name in old if name not in same]
    return Late(
        tuple(name for name in new if name not in at),
        tuple(changed),
        tuple(name for name in missing if _site_day(name) in better),
        tuple(name for name in missing if _site_day(name) not in better),
    )


def merged(planned: Shards, now: Shards, found: Late) -> Shards:
    """The plan after the update: as ``now``, with what is gone, and the volumes as they were."""
    names = np.array(ids(planned), np.str_)
    both = Shards.concat([now, planned.take(np.isin(names, list(found.gone)))])
    table = both.take(np.lexsort((both.band, both.station, both.day)))
    volume = extended(table.day, planned.day, planned.volumes)
    return Shards(table.day, table.station, table.band, table.bytes, volume, table.changes_ns)


def ids(plan: Shards) -> list[str]:
    """Of all rows."""
    rows = zip(plan.day.tolist(), plan.station.tolist(), plan.band.tolist(), strict=True)
    return [f"{day}/{station}.{band}" for day, station, band in rows]


def _differs(before: dict[str, NDArray[Any]], after: dict[str, NDArray[Any]], a: int, b: int) -> bool:
    """In size, or in the times of the last changes if they are known of both."""
    times = int(before["changes_ns"][a]), int(after["changes_ns"][b])
    return bool(before["bytes"][a] != after["bytes"][b]) or (all(times) and times[0] != times[1])


def _site_day(id_: str) -> str:
    """ "YYYY-MM-DD/NET.STA"."""
    return id_.rsplit(".", 2)[0]
