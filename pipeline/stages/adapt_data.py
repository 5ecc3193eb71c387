"""Labelled sets of an adaptation: read once, split, and shown to share nothing before anything is trained on them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.adaptdir import AdaptDir
from pipeline.config import Config
from pipeline.config.adapt import LabelledSet
from pipeline.config.weight_names import split
from pipeline.errors import ConfigError
from pipeline.formats import labelled_archive, labelled_cache, labelled_npz, labelled_seisbench
from pipeline.formats.labelled_archive import Cutting
from pipeline.formats.labelled_cache import Cache
from pipeline.formats.labelled_rows import Part
from pipeline.maths import leakage, splits
from pipeline.maths.trained_on import warning
from pipeline.models import adapter_file, adapter_store, weights
from pipeline.records import Float32, Int, Labelled, Text, Waveform
from pipeline.rundir import publish

log = logging.getLogger(__name__)
AT_ONCE = 256  # records


@dataclass(frozen=True, slots=True)
class Prepared:
    """One set: its records, and the part of each in each fold, int64 (folds, n); of a replay set they are all test."""

    settings: LabelledSet
    cache: Cache
    parts: Int

    def of(self, fold: int, part: int) -> Int:
        """The records of a part of a fold, ascending."""
        return np.flatnonzero(self.parts[fold % len(self.parts)] == part)


def waveform(rows: Labelled, samples: Float32, k: int) -> Waveform:
    """Record ``k`` as a waveform whose unusable parts are no data."""
    n = samples.shape[2]
    valid = np.zeros(n, np.bool_)
    valid[int(rows.first[k]) : int(rows.stop[k]) if rows.stop[k] >= 0 else n] = True
    there = tuple(name in rows.components[k] for name in "ZNE")
    return Waveform(np.where(valid, samples[k], np.float32(0)), valid, 0, float(rows.rate_hz[k]), there)  # type: ignore[arg-type]


def prepare(folder: AdaptDir, config: Config) -> list[Prepared]:
    """Read what is not in the cache yet, split it, and check the split; ``sets/split.json`` says what was found.

    Raises ConfigError that names every leak, what cannot be read or split, or sets that are not what they were.
    """
    adapt = config.adapt
    if not adapt.sets:
        raise ConfigError("adapt.sets is empty: give one [[adapt.sets]] with npz, seisbench or archive = true")
    for one in adapt.sets:
        if not folder.records(one.name).exists():
            found = labelled_cache.write(folder.records(one.name), _parts(one, config), {"set": one.name})
            log.info("%s: %d records in %s", one.name, len(found), found.path)
    sets = load(folder, config)
    digests = {one.settings.name: one.cache.digest for one in sets}
    if folder.gate.exists():
        _require_as_before(folder, digests)
        return sets
    told = {
        "sets": {one.settings.name: _told(one) for one in sets},
        "warnings": [*_require_tight(sets), *_known_to_base(sets, config.pick.weight)],
        "digests": digests,
    }
    with publish(folder.gate) as part:
        part.write_text(json.dumps(told, indent=1, ensure_ascii=False, sort_keys=True), "utf-8")
    return sets


def _require_as_before(folder: AdaptDir, digests: dict[str, str]) -> None:
    """Raises ConfigError if the sets are others than when they were split."""
    before = json.loads(folder.gate.read_text("utf-8"))["digests"]
    if odd := [name for name, digest in digests.items() if before.get(name) != digest]:
        raise ConfigError(
            f"{folder.records(odd[0])}: holds other records than when this adaptation was begun, and some of its units "
            "have learned from those: take a new --run-dir"
        )


def load(folder: AdaptDir, config: Config) -> list[Prepared]:
    """The sets as `prepare` left them, split in the same way. Raises ConfigError as that does."""
    found = []
    for one in config.adapt.sets:
        cache = labelled_cache.read(folder.records(one.name))
        if one.replay:
            parts = np.full((1, len(cache)), splits.TEST, np.int64)
        else:
            parts = np.stack([_split(one, cache, fold).part for fold in range(one.folds)])
        found.append(Prepared(one, cache, parts))
    return found


def _parts(one: LabelledSet, config: Config) -> Iterator[Part]:
    """The records of a set, from wherever they are."""
    if one.npz:
        found = labelled_npz.read(one.npz, one.rate_hz)
        yield _noted(found)
    elif one.seisbench:
        cut = labelled_seisbench.Cut(one.rate_hz, round(one.length_s * one.rate_hz))
        for found in labelled_seisbench.read(one.seisbench, cut):
            yield _noted(found)
    else:
        length_s = one.length_s
        cutting = Cutting(length_s, before_s=length_s * 7 / 15, jitter_s=length_s / 15, noise_s=length_s / 2)
        labels, sites, shards = labelled_archive.plan(config, cutting)
        for note in labels.notes:
            log.warning("%s", note)
        for shard in shards.rows():
            yield _noted(labelled_archive.records(config, shard, labels, sites, one.rate_hz))


def _noted(part: Part) -> Part:
    for note in part.notes:
        log.info("%s", note)
    return part


def _split(one: LabelledSet, cache: Cache, fold: int) -> splits.Split:
    try:
        return splits.split(cache.rows, one.split, one.folds, fold, one.margin_s)
    except ConfigError as e:
        raise ConfigError(f"adapt.sets {one.name!r}: {e}") from e


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the records of a set show: `leakage.fingerprints` (n,) and `leakage.snippets` (n, m)."""

    digests: Text
    snippets: Float32


def _require_tight(sets: list[Prepared]) -> list[str]:
    """Raises ConfigError if parts of any fold share what they must not, within a set or between sets; warnings."""
    warnings: list[str] = []
    shown = {one.settings.name: _shown(one.cache) for one in sets}
    mine = [one for one in sets if not one.settings.replay]
    for fold in range(max(one.settings.folds for one in mine)):
        for one in mine:
            settings, show = one.settings, shown[one.settings.name]
            part = one.parts[fold % len(one.parts)]
            found = leakage.require(
                one.cache.rows, part, settings.split, settings.margin_s, show.digests, show.snippets
            )
            warnings += [f"{settings.name}: {text}" for text in found]
        warnings += _require_apart(mine, shown, fold, all(one.settings.split != "event" for one in mine))
    if len(mine) < len(sets):  # with the replay set, which the adapters of the first fold are tested on
        warnings += _require_apart(sets, shown, 0, False)
    return list(dict.fromkeys(warnings))


def _require_apart(sets: list[Prepared], shown: dict[str, _Shown], fold: int, by_station: bool) -> list[str]:
    """The same between sets, whose ids of records are their own; ``by_station``: they share no stations either."""
    if len(sets) < 2:
        return []
    rows = Labelled.concat([_named(one) for one in sets])
    part = np.concatenate([one.parts[fold % len(one.parts)] for one in sets])
    of_sets = [shown[one.settings.name] for one in sets]
    widths = {show.snippets.shape[1] for show in of_sets}  # of one rate, but for a replay set
    snippets = np.concatenate([show.snippets for show in of_sets]) if len(widths) == 1 else None
    margin_s = max(one.settings.margin_s for one in sets)
    digests = np.concatenate([show.digests for show in of_sets])
    found = leakage.require(rows, part, "both" if by_station else "event", margin_s, digests, snippets)
    return [f"{' and '.join(one.settings.name for one in sets)}: {text}" for text in found]


def _named(one: Prepared) -> Labelled:
    """The rows of a set with ids that no other set has; earthquakes keep theirs, if they have any."""
    rows, name = one.cache.rows, f"{one.settings.name}/"
    nameless = np.char.startswith(rows.event, labelled_seisbench.NAMELESS)
    return replace(
        rows, id=np.char.add(name, rows.id), event=np.where(nameless, np.char.add(name, rows.event), rows.event)
    )


def _known_to_base(sets: list[Prepared], weight: str) -> list[str]:
    """Which records the base may have learned from. Raises ConfigError if an adapter that it has did."""
    found = [f"{one.settings.name}: {told}" for one in sets if (told := warning(one.cache.rows, weight))]
    base, adapter = split(weight)
    while adapter:
        header, _ = adapter_file.read(adapter_store.path_of(weights.store(), adapter))
        learned = dict(header.about.get("sets", {}))
        if same := [one.settings.name for one in sets if one.cache.digest in learned.values()]:
            raise ConfigError(
                f"adapt.sets {same[0]!r}: {weight} was trained on these very records, and cannot be tested on them: "
                f"take {base}, or other records"
            )
        names = ", ".join(learned) or "records of which it says nothing"
        found.append(
            f"the adapter {adapter} of {weight} was trained on {names}: whether it knows these was not checked"
        )
        base, adapter = split(base)
    return found


def _shown(cache: Cache) -> _Shown:
    digests, snippets = [], []
    for at in range(0, len(cache), AT_ONCE):
        index = np.arange(at, min(at + AT_ONCE, len(cache)))
        samples, rows = cache.read(index), cache.rows.take(index)
        digests.append(leakage.fingerprints(samples, rows))
        snippets.append(leakage.snippets(samples, rows))
    return _Shown(np.concatenate(digests), np.concatenate(snippets))


def _told(one: Prepared) -> dict[str, Any]:
    """How large the parts of the first fold are, and over all folds what was dropped."""
    rows = one.cache.rows
    counts = {}
    for part, name in enumerate(splits.NAMES):
        used = rows.take(one.of(0, part))
        counts[name] = {
            "records": len(used),
            "noise": int(np.count_nonzero(used.event == "")),
            "events": len(set(used.event.tolist()) - {""}),
            "stations": len(set(used.station.tolist())),
            "p": int(np.isfinite(used.p_sample).sum()),
            "s": int(np.isfinite(used.s_sample).sum()),
        }
    dropped: dict[str, int] = {}
    if not one.settings.replay:
        for fold in range(one.settings.folds):
            for why, n in _split(one.settings, one.cache, fold).dropped.items():
                dropped[why] = dropped.get(why, 0) + n
    settings = one.settings
    source = str(settings.npz or settings.seisbench or "archive and bulletin")
    split = "replay" if settings.replay else f"by {settings.split}, {settings.folds} folds, of which this is the first"
    return {"source": f"{source}; {split}", "counts": counts, "dropped": dropped}
