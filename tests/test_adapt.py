"""Command `adapt`: the same bytes for any number of ranks and after any stop; leaks and other bases are refused."""

import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import seisbench.models as sbm
import torch

from pipeline import config as configs
from pipeline.adaptdir import AdaptDir, Unit, final, require_same, units
from pipeline.cli import main
from pipeline.cluster import stop
from pipeline.cluster.world import Alone
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.formats import labelled_cache, tables
from pipeline.formats.labelled_rows import Part
from pipeline.maths import signals
from pipeline.maths.filters import Filter
from pipeline.maths.picking_scores import Found, Rule, Truth
from pipeline.models import adapters, weights
from pipeline.records import RecordPicks, Waveform
from pipeline.stages import adapt, adapt_data, adapt_score, adapt_tables, adapt_train
from pipeline.stages.adapt_score import Feeding
from tests.adaptation_cases import snapshot
from tests.worlds import srun

RATE_HZ, N = 100.0, 4000
ENOUGH = ("epochs=1", "seeds=[1]", "bootstrap_samples=100", "feeding=false", "baselines=[]", "stalta=false")
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
weight = "file:net.pt"
[associate]
center_latitude_deg = 35.7
center_longitude_deg = -117.55
x_km = [-60.0, 60.0]
y_km = [-60.0, 60.0]
[[adapt.sets]]
name = "made-up"
npz = "records.npz"
folds = 3
"""


def records(path, stations=6, each=2):
    """Bursts in noise: P on the vertical, S three seconds later on the horizontals, anywhere in the record."""
    rng = np.random.default_rng(3)
    data, p, s, names = [], [], [], []
    for k in range(stations * each):
        samples = rng.standard_normal((N, 3)).astype(np.float32)
        at = int(rng.integers(1000, 2500))
        decay = np.exp(-np.arange(300) / 80) * np.sin(np.arange(300) * 0.7)
        samples[at : at + 300, 2] += 20 * decay
        samples[at + 300 : at + 600, :2] += 30 * decay[:, None]
        data.append(samples)
        p.append(at)
        s.append(at + 300)
        names.append(f"NC_S{k % stations:02d}_201901010{k // 6}{10 * (k % 6):02d}0000")
    channels = np.full(len(data), "HHE_HHN_HHZ")
    np.savez(path, data=np.stack(data), p_sample=p, s_sample=s, name=names, channels=channels)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with records, a network of random numbers, and a configuration."""
    folder = tmp_path_factory.mktemp("adapt")
    records(folder / "records.npz")
    torch.manual_seed(0)
    model = sbm.PhaseNet(phases="NPS")
    torch.save(model.state_dict(), folder / "net.pt")
    (folder / "net.json").write_text(json.dumps({"model_args": {"phases": "NPS"}, "class": "PhaseNet"}))
    (folder / "adapt.toml").write_text(CONFIG)
    return folder


@pytest.fixture(autouse=True)
def _store(here, monkeypatch):
    monkeypatch.setenv("ORCOLAT_WEIGHTS", str(here / "store"))


def config(here, *more: str) -> Config:
    return configs.load(here / "adapt.toml", [f"adapt.{each}" for each in (*ENOUGH, *more)])


@pytest.fixture(scope="module")
def done(here):
    """An adaptation by one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCOLAT_WEIGHTS", str(here / "store"))
        folder = AdaptDir(here / "alone")
        assert adapt.run(folder, config(here), Alone())
        return folder


def test_every_record_is_tested_once_by_networks_that_have_not_seen_it(here, done):
    (one,) = adapt_data.load(done, config(here))
    tested = np.concatenate([one.of(fold, 2) for fold in range(3)])
    assert sorted(tested.tolist()) == list(range(12))
    for fold in range(3):
        stations = [set(one.cache.rows.station[one.of(fold, part)].tolist()) for part in range(3)]
        assert not stations[0] & stations[1]
        assert not stations[0] & stations[2]
        found = tables.read(done.picks(Unit("lora", fold, 1).id), RecordPicks)
        assert set(found.record.tolist()) <= set(one.cache.rows.id[one.of(fold, 2)].tolist())


def test_the_tables_have_every_method_and_the_control(done):
    told = json.loads(done.scores.read_text())
    ours = {"lora, tuned", "lora", "tuned-frozen", "frozen, tuned thresholds", "frozen"}
    assert {row["method"] for row in told["scores"]} == ours
    assert {row["n_records"] for row in told["scores"]} == {12}
    assert {row["ours"] for row in told["control"]["rows"]} == {"control"}
    assert told["shares"]["base"] == sum(p.numel() for p in sbm.PhaseNet(phases="NPS").parameters())
    assert len(told["curves"]) == 2, "of the first fold: the method and its control"


@pytest.mark.parametrize("ranks", [2, 3])
def test_any_number_of_ranks_gives_the_same_bytes(here, done, tmp_path, ranks):
    folder = AdaptDir(tmp_path / "ranks")
    assert srun(ranks, lambda world: adapt.run(folder, config(here), world)) == [True] * ranks
    assert snapshot(folder) == snapshot(done)


def test_a_stopped_adaptation_goes_on_to_the_same_bytes(here, done, tmp_path, monkeypatch):
    folder, looks = AdaptDir(tmp_path / "stopped"), iter(range(1000))
    monkeypatch.setattr(stop, "asked", lambda: "SIGUSR1" if next(looks) > 8 else "")
    assert not adapt.run(folder, config(here), Alone())
    assert not folder.kept.exists()
    monkeypatch.undo()
    monkeypatch.setenv("ORCOLAT_WEIGHTS", str(here / "store"))
    assert adapt.run(folder, config(here), Alone())
    assert snapshot(folder) == snapshot(done)


def test_again_is_nothing_to_do(here, done, monkeypatch):
    before = snapshot(done)
    monkeypatch.setattr("pipeline.stages.adapt_train.train", None)
    assert adapt.run(done, config(here), Alone())
    assert snapshot(done) == before


def test_another_configuration_is_refused(here, done):
    with pytest.raises(ConfigError, match="begun with another configuration"):
        adapt.run(done, config(here, "rank=4"), Alone())


def test_another_machine_may_go_on(here, done):
    other = configs.load(here / "adapt.toml", [*(f"adapt.{each}" for each in ENOUGH), "compute.threads=2"])
    assert adapt.run(done, other, Alone())


def test_the_adapter_picks_under_its_name(here, done):
    weight = f"file:{here / 'net.pt'}"
    made = weights.load(f"{weight}+file:{done.kept}")
    assert type(made) is sbm.PhaseNet, "merged"
    base = weights.load(weight).state_dict()
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, base[name])}
    assert changed
    assert not any("running" in name or "bn" in name for name in changed)
    assert adapters.read(done.kept).about["unit"]["fold"] == final(config(here)).fold


def test_a_name_puts_it_into_the_store_and_a_taken_one_is_refused(here, tmp_path):
    named = config(here, "name=here-lora", "control=false")
    assert adapt.run(AdaptDir(tmp_path / "one"), named, Alone())
    assert (here / "store" / "adapters" / "here-lora.safetensors").exists()
    other = config(here, "name=here-lora", "control=false", "rank=2")
    with pytest.raises(ConfigError, match=r"here-lora\.safetensors: there is another adapter of that name"):
        adapt.run(AdaptDir(tmp_path / "two"), other, Alone())


def test_a_leak_is_refused_by_name(here, tmp_path):
    """One waveform under two names, at two stations."""
    with np.load(here / "records.npz") as file:
        values = dict(file)
    values["data"][1] = values["data"][0]
    np.savez(tmp_path / "records.npz", **values)
    leaky = config(here).adapt.sets[0].model_copy(update={"npz": tmp_path / "records.npz"})
    wanted = config(here)
    wanted = wanted.model_copy(update={"adapt": wanted.adapt.model_copy(update={"sets": (leaky,)})})
    with pytest.raises(ConfigError, match=r"leaks.*waveform .*NC_S0[01].* = .*NC_S0[01]"):
        adapt.run(AdaptDir(tmp_path / "run"), wanted, Alone())


def test_the_control_has_labels_elsewhere(here, done):
    from pipeline.stages.adapt_crops import Crops

    model = weights.load(f"file:{here / 'net.pt'}")
    sets = adapt_data.load(done, config(here))
    plain, wrong = (Crops(sets, model, config(here).adapt, Unit("lora", 0, 1, control)) for control in (False, True))
    right, moved = plain._record(0, 0), wrong._record(0, 0)
    np.testing.assert_array_equal(right.samples, moved.samples)
    assert moved.s - moved.p == pytest.approx(right.s - right.p)
    away = [abs(wrong._record(0, i).p - plain._record(0, i).p) for i in range(12)]
    assert np.median(away) > 300
    assert wrong._record(0, 0).p == moved.p, "always the same"


def test_records_at_another_rate_give_picks_in_their_own_time():
    t = np.arange(6000) / 100.0
    wave = np.sin(2 * np.pi * 5 * t).astype(np.float32)
    given = Waveform(np.stack([wave] * 3), np.ones(6000, np.bool_), 0, 100.0, (True, True, True))
    twice = adapt_score.feed(given, Feeding(rate=2.0), 100.0)
    assert (len(twice), twice.rate_hz) == (11_999, 100.0)
    spectrum = np.abs(np.fft.rfft(twice.samples[0]))
    assert spectrum.argmax() / 119.99 == pytest.approx(2.5, abs=0.01), "called 100 Hz, 5 Hz are 2.5 Hz"
    high = adapt_score.feed(given, Feeding(filter=Filter("highpass", (20.0,))), 100.0)
    assert np.abs(high.samples[:, 1000:]).max() < 0.01


def test_a_lone_component_is_repeated_and_two_are_not():
    wave = np.arange(600, dtype=np.float32).reshape(3, 200)
    alone = Waveform(wave * np.float32([[1], [0], [0]]), np.ones(200, np.bool_), 0, 100.0, (True, False, False))
    np.testing.assert_array_equal(signals.repeated(alone).samples, np.stack([wave[0]] * 3))
    two = Waveform(wave, np.ones(200, np.bool_), 0, 100.0, (True, True, False))
    assert signals.repeated(two) is two


def test_the_cache_is_what_was_read(here, done):
    cache = labelled_cache.read(done.records("made-up"))
    with np.load(here / "records.npz") as file:
        raw = np.moveaxis(file["data"], 1, 2)[:, [2, 1, 0]]
    shown = raw - raw.mean(axis=2, keepdims=True)
    np.testing.assert_allclose(cache.read(np.arange(12)), shown, atol=1e-4)


def test_the_command_says_what_came_out(here, tmp_path, capsys):
    more = [word for each in ENOUGH for word in ("--set", f"adapt.{each}")]
    given = ["adapt", str(here / "adapt.toml"), "--run-dir", str(tmp_path / "run"), "--no-catalogues", *more]
    assert main(given) == 0
    out = capsys.readouterr().out
    assert "adapter    file:" in out
    assert "report/index.html" in out


def test_all_units_are_named(here):
    names = [unit.id for unit in units(config(here, "seeds=[1,2]"))]
    assert len(set(names)) == len(names) == 3 * 2 * 2 + 1
    assert names[-1] == "lora-all-seed1"


def test_catalogues_are_compared_also_where_the_reference_has_no_picks():
    before, after = ({"events": dict.fromkeys(("recall", "precision", "f1"), x), "picks": None} for x in (0.5, 0.6))
    rows = adapt_tables.catalogue_rows(before, after)
    assert [row["name"] for row in rows] == ["events: recall", "events: precision", "events: f1"]
    assert {(row["before"], row["after"]) for row in rows} == {(0.5, 0.6)}


def two_sets(here, *more: str) -> Config:
    """The records as one set of three folds, and others at other stations and times as one of four."""
    if not (here / "others.npz").exists():
        with np.load(here / "records.npz") as file:
            values = dict(file)
        values["data"] = values["data"][:, ::-1].copy()
        values["p_sample"], values["s_sample"] = N - 1 - values["s_sample"], N - 1 - values["p_sample"]
        values["name"] = [f"NN{name[2:].replace('20190101', '20190301')}" for name in values["name"].tolist()]
        np.savez(here / "others.npz", **values)
    wanted = config(here, *more)
    (one,) = wanted.adapt.sets
    other = one.model_copy(update={"name": "others", "npz": here / "others.npz", "folds": 4})
    return wanted.model_copy(update={"adapt": wanted.adapt.model_copy(update={"sets": (one, other)})})


def test_a_record_is_picked_on_once_where_sets_have_different_folds(here, tmp_path):
    wanted, folder = two_sets(here), AdaptDir(tmp_path)
    adapt_data.prepare(folder, wanted)
    sets = adapt_data.load(folder, wanted)

    def one_each(given, tuned):
        n = len(given.index)
        return dict.fromkeys(adapt_score.HOWS, Found(np.arange(n), np.full(n, "P"), np.zeros(n), np.ones(n)))

    parts = [adapt_score.every(sets, fold, lambda _: {}, one_each)[0] for fold in adapt_tables.folds(wanted)]
    found = RecordPicks.concat(parts)
    seen = sorted(zip(found.how.tolist(), found.set.tolist(), found.record.tolist(), strict=True))
    assert len(seen) == len(set(seen)) == 3 * 24


def test_thresholds_are_tuned_where_the_labels_are(here, done):
    (one,) = adapt_data.load(done, config(here))
    some = adapt_score.Given(one.cache, np.arange(3))
    noise = replace(one.cache.rows, event=np.full(12, ""), p_sample=np.full(12, np.nan), s_sample=np.full(12, np.nan))
    more = adapt_score.Given(replace(one.cache, rows=noise), np.arange(12))
    assert adapt_score.largest([more, some]) is some


def test_feedings_can_be_compared_where_one_phase_has_no_labels():
    """Nothing of that phase labelled and nothing picked is no F1; that of the other, and its error, still count."""
    probability = np.zeros((4, 2, 3000), np.float32)
    probability[:3, 0, 1000] = 0.9
    none = np.full(4, np.nan)
    scored = object.__new__(adapt_score.Scored)
    scored._apart_s, scored.curves = 0.0, lambda given: iter([(np.arange(4), probability, RATE_HZ)])
    given = SimpleNamespace(truth=Truth(np.array(list("abcd")), np.full(4, 10.0), none))
    found = scored.tuned(given, Rule(0.1), {"P": 0.3, "S": 0.3})
    assert found.f1 == pytest.approx(0.5 * 6 / 7)
    assert 0.01 < found.sigma < 0.5


def test_sets_may_not_share_stations_where_both_are_split_by_them(here, tmp_path):
    wanted = two_sets(here)
    with np.load(here / "others.npz") as file:
        values = dict(file)
    values["name"] = [f"NC{name[2:]}" for name in values["name"].tolist()]
    np.savez(tmp_path / "others.npz", **values)
    one, other = wanted.adapt.sets
    other = other.model_copy(update={"npz": tmp_path / "others.npz"})
    wanted = wanted.model_copy(update={"adapt": wanted.adapt.model_copy(update={"sets": (one, other)})})
    with pytest.raises(ConfigError, match=r"leaks.*station NC\.S0"):
        adapt_data.prepare(AdaptDir(tmp_path), wanted)


def test_a_replay_set_that_was_trained_on_is_refused(here, tmp_path):
    wanted = config(here)
    (one,) = wanted.adapt.sets
    again = one.model_copy(update={"name": "again", "replay": True})
    wanted = wanted.model_copy(update={"adapt": wanted.adapt.model_copy(update={"sets": (one, again)})})
    with pytest.raises(ConfigError, match=r"leaks.*made-up/NC_S.* = again/NC_S"):
        adapt_data.prepare(AdaptDir(tmp_path), wanted)


def test_a_louder_copy_is_refused(here, tmp_path):
    """The record of another station, times three: no sample is the same."""
    with np.load(here / "records.npz") as file:
        values = dict(file)
    values["data"][1], values["p_sample"][1] = 3 * values["data"][0], values["p_sample"][0]
    values["s_sample"][1] = values["s_sample"][0]
    np.savez(tmp_path / "records.npz", **values)
    wanted = config(here)
    leaky = wanted.adapt.sets[0].model_copy(update={"npz": tmp_path / "records.npz"})
    wanted = wanted.model_copy(update={"adapt": wanted.adapt.model_copy(update={"sets": (leaky,)})})
    with pytest.raises(ConfigError, match=r"leaks.*waveform NC_S0\d_.* ~ NC_S0\d_.*correlation 1\.000"):
        adapt_data.prepare(AdaptDir(tmp_path), wanted)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('methods=["lora","full"]|targets=["inc"]', "takes no targets"),
        ('baselines=["phasenet/original"]', "phasenet/original is not there"),
        ('sets=[{name="a", npz="RECORDS", folds=3, rate_hz=50.0}]', "'a': rate_hz = 50, and .* is trained at 100 Hz"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_read(here, tmp_path, more, said):
    wanted = config(here, *more.replace("RECORDS", str(here / "records.npz")).split("|"))
    with pytest.raises(ConfigError, match=said):
        adapt.run(AdaptDir(tmp_path), wanted, Alone())
    assert not (tmp_path / "sets").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('name="ogs.1"', "String should match"),  # BASE+ogs.1 names no adapter
        ("tolerances_s=[2.0]", "less than or equal to 1"),  # as the margin around labels
        (
            'sets=[{name="a",npz="a"},{name="b",npz="b",replay=true},{name="c",npz="c",replay=true}]',
            "2 sets are replay",
        ),
    ],
)
def test_what_would_fail_at_the_end_is_refused(here, more, said):
    with pytest.raises(ConfigError, match=said):
        config(here, more)


def test_other_weights_of_the_same_name_are_refused(here, done, tmp_path):
    """A file of weights that is written over, between two units and between two runs."""
    for name in ("net.pt", "net.json"):
        shutil.copy(here / name, tmp_path)
    wanted = config(here)
    name = f"file:{tmp_path / 'net.pt'}"
    wanted = wanted.model_copy(update={"pick": wanted.pick.model_copy(update={"weight": name})})
    folder = AdaptDir(tmp_path / "run")
    require_same(folder, wanted, {name: weights.digest(name)})
    shutil.copytree(done.root / "units", folder.root / "units")
    shutil.copytree(done.root / "sets", folder.root / "sets")
    torch.manual_seed(1)
    torch.save(sbm.PhaseNet(phases="NPS").state_dict(), tmp_path / "net.pt")
    with pytest.raises(ConfigError, match=r"weights\.json: file:.*net\.pt was [0-9a-f]+ when"):
        require_same(folder, wanted, {name: weights.digest(name)})
    with pytest.raises(ConfigError, match="this adapter was made on"):
        adapt_score.of_unit(folder, wanted, Unit("lora", 0, 1), adapt_data.load(folder, wanted))


def test_of_two_that_begin_at_once_with_other_configurations_one_is_refused(here, tmp_path, monkeypatch):
    folder = AdaptDir(tmp_path)
    require_same(folder, config(here), {})
    monkeypatch.setattr(Path, "exists", lambda self: False)  # both have looked before either has written
    require_same(folder, config(here), {})
    with pytest.raises(ConfigError, match="begun with another configuration"):
        require_same(folder, config(here, "rank=4"), {})
    with pytest.raises(ConfigError, match=r"weights\.json: net was None"):
        require_same(folder, config(here), {"net": "1"})


def test_other_records_under_units_that_have_learned_are_refused(here, done, tmp_path):
    folder = AdaptDir(tmp_path)
    shutil.copytree(done.root / "sets", tmp_path / "sets")
    whole = labelled_cache.read(folder.records("made-up"))
    part = Part(whole.rows, 2 * whole.read(np.arange(12)))
    labelled_cache.write(folder.records("made-up"), [part], {})
    with pytest.raises(ConfigError, match=r"made-up\.h5: holds other records than when this adaptation was begun"):
        adapt_data.prepare(folder, config(here))


def test_an_adapter_is_no_base_for_the_records_that_it_learned_from(here, done, tmp_path):
    wanted = config(here)
    (here / "store" / "adapters").mkdir(parents=True, exist_ok=True)
    shutil.copy(done.kept, here / "store" / "adapters" / "first.safetensors")
    both = wanted.pick.model_copy(update={"weight": f"{wanted.pick.weight}+first"})
    with pytest.raises(ConfigError, match=r"'made-up': file:.*\+first was trained on these very records"):
        adapt_data.prepare(AdaptDir(tmp_path), wanted.model_copy(update={"pick": both}))


def test_training_has_one_thread_as_picking_has(here, done, tmp_path):
    """Sums of several threads differ in their last bits, and a process picks between two trainings."""
    torch.set_num_threads(2)
    try:
        sets = adapt_data.load(done, config(here))
        folder = AdaptDir(tmp_path)
        assert adapt_train.train(folder, config(here), Unit("lora", 0, 1), sets, lambda: True) is None
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)


def test_a_catalogue_of_the_period_of_the_labels_is_no_proof(here, done):
    sets = adapt_data.load(done, config(here))
    assert adapt_tables._in_sample(config(here), sets).startswith("12 of the 12 records")
    later = config(here).of_day(date(2020, 1, 1))
    assert adapt_tables._in_sample(later, sets) == ""
