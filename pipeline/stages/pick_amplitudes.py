"""The amplitudes of one shard's picks: waveform, responses and what the configuration says, brought together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from pipeline.config import Config, Magnitude
from pipeline.formats import provenance, responses
from pipeline.maths import motion
from pipeline.maths.motion import Operators
from pipeline.maths.response import Response
from pipeline.records import Picks, Shard, Waveform

KEPT = 64  # channels and days whose responses are kept: a rank picks one station's days one after the other, or not


def measured(
    config: Config, shard: Shard, waveform: Waveform, found: Sequence[Picks]
) -> tuple[list[Picks], tuple[str, ...]]:
    """The picks of each picker with their amplitudes, and notes; as they are where amplitudes are not wanted."""
    settings = config.magnitude
    if not settings.amplitudes:
        return list(found), ()
    known, notes = _known(files(config), shard.channel, shard.span_ns, waveform.rate_hz, settings)
    rules = _rules(settings)
    return [motion.with_amplitudes(picks, waveform, known, rules) for picks in found], notes


def files(config: Config) -> tuple[Path, ...]:
    """Where responses are looked for: those that are asked for, else the files of the stations that are still there."""
    settings = config.magnitude
    if not settings.amplitudes or settings.responses:
        return settings.responses if settings.amplitudes else ()
    return tuple(path for path in config.stations.files if path.is_file())


def digests(config: Config) -> dict[str, str]:
    """SHA-256 over each of the `files`, by path. Raises ConfigError if one that is asked for cannot be read."""
    return {str(path): provenance.of_files([path]) for path in files(config)}


def _rules(settings: Magnitude) -> motion.Rules:
    return motion.Rules(
        settings.pre_filter_hz,
        settings.water_level_db,
        settings.window_s,
        settings.snr,
        settings.horizontals == "mean",
        settings.clip_counts,
    )


@lru_cache(maxsize=KEPT)
def _known(
    files: tuple[Path, ...], channel: str, span_ns: tuple[int, int], rate_hz: float, settings: Magnitude
) -> tuple[list[tuple[Response, Operators]], tuple[str, ...]]:
    """The responses of a channel that can be removed, with their operators, and notes on what is missing or assumed."""
    found, notes = list[tuple[Response, Operators]](), list[str]()
    for response in responses.of(files, channel, span_ns, motion.grid(rate_hz)):
        notes += response.notes
        try:
            found.append((response, motion.operators(response, rate_hz, _rules(settings))))
        except ValueError as e:
            notes.append(str(e))
    return found, tuple(dict.fromkeys(notes))
