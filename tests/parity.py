"""The real records beside the checkout, for tests and benchmarks."""

from pathlib import Path

from pipeline import config as configs
from pipeline.config import Archive, Config
from pipeline.formats.archive import find_shards
from pipeline.records import Shard

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
CONFIGS = {"station_day": ROOT / "tests" / "station_day.toml", "ridgecrest": ROOT / "configs" / "ridgecrest.toml"}


def config(record: str, *settings: str) -> Config:
    return configs.load(CONFIGS[record], list(settings))


def archive(record: str) -> Archive:
    return config(record).archive


def shards(record: str) -> list[Shard]:
    return [shard for shard, _ in find_shards(archive(record), lambda _: True, config(record).run.span_ns)]
