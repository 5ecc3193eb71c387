import numpy as np
import pytest

from pipeline.maths.windows import Blender, midnights, plan, segments
from pipeline.records import DAY_NS, NS

L, OVERLAP = 101, 50


def rows(groups):
    return np.concatenate(groups) if groups else np.empty((0, 2), int)


def covered(groups, n):
    seen = np.zeros(n, int)
    for start, samples in rows(groups):
        seen[start : start + samples] += 1
    return seen


@pytest.mark.parametrize(
    ("n", "overlap"), [(101, 50), (102, 50), (500, 50), (151, 50), (152, 50), (1000, 0), (999, 100)]
)
def test_the_windows_of_a_segment_are_those_of_seisbench(n, overlap):
    import seisbench.models as sbm
    from obspy import UTCDateTime
    from seisbench.models.utils import GroupedTraceData

    model = sbm.VariableLengthPhaseNet(in_samples=L)
    group = GroupedTraceData(
        data=np.zeros((3, n)),
        stations=["A.B."],
        component_order="ZNE",
        start_time=UTCDateTime(0),
        sampling_rate=100.0,
        grouping="instrument",
    )
    theirs = [segment.window_offset for segment in model._cut_fragments_array(group, {"overlap": overlap})]
    (ours,) = plan(np.ones(n, bool), L, overlap).groups
    assert ours.tolist() == [[offset, L] for offset in theirs]


def test_windows_never_reach_into_a_gap_and_leave_no_data_unseen():
    rng = np.random.default_rng(0)
    for _ in range(200):
        valid = np.repeat(rng.random(12) < 0.7, rng.integers(1, 300, 12))
        at = np.sort(rng.integers(0, len(valid), 2))
        seen = covered(plan(valid, L, OVERLAP, 1, at).groups, len(valid))
        assert (seen[valid] >= 1).all()
        assert (seen[~valid] == 0).all()


def test_a_segment_shorter_than_a_window_is_one_short_window_and_a_tiny_one_is_gap():
    valid = np.array([False] * 10 + [True] * 60 + [False] * 10 + [True] * 4 + [False])
    assert rows(plan(valid, L, OVERLAP, min_segment=5).groups).tolist() == [[10, 60]]


def test_segments_are_the_runs_of_true():
    assert segments(np.array([True, True, False, True])).tolist() == [[0, 2], [3, 4]]
    assert segments(np.zeros(3, bool)).shape == (0, 2)


def test_midnights_are_counted_in_samples_at_or_after_them():
    start = 5 * DAY_NS - 2 * NS  # two seconds before a midnight
    assert midnights(start, 100.0, 1000).tolist() == [200]
    assert midnights(start + 3_000_000, 100.0, 1000).tolist() == [200]  # samples at .003: the first after is 199.7
    assert midnights(start - 3_000_000, 100.0, 1000).tolist() == [201]
    assert midnights(start, 100.0, 100).tolist() == []
    assert midnights(5 * DAY_NS, 1.0, 2 * 86_400).tolist() == [0, 86_400]


def windows_near(valid, start, at, reach):
    """What touches |t - midnight| < reach, as (absolute start, samples)."""
    touching = [
        (int(first) + start, int(samples))
        for first, samples in rows(plan(valid, L, OVERLAP, 3, np.array([at - start])).groups)
        if first + start < at + reach and first + start + samples > at - reach
    ]
    return sorted(touching)


def test_two_shards_see_the_same_windows_within_half_a_window_of_midnight():
    rng = np.random.default_rng(1)
    reach, half = L + L // 2, L // 2
    for _ in range(300):
        n, midnight = 1500, 700
        valid = np.ones(n, bool)
        for _ in range(rng.integers(0, 4)):
            gap = rng.integers(0, n)
            valid[gap : gap + rng.integers(1, 120)] = False
        if not valid[midnight - 1 : midnight + 1].all():
            continue  # nothing spans this midnight
        before, after = rng.integers(0, midnight - reach + 1), rng.integers(midnight + reach, n + 1)
        evening = windows_near(valid[: midnight + reach], 0, midnight, half)
        cut_evening = windows_near(valid[before : midnight + reach], before, midnight, half)
        morning = windows_near(valid[midnight - reach : after], midnight - reach, midnight, half)
        assert evening == cut_evening == morning
        assert evening


def test_a_midnight_at_the_edge_of_a_segment_does_not_cut_it():
    valid = np.ones(1000, bool)
    alone = plan(valid, L, OVERLAP).groups
    assert [g.tolist() for g in plan(valid, L, OVERLAP, 1, np.array([0, 1000])).groups] == [g.tolist() for g in alone]


def test_seams_are_groups_of_their_own():
    groups = plan(np.ones(5000, bool), L, OVERLAP, 1, np.array([1000, 3000])).groups
    assert len(groups) == 3
    for seam, midnight in zip(groups[1:], (1000, 3000), strict=True):
        assert seam[0, 0] == midnight - L - L // 2
        assert seam[-1].sum() == midnight + L + L // 2


def test_an_overlap_as_long_as_the_window_is_refused():
    with pytest.raises(ValueError, match="overlap of 101"):
        plan(np.ones(500, bool), L, L)


@pytest.mark.parametrize("stacking", ["avg", "max"])
def test_blending_is_that_of_seisbench(stacking):
    from seisbench.ext import stack_windows

    rng = np.random.default_rng(2)
    starts = np.array([0, 51, 102, 130])
    answers = rng.random((4, L, 2)).astype(np.float32)
    answers[:, :10], answers[:, -20:] = np.nan, np.nan
    theirs = stack_windows(answers, starts.astype(np.intp), stacking)
    blender = Blender(2, 231, stacking, blinding=(10, 20))
    for start, answer in zip(starts, np.nan_to_num(answers, nan=9.0), strict=True):
        blender.add(int(start), L, answer.T)
    np.testing.assert_allclose(blender.result().T, theirs, rtol=1e-6)


@pytest.mark.parametrize(("stacking", "expected"), [("avg", [1, 2, 4, np.nan]), ("max", [1, 3, 4, np.nan])])
def test_nan_and_padding_do_not_count(stacking, expected):
    blender = Blender(1, 4, stacking)
    blender.add(0, 2, np.array([[1, 1, 9]], np.float32))  # the third sample is padding
    blender.add(1, 3, np.array([[3, 4, np.nan]], np.float32))
    np.testing.assert_array_equal(blender.result()[0], np.array(expected, np.float32))


def test_negative_answers_survive_the_maximum():
    blender = Blender(1, 2, "max")
    blender.add(0, 2, np.array([[-2.0, -3.0]], np.float32))
    assert blender.result().tolist() == [[-2.0, -3.0]]


@pytest.mark.parametrize("n", [101, 130, 500, 507, 1000])
def test_with_a_grid_every_window_of_a_piece_starts_on_it(n):
    (ours,) = plan(np.ones(n, bool), L, L - 40, grid=8).groups
    (flush,) = plan(np.ones(n, bool), L, L - 40).groups
    assert (ours[:, 0] % 8 == 0).all()
    assert len(ours) == len(flush) or ours[-1].sum() + 8 > n - 40
    assert n - 8 < ours[-1].sum() <= n
