"""The mapping of an import: which topic, field or column of a log feeds which channel."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from schemas.part import Name, Part
from schemas.system import SystemSpec
from schemas.yaml_lines import Path as Place
from schemas.yaml_lines import line_of, load_yaml, problem, read_text
from streams.imports.units import UnitError, conversion

Format = Literal["mcap", "rosbag", "ulog", "csv", "parquet"]
ENDINGS: Final[dict[str, Format]] = {
    ".mcap": "mcap",
    ".bag": "rosbag",
    ".ulg": "ulog",
    ".ulog": "ulog",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
TABLES: Final = ("csv", "parquet")
ENTITY: Final = "{entity}"


class MappingError(ValueError):
    """A mapping that cannot be used; each line names file, line, field and remedy."""


class EntityField(Part):
    """The field or column that names the entity of each reading."""

    field: str


class LogTime(Part):
    """Where a reading's time stands: a field, or (none named) the time at which it was logged.

    A structure of seconds and nanoseconds, as ROS and Protobuf have it, and a date need no unit.
    """

    field: str | None = None
    unit: Literal["s", "ms", "us", "ns"] = "s"


class ChannelMap(Part):
    """What fills a channel or an action: `field`, or `fields` for a vector of several.

    `unit` is the log's own, where it is not the spec's; what units do not know is said by `scale`
    and `offset`: value × scale + offset is in the spec's unit.
    """

    field: str | None = None
    fields: tuple[str, ...] = ()
    unit: str | None = None
    scale: float | None = None
    offset: float = 0.0

    @model_validator(mode="after")
    def _one_source(self) -> ChannelMap:
        if (self.field is None) == (not self.fields):
            raise ValueError("name one 'field', or 'fields' in brackets for a vector")
        if self.unit is not None and self.scale is not None:
            raise ValueError("'unit' and 'scale' both convert: leave one of them out")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that are read."""
        return self.fields or (self.field or "",)


class Source(Part):
    """A topic of a log, or a file that is a table; `{entity}` stands for the entity's name."""

    topic: str | None = None
    file: str | None = None
    instance: int = Field(default=0, ge=0)  # of a ULog topic that several sensors write
    time: LogTime = LogTime()

    @property
    @abstractmethod
    def parts(self) -> dict[str, ChannelMap]:
        """What is read of it, by channel or action."""

    @property
    def names_entity(self) -> bool:
        """Whether the place of a reading says whose it is."""
        return ENTITY in (self.topic or "") or ENTITY in (self.file or "")


class SensorMap(Source):
    """What feeds a sensor."""

    channels: dict[Name, ChannelMap] = Field(min_length=1)

    @property
    def parts(self) -> dict[str, ChannelMap]:
        """What is read of it, by channel."""
        return self.channels


class ActionMap(Source):
    """Which actions were in force; each until the next one."""

    values: dict[Name, ChannelMap] = Field(min_length=1)

    @property
    def parts(self) -> dict[str, ChannelMap]:
        """What is read of it, by action."""
        return self.values


class Mapping(Part):
    """A whole mapping; read it with `load_mapping`.

    `entity` is whose readings these are: a name, or the field that holds it; not needed where
    topics or files have `{entity}` in them.
    """

    format: Format | None = None
    entity: str | EntityField | None = None
    sensors: dict[Name, SensorMap] = Field(min_length=1)
    actions: ActionMap | None = None

    def sources(self) -> Iterator[tuple[tuple[str, ...], Source]]:
        """Every source with its place in the mapping."""
        for name, sensor in self.sensors.items():
            yield ("sensors", name), sensor
        if self.actions is not None:
            yield ("actions",), self.actions


class Located:
    """A mapping with the lines of its fields, for messages about what came of it."""

    def __init__(self, mapping: Mapping, lines: dict[Place, int], name: str) -> None:
        self.mapping, self.name = mapping, name
        self._lines = lines

    def at(self, *place: str) -> str:
        """`file:line: field` of a place in the mapping."""
        return f"{self.name}:{line_of(place, self._lines)}: {'.'.join(place)}"


def load_mapping(path: Path, spec: SystemSpec) -> Located:
    """The mapping in a YAML file, checked against the spec. Raises `MappingError`."""
    try:
        text = read_text(path)
    except OSError as error:
        raise MappingError(f"{path}: no such mapping: name it with --map FILE") from error
    except ValueError as error:
        raise MappingError(str(error)) from error
    return parse_mapping(text, spec, str(path))


def parse_mapping(text: str, spec: SystemSpec, name: str = "<mapping>") -> Located:
    """The mapping in a YAML text; `name` is what messages call it. Raises `MappingError`."""
    try:
        document, lines = load_yaml(text, name)
    except ValueError as error:
        raise MappingError(str(error)) from error
    if not isinstance(document, dict):
        raise MappingError(f"{name}:1: a mapping is YAML with 'sensors:' in it")
    try:
        mapping = Mapping.model_validate(document)
    except ValidationError as error:
        found = [_plainly(item, lines, name) for item in error.errors()]
        raise MappingError("\n".join(dict.fromkeys(found))) from error
    located = Located(mapping, lines, name)
    problems = [*_whose(located), *_against(located, spec)]
    if problems:
        raise MappingError("\n".join(problems))
    return located


def _plainly(item: Any, lines: dict[Place, int], name: str) -> str:
    if item["loc"][:1] == ("entity",):
        item = {**item, "loc": ("entity",), "type": "entity"}
        item["msg"] = "write a name, or {field: NAME} for the field that holds it"
    return problem(item, lines, name, "mapping")


def _whose(located: Located) -> Iterator[str]:
    mapping = located.mapping
    for place, source in mapping.sources():
        if mapping.entity is None and not source.names_entity:
            yield (
                f"{located.at(*place)}: whose readings are these? Add 'entity: NAME' to the "
                "mapping, or put {entity} into the topic or file"
            )


def _against(located: Located, spec: SystemSpec) -> Iterator[str]:
    """What does not fit the spec: names, sizes, units."""
    for name, sensor in located.mapping.sensors.items():
        known = spec.sensors.get(name)
        if known is None:
            yield f"{located.at('sensors', name)}: {_unknown('sensor', spec.sensors)}"
            continue
        for key, channel in sensor.channels.items():
            place = ("sensors", name, "channels", key)
            if key not in known.channels:
                yield f"{located.at(*place)}: {_unknown('channel', known.channels)}"
            else:
                wanted = known.channels[key]
                yield from _fits(located, place, channel, wanted.size, wanted.unit)
    if located.mapping.actions is not None:
        for key, value in located.mapping.actions.values.items():
            where = ("actions", "values", key)
            if key not in spec.actions:
                yield f"{located.at(*where)}: {_unknown('action', spec.actions)}"
            else:
                action = spec.actions[key]
                yield from _fits(located, where, value, action.size, action.unit)


def _unknown(kind: str, names: Any) -> str:
    return f"the spec has no such {kind}; it has {', '.join(names)}"


def _fits(
    located: Located, place: tuple[str, ...], given: ChannelMap, size: int, unit: str
) -> Iterator[str]:
    if len(given.names) != size:
        yield (
            f"{located.at(*place)}: {len(given.names)} fields for {size} components: "
            "write them all, like fields: [x, y]"
        )
    try:
        factors(given, unit)
    except UnitError as error:
        yield f"{located.at(*place, 'unit')}: {error}"


def factors(given: ChannelMap, unit: str) -> tuple[float, float]:
    """(scale, offset) from the log's values to the spec's `unit`. Raises `UnitError`."""
    if given.unit is None or given.scale is not None:
        return 1.0 if given.scale is None else given.scale, given.offset
    scale, offset = conversion(given.unit, unit)
    return scale, offset + given.offset


def pattern(text: str) -> re.Pattern[str]:
    """A topic or file name with `*` and `{entity}` in it as a regular expression."""
    parts = re.split(r"(\{entity\}|\*)", text)
    made = {ENTITY: r"(?P<entity>[^/]+)", "*": ".*"}
    return re.compile("".join(made.get(part, re.escape(part)) for part in parts))


def format_of(path: Path, mapping: Mapping | None = None) -> Format:
    """The format of a file: as the mapping says, else by its ending. Raises `MappingError`."""
    if mapping is not None and mapping.format is not None:
        return mapping.format
    if path.is_dir() and (path / "metadata.yaml").is_file():
        return "rosbag"
    found = ENDINGS.get(path.suffix.lower())
    if found is None:
        raise MappingError(
            f"{path}: its ending tells no format; write 'format:' into the mapping, one of "
            f"{', '.join(dict.fromkeys(ENDINGS.values()))}"
        )
    return found
