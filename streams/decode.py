"""Bytes to rows: the records of a topic become readings or reports, and what is none gets a reason.

Codecs turn values into numbers (`streams.codecs`); here they become times, entities and channels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np

from schemas.spec_parts import SensorSpec
from schemas.system import SystemSpec
from streams.align_state import Floats, Ints
from streams.codecs import make_codec
from streams.codecs.base import MAX_KEY, REASONS, Bad, Codec, Field
from streams.codecs.json_codec import JsonCodec
from streams.codecs.schemas import Schemas

_NEVER_US: Final = 2.0**62  # a time beyond every other, that still fits an int64


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

    def __init__(self, sensor: SensorSpec, schemas: Schemas | None = None) -> None:
        scale = sensor.time.microseconds
        # Nanoseconds are divided: 0.001 is no binary fraction, and would be a microsecond off.
        self._factor, self._divisor = max(scale, 1.0), round(max(1 / scale, 1.0))
        fields = fields_of(sensor)
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
        self._codec = make_codec(sensor, list(fields.values()), schemas)

    def awaits(self, values: Sequence[bytes | None]) -> int | None:
        """The first place whose schema is on its way; None: all can be decoded, or refused."""
        return self._codec.awaits(values)

    def decode(self, entity: Ints, values: Sequence[bytes | None]) -> Rows:
        """Readings; `entity` [batch] are the rows of their keys."""
        decoded = self._codec.decode(values)
        kept = decoded.places()
        numbers, bad = decoded.numbers, decoded.bad
        if np.isnan(numbers[:, 0]).any():
            absent = np.isnan(numbers[:, 0])
            text = "its time is not a number"
            where = dict.fromkeys(kept[absent].tolist())  # once where a message holds several
            bad = [*bad, *(Bad(place, "missing_field", text) for place in where)]
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


def fields_of(sensor: SensorSpec) -> dict[str, Field]:
    """What is read of a sensor's messages, the time first."""
    fields = {sensor.time.field: Field(sensor.time.field, required=True)}
    for channel in sensor.channels.values():
        found = fields.setdefault(channel.field, Field(channel.field, channel.shape))
        if found.size != channel.shape:
            raise ValueError(
                f"sensor {sensor.name}: field {channel.field!r} is read as a number and as a "
                "vector: give its channels one shape, or other fields"
            )
    return fields


def _microseconds(times: Floats) -> Ints:
    return np.rint(np.clip(times, -_NEVER_US, _NEVER_US)).astype(np.int64)


_MISPLACED: Final = -5
_BAD_KEYS: Final = {
    -1: "no_key",
    -2: "empty_key",
    -3: "long_key",
    -4: "bad_key",
    _MISPLACED: "misplaced",
}


class KeyRows(dict[bytes | None, int]):
    """Key → row of the entity; negative where it names none of ours (see `bad_keys`)."""

    def __init__(
        self, intern: Callable[[Sequence[str]], Ints], mine: Callable[[str], bool] | None = None
    ) -> None:
        super().__init__()
        self._intern, self._mine = intern, mine

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
        if self._mine is not None:
            others = [key for key, name in names.items() if not self._mine(name)]
            self.update(dict.fromkeys(others, _MISPLACED))
            for key in others:
                del names[key]
        self.update(zip(names, self._intern(list(names.values())).tolist(), strict=True))


def bad_keys(rows: Ints) -> Iterator[Bad]:
    """What is wrong with the keys whose rows are negative."""
    for place in np.flatnonzero(rows < 0).tolist():
        reason = _BAD_KEYS[int(rows[place])]
        yield Bad(place, reason, REASONS[reason])
