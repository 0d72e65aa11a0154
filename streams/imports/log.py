"""What every reader of a log takes and gives: the fields that are wanted, as columns of numbers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from streams.align_state import Floats, Ints
from streams.imports.mapping import LogTime, pattern

_NEVER_NS: Final = 2.0**72  # some 150,000 years: in microseconds it fits an int64
OnRead = Callable[[int, int], None]
_NS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
# Seconds and the nanoseconds within them: ROS 2 and rosbags, ROS 1 (genpy), Protobuf, Foxglove.
_STAMPS: Final = (("sec", "nanosec"), ("secs", "nsecs"), ("seconds", "nanos"), ("sec", "nsec"))


class LogError(ValueError):
    """A log that does not hold what is wanted of it; the message names the place and the remedy."""


class Want(NamedTuple):
    """What one part of a mapping wants of a log; `at` is its place, for messages."""

    at: str
    topic: str | None
    file: str | None
    instance: int
    time: LogTime
    fields: tuple[str, ...]
    entity_field: str | None

    def names_in(self, topic: str) -> str | None:
        """The entity that a topic's name tells, "" where it tells none; None: another topic."""
        found = pattern(self.topic or "").fullmatch(topic)
        return None if found is None else found.groupdict().get("entity") or ""


class Table(NamedTuple):
    """`n` readings: times, values [n, fields] as they are in the log, and whose they are.

    `entity` is one name for all, one per reading, or "" where neither log nor place tells.
    """

    time_us: Ints
    values: Floats
    entity: str | list[str]


class Content(NamedTuple):
    """One topic or table of a log: how many readings, and the fields that they have."""

    topic: str
    readings: int
    fields: tuple[str, ...]


class Reader(Protocol):
    """Reads one format."""

    def read(self, path: Path, wants: list[Want], shown: OnRead) -> list[list[Table]]:
        """For each want the tables that meet it. Raises `LogError`."""

    def contents(self, path: Path) -> list[Content]:
        """What there is in a log."""


def microseconds(value: Any, unit: str) -> int:
    """A time of a log in microseconds since 1970: a number, a stamp, or a date (naive: UTC).

    Whole numbers stay exact. Raises `ValueError` for anything else.
    """
    if isinstance(value, bool):
        raise ValueError("true or false is no time")
    if isinstance(value, int | np.integer):
        return (int(value) * _NS[unit] + 500) // 1_000
    if isinstance(value, float | np.floating):
        return round(float(value) * _NS[unit] / 1_000)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return round(aware.timestamp() * 1e6)
    for names in _STAMPS:
        parts = [_part(value, name) for name in names]
        if None not in parts:
            return int(parts[0]) * 1_000_000 + (int(parts[1]) + 500) // 1_000
    raise ValueError(f"{value!r} is no time: name a number, a stamp or a date")


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def scaled_times(values: npt.NDArray[Any], unit: str) -> Ints:
    """[n] microseconds of a column of numbers in `unit`; whole ones stay exact.

    Raises `LogError` where one is none, or beyond all times.
    """
    scale = _NS[unit]
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = ~(np.abs(values.astype(np.float64)) * scale < _NEVER_NS)  # nor is NaN
    if wrong.any():
        row = int(wrong.argmax())
        raise LogError(f"row {row + 1}: {values[row]} is no time in {unit}: correct the row")
    if values.dtype.kind in "iu":
        whole = values.astype(np.int64)
        return whole * (scale // 1_000) if scale >= 1_000 else (whole + 500) // 1_000
    return np.rint(values.astype(np.float64) * scale / 1_000).astype(np.int64)


def missing_topic(want: Want, path: Path, known: list[str]) -> LogError:
    """Says that a log lacks a topic, and which ones it has."""
    return LogError(
        f"{want.at}.topic: {path} has no topic {want.topic!r}; it has {', '.join(sorted(known))}"
    )


def missing_field(at: str, field: str, topic: str, known: tuple[str, ...]) -> LogError:
    """Says that a topic lacks a field, and which ones it has."""
    return LogError(f"{at}: {topic} has no field {field!r}; it has {', '.join(known)}")
