"""Command `adapt` with a PhaseNO: what it is shown are the networks and windows of picking; same bytes; refusals."""

import json
import shutil
from dataclasses import replace
from datetime import date
from itertools import product

import numpy as np
import pytest
import torch

from pipeline import config as configs
from pipeline.adaptdir import AdaptDir, Unit
from pipeline.cluster import stop
from pipeline.cluster.world import Alone
from pipeline.config import Network
from pipeline.errors import ConfigError
from pipeline.formats import labelled_cache, tables
from pipeline.formats.labelled_rows import Part, Row, table
from pipeline.maths import augment
from pipeline.models import adapters, objectives, phaseno, weights
from pipeline.models.adapters import Recipe
from pipeline.models.phaseno import PhaseNO
from pipeline.records import NS, RecordPicks, Shard, Stations
from pipeline.stages import adapt, adapt_data, adapt_networks, adapt_score, pick_network
from pipeline.stages.adapt_crops import PLAIN, NetworkCrops
from tests.adaptation_cases import snapshot
from tests.phaseno_cases import known_numbers
from tests.worlds import srun

SAMPLES = 1500
SHAPE = {"modes": 4, "width": 4, "samples": SAMPLES, "lengths": [375, 100]}
N, EVENTS, START_NS = 3000, 6, int(np.datetime64("2019-01-01", "ns").astype(np.int64))
PLACES = {"AA": (46.0, 13.0), "BB": (46.1, 13.1), "CC": (46.2, 13.0), "DD": (46.3, 13.6)}
ENOUGH = ("epochs=2", "seeds=[1]", "bootstrap_samples=100", "baselines=[]", "stalta=false", "control=false")
FEW = ("batch=2", "rank=2")
CONFIG = """
[run]
name = "small"
start = 2019-01-01T00:00:00Z
end = 2019-01-02T00:00:00Z
[archive]
root = "nowhere"
[stations]
files = ["nowhere.csv"]
[pick]
weight = "phaseno/tiny"
[[pick.networks]]
name = "made"
stations = ["XX.*"]
center_latitude_deg = 46.15
center_longitude_deg = 13.2
range_km = 25.0
[associate]
center_latitude_deg = 46.15
center_longitude_deg = 13.2
x_km = [-60.0, 60.0]
y_km = [-60.0, 60.0]
[adapt]
learning_rate = 1e-2
[[adapt.sets]]
name = "made-up"
seisbench = "set"
length_s = 30
split = "event"
folds = 3
"""


def earthquakes(rng):
    """Of each record what SeisBench calls its metadata, and samples: P and S reach the stations one after another."""
    for event, (k, (code, (latitude, longitude))) in product(range(EVENTS), enumerate(PLACES.items())):
        samples, p, cut = rng.standard_normal((3, N)), 900 + 90 * event + 60 * k, slice(None)
        wave = np.exp(-np.arange(300) / 80) * np.sin(np.arange(300) * 0.7)
        samples[0, p : p + 300] += 20 * wave
        samples[1:, p + 250 + 40 * k : p + 550 + 40 * k] += 30 * wave
        if code == "CC":
            samples[1:] = 0
        if code == "DD":  # nothing is recorded before S
            cut = slice(p + 200, p + 1200)
        start_ns = START_NS + event * 600 * NS + k * 1_234_567_890 + (cut.start or 0) * NS // 100
        onsets = {"p": p, "s": p + 250 + 40 * k}
        yield {
            "source_id": f"e{event}", "station_network_code": "XX", "station_code": code, "trace_channel": "HH",
            "station_latitude_deg": latitude, "station_longitude_deg": longitude,
            "trace_start_time": f"{np.datetime64(start_ns, 'ns')}Z", "trace_sampling_rate_hz": 100.0,
            "trace_name_original": f"{code}{event}", "trace_component_order": "ZNE",
            **{f"trace_{name}_arrival_sample": at - cut.start if cut.start else at for name, at in onsets.items()},
        }, samples[:, cut]  # fmt: skip


def write(folder, without=()):
    import seisbench.data as sbd

    folder.mkdir()
    with sbd.WaveformDataWriter(folder / "metadata.csv", folder / "waveforms.hdf5") as writer:
        writer.data_format = {"dimension_order": "CW", "component_order": "ZNE"}
        for meta, samples in earthquakes(np.random.default_rng(3)):
            writer.add_trace({key: value for key, value in meta.items() if key not in without}, samples)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with a data set, a network of random numbers, and a configuration."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("adapt")
    write(folder / "set")
    (folder / "adapt.toml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCOLAT_WEIGHTS", str(folder / "store"))
        network = known_numbers(PhaseNO(4, 4, SAMPLES, (375, 100)))
        weights.keep("phaseno/tiny", network.state_dict(), SHAPE, {"citation": "ours", "licence": "ours"})
    return folder


@pytest.fixture(autouse=True)
def _store(here, monkeypatch):
    monkeypatch.setenv("ORCOLAT_WEIGHTS", str(here / "store"))


def config(here, *more):
    given = [each if each.startswith("pick.") else f"adapt.{each}" for each in (*ENOUGH, *FEW, *more)]
    return configs.load(here / "adapt.toml", given)


@pytest.fixture(scope="module")
def done(here):
    """An adaptation by one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCOLAT_WEIGHTS", str(here / "store"))
        folder = AdaptDir(here / "alone")
        assert adapt.run(folder, config(here), Alone())
        return folder


def crops_of(here, done, *more, control=False):
    sets, chosen = adapt_data.load(done, config(here)), config(here, *more)
    unit = Unit("lora", 0, 1, control)
    return NetworkCrops(sets, weights.load("phaseno/tiny"), chosen.adapt, unit, chosen.pick.networks)


def test_it_learns_and_every_record_is_tested_once(here, done):
    (one,) = adapt_data.load(done, config(here))
    tested = []
    for fold in range(3):
        mine = one.cache.rows.id[one.of(fold, 2)].tolist()
        found = tables.read(done.picks(Unit("lora", fold, 1).id), RecordPicks)
        assert set(found.record[found.how == "weak"].tolist()) == set(mine), "the network says something everywhere"
        assert set(found.how.tolist()) <= {"given", "tuned", "weak"}
        tested += mine
        history = json.loads(done.history(Unit("lora", fold, 1)).read_text())
        assert min(history["validation"]) < history["untrained"]
    assert sorted(tested) == sorted(one.cache.rows.id.tolist())
    told = json.loads(done.scores.read_text())
    assert {row["n_records"] for row in told["scores"]} == {EVENTS * len(PLACES)}
    assert any("is fed in its own way alone" in note for note in told["notes"])


def test_a_unit_that_is_stopped_goes_on_to_the_same_bytes(here, done, tmp_path, monkeypatch):
    """After its first epoch; the other units are there."""
    folder, unit = AdaptDir(tmp_path / "stopped"), Unit("lora", 1, 1)
    shutil.copytree(done.root, folder.root)
    shutil.rmtree(folder.adapter(unit).parent)
    for path in (folder.picks(unit.id), folder.kept, folder.scores, folder.report):
        path.unlink()
    monkeypatch.setattr(stop, "asked", lambda: "SIGUSR1" if folder.checkpoint(unit).exists() else "")
    assert not adapt.run(folder, config(here), Alone())
    assert folder.checkpoint(unit).exists()
    assert not folder.adapter(unit).exists()
    monkeypatch.setattr(stop, "asked", lambda: "")
    assert adapt.run(folder, config(here), Alone())
    assert snapshot(folder) == snapshot(done)


def test_two_ranks_give_the_same_bytes(here, done, tmp_path):
    """Of two trainings, where the others are there."""
    folder, some = AdaptDir(tmp_path / "ranks"), (Unit("lora", fold, 1) for fold in (0, -1))
    shutil.copytree(done.root, folder.root)
    for unit in some:
        shutil.rmtree(folder.adapter(unit).parent)
        folder.picks(unit.id).unlink(missing_ok=True)
    for path in (folder.kept, folder.scores, folder.report):
        path.unlink()
    assert srun(2, lambda world: adapt.run(folder, config(here), world)) == [True] * 2
    assert snapshot(folder) == snapshot(done)


def test_the_kept_adapter_is_a_weight_of_networks(here, done):
    name = adapt.weight(done, config(here))
    assert name == f"phaseno/tiny+file:{done.kept}"
    made, base = weights.load(name), weights.load("phaseno/tiny")
    assert type(made) is PhaseNO
    assert any(not torch.equal(a, b) for a, b in zip(made.parameters(), base.parameters(), strict=True))
    before = config(here)
    after = before.model_copy(update={"pick": before.pick.model_copy(update={"weight": name})})
    assert [each.weight for each in after.pick.of_networks] == [name]


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("recipe", [Recipe("lora", rank=2), Recipe("adapter", targets=("gno*.aggre",)), Recipe("head")])
def test_before_training_the_picks_are_those_of_the_base(here, done, recipe, merged):
    """To the bit, though what is frozen does not require gradients any more."""
    (one,) = adapt_data.load(done, config(here))
    given = adapt_score.Given(one.cache, one.of(0, 2))
    model = weights.load("phaseno/tiny")
    put = adapters.attach(model, recipe)
    if put.mergeable and merged:
        put.merge()
    at = {"P": 0.4, "S": 0.4}
    both = (adapt_score.Scored(each, config(here)) for each in (model, weights.load("phaseno/tiny")))
    ours, base = (scored.picks(given, {"here": at})["here"] for scored in both)
    assert len(base) > 4
    for name in ("record", "phase", "time_s", "probability"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(base, name))


def test_a_crop_is_a_window_of_the_picker(here, done):
    """The same samples, gaps, substituted components and places as `phaseno` makes of the whole waveforms."""
    crops, seen = crops_of(here, done), set()
    model = weights.load("phaseno/tiny")
    for k in range(20):
        s, group = crops._training[k % len(crops._training)]
        crop, again = (crops._crop(s, group, PLAIN, np.random.default_rng(k)) for _ in range(2))
        record = adapt_networks.record(crops._sets[s].cache, group)
        begin_ns, rng = min(w.start_ns for w in record.waveforms), np.random.default_rng(k)
        drawn = int(rng.integers(len(record)))
        row = crops._record(s, int(group.index[drawn]))
        start = round((record.waveforms[drawn].start_ns - begin_ns) / NS * 100) + augment.crop_start(row, SAMPLES, rng)
        here_, there_ = slice(start, start + SAMPLES), phaseno.together(record.waveforms, begin_ns)
        traces = phaseno.substituted(there_[0], record.waveforms, there_[2], here_)
        valid = there_[1][:, here_]
        heard = valid.any(axis=1)
        np.testing.assert_array_equal(crop.valid, np.pad(valid, ((0, 0), (0, SAMPLES - valid.shape[1])))[heard])
        np.testing.assert_array_equal(crop.records[..., : traces.shape[2]], traces[heard])
        assert again.answers.tobytes() == crop.answers.tobytes()
        where = phaseno.places(record.latitude_deg, record.longitude_deg, record.center_deg)
        answer = phaseno.answer_to(model, traces, valid, where, record.range_km)[heard]
        batch = [torch.from_numpy(each) for each in objectives.network_batch([crop])]
        with torch.no_grad():
            ours = torch.sigmoid(model(phaseno.normalised(batch[0], batch[1]), batch[2], batch[3])).numpy()
        np.testing.assert_array_equal(ours[~np.isnan(answer)], answer[~np.isnan(answer)])
        seen.add(int(heard.sum()))
    assert seen == {3, 4}, "DD has no data in some windows"


def test_the_loss_of_a_batch_is_that_of_its_networks(here, done):
    """By hand: normalised over usable samples, places and edges as defined, cross-entropy with 5 for what is there."""
    crops, rng = crops_of(here, done, "augment.gap=0.5", "augment.drop=0.5"), np.random.default_rng(1)
    model = weights.load("phaseno/tiny").double()
    some = [crops._crop(*crops._training[k], crops._how, rng) for k in (0, 1, 0)]
    assert not all(crop.valid.all() for crop in some)
    total, n = 0.0, 0
    for crop in some:
        traces = np.zeros(crop.records.shape)
        for station, component in product(range(len(traces)), range(3)):
            valid = crop.valid[station]
            kept = crop.records[station, 2 - component, valid].astype(float)
            traces[station, component, valid] = (kept - kept.mean()) / (kept.std() + 1e-6) / 10
        place = np.stack([crop.longitude_deg - 13.2, crop.latitude_deg - 46.15], axis=1) / 2 + 0.5
        pairs = product(range(len(place)), repeat=2)
        edges = [(j, i) for i, j in pairs if 222 * np.hypot(*(place[i] - place[j])) <= 25]
        logits = model(torch.from_numpy(traces), torch.from_numpy(place), torch.tensor(edges).T).detach().numpy()
        y = crop.answers
        entropy = 5 * y * np.logaddexp(0, -logits) + (1 - y) * np.logaddexp(0, logits)
        total, n = total + entropy.mean() * len(place), n + len(place)
    batch = [torch.from_numpy(each) for each in objectives.network_batch(some)]
    assert len(batch[0]) == n
    wide = [each.double() if each.dtype == torch.float32 else each for each in batch]
    assert float(objectives.objective(model)(*wide).detach()) == pytest.approx(total / n, rel=1e-6)


def test_places_and_range_are_those_of_picking(here, done):
    (one,) = adapt_data.load(done, config(here))
    group = adapt_networks.groups(one.cache.rows, np.arange(4), config(here).pick.networks)[0]
    ours = adapt_networks.record(one.cache, group)
    ids = [f"XX.{code}" for code in PLACES]
    latitude, longitude = np.array(list(PLACES.values())).T
    sites = Stations(np.array(ids), latitude, longitude, *np.zeros((1, 4)), *np.array([[0] * 4, [2**62] * 4]))
    shards = [Shard(date(2019, 1, 1), f"{id_}.", "HH") for id_ in ids]
    hour = Shard.of_network(date(2019, 1, 1), "made", 0)
    theirs = pick_network._record(config(here), hour, shards, ours.waveforms, sites)
    for name in ("latitude_deg", "longitude_deg"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert (ours.center_deg, ours.range_km) == (theirs.center_deg, theirs.range_km)


def test_the_control_has_labels_elsewhere(here, done):
    plain, wrong = crops_of(here, done), crops_of(here, done, control=True)
    right, moved = (np.array([each._record(0, i).p for i in range(24)]) for each in (plain, wrong))
    assert np.nanmedian(abs(right - moved)) > 300
    group = plain._training[0]
    assert not np.array_equal(*(each._crop(*group, PLAIN, np.random.default_rng(0)).answers for each in (plain, wrong)))


def test_validation_is_always_the_same_and_training_that_of_its_generator(here, done):
    crops = crops_of(here, done)
    for one, other in zip(crops.validation(2), crops.validation(2), strict=True):
        assert all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))
    epochs = [list(crops.training(np.random.default_rng(seed), 2)) for seed in (1, 1, 2)]
    first = [[each.tobytes() for batch in epoch for each in batch] for epoch in epochs]
    assert first[0] == first[1] != first[2]
    assert {len(batch[0]) for batch in epochs[0]} <= set(range(1, 9)), "two networks of four stations at most"


def row(id_, event="", second=0, station="YY.A", band="HH", place=(46.0, 13.0), stop=3000):
    start_ns = START_NS + round(second * NS)
    p, s = (500.0, 900.0) if event else (np.nan, np.nan)
    channel = f"{station}..{band}"
    return Row(id_, event, station, channel, start_ns, 100.0, p, s, "ZNE", "made up", *place, 0.0, 0, stop)


ROWS = [
    row("a1", "e1"), row("b1", "e1", 8, "YY.B"), row("a1low", "e1", 0, "YY.A", "EH"),  # two bands of A
    row("a1again", "e1", 15),  # the same channel once more
    row("far", "e1", 3, "YY.F", place=(49.0, 13.0)), row("x1", "e1", 1, "XX.X"),
    row("n1", second=2000), row("n2", second=2020, station="YY.B"), row("n3", second=2049, station="YY.C"),
    row("n4", second=2080, station="YY.D"), row("e2", "e2", 2000),
]  # fmt: skip
TOGETHER = {("a1", "a1low", "b1"), ("a1again",), ("far",), ("x1",), ("n1", "n2", "n3"), ("n4",), ("e2",)}
XX = Network(name="made", stations=("XX.*",), center_latitude_deg=46.15, center_longitude_deg=13.2)


@pytest.mark.parametrize("seed", range(3))
def test_who_is_together(seed):
    """Sorted by channel, whatever the order of the rows; each record once."""
    rows = table([ROWS[k] for k in np.random.default_rng(seed).permutation(len(ROWS))])
    found = adapt_networks.groups(rows, np.arange(len(rows)), [XX])
    by_name = {tuple(sorted(rows.id[each.index].tolist())): each for each in found}
    assert set(by_name) == TOGETHER
    assert rows.id[by_name["a1", "a1low", "b1"].index].tolist() == ["a1low", "a1", "b1"]
    assert (by_name["x1",].center_deg, by_name["x1",].range_km) == ((46.15, 13.2), 30.0)
    assert by_name["far",].center_deg == (49.0, 13.0)


@pytest.mark.parametrize(
    ("without", "told"),
    [
        (
            ("station_latitude_deg",),
            r"24 of 24 records have no coordinates, the first is 'AA0', but phaseno/tiny",
        ),
        (
            ("trace_start_time",),
            r"adapt.sets 'made-up': 24 of 24 records have no time, the first is 'AA0'.*trace_start_time",
        ),
    ],
)
def test_records_without_place_or_time_are_refused(here, tmp_path, without, told):
    write(tmp_path / "set", without)
    (tmp_path / "adapt.toml").write_text(CONFIG.replace('"event"', '"station"'))
    with pytest.raises(ConfigError, match=told):
        adapt.run(AdaptDir(tmp_path / "run"), config(tmp_path), Alone())


def test_other_settings_are_refused_before_anything_is_written(here, tmp_path):
    wanted = config(here)
    half = wanted.adapt.sets[0].model_copy(update={"rate_hz": 50.0})
    odd = wanted.model_copy(update={"adapt": wanted.adapt.model_copy(update={"sets": (half,)})})
    with pytest.raises(ConfigError, match=r"'made-up': rate_hz = 50, but phaseno/tiny takes records at 100 Hz"):
        adapt.run(AdaptDir(tmp_path / "run"), odd, Alone())
    with pytest.raises(ConfigError, match=r"adapt\.amp: phaseno/tiny computes in FP32 alone"):
        adapt.run(AdaptDir(tmp_path / "run"), config(here, "amp=true"), Alone())
    assert not (tmp_path / "run").exists()


def test_a_station_outside_of_its_network_is_refused(here, done):
    (one,) = adapt_data.load(done, config(here))
    rows = replace(one.cache.rows, latitude_deg=one.cache.rows.latitude_deg + 1.0)
    moved = replace(one, cache=replace(one.cache, rows=rows))
    with pytest.raises(ConfigError, match=r"XX\.CC is 1\.05 degrees from the middle of network 'made'"):
        adapt_networks.require(config(here), [moved])


def test_a_picker_of_stations_may_have_one_of_networks_beside_it(here, done):
    """A PhaseNO among the baselines hears networks, too."""
    (one,) = adapt_data.load(done, config(here))
    cache = labelled_cache.write(here / "part.h5", [Part(one.cache.rows, one.cache.read(np.arange(24)))])
    given = adapt_score.Given(cache, np.array([9, 2, 11, 0, 8, 1, 10]))
    scored = adapt_score.Scored(weights.load("phaseno/tiny"), config(here))
    places = [rows.tolist() for rows, _, _ in scored.curves(given)]
    assert sorted(row for rows in places for row in rows) == list(range(7))
    assert sorted(map(len, places)) == [3, 4]
    assert adapt_score.slug("phaseno/tiny") == "phaseno-tiny"
