"""The formats of sensor messages, as a spec names them: JSON, Avro, Protobuf, Arrow, raw bytes.

`codec: avro` is a format with its defaults; `codec: {avro: {schema: level.avsc}}` says more of it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from schemas.part import Part

ITSELF: Final = "."
"""As `records`: the message itself is the list of readings."""
_FILES: Final = (".avsc", ".json", ".proto")
_MOST: Final = 1 << 20  # bytes of a schema
_WIDEST: Final = 65_536  # bytes of one raw reading


def _named_null(schema: Any) -> Any:
    """YAML's null, where Avro means the type of that name."""
    if isinstance(schema, list):
        return ["null" if part is None else _named_null(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: part if key == "default" else _named_null(part) for key, part in schema.items()}
    return made | {key: "null" for key in ("type", "items", "values") if made.get(key, "") is None}


def _text(value: Any, info: ValidationInfo) -> Any:
    """A schema's text: of a file beside the spec, or as it stands in the spec."""
    if isinstance(value, dict | list):  # JSON is YAML: an Avro schema may stand in the spec itself
        return json.dumps(_named_null(value))
    if not isinstance(value, str):
        raise ValueError("name a file (.avsc, .proto), or write the schema here")
    if not value.endswith(_FILES) or "\n" in value:
        return value
    path = Path((info.context or {}).get("folder", ".")) / value
    try:
        if path.stat().st_size > _MOST:
            raise ValueError(f"{path} has more than {_MOST} bytes: that is no schema")
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


SchemaText = Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=_MOST)]
Records = Annotated[str, Field(min_length=1, max_length=1_024)]


class JsonFormat(Part):
    """JSON objects; `records` names the field that holds a list of readings (`.`: the message)."""

    kind: Literal["json"] = "json"
    records: Records | None = None


class SchemaFormat(Part):
    """A format with schemas: the id of the writer's stands in front of each message.

    Ids are looked up in `schemas`, else asked of the schema registry. With `schema`, messages are
    bare: nothing stands in front of them, and all are of this one. `subject` is what a plant writes
    under, by default the topic's name with `-value`. Fields may be paths: `imu.acceleration`.
    """

    kind: str
    records: Records | None = None
    schema_text: SchemaText | None = Field(default=None, alias="schema")
    schemas: dict[int, SchemaText] = Field(default={})
    subject: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.schema_text is not None and (self.schemas or self.subject):
            raise ValueError(
                "with `schema` messages are bare, so that no id is looked up: remove it, or "
                "`schemas` and `subject`"
            )
        if any(not 0 <= number < 2**31 for number in self.schemas):
            raise ValueError("a schema's id is a whole number from 0 to 2147483647")
        return self

    @property
    def framed(self) -> bool:
        """Whether a magic byte and a schema's id stand in front of each message."""
        return self.schema_text is None


class AvroFormat(SchemaFormat):
    """Avro's binary encoding."""

    kind: Literal["avro"] = "avro"


class ProtobufFormat(SchemaFormat):
    """Protocol Buffers. `message`: the full name of the type; by default the schema's first."""

    kind: Literal["protobuf"] = "protobuf"
    message: str | None = None

    @field_validator("records")
    @classmethod
    def _not_itself(cls, value: str | None) -> str | None:
        if value == ITSELF:
            raise ValueError("a Protobuf message is no list: name its repeated field")
        return value


class ArrowFormat(Part):
    """Arrow IPC streams: each row is a reading."""

    kind: Literal["arrow"] = "arrow"


class RawFormat(Part):
    """Packed numbers: `fields` gives the NumPy type of each, e.g. `{ts: <i8, flow: "(2,)<f4"}`.

    With `many`, a message holds one reading after the other.
    """

    kind: Literal["raw"] = "raw"
    fields: dict[str, str] = Field(min_length=1)
    many: bool = False

    @field_validator("fields")
    @classmethod
    def _numbers(cls, fields: Mapping[str, str]) -> Mapping[str, str]:
        packed_type(fields)
        return fields

    @property
    def dtype(self) -> np.dtype[np.void]:
        """The packed structure of one reading."""
        return raw_type(self.fields)


def raw_type(fields: Mapping[str, str]) -> np.dtype[np.void]:
    """A packed structure of `fields`."""
    return np.dtype([(name, np.dtype(text)) for name, text in fields.items()])


def packed_type(fields: Mapping[str, str]) -> np.dtype[np.void]:
    """As `raw_type`, of fields that somebody wrote. Raises `ValueError` for what is no number."""
    for name, text in fields.items():
        _number_type(name, text)
    found = raw_type(fields)
    if found.itemsize > _WIDEST:
        raise ValueError(f"it has {found.itemsize} bytes; {_WIDEST} are allowed")
    return found


def _number_type(name: str, text: str) -> npt.DTypeLike:
    try:
        found = np.dtype(text)
    except (TypeError, ValueError, SyntaxError) as error:
        raise ValueError(f"{name}: {text!r} is no NumPy type; write e.g. <f4: {error}") from error
    if found.base.kind not in "biufV" or found.base.names or found.ndim > 1 or not found.itemsize:
        raise ValueError(
            f"{name}: {text!r} is neither a number nor a vector of them; bytes that nobody reads "
            "are e.g. V4"
        )
    return found


FORMATS: Final[Mapping[str, type[Part]]] = {
    "json": JsonFormat,
    "avro": AvroFormat,
    "protobuf": ProtobufFormat,
    "arrow": ArrowFormat,
    "raw": RawFormat,
}


def _written(value: Any) -> Any:
    """`avro` and `{avro: {…}}` as a mapping with a `kind`."""
    if isinstance(value, str):
        value = {value: None}
    if not isinstance(value, dict) or "kind" in value:
        return value
    if len(value) != 1 or next(iter(value)) not in FORMATS:
        raise ValueError(f"name one codec of {', '.join(FORMATS)}, e.g. avro, or {{avro: {{…}}}}")
    ((kind, settings),) = value.items()
    if settings is not None and not isinstance(settings, dict):
        raise ValueError(f"the settings of {kind} are a mapping, like {{{kind}: {{…}}}}")
    return {"kind": kind, **(settings or {})}


Format = Annotated[
    Annotated[
        JsonFormat | AvroFormat | ProtobufFormat | ArrowFormat | RawFormat,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_written),
]


def shortly(form: Part) -> str | dict[str, Any]:
    """A format as a spec would name it: its kind, with settings only where there are some."""
    settings = form.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    kind = str(settings.pop("kind", None) or form.__class__.model_fields["kind"].default)
    return {kind: settings} if settings else kind
