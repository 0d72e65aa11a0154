"""Protocol Buffers: messages read and written by Google's own library.

Fields are taken by name. One without presence that is not sent is zero, as Protobuf has it, but
for the time, without which a reading means nothing. `google.protobuf.Timestamp`, `Duration` and
the wrappers (`DoubleValue`, …) count as numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, Final

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from infra.registry import Registry, Schema
from schemas.formats import ProtobufFormat
from schemas.spec_parts import SensorSpec
from streams.codecs.base import Field, Refused
from streams.codecs.protobuf_types import compiled, index_of, type_index, type_of
from streams.codecs.schemas import Schemas
from streams.codecs.typed import Compiler, Path, Reader, TypedCodec, by_name
from streams.codecs.writing import WireWriter, identifier, number_kind, typed_rows

_TIMES: Final = ("google.protobuf.Timestamp", "google.protobuf.Duration")
_WRAPPERS: Final = tuple(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool")
)
_WHOLE: Final = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
    FieldDescriptor.CPPTYPE_BOOL,
    FieldDescriptor.CPPTYPE_ENUM,
)
_NUMBERS: Final = (*_WHOLE, FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_TYPES: Final[Mapping[int, str]] = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}
Take = Callable[[Any], Any]


def codec(sensor: SensorSpec, fields: Sequence[Field], schemas: Schemas) -> TypedCodec:
    """What reads `fields` of a sensor's messages."""
    form = sensor.codec
    assert isinstance(form, ProtobufFormat)
    per_s = 1e6 / sensor.time.microseconds

    def compiled(schema: Schema, path: Path) -> Reader:
        found = type_of(schema, path, form.message)
        return reader_of(found, fields, form.records, per_s)

    return TypedCodec(fields, form, "PROTOBUF", Compiler(compiled, type_index), schemas)


# rows


def reader_of(
    message: Descriptor, fields: Sequence[Field], records: str | None, per_s: float
) -> Reader:
    """What reads `fields` of messages of a type; times are given in units of 1 / `per_s` seconds.

    Raises `Refused`.
    """
    parse = message_factory.GetMessageClass(message).FromString
    if records is None:
        present, row = _row_of(message, fields, per_s)
        return Reader(present, lambda value: row(parse(value)))
    found = _field_at(message, tuple(records.split(".")))
    if found is None or not found.is_repeated or found.message_type is None:
        raise Refused("bad_schema", f"{message.full_name} has no repeated messages at {records!r}")
    present, row = _row_of(found.message_type, fields, per_s)
    listed = attrgetter(records)
    return Reader(present, lambda value: list(map(row, listed(parse(value)))))


def _field_at(message: Descriptor, path: Path) -> FieldDescriptor | None:
    """The field at a path of message fields; None where there is none."""
    found: FieldDescriptor | None = None
    inside: Descriptor | None = message
    for name in path:
        if inside is None or (found is not None and found.is_repeated):
            return None
        found = inside.fields_by_name.get(name)
        if found is None:
            return None
        inside = found.message_type
    return found


def _row_of(
    message: Descriptor, fields: Sequence[Field], per_s: float
) -> tuple[list[int], Callable[[Any], Sequence[Any]]]:
    present: list[int] = []
    names: list[str] = []
    changes: list[tuple[int, Take]] = []
    for number, path in by_name(fields).items():
        found = _field_at(message, path)
        if found is None:
            continue
        change = _change(fields[number], found, path, message, per_s)
        if change is not None:
            changes.append((len(present), change))
        present.append(number)
        names.append(".".join(path))
    if len(names) < 2:  # attrgetter gives one value as it is
        return present, _changed(lambda m: tuple(attrgetter(name)(m) for name in names), changes)
    return present, _changed(attrgetter(*names), changes)


def _changed(take: Take, changes: Sequence[tuple[int, Take]]) -> Callable[[Any], Sequence[Any]]:
    if not changes:
        return take

    def row(message: Any) -> Sequence[Any]:
        values = list(take(message))
        for place, change in changes:
            values[place] = change(message)
        return values

    return row


def _change(
    field: Field, found: FieldDescriptor, path: Path, message: Descriptor, per_s: float
) -> Take | None:
    """What gives a field's value where it is not simply its attribute. Raises `Refused`."""
    get = attrgetter(".".join(path))
    value = _value(field, found, get, per_s)
    holders: list[tuple[Take, str]] = []  # what has to be there
    for depth in range(1, len(path) + 1):
        part = _field_at(message, path[:depth])
        if part is not None and part.has_presence:
            above = path[: depth - 1]
            holders.append((attrgetter(".".join(above)) if above else _same, path[depth - 1]))
    if not holders:
        return value if value is not None or not field.required else _unless_zero(get)

    def present(of: Any) -> Any:
        if all(holder(of).HasField(name) for holder, name in holders):
            return value(of) if value is not None else get(of)
        return None

    return present


def _value(field: Field, found: FieldDescriptor, get: Take, per_s: float) -> Take | None:
    kind = found.message_type.full_name if found.message_type is not None else ""
    if field.size is not None:
        if not found.is_repeated or found.cpp_type not in _NUMBERS:
            raise Refused("wrong_type", f"{field.name} is {_kind(found)}, where a vector is read")
        return lambda of: _vector(field, get(of))
    if found.is_repeated:
        raise Refused("wrong_type", f"{field.name} is {_kind(found)}, where a number is read")
    if kind in _TIMES:
        return lambda of: _time(get(of), per_s)
    if kind in _WRAPPERS:
        return lambda of: get(of).value
    if found.cpp_type not in _NUMBERS:
        raise Refused("wrong_type", f"{field.name} is {_kind(found)}, where a number is read")
    return None


def _kind(found: FieldDescriptor) -> str:
    if found.message_type is not None:
        name = str(found.message_type.full_name)
    else:
        name = _TYPES[found.type]
    return f"repeated {name}" if found.is_repeated else name


def _same(message: Any) -> Any:
    return message


def _unless_zero(get: Take) -> Take:
    """A number whose zero is not told from what was not sent."""
    return lambda of: get(of) or None


def _time(time: Any, per_s: float) -> float:
    return float(time.seconds * per_s + time.nanos * (per_s / 1e9))


def _vector(field: Field, values: Any) -> list[Any] | None:
    """An empty one is one that was not sent."""
    found = list(values)
    if found and len(found) != field.size:
        detail = f"{field.name} has {len(found)} components, where {field.size} are read"
        raise Refused("wrong_length", detail)
    return found or None


# writing


def writer(sensors: Sequence[SensorSpec], registry: Registry | None) -> WireWriter:
    """What a plant writes with: the type that the spec names, else the schema's first."""
    form = sensors[0].codec
    assert isinstance(form, ProtobufFormat)
    schema, head = WireWriter.schema(sensors, form, "PROTOBUF", derived_schema, registry)
    message = type_of(schema, (), form.message)
    if head:
        head += index_of(message)
    make = message_factory.GetMessageClass(message)
    path = tuple(form.records.split(".")) if form.records else ()
    per_s = 1e6 / sensors[0].time.microseconds

    @cache
    def convert(name: str) -> Callable[[Any], Any]:
        found = _written(message, path, name)
        if found is None:
            raise ValueError(f"the schema of {message.full_name} has no field {name!r}")
        kind = found.message_type.full_name if found.message_type is not None else ""
        if kind in _TIMES:
            return lambda value: _stamp(value, per_s)
        if kind in _WRAPPERS:
            inner = number_kind(whole=kind.removeprefix("google.protobuf.")[:3] in ("Int", "UIn"))
            return lambda value: {"value": inner(value)}
        return number_kind(whole=found.cpp_type in _WHOLE)

    def encode(fields: Sequence[str], row: Sequence[Any]) -> bytes:
        content: Any = typed_rows(fields, row, convert)
        for depth, name in enumerate(reversed(path)):
            content = {name: [content] if depth == 0 else content}
        return head + bytes(make(**content).SerializeToString())

    return WireWriter(encode)


def _written(message: Descriptor, path: Path, name: str) -> FieldDescriptor | None:
    """The field of a reading, within what `path` leads to."""
    inside: Descriptor | None = message
    for part in path:
        field = inside.fields_by_name.get(part) if inside is not None else None
        inside = field.message_type if field is not None else None
    return None if inside is None else _field_at(inside, tuple(name.split(".")))


def _stamp(value: float, per_s: float) -> Mapping[str, int]:
    whole, rest = divmod(value, per_s)
    return {"seconds": int(whole), "nanos": round(rest * (1e9 / per_s))}


def derived_schema(sensors: Sequence[SensorSpec], records: str | None) -> str:
    """The schema of what sensors that share a topic send; each may leave out the others' fields."""
    kinds: dict[str, str] = {}
    for sensor in sensors:
        # With presence: a simulation's clock may well begin at zero.
        time = "optional double" if sensor.time.unit == "s" else "optional int64"
        kinds |= {sensor.time.field: time}
        for channel in sensor.channels.values():
            number = "optional double" if channel.shape is None else "repeated double"
            kinds.setdefault(channel.field, number)
    for name in kinds:
        if name != identifier(name):
            raise ValueError(f"field {name!r} is no name for Protobuf: write a schema, and name it")
    lines = [f"  {kind} {name} = {i};" for i, (name, kind) in enumerate(kinds.items(), 1)]
    package = identifier(sensors[0].topic)
    outer = f"message Readings {{ repeated Reading {records} = 1; }}\n" if records else ""
    reading = "\n".join(["message Reading {", *lines, "}"])
    return f'syntax = "proto3";\npackage {package};\n{outer}{reading}\n'


__all__ = ["codec", "compiled", "derived_schema", "reader_of", "type_index", "type_of", "writer"]
