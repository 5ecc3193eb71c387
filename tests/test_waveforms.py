"""Reading shards: one test for each kind of bad input, known pulses at known times, and the real archives."""

import pickle
import random
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import obspy
import pytest

from pipeline.errors import BadData, NoData
from pipeline.formats import archive as archives
from pipeline.formats import mseed, traces, waveforms
from pipeline.formats.waveforms import read_shard
from pipeline.records import NS, Shard
from tests.synth import (
    DAY_NS,
    HOUR,
    WHOLE_DAY,
    archive,
    noise,
    ns,
    sds_path,
    shard,
    station,
    trace,
    write,
)

DATA = Path(__file__).parents[2] / "shared" / "data"
real = pytest.mark.skipif(not DATA.exists(), reason="the real archives are not here: reading them is not tested")
Z, N, E = "XX.ABC..HHZ", "XX.ABC..HHN", "XX.ABC..HHE"


LOST = "no usable data of component"


def read(root, span=HOUR, context_s=0.0, rate_hz=100.0, sh=None, **settings):
    """What `read_shard` gives; most records here have one component, so the note on the others is left out."""
    waveform, notes = read_shard(archive(root, **settings), sh or shard(), context_s, rate_hz, span)
    return waveform, tuple(note for note in notes if not note.startswith(LOST))


def second(waveform, at_s):
    """Index of the sample at ``at_s`` seconds after midnight."""
    return round((DAY_NS + at_s * NS - waveform.start_ns) * waveform.rate_hz / NS)


def gaps(waveform):
    """Seconds after midnight where each gap starts and ends."""
    edges = np.flatnonzero(np.diff(waveform.valid)) + 1
    return [round((waveform.start_ns - DAY_NS) / NS + i / waveform.rate_hz, 6) for i in edges.tolist()]


# --- what is there is read exactly ----------------------------------------------------------------------------


def test_samples_and_times_are_those_of_the_files(tmp_path):
    data = station(tmp_path, seconds=100, at_s=10)
    waveform, notes = read(tmp_path)
    assert notes == ()
    assert waveform.start_ns == DAY_NS + 10 * NS
    assert waveform.valid.all()
    assert waveform.components == (True, True, True)
    for row, c in zip(waveform.samples, "ZNE", strict=True):
        assert np.allclose(row, data[c] - data[c].mean(), atol=1e-4)


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
def test_number_types(tmp_path, dtype):
    data = noise(1000, dtype=dtype)
    write(sds_path(tmp_path, Z), trace(data))
    waveform, _ = read(tmp_path)
    assert np.allclose(waveform.samples[0], data - data.mean(), atol=1e-4)


def test_a_large_offset_costs_no_precision(tmp_path):
    data = noise(1000)
    write(sds_path(tmp_path, Z), trace(data + 2_000_000_000))
    assert np.allclose(read(tmp_path)[0].samples[0], data - data.mean(), atol=1e-4)


def test_context_comes_from_the_neighbouring_days(tmp_path):
    days = [date(2024, 5, 31), date(2024, 6, 1), date(2024, 6, 2)]
    data = noise(3 * 8640)  # 0.1 Hz, three days in one piece, cut at midnight
    for i, day in enumerate(days):
        at_s = (i - 1) * 86_400
        for k in (20, 100):  # twice: files overlap by records of both neighbours
            part = data[i * 8640 - (k if i else 0) : (i + 1) * 8640]
        write(sds_path(tmp_path, Z, day), trace(part, at_s - (1000 if i else 0), rate_hz=0.1))
    span = (WHOLE_DAY[0] - 10**15, WHOLE_DAY[1] + 10**15)
    waveform, notes = read(tmp_path, span, context_s=600, rate_hz=0.1, min_segment_s=0)
    assert notes == ()
    assert waveform.start_ns == WHOLE_DAY[0] - 600 * NS
    assert len(waveform) == 8640 + 120
    assert waveform.valid.all()
    expected = data[8640 - 60 : 2 * 8640 + 60]
    assert np.allclose(waveform.samples[0], expected - expected.mean(), atol=1e-4)


def test_records_that_spill_over_midnight_are_found_without_context(tmp_path):
    data = noise(6000)
    write(sds_path(tmp_path, Z, date(2024, 5, 31)), trace(data[:2000], -10))
    write(sds_path(tmp_path, Z), trace(data[2000:], 10))
    waveform, _ = read(tmp_path)
    assert (waveform.start_ns, len(waveform)) == (DAY_NS, 5000)
    assert waveform.valid.all()


def three_days(root, rate_hz=20.0):
    """A component of three days in one piece, cut at midnight; returns the files."""
    n = round(86_400 * rate_hz)
    data, paths = noise(3 * n, scale=1e4), []
    for i in range(3):
        part = trace(data[i * n : (i + 1) * n], (i - 1) * 86_400, rate_hz=rate_hz)
        paths.append(write(sds_path(root, Z, date(2024, 5, 31) + timedelta(days=i)), part))
    return paths


def read_three_days(root, monkeypatch):
    """What is read with 600 s of context, and the bytes of each file that were decoded."""
    decoded, decode = {}, waveforms.traces.read

    def spying(path, raw=b"", **options):
        decoded[path] = len(raw)
        return decode(path, raw=raw, **options)

    with monkeypatch.context() as patch:
        patch.setattr(waveforms.traces, "read", spying)
        span = (WHOLE_DAY[0] - 10**15, WHOLE_DAY[1] + 10**15)
        return *read(root, span, context_s=600, rate_hz=20.0), decoded


def test_of_a_neighbouring_day_only_the_near_end_is_read(tmp_path, monkeypatch):
    paths = three_days(tmp_path)
    near, notes, decoded = read_three_days(tmp_path, monkeypatch)
    assert [decoded[path] for path in paths] == [waveforms.EDGE, paths[1].stat().st_size, waveforms.EDGE]
    assert paths[0].stat().st_size / 10 > waveforms.EDGE
    monkeypatch.setattr(waveforms, "EDGE", 1 << 40)
    whole, same_notes, decoded = read_three_days(tmp_path, monkeypatch)
    assert [decoded[path] for path in paths] == [path.stat().st_size for path in paths]
    assert near.samples.tobytes() == whole.samples.tobytes()
    assert (near.start_ns, len(near), notes) == (whole.start_ns, len(whole), same_notes)
    assert (near.start_ns, len(near)) == (DAY_NS - 600 * NS, 87_600 * 20)
    assert near.valid.all()


def far(records, near_end):
    """The 20 records at midnight lie at the far end of the file."""
    return [*records[-20:], *records[:-20]] if near_end == -1 else [*records[20:], *records[:20]]


def filled_in(records, near_end):
    """One record that telemetry brought late lies at the far end of the file."""
    k = len(records) - 3 if near_end == -1 else 2
    rest = [*records[:k], *records[k + 1 :]]
    return [records[k], *rest] if near_end == -1 else [*rest, records[k]]


def of_another_channel(records, near_end):
    """One record in good order is of another channel."""
    k = len(records) - 3 if near_end == -1 else 2
    return [*records[:k], records[k][:15] + b"HHN" + records[k][18:], *records[k + 1 :]]


def cut_off(records, near_end):
    """The last record is cut off: there is no telling where in the file a record begins."""
    return [*records[:-1], records[-1][:-96]]


@pytest.mark.parametrize("spoil", [far, filled_in, of_another_channel, cut_off])
def test_the_whole_of_a_neighbouring_day_is_read_where_its_end_does_not_tell_all(tmp_path, monkeypatch, spoil):
    paths = three_days(tmp_path)
    for path, near_end in ((paths[0], -1), (paths[2], 0)):
        raw = path.read_bytes()
        path.write_bytes(b"".join(spoil([raw[i : i + 4096] for i in range(0, len(raw), 4096)], near_end)))
    ours, notes, decoded = read_three_days(tmp_path, monkeypatch)
    assert decoded[paths[0]] == paths[0].stat().st_size
    assert decoded[paths[2]] == (waveforms.EDGE if spoil is cut_off else paths[2].stat().st_size)
    monkeypatch.setattr(waveforms, "EDGE", 1 << 40)
    whole, same_notes, _ = read_three_days(tmp_path, monkeypatch)
    assert ours.samples.tobytes() == whole.samples.tobytes()
    assert ours.start_ns == whole.start_ns
    assert set(notes) <= set(same_notes)


def test_channels_that_follow_one_another_in_a_neighbouring_days_file_are_all_read(tmp_path):
    data = {c: noise(3 * 86_400, i, scale=1e5) for i, c in enumerate("ZNE")}
    for i in range(3):
        parts = [
            trace(d[i * 86_400 : (i + 1) * 86_400], (i - 1) * 86_400, Z[:-1] + c, rate_hz=1.0) for c, d in data.items()
        ]
        assert write(tmp_path / f"{2024152 + i}.XX.ABC", *parts).stat().st_size > waveforms.EDGE
    ar = archive(tmp_path, layout="{year}{julday:03}.{network}.{station}")
    span = (WHOLE_DAY[0] - 10**15, WHOLE_DAY[1] + 10**15)
    waveform, notes = read_shard(ar, shard(), 600, 1.0, span)
    assert (waveform.start_ns, len(waveform), notes) == (DAY_NS - 600 * NS, 87_600, ())
    for row, c in zip(waveform.samples, "ZNE", strict=True):
        expected = data[c][86_400 - 600 : 2 * 86_400 + 600]
        assert np.allclose(row, expected - expected.mean(), rtol=1e-6)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    station(tmp_path, seconds=20, components="Z")

    def refuse(self, *args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BadData, match=r"HHZ.D.2024.153: cannot be read .*Permission denied"):
        read(tmp_path)


def test_the_span_of_the_run_cuts_the_day_but_not_its_context(tmp_path):
    station(tmp_path, seconds=3000)
    waveform, _ = read(tmp_path, (DAY_NS + 1000 * NS, DAY_NS + 2000 * NS), context_s=60)
    assert (waveform.start_ns, len(waveform)) == (DAY_NS + 940 * NS, 112_000)
    with pytest.raises(NoData, match="too short"):
        read(tmp_path, (DAY_NS + 3010 * NS, DAY_NS + 3500 * NS), context_s=60)


def test_sac_files_and_blank_headers(tmp_path):
    data = noise(1000, dtype=np.float32)
    write(tmp_path / "2024.153" / "XX.ABC..HHZ.SAC", trace(data, 5, code=".ABC..HHZ"), form="SAC")
    ar = archive(tmp_path, layout="{year}.{julday:03}/{network}.{station}.{location}.{channel}.SAC")
    [(sh, _)] = archives.find_shards(ar, lambda name: name == "XX.ABC", WHOLE_DAY)
    waveform, notes = read_shard(ar, sh, 0, 100.0, WHOLE_DAY)
    assert notes == (f"{LOST} N and E: zeros instead",)
    assert waveform.start_ns == DAY_NS + 5 * NS
    assert np.allclose(waveform.samples[0], data - data.mean(), atol=1e-4)


def test_one_file_with_all_channels_and_other_bands(tmp_path):
    traces = [trace(noise(1000, i), code=f"XX.ABC.{c}") for i, c in enumerate(("00.HHZ", "00.HHN", "10.HHZ", "00.BHZ"))]
    write(tmp_path / "2024.153.XX.ABC.mseed", *traces)
    ar = archive(tmp_path, layout="{year}.{julday:03}.{network}.{station}.mseed")
    waveform, notes = read_shard(ar, shard("XX.ABC.00"), 0, 100.0, HOUR)
    assert notes == (f"{LOST} E: zeros instead",)
    assert waveform.components == (True, True, False)
    assert np.allclose(waveform.samples[0], traces[0].data - traces[0].data.mean(), atol=1e-4)
    other, _ = read_shard(ar, shard("XX.ABC.10"), 0, 100.0, HOUR)
    assert np.allclose(other.samples[0], traces[2].data - traces[2].data.mean(), atol=1e-4)


# --- gaps, overlaps, order -------------------------------------------------------------------------------------


def test_gaps_are_masked_and_zero(tmp_path):
    data = noise(10_000) + 5000
    for code in (Z, N, E):
        write(sds_path(tmp_path, code), trace(data[:3000], code=code), trace(data[5001:], 50.01, code=code))
    waveform, _ = read(tmp_path)
    assert gaps(waveform) == [30.0, 50.01]
    assert (waveform.samples[:, ~waveform.valid] == 0).all()
    assert abs(waveform.samples[0, :3000].mean()) < 1e-3
    assert abs(waveform.samples[0, 5001:].mean()) < 1e-3


def test_pieces_shorter_than_min_segment_become_gap(tmp_path):
    data = noise(10_000)
    write(sds_path(tmp_path, Z), trace(data[:3000]), trace(data[3500:3590], 35), trace(data[4000:], 40))
    assert gaps(read(tmp_path)[0]) == [30.0, 40.0]
    assert gaps(read(tmp_path, min_segment_s=0.5)[0]) == [30.0, 35.0, 35.9, 40.0]


def test_equal_overlaps_and_duplicated_records_merge_silently(tmp_path):
    data = noise(20_000)
    parts = [
        trace(data[:9000]),
        trace(data[8000:15_000], 80),
        trace(data[8000:15_000], 80),
        trace(data[14_999:], 149.99),
    ]
    write(sds_path(tmp_path, Z), *parts)
    waveform, notes = read(tmp_path)
    assert notes == ()
    assert np.allclose(waveform.samples[0], data - data.mean(), atol=1e-4)


def test_a_conflicting_overlap_is_a_gap_with_a_note(tmp_path):
    data = noise(20_000)
    write(sds_path(tmp_path, Z), trace(data[:9000]), trace(noise(12_000, 7), 80))
    waveform, notes = read(tmp_path)
    assert gaps(waveform) == [80.0, 90.0]
    assert len(notes) == 1
    assert notes[0].startswith("HHZ: ")
    assert notes[0].endswith("contradict each other where data overlap: left out, first at 2024-06-01T00:01:20Z")


def test_the_order_of_records_and_files_does_not_matter(tmp_path):
    data = {c: noise(20_000, i) for i, c in enumerate("ZNE")}
    results = []
    for k in range(4):
        for c, d in data.items():
            parts = [trace(d[i : i + 2100], i / 100, Z[:-1] + c) for i in range(0, 20_000, 2000)]
            random.Random(k).shuffle(parts)
            for i, part in enumerate(parts):
                write(tmp_path / str(k) / f"2024.153.XX.ABC..HH{c}.{(i * 7 + k) % 10}", part)
        ar = archive(tmp_path / str(k), layout="{year}.{julday:03}.{network}.{station}.{location}.{channel}.*")
        results.append(read_shard(ar, shard(), 0, 100.0, HOUR)[0])
    assert all(r.valid.all() and len(r) == 20_000 for r in results)
    assert all((r.samples == results[0].samples).all() for r in results)
    assert np.allclose(results[0].samples[1], data["N"] - data["N"].mean(), atol=1e-4)


# --- rates and times ---------------------------------------------------------------------------------------------


def pulse(rate_hz, start_s, seconds, at_s, width_s=0.06):
    """Samples of a smooth pulse centred at ``at_s`` seconds after midnight."""
    t = start_s + np.arange(round(seconds * rate_hz)) / rate_hz
    return (1e5 * np.exp(-(((t - at_s) / width_s) ** 2))).astype(np.float32)


def centre_s(waveform, row):
    """Centre of gravity of the pulse in a row, seconds after midnight."""
    weight = np.clip(waveform.samples[row] - 0.1 * waveform.samples[row].max(), 0, None) ** 2
    t = (waveform.start_ns - DAY_NS) / NS + np.arange(len(waveform)) / waveform.rate_hz
    return float((weight * t).sum() / weight.sum())


@pytest.mark.parametrize("rate_hz", [200.0, 125.0, 100.0, 50.0, 20.0, 99.9999, 100.0001])
def test_a_pulse_keeps_its_time_at_any_rate_and_fractional_start(tmp_path, rate_hz):
    width_s = max(0.06, 3 / rate_hz)
    for code, start_s in ((Z, 3.0003), (N, 3.0003), (E, 3.0003)):
        data = pulse(rate_hz, start_s, 60, 30.1234, width_s)
        write(sds_path(tmp_path, code), trace(data, start_s, code, rate_hz))
    waveform, _ = read(tmp_path)
    assert waveform.rate_hz == 100
    assert [centre_s(waveform, row) for row in range(3)] == pytest.approx([30.1234] * 3, abs=2e-4)
    assert waveform.samples.max() == pytest.approx(1e5, rel=0.02)


@pytest.mark.parametrize("true_hz", [99.99, 99.9999, 100.0001, 100.01])
@pytest.mark.parametrize("byteorder", [">", "<"])
def test_a_clock_that_drifts_against_the_header_keeps_the_time_of_its_records(tmp_path, true_hz, byteorder):
    """Headers say 100 Hz, each record carries its true start: ObsPy keeps only that of the first."""
    seconds, at_s = (3500, 3400.0) if abs(true_hz - 100) > 1e-3 else (80_000, 79_900.0)
    data = pulse(true_hz, 0, seconds, at_s) + noise(round(seconds * true_hz), scale=10)
    records = [trace(data[i : i + 4000], i / true_hz) for i in range(0, len(data), 4000)]
    path = write(sds_path(tmp_path, Z), *records, byteorder=byteorder)
    drift_s = (obspy.read(str(path))[0].stats.endtime.ns - DAY_NS) / NS - (len(data) - 1) / true_hz
    waveform, notes = read(tmp_path, WHOLE_DAY)
    assert abs(drift_s) > 0.05
    assert centre_s(waveform, 0) == pytest.approx(at_s, abs=0.006)
    assert waveform.valid.all()
    assert len(notes) == 1
    assert "clock drifts" in notes[0]


@pytest.mark.parametrize(
    "starts", [(0, 0.29, 0.57), (0, 0.07, 0.14), (3.0, 3.0049, 2.9951), (0.018391, 0.018393, 0.0184)]
)
def test_components_with_other_fractional_starts_are_not_shifted_by_a_sample(tmp_path, starts):
    for code, start_s in zip((Z, N, E), starts, strict=True):
        write(sds_path(tmp_path, code), trace(pulse(100.0, start_s, 60, 30.0), start_s, code))
    waveform, _ = read(tmp_path)
    axis_s = (waveform.start_ns - DAY_NS) / NS
    for row, start_s in enumerate(starts):
        off_axis_s = abs((start_s - axis_s + 0.005) % 0.01 - 0.005)  # half a sample at most
        assert centre_s(waveform, row) == pytest.approx(30.0, abs=off_axis_s + 1e-4)


def test_seisbench_shifts_such_components_and_we_do_not(tmp_path):
    """int((start - first) * rate): int(0.29 * 100) is 28, and int(0.57 * 100) is 56."""
    models = pytest.importorskip("seisbench.models")
    stream, starts = obspy.Stream(), (0, 0.29, 0.57)
    for code, start_s in zip((Z, N, E), starts, strict=True):
        stream += trace(pulse(100.0, start_s, 60, 30.0), start_s, code)
        write(sds_path(tmp_path, code), stream[-1])
    model = models.PhaseNet()
    [group] = model._grouping.group_stream(stream, strict=False, min_length_s=30, comp_dict={"Z": 0, "N": 1, "E": 2})
    theirs = model.stream_to_array(obspy.Stream(group), {})
    assert theirs.data.argmax(axis=1).tolist() == [3000, 2999, 2999]
    assert read(tmp_path)[0].samples.argmax(axis=1).tolist() == [3000, 3000, 3000]


def test_mixed_rates_in_a_day(tmp_path):
    t = np.arange(60_000) / 100

    def at(rate_hz, start_s, seconds):
        times = start_s + np.arange(round(seconds * rate_hz)) / rate_hz
        return (1e4 * np.sin(2 * np.pi * 3 * times)).astype(np.float32)

    parts = [(100.0, 0, 200), (50.0, 200, 200), (200.0, 400, 200)]
    write(sds_path(tmp_path, Z), *(trace(at(r, s, n), s, rate_hz=r) for r, s, n in parts))
    waveform, notes = read(tmp_path)
    assert waveform.valid.sum() >= 59_998  # a seam between rates may cost one sample
    seams = np.abs(t[:, None] - [0, 200, 400, 600]).min(axis=1) < 1
    error = np.abs(waveform.samples[0] - 1e4 * np.sin(2 * np.pi * 3 * t[: len(waveform)]))
    assert error[waveform.valid & ~seams[: len(waveform)]].max() < 20
    assert any("at 50 Hz among other rates" in note for note in notes)


def test_a_rate_far_too_low_is_left_out_with_a_note(tmp_path):
    write(sds_path(tmp_path, Z), trace(noise(10_000)))
    write(sds_path(tmp_path, N), trace(noise(100), code=N, rate_hz=1.0))
    waveform, notes = read(tmp_path)
    assert waveform.components == (True, False, False)
    assert notes == (
        "HHN: 100 samples left out: 1.0 Hz cannot be resampled to 100.0 Hz, first at 2024-06-01T00:00:00Z",
    )


def test_a_good_clock_is_not_cut_and_nonsense_does_no_harm(tmp_path):
    path = write(sds_path(tmp_path, Z), trace(noise(100_000)), trace(noise(100_000), 2000.0037))
    raw = path.read_bytes()
    assert mseed.cuts(raw, 100.0) == []
    assert len(mseed.cuts(raw, 100.01)) > 50
    rng = np.random.default_rng(5)
    for _ in range(300):
        damaged = bytearray(raw[: int(rng.integers(0, 20_000))])
        for i in rng.integers(0, len(damaged), 20) if damaged else []:
            damaged[i] = rng.integers(0, 256)
        mseed.cuts(bytes(damaged), 100.0)
    mseed.cuts(rng.bytes(100_000), 100.0)


# --- channels, components, locations ---------------------------------------------------------------------------


def test_the_preferred_band_and_location_are_read(tmp_path):
    for i, code in enumerate(("XX.ABC..BHZ", "XX.ABC.00.HHZ", "XX.ABC.10.HHZ")):
        write(sds_path(tmp_path, code), trace(noise(1000, i), code=code))
    ar = archive(tmp_path)
    [(sh, _)] = archives.find_shards(ar, lambda name: True, HOUR)
    assert sh.id == "2024-06-01/XX.ABC.00.HH"
    data = noise(1000, 1)
    assert np.allclose(read_shard(ar, sh, 0, 100.0, HOUR)[0].samples[0], data - data.mean(), atol=1e-4)


@pytest.mark.parametrize(
    ("letters", "rows"),
    [("ZNE", "ZNE"), ("Z12", "Z12"), ("Z23", "Z23"), ("123", "123"), ("EZN", "ZNE"), ("12", " 12"), ("Z", "Z  ")],
)
def test_components_go_to_their_rows(tmp_path, letters, rows):
    data = station(tmp_path, seconds=20, components=letters)
    waveform, notes = read(tmp_path)
    assert notes == ()
    for row, letter in enumerate(rows):
        expected = data[letter] - data[letter].mean() if letter != " " else 0
        assert np.allclose(waveform.samples[row], expected, atol=1e-4)
        assert waveform.components[row] == (letter != " ")


def test_numbered_components_fill_what_lettered_ones_leave_out(tmp_path):
    a, b = noise(4000, 1), noise(4000, 2)
    write(sds_path(tmp_path, N), trace(a[:2500], code=N))
    write(sds_path(tmp_path, "XX.ABC..HH1"), trace(b[2000:], 20, "XX.ABC..HH1"))
    waveform, _ = read(tmp_path)
    expected = np.concatenate([a[:2500], b[2500:]]).astype(float)
    assert np.allclose(waveform.samples[1], expected - expected.mean(), atol=1e-4)


def test_components_that_would_have_to_be_rotated_are_left_out(tmp_path):
    station(tmp_path, seconds=20, components="UVW")
    with pytest.raises(NoData, match=r"no usable component.*HHU, HHV, HHW"):
        read(tmp_path)


def test_missing_components_by_policy(tmp_path):
    data = noise(10_000)
    write(sds_path(tmp_path, Z), trace(data))
    write(sds_path(tmp_path, N), trace(data[:4000], code=N))
    waveform, _ = read(tmp_path)
    assert waveform.components == (True, True, False)
    assert waveform.valid.all()
    assert (waveform.samples[1, 4000:] == 0).all()
    assert (waveform.samples[2] == 0).all()
    assert read_shard(archive(tmp_path), shard(), 0.0, 100.0, HOUR)[1] == (f"{LOST} E: zeros instead",)
    with pytest.raises(NoData, match="no usable component: E missing"):
        read(tmp_path, missing_components="skip")
    write(sds_path(tmp_path, E), trace(data, code=E))
    assert len(read(tmp_path, missing_components="skip")[0]) == 4000


def test_a_lone_component_in_place_of_the_others(tmp_path):
    write(sds_path(tmp_path, Z), trace(noise(10_000)))
    waveform, notes = read_shard(archive(tmp_path, missing_components="repeat"), shard(), 0.0, 100.0, HOUR)
    assert waveform.components == (True, False, False), "amplitudes are of what there is"
    assert waveform.samples[0].any()
    np.testing.assert_array_equal(waveform.samples[1:], waveform.samples[[0, 0]])
    assert notes == (f"{LOST} N and E: the other instead",)


def test_no_file(tmp_path):
    station(tmp_path, seconds=20)
    with pytest.raises(BadData, match="no file"):
        read(tmp_path, sh=shard("XX.NONE."))


def test_the_files_of_its_own_day_are_gone_though_its_neighbours_are_there(tmp_path):
    paths = three_days(tmp_path)
    paths[1].unlink()
    for context_s in (0.0, 600.0):
        with pytest.raises(BadData, match=r"no file: the plan found some and none is left; is the archive mounted"):
            read(tmp_path, WHOLE_DAY, context_s, rate_hz=20.0)
    for neighbour in (paths[0], paths[2]):
        neighbour.unlink()
    paths[1].touch()  # of 0 bytes: it is there, and the plan knows it
    with pytest.raises(NoData, match="no usable component"):
        read(tmp_path, WHOLE_DAY, rate_hz=20.0)


def test_too_short(tmp_path):
    station(tmp_path, seconds=0.5)
    with pytest.raises(NoData, match=r"no usable component|too short"):
        read(tmp_path)


# --- sick channels ---------------------------------------------------------------------------------------------


def test_a_dead_component_counts_as_missing(tmp_path):
    station(tmp_path, seconds=30, components="ZN")
    write(sds_path(tmp_path, E), trace(np.full(3000, 17, np.int32), code=E))
    waveform, notes = read(tmp_path)
    assert waveform.components == (True, True, False)
    assert (waveform.samples[2] == 0).all()
    assert notes == ("HHE: 3000 samples of one value: dead channel, left out, first at 2024-06-01T00:00:00Z",)


def test_a_station_with_only_dead_components(tmp_path):
    write(sds_path(tmp_path, Z), trace(np.zeros(30_000, np.int32)))
    with pytest.raises(NoData, match=r"no usable component.*HHZ: 30000 samples of one value"):
        read(tmp_path)


def test_a_channel_that_dies_for_minutes_is_a_gap_there(tmp_path):
    data = noise(60_000)
    data[20_000:40_000] = 0
    write(sds_path(tmp_path, Z), trace(data))
    waveform, notes = read(tmp_path)
    start, stop = gaps(waveform)
    assert start == pytest.approx(200, abs=0.02)  # noise may happen to be 0 at the edges
    assert stop == pytest.approx(400, abs=0.02)
    assert "dead, left out" in notes[0]


def test_nan_and_infinities_become_gaps(tmp_path):
    data = noise(10_000, dtype=np.float32)
    data[3000:3500], data[5000], data[6000] = np.nan, np.inf, -np.inf
    write(sds_path(tmp_path, Z), trace(data))
    waveform, notes = read(tmp_path)
    assert np.isfinite(waveform.samples).all()
    assert gaps(waveform) == [30.0, 35.0, 50.0, 50.01, 60.0, 60.01]
    assert notes == ("HHZ: 502 samples are no numbers or fill values: left out, first at 2024-06-01T00:00:30Z",)


@pytest.mark.parametrize("fill", [2**31 - 1, -(2**31)])
def test_integer_overflow_is_a_gap(tmp_path, fill):
    data = noise(10_000)
    data[3000:3500] = fill
    write(sds_path(tmp_path, Z), trace(data), encoding="INT32")
    waveform, notes = read(tmp_path)
    assert gaps(waveform) == [30.0, 35.0]
    assert np.abs(waveform.samples).max() < 1000
    assert "500 samples are no numbers or fill values" in notes[0]


def test_masked_arrays(tmp_path, monkeypatch):
    masked = trace(np.ma.masked_inside(np.arange(10_000) % 997, 100, 150))
    write(sds_path(tmp_path, Z), trace(noise(10_000)))
    monkeypatch.setattr(waveforms.traces, "read", lambda path, **options: (obspy.Stream([masked]), []))
    waveform, _ = read(tmp_path, min_segment_s=0)
    assert (~waveform.valid).sum() == np.ma.getmaskarray(masked.data).sum() > 400


def test_clipped_samples_are_kept_with_a_note(tmp_path):
    t = np.arange(30_000) / 100
    data = noise(30_000) + (5e6 * np.exp(-(((t - 150) / 5) ** 2)) * np.sin(2 * np.pi * t)).astype(np.int32)
    clipped = np.clip(data, -1_000_000, 1_000_000)
    write(sds_path(tmp_path, Z), trace(clipped))
    waveform, notes = read(tmp_path)
    assert np.allclose(waveform.samples[0], clipped - clipped.mean(), atol=0.1)
    assert waveform.valid.all()
    assert "samples clipped (flat tops): kept" in notes[0]
    assert len(notes) == 1


def test_lone_spikes_are_repaired_with_a_note(tmp_path):
    data = noise(30_000)
    data[[7000, 20_000]] = 10_000_000, -8_000_000
    write(sds_path(tmp_path, Z), trace(data))
    waveform, notes = read(tmp_path)
    assert np.abs(waveform.samples).max() < 1000
    assert notes == (
        "HHZ: 2 single-sample spikes replaced by the mean of their neighbours, first at 2024-06-01T00:01:10Z",
    )


# --- sick files ------------------------------------------------------------------------------------------------


def test_an_empty_file(tmp_path):
    station(tmp_path, seconds=20, components="ZN")
    sds_path(tmp_path, E).parent.mkdir(parents=True)
    sds_path(tmp_path, E).touch()
    waveform, notes = read(tmp_path)
    assert waveform.components == (True, True, False)
    assert notes == (f"{sds_path(tmp_path, E)}: empty (0 bytes)",)
    for c in "ZN":
        sds_path(tmp_path, Z[:-1] + c).write_bytes(b"")
    with pytest.raises(NoData, match=r"no usable component.*empty \(0 bytes\)"):
        read(tmp_path)


def test_a_truncated_file_is_read_as_far_as_it_goes(tmp_path):
    data = station(tmp_path, seconds=600, components="Z")["Z"]
    path = sds_path(tmp_path, Z)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 + 100])
    waveform, notes = read(tmp_path)
    n = len(waveform)
    assert 20_000 < n < 40_000
    assert np.allclose(np.diff(waveform.samples[0]), np.diff(data[:n]), atol=1e-3)
    assert str(path) in notes[0]
    assert "not enough to constitute a full SEED record" in notes[0]


@pytest.mark.parametrize("form", ["MSEED", "SAC", "GSE2"])
@pytest.mark.parametrize("size", [1, 40, 100, 300, 700])
def test_what_is_left_of_a_file_is_not_readable(tmp_path, form, size):
    path = write(sds_path(tmp_path, Z), trace(noise(5000)), form=form)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BadData, match="repair or remove the file") as e:
        read(tmp_path)
    assert str(path) in str(e.value)


def test_garbage_names_the_file_and_fails_the_shard_but_not_its_neighbour(tmp_path):
    station(tmp_path, seconds=600, components="Z")
    garbage = np.random.default_rng(0).bytes(9000)
    before = sds_path(tmp_path, Z, date(2024, 5, 31))
    before.write_bytes(garbage)
    waveform, notes = read(tmp_path, context_s=60)
    assert len(waveform) == 60_000
    assert str(before) in notes[0]
    assert notes[0].endswith("only context is lost")
    path = sds_path(tmp_path, N)
    path.parent.mkdir(parents=True)
    path.write_bytes(garbage)
    with pytest.raises(BadData, match=r"HHN.D.2024.153: ObsPy cannot read it .* repair or remove"):
        read(tmp_path)


def test_a_damaged_record(tmp_path):
    station(tmp_path, seconds=600, components="Z")
    path = sds_path(tmp_path, Z)
    raw = bytearray(path.read_bytes())
    raw[4096 + 100 : 4096 + 3000] = np.random.default_rng(0).bytes(2900)
    path.write_bytes(raw)
    with pytest.raises(BadData, match="HHZ"):
        read(tmp_path)


def test_a_file_of_another_station(tmp_path):
    station(tmp_path, seconds=20, components="ZN")
    stranger = write(sds_path(tmp_path, E), trace(noise(2000), code="XX.OTHER..HHE"))
    waveform, notes = read(tmp_path)
    assert waveform.components == (True, True, False)
    assert notes == (f"{stranger} holds XX.OTHER..HHE, not XX.ABC..HH: left out",)
    for c in "ZN":
        sds_path(tmp_path, Z[:-1] + c).unlink()
    with pytest.raises(BadData, match=r"holds XX\.OTHER\.\.HHE, not XX\.ABC\.\.HH: move the file"):
        read(tmp_path)


@pytest.mark.parametrize("code", ["XX.ABC.00.HHE", "XX.ABC..BHE", "XX.ABC..HHN", "YY.ABC..HHE"])
def test_a_file_with_another_channel_than_its_name_tells(tmp_path, code):
    station(tmp_path, seconds=20, components="ZN")
    write(sds_path(tmp_path, E), trace(noise(2000), code=code))
    waveform, notes = read(tmp_path)
    assert waveform.components == (True, True, False)
    assert f"holds {code}, not XX.ABC..HH" in notes[0]


def test_names_with_wildcard_characters_are_taken_literally(tmp_path):
    root = tmp_path / "a[b]*c"
    data = station(root, seconds=20)
    assert np.allclose(read(root)[0].samples[0], data["Z"] - data["Z"].mean(), atol=1e-4)


# --- real archives ---------------------------------------------------------------------------------------------


def obspy_row(root, pattern, start_ns, n):
    """The same channel as ObsPy merges it."""
    [path] = Path(root).rglob(pattern)
    stream = obspy.read(str(path)).merge(1)
    first = round((start_ns - stream[0].stats.starttime.ns) / 1e7)
    return stream[0].data[first : first + n].astype(np.float64)


@real
def test_ridgecrest():
    ar = archive(DATA / "ridgecrest" / "sds")
    span = (ns("2019-07-04T17:00"), ns("2019-07-04T17:30"))
    found = archives.find_shards(ar, lambda name: True, span)
    bands = {shard.station: shard.band for shard, _ in found}
    assert len(found) == 21
    assert {k for k, v in bands.items() if v == "HN"} == {"CI.WNM.", "CI.WRV2.", "CI.WVP2."}
    assert {v for k, v in bands.items() if k.startswith("PB")} == {"EH"}
    for sh, size in found[::5]:
        waveform, notes = read_shard(ar, sh, 60.0, 100.0, span)
        assert size > 1_000_000
        assert notes == ()
        assert len(waveform) == 192_000
        assert waveform.valid.all()
        assert (span[0] - 60 * NS - waveform.start_ns) in (0, -7_986_000, -2_991_000)
        for row, letter in enumerate("Z12" if sh.band == "EH" else "ZNE"):
            expected = obspy_row(ar.root, f"{sh.channel}{letter}.D.*", waveform.start_ns, 192_000)
            assert np.allclose(waveform.samples[row], expected - expected.mean(), rtol=1e-6, atol=0.1)


@real
def test_the_mainshock_at_every_station_is_read_without_repairs():
    ar = archive(DATA / "ridgecrest" / "sds")
    span = (ns("2019-07-04T16:50"), ns("2019-07-04T18:10"))
    for sh, _ in archives.find_shards(ar, lambda name: True, span):
        notes = read_shard(ar, sh, 60.0, 100.0, span)[1]
        assert not [note for note in notes if "clipped" not in note], sh.id


@real
def test_a_whole_day_with_records_that_overlap_and_jitter():
    ar = archive(DATA / "station_day" / "sds")
    sh = Shard(date(2020, 9, 22), "CM.BAR2.00", "HH")
    waveform, notes = read_shard(ar, sh, 60.0, 100.0, sh.span_ns)
    assert notes == ()
    assert len(waveform) == 8_640_001  # two samples of the next day are context
    assert waveform.valid.all()
    assert waveform.start_ns == ns("2020-09-22T00:00:00.018391")
    for row, letter in enumerate("ZNE"):
        expected = obspy_row(ar.root, f"*HH{letter}.D.*", waveform.start_ns, len(waveform))
        assert np.allclose(waveform.samples[row], expected - expected.mean(), rtol=1e-6, atol=0.1)


class Trap:
    """What a pickle can do: anything."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_in_the_archive_is_never_unpickled(tmp_path):
    raw = pickle.dumps(Trap(tmp_path / "sprung"))
    for content in (raw, pickle.dumps(("obspy.core.stream", Trap(tmp_path / "sprung")))):
        (tmp_path / "file").write_bytes(content)
        for given in (b"", content):
            with pytest.raises(BadData, match="cannot read it"):
                traces.read(tmp_path / "file", given)
    assert not (tmp_path / "sprung").exists()
