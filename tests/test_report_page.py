"""What the page shows of single events: records, picks, predicted times; and that a browser shows it."""

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace
from urllib.parse import unquote

import numpy as np
import obspy
import pytest
from scipy.signal import butter, sosfilt
from scipy.stats import binomtest

from pipeline.cluster.world import Alone
from pipeline.config import Floor
from pipeline.formats import tables
from pipeline.maths import completeness, interest, snippets
from pipeline.maths.account import Around
from pipeline.maths.overview import times
from pipeline.page import words
from pipeline.records import NS, ComparedEvents, Events, LocatedArrivals, Missed, Origins, Picks, Stations, Waveform
from pipeline.stages import report
from tests.fabricate import fabricate, text
from tests.test_report import data_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RATE_HZ = 100.0
TEN_MINUTES = 600


def write_archive(run_dir, config, start_ns):
    """Ten minutes of noise of every station from ``start_ns`` on, as SDS."""
    rng = np.random.default_rng(3)
    for name in tables.read(run_dir.stations, Stations).id.tolist():
        network, station = name.split(".")
        for component in "ZNE":
            data = np.round(rng.normal(0, 1000, int(TEN_MINUTES * RATE_HZ))).astype(np.int32)
            start = obspy.UTCDateTime(ns=start_ns)
            stats = {"network": network, "station": station, "channel": f"HH{component}", "starttime": start}
            folder = config.archive.root / f"{start.year}" / network / station / f"HH{component}.D"
            folder.mkdir(parents=True, exist_ok=True)
            trace = obspy.Trace(data, {**stats, "sampling_rate": RATE_HZ})
            trace.write(str(folder / f"{name}..HH{component}.D.{start.year}.{start.julday:03}"), format="MSEED")


def explained(run_dir):
    """The reasons of the missed events, as `explain` writes them."""
    compared = tables.read(run_dir.compared("events"), ComparedEvents)
    missed = compared.take(compared.status == "missed")
    n = len(missed)
    table = Missed(
        missed.theirs,
        missed.their_time_ns,
        missed.kind,
        text(["not picked"] * n),
        text(["min_picks"] * n),
        text(["3 of 8 <arrivals> have a pick"] * n),
        text([""] * n),
        *(np.full(n, np.nan),) * 2,
        np.zeros(n, np.bool_),
        *(np.zeros(n, np.int64),) * 4,
    )
    tables.write(run_dir.compared("missed"), table)


FIXED = "fixed: picks allow 0 to 20 km"


def located(run_dir):
    """The events as `locate` has them: where they were, each with an error and a probability."""
    events = tables.read(run_dir.events, Events)
    n = len(events)
    columns = {name: getattr(events, name) for name in ("id", "time_ns", "latitude_deg", "longitude_deg", "depth_km")}
    some = {f"cov_{k}_km2": np.full(n, v) for k, v in (("xx", 0.5), ("xy", 0.1), ("yy", 0.4))}
    errors = {"erh_km": np.full(n, 0.9), "erz_km": np.full(n, 1.4), "probability": np.linspace(0.2, 0.99, n)}
    kinds = np.array(["free", FIXED] * n)[:n]
    tables.write(run_dir.origins, Origins(**columns, **some, **errors, depth_kind=kinds))
    tables.write(run_dir.arrivals, LocatedArrivals.empty())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with records around one missed event, reasons and locations; its directory, configuration and page."""
    run_dir, config = fabricate(tmp_path_factory.mktemp("whole"), record_sections=6, record_stations=5)
    explained(run_dir)
    located(run_dir)
    inputs = report.read(run_dir, config)
    row = int(interest.lost(inputs.events)[0])
    write_archive(run_dir, config, int(times(inputs.events)[row]) - 60 * NS)
    report.run(run_dir, config, Alone())
    return run_dir, config, run_dir.report.read_text("utf-8"), row


# ------------------------------------------------------------------------------------ records in the page


def test_the_records_of_a_missed_event_are_those_of_the_archive(whole):
    run_dir, config, page, row = whole
    data, inputs = data_of(page), report.read(run_dir, config)
    section = data["sections"][str(row)]
    assert len(section) == 5
    origin_ns = int(times(inputs.events)[row])
    channel, start_ms, rate_hz, peak, _, vertical, horizontal = section[2]
    name = data["channels"][channel]
    network, station = name.split(".")[:2]
    files = config.archive.root.glob(f"*/{network}/{station}/HHZ.D/*")
    trace = obspy.read(next(iter(files)))[0]
    values = trace.data - trace.data.mean()
    wanted = sosfilt(butter(3, (1, 9), "bandpass", output="sos", fs=RATE_HZ), values)
    first = round((origin_ns + start_ms * 1_000_000 - trace.stats.starttime.ns) / NS * RATE_HZ)
    found = (np.frombuffer(base64.b64decode(vertical), np.uint8).astype(float) - 128) / 127 * peak
    assert len(base64.b64decode(horizontal)) == len(found) > 10 * rate_hz
    mine = wanted[first : first + 4 * len(found) : 4]
    np.testing.assert_allclose(found, mine, atol=0.51 * peak / 127 + 2e-3 * peak)  # half a step; and read from later on


def test_records_begin_before_the_predicted_p_and_end_after_the_predicted_s(whole):
    data = data_of(whole[2])
    for row, section in data["sections"].items():
        arrivals = {channel: (p, s) for channel, p, s in data["predicted"][row]}
        for channel, start_ms, rate_hz, *_, vertical, _ in section:
            stop_ms = start_ms + 1000 * len(base64.b64decode(vertical)) / rate_hz
            assert start_ms < arrivals[channel][0] < arrivals[channel][1] < stop_ms


def test_predicted_times_are_straight_rays_in_a_uniform_medium(whole):
    run_dir, config, page, row = whole
    data, inputs = data_of(page), report.read(run_dir, config)
    depth_km = float(inputs.events.their_depth_km[row])
    at = {name: i for i, name in enumerate(data["sites"]["id"])}
    for channel, p_ms, s_ms in data["predicted"][str(row)]:
        i = at[".".join(data["channels"][channel].split(".")[:2])]
        lat, lon = (float(getattr(inputs.events, f"their_{k}_deg")[row]) for k in ("latitude", "longitude"))
        metres = obspy.geodetics.gps2dist_azimuth(lat, lon, data["sites"]["lat"][i], data["sites"]["lon"][i])[0]
        km = np.hypot(metres / 1000, depth_km + data["sites"]["m"][i] / 1000)
        assert p_ms / 1000 == pytest.approx(km / config.associate.vp_km_s, abs=0.01)
        assert s_ms / 1000 == pytest.approx(km / config.associate.vs_km_s, abs=0.015)


def test_without_waveforms_predicted_times_remain(tmp_path):
    run_dir, config = fabricate(tmp_path, imported=True)
    report.run(run_dir, config, Alone())
    data = data_of(run_dir.report.read_text("utf-8"))
    assert data["sections"] == {}
    inputs = report.read(run_dir, config)
    row = str(int(interest.lost(inputs.events)[0]))
    assert all(pick[4] is not None for pick in data["picks"][row])


def test_an_archive_that_is_away_costs_the_records_only(tmp_path, caplog):
    run_dir, config = fabricate(tmp_path, n_events=5)
    report.run(run_dir, config, Alone())
    assert "no records in the report" in caplog.text
    assert data_of(run_dir.report.read_text("utf-8"))["sections"] == {}


def test_reasons_probabilities_and_errors_are_in_the_page(whole):
    run_dir, _, page, row = whole
    events = data_of(page)["events"]
    assert events["why"]["names"][events["why"]["at"][row]] == "not picked"
    assert data_of(page)["because"][str(row)] == "3 of 8 <arrivals> have a pick"
    assert {v for v in events["erz"] if v is not None} == {1.4}
    new = page.split('<span class="s new">New</span>')[1].split("</table>")[0]
    shares = [int(v) for v in re.findall(r"<td>(\d+)</td><td class=\"l wrap\"></td>", new)]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    summary = run_dir.summary.read_text("utf-8")
    assert summary.count("not picked") == 3
    assert summary.splitlines()[3].startswith("Found 28 of 31 reference events")


def test_a_depth_that_is_fixed_says_so(whole):
    run_dir, _, page, _ = whole
    events, origins = data_of(page)["events"], tables.read(run_dir.origins, Origins)
    told = [events["fixed"]["names"][code] for code in events["fixed"]["at"]]
    known = dict(zip(origins.id.tolist(), origins.depth_kind.tolist(), strict=True))
    assert told == [FIXED if known.get(name) == FIXED else "" for name in events["ours"]]
    assert told.count(FIXED) > 10
    assert len(re.findall(r"± 1\.4 fixed</small>", page)) == told.count(FIXED)


def test_flags_are_told_and_remove_nothing(tmp_path):
    run_dir, config = fabricate(tmp_path)
    located(run_dir)
    origins = tables.read(run_dir.origins, Origins)
    kind, other = origins.kind.astype("U12"), origins.is_duplicate_of.astype("U12")
    kind[3], other[3], other[7] = "quarry blast", origins.id[2], origins.id[6]
    tables.write(run_dir.origins, replace(origins, kind=kind, is_duplicate_of=other))
    report.run(run_dir, config, Alone())
    page, n = run_dir.report.read_text("utf-8"), len(origins)
    told = "Flags, none of which removes an event: 1 may be quarry blasts, 2 may repeat another event."
    assert told in page
    assert told in run_dir.summary.read_text("utf-8")
    events = data_of(page)["events"]
    flags = {id_: events["flag"]["names"][k] for id_, k in zip(events["ours"], events["flag"]["at"], strict=True)}
    assert sum(id_ != "" for id_ in events["ours"]) == n
    assert {id_: flag for id_, flag in flags.items() if flag} == {
        str(origins.id[3]): "quarry blast?, repeats another?",
        str(origins.id[7]): "repeats another?",
    }
    assert page.split('id="list"')[1].split("</table>")[0].count("repeats another?") == 2


def test_decisions_of_analysts_are_told(tmp_path):
    run_dir, config = fabricate(tmp_path)
    card = json.loads(run_dir.scorecard.read_text("utf-8"))
    assert words.reviewed(card) == ""
    rate = {"value": 0.9, "low": 0.8, "high": 0.95}
    counts = {"accepted": 2, "rejected": 1, "quarry_blasts": 1, "unsure": 0, "undecided": 3}
    card["events"]["after_review"] = {**counts, "recall": rate, "precision": rate}
    run_dir.scorecard.write_text(json.dumps(card), "utf-8")
    report.run(run_dir, config, Alone())
    told = (
        "New events after review: 2 accepted, 1 rejected, 1 called quarry blasts, 3 undecided; with that recall 0.90 "
    )
    assert told in run_dir.report.read_text("utf-8")
    assert told in run_dir.summary.read_text("utf-8")


@pytest.mark.parametrize(("p", "shown"), [(1.0, ">99"), (0.99, "99"), (0.004, "<1"), (0.5, "50"), (np.nan, "–")])
def test_no_probability_is_told_as_certain(p, shown):
    assert words.chance(p) == shown


def test_pictures_lie_beside_the_page(whole):
    run_dir = whole[0]
    names = {path.stem for path in run_dir.report.parent.glob("*.png")}
    assert names == {"map", "timeline", "recall", "residuals", "picks", "stations"}
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in run_dir.report.parent.glob("*.png"))


def test_pictures_of_an_earlier_report_go(tmp_path):
    run_dir, config = fabricate(tmp_path, n_events=5)
    report.run(run_dir, config, Alone())
    assert run_dir.picture("recall").exists()
    shutil.rmtree(run_dir.scorecard.parent)
    report.run(run_dir, config, Alone())
    assert not run_dir.picture("recall").exists()
    assert run_dir.picture("map").exists()


# ------------------------------------------------------------------------------------- the same in a browser


def browse(page, address=""):
    """The page as Chromium has it after its script, and what it wrote on the console."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900", "--dump-dom"]
    command += ["--virtual-time-budget=4000", "--enable-logging=stderr", f"--user-data-dir={page.parent / 'browser'}"]
    done = subprocess.run(
        [*command, f"file://{page}{address}"], capture_output=True, text=True, timeout=120, check=True
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: the page is not looked at in a browser")


@needs_chromium
def test_the_address_of_an_event_shows_its_record_section(whole):
    run_dir, _, page, row = whole
    data = data_of(page)
    shown, console = browse(run_dir.report, f"#reference={data['events']['theirs'][row]}")
    assert console == []
    body = shown.split('id="event"')[1].split("</section>")[0]
    drawn = {name: int(n) for name, n in re.findall(r'data-(rows|points|marks)="(\d+)"', body)}
    samples = sum(len(base64.b64decode(one[5])) for one in data["sections"][str(row)])
    assert drawn["points"] == samples > 1000
    assert drawn["marks"] == sum(
        (pick[2] is not None and pick[5] in (0, 1, 2)) + (pick[3] is not None) for pick in data["picks"][str(row)]
    )
    assert "not picked: 3 of 8 &lt;arrivals&gt; have a pick" in body


def acted(page, folder, steps):
    """The page and its console after the steps of a second script, which a copy of the page lets run; and what it
    kept in ``seen``."""
    script = f"""
        const seen = {{}}, all = (what) => [...document.querySelectorAll(what)];
        const rows = () => all('#list tr.event').map((row) => +row.dataset.event);
        const press = (view, key) => view.canvas.dispatchEvent(new KeyboardEvent('keydown', {{ key }}));
        const click = (view, i) => {{
          const {{ left, top }} = view.canvas.getBoundingClientRect();
          const at = {{ clientX: left + view.sx[i], clientY: top + view.sy[i] }};
          view.canvas.setPointerCapture = () => {{}}; // a pointer that is made up cannot be captured
          for (const what of ['pointerdown', 'pointerup']) view.canvas.dispatchEvent(new PointerEvent(what, at));
        }};
        setTimeout(() => {{
          const plan = views.find((view) => view.figure.id === 'plan');
          {steps}
          document.documentElement.dataset.seen = encodeURIComponent(JSON.stringify(seen));
        }}, 500);"""
    copy = folder / "page.html"
    open_ = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    copy.write_text(open_.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    shown, console = browse(copy)
    assert console == []
    return shown, json.loads(unquote(re.search(r'data-seen="([^"]*)"', shown)[1]))


@needs_chromium
@pytest.mark.parametrize("how", ["click(plan, {k})", "document.querySelector(`#list tr[data-event='{k}'] a`).click()"])
def test_a_click_on_an_event_shows_its_record_section(whole, tmp_path, how):
    """On the map, and in the list; another event was shown before."""
    _, _, page, row = whole
    data = data_of(page)
    other = data["events"]["status"]["at"].index(data["events"]["status"]["names"].index("matched"))
    steps = f"choose({other}); {how.format(k=row)}; seen.chosen = choice.selected;"
    shown, seen = acted(page, tmp_path, steps)
    assert seen["chosen"] == row
    body = shown.split('id="event"')[1].split("</section>")[0]
    assert f"reference {data['events']['theirs'][row]}" in body
    points = int(re.search(r'data-points="(\d+)"', body)[1])
    assert points == sum(len(base64.b64decode(one[5])) for one in data["sections"][str(row)]) > 1000
    assert re.search(rf'<tr class="event chosen" data-event="{row}"', shown)


@needs_chromium
def test_a_fixed_depth_is_told(whole, tmp_path):
    data = data_of(whole[2])["events"]
    k = data["status"]["at"].index(data["status"]["names"].index("matched"))
    shown, seen = acted(whole[2], tmp_path, f"choose({k}); seen.facts = byId('event-body').textContent;")
    assert f"ours {data['ours'][k]}" in seen["facts"]
    assert (f"± 1.4 km, {FIXED}" in seen["facts"]) == (data["fixed"]["names"][data["fixed"]["at"][k]] == FIXED)
    assert "± 1.4 fixed" in shown


@needs_chromium
def test_keys_filters_and_heads_work(whole, tmp_path):
    _, _, page, _ = whole
    events = data_of(page)["events"]
    status = [events["status"]["names"][k] for k in events["status"]["at"]]
    steps = """
        seen.all = rows().length;
        document.querySelector('#statuses [data-status=new]').click(); seen.new = rows();
        document.querySelector('#statuses [data-status=all]').click();
        const head = all('#list th button').find((button) => button.textContent === 'M');
        head.click(); seen.sorted = rows();
        choose(3); press(plan, '.'); seen.after = choice.selected; press(plan, ','); seen.before = choice.selected;
        for (let k = 0; k < 6; k++) press(plan, '+');
        update('box'); seen.zoomed = rows().length; press(plan, '0'); update('box'); seen.back = rows().length;"""
    _, seen = acted(page, tmp_path, steps)
    assert seen["new"] == [i for i, name in enumerate(status) if name == "new"] != []
    known = [i for i, m in enumerate(events["m"]) if m is not None]
    assert seen["sorted"][: len(known)] == sorted(known, key=lambda i: (events["m"][i], i))
    assert (seen["after"], seen["before"]) == (4, 3)
    assert seen["zoomed"] < seen["all"] == seen["back"] == len(status)


@needs_chromium
@pytest.mark.parametrize("wanted", [{"n_events": 0, "reference": False}, {"n_events": 1, "reference": False}])
def test_a_page_of_little_has_no_error(tmp_path, wanted):
    run_dir, config = fabricate(tmp_path, n_stations=5, **wanted)
    report.run(run_dir, config, Alone())
    shown, console = browse(run_dir.report)
    assert console == []
    assert 'data-ready="yes"' in shown


# --------------------------------------------------------------------------------------------- the figures


def test_a_snippet_is_the_filtered_record_in_bytes():
    rng = np.random.default_rng(1)
    wave = Waveform(rng.normal(0, 5, (3, 6000)).astype(np.float32), np.ones(6000, bool), 10 * NS, 100.0, (True,) * 3)
    wave.valid[3000:3400] = False
    one = snippets.snippet("OX.A..HH", wave, (20 * NS, 50 * NS))
    assert one.rate_hz == 25.0
    assert one.start_ns == 20 * NS
    assert one.samples.shape == (2, 750)
    gap = one.samples[0] == snippets.GAP
    assert gap.nonzero()[0].tolist() == list(range(500, 600))
    first = sosfilt(butter(3, (1, 9), "bandpass", output="sos", fs=100.0), wave.samples[0, :3000].astype(float))
    np.testing.assert_allclose(
        (one.samples[0, :500] - 128.0) / 127 * one.peak[0], first[1000:3000:4], atol=one.peak[0] / 250
    )
    assert snippets.snippet("OX.A..HH", wave, (200 * NS, 300 * NS)) is None


def test_complete_above_is_where_nearly_all_are_found(tmp_path):
    run_dir, _ = fabricate(tmp_path, n_events=4, n_missed=2)
    compared = tables.read(run_dir.compared("events"), ComparedEvents)
    sized = replace(compared, magnitude=np.array([0.1, 1.2, 2.3, 2.4, 1.1, 0.3]))
    whole = completeness.from_on(sized, 1.0, 0.95)
    assert [(one.magnitude, one.n, one.matched) for one in whole] == [(0.0, 6, 4), (1.0, 4, 3), (2.0, 2, 2)]
    theirs = binomtest(3, 4).proportion_ci(0.95, "exact")
    assert (whole[1].low, whole[1].high) == pytest.approx((theirs.low, theirs.high))
    assert completeness.complete_above(whole, 0.9) == 2.0
    assert completeness.complete_above(whole, 0.7) == 1.0
    assert completeness.complete_above([], 0.9) is None


def test_the_floor_is_told_only_where_there_is_one(tmp_path):
    run_dir, config = fabricate(tmp_path)
    events = report.read(run_dir, config).events
    assert words.floor_rows(None, events) == []
    floor = Floor(name="A against B", epicentre_km=1.1, depth_km=1.7, time_s=0.4)
    both = events.take(events.status == "matched")
    rows = {row["name"]: (row["ours"], row["floor"]) for row in words.floor_rows(floor, events)}
    assert rows["depth"] == (float(np.median(np.abs(both.depth_difference_km))), 1.7)
    assert rows["origin time"] == (float(np.median(np.abs(both.dt_s))), 0.4)
    compare = config.compare.model_copy(update={"floor": floor})
    shown = config.model_copy(update={"compare": compare})
    assert shown.digest == config.digest
    report.run(run_dir, shown, Alone())
    assert "Beside two analysts" in run_dir.report.read_text("utf-8")


def test_interesting_are_missed_new_moved_and_large_ones_in_turn(tmp_path):
    run_dir, config = fabricate(tmp_path)
    events = report.read(run_dir, config).events
    none = np.full(len(events), np.nan)
    found = interest.interesting(events, none, 8)
    assert len(set(found)) == 8
    status = events.status[found].tolist()
    assert status[:3] == ["missed", "new", "matched"]
    far = interest.moved_km(events)
    assert far[found[2]] == np.nanmax(far)
    assert events.magnitude[found[0]] == np.nanmax(events.magnitude[events.status == "missed"])
    assert sorted(interest.interesting(events, none, 1000)) == list(range(len(events)))
    some = none.copy()
    some[np.flatnonzero(events.status == "new")[1]] = 0.9
    assert interest.new(events, some)[0] == np.flatnonzero(events.status == "new")[1]


def test_around_keeps_the_picks_near_some_times():
    times_ns = np.arange(0, 1000, 10) * NS
    n = len(times_ns)
    some = np.full(n, 0.5, np.float32)
    picks = Picks(text(["OX.A..HH"] * n), text(["P"] * n), times_ns, some, some, some, some)
    around = Around(np.array([500 * NS]))
    around.add(picks.take(slice(0, 60)))
    around.add(picks.take(slice(60, n)))
    assert around.picks.time_ns.tolist() == [t * NS for t in range(490, 621, 10)]


def test_the_page_fits_a_mail_of_text(whole):
    summary = whole[0].summary.read_text("utf-8")
    assert max(map(len, summary.splitlines())) < 160
    assert json.loads(whole[0].account.read_text("utf-8"))["verdict"] in summary
