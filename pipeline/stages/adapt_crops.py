"""What a training sees: random crops of labelled records, of one station each or of networks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.adaptdir import ALL, Unit
from pipeline.config import Config, Network
from pipeline.config.adapt import Adapt
from pipeline.maths import augment, splits
from pipeline.maths.augment import Augmentation, Record
from pipeline.maths.filters import filtered
from pipeline.maths.targets import targets
from pipeline.models import objectives, phaseno
from pipeline.models.objectives import NetworkCrop
from pipeline.models.phaseno import PhaseNO
from pipeline.models.training import Batch
from pipeline.records import NS, Float32
from pipeline.stages import adapt_networks
from pipeline.stages.adapt_data import Prepared, waveform
from pipeline.stages.adapt_networks import Together

LOOKS = 2  # crops of each validation record, or network, always the same
PLAIN = Augmentation(outside=0.0)


def of(sets: list[Prepared], model: Any, config: Config, unit: Unit) -> Crops | NetworkCrops:
    """What ``model`` is trained on in a unit, as `training.Examples`."""
    if isinstance(model, PhaseNO):
        return NetworkCrops(sets, model, config.adapt, unit, config.pick.networks)
    return Crops(sets, model, config.adapt, unit)


class Records:
    """The records of one fold, and which of them are for training and validation, as (set, record)."""

    def __init__(self, sets: list[Prepared], model: Any, adapt: Adapt, unit: Unit) -> None:
        self._sets, self._adapt, self._unit = sets, adapt, unit
        self._labels, (self._samples, self._rate_hz) = objectives.labels(model), objectives.window(model)
        self._how = Augmentation(**adapt.augment.model_dump())
        fold = max(unit.fold, 0)
        parts = (splits.TRAIN, splits.TEST) if unit.fold == ALL else (splits.TRAIN,)
        self._train = self._rows(fold, parts)
        self._check = self._rows(fold, (splits.VALIDATION,))
        self._noise = [(s, i) for s, i in self._train if not self._sets[s].cache.rows.event[i]]

    def _rows(self, fold: int, parts: tuple[int, ...]) -> list[tuple[int, int]]:
        """(set, record) of all records of these parts."""
        return [(s, i) for s, one in enumerate(self._sets) for part in parts for i in one.of(fold, part).tolist()]

    def _other(self, how: Augmentation, rng: np.random.Generator) -> Float32 | None:
        """The usable part of a record of noise, if one is wanted and there is one."""
        if not how.noise or not self._noise:
            return None
        s, i = self._noise[int(rng.integers(len(self._noise)))]
        other = self._shown(s, i, self._record(s, i))
        return other.samples[:, other.first : other.end]

    def _shown(self, s: int, i: int, record: Record) -> Record:
        """What of record ``i`` a window is cut from."""
        return record

    def _record(self, s: int, i: int) -> Record:
        cache = self._sets[s].cache
        row, samples = cache.rows.take(slice(i, i + 1)), cache.read(np.array([i]))[0]
        p, s_ = float(row.p_sample[0]), float(row.s_sample[0])
        record = Record(samples, p, s_, int(row.first[0]), int(row.stop[0]))
        return self._shuffled(record, str(row.id[0])) if self._unit.control else record

    def _shuffled(self, record: Record, name: str) -> Record:
        """The control: the same labels, moved together to anywhere in the record; always there for one seed."""
        onsets = [onset for onset in (record.p, record.s) if np.isfinite(onset)]
        if not onsets:
            return record
        drawn = int.from_bytes(hashlib.sha256(f"{self._unit.seed} {name}".encode()).digest()[:8], "little")
        room = max(1.0, record.end - record.first - (max(onsets) - min(onsets)))
        shift = record.first + np.random.default_rng(drawn).uniform(0, room) - min(onsets)
        return Record(record.samples, record.p + shift, record.s + shift, record.first, record.stop)

    def _answers(self, crops: Sequence[Record]) -> Float32:
        p, s = (np.array([getattr(crop, phase) for crop in crops]) for phase in ("p", "s"))
        width = self._adapt.half_width_s * self._rate_hz
        return targets(self._labels, p, s, self._samples, width, self._adapt.label_shape)


class Crops(Records):
    """Crops of the records of one fold, as `training.Examples`."""

    def training(self, rng: np.random.Generator, batch: int) -> Iterator[Batch]:
        for drawn in batches(len(self._train), self._adapt.crops, rng, batch):
            yield self._batch([self._crop(*self._train[k], self._how, rng) for k in drawn])

    def validation(self, batch: int) -> Iterator[Batch]:
        rng = np.random.default_rng(0)
        looks = [one for one in self._check for _ in range(LOOKS)]
        for at in range(0, len(looks), batch):
            yield self._batch([self._crop(*one, PLAIN, rng) for one in looks[at : at + batch]])

    def _crop(self, s: int, i: int, how: Augmentation, rng: np.random.Generator) -> Record:
        record = self._record(s, i)
        return augment.augmented(record, self._samples, how, rng, self._other(how, rng))

    def _batch(self, crops: list[Record]) -> Batch:
        return np.stack([crop.samples for crop in crops]), self._answers(crops)


class NetworkCrops(Records):
    """Crops of the networks of one fold, as `training.Examples`; a batch counts networks.

    All stations of a network are cut at one time, which is drawn as a crop of one of them is. Those without usable data
    there are not in the graph. What `augment` changes, it changes at each station for itself.
    """

    def __init__(
        self, sets: list[Prepared], model: PhaseNO, adapt: Adapt, unit: Unit, networks: Sequence[Network]
    ) -> None:
        super().__init__(sets, model, adapt, unit)
        self._training, self._validation = (self._groups(rows, networks) for rows in (self._train, self._check))

    def training(self, rng: np.random.Generator, batch: int) -> Iterator[Batch]:
        for drawn in batches(len(self._training), self._adapt.crops, rng, batch):
            crops = [self._crop(*self._training[k], self._how, rng) for k in drawn]
            yield objectives.network_batch(crops)

    def validation(self, batch: int) -> Iterator[Batch]:
        rng = np.random.default_rng(0)
        looks = [one for one in self._validation for _ in range(LOOKS)]
        for at in range(0, len(looks), batch):
            yield objectives.network_batch([self._crop(*one, PLAIN, rng) for one in looks[at : at + batch]])

    def _groups(self, rows: list[tuple[int, int]], networks: Sequence[Network]) -> list[tuple[int, Together]]:
        """(set, network) of all records ``rows``."""
        index = [np.array([i for t, i in rows if t == s], np.int64) for s in range(len(self._sets))]
        all_ = zip(self._sets, index, strict=True)
        return [(s, g) for s, (one, i) in enumerate(all_) for g in adapt_networks.groups(one.cache.rows, i, networks)]

    def _crop(self, s: int, group: Together, how: Augmentation, rng: np.random.Generator) -> NetworkCrop:
        index, rows = group.index.tolist(), self._sets[s].cache.rows.take(group.index)
        records = [self._record(s, i) for i in index]
        at = np.rint((rows.start_ns - rows.start_ns.min()) / NS * self._rate_hz).astype(np.int64).tolist()
        drawn = int(rng.integers(len(records)))
        start = at[drawn] + augment.crop_start(records[drawn], self._samples, rng, how.outside)
        starts = [start - begin for begin in at]
        heard = [k for k, r in enumerate(records) if r.first < starts[k] + self._samples and starts[k] < r.end]
        crops = [self._seen(s, index[k], records[k], starts[k], how, rng) for k in heard]
        samples, place = np.stack([crop.samples for crop in crops]), np.arange(self._samples)
        usable = np.stack([(place >= crop.first) & (place < crop.end) for crop in crops])
        return NetworkCrop(
            samples, usable & samples.any(axis=1),  # a sample that is 0 in all components is a gap
            self._answers(crops), rows.latitude_deg[heard], rows.longitude_deg[heard], group.center_deg, group.range_km,
        )  # fmt: skip

    def _seen(self, s: int, i: int, record: Record, start: int, how: Augmentation, rng: np.random.Generator) -> Record:
        """A crop, filtered and changed; a component without data, or dropped, is another one, as in picking."""
        there = augment.cropped(record, start, self._samples).samples.any(axis=1, keepdims=True)
        crop = augment.cropped(self._shown(s, i, record), start, self._samples)
        crop = augment.with_samples(crop, crop.samples * there)
        crop = augment.changed(crop, how, rng, self._other(how, rng))
        return augment.with_samples(crop, phaseno.complete(crop.samples, crop.samples.any(axis=1).tolist()))

    def _shown(self, s: int, i: int, record: Record) -> Record:
        """Filtered as `phaseno.together` does it before windows are cut."""
        row = self._sets[s].cache.rows.take(slice(i, i + 1))
        wave = replace(waveform(row, record.samples[None], 0), start_ns=int(row.start_ns[0]))
        return augment.with_samples(record, filtered(wave, phaseno.FILTER))


def batches(n: int, times: int, rng: np.random.Generator, batch: int) -> Iterator[list[int]]:
    """``n`` things, each ``times`` times in an order at random, some at a time."""
    order = np.concatenate([rng.permutation(n) for _ in range(times)])
    for at in range(0, len(order), batch):
        yield order[at : at + batch].tolist()
