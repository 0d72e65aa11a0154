"""CSV and Parquet files by Polars: a file is a table, a row a reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from streams.align_state import Floats, Ints
from streams.imports.log import (
    Content,
    LogError,
    OnRead,
    Table,
    Want,
    microseconds,
    missing_field,
    scaled_times,
)
from streams.imports.mapping import pattern


class TableReader:
    """Reads the columns of one table; each want names its time column."""

    def __init__(self, kind: Literal["csv", "parquet"]) -> None:
        self._kind = kind

    def read(self, path: Path, wants: list[Want], shown: OnRead) -> list[list[Table]]:
        """See `log.Reader`."""
        known, needed = self._names(path), dict[str, None]()
        for want in wants:
            names = [*want.fields, want.time.field, want.entity_field]
            for field in dict.fromkeys(name for name in names if name is not None):
                if field not in known:
                    raise missing_field(want.at, field, path.name, known)
                needed[field] = None
        rows, found = self._rows(path, list(needed)), []
        for done, want in enumerate(wants):
            found.append([_table(rows, path, want)])
            shown(done + 1, len(wants))
        return found

    def contents(self, path: Path) -> list[Content]:
        """See `log.Reader`."""
        names = self._names(path)
        if self._kind == "parquet":
            return [Content(path.name, int(pq.read_metadata(path).num_rows), names)]
        count = int(self._rows(path, names).select(pl.len()).collect().item())
        return [Content(path.name, count, names)]

    def _names(self, path: Path) -> tuple[str, ...]:
        if self._kind == "parquet":
            return tuple(pq.read_schema(path).names)
        return tuple(self._rows(path, ()).collect_schema().names())

    def _rows(self, path: Path, fields: Sequence[str]) -> pl.LazyFrame:
        """The rows of a table, with these fields at least."""
        if self._kind == "parquet":
            # By Arrow: Polars ends the process where a damaged page claims to need too much memory.
            table = pq.read_table(path, columns=list(fields), partitioning=None)
            return pl.DataFrame(table).lazy()
        # As text: what a column is, is known from what is wanted of it, not from its first rows.
        return pl.scan_csv(path, infer_schema=False, glob=False)


def _table(rows: pl.LazyFrame, path: Path, want: Want) -> Table:
    if want.time.field is None:
        raise LogError(f"{want.at}.time: a table has no time of its own: add 'time: {{field: …}}'")
    named = [*want.fields, want.time.field, *([want.entity_field] if want.entity_field else [])]
    table = rows.select(list(dict.fromkeys(named))).collect()
    values = [_numbers(table[field], want.at, path) for field in want.fields]
    entity: str | list[str] = ""
    if want.file is not None:
        found = pattern(want.file).fullmatch(path.name)
        entity = "" if found is None else found.groupdict().get("entity") or ""
    if want.entity_field is not None and not entity:
        entity = table[want.entity_field].cast(pl.String).fill_null("").to_list()
    times = _times(table[want.time.field], want, path)
    return Table(times, np.stack(values, axis=1), entity)


def _numbers(column: pl.Series, at: str, path: Path) -> Floats:
    """[n] a column as numbers; what is empty is missing. Raises `LogError` with the first row."""
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        text = text.set(text == "", None)
        numbers = text.cast(pl.Float64, strict=False)
        _all_read(text, numbers, at, path, "number")
    else:
        try:
            numbers = column.cast(pl.Float64)
        except pl.exceptions.PolarsError as error:
            raise LogError(f"{at}: {path}: {column.name} holds no numbers: {error}") from error
    return numbers.fill_null(np.nan).to_numpy()


def _times(column: pl.Series, want: Want, path: Path) -> Ints:
    """[n] microseconds of a column of numbers, dates, or either as text."""
    if column.null_count():
        row = int(column.is_null().arg_max() or 0)
        raise LogError(f"{want.at}.time: {path}, row {row + 1}: {column.name} is empty")
    if column.dtype == pl.String:
        whole = column.str.strip_chars().cast(pl.Int64, strict=False)
        if whole.null_count():
            numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
            if numbers.null_count() < len(column):
                _all_read(column, numbers, want.at, path, "time")
                return scaled_times(numbers.to_numpy(), want.time.unit)
            return _dates(column, want.at, path)
        return scaled_times(whole.to_numpy(), want.time.unit)
    if column.dtype in (pl.Datetime, pl.Date):
        return column.cast(pl.Datetime("us")).cast(pl.Int64).to_numpy()
    return scaled_times(column.to_numpy(), want.time.unit)


def _dates(column: pl.Series, at: str, path: Path) -> Ints:
    found = []
    for row, text in enumerate(column):
        try:
            found.append(microseconds(text.strip(), "s"))
        except ValueError as error:
            raise _unread(column, row, at, path, "time") from error
    return np.array(found, dtype=np.int64)


def _all_read(text: pl.Series, read: pl.Series, at: str, path: Path, what: str) -> None:
    wrong = read.is_null() & text.is_not_null()
    if wrong.any():
        raise _unread(text, int(wrong.arg_max() or 0), at, path, what)


def _unread(text: pl.Series, row: int, at: str, path: Path, what: str) -> LogError:
    return LogError(
        f"{at}: {path}, row {row + 1}: {text.name} holds {text[row]!r}, which is no {what}: "
        "correct the row, or name another column"
    )
