"""Arrow IPC streams: every message is a table, every row of it a reading, columns taken by name.

What comes from outside is looked at before Arrow allocates for it: compressed buffers, which a few
bytes can blow up to any size, are refused, and so are more rows than a message may have.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.registry import Registry
from schemas.arrow_messages import CompressedError, refuse_compressed
from schemas.formats import ArrowFormat
from schemas.spec_parts import SensorSpec
from streams.align_state import Floats
from streams.codecs.base import (
    MAX_BYTES,
    Bad,
    Decoded,
    Field,
    Refused,
    check_count,
    check_size,
    joined,
)
from streams.codecs.schemas import Schemas

_PER_S: Final = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


class ArrowCodec:
    """Reads `fields` of the rows of each message; times in units of 1 / `per_s` seconds.

    A message is used as a whole or not at all.
    """

    def __init__(self, fields: Sequence[Field], per_s: float = 1.0) -> None:
        self._fields, self._per_s = list(fields), per_s
        self._width = sum(field.width for field in fields)

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """[n, columns] of all rows; see `Decoded`."""
        parts, bad = [], []
        for place, value in enumerate(values):
            try:
                numbers = self._numbers(check_size(value, MAX_BYTES))
            except Refused as refused:
                bad.append(Bad(place, refused.reason, refused.detail))
            except Exception as error:  # Arrow's own kinds, and what odd bytes make of the rest
                bad.append(Bad(place, "malformed", f"{type(error).__name__}: {error}"[:1_000]))
            else:
                parts.append((np.full(len(numbers), place, dtype=np.int64), numbers))
        places = [len(part[0]) for part in parts]
        if not bad and places == [1] * len(values):
            return Decoded(
                np.concatenate([np.zeros((0, self._width)), *(p[1] for p in parts)]), None, []
            )
        return joined(self._width, parts, bad)

    def awaits(self, values: Sequence[bytes | None]) -> int | None:
        """None: a stream begins with its schema."""

    def _numbers(self, value: bytes) -> Floats:
        """[rows, columns] of one message. Raises `Refused`, or whatever Arrow does."""
        data = pa.py_buffer(value)
        try:
            refuse_compressed(data)
        except CompressedError as error:
            raise Refused("oversized", str(error)) from error
        found: list[Floats] = []
        with pa.ipc.open_stream(data) as reader:
            for batch in reader:
                check_count(batch.num_rows + sum(map(len, found)))
                found.append(self._batch(batch))
        if not found:
            return np.zeros((0, self._width))
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _batch(self, batch: pa.RecordBatch) -> Floats:
        result = np.full((batch.num_rows, self._width), np.nan)
        begin = 0
        for field in self._fields:
            column = _column(batch, field)
            if column is not None:
                column.validate(full=True)
                result[:, begin : begin + field.width] = self._values(field, column)
            begin += field.width
        return result

    def _values(self, field: Field, column: pa.Array) -> Floats:
        """[rows, width] of a column. Raises `Refused`."""
        kind = column.type
        if field.size is None:
            if pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
                numbers = _floats(column.cast(pa.int64()))
                return (numbers * (self._per_s / _PER_S[kind.unit]))[:, None]
            if not _is_number(kind):
                raise Refused("wrong_type", f"{field.name} is {kind}, where a number is read")
            return _floats(column)[:, None]
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        if not (lists or pa.types.is_fixed_size_list(kind)) or not _is_number(kind.value_type):
            raise Refused("wrong_type", f"{field.name} is {kind}, where a vector is read")
        there = column.is_valid().to_numpy(zero_copy_only=False)
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        if (wrong := lengths[there] != field.size).any():
            length = int(lengths[there][wrong][0])
            detail = f"{field.name} has {length} components, where {field.size} are read"
            raise Refused("wrong_length", detail)
        result = np.full((len(column), field.size), np.nan)
        result[there] = _floats(column.drop_null().flatten()).reshape(-1, field.size)
        return result


def _column(batch: pa.RecordBatch, field: Field) -> pa.Array | None:
    """The column of a field, through structs where its name is a path. Raises `Refused`."""
    names = [field.name] if batch.schema.get_field_index(field.name) >= 0 else field.name.split(".")
    index = batch.schema.get_field_index(names[0])
    column = batch.column(index) if index >= 0 else None
    for name in names[1:]:
        if column is None or not pa.types.is_struct(column.type):
            column = None
            break
        column.validate(full=True)
        column = pc.struct_field(column, name) if column.type.get_field_index(name) >= 0 else None
    if column is None or pa.types.is_null(column.type):
        if field.required:
            raise Refused("missing_field", f"its schema has no column {field.name!r}")
        return None
    return column


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_decimal(kind)
    )


def _floats(column: pa.Array) -> Floats:
    """[n] nulls as NaN."""
    cast = pc.cast(column, pa.float64(), safe=False)
    return np.asarray(cast.to_numpy(zero_copy_only=False), dtype=np.float64)


class ArrowWriter:
    """Readings as streams of one row each."""

    def __init__(self, sensor: SensorSpec) -> None:
        vectors = {c.field: pa.list_(pa.float64()) for c in sensor.channels.values() if c.shape}
        time = pa.float64() if sensor.time.unit == "s" else pa.int64()
        self._types: dict[str, Any] = {**vectors, sensor.time.field: time}

    def encode(self, fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[bytes]:
        """A message per row; a row has a member per field."""
        kinds = [(name, self._types.get(name, pa.float64())) for name in fields]
        schema = pa.schema(kinds)
        arrays = [
            pa.array(column, type=kind)
            for (_, kind), column in zip(kinds, zip(*rows, strict=True), strict=True)
        ]
        table = pa.RecordBatch.from_arrays(arrays, schema=schema) if rows else None
        return [_stream(table.slice(i, 1)) for i in range(len(rows))] if table is not None else []


def _stream(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return bytes(sink.getvalue())


def codec(sensor: SensorSpec, fields: Sequence[Field], _: Schemas) -> ArrowCodec:
    """What reads `fields` of a sensor's messages."""
    assert isinstance(sensor.codec, ArrowFormat)
    return ArrowCodec(fields, 1e6 / sensor.time.microseconds)


def writer(sensors: Sequence[SensorSpec], _: Registry | None) -> ArrowWriter:
    """What a plant writes with."""
    return ArrowWriter(sensors[0])
