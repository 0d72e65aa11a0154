"""Bytes to columns: a message becomes its numbers or gets a reason, alone as in a batch."""

import json
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.messages import Action, Applied, encode
from schemas.system import SystemSpec, parse_spec
from streams.align_state import Entities, Ints
from streams.codecs.base import MAX_KEY, REASONS, Field
from streams.codecs.json_codec import JsonCodec
from streams.decode import (
    KeyRows,
    ReportDecoder,
    SensorDecoder,
    bad_keys,
)

FIELDS = [Field("ts", required=True), Field("a"), Field("v", 2), Field("b")]
CODEC = JsonCodec(FIELDS)
HALVES = [b'{"ts":1,"q":[{}', b'{}],"r":2}', b'{"ts":"}', b'{"}', b'{"ts":1},{"ts":2}']

numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 2**53)
anything: st.SearchStrategy[Any] = st.recursive(
    numbers | st.booleans() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Readings, most of them whole, among further fields, in any layout."""
    content = draw(st.dictionaries(st.text(max_size=3), anything, max_size=3))
    content |= {"ts": draw(st.integers(0, 2**52)), "a": draw(numbers)}
    if draw(st.booleans()):
        content["v"] = draw(st.lists(numbers, min_size=2, max_size=2))
    spoiled = draw(st.sampled_from(["", "", "", "a", "v", "ts"]))
    if spoiled:
        content[spoiled] = draw(anything)
    return json.dumps(content, indent=draw(st.sampled_from([None, 1]))).encode()


values = documents() | st.sampled_from(HALVES) | st.binary(max_size=9) | st.none()


@given(st.lists(values, max_size=12))
def test_a_message_means_the_same_alone_and_in_a_batch(batch: Sequence[bytes | None]) -> None:
    decoded = CODEC.decode(batch)
    alone = [CODEC.decode([value]) for value in batch]
    good = [place for place, one in enumerate(alone) if not one.bad]
    assert decoded.places().tolist() == good
    np.testing.assert_array_equal(
        decoded.numbers, np.concatenate([np.zeros((0, 5)), *(one.numbers for one in alone)])
    )
    bad = [(place, *one.bad[0][1:]) for place, one in enumerate(alone) if one.bad]
    assert [tuple(b) for b in decoded.bad] == bad


def plain(value: Any) -> bool:
    return value is None or type(value) in (int, float)


@given(documents())
def test_decodes_what_json_says(value: bytes) -> None:
    """Against Python's own parser, and a plain statement of which types are right."""
    content = json.loads(value)
    vector = content.get("v") if content.get("v") is not None else [None, None]
    right = isinstance(vector, list) and len(vector) == 2 and all(map(plain, vector))
    right = right and plain(content["a"]) and plain(content.get("b"))
    right = right and plain(content["ts"]) and content["ts"] is not None
    decoded = CODEC.decode([value])
    assert bool(decoded.bad) != right
    if right:
        expected = [content["ts"], content["a"], *vector, content.get("b")]
        np.testing.assert_array_equal(decoded.numbers[0], np.array(expected, dtype=np.float64))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "malformed"),
        (b"  ", "malformed"),
        (b"hello", "malformed"),
        (b'{"ts":1', "malformed"),
        (b'{"ts":1}{"ts":2}', "malformed"),
        (b'{"ts":1},{"ts":2}', "malformed"),
        (b'{"ts":1}\n{"ts":2}', "malformed"),
        (b'\xef\xbb\xbf{"ts":1}', "malformed"),
        (b'{"ts":1,"a":Nan}', "malformed"),
        (b'{"ts":1,"a":NaN', "malformed"),
        (b'{"ts":1,"q":' + b"[" * 60_000 + b"]" * 60_000 + b"}", "oversized"),
        (b'{"ts":1,"q":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "malformed"),
        (b'{"ts":1,"q":"' + b"x" * 70_000 + b'"}', "oversized"),
        (b"[1,2]", "wrong_type"),
        (b"null", "wrong_type"),
        (b'{"ts":"now"}', "wrong_type"),
        (b'{"ts":null}', "wrong_type"),
        (b'{"ts":true}', "wrong_type"),
        (b'{"ts":1,"a":"3.5"}', "wrong_type"),
        (b'{"ts":1,"v":3}', "wrong_type"),
        (b'{"ts":1,"v":[1,"x"]}', "wrong_type"),
        (b'{"ts":1,"a":1e999}', "wrong_type"),
        (b'{"ts":1,"v":[1]}', "wrong_length"),
        (b'{"ts":1,"v":[1,2,3]}', "wrong_length"),
        (b'{"ts":1,"v":[1,2,NaN]}', "wrong_length"),
        (b'{"a":1}', "missing_field"),
        (b"{}", "missing_field"),
        (b'{"a":NaN}', "missing_field"),
    ],
)
def test_reasons(value: bytes | None, reason: str) -> None:
    decoded = CODEC.decode([b'{"ts":5}', value, b'{"ts":6}'])
    assert [(b.place, b.reason) for b in decoded.bad] == [(1, reason)]
    assert decoded.bad[0].detail
    assert reason in REASONS
    assert decoded.numbers[:, 0].tolist() == [5, 6]


def test_missing_null_and_nan_are_missing() -> None:
    texts = ['{"ts":1}', '{"ts":1,"a":null,"v":null}', '{"ts":1,"a":NaN,"v":[NaN,2]}']
    decoded = CODEC.decode([text.encode() for text in texts])
    assert not decoded.bad
    expected = [[1, *[np.nan] * 4], [1, *[np.nan] * 4], [1, np.nan, np.nan, 2, np.nan]]
    np.testing.assert_array_equal(decoded.numbers, expected)


def test_infinity_is_a_number_that_the_range_refuses() -> None:
    value = json.dumps({"ts": 1, "a": math.inf}).encode()
    assert CODEC.decode([value]).numbers[0, 1] == math.inf


def test_an_empty_batch_has_its_columns() -> None:
    assert CODEC.decode([]).numbers.shape == (0, 5)
    assert JsonCodec(FIELDS[:2]).decode([b"?"]).numbers.shape == (0, 2)


# sensors

SPEC = """
system: zoo
tick: 1 s
sensors:
  s:
    time: {{field: at, unit: {unit}}}
    every: 1 s
    max_age: 9 s
    channels:
{channels}
actions:
  u: {{unit: m, low: -1, high: 1}}
  w: {{unit: m, low: -1, high: 1, shape: [2]}}
fallback: {{kind: value}}
budget: {{tiers: {{one: {{candidates: 5, horizon: 2, iterations: 1}}}}}}
"""


def spec_with(*channels: str, unit: str = "us") -> SystemSpec:
    lines = "\n".join(f"      {channel}" for channel in channels)
    return parse_spec(SPEC.format(unit=unit, channels=lines))


SCALAR = "a: {unit: m, range: [0, 1]}"


@pytest.mark.parametrize(("unit", "per_us"), [("s", 1e-6), ("ms", 1e-3), ("us", 1), ("ns", 1_000)])
@given(time_us=st.integers(0, 4_000_000_000_000_000))
@example(time_us=2_547_561_474_733_619)
@settings(max_examples=50)
def test_times_are_exact_to_the_microsecond(unit: str, per_us: float, time_us: int) -> None:
    decoder = SensorDecoder(spec_with(SCALAR, unit=unit).sensors["s"])
    written = time_us * per_us if per_us >= 1 else time_us / round(1 / per_us)
    rows = decoder.decode(np.array([7]), [msgspec.json.encode({"at": written, "a": 1})])
    assert rows.time_us.tolist() == [time_us]
    assert rows.entity.tolist() == [7]


@pytest.mark.parametrize("text", ["1e300", "-1e300", "9" * 30])
def test_absurd_times_stay_absurd(text: str) -> None:
    rows = SensorDecoder(spec_with(SCALAR).sensors["s"]).decode(
        np.array([0]), [b'{"at":%b}' % text.encode()]
    )
    assert abs(rows.time_us[0]) > 10**18


def test_a_time_that_is_no_number_is_missing() -> None:
    rows = SensorDecoder(spec_with(SCALAR).sensors["s"]).decode(
        np.array([0, 1, 2]), [b'{"at":NaN,"a":1}', b'{"at":3,"a":1}', b"x"]
    )
    assert {(b.place, b.reason) for b in rows.bad} == {(0, "missing_field"), (2, "malformed")}
    assert (rows.places.tolist(), rows.entity.tolist(), rows.time_us.tolist()) == ([1], [1], [3])


def test_columns_stand_in_the_order_of_the_spec() -> None:
    spec = spec_with(
        "top: {field: r, unit: m, range: [0, 9], align: max}",
        "v: {field: vec, unit: m, range: [0, 9], shape: [2]}",
        "average: {field: r, unit: m, range: [0, 9], align: mean}",
        "when: {field: at, unit: us, range: [0, 1e9]}",
    )
    decoder = SensorDecoder(spec.sensors["s"])
    rows = decoder.decode(np.array([0]), [b'{"vec":[1,2],"r":5,"at":7}'])
    assert rows.values.tolist() == [[5, 1, 2, 5, 7]]


def test_one_field_with_two_shapes_is_refused() -> None:
    spec = spec_with(
        "a: {field: r, unit: m, range: [0, 9]}", "v: {field: r, unit: m, range: [0, 9], shape: [2]}"
    )
    with pytest.raises(ValueError, match="field 'r'"):
        SensorDecoder(spec.sensors["s"])


def test_reports() -> None:
    spec = spec_with(SCALAR)
    values = {"u": 0.5, "w[0]": -0.25, "w[1]": 1.0}
    applied = Applied("id", "ant", 41, values, 3, 99)
    rows = ReportDecoder(spec, "tick", "status").decode(
        np.array([4, 5, 6]),
        [
            encode(applied),
            encode(Applied("id", "ant", 42, {"u": math.nan}, 1, 100)),
            b'{"tick":1.5,"status":1,"time":3,"values":{}}',
        ],
    )
    assert rows.entity.tolist() == [4, 5]
    assert rows.rest.tolist() == [[41, 3], [42, 1]]
    assert rows.time_us.tolist() == [99, 100]
    np.testing.assert_array_equal(rows.values, [[0.5, -0.25, 1.0], [np.nan] * 3])
    assert [(b.place, b.reason) for b in rows.bad] == [(2, "wrong_type")]
    issued = Action("id", "zoo", "ant", 8, 77, values, 100, 0, 0)
    rows = ReportDecoder(spec, "tick").decode(np.array([1]), [encode(issued)])
    assert (rows.rest.tolist(), rows.time_us.tolist()) == ([[8]], [77])


# keys


def test_keys_become_rows() -> None:
    entities = Entities(4)
    keys = KeyRows(entities.intern)
    rows = keys.rows([b"ant", b"bee", b"ant", None, b"", b"\xff", b"x" * (MAX_KEY + 1), b"bee"])
    assert rows.tolist() == [0, 1, 0, -1, -2, -4, -3, 1]
    assert entities.names == ["ant", "bee"]
    found = [(b.place, b.reason) for b in bad_keys(rows)]
    assert found == [(3, "no_key"), (4, "empty_key"), (5, "bad_key"), (6, "long_key")]
    assert {reason for _, reason in found} <= REASONS.keys()
    assert len(keys) == 2, "keys that name nothing are not remembered"


def test_new_keys_of_a_batch_get_their_room_at_once() -> None:
    entities = Entities(4)
    batches: list[list[str]] = []

    def intern(names: Sequence[str]) -> Ints:
        batches.append(list(names))
        return entities.intern(names)

    keys = KeyRows(intern)
    rows = keys.rows([b"ant", b"bee", None, b"\xff", b"ant", b"cat"])
    assert rows.tolist() == [0, 1, -1, -4, 0, 2]
    assert keys.rows([b"cat", b"dog"]).tolist() == [2, 3]
    assert batches == [["ant", "bee", "cat"], ["dog"]]


@given(st.lists(st.text(min_size=1, max_size=4), max_size=20))
def test_equal_keys_have_equal_rows(names: list[str]) -> None:
    entities = Entities(4)
    keys = KeyRows(entities.intern)
    rows = keys.rows([name.encode() for name in names])
    assert [entities.names[row] for row in rows] == names
