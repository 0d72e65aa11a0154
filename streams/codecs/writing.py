"""What a plant needs to write messages with schemas: which schema, and whose id to put in front."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from infra.registry import Registry, Schema, UnknownSchema
from schemas.formats import SchemaFormat
from schemas.spec_parts import SensorSpec
from streams.codecs.schemas import NO_REGISTRY

Convert = Callable[[Any], Any]


class WireWriter:
    """A writer over what makes one message of the fields of a reading and their values."""

    def __init__(self, encode: Callable[[Sequence[str], Sequence[Any]], bytes]) -> None:
        self._encode = encode

    def encode(self, fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[bytes]:
        """A message per row; a row has a member per field."""
        encode = self._encode
        return [encode(fields, row) for row in rows]

    @staticmethod
    def schema(
        sensors: Sequence[SensorSpec],
        form: SchemaFormat,
        kind: str,
        derive: Callable[[Sequence[SensorSpec], str | None], str],
        registry: Registry | None,
    ) -> tuple[Schema, bytes]:
        """What to write under, and what to put in front of each message.

        That is the spec's own schema, or the newest of the subject; where the registry has none,
        one is made of the sensors' fields, and registered.
        """
        if form.schema_text is not None:
            return Schema(kind, form.schema_text), b""
        if form.schemas:
            number = max(form.schemas)
            return Schema(kind, form.schemas[number]), _head(number)
        if registry is None:
            raise ValueError(NO_REGISTRY)
        subject = form.subject or f"{sensors[0].topic}-value"
        try:
            number, schema = registry.latest(subject)
        except UnknownSchema:
            schema = Schema(kind, derive(sensors, form.records))
            number = registry.register(subject, kind, schema.text)
        if schema.kind != kind:
            raise ValueError(f"subject {subject} is of {schema.kind}, where {kind} is written")
        return schema, _head(number)


def _head(number: int) -> bytes:
    return b"\0" + number.to_bytes(4, "big")


def identifier(name: str) -> str:
    """A name as Avro and Protobuf allow it."""
    found = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return found if re.match(r"[A-Za-z_]", found) else f"_{found}"


def number_kind(whole: bool) -> Convert:
    """What makes a schema's kind of number of a value."""
    return round if whole else float


def typed_rows(
    fields: Sequence[str], row: Sequence[Any], convert: Callable[[str], Convert]
) -> dict[str, Any]:
    """A reading as nested mappings, its numbers of the kinds that a schema has."""
    content: dict[str, Any] = {}
    for name, value in zip(fields, row, strict=True):
        number = convert(name)
        made = [number(v) for v in value] if isinstance(value, list) else number(value)
        *groups, last = name.split(".")
        inner = content
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = made
    return content
