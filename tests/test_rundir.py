"""A file exists only when it is whole; a run directory belongs to one configuration."""

import os

import pytest

from pipeline import config as configs
from pipeline import rundir
from pipeline.errors import ConfigError, Incomplete
from pipeline.rundir import RunDir, publish, tidy
from tests.test_config import GOOD


@pytest.fixture
def config(tmp_path):
    (tmp_path / "run.toml").write_text(GOOD)
    return configs.load(tmp_path / "run.toml")


def test_publish_leaves_nothing_on_error(tmp_path):
    def half():
        with rundir.publish(tmp_path / "d" / "a.parquet") as part:
            part.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert list((tmp_path / "d").iterdir()) == []


def test_publish_replaces_in_one_step(tmp_path):
    (tmp_path / "a").write_text("old")
    with rundir.publish(tmp_path / "a") as part:
        part.write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert [p.read_text() for p in tmp_path.iterdir()] == ["new"]


@pytest.fixture
def other(config):
    return config.model_copy(update={"pick": config.pick.model_copy(update={"threshold_p": 0.2})})


def test_what_was_published_once_stays(tmp_path):
    for text in ("first", "second"):
        with publish(tmp_path / "weights.json", once=True) as part:
            part.write_text(text)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("weights.json", "first")]


def test_what_killed_processes_left_is_cleared_away_when_it_is_old(tmp_path):
    run_dir = RunDir(tmp_path)
    folders = ("", "catalogue", "failed/2024-05-06", "probabilities/2024-05-06")
    parts = [tmp_path / folder / f".a.{age}.part" for folder in folders for age in ("old", "new")]
    for part in parts:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        if "old" in part.name:
            os.utime(part, (0, 0))
    tidy(run_dir)
    assert [part.exists() for part in parts] == [False, True] * len(folders)


def test_before_there_is_a_plan_the_configuration_may_be_corrected(tmp_path, config, other):
    rundir.create(tmp_path / "run", other)
    rundir.create(tmp_path / "run", config)
    assert rundir.open_config(tmp_path / "run") == config


def test_a_place_that_cannot_be_written_is_named(tmp_path, config):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be made a run directory.*--run-dir"):
        rundir.create(tmp_path / "file", config)


def test_a_run_directory_refuses_another_configuration(tmp_path, config, other):
    rundir.create(tmp_path / "run", config).shards.touch()
    rundir.create(tmp_path / "run", config)
    with pytest.raises(ConfigError, match=r"pick.threshold_p is 0.3 there, 0.2 here"):
        rundir.create(tmp_path / "run", other)


def test_how_the_work_is_done_may_change(tmp_path, config):
    rundir.create(tmp_path / "run", config).shards.touch()
    rundir.create(tmp_path / "run", config.model_copy(update={"compute": configs.Compute(threads=7)}))


def test_any_other_directory_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not a run directory"):
        rundir.open_config(tmp_path)


def test_a_missing_stage_is_named(tmp_path):
    with pytest.raises(Incomplete, match="orcolat plan"):
        rundir.require(rundir.RunDir(tmp_path).shards, "plan")
