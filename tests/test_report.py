"""The report: the account balances or says why not; the page is whole, harmless and the same every time."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from pipeline.cluster.world import Alone
from pipeline.errors import Incomplete
from pipeline.formats import results, tables, tries
from pipeline.maths.overview import all_events, grid, positions, times
from pipeline.page import words
from pipeline.page.data import FATES
from pipeline.plots.svg import date_axis
from pipeline.records import NS, Assignments, ComparedEvents, Events, Outcomes, Picks, Shards
from pipeline.stages import report
from pipeline.stages.report_records import MOST_PICKS
from tests.fabricate import fabricate, text
from tests.worlds import srun

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Tags, ids, links and text of a page, as a browser's parser sees them."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags, self.ids, self.addresses, self.handlers, self.text = Counter(), Counter(), [], [], []
        self.events, self.scripts = [], []
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[value] += 1
            if name in ("href", "src", "xlink:href", "action", "data", "srcset", "poster"):
                self.addresses.append(value)
            if name.startswith("on"):
                self.handlers.append(name)
        if tag == "tr" and dict(attrs).get("class") == "event":
            self.events.append(dict(attrs))
        if tag == "script":
            self.scripts.append(dict(attrs).get("type", "a script"))

    def handle_data(self, data):
        self.text.append(data)


def made(tmp_path, **wanted):
    run_dir, config = fabricate(tmp_path, **wanted)
    report.run(run_dir, config, Alone())
    return run_dir, config, run_dir.report.read_text("utf-8")


def data_of(page):
    """What the script of the page draws."""
    return json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])


def rows(table):
    return zip(table.station.tolist(), table.phase.tolist(), table.time_ns.tolist(), strict=True)


def books(run_dir, config):
    return report.balance(report.read(run_dir, config))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return made(tmp_path_factory.mktemp("plain"), n_days=2, n_failed=2)


# ---------------------------------------------------------------------------------------- the account


def test_account_counts_what_the_files_hold(plain):
    run_dir, config, _ = plain
    picks = results.picks(run_dir)
    wanted, used = ({*rows(table)} for table in (picks, tables.read(run_dir.assignments, Assignments)))
    ends = Counter(results.outcomes(run_dir).end.tolist())
    found = books(run_dir, config)
    assert found["picks"] == {
        "total": len(picks),
        "p": int(np.count_nonzero(picks.phase == "P")),
        "s": int(np.count_nonzero(picks.phase == "S")),
        "in_events": len(used & wanted),
        "noise": len(picks) - len(used & wanted),
    }
    assert found["shards"] == {"planned": 28, **{e: ends[e] for e in ("picked", "empty", "failed")}, "missing": 0}
    assert found["hours"]["planned"] == 28 * 24
    assert found["hours"]["data"] == pytest.approx(24 * results.outcomes(run_dir).valid_fraction.sum())
    assert found["events"] == 31
    assert found["breaches"] == []


def test_a_shard_counts_only_the_hours_that_the_run_asks_for(plain):
    run_dir, config, _ = plain
    run = config.run.model_copy(update={"end": config.run.start.replace(hour=1, minute=20)})
    found = books(run_dir, config.model_copy(update={"run": run}))
    assert found["hours"]["planned"] == pytest.approx(14 * 80 / 60)


def test_shards_without_a_result_are_missing(tmp_path):
    run_dir, config = fabricate(tmp_path, n_days=2)
    first = sorted((run_dir.root / "outcomes").glob("*.parquet"))[0]
    first.unlink()
    found = books(run_dir, config)
    assert found["shards"]["missing"] == 14
    assert sum(found["shards"].values()) == 2 * found["shards"]["planned"]
    assert "14 missing (run it again)" in found["verdict"]
    assert found["state"] != "good"


def drop_pick(run_dir, run):
    path = sorted((run_dir.root / "picks").glob("*.parquet"))[0]
    picks, used = tables.read(path, Picks), set(tables.read(run_dir.assignments, Assignments).time_ns.tolist())
    row = next(i for i, t in enumerate(picks.time_ns.tolist()) if t in used)
    tables.write(path, picks.take(np.arange(len(picks)) != row))


def double_assignment(run_dir, run):
    table = tables.read(run_dir.assignments, Assignments)
    tables.write(run_dir.assignments, Assignments.concat([table, table.take(slice(0, 1))]))


def lose_event(run_dir, run):
    events = tables.read(run_dir.events, Events)
    tables.write(run_dir.events, events.take(slice(1, None)))


def miscount(run_dir, run):
    events = tables.read(run_dir.events, Events)
    tables.write(run_dir.events, replace(events, n_p=events.n_p + (np.arange(len(events)) == 3)))


def stranger(run_dir, run):
    shards = tables.read(run_dir.shards, Shards)
    tables.write(run_dir.shards, shards.take(slice(1, None)))


def twice(run_dir, run):
    path = sorted((run_dir.root / "outcomes").glob("*.parquet"))[0]
    rows = tables.read(path, Outcomes)
    tables.write(path, Outcomes.concat([rows, replace(rows.take(slice(0, 1)), n_picks=np.zeros(1, np.int64))]))


BREACHES = [
    (drop_pick, "1 picks of events are not among the picks"),
    (drop_pick, "the shards report"),
    (double_assignment, "1 picks are in more than one event"),
    (lose_event, "assigned to 1 events that do not exist, first ev00000"),
    (lose_event, "the comparison knows 1 events that the catalogue does not hold"),
    (miscount, "1 events count other picks than they have, first ev00003"),
    (stranger, "1 shards have a result and are not in the plan, first 2024-03-20/OX.S000..HH"),
    (twice, "1 shards have more than one result, first 2024-03-20/OX.S000..HH"),
]


@pytest.mark.parametrize(("damage", "sentence"), BREACHES, ids=lambda v: getattr(v, "__name__", ""))
def test_what_does_not_balance_is_said(tmp_path, damage, sentence):
    run_dir, config = fabricate(tmp_path, n_events=12, n_stations=6)
    damage(run_dir, config)
    report.run(run_dir, config, Alone())
    found = books(run_dir, config)
    assert any(sentence in breach for breach in found["breaches"]), found["breaches"]
    assert found["state"] == "bad"
    assert "does not balance" in run_dir.report.read_text("utf-8")
    assert "BREACH" in report.summary(run_dir, config)


def test_events_that_a_rule_refused_are_told(tmp_path):
    run_dir, config = fabricate(tmp_path, n_events=12, n_stations=6)
    assert books(run_dir, config)["refused"] == {}
    tables.write(
        run_dir.events, tables.read(run_dir.events, Events), {"refused": {"max_rms_s": 1, "max_gap_deg": 1234}}
    )
    report.run(run_dir, config, Alone())
    told = "1,234 by max_gap_deg, 1 by max_rms_s"
    assert f"1,235 more refused ({told}), their picks are noise" in run_dir.report.read_text("utf-8")
    assert f"events     12; refused: {told}" in report.summary(run_dir, config)
    share = 100 * books(run_dir, config)["picks"]["in_events"] / books(run_dir, config)["picks"]["total"]
    assert f"<strong>12 events</strong> by gamma with {share:.1f} % of the picks;" in run_dir.report.read_text("utf-8")
    account = json.loads(run_dir.account.read_text("utf-8"))
    run_dir.account.write_text(json.dumps({k: v for k, v in account.items() if k != "refused"}))
    assert "refused" not in report.summary(run_dir, config)  # written before anything was refused


def test_our_magnitudes_are_called_what_they_are(tmp_path):
    run_dir, config, page = made(tmp_path, reference=False, n_events=5, n_stations=5)
    assert "not ML" not in page
    events = tables.read(run_dir.events, Events)
    tables.write(run_dir.events, replace(events, magnitude=np.full(5, 1.3)))
    report.run(run_dir, config, Alone())
    assert "not ML" in run_dir.report.read_text("utf-8")


def test_grid_holds_every_pick_and_every_end(plain):
    run_dir, config, _ = plain
    inputs = report.read(run_dir, config)
    days = grid(inputs.shards, inputs.outcomes, inputs.picks)
    assert days.n_p.sum() + days.n_s.sum() == len(results.picks(run_dir))
    assert Counter(days.end.ravel().tolist()) == Counter(inputs.outcomes.end.tolist())
    assert days.days == ["2024-03-20", "2024-03-21"]


def test_every_event_is_shown_once_and_blasts_are_not_scored(tmp_path):
    run_dir, _ = fabricate(tmp_path)
    ours, compared = tables.read(run_dir.events, Events), tables.read(run_dir.compared("events"), ComparedEvents)
    kind = compared.kind.astype("U12")
    kind[compared.status == "missed"] = "quarry blast"
    table = all_events(ours, replace(compared, kind=kind).take(compared.ours != ours.id[5]))
    assert sorted(table.ours[table.ours != ""].tolist()) == ours.id.tolist()
    assert Counter(table.status.tolist()) == {"matched": 27, "new": 3, "not scored": 1 + 3}
    assert (np.diff(times(table)) >= 0).all()


# ------------------------------------------------------------------------------------------- the page


def test_page_loads_nothing_and_its_policy_admits_only_its_script(plain):
    page = Page(plain[2])
    outside = [a for a in page.addresses if not a.startswith(("#", "data:image/png;base64,"))]
    assert outside == []
    assert page.scripts == ["application/json", "a script"]  # the first is no script, but data
    assert not set(page.tags) & {"link", "iframe", "object", "embed", "base", "form", "img", "video", "audio"}
    assert page.handlers == []
    assert re.findall(r"@import|url\((?!#)", plain[2]) == []
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', plain[2])[1]
    script = plain[2].split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy


def test_links_of_the_map_lead_to_events_of_the_list(plain):
    page = Page(plain[2])
    links = {unquote(a[1:]) for a in page.addresses if re.match(r"#(event|reference)=", a)}
    assert len(links) == 34
    assert all(page.ids[name] == 1 for name in links)
    assert [name for name, n in page.ids.items() if n > 1] == []


def test_every_event_is_in_the_data_of_the_page(plain):
    run_dir, config, page = plain
    inputs, found = report.read(run_dir, config), data_of(page)["events"]
    start_ns = config.run.span_ns[0]
    lat, lon, depth_km = positions(inputs.events)
    assert found["ours"] == inputs.events.ours.tolist()
    assert found["theirs"] == inputs.events.theirs.tolist()
    assert [found["status"]["names"][k] for k in found["status"]["at"]] == inputs.events.status.tolist()
    np.testing.assert_allclose(found["t"], (times(inputs.events) - start_ns) / 1e6, atol=0.5)
    for name, values, half in (("lat", lat, 6e-5), ("lon", lon, 6e-5), ("z", depth_km, 6e-3)):
        np.testing.assert_allclose(np.array(found[name], float), values, atol=half)
    assert found["m"] == [None if m != m else pytest.approx(m, abs=6e-3) for m in inputs.events.magnitude.tolist()]


def test_figures_are_well_formed_and_say_what_they_show(plain):
    figures = re.findall(r"<svg.*?</svg>", plain[2], re.S)
    assert len(figures) == 6
    for figure in figures:
        root = ElementTree.fromstring(figure.replace("<svg", '<svg xmlns:xlink="http://www.w3.org/1999/xlink"', 1))
        assert root.get("role") == "img"
        assert len(root.get("aria-label")) > 20


@pytest.mark.parametrize(
    ("start", "days", "first"),
    [
        ("2024-05-06T18:00", 0.5, "18:00\n06 May 2024"),
        ("2024-05-06", 5, "06\nMay 2024"),
        ("2024-05-25", 14, "25\nMay 2024"),
        ("2023-11-01", 200, "Nov\n2023"),
        ("2019-01-01", 3000, "2019"),
    ],
)
def test_the_first_label_of_a_date_axis_says_what_the_others_leave_out(start, days, first):
    axis = Figure().add_subplot()
    begin = np.datetime64(start, "s").astype(float) / 86_400
    axis.set_xlim(begin, begin + days)
    date_axis(axis)
    axis.figure.draw_without_rendering()
    labels = [label.get_text() for label in axis.get_xticklabels()]
    assert labels[0] == first
    assert not any("\n" in label for label in labels[1:])


def test_names_from_outside_are_harmless(tmp_path):
    names = (EVIL, "A&B\"'><b onload=x>", "$x_1$", "-->")
    run_dir, config = fabricate(
        tmp_path, n_stations=8, n_events=6, n_missed=2, n_failed=1, names=names, title=f"</title>{EVIL}"
    )
    tables.write(run_dir.events, evil_kind(tables.read(run_dir.events, Events)))
    compared = tables.read(run_dir.compared("events"), ComparedEvents)
    tables.write(run_dir.compared("events"), replace(compared, kind=text([EVIL] * len(compared))))
    shard = results.planned(run_dir).rows()[-1]
    tries.write(run_dir, shard, EVIL, f"</pre>{EVIL}")
    report.run(run_dir, config, Alone())
    page = Page(run_dir.report.read_text("utf-8"))
    assert page.scripts == ["application/json", "a script"]
    assert (
        page.tags["b"] == Page(made(tmp_path / "tame", n_stations=8, n_events=6, n_missed=2, n_failed=1)[2]).tags["b"]
    )
    assert page.handlers == []
    shown = "".join(page.text)
    assert all(name in shown for name in names)
    assert f"</pre>{EVIL}" in shown
    assert f"</title>{EVIL}" in shown


def evil_kind(events):
    return replace(events, kind=text([EVIL] * len(events)))


def test_same_run_same_bytes_in_any_process_and_world(plain):
    run_dir, config, first = plain
    srun(3, lambda world: report.run(run_dir, config, world))
    assert run_dir.report.read_text("utf-8") == first
    code = (
        "import sys; from pathlib import Path; from pipeline.stages import report;"
        "from pipeline.cluster.world import Alone;"
        "from pipeline.rundir import RunDir, open_config; r = RunDir(Path(sys.argv[1]));"
        "report.run(r, open_config(r.root), Alone())"
    )
    run_dir.report.unlink()
    others = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    home = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code, str(run_dir.root)], check=True, env=others, cwd=home, timeout=60)
    assert run_dir.report.read_bytes() == first.encode()


def test_a_long_list_is_cut_and_says_so(tmp_path):
    _, _, page = made(tmp_path, max_rows=5)
    events = Page(page).events
    assert Counter(e["data-status"] for e in events) == {"missed": 3, "new": 2}
    assert "Shown: 5 of 34, missed and new ones first. The files hold all 34" in page
    assert "Shown: 5 of 14. The files hold all 14" in page


def test_picks_of_an_event_say_what_the_analyst_has(tmp_path):
    run_dir, config, page = made(tmp_path)
    inputs, data = report.read(run_dir, config), data_of(page)
    row = next(i for i, status in enumerate(inputs.events.status.tolist()) if status == "missed")
    fates = Counter(FATES[pick[5]] for pick in data["picks"][str(row)])
    assert fates == {"missed": 2, "noise": 2}
    differences = [pick[2] - pick[3] for pick in data["picks"][str(row)] if FATES[pick[5]] == "noise"]
    assert differences == [50, 50]  # ms, ours minus theirs
    matched = next(i for i, status in enumerate(inputs.events.status.tolist()) if status == "matched")
    mine = inputs.assignments.take(inputs.assignments.event == inputs.events.ours[matched])
    picks = data["picks"][str(matched)]
    assert [data["channels"][pick[0]] for pick in picks] == mine.take(np.argsort(mine.time_ns)).station.tolist()
    assert {FATES[pick[5]] for pick in picks} <= {"same", ""}
    after_ms = (mine.time_ns - int(times(inputs.events)[matched])) / 1e6
    np.testing.assert_allclose(sorted(pick[2] for pick in picks), np.sort(after_ms), atol=0.5)
    for pick in picks:
        assert pick[8] == pytest.approx(pick[2] - pick[4], abs=1)  # the residual is observed minus predicted


def test_a_big_run_stays_a_small_page(tmp_path):
    run_dir, _, page = made(tmp_path, n_events=2500, n_stations=80, n_days=15, n_missed=200)
    assert "data:image/png;base64," in page
    assert 100_000 < run_dir.report.stat().st_size < 4_000_000
    assert len(data_of(page)["events"]["t"]) == 2700
    assert sum(map(len, data_of(page)["picks"].values())) <= MOST_PICKS


STATES = {
    "no reference": (
        {"reference": False},
        "Found 31 events with 514 picks; no reference events to compare with; 14 of 14 shards picked.",
        "good",
    ),
    "no event": (
        {"reference": False, "n_events": 0},
        "Found no event; no reference events to compare with; 14 of 14 shards picked.",
        "good",
    ),
    "one event": (
        {"reference": False, "n_events": 1, "n_stations": 5},
        "Found 1 event with 9 picks; no reference events to compare with; 5 of 5 shards picked.",
        "good",
    ),
    "all failed": (
        {"reference": False, "n_events": 0, "n_stations": 5, "n_failed": 5, "noise_per_day": 0},
        "Found no event; no reference events to compare with; 0 of 5 shards picked, 5 failed (run it again).",
        "open",
    ),
    "all missed": (
        {"n_events": 0, "n_missed": 4},
        "Found 0 of 4 reference events (recall 0.00, 95 % interval 0.00–0.00); 0 new events; 14 of 14 shards picked.",
        "good",
    ),
    "imported": (
        {"imported": True, "n_days": 2},
        "Found 28 of 31 reference events (recall 0.90, 95 % interval 0.82–0.95); 3 new events; "
        "picks imported from bulletin.parquet, no waveforms.",
        "good",
    ),
}


@pytest.mark.parametrize(("wanted", "sentence", "state"), STATES.values(), ids=STATES)
def test_the_verdict_of_every_state(tmp_path, wanted, sentence, state):
    run_dir, config, page = made(tmp_path, **wanted)
    found = json.loads(run_dir.report.with_name("account.json").read_text("utf-8"))
    assert (found["verdict"], found["state"], found["breaches"]) == (sentence, state, [])
    assert sentence in page
    assert report.summary(run_dir, config).startswith(sentence)


def test_a_run_that_is_only_picked_has_a_page_too(tmp_path):
    run_dir, config = fabricate(tmp_path)
    shutil.rmtree(run_dir.events.parent)
    shutil.rmtree(run_dir.scorecard.parent)
    report.run(run_dir, config, Alone())
    assert "No catalogue yet (run orcolat associate)" in run_dir.report.read_text("utf-8")
    assert "not associated yet" in report.summary(run_dir, config)


def test_without_a_plan_or_a_report_the_next_step_is_named(tmp_path):
    run_dir, config = fabricate(tmp_path)
    with pytest.raises(Incomplete, match="orcolat report"):
        report.summary(run_dir, config)
    run_dir.shards.unlink()
    with pytest.raises(Incomplete, match="orcolat plan"):
        report.run(run_dir, config, Alone())


def test_summary_is_the_account_in_a_few_lines(plain):
    run_dir, config, _ = plain
    lines = report.summary(run_dir, config).splitlines()
    counts = [int(n.replace(",", "")) for n in re.findall(r"[\d,]+", lines[1])]
    assert counts[0] == sum(counts[1:]) == 28
    total, _, _, in_events, noise = (int(n.replace(",", "")) for n in re.findall(r"[\d,]+\d|\d", lines[3]))
    assert total == in_events + noise
    assert lines[-1].endswith(str(run_dir.report))
    assert len(lines) < 12


# ------------------------------------------------------------------------------------------ the words


@pytest.mark.parametrize(
    ("value", "digits", "sign", "shown"),
    [
        (1234.5678, 1, False, "1,234.6"),
        (-0.004, 2, True, "0.00"),
        (-1.5, 1, True, "−1.5"),
        (0.25, 2, True, "+0.25"),
        (float("nan"), 2, False, "–"),
        (None, 2, False, "–"),
    ],
)
def test_number(value, digits, sign, shown):
    assert words.number(value, digits, sign) == shown


@pytest.mark.parametrize(
    ("instant", "digits", "shown"),
    [
        ("2024-12-31T23:59:59.996", 2, "2025-01-01 00:00:00.00"),
        ("2024-03-20T17:33:49.123456789", 2, "2024-03-20 17:33:49.12"),
        ("2024-03-20T17:33:49.5", 0, "2024-03-20 17:33:50"),
    ],
)
def test_instant_rounds_and_carries(instant, digits, shown):
    assert words.instant(int(np.datetime64(instant, "ns").astype(np.int64)), digits) == shown
    assert words.instant(0) == "–"
    assert words.instant(12 * 3600 * NS + NS // 4, 1, clock=True) == "12:00:00.3"
