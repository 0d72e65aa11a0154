"""A plant's samples as the messages that devices would send, in the spec's fields and units."""

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.ma  # np.unique and np.percentile would load it at the first message
import numpy.typing as npt
from confluent_kafka import Producer

from infra.plants.base import Sample, SensorBatch
from infra.registry import Registry
from schemas.messages import WATERMARK_HEADER, Watermark, encode
from schemas.spec_parts import SensorSpec
from schemas.system import SystemSpec
from streams.codecs import Writer, make_writer
from streams.publish import Headers
from streams.views import View

Ints = npt.NDArray[np.int64]


class Outgoing(NamedTuple):
    """Readings to be sent at one moment: one topic, `n` keys and values."""

    send_us: int  # event time at which they are due
    topic: str
    keys: list[str]
    values: list[bytes]
    slots: Ints  # [n] index of the entity
    headers: list[Headers] | None = None  # one per message


class ReadingEncoder:
    """Turns samples into messages of the spec's codecs; `shift_us` is added to every event time.

    `registry`: where schemas are found, or are registered, that codecs need and the spec has not.
    With `raw`, what the spec has encoded is shown as raw messages of which an encoder makes it.
    Raises `ValueError` where there is no schema to write under, and as `Registry` does.
    """

    def __init__(
        self,
        spec: SystemSpec,
        entities: Sequence[str],
        shift_us: int = 0,
        registry: Registry | None = None,
        raw: bool = False,
    ) -> None:
        self._spec = spec
        self._names = np.array(entities, dtype=object)
        self._shift = shift_us
        topics: dict[str, list[SensorSpec]] = {}
        for sensor in spec.sensors.values():
            topics.setdefault(sensor.topic, []).append(sensor)
        self._raw = {s.name: r.topic for s, r in spec.perceived} if raw else {}
        self._writers: dict[str, Writer] = {}
        self._views: dict[str, View] = {}
        for sensors in topics.values():
            for sensor in sensors:
                if sensor.name in self._raw:
                    self._views[sensor.name] = View(sensor)
                    continue
                # those that share a topic share what they are written under
                alike = [sensor, *(other for other in sensors if other.codec == sensor.codec)]
                self._writers[sensor.name] = make_writer(alike, registry)

    def encode(self, sample: Sample, after_us: int) -> list[Outgoing]:
        """The readings of a sample by the moment at which they are due, earliest first.

        A reading is due at its own event time, but never at or before `after_us` (the tick before,
        shifted): a plant that delays its readings hands out old ones.
        """
        groups: list[Outgoing] = []
        for batch in sample.batches:
            times = batch.time_us + self._shift
            due = np.maximum(times, after_us + 1)
            messages = self._messages(self._spec.sensors[batch.sensor], batch, times)
            topic = self._raw.get(batch.sensor, self._spec.sensors[batch.sensor].topic)
            headers = self._headers(batch, times)
            for moment in np.unique(due):
                rows = np.flatnonzero(due == moment)
                slots = batch.entity[rows].astype(np.int64)
                values = [messages[row] for row in rows]
                keys = self._names[slots].tolist()
                own = headers and [headers[row] for row in rows]
                groups.append(Outgoing(int(moment), topic, keys, values, slots, own))
        return sorted(groups, key=lambda group: group.send_us)

    def _headers(self, batch: SensorBatch, times: Ints) -> list[Headers] | None:
        """The times of raw messages."""
        if batch.sensor not in self._raw:
            return None
        time = self._spec.sensors[batch.sensor].time
        return [[(time.field, str(at).encode())] for at in _in_unit(times, time.microseconds)]

    def _messages(self, sensor: SensorSpec, batch: SensorBatch, times: Ints) -> list[bytes]:
        if (view := self._views.get(sensor.name)) is not None:
            return view.messages(batch)
        fields = [sensor.time.field]
        columns: list[list[Any]] = [_in_unit(times, sensor.time.microseconds)]
        for name, values in batch.values.items():
            fields.append(sensor.channels[name].field)
            columns.append(values.tolist())
        rows = list(zip(*columns, strict=True))
        return self._writers[sensor.name].encode(fields, rows)


def _in_unit(times_us: Ints, microseconds: float) -> list[Any]:
    """Whole numbers where the unit is a microsecond or finer, else floats exact to below one."""
    finer = microseconds <= 1.0
    values: list[Any] = (
        times_us * round(1.0 / microseconds) if finer else times_us / microseconds
    ).tolist()
    return values


def send_readings(producer: Producer, group: Outgoing) -> None:
    """Queues the readings of one moment."""
    produce, topic = producer.produce, group.topic
    headers: Iterable[Headers | None] = group.headers or repeat(None)
    for key, value, own in zip(group.keys, group.values, headers, strict=False):
        try:
            produce(topic, value, key, headers=own)
        except BufferError:
            producer.flush()
            produce(topic, value, key, headers=own)


def send_watermark(producer: Producer, places: Sequence[tuple[str, int]], time_us: int) -> None:
    """Promises on every (topic, partition) that nothing earlier than `time_us` follows."""
    value = encode(Watermark(time_us))
    for topic, partition in places:
        producer.produce(topic, value, None, partition, headers={WATERMARK_HEADER: b"1"})
