"""The bench of associators: what its tables say, and that it ends who takes too long."""

import argparse

from tests import bench_association
from tests.bench_association import compare, growth, measure, table


def row(cpu_s=2.0, picks=1000, **changes):
    scores = {"events": 3, "recall": 0.75, "median_km": float("nan")}
    found = {"time_ns": [0, 10**11, 2 * 10**11], "x_km": [0.0] * 3, "y_km": [0.0] * 3, "z_km": [0.0] * 3}
    where = {"found": found, "event_of_pick": [-1, -1], "centre": [46.0, 12.0], "limit": [3.0, 15.0]}
    times = {"wall_s": 2.5, "cpu_s": cpu_s, "ready_s": 0.1, "peak_mb": 100.0, "digests": ["a"]}
    return {"picks": picks, **times, "scores": scores, **where, **changes}


def test_a_table_has_the_columns_that_have_figures_and_a_line_for_who_failed():
    lines = table({"one": row(), "two": {"error": "> 300 s"}}).splitlines()
    assert lines[0] == "1,000 picks"
    assert lines[2] == "| associator | events | wall s | CPU s | ready s | peak MB | recall |"
    assert lines[4] == "| one | 3 | 2.50 | 2.00 | 0.1 | 100 | 0.7500 |"
    assert lines[5] == "| two | > 300 s |  |  |  |  |  |"
    assert len({line.count("|") for line in lines[2:6]}) == 1


def test_repeats_that_differ_are_told():
    assert "not the same events" not in table({"one": row(digests=["a", "a"])})
    assert "one: not the same events in every repeat" in table({"one": row(digests=["a", "b"])})


def test_the_cost_of_a_thousand_picks_is_told_for_each_size():
    measured = {"synthetic-1500": {"one": row(2.0, 4000)}, "synthetic-5000": {"one": row(9.0, 6000)}}
    assert growth(measured).splitlines()[-1] == "| one | 0.500 | 1.500 |"
    assert growth({"synthetic-1500": measured["synthetic-1500"]}) == ""
    assert (
        growth(measured | {"synthetic-5000": {"one": {"error": "> 9 s"}}}).splitlines()[-1] == "| one | 0.500 | > 9 s |"
    )


def test_each_is_compared_with_all_others():
    far = row()["found"] | {"x_km": [0.0, 0.0, 40.0]}
    rows = {"one": row(), "two": row(found=far), "three": {"error": "failed"}}
    compare(rows)
    assert [rows[name]["scores"]["agreement"] for name in ("one", "two")] == [2 / 3, 2 / 3]
    rows["two"]["event_of_pick"] = rows["one"]["event_of_pick"] = [2, -1]
    compare(rows)
    assert rows["one"]["scores"]["agreement"] == 1
    alone = {"one": row()}
    compare(alone)
    assert "agreement" not in alone["one"]["scores"]


def test_who_takes_longer_than_the_limit_is_ended_and_what_is_not_there_left_out(capfd):
    args = argparse.Namespace(repeats=1, limit_s=0.05, ridgecrest=None)
    assert measure("synthetic-500", "pyocto", args) == {"error": "> 0.05 s"}
    assert bench_association._left_out("ridgecrest", None)
    assert "give --ridgecrest RUN" in capfd.readouterr().err or not bench_association.DATA.exists()
    assert not bench_association._left_out("synthetic-500", None)
