"""Finding files: SDS and templates, priorities, neighbours, links that leave the archive."""

from datetime import date

import numpy as np
import obspy
import pytest

from pipeline.errors import ConfigError
from pipeline.formats import archive as archives
from pipeline.records import NS, Shard
from tests.synth import DAY_NS, WHOLE_DAY, archive, noise, sds_path, station, trace, write

TWO_DAYS = (DAY_NS, DAY_NS + 2 * 86_400 * NS)


def everything(name):
    return True


def shards(ar, span=WHOLE_DAY, wanted=everything):
    return [shard.id for shard, _ in archives.find_shards(ar, wanted, span)]


def touch(path, size=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def test_sds_is_listed_without_opening_a_file(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a file was opened")

    monkeypatch.setattr(obspy, "read", refuse)
    for code in ("XX.ABC..HHZ", "XX.ABC..HHN", "YY.B2.00.BHZ", "XX.ABC..LHZ", "XX.ABC..HNZ"):
        for day in (date(2024, 5, 31), date(2024, 6, 1), date(2024, 6, 2)):
            touch(sds_path(tmp_path, code, day))
    found = archives.find_shards(archive(tmp_path), everything, TWO_DAYS)
    assert found == [
        (Shard(date(2024, 6, 1), "XX.ABC.", "HH"), 20),
        (Shard(date(2024, 6, 1), "YY.B2.00", "BH"), 10),
        (Shard(date(2024, 6, 2), "XX.ABC.", "HH"), 20),
        (Shard(date(2024, 6, 2), "YY.B2.00", "BH"), 10),
    ]


def test_the_span_is_half_open_and_wanted_says_which_stations(tmp_path):
    for code in ("XX.ABC..HHZ", "XX.DEF..HHZ"):
        for day in (date(2023, 12, 31), date(2024, 1, 1), date(2024, 6, 1), date(2024, 6, 2)):
            touch(sds_path(tmp_path, code, day))
    ar = archive(tmp_path)
    assert shards(ar, wanted={"XX.DEF"}.__contains__) == ["2024-06-01/XX.DEF..HH"]
    assert shards(ar, (DAY_NS + 5, DAY_NS + 6)) == ["2024-06-01/XX.ABC..HH", "2024-06-01/XX.DEF..HH"]
    assert shards(ar, (DAY_NS, DAY_NS)) == []
    new_year = int(np.datetime64("2024-01-01", "ns").astype(np.int64))
    assert len(shards(ar, (new_year - 1, new_year + 1))) == 4


def test_one_band_a_station_and_day_by_priority(tmp_path):
    touch(sds_path(tmp_path, "XX.ABC..EHZ"))
    touch(sds_path(tmp_path, "XX.ABC..HNZ"))
    touch(sds_path(tmp_path, "XX.ABC.10.HHZ"))
    touch(sds_path(tmp_path, "XX.ABC.00.HHZ"))
    touch(sds_path(tmp_path, "XX.ABC..HHZ"), size=0)
    assert shards(archive(tmp_path)) == ["2024-06-01/XX.ABC.00.HH"]
    assert shards(archive(tmp_path, bands=("HN", "EH"))) == ["2024-06-01/XX.ABC..HN"]
    assert shards(archive(tmp_path, bands=("BH",))) == []
    every = shards(archive(tmp_path, all_bands=True))
    assert every == [f"2024-06-01/XX.ABC.{c}" for c in (".EH", ".HH", ".HN", "00.HH", "10.HH")]


def test_an_empty_file_is_listed_where_there_is_nothing_better(tmp_path):
    touch(sds_path(tmp_path, "XX.ABC..HHZ"), size=0)
    assert shards(archive(tmp_path)) == ["2024-06-01/XX.ABC..HH"]
    touch(sds_path(tmp_path, "XX.ABC..EHZ"), size=5)
    assert shards(archive(tmp_path)) == ["2024-06-01/XX.ABC..EH"]


@pytest.mark.parametrize(
    ("layout", "path"),
    [
        ("{year}/{month:02}/{day:02}/{network}.{station}.{location}.{channel}.*", "2024/06/01/XX.ABC..HHZ.x.mseed"),
        ("{network}/{station}/{year}{julday:03}.{location}.{channel}", "XX/ABC/2024153..HHZ"),
        ("{station}.{network}.{location}.{band}_{year}-{month}-{day}.sac", "ABC.XX.--.HH_2024-6-1.sac"),
        ("day{julday:03}/{year}/*/{network}_{station}_{location}_{channel}", "day153/2024/any/XX_ABC__HHZ"),
    ],
)
def test_templates_that_tell_the_channel(tmp_path, layout, path):
    file = touch(tmp_path / path)
    touch(tmp_path / path.replace("ABC", "../escape") if "/" not in path else tmp_path / "stray.txt")
    ar = archive(tmp_path, layout=layout)
    [(shard, size)] = archives.find_shards(ar, everything, WHOLE_DAY)
    assert (shard.id, size) == ("2024-06-01/XX.ABC..HH", 10)
    assert [f.path for f in archives.files_for(ar, shard, WHOLE_DAY)] == [file]


def test_templates_that_do_not_tell_the_channel_read_headers(tmp_path):
    layout = "{year}/{month:02}/{day:02}/{network}.{station}.*.mseed"
    file = write(
        tmp_path / "2024/06/01/XX.ABC.day.mseed",
        *(trace(noise(500), code=f"XX.ABC.{c}") for c in ("00.BHZ", "00.BHN", "10.HHZ", ".LHZ")),
        trace(noise(500), code="XX.OTHER..HHZ"),
    )
    ar = archive(tmp_path, layout=layout)
    assert shards(ar) == ["2024-06-01/XX.ABC.10.HH"]
    assert shards(archive(tmp_path, layout=layout, all_bands=True)) == [
        "2024-06-01/XX.ABC.00.BH",
        "2024-06-01/XX.ABC.10.HH",
    ]
    [(shard, size)] = archives.find_shards(ar, everything, WHOLE_DAY)
    assert 0 < size < file.stat().st_size
    assert [f.path for f in archives.files_for(ar, shard, WHOLE_DAY)] == [file]


def test_a_template_without_network_takes_it_from_the_header(tmp_path):
    write(tmp_path / "ABC.2024.153", trace(noise(500), code="XX.ABC..HHZ"))
    ar = archive(tmp_path, layout="{station}.{year}.{julday:03}")
    assert shards(ar) == ["2024-06-01/XX.ABC..HH"]
    assert shards(ar, wanted={"YY.ABC"}.__contains__) == []


def test_an_unreadable_file_is_planned_so_that_the_account_names_it(tmp_path, caplog):
    file = touch(tmp_path / "2024/153/XX.ABC.mseed", 5000)
    ar = archive(tmp_path, layout="{year}/{julday:03}/{network}.{station}.mseed")
    assert shards(ar) == ["2024-06-01/XX.ABC..HH"]
    assert str(file) in caplog.text


def test_files_of_the_day_and_its_neighbours(tmp_path):
    station(tmp_path, seconds=5)
    days = [date(2024, 5, 31), date(2024, 6, 1), date(2024, 6, 2), date(2024, 6, 3)]
    for day in days:
        touch(sds_path(tmp_path, "XX.ABC..HHZ", day))
        touch(sds_path(tmp_path, "XX.ABC.00.HHZ", day))
        touch(sds_path(tmp_path, "XX.ABC..EHZ", day))
    ar, sh = archive(tmp_path), Shard(days[1], "XX.ABC.", "HH")
    names = [f.path.name for f in archives.files_for(ar, sh, (WHOLE_DAY[0] - 60 * NS, WHOLE_DAY[1] + 60 * NS))]
    assert names == [
        "XX.ABC..HHE.D.2024.153",
        "XX.ABC..HHN.D.2024.153",
        "XX.ABC..HHZ.D.2024.152",
        "XX.ABC..HHZ.D.2024.153",
        "XX.ABC..HHZ.D.2024.154",
    ]
    noon = WHOLE_DAY[0] + 43_200 * NS
    assert {f.path.name[-3:] for f in archives.files_for(ar, sh, (noon, noon + 60 * NS))} == {"153"}


def test_a_link_out_of_the_archive_is_not_followed(tmp_path, caplog):
    outside, root = tmp_path / "outside", tmp_path / "root"
    secret = touch(outside / "XX.ABC..HHZ.D.2024.153")
    inside = touch(root / "data" / "real")
    link = sds_path(root, "XX.ABC..HHZ")
    link.parent.mkdir(parents=True)
    link.symlink_to(secret)
    assert shards(archive(root)) == []
    assert "leads out of the archive" in caplog.text
    (root / "2024" / "YY").symlink_to(outside)
    assert shards(archive(root)) == []
    link.unlink()
    link.symlink_to(inside)
    assert shards(archive(root)) == ["2024-06-01/XX.ABC..HH"]
    link.unlink()
    link.symlink_to(root / "nothing")
    assert shards(archive(root)) == []
    (tmp_path / "way").symlink_to(root)  # the root itself may be a link
    touch(sds_path(root, "XX.B..HHZ"))
    assert shards(archive(tmp_path / "way")) == ["2024-06-01/XX.B..HH"]


def test_codes_with_path_characters_find_nothing(tmp_path):
    from pipeline.errors import BadData

    with pytest.raises(BadData, match="letters and digits"):
        archives.files_for(archive(tmp_path), Shard(date(2024, 6, 1), "XX.A/B.", "HH"), WHOLE_DAY)


def test_a_missing_root_says_so(tmp_path):
    with pytest.raises(ConfigError, match="nowhere is not a folder"):
        shards(archive(tmp_path / "nowhere"))


def test_a_shard_looks_at_each_folder_and_file_once(tmp_path, monkeypatch):
    """Its three days lie in the same folders, and calls to a parallel file system are what a search costs."""
    for code in ("XX.ABC..HHZ", "XX.ABC..HHN", "XX.ABC..BHZ", "XX.DEF..HHZ"):
        for day in (date(2024, 5, 31), date(2024, 6, 1), date(2024, 6, 2)):
            touch(sds_path(tmp_path, code, day))
    listed, looked_at, listdir, lstat = [], [], archives.os.listdir, archives.os.lstat
    monkeypatch.setattr(archives.os, "listdir", lambda path: listed.append(str(path)) or listdir(path))
    monkeypatch.setattr(archives.os, "lstat", lambda path, **_: looked_at.append(str(path)) or lstat(path))
    files = archives.files_for(archive(tmp_path), Shard(date(2024, 6, 1), "XX.ABC.", "HH"), WHOLE_DAY)
    here = f"{tmp_path}/2024/XX/ABC"
    assert sorted(listed) == [here, f"{here}/HHN.D", f"{here}/HHZ.D"]
    inside = [path for path in looked_at if path.startswith(f"{tmp_path}/")]
    assert len(inside) == len(set(inside)) == 5 + len(files) == 11
