"""A campaign of cheap shards: the demonstration's hour, on several days."""

from pathlib import Path

from obspy import read

from pipeline.stages import demo

ROOT = Path(__file__).parents[2]
DAY_S = 86400
PHRASE = "../runs/demo-archive"


def write(folder: Path, days: int) -> Path:
    """The demo archive in ``folder``, its hour on so many days up to its own, and its configuration."""
    archive = demo.write_demo(folder / "archive", demo.SEED)
    for path in sorted((archive / "sds").rglob("*.D.*")):
        stream = read(str(path))
        for _ in range(days - 1):
            for trace in stream:
                trace.stats.starttime -= DAY_S
            julday = f"{stream[0].stats.starttime.julday:03}"
            stream.write(str(path.with_name(path.name[:-3] + julday)), format="MSEED", encoding="STEIM2", reclen=512)
    sites = archive / "stations.xml"
    sites.write_text(sites.read_text().replace('startDate="2024-05-06', 'startDate="2024-01-01'))
    text = (ROOT / "configs" / "demo.toml").read_text()
    first = f"start = 2024-05-{7 - days:02}T20:00:00Z"
    changes = {PHRASE: str(archive), "start = 2024-05-06T20:00:00Z": first}
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "campaign.toml").write_text(text)
    return folder / "campaign.toml"
