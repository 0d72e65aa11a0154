"""Protocol Buffers: `.proto` texts compiled as they come, messages read by Google's own library.

Fields are taken by name. One without presence that is not sent is zero, as Protobuf has it, but
for the time, without which a reading means nothing. `google.protobuf.Timestamp`, `Duration` and
the wrappers (`DoubleValue`, …) count as numbers.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path as File
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

from infra.registry import Registry, Schema
from schemas.formats import ProtobufFormat
from schemas.spec_parts import SensorSpec
from streams.codecs.base import Field, Refused
from streams.codecs.protobuf_rows import TIMES, WHOLE, WRAPPERS, field_at, reader_of
from streams.codecs.schemas import Schemas
from streams.codecs.typed import Compiler, Path, Reader, TypedCodec
from streams.codecs.writing import WireWriter, identifier, number_kind, typed_rows

_NAME: Final = "schema.proto"
_WAIT_S: Final = 60.0
_DEEPEST: Final = 16  # types within types that a message's index may name


def codec(sensor: SensorSpec, fields: Sequence[Field], schemas: Schemas) -> TypedCodec:
    """What reads `fields` of a sensor's messages."""
    form = sensor.codec
    assert isinstance(form, ProtobufFormat)
    per_s = 1e6 / sensor.time.microseconds

    def compiled(schema: Schema, path: Path) -> Reader:
        found = type_of(schema, path, form.message)
        return reader_of(found, fields, form.records, per_s)

    return TypedCodec(fields, form, "PROTOBUF", Compiler(compiled, type_index), schemas)


# schemas


def compiled(schema: Schema) -> FileDescriptor:
    """The descriptors of a schema's text. Raises `Refused` with what the compiler says of it.

    Compiled once, however many types of it messages claim to be.
    """
    found = _remembered(schema.text, tuple(schema.imports.items()))
    if isinstance(found, Refused):
        raise found
    return found


@lru_cache(maxsize=256)
def _remembered(schema: str, imports: tuple[tuple[str, str], ...]) -> FileDescriptor | Refused:
    try:
        return _compiled(schema, imports)
    except Refused as refused:
        return refused


def _compiled(schema: str, imports: tuple[tuple[str, str], ...]) -> FileDescriptor:
    with tempfile.TemporaryDirectory(prefix="rehearse-proto-") as folder:
        for name, text in (*imports, (_NAME, schema)):
            path = (File(folder) / name).resolve()
            if not path.is_relative_to(File(folder).resolve()):
                raise Refused("bad_schema", f"it imports {name!r}, which is no name of a file")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        found = _protoc(folder)
    pool = descriptor_pool.DescriptorPool()
    for file in found.file:
        pool.Add(file)
    return pool.FindFileByName(_NAME)


def _protoc(folder: str) -> descriptor_pb2.FileDescriptorSet:
    """In a process of its own: it is not made for texts that somebody else wrote."""
    out = File(folder) / ".descriptors"
    known = str(files("grpc_tools") / "_proto")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"-I{known}"]
    command += ["--include_imports", f"--descriptor_set_out={out}", _NAME]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_WAIT_S, cwd=folder
        )
    except subprocess.TimeoutExpired as error:
        raise Refused("bad_schema", f"its compilation took more than {_WAIT_S:g} s") from error
    if done.returncode:
        said = done.stderr.strip().replace(f"{folder}/", "")
        raise Refused("bad_schema", said[:1_000] or f"protoc ended with {done.returncode}")
    return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def type_of(schema: Schema, path: Path, name: str | None) -> Descriptor:
    """The type at a path of numbers, like ('0', '2'); without one, `name`, or the first.

    Raises `Refused` where there is none, or another than `name`.
    """
    file = compiled(schema)
    types = list(file.message_types_by_name.values())
    if not path and name is not None:
        try:
            return file.pool.FindMessageTypeByName(name)
        except KeyError as error:
            raise Refused("bad_schema", f"its schema has no message {name}") from error
    found = None
    for number in map(int, path or ("0",)):
        if not 0 <= number < len(types):
            raise Refused("bad_schema", f"its schema has no message at index {'.'.join(path)}")
        found = types[number]
        types = list(found.nested_types)
    assert found is not None
    if name is not None and found.full_name != name:
        raise Refused("wrong_type", f"it is a {found.full_name}, where {name} is read")
    return found


def type_index(value: bytes, begin: int) -> tuple[Path, int]:
    """Which type a message is, as numbers of types within types, and where its bytes begin.

    Zigzag varints: how many there are, and each; a single zero stands for the first type. Source:
    the wire format of Confluent's serializers.
    """
    count, place = _varint(value, begin)
    if count == 0:
        return ("0",), place
    if not 0 < count <= _DEEPEST:
        raise Refused("malformed", f"the index of its type claims {count} numbers")
    path = []
    for _ in range(count):
        number, place = _varint(value, place)
        path.append(str(number))
    return tuple(path), place


def _varint(value: bytes, place: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 35, 7):
        if place >= len(value):
            raise Refused("truncated", "it ends within the index of its type")
        byte = value[place]
        place += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (result >> 1) ^ -(result & 1), place
    raise Refused("malformed", "the index of its type is no number")


# writing


def writer(sensors: Sequence[SensorSpec], registry: Registry | None) -> WireWriter:
    """What a plant writes with: the type that the spec names, else the schema's first."""
    form = sensors[0].codec
    assert isinstance(form, ProtobufFormat)
    schema, head = WireWriter.schema(sensors, form, "PROTOBUF", derived_schema, registry)
    message = type_of(schema, (), form.message)
    if head:
        head += _index_of(message)
    make = message_factory.GetMessageClass(message)
    path = tuple(form.records.split(".")) if form.records else ()
    per_s = 1e6 / sensors[0].time.microseconds

    @cache
    def convert(name: str) -> Callable[[Any], Any]:
        found = _written(message, path, name)
        if found is None:
            raise ValueError(f"the schema of {message.full_name} has no field {name!r}")
        kind = found.message_type.full_name if found.message_type is not None else ""
        if kind in TIMES:
            return lambda value: _stamp(value, per_s)
        if kind in WRAPPERS:
            inner = number_kind(whole=kind.removeprefix("google.protobuf.")[:3] in ("Int", "UIn"))
            return lambda value: {"value": inner(value)}
        return number_kind(whole=found.cpp_type in WHOLE)

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
    return None if inside is None else field_at(inside, tuple(name.split(".")))


def _stamp(value: float, per_s: float) -> Mapping[str, int]:
    whole, rest = divmod(value, per_s)
    return {"seconds": int(whole), "nanos": round(rest * (1e9 / per_s))}


def _index_of(message: Descriptor) -> bytes:
    numbers: list[int] = []
    found: Descriptor | None = message
    while found is not None:
        outer = found.containing_type
        among = outer.nested_types if outer else found.file.message_types_by_name.values()
        numbers.insert(0, [each.full_name for each in among].index(found.full_name))
        found = outer
    if numbers == [0]:
        return b"\0"
    return b"".join(_encoded(number) for number in (len(numbers), *numbers))


def _encoded(number: int) -> bytes:
    left, out = number << 1, b""
    while left > 0x7F:
        out += bytes([left & 0x7F | 0x80])
        left >>= 7
    return out + bytes([left])


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
