"""Protobuf: what Google's own library wrote comes out; an index names the type, and bytes lie."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import given
from hypothesis import strategies as st

from infra.registry import Schema
from streams.codecs import protobuf_codec
from streams.codecs.base import MAX_READINGS, REASONS, Field, Refused
from streams.codecs.protobuf_codec import codec, compiled, type_index
from streams.codecs.schemas import Schemas
from tests.streams.codecs.sensors import FIELDS, PROTO, sensor

FILE = compiled(Schema("PROTOBUF", PROTO))
numbers = st.none() | st.floats(width=32, allow_nan=False)


def message(name: str, **content: Any) -> bytes:
    made = message_factory.GetMessageClass(FILE.message_types_by_name[name])(**content)
    return bytes(made.SerializeToString())


def head(number: int, *index: int) -> bytes:
    """The wire format's header; `index`: bytes of the type's index."""
    return b"\0" + number.to_bytes(4, "big") + bytes(index)


READING = (2, 2)  # zigzag: one number, and that is 1
FRAMED = codec(sensor({"protobuf": {"schemas": {7: PROTO}}}), FIELDS, Schemas())
BARE = codec(sensor({"protobuf": {"schema": PROTO, "message": "zoo.Reading"}}), FIELDS, Schemas())
MANY = codec(
    sensor({"protobuf": {"schemas": {7: PROTO}, "records": "readings"}}), FIELDS, Schemas()
)


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    content = {
        "ts": draw(st.integers(1, 2**52)),
        "a": draw(numbers),
        "v": draw(st.none() | st.tuples(st.floats(-9, 9), st.floats(-9, 9)).map(list)),
        "note": draw(st.text(max_size=5)),
        "b": draw(numbers),
    }
    return {name: value for name, value in content.items() if value is not None}


def row(content: Mapping[str, Any]) -> list[float]:
    nan = math.nan
    vector = content.get("v", [nan, nan])
    return [content["ts"], content.get("a", nan), *vector, content.get("b", nan)]


@given(st.lists(contents(), max_size=6))
def test_round_trip_against_google(content: Sequence[Mapping[str, Any]]) -> None:
    expected = np.array([row(one) for one in content]).reshape(-1, 5)
    bare = [message("Reading", **one) for one in content]
    for made, values in ((BARE, bare), (FRAMED, [head(7, *READING) + value for value in bare])):
        found = made.decode(values)
        assert not found.bad
        np.testing.assert_array_equal(found.numbers, expected)


@given(st.lists(st.lists(contents(), max_size=4), max_size=4))
def test_repeated_readings(content: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    values = [head(7, 2, 4) + message("Readings", readings=one) for one in content]
    found = MANY.decode(values)
    assert not found.bad
    assert found.places().tolist() == [i for i, one in enumerate(content) for _ in one]
    expected = np.array([row(one) for several in content for one in several]).reshape(-1, 5)
    np.testing.assert_array_equal(found.numbers, expected)


values = (
    st.none()
    | st.binary(max_size=30)
    | st.binary(max_size=20).map(lambda data: head(7, *READING) + data)
    | contents().map(lambda c: head(7, *READING) + message("Reading", **c))
)


@given(st.lists(values, max_size=8))
def test_a_message_means_the_same_alone_and_in_a_batch(batch: Sequence[bytes | None]) -> None:
    found = FRAMED.decode(batch)
    alone = [FRAMED.decode([value]) for value in batch]
    assert found.places().tolist() == [i for i, one in enumerate(alone) if not one.bad]
    whole = np.concatenate([np.zeros((0, 5)), *(one.numbers for one in alone)])
    np.testing.assert_array_equal(found.numbers, whole)
    assert [tuple(b) for b in found.bad] == [
        (i, *one.bad[0][1:]) for i, one in enumerate(alone) if one.bad
    ]
    assert {b.reason for b in found.bad} <= REASONS.keys()


GOOD = message("Reading", ts=5, a=1.0, v=[1, 2])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"\0\0\0", "truncated"),
        (head(7), "truncated"),
        (head(7, 2), "truncated"),
        (head(7, 1), "malformed"),
        (head(7, 200, 1), "malformed"),
        (head(7, *[0xFF] * 9), "malformed"),
        (head(7, 2, 20) + GOOD, "bad_schema"),
        (head(7, 0) + GOOD, "missing_field"),
        (head(7, *READING), "missing_field"),
        (head(7, *READING) + GOOD[:-3], "malformed"),
        (b"\1" + head(7, *READING)[1:] + GOOD, "bad_magic"),
        (head(9, *READING) + GOOD, "unknown_schema"),
        (head(7, *READING) + message("Reading", ts=5, v=[1, 2, 3]), "wrong_length"),
        (head(7, *READING) + message("Reading", ts=5, note="x" * 70_000), "oversized"),
    ],
)
def test_reasons(value: bytes | None, reason: str) -> None:
    good = head(7, *READING) + GOOD
    decoder = codec(sensor({"protobuf": {"schemas": {7: PROTO}}}), FIELDS, Schemas())
    found = decoder.decode([good, value, good])
    bad = {b.place: b.reason for b in found.bad}
    absent = found.places()[np.isnan(found.numbers[:, 0])].tolist()
    # A time that is zero was not sent; whoever makes readings of rows says so.
    bad |= dict.fromkeys(absent, "missing_field")
    assert bad == {1: reason}
    assert [t for t in found.numbers[:, 0].tolist() if t == t] == [5, 5]


def test_a_type_that_the_spec_does_not_name_is_another() -> None:
    made = codec(
        sensor({"protobuf": {"schemas": {7: PROTO}, "message": "zoo.Reading"}}), FIELDS, Schemas()
    )
    found = made.decode([head(7, *READING) + GOOD, head(7, 2, 4) + b""])
    assert [(b.place, b.reason) for b in found.bad] == [(1, "wrong_type")]
    assert "zoo.Readings" in found.bad[0].detail


def zigzag(number: int) -> list[int]:
    """A varint as the wire format has it, least significant seven bits first."""
    left = number * 2
    return [left] if left < 128 else [left % 128 + 128, *plain(left // 128)]


def plain(left: int) -> list[int]:
    return [left] if left < 128 else [left % 128 + 128, *plain(left // 128)]


@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=5), st.binary(max_size=3))
def test_indexes_of_types(index: list[int], rest: bytes) -> None:
    number = bytes(byte for one in (len(index), *index) for byte in zigzag(one))
    assert type_index(b"....." + number + rest, 5) == (tuple(map(str, index)), 5 + len(number))


def test_the_index_in_confluents_documentation() -> None:
    """Of the second type within the first; and what is said of the most common case."""
    assert type_index(bytes([0, 0, 0, 0, 7, 4, 2, 0, 9]), 5) == (("1", "0"), 8)
    assert type_index(bytes([0, 0, 0, 0, 7, 0, 9]), 5) == (("0",), 6)


WELL_KNOWN = """
syntax = "proto3";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
message R {
  google.protobuf.Timestamp ts = 1;
  google.protobuf.DoubleValue a = 2;
  Inner in = 3;
  message Inner { float b = 1; }
}
"""


def test_timestamps_wrappers_and_paths() -> None:
    fields = [FIELDS[0], FIELDS[1], Field("in.b")]
    made = codec(sensor({"protobuf": {"schema": WELL_KNOWN}}, unit="ms"), fields, Schemas())
    kind = compiled(Schema("PROTOBUF", WELL_KNOWN)).message_types_by_name["R"]
    make = message_factory.GetMessageClass(kind)
    time = {"seconds": 1_700_000_000, "nanos": 123_000_000}
    whole = make(ts=time, a={"value": 0.5}, **{"in": {"b": 0.25}}).SerializeToString()
    found = made.decode([whole, make(ts=time).SerializeToString(), b""])
    assert not found.bad
    nan, ms = math.nan, 1_700_000_000_123.0
    expected = [[ms, 0.5, 0.25], [ms, nan, nan], [nan, nan, nan]]
    np.testing.assert_array_equal(found.numbers, expected)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("message", "schema.proto"),
        ('syntax = "proto3"; message R { string ts = 1; }', "ts is string"),
        ('syntax = "proto3"; message R { double x = 1; }', "'ts'"),
        ('syntax = "proto3"; import "/etc/passwd"; message R { double ts = 1; }', "passwd"),
        ('syntax = "proto3";', "no message"),
    ],
)
def test_a_schema_that_cannot_be_used_is_the_specs_fault(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        codec(sensor({"protobuf": {"schema": text}}), FIELDS, Schemas())


def test_imports_stay_in_their_folder() -> None:
    with pytest.raises(Refused, match="no name of a file"):
        compiled(Schema("PROTOBUF", PROTO, {"../../evil.proto": ""}))
    imported = Schema(
        "PROTOBUF",
        'syntax = "proto3"; import "a/b.proto"; message R { x.B b = 1; }',
        {"a/b.proto": 'syntax = "proto3"; package x; message B { int32 n = 1; }'},
    )
    assert list(compiled(imported).message_types_by_name) == ["R"]


def test_too_many_readings_are_refused() -> None:
    most = [{"ts": 1}] * MAX_READINGS
    values = [
        head(7, 2, 4) + message("Readings", readings=readings)
        for readings in (most, [*most, {"ts": 1}])
    ]
    found = MANY.decode(values)
    assert len(found.numbers) == MAX_READINGS
    assert [(b.place, b.reason) for b in found.bad] == [(1, "oversized")]


def test_lies_about_the_type_do_not_compile_a_schema_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs: list[str] = []
    protoc = protobuf_codec._protoc

    def counted(folder: str) -> FileDescriptorSet:
        runs.append(folder)
        return protoc(folder)

    monkeypatch.setattr(protobuf_codec, "_protoc", counted)
    text = PROTO.replace("package zoo", "package once")
    made = codec(sensor({"protobuf": {"schemas": {7: text}}}), FIELDS, Schemas())
    found = made.decode([head(7, 2, 2 * number) for number in range(40)])
    assert {bad.reason for bad in found.bad} == {"bad_schema", "missing_field"}
    assert len(runs) == 1
