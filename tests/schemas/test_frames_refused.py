"""Frames that fuzzing found to be taken, or to end the reader in another way than it promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas import arrow_io
from schemas.arrow_io import HEADER_KEY, FrameError
from schemas.frames import decode_frame, encode_frame
from schemas.trajectories import decode_trajectory
from tests.streams.frames import frame, trajectory
from tests.streams.specs import small_spec

SPEC = small_spec()
WHOLE = encode_frame(SPEC, frame(SPEC, 0, 7))
DECIDED = trajectory(SPEC, 0, 7, size=3)


def written(batch: pa.RecordBatch, header: Any, **options: Any) -> bytes:
    """A batch as a stream, with another header."""
    schema = batch.schema.with_metadata({HEADER_KEY: json.dumps(header).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as out:
        out.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
    return bytes(sink.getvalue())


def parts(data: bytes) -> tuple[pa.RecordBatch, dict[str, Any]]:
    batch, metadata = arrow_io.read_batch(data)
    return batch, arrow_io.header_of(metadata)


def with_column(data: bytes, name: str, column: pa.Array) -> bytes:
    """A record with another column under a name."""
    batch, header = parts(data)
    place = batch.schema.get_field_index(name)
    return written(batch.set_column(place, name, column), header)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_frames_are_refused_before_they_grow(codec: str) -> None:
    batch, header = parts(WHOLE)
    many = pa.RecordBatch.from_arrays(
        [pa.concat_arrays([column] * 500) for column in batch.columns], schema=batch.schema
    )
    with pytest.raises(FrameError, match="compressed"):
        decode_frame(SPEC, written(many, header, compression=codec))


def test_a_frame_is_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    decode_frame(SPEC, WHOLE)  # one like those that were read before is no exception
    monkeypatch.setattr(arrow_io, "MOST_BYTES", len(WHOLE) - 1)
    with pytest.raises(FrameError, match="are the most"):
        decode_frame(SPEC, WHOLE)


def test_names_that_are_not_utf_8() -> None:
    assert WHOLE.count(b"abce") == 1, "the entities of cohort 0, one behind the other"
    with pytest.raises(FrameError, match="UTF8"):
        decode_frame(SPEC, WHOLE.replace(b"abce", b"\xe1bce"))


ROWS = 4


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("entity", pa.array(["a", None, "c", "d"])),
        ("entity", pa.array([1, 2, 3, 4])),
        ("depth", pa.array(["1", "2", "3", "4"])),
        ("status", pa.array([1, None, 2, 3], pa.uint8())),
        ("flags", pa.array([[1], [2], [3], [4]])),
    ],
)
def test_columns_of_another_kind(name: str, column: pa.Array) -> None:
    with pytest.raises(FrameError, match=name):
        decode_frame(SPEC, with_column(WHOLE, name, column))


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(tick="7"),
        lambda h: h.update(tick=2**70),
        lambda h: h.update(time_us=1.5),
        lambda h: h.update(offsets={"t": {"x": 3}}),
        lambda h: h.update(offsets={"t": {"0": "3"}}),
        lambda h: h.update(exact_us=[[1, 2]]),
        lambda h: h.update(control={"overrides": {"a": {"valve": "open"}}}),
        lambda h: h.update(closed_by="nobody"),
        lambda h: h.update(more=1),
        lambda h: h.pop("tick"),
    ],
)
def test_headers_with_fields_of_another_kind(change: Callable[[dict[str, Any]], object]) -> None:
    batch, header = parts(WHOLE)
    assert decode_frame(SPEC, written(batch, header)).tick == 7
    change(header)
    with pytest.raises(FrameError, match="the header is not a frame's"):
        decode_frame(SPEC, written(batch, header))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1.0], [1.0, 2.0], [3.0], [4.0]], pa.list_(pa.float16())),
        pa.array([[1.0], None, [3.0], [4.0]], pa.list_(pa.float16())),
        pa.array([1.0, 2.0, 3.0, 4.0]),
    ],
)
def test_beliefs_that_are_no_lists_of_one_length(column: pa.Array) -> None:
    assert decode_trajectory(SPEC, DECIDED).decisions.hidden.shape == (ROWS, 3)
    with pytest.raises(FrameError, match="hidden"):
        decode_trajectory(SPEC, with_column(DECIDED, "hidden", column))


@pytest.mark.parametrize("decided", [3, {"spent": 3}, {"spent": [1]}])
def test_what_was_decided_is_told_oddly(decided: object) -> None:
    batch, header = parts(DECIDED)
    with pytest.raises(FrameError, match="oddly"):
        decode_trajectory(SPEC, written(batch, {**header, "decisions": decided}))


def test_no_frame_of_a_valid_kind_is_lost() -> None:
    again = decode_frame(SPEC, WHOLE)
    np.testing.assert_array_equal(again.values, frame(SPEC, 0, 7).values)
