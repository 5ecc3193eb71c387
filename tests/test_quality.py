"""The probability of events: features in closed form, the fit beside scikit-learn, shares and bins that are known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from pipeline.config.quality import Quality
from pipeline.errors import BadData
from pipeline.formats import quality_table
from pipeline.maths import quality
from pipeline.maths.event_features import LOOK_S, Features, event_rows, features, network
from pipeline.maths.reliability import reliability
from pipeline.maths.scramble import offsets_ns, scrambled_ns
from pipeline.plots.reliability import reliability_plot
from pipeline.records import DAY_NS, NS, Assignments, Events, Origins, Picks, Stations
from pipeline.stages.locate_quality import Made, judged

START_NS = 20_000 * DAY_NS
NAMES = np.array(["XX.A", "XX.B", "XX.C", "XX.D"])


def stations() -> Stations:
    """Four sites on a line, 11.1 km apart."""
    always = np.full(4, -(2**62)), np.full(4, 2**62)
    return Stations(NAMES, 46.0 + 0.1 * np.arange(4), np.full(4, 13.0), np.zeros(4), *always)


def picks(rows: list[tuple[int, str, float]]) -> Picks:
    """(site, phase, seconds after `START_NS`)"""
    site, phase, second = zip(*rows, strict=True)
    none = np.full(len(rows), np.nan, np.float32)
    time = START_NS + (np.array(second) * NS).astype(np.int64)
    chance = np.full(len(rows), 0.5, np.float32)
    return Picks(np.char.add(NAMES[list(site)], "..HH"), np.array(phase), time, chance, none, none, none).ordered()


def event(name: str, second: float, n_p: int, n_s: int, latitude: float = 45.99) -> Events:
    row = {
        "id": name,
        "time_ns": START_NS + int(second * NS),
        "latitude_deg": latitude,
        "longitude_deg": 13.0,
        "depth_km": 8.0,
        "magnitude": np.nan,
        "sigma_time_s": 0.1,
        "n_p": n_p,
        "n_s": n_s,
        "n_stations": max(n_p, n_s),
        "gap_deg": 200.0,
        "nearest_km": 2.0,
        "score": 0.9 * (n_p + n_s),
        "kind": "earthquake",
    }
    types = {f.name: f.metadata["dtype"] for f in Events.columns()}
    return Events(**{k: np.array([v], np.str_ if types[k] == "str" else types[k]) for k, v in row.items()})


def made() -> Made:
    """One event with P and S at A and B and P at C; D has a pick three hours later, so that it is alive."""
    of = [(0, "P", 1.0), (0, "S", 2.0), (1, "P", 3.0), (1, "S", 5.0), (2, "P", 5.0)]
    all_ = picks([*of, (3, "P", 10_800.0)])
    mine = all_.take(slice(0, 5))
    residual = np.array([{1.0: 0.1, 2.0: 0.2, 3.0: -0.1, 5.0: 0.1}[float(t)] for t in (mine.time_ns - START_NS) / NS])
    assigned = Assignments(np.full(5, "e1"), mine.station, mine.phase, mine.time_ns, np.full(5, 0.9), residual)
    return Made(event("e1", 0.0, 3, 2), assigned, np.full(5, 0.5), all_, stations())


def found(of: Made) -> Features:
    return features(of.events, of.assignments, of.pick_probability, network(of.picks, of.stations))


def test_features_of_one_event_in_closed_form():
    f = found(made())
    assert (f.n_pairs[0], f.sum_probability[0], f.mean_probability[0]) == (2, 2.5, 0.5)
    assert f.responsibility[0] == pytest.approx(0.9)
    assert f.misfit_s[0] == pytest.approx(np.sqrt(0.01 + 0.04 + 0.01 + 0.01 + 0.01))  # 5 picks less 4 unknowns
    assert f.wadati_s[0] == pytest.approx(np.sqrt((0.1**2 + 0.2**2) / 2))
    assert f.near_share[0] == 1.0  # A and B, the two nearest, have picks
    # the record begins 1 s after the event: 1799 s of it are near, in all it has 10,799 s; picks of events are no noise
    near_s, long_s = 1799.0, 10_799.0 + 1e-9
    rates = [1 / (near_s + long_s)] * 4  # A, B and C have no other pick, D has one, but long after
    chance, n = np.cumsum(rates) * LOOK_S, np.array([2, 4, 5, 5])
    assert f.coincidence[0] == pytest.approx((n * np.log(n / chance) - (n - chance)).max(), rel=1e-6)


def test_a_silent_near_station_counts_if_it_is_alive():
    whole = made()
    gone = whole.assignments.take(~np.char.startswith(whole.assignments.station, "XX.A"))
    less = replace(whole, assignments=gone, events=event("e1", 0.0, 2, 1), pick_probability=np.full(3, 0.5))
    assert found(less).near_share[0] == 0.5  # of A and B, the nearest, B has picks; A is alive, for it has others
    dead = whole.picks.take(~np.char.startswith(whole.picks.station, "XX.A"))
    assert found(replace(less, picks=dead)).near_share[0] == 1.0


def test_a_busy_network_makes_coincidences():
    quiet = found(made()).coincidence[0]
    noise = [(site, "P", 20.0 * k) for site in range(4) for k in range(1, 80)]
    whole = made()
    busy = Picks.concat([whole.picks, picks(noise)]).ordered()
    assert found(replace(whole, picks=busy)).coincidence[0] < 0.5 * quiet


def test_one_event_in_a_quiet_day_is_no_coincidence():
    """Its own picks are all that there is: how quiet the day was, the span of the run tells."""
    whole = made()
    alone = replace(whole, picks=whole.picks.take(slice(0, 5)))
    day = replace(alone, span_ns=(START_NS - DAY_NS // 2, START_NS + DAY_NS // 2))
    of = origins(alone.events)
    assert judged(of, day, Quality()).probability[0] > 0.9 > judged(of, alone, Quality()).probability[0]


def test_no_events_have_no_features():
    none = Made(Events.empty(), Assignments.empty(), np.empty(0), picks([(0, "P", 1.0)]), stations())
    assert len(found(none)) == 0
    assert len(judged(Origins.empty(), none, Quality())) == 0


def test_a_pick_of_an_unknown_event_is_refused():
    with pytest.raises(KeyError, match="not in the catalogue"):
        event_rows(Events.empty(), made().assignments.event)


def random_features(rng: np.random.Generator, n: int, up: float) -> Features:
    """Each feature better by ``up`` standard deviations of the others."""
    sign = {name: s for name, (_, s) in quality.TRANSFORMS.items()}
    return Features(**{f.name: np.exp(0.3 * (rng.normal(size=n) + up * sign[f.name])) for f in Features.columns()})


def test_the_fit_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    both = Features.concat([random_features(rng, 400, 0.5), random_features(rng, 300, 0.0)])
    real = np.repeat([1.0, 0.0], [400, 300])
    ours = quality.fit(both, real, np.ones(700), 1.0, tuple(quality.TRANSFORMS))
    value = np.clip(quality.transformed(both), ours.low, ours.high)
    z = (value - ours.centre) / ours.scale
    weight = np.where(real > 0, 350 / 400, 350 / 300)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000).fit(z, real, weight)
    assert (theirs.coef_[0] * [s for _, s in quality.TRANSFORMS.values()] > 0).all()  # so that no bound acts
    np.testing.assert_allclose(ours.coefficient, theirs.coef_[0], atol=2e-3)
    assert ours.intercept == pytest.approx(theirs.intercept_[0], abs=2e-3)


def test_a_feature_that_speaks_the_wrong_way_is_not_used():
    rng = np.random.default_rng(2)
    both = Features.concat([random_features(rng, 300, 0.5), random_features(rng, 300, 0.0)])
    turned = replace(both, gap_deg=both.gap_deg + np.repeat([5.0, 0.0], 300))
    by = quality.fit(turned, np.repeat([1.0, 0.0], 300), np.ones(600))
    assert dict(zip(by.names, by.coefficient, strict=True))["gap_deg"] == 0.0


def test_more_of_what_speaks_for_an_event_never_makes_it_less_likely():
    by = quality_table.read()
    base = random_features(np.random.default_rng(3), 50, 0.0)
    before = quality.scores(base, by)
    for name, (_, sign) in quality.TRANSFORMS.items():
        better = replace(base, **{name: getattr(base, name) * (2.0 if sign > 0 else 0.5)})
        assert (quality.scores(better, by) >= before).all(), name


def test_what_is_not_known_changes_nothing():
    by = quality_table.read()
    base = random_features(np.random.default_rng(4), 20, 0.0)
    terms = quality.contributions(replace(base, wadati_s=np.full(20, np.nan)), by)
    assert (terms[:, by.names.index("wadati_s")] == 0).all()
    assert np.isfinite(terms).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_the_share_of_real_events_is_found_and_the_probabilities_hold(share):
    """Scores of two normal distributions a distance d apart: the logarithm of their ratio is normal around +-d^2/2."""
    rng = np.random.default_rng(5)
    n, d = 20_000, 2.0
    real = rng.random(n) < share
    score = rng.normal(np.where(real, d * d / 2, -d * d / 2), d)
    found_share = quality.real_share(score)
    assert found_share == pytest.approx(share, abs=0.02)
    curve = reliability(quality.probability(score, found_share), real.astype(float))
    assert curve.worst(200) < 0.05


def test_a_run_of_no_event_or_one_has_a_share():
    assert quality.real_share(np.empty(0)) == pytest.approx(quality.USUAL_SHARE)
    assert 0.8 < quality.real_share(np.array([-5.0])) < quality.USUAL_SHARE
    assert quality.share_from_false(100, 5.0) == pytest.approx(95.5 / 101)
    assert 0 < quality.share_from_false(3, 10.0) < quality.share_from_false(0, 0.0) == 0.5


def test_bins_and_their_intervals():
    chance = np.repeat([0.05, 0.55, 1.0], [10, 20, 5])
    real = np.concatenate([np.zeros(10), np.tile([1.0, 0.0], 10), np.ones(5)])
    curve = reliability(chance, real)
    assert curve.n.tolist() == [10, 0, 0, 0, 0, 20, 0, 0, 0, 5]
    assert curve.worst(10) == pytest.approx(0.05)
    assert np.isnan(curve.worst(100))
    assert (curve.low[5], curve.high[5]) == pytest.approx((0.2720, 0.7280), abs=1e-4)  # Clopper & Pearson, 10 of 20
    picture = reliability_plot({"a": curve}, 10)
    assert picture == reliability_plot({"a": curve}, 10)
    assert picture.startswith("<svg")


def test_every_curve_is_drawn_and_named():
    curve = reliability(np.repeat([0.05, 0.95], 30), np.repeat([0.0, 1.0], 30))
    names = [f"test {k}" for k in range(9)]
    picture = reliability_plot(dict.fromkeys(names, curve), 20)
    assert [name for name in names if name not in picture] == []


def test_scrambled_picks_keep_what_one_station_sees():
    rng = np.random.default_rng(6)
    span = START_NS, START_NS + 10 * DAY_NS
    time = np.sort(rng.integers(*span, 500))
    station = np.array(["XX.A..HH", "XX.A..HN", "XX.B..HH", "XX.C..HH"])[rng.integers(0, 4, 500)]
    moved = scrambled_ns(station, time, span, 1)
    assert ((moved >= span[0]) & (moved < span[1])).all()
    assert (moved == scrambled_ns(station, time, span, 1)).all()
    shift = (moved - time) % (10 * DAY_NS)
    by_site = {site: set(shift[np.char.startswith(station, site)].tolist()) for site in ("XX.A", "XX.B", "XX.C")}
    assert [len(s) for s in by_site.values()] == [1, 1, 1]
    assert len(set.union(*by_site.values())) == 3
    with pytest.raises(ValueError, match="outside the span"):
        scrambled_ns(station, time, (START_NS, START_NS + DAY_NS), 1)


@pytest.mark.parametrize(("n", "length_ns"), [(1, DAY_NS), (56, DAY_NS), (109, 93 * DAY_NS), (3000, 93 * DAY_NS)])
def test_no_two_stations_are_shifted_alike(n, length_ns):
    shift = np.sort(offsets_ns(n, length_ns, 3))
    assert shift[0] >= 0
    assert shift[-1] < length_ns
    assert n == 1 or np.diff(shift).min() >= 29.9 * NS


def test_a_calibration_is_read_as_it_was_written(tmp_path):
    by = quality_table.read()
    path = tmp_path / "quality.json"
    path.write_text(quality_table.text(by, {"made by": "a test"}))
    assert quality_table.read(path) == by


def test_what_was_judged_is_kept_beside_the_numbers(tmp_path):
    curve = reliability(np.array([0.05, 0.55, 0.56]), np.array([0.0, 1.0, 0.0]))
    path = tmp_path / "quality.json"
    path.write_text(quality_table.with_judged(quality_table.SHIPPED.read_text(), {"a": curve}))
    assert quality_table.read(path) == quality_table.read()
    kept = quality_table.judged(path)["a"]
    assert (kept.n.tolist(), kept.real.tolist()) == ([1, 2], [0.0, 0.5])
    assert reliability_plot({"a": kept}, 1).startswith("<svg")


def test_the_calibration_that_comes_along_held_on_other_data():
    """Within 0.1 of the diagonal where there are events enough."""
    together = quality_table.judged()["all of these together"]
    assert together.n.sum() > 1000
    assert together.worst(20) <= 0.1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("intercept"), "intercept"),
        (lambda d: d["features"].update(colour=d["features"]["n_pairs"]), "colour"),
        (lambda d: d["features"]["n_pairs"].update(coefficient=-1.0), "wrong sign"),
        (lambda d: d["features"]["n_pairs"].update(centre=float("nan")), "not finite"),
        (lambda d: d["features"]["n_pairs"].update(scale=0.0), "not positive"),
    ],
)
def test_a_wrong_calibration_says_why(tmp_path, change, said):
    data = json.loads(quality_table.SHIPPED.read_text())
    change(data)
    path = tmp_path / "quality.json"
    path.write_text(json.dumps(data))
    with pytest.raises(BadData, match=said):
        quality_table.read(path)


def origins(events: Events) -> Origins:
    names = ("id", "time_ns", "latitude_deg", "longitude_deg", "depth_km", "kind")
    return Origins(**{name: getattr(events, name) for name in names})


def test_a_catalogue_is_judged_row_by_row():
    first, n = made(), 5
    again = event("e0", 1.0, 3, 2)  # a second later at the same stations
    assigned = replace(first.assignments, event=np.full(n, "e0"), residual_s=first.assignments.residual_s * 3)
    both = Made(
        Events.concat([first.events, again]),
        Assignments.concat([first.assignments, assigned]),
        np.full(2 * n, 0.5),
        first.picks,
        first.stations,
    )
    for order in ([0, 1], [1, 0]):
        out = judged(origins(both.events).take(np.array(order)), both, Quality())
        by = dict(zip(out.id.tolist(), out.probability.tolist(), strict=True))
        assert 0 < by["e0"] <= by["e1"] < 1
        repeats = dict(zip(out.id.tolist(), out.is_duplicate_of.tolist(), strict=True))
        assert set(repeats.values()) == {"", "e1"} or by["e0"] == by["e1"]
        assert np.isnan(out.blast_score).all()  # two events a second apart tell nothing of a quarry
        assert set(out.kind.tolist()) == {"earthquake"}
