"""Batches that are stamped are those that Arrow writes, to the byte."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from schemas import arrow_io
from schemas.arrow_stamp import Stamp

SCHEMA = pa.schema(
    [
        ("entity", pa.string()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("a", pa.float32()),
        ("b", pa.float32()),
        ("c", pa.float32()),
        ("code", pa.uint8()),
    ]
)


def names_of(rows: int) -> tuple[str, ...]:
    return tuple(f"é{number}" * (number % 3) for number in range(rows))


def blocks_of(rows: int, seed: int = 0) -> list[npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(rows, 2))
    numbers[rng.random((rows, 2)) < 0.2] = np.nan
    return [
        numbers,
        rng.random((rows, 3)).astype(np.float32),
        rng.integers(0, 255, rows).astype(np.uint8),
    ]


def by_arrow(names: Sequence[str], blocks: Sequence[npt.NDArray[Any]], header: bytes) -> bytes:
    first, second, third = blocks
    columns = [pa.array(np.ascontiguousarray(c)) for c in (*first.T, *second.T, third)]
    arrays = [pa.array(names, pa.string()), *columns]
    return arrow_io.write_batch(SCHEMA, arrays, {arrow_io.HEADER_KEY: header})


@pytest.mark.parametrize("rows", [*range(10), 17, 50, 63, 64, 65, 1001])
def test_bytes_are_those_of_arrow(rows: int) -> None:
    stamp, names = Stamp(SCHEMA), names_of(rows)
    for seed in range(3):
        for header in (b"{}", b'{"tick":9}', b'{"tick":10}', b'{"left":["a"]}' * seed * 99):
            blocks = blocks_of(rows, seed)
            assert stamp.write(names, blocks, header) == by_arrow(names, blocks, header)


def test_names_of_as_many_rows_are_told_apart() -> None:
    stamp, blocks = Stamp(SCHEMA), blocks_of(2)
    for names in (("a", "b"), ("b", "a"), ("aa", ""), ("a", "b")):
        assert stamp.write(names, blocks, b"{}") == by_arrow(names, blocks, b"{}")


def test_rows_need_not_lie_one_after_the_other() -> None:
    stamp, names = Stamp(SCHEMA), names_of(7)
    whole = blocks_of(14)
    blocks = [block[::2] for block in whole]
    assert stamp.write(names, blocks, b"{}") == by_arrow(names, blocks, b"{}")
    columns = [np.asfortranarray(block) for block in blocks]
    assert stamp.write(names, columns, b"{}") == by_arrow(names, blocks, b"{}")


def test_what_does_not_fit_the_schema_is_left_to_arrow() -> None:
    stamp, names = Stamp(SCHEMA), names_of(4)
    first, second, third = blocks_of(4)
    for _ in range(2):  # before the names are known, and after
        assert stamp.write(names, [first[:, :1], second, third], b"{}") is None
        assert stamp.write(names, [first[:3], second, third], b"{}") is None
        assert stamp.write(names, [first, second, third], b"{}") is not None


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.arrow_stamp._KNOWN", 3)
    stamp, blocks = Stamp(SCHEMA), blocks_of(1)
    for number in range(20):
        names, header = (str(number),), b"x" * (number + 2)
        assert stamp.write(names, blocks, header) == by_arrow(names, blocks, header)
        assert len(stamp._fronts) <= 3
        assert len(stamp._heads) <= 3
