"""Random crops and changes of labelled records for training. Arrays and a generator in, arrays out.

All works on one record, (3, n) rows Z N E, whose means are about 0. Filling and what is taken away is 0, as in the
waveforms of the pick stage. Networks normalise their input themselves, so scaling all of a record changes nothing for
most of them; it is there for those that keep amplitudes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.records import NAN, Float32


@dataclass(frozen=True, slots=True)
class Record:
    """One record: what it shows, its onsets in samples (NaN: none), and which part of it may be used."""

    samples: Float32  # (3, n)
    p: float
    s: float
    first: int = 0
    stop: int = -1  # exclusive; -1: the end

    @property
    def end(self) -> int:
        return self.samples.shape[1] if self.stop < 0 else self.stop


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What happens to a crop, each with the probability that it does; 0 switches it off."""

    outside: float = 0.05  # the crop lies where no pick is in it, if the record has such a place: noise
    flip: float = 0.0  # polarity
    scale: float = 0.0  # times 10 to the power of -scale_decades to scale_decades
    noise: float = 0.0  # added at a signal to noise ratio within noise_snr_db
    drop: float = 0.0  # one or two components are 0, never all
    gap: float = 0.0  # all components are 0 for at most gap_share of the crop; picks in it are gone
    rotate: float = 0.0  # the horizontals turn by any angle
    scale_decades: float = 1.0
    noise_snr_db: tuple[float, float] = (0.0, 20.0)
    gap_share: float = 0.2


def augmented(
    record: Record, samples: int, how: Augmentation, rng: np.random.Generator, noise: Float32 | None = None
) -> Record:
    """A crop of ``samples`` at random, changed as ``how`` says: float32 (3, samples), its onsets from its first sample.

    An onset before or behind the crop stays as it is: label curves begin before their onset. ``noise`` as of `changed`.
    """
    return changed(cropped(record, crop_start(record, samples, rng, how.outside), samples), how, rng, noise)


def changed(crop: Record, how: Augmentation, rng: np.random.Generator, noise: Float32 | None = None) -> Record:
    """A crop, changed as ``how`` says.

    ``noise`` (3, m), a record of noise, is what is added; without it, or where it is too short, white noise.
    """
    out, samples = crop, crop.samples.shape[1]
    chosen = rng.random(6)
    if chosen[0] < how.rotate:
        out = with_samples(out, rotated(out.samples, float(rng.uniform(0, 2 * np.pi))))
    if chosen[1] < how.flip:
        out = with_samples(out, -out.samples)
    if chosen[2] < how.noise:
        snr_db = float(rng.uniform(*how.noise_snr_db))
        out = with_samples(out, noisy(out, snr_db, _noise(noise, samples, rng)))
    if chosen[3] < how.scale:
        factor = 10.0 ** rng.uniform(-how.scale_decades, how.scale_decades)
        out = with_samples(out, out.samples * np.float32(factor))
    if chosen[4] < how.drop:
        out = with_samples(out, dropped(out.samples, rng))
    if chosen[5] < how.gap:
        length = int(rng.integers(1, max(2, round(how.gap_share * samples))))
        out = gapped(out, int(rng.integers(0, samples - length + 1)), length)
    return out


def with_samples(record: Record, samples: Float32) -> Record:
    """The same onsets on other samples."""
    return Record(samples, record.p, record.s, record.first, record.stop)


def crop_start(record: Record, samples: int, rng: np.random.Generator, outside: float = 0.0) -> int:
    """Where a crop begins, all places within the usable part being equally probable of which a pick is in the crop.

    So P lies anywhere in the crop, and sometimes outside of it, where only S is seen. With probability ``outside``,
    and in a record without picks, all places without one. A usable part shorter than the crop lies anywhere in it.
    """
    low, high = sorted((record.first, record.end - samples))
    starts = np.arange(low, high + 1)
    onsets = [onset for onset in (record.p, record.s) if np.isfinite(onset)]
    holds = np.zeros(len(starts), np.bool_)
    for onset in onsets:
        holds |= (starts <= onset) & (onset < starts + samples)
    wanted = ~holds if rng.random() < outside or not onsets else holds
    return int(rng.choice(starts[wanted] if wanted.any() else starts))


def cropped(record: Record, start: int, samples: int) -> Record:
    """The ``samples`` from ``start`` on, float32 (3, samples); what is not usable is 0."""
    out = np.zeros((3, samples), np.float32)
    first, stop = max(record.first, start), min(record.end, start + samples)
    if stop > first:
        out[:, first - start : stop - start] = record.samples[:, first:stop]
    used = max(0, first - start), max(0, stop - start)
    return Record(out, record.p - start, record.s - start, *used)


def rotated(samples: Float32, angle_rad: float) -> Float32:
    """The horizontals of ``samples`` (3, n) turned clockwise, north towards east; as they are if one has no data."""
    out = samples.copy()
    if samples[1].any() and samples[2].any():
        cos, sin = np.float32(np.cos(angle_rad)), np.float32(np.sin(angle_rad))
        out[1], out[2] = cos * samples[1] - sin * samples[2], sin * samples[1] + cos * samples[2]
    return out


def noisy(record: Record, snr_db: float, noise: Float32) -> Float32:
    """The record with ``noise`` (3, n) added to the components that have data, all by one factor.

    The ratio is that of the root mean squares of signal and noise over those components; the signal is what follows
    the first pick in it, or all of it without a pick. A record or noise that is 0 stays as it is.
    """
    live = record.samples.any(axis=1)
    onsets = [onset for onset in (record.p, record.s) if 0 <= onset < record.samples.shape[1]]
    signal = record.samples[live, int(min(onsets)) if onsets else 0 :]
    strength, weakness = (
        float(np.sqrt(np.mean(x**2, dtype=np.float64))) if x.size else 0.0 for x in (signal, noise[live])
    )
    out = record.samples.copy()
    if strength > 0 and weakness > 0:
        first, stop = record.first, record.end
        factor = np.float32(strength / weakness * 10 ** (-snr_db / 20))
        out[live, first:stop] += factor * noise[live, first:stop]
    return out


def dropped(samples: Float32, rng: np.random.Generator) -> Float32:
    """One or more of the components that have data set to 0, never all of them."""
    live = np.flatnonzero(samples.any(axis=1))
    out = samples.copy()
    if len(live) > 1:
        out[rng.permutation(live)[: int(rng.integers(1, len(live)))]] = 0
    return out


def gapped(record: Record, start: int, length: int) -> Record:
    """A gap of ``length`` samples in all components; a pick inside is no longer there to be found."""
    samples = record.samples.copy()
    samples[:, start : start + length] = 0
    p, s = (NAN if start <= onset < start + length else onset for onset in (record.p, record.s))
    return Record(samples, p, s, record.first, record.stop)


def _noise(noise: Float32 | None, samples: int, rng: np.random.Generator) -> Float32:
    """A piece (3, samples) of ``noise``, or white noise."""
    if noise is None or noise.shape[1] < samples:
        return rng.standard_normal((3, samples), np.float32)
    start = int(rng.integers(0, noise.shape[1] - samples + 1))
    return noise[:, start : start + samples]
