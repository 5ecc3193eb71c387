"""Several associators on the picks of one run: a catalogue of each, and how they agree."""

import json
import re
import shutil

import numpy as np
import pytest

from pipeline import config as configs
from pipeline.cli import main
from pipeline.cluster.world import Alone, one_fails_all_fail
from pipeline.errors import ConfigError, Incomplete
from pipeline.formats import results, tables
from pipeline.records import Assignments, ComparedEvents, ComparedPicks, Events, Outcome, Picks
from pipeline.rundir import RunDir, of_associator, open_config, share_picks
from pipeline.stages import associate, compare
from tests import fakes, test_compare
from tests.test_associate_stage import TRUTH, picked, some_picks
from tests.test_compare import events, finished_run, picks, settings
from tests.test_config import GOOD
from tests.worlds import srun

RESULTS = ("catalogue/events.parquet", "catalogue/assignments.parquet")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of "gmma", and "pyocto" on its picks."""
    root = tmp_path_factory.mktemp("associators")
    (root / "run.toml").write_text(GOOD)
    config = configs.load(root / "run.toml", ["associate.z_km=[0, 20]", "associate.associator=gmma"])
    run_dir = picked(root / "run", config, some_picks())
    assert main(["associate", str(run_dir.root)]) == 0
    assert main(["associate", str(run_dir.root), "--associator", "pyocto"]) == 0
    return run_dir


@pytest.fixture
def both(made, tmp_path):
    """A copy of it: the run, what "pyocto" made of it, and its configuration."""
    run_dir = RunDir(shutil.copytree(made.root, tmp_path / "run", symlinks=True))
    return run_dir, run_dir.associator("pyocto"), open_config(run_dir.root)


def assigned(rows):
    """Assignments from (event, station, phase, seconds after T0)."""
    return test_compare.table(
        Assignments,
        len(rows),
        event=[r[0] for r in rows],
        station=[r[1] for r in rows],
        phase=[r[2] for r in rows],
        time_ns=[test_compare.T0 + round(r[3] * 1e9) for r in rows],
    )


def by_hand(tmp_path, theirs, their_rows):
    """Our events a, b and c, and another catalogue of the same six picks; the reference polygon holds none of them."""
    config = settings(tmp_path, polygon=[[0, 0], [0, 1], [1, 1]])
    rows = [("AA.ONE..", "P", 1.0, 0.9), ("AA.ONE..", "S", 2.0, 0.9), ("AA.TWO..", "P", 3.0, 0.9)]
    rows += [("AA.TWO..", "S", 4.0, 0.9), ("AA.ONE..", "P", 9.0, 0.9), ("AA.ONE..", "P", 9.1, 0.9)]
    ours = events([("a", 0.0, 46.0, 13.0, np.nan), ("b", 8.0, 46.0, 13.0, np.nan), ("c", 90.0, 46.0, 13.0, np.nan)])
    mine = assigned([("a", *r[:3]) for r in rows[:4]] + [("b", *rows[4][:3])])
    run_dir = finished_run(tmp_path / "run", config, ours, picks(rows), mine, ["AA.ONE", "AA.TWO"])
    other, alone = of_associator(run_dir, config, "pyocto")
    share_picks(run_dir, other, alone)
    for path, table in (
        (other.events, theirs),
        (other.assignments, assigned([(e, *rows[i][:3]) for e, i in their_rows])),
    ):
        path.parent.mkdir(exist_ok=True)
        tables.write(path, table)
    return run_dir, config


def test_another_associator_makes_a_catalogue_of_its_own_from_the_same_picks(both, capsys):
    run_dir, other, _ = both
    first = [(d.root / name).read_bytes() for d in (run_dir, other) for name in RESULTS]
    assert open_config(run_dir.root).associate.associator == "gmma"
    assert open_config(other.root).associate.associator == "pyocto"
    assert len(tables.read(run_dir.events, Events)) == len(tables.read(other.events, Events)) == len(TRUTH)
    assert repr(results.picks(other).as_dict()) == repr(results.picks(run_dir).as_dict())
    assert not any(path.is_file() and not path.is_symlink() for path in other.root.glob("*.parquet"))
    assert np.isnan(tables.read(other.assignments, Assignments).probability).all()
    stamps = [(d.root / name).stat().st_mtime_ns for d in (run_dir, other) for name in RESULTS]
    assert main(["associate", str(run_dir.root), "--associator", "pyocto"]) == 0
    assert main(["associate", str(run_dir.root), "--associator", "gmma"]) == 0
    assert main(["associate", str(other.root)]) == 0
    assert [(d.root / name).stat().st_mtime_ns for d in (run_dir, other) for name in RESULTS] == stamps
    assert [(d.root / name).read_bytes() for d in (run_dir, other) for name in RESULTS] == first
    capsys.readouterr()
    main(["status", str(run_dir.root)])
    assert f"pyocto in {other.root}: has a catalogue" in capsys.readouterr().out


def test_its_run_directory_does_what_every_run_directory_does(both, capsys):
    _, other, _ = both
    assert [main([stage, str(other.root)]) for stage in ("locate", "compare", "report", "status")] == [0, 0, 0, 0]
    out = capsys.readouterr().out
    assert f"events     {len(TRUTH)}" in out
    assert "complete" in out.splitlines()
    page = re.sub(r"<(script|style)\b(?! type).*?</\1>", "", other.report.read_text(), flags=re.DOTALL)
    assert "nan" not in page.lower().replace("nanosecond", "")


def test_new_picks_make_both_catalogues_out_of_date(both, capsys):
    run_dir, other, config = both
    kept = tables.read(run_dir.picks(fakes.day(2)), Picks).take(slice(0, 3))
    results.write_day(run_dir, fakes.day(2), kept, [Outcome("2024-05-08/XD.S00..HH", "picked", "", len(kept), 1.0)])
    main(["status", str(run_dir.root)])
    assert "pyocto" in capsys.readouterr().out.split("out of date: run `orcolat associate")[-2]
    assert main(["associate", str(run_dir.root)]) == 0
    with pytest.raises(Incomplete, match=r"gmma and pyocto had other picks.*--associator pyocto` again"):
        compare.associators(run_dir, config, "gmma", "pyocto", Alone())
    assert main(["associate", str(run_dir.root), "--associator", "pyocto"]) == 0
    assert main(["compare", str(run_dir.root), "--associators", "gmma", "pyocto"]) == 0
    assert len(tables.read(other.events, Events)) == len(TRUTH) - 1


def test_same_bytes_on_any_number_of_ranks(both):
    run_dir, other, config = both
    first = [(other.root / name).read_bytes() for name in RESULTS]
    other.events.unlink()

    def body(world):
        with one_fails_all_fail(world, lambda e: 1):
            associate.run(*of_associator(run_dir, config, "pyocto"), world)

    srun(3, body)
    assert [(other.root / name).read_bytes() for name in RESULTS] == first


def test_two_associators_side_by_side(both, capsys):
    run_dir, other, _ = both
    capsys.readouterr()
    assert main(["compare", str(run_dir.root), "--associators", "gmma", "pyocto"]) == 0
    out = capsys.readouterr().out.splitlines()
    n = len(TRUTH)
    assert out[2].split() == ["events", *map(str, (n, n, n, 0, 0)), *["1.000"] * 3]
    target = run_dir.between("gmma", "pyocto")
    card = json.loads(target.scorecard.read_text())
    assert card["events"]["recall"]["value"] == card["events"]["precision"]["value"] == 1
    assert card["events"]["residuals"]["epicentre_km"]["mae"] < 1
    keys = []
    for each in (run_dir, other):
        own, order = tables.read(each.assignments, Assignments), tables.read(each.events, Events).id.tolist()
        rows = zip(own.event.tolist(), own.station.tolist(), own.phase.tolist(), own.time_ns.tolist(), strict=True)
        keys.append({(station, phase, time): order.index(event) for event, station, phase, time in rows})
    mine, theirs = keys  # events of both in the order of time
    assert card["n"]["picks_matched"] == len(mine.keys() & theirs.keys()) > 180
    assert card["n"]["picks_same_event"] == len(mine.items() & theirs.items()) > 170
    assert not np.nan_to_num(tables.read(target.compared("picks"), ComparedPicks).dt_s).any()
    stamp = target.scorecard.stat().st_mtime_ns
    assert main(["compare", str(run_dir.root), "--associators", "gmma", "pyocto"]) == 0
    assert capsys.readouterr().out.splitlines() == out
    assert target.scorecard.stat().st_mtime_ns == stamp
    assert main(["compare", str(run_dir.root), "--associators", "pyocto", "gmma"]) == 0
    assert not run_dir.scorecard.exists()  # the place of the comparison with the analysts


def test_the_figures_of_two_small_catalogues(tmp_path):
    """a and A are common, b and B too far apart, c is ours alone; the picks 9.0 and 9.1 s are two."""
    theirs = events([("A", 0.5, 46.01, 13.0, np.nan), ("B", 8.0, 47.0, 13.0, np.nan)])
    run_dir, config = by_hand(tmp_path, theirs, [("A", 0), ("A", 1), ("B", 2), ("B", 5)])
    text = compare.associators(run_dir, config, "gamma", "pyocto", Alone()).splitlines()
    assert text[0] == "gamma against pyocto: events within 2 s and 8 km are common"
    assert text[2].split() == ["events", "3", "2", "1", "2", "1", "0.333", "0.500", "0.400"]
    assert text[3].split() == ["P", "picks", "3", "3", "2", "1", "1", "0.667", "0.667", "0.667"]
    assert text[4].split() == ["S", "picks", "2", "1", "1", "1", "0", "0.500", "1.000", "0.667"]
    assert text[5] == "of 3 picks in events of both 2 are in common events"
    assert text[6] == "mean distance of common events: 0.50 s, 1.11 km, 0.00 km of depth"
    target = run_dir.between("gamma", "pyocto")
    assert tables.read(target.compared("events"), ComparedEvents).status.tolist() == ["matched", "new", "missed", "new"]
    assert (tables.read(target.compared("picks"), ComparedPicks).status == "matched").sum() == 3
    back = compare.associators(run_dir, config, "pyocto", "gamma", Alone()).splitlines()
    assert back[2].split() == ["events", "2", "3", "1", "1", "2", "0.500", "0.333", "0.400"]


def test_a_catalogue_without_events_is_one(tmp_path):
    run_dir, config = by_hand(tmp_path, Events.empty(), [])
    text = compare.associators(run_dir, config, "gamma", "pyocto", Alone()).splitlines()
    assert text[2].split() == ["events", "3", "0", "0", "3", "0", "0.000", "-", "0.000"]
    assert text[-1] == "of 0 picks in events of both 0 are in common events"


@pytest.mark.parametrize("names", [("gamma", "gmma"), ("gmma", "gamma")])
def test_a_catalogue_that_is_not_there_is_named_with_its_command(tmp_path, names):
    run_dir, config = by_hand(tmp_path, Events.empty(), [])
    with pytest.raises(
        Incomplete, match=rf"no catalogue of gmma yet: run `orcolat associate {run_dir.root} --associator"
    ):
        compare.associators(run_dir, config, *names, Alone())
    run_dir.assignments.unlink()
    with pytest.raises(Incomplete, match=rf"no catalogue of gamma yet: run `orcolat associate {run_dir.root}` first"):
        compare.associators(run_dir, config, "pyocto", "gamma", Alone())
    with pytest.raises(ConfigError, match="pyocto pyocto: a catalogue is compared with another one"):
        compare.associators(run_dir, config, "pyocto", "pyocto", Alone())


@pytest.mark.parametrize(
    "arguments", [["associate", "r", "--associator", "real"], ["compare", "r", "--associators", "gmma"]]
)
def test_the_command_line_names_the_associators(arguments, capsys):
    with pytest.raises(SystemExit) as e:
        main(arguments)
    assert e.value.code == 2
    error = capsys.readouterr().err
    assert "'gamma', 'gmma', 'pyocto'" in error or "expected 2 arguments" in error
    with pytest.raises(SystemExit):
        main([arguments[0], "--help"])
    assert "gamma, gmma, pyocto" in " ".join(capsys.readouterr().out.split())


def test_what_cannot_be_shared(both):
    run_dir, _, config = both
    shutil.rmtree(run_dir.root / "associators")
    (run_dir.root / "associators").touch()
    with pytest.raises(ConfigError, match="cannot share the picks"):
        share_picks(run_dir, *of_associator(run_dir, config, "pyocto"))
    run_dir.shards.unlink()
    with pytest.raises(Incomplete, match="run `orcolat plan`"):
        share_picks(run_dir, *of_associator(run_dir, config, "pyocto"))
