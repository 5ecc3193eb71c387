"""What is said of a location: errors, gaps, rays, pick uncertainties, station terms; closed forms, analysts' picks."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.maths import pick_sigma
from pipeline.maths.location import errors_km, gaps_deg, takeoff_deg
from pipeline.maths.station_terms import Evidence, Terms, centred, estimate
from pipeline.records import Picks
from tests.weights_at_hand import need

DATA = Path(__file__).parents[2] / "shared" / "data"
real = pytest.mark.skipif(not DATA.exists(), reason="no labelled records: pick uncertainties are not checked")


def test_errors_of_a_covariance():
    erh, erz = errors_km(np.array([np.diag([9.0, 16.0, 4.0])]))
    assert (erh[0], erz[0]) == (5.0, 2.0)


@pytest.mark.parametrize(
    ("azimuths", "gaps"),
    [
        ([0, 90, 180, 270], (90, 180)),
        ([0, 10, 20], (340, 350)),
        ([350, 10, 190], (180, 340)),
        ([45, 45, 405], (360, 360)),  # one direction, however often
        ([10, 100], (270, 360)),
    ],
)
def test_gaps(azimuths, gaps):
    assert gaps_deg(np.array(azimuths, float)) == pytest.approx(gaps)


def test_the_second_gap_is_that_without_the_station_that_hurts_most():
    rng = np.random.default_rng(0)
    for n in range(3, 12):
        azimuth = rng.uniform(0, 360, n)
        without = [gaps_deg(np.delete(azimuth, i))[0] for i in range(n)]
        assert gaps_deg(azimuth)[1] == pytest.approx(max(without))


def test_no_azimuth_has_no_gap():
    assert np.isnan(gaps_deg(np.empty(0))).all()


def test_straight_rays_leave_towards_the_station():
    """In a uniform medium the travel time is distance / v: its gradient by the source points away from the station."""
    r, z = np.array([0.0, 10.0, 10.0, 10.0]), np.array([5.0, 10.0, 0.0, -10.0])  # of the source below the station
    line = np.hypot(r, z)
    np.testing.assert_allclose(takeoff_deg(r / line / 6, z / line / 6), [180, 135, 90, 45])


def picks(probability, width, snr, sigma=None, phase="P"):
    n = len(probability)
    f = [np.array(x, np.float32) for x in (probability, width, snr)]
    nan = np.full(n, np.nan, np.float32)
    own = nan if sigma is None else np.array(sigma, np.float32)
    return Picks(np.array(["A.B..HH"] * n), np.array([phase] * n), np.arange(n), *f, nan, sigma_s=own)


def test_an_unsure_wide_or_faint_pick_is_less_certain():
    sure, unsure, wide, faint = pick_sigma.of_picks(
        picks([0.95, 0.4, 0.95, 0.95], [0.2, 0.2, 0.5, 0.2], [20, 20, 20, 3])
    )
    assert sure < min(unsure, wide, faint)
    assert unsure == pytest.approx(sure * np.exp(pick_sigma.OF_UNSURE * 0.55), rel=1e-5)


def test_what_a_pick_says_of_itself_counts():
    assert pick_sigma.of_picks(picks([1, 1], [np.nan, np.nan], [np.nan, np.nan], [0.22, np.nan])) == pytest.approx(
        [0.22, 0.15]
    )


def test_analysts_weights():
    sigma = pick_sigma.of_weights(np.array(["P", "P", "S", "S"]), np.array([0, 4, 2, -1]))
    assert sigma.tolist() == [0.10, 0.50, 0.16, 0.18]


@real
def test_two_thirds_of_machine_picks_are_within_their_uncertainty():
    """Two pickers on labelled records, P and S apart, within two standard errors of a share of some 135 picks."""
    from tests.calibrate_picks import PICKERS, pairs

    found = [pairs(need(weight), threshold) for weight, threshold in PICKERS]
    both, off = Picks.concat([picks for picks, _ in found]), np.concatenate([off for _, off in found])
    sigma = pick_sigma.of_picks(both)
    for phase in "PS":
        own = (np.abs(off) < sigma)[both.phase == phase]
        assert len(own) > 120
        assert own.mean() == pytest.approx(0.68, abs=2 * np.sqrt(0.68 * 0.32 / len(own)))
    sharp = sigma < np.median(sigma)
    assert np.median(np.abs(off[sharp])) < 0.7 * np.median(np.abs(off[~sharp])), "and says which are better"


def test_terms_and_moves_are_the_solution_of_one_least_squares_problem():
    """Against NumPy's, with terms and moves of all events as unknowns, their priors as rows."""
    rng = np.random.default_rng(3)
    n_events, n_channels, n = 6, 8, 60
    event, channel = np.sort(rng.integers(0, n_events, n)), rng.integers(0, n_channels, n)
    slope = np.column_stack([rng.normal(0, 0.15, (n, 2)), np.ones(n), rng.normal(0, 0.1, n)])
    residual, weight = rng.normal(0, 0.3, n), rng.uniform(1, 100, n)
    terms = estimate(Evidence(event, channel, residual, slope, weight), n_channels, 0.2)
    design = np.zeros((n, n_channels + 4 * n_events))
    design[np.arange(n), channel] = 1
    for k in range(4):
        design[np.arange(n), n_channels + 4 * event + k] = slope[:, k]
    stiff = np.concatenate([np.full(n_channels, 1 / 0.2), np.tile([1e-2, 1e-2, 1e-2, 1e-1], n_events)])
    rows = np.vstack([design * np.sqrt(weight)[:, None], np.diag(stiff)])
    right = np.concatenate([residual * np.sqrt(weight), np.zeros(len(stiff))])
    np.testing.assert_allclose(terms.term_s, np.linalg.lstsq(rows, right, rcond=None)[0][:n_channels], atol=1e-4)


def test_few_picks_make_little_of_a_term():
    """With places that cannot move a term is the residual times weight / (weight + 1 / prior variance)."""
    picks = Evidence(np.array([0]), np.array([1]), np.array([0.4]), np.zeros((1, 4)), np.array([100.0]))
    terms = estimate(picks, 3, 0.1)
    np.testing.assert_allclose(terms.term_s, [0, 0.2, 0], atol=1e-9)
    np.testing.assert_allclose(terms.sigma_s, [0.1, 1 / np.sqrt(200), 0.1])
    assert terms.n.tolist() == [0, 1, 0]


def test_no_picks_at_all_make_no_terms():
    none = np.empty(0, np.int64)
    terms = estimate(Evidence(none, none, np.empty(0), np.empty((0, 4)), np.empty(0)), 4, 0.1)
    assert terms.term_s.tolist() == [0, 0, 0, 0]
    assert centred(terms, np.array([True, False, True, False])).term_s.tolist() == [0, 0, 0, 0]


def test_terms_are_centred_on_p():
    terms = Terms(np.array([0.3, 0.5, 0.1, 0.9]), np.ones(4), np.array([1, 1, 3, 0]))
    found = centred(terms, np.array([True, False, True, False]))
    np.testing.assert_allclose(found.term_s, [0.15, 0.35, -0.05, 0.0])
