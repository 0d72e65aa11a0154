"""Parquet files of trajectories that say themselves what they hold: exact restarts, safe merges.

A file appears whole (written beside, synchronised, renamed), and its metadata names the topic by
its id and the offsets it covers, and the files that it replaces (`streams/sink_merge.py`). So the
files are the only state of a sink: what they cover was stored, exactly once, and everything else
is read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.logged import META_KEY, said, with_files
from streams.intervals import Intervals

ROW_GROUP: Final = 8_192
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class FileInfo:
    """What one file holds.

    Attributes:
        topic_id: of the trajectories topic; a topic that was made anew has another one.
        ranges: partition → `[first, end)` offsets that it covers.
        ticks: cohort → `[first, end)` ticks that it holds.
        layout: files of one layout have the same schema, and may be merged.
        last_ms: Kafka's time stamp of its newest record.
        replaces: names of the files beside it that were merged into it.
        merges: how often its rows were merged.
    """

    path: Path
    system: str
    day: str
    layout: str
    topic_id: str
    rows: int
    ranges: dict[int, list[tuple[int, int]]]
    ticks: dict[int, list[tuple[int, int]]]
    facts: dict[str, Any]
    last_ms: int = 0
    replaces: tuple[str, ...] = field(default=())
    merges: int = 0

    @property
    def first_tick(self) -> int:
        """The first tick that it holds of any cohort."""
        return min((start for pairs in self.ticks.values() for start, _ in pairs), default=0)

    def to_json(self) -> dict[str, Any]:
        """For the file's metadata; the path is where it lies."""
        content = {name: value for name, value in vars(self).items() if name != "path"}
        return json.loads(json.dumps(content))  # type: ignore[no-any-return]


def day_of(time_us: int) -> str:
    """The UTC day of an event time, `YYYY-MM-DD`."""
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%d")


def folder_of(root: Path, system: str, day: str) -> Path:
    """Where the files of a system's day lie."""
    return root / f"system={system}" / f"day={day}"


def write(root: Path, table: pa.Table, info: FileInfo) -> FileInfo:
    """Writes a file as `info` describes it; returns where. It is there whole, or not at all."""
    return finished(writing(root, pieces(table, ROW_GROUP), info))


def pieces(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    """The table in parts of so many rows; one part, where it has none."""
    for begin in range(0, max(1, table.num_rows), rows):
        yield table.slice(begin, rows)


def writing(
    root: Path, groups: Iterable[pa.Table | None], info: FileInfo
) -> Generator[None, None, FileInfo]:
    """As `write`, with a pause for whoever calls after each of `groups`: a row group, or nothing.

    What was written goes where it cannot be ended.
    """
    content = info.to_json()
    folder = folder_of(root, info.system, info.day)
    folder.mkdir(parents=True, exist_ok=True)
    canonical = json.dumps(content, sort_keys=True).encode()
    name = f"{hashlib.blake2b(canonical, digest_size=8).hexdigest()}.parquet"
    fresh = folder / f"{name}.tmp"
    try:
        with fresh.open("wb") as file:
            yield from _row_groups(file, groups, canonical)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(folder / name)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync(folder)
    return FileInfo(**{**vars(info), "path": folder / name})


def _row_groups(
    file: BinaryIO, groups: Iterable[pa.Table | None], about: bytes
) -> Generator[None, None, None]:
    writer: pq.ParquetWriter | None = None
    try:
        for group in groups:
            if group is not None:
                if writer is None:
                    metadata = {**(group.schema.metadata or {}), META_KEY: about}
                    schema = group.schema.with_metadata(metadata)
                    repeated = [item.name for item in schema if _repeats(item.type)]
                    writer = pq.ParquetWriter(
                        file, schema, compression="zstd", use_dictionary=repeated
                    )
                writer.write_table(group, max(1, group.num_rows))
            yield
    finally:
        if writer is not None:
            writer.close()


def finished(work: Generator[None, None, _Made]) -> _Made:
    """What `work` returns at its end, without pauses."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


def _repeats(kind: pa.DataType) -> bool:
    """Whether a dictionary may pay: of measurements it takes as long as all else together."""
    return not (pa.types.is_floating(kind) or pa.types.is_nested(kind))


def sync(folder: Path) -> None:
    """Makes durable what was put into a folder, and what was taken out."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_info(path: Path) -> FileInfo | None:
    """What a file says it holds; None for a Parquet file that no sink wrote."""
    content = said(path)
    if content is None:
        return None
    for name in ("ranges", "ticks"):
        pairs = content[name].items()
        content[name] = {int(key): [(a, b) for a, b in found] for key, found in pairs}
    return FileInfo(**{**content, "path": path, "replaces": tuple(content["replaces"])})


def listed(root: Path, system: str) -> list[FileInfo]:
    """The files of a system that count; those that were merged into another do not."""
    return with_files(
        root / f"system={system}",
        lambda files: [info for path in files if (info := read_info(path))],
    )


def recover(root: Path, system: str) -> list[FileInfo]:
    """The files of a system, after it ended a merge that was cut off and removed scraps."""
    folder = root / f"system={system}"
    for scrap in folder.glob("day=*/*.parquet.tmp"):
        scrap.unlink()
    found = listed(root, system)
    for info in found:
        for name in info.replaces:
            (info.path.parent / name).unlink(missing_ok=True)
    return found


def newest_topic(files: Sequence[FileInfo]) -> list[FileInfo]:
    """The files of the topic that was written to last, by tick."""
    if not files:
        return []
    newest = max(files, key=lambda info: info.last_ms).topic_id
    return sorted(
        (info for info in files if info.topic_id == newest), key=lambda info: info.first_tick
    )


def covered(files: Iterable[FileInfo], topic_id: str) -> dict[int, Intervals]:
    """Partition → offsets that are stored, for the topic of that id."""
    found: dict[int, Intervals] = {}
    for info in files:
        if info.topic_id == topic_id:
            for partition, pairs in info.ranges.items():
                known = found.setdefault(partition, Intervals())
                for start, end in pairs:
                    known.add(start, end)
    return found


def remove(files: Sequence[FileInfo]) -> None:
    """Removes files that were merged, for good: one that came back would double its rows."""
    for info in files:
        info.path.unlink(missing_ok=True)
    for folder in {info.path.parent for info in files}:
        sync(folder)
