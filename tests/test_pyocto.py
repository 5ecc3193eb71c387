"""PyOcto behind our functions: against the package itself, straight rays, and events that we know."""

from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pyocto as package
import pytest

from pipeline.maths.traveltime import P, S, TravelTimes, uniform
from pipeline.models import associator
from pipeline.models.associators import pyocto
from pipeline.models.associators.observed import ALL_TIMES, Earthquake, Network, Piece, Region
from pipeline.records import NS
from tests import test_gmma
from tests.test_gmma import needs_data, ogs, quake, together

OGS = test_gmma.OGS.model_copy(update={"associator": "pyocto"})
SMALL = OGS.model_copy(update={"x_km": (-60.0, 60.0), "y_km": (-60.0, 60.0)})
TABLE = SMALL.model_copy(update={"velocity_model": "model.nd"})  # the table of a region, not the file, is what counts
TRUTH = [(-20.0, 5.0, 8.0, 100.0), (25.0, -12.0, 6.0, 104.0), (2.0, 3.0, 10.0, 4000.0)]


def region(o, settings, travel_times=None):
    """A network of the sites of the picks."""
    _, first = np.unique(o.site, return_index=True)
    sites = o.take(first)
    assert sites.site.tolist() == list(range(len(sites)))
    network = Network(sites.station, sites.x_km, sites.y_km, sites.z_km)
    return Region(settings, network, travel_times or uniform(settings.vp_km_s, settings.vs_km_s), 0)


def found(o, settings=SMALL, travel_times=None):
    return sorted(associator.associate(o, region(o, settings, travel_times)), key=lambda e: e.time_ns)


def three():
    return together(*(quake(*event) for event in TRUTH))


def with_heights(event, z_km):
    """Exact arrivals of one event where every second station is at ``z_km``."""
    o, (x, y, z, time_s) = quake(*event), event
    z_km = np.where(o.site % 2 == 0, z_km, 0.0)
    km = np.sqrt((o.x_km - x) ** 2 + (o.y_km - y) ** 2 + (z - z_km) ** 2)
    time_s = time_s + km / np.where(o.phase == "P", OGS.vp_km_s, OGS.vs_km_s)
    return replace(o, time_ns=np.round(time_s * NS).astype(np.int64), z_km=z_km)


def straight(o, e, settings=OGS):
    """Residuals (n,) of the picks of an event by straight rays."""
    p = o.take(e.picks)
    km = np.sqrt((p.x_km - e.x_km) ** 2 + (p.y_km - e.y_km) ** 2 + (p.z_km - e.z_km) ** 2)
    return (p.time_ns - e.time_ns) / NS - km / np.where(p.phase == "P", settings.vp_km_s, settings.vs_km_s)


def test_the_events_of_the_truth_with_the_right_rows():
    o = three()
    events = found(o)
    assert len(events) == 3
    for e, (x, y, z, time_s) in zip(events, TRUTH, strict=True):
        assert np.hypot(e.x_km - x, e.y_km - y) < 1.0
        assert abs(e.z_km - z) < 2.0
        assert e.time_ns / NS == pytest.approx(time_s, abs=0.3)
        assert (np.diff(e.picks) > 0).all()
        assert np.allclose(e.residual_s, straight(o, e), atol=1e-6)
    rows = np.concatenate([e.picks for e in events])
    assert len(np.unique(rows)) == len(rows) > 90  # of 96: where two are possible, PyOcto takes the first


def test_what_it_does_not_say_is_nan():
    for e in found(three()):
        assert np.isnan([e.score, e.magnitude, *e.probability]).all()
        assert len(e.probability) == len(e.picks)


@needs_data
def test_same_events_as_the_package_where_no_pick_is_shared():
    o = ogs("2024-03-20", "2024-03-29")
    reg = region(o, OGS)
    s, n = reg.settings, reg.network
    picks = pd.DataFrame({"station": o.station, "time": o.time_ns / NS, "phase": o.phase})
    stations = pd.DataFrame({"id": n.station, "x": n.x_km, "y": n.y_km, "z": n.z_km})
    velocity = package.VelocityModel0D(s.vp_km_s, s.vs_km_s, s.max_sigma11_s)
    rules = {"n_picks": 5, "n_p_picks": 3, "n_s_picks": 2, "n_p_and_s_picks": 0}
    theirs = package.OctoAssociator(
        s.x_km, s.y_km, s.z_km, velocity, time_before=300.0, **rules, **asdict(pyocto.OPTIONS)
    )
    events, assigned = theirs.associate(picks, stations)
    rows = {tuple(sorted(mine.pick_idx)): i for i, mine in assigned[assigned.residual.abs() < 1.5].groupby("event_idx")}
    ours = {tuple(e.picks.tolist()): e for e in associator.associate(o, reg)}
    assert assigned.pick_idx.is_unique
    assert len(events) > 50
    common = set(ours) & set(rows)
    assert len(common) >= 0.97 * max(len(ours), len(rows))  # blocks of time begin elsewhere: few may differ
    for picks_of in common:
        event, e = events.iloc[rows[picks_of]], ours[picks_of]
        assert [e.x_km, e.y_km, e.z_km] == pytest.approx([event.x, event.y, event.z], abs=0.5)


def test_a_table_of_straight_rays_is_straight_rays():
    """Two ways of PyOcto to a travel time: by velocity, and by the table that we write for it."""
    o = three()
    for e, other in zip(found(o), found(o, TABLE), strict=True):
        assert e.picks.tolist() == other.picks.tolist()
        assert np.allclose([e.x_km, e.y_km], [other.x_km, other.y_km], atol=0.6)
        assert np.allclose(other.residual_s, straight(o, other), atol=0.06)  # its table is linear between kilometres


def test_heights_and_a_space_that_begins_above_the_sea():
    levels = replace(uniform(OGS.vp_km_s, OGS.vs_km_s), level_km=np.array([-1.5, 0.0]))
    levels = replace(levels, slowness_s_km=np.repeat(levels.slowness_s_km, 2, axis=0))
    apart = [TRUTH[0], TRUTH[2]]
    o = together(*(with_heights(event, -1.5) for event in apart))
    for settings, times in ((SMALL, None), (TABLE, levels)):
        above = settings.model_copy(update={"z_km": (-2.0, 40.0)})
        sites = pyocto._stations(np.unique(o.site), region(o, above, times))
        if times:
            assert np.allclose(sites.p_residual[::2], 1.5 / OGS.vp_km_s)
            assert np.allclose(sites.s_residual[::2], 1.5 / OGS.vs_km_s)
            assert not sites[["p_residual", "s_residual"]][1::2].any(axis=None)
        events = found(o, above, times)
        assert len(events) == 2
        for e, (x, y, z, time_s) in zip(events, apart, strict=True):
            assert np.hypot(e.x_km - x, e.y_km - y) < 1.0
            assert abs(e.z_km - z) < 3.0
            assert e.time_ns / NS == pytest.approx(time_s, abs=0.4)
            assert len(e.picks) == 32
            assert np.abs(straight(o, e)).max() < 0.35


def test_the_table_is_that_of_the_region(tmp_path):
    """Slowness falls with depth: P from 0.2 s/km at the surface to 0.1 at 40 km, S twice that; read back as written."""
    z_km = np.linspace(0, 40, 81)
    slowness = np.empty((1, 2, 2, 81))
    slowness[0, P] = 0.2 - 0.1 * z_km / 40
    slowness[0, S] = 2 * slowness[0, P]
    reg = region(three(), TABLE, TravelTimes(slowness, np.zeros(1), (1e3, 0.5), 0.0))
    velocity = pyocto._velocity(reg, tmp_path)
    sizes = np.fromfile(velocity.path, np.int32, 2)
    times = np.fromfile(velocity.path, np.float64, offset=16).reshape(2, *sizes)
    r, z = np.arange(sizes[0])[:, None], np.arange(sizes[1])
    line = np.maximum(np.hypot(r, z), 1e-3)
    assert sizes[0] > np.hypot(90, 90)  # from any station to any corner
    assert np.allclose(times[0, :, :41], line[:, :41] * (0.2 - 0.1 * z[:41] / 40))
    assert np.allclose(times[1], 2 * times[0])


def test_three_runs_and_another_day_give_the_same():
    o = three()
    first = repr(found(o))
    assert [repr(found(o)) for _ in range(2)] == [first, first]
    later_ns = 864_000 * NS
    moved = found(replace(o, time_ns=o.time_ns + later_ns))
    assert repr([replace(e, time_ns=e.time_ns - later_ns) for e in moved]) == first


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"min_picks": 33}, 0),
        ({"min_p_picks": 17}, 0),
        ({"min_s_picks": 17}, 0),
        ({"min_pairs": 17}, 0),
        ({"min_stations": 17}, 0),
        ({"min_picks": 32, "min_p_picks": 16, "min_s_picks": 16, "min_stations": 16, "min_pairs": 16}, 1),
    ],
)
def test_an_event_needs_enough_picks_of_each_kind(change, left):
    assert len(found(quake(3.0, 4.0, 8.0, 50.0), SMALL.model_copy(update=change))) == left


def test_pieces_are_cut_at_silence_and_joined(monkeypatch):
    o = together(*(quake(*event) for event in [*TRUTH, (0.0, 0.0, 9.0, 4100.0), (5.0, 5.0, 9.0, 4150.0)]))
    corner_s = np.hypot(np.hypot(90, 90), 40.0) / OGS.vs_km_s + 2 * 1.5
    silence_s = np.diff(o.time_ns)[[63, 95, 127]] / NS
    assert (silence_s > corner_s).tolist() == [True, True, False]
    for least, edges in ((1, [0, 64, 96, 160]), (40, [0, 64, 160]), (80, [0, 96, 160]), (200, [0, 160])):
        monkeypatch.setattr(pyocto, "PIECE_PICKS", least)
        expected = [Piece(a, b, ALL_TIMES) for a, b in pairwise(edges)]
        assert pyocto.pieces(o, region(o, SMALL)) == expected
        assert [len(e.picks) for e in found(o)][2:] == [32] * 3
    assert pyocto.pieces(o.take(slice(0, 0)), region(o, SMALL)) == []


def test_too_few_picks_are_not_looked_at():
    few = quake(3.0, 4.0, 8.0, 50.0).take(slice(0, 4))
    assert pyocto.solve(few, Piece(0, 4, ALL_TIMES), region(quake(3.0, 4.0, 8.0, 50.0), SMALL)) == []


def test_a_pick_of_two_events_stays_with_the_larger_one():
    o = quake(3.0, 4.0, 8.0, 50.0)

    def event(rows, residual_s=0.1):
        rows, nan = np.array(rows), float("nan")
        n = len(rows)
        return Earthquake(50 * NS, 3.0, 4.0, 8.0, nan, rows, np.full(n, nan), np.full(n, residual_s))

    small, large = event(range(8)), event(range(4, 20))
    kept = pyocto._each_once([small, large, event(range(20, 32), 1.6)], o, SMALL.model_copy(update={"min_picks": 4}))
    assert [e.picks.tolist() for e in kept] == [list(range(4, 20))]
    n_p = int((o.phase[:4] == "P").sum())
    loose = SMALL.model_copy(update={"min_picks": 4, "min_p_picks": n_p, "min_s_picks": 4 - n_p, "min_stations": 2})
    kept = pyocto._each_once([small, large], o, loose)
    assert [e.picks.tolist() for e in kept] == [list(range(4, 20)), list(range(4))]
