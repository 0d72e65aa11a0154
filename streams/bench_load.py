"""Open-loop load: readings at scheduled moments, an echo to set beside the loop, and the receiver.

Readings are scheduled in pulses, a millisecond apart: in a burst from the tick's time on, as dense
as a device's gateway would send them, or spread over the whole period before it. The schedule never
waits for an answer, and latency counts from it (no coordinated omission).
"""

import time
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, TopicPartition

from infra.priority import go_first, real_time
from schemas.system import SystemSpec
from schemas.topics import cohort_of, entity_partitions
from streams.bench_systems import Case, standing
from streams.topic_io import ends, make_consumer, make_producer

Pattern = Literal["burst", "spread"]
Stamp = Literal["tick", "send"]
Ints = npt.NDArray[np.int64]
PULSE_US: Final = 1_000
PER_PULSE: Final = 100  # of a burst: 100,000 readings/s
_MOST: Final = 10_000
_FINE_S: Final = 0.0002  # before a pulse the clock is watched, as a sleep may last longer


class Reading(NamedTuple):
    """One message to be sent: where to, and by whom. Its payload is made when its time is known."""

    topic: str
    partition: int
    key: bytes
    tail: bytes  # of the JSON payload, behind the time


class Order(NamedTuple):
    """What a generator is asked to send: `ticks` ticks from the one at `begin_us` on.

    `stamp`: the time in the payload is that of the `tick`, or that of the reading's own `send`.
    """

    readings: Sequence[Reading]
    offsets_us: Ints
    begin_us: int
    period_us: int
    ticks: int
    stamp: Stamp


def offsets(case: Case, pattern: Pattern) -> Ints:
    """[readings of a tick] microseconds from the tick's time to when each is sent, in pulses."""
    count = case.entities * case.sensors
    number = np.arange(count, dtype=np.int64)
    if pattern == "burst":
        return number // PER_PULSE * PULSE_US
    before = number * case.period_us // count - case.period_us
    return np.asarray(before // PULSE_US * PULSE_US + PULSE_US)  # the tick before is not its own


def due_us(case: Case, pattern: Pattern) -> int:
    """Microseconds from a tick's time to when it may be decided: when its last reading is sent.

    Readings that were spread lie before the tick, so that it may be decided at its time; where one
    more is due about then, it is waited for, and counts.
    """
    return max(0, int(offsets(case, pattern)[-1]))


def readings_of(case: Case, spec: SystemSpec, topics: Mapping[str, str]) -> list[Reading]:
    """Every sensor of every entity once; `topics` by name of the sensor."""
    values, count = standing(spec, case.entities), entity_partitions(spec)
    found = []
    for number in range(case.entities):
        entity = f"device-{number:05d}"
        partition = cohort_of(entity, count)
        for name, sensor in spec.sensors.items():
            said = [
                f'"{c.field}":{_json(values[c.name][number], c.shape)}'
                for c in sensor.channels.values()
            ]
            tail = f",{','.join(said)}}}"
            found.append(Reading(topics[name], partition, entity.encode(), tail.encode()))
    return found


def _json(values: npt.NDArray[np.float64], shape: int | None) -> object:
    return values.tolist() if shape else float(values[0])


class Generator:
    """A process of its own that sends what it is asked for; a context manager."""

    def __init__(self, bootstrap: str, extra: Mapping[str, str], topics: Sequence[str]) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (bootstrap, dict(extra), tuple(topics), theirs)
        self._process = context.Process(target=_generate, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # it is connected

    def start(self, order: Order) -> None:
        """Has the order sent; `lateness_ns` waits for its end."""
        self._pipe.send(order)

    def lateness_ns(self) -> Ints:
        """[pulses] from when each pulse was due to when librdkafka had all of it."""
        return np.asarray(self._pipe.recv(), dtype=np.int64)

    def __enter__(self) -> "Generator":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(5)
        self._process.terminate()


def _generate(
    bootstrap: str, extra: Mapping[str, str], topics: Sequence[str], pipe: Connection
) -> None:
    go_first()
    producer = make_producer(bootstrap, extra)
    for topic in topics:
        producer.list_topics(topic, timeout=10)
    real_time()  # devices do not wait for the processors of those who listen to them
    pipe.send("ready")
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return
        pipe.send(_send(producer, pulses(order)))
        producer.flush(10)


def pulses(order: Order) -> list[tuple[int, str, list[dict[str, Any]]]]:
    """(when it is due in us, topic, messages) in the order of time, for `produce_batch`."""
    found: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for tick in range(order.ticks):
        at = order.begin_us + tick * order.period_us
        for offset, reading in zip(order.offsets_us.tolist(), order.readings, strict=True):
            stamp = at if order.stamp == "tick" else at + offset
            value = b'{"ts":%d%b' % (stamp, reading.tail)
            message = {"value": value, "key": reading.key, "partition": reading.partition}
            found.setdefault((at + offset, reading.topic), []).append(message)
    return [(due, topic, messages) for (due, topic), messages in sorted(found.items(), key=_when)]


def _when(item: tuple[tuple[int, str], object]) -> tuple[int, str]:
    return item[0]


def _send(producer: Any, plan: list[tuple[int, str, list[dict[str, Any]]]]) -> list[int]:
    late = []
    for due, topic, messages in plan:
        _wait_until(due)
        producer.produce_batch(topic, messages)
        late.append(time.time_ns() - due * 1_000)
        producer.poll(0)
    return late


def _wait_until(due: int) -> None:
    while (left := due / 1e6 - time.time()) > 0:
        if left > _FINE_S:
            time.sleep(left - _FINE_S)


class Echo:
    """The least that two hops take: a process that sends each record on, one topic to another."""

    def __init__(
        self, bootstrap: str, extra: Mapping[str, str], sources: Sequence[str], out: str
    ) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (bootstrap, dict(extra), tuple(sources), out, theirs)
        self._process = context.Process(target=_echo, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # it reads

    def __enter__(self) -> "Echo":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(5)
        self._process.terminate()


def _echo(
    bootstrap: str, extra: Mapping[str, str], sources: Sequence[str], out: str, pipe: Connection
) -> None:
    go_first()
    consumer = make_consumer(bootstrap, extra)
    producer = make_producer(bootstrap, extra)  # a burst is slower without its linger
    producer.list_topics(out, timeout=10)
    consumer.assign([place for source in sources for place in ends(consumer, source)])
    pipe.send("ready")
    while not pipe.poll():  # nothing is ever sent: its end was closed
        for message in taken(consumer):
            producer.produce(out, message.value(), message.key(), message.partition() or 0)
        producer.poll(0)
    consumer.close()


def taken(consumer: Consumer, wait_s: float = 0.05) -> list[Any]:
    """What is there, at once; waits for the first of it only."""
    messages = consumer.consume(1, wait_s)
    if messages:
        messages += consumer.consume(_MOST, 0.0)
    return [message for message in messages if message.error() is None]


class Receiver:
    """Reads a topic from its present end on, and notes when each record came in."""

    def __init__(self, bootstrap: str, extra: Mapping[str, str], topic: str) -> None:
        self._consumer = make_consumer(bootstrap, extra)
        self._places: list[TopicPartition] = ends(self._consumer, topic)
        self._consumer.assign(self._places)

    def until(self, count: int, limit_us: int) -> list[tuple[int, bytes]]:
        """(nanoseconds since 1970, value) of `count` records, or what came until `limit_us`."""
        found: list[tuple[int, bytes]] = []
        while len(found) < count and time.time_ns() < limit_us * 1_000:
            messages = taken(self._consumer)
            now = time.time_ns()
            found += [(now, message.value() or b"") for message in messages]
        return found

    def close(self) -> None:
        """Leaves."""
        self._consumer.close()
