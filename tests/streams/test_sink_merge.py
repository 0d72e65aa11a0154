"""Files are merged while others are written; killed or read anywhere, each row is there once."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalog import Catalog
from schemas.messages import action_id
from streams import sink_files, sink_merge
from streams.record import sink_records
from streams.sink_files import FileInfo
from streams.sink_index import FileKeys, SinkIndex
from streams.sink_merge import Merger, due, left, merging
from streams.sink_table import Reports, read_frame, table_of
from tests.streams.frames import cohort_names, trajectory
from tests.streams.specs import small_spec

SPEC = small_spec()
NAMES = cohort_names(SPEC, 0)
FACTS = {"spec_hash": "s", "interface_hash": "i", "objective_hash": "o", "bundles": ["b"]}


def put(root: Path, first: int, count: int, **changes: Any) -> FileInfo:
    """A file of `count` ticks, and offsets of partition 0, from `first` on."""
    ticks = range(first, first + count)
    read = [read_frame(0, tick, tick, trajectory(SPEC, 0, tick)) for tick in ticks]
    table = table_of(SPEC, read, Reports())
    place = {0: [(first, first + count)]}
    info = FileInfo(
        Path(), SPEC.system, "2026-01-02", read[0].layout, "t1", table.num_rows, place, place,
        FACTS, last_ms=first + count,
    )  # fmt: skip
    return sink_files.write(root, table, replace(info, **changes))


def described(rows: int, first: int, **changes: Any) -> FileInfo:
    """What a file of so many rows would say."""
    ticks = {0: [(first, first + 1)]}
    path = Path(f"{first}.parquet")
    info = FileInfo(path, "s", "2026-01-02", "l", "t1", rows, ticks, ticks, FACTS, last_ms=first)
    return replace(info, **changes)


# which files


def test_so_many_files_of_one_size_are_due() -> None:
    small = [described(800, first) for first in range(sink_merge.FAN_IN)]
    assert due(small[1:]) == []
    assert due(small[::-1]) == small, "in the order of ticks"
    others = [described(800, 99, day="2026-01-01"), described(800, 99, layout="other")]
    assert due(small[1:] + others) == []
    grown = [described(51_200, 99, merges=1)]
    assert due(small[1:] + grown) == [], "what was merged waits for others that were"
    assert due(small + grown) == small


def test_a_merged_file_has_no_more_rows_than_allowed() -> None:
    large = [described(200_000, first) for first in range(6)]
    assert due(large[:5]) == [], "there is room for another one"
    assert due(large) == large[:5]
    assert due([described(sink_merge.LARGE_ROWS, first) for first in range(99)]) == []


def test_what_a_day_left_is_merged_when_it_is_over() -> None:
    old = [described(800, 1, merges=1), described(800, 2, day="2026-01-02")]
    assert due([*old, described(800, 3, day="2026-01-03", last_ms=sink_merge.OVER_MS)]) == []
    later = described(800, 3, day="2026-01-03", last_ms=sink_merge.OVER_MS + 3)
    assert due([*old, later]) == old
    assert due([old[0], later]) == []


@given(st.integers(1, 30_000), st.integers(1, 1_500))
@settings(max_examples=20)
def test_few_files_are_left_and_rows_are_written_again_a_few_times(rows: int, count: int) -> None:
    files: list[FileInfo] = []
    again = most = 0
    for number in range(count):
        files.append(described(rows, number))
        while group := due(files):
            merged = sum(info.rows for info in group)
            assert merged <= sink_merge.MERGED_ROWS
            again += merged
            changes = {"merges": 1 + max(info.merges for info in group)}
            gone = {info.path for info in group}
            files = [info for info in files if info.path not in gone]
            files.append(replace(described(merged, group[0].first_tick, **changes)))
        most = max(most, sum(info.rows < sink_merge.LARGE_ROWS for info in files))
    assert sum(info.rows for info in files) == rows * count
    assert most < 3 * sink_merge.FAN_IN
    assert again <= 3 * rows * count


def test_only_files_that_belong_together_are_merged_at_the_end(tmp_path: Path) -> None:
    put(tmp_path, 0, 2, day="2026-01-01")
    put(tmp_path, 2, 2, topic_id="t2")
    one, two = put(tmp_path, 4, 2), put(tmp_path, 6, 2)
    assert left(sink_files.recover(tmp_path, "tanks")) == [[one, two]]


# what comes of them


def test_a_merged_file_holds_what_they_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_merge, "ROW_GROUP", 7)
    parts = [put(tmp_path, first, 5) for first in (0, 5, 10)]
    before = [pq.read_table(info.path, partitioning=None) for info in parts]
    keys = FileKeys()
    merged = sink_files.finished(merging(tmp_path, parts, keys))
    file = pq.ParquetFile(merged.path)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    table = file.read()
    rows = [row for part in before for row in part.to_pylist()]
    assert repr(table.to_pylist()) == repr(rows)  # a NaN equals itself here
    assert table.schema.remove_metadata().equals(before[0].schema.remove_metadata())
    assert sizes == [7] * (len(rows) // 7) + [len(rows) % 7] * (len(rows) % 7 > 0)
    assert len(keys.all()) == len(rows) + len(NAMES)
    # Records go on from one row group to the next, and are the same.
    records = [one.value for info in parts for one in sink_records(SPEC, info.path)]
    assert [one.value for one in sink_records(SPEC, merged.path)] == records
    assert len(records) == 15
    assert (merged.rows, merged.merges, merged.ranges) == (len(rows), 1, {0: [(0, 15)]})
    assert merged.replaces == tuple(info.path.name for info in parts)
    assert sink_files.read_info(merged.path) == merged


def test_a_merge_that_is_abandoned_leaves_nothing(tmp_path: Path) -> None:
    parts = [put(tmp_path, first, 3) for first in (0, 3)]
    work = merging(tmp_path, parts, FileKeys())
    next(work)
    assert len(list(tmp_path.rglob("*.tmp"))) == 1
    work.close()
    assert sorted(tmp_path.rglob("*.*")) == sorted(
        [*(info.path for info in parts), *tmp_path.rglob("*=*.*")]
    )


def test_a_disk_with_too_little_room_keeps_its_small_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_merge, "FAN_IN", 2)
    files = [put(tmp_path, first, 3) for first in (0, 3)]
    size = sum(info.path.stat().st_size for info in files)
    merger = Merger(tmp_path, SinkIndex(SPEC, tmp_path, None), files)
    usage = shutil.disk_usage(tmp_path)
    for free, left_over in ((2 * size, 2), (2 * size + 1, 1)):
        full = usage._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, full=full: full)
        for _ in range(9):
            merger.step()
        assert len(files) == left_over
        merger = Merger(tmp_path, merger._index, files)


# killed, and read, anywhere


class Killed(BaseException):
    """The process is no more."""


class Life:
    """Counts the steps that reach a disk; at `kill_at` all ends, and `look` sees each before."""

    def __init__(self, kill_at: int, look: Callable[[], None] = lambda: None) -> None:
        self.kill_at, self.look, self.steps, self.looking = kill_at, look, 0, False

    def step(self) -> None:
        if self.looking:
            return
        self.steps += 1
        if self.steps >= self.kill_at:
            raise Killed
        self.looking = True
        self.look()
        self.looking = False

    def around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.step()
            result = real(*args, **options)
            self.step()
            return result

        return call

    @contextmanager
    def lived(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for owner, name in (
                (os, "fsync"), (Path, "replace"), (Path, "unlink"), (Catalog, "put_file"),
            ):  # fmt: skip
                patch.setattr(owner, name, self.around(getattr(owner, name)))
            yield


class Folder:
    """A sink's folder and catalog, and what must be in them: all ticks before `stored`."""

    def __init__(self, root: Path) -> None:
        self.root, self.url = root, f"sqlite:///{root}/c.sqlite"
        self.begin()

    def begin(self) -> None:
        """As the sink does."""
        self.index = SinkIndex(SPEC, self.root, self.url)
        self.files = sink_files.recover(self.root, SPEC.system)
        self.index.match(self.files)
        self.merger = Merger(self.root, self.index, self.files)
        covered = sink_files.covered(self.files, "t1").get(0)
        self.stored = covered.next_after(0) if covered else 0

    def flush(self, count: int) -> None:
        info = put(self.root, self.stored, count)
        self.files.append(info)
        self.stored += count
        self.index.add(info)

    def check(self) -> None:
        """As other processes see it: each row in one file that counts; the catalog knows where."""
        found = sink_files.listed(self.root, SPEC.system)
        ticks = [
            tick
            for info in found
            for tick in pq.read_table(info.path, partitioning=None).column("tick").to_pylist()
        ]
        assert sorted(ticks) == sorted([*range(self.stored)] * len(NAMES))

    def check_catalog(self) -> None:
        catalog = Catalog(self.url)
        known = catalog.files(SPEC.system)
        assert sum(row.rows for row in known) == self.stored * len(NAMES)
        for tick in range(self.stored):
            assert len(catalog.find_action(action_id(SPEC.system, NAMES[0], tick))) == 1
        catalog.close()

    def begin_again(self) -> None:
        self.index.close()
        before = self.stored
        self.begin()
        assert self.stored >= before
        self.check()
        self.check_catalog()
        assert {info.path for info in self.files} == set(self.root.rglob("*.parquet"))
        assert list(self.root.rglob("*.tmp")) == []


def three(root: Path) -> Folder:
    """A folder of three files, two of which are due."""
    folder = Folder(root)
    for _ in range(3):
        folder.flush(1)
    return folder


def merge(folder: Folder, life: Life) -> None:
    with life.lived():
        while len(folder.files) == 3:
            folder.merger.step()
            life.step()


def test_whoever_looks_sees_each_row_once_wherever_a_merge_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_merge, "FAN_IN", 2)
    folder = three(tmp_path)

    def look() -> None:
        folder.check()
        folder.check_catalog()

    life = Life(10**6, look)
    merge(folder, life)
    assert life.steps > 15, "there are so many moments to look"
    folder.begin_again()


def test_a_merge_that_is_killed_anywhere_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_merge, "FAN_IN", 2)
    dead = []  # kept, so that it tidies nothing up
    for kill_at in itertools.count(1):
        folder = three(tmp_path / str(kill_at))
        dead.append(folder.merger)
        try:
            merge(folder, Life(kill_at))
        except Killed:
            folder.begin_again()
        else:
            break
    assert kill_at > 15, "there are so many places to be killed"


@given(data=st.data())
@settings(max_examples=8)
def test_flushes_and_merges_that_are_killed_go_on(data: st.DataObject) -> None:
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sink_merge, "FAN_IN", 2)
        folder = Folder(Path(name))
        dead = []
        for _ in range(data.draw(st.integers(1, 4), "lives")):
            life = Life(data.draw(st.integers(1, 40), "kill at"))
            dead.append(folder.merger)
            try:
                with life.lived():
                    for step in data.draw(st.lists(st.sampled_from("fm"), max_size=12), "steps"):
                        if step == "f":
                            folder.flush(1)
                        else:
                            folder.merger.step()
                    folder.merger.finish()
            except Killed:
                pass
            folder.begin_again()
        folder.merger.finish()
        folder.begin_again()
        assert len(folder.files) <= 1
