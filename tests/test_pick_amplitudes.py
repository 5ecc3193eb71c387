"""Amplitudes in the pick pass: from files and a StationXML to picks, and what older files hold."""

from dataclasses import fields, replace

import numpy as np
import pytest

from pipeline import config as configs
from pipeline.errors import ConfigError
from pipeline.formats import tables
from pipeline.maths.motion import NO_RESPONSE
from pipeline.meter import Meter, new_start
from pipeline.records import Picks
from pipeline.stages import pick_amplitudes, pick_shard
from tests import fakes
from tests.test_config import GOOD
from tests.test_response import channel, flat, saved

SHARD = replace(fakes.shards(1, 1)[0], station="XX.ABC.")


@pytest.fixture
def config(tmp_path):
    saved(tmp_path, *(channel(f"HH{c}", flat(2e3, "M/S")) for c in "ZNE"))
    (tmp_path / "run.toml").write_text(GOOD.replace("stations.csv", "stations.xml"))
    return configs.load(tmp_path / "run.toml")


def found(config):
    """One shard of made-up data and picks."""
    samples, ns = np.random.default_rng(0).normal(0, 100, (3, 30_000)).astype(np.float32), SHARD.span_ns[0]
    wave = replace(fakes.read(SHARD)[0], samples=samples, valid=np.ones(30_000, np.bool_), start_ns=ns + 10**12)
    probable = replace(wave, samples=np.zeros((3, 30_000), np.float32))
    probable.samples[0, 12_000] = probable.samples[1, 12_800] = 0.99

    class Scorer(fakes.Scorer):
        def runs(self, waveform):
            return super().runs(probable)

    ended = pick_shard.find(config, 1, SHARD, Scorer(), lambda: (wave, ("a note",)), Meter(new_start(), 0, config))
    assert not isinstance(ended, pick_shard.Failed), ended
    return ended.ended[0]


def test_picks_of_the_stage_have_amplitudes_and_its_notes_say_what_was_assumed(config):
    picks, outcome = found(config)
    assert picks.phase.tolist() == ["P", "S"]
    assert (picks.amplitude_m_s > 0.05).all()  # some standard deviations of 100 counts at 2000 counts for 1 m/s
    assert (picks.amplitude_m_s < 0.5).all()
    assert picks.amplitude_reason.tolist() == ["", "noise"]
    assert outcome.notes == ("a note", "HHZ, HHN, HHE: only a sensitivity is known, taken as flat")
    loud = config.model_copy(update={"magnitude": config.magnitude.model_copy(update={"snr": 0.0})})
    assert found(loud)[0].wood_anderson_mm[1] > 0


def test_without_responses_picks_are_as_before(config, tmp_path):
    asked = config.model_copy(update={"magnitude": config.magnitude.model_copy(update={"amplitudes": False})})
    (picks, outcome), (usual, _) = found(asked), found(config)
    assert outcome.notes == ("a note",)
    assert picks.amplitude_reason.tolist() == ["", ""]
    for name in ("time_ns", "probability", "snr_db", "gap_s"):
        np.testing.assert_array_equal(getattr(picks, name), getattr(usual, name))
    (tmp_path / "stations.xml").unlink()
    assert found(config)[0].amplitude_reason.tolist() == [NO_RESPONSE] * 2
    lacking = config.magnitude.model_copy(update={"responses": (tmp_path / "absent.xml",)})
    with pytest.raises(ConfigError, match=r"absent\.xml"):
        found(config.model_copy(update={"magnitude": lacking}))


def test_files_of_picks_without_the_columns_are_read(tmp_path):
    picks = fakes.picks(5, 0)
    tables.write(tmp_path / "new.parquet", picks)
    older = type("Older", (), {"columns": staticmethod(lambda: fields(Picks)[:7])})()
    for column in fields(Picks)[:7]:
        setattr(older, column.name, getattr(picks, column.name))
    tables.write(tmp_path / "old.parquet", older)
    assert "wood_anderson_mm" in tables.names(tmp_path / "new.parquet")
    assert "wood_anderson_mm" not in tables.names(tmp_path / "old.parquet")
    read = tables.read(tmp_path / "old.parquet", Picks)
    assert np.isnan(read.wood_anderson_mm).all()
    assert read.amplitude_reason.tolist() == [""] * 5


def test_a_worker_must_have_the_same_responses(config, tmp_path):
    before = pick_amplitudes.digests(config)
    assert list(before) == [str(tmp_path / "stations.xml")]
    saved(tmp_path, channel("HHZ", flat(3e3, "M/S")))
    assert pick_amplitudes.digests(config) != before
    lacking = config.magnitude.model_copy(update={"responses": (tmp_path / "absent.xml",)})
    with pytest.raises(ConfigError, match=r"absent\.xml"):
        pick_amplitudes.digests(config.model_copy(update={"magnitude": lacking}))
