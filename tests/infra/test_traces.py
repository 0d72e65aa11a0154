"""Tests of load traces."""

from __future__ import annotations

import os
from datetime import datetime, time, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import traces
from infra.traces import Trace, TraceError

START = datetime(2024, 3, 1)
START_US = 1_709_251_200_000_000
needs_data = pytest.mark.skipif(
    "REHEARSE_DATA" not in os.environ, reason="REHEARSE_DATA names no folder of recorded data"
)


def minutes(count: int) -> list[datetime]:
    return [START + timedelta(minutes=i) for i in range(count)]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_counts_per_bin_become_rates_and_gaps_are_filled(tmp_path: Path, suffix: str) -> None:
    table = pl.DataFrame({"time": minutes(6), "requests": [60, 120, None, 240, 300, 0]})
    table = table.filter(pl.col("requests").is_null() | (pl.col("requests") != 300))
    path = tmp_path / f"load.{suffix}"
    _ = table.write_parquet(path) if suffix == "parquet" else table.write_csv(path)
    trace = traces.read_trace(path)
    assert (trace.bin_seconds, trace.start_us, trace.filled) == (60.0, START_US, 2)
    np.testing.assert_allclose(trace.rates, [1.0, 2.0, 3.0, 4.0, 2.0, 0.0])


@pytest.mark.parametrize(
    ("column", "unit"), [("time_ms", 1000), ("seconds", 1), ("t_us", 1_000_000)]
)
def test_times_may_be_numbers(tmp_path: Path, column: str, unit: int) -> None:
    path = tmp_path / "load.parquet"
    pl.DataFrame({column: [10 * unit, 15 * unit, 20 * unit], "hits": [5, 10, 0]}).write_parquet(
        path
    )
    trace = traces.read_trace(path, time_column=column, value_column="hits")
    assert (trace.bin_seconds, trace.start_us) == (5.0, 10_000_000)
    np.testing.assert_allclose(trace.rates, [1.0, 2.0, 0.0])


def test_rows_of_the_same_bin_add_up_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "load.csv"
    path.write_text("Timestamp,RPS\n20,3\n0,1\n10,2\n20,4\n")
    np.testing.assert_allclose(traces.read_trace(path).rates, [0.1, 0.2, 0.7])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("when,requests\n0,1\n1,2\n", "no column with a usual name for the time; name one of when"),
        ("time,requests\n0,1\n", "two different times"),
        ("time,requests\n0,1\n0.001,2\n0.002,1\n1e9,1\n", "give counts per even bin"),
        ("time,requests\n0,1\n1,-2\n", "numbers of zero to"),
        ("time,requests\n2024-01-01 00:00,1\n,2\n", r"row 2: column 'time' holds no time"),
        ("time,requests\nlater,1\nsoon,2\n", r"row 1: column 'time' holds no time"),
        ("time,requests\n0,1\ninf,2\n", r"row 2: column 'time' holds no time"),
        ("time,requests\n0,1\n1,oops\n", r"row 2: column 'requests' holds 'oops'"),
        ("time,requests\n0,1\n1,inf\n", r"row 2: column 'requests' holds inf"),
        ("time,requests\n0,1\n1,1e300\n", r"row 2: column 'requests' holds 1e\+300"),
        ("time,requests\n0,1\n1e-9,2\n", "less than a microsecond apart"),
        ("time;requests\n0;1\n1;2\n", "separate columns by commas"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "load.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=message) as caught:
        traces.read_trace(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"time": [[0], [1]], "requests": [1, 2]}, r"'time' holds List\(Int64\), not dates"),
        ({"time": [time(1), time(2)], "requests": [1, 2]}, "'time' holds Time, not dates"),
        ({"time": [False, True], "requests": [1, 2]}, "'time' holds Boolean, not dates"),
        ({"time": [0, 1], "requests": [[1], [2]]}, "'requests' holds List.*, not numbers"),
    ],
)
def test_columns_of_another_kind_are_named(
    tmp_path: Path, table: dict[str, list[object]], message: str
) -> None:
    pl.DataFrame(table).write_parquet(tmp_path / "load.parquet")
    with pytest.raises(TraceError, match=message):
        traces.read_trace(tmp_path / "load.parquet")


def test_a_missing_file_or_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"none\.csv: is not there: give a Parquet or CSV file"):
        traces.read_trace(tmp_path / "none.csv")
    with pytest.raises(TraceError, match="is a folder"):
        traces.read_trace(tmp_path)
    path = tmp_path / "load.csv"
    path.write_text("time,requests\n0,1\n1,2\n")
    with pytest.raises(TraceError, match="no column 'rps'; there are time, requests"):
        traces.read_trace(path, value_column="rps")


def test_only_full_days_count_and_the_last_ones_are_held_out() -> None:
    rates = np.arange(10 * 24.0)
    start_us = START_US + 6 * 3_600_000_000
    found = traces.days(Trace(3600.0, rates, start_us))
    assert len(found) == 9
    assert found[0].start_us == START_US + 86_400_000_000
    np.testing.assert_array_equal(found[0].rates, np.arange(18.0, 42.0))
    learned = traces.training_days(Trace(3600.0, rates, start_us))
    held = traces.held_out_days(Trace(3600.0, rates, start_us))
    assert [day.start_us for day in (*learned, *held)] == [day.start_us for day in found]
    assert (len(learned), len(held)) == (2, 7)
    assert traces.training_days(Trace(3600.0, rates[:60], START_US)) == ()


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=50), st.floats(0.1, 1000.0))
def test_scaling_sets_the_mean_and_keeps_the_shape(rates: list[float], mean: float) -> None:
    scaled = Trace(1.0, np.array(rates)).scale_to(mean).rates
    assert scaled.mean() == pytest.approx(mean)
    np.testing.assert_allclose(scaled / scaled[0], np.array(rates) / rates[0])


def test_each_service_is_scaled_on_its_own_and_silence_is_refused() -> None:
    scaled = Trace(1.0, np.array([[1.0, 3.0], [10.0, 10.0]])).scale_to(4.0)
    np.testing.assert_allclose(scaled.rates, [[2.0, 6.0], [4.0, 4.0]])
    with pytest.raises(TraceError, match="without any request"):
        Trace(1.0, np.zeros(3)).scale_to(1.0)


def test_the_generator_has_its_rhythms_and_its_mean() -> None:
    trace = traces.generate_trace(days=28, seed=3, mean=50.0, start="2024-01-01")
    assert trace.rates.mean() == pytest.approx(50.0, rel=0.01)
    by_day = trace.rates.reshape(28, 1440)
    # The median over days is without flash crowds.
    typical = np.median(by_day, axis=0).reshape(24, 60).mean(axis=1)
    assert 12 <= typical.argmax() <= 16
    assert typical.max() / typical.min() > 3.0
    daily = np.median(by_day, axis=1).reshape(4, 7)  # 1 January 2024 was a Monday
    assert (daily[:, 5:].mean() / daily[:, :5].mean()) == pytest.approx(0.7, abs=0.05)


def test_flash_crowds_rise_fast() -> None:
    rates = traces.generate_trace(days=28, seed=3).rates
    after = rates[10:] / np.maximum(rates[:-10], 1e-9)
    assert (after > 1.4).any()


def test_the_generator_is_seeded_and_never_silent() -> None:
    one, same, other = (traces.generate_trace(2, seed).rates for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert one.min() > 0.0


@needs_data
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "width", "bins", "mean", "filled"),
    [
        ("worldcup98_requests_per_minute", 60.0, 73_440, 130.5, 10),
        ("twitter_requests_per_second", 1.0, 50_400, 37.94, 0),
        ("azure_vm_cpu_5min", 300.0, 5760, None, 0),
    ],
)
def test_recorded_traces(
    name: str, width: float, bins: int, mean: float | None, filled: int
) -> None:
    trace = traces.read_trace(Path(os.environ["REHEARSE_DATA"]) / f"{name}.parquet")
    assert (trace.bin_seconds, trace.rates.size, trace.filled) == (width, bins, filled)
    if mean is not None:
        assert trace.rates.mean() == pytest.approx(mean, rel=1e-3)
    if name.startswith("worldcup98"):
        assert len(traces.training_days(trace)) == 44
        last = traces.held_out_days(trace)[-1]
        assert datetime.fromtimestamp(last.start_us / 1e6).year == 1998
