"""Readings that are partitioned anyhow, copied to where their key belongs, so that aligners share.

At least once: how far a source was copied is committed when the broker has the copies. What is
copied again after a crash the aligner drops, as it does with all that devices send twice.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from infra.kafka import KafkaSetupError
from infra.log import Log
from schemas.messages import WATERMARK_HEADER, Watermark, decode, encode
from schemas.system import SystemSpec
from schemas.topics import cohort_of
from streams.align_kafka import Stop
from streams.identity import SETTLING
from streams.topic_io import TIMEOUT_S, make_consumer, make_producer, partitions, raise_fatal

_MOST: Final = 10_000
_WAIT_S: Final = 0.05
_COMMIT_S: Final = 0.2
_TIMESTAMP_UNKNOWN: Final = 0
_log = Log("repartition")


def run_repartition(
    spec: SystemSpec,
    bootstrap: str,
    extra: Mapping[str, str] | None,
    stop: Stop,
    ways: Mapping[str, str],
) -> dict[str, Any]:
    """Copies the topics `ways` (source → sensor topic of `spec`) until `stop` is set.

    Keys, values, headers and the times of records are kept; a topic that is stamped by its broker
    has the broker's time of the copy. Watermarks are promised once every partition of a source did.

    Summary: `records` copied, `watermarks` written, `copied` by source.

    Raises:
        KafkaSetupError: a topic is not there, or is no sensor topic of the spec.
        KafkaException: the copies cannot be delivered.
    """
    readable = {sensor.topic for sensor in spec.sensors.values()}
    for source, target in ways.items():
        if target not in readable or source in readable:
            raise KafkaSetupError(
                f"{source}={target}: copies go from another topic to one that a sensor of the spec "
                f"names: {', '.join(sorted(readable))}"
            )
    copy = _Copy(spec, bootstrap, extra, ways)
    try:
        while not stop.is_set():
            copy.turn()
    finally:
        copy.close()
    return copy.summary()


class _Copy:
    """Consumer of the sources, producer of the targets, and what was promised."""

    def __init__(
        self,
        spec: SystemSpec,
        bootstrap: str,
        extra: Mapping[str, str] | None,
        ways: Mapping[str, str],
    ) -> None:
        self._ways = dict(ways)
        group = f"rehearse-{spec.system}-repartition"
        self._consumer: Consumer = make_consumer(
            bootstrap, extra, group_id=group, auto_offset_reset="earliest"
        )
        self._producer: Producer = make_producer(bootstrap, extra)
        self._marks: dict[str, dict[int, int]] = {}  # source → its partitions' newest promises
        self._counts: dict[str, int] = {}
        places: list[TopicPartition] = []
        for source, target in ways.items():
            found = partitions(self._consumer, source)
            self._marks[source] = dict.fromkeys(found, 0)
            self._counts[target] = len(partitions(self._consumer, target))
            places += [TopicPartition(source, number) for number in found]
        self._consumer.assign(self._committed(places))
        self._copied = dict.fromkeys(ways, 0)
        self._watermarks = 0
        self._next: dict[tuple[str, int], int] = {}
        self._committed_s = time.monotonic()
        self._problem: KafkaError | None = None

    def _committed(self, places: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Where to go on; a source that was never copied begins with its oldest record."""
        end = time.monotonic() + TIMEOUT_S
        while True:
            try:
                found: list[TopicPartition] = self._consumer.committed(list(places), TIMEOUT_S)
                return found
            except KafkaException as error:  # a broker that has just started says so for a moment
                if error.args[0].code() not in SETTLING or time.monotonic() > end:
                    raise
                time.sleep(_WAIT_S)

    def turn(self) -> None:
        """Copies what came."""
        for message in self._consumer.consume(_MOST, _WAIT_S):
            if (error := message.error()) is not None:
                _log.warning("consumer", error=raise_fatal(error))
                continue
            source = message.topic() or ""
            place = (source, message.partition() or 0)
            if message.key() is None and _header(message, WATERMARK_HEADER):
                self._promise(*place, message)
            else:
                self._put(self._ways[source], message)
                self._copied[source] += 1
            self._next[place] = 1 + (message.offset() or 0)
        self._producer.poll(0)
        if time.monotonic() - self._committed_s > _COMMIT_S:
            self._commit()

    def _put(self, target: str, message: Message) -> None:
        key = message.key()
        kind, stamp = message.timestamp()
        number = -1
        if key:  # as `cohort_of`, so that the copies lie where aligners look for them
            number = cohort_of(key.decode(errors="replace"), self._counts[target])
        self._produce(
            target,
            message.value(),
            key,
            number,
            headers=message.headers(),
            timestamp=0 if kind == _TIMESTAMP_UNKNOWN else stamp,
        )

    def _promise(self, source: str, partition: int, message: Message) -> None:
        """A source has passed what all its partitions have passed, so all targets' have."""
        try:
            mark = decode(Watermark, message.value() or b"").watermark
        except msgspec.DecodeError:
            return
        marks, target = self._marks[source], self._ways[source]
        before = min(marks.values())
        marks[partition] = max(mark, marks[partition])
        if (now := min(marks.values())) > before:
            self._watermarks += 1
            value = encode(Watermark(now))
            for number in range(self._counts[target]):
                self._produce(target, value, None, number, headers=[(WATERMARK_HEADER, b"1")])

    def _produce(
        self, target: str, value: bytes | None, key: bytes | None, number: int, **more: Any
    ) -> None:
        while True:
            try:
                self._producer.produce(
                    target, value, key, number, on_delivery=self._delivered, **more
                )
                return
            except BufferError:
                self._producer.poll(0.01)

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        self._problem = self._problem or error

    def _commit(self) -> None:
        """Says how far the sources were copied, once the broker has all of it."""
        left = self._producer.flush(TIMEOUT_S)
        if self._problem is not None:
            raise KafkaException(self._problem)
        if not left and self._next:
            ends = [TopicPartition(*place, offset) for place, offset in self._next.items()]
            try:
                self._consumer.commit(offsets=ends, asynchronous=False)
                self._next.clear()
            except KafkaException as error:  # later: at worst some is copied again
                _log.warning("not committed", error=raise_fatal(error.args[0]))
        self._committed_s = time.monotonic()

    def close(self) -> None:
        """Commits what was copied, and leaves."""
        try:
            self._commit()
        finally:
            self._consumer.close()

    def summary(self) -> dict[str, Any]:
        """What was done, as plain JSON values."""
        total = sum(self._copied.values())
        return {"records": total, "watermarks": self._watermarks, "copied": self._copied}


def _header(message: Message, name: str) -> bool:
    return any(header[0] == name for header in message.headers() or ())
