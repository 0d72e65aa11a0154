"""Protobuf schemas: `.proto` texts compiled as they come, and which of their types a message is."""

import subprocess
import sys
import tempfile
from functools import lru_cache
from importlib.resources import files
from pathlib import Path as File
from typing import Final

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, FileDescriptor

from infra.registry import Schema
from streams.codecs.base import Refused
from streams.codecs.typed import Path

_NAME: Final = "schema.proto"
_WAIT_S: Final = 60.0
_DEEPEST: Final = 16  # types within types that a message's index may name


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


def index_of(message: Descriptor) -> bytes:
    """What `type_index` reads: where a type stands in its file."""
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
