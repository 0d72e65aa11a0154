"""Load traces: requests per second over time, read from files or generated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DAY_S = 86_400.0
TEST_DAYS = 7
MOST_BINS = 50_000_000
MOST_BYTES = 4 << 30
MOST_REQUESTS = 1e15
# The first of these that a file has (in this order, any case) is taken.
TIME_COLUMNS = ("time", "timestamp", "ts", "datetime", "date", "time_ms", "time_s", "seconds")
VALUE_COLUMNS = ("requests", "rps", "count", "value", "load", "mentions", "cpu_percent")
UNITS_S = {"_ms": 1e-3, "_us": 1e-6, "_ns": 1e-9}


class TraceError(ValueError):
    """A trace that cannot be read or used; the message names file, column and remedy."""


@dataclass(frozen=True)
class Trace:
    """A load over time in bins of equal length.

    Attributes:
        bin_seconds: length of a bin.
        rates: `[bins]` requests per second, or `[services, bins]`.
        start_us: time at which the first bin begins, microseconds since 1970 UTC.
        filled: bins that had no value and were interpolated.
    """

    bin_seconds: float
    rates: Floats
    start_us: int = 0
    filled: int = 0

    @property
    def seconds(self) -> float:
        """Length of the trace."""
        return float(self.bin_seconds * self.rates.shape[-1])

    def scale_to(self, mean: float) -> Trace:
        """The same shape of load with a mean of `mean` requests per second (of each service).

        Raises:
            TraceError: the trace is zero throughout.
        """
        now = self.rates.mean(axis=-1, keepdims=True)
        if not (now > 0.0).all():
            raise TraceError("a trace without any request cannot be scaled; choose another window")
        return replace(self, rates=self.rates * (mean / now))

    def slice(self, first: int, last: int) -> Trace:
        """The bins `[first, last)`."""
        start = self.start_us + round(first * self.bin_seconds * 1e6)
        return replace(self, rates=self.rates[..., first:last], start_us=start)


def days(trace: Trace) -> tuple[Trace, ...]:
    """The full days (UTC midnight to midnight) of a trace, in order; the rest is left out."""
    per_day = round(DAY_S / trace.bin_seconds)
    day_us = round(DAY_S * 1e6)
    first = round(-trace.start_us % day_us / 1e6 / trace.bin_seconds)
    count = max(0, (trace.rates.shape[-1] - first) // per_day)
    return tuple(trace.slice(first + i * per_day, first + (i + 1) * per_day) for i in range(count))


def held_out_days(trace: Trace, count: int = TEST_DAYS) -> tuple[Trace, ...]:
    """The last `count` full days, the test days: nothing may be chosen or learned on these."""
    return days(trace)[-count:] if count else ()


def training_days(trace: Trace, count: int = TEST_DAYS) -> tuple[Trace, ...]:
    """All full days before the last `count`."""
    everything = days(trace)
    return everything[: max(0, len(everything) - count)]


def read_trace(
    path: str | Path, time_column: str | None = None, value_column: str | None = None
) -> Trace:
    """Reads requests per bin from a Parquet or CSV file.

    The time may be a date and time, or a number in seconds, milliseconds (`…_ms`), microseconds
    (`…_us`) or nanoseconds (`…_ns`). The commonest step is the length of a bin; values of the same
    bin are added up, missing ones are interpolated and counted in `filled`.

    Raises:
        TraceError: no such file, or no usable columns or values in it.
    """
    table = _load(Path(path))
    time = _pick(table, time_column, TIME_COLUMNS, "time", path)
    value = _pick(table, value_column, VALUE_COLUMNS, "value", path)
    seconds = _seconds(table[time], path)
    counts = _counts(table[value], path)
    return _binned(seconds, counts, f"{path}: column {value!r}")


def _counts(column: pl.Series, path: str | Path) -> Floats:
    """Requests of each row; NaN where there is none."""
    if column.dtype != pl.String and not column.dtype.is_numeric():
        raise TraceError(f"{path}: column {column.name!r} holds {column.dtype}, not numbers")
    counts = column.cast(pl.Float64, strict=False)
    floats: Floats = counts.to_numpy().astype(np.float64)
    unread = (counts.is_null() & column.is_not_null()).to_numpy()
    with np.errstate(invalid="ignore"):
        wrong = unread | (floats < 0.0) | (floats > MOST_REQUESTS)
    if wrong.any():
        row = int(wrong.argmax())
        raise TraceError(
            f"{path}: row {row + 1}: column {column.name!r} holds {column[row]!r}: numbers of zero "
            f"to {MOST_REQUESTS:g} are needed; leave it empty where nothing is known"
        )
    return floats


def _load(path: Path) -> pl.DataFrame:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise TraceError(f"{path}: {what}: give a Parquet or CSV file with a header")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise TraceError(f"{path}: more than {MOST_BYTES} bytes: give counts per bin of time")
        if path.suffix.lower() in (".parquet", ".pq"):
            # By Arrow: Polars ends the process where a damaged page claims to need too much memory.
            rows = pq.read_metadata(path).num_rows
            if rows > MOST_BINS:
                raise TraceError(f"{path}: {rows} rows; {MOST_BINS} are the most")
            return pl.DataFrame(pq.read_table(path, partitioning=None))
        return pl.read_csv(path, try_parse_dates=True)
    except TraceError:
        raise
    except (
        OSError,
        ValueError,
        MemoryError,
        pa.ArrowException,
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
    ) as error:
        raise TraceError(f"{path}: give a Parquet or CSV file with a header: {error}") from error


def _pick(
    table: pl.DataFrame, asked: str | None, usual: tuple[str, ...], what: str, path: str | Path
) -> str:
    """The column that was asked for, or the first with a usual name."""
    if asked is not None:
        if asked in table.columns:
            return asked
        raise TraceError(f"{path}: no column {asked!r}; there are {', '.join(table.columns)}")
    by_lower = {name.lower(): name for name in reversed(table.columns)}
    for name in usual:
        if name in by_lower:
            return by_lower[name]
    hint = "; separate columns by commas" if ";" in "".join(table.columns) else ""
    raise TraceError(
        f"{path}: no column with a usual name for the {what}; name one of "
        f"{', '.join(table.columns)}{hint}"
    )


def _seconds(column: pl.Series, path: str | Path) -> Floats:
    """Seconds since 1970 of a time column."""
    kind = column.dtype
    if kind not in (pl.String, pl.Date, pl.Datetime) and not kind.is_numeric():
        raise TraceError(f"{path}: column {column.name!r} holds {kind}, not dates and times")
    if kind == pl.String:
        column = _dates(column)
    if column.null_count():
        row = int(column.is_null().arg_true()[0])
        raise TraceError(f"{path}: row {row + 1}: column {column.name!r} holds no time")
    if column.dtype.is_temporal():
        return column.cast(pl.Datetime("us")).to_physical().to_numpy().astype(np.float64) / 1e6
    factor = next((f for end, f in UNITS_S.items() if column.name.lower().endswith(end)), 1.0)
    seconds: Floats = column.cast(pl.Float64).to_numpy().astype(np.float64) * factor
    if not np.isfinite(seconds).all():
        row = int((~np.isfinite(seconds)).argmax())
        raise TraceError(f"{path}: row {row + 1}: column {column.name!r} holds no time")
    return seconds


def _dates(column: pl.Series) -> pl.Series:
    """Dates and times, or numbers, of a column of texts; null where one is none."""
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.is_not_null().any():
        return numbers.set(numbers.is_infinite() | numbers.is_nan(), None)
    try:
        return column.str.to_datetime(strict=False)
    except pl.exceptions.ComputeError:  # none of them is one
        return pl.Series(column.name, [None] * len(column), pl.Datetime("us"))


def _binned(seconds: Floats, counts: Floats, where: str) -> Trace:
    """Puts the values on an even grid and fills what is missing."""
    steps = np.diff(np.unique(seconds))
    if steps.size == 0:
        raise TraceError(f"{where}: at least two different times are needed")
    lengths, times = np.unique(np.round(steps, 6), return_counts=True)
    width = float(lengths[times.argmax()])
    if not width > 0.0:
        raise TraceError(f"{where}: times less than a microsecond apart; give even bins of time")
    place = np.round((seconds - seconds.min()) / width).astype(np.int64)
    known = np.isfinite(counts)
    if not known.any():
        raise TraceError(f"{where}: numbers of zero and more are needed")
    size = int(place.max()) + 1
    if size > MOST_BINS:
        raise TraceError(
            f"{where}: steps of {width:g} s make {size} bins: give counts per even bin of time"
        )
    total = np.bincount(place[known], counts[known], size)
    seen = np.bincount(place[known], minlength=size) > 0
    bins = np.arange(size)
    total = np.where(seen, total, np.interp(bins, bins[seen], total[seen]))
    return Trace(width, total / width, round(float(seconds.min()) * 1e6), int((~seen).sum()))


def generate_trace(
    days: int = 1, seed: int = 0, mean: float = 60.0, start: str = "2024-01-01"
) -> Trace:
    """Makes traffic of `days` days in bins of a minute, with a mean of `mean` requests per second.

    The rate is a product of: a daily rhythm (two harmonics; the trough is about a fifth of the
    peak, which is in the early afternoon), a weekly one (weekends at 70 %), a trend of up to 1 % a
    day, Gamma noise (shape 400, hence 5 %) smoothed over ten minutes, and flash crowds. These come
    as a Poisson process of 1.5 a day; each rises within 2 to 10 minutes by a factor of 1.5 to 4
    and fades with a time constant of 10 to 60 minutes. Requests per bin are then Poisson.

    Args:
        days: length, at least 1.
        seed: the same seed gives the same trace.
        mean: requests per second.
        start: first day, UTC, as in `2024-01-01`.
    """
    rng = np.random.default_rng([seed, 7001])
    minute = np.arange(days * 1440)
    day = minute / 1440.0
    start_us = int(np.datetime64(datetime.fromisoformat(start), "us").astype(np.int64))
    # A rate below zero cannot come out: the harmonics stay above a seventh of their mean.
    clock = 2.0 * np.pi * (day - 14.0 / 24.0)
    rate = 1.0 + 0.6 * np.cos(clock) + 0.1 * np.cos(2.0 * clock)
    weekday = (np.floor(day) + start_us // round(DAY_S * 1e6) + 3) % 7
    rate = rate * np.where(weekday >= 5, 0.7, 1.0) * np.exp(rng.uniform(-0.01, 0.01) * day)
    noise = np.convolve(rng.gamma(400.0, 1.0 / 400.0, minute.size + 9), np.full(10, 0.1), "valid")
    rate = rate * noise * _flash_crowds(rng, day)
    rate *= mean / rate.mean()
    return Trace(60.0, rng.poisson(rate * 60.0) / 60.0, start_us)


def _flash_crowds(rng: np.random.Generator, day: Floats) -> Floats:
    """Factors of 1 and more: sudden crowds that fade."""
    factor = np.ones_like(day)
    for _ in range(rng.poisson(1.5 * day.size / 1440)):
        begin, height = rng.uniform(0.0, day[-1]), rng.uniform(0.5, 3.0)
        rise, fade = rng.uniform(2.0, 10.0), rng.uniform(10.0, 60.0)
        age = (day - begin) * 1440.0
        shape = np.where(age < rise, age / rise, np.exp(-(np.maximum(age, rise) - rise) / fade))
        factor += height * np.where(age > 0.0, shape, 0.0)
    return factor
