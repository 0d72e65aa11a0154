"""Files say what they hold; merges and restarts at any moment lose and double nothing."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

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


def test_days_are_of_event_time() -> None:
    assert sink_files.day_of(0) == "1970-01-01"
    assert sink_files.day_of(86_400_000_000 - 1) == "1970-01-01"
    assert sink_files.day_of(86_400_000_000) == "1970-01-02"
