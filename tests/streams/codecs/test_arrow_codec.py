"""Arrow: rows of what pyarrow wrote come out; damaged streams get a reason, and no memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.codecs.arrow_codec import codec
from streams.codecs.base import MAX_READINGS, REASONS, Field
from streams.codecs.schemas import Schemas
from tests.streams.codecs.sensors import FIELDS, sensor

CODEC = codec(sensor("arrow"), FIELDS, Schemas())
SCHEMA = pa.schema(
    [
        ("note", pa.string()),
        ("v", pa.list_(pa.float32())),
        ("ts", pa.int64()),
        ("a", pa.float64()),
        ("b", pa.int32()),
    ]
)
floats = st.none() | st.floats(width=32, allow_nan=False)


def stream(schema: pa.Schema, *batches: Sequence[dict[str, Any]], **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as out:
        for rows in batches:
            out.write_batch(pa.RecordBatch.from_pylist(list(rows), schema=schema))
    return bytes(sink.getvalue())


@st.composite
def readings(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "note": draw(st.text(max_size=3)),
        "v": draw(st.none() | st.lists(floats, min_size=2, max_size=2)),
        "ts": draw(st.integers(0, 2**52)),
        "a": draw(floats),
        "b": draw(st.none() | st.integers(-(2**31), 2**31 - 1)),
    }


def row(reading: dict[str, Any]) -> list[float]:
    found = [reading["ts"], reading["a"], *(reading["v"] or [None, None]), reading["b"]]
    return [math.nan if value is None else float(value) for value in found]


@given(st.lists(st.lists(readings(), max_size=3), max_size=4))
@settings(max_examples=50)
def test_round_trip_against_pyarrow(content: Sequence[Sequence[dict[str, Any]]]) -> None:
    found = CODEC.decode([stream(SCHEMA, rows) for rows in content])
    assert not found.bad
    assert found.places().tolist() == [i for i, rows in enumerate(content) for _ in rows]
    expected = np.array([row(r) for rows in content for r in rows]).reshape(-1, 5)
    np.testing.assert_array_equal(found.numbers, expected)
    whole = CODEC.decode([stream(SCHEMA, *content)])
    np.testing.assert_array_equal(whole.numbers, expected)


GOOD: list[dict[str, Any]] = [{"note": "x", "v": [1, 2], "ts": 5, "a": 1.0, "b": 3}]


@given(st.data())
@settings(max_examples=300)
def test_damaged_streams_never_raise(data: st.DataObject) -> None:
    value = bytearray(stream(SCHEMA, GOOD * 2))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(value[: data.draw(st.integers(0, len(value)))])
    good = stream(SCHEMA, GOOD)
    found = CODEC.decode([good, bytes(value), cut, good])
    assert {b.reason for b in found.bad} <= REASONS.keys()
    assert {0, 3} <= set(found.places().tolist())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"hello", "malformed"),
        (stream(SCHEMA, GOOD)[:-60], "malformed"),
        (stream(SCHEMA, GOOD * 99, compression="zstd"), "oversized"),
        (stream(SCHEMA, GOOD * 99, compression="lz4"), "oversized"),
        (stream(SCHEMA, GOOD * (MAX_READINGS + 1)), "oversized"),
        (stream(SCHEMA, *[GOOD * MAX_READINGS] * 2), "oversized"),
        (stream(SCHEMA, [{**GOOD[0], "v": [1]}]), "wrong_length"),
        (stream(pa.schema([("ts", pa.string())]), [{"ts": "5"}]), "wrong_type"),
        (stream(pa.schema([("ts", pa.int64()), ("v", pa.int64())]), [{"ts": 5}]), "wrong_type"),
        (stream(pa.schema([("a", pa.int64())]), [{"a": 5}]), "missing_field"),
    ],
)
def test_reasons(value: bytes | None, reason: str) -> None:
    good = stream(SCHEMA, GOOD)
    found = CODEC.decode([good, value, good])
    assert [(b.place, b.reason) for b in found.bad] == [(1, reason)]
    assert found.numbers[:, 0].tolist() == [5, 5]


def test_a_compressed_dictionary_is_found_as_well() -> None:
    kind = pa.dictionary(pa.int8(), pa.string())
    schema = pa.schema([("ts", pa.int64()), ("note", kind)])
    rows = [{"ts": 1, "note": "x" * 500}]
    assert not CODEC.decode([stream(schema, rows)]).bad
    (bad,) = CODEC.decode([stream(schema, rows, compression="zstd")]).bad
    assert "compressed" in bad.detail


def test_timestamps_structs_and_booleans() -> None:
    inner = pa.struct([("b", pa.bool_())])
    schema = pa.schema([("ts", pa.timestamp("ns", "UTC")), ("in", inner)])
    fields = [FIELDS[0], Field("in.b"), Field("in.none")]
    made = codec(sensor("arrow", unit="ms"), fields, Schemas())
    rows: list[dict[str, Any]] = [
        {"ts": 1_700_000_000_123_000_000, "in": {"b": True}},
        {"ts": 0, "in": None},
    ]
    found = made.decode([stream(schema, rows)])
    nan = math.nan
    np.testing.assert_array_equal(found.numbers, [[1_700_000_000_123, 1, nan], [0, nan, nan]])
