"""Picking on networks: two hours of the demo, which is moved across an hour.

What PhaseNO finds is shown with a small one of made-up numbers; what becomes of that with `Quick` in its place.
"""

import json
import shutil
from datetime import date

import numpy as np
import pytest
import torch

from pipeline import config as configs
from pipeline.cluster.world import Alone
from pipeline.errors import BadData, ConfigError, Incomplete
from pipeline.formats import network_hours, results, tables, tries, waveforms
from pipeline.maths import triggers
from pipeline.models import adapters, begun, weights
from pipeline.models.network_picker import NetworkPicker
from pipeline.models.phaseno import PhaseNO
from pipeline.records import NS, NetworkRecord, Outcome, Picks, Scores, Shard, Shards, Stations, Waveform
from pipeline.rundir import Hours, RunDir, create, of_networks
from pipeline.stages import audit, demo, estimate, pick, pick_network, plan, status, submit, update
from tests import fakes
from tests.phaseno_cases import known_numbers
from tests.worlds import srun

ARGUMENTS = {"modes": 4, "width": 8, "samples": 1000, "lengths": [250, 66]}
BORDER_NS = int(np.datetime64("2024-05-06T21:00", "ns").astype(np.int64))
BEFORE_S = 2575  # of the demo before the border: AMPE has a gap of three minutes until 5 s after that
CODES = ("AMPE", "GEMO", "RESI", "TOLM", "VENZ")
CONFIG = """
[run]
name = "networks"
start = 2024-05-06T20:58:50Z
end = 2024-05-06T21:01:10Z
[archive]
root = "{root}/sds"
[stations]
files = ["{root}/stations.xml"]
include = {include}
[pick]
weight = "{weight}"
threshold_p = 0.5
threshold_s = 0.5
{also}
[[pick.networks]]
name = "friuli"
stations = ["XD.*"]
center_latitude_deg = 46.28
center_longitude_deg = 13.14
[magnitude]
amplitudes = false
[associate]
center_latitude_deg = 46.28
center_longitude_deg = 13.14
x_km = [-50.0, 50.0]
y_km = [-50.0, 50.0]
"""


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The demo's hour at the stations used here, so that it begins `BEFORE_S` before the full hour."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "SITES", tuple(site for site in demo.SITES if site.code in (*CODES, "TARC")))
        patch.setattr(demo, "START_NS", BORDER_NS - BEFORE_S * NS)
        return demo.write_demo(tmp_path_factory.mktemp("demo") / "archive")


def state(seed=7):
    """Numbers with which one sample in a thousand is a pick."""
    network = known_numbers(PhaseNO(4, 8, 1000, (250, 66)), seed)
    with torch.no_grad():
        network.fc2.weight *= 3
        network.fc2.bias.copy_(3 * (network.fc2.bias - torch.tensor([1.9, 1.9])))
    return network.state_dict()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of weights with two networks in it."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCOLAT_WEIGHTS", str(folder))
        for name, seed in (("small", 7), ("other", 8)):
            weights.keep(f"phaseno/{name}", state(seed), ARGUMENTS, {"citation": "ours", "licence": "ours"})
    return folder


@pytest.fixture(autouse=True)
def _store(store, monkeypatch):
    monkeypatch.setenv("ORCOLAT_WEIGHTS", str(store))


def configured(folder, root, weight="phaseno/small", codes=CODES, also="", sets=()):
    include = json.dumps([f"XD.{code}" for code in codes])
    path = folder / "run.toml"
    path.write_text(CONFIG.format(root=root, weight=weight, include=include, also=also))
    return configs.load(path, ["compute.device=cpu", *sets])


@pytest.fixture(scope="module")
def config(tmp_path_factory, archive):
    return configured(tmp_path_factory.mktemp("config"), archive)


def planned(root, config):
    run_dir = create(root, config)
    plan.run(run_dir, config, Alone())
    return run_dir


def snapshot(run_dir):
    skipped = ("meter", "claims", "audit")
    found = (p.relative_to(run_dir.root) for p in sorted(run_dir.root.rglob("*")) if p.is_file())
    return {p: (run_dir.root / p).read_bytes() for p in found if not set(p.parts) & set(skipped)}


class Quick:
    """In place of PhaseNO: picks where a station moves faster than all do in the mean, so that each hears all."""

    rate_hz, context_s = 100.0, 15.0

    def runs(self, record):
        moves = [np.abs(np.diff(wave.samples[0], prepend=0)) for wave in record.waveforms]
        level = np.mean([move.mean() for move in moves]) if moves else 0.0
        return tuple(self.run(wave, move / (40 * level)) for wave, move in zip(record.waveforms, moves, strict=True))

    def run(self, wave, height):
        probability = np.clip([height, height[::-1] / 2], 0, 1).astype(np.float32)
        scores = Scores(probability, ("P", "S"), wave.start_ns, wave.rate_hz)
        return triggers.runs(scores, {"P": 0.5, "S": 0.5})


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(pick_network, "local_scorer", lambda *a: Quick())


@pytest.fixture(scope="module")
def expected(tmp_path_factory, config, store):
    """A run of one rank, by `Quick`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCOLAT_WEIGHTS", str(store))
        patch.setattr(pick_network, "local_scorer", lambda *a: Quick())
        run_dir = planned(tmp_path_factory.mktemp("alone") / "run", config)
        assert pick.run(run_dir, config, Alone())["picked hours"] == 2
    assert len(results.picks(run_dir)) > 40
    return run_dir


def with_tries(config, max_tries):
    """Another start of the same run, which may try so often."""
    return config.model_copy(update={"compute": config.compute.model_copy(update={"max_tries": max_tries})})


def ends(run_dir):
    """How each station-day ended, by code."""
    found = results.outcomes(run_dir)
    return {id_.split(".")[1]: end for id_, end in zip(found.shard.tolist(), found.end.tolist(), strict=True)}


def read(config, code, picker, span_ns):
    shard = Shard(date(2024, 5, 6), f"XD.{code}.", "HH")
    context_s = max(config.archive.context_s, picker.context_s)
    return waveforms.read_shard(config.archive, shard, context_s, picker.rate_hz, span_ns)[0]


def whole(config, codes=CODES, waves=None):
    """The picker, the record of the whole run at once, and its codes."""
    picker = NetworkPicker.of(config.pick, config.compute)
    waves = waves or [read(config, code, picker, config.run.span_ns) for code in codes]
    sites = {site.code: site for site in demo.SITES}
    places = [np.array([getattr(sites[code], f"{name}_deg") for code in codes]) for name in ("latitude", "longitude")]
    return picker, NetworkRecord(tuple(waves), *places, (46.28, 13.14), 30.0)


def test_an_id_of_a_network_is_that_of_an_hour():
    shard = Shard.of_network(date(2024, 5, 6), "friuli", 20)
    assert (shard.id, shard.network) == ("2024-05-06/net.friuli.20.1H", "friuli")
    assert Shard.named(shard.id) == shard
    assert shard.span_ns == (BORDER_NS - 3600 * NS, BORDER_NS)
    for station in ("XD.GEMO.", "net.GEMO."):  # who names his network so, has no hours
        other = Shard(date(2024, 5, 6), station, "HH")
        assert (other.network, other.span_ns[1] - other.span_ns[0]) == ("", 24 * 3600 * NS)


def test_two_hours_joined_are_the_whole(tmp_path, config):
    """As read and picked at once: no pick is lost and none doubled; the last bits depend on the mean removed.

    AMPE begins 5 s after the border: the hour before it, which has no data of it, must hear it, too.
    """
    picker, record = whole(config)
    found = [
        triggers.picks(runs, wave, f"XD.{code}..HH", 0.0, config.run.span_ns)
        for runs, wave, code in zip(picker.runs(record), record.waveforms, CODES, strict=True)
    ]
    run_dir = planned(tmp_path / "run", config)
    assert pick.run(run_dir, config, Alone())["picked hours"] == 2
    theirs, ours = type(found[0]).concat(found).ordered(), results.picks(run_dir)
    near = np.abs(ours.time_ns - BORDER_NS) < 30 * NS
    assert len(ours) > 40
    assert near.sum() > 10
    for name in ("station", "phase", "time_ns"):
        assert getattr(ours, name).tolist() == getattr(theirs, name).tolist()
    np.testing.assert_allclose(ours.probability, theirs.probability, atol=1e-5)
    assert set(ours.station.tolist()) == {f"XD.{code}..HH" for code in CODES}


def cut(wave, start_ns, stop_ns):
    first, stop = (round((t - wave.start_ns) / NS * wave.rate_hz) for t in (start_ns, stop_ns))
    first, stop = max(first, 0), min(stop, len(wave))
    time_ns = wave.start_ns + round(first / wave.rate_hz * NS)
    return Waveform(wave.samples[:, first:stop], wave.valid[first:stop], time_ns, wave.rate_hz, wave.components)


def test_the_same_samples_have_the_same_probabilities_whatever_was_read(config):
    """To the bit, half a window beyond the border on both sides."""
    codes = ("AMPE", "GEMO", "TOLM")  # with a gap before the border, without, and of 200 Hz
    picker, record = whole(config, codes)
    reach_ns = round((picker.context_s + 0.01) * NS)
    parts = [(0, BORDER_NS + reach_ns), (BORDER_NS - reach_ns, 2 * BORDER_NS)]
    lengths = list[int]()
    scored = [picker.scores(whole(config, codes, [cut(w, *part) for w in record.waveforms])[1]) for part in parts]
    for all_, before, after in zip(picker.scores(record), *scored, strict=True):
        at = round((BORDER_NS - all_.start_ns) / NS * 100)
        around = all_.probability[:, max(at - 500, 0) : at + 500]
        lengths.append(int(np.isfinite(around).all(axis=0).sum()))
        for part in (before, after):
            at = round((BORDER_NS - part.start_ns) / NS * 100)
            np.testing.assert_array_equal(part.probability[:, max(at - 500, 0) : at + 500], around)
    assert lengths[1:] == [1000] * (len(codes) - 1)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.usefixtures("quick")
def test_any_number_of_ranks_gives_the_same_bytes(tmp_path, config, expected, size):
    run_dir = planned(tmp_path / "run", config)
    tallies = srun(size, lambda world: pick.run(run_dir, config, world))
    assert {tally["picked hours"] for tally in tallies} == {2}
    assert snapshot(run_dir) == snapshot(expected)
    assert pick.run(run_dir, config, Alone()) == {}, "a second run does nothing"


@pytest.mark.parametrize("victim", [2, 5])
@pytest.mark.usefixtures("quick")
def test_a_killed_run_resumes_with_what_is_missing(tmp_path, config, expected, monkeypatch, victim):
    """The first part and the second are of hours, the others of station-days."""
    run_dir, write, written = planned(tmp_path / "run", config), results.write_part, []

    def dies(each, *rest):
        written.append(rest[0].id)
        if len(written) == victim:
            raise KeyboardInterrupt
        write(each, *rest)

    monkeypatch.setattr(results, "write_part", dies)
    with pytest.raises(KeyboardInterrupt):
        pick.run(run_dir, config, Alone())
    assert [Shard.named(id_).network for id_ in written[:2]] == ["friuli"] * min(victim, 2)
    with pytest.raises(Incomplete):
        results.require_picked(run_dir, imported=False)
    monkeypatch.setattr(results, "write_part", write)
    again = pick.run(run_dir, config, Alone())
    assert again["picked hours"] == max(0, 3 - victim)
    assert snapshot(run_dir) == snapshot(expected)


@pytest.mark.usefixtures("quick")
def test_a_kill_while_the_hours_are_taken_away_loses_nothing(tmp_path, config, expected, monkeypatch):
    run_dir, remove = planned(tmp_path / "run", config), results.remove_parts
    monkeypatch.setattr(results, "remove_parts", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pick.run(run_dir, config, Alone())
    monkeypatch.setattr(results, "remove_parts", remove)
    pick.run(run_dir, config, Alone())
    assert snapshot(run_dir) == snapshot(expected)


@pytest.mark.usefixtures("quick")
def test_a_station_that_is_missing_in_an_hour_is_no_result(tmp_path, config, monkeypatch):
    """All of its picks in the other hour are there: they would pass for all that it has."""
    run_dir, hand_over = planned(tmp_path / "run", config), network_hours.hand_over
    monkeypatch.setattr(network_hours, "hand_over", lambda *a: None)
    pick.run(run_dir, config, Alone())
    shard = Shard.of_network(date(2024, 5, 6), "friuli", 21)
    path = Hours(run_dir).part(shard)
    found, about = tables.read(path, Picks), tables.metadata(path)
    kept = found.take(found.station != "XD.GEMO..HH")
    members = [Outcome(**entry) for entry in about["members"] if "GEMO" not in entry["shard"]]
    results.write_part(Hours(run_dir), shard, kept, Outcome(shard.id, "picked", "", len(kept), 1.0), members)
    monkeypatch.setattr(network_hours, "hand_over", hand_over)
    with pytest.raises(BadData, match=r"1 station-days are .* as 2024-05-06/XD\.GEMO\.\.HH: remove this folder"):
        pick.run(run_dir, config, Alone())


def test_its_results_are_those_of_station_days(config, expected):
    """So that what comes after picking knows nothing of hours; and the account balances."""
    found = results.outcomes(expected)
    assert found.shard.tolist() == [f"2024-05-06/XD.{code}..HH" for code in CODES]
    assert found.n_picks.sum() == len(results.picks(expected))
    assert dict(zip(CODES, found.valid_fraction.round(2).tolist(), strict=True))["AMPE"] == pytest.approx(
        65 / 140, abs=0.02
    )
    results.require_picked(expected, imported=False)
    assert results.unpicked(expected) == 0
    books, _ = audit.look(expected, config, audit.late(expected, config))
    assert books["breaches"] == []
    noted = json.loads(expected.weights.read_text())
    assert noted == {"name": "phaseno/small", "sha256": weights.digest("phaseno/small"), "engine": "PhaseNO on cpu"}
    assert any("hours" in path.parts for path in snapshot(expected)), "which hours there were is kept"
    assert not (Hours(expected).root / "parts").exists() or not any((Hours(expected).root / "parts").iterdir())


def test_a_station_without_data_is_not_in_the_graph_and_ends_empty(tmp_path, archive):
    """Where AMPE has a gap, and one window beyond, the others are picked as if there were no AMPE."""
    span = ("run.start=2024-05-06T20:58:20Z", "run.end=2024-05-06T20:59:40Z")
    picks = []
    for codes in (CODES[:3], CODES[1:3]):
        folder = tmp_path / str(len(codes))
        folder.mkdir()
        config = configured(folder, archive, codes=codes, sets=span)
        run_dir = planned(folder / "run", config)
        pick.run(run_dir, config, Alone())
        picks.append(results.picks(run_dir))
    assert set(ends(run_dir).values()) == {"picked"}
    three = RunDir(tmp_path / "3" / "run")
    assert ends(three) == {"AMPE": "empty", "GEMO": "picked", "RESI": "picked"}
    assert "too short" in results.outcomes(three).reason[0]
    assert len(picks[0]) > 10
    for name in ("station", "phase", "time_ns"):
        assert getattr(picks[0], name).tolist() == getattr(picks[1], name).tolist()


def test_all_stations_without_data_is_a_normal_end(tmp_path, archive):
    config = configured(
        tmp_path, archive, codes=CODES[:1], sets=("run.start=2024-05-06T20:58:20Z", "run.end=2024-05-06T20:59:40Z")
    )
    run_dir = planned(tmp_path / "run", config)
    assert pick.run(run_dir, config, Alone())["empty hours"] == 1
    assert results.outcomes(run_dir).end.tolist() == ["empty"]
    assert results.unpicked(run_dir) == 0


@pytest.fixture
def damaged(tmp_path, archive):
    """A copy of three stations, and the file of one of them, which holds nonsense."""
    root = tmp_path / "archive"
    for code in ("GEMO", "TARC", "VENZ"):
        shutil.copytree(archive / "sds/2024/XD" / code, root / "sds/2024/XD" / code)
    shutil.copy(archive / "stations.xml", root)
    path = root / "sds/2024/XD/TARC/HHZ.D/XD.TARC..HHZ.D.2024.127"
    return configured(tmp_path, root, codes=("GEMO", "TARC", "VENZ")), path


@pytest.mark.usefixtures("quick")
def test_a_file_that_cannot_be_read_ends_its_own_station_day(tmp_path, damaged):
    """At once, however often an hour may be tried; once it is mended, those that did not hear it are picked again."""
    config, path = damaged
    good = path.read_bytes()
    whole_run = planned(tmp_path / "whole", config)
    pick.run(whole_run, config, Alone())
    run_dir = planned(tmp_path / "run", config)
    path.write_bytes(b"nonsense" * 1000)
    pick.run(run_dir, with_tries(config, 5), Alone())
    assert ends(run_dir) == {"GEMO": "picked", "TARC": "failed", "VENZ": "picked"}
    assert results.folded(run_dir) == {"2024-05-06"}
    assert "1 set aside: mend what ails them, then `orcolat retry" in status.look(run_dir, with_tries(config, 5))[1]
    (failure,) = results.failures(run_dir)
    assert failure.shard == "2024-05-06/XD.TARC..HH"
    assert "BadData" in failure.reason
    assert results.unpicked(run_dir) == 1
    assert len(results.picks(run_dir)) == results.outcomes(run_dir).n_picks.sum()
    books, _ = audit.look(run_dir, config, audit.late(run_dir, config))
    assert books["breaches"] == []
    assert pick.run(run_dir, config, Alone()) == {}
    path.write_bytes(good)
    assert update.retry(run_dir, config) == [failure.shard]
    assert pick.run(run_dir, config, Alone())["picked hours"] == 2
    for kind in ("picks", "outcomes"):
        name = f"{kind}/2024-05-06.parquet"
        assert (run_dir.root / name).read_bytes() == (whole_run.root / name).read_bytes()


@pytest.mark.usefixtures("quick")
def test_where_another_file_went_bad_before_a_retry_nothing_old_stays(tmp_path, damaged):
    config, path = damaged
    other, good = path.parents[2] / "GEMO/HHZ.D/XD.GEMO..HHZ.D.2024.127", path.read_bytes()
    run_dir = planned(tmp_path / "run", config)
    path.write_bytes(b"nonsense" * 1000)
    pick.run(run_dir, config, Alone())
    path.write_bytes(good)
    other.write_bytes(b"nonsense" * 1000)
    update.retry(run_dir, config)
    pick.run(run_dir, config, Alone())
    assert ends(run_dir) == {"GEMO": "failed", "TARC": "picked", "VENZ": "picked"}
    assert len(results.picks(run_dir)) == results.outcomes(Hours(run_dir)).n_picks.sum()


@pytest.mark.usefixtures("quick")
def test_a_file_with_which_nobody_reckoned_ends_its_own_station_day_too(tmp_path, config, monkeypatch, caplog):
    """Of 500 miniSEED files with some wrong bytes, three ended in an IndexError."""
    run_dir, read_shard = planned(tmp_path / "run", config), waveforms.read_shard

    def odd(archive, shard, *rest):
        return [][1] if "VENZ" in shard.id else read_shard(archive, shard, *rest)

    monkeypatch.setattr(waveforms, "read_shard", odd)
    assert pick.run(run_dir, config, Alone())["picked hours"] == 2
    assert ends(run_dir) == dict.fromkeys(CODES, "picked") | {"VENZ": "failed"}
    assert "IndexError" in results.failures(run_dir)[0].reason
    assert "VENZ..HH in 2024-05-06/net.friuli.20.1H" in caplog.text
    assert "return [][1]" in caplog.text


@pytest.mark.usefixtures("quick")
def test_where_one_station_changed_all_are_picked_again(tmp_path, damaged):
    config, path = damaged
    run_dir = planned(tmp_path / "run", config)
    pick.run(run_dir, config, Alone())
    before = results.picks(run_dir)
    path.unlink()
    found = update.run(run_dir, config, Alone())
    assert found.changed == ("2024-05-06/XD.TARC..HH",)
    assert results.unpicked(run_dir) == 3
    assert pick.run(run_dir, config, Alone())["picked hours"] == 2
    assert results.unpicked(run_dir) == 0
    after = results.picks(run_dir)
    heard = [picks.take(picks.station == "XD.GEMO..HH").probability.tolist() for picks in (before, after)]
    assert heard[0] != heard[1], "GEMO hears TARC"


@pytest.mark.usefixtures("quick")
def test_an_hour_that_fails_is_told_at_its_station_days_and_tried_again(tmp_path, config, expected, monkeypatch):
    """And what a later start makes of the note of its failure, if it is killed where the hours are handed over."""
    run_dir, runs = planned(tmp_path / "run", config), Quick.runs

    def fails(self, record):
        if record.waveforms[1].start_ns < BORDER_NS - 100 * NS:
            raise ValueError("nonsense")
        return runs(self, record)

    monkeypatch.setattr(Quick, "runs", fails)
    tally = pick.run(run_dir, config, Alone())
    assert (tally["failed hours"], tally["picked hours"]) == (1, 1)
    failures = results.failures(run_dir)
    assert [failure.shard for failure in failures] == [f"2024-05-06/XD.{code}..HH" for code in CODES]
    assert {failure.reason for failure in failures} == {"2024-05-06/net.friuli.20.1H: ValueError: nonsense"}
    results.require_picked(run_dir, imported=False)
    assert "hours        of networks for phaseno/small: 1 of 2 to pick, 1 days open" in status.look(run_dir, config)[1]
    assert submit.counts(run_dir, config) == (1, 2)
    monkeypatch.setattr(Quick, "runs", runs)
    hand_over = network_hours.hand_over
    monkeypatch.setattr(network_hours, "hand_over", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pick.run(run_dir, config, Alone())
    monkeypatch.setattr(network_hours, "hand_over", hand_over)
    assert pick.run(run_dir, with_tries(config, 1), Alone()) == {}, "it was picked: one try was enough after all"
    assert snapshot(run_dir) == snapshot(expected)


@pytest.mark.usefixtures("quick")
def test_an_hour_that_is_set_aside_does_not_hold_up_the_run(tmp_path, archive, monkeypatch):
    config = configured(tmp_path, archive, codes=CODES[:2], sets=("compute.max_tries=1",))
    run_dir, runs = planned(tmp_path / "run", config), Quick.runs
    monkeypatch.setattr(Quick, "runs", lambda *a: (_ for _ in ()).throw(ValueError("nonsense")))
    pick.run(run_dir, config, Alone())
    assert tries.aside(run_dir, 1) == [f"2024-05-06/XD.{code}..HH" for code in CODES[:2]]
    assert pick.run(run_dir, config, Alone()) == {}
    monkeypatch.setattr(Quick, "runs", runs)
    assert len(update.retry(run_dir, config)) == 2
    assert pick.run(run_dir, config, Alone())["picked hours"] == 2
    assert results.unpicked(run_dir) == 0


@pytest.mark.usefixtures("quick")
def test_nothing_is_folded_while_the_plan_changes(tmp_path, config, expected, monkeypatch):
    """Who changes it claims that beside the hours; the station-days are folded under claims from there, too."""
    run_dir, tell = planned(tmp_path / "run", config), network_hours.tell_failures
    claim = Hours(run_dir).claims / "update"

    def meanwhile(hours):
        tell(hours)
        if results.folded(hours):
            claim.touch()

    monkeypatch.setattr(network_hours, "tell_failures", meanwhile)
    assert pick.run(run_dir, config, Alone())["stopped"] == 1
    assert not results.folded(run_dir)
    monkeypatch.setattr(network_hours, "tell_failures", tell)
    claim.unlink()
    pick.run(run_dir, config, Alone())
    assert snapshot(run_dir) == snapshot(expected)


@pytest.mark.usefixtures("quick")
def test_a_network_without_data_is_no_error(tmp_path, damaged, archive):
    """Its stations may be back tomorrow. A picker none of whose networks has data has nothing to do."""
    config, _ = damaged
    path = tmp_path / "run.toml"
    other = (
        '[[pick.networks]]\nname = "far"\nstations = ["XD.TOLM"]\ncenter_latitude_deg = 46\ncenter_longitude_deg = 13\n'
    )
    text = path.read_text().replace('"XD.VENZ"]', '"XD.VENZ", "XD.TOLM"]').replace('"XD.*"', '"XD.[GTV][EA]*"')
    path.write_text(text.replace("[[pick.networks]]", other + "[[pick.networks]]"))
    config = configs.load(path, ["compute.device=cpu"])
    run_dir = planned(tmp_path / "run", config)
    assert pick.run(run_dir, config, Alone())["picked hours"] == 2
    assert set(ends(run_dir).values()) == {"picked"}
    configured(tmp_path, tmp_path / "archive", codes=("GEMO", "TOLM"))
    path.write_text(path.read_text().replace('"XD.*"', '"XD.TOLM"'))
    with pytest.raises(ConfigError, match=r"but none of the stations in \[\[pick.networks\]\]"):
        planned(tmp_path / "none", configs.load(path, ["compute.device=cpu"]))


def test_it_needs_no_compiler(tmp_path, config, monkeypatch):
    """Our kernels are of other networks."""
    monkeypatch.setattr(begun.build, "available", lambda: pytest.fail("looked for a compiler"))
    targets = [(RunDir(tmp_path), config)]
    assert begun.settled(targets) == targets


@pytest.mark.usefixtures("quick")
def test_beside_a_picker_of_stations(tmp_path, archive, expected, monkeypatch):
    """It has the run directory of a further picker, and picks what it picks alone."""
    real = weights.digest
    monkeypatch.setattr(weights, "digest", lambda name: real(name) if name.startswith("phaseno") else "0" * 64)
    monkeypatch.setattr(weights, "verify", lambda name: "0" * 64)
    monkeypatch.setattr(plan, "require_pickers", lambda config: None)
    also = '[[pick.also]]\nweight = "phaseno/small"\n'
    sets = ("compute.scorers=1", f"compute.scratch={tmp_path}")  # a scorer of stations, which picks networks itself
    config = configured(tmp_path, archive, weight="phasenet/original", also=also, sets=sets)
    run_dir = planned(tmp_path / "run", config)

    def run(world):
        return pick.run(run_dir, config, world, lambda *a: fakes.Scorer(1), lambda *a: fakes.read)

    assert submit.counts(run_dir, config) == (len(CODES) + 2, len(CODES) + 2)
    assert "without      phaseno/small: of pickers of networks beside others no cost" in estimate.look(
        run_dir, config, 1
    )
    assert {(tally["picked"], tally["picked hours"]) for tally in srun(3, run)} == {(len(CODES), 2)}
    own = run_dir.picker("phaseno-small")
    assert [hours.home.root for hours, _ in of_networks(run_dir, config)] == [own.root]
    for kind in ("picks", "outcomes"):
        name = f"{kind}/2024-05-06.parquet"
        assert (own.root / name).read_bytes() == (expected.root / name).read_bytes()
        assert (run_dir.root / name).read_bytes() != (expected.root / name).read_bytes()
    saved = configs.load(own.config)
    assert [each.name for each in saved.pick.networks] == ["friuli"]
    assert json.loads(run_dir.weights.read_text())["name"] == "phasenet/original"
    assert json.loads(own.weights.read_text())["name"] == "phaseno/small"
    assert results.unpicked(run_dir) == 0
    books, _ = audit.look(own, saved, audit.late(own, saved))
    assert (books["breaches"], books["complete"], books["late"]["n"]) == ([], True, 0)
    found = snapshot(run_dir)
    (own.root / "outcomes/2024-05-06.parquet").unlink()
    assert results.unpicked(run_dir) == len(CODES)
    assert f"{len(CODES)} station-days have no result, 0 of them set aside" in status.look(run_dir, config)[1]
    hours = of_networks(run_dir, config)[0][0]
    (hours.root / "outcomes/2024-05-06.parquet").unlink()
    (hours.claims / "block-0000000").touch()
    assert pick.with_others(run_dir, config) == "2 hours of networks are left to a process that has not signed yet"
    (hours.claims / "block-0000000").unlink()
    assert run(Alone()) == {"picked hours": 2, "picks hours": len(results.picks(expected))}, "what was removed"
    assert snapshot(run_dir) == found


def test_a_wrong_weight_is_named(tmp_path, archive, config, expected, store):
    other = configured(tmp_path, archive, weight="phaseno/none")
    with pytest.raises(ConfigError, match=r"phaseno/none is not there.*none\.json.*copy its two files there"):
        planned(tmp_path / "none", other)
    run_dir = RunDir(tmp_path / "run")
    shutil.copytree(expected.root, run_dir.root)
    shutil.rmtree(run_dir.root / "outcomes")
    shutil.rmtree(Hours(run_dir).root / "outcomes")
    note = json.loads(run_dir.weights.read_text())
    run_dir.weights.write_text(json.dumps(note | {"sha256": "0" * 64}))
    with pytest.raises(ConfigError, match="begun with weights phaseno/small of sha256 000000000000"):
        pick.run(run_dir, config, Alone())
    with pytest.raises(ConfigError, match="is there already"):
        weights.keep("phaseno/small", state(), ARGUMENTS, {})
    with pytest.raises(ConfigError, match="do not fit PhaseNO"):
        weights.keep("phaseno/wide", state(), {**ARGUMENTS, "width": 6}, {})
    shutil.copy(store / "phaseno/small.safetensors", store / "phaseno/odd.safetensors")
    about = json.loads((store / "phaseno/small.json").read_text())
    (store / "phaseno/odd.json").write_text(json.dumps(about | {"class": "PhaseNet"}))
    with pytest.raises(ConfigError, match="phaseno/odd is a PhaseNet"):
        weights.load("phaseno/odd")
    assert {"phaseno/small", "phaseno/other"} <= {row.name for row in weights.available() if row.state == "ready"}


def test_it_adapts_like_the_others(tmp_path, archive, store):
    """With its adapter merged it finds something else, and its run says with which one."""
    network = weights.load("phaseno/small")
    adapted = adapters.attach(network, adapters.Recipe("lora", rank=2, targets=("gno*.edge.*",)))
    with torch.no_grad():
        for name, value in adapted.trainable().items():
            if name.endswith("lora_b"):
                value += 0.2
    base = adapters.Base("phaseno/small", weights.digest("phaseno/small"))
    adapters.save(store / "adapters/tuned.safetensors", adapted, base, {})
    picks, span = [], ("run.start=2024-05-06T21:00:30Z", "run.end=2024-05-06T21:01:10Z")
    for weight in ("phaseno/small", "phaseno/small+tuned"):
        alone = configured(tmp_path, archive, weight=weight, codes=CODES[1:3], sets=span)
        run_dir = planned(tmp_path / weight.replace("/", "-"), alone)
        pick.run(run_dir, alone, Alone())
        picks.append(results.picks(run_dir).time_ns.tolist())
    assert len(picks[0]) > 5
    assert picks[0] != picks[1]
    noted = json.loads(run_dir.weights.read_text())
    assert (noted["name"], noted["sha256"]) == ("phaseno/small+tuned", weights.digest("phaseno/small+tuned"))
    assert weights.digest("phaseno/small+tuned") != weights.digest("phaseno/small")
    with pytest.raises(ConfigError, match="was made on phaseno/small"):
        weights.load("phaseno/other+tuned")


def test_a_published_checkpoint_is_a_weight(tmp_path, monkeypatch):
    torch.save(
        {"state_dict": {f"model.{k}": v for k, v in known_numbers(PhaseNO()).state_dict().items()}}, tmp_path / "x.ckpt"
    )
    name = f"phaseno:{tmp_path / 'x.ckpt'}"
    assert isinstance(weights.load(name), PhaseNO)
    assert len(weights.digest(name)) == 64
    with pytest.raises(ConfigError, match="check the path"):
        weights.verify(f"phaseno:{tmp_path / 'y.ckpt'}")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("[[pick.networks]]", "[[pick.nets]]"), "nets"),
        (('stations = ["XD.*"]', 'stations = ["XX.*"]'), "network 'friuli'.*no station of stations.files matches"),
        (("center_longitude_deg = 13.14\n[magnitude]", "center_longitude_deg = 11.9\n[magnitude]"), "degrees from the"),
        (('[[pick.networks]]\n', '[[pick.networks]]\nname = "b"\ncenter_latitude_deg = 46\ncenter_longitude_deg = 13\n'
          '[[pick.networks]]\n'), "in the networks b and friuli"),
    ],
)  # fmt: skip
def test_networks_that_do_not_suit_the_stations_are_refused(tmp_path, archive, changed, message):
    path = tmp_path / "run.toml"
    text = CONFIG.format(root=archive, weight="phaseno/small", include=json.dumps([f"XD.{c}" for c in CODES]), also="")
    assert changed[0] in text
    path.write_text(text.replace(*changed))
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path / "run", configs.load(path))


@pytest.mark.parametrize(
    ("weight", "more", "message"),
    [
        ("phaseno/small", '[[pick.also]]\nweight = "phasenet/original"\n', r"name it in \[\[pick.also\]\]"),
        ("phasenet/original", "", "networks friuli are of a picker phaseno/NAME, and there is none"),
        ("phasenet/original", 'ensemble = "mean"\n[[pick.also]]\nweight = "phaseno/small"\n', "part of an ensemble"),
    ],
)
def test_pickers_that_do_not_go_together_are_refused(tmp_path, archive, weight, more, message):
    with pytest.raises(ConfigError, match=message):
        configured(tmp_path, archive, weight=weight, also=more)


def test_the_plan_of_hours_is_that_of_the_run(config, expected):
    hours = Hours(expected)
    assert [shard.id for shard in tables.read(hours.shards, Shards).rows()] == [
        "2024-05-06/net.friuli.20.1H",
        "2024-05-06/net.friuli.21.1H",
    ]
    assert len(tables.read(expected.stations, Stations)) == len(CODES)
