"""The demonstration: a fictional network in Friuli, one synthetic hour, and the truth about it.

Every number drawn comes from one seed, so an archive is the same bytes every time it is written. How the
events are drawn is said at `draw_events`, what the analyst of the truth can see at `picked`; the waveforms
are those of `pipeline.maths.stochastic`. The choices are explained in docs/decisions/007.
"""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import logs
from pipeline.errors import ConfigError
from pipeline.formats import bulletins_write
from pipeline.formats.demo_archive import Instrument, Recording, write_sds, write_stationxml
from pipeline.maths import geo
from pipeline.maths.stochastic import Medium, Ray, background, noise_rms, ray_axes, wave_train
from pipeline.records import NS, Arrivals, Events

Float = NDArray[np.float64]
Counts = NDArray[np.int32]

SEED = 1976
VERSION = 1  # of the archive: raise it when the same seed gives other bytes
START_NS = int(np.datetime64("2024-05-06T20:00", "ns").astype(np.int64))
HOUR_S = 3600
NETWORK = "XD"
COMPONENTS = "ZNE"
GAIN = 6e8  # counts per m/s
MEDIUM = Medium()
CENTRE = (46.28, 13.14)  # of the network, and of the plane of the associator
TRAIN_S = 81.92  # length of one wave train, coda included

N_EVENTS = 30
MAGNITUDES = (0.5, 3.5)
B_VALUE = 0.5
RADIUS_KM = 25.0
DEPTHS_KM = (4.0, 14.0)
TWIN_S = 12.0  # one event is followed so soon by another
LEAST_SNR = 2.0  # what an analyst picks
NOISE_LEVELS = (0.1, 0.3)  # of the stations, between the models of Peterson (0: low, 1: high)


@dataclass(frozen=True, slots=True)
class Site:
    """A station and what is wrong with it. Seconds count from the start of the hour."""

    code: str
    place: str
    latitude_deg: float
    longitude_deg: float
    elevation_m: float
    rate_hz: float = 100.0
    late_ns: int = 0  # the first sample is so much after the full second
    gap_s: tuple[float, float] | None = None
    gap_components: str = COMPONENTS
    dead_component: str = ""
    spiky_component: str = ""

    @property
    def start_ns(self) -> int:
        return START_NS + self.late_ns

    @property
    def n(self) -> int:
        """Samples in the hour."""
        return round(HOUR_S * self.rate_hz)

    def records(self, component: str, at_s: float) -> bool:
        """Whether the component gives ground motion at ``at_s`` and in the second after it."""
        gap = self.gap_s if self.gap_s and component in self.gap_components else (HOUR_S - 1.0, HOUR_S + 1e3)
        return component != self.dead_component and not gap[0] - 1 <= at_s <= gap[1] and at_s > self.late_ns / NS


SITES = (
    Site("GEMO", "Gemona del Friuli", 46.2790, 13.1380, 320),
    Site("VENZ", "Venzone", 46.3370, 13.1400, 260, dead_component="E"),
    Site("TARC", "Tarcento", 46.2150, 13.2170, 290),
    Site("FORG", "Forgaria", 46.2220, 12.9730, 340),
    Site("TOLM", "Tolmezzo", 46.4060, 13.0140, 410, rate_hz=200.0),
    Site("RESI", "Resia", 46.3750, 13.3060, 560, late_ns=3_700_000),
    Site("MAJA", "Majano", 46.1580, 13.0690, 170),
    Site("TRAM", "Tramonti", 46.2880, 12.7890, 430),
    Site("MOGG", "Moggio", 46.4180, 13.1960, 390, gap_s=(1500.0, 1740.0), gap_components="N"),
    Site("ATTI", "Attimis", 46.1890, 13.3060, 240, spiky_component="Z"),
    Site("PULF", "Pulfero", 46.1740, 13.4850, 300),
    Site("CIVI", "Cividale", 46.0950, 13.4300, 150),
    Site("SPIL", "Spilimbergo", 46.1110, 12.9030, 140),
    Site("AMPE", "Ampezzo", 46.4150, 12.7950, 610, gap_s=(2400.0, 2580.0)),
    Site("PALU", "Paluzza", 46.5310, 13.0170, 650),
    Site("PONT", "Pontebba", 46.5060, 13.3040, 600),
)


def write_demo(folder: Path, seed: int = SEED) -> Path:
    """Write the demo to ``folder``: ``sds/``, ``stations.xml`` and ``truth.*``. Does nothing if it is there.

    Raises ConfigError if ``folder`` is something else, or the demo of another seed or version.
    """
    about = {"seed": seed, "version": VERSION}
    if folder.exists():
        _require_demo(folder, about)
        return folder
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        _write(part, seed)
        (part / "demo.json").write_text(json.dumps(about) + "\n")
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _require_demo(folder: Path, about: dict[str, int]) -> None:
    marker = folder / "demo.json"
    found = json.loads(marker.read_text()) if marker.is_file() else "no demo"
    if found != about:
        raise ConfigError(f"{folder}: wanted the demo {about}, found {found}; remove the folder or give another one")


def _write(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    events = draw_events(seed)
    arrivals = []
    progress = logs.Progress("demo station", len(SITES))
    for index, site in enumerate(SITES):
        ground, seen = ground_motion(site, events, seed)
        arrivals.append(seen)
        for row, component in enumerate(COMPONENTS):
            rng = np.random.default_rng((seed, 2, index, row))
            counts = np.rint(GAIN * ground[row]).astype(np.int32)
            pieces = damaged(site, component, counts, rng)
            write_sds(folder / "sds", Recording(NETWORK, site.code, f"HH{component}", site.rate_hz, pieces))
        progress.step(site.code)
    _write_metadata(folder)
    _write_truth(folder, events, Arrivals.concat(arrivals))


def _write_metadata(folder: Path) -> None:
    channels = tuple(f"HH{component}" for component in COMPONENTS)
    instruments = [
        Instrument(s.code, s.place, s.latitude_deg, s.longitude_deg, s.elevation_m, s.rate_hz, channels) for s in SITES
    ]
    write_stationxml(folder / "stations.xml", NETWORK, instruments, GAIN, START_NS - START_NS % (86_400 * NS))


def draw_events(seed: int) -> Events:
    """The earthquakes, from one seed; nothing is chosen by hand.

    Magnitudes: the quantiles (i + 1/2) / n of a Gutenberg-Richter law cut at `MAGNITUDES`, shuffled; the
    b value is low, so that one hour shows all sizes. Times: random, but an event waits until the coda of the one
    before is over, after the duration magnitude of Lee et al. (1972), and half a minute at least; the one of median
    magnitude has a twin, elsewhere, `TWIN_S` later. Epicentres: uniform in a disc; depths: uniform.
    """
    rng = np.random.default_rng((seed, 0))
    magnitude = rng.permutation(_magnitudes(N_EVENTS - 1))
    time_s = _times(magnitude, rng)
    twin = int(np.argsort(magnitude)[len(magnitude) // 2])
    magnitude = np.insert(magnitude, twin + 1, magnitude[twin])
    time_s = np.insert(time_s, twin + 1, time_s[twin] + TWIN_S)
    radius = RADIUS_KM * np.sqrt(rng.random(N_EVENTS))
    angle = 2 * np.pi * rng.random(N_EVENTS)
    latitude, longitude = geo.geographic(radius * np.sin(angle), radius * np.cos(angle), *CENTRE)
    depth = rng.uniform(*DEPTHS_KM, N_EVENTS)
    return _events(np.round(time_s, 2), latitude, longitude, depth, np.round(magnitude, 2))


def _magnitudes(n: int) -> Float:
    low, high = MAGNITUDES
    q = (np.arange(n) + 0.5) / n
    return np.asarray(low - np.log10(1 - q * (1 - 10 ** (-B_VALUE * (high - low)))) / B_VALUE)


def _times(magnitude: Float, rng: np.random.Generator) -> Float:
    """Seconds from the start; after the last there is room for its coda."""
    wait = np.maximum(30.0, 10 ** ((magnitude + 0.87) / 2.0))
    first = 60.0
    slack = HOUR_S - first - float(wait.sum()) - TWIN_S - 30.0
    before = np.cumsum(wait) - wait
    return np.asarray(first + before + np.sort(rng.random(len(magnitude))) * slack)


def _events(time_s: Float, latitude: Float, longitude: Float, depth: Float, magnitude: Float) -> Events:
    n = len(time_s)
    unknown, none = np.full(n, np.nan), np.zeros(n, np.int64)
    return Events(
        id=np.array([f"2024_{i + 1:05}" for i in range(n)]),
        time_ns=START_NS + np.round(time_s * 100).astype(np.int64) * (NS // 100),
        latitude_deg=latitude,
        longitude_deg=longitude,
        depth_km=depth,
        magnitude=magnitude,
        sigma_time_s=np.zeros(n),
        n_p=none,
        n_s=none,
        n_stations=none,
        gap_deg=unknown,
        nearest_km=unknown,
        score=unknown,
        kind=np.full(n, "earthquake"),
        n_pairs=none,
        sigma_log_amplitude=unknown,
    )


def ray_vectors(site: Site, events: Events) -> Float:
    """East, north and up (n, 3) in km from each hypocentre to the site, on the plane of the associator."""
    x, y = geo.stereographic(events.latitude_deg, events.longitude_deg, *CENTRE)
    x0, y0 = geo.stereographic(site.latitude_deg, site.longitude_deg, *CENTRE)
    return np.column_stack([x0 - x, y0 - y, events.depth_km + site.elevation_m / 1000])


def ground_motion(site: Site, events: Events, seed: int) -> tuple[Float, Arrivals]:
    """Ground velocity (3, n) of the hour in m/s, background included, and what an analyst picks on it."""
    index = SITES.index(site)
    level = np.random.default_rng((seed, 3, index)).uniform(*NOISE_LEVELS)
    vectors = ray_vectors(site, events)
    waves = np.zeros((3, site.n))
    seen = []
    for onset_s, phase, event in _onsets(events, vectors):
        ray = Ray(float(events.magnitude[event]), phase, float(np.linalg.norm(vectors[event])), MEDIUM)
        rng = np.random.default_rng((seed, 1, index, event, "PS".index(phase)))
        train, at = _train(site, ray, ray_axes(*vectors[event]), onset_s, rng)
        if picked(site, phase, onset_s, signal_to_noise(site, phase, train, waves[:, :at], level)):
            seen.append((str(events.id[event]), phase, onset_s))
        length = min(train.shape[1], site.n - at)
        waves[:, at : at + length] += train[:, :length]
    noise = [background(site.n, site.rate_hz, level, np.random.default_rng((seed, 4, index, i))) for i in range(3)]
    return waves + noise, _arrivals(site, seen)


def _onsets(events: Events, vectors: Float) -> list[tuple[float, str, int]]:
    """(seconds from the start, phase, event) of all arrivals at a site, in the order of time."""
    distance = np.linalg.norm(vectors, axis=1)
    origin = (events.time_ns - START_NS) / NS
    return sorted(
        (float(origin[i] + distance[i] / MEDIUM.velocity_km_s(phase)), phase, i)
        for i in range(len(events))
        for phase in "PS"
    )


def _train(site: Site, ray: Ray, axes: Float, onset_s: float, rng: np.random.Generator) -> tuple[Float, int]:
    """The wave train (3, m) of one arrival and the sample of the site at which it begins."""
    position = (onset_s - site.late_ns / NS) * site.rate_hz
    at = int(position)
    m = round(TRAIN_S * site.rate_hz)
    directions = axes[:1] if ray.phase == "P" else axes[1:]
    return wave_train(ray, directions, (position - at) / site.rate_hz, m, site.rate_hz, rng), at


def signal_to_noise(site: Site, phase: str, train: Float, before: Float, level: float) -> float:
    """RMS of the first second of ``train``, over that of background (1-20 Hz) and waves in the second before.

    On the vertical for P, on the horizontals for S. ``train`` and ``before`` are (3, any) without background.
    """
    rows = slice(0, 1) if phase == "P" else slice(1, 3)
    second = round(site.rate_hz)
    signal = np.mean(train[rows, :second] ** 2)
    waves = np.mean(before[rows, -second:] ** 2)
    return float(np.sqrt(signal / (noise_rms(level, 1.0, 20.0) ** 2 + waves)))


def picked(site: Site, phase: str, onset_s: float, snr: float) -> bool:
    """Whether the truth has a pick: the phase stands out, and a component that shows it was recording."""
    return snr >= LEAST_SNR and any(site.records(c, onset_s) for c in ("Z" if phase == "P" else "NE"))


def _arrivals(site: Site, seen: list[tuple[str, str, float]]) -> Arrivals:
    return Arrivals(
        np.array([event for event, _, _ in seen], np.str_),
        np.full(len(seen), site.code),
        np.array([phase for _, phase, _ in seen], np.str_),
        np.array([START_NS + round(onset_s * NS) for _, _, onset_s in seen], np.int64),
        np.zeros(len(seen), np.int64),
    )


def damaged(site: Site, component: str, counts: Counts, rng: np.random.Generator) -> tuple[tuple[int, Counts], ...]:
    """The pieces (start_ns, counts) that the recorder keeps of ``counts`` (n,)."""
    if component == site.dead_component:
        return ((site.start_ns, np.full_like(counts, 1203)),)
    if component == site.spiky_component:
        counts = counts.copy()
        counts[rng.integers(0, len(counts), 12)] += rng.choice(np.array([-200_000, 200_000], np.int32), 12)
    if site.gap_s is None or component not in site.gap_components:
        return ((site.start_ns, counts),)
    stop, again = (round(at_s * site.rate_hz) for at_s in site.gap_s)
    return (site.start_ns, counts[:stop]), (site.start_ns + round(again / site.rate_hz * NS), counts[again:])


def _write_truth(folder: Path, events: Events, arrivals: Arrivals) -> None:
    events = counted(events, arrivals)
    bulletins_write.write_dat(folder / "truth.dat", events, arrivals)
    bulletins_write.write_hpc(folder / "truth.hpc", events, arrivals)
    bulletins_write.write_pun(folder / "truth.pun", events)
    bulletins_write.write_txt(folder / "truth.txt", events)


def counted(events: Events, arrivals: Arrivals) -> Events:
    """``events`` with the numbers of ``arrivals``, the gap and the nearest station that follow from them."""
    place = {site.code: (site.latitude_deg, site.longitude_deg) for site in SITES}
    n_p, n_s, n_stations = (np.zeros(len(events), np.int64) for _ in range(3))
    gap, nearest = np.full(len(events), np.nan), np.full(len(events), np.nan)
    for i, event in enumerate(events.id):
        mine = arrivals.take(arrivals.event == event)
        n_p[i], n_s[i] = (np.count_nonzero(mine.phase == phase) for phase in "PS")
        codes = np.unique(mine.station)
        n_stations[i] = len(codes)
        if len(codes):
            sites = np.array([place[code] for code in codes]).T
            here = events.latitude_deg[i], events.longitude_deg[i]
            gap[i] = geo.azimuthal_gap_deg(geo.azimuth_deg(*here, *sites))
            nearest[i] = geo.distance_km(*here, *sites).min()
    n_pairs = n_p + n_s - n_stations  # a station has one pick of a phase
    return replace(events, n_p=n_p, n_s=n_s, n_stations=n_stations, gap_deg=gap, nearest_km=nearest, n_pairs=n_pairs)
