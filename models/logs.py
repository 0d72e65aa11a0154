"""Logged trajectories as rows: of the folders or URLs, the days and the columns that are wanted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

import polars as pl

from infra.storage import Place, facts, found, reached
from schemas.frames import applied_columns
from schemas.logged import current, said, with_files
from schemas.system import SystemSpec

Days = tuple[date, date]
"""First and last of some days in UTC, both of them included."""
_DAY: Final = "day="
_NATIVE: Final = ("s3:", "s3a:", "gs:", "gcs:", "az:", "abfs:", "abfss:", "http:", "https:")
"""What Polars fetches by itself, no more of each file than it needs."""
_Source = TypeVar("_Source", Path, str)


class DataError(ValueError):
    """Trajectories that cannot be trained on; the message names the folder and the remedy."""


def days_of(words: tuple[str, str] | None) -> Days | None:
    """Days as a command line has them. Raises `ValueError`."""
    if words is None:
        return None
    first, last = (date.fromisoformat(word) for word in words)
    if first > last:
        raise ValueError(f"--days: {first} is after {last}; write the first first")
    return first, last


def of_days(files: Sequence[_Source], days: Days | None) -> list[_Source]:
    """Those that may hold rows of the days, by the folders they lie in: `…/day=2026-11-01/…`."""
    return [file for file in files if days is None or _may_hold(str(file), days)]


def _may_hold(file: str, days: Days) -> bool:
    for part in reversed(file.split("/")[:-1]):
        if part.startswith(_DAY):
            try:
                return days[0] <= date.fromisoformat(part.removeprefix(_DAY)) <= days[1]
            except ValueError:
                continue  # somebody's own folder: its rows say
    return True


def ticks_of(spec: SystemSpec, days: Days) -> tuple[int, int]:
    """First and last tick of the days."""
    first, after = (
        int(datetime(d.year, d.month, d.day, tzinfo=UTC).timestamp()) * 1_000_000 - spec.epoch_us
        for d in (days[0], days[1] + timedelta(days=1))
    )
    return -(-first // spec.period_us), -(-after // spec.period_us) - 1


def files_digest(folder: Path, files: Sequence[Path]) -> dict[str, object]:
    """Number and bytes of files below `folder`, and a digest of their SHA-256 digests.

    It is what `find * -name '*.parquet' | LC_ALL=C sort | xargs sha256sum | sha256sum` gives there.
    """
    lines, total = [], 0
    for file in sorted(files, key=lambda file: file.relative_to(folder).as_posix()):
        with file.open("rb") as stream:
            own = hashlib.file_digest(stream, "sha256").hexdigest()
        total += file.stat().st_size
        lines.append(f"{own}  {file.relative_to(folder).as_posix()}\n")
    return _digest(lines, total, "sha256")


def _versions_digest(url: str, files: Sequence[str]) -> dict[str, object]:
    """The same of objects, of the versions that storage gives them: nothing is read for it."""
    about = [(file, *facts(file)) for file in files]
    lines = [f"{version}  {file.removeprefix(url)}\n" for file, _, version in about]
    return _digest(lines, sum(size for _, size, _ in about), "versions")


def _digest(lines: Sequence[str], total: int, name: str) -> dict[str, object]:
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return {"files": len(lines), "bytes": total, name: digest}


def read_run(
    spec: SystemSpec, folder: Place, days: Days | None = None
) -> tuple[pl.DataFrame, dict[str, object]]:
    """The rows of a run, each tick of an entity once, and what they were read from.

    Files that lie in folders of other days are not opened. Of those at a URL no more is fetched
    than the columns that are needed.

    Raises:
        DataError: nothing to read, another interface, or no trajectories.
        StorageError: the URL cannot be read.
    """
    frame, read = _read(spec, folder, days)
    if days is not None:
        read["days"] = [day.isoformat() for day in days]
        if frame.is_empty():
            raise DataError(f"{folder}: no rows from {days[0]} to {days[1]}: ask for other days")
    if "attempt" in frame.columns:  # a tick done again after a crash: the last attempt counts
        frame = frame.sort("attempt", maintain_order=True)
    return frame.unique(["entity", "tick"], keep="last", maintain_order=True), read


def _read(
    spec: SystemSpec, folder: Place, days: Days | None
) -> tuple[pl.DataFrame, dict[str, object]]:
    if isinstance(folder, Path):

        def rows(files: list[Path]) -> tuple[pl.DataFrame, dict[str, object]]:
            return _rows(spec, folder, files, files, days), files_digest(folder, files)

        return with_files(folder, rows, lambda files: of_days(files, days))
    urls = current(of_days(found(folder, (".parquet",)), days), _said_at)
    with reached(folder) as (system, _):
        native = folder.lower().startswith(_NATIVE)
        sources = urls if native else [system.open(url) for url in urls]
        return _rows(spec, folder, urls, sources, days), _versions_digest(folder, urls)


def _said_at(url: str) -> dict[str, object] | None:
    with reached(url) as (system, path), system.open(path, "rb", cache_type="readahead") as file:
        return said(file)


def _rows(
    spec: SystemSpec,
    folder: Place,
    files: Sequence[Place],
    sources: Sequence[object],
    days: Days | None,
) -> pl.DataFrame:
    if not files:
        wanted = "" if days is None else f" of {days[0]} to {days[1]}"
        raise DataError(
            f"{folder}: no Parquet files{wanted} there; log some with "
            f"`rehearse backtest {spec.system} --log FOLDER`"
        )
    lazy = pl.scan_parquet(list(sources), hive_partitioning=False)  # type: ignore[arg-type]
    wanted_columns = ["entity", "tick", "flags", *spec.columns, *applied_columns(spec)]
    optional = ["attempt", "reward", "interface_hash"]
    try:
        names = set(lazy.collect_schema().names())
    except pl.exceptions.PolarsError as error:
        damaged = next((file for file in files if not _is_parquet(file)), folder)
        raise DataError(f"{damaged}: no Parquet file; remove it, or log again") from error
    if missing := [name for name in wanted_columns if name not in names]:
        raise DataError(
            f"{folder}: column {missing[0]!r} is absent; these are not trajectories of "
            f"system {spec.system!r} under this spec: log them again with it"
        )
    if days is not None:
        lazy = lazy.filter(pl.col("tick").is_between(*ticks_of(spec, days)))
    frame = lazy.select(*wanted_columns, *(name for name in optional if name in names)).collect()
    if "interface_hash" in frame.columns:
        odd = [h for h in frame["interface_hash"].unique() if h != spec.interface_hash]
        if odd:
            raise DataError(
                f"{folder}: logged under interface {odd[0]}, the spec's is {spec.interface_hash}: "
                "use the spec of that time, or log again"
            )
    return frame


def _is_parquet(file: Place) -> bool:
    try:
        pl.read_parquet_schema(file)
    except pl.exceptions.PolarsError:
        return False
    return True


__all__ = ["DataError", "Days", "days_of", "files_digest", "of_days", "read_run", "ticks_of"]
