"""The main job through the command, on real MPI ranks: same bytes for any number of them, killed or not."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.errors import ConfigError
from pipeline.formats import stations, tables
from pipeline.models import weights
from pipeline.records import Events, Picks
from pipeline.stages import demo
from tests.weights_at_hand import need

ROOT = Path(__file__).parents[1]
MPIEXEC = Path(sys.executable).with_name("mpiexec")
RESULTS = ("shards.parquet", "picks", "outcomes", "catalogue", "compare", "report")
NUMBERS, PICKS = RESULTS[:-1], RESULTS[:3]  # the report shows [compute] too
SPLIT = ("--set", "compute.scorers=1", "--set", "compute.answer_timeout_s=300")


def orcolat(*args, ranks=1):
    command = [sys.executable, "-m", "mpi4py", "-m", "pipeline", *map(str, args)]
    return [str(MPIEXEC), "-n", str(ranks), *command] if ranks > 1 else command


def call(*args, ranks=1):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        orcolat(*args, ranks=ranks), cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False
    )


def snapshot(run_dir, names=RESULTS):
    files = [p for name in names for p in [run_dir / name, *sorted((run_dir / name).rglob("*"))] if p.is_file()]
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The shipped demo configuration on an archive of its own."""
    try:
        weights.fetch("phasenet/original")
    except ConfigError as e:
        pytest.skip(f"the end-to-end run needs the weights of phasenet/original: {e}")
    folder = tmp_path_factory.mktemp("demo")
    archive = demo.write_demo(folder / "archive", demo.SEED)
    text = (ROOT / "configs" / "demo.toml").read_text()
    assert "../runs/demo-archive" in text
    (folder / "demo.toml").write_text(text.replace("../runs/demo-archive", str(archive)))
    return folder / "demo.toml"


@pytest.fixture(scope="module")
def alone(config):
    done = call("run", config, "--run-dir", config.parent / "alone")
    assert done.returncode == 0, done.stderr[-3000:]
    return config.parent / "alone", done


def test_the_demo_is_found(alone):
    card = json.loads((alone[0] / "compare" / "scorecard.json").read_text())
    assert card["n"]["events_reference"] >= 25
    assert card["events"]["recall"]["value"] >= 0.9
    assert card["events"]["precision"]["value"] >= 0.9


def test_the_run_ends_with_account_scores_and_report(alone):
    run_dir, done = alone
    for word in ("shards", "recall", "precision", str(run_dir / "report" / "index.html")):
        assert word in done.stdout
    assert "Traceback" not in done.stderr


def test_a_second_run_changes_nothing(alone, config):
    before = snapshot(alone[0])
    again = call("run", config, "--run-dir", alone[0])
    assert again.returncode == 0, again.stderr[-3000:]
    assert snapshot(alone[0]) == before


@pytest.mark.parametrize("ranks", [2, 5])
def test_any_number_of_ranks_gives_the_same_bytes(alone, config, ranks):
    run_dir = config.parent / f"ranks{ranks}"
    done = call("run", config, "--run-dir", run_dir, ranks=ranks)
    assert done.returncode == 0, done.stderr[-3000:]
    assert snapshot(run_dir) == snapshot(alone[0])


def test_readers_and_a_scorer_give_the_same_bytes(alone, config, tmp_path):
    run_dir = config.parent / "split"
    scratch = "--set", f"compute.scratch={tmp_path}"
    done = call("run", config, "--run-dir", run_dir, *SPLIT, *scratch, ranks=3)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rank 0/3 INFO scored 16 waveforms for ranks 1, 2" in done.stderr
    assert snapshot(run_dir, NUMBERS) == snapshot(alone[0], NUMBERS)
    assert list(tmp_path.iterdir()) == []


def rank_of(process_id, run_dir):
    """Which rank of the run in ``run_dir`` a process is; None if it is none."""
    try:
        folder = Path("/proc", process_id)
        command, variables = (folder / "cmdline").read_bytes().split(b"\0"), (folder / "environ").read_bytes()
    except OSError:
        return None
    rank = re.search(rb"\0PMI_RANK=(\d+)\0", variables)
    return int(rank[1]) if rank and b"pipeline" in command and os.fsencode(run_dir) in command else None


def ranks_of(run_dir):
    """The processes of a run, by rank."""
    found = {path.name: rank_of(path.name, run_dir) for path in Path("/proc").iterdir() if path.name.isdecimal()}
    return {rank: int(name) for name, rank in found.items() if rank is not None}


@pytest.mark.parametrize("victim", [0, 2], ids=["scorer", "reader"])
def test_one_rank_killed_in_the_middle_ends_all_and_resumed_gives_the_same_bytes(alone, config, victim):
    run_dir = config.parent / f"killed{victim}"
    assert main(["plan", str(config), "--run-dir", str(run_dir)]) == 0
    command = orcolat("pick", run_dir, *SPLIT, ranks=3)
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 120
    while not len(list(run_dir.glob("parts/*/*.parquet"))) >= 3 and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(ranks_of(run_dir)[victim], signal.SIGKILL)
    assert process.wait(60) != 0
    until = time.monotonic() + 20
    while ranks_of(run_dir) and time.monotonic() < until:
        time.sleep(0.02)
    assert ranks_of(run_dir) == {}
    assert not list(run_dir.glob("outcomes/*.parquet")), "killed too late to mean anything"
    assert main(["status", str(run_dir)]) == 3
    assert main(["associate", str(run_dir)]) == 3
    assert call("pick", run_dir, *SPLIT, ranks=3 - victim // 2).returncode == 0
    assert snapshot(run_dir, PICKS) == snapshot(alone[0], PICKS)


def test_a_further_picker_leaves_a_run_of_its_own(config, tmp_path):
    """Ten minutes with two pickers in one pass, and with the second alone."""
    further = need("eqtransformer/original")
    both, single = tmp_path / "both", tmp_path / "single"
    short = "--set", "run.end=2024-05-06T20:10:00Z"
    also = "--set", f'pick.also=[{{weight="{further}"}}]'
    assert main(["plan", str(config), "--run-dir", str(both), *short, *also]) == 0
    assert main(["plan", str(config), "--run-dir", str(single), *short, "--set", f"pick.weight={further}"]) == 0
    assert main(["pick", str(both)]) == main(["pick", str(single)]) == 0
    own = both / "pickers" / "eqtransformer-original"
    assert sum(tables.n_rows(path) for path in own.glob("picks/*.parquet")) > 50
    assert snapshot(own, (*PICKS, "weights.json", "stations.parquet")) == snapshot(
        single, (*PICKS, "weights.json", "stations.parquet")
    )
    for command in ("associate", "locate", "compare", "report", "status"):
        assert main([command, str(own)]) == 0
    assert main(["status", str(both)]) == 3


def test_stages_one_by_one_give_the_same_bytes(alone, config):
    run_dir = config.parent / "steps"
    assert call("plan", config, "--run-dir", run_dir).returncode == 0
    for stage in ("pick", "associate", "locate", "compare", "gate", "report"):
        done = call(stage, run_dir)
        assert done.returncode == 0, f"{stage}: {done.stderr[-3000:]}"
    assert snapshot(run_dir) == snapshot(alone[0])


def test_another_configuration_is_refused(alone, config):
    done = call("run", config, "--run-dir", alone[0], "--set", "pick.threshold_p=0.4")
    assert done.returncode == 2
    assert "pick.threshold_p is 0.3 there, 0.4 here" in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_configuration_ends_every_rank_with_2(config):
    done = call("run", config, "--run-dir", config.parent / "bad", "--set", "pick.weight=no/such", ranks=2)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "no/such" in done.stderr


@pytest.fixture
def copy(alone, tmp_path):
    """A finished run to damage."""
    return Path(shutil.copytree(alone[0], tmp_path / "copy"))


def test_a_lost_file_of_picks_does_not_become_an_empty_catalogue(copy, capsys):
    before = snapshot(copy / "catalogue")
    next(copy.glob("picks/*.parquet")).unlink()
    assert main(["associate", str(copy)]) == 2
    assert "holds 0 picks, but" in capsys.readouterr().err
    assert main(["status", str(copy)]) == 3
    assert snapshot(copy / "catalogue") == before


def test_a_late_pick_makes_what_follows_out_of_date(copy, capsys):
    """Pick one station again, as after a failure: the catalogue is older than the picks."""
    (outcomes,) = copy.glob("outcomes/*.parquet")
    outcomes.unlink()
    shutil.rmtree(copy / "probabilities", ignore_errors=True)
    assert main(["pick", str(copy)]) == 0
    assert main(["status", str(copy)]) == 0, "the same picks again: nothing is out of date"
    (picks,) = copy.glob("picks/*.parquet")
    changed = tables.read(picks, Picks)
    later = changed.time_ns.copy()
    later[0] += 1
    tables.write(picks, replace(changed, time_ns=later))
    assert main(["status", str(copy)]) == 3
    assert "associate    missing or out of date" in capsys.readouterr().out
    assert main(["associate", str(copy)]) == 0
    assert main(["locate", str(copy)]) == 0
    assert main(["compare", str(copy)]) == 0
    assert main(["report", str(copy)]) == 0
    assert main(["status", str(copy)]) == 0


def test_other_weights_do_not_go_on_with_a_run(copy, capsys):
    next(copy.glob("outcomes/*.parquet")).unlink()
    noted = json.loads((copy / "weights.json").read_text())
    (copy / "weights.json").write_text(json.dumps({**noted, "sha256": "0" * 64}))
    assert main(["pick", str(copy)]) == 2
    assert "this run was begun with weights phasenet/original of sha256 000000000000" in capsys.readouterr().err


def test_an_account_that_does_not_balance_is_a_bug(copy, capsys):
    (events,) = copy.glob("catalogue/events.parquet")
    tables.write(events, tables.read(events, Events).take(slice(1, None)), tables.metadata(events))
    assert main(["report", str(copy)]) == 1
    assert "BREACH" in capsys.readouterr().out


def test_a_damaged_scorecard_is_made_again(copy):
    before = (copy / "compare" / "scorecard.json").read_bytes()
    (copy / "compare" / "scorecard.json").write_text('{"config_digest"')
    assert main(["compare", str(copy)]) == 0
    assert (copy / "compare" / "scorecard.json").read_bytes() == before


def test_import_and_pick_are_not_confused(copy, capsys):
    assert main(["import-picks", str(copy)]) == 2
    assert "pick.source is not set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("compare.reference_events.path=nowhere.hpc", "nowhere.hpc"),
        ("compare.reference_events.format=comcat", "comcat"),
        ("pick.weight=seisbench:PhaseNet/unheard-of", "orcolat weights fetch seisbench:PhaseNet/unheard-of"),
        ("stations.files=['nowhere.xml']", "nowhere.xml"),
        ("archive.root=nowhere", "nowhere"),
        ("run.start=2024-05-05T00:00:00Z", ""),
    ],
)
def test_what_will_be_needed_is_looked_at_before_the_work(config, tmp_path, capsys, override, named):
    code = main(["plan", str(config), "--run-dir", str(tmp_path / "run"), "--set", override])
    assert code == (2 if named else 0)
    assert named in capsys.readouterr().err
    assert (tmp_path / "run" / "shards.parquet").exists() == (not named)


def test_a_station_outside_its_epochs_is_named_before_the_work(config, tmp_path, capsys):
    sites = stations.read([config.parent / "archive" / "stations.xml"])
    rows = zip(sites.id.tolist(), sites.latitude_deg.tolist(), sites.longitude_deg.tolist(), strict=True)
    lines = [
        f"{name.replace('.', '|')}|{lat}|{lon}|100|x|2000-01-01T00:00:00|2020-01-01T00:00:00" for name, lat, lon in rows
    ]
    header = "#Network|Station|Latitude|Longitude|Elevation|SiteName|StartTime|EndTime"
    (tmp_path / "old.txt").write_text("\n".join([header, *lines]))
    override = f"stations.files=['{tmp_path / 'old.txt'}']"
    assert main(["plan", str(config), "--run-dir", str(tmp_path / "run"), "--set", override]) == 2
    assert "lie outside every epoch of their station" in capsys.readouterr().err


def test_help_teaches():
    done = call("--help")
    assert done.returncode == 0
    for word in ("exit codes", "import-picks", "weights", "mpiexec"):
        assert word in done.stdout
