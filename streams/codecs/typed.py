"""Messages with schemas: the Confluent wire format, and batches read schema by schema.

In front of a message stand a zero byte, its schema's id (4 bytes, big endian) and, for Protobuf,
which of the schema's types it is. The bytes behind them mean something under that schema alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple

import numpy as np

from infra.registry import Schema
from schemas.formats import SchemaFormat
from streams.align_state import Floats, Ints
from streams.codecs.base import (
    Bad,
    Decoded,
    Field,
    Refused,
    check_count,
    check_size,
    joined,
    numbers_of,
    repeated,
    size_limit,
)
from streams.codecs.schemas import Schemas

HEADER: Final = 5
"""Bytes of the wire format's magic and id."""
_AT: Final = re.compile(r" from <[^>]* at 0x[0-9a-f]+>")
_KNOWN: Final = 4_096  # schemas that are kept compiled
_HEADS: Final[Mapping[int, Callable[[Any], bytes]]] = {
    size: itemgetter(slice(size)) for size in (HEADER, HEADER + 1)
}
Path = tuple[str, ...]


class Reader(NamedTuple):
    """What reads the messages of one schema.

    `present`: the numbers of the fields that the schema has; `read` turns a message's bytes into
    their values (a number, a list of them, or None each), or into a list of such rows where a
    message holds several readings. It raises `Refused`, or anything else where the bytes are not
    of the schema.
    """

    present: Sequence[int]
    read: Callable[[bytes], Any]


class Compiler(NamedTuple):
    """What a format is: how schemas become readers, and where a message's bytes begin.

    `compile` raises `Refused` where a schema cannot be used. `head` finds the type that a message
    names behind the schema's id, and where its bytes begin; without it they begin there.
    """

    compile: Callable[[Schema, Path], Reader]
    head: Callable[[bytes, int], tuple[Path, int]] | None = None


class TypedCodec:
    """A codec over readers, one per schema (and type) that messages name."""

    def __init__(
        self,
        fields: Sequence[Field],
        form: SchemaFormat,
        kind: str,
        compiler: Compiler,
        schemas: Schemas,
    ) -> None:
        self._fields, self._kind, self._schemas = list(fields), kind, schemas
        self._many = form.records is not None
        self._limit = size_limit(fields, self._many) + HEADER
        self._width = sum(field.width for field in fields)
        ends = np.cumsum([0, *(field.width for field in fields)])
        self._columns = [np.arange(ends[i], ends[i + 1]) for i in range(len(fields))]
        self._compiler = compiler
        self._own = {number: Schema(kind, text) for number, text in form.schemas.items()}
        self._bare = None
        if form.schema_text is not None:
            self._bare = self._compiled(Schema(kind, form.schema_text), ())
            if isinstance(self._bare, Refused):
                raise ValueError(f"its schema: {self._bare.detail}")
        # Header → reader of what follows it, or why there is none.
        self._readers: dict[bytes, Reader | Refused] = {}

    def awaits(self, values: Sequence[bytes | None]) -> int | None:
        """The first place whose schema is on its way; None: all can be decoded, or refused."""
        if self._bare is not None:
            return None
        try:
            heads = set(map(_HEADS[HEADER], values))
        except TypeError:  # one has no value
            heads = {value[:HEADER] for value in values if value is not None}
        wanted = {head for head in heads if self._is_awaited(head)}
        if not wanted:
            return None
        return next(i for i, v in enumerate(values) if v is not None and v[:HEADER] in wanted)

    def _is_awaited(self, head: bytes) -> bool:
        if head in self._readers or len(head) < HEADER or head[0]:
            return False
        number = int.from_bytes(head[1:], "big")
        try:
            return number not in self._own and self._schemas.find(number) is None
        except Refused:
            return False

    # batches

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """The readings of all messages, whatever their schemas; see `Decoded`."""
        found = self._alike(values)
        if found is None:
            return self._sorted(values)
        places = np.arange(len(values))
        numbers, kept, bad = self._group(*found, places, values)  # type: ignore[arg-type]
        if not bad and not self._many:
            return Decoded(numbers, None, [])
        return Decoded(numbers, kept, bad)

    def _alike(self, values: Sequence[bytes | None]) -> tuple[Reader, int] | None:
        """The reader of all of a batch, and where what it reads begins; None: they differ."""
        if not values or None in values or max(map(len, values)) > self._limit:  # type: ignore[arg-type]
            return None
        if isinstance(self._bare, Reader):
            return self._bare, 0
        begin = self._begin(values[0])  # type: ignore[arg-type]
        head = values[0][:begin]  # type: ignore[index]
        known = self._readers.get(head)
        if not isinstance(known, Reader):
            return None
        first: Callable[[Any], bytes] = _HEADS.get(begin) or itemgetter(slice(begin))
        heads = set(map(first, values))
        return (known, begin) if heads == {head} else None

    def _begin(self, value: bytes) -> int:
        try:
            return self._head(value)[1]
        except Refused:
            return 0

    def _sorted(self, values: Sequence[bytes | None]) -> Decoded:
        """Message by message: what cannot be used, and groups of what has one schema."""
        groups: dict[tuple[int, int], tuple[Reader, int, list[int]]] = {}
        bad: list[Bad] = []
        for place, value in enumerate(values):
            try:
                reader, begin = self._reader(check_size(value, self._limit))
            except Refused as refused:
                bad.append(Bad(place, refused.reason, refused.detail))
                continue
            groups.setdefault((id(reader), begin), (reader, begin, []))[2].append(place)
        parts = []
        for reader, begin, found in groups.values():
            places = np.array(found, dtype=np.int64)
            of_group = [values[place] for place in found]
            numbers, kept, refused_too = self._group(reader, begin, places, of_group)  # type: ignore[arg-type]
            parts.append((kept, numbers))
            bad += refused_too
        return joined(self._width, parts, bad)

    def _group(
        self, reader: Reader, begin: int, places: Ints, values: Sequence[bytes]
    ) -> tuple[Floats, Ints, list[Bad]]:
        """Numbers and places of messages of one schema, which were found to be of a usable size."""
        read = reader.read
        bad: list[Bad] = []
        try:
            items = [read(value[begin:]) for value in values]
        except Exception:  # of one of them: each is looked at
            items, good = [], []
            for place, value in zip(places.tolist(), values, strict=True):
                try:
                    items.append(read(value[begin:]))
                    good.append(place)
                except Refused as refused:
                    bad.append(Bad(place, refused.reason, refused.detail))
                except EOFError as error:
                    bad.append(Bad(place, "truncated", _text(error)))
                except Exception as error:  # whatever the library makes of bytes that are none
                    bad.append(Bad(place, "malformed", _text(error)))
            places = np.array(good, dtype=np.int64)
        if self._many:
            places, items = repeated(places, items), list(chain.from_iterable(items))
        return self._numbers(reader, items), places, bad

    def _numbers(self, reader: Reader, rows: list[Any]) -> Floats:
        fields = [self._fields[i] for i in reader.present]
        numbers = numbers_of(fields, rows)
        if list(reader.present) == list(range(len(self._fields))):
            return numbers
        result = np.full((len(rows), self._width), np.nan)
        result[:, np.concatenate([self._columns[i] for i in reader.present])] = numbers
        return result

    # schemas

    def _head(self, value: bytes) -> tuple[Path, int]:
        """The type that a message names, and where its bytes begin. Raises `Refused`."""
        if len(value) < HEADER:
            detail = f"{len(value)} bytes; the zero byte and the schema's id alone are {HEADER}"
            raise Refused("truncated", detail)
        if value[0]:
            detail = f"its first byte is {value[0]:#04x}; before a schema's id stands 0x00"
            raise Refused("bad_magic", detail)
        return self._compiler.head(value, HEADER) if self._compiler.head else ((), HEADER)

    def _reader(self, value: bytes) -> tuple[Reader, int]:
        """What reads a message, and where that begins. Raises `Refused`."""
        if isinstance(self._bare, Reader):
            return self._bare, 0
        path, begin = self._head(value)
        head = value[:begin]
        known = self._readers.get(head)
        if known is None:
            known = self._compiled(self._schema(int.from_bytes(value[1:HEADER], "big")), path)
            if len(self._readers) >= _KNOWN:
                self._readers.clear()
            self._readers[head] = known
        if isinstance(known, Refused):
            raise known
        return known, begin

    def _schema(self, number: int) -> Schema:
        if number in self._own:
            return self._own[number]
        found = self._schemas.find(number)
        if found is None:
            raise Refused("no_registry", f"schema {number} is still on its way")
        if found.kind != self._kind:
            detail = f"schema {number} is of {found.kind}, where {self._kind} is read"
            raise Refused("bad_schema", detail)
        return found

    def _compiled(self, schema: Schema, path: Path) -> Reader | Refused:
        try:
            reader = self._compiler.compile(schema, path)
        except Refused as refused:
            return refused
        except Exception as error:  # of a library, about a schema that it cannot take
            return Refused("bad_schema", _text(error))
        present = set(reader.present)
        for number, field in enumerate(self._fields):
            if field.required and number not in present:
                return Refused("missing_field", f"its schema has no field {field.name!r}")
        if not self._many:
            return reader
        return reader._replace(read=_counted(reader.read))


def _counted(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def counted(value: bytes) -> Any:
        found = read(value)
        check_count(len(found))
        return found

    return counted


def _text(error: Exception) -> str:
    # fastavro names the buffer it reads from, by its address: that differs each time.
    return f"{type(error).__name__}: {_AT.sub('', str(error))}"[:1_000]


def by_name(fields: Sequence[Field]) -> Mapping[int, Path]:
    """Number of each field → its path."""
    return {number: tuple(field.name.split(".")) for number, field in enumerate(fields)}
