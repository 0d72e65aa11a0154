"""Packed numbers: every message is one reading of a fixed NumPy structure, or several in a row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.registry import Registry
from schemas.formats import RawFormat
from schemas.spec_parts import SensorSpec
from streams.align_state import Floats
from streams.codecs.base import (
    MAX_READINGS,
    Bad,
    Decoded,
    Field,
    Refused,
    check_count,
    check_size,
    size_limit,
)
from streams.codecs.schemas import Schemas


class RawCodec:
    """Reads `fields` of a packed structure; a batch is one array, whatever it is cut into."""

    def __init__(self, fields: Sequence[Field], form: RawFormat) -> None:
        self._dtype, self._many = form.dtype, form.many
        self._fields = list(fields)
        for field in fields:
            found = self._dtype.fields and self._dtype.fields.get(field.name)
            if not found:
                raise ValueError(f"its raw fields have no {field.name!r}")
            if found[0].base.kind == "V":
                raise ValueError(f"its raw field {field.name!r} is no number")
            if found[0].shape != (() if field.size is None else (field.size,)):
                text = form.fields[field.name]
                raise ValueError(
                    f"its raw field {field.name!r} is {text}, the spec's has another size"
                )
        self._limit = size_limit(fields, True)

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """[n, columns] of all readings; see `Decoded`."""
        size = self._dtype.itemsize
        try:
            lengths = set(map(len, values))  # type: ignore[arg-type]
        except TypeError:  # one without a value
            lengths = set()
        if lengths == {size}:
            return Decoded(self._numbers(b"".join(values)), None, [])  # type: ignore[arg-type]
        good: list[bytes] = []
        kept: list[int] = []
        counts: list[int] = []
        bad: list[Bad] = []
        for place, value in enumerate(values):
            try:
                counts.append(self._count(value))
                kept.append(place)
                good.append(value or b"")
            except Refused as refused:
                bad.append(Bad(place, refused.reason, refused.detail))
        places = np.repeat(np.array(kept, dtype=np.int64), np.array(counts, dtype=np.int64))
        return Decoded(self._numbers(b"".join(good)), places, bad)

    def awaits(self, values: Sequence[bytes | None]) -> int | None:
        """None: its schema is in the spec."""

    def _count(self, value: bytes | None) -> int:
        """Readings of a message. Raises `Refused`."""
        size = self._dtype.itemsize
        length = len(check_size(value, max(self._limit, size * MAX_READINGS)))
        if length < size or length % size:
            reason = "truncated" if length < size else "malformed"
            raise Refused(reason, f"{length} bytes, where a reading has {size}")
        if not self._many and length != size:
            raise Refused("malformed", f"{length} bytes, where its one reading has {size}")
        check_count(length // size)
        return length // size

    def _numbers(self, data: bytes) -> Floats:
        rows: npt.NDArray[Any] = np.frombuffer(data, dtype=self._dtype)
        parts = [rows[field.name].reshape(len(rows), field.width) for field in self._fields]
        return np.concatenate(parts, axis=1, dtype=np.float64, casting="unsafe")


class RawWriter:
    """Readings as packed structures, one each."""

    def __init__(self, form: RawFormat) -> None:
        self._dtype = form.dtype

    def encode(self, fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[bytes]:
        """A message per row; a row has a member per field."""
        packed = np.zeros(len(rows), dtype=self._dtype)
        for field, column in zip(fields, zip(*rows, strict=True), strict=True):
            kind = self._dtype[field]
            numbers = np.array(column)
            packed[field] = np.rint(numbers) if kind.base.kind in "iu" else numbers
        return [row.tobytes() for row in packed]


def codec(sensor: SensorSpec, fields: Sequence[Field], _: Schemas) -> RawCodec:
    """What reads `fields` of a sensor's messages."""
    assert isinstance(sensor.codec, RawFormat)
    return RawCodec(fields, sensor.codec)


def writer(sensors: Sequence[SensorSpec], _: Registry | None) -> RawWriter:
    """What a plant writes with."""
    form = sensors[0].codec
    assert isinstance(form, RawFormat)
    return RawWriter(form)
