"""Parquet files of trajectories that say themselves what they hold: exact restarts, safe merges.

A file appears whole (written beside, synchronised, renamed), and its metadata names the topic by
its id and the offsets it covers. So the files are the only state of a sink: what they cover was
stored, exactly once, and everything else is read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streams.intervals import Intervals

META_KEY: Final = b"rehearse-sink"
ROW_GROUP: Final = 8_192
MERGED_ROWS: Final = 2_000_000  # a file of this size or more is not merged any further
Ranges = Mapping[int, Sequence[tuple[int, int]]]


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
    pieces = writing(root, table, info)
    while True:
        try:
            next(pieces)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


def writing(
    root: Path, table: pa.Table, info: FileInfo, group_rows: int = ROW_GROUP
) -> Generator[None, None, FileInfo]:
    """As `write`, row group by row group, with a pause for whoever calls after each."""
    content = info.to_json()
    folder = folder_of(root, info.system, info.day)
    folder.mkdir(parents=True, exist_ok=True)
    canonical = json.dumps(content, sort_keys=True).encode()
    name = f"{hashlib.blake2b(canonical, digest_size=8).hexdigest()}.parquet"
    metadata = {**(table.schema.metadata or {}), META_KEY: canonical}
    fresh = folder / f"{name}.tmp"
    table = table.replace_schema_metadata(metadata)
    with fresh.open("wb") as file:
        repeated = [item.name for item in table.schema if _repeats(item.type)]
        with pq.ParquetWriter(
            file, table.schema, compression="zstd", use_dictionary=repeated
        ) as writer:
            for begin in range(0, max(1, table.num_rows), group_rows):
                writer.write_table(table.slice(begin, group_rows), group_rows)
                yield
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(folder / name)
    _sync(folder)
    return FileInfo(**{**vars(info), "path": folder / name})


def _repeats(kind: pa.DataType) -> bool:
    """Whether a dictionary may pay: of measurements it takes as long as all else together."""
    return not (pa.types.is_floating(kind) or pa.types.is_nested(kind))


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_info(path: Path) -> FileInfo | None:
    """What a file says it holds; None for a Parquet file that no sink wrote."""
    metadata = pq.read_schema(path).metadata or {}
    if META_KEY not in metadata:
        return None
    content = json.loads(metadata[META_KEY])
    for name in ("ranges", "ticks"):
        pairs = content[name].items()
        content[name] = {int(key): [(a, b) for a, b in found] for key, found in pairs}
    return FileInfo(**{**content, "path": path, "replaces": tuple(content["replaces"])})


def listed(root: Path, system: str) -> list[FileInfo]:
    """The files of a system that count; those that were merged into another do not."""
    paths = sorted((root / f"system={system}").glob("day=*/*.parquet"))
    found = [info for path in paths if (info := read_info(path))]
    merged = {info.path.parent / name for info in found for name in info.replaces}
    return [info for info in found if info.path not in merged]


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
    return sorted((info for info in files if info.topic_id == newest), key=_first_tick)


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


def merge_groups(files: Iterable[FileInfo]) -> list[list[FileInfo]]:
    """Which files to merge into one each: same day, layout and topic, small ones, two or more."""
    groups: dict[tuple[str, str, str], list[list[FileInfo]]] = {}
    for info in sorted(files, key=_first_tick):
        if info.rows >= MERGED_ROWS:
            continue
        runs = groups.setdefault((info.day, info.layout, info.topic_id), [[]])
        if sum(other.rows for other in runs[-1]) + info.rows > MERGED_ROWS:
            runs.append([])
        runs[-1].append(info)
    return [run for runs in groups.values() for run in runs if len(run) > 1]


def _first_tick(info: FileInfo) -> int:
    return min((start for pairs in info.ticks.values() for start, _ in pairs), default=0)


def merge(root: Path, files: Sequence[FileInfo]) -> FileInfo:
    """Writes one file in place of several, and says in it which; they are removed by `remove`."""
    tables = [pq.read_table(info.path, partitioning=None) for info in files]
    table = pa.concat_tables([t.replace_schema_metadata(None) for t in tables])
    order = [("tick", "ascending"), ("partition", "ascending"), ("offset", "ascending")]
    # Stable with the row's place in its frame as the last key: only the first row has the header.
    table = table.append_column("place", pa.array(np.arange(table.num_rows)))
    table = table.sort_by([*order, ("place", "ascending")]).drop_columns(["place"])
    first = files[0]
    info = FileInfo(
        path=first.path,
        system=first.system,
        day=first.day,
        layout=first.layout,
        topic_id=first.topic_id,
        rows=table.num_rows,
        ranges=_joined([info.ranges for info in files]),
        ticks=_joined([info.ticks for info in files]),
        facts=_merged_facts([info.facts for info in files]),
        last_ms=max(info.last_ms for info in files),
        replaces=tuple(info.path.name for info in files),
    )
    return write(root, table, info)


def remove(files: Iterable[FileInfo]) -> None:
    """Removes files that were merged."""
    for info in files:
        info.path.unlink(missing_ok=True)


def _joined(parts: Sequence[Ranges]) -> dict[int, list[tuple[int, int]]]:
    joined: dict[int, Intervals] = {}
    for part in parts:
        for key, pairs in part.items():
            known = joined.setdefault(key, Intervals())
            for start, end in pairs:
                known.add(start, end)
    return {key: list(known) for key, known in sorted(joined.items())}


def _merged_facts(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    bundles = sorted({name for part in parts for name in part["bundles"]})
    return {**parts[0], "bundles": bundles}
