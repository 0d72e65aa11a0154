"""JSON Schemas of every payload: the JSON messages as they are decoded, Arrow batches as rows."""

import inspect
import json
from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import Any, Final

import msgspec
import pyarrow as pa

from schemas.codes import Flag, Mode, Reason, Status
from schemas.formats import ITSELF, JsonFormat, RawFormat, SchemaFormat
from schemas.frames import FrameHeader, frame_schema
from schemas.messages import Action, Applied, Control, DeadLetter, Outcome, Watermark
from schemas.spec_parts import ChannelSpec, SensorSpec
from schemas.system import SystemSpec
from schemas.trajectories import ROW_KEY, trajectory_schema

Json = dict[str, Any]
REFERENCE: Final = "#/components/schemas/"
STRUCTS: Final = (Action, Applied, Outcome, DeadLetter, Control, Watermark)
CONTENT_TYPES: Final[Mapping[str, str]] = {
    "json": "application/json",
    "avro": "application/vnd.apache.avro+binary",
    "protobuf": "application/vnd.google.protobuf",
    "arrow": "application/vnd.apache.arrow.stream",
    "raw": "application/octet-stream",
}
"""What the readings of each codec are, by the codec's name."""
_SCHEMA_FORMATS: Final = {
    "avro": "application/vnd.apache.avro+json;version=1.9.0",
    "protobuf": "application/vnd.google.protobuf;version=3",
}
_US: Final = "microseconds"
_NOTES: Final = {
    "time": _US,
    "time_us": _US,
    "valid_until": _US,
    "watermark": _US,
    "decided": f"{_US} of the worker's wall clock",
}
_CODES: Final[Mapping[tuple[str, str], type[IntEnum] | type[IntFlag]]] = {
    ("Action", "mode"): Mode,
    ("Action", "reasons"): Reason,
    ("Applied", "status"): Status,
}
_ROW_CODES: Final[Mapping[str, type[IntEnum] | type[IntFlag]]] = {
    "status": Status,
    "flags": Flag,
    "mode": Mode,
    "reasons": Reason,
}


def message_schemas() -> dict[str, Json]:
    """Name → JSON Schema of every JSON message, and of the header inside Arrow messages."""
    _, found = msgspec.json.schema_components(
        [*STRUCTS, FrameHeader], ref_template=REFERENCE + "{name}"
    )
    for name, schema in found.items():
        schema["description"] = inspect.cleandoc(schema["description"])
        for key, part in schema.get("properties", {}).items():
            if key in _NOTES:
                part["description"] = _NOTES[key]
            if code := _CODES.get((name, key)):
                part |= _code(code)
    return {name: _draft_7(schema) for name, schema in sorted(found.items())}


def reading_schema(sensor: SensorSpec) -> Json:
    """What a sensor sends: its time field, and any of its channels."""
    time = {"type": "number", "description": f"event time in {sensor.time.unit}"}
    return {
        "type": "object",
        "description": f"One reading, about every {sensor.every_us / 1e6:g} s.",
        "properties": {
            sensor.time.field: time,
            **{c.field: _channel(c) for c in sensor.channels.values()},
        },
        "required": [sensor.time.field],
    }


def reading_payload(sensor: SensorSpec) -> Json:
    """The message of a sensor, as its codec has it; what the registry says stands there alone."""
    form, reading = sensor.codec, reading_schema(sensor)
    if isinstance(form, SchemaFormat) and form.schema_text is not None:
        avro = form.kind == "avro"
        schema = json.loads(form.schema_text) if avro else form.schema_text
        return {"schemaFormat": _SCHEMA_FORMATS[form.kind], "schema": schema}
    if isinstance(form, RawFormat):
        reading["x-packed"] = dict(form.fields)
    if isinstance(form, SchemaFormat):
        reading["description"] += " Under a schema of the registry, with at least these fields."
    records = getattr(form, "records", None)
    if form.kind != "arrow" and records is None:
        return reading
    listed = {"type": "array", "items": reading, "description": "Readings of one entity."}
    if records in (None, ITSELF):
        return listed
    names = [records] if isinstance(form, JsonFormat) else records.split(".")
    for name in reversed(names):
        listed = {"type": "object", "properties": {name: listed}, "required": [name]}
    return listed


def raw_headers(sensor: SensorSpec) -> Json:
    """The record header in which a raw message's time stands, where none is in its payload."""
    raw, time = sensor.perceive, sensor.time
    if raw is not None and time.field in raw.head:
        return {"type": "object"}
    text = {"type": "string", "description": f"event time in {time.unit}, in decimal"}
    return {"type": "object", "properties": {time.field: text}}


def raw_payload(sensor: SensorSpec) -> Json:
    """A raw message: bytes; of what kind, the spec says."""
    found: Json = {
        "type": "string",
        "format": "binary",
        "description": "What is encoded: a JPEG image, packed points or entities, or a tensor.",
    }
    if (raw := sensor.perceive) is None:
        return found
    found["x-perceived"] = raw.model_dump(mode="json", exclude={"topic", "batch", "wait_us"})
    return found


def schema_binding(sensor: SensorSpec) -> Json:
    """How a message of a sensor names its schema, in AsyncAPI's Kafka binding."""
    form = sensor.codec
    if not isinstance(form, SchemaFormat) or not form.framed:
        return {}
    strategy = {} if form.subject else {"schemaLookupStrategy": "TopicNameStrategy"}
    return {"schemaIdLocation": "payload", "schemaIdPayloadEncoding": "confluent", **strategy}


def frame_rows(spec: SystemSpec) -> Json:
    """The rows of a frame: one per entity."""
    return _rows(frame_schema(spec), _notes(spec), {"rehearse": _ref("FrameHeader")})


def trajectory_rows(spec: SystemSpec) -> Json:
    """The rows of a trajectory frame: one per entity; a key frame carries a belief row as well."""
    header = {
        "allOf": [_ref("FrameHeader")],
        "properties": {
            "decisions": {
                "type": "object",
                "properties": {"bundle": {"type": "string"}, "spent": {"type": "object"}},
            }
        },
    }
    row = {"type": "string", "format": "binary", "description": "belief row; key frames only"}
    schema = trajectory_schema(spec)
    return _rows(schema, _notes(spec), {"rehearse": header, ROW_KEY.decode(): row})


def _ref(name: str) -> Json:
    return {"$ref": REFERENCE + name}


def _code(code: type[IntEnum] | type[IntFlag]) -> Json:
    words = ", ".join(f"{member.value} {name.lower()}" for name, member in code.__members__.items())
    if issubclass(code, IntFlag):
        return {"description": f"bits: {words}"}
    return {"enum": [member.value for member in code], "description": words}


def _channel(channel: ChannelSpec) -> Json:
    number: Json = {"type": ["number", "null"], "minimum": channel.low, "maximum": channel.high}
    if channel.shape is None:
        return {**number, "description": f"in {channel.unit}"}
    size = {"minItems": channel.size, "maxItems": channel.size}
    return {"type": "array", "items": number, **size, "description": f"in {channel.unit}"}


def _notes(spec: SystemSpec) -> dict[str, str]:
    """Unit of each column that a channel or an action fills, under every prefix it may have."""
    units = {column: c.unit for c in spec.channels for column in c.columns}
    units |= {column: a.unit for a in spec.actions.values() for column in a.columns}
    notes = {f"age:{c.name}": "seconds since the newest reading; NaN: never" for c in spec.channels}
    for prefix in ("", "applied:", "proposal:", "action:", "predicted:", "spread:"):
        notes |= {prefix + column: f"in {unit}" for column, unit in units.items()}
    return notes


def _rows(schema: pa.Schema, notes: Mapping[str, str], metadata: Json) -> Json:
    fields = {}
    for field in schema:
        fields[field.name] = {**_arrow(field.type), "x-arrow-type": _type_name(field.type)}
        if code := _ROW_CODES.get(field.name):
            fields[field.name] |= _code(code)
        elif field.name in notes:
            fields[field.name]["description"] = notes[field.name]
    return {
        "type": "array",
        "description": "One record batch, seen as its rows. Columns in this order.",
        "items": {"type": "object", "properties": fields, "required": list(fields)},
        "x-arrow-metadata": metadata,
    }


def _arrow(kind: pa.DataType) -> Json:
    if pa.types.is_string(kind):
        return {"type": "string"}
    if pa.types.is_integer(kind):
        return {"type": "integer"}
    if pa.types.is_fixed_size_list(kind):
        return {"type": "array", "items": _arrow(kind.value_type)}
    return {"type": "number"}


def _type_name(kind: pa.DataType) -> str:
    """Arrow's name; the length of a belief is the bundle's, not the spec's."""
    is_list = pa.types.is_fixed_size_list(kind)
    return f"fixed_size_list<{kind.value_type}>" if is_list else str(kind)


def _draft_7(schema: Any) -> Any:
    """msgspec writes JSON Schema 2020-12, AsyncAPI reads draft 7: they differ in tuples."""
    if isinstance(schema, list | tuple):
        return [_draft_7(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: _draft_7(part) for key, part in schema.items() if key != "prefixItems"}
    if "prefixItems" in schema:
        result["items"] = _draft_7(schema["prefixItems"])
    return result
