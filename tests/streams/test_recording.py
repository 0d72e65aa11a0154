"""A recording stands on its own: specs survive, chunks go on where they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.system import load_spec, parse_spec, shipped_systems, spec_path
from schemas.topics import topic
from schemas.trajectories import decode_trajectory, encode_trajectory
from streams.record import Span
from streams.recording import (
    MANIFEST,
    ChunkWriter,
    Recording,
    RecordingError,
    chunk_paths,
    spec_text,
)
from streams.recording_maker import raw_record
from streams.replay_compare import Comparison
from tests.streams.frames import decisions, frame, trajectory
from tests.streams.specs import small_spec

SPEC = small_spec()


@pytest.mark.parametrize("name", shipped_systems())
def test_a_spec_survives_being_written(name: str) -> None:
    spec = load_spec(name)
    again = parse_spec(spec_text(spec), "again.yaml")
    assert again == spec
    assert again.spec_hash == spec.spec_hash
    assert parse_spec(spec_text(SPEC)) == SPEC


@pytest.mark.parametrize("discipline", ["off", "35 ms"])
def test_so_does_what_is_said_of_its_clocks(discipline: str) -> None:
    text = (
        spec_path("nav2d").read_text().replace("unit: us}", f"unit: us, discipline: {discipline}}}")
    )
    spec = parse_spec(text, "nav2d.yaml")
    assert parse_spec(spec_text(spec), "again.yaml") == spec


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', "[" * 100_000])
def test_a_manifest_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(RecordingError, match=r"manifest\.json: not the manifest of a recording"):
        Recording.open(tmp_path)


@pytest.mark.parametrize("column", ["tick", "value"])
def test_a_chunk_that_is_none_is_told(tmp_path: Path, column: str) -> None:
    writer = ChunkWriter(tmp_path, "frames", "t1")
    writer.add(raw_record("t", 0, 1, 9, trajectory(SPEC, 0, 1)))
    writer.flush()
    (path,) = chunk_paths(tmp_path, "frames")
    whole = pq.read_table(path)
    for found in (whole.drop_columns([column]), _nothing_in(whole, column)):
        pq.write_table(found, path)
        with pytest.raises(RecordingError, match="not a chunk of a recording"):
            list(Recording(tmp_path, {}).records("frames"))
    path.write_bytes(b"PAR1")
    with pytest.raises(RecordingError, match="not a chunk of a recording"):
        list(Recording(tmp_path, {}).records("frames"))


def _nothing_in(table: pa.Table, column: str) -> pa.Table:
    place = table.schema.get_field_index(column)
    return table.set_column(place, column, pa.nulls(len(table), table.schema.field(column).type))


def test_chunks_go_on_where_they_were(tmp_path: Path) -> None:
    name = topic(SPEC, "trajectories")
    writer = ChunkWriter(tmp_path, "trajectories", "t1")
    for offset in range(4):
        writer.add(raw_record(name, 1, offset, 9, trajectory(SPEC, 0, offset)))
    writer.skip(1, 4)
    writer.flush()
    writer.add(raw_record(name, 1, 5, 9, trajectory(SPEC, 0, 5)))  # never flushed: cut off
    again = ChunkWriter(tmp_path, "trajectories", "t1")
    assert again.seen[1].next_after(0) == 5
    again.add(raw_record(name, 1, 5, 9, trajectory(SPEC, 0, 5)))
    again.flush()
    again.flush()
    assert len(chunk_paths(tmp_path, "trajectories")) == 2
    read = list(Recording(tmp_path, {}).records("trajectories"))
    assert [tick for tick, _, _ in read] == [0, 1, 2, 3, 5]
    assert read[-1][2] == trajectory(SPEC, 0, 5)
    with pytest.raises(RecordingError, match="another topic"):
        ChunkWriter(tmp_path, "trajectories", "t2")


def test_a_span_begins_with_the_key_frame_before_it() -> None:
    second = 1_000_000
    span = Span.of(SPEC, 130 * second - 1, 140 * second + 1)
    assert (span.first, span.last, span.lead) == (130, 140, 128)
    assert [span.holds(tick) for tick in (127, 128, 140, 141)] == [False, True, True, False]
    at_key = Span.of(SPEC, 128 * second, None)
    assert (at_key.first, at_key.lead) == (128, 64), "the row of 128 is what 129 starts from"
    open_end = Span.of(SPEC, None, None)
    assert all(open_end.holds(tick) for tick in (-5, 0, 10**9))


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-6]))
def test_what_the_log_stores_is_equal_to_what_was_decided(seed: int, tolerance: float) -> None:
    """Whatever rounding the log does, a comparison with the unrounded decisions finds nothing."""
    rng = np.random.default_rng(seed)
    of = frame(SPEC, 0, 3)
    made = decisions(SPEC, of, size=3)
    for name in ("hidden", "latent", "predicted", "returned", "uncertainty"):
        value = getattr(made, name)
        value[...] = rng.normal(0, 10.0 ** rng.integers(-3, 4), value.shape)
        value[rng.random(value.shape) < 0.1] = np.nan
    stored = decode_trajectory(SPEC, encode_trajectory(SPEC, of, made)).decisions
    comparison = Comparison(SPEC, tolerance)
    assert comparison.add(of, stored, made)
    made.returned[0, 1] += 1.0
    made.returned[0, 1] = np.nan_to_num(made.returned[0, 1], nan=7.0)
    assert not comparison.add(of, stored, made)
    assert set(comparison.columns) == {"return:q10"}
