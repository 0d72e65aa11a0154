"""Packed numbers: what struct packed comes out; any other length gets a reason."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.codecs.base import MAX_READINGS
from streams.codecs.raw_codec import codec
from streams.codecs.schemas import Schemas
from tests.streams.codecs.sensors import FIELDS, sensor

LAYOUT = {"ts": "<i8", "a": "<f4", "pad": "V4", "v": "(2,)<f8", "b": ">u2"}
ONE = codec(sensor({"raw": {"fields": LAYOUT}}), FIELDS, Schemas())
MANY = codec(sensor({"raw": {"fields": LAYOUT, "many": True}}), FIELDS, Schemas())
Row = tuple[int, float, float, float, int]
floats = st.floats(width=32, allow_nan=False)
rows = st.tuples(st.integers(-(2**52), 2**52), floats, floats, floats, st.integers(0, 65_535))


def packed(row: Row) -> bytes:
    ts, a, v, w, b = row
    return struct.pack("<qf4xdd", ts, a, v, w) + struct.pack(">H", b)


@given(st.lists(rows, max_size=6))
def test_round_trip_against_struct(content: Sequence[Row]) -> None:
    found = ONE.decode(list(map(packed, content)))
    assert not found.bad
    np.testing.assert_array_equal(found.numbers, np.array(content, dtype=float).reshape(-1, 5))


@given(st.lists(st.lists(rows, min_size=1, max_size=3) | st.binary(max_size=80), max_size=6))
def test_several_in_a_row_among_what_is_none(content: Sequence[Sequence[Row] | bytes]) -> None:
    size = len(packed((0, 0, 0, 0, 0)))
    values = [c if isinstance(c, bytes) else b"".join(map(packed, c)) for c in content]
    found = MANY.decode(values)
    bad = [i for i, value in enumerate(values) if not value or len(value) % size]
    assert [b.place for b in found.bad] == bad
    counts = [0 if i in bad else len(value) // size for i, value in enumerate(values)]
    assert found.places().tolist() == [i for i, n in enumerate(counts) for _ in range(n)]
    for i, one in enumerate(content):
        if not isinstance(one, bytes):
            mine = found.numbers[found.places() == i]
            np.testing.assert_array_equal(mine, np.array(one, dtype=float))


def test_reasons() -> None:
    good = packed((1, 2, 3, 4, 5))
    values = [None, b"", good[:-1], good + b"x", good * 2, good, good * 40_000]
    found = {b.place: b.reason for b in ONE.decode(values).bad}
    assert found == {
        0: "tombstone",
        1: "truncated",
        2: "truncated",
        3: "malformed",
        4: "malformed",
        6: "oversized",
    }
    found = {b.place: b.reason for b in MANY.decode([good * 2, good * (MAX_READINGS + 1)]).bad}
    assert found == {1: "oversized"}


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"a": "<f8"}, "no 'ts'"),
        ({**LAYOUT, "a": "V4"}, "no number"),
        ({**LAYOUT, "a": "(2,)<f4"}, "another size"),
        ({**LAYOUT, "v": "(3,)<f4"}, "another size"),
    ],
)
def test_a_layout_that_does_not_fit_the_channels_is_refused(
    fields: dict[str, str], word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        codec(sensor({"raw": {"fields": fields}}), FIELDS, Schemas())
