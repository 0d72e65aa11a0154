"""Windows of recorded streams, with labels or without: what series encoders learn from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

F32 = npt.NDArray[np.float32]
ORDER = ("entity", "tick")
"""Columns of logged trajectories; a stream is an entity's, and ends where a tick is missing."""


class WindowError(ValueError):
    """Recorded data that hold no window as it is asked for; the message names the remedy."""


def read_windows(
    paths: Sequence[Path],
    series: Sequence[str],
    length: int,
    every: int,
    labels: Sequence[str] = (),
) -> tuple[F32, F32]:
    """Windows `[N, length, C]` of the columns `series`, and `[N, L]` their labels.

    A file is Parquet, as the sink writes trajectories, or as anybody does: with a number a row,
    windows begin at every `every`-th, and a window's label is that of its last row; with a list a
    row, as of raw messages, each row is a window. What holds a number that is not finite is left
    out: so a row without a label gives a window only where no labels are asked for.

    Args:
        paths: files, or folders with any number of them; taken in the order of their names.

    Raises:
        WindowError: nothing to read, a column that is not there, or no whole window.
    """
    files = [file for path in paths for file in _files(path)]
    found = [_windows(file, series, length, every, labels) for file in files]
    values = np.concatenate([part for part, _ in found]) if found else np.zeros((0, length, 1))
    told = np.concatenate([part for _, part in found]) if found else np.zeros((0, len(labels)))
    whole = np.isfinite(values).all((1, 2)) & np.isfinite(told).all(1)
    if not whole.any():
        named = ", ".join(map(str, paths)) or "no file"
        raise WindowError(
            f"{named}: holds no window of {length} numbers one after another; name files with "
            "more, or take a shorter window"
        )
    return values[whole].astype(np.float32), told[whole].astype(np.float32)


def _files(path: Path) -> list[Path]:
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise WindowError(f"{path}: there is no Parquet file in it; name another folder")
    return files


def _windows(
    file: Path, series: Sequence[str], length: int, every: int, labels: Sequence[str]
) -> tuple[F32, F32]:
    try:
        schema = pl.read_parquet_schema(file)
        missing = [name for name in (*series, *labels) if name not in schema]
        if missing:
            known = ", ".join(schema)
            raise WindowError(f"{file}: there is no column {missing[0]!r}; there are {known}")
        keep = [name for name in ORDER if name in schema]
        table = pl.read_parquet(file, columns=list(dict.fromkeys([*keep, *series, *labels])))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise WindowError(f"{file}: cannot be read as Parquet: {error}") from error
    try:
        told = np.stack([_numbers(table[name]) for name in labels], 1) if labels else None
        if schema[series[0]].is_nested():
            return _listed(table, series, length, told)
        return _sliding(table, series, length, every, told)
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise WindowError(f"{file}: {error}") from error


def _numbers(column: pl.Series) -> F32:
    return np.asarray(column.cast(pl.Float32).fill_null(float("nan")).to_numpy())


def _listed(
    table: pl.DataFrame, series: Sequence[str], length: int, told: F32 | None
) -> tuple[F32, F32]:
    """A window per row."""
    parts = []
    for name in series:
        sizes = table[name].cast(pl.List(pl.Float32)).list.len()
        if not (sizes == length).all():
            raise ValueError(f"column {name!r} holds lists that are not of {length} numbers")
        flat = table[name].cast(pl.List(pl.Float32)).explode()
        parts.append(_numbers(flat).reshape(len(table), length))
    nothing = np.zeros((len(table), 0), np.float32)
    return np.stack(parts, -1), nothing if told is None else told


def _sliding(
    table: pl.DataFrame, series: Sequence[str], length: int, every: int, told: F32 | None
) -> tuple[F32, F32]:
    """Windows within each unbroken stretch of each entity."""
    values = np.stack([_numbers(table[name]) for name in series], 1)
    begins = np.zeros(len(table), bool)
    rows = np.arange(len(table))
    if set(ORDER) <= set(table.columns):
        order = table.select(pl.arg_sort_by(ORDER)).to_series().to_numpy()
        entity, tick = table["entity"].to_numpy()[order], table["tick"].to_numpy()[order]
        begins[1:] = (entity[1:] != entity[:-1]) | (tick[1:] != tick[:-1] + 1)
        values, rows = values[order], order
    edges = [0, *np.flatnonzero(begins).tolist(), len(table)]
    starts = np.concatenate(
        [np.arange(a, b - length + 1, every) for a, b in pairwise(edges) if b - a >= length]
        or [np.zeros(0, np.int64)]
    )
    places = starts[:, None] + np.arange(length)
    last = rows[starts + length - 1]
    nothing = np.zeros((len(starts), 0), np.float32)
    return values[places], nothing if told is None else told[last]
