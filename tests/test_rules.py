"""The rules of quality: each refuses what it says and nothing else, whichever associator found the event."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.config import Associate
from pipeline.maths import geo
from pipeline.maths.traveltime import uniform
from pipeline.models import associator
from pipeline.models.associators import rules
from pipeline.models.associators.observed import Earthquake, Network, Observed, Region

PLACES = {"N": (0.0, 10.0), "E": (10.0, 0.0), "S": (0.0, -10.0), "W": (-10.0, 0.0)}
SEEN = ["N P", "N S", "E P", "E S", "S P", "W P"]  # two stations with both, four with a P


def settings(**wanted):
    lenient = dict.fromkeys(("min_p_picks", "min_s_picks"), 0) | dict.fromkeys(("min_picks", "min_stations"), 1)
    plane = {"center_latitude_deg": 46, "center_longitude_deg": 12, "x_km": (-99, 99), "y_km": (-99, 99)}
    return Associate(**(plane | lenient | {"associator": "gmma"} | wanted))


def observed(seen):
    names, phases = zip(*(entry.split() for entry in seen), strict=True)
    x, y = np.transpose([PLACES[name] for name in names])
    n = len(seen)
    text = np.array([f"XD.{name}" for name in names]), np.array(phases)
    return Observed(*text, np.arange(n), np.ones(n), np.full(n, np.nan), np.arange(n), x, y, np.zeros(n))


def event(rows, residual_s=0.1):
    n = len(rows)
    return Earthquake(0, 0.0, 0.0, 5.0, float(n), np.array(rows), np.ones(n), np.full(n, residual_s))


def region(**wanted):
    return Region(settings(**wanted), Network.empty(), uniform(6.0, 3.4), 0)


@pytest.mark.parametrize(
    ("rule", "most"), [("min_picks", 6), ("min_p_picks", 4), ("min_s_picks", 2), ("min_stations", 4), ("min_pairs", 2)]
)
def test_too_few_are_refused_and_enough_are_not(rule, most):
    picks, six = observed(SEEN), event(range(6))
    assert rules.reason(six, picks, settings(**{rule: most})) == ""
    assert rules.reason(six, picks, settings(**{rule: most + 1})) == rule
    assert rules.enough(picks, settings(**{rule: most}))
    assert not rules.enough(picks, settings(**{rule: most + 1}))


@pytest.mark.parametrize(("rows", "gap"), [(range(6), 90), ([0, 2, 4], 180), ([0, 2], 270), ([0, 1], 360)])
def test_the_gap_of_places_that_we_know(rows, gap):
    picks, found = observed(SEEN), event(list(rows))
    assert rules.gap_deg(found, picks.take(found.picks)) == pytest.approx(gap)
    assert rules.reason(found, picks, settings(max_gap_deg=min(gap + 1, 360))) == ""
    assert rules.reason(found, picks, settings(max_gap_deg=gap - 1)) == "max_gap_deg"


def test_the_gap_on_the_plane_is_that_on_the_ellipsoid():
    rng = np.random.default_rng(4)
    for _ in range(50):
        x, y = rng.uniform(-300, 300, (2, 7))
        x0, y0 = rng.uniform(-250, 250, 2)
        picks = replace(observed(["N P"] * 7), x_km=x, y_km=y)
        lat, lon = geo.geographic(np.append(x, x0), np.append(y, y0), 46.0, 12.0)
        gap = geo.azimuthal_gap_deg(geo.azimuth_deg(lat[-1], lon[-1], lat[:-1], lon[:-1]))
        found = replace(event(range(7)), x_km=x0, y_km=y0)
        assert rules.gap_deg(found, picks) == pytest.approx(gap, abs=0.2)


def test_the_rms_of_the_residuals_has_a_limit_if_one_is_given():
    picks = observed(SEEN)
    found = replace(event([0, 1, 2, 3]), residual_s=np.array([0.3, -0.4, 0.0, 0.0]))
    assert rules.rms_s(found) == pytest.approx(0.25)
    assert rules.reason(found, picks, settings(max_rms_s=0.26)) == ""
    assert rules.reason(found, picks, settings(max_rms_s=0.24)) == "max_rms_s"
    assert rules.reason(replace(found, residual_s=np.full(4, 99.0)), picks, settings()) == ""


def test_a_catalogue_holds_what_no_rule_refuses_and_counts_the_others():
    picks = observed(SEEN * 4)
    good, late, lonely, few = (
        event(range(6)),
        event(range(6, 12), 0.9),
        event([12, 13, 14]),
        event([18]),
    )
    found = associator.settle([good, late, lonely, few], picks, region(max_rms_s=0.5, max_gap_deg=200, min_picks=2))
    assert found.events == [good]
    assert found.refused == {"max_rms_s": 1, "max_gap_deg": 1, "min_picks": 1}
    assert len(associator.settle([good, late, lonely, few], picks, region()).events) == 4


def test_a_magnitude_needs_no_responsibilities():
    """PyOcto knows none; with them, picks that hardly belong to the event hardly count."""
    km = np.sqrt(100 + 25)
    log_m_s = 1.08 + 0.93 * (np.array([1, 1, 1, 1, 4, 4.0]) - 3.5) - 1.68 * np.log10(km) - 2
    picks = replace(observed(SEEN), log_amplitude=log_m_s)
    unsure = replace(event(range(6)), probability=np.full(6, np.nan))
    sure = replace(unsure, probability=np.array([0.1, 0.1, 0.1, 0.1, 1, 1]))
    found = associator.settle([unsure, sure], picks, region()).events
    assert [e.magnitude for e in found] == pytest.approx([1, 4])
    assert associator.residual_log_amplitude(found[0], picks) == pytest.approx([0, 0, 0, 0, 2.79, 2.79])
