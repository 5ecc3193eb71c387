"""Semi-synthetic microseismic records: real earthquakes scaled and buried in real noise. Arrays in, arrays out.

The signal to noise ratio is one of amplitudes, and of what a picker has to find first, the P wave:

    SNR = sqrt(a^2 (E - O) / (N + a^2 O))

with the mean squares, over the components that have data, of the earthquake's record in the second after its P (E; to
its S, if that comes sooner), of the same record in the ten seconds that end half a second before its P (O, its own
noise), and of the noise it is buried in (N, all of the piece). So a record brings its own noise along, which counts as
noise, and the factor a follows from the SNR. All of them are measured as a function ``seen`` shows them, a highpass
for example: without it the SNR would be that of the swell of the sea, which hides no earthquake from anyone.

A record of a network is made of the P train of a real record, which ends where its S begins, and of its S train, each
put where the travel time says. Nothing is stretched in time: frequencies and onsets are as they were recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.maths.augment import Record, cropped
from pipeline.maths.traveltime import P, S, TravelTimes, travel_time
from pipeline.records import Bool, Float, Float32

SIGNAL_S = 1.0  # after P
OWN_S = (-10.5, -0.5)  # relative to P
RAMP_S = 0.1  # in which a wave train comes in before its onset, and goes out at its end
S_TRAIN_S = 20.0  # length of an S train

Seen = Callable[[Float32], Float32]  # samples (3, n) to the same shape


@dataclass(frozen=True, slots=True)
class Measure:
    """How loud a record is: at ``rate_hz``, ``seen`` through a filter."""

    rate_hz: float
    seen: Seen

    def strengths(self, record: Record) -> tuple[float, float]:
        """Mean squares of a record: of its P wave without its own noise (E - O), and of that noise (O).

        Raises ValueError if the record has no P, or too few samples before it.
        """
        after = min(SIGNAL_S, (record.s - record.p) / self.rate_hz) if np.isfinite(record.s) else SIGNAL_S
        onset = int(np.ceil(record.p)) if np.isfinite(record.p) else -1
        own, wave = (
            tuple(onset + round(at * self.rate_hz) for at in span) for span in (OWN_S, (0.0, after))
        )  # fmt: skip
        if onset < 0 or own[0] < record.first or wave[1] > record.end or wave[1] <= wave[0]:
            raise ValueError(
                f"P at sample {record.p} of {record.first} to {record.end}: the SNR needs 10.5 s before it"
            )
        samples = self.seen(record.samples)[live(record.samples)]
        before, during = (_mean_square(samples[:, slice(*span)]) for span in (own, wave))
        return during - before, before

    def strength(self, noise: Float32, components: Bool) -> float:
        """Mean square of ``noise`` (3, n) over the ``components`` (3,)."""
        return _mean_square(self.seen(noise)[components])

    def own_snr(self, record: Record) -> float:
        """The SNR of a record as it is, which no factor can exceed; 0 if its P is no louder than its noise."""
        signal, own = self.strengths(record)
        return float(np.sqrt(max(signal, 0.0) / own)) if own > 0 else (np.inf if signal > 0 else 0.0)


def live(samples: Float32) -> Bool:
    """(3,) which components of ``samples`` (3, n) have data."""
    there: Bool = samples.any(axis=1)
    return there


def _mean_square(samples: Float32) -> float:
    return float(np.mean(samples.astype(np.float64) ** 2)) if samples.size else 0.0


def factor(record: Record, noise: Float32, snr: float, measure: Measure) -> float:
    """What a record is multiplied with to have ``snr`` in ``noise`` (3, m), see the head of this file.

    Raises ValueError where the record's own noise makes that impossible, or the noise is none.
    """
    signal, own = measure.strengths(record)
    weak = measure.strength(noise, live(record.samples))
    left = signal - snr**2 * own
    if not snr > 0 or not weak > 0 or not left > 0:
        raise ValueError(
            f"SNR {snr:g} of a record whose own is {measure.own_snr(record):.3g}, in noise of mean square {weak:.3g}: "
            "take a smaller ratio, a clearer record, or noise that is not silent"
        )
    return float(snr * np.sqrt(weak / left))


def buried(record: Record, noise: Float32, at: int, snr: float, measure: Measure) -> Record:
    """``noise`` float32 (3, m) with the earthquake of ``record`` in it, its P at sample ``at`` (and the rest of it).

    Components that the record lacks are 0. Raises ValueError as `factor`, and if the record does not cover the noise.
    """
    m = noise.shape[1]
    start = int(np.ceil(record.p)) - at
    if start < record.first or start + m > record.end:
        raise ValueError(f"P at {at} of {m} samples: the record has samples {record.first} to {record.end} alone")
    piece = cropped(record, start, m)
    there = live(record.samples)
    out = np.zeros_like(noise)
    out[there] = noise[there] + np.float32(factor(record, noise, snr, measure)) * piece.samples[there]
    return Record(out, piece.p, piece.s)


@dataclass(frozen=True, slots=True)
class Field:
    """A source and stations around it on a plane, km: ``east_km``, ``north_km`` (n,), and the source's three."""

    east_km: Float
    north_km: Float
    source_km: tuple[float, float, float]  # east, north, depth

    def distance_km(self) -> Float:
        """From the source to each station, (n,)."""
        east, north, depth = self.source_km
        away: Float = np.sqrt((self.east_km - east) ** 2 + (self.north_km - north) ** 2 + depth**2)
        return away

    def arrivals_s(self, times: TravelTimes) -> Float:
        """P and S after the origin time, (n, 2)."""
        east, north, depth = self.source_km
        level = times.level(np.zeros(1))[0]
        found = [
            [
                travel_time(times.slowness_s_km[level, phase], *times.step_km, times.depth_km, away, depth, 0.0)[0]
                for phase in (P, S)
            ]
            for away in np.hypot(self.east_km - east, self.north_km - north).tolist()
        ]
        return np.array(found, np.float64).reshape(-1, 2)


def field(n: int, side_km: float, depths_km: tuple[float, float], rng: np.random.Generator) -> Field:
    """``n`` stations and an epicentre anywhere in a square, and a depth within ``depths_km``."""
    east, north = rng.uniform(-side_km / 2, side_km / 2, (2, n))
    where = rng.uniform(-side_km / 2, side_km / 2, 2)
    return Field(east, north, (float(where[0]), float(where[1]), float(rng.uniform(*depths_km))))


def trains(record: Record, rate_hz: float) -> tuple[Record, Record]:
    """The P train and the S train of ``record``, 0 elsewhere: as long as it, with its onsets.

    The P train ends at S, with a ramp after it. Raises ValueError without both onsets.
    """
    if not np.isfinite([record.p, record.s]).all():
        raise ValueError(f"a record with P at {record.p} and S at {record.s}: both are needed")
    at = np.arange(record.samples.shape[1])
    ramp = RAMP_S * rate_hz
    spans = (record.p, record.s), (record.s, min(record.s + S_TRAIN_S * rate_hz, record.end - ramp))
    nan = float("nan")
    onsets = (record.p, nan), (nan, record.s)
    parts = []
    for (first, stop), own in zip(spans, onsets, strict=True):
        gain = np.clip((at - first) / ramp + 1, 0, 1) * np.clip((stop - at) / ramp + 1, 0, 1)
        gain = 0.5 - 0.5 * np.cos(np.pi * gain)
        parts.append(Record((record.samples * gain).astype(np.float32), *own))
    return parts[0], parts[1]


def placed(record: Record, p: float, s: float, samples: int, rate_hz: float) -> Record:
    """A record of so many ``samples``: the P train of ``record`` at ``p``, its S train at ``s``, in samples.

    Trains move by whole samples; the onsets that come back are where the trains are, within half a sample of those
    asked for. Raises ValueError as `trains`.
    """
    first, second = trains(record, rate_hz)
    shifts = [round(p - record.p), round(s - record.s)]
    parts = [
        cropped(train, -shift, samples).samples for train, shift in zip((first, second), shifts, strict=True)
    ]  # fmt: skip
    return Record(parts[0] + parts[1], record.p + shifts[0], record.s + shifts[1])


def network(records: Sequence[Record], noise: Float32, arrivals: Float, gains: Float, measure: Measure) -> list[Record]:
    """What stations see of one earthquake: each a real record of its own, in noise of its own.

    ``noise`` float32 (n, 3, m); ``arrivals`` (n, 2), P and S in samples; ``gains`` (n,), the SNR of each station, see
    `spread`. Its definition is that of `buried`, but that the trains bring no noise from before P. Raises ValueError.
    """
    found = []
    for record, here, (p, s), snr in zip(records, noise, arrivals.tolist(), gains.tolist(), strict=True):
        wave = placed(record, p, s, noise.shape[2], measure.rate_hz)
        there = live(record.samples)
        samples = np.zeros_like(here)
        samples[there] = here[there] + np.float32(factor(record, here, snr, measure)) * wave.samples[there]
        found.append(Record(samples, wave.p, wave.s))
    return found


def spread(snr: float, distance_km: Float, limits: tuple[float, float]) -> Float:
    """SNR (n,) of stations: body waves decay as 1/distance; ``snr`` is that at the median distance; within limits."""
    found: Float = np.clip(snr * np.median(distance_km) / distance_km, *limits)
    return found
