"""Records refuse what would be wrong later; Parquet gives them back bit by bit."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import BadData
from pipeline.formats import tables
from pipeline.records import NS, Events, ForeignPicks, Picks, Shard, Shards, Waveform
from tests.fakes import day, picks


def test_ragged_columns_are_refused():
    columns = list(picks(2, 0).as_dict().values())
    columns[1] = np.array(["P"])
    with pytest.raises(ValueError, match=r"Picks.phase has shape \(1,\), expected \(2,\)"):
        Picks(*columns)


def test_float_seconds_are_refused():
    columns = list(picks(2, 0).as_dict().values())
    columns[2] = columns[2].astype(float)
    with pytest.raises(TypeError, match="time_ns is float64, expected int64"):
        Picks(*columns)


def test_probabilities_outside_0_and_1_are_refused():
    columns = list(picks(2, 0).as_dict().values())
    columns[3] = np.array([0.5, 1.5], np.float32)
    with pytest.raises(ValueError, match="outside"):
        Picks(*columns)


def test_a_waveform_needs_three_rows():
    with pytest.raises(ValueError, match="expected float32"):
        Waveform(np.zeros((2, 5), np.float32), np.ones(5, bool), 0, 100.0, (True, True, True))


def test_canonical_order_forgets_the_given_order():
    table = picks(50, 3)
    table = Picks.concat([table, replace(table, amplitude_m_s=table.amplitude_m_s * 2)])  # alike but for this
    shuffled = table.take(np.random.default_rng(0).permutation(100))
    for name, values in table.ordered().as_dict().items():
        np.testing.assert_array_equal(shuffled.ordered().as_dict()[name], values)


def test_parquet_round_trip_with_units_and_metadata(tmp_path):
    table = picks(20, 1)
    tables.write(tmp_path / "a.parquet", table, {"note": 1})
    again = tables.read(tmp_path / "a.parquet", Picks)
    for name, values in table.as_dict().items():
        np.testing.assert_array_equal(again.as_dict()[name], values)
    schema = pq.read_schema(tmp_path / "a.parquet")
    assert str(schema.field("time").type) == "timestamp[ns, tz=UTC]"
    assert schema.field("snr_db").metadata[b"unit"] == b"dB"
    assert tables.metadata(tmp_path / "a.parquet") == {"note": 1}


def test_same_rows_same_bytes(tmp_path):
    for name in "ab":
        tables.write(tmp_path / name, picks(20, 1))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("kind", [Picks, Events, Shards])
def test_empty_tables_survive(tmp_path, kind):
    tables.write(tmp_path / "a", kind.empty())
    assert len(tables.read(tmp_path / "a", kind)) == 0


def without(path, *names):
    """The table written again as if it had been written before there were the columns ``names``."""
    pq.write_table(pq.read_table(path).drop_columns(list(names)), path)


def test_a_file_from_before_a_column_is_read_with_what_stands_for_not_known(tmp_path):
    table = picks(5, 1)
    tables.write(tmp_path / "a", table)
    without(tmp_path / "a", "amplitude_m_s")
    again = tables.read(tmp_path / "a", Picks)
    assert again.amplitude_m_s.dtype == np.float32
    assert np.isnan(again.amplitude_m_s).all()
    np.testing.assert_array_equal(again.gap_s, table.gap_s)
    for name in ("gap_s", "probability", "time"):  # those a file always had are not made up
        tables.write(tmp_path / "b", table)
        without(tmp_path / "b", name)
        with pytest.raises(BadData, match=f"no column '{name}'"):
            tables.read(tmp_path / "b", Picks)


def test_a_catalogue_from_before_the_scores_is_read(tmp_path):
    tables.write(tmp_path / "e", Events.concat([event(), event()]))
    without(tmp_path / "e", "n_pairs", "sigma_log_amplitude")
    again = tables.read(tmp_path / "e", Events)
    assert again.n_pairs.tolist() == [-1, -1]
    assert np.isnan(again.sigma_log_amplitude).all()


def event():
    kinds = {f.name: f.metadata["dtype"] for f in Events.columns()}
    return Events(
        **{
            name: np.array(["x"] if kind == "str" else [3], "U1" if kind == "str" else kind)
            for name, kind in kinds.items()
        }
    )


def test_empty_places_in_a_foreign_file_are_named(tmp_path):
    for name, values in (("station", ["XD.A", None]), ("timestamp", [None, 5])):
        columns = {"station": ["XD.A", "XD.B"], "phase": ["P", "P"], "timestamp": [5, 6], "probability": [1.0, None]}
        table = pa.table({**columns, name: values})
        pq.write_table(table.set_column(2, "timestamp", table["timestamp"].cast(pa.timestamp("ns"))), tmp_path / "a")
        with pytest.raises(BadData, match=f"column '{name}' is empty in 1 of 2 rows"):
            tables.read(tmp_path / "a", ForeignPicks)


def test_a_wrong_or_broken_file_is_named(tmp_path):
    tables.write(tmp_path / "a", picks(2, 0))
    with pytest.raises(BadData, match="no column 'event_id'"):
        tables.read(tmp_path / "a", Events)
    (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes()[:100])
    with pytest.raises(BadData, match="not a readable Parquet file"):
        tables.read(tmp_path / "b", Picks)


def test_days_meet_at_midnight_and_ids_name_the_data_only():
    first, second = Shard(day(0), "CI.CCC.", "HH"), Shard(day(1), "CI.CCC.", "HH")
    assert first.span_ns[1] == second.span_ns[0]
    assert first.span_ns[1] - first.span_ns[0] == 86_400 * NS
    assert first.id == "2024-05-06/CI.CCC..HH"
