"""Parts that share nothing, and the gate that says so by name, on real records and on networks with known couplings."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.formats import labelled_npz
from pipeline.formats.labelled_rows import Row, table
from pipeline.maths import leakage, splits
from pipeline.maths.splits import TEST, TRAIN, VALIDATION, near_in_time, places, split
from pipeline.maths.trained_on import trained_on, warning
from pipeline.records import NS

DATA = Path(__file__).parents[2] / "shared" / "data"
NCEDC = DATA / "labelled_ncedc" / "records.npz"
real = pytest.mark.skipif(not NCEDC.exists(), reason="the 70 labelled records of NCEDC are not here")
NAN = float("nan")


def network(n_events=120, n_stations=20, seed=0, every_s=600.0):
    """Events at random times, each at some of the stations, and records of noise."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, round(n_events * every_s * NS), n_events))
    rows = []
    for i, k in product(range(n_events), range(n_stations)):
        if rng.random() < 0.5:
            start = int(times[i]) + int(rng.integers(0, 5 * NS))
            name = f"XX.S{k:02}"
            place = 46 + 0.1 * (k % 5), 13 + 0.1 * (k // 5)
            noise = rng.random() < 0.1
            pick = NAN if noise else 3000.0
            event = "" if noise else f"ev{i:03}"
            rows.append(
                Row(
                    f"{i}/{name}",
                    event,
                    name,
                    f"{name}..HH",
                    start,
                    100.0,
                    pick,
                    NAN,
                    "ZNE",
                    "t",
                    *place,
                    0.0,
                    stop=9000,
                )
            )
    return table(rows)


def brute_force_leaks(rows, part, margin_s):
    """Pairs of records of two parts that share an event or a time, by looking at every pair."""
    begin, end = rows.spans_ns()
    pairs = set()
    for i, j in product(range(len(rows)), repeat=2):
        if 0 <= part[i] < part[j]:
            gap_s = max(begin[j] - end[i], begin[i] - end[j]) / NS
            same = rows.event[i] != "" and rows.event[i] == rows.event[j]
            pairs |= {(i, j)} if same or gap_s < margin_s else set()
    return pairs


@pytest.mark.parametrize("fold", [0, 4])
@pytest.mark.parametrize("method", ["station", "event", "both"])
def test_parts_share_what_the_method_allows_and_nothing_else(method, fold):
    rows = network(40, 15)
    found = split(rows, method, 5, fold, margin_s=60)
    assert set(found.part.tolist()) <= {-1, 0, 1, 2}
    assert min(found.counts().values()) > 0
    assert sum(found.dropped.values()) == np.count_nonzero(found.part == -1)
    assert brute_force_leaks(rows, found.part, 60) == set()
    stations = [set(rows.station[found.part == q].tolist()) for q in range(3)]
    shared = (stations[0] & stations[1]) | (stations[0] & stations[2]) | (stations[1] & stations[2])
    assert bool(shared) == (method == "event")
    remarks = leakage.require(rows, found.part, method, 60)
    assert any("lets parts share: station XX.S00" in r for r in remarks) == (method == "event")


def test_every_record_is_in_the_test_of_one_fold_and_the_groups_are_even():
    rows = network()
    for method in ("station", "event"):
        tests = np.stack([split(rows, method, 5, fold, 0.0).part == TEST for fold in range(5)])
        assert (tests.sum(axis=0) <= 1).all()
    groups = splits.station_groups(rows.station, 5, 0)
    assert np.bincount(groups).max() / np.bincount(groups).min() < 1.1
    groups = splits.time_groups(rows, 5)
    assert np.bincount(groups).max() / np.bincount(groups).min() < 1.1
    begin, _ = rows.spans_ns()
    for g in range(4):
        assert begin[groups == g].max() < begin[groups == g + 1].min() + 5 * NS, "contiguous, but for one event"


def test_the_last_fold_tests_on_what_is_latest():
    rows = network(40)
    part = split(rows, "event", 5, 4).part
    begin, end = rows.spans_ns()
    for early, late in ((TRAIN, VALIDATION), (VALIDATION, TEST)):
        assert end[part == early].max() + 60 * NS <= begin[part == late].min()


def test_neither_the_order_of_rows_nor_the_run_decides_and_the_seed_does():
    rows = network(60)
    part = split(rows, "station", 4, 1, seed=3).part
    shuffle = np.random.default_rng(1).permutation(len(rows))
    np.testing.assert_array_equal(split(rows.take(shuffle), "station", 4, 1, seed=3).part, part[shuffle])
    assert (split(rows, "station", 4, 1, seed=4).part != part).any()


def test_the_parts_by_station_fill_evenly_where_events_couple_them():
    rows = network(300, 20, every_s=3000.0)
    counts = split(rows, "station", 5, 0, 60).counts()
    share = counts["test"] / sum(counts.values())
    assert 0.1 < share < 0.35, counts


def test_stations_within_a_hundred_metres_are_one_site():
    names = ["A", "B", "C", "D"]
    rows = table([
        Row(n, n, f"XX.{n}", f"XX.{n}..HH", -1, 100.0, 1.0, NAN, "Z", "t", 46 + dy, 13.0, 0.0)
        for n, dy in zip(names, (0, 0.0006, 0.0012, 0.01), strict=True)
    ])  # fmt: skip
    assert places(rows).tolist() == ["XX.A", "XX.A", "XX.A", "XX.D"], "67 m each, D a kilometre away"


def test_nearness_in_time_is_that_of_every_pair():
    rows = network(30, 5, every_s=120.0)
    held = np.random.default_rng(2).random(len(rows)) < 0.2
    begin, end = rows.spans_ns()
    for margin_s in (0.0, 60.0):
        gap = np.maximum(begin[:, None] - end[None, held], begin[None, held] - end[:, None]).min(axis=1)
        np.testing.assert_array_equal(near_in_time(rows, held, margin_s), gap < margin_s * NS)


def test_what_cannot_be_split_is_refused_with_a_remedy():
    rows = network(20, 4)
    with pytest.raises(ConfigError, match="4 stations cannot be dealt to 5 folds"):
        split(rows, "station", 5)
    with pytest.raises(ConfigError, match=r"nothing is left for train.*a smaller margin"):
        split(rows, "station", 4, 0, margin_s=1e6)
    with pytest.raises(ConfigError, match="1 records have no time, the first is '0/XX"):
        split(replace(rows, start_ns=np.where(np.arange(len(rows)) == 0, -1, rows.start_ns)), "event", 3)
    with pytest.raises(ConfigError, match="fold 5 of 5"):
        split(rows, "event", 5, 5)


@real
def test_each_kind_of_leak_is_found_by_name_on_real_records():
    rows, waveforms, _ = labelled_npz.read(NCEDC)
    found = split(rows, "station", 5, 0)
    digests, shows = leakage.fingerprints(waveforms, rows), leakage.snippets(waveforms, rows)
    assert leakage.require(rows, found.part, "station", 60, digests, shows) == []
    assert found.dropped == {}, "70 earthquakes at 54 stations, far apart in time"
    two = np.flatnonzero(rows.station == "BG.PFR")[:2]
    leaky = found.part.copy()
    leaky[two] = TRAIN, TEST
    with pytest.raises(ConfigError, match=r"split by station leaks.*station BG\.PFR in train and test"):
        leakage.require(rows, leaky, "station", 60, digests, shows)

    a, b = int(np.flatnonzero(found.part == TRAIN)[0]), int(np.flatnonzero(found.part == TEST)[0])

    def copied(column):
        values = getattr(rows, column).copy()
        values[b] = values[a]
        return replace(rows, **{column: values})

    for column, kind, name in (
        ("event", "event", rows.event[a]),
        ("id", "record", rows.id[a]),
        ("start_ns", "time", rows.id[a]),
    ):
        leaks = leakage.leaks(copied(column), found.part, 60)
        assert [(leak.kind, name in leak.name, leak.parts) for leak in leaks] == [(kind, True, ("train", "test"))]
    same = waveforms.copy()
    same[b] = waveforms[a]
    leaks = leakage.leaks(rows, found.part, 60, leakage.fingerprints(same, rows))
    assert [leak.name for leak in leaks] == [f"{rows.id[min(a, b)]} = {rows.id[max(a, b)]}"]
    scaled = waveforms.copy()
    scaled[b] = -0.3 * waveforms[a]
    assert leakage.leaks(rows, found.part, 60, leakage.fingerprints(scaled, rows)) == []
    leaks = leakage.leaks(rows, found.part, 60, None, leakage.snippets(scaled, rows))
    assert [(leak.kind, leak.name) for leak in leaks] == [("waveform", f"{rows.id[a]} ~ {rows.id[b]}")]


def test_the_gate_finds_the_same_events_and_times_as_every_pair_does():
    rows = network(25, 6, every_s=200.0)
    part = np.random.default_rng(0).integers(-1, 3, len(rows))
    pairs = brute_force_leaks(rows, part, 60)
    found = leakage.leaks(rows, part, 60)
    shared = {rows.event[i] for i, j in pairs if rows.event[i] == rows.event[j]} - {""}
    assert {leak.name for leak in found if leak.kind == "event"} == shared
    named = {tuple(leak.name.split(" and ")) for leak in found if leak.kind == "time"}
    every = {frozenset((str(rows.id[i]), str(rows.id[j]))) for i, j in pairs}
    assert {frozenset(pair) for pair in named} <= every
    touched = {id_ for pair in named for id_ in pair}
    assert touched >= {str(rows.id[i]) for i in np.flatnonzero(part == TEST) if any(i in pair for pair in pairs)}
    assert leakage.leaks(rows, np.full(len(rows), -1), 60) == []


def test_the_margin_counts_from_the_end_of_one_record_to_the_beginning_of_the_next():
    plain = Row("", "", "", "", 0, 100.0, 100.0, NAN, "ZNE", "t", stop=9000)  # 90 s
    rows = table([
        plain._replace(id="late", event="b", station="XX.B", channel="XX.B..HH", start_ns=120 * NS),
        plain._replace(id="early", event="a", station="XX.A", channel="XX.A..HH"),
    ])  # fmt: skip
    part = np.array([TRAIN, TEST])
    assert leakage.leaks(rows, part, 30.0) == []
    assert [str(leak) for leak in leakage.leaks(rows, part, 30.1)] == [
        "time late and early in train and test (30.0 s apart)"
    ]


@real
def test_phasenet_is_warned_of_the_region_that_it_was_trained_in():
    rows, *_ = labelled_npz.read(NCEDC)
    said = warning(rows, "phasenet/original+ncedc-lora")
    assert "NCEDC (northern and central California and Nevada; 1984 to 2018), and 70 of 70 records may be" in said
    assert "BG_ACR_2012082505145960" in said
    assert "STEAD" in warning(rows, "eqtransformer/original")
    later = replace(rows, start_ns=rows.start_ns + 40 * 365 * 86_400 * NS)
    assert warning(later, "phasenet/original") == ""


def test_a_record_elsewhere_is_not_warned_of_and_an_unknown_weight_is_named():
    rows = network(5, 3)
    assert warning(rows, "phasenet/original") == "", "Friuli in 1970"
    assert trained_on("seisbench:EQTransformer/instance").region == "Italy"
    now = replace(rows, start_ns=rows.start_ns + np.datetime64("2012-01-01", "ns").astype(np.int64))
    assert f"{len(rows)} of {len(rows)}" in warning(now, "seisbench:EQTransformer/instance")
    assert "not known here" in warning(rows, "file:/my/own.pt")
