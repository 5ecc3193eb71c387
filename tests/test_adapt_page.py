"""The page of an adaptation: every figure and number of the input is there, and nothing of it can act."""

import copy
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from pipeline.page import adapt
from pipeline.page.words import number
from tests.adaptation_cases import QUALITY, adaptation
from tests.test_report import EVIL, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: the page is not looked at in a browser")


class Tables(HTMLParser):
    """The cells of each section's tables, as text, and the sections' words."""

    def __init__(self, markup):
        super().__init__()
        self.section, self.rows, self.words, self.figures, self.cell = "head", {}, {}, {}, None
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        self.section = dict(attrs).get("id", "") if tag == "section" else self.section
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        if tag in ("td", "th"):
            self.rows[self.section][-1].append("")
            self.cell = tag
        if tag == "br" and self.cell:
            self.rows[self.section][-1][-1] += "|"
        if tag == "svg":
            self.figures.setdefault(self.section, []).append(dict(attrs)["aria-label"])

    def handle_endtag(self, tag):
        self.cell = None if tag in ("td", "th") else self.cell

    def handle_data(self, data):
        self.words[self.section] = self.words.get(self.section, "") + data
        if self.cell:
            self.rows[self.section][-1][-1] += data


@pytest.fixture(scope="module")
def report():
    return adaptation()


@pytest.fixture(scope="module")
def page(report):
    return adapt.render(report)


@pytest.fixture(scope="module")
def tables(page):
    return Tables(page)


def below(one, sign=False):
    return f"{number(one['value'], 2, sign)}|{number(one['low'], 2, sign)} to {number(one['high'], 2, sign)}"


def test_the_page_is_one_file_that_loads_nothing(page):
    found = Page(page)
    assert found.addresses
    assert all(address.startswith("#") for address in found.addresses)
    assert all(address[1:] in found.ids for address in found.addresses if not address.startswith("#m"))
    assert max(found.ids.values()) == 1
    assert not found.handlers
    assert found.scripts == ["a script"]
    assert "default-src 'none'" in page
    assert not re.search(r"(?:src|url\(|@import)\s*=?\s*[\"']?(?:https?:)?//", page)
    assert len(page) < 400_000


def test_every_figure_is_there(tables, report):
    assert len(tables.figures["scores"]) == 2 * len(report["sets"]), "scores and differences of each set"
    assert len(tables.figures["training"]) == 1
    assert len(tables.figures["picks"]) == 2


def test_every_score_is_there_and_equals_the_input(tables, report):
    shown = [tuple(row) for row in tables.rows["scores"]]
    for row in report["scores"]:
        res = row["residuals"]
        seeds = row["f1"]
        wanted = (
            row["method"],
            row["phase"],
            below(row["f1"]),
            f"{number(seeds['least'])} to {number(seeds['most'])}" if seeds["n_seeds"] > 1 else "–",
            *(below(row[name]) for name in ("precision", "recall", "accuracy")),
            number(row["extra"], 1),
            f"{number(res['mean_s'], 3, True)} ± {number(res['sd_s'], 3)}",
            f"{number(res['median_s'], 3, True)} ({number(res['mad_s'], 3)})",
            below(row["within"]) if row["tolerance_s"] > 0.1 else "–",
        )
        assert wanted in shown


def test_every_test_is_there_and_equals_the_input(tables, report):
    shown = [tuple(row) for row in tables.rows["tests"]]
    assert len([row for row in shown if row[0] != "data set"]) == len(report["against"])
    for row in report["against"]:
        p = [adapt.chance(row[key]) for key in ("p", "p_holm", "p_by_event")]
        counts = [number(row[key], 1) for key in ("only_ours", "only_theirs")]
        head = (row["set"], row["other"], row["phase"], below(row["difference"]["f1"], True))
        assert (*head, *counts, *p, adapt.chances(row["p_seeds"])) in shown
    assert shown[1][:2] == ("ncedc", "tuned-frozen"), "the verdict's own comparison comes first"


def test_checks_data_training_and_cost_equal_the_input(tables, report):
    for one in report["sets"]:
        for part, n in one["counts"].items():
            values = [number(n[key], 0) for key in ("records", "noise", "events", "stations", "p", "s")]
            assert any(row[1:] == [part, *values] for row in tables.rows["data"])
    assert "3 without P, 1 too short" in tables.words["data"]
    for check in report["leakage"]["checks"]:
        assert [check["name"], "passed", check["detail"]] in tables.rows["checks"]
    for row in report["replay"]["rows"]:
        mine = [r for r in tables.rows["checks"] if r[0] == row["phase"] and len(r) == 5]
        assert mine[0][3] == adapt.gain(row["difference"]["f1"])
        assert mine[0][4] == row["state"]
    for run in report["curves"]:
        k = run["epochs"].index(run["chosen"])
        values = [number(run[key][k], 4) for key in ("train", "validation")]
        assert [run["name"], "30", str(run["chosen"]), *values, "patience"] in tables.rows["training"]
    assert "adapter/base 3.588 %, adapter/total 3.464 %" in tables.words["training"]
    for name, value in report["recipe"].items():
        assert name in tables.words["training"]
        assert str(value) in tables.words["training"]
    assert ["recall of the reference", "0.81 [0.74–0.87]", "0.86 [0.79–0.91]"] in tables.rows["catalogue"]
    assert ["median residual of P (s)", "0.081", "–"] in tables.rows["catalogue"]
    assert ["training, 3 seeds", "812.4", "1,590.0"] in tables.rows["cost"]
    for row in report["reliability"]:
        for when in ("before", "after"):
            n, error = sum(row[when]["n"]), row[when]["error"]
            assert [row["phase"], when, str(n), number(error, 3)] in tables.rows["picks"]
    assert report["leakage"]["warnings"][0] in tables.words["head"]


# --------------------------------------------------------------------------------------------------------- verdicts


def changed(report, **what):
    """With the comparison of the verdict as told, of both phases, or of P and S."""
    found = copy.deepcopy(report)
    for row in found["against"]:
        if adapt._is_primary(row, found["primary"]):
            low, high, p, net = what[row["phase"]] if row["phase"] in what else what["both"]
            row["difference"]["f1"] = {"value": (low + high) / 2, "low": low, "high": high}
            row["p_holm"], row["only_ours"], row["only_theirs"] = p, 10 + net, 10
    return found


GAIN, LOSS = (0.02, 0.10, 0.004, 8), (-0.10, -0.02, 0.004, -8)


@pytest.mark.parametrize(
    ("both", "beginning", "state"),
    [
        (GAIN, "Better than tuned-frozen on ncedc: P F1", "good"),
        (LOSS, "Worse than tuned-frozen on ncedc: P F1", "bad"),
        ((-0.01, 0.10, 0.004, 8), "No gain over tuned-frozen on ncedc can be shown: P F1", "open"),
        ((0.0, 0.0, 1.0, 0), "No gain over tuned-frozen on ncedc can be shown", "open"),
        ((0.02, 0.10, 0.06, 8), "No gain over tuned-frozen on ncedc can be shown", "open"),
        ((0.02, 0.10, 0.004, -8), "No gain over tuned-frozen on ncedc can be shown", "open"),
    ],
)
def test_a_gain_needs_the_interval_and_the_test(report, both, beginning, state):
    sentence, found = adapt.verdict(changed(report, both=both))
    assert sentence.startswith(beginning)
    assert found == state
    assert adapt.gain({"value": (both[0] + both[1]) / 2, "low": both[0], "high": both[1]}) in sentence


def test_phases_that_differ_are_told_apart(report):
    sentence, state = adapt.verdict(changed(report, P=GAIN, S=(-0.05, 0.05, 0.9, 1)))
    assert re.match(r"Better than tuned-frozen on ncedc: P F1 .*\. No gain over .* can be shown: S F1 ", sentence)
    assert state == "open"


def test_what_takes_from_a_gain_is_told_with_it(report):
    better = changed(report, both=GAIN)
    del better["control"]
    assert adapt.verdict(better)[0].endswith("No control with shuffled labels was run.")
    assert adapt.verdict(better)[1] == "open"
    rows = [copy.deepcopy(row) for row in better["against"][:2]]
    better["control"] = {"what": "shuffled", "rows": rows, "against": rows}
    assert adapt.verdict(better)[1] == "good", "and it is better than the control"
    assert "The control gains too." in Tables(adapt.render(better)).words["checks"]
    better["control"]["against"] = []
    better["replay"]["state"] = "worse"
    sentence, state = adapt.verdict(better)
    assert "For P and S it is no better than the control with wrong labels" in sentence
    assert "On stead sample, where the base comes from, it is worse than its parent." in sentence
    assert state == "bad"
    shown = Tables(adapt.render(better)).words["checks"]
    assert "The control gains too." in shown
    assert "ALARM: it is worse than its parent." in shown


def test_methods_that_are_alike_show_no_gain():
    """From picks to the sentence: equal quality, so nothing may be claimed."""
    same = {**QUALITY, "adapted": QUALITY["tuned-frozen"]}
    assert adapt.verdict(adaptation(same, seed=5))[0].startswith("No gain over tuned-frozen on ncedc can be shown")


def test_a_leaky_split_has_no_scores(report):
    leaky = copy.deepcopy(report)
    leaky["leakage"]["passed"] = leaky["leakage"]["checks"][1]["passed"] = False
    page = adapt.render(leaky)
    found = Tables(page)
    assert "No result: the leakage gate refuses this split (stations)." in found.words["head"]
    assert not {"scores", "tests", "picks", "catalogue"} & set(found.words)
    assert "The gate is shut." in found.words["checks"]
    assert number(report["scores"][0]["f1"]["value"]) + "|" not in "".join(
        cell for rows in found.rows.values() for row in rows for cell in row
    )
    assert all(address[1:] in Page(page).ids for address in Page(page).addresses if not address.startswith("#m"))


def test_what_is_missing_is_said_to_be_missing(report):
    optional = ("thresholds", "control", "replay", "curves", "reliability", "residuals", "catalogue", "cost", "notes")
    little = {key: value for key, value in report.items() if key not in optional}
    words = " ".join(Tables(adapt.render(little)).words.values())
    for told in (
        "No control was run",
        "No replay set was given",
        "There are no learning curves",
        "There are no residuals",
        "There are no reliability curves",
        "The catalogue was not made again",
        "The cost was not measured",
    ):
        assert told in words
    nothing = {**little, "scores": [], "against": []}
    assert adapt.verdict(nothing)[0] == "No result: nothing was compared with tuned-frozen on ncedc."
    assert "There are no scores." in " ".join(Tables(adapt.render(nothing)).words.values())


def poisoned(value, key=""):
    """Every text of the input with a tail that would act if it were not escaped; what rows are joined by, alike."""
    if isinstance(value, dict):
        return {k: poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(one, key) for one in value]
    keep = key in ("phase", "counted", "state", "P", "S")
    return f"{value}{EVIL}" if isinstance(value, str) and not keep else value


def test_no_text_of_the_input_can_act(report, page):
    evil = poisoned(report)
    evil["recipe"] = {f"{name}{EVIL}": value for name, value in evil["recipe"].items()}
    evil["sets"][0]["dropped"] = {EVIL: 3}
    for row in evil["replay"]["rows"]:
        row["f1"] = {f"{name}{EVIL}": value for name, value in row["f1"].items()}
    made = adapt.render(evil)
    assert EVIL not in made
    clean, found = Page(page), Page(made)
    assert found.tags == clean.tags, "no text became an element"
    assert not found.handlers
    assert all(address.startswith("#") for address in found.addresses)
    words = "".join(found.text)
    assert words.count(EVIL) > 50
    assert f"PhaseNet tuned to a quarry{EVIL}" in words


def test_the_input_is_json_and_gives_the_same_page(report, page):
    assert adapt.render(json.loads(json.dumps(report, allow_nan=False))) == page


def test_curves_and_residuals_of_nothing_are_drawn(report):
    bare = copy.deepcopy(report)
    bare["residuals"] = [{"set": "ncedc", "phase": "P", "before_s": [], "after_s": [None]}]
    bare["reliability"] = [{**bare["reliability"][0], "before": {**bare["reliability"][0]["before"]}}]
    bare["curves"][0]["train"][3] = None
    for row in bare["scores"]:
        row["precision"] = dict.fromkeys(row["precision"])
        row["f1"] |= {"low": None, "high": None}
    assert "svg" in adapt.render(bare)


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_scrolling_sideways(page, tmp_path, width):
    """The body is no wider than a frame of that width. Measured by a second script, which tells it to the frame."""
    probe = (
        "parent.postMessage(document.documentElement.scrollWidth + ' ' + document.querySelectorAll('svg').length, '*')"
    )
    script = f"<script>onload = () => {probe}</script></body>"
    open_page = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", page).replace("</body>", script)
    (tmp_path / "page.html").write_text(open_page, "utf-8")
    (tmp_path / "frame.html").write_text(
        "<title>nothing</title><script>onmessage = (said) => { document.title = said.data }</script>"
        f"<iframe src='page.html' width='{width}' height='800' style='border: 0'></iframe>"
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,900"]
    command += ["--dump-dom", "--virtual-time-budget=4000", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path / 'browser'}", f"file://{tmp_path / 'frame.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    shown = re.search(r"<title>(\d+) (\d+)</title>", done.stdout)
    assert shown, done.stderr[-2000:]
    assert (int(shown[1]), int(shown[2])) == (width, 7)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_labels_of_a_figure_are_short():
    rows = [{"phase": "P", "method": "m" * 80, "f1": {"value": 0.5, "low": np.nan, "high": None, "n_seeds": 1}}]
    drawing = adapt.plots.f1_figure(rows, "ours", "name")
    assert "m" * 25 + "…" in drawing.svg()
    assert "m" * 30 not in drawing.svg()


def test_a_training_in_which_no_epoch_was_better_has_a_row_too(report):
    """Then the adapter is what it was at first: epoch 0, which has no training loss."""
    whole = copy.deepcopy(report)
    run = whole["curves"][0]
    run |= {"epochs": [0, *run["epochs"]], "train": [None, *run["train"]], "validation": [0.1234, *run["validation"]]}
    run["chosen"] = 0
    rows = Tables(adapt.render(whole)).rows["training"]
    epochs = str(run["epochs"][-1])
    assert [row[:5] for row in rows if row and row[0] == run["name"]] == [[run["name"], epochs, "0", "–", "0.1234"]]


def test_what_a_catalogue_cannot_show_is_said(report):
    whole = copy.deepcopy(report)
    whole["catalogue_note"] = "It has learned from these days."
    assert whole["catalogue_note"] in Tables(adapt.render(whole)).words["catalogue"]
    assert whole["catalogue_note"] not in adapt.render(report)
