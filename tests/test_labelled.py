"""Labelled records: three readers and the cache, against the files' own numbers, SeisBench, and the analyst's truth."""

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.config import load
from pipeline.config.adapt import LabelledSet
from pipeline.errors import BadData, ConfigError
from pipeline.formats import labelled_archive, labelled_cache, labelled_npz, labelled_seisbench, tables
from pipeline.formats.labelled_rows import Part, Row, joined, part, table
from pipeline.formats.reference import read_reference
from pipeline.formats.waveforms import read_shard
from pipeline.records import NS, Labelled, Shard
from pipeline.stages import adapt_data
from pipeline.stages.demo import write_demo

DATA = Path(__file__).parents[2] / "shared" / "data"
NCEDC = DATA / "labelled_ncedc" / "records.npz"
CONFIGS = Path(__file__).parents[1] / "configs"
real = pytest.mark.skipif(not NCEDC.exists(), reason="the 70 labelled records of NCEDC are not here")


def row(**changes):
    plain = Row("a", "e", "XX.A", "XX.A..HH", 0, 100.0, 10.0, 20.0, "ZNE", "test", stop=50)
    return table([plain._replace(**changes)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"s_sample": 5.0}, "S lies before P"),
        ({"rate_hz": 0.0}, "rate_hz is not positive"),
        ({"components": "NZ"}, "components is none of"),
        ({"first": 60}, "stop does not lie after first"),
        ({"event": ""}, "there are picks and no event"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=f"'a': {message}"):
        row(**changes)


def test_the_span_of_a_record_is_that_of_its_usable_part():
    begin, end = row(start_ns=NS, first=10).spans_ns()
    assert (begin[0], end[0]) == (NS + NS // 10, NS + NS // 2)
    begin, end = row(start_ns=-1).spans_ns()
    assert (begin[0], end[0]) == (-1, -1)


def test_rows_keep_their_numbers_in_a_parquet_file(tmp_path):
    tables.write(tmp_path / "rows.parquet", row(p_sample=10.25))
    assert tables.read(tmp_path / "rows.parquet", Labelled).p_sample[0] == 10.25


@real
def test_the_records_of_ncedc_are_those_of_the_file():
    raw = np.load(NCEDC)
    rows, waveforms, _ = labelled_npz.read(NCEDC)
    assert waveforms.shape == (70, 3, 9001)
    np.testing.assert_array_equal(rows.p_sample, raw["p_sample"])
    np.testing.assert_array_equal(rows.s_sample, raw["s_sample"])
    assert (rows.components == "Z").sum() == 18
    assert set(rows.components.tolist()) == {"Z", "ZNE"}
    zne = raw["data"].transpose(0, 2, 1)[:, ::-1]  # E N Z in the file
    mean = zne.mean(axis=2, keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(waveforms, zne - mean, rtol=1e-6, atol=1e-6 * np.abs(zne).max())
    here = rows.id == "NC_CAL_1986040707411070_02"
    assert rows.station[here] == "NC.CAL"
    assert rows.channel[here] == "NC.CAL.02.EL"
    p_ns = rows.start_ns + np.round(rows.p_sample / rows.rate_hz * NS).astype(np.int64)
    assert np.datetime64(int(p_ns[here][0]), "ns") == np.datetime64("1986-04-07T07:41:10.70")
    assert len(set(rows.event.tolist())) == 70


def test_a_vertical_component_that_is_repeated_is_one(tmp_path):
    z = np.random.default_rng(0).standard_normal((2, 300, 1)).astype(np.float32)
    names = np.array(["NC_AAA_2001010100000100", "NC_BBB_2001010100003000"])
    np.savez(
        tmp_path / "a.npz", data=np.repeat(z, 3, axis=2), p_sample=np.array([100, -1]), s_sample=np.array([np.nan] * 2),
        name=names, channels=np.array(["EHZ", "EHZ"]),
    )  # fmt: skip
    rows, waveforms, _ = labelled_npz.read(tmp_path / "a.npz")
    assert rows.components.tolist() == ["Z", "Z"]
    assert not waveforms[:, 1:].any()
    assert rows.event.tolist() == ["2001-01-01T00:00:01.000", ""]
    (tmp_path / "a.npz").write_bytes(b"no zip")
    with pytest.raises(BadData, match=r"a\.npz: not a set of labelled records"):
        labelled_npz.read(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("key", "values", "said"),
    [
        ("s_sample", np.array([50, np.nan]), "record NC_AAA_2001010100000100: S lies before P"),
        ("name", np.array([b"NC_AAA_2001010100000100", b"NC_BBB_2001010100003000"]), "name is of type .S23"),
        ("p_sample", np.array(["100", "-1"]), "p_sample is of type <U3"),
        ("name", np.array(["NC_AAA_2001010100000100", None], object), "not a set of labelled records"),
    ],
)
def test_what_is_wrong_with_an_npz_is_said_with_its_name(tmp_path, key, values, said):
    data = np.random.default_rng(0).standard_normal((2, 300, 3)).astype(np.float32)
    names = np.array(["NC_AAA_2001010100000100", "NC_BBB_2001010100003000"])
    none, channels = np.full(2, np.nan), np.array(["HHE_HHN_HHZ"] * 2)
    plain = {"data": data, "p_sample": np.array([100, -1]), "s_sample": none, "name": names, "channels": channels}
    np.savez(tmp_path / "a.npz", **plain | {key: values})
    with pytest.raises(BadData, match=rf"a\.npz: {said}"):
        labelled_npz.read(tmp_path / "a.npz")


def test_a_damaged_npz_is_named_wherever_it_is_damaged(tmp_path):
    names = np.array(["NC_AAA_2001010100000100"] * 5)
    data = np.random.default_rng(0).standard_normal((5, 300, 3)).astype(np.float32)
    zeros, channels = np.zeros(5), np.array(["HHE_HHN_HHZ"] * 5)
    np.savez_compressed(tmp_path / "a.npz", data=data, p_sample=zeros, s_sample=zeros, name=names, channels=channels)
    whole = (tmp_path / "a.npz").read_bytes()
    for at in range(0, len(whole) - 40, len(whole) // 40):
        (tmp_path / "a.npz").write_bytes(whole[:at] + bytes(40) + whole[at + 40 :])
        with pytest.raises(BadData, match=r"a\.npz: "):
            labelled_npz.read(tmp_path / "a.npz")


def seisbench_traces(rng):
    """Traces as people have them: other orders, rates, lengths and columns; a station of digits, a network NA."""
    common = {"station_network_code": "NA", "station_location_code": "", "trace_channel": "HH"}
    place = {"station_latitude_deg": 46.0, "station_longitude_deg": 13.0, "station_elevation_m": 100.0}
    start = {"trace_start_time": "2020-01-01T00:00:00.500000Z"}
    quake = {"source_id": "ev1", "station_code": "0123", **common, **place, **start}
    return [
        (quake | {"trace_p_arrival_sample": 500, "trace_s_arrival_sample": 900.5}, (3, 3000), 100.0, "ZNE"),
        (quake | {"trace_Pg_arrival_sample": 520, "trace_Pn_arrival_sample": 500}, (3, 2500), 100.0, "ENZ"),
        (quake | {"trace_p_arrival_sample": 600, "trace_S_arrival_sample": 1000}, (3, 6000), 200.0, "Z12"),
        (quake | {"trace_p_arrival_sample": 4000}, (1, 5000), 100.0, "Z"),
        (common | start | {"station_code": "N", "trace_category": "noise"}, (3, 3000), 100.0, "ZNE"),
        (quake, (3, 3000), 100.0, "ZNE"),  # an earthquake, and nothing picked
    ], rng


def write_seisbench(folder, chunk=""):
    import seisbench.data as sbd

    traces, rng = seisbench_traces(np.random.default_rng(1))
    with sbd.WaveformDataWriter(folder / f"metadata{chunk}.csv", folder / f"waveforms{chunk}.hdf5") as writer:
        writer.data_format = {"dimension_order": "CW", "component_order": "ZNE", "unit": "counts"}
        for meta, shape, rate_hz, order in traces:
            told = {"trace_sampling_rate_hz": rate_hz, "trace_component_order": order}
            writer.add_trace(meta | told, rng.standard_normal(shape) + 7)


def test_a_dataset_reads_as_seisbench_reads_it(tmp_path):
    import seisbench.data as sbd

    write_seisbench(tmp_path)
    names = (tmp_path / "metadata.csv").read_text()
    assert "bucket0$0,:3,:3000" in names, "the writer's own blocks"
    theirs = sbd.WaveformDataset(tmp_path, missing_components="pad", component_order="ZNE")
    rows, waveforms, notes = joined(list(labelled_seisbench.read(tmp_path, labelled_seisbench.Cut(100.0, 3000), 2)))
    assert len(rows) == 5
    assert len(notes) == 1
    assert notes[0].endswith("waveforms.hdf5: 1 traces left out: an event without a pick")
    for i, length in ((0, 3000), (1, 2500), (4, 3000)):
        expected = theirs.get_waveforms(i)[:, :length]
        expected = expected - expected.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(waveforms[i, :, :length], expected, atol=1e-6)
    assert not waveforms[1, :, 2500:].any()
    assert rows.stop.tolist() == [3000, 2500, 3000, 3000, 3000]
    np.testing.assert_array_equal(rows.p_sample, [500, 500, 300, 2000, np.nan])
    np.testing.assert_array_equal(rows.s_sample, [900.5, np.nan, 500, np.nan, np.nan])
    assert rows.station.tolist() == ["NA.0123"] * 4 + ["NA.N"]
    assert rows.event.tolist() == ["ev1"] * 4 + [""]
    assert rows.components.tolist() == ["ZNE", "ZNE", "ZNE", "Z", "ZNE"]
    half = np.datetime64("2020-01-01T00:00:00.5", "ns").astype(np.int64)
    assert rows.start_ns.tolist() == [half] * 3 + [half + 20 * NS] + [half], "a longer trace is cut around its pick"
    last = theirs.get_waveforms(3)[0]
    np.testing.assert_allclose(waveforms[3, 0], (last - last.mean())[2000:], atol=1e-6)


def test_chunks_are_read_in_their_order_and_a_missing_one_is_named(tmp_path):
    for chunk in ("2020", "2019"):
        write_seisbench(tmp_path, chunk)
    (tmp_path / "chunks").write_text("2020\n2019\n")
    read = joined(list(labelled_seisbench.read(tmp_path, labelled_seisbench.Cut(100.0, 3000))))
    assert [name.split("/")[0] for name in read.rows.id.tolist()] == ["2019"] * 5 + ["2020"] * 5
    assert len(set(read.rows.id.tolist())) == 10
    (tmp_path / "waveforms2019.hdf5").unlink()
    with pytest.raises(BadData, match=r"waveforms2019\.hdf5 not found"):
        labelled_seisbench.chunks(tmp_path)


def test_a_number_that_is_none_is_named_with_its_line(tmp_path):
    write_seisbench(tmp_path)
    text = (tmp_path / "metadata.csv").read_text().replace("900.5", "soon")
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(BadData, match=r"metadata\.csv, line 2: trace_s_arrival_sample 'soon' is not a number"):
        list(labelled_seisbench.read(tmp_path, labelled_seisbench.Cut(100.0, 3000)))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = write_demo(tmp_path_factory.mktemp("demo") / "archive")
    here = [
        f'archive.root="{folder}/sds"', f'stations.files=["{folder}/stations.xml"]',
        f'compare.reference_events.path="{folder}/truth.hpc"', f'compare.reference_picks.path="{folder}/truth.dat"',
    ]  # fmt: skip
    config = load(CONFIGS / "demo.toml", here)
    labels, sites, shards = labelled_archive.plan(config)
    parts = [labelled_archive.records(config, shard, labels, sites, 100.0) for shard in shards.rows()]
    return config, labels, sites, shards.rows(), parts


def test_the_archive_gives_the_analysts_picks_and_the_waveforms_of_the_pick_stage(demo):
    config, labels, _, shards, parts = demo
    truth = read_reference(config.compare.reference_picks).arrivals
    known = {
        (e, f"XD.{s}", p): t
        for e, s, p, t in zip(
            *(c.tolist() for c in (truth.event, truth.station, truth.phase, truth.time_ns)), strict=True
        )
    }
    rows = joined(parts).rows
    found = {}
    for phase, onset in (("P", rows.p_sample), ("S", rows.s_sample)):
        for i in np.flatnonzero(np.isfinite(onset)).tolist():
            found[str(rows.event[i]), str(rows.station[i]), phase] = int(rows.start_ns[i]) + round(onset[i] * NS / 100)
    assert found.keys() == known.keys(), "every pick of the truth is a label"
    assert max(abs(known[key] - ns) for key, ns in found.items()) <= 1000, "to the microsecond"
    wave, _ = read_shard(config.archive, shards[0], labels.cutting.length_s, 100.0, config.run.span_ns)
    first = parts[0]
    for i in range(len(first.rows)):
        begin = round((int(first.rows.start_ns[i]) - wave.start_ns) * 100 / NS)
        used = slice(int(first.rows.first[i]), int(first.rows.stop[i]))
        same = wave.samples[:, begin + used.start : begin + used.stop]
        np.testing.assert_array_equal(first.waveforms[i, :, used], same)
        assert not first.waveforms[i, :, : used.start].any()
        assert not first.waveforms[i, :, used.stop :].any()


def test_no_record_shows_a_pick_that_is_not_its_own_and_noise_is_far_from_all(demo):
    config, _, _, _, parts = demo
    truth = read_reference(config.compare.reference_picks).arrivals
    rows = joined(parts).rows
    begin, end = rows.spans_ns()
    for i in range(len(rows)):
        station = np.array([f"XD.{code}" for code in truth.station.tolist()]) == rows.station[i]
        if rows.event[i] == "":
            assert not ((truth.time_ns > begin[i] - 30 * NS) & (truth.time_ns < end[i] + 30 * NS)).any()
        else:
            others = truth.time_ns[station & (truth.event != rows.event[i])]
            assert not ((others >= begin[i]) & (others < end[i])).any()
    assert (rows.event == "").sum() >= 100
    onset = np.fmin(rows.p_sample, rows.s_sample)[rows.event != ""]
    assert np.ptp(onset) > 1500, "the first pick lies anywhere in 20 s"
    assert len(set(onset.tolist())) > 100


def test_shorter_records_of_an_archive_show_their_picks_too(demo):
    """The first pick lies before the middle, whatever the length."""
    config, _, _, _, parts = demo
    short = LabelledSet(name="short", archive=True, length_s=60.0)
    rows, whole = (joined(list(each)).rows for each in (adapt_data._parts(short, config), parts))
    assert rows.has_pick.sum() >= 0.95 * whole.has_pick.sum()
    onset = np.fmin(rows.p_sample, rows.s_sample)[rows.has_pick] / 6000
    assert onset.min() > 0.39
    assert onset.max() < 0.54


def test_a_shard_gives_the_same_records_again(demo):
    config, labels, sites, shards, parts = demo
    again = labelled_archive.records(config, shards[3], labels, sites, 100.0)
    np.testing.assert_array_equal(again.waveforms, parts[3].waveforms)
    assert again.rows.id.tolist() == parts[3].rows.id.tolist()


@pytest.mark.skipif(not DATA.exists(), reason="the archive of Ridgecrest is not here")
def test_a_reference_without_picks_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match=r"comcat.*no picks, and labels are picks.*compare\.reference_picks"):
        labelled_archive.plan(load(CONFIGS / "ridgecrest.toml"))


@pytest.mark.skipif(not DATA.exists(), reason="the archive of Ridgecrest is not here")
def test_noise_can_be_had_from_an_archive_without_picks():
    config = load(CONFIGS / "ridgecrest.toml")
    shard = Shard.named("2019-07-04/CI.CCC..HH")
    origins = read_reference(config.compare.reference_events).events.time_ns
    cutting = labelled_archive.Cutting(length_s=70, noise_s=70, quiet_s=10)
    rows, waveforms, _ = labelled_archive.noise(config, shard, origins, 5, 100.0, cutting)
    begin, end = rows.spans_ns()
    assert len(rows) == 5
    assert waveforms.any(axis=2).all()
    assert not ((origins > begin[:, None] - 10 * NS) & (origins < end[:, None] + 10 * NS)).any()
    order = np.argsort(begin)
    assert (end[order][:-1] <= begin[order][1:]).all(), "none overlaps another"


def some(n, length=200, seed=0):
    rng = np.random.default_rng(seed)
    rows = [Row(f"r{i}", f"é{i}", "XX.A", "XX.A..HH", i * NS, 100.0, 50.0 + i, np.nan, "ZNE", "test") for i in range(n)]
    return part([(row, rng.standard_normal((3, length)).astype(np.float32)) for row in rows], length)


def fetch(path, seed):
    cache = labelled_cache.read(path)
    index = np.random.default_rng(seed).integers(0, len(cache), 50)
    return index, cache.read(index)


def test_a_cache_gives_back_what_was_written_to_any_number_of_processes(tmp_path):
    whole, path = some(20), tmp_path / "set.h5"
    written = labelled_cache.write(path, [whole], {"from": "test"})
    halves = [Part(whole.rows.take(s), whole.waveforms[s]) for s in (slice(0, 7), slice(7, 20))]
    assert labelled_cache.write(tmp_path / "again.h5", halves).digest == written.digest
    cache = labelled_cache.read(path)
    cache.verify()
    assert (cache.digest, cache.length, dict(cache.about)) == (written.digest, 200, {"from": "test"})
    for name, values in cache.rows.as_dict().items():
        np.testing.assert_array_equal(values, getattr(whole.rows, name), name)
    with ProcessPoolExecutor(3, get_context("fork")) as pool:
        for index, waveforms in pool.map(fetch, [path] * 6, range(6)):
            np.testing.assert_array_equal(waveforms, whole.waveforms[index])
    with h5py.File(path) as file:
        assert file["waveforms"].chunks == (1, 3, 200)
    with pytest.raises(IndexError, match="has 20 records, asked for 3 to 20"):
        cache.read(np.array([3, 20]))


def test_a_cache_of_another_version_or_content_is_refused_by_name(tmp_path):
    path = tmp_path / "set.h5"
    labelled_cache.write(path, [some(3)])
    with h5py.File(path, "r+") as file:
        file["waveforms"][1, 2, 3] += 1
    with pytest.raises(BadData, match=r"set\.h5: its content is not what was written"):
        labelled_cache.read(path).verify()
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 2
    with pytest.raises(ConfigError, match=r"set\.h5: a cache of format version 2, this program reads version 1"):
        labelled_cache.read(path)
    (tmp_path / "no.h5").write_text(json.dumps({}))
    with pytest.raises(ConfigError, match=r"no\.h5: not a readable cache"):
        labelled_cache.read(tmp_path / "no.h5")


def test_what_does_not_belong_together_is_not_published(tmp_path):
    path = tmp_path / "set.h5"
    for parts, message in (
        ([some(2), some(2)], "2 ids are of several records"),
        ([some(2), some(2, length=100)], "records of 200 and of 100 samples"),
        ([], "not one labelled record"),
    ):
        with pytest.raises(ConfigError, match=message):
            labelled_cache.write(path, parts)
        assert list(tmp_path.iterdir()) == []
