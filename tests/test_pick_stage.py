"""The pick stage: any number of ranks, a kill in the middle, failures; the same bytes in the end."""

import hashlib
import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from pipeline import config as configs
from pipeline.cluster.claims import Claims
from pipeline.cluster.dealing import Task, ahead
from pipeline.cluster.exchange import Lost
from pipeline.cluster.world import Alone, share
from pipeline.errors import BadData, ConfigError, Incomplete, NoData
from pipeline.formats import results, tables, tries
from pipeline.models import weights
from pipeline.records import Shards
from pipeline.rundir import RunDir, of_pickers, open_config
from pipeline.stages import pick
from tests import fakes
from tests.fakes import nobody
from tests.test_config import GOOD
from tests.worlds import srun

SHARDS = fakes.shards(days=3, stations=7)
ALSO = """
[[pick.also]]
weight = "eqtransformer/original"
[[pick.also]]
weight = "file:/models/my net.pt"
threshold_p = 0.5
"""
FURTHER = ("eqtransformer-original", "file--models-my net.pt")


@pytest.fixture(autouse=True)
def _weights(monkeypatch):
    monkeypatch.setattr(weights, "digest", lambda name: hashlib.sha256(name.encode()).hexdigest())


@pytest.fixture
def config(tmp_path):
    (tmp_path / "run.toml").write_text(GOOD.replace("2024-05-07", "2024-05-09"))
    return configs.load(tmp_path / "run.toml", ["compute.max_failed=3", f"compute.scratch={tmp_path}"])


@pytest.fixture
def several(tmp_path, config):
    """Three pickers in one pass."""
    (tmp_path / "several.toml").write_text((tmp_path / "run.toml").read_text() + ALSO)
    return configs.load(tmp_path / "several.toml", ["compute.max_failed=3", f"compute.scratch={tmp_path}"])


def planned(root, config=None):
    run_dir = RunDir(root)
    table = fakes.as_table([(shard, 1000 + i % 3) for i, shard in enumerate(SHARDS)])
    for each, alone in reversed(of_pickers(run_dir, config)) if config else [(run_dir, None)]:
        each.root.mkdir(parents=True, exist_ok=True)
        tables.write(each.shards, table)
        if alone:
            each.config.write_text(configs.dumps(alone))
    return run_dir


def picked(run_dir, config, world=None, read=fakes.read, scorer=fakes.Scorer):
    """The pick stage with made-up waveforms and probabilities."""

    def make_scorer(settings, compute):
        return scorer(len(settings.pickers))

    return pick.run(run_dir, config, world or Alone(), make_scorer, lambda config, scorer: read)


def split(config, **more):
    return config.model_copy(update={"compute": config.compute.model_copy(update={"scorers": 1, **more})})


def snapshot(run_dir):
    found = (p for p in sorted(run_dir.root.rglob("*")) if p.is_file() and run_dir.meter not in p.parents)
    return {p.relative_to(run_dir.root): p.read_bytes() for p in found}


@pytest.fixture
def expected(tmp_path, config):
    run_dir = planned(tmp_path / "alone")
    picked(run_dir, config)
    return snapshot(run_dir)


def test_volumes_are_folded_and_parts_are_gone(expected, tmp_path):
    names = {str(path) for path in expected}
    folded = {f"{kind}/2024-05-06.parquet" for kind in ("picks", "outcomes")}
    assert names == {"shards.parquet", "weights.json"} | folded
    assert len(results.picks(RunDir(tmp_path / "alone"))) > 500


@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_any_number_of_ranks_gives_the_same_bytes(tmp_path, config, expected, size):
    run_dir = planned(tmp_path / "many")
    tallies = srun(size, lambda world: picked(run_dir, config, world))
    assert snapshot(run_dir) == expected
    assert all(tally["picked"] == len(SHARDS) for tally in tallies)


@pytest.mark.parametrize(("size", "per_node"), [(1, 1), (2, 2), (3, 3), (5, 5), (7, 3), (40, 8)])
def test_readers_and_scorers_give_the_same_bytes(tmp_path, config, expected, size, per_node):
    run_dir = planned(tmp_path / "split")
    tallies = srun(size, lambda world: picked(run_dir, split(config), world), per_node)
    assert snapshot(run_dir) == expected
    assert all(tally["picked"] == len(SHARDS) for tally in tallies)
    assert not list(tmp_path.glob("orcolat.*"))


def test_only_ranks_that_score_make_a_scorer(tmp_path, config):
    made, run_dir = [], planned(tmp_path / "run")

    def body(world):
        def scorer(pickers):
            made.append(world.rank)
            return fakes.Scorer(pickers)

        return picked(run_dir, split(config), world, scorer=scorer)

    srun(6, body, per_node=3)
    assert sorted(made) == [0, 3]


@pytest.mark.parametrize("after", [1, 9, 20])
@pytest.mark.parametrize("size", [1, 3])
def test_a_killed_run_resumes_with_what_is_missing(tmp_path, config, expected, after, size):
    run_dir, calls = planned(tmp_path / "killed"), []

    def dies(shard):
        calls.append(shard)
        if len(calls) > after:
            raise KeyboardInterrupt
        return fakes.read(shard)

    with pytest.raises(KeyboardInterrupt):
        srun(size, lambda world: picked(run_dir, split(config), world, dies))
    todo = results.missing(run_dir, results.planned(run_dir))
    assert len(todo) == len(SHARDS) - after or (size > 1 and len(todo) > len(SHARDS) - after)
    with pytest.raises(Incomplete, match=f"{len(todo)} shards are not picked"):
        results.require_picked(run_dir, imported=False)
    done = []
    picked(run_dir, config, read=lambda shard: done.append(shard) or fakes.read(shard))
    assert sorted(done) == todo
    results.require_picked(run_dir, imported=False)
    assert snapshot(run_dir) == expected


def test_a_kill_while_folding_loses_nothing(tmp_path, config, expected, monkeypatch):
    run_dir = planned(tmp_path / "folding")
    monkeypatch.setattr(results, "remove_parts", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        picked(run_dir, config)
    monkeypatch.undo()
    before = results.picks(run_dir)
    picked(run_dir, config)
    assert len(results.picks(run_dir)) == len(before)
    assert snapshot(run_dir) == expected


def test_a_second_run_does_nothing(tmp_path, config):
    run_dir = planned(tmp_path / "run")
    picked(run_dir, config)
    assert picked(run_dir, config, scorer=lambda pickers: pytest.fail("worked twice")) == {}


def fails_with(error, shard):
    def read(other):
        if other == shard:
            raise error
        return fakes.read(other)

    return read


def test_bad_shards_are_recorded_and_tried_again(tmp_path, config, expected):
    run_dir, bad = planned(tmp_path / "run"), SHARDS[4]
    assert picked(run_dir, config, read=fails_with(BadData("x.mseed: nonsense"), bad))["failed"] == 1
    (failure,) = results.failures(run_dir)
    assert (failure.shard, failure.reason) == (bad.id, "BadData: x.mseed: nonsense")
    assert "Traceback" in run_dir.failure(bad).read_text()
    ends = results.outcomes(run_dir).end.tolist()
    assert ends.count("failed") == 1
    assert len(ends) == len(SHARDS)
    results.require_picked(run_dir, imported=False)
    picked(run_dir, config)
    assert not results.failures(run_dir)
    assert snapshot(run_dir) == expected


@pytest.mark.parametrize("size", [1, 3])
def test_what_fails_in_the_scorer_is_its_shards_failure(tmp_path, config, expected, size):
    run_dir, bad = planned(tmp_path / "run"), SHARDS[4]
    start_ns, peak = fakes.read(bad)[0].start_ns, fakes.read(bad)[0].samples.max()

    class Fails(fakes.Scorer):
        def runs(self, waveform):
            if (waveform.start_ns, waveform.samples.max()) == (start_ns, peak):
                raise ValueError("nonsense")
            return super().runs(waveform)

    tallies = srun(size, lambda world: picked(run_dir, split(config), world, scorer=Fails))
    assert tallies[0]["failed"] == 1
    (failure,) = results.failures(run_dir)
    assert failure.shard == bad.id
    assert "ValueError: nonsense" in failure.reason
    assert 'raise ValueError("nonsense")' in results.tracebacks(run_dir)[bad.id]
    picked(run_dir, config)
    assert snapshot(run_dir) == expected


@pytest.mark.parametrize("size", [1, 3])
def test_a_wrong_configuration_stops_the_run(tmp_path, config, size):
    class Refuses(fakes.Scorer):
        def runs(self, waveform):
            raise ConfigError("another rate")

    run_dir = planned(tmp_path / "run")
    with pytest.raises(ConfigError, match="another rate"):
        srun(size, lambda world: picked(run_dir, split(config), world, scorer=Refuses))


def test_a_scorer_that_hangs_stops_the_run_and_is_no_failure_of_a_shard(tmp_path, config):
    run_dir, end = planned(tmp_path / "run"), threading.Event()

    class Hangs(fakes.Scorer):
        def runs(self, waveform):
            end.wait(20)
            return super().runs(waveform)

    def body(world):
        try:
            return picked(run_dir, split(config, answer_timeout_s=0.3), world, scorer=Hangs)
        finally:
            end.set()

    with pytest.raises(Lost, match="has not answered for 0"):
        srun(3, body)
    assert results.failures(run_dir) == []


def test_a_failure_note_left_by_a_kill_does_not_count(tmp_path, config):
    run_dir = planned(tmp_path / "run")
    picked(run_dir, config)
    tries.write(run_dir, SHARDS[0], "earlier", "Traceback")
    assert results.failures(run_dir) == []
    assert results.outcomes(run_dir).end.tolist() == ["picked"] * len(SHARDS)


def nothing(shard):
    raise NoData("no file")


def test_no_data_is_a_normal_end(tmp_path, several):
    run_dir = planned(tmp_path / "run", several)
    assert picked(run_dir, several, read=nothing) == {"empty": len(SHARDS)}
    for each, _ in of_pickers(run_dir, several):
        assert results.outcomes(each).reason.tolist() == ["no file"] * len(SHARDS)


def test_too_many_failures_stop_the_run(tmp_path, config):
    def fails(shard):
        raise BadData("nonsense")

    with pytest.raises(ConfigError, match=r"4 shards failed, more than compute\.max_failed = 3"):
        picked(planned(tmp_path / "run"), config, read=fails)


def test_the_next_shard_is_read_while_the_present_one_is_picked(tmp_path):
    """In the order of the shards, an error at its own; the thread is one shard ahead and no more."""
    begun = []

    def read(shard):
        begun.append(shard)
        if shard == SHARDS[2]:
            raise BadData("nonsense")
        return shard

    with Claims(tmp_path, 60, nobody) as claims:
        tasks = given(claims, SHARDS[:5])
        check_ahead(ahead(read, iter(tasks)), begun)
        assert list(ahead(read, iter([]))) == []


def given(claims, shards):
    claim = claims.take("block")
    claim.expect([shard.id for shard in shards])
    return [Task(shard, claim) for shard in shards]


def check_ahead(given, begun):
    for k, (task, get) in enumerate(given):
        assert task.shard == SHARDS[k]
        until = time.monotonic() + 20
        while len(begun) < min(k + 2, 5) and time.monotonic() < until:
            time.sleep(0.001)
        assert begun == SHARDS[: min(k + 2, 5)]
        if k == 2:
            with pytest.raises(BadData):
                get()
        else:
            assert get() == SHARDS[k]


def test_a_shard_at_hand_is_not_held_back_while_there_is_no_other_yet(tmp_path):
    """None of a hand of tasks says: nothing at the moment."""
    with Claims(tmp_path, 60, nobody) as claims:
        first, second = given(claims, SHARDS[:2])
        asked = []

        def tasks():
            for task in (first, None, None, second):
                asked.append(task)
                yield task

        gets = ahead(lambda shard: shard, tasks())
        assert next(gets)[0] is first
        assert asked == [first, None]
        assert next(gets)[0] is second


def test_a_reader_carries_no_torch():
    """What a rank imports before it scores."""
    code = (
        "import sys; import pipeline.cli, pipeline.stages.plan, pipeline.stages.pick; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("size", [1, 3])
def test_each_further_picker_has_a_run_directory_of_its_own(tmp_path, several, config, expected, size):
    run_dir = planned(tmp_path / "run", several)
    tallies = srun(size, lambda world: picked(run_dir, split(several), world))
    assert tallies[0]["picked"] == len(SHARDS), "a shard counts once"
    folders = [run_dir, *(run_dir.picker(slug) for slug in FURTHER)]
    assert [each.root for each, _ in of_pickers(run_dir, several)] == [each.root for each in folders]
    mine = {path: data for path, data in snapshot(run_dir).items() if path.parts[0] not in ("pickers", "config.toml")}
    assert mine == expected, "what the main picker finds does not depend on the others"
    counts = [len(results.picks(each)) for each in folders]
    assert counts[0] > counts[1] > counts[2] > 100
    for each in folders[1:]:
        results.require_picked(each, imported=False)
        saved = open_config(each.root)
        assert (saved.pick.also, saved.pick.slug) == ((), each.root.name)
        assert json.loads(each.weights.read_text())["name"] == saved.pick.weight


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_several_pickers_resume_after_a_kill_between_their_parts(tmp_path, several, monkeypatch, victim):
    whole, run_dir = planned(tmp_path / "whole", several), planned(tmp_path / "run", several)
    picked(whole, several)
    write, order = results.write_part, []

    def dies(each, *rest):
        order.append(each.root.name)
        if len(order) == 7 + victim:
            raise KeyboardInterrupt
        write(each, *rest)

    monkeypatch.setattr(results, "write_part", dies)
    with pytest.raises(KeyboardInterrupt):
        picked(run_dir, several)
    assert order[:3] == [FURTHER[1], FURTHER[0], "run"], "the main picker last"
    monkeypatch.setattr(results, "write_part", write)
    assert len(results.missing(run_dir, results.planned(run_dir))) == len(SHARDS) - 2
    picked(run_dir, several)
    assert snapshot(run_dir) == snapshot(whole)


def test_a_failure_counts_once_and_is_known_to_all(tmp_path, several):
    run_dir = planned(tmp_path / "run", several)
    assert picked(run_dir, several, read=fails_with(BadData("nonsense"), SHARDS[3]))["failed"] == 1
    for each, _ in of_pickers(run_dir, several):
        assert [outcome.shard for outcome in results.failures(each)] == [SHARDS[3].id]
        results.require_picked(each, imported=False)
    picked(run_dir, several)
    assert not any(results.failures(each) for each, _ in of_pickers(run_dir, several))


def test_a_run_keeps_to_the_engine_that_it_was_begun_with(tmp_path, several):
    run_dir = planned(tmp_path / "run", several)
    other = several.model_copy(update={"compute": several.compute.model_copy(update={"engine": "seisbench"})})
    picked(run_dir, several, read=fails_with(BadData("nonsense"), SHARDS[3]))
    with pytest.raises(ConfigError, match="begun with kernels on cpu, not seisbench on cpu"):
        picked(run_dir, other)
    for each, _ in of_pickers(run_dir, several):
        note = json.loads(each.weights.read_text())
        each.weights.write_text(json.dumps({key: note[key] for key in ("name", "sha256")}))
    assert picked(run_dir, other)["picked"] == 1


def test_other_weights_of_a_further_picker_are_refused(tmp_path, several):
    run_dir = planned(tmp_path / "run", several)
    noted = run_dir.picker(FURTHER[0]).weights
    noted.write_text(json.dumps({"name": "eqtransformer/original", "sha256": "0" * 64}))
    with pytest.raises(ConfigError, match="begun with weights eqtransformer/original of sha256 000000000000"):
        picked(run_dir, several)


def test_an_ensemble_is_one_picker_of_several_weights(tmp_path, several):
    pooled = several.model_copy(update={"pick": several.pick.model_copy(update={"ensemble": "mean"})})
    run_dir = planned(tmp_path / "run", pooled)
    assert of_pickers(run_dir, pooled) == [(run_dir, pooled)]
    scorers = []
    picked(run_dir, pooled, scorer=lambda pickers: scorers.append(pickers) or fakes.Scorer(1))
    assert not (run_dir.root / "pickers").exists()
    assert [each["name"] for each in json.loads(run_dir.weights.read_text())] == list(several.pick.weights)


@pytest.mark.parametrize("size", [1, 3])
def test_probabilities_are_saved_for_each_picker(tmp_path, several, size):
    wanted = several.model_copy(update={"pick": several.pick.model_copy(update={"save_probabilities": True})})
    run_dir = planned(tmp_path / "run", wanted)
    srun(size, lambda world: picked(run_dir, split(wanted), world))
    wave, _ = fakes.read(SHARDS[5])
    for (each, _), scores in zip(of_pickers(run_dir, wanted), fakes.Scorer(3).both(wave)[1], strict=True):
        with np.load(each.probabilities(SHARDS[5])) as saved:
            np.testing.assert_array_equal(saved["probability"], scores.probability.astype(np.float16))
            assert saved["start_ns"] == wave.start_ns


def test_the_plan_round_trips(tmp_path):
    tables.write(tmp_path / "a", fakes.as_table([(shard, 1) for shard in reversed(SHARDS)]))
    assert tables.read(tmp_path / "a", Shards).rows() == SHARDS


def test_share_is_fair_and_total():
    cost = dict(enumerate([9, 1, 1, 1, 8, 3, 3, 2]))
    hands = share(list(cost), cost.get, 3)
    assert sorted(item for hand in hands for item in hand) == list(cost)
    loads = [sum(cost[i] for i in hand) for hand in hands]
    assert max(loads) - min(loads) <= 1
