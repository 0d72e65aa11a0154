"""Logs of messages: fields of decoded messages, whatever library decoded them, into columns."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from streams.imports.log import LogError, Table, Want, microseconds, missing_field

_PARTS = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_DEEP = 6
Get = Callable[[Any], Any]


def getter(field: str) -> Get:
    """Reads `pose.position.x` or `data[3]` of a message; None where an object lacks the key.

    What it returns raises `AttributeError`, `IndexError` or `TypeError` where there is no such
    field.
    """
    parts = [name or int(index) for name, index in _PARTS.findall(field)]

    def get(message: Any) -> Any:
        for part in parts:
            if isinstance(part, int):
                message = message[part]
            elif isinstance(message, Mapping):
                message = message.get(part)
            else:
                message = getattr(message, part)
            if message is None:
                return None
        return message

    return get


def field_names(message: Any, prefix: str = "", depth: int = _DEEP) -> tuple[str, ...]:
    """The fields of a message as a mapping would name them."""
    names = _members(message)
    if names is None or depth == 0:
        if isinstance(message, list | tuple | np.ndarray) and len(message):
            return tuple(f"{prefix}[{i}]" for i in range(min(len(message), 16)))
        return (prefix,)
    found: list[str] = []
    for name in names:
        value = message[name] if isinstance(message, Mapping) else getattr(message, name)
        found += field_names(value, f"{prefix}.{name}" if prefix else name, depth - 1)
    return tuple(found)


def _members(message: Any) -> list[str] | None:
    """The names of an object's own fields; None where it is a value."""
    if isinstance(message, Mapping):
        return [str(name) for name in message]
    for known in ("__dataclass_fields__", "__slots__"):  # rosbags; genpy and mcap's ROS 2
        if names := getattr(type(message), known, None):
            return [name for name in names if not name.startswith("_") and not name.isupper()]
    descriptor = getattr(message, "DESCRIPTOR", None)
    if descriptor is not None:  # Protobuf
        return [field.name for field in descriptor.fields]
    inside = getattr(message, "__dict__", None)
    return None if inside is None else [name for name in inside if not name.startswith("_")]


class Collected:
    """The readings that one want found under one topic."""

    def __init__(self, want: Want, topic: str, entity: str) -> None:
        self._want, self._topic, self._entity = want, topic, entity
        self._time = None if want.time.field is None else getter(want.time.field)
        self._get = [getter(field) for field in want.fields]
        self._name = None if want.entity_field is None or entity else getter(want.entity_field)
        self._times, self._values = array("q"), array("d")
        self._names: list[str] = []
        self._unmet = set(want.fields)  # of objects, which may lack keys now and then
        self._known: tuple[str, ...] = ()

    def add(self, logged_ns: int, message: Any) -> None:
        """Takes one message that was logged at `logged_ns`. Raises `LogError`."""
        try:
            row = [get(message) for get in self._get]
            stamp = None if self._time is None else self._time(message)
            name = None if self._name is None else self._name(message)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise self._lacking(message) from error
        if self._time is not None and stamp is None:
            raise self._lacking(message)
        try:
            values = [np.nan if value is None else float(value) for value in row]
            when = (
                (logged_ns + 500) // 1_000
                if stamp is None
                else microseconds(stamp, self._want.time.unit)
            )
        except (TypeError, ValueError) as error:
            raise LogError(f"{self._want.at}: {self._topic}: {error}") from error
        if self._unmet:
            self._known = self._known or field_names(message)
            pairs = zip(self._want.fields, row, strict=True)
            self._unmet -= {field for field, value in pairs if value is not None}
        self._values.extend(values)
        self._times.append(when)
        if self._name is not None:
            self._names.append(str(name))

    def table(self) -> Table:
        """All that was taken. Raises `LogError` where no message had a field."""
        for field in self._want.fields:
            if field in self._unmet and self._known and field not in self._known:
                raise missing_field(self._want.at, field, self._topic, self._known)
        count = len(self._times)
        values = np.frombuffer(self._values, np.float64) if count else np.zeros(0)
        times = np.frombuffer(self._times, np.int64) if count else np.zeros(0, np.int64)
        shaped = values.reshape(count, len(self._get))
        return Table(times, shaped, self._names if self._name is not None else self._entity)

    def _lacking(self, message: Any) -> LogError:
        """The first field that a message does not have."""
        wanted = [*self._want.fields, self._want.time.field, self._want.entity_field]
        for field in [field for field in wanted if field is not None]:
            try:
                if getter(field)(message) is not None:
                    continue
            except (AttributeError, IndexError, KeyError, TypeError):
                pass
            return missing_field(self._want.at, field, self._topic, field_names(message))
        return LogError(f"{self._want.at}: a message of {self._topic} cannot be read")


class Collection:
    """Everything that a list of wants finds in one log."""

    def __init__(self, wants: list[Want]) -> None:
        self._wants = wants
        self._found: list[dict[str, Collected]] = [{} for _ in wants]
        self._of_topic: dict[str, list[Collected]] = {}

    def of(self, topic: str) -> list[Collected]:
        """Who wants a topic."""
        found = self._of_topic.get(topic)
        if found is None:
            found = self._of_topic[topic] = []
            for want, known in zip(self._wants, self._found, strict=True):
                if (entity := want.names_in(topic)) is not None:
                    known[topic] = Collected(want, topic, entity)
                    found.append(known[topic])
        return found

    def tables(self) -> list[list[Table]]:
        """For each want its tables, by topic."""
        return [[known[topic].table() for topic in sorted(known)] for known in self._found]
