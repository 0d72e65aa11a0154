"""Bytes to columns: the records of a topic become rows of numbers, and what is none gets a reason.

Each message is decoded by itself, in one call per batch: msgspec takes as long for a message of its
own as for one in a joined array, and so no message can lean on its neighbour.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np

from schemas.spec_parts import SensorSpec
from schemas.system import SystemSpec
from streams.align_state import Floats, Ints

MAX_KEY: Final = 1_024
_SLACK: Final = 65_536  # bytes of a message beside the fields that are read
_FIELD: Final = 64  # bytes of one number with its name, at most
_EXACT: Final = 2**53  # whole numbers up to here are exact in a float64
_NEVER_US: Final = 2.0**62  # a time beyond every other, that still fits an int64

REASONS: Final[dict[str, str]] = {
    "malformed": "it is not JSON",
    "wrong_type": "a field that is read holds something else than a number",
    "missing_field": "a field without which it means nothing is not there",
    "wrong_length": "a vector has another length than in the spec",
    "oversized": "it is larger than a message of its fields can be",
    "tombstone": "a record without a value, on a topic that is not compacted",
    "no_key": "the key names the entity; this record has none, and is no watermark",
    "empty_key": "the key names the entity; this one is empty",
    "bad_key": "the key is not UTF-8",
    "long_key": f"the key has more than {MAX_KEY} bytes",
    "bad_watermark": "its header says that it is a watermark, and its value is none",
    "bad_control": "it is no control record",
    "bad_outcome": "it is no outcome",
    "late": "its tick has closed",
    "future": "its time lies too far ahead",
    "out_of_range": "a channel is outside its range; the others were used",
}
"""Reason of a dead letter → what it means. The last three are found by the aligner's core."""


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
    """`n` messages as numbers [n, columns] (NaN: missing); `kept` None: all of the batch."""

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


class JsonCodec:
    """JSON objects: the fields that are read are checked, all others are passed over.

    `NaN` and `Infinity`, which JSON does not have but some writers make, are understood.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = list(fields)
        self._limit = _SLACK + _FIELD * sum(field.width for field in fields)
        self._struct, names = _struct_of(self._fields)
        self._decode = msgspec.json.Decoder(self._struct).decode
        flat = all(field.group is None for field in fields)
        self._row: Callable[[Any], tuple[Any, ...]] = (
            msgspec.structs.astuple if flat else attrgetter(*names)
        )
        self._scalar = all(field.size is None for field in fields)

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """[n, columns] of what can be decoded; see `Decoded`."""
        try:
            if max(map(len, values), default=0) <= self._limit:  # type: ignore[arg-type]
                return Decoded(self._numbers(list(map(self._decode, values))), None, [])  # type: ignore[arg-type]
        except (TypeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # one of them cannot be decoded: each is looked at
        return self._one_by_one(values)

    def _one_by_one(self, values: Sequence[bytes | None]) -> Decoded:
        items, kept, bad = [], [], []
        for place, value in enumerate(values):
            found = self._single(value)
            if isinstance(found, tuple):
                bad.append(Bad(place, *found))
            else:
                items.append(found)
                kept.append(place)
        return Decoded(self._numbers(items), np.array(kept, dtype=np.int64), bad)

    def _single(self, value: bytes | None) -> Any | tuple[str, str]:
        """One message, or the reason and the detail of why it is none."""
        if value is None:
            return "tombstone", REASONS["tombstone"]
        if len(value) > self._limit:
            return "oversized", f"{len(value)} bytes, where {self._limit} are allowed"
        try:
            return self._decode(value)
        except msgspec.ValidationError as error:
            return _validation_reason(error), str(error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if b"NaN" in value or b"Infinity" in value:
                return self._python_json(value)
            return "malformed", str(error)

    def _python_json(self, value: bytes) -> Any | tuple[str, str]:
        try:
            return msgspec.convert(json.loads(value.decode()), self._struct)
        except msgspec.ValidationError as error:
            return _validation_reason(error), str(error)
        except (ValueError, RecursionError) as error:
            return "malformed", str(error)

    def _numbers(self, items: Sequence[Any]) -> Floats:
        if self._scalar:
            shape = (len(items), len(self._fields))
            try:
                flat = chain.from_iterable(map(self._row, items))
                return np.fromiter(flat, np.float64, shape[0] * shape[1]).reshape(shape)
            except TypeError:  # a null among them
                rows = list(map(self._row, items))
                return np.array(rows, dtype=np.float64).reshape(shape)
        columns = zip(*map(self._row, items), strict=True) if items else [()] * len(self._fields)
        parts = [
            _column(field, column) for field, column in zip(self._fields, columns, strict=True)
        ]
        return np.concatenate(parts, axis=1)


def _column(field: Field, column: Iterable[Any]) -> Floats:
    """[n, width] of one field; None becomes NaN."""
    if field.size is not None:
        none = (None,) * field.size
        column = [none if vector is None else vector for vector in column]
    return np.array(column, dtype=np.float64).reshape(-1, field.width)


def _struct_of(fields: Sequence[Field]) -> tuple[type[msgspec.Struct], list[str]]:
    """A struct with members `f0`, `f1`, … for `fields`, and the path of each member in it."""
    groups: dict[str | None, list[int]] = {}
    for number, field in enumerate(fields):
        groups.setdefault(field.group, []).append(number)
    paths = [""] * len(fields)
    members: list[Any] = []
    names: dict[str, str] = {}
    for group, numbers in groups.items():
        inner = [_member(f"f{number}", fields[number]) for number in numbers]
        rename = {f"f{number}": fields[number].name for number in numbers}
        for number in numbers:
            paths[number] = f"f{number}" if group is None else f"{group}.f{number}"
        if group is None:
            members += inner
            names |= rename
        else:
            nested = msgspec.defstruct(group, inner, rename=rename, kw_only=True, gc=False)
            members.append((group, nested))
    return msgspec.defstruct("Message", members, rename=names, kw_only=True, gc=False), paths


def _member(name: str, field: Field) -> Any:
    number: Any = float
    if field.whole:
        number = Annotated[int, msgspec.Meta(ge=-_EXACT, le=_EXACT)]
    if field.required:
        return (name, number if field.size is None else tuple[(number,) * field.size])  # type: ignore[misc]
    if field.size is None:
        return (name, number | None, np.nan)
    vector: Any = tuple[(number | None,) * field.size]  # type: ignore[misc]
    return (name, vector | None, None)


def _validation_reason(error: msgspec.ValidationError) -> str:
    text = str(error)
    if "missing required field" in text:
        return "missing_field"
    return "wrong_length" if "of length" in text else "wrong_type"


class Rows(NamedTuple):
    """Decoded readings or reports: places in their batch, entities, times and values [n, columns].

    `rest` [n, k]: the further whole numbers that the decoder was made for.
    """

    places: Ints
    entity: Ints
    time_us: Ints
    values: Floats
    rest: Ints
    bad: list[Bad]

    def seeing(self) -> "Rows":
        """Those with at least one value."""
        some = ~np.isnan(self.values).all(axis=1)
        places, entity, time_us, values, rest, bad = self
        return Rows(places[some], entity[some], time_us[some], values[some], rest[some], bad)


class SensorDecoder:
    """The messages of one sensor; columns as the aligner's core wants them."""

    def __init__(self, sensor: SensorSpec) -> None:
        scale = sensor.time.microseconds
        # Nanoseconds are divided: 0.001 is no binary fraction, and would be a microsecond off.
        self._factor, self._divisor = max(scale, 1.0), round(max(1 / scale, 1.0))
        fields = {sensor.time.field: Field(sensor.time.field, required=True)}
        for channel in sensor.channels.values():
            found = fields.setdefault(channel.field, Field(channel.field, channel.shape))
            if found.size != channel.shape:
                raise ValueError(
                    f"sensor {sensor.name}: field {channel.field!r} is read as a number and as a "
                    "vector: give its channels one shape, or other fields"
                )
        ends = np.cumsum([field.width for field in fields.values()])
        begin = dict(zip(fields, (int(end) for end in ends), strict=True))
        columns = [
            begin[channel.field] - channel.size + i
            for channel in sensor.channels.values()
            for i in range(channel.size)
        ]
        # Usually the time and then the channels one after the other: a view, no copy.
        in_order = columns == list(range(1, len(columns) + 1))
        self._columns: Any = slice(1, len(columns) + 1) if in_order else columns
        self._codec = CODECS[sensor.codec](list(fields.values()))

    def decode(self, entity: Ints, values: Sequence[bytes | None]) -> Rows:
        """Readings; `entity` [batch] are the rows of their keys."""
        decoded = self._codec.decode(values)
        kept = decoded.places()
        numbers, bad = decoded.numbers, decoded.bad
        if np.isnan(numbers[:, 0]).any():
            absent = np.isnan(numbers[:, 0])
            text = "its time is not a number"
            bad = [*bad, *(Bad(place, "missing_field", text) for place in kept[absent].tolist())]
            kept, numbers = kept[~absent], numbers[~absent]
        time = _microseconds(numbers[:, 0] * self._factor / self._divisor)
        none = np.zeros((len(kept), 0), dtype=np.int64)
        return Rows(kept, entity[kept], time, numbers[:, self._columns], none, bad)


class ReportDecoder:
    """Messages of `S.applied` and `S.actions`: values [n, A], and `rest`: tick (and status)."""

    def __init__(self, spec: SystemSpec, *names: str) -> None:
        whole = [Field(name, required=True, whole=True) for name in ("time", *names)]
        values = [Field(name, group="values") for name in spec.action_columns]
        self._whole = len(whole)
        self._codec: Codec = JsonCodec([*whole, *values])

    def decode(self, entity: Ints, values: Sequence[bytes | None]) -> Rows:
        """Reports; `entity` [batch] are the rows of their keys."""
        numbers, kept, bad = self._codec.decode(values)
        whole = numbers[:, : self._whole].astype(np.int64)
        places = np.arange(len(numbers)) if kept is None else kept
        return Rows(
            places, entity[places], whole[:, 0], numbers[:, self._whole :], whole[:, 1:], bad
        )


def _microseconds(times: Floats) -> Ints:
    return np.rint(np.clip(times, -_NEVER_US, _NEVER_US)).astype(np.int64)


CODECS: Final[Mapping[str, Callable[[Sequence[Field]], Codec]]] = {"json": JsonCodec}
"""The formats that a sensor may name."""

_BAD_KEYS: Final = {-1: "no_key", -2: "empty_key", -3: "long_key", -4: "bad_key"}


class KeyRows(dict[bytes | None, int]):
    """Key → row of the entity; negative where it names none (see `bad_keys`)."""

    def __init__(self, intern: Callable[[Sequence[str]], Ints]) -> None:
        super().__init__()
        self._intern = intern

    def __missing__(self, key: bytes | None) -> int:
        if not key:
            return -1 if key is None else -2
        if len(key) > MAX_KEY:
            return -3
        try:
            key.decode()
        except UnicodeDecodeError:
            return -4
        raise KeyError(key)

    def rows(self, keys: Sequence[bytes | None]) -> Ints:
        """[n] rows of entities."""
        try:
            return np.fromiter(map(self.__getitem__, keys), np.int64, len(keys))
        except KeyError:  # rare: all that are new get their room at once
            self._learn([key for key in dict.fromkeys(keys) if key and key not in self])
            return self.rows(keys)

    def _learn(self, keys: Sequence[bytes]) -> None:
        names: dict[bytes, str] = {}
        for key in keys:
            if len(key) <= MAX_KEY:
                with suppress(UnicodeDecodeError):
                    names[key] = key.decode()
        self.update(zip(names, self._intern(list(names.values())).tolist(), strict=True))


def bad_keys(rows: Ints) -> Iterator[Bad]:
    """What is wrong with the keys whose rows are negative."""
    for place in np.flatnonzero(rows < 0).tolist():
        reason = _BAD_KEYS[int(rows[place])]
        yield Bad(place, reason, REASONS[reason])
