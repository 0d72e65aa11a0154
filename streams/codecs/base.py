"""What all codecs share: the fields that are read, what comes out, and why a message is none."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from streams.align_state import Floats, Ints

MAX_KEY: Final = 1_024
MAX_READINGS: Final = 4_096
"""Readings that one message may hold."""
MAX_BYTES: Final = 1 << 20
"""Bytes of a message that may hold several readings."""
_SLACK: Final = 65_536  # bytes of a message beside the fields that are read
_FIELD: Final = 64  # bytes of one number with its name, at most

REASONS: Final[dict[str, str]] = {
    "malformed": "it is not what its codec reads",
    "truncated": "it ends before it should",
    "wrong_type": "a field that is read holds something else than a number",
    "missing_field": "a field without which it means nothing is not there",
    "wrong_length": "a vector has another length than in the spec",
    "oversized": "it is larger than a message of its fields can be",
    "bad_magic": "it does not begin with the zero byte that stands before a schema's id",
    "unknown_schema": "nobody knows the schema of its id",
    "bad_schema": "its schema cannot be used",
    "no_registry": "its schema is not known, and the schema registry does not answer",
    "tombstone": "a record without a value, on a topic that is not compacted",
    "no_key": "the key names the entity; this record has none, and is no watermark",
    "empty_key": "the key names the entity; this one is empty",
    "bad_key": "the key is not UTF-8",
    "long_key": f"the key has more than {MAX_KEY} bytes",
    "misplaced": "another aligner takes its entity, whose partition is another one",
    "bad_watermark": "its header says that it is a watermark, and its value is none",
    "bad_control": "it is no control record",
    "bad_outcome": "it is no outcome",
    "late": "its tick has closed",
    "future": "its time lies too far ahead",
    "out_of_range": "a channel is outside its range; the others were used",
}
"""Reason of a dead letter → what it means. The last three are found by the aligner's core."""


class Refused(Exception):
    """A message, or all of a schema, that cannot be used: a reason of `REASONS`, and the detail."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail or REASONS[reason]


class Bad(NamedTuple):
    """A message of a batch that cannot be used: its place there, and why."""

    place: int
    reason: str
    detail: str


class Field(NamedTuple):
    """What is read of a message: a name (within `group`, where given), and what stands there.

    `size` None: one number; else a vector. What is not `required` may be missing or null.
    """

    name: str
    size: int | None = None
    required: bool = False
    whole: bool = False
    group: str | None = None

    @property
    def width(self) -> int:
        """Columns that it fills."""
        return self.size or 1


class Decoded(NamedTuple):
    """Messages as `n` readings, numbers [n, columns] (NaN: missing), in the order of arrival.

    `kept` [n]: the place of each reading's message in the batch, repeated where a message holds
    several; None: one of every message.
    """

    numbers: Floats
    kept: Ints | None
    bad: list[Bad]

    def places(self) -> Ints:
        """[n] the places of what was decoded in the batch."""
        return np.arange(len(self.numbers)) if self.kept is None else self.kept


class Codec(Protocol):
    """Turns the values of records into numbers; one implementation per format."""

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """The columns of the fields that it was made for, in their order."""

    def awaits(self, values: Sequence[bytes | None]) -> int | None:
        """The first place whose schema is on its way; None: all can be decoded, or refused."""


def size_limit(fields: Sequence[Field], many: bool) -> int:
    """Bytes of a message beyond which it is no reading of `fields`."""
    return MAX_BYTES if many else _SLACK + _FIELD * sum(field.width for field in fields)


def check_size(value: bytes | None, limit: int) -> bytes:
    """`value`, where there is one of at most `limit` bytes. Raises `Refused`."""
    if value is None:
        raise Refused("tombstone")
    if len(value) > limit:
        raise Refused("oversized", f"{len(value)} bytes, where {limit} are allowed")
    return value


def check_count(count: int) -> None:
    """Raises `Refused` where a message holds more readings than one may."""
    if count > MAX_READINGS:
        detail = f"{count} readings in one message, where {MAX_READINGS} are allowed"
        raise Refused("oversized", detail)


def numbers_of(fields: Sequence[Field], rows: Sequence[Sequence[Any]]) -> Floats:
    """[rows, columns] from rows with a member per field: a number, a vector of them, or None."""
    if all(field.size is None for field in fields):
        shape = (len(rows), len(fields))
        try:
            flat = chain.from_iterable(rows)
            return np.fromiter(flat, np.float64, shape[0] * shape[1]).reshape(shape)
        except TypeError:  # a null among them
            return np.array(rows, dtype=np.float64).reshape(shape)
    columns = zip(*rows, strict=True) if rows else [()] * len(fields)
    parts = [_column(field, column) for field, column in zip(fields, columns, strict=True)]
    return np.concatenate(parts, axis=1)


def _column(field: Field, column: Iterable[Any]) -> Floats:
    """[n, width] of one field; None becomes NaN."""
    if field.size is not None:
        none = (None,) * field.size
        column = [none if vector is None else vector for vector in column]
    return np.array(column, dtype=np.float64).reshape(-1, field.width)


def joined(width: int, parts: Sequence[tuple[Ints, Floats]], bad: list[Bad]) -> Decoded:
    """What was decoded group by group (places [n], numbers [n, width]), in the order of arrival."""
    if not parts:
        return Decoded(np.zeros((0, width)), np.zeros(0, dtype=np.int64), sorted(bad))
    places = np.concatenate([part[0] for part in parts])
    numbers = np.concatenate([part[1] for part in parts])
    if len(parts) > 1:
        order = np.argsort(places, kind="stable")
        places, numbers = places[order], numbers[order]
    return Decoded(numbers, places, sorted(bad))


def repeated(places: Ints, lists: Sequence[Sequence[Any]]) -> Ints:
    """[rows] the place of each row of `lists`, one list per place."""
    return np.repeat(places, np.fromiter(map(len, lists), np.int64, len(lists)))
