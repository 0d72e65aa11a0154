"""JSON by msgspec: the fields that are read are checked as they are decoded, all others skipped.

Each message is decoded by itself, in one call per batch: msgspec takes as long for a message of its
own as for one in a joined array, and so no message can lean on its neighbour.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from infra.registry import Registry
from schemas.formats import ITSELF, JsonFormat
from schemas.spec_parts import SensorSpec
from streams.align_state import Floats
from streams.codecs.base import (
    Bad,
    Decoded,
    Field,
    Refused,
    check_count,
    check_size,
    numbers_of,
    repeated,
    size_limit,
)
from streams.codecs.schemas import Schemas

_EXACT: Final = 2**53  # whole numbers up to here are exact in a float64


class JsonCodec:
    """JSON objects: the fields that are read are checked, all others are passed over.

    `NaN` and `Infinity`, which JSON does not have but some writers make, are understood. `records`:
    the field that holds a list of readings, `.` where the message is the list. A message is used as
    a whole or not at all.
    """

    def __init__(self, fields: Sequence[Field], records: str | None = None) -> None:
        self._fields, self._many = list(fields), records is not None
        self._limit = size_limit(fields, self._many)
        self._scalar = all(field.size is None for field in fields)
        struct, names = _struct_of(self._fields)
        self._type: Any = struct
        self._list: Callable[[Any], Any] = _same
        if records is not None:
            self._type = list[struct]  # type: ignore[valid-type]
        if records is not None and records != ITSELF:
            self._type = msgspec.defstruct("Readings", [("r", self._type)], rename={"r": records})
            self._list = attrgetter("r")
        self._decode = msgspec.json.Decoder(self._type).decode
        flat = all(field.group is None for field in fields)
        self._row: Callable[[Any], tuple[Any, ...]] = (
            msgspec.structs.astuple if flat else attrgetter(*names)
        )

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """[n, columns] of what can be decoded; see `Decoded`."""
        try:
            if max(map(len, values), default=0) <= self._limit:  # type: ignore[arg-type]
                return self._decoded(list(map(self._decode, values)), None, [])  # type: ignore[arg-type]
        except (TypeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError, Refused):
            pass  # one of them cannot be decoded: each is looked at
        return self._one_by_one(values)

    def awaits(self, values: Sequence[bytes | None]) -> int | None:
        """None: JSON needs no schema."""

    def _decoded(self, items: Sequence[Any], kept: Any, bad: list[Bad]) -> Decoded:
        if not self._many:
            return Decoded(self._numbers(items), kept, bad)
        lists = list(map(self._list, items))
        check_count(max(map(len, lists), default=0))
        places = np.arange(len(lists)) if kept is None else kept
        everything = list(chain.from_iterable(lists))
        return Decoded(self._numbers(everything), repeated(places, lists), bad)

    def _numbers(self, items: Sequence[Any]) -> Floats:
        if self._scalar:  # no list of all rows: it costs a fifth of the time
            with suppress(TypeError):  # a null among them
                flat = chain.from_iterable(map(self._row, items))
                count, width = len(items), len(self._fields)
                return np.fromiter(flat, np.float64, count * width).reshape(count, width)
        return numbers_of(self._fields, list(map(self._row, items)))

    def _one_by_one(self, values: Sequence[bytes | None]) -> Decoded:
        items, kept, bad = [], [], []
        for place, value in enumerate(values):
            try:
                items.append(self._single(value))
                kept.append(place)
            except Refused as refused:
                bad.append(Bad(place, refused.reason, refused.detail))
        return self._decoded(items, np.array(kept, dtype=np.int64), bad)

    def _single(self, value: bytes | None) -> Any:
        """One message. Raises `Refused`."""
        found = self._parsed(check_size(value, self._limit))
        if self._many:
            check_count(len(self._list(found)))
        return found

    def _parsed(self, value: bytes) -> Any:
        try:
            return self._decode(value)
        except msgspec.ValidationError as error:
            raise Refused(_validation_reason(error), str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if b"NaN" in value or b"Infinity" in value:
                return self._python_json(value)
            raise Refused("malformed", str(error)) from error

    def _python_json(self, value: bytes) -> Any:
        try:
            return msgspec.convert(json.loads(value.decode()), self._type)
        except msgspec.ValidationError as error:
            raise Refused(_validation_reason(error), str(error)) from error
        except (ValueError, RecursionError) as error:
            raise Refused("malformed", str(error)) from error


class JsonWriter:
    """Readings as JSON messages, one each."""

    def __init__(self, records: str | None = None) -> None:
        self._records = records
        self._encode = msgspec.json.Encoder().encode

    def encode(self, fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[bytes]:
        """A message per row; a row has a member per field."""
        encode, records = self._encode, self._records
        readings = (dict(zip(fields, row, strict=True)) for row in rows)
        if records is None:
            return list(map(encode, readings))
        if records == ITSELF:
            return [encode([reading]) for reading in readings]
        return [encode({records: [reading]}) for reading in readings]


def _same(item: Any) -> Any:
    return item


def _struct_of(fields: Sequence[Field]) -> tuple[type[msgspec.Struct], list[str]]:
    """A struct with members `f0`, `f1`, … for `fields`, and the path of each member in it."""
    groups: dict[str | None, list[int]] = {}
    for number, field in enumerate(fields):
        groups.setdefault(field.group, []).append(number)
    paths = [""] * len(fields)
    members: list[Any] = []
    names: dict[str, str] = {}
    for group, numbers in groups.items():
        inner = [_member(f"f{number}", fields[number]) for number in numbers]
        rename = {f"f{number}": fields[number].name for number in numbers}
        for number in numbers:
            paths[number] = f"f{number}" if group is None else f"{group}.f{number}"
        if group is None:
            members += inner
            names |= rename
        else:
            nested = msgspec.defstruct(group, inner, rename=rename, kw_only=True, gc=False)
            members.append((group, nested))
    return msgspec.defstruct("Message", members, rename=names, kw_only=True, gc=False), paths


def _member(name: str, field: Field) -> Any:
    number: Any = float
    if field.whole:
        number = Annotated[int, msgspec.Meta(ge=-_EXACT, le=_EXACT)]
    if field.required:
        return (name, number if field.size is None else tuple[(number,) * field.size])  # type: ignore[misc]
    if field.size is None:
        return (name, number | None, np.nan)
    vector: Any = tuple[(number | None,) * field.size]  # type: ignore[misc]
    return (name, vector | None, None)


def _validation_reason(error: msgspec.ValidationError) -> str:
    text = str(error)
    if "missing required field" in text:
        return "missing_field"
    return "wrong_length" if "of length" in text else "wrong_type"


def codec(sensor: SensorSpec, fields: Sequence[Field], _: Schemas) -> JsonCodec:
    """What reads `fields` of a sensor's messages."""
    assert isinstance(sensor.codec, JsonFormat)
    return JsonCodec(fields, sensor.codec.records)


def writer(sensors: Sequence[SensorSpec], _: Registry | None) -> JsonWriter:
    """What a plant writes with."""
    form = sensors[0].codec
    assert isinstance(form, JsonFormat)
    return JsonWriter(form.records)
