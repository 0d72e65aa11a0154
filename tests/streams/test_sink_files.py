"""Files say what they hold; merges and restarts at any moment lose and double nothing."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from streams import sink_files
from streams.sink_files import FileInfo
from streams.sink_table import LoggedFrame, Reports, read_frame, table_of
from tests.streams.frames import trajectory
from tests.streams.specs import small_spec

SPEC = small_spec()


def frames(first: int, count: int) -> list[LoggedFrame]:
    """`count` frames from tick and offset `first` on, in partition 0."""
    ticks = range(first, first + count)
    return [read_frame(0, tick, tick, trajectory(SPEC, 0, tick)) for tick in ticks]


def put(
    root: Path, first: int, count: int, topic_id: str = "t1", day: str = "2026-01-02"
) -> FileInfo:
    read = frames(first, count)
    table = table_of(SPEC, read, Reports())
    place = [(first, first + count)]
    info = FileInfo(
        Path(), SPEC.system, day, read[0].layout, topic_id, table.num_rows, {0: place}, {0: place},
        {"spec_hash": SPEC.spec_hash, "bundles": []}, last_ms=first + count,
    )  # fmt: skip
    return sink_files.write(root, table, info)


def ticks_in(root: Path) -> list[int]:
    found = [pq.read_table(p, partitioning=None) for p in sorted(root.rglob("*.parquet"))]
    return sorted({t for table in found for t in table.column("tick").to_pylist()})


def rows_in(root: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in root.rglob("*.parquet"))


def test_a_file_says_what_it_holds(tmp_path: Path) -> None:
    written = put(tmp_path, 5, 3)
    assert written.path.parent == tmp_path / "system=tanks" / "day=2026-01-02"
    assert sink_files.read_info(written.path) == written
    assert sink_files.recover(tmp_path, "tanks") == [written]
    assert sink_files.recover(tmp_path, "others") == []
    covered = sink_files.covered([written], "t1")
    assert list(covered[0]) == [(5, 8)]
    assert sink_files.covered([written], "a topic made anew") == {}


def test_what_was_half_written_does_not_count(tmp_path: Path) -> None:
    written = put(tmp_path, 5, 3)
    scrap = written.path.with_name("0000.parquet.tmp")
    scrap.write_bytes(b"PAR1 and then the power went out")
    assert sink_files.recover(tmp_path, "tanks") == [written]
    assert not scrap.exists()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    written = put(tmp_path, 5, 3)
    other = written.path.with_name("mine.parquet")
    pq.write_table(
        pq.read_table(written.path, columns=["tick"], partitioning=None).replace_schema_metadata(
            None
        ),
        other,
    )
    assert sink_files.recover(tmp_path, "tanks") == [written]
    assert other.exists()


@pytest.mark.parametrize("killed", ["before removal", "during removal", "not at all"])
def test_a_merge_that_is_cut_off_is_ended_at_the_next_start(tmp_path: Path, killed: str) -> None:
    parts = [put(tmp_path, first, 3) for first in (8, 2, 5)]
    before = rows_in(tmp_path)
    (group,) = sink_files.merge_groups(parts)
    merged = sink_files.merge(tmp_path, group)
    sink_files.remove({"before removal": [], "during removal": group[:1]}.get(killed, group))
    (found,) = sink_files.recover(tmp_path, "tanks")
    assert found == merged
    assert found.path.exists()
    assert (rows_in(tmp_path), ticks_in(tmp_path)) == (before, list(range(2, 11)))
    assert list(sink_files.covered([found], "t1")[0]) == [(2, 11)]
    table = pq.read_table(found.path, partitioning=None)
    assert table.column("tick").to_pylist() == sorted(table.column("tick").to_pylist())
    # Each frame's header is still in its first row, and only there.
    rows = table.select(["tick", "header"]).to_pylist()
    starts = [i for i, row in enumerate(rows) if i == 0 or row["tick"] != rows[i - 1]["tick"]]
    assert [i for i, row in enumerate(rows) if row["header"]] == starts
    assert all(f'"tick":{rows[i]["tick"]},' in rows[i]["header"] for i in starts)


def test_only_files_that_belong_together_are_merged(tmp_path: Path) -> None:
    put(tmp_path, 0, 2, day="2026-01-01")
    put(tmp_path, 2, 2, topic_id="t2")
    one, two = put(tmp_path, 4, 2), put(tmp_path, 6, 2)
    groups = sink_files.merge_groups(sink_files.recover(tmp_path, "tanks"))
    assert groups == [[one, two]]


def test_days_are_of_event_time() -> None:
    assert sink_files.day_of(0) == "1970-01-01"
    assert sink_files.day_of(86_400_000_000 - 1) == "1970-01-01"
    assert sink_files.day_of(86_400_000_000) == "1970-01-02"
