"""Small files become large ones while the sink runs: which, and piece by piece.

A merge is one step to whoever looks: the new file appears whole and names those that it replaces,
the catalog swaps them in one transaction, then they are removed. What is cut off in between is
ended by the next start (`sink_files.recover`, `SinkIndex.match`). Readers with an old list find a
file gone, and look again.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from streams import sink_files
from streams.intervals import Intervals
from streams.sink_files import ROW_GROUP, FileInfo
from streams.sink_index import FileKeys, SinkIndex

FAN_IN: Final = 64
"""Files become one. Each time their rows are written once more, so that few at a time cost much."""
LARGE_ROWS: Final = 250_000  # a file of this size or more is not merged any further
MERGED_ROWS: Final = 1_000_000  # no more in a merged file
OVER_MS: Final = 600_000  # after which nothing more is expected of a day, a layout or a topic
_DONE: Final = object()
Ranges = Mapping[int, Sequence[tuple[int, int]]]


class Merger:
    """Merges the closed files of a sink, a piece at a time; changes the list that it is given."""

    def __init__(self, root: Path, index: SinkIndex, files: list[FileInfo]) -> None:
        self._root, self._index, self._files = root, index, files
        self._looked_at = 0  # so many files
        self._work: Generator[None, None, None] | None = None

    def step(self) -> None:
        """Does a piece of a merge, where there is one to do."""
        if self._work is None:
            if len(self._files) == self._looked_at:
                return
            self._looked_at = len(self._files)
            group = due(self._files)
            if not group or not self._has_room(group):
                return
            self._work = self._merging(group)
        if next(self._work, _DONE) is _DONE:
            self._work = None

    def finish(self) -> None:
        """Ends the merge that was begun, and merges all small files."""
        if self._work is not None:
            sink_files.finished(self._work)
            self._work = None
        for group in left(self._files):
            sink_files.finished(self._merging(group))

    def abandon(self) -> None:
        """Lets go of the merge that was begun, and of the room that it took."""
        if self._work is not None:
            self._work.close()
            self._work = None

    def _has_room(self, group: Sequence[FileInfo]) -> bool:
        """Whether the disk holds the merged file beside the others, and more than that."""
        size = sum(info.path.stat().st_size for info in group)
        return shutil.disk_usage(self._root).free > 2 * size

    def _merging(self, group: Sequence[FileInfo]) -> Generator[None, None, None]:
        keys = FileKeys()
        merged = yield from merging(self._root, group, keys)
        yield from self._index.replacing(group, merged, keys)
        sink_files.remove(group)
        gone = {info.path for info in group}
        self._files[:] = [*(info for info in self._files if info.path not in gone), merged]


def due(files: Sequence[FileInfo]) -> list[FileInfo]:
    """Which files to merge now, if any: `FAN_IN` that were merged equally often (or fewer, where
    they are enough for a whole file); or what is left of a group to which nothing is added.
    """
    newest = max((info.last_ms for info in files), default=0)
    for group in _groups(files):
        if max(info.last_ms for info in group) < newest - OVER_MS:
            if len(run := _runs(group)[0]) > 1:
                return run
            continue
        for merges in sorted({info.merges for info in group}):
            runs = _runs([info for info in group if info.merges == merges])
            if len(runs) > 1 or len(runs[0]) >= FAN_IN:
                return runs[0][:FAN_IN]
    return []


def left(files: Sequence[FileInfo]) -> list[list[FileInfo]]:
    """Which files to merge into one each at the end: all small ones, two or more."""
    return [run for group in _groups(files) for run in _runs(group) if len(run) > 1]


def _groups(files: Sequence[FileInfo]) -> list[list[FileInfo]]:
    """Small files by day, layout and topic, each in the order of ticks."""
    groups: dict[tuple[str, str, str], list[FileInfo]] = {}
    for info in sorted(files, key=lambda info: info.first_tick):
        if info.rows < LARGE_ROWS:
            groups.setdefault((info.day, info.layout, info.topic_id), []).append(info)
    return list(groups.values())


def _runs(group: Sequence[FileInfo]) -> list[list[FileInfo]]:
    """The files in stretches of as many as one file may hold."""
    runs: list[list[FileInfo]] = [[]]
    rows = 0
    for info in group:
        if rows + info.rows > MERGED_ROWS:
            runs.append([])
            rows = 0
        runs[-1].append(info)
        rows += info.rows
    return runs


def merging(
    root: Path, files: Sequence[FileInfo], keys: FileKeys
) -> Generator[None, None, FileInfo]:
    """Writes one file in place of several, and says in it which; pauses after each piece.

    Args:
        files: of one day, layout and topic, in the order in which their rows are to stand.
        keys: is given the rows as well.
    """
    first = files[0]
    info = FileInfo(
        path=first.path,
        system=first.system,
        day=first.day,
        layout=first.layout,
        topic_id=first.topic_id,
        rows=sum(info.rows for info in files),
        ranges=_joined([info.ranges for info in files]),
        ticks=_joined([info.ticks for info in files]),
        facts=_merged_facts([info.facts for info in files]),
        last_ms=max(info.last_ms for info in files),
        replaces=tuple(info.path.name for info in files),
        merges=1 + max(info.merges for info in files),
    )
    return (yield from sink_files.writing(root, _row_groups(files, keys), info))


def _row_groups(files: Sequence[FileInfo], keys: FileKeys) -> Iterator[pa.Table | None]:
    """All rows in large row groups, and None after each small one that was read."""
    held: pa.Table | None = None
    for info in files:
        with pq.ParquetFile(info.path) as file:
            for number in range(file.num_row_groups):
                read = file.read_row_group(number, use_threads=False).replace_schema_metadata(None)
                keys.add(read)
                held = read if held is None else pa.concat_tables([held, read])
                yield None
                while held.num_rows >= ROW_GROUP:
                    yield held.slice(0, ROW_GROUP)
                    held = held.slice(ROW_GROUP)
    if held is not None and held.num_rows:
        yield held


def _joined(parts: Iterable[Ranges]) -> dict[int, list[tuple[int, int]]]:
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
