"""Avro: what fastavro's own writer wrote comes out, by name; bytes that are none get a reason."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.codecs.avro_codec import codec
from streams.codecs.base import MAX_READINGS, REASONS, Decoded
from streams.codecs.schemas import Schemas
from tests.streams.codecs.sensors import AVRO, FIELDS, sensor

Content = Mapping[str, Any]
SCHEMA = fastavro.parse_schema(json.loads(json.dumps(AVRO)))
IDS = {7: AVRO, 8: {**AVRO, "fields": [AVRO["fields"][3], AVRO["fields"][0]]}}
numbers = st.none() | st.floats(width=32, allow_nan=False)


def written(schema: Any, content: Any, head: bytes = b"") -> bytes:
    stream = BytesIO()
    fastavro.schemaless_writer(
        stream, fastavro.parse_schema(json.loads(json.dumps(schema))), content
    )
    return head + stream.getvalue()


def head(number: int) -> bytes:
    return b"\0" + number.to_bytes(4, "big")


def decoded(settings: Any, *values: bytes | None) -> Decoded:
    made = codec(sensor({"avro": settings}), FIELDS, Schemas())
    return made.decode(values)


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "ts": draw(st.integers(-(2**52), 2**52)),
        "a": draw(numbers),
        "v": draw(st.none() | st.lists(numbers, min_size=2, max_size=2)),
        "note": draw(st.text(max_size=9)),
        "b": draw(numbers),
    }


def row(content: Content) -> list[float]:
    """What a reading means, plainly."""
    vector = content["v"] or [None, None]
    found = [content["ts"], content["a"], *vector, content["b"]]
    return [math.nan if value is None else float(value) for value in found]


BARE = codec(sensor({"avro": {"schema": AVRO}}), FIELDS, Schemas())
FRAMED = codec(sensor({"avro": {"schemas": IDS}}), FIELDS, Schemas())
LIST = {"type": "array", "items": AVRO}
MANY = codec(sensor({"avro": {"schema": LIST, "records": "."}}), FIELDS, Schemas())


@given(st.lists(contents(), max_size=6))
def test_round_trip_against_fastavro(content: Sequence[Content]) -> None:
    expected = np.array([row(one) for one in content]).reshape(-1, 5)
    found = BARE.decode([written(AVRO, one) for one in content])
    assert not found.bad
    np.testing.assert_array_equal(found.numbers, expected)
    found = FRAMED.decode([written(AVRO, one, head(7)) for one in content])
    np.testing.assert_array_equal(found.numbers, expected)


@given(st.lists(st.lists(contents(), max_size=4), max_size=4))
def test_lists_of_readings(content: Sequence[Sequence[Content]]) -> None:
    found = MANY.decode([written(LIST, one) for one in content])
    assert not found.bad
    assert found.places().tolist() == [i for i, one in enumerate(content) for _ in one]
    expected = np.array([row(one) for several in content for one in several]).reshape(-1, 5)
    np.testing.assert_array_equal(found.numbers, expected)


values = (
    st.none()
    | st.binary(max_size=40)
    | contents().map(lambda c: written(AVRO, c, head(7)))
    | contents().map(lambda c: written(IDS[8], c, head(8)))
    | st.tuples(contents(), st.integers(0, 60), st.integers(0, 255)).map(
        lambda t: bytes(
            t[2] if i == t[1] else byte for i, byte in enumerate(written(AVRO, t[0], head(7)))
        )
    )
)


@given(st.lists(values, max_size=8))
def test_a_message_means_the_same_alone_and_in_a_batch(batch: Sequence[bytes | None]) -> None:
    found = FRAMED.decode(batch)
    alone = [FRAMED.decode([value]) for value in batch]
    assert found.places().tolist() == [i for i, one in enumerate(alone) if not one.bad]
    whole = np.concatenate([np.zeros((0, 5)), *(one.numbers for one in alone)])
    np.testing.assert_array_equal(found.numbers, whole)
    bad = [(i, *one.bad[0][1:]) for i, one in enumerate(alone) if one.bad]
    assert [tuple(b) for b in found.bad] == bad
    assert {b.reason for b in found.bad} <= REASONS.keys()


def test_what_is_said_of_a_message_holds_no_address() -> None:
    cut = b"\x00\x00\x00\x00\x07\x00\x01" + bytes(10) + b"\x01"  # within a float
    (bad,) = FRAMED.decode([cut]).bad
    assert bad.reason == "truncated"
    assert "cannot read float" in bad.detail
    assert "0x" not in bad.detail


GOOD = {"ts": 5, "a": 1.0, "v": [1.0, 2.0], "note": "", "b": None}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "truncated"),
        (b"\0\0\0\0", "truncated"),
        (head(7), "truncated"),
        (written(AVRO, GOOD, head(7))[:-4], "truncated"),
        (b"\1" + written(AVRO, GOOD, head(7))[1:], "bad_magic"),
        (b'{"ts":5}', "bad_magic"),
        (written(AVRO, GOOD, head(9)), "unknown_schema"),
        (written(AVRO, GOOD, head(7)) + b"\0", "malformed"),
        (head(7) + b"\x0a\x08", "malformed"),
        (head(7) + b"\x0a\0\0\x05", "truncated"),
        (written(AVRO, {**GOOD, "v": [1.0]}, head(7)), "wrong_length"),
        (head(7) + b"\xff" * 30, "malformed"),
        (written(AVRO, {**GOOD, "note": "x" * 70_000}, head(7)), "oversized"),
    ],
)
def test_reasons(value: bytes | None, reason: str) -> None:
    good = written(AVRO, GOOD, head(7))
    found = FRAMED.decode([good, value, good])
    assert [(b.place, b.reason) for b in found.bad] == [(1, reason)]
    assert found.bad[0].detail
    assert found.numbers[:, 0].tolist() == [5, 5]


def test_fields_are_taken_by_name_whatever_the_writer_has() -> None:
    other = {
        "type": "record",
        "name": "Later",
        "fields": [
            {"name": "b", "type": "int"},
            {"name": "more", "type": {"type": "map", "values": "string"}},
            {"name": "ts", "type": "double"},
        ],
    }
    mixed = decoded(
        {"schemas": {7: AVRO, 8: other}},
        written(other, {"b": 3, "more": {"x": "y"}, "ts": 1.5}, head(8)),
        written(AVRO, GOOD, head(7)),
        written(other, {"b": 4, "more": {}, "ts": 2.5}, head(8)),
    )
    nan = math.nan
    expected = [[1.5, nan, nan, nan, 3], [5, 1, 1, 2, nan], [2.5, nan, nan, nan, 4]]
    np.testing.assert_array_equal(mixed.numbers, expected)
    assert mixed.places().tolist() == [0, 1, 2]


def record(*fields: tuple[str, Any]) -> dict[str, Any]:
    made = [{"name": name, "type": kind} for name, kind in fields]
    return {"type": "record", "name": "R", "fields": made}


@pytest.mark.parametrize(
    ("schema", "reason", "word"),
    [
        (record(("a", "double")), "missing_field", "ts"),
        (record(("ts", "string")), "wrong_type", "string"),
        (record(("ts", "long"), ("a", "string")), "wrong_type", "a is string"),
        (record(("ts", "long"), ("v", "double")), "wrong_type", "vector"),
        (record(("ts", "long"), ("n", ["null", "R"])), "bad_schema", "holds itself"),
        (record(("ts", "long"), ("n", {"type": "array", "items": "null"})), "bad_schema", "length"),
        ('"long"', "bad_schema", "no record"),
        ({"type": "recrod"}, "bad_schema", "recrod"),
    ],
)
def test_schemas_that_cannot_be_used(schema: Any, reason: str, word: str) -> None:
    """A schema's fault is each of its messages'; written in the spec, it is the spec's."""
    (bad,) = decoded({"schemas": {7: schema}}, head(7) + b"\2\2").bad
    assert (bad.reason, word in bad.detail) == (reason, True), bad.detail
    with pytest.raises(ValueError, match="its schema"):
        decoded({"schema": schema}, b"")


def test_a_schema_that_unfolds_without_end_is_refused() -> None:
    kind: Any = "null"
    for level in range(40):
        fields = [{"name": "x", "type": kind}, {"name": "y", "type": f"R{level - 1}"}]
        kind = {"type": "record", "name": f"R{level}", "fields": fields[: 2 if level else 1]}
    (bad,) = decoded({"schemas": {7: record(("ts", "long"), ("x", kind))}}, head(7) + b"\2").bad
    assert "parts" in bad.detail


def test_a_value_of_another_kind_in_a_union_is_no_number() -> None:
    schema = record(("ts", "long"), ("a", ["null", "double", "string"]))
    found = decoded(
        {"schema": schema},
        written(schema, {"ts": 1, "a": "3.5"}),
        written(schema, {"ts": 2, "a": 2.5}),
        written(schema, {"ts": 3, "a": None}),
    )
    assert [(b.place, b.reason) for b in found.bad] == [(0, "wrong_type")]
    np.testing.assert_array_equal(found.numbers[:, :2], [[2, 2.5], [3, math.nan]])


def test_paths_lead_into_records_that_may_be_missing() -> None:
    inner = {**record(("a", "double"), ("ts", "long")), "name": "Imu"}
    schema = record(("imu", ["null", inner]), ("at", "long"))
    fields = [FIELDS[0]._replace(name="at"), FIELDS[1]._replace(name="imu.a")]
    made = codec(sensor({"avro": {"schema": schema}}), fields, Schemas())
    contents = [{"at": 1, "imu": {"a": 2.0, "ts": 3}}, {"at": 2, "imu": None}]
    found = made.decode([written(schema, content) for content in contents])
    np.testing.assert_array_equal(found.numbers, [[1, 2], [2, math.nan]])


def test_decimals_are_numbers() -> None:
    price = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    schema = record(("ts", "long"), ("a", price))
    from decimal import Decimal

    found = decoded({"schema": schema}, written(schema, {"ts": 1, "a": Decimal("12.34")}))
    assert found.numbers[0, 1] == 12.34


def test_too_many_readings_are_refused() -> None:
    schema = {"type": "array", "items": record(("ts", "long"))}
    settings = {"schema": schema, "records": "."}
    most = [{"ts": 1}] * MAX_READINGS
    found = decoded(settings, written(schema, most), written(schema, [*most, {"ts": 1}]))
    assert len(found.numbers) == MAX_READINGS
    assert [(b.place, b.reason) for b in found.bad] == [(1, "oversized")]
