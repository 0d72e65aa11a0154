"""Rows of Protobuf messages: fields by name, and what counts as sent."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from streams.codecs.base import Field, Refused
from streams.codecs.typed import Path, Reader, by_name

TIMES: Final = ("google.protobuf.Timestamp", "google.protobuf.Duration")
WRAPPERS: Final = tuple(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool")
)
WHOLE: Final = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
    FieldDescriptor.CPPTYPE_BOOL,
    FieldDescriptor.CPPTYPE_ENUM,
)
_NUMBERS: Final = (*WHOLE, FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_TYPES: Final[Mapping[int, str]] = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}
Take = Callable[[Any], Any]


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
    found = field_at(message, tuple(records.split(".")))
    if found is None or not found.is_repeated or found.message_type is None:
        raise Refused("bad_schema", f"{message.full_name} has no repeated messages at {records!r}")
    present, row = _row_of(found.message_type, fields, per_s)
    listed = attrgetter(records)
    return Reader(present, lambda value: list(map(row, listed(parse(value)))))


def field_at(message: Descriptor, path: Path) -> FieldDescriptor | None:
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
        found = field_at(message, path)
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
        part = field_at(message, path[:depth])
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
    if kind in TIMES:
        return lambda of: _time(get(of), per_s)
    if kind in WRAPPERS:
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
