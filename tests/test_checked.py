"""The gate in front of a precision that was never compared with SeisBench."""

import json

import pytest
import torch

from pipeline.config import Compute, Pick
from pipeline.errors import ConfigError
from pipeline.models import checked, weights
from pipeline.models.checked import Check
from pipeline.rundir import RunDir
from pipeline.stages import pick as pick_stage
from pipeline.stages import plan

GOOD = {
    "weight": "file:model.pt",
    "precision": "screened",
    "device": "cpu",
    "engine": "SeisBench",
    "versions": {"torch": "2"},
    "raw": False,
    "n_shards": 3,
    "n_picks_p": 100,
    "n_picks_s": 100,
    "f1_p": 0.995,
    "f1_s": 1.0,
    "threshold_p": 0.3,
    "threshold_s": 0.3,
    "overlap_samples": 1500,
    "blinding_samples": [0, 0],
    "stacking": "avg",
    "data": "ab" * 32,
    "day": "2026-01-02",
}


@pytest.fixture
def pick(tmp_path, monkeypatch):
    """A weight, which need not be a model for its digest, and an empty store."""
    monkeypatch.setenv("ORCOLAT_WEIGHTS", str(tmp_path / "store"))
    monkeypatch.setattr(checked, "SHIPPED", tmp_path / "shipped.json")
    monkeypatch.setattr(checked, "network_kind", lambda pick, compute: "SeisBench")
    (tmp_path / "model.pt").write_bytes(b"tensors")
    (tmp_path / "model.json").write_text('{"class": "PhaseNet"}')
    return Pick(weight=f"file:{tmp_path / 'model.pt'}", precision="screened")


def check(pick, **other):
    return Check.model_validate(GOOD | {"sha256": weights.digest(pick.weight)} | other)


def gate(pick):
    """ "" if it lets the picker pass, else what it says."""
    try:
        checked.require(pick, Compute())
    except ConfigError as e:
        return str(e)
    return ""


def test_what_was_never_checked_is_refused_and_the_remedy_is_named(pick):
    said = gate(pick)
    for word in ("'screened'", pick.weight, weights.digest(pick.weight)[:12], "on cpu", "never checked"):
        assert word in said
    for remedy in ("orcolat parity CONFIG --precision screened", "'fp32'", "allow_unchecked_precision = true"):
        assert remedy in said


def test_fp32_and_leave_need_no_check(pick):
    assert gate(pick.model_copy(update={"precision": "fp32"})) == ""
    assert gate(pick.model_copy(update={"allow_unchecked_precision": True})) == ""


def test_a_check_that_passed_opens_the_gate_the_users_own_or_the_projects(pick):
    checked.record([check(pick)])
    assert gate(pick) == ""
    checked.store(weights.digest(pick.weight)).unlink()
    assert gate(pick)
    checked.record([check(pick)], checked.SHIPPED)
    assert gate(pick) == ""


@pytest.mark.parametrize(
    "other",
    [
        {"precision": "bf16"},
        {"device": "NVIDIA H200"},
        {"sha256": "0" * 64},
        {"n_picks_p": 99},
        {"n_picks_s": 99},
        {"f1_p": 0.9949},
        {"f1_s": 0.9949},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_check_of_something_else_or_that_failed_or_is_of_few_picks_does_not(pick, other):
    checked.add(checked.store(weights.digest(pick.weight)), [check(pick, **other)])
    assert gate(pick)


def test_the_last_check_that_counts_decides(pick):
    checked.record([check(pick)])
    checked.record([check(pick, f1_s=0.9, data="cd" * 32)])
    assert "F1 P 0.9950, S 0.9000 < 0.995 on 2026-01-02" in gate(pick)
    checked.record([check(pick, f1_s=0.9, n_picks_s=5, data="ef" * 32)])
    assert "S 0.9000" in gate(pick)
    checked.record([check(pick, data="cd" * 32)])  # said again on the same data: replaced
    assert gate(pick) == ""
    assert [c.f1_s for c in checked.read(checked.store(weights.digest(pick.weight)))] == [1.0, 0.9, 1.0]


def test_each_of_several_pickers_is_asked_for(pick, tmp_path):
    (tmp_path / "b.pt").write_bytes(b"others")
    (tmp_path / "b.json").write_text('{"class": "PhaseNet"}')
    both = Pick.model_validate({**pick.model_dump(), "also": [{"weight": f"file:{tmp_path / 'b.pt'}"}]})
    checked.record([check(pick)])
    assert "b.pt" in gate(both)
    checked.record([check(both.pickers[1])])
    assert gate(both) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"f1_p": 0.995', '"f1_p": 1.5'),
        ('"f1_p": 0.995', '"f1_p": NaN'),
        ('"n_picks_p": 100', '"n_picks_p": -1'),
        ('"precision"', '"precission"'),
        ('"raw": false,', ""),
        ("[\n", "{\n"),
        ('"data": "ab', '"data": "../'),
    ],
)
def test_a_damaged_record_is_refused_by_its_name(pick, old, new):
    checked.record([check(pick)])
    path = checked.store(weights.digest(pick.weight))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert str(path) in gate(pick)
    assert "delete it" in gate(pick)


def test_a_path_that_cannot_be_used_is_no_damaged_record(pick, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "checks").write_text("a file")  # where the folder belongs
    said = gate(pick)
    assert "cannot be read" in said
    assert "ORCOLAT_WEIGHTS" in said
    assert "delete it" not in said
    for path in (tmp_path, tmp_path / "store" / "checks" / "a.json"):
        with pytest.raises(ConfigError, match=r"cannot be written: .*name a file with --json"):
            checked.require_writable(path, "--json")
        with pytest.raises(ConfigError, match="name a file with --json"), checked.written(path, "--json") as part:
            part.write_text("x")
    checked.require_writable(tmp_path / "new" / "a.json", "--json")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_record_survives_the_file(pick):
    one = check(pick)
    checked.record([one])
    path = checked.store(weights.digest(pick.weight))
    assert checked.read(path) == [one]
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no scratch file is left
    json.loads(path.read_text())


def test_the_projects_own_checks_are_valid():
    shipped = checked.read(checked.SHIPPED)
    assert {check.weight for check in shipped} >= {"phasenet/original", "eqtransformer/original"}
    assert all(check.device and check.counts and check.agrees for check in shipped)


def test_a_check_of_another_network_does_not_count(pick):
    checked.record([check(pick, engine="Kernels")])
    assert "on cpu by SeisBench was never checked" in gate(pick)


def test_the_device_is_named_and_one_that_cannot_be_seen_is_asked_for_later(pick, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"GPU {i}")
    assert [checked.device_kind(name) for name in ("cpu", "cuda", "cuda:1")] == ["cpu", "GPU 0", "GPU 1"]
    with pytest.raises(ConfigError, match="on GPU 1"):
        checked.require(pick, Compute(device="cuda:1"))
    assert checked.device_kind("cuda:2") is None
    checked.require(pick, Compute(device="cuda:2"))


def test_plan_and_pick_ask_before_any_shard(pick, tmp_path):
    from pipeline import config as configs
    from tests.test_config import GOOD as CONFIG
    from tests.test_pick_stage import planned
    from tests.test_picker import phasenet

    torch.save(phasenet().state_dict(), tmp_path / "model.pt")  # a model that could be run
    about = {"class": "PhaseNet", "model_args": {"component_order": "ENZ", "phases": "NPS"}}
    (tmp_path / "model.json").write_text(json.dumps(about))
    (tmp_path / "run.toml").write_text(CONFIG)
    settings = [f"pick.weight={pick.weight}", "pick.precision=screened"]
    config = configs.load(tmp_path / "run.toml", settings)
    with pytest.raises(ConfigError, match="never checked"):
        plan.check_inputs(config)
    run_dir: RunDir = planned(tmp_path / "run")
    from pipeline.cluster.world import Alone

    with pytest.raises(ConfigError, match="never checked"):
        pick_stage.run(run_dir, config, Alone())
    assert not list(run_dir.root.glob("parts/**/*"))


def test_the_leave_does_not_change_the_run(tmp_path):
    from pipeline import config as configs
    from tests.test_config import GOOD as CONFIG

    (tmp_path / "run.toml").write_text(CONFIG)
    leave = configs.load(tmp_path / "run.toml", ["pick.allow_unchecked_precision=true"])
    assert leave.digest == configs.load(tmp_path / "run.toml").digest
