"""A recording of a sink's folder, beside a sink that merges its files meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from schemas.trajectories import decode_trajectory, encode_trajectory
from streams import record as module
from streams import sink_files
from streams.record import record
from streams.recording import Recording
from streams.sink_index import FileKeys
from streams.sink_merge import merging
from streams.sink_table import Reports, read_frame, table_of
from tests.streams.frames import trajectory
from tests.streams.specs import small_spec

SPEC = small_spec()
FACTS = {"spec_hash": SPEC.spec_hash, "bundles": []}


def put(root: Path, first: int, count: int) -> sink_files.FileInfo:
    """A file of `count` ticks from `first` on."""
    ticks = range(first, first + count)
    read = [read_frame(0, tick, tick, trajectory(SPEC, 0, tick)) for tick in ticks]
    table, place = table_of(SPEC, read, Reports()), {0: [(first, first + count)]}
    info = sink_files.FileInfo(
        Path(), SPEC.system, "2026-01-02", "l", "t1", table.num_rows, place, place, FACTS
    )
    return sink_files.write(root, table, replace(info, last_ms=first + count))


def again(record: bytes) -> bytes:
    """The record as we write it: Parquet names the items of lists otherwise."""
    read = decode_trajectory(SPEC, record)
    return encode_trajectory(SPEC, read.frame, read.decisions, read.row)


def test_files_that_are_merged_meanwhile_are_recorded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "sink"
    parts = [put(source, first, 4) for first in (0, 4, 8, 12)]
    real, copied = module.sink_records, list[Path]()

    def read(spec: object, path: Path) -> object:
        copied.append(path)
        if path == parts[1].path:  # the first was copied; the rest is gone from here on
            for group in (parts[:2], parts[2:]):
                sink_files.finished(merging(source, group, FileKeys()))
                sink_files.remove(group)
        return real(SPEC, path)

    monkeypatch.setattr(module, "sink_records", read)
    summary = record(SPEC, "", None, tmp_path / "r", source=source)
    assert (summary["trajectories"], summary["missing"]) == (16, [])
    assert len(copied) == 2 + 2
    found = Recording.open(tmp_path / "r").records("trajectories")
    assert [(tick, again(value)) for tick, _, value in found] == [
        (tick, again(trajectory(SPEC, 0, tick))) for tick in range(16)
    ]
