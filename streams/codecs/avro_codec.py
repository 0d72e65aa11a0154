"""Avro by fastavro: the writer's schema says how to read, the spec says which fields.

Fields are taken by name: one that the writer does not have, or null, is missing. Times stay the
whole numbers that they are, in the spec's unit: logical types are passed over, but for decimals.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from io import BytesIO
from operator import itemgetter
from typing import Any, Final

import fastavro

from infra.registry import Registry, Schema
from schemas.formats import ITSELF, AvroFormat
from schemas.spec_parts import SensorSpec
from streams.codecs.base import Field, Refused
from streams.codecs.schemas import Schemas
from streams.codecs.typed import Compiler, Path, Reader, TypedCodec, by_name
from streams.codecs.writing import WireWriter, identifier, number_kind, typed_rows

_NUMBERS: Final = ("int", "long", "float", "double", "boolean")
_WHOLE: Final = ("int", "long")
_PARTS: Final = 65_536  # of one value, where it has neither arrays nor maps
Row = Callable[[Any], tuple[Any, ...]]
Named = Mapping[str, Any]


def codec(sensor: SensorSpec, fields: Sequence[Field], schemas: Schemas) -> TypedCodec:
    """What reads `fields` of a sensor's messages."""
    form = sensor.codec
    assert isinstance(form, AvroFormat)

    def compiled(schema: Schema, _: Path) -> Reader:
        return reader_of(schema, fields, form.records)

    return TypedCodec(fields, form, "AVRO", Compiler(compiled), schemas)


def reader_of(schema: Schema, fields: Sequence[Field], records: str | None) -> Reader:
    """What reads `fields` of messages that were written under `schema`. Raises `Refused`."""
    parsed, named = parsed_schema(schema)
    _Bounds(named).least(parsed)
    path = () if records is None or records == ITSELF else tuple(records.split("."))
    listed = _at(parsed, path, named)
    record = listed
    if records is not None:
        if not isinstance(listed, dict) or listed.get("type") != "array":
            raise Refused("bad_schema", f"its schema has no array of records at {records!r}")
        record = _plain(listed["items"], named)
    if not isinstance(record, dict) or record.get("type") not in ("record", "error"):
        raise Refused("bad_schema", "its schema is no record")
    present, row = _row_of(record, fields, named)
    take = fastavro.schemaless_reader

    def single(value: bytes) -> Any:
        stream = BytesIO(value)
        content = take(stream, parsed, None)
        if stream.tell() != len(value):
            raise Refused("malformed", f"{len(value) - stream.tell()} bytes follow its end")
        return content

    if records is None:
        return Reader(present, lambda value: row(single(value)))

    def several(value: bytes) -> list[tuple[Any, ...]]:
        found = _walked(single(value), path)
        return [] if found is None else list(map(row, found))

    return Reader(present, several)


# schemas


def parsed_schema(schema: Schema) -> tuple[Any, Named]:
    """fastavro's form of a schema without its logical types, and the types that it names."""
    named: dict[str, Any] = {}
    try:
        for text in schema.imports.values():
            fastavro.parse_schema(_bare(json.loads(text)), named)
        return fastavro.parse_schema(_bare(json.loads(schema.text)), named), named
    except (
        ValueError,
        TypeError,
        KeyError,
        RecursionError,
        fastavro.schema.SchemaParseException,
    ) as error:
        raise Refused("bad_schema", f"{type(error).__name__}: {error}"[:1_000]) from error


def _bare(schema: Any) -> Any:
    """Without logical types: what they make of numbers is no number."""
    if isinstance(schema, list):
        return [_bare(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {k: v for k, v in schema.items() if k != "logicalType" or v == "decimal"}
    for key in ("type", "items", "values", "fields"):
        if key in kept:
            kept[key] = _bare(kept[key])
    return kept


def _plain(schema: Any, named: Named) -> Any:
    """A schema seen through its name, and through a union of it with null."""
    if isinstance(schema, dict) and isinstance(schema.get("type"), dict | list):
        return _plain(schema["type"], named)
    if isinstance(schema, str) and schema in named:
        return named[schema]
    if isinstance(schema, list):
        others = [part for part in schema if part != "null"]
        if len(others) == 1:
            return _plain(others[0], named)
    return schema


class _Bounds:
    """The fewest bytes of a schema's values. Raises `Refused` for what bytes could make endless.

    A type within itself lets a message of zeros nest as deep as it is long, which ends the process;
    an array of nothing lets a few bytes claim billions of items, and so does a record of records
    of nothing.
    """

    def __init__(self, named: Named) -> None:
        self._named, self._sizes, self._above = named, dict[str, tuple[int, int]](), set[str]()

    def least(self, schema: Any) -> tuple[int, int]:
        """(bytes, parts) of the smallest value: at least so many."""
        if isinstance(schema, list):
            return 1 + min((self.least(part)[0] for part in schema), default=0), 1
        kind = schema.get("type") if isinstance(schema, dict) else schema
        if isinstance(kind, dict | list):
            return self.least(kind)
        if isinstance(kind, str) and kind in self._named:
            return self._record(self._named[kind])
        if kind in ("record", "error"):
            return self._record(schema)
        if kind == "array" and not self.least(schema["items"])[0]:
            raise Refused("bad_schema", "an array of what takes no bytes has no length")
        if kind == "map":
            self.least(schema["values"])
        if kind == "fixed":
            return int(schema["size"]), 1
        return {"null": 0, "float": 4, "double": 8}.get(str(kind), 1), 1

    def _record(self, schema: Any) -> tuple[int, int]:
        name = schema["name"]
        if schema["type"] not in ("record", "error"):
            return self.least({k: v for k, v in schema.items() if k != "name"})
        if name in self._above:
            raise Refused("bad_schema", f"{name} holds itself: no such schema is read")
        if name not in self._sizes:
            self._above.add(name)
            sizes = [self.least(part["type"]) for part in schema["fields"]]
            self._above.remove(name)
            parts = 1 + sum(size[1] for size in sizes)
            if parts > _PARTS:
                raise Refused("bad_schema", f"{name} has more than {_PARTS} parts")
            self._sizes[name] = sum(size[0] for size in sizes), parts
        return self._sizes[name]


def _field(record: Any, name: str) -> Any:
    return next((part["type"] for part in record["fields"] if part["name"] == name), None)


def _at(schema: Any, path: Path, named: Named) -> Any:
    """The schema at a path of record fields; None where there is none."""
    found = _plain(schema, named)
    for name in path:
        if not isinstance(found, dict) or found.get("type") not in ("record", "error"):
            return None
        found = _plain(_field(found, name), named)
    return found


# rows


def _row_of(record: Any, fields: Sequence[Field], named: Named) -> tuple[list[int], Row]:
    """The numbers of the fields that a record has, and what takes their values."""
    present: list[int] = []
    checks: list[tuple[int, Callable[[Any], None]]] = []
    paths: list[Path] = []
    for number, path in by_name(fields).items():
        kind = _at(record, path, named)
        if kind is None or kind == "null":
            continue
        check = _check_of(fields[number], kind, named)
        if check is not None:
            checks.append((len(present), check))
        present.append(number)
        paths.append(path)
    return present, _checked(_taker(paths), checks)


def _taker(paths: Sequence[Path]) -> Row:
    if all(len(path) == 1 for path in paths):
        if len(paths) > 1:
            return itemgetter(*(path[0] for path in paths))
        return lambda record: tuple(record[path[0]] for path in paths)
    return lambda record: tuple(_walked(record, path) for path in paths)


def _walked(record: Any, path: Path) -> Any:
    for name in path:
        if record is None:
            return None
        record = record[name]
    return record


def _checked(take: Row, checks: Sequence[tuple[int, Callable[[Any], None]]]) -> Row:
    if not checks:
        return take

    def row(record: Any) -> tuple[Any, ...]:
        values = take(record)
        for place, check in checks:
            check(values[place])
        return values

    return row


def _check_of(field: Field, kind: Any, named: Named) -> Callable[[Any], None] | None:
    """What to look at in each value of a field, beyond its schema. Raises `Refused`."""
    if field.size is None:
        if _is_number(kind):
            return None
        if isinstance(kind, list) and any(_is_number(_plain(k, named)) for k in kind):
            return lambda value: _number(field, value)
        raise Refused("wrong_type", f"{field.name} is {_name(kind)}, where a number is read")
    items = _plain(kind["items"], named) if _name(kind) == "array" else None
    if items is None or not _is_number(items):
        raise Refused("wrong_type", f"{field.name} is {_name(kind)}, where a vector is read")
    return lambda value: _vector(field, value)


def _name(kind: Any) -> str:
    return str(kind.get("type") if isinstance(kind, dict) else kind)


def _is_number(kind: Any) -> bool:
    decimal = isinstance(kind, dict) and kind.get("logicalType") == "decimal"
    return decimal or _name(kind) in _NUMBERS


def _number(field: Field, value: Any) -> None:
    if value is not None and not isinstance(value, int | float):
        detail = f"{field.name} holds {type(value).__name__}, where a number is read"
        raise Refused("wrong_type", detail)


def _vector(field: Field, value: Any) -> None:
    if value is not None and len(value) != field.size:
        detail = f"{field.name} has {len(value)} components, where {field.size} are read"
        raise Refused("wrong_length", detail)


# writing


def writer(sensors: Sequence[SensorSpec], registry: Registry | None) -> WireWriter:
    """What a plant writes with."""
    form = sensors[0].codec
    assert isinstance(form, AvroFormat)
    schema, head = WireWriter.schema(sensors, form, "AVRO", derived_schema, registry)
    parsed, named = parsed_schema(schema)
    path = () if form.records in (None, ITSELF) else tuple(str(form.records).split("."))
    listed = _at(parsed, path, named)
    record = _plain(listed["items"], named) if form.records else listed

    @cache
    def convert(name: str) -> Callable[[Any], Any]:
        kind = _at(record, tuple(name.split(".")), named)
        return number_kind(whole=_name(kind) in _WHOLE)

    def encode(fields: Sequence[str], row: Sequence[Any]) -> bytes:
        content: Any = typed_rows(fields, row, convert)
        if form.records is not None:
            content = [content]
        for name in reversed(path):
            content = {name: content}
        stream = BytesIO()
        fastavro.schemaless_writer(stream, parsed, content)
        return head + stream.getvalue()

    return WireWriter(encode)


def derived_schema(sensors: Sequence[SensorSpec], records: str | None) -> str:
    """The schema of what sensors that share a topic send; each may leave out the others' fields."""
    sensor = sensors[0]
    fields: dict[str, Any] = {}
    for each in sensors:
        for channel in each.channels.values():
            kind: Any = "double" if channel.shape is None else {"type": "array", "items": "double"}
            fields[channel.field] = {"type": ["null", kind], "default": None}
        fields[each.time.field] = {"type": "double" if each.time.unit == "s" else "long"}
    reading: Any = {
        "type": "record",
        "name": identifier(sensor.topic),
        "fields": [{"name": _identifier(name), **rest} for name, rest in fields.items()],
    }
    if records is None:
        return json.dumps(reading)
    listed = {"type": "array", "items": reading}
    if records == ITSELF:
        return json.dumps(listed)
    field = {"name": _identifier(records), "type": listed}
    outer = {"type": "record", "name": identifier(f"{sensor.topic}_list"), "fields": [field]}
    return json.dumps(outer)


def _identifier(name: str) -> str:
    if name != identifier(name):
        raise ValueError(f"field {name!r} is no name for Avro: write a schema, and name it")
    return name
