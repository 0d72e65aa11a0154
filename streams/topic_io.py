"""Reading and writing whole topics by hand: where partitions end, and what lies before that."""

import time
from collections.abc import Iterator, Mapping
from typing import Final

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from infra.kafka import BrokerAwayError, KafkaSetupError, client_config

TIMEOUT_S: Final = 10.0
# A small request that waits for the last one's acknowledgement waits for up to 40 ms.
_SOCKET: Final = {"socket.nagle.disable": "true"}
# A fetch waits at the broker until there is something; a long wait only delays a new partition.
CONSUMER: Final = {
    **_SOCKET,
    "group.id": "rehearse",  # librdkafka wants one; partitions are assigned by hand
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "fetch.wait.max.ms": "100",
    "fetch.queue.backoff.ms": "1",
    "fetch.error.backoff.ms": "20",
}
# Without lingering, the records of a burst that come while five requests are under way make
# librdkafka's thread ask for their answers without pause: on two busy cores up to 14 ms of CPU that
# the broker needed to give them. This is long enough for a burst to go out as one request.
LINGER_MS: Final = 0.5
HURRY_S: Final = 0.003
"""For `flush` when all of a burst was handed over: it goes out at once, as far as nobody waits."""
# Idempotent: a retry may not put a reading or a report behind the watermark that follows it.
PRODUCER: Final = {
    **_SOCKET,
    "partitioner": "murmur2_random",
    "enable.idempotence": "true",
}
_UNSETTLED: Final = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


def make_consumer(
    bootstrap: str, extra: Mapping[str, str] | None = None, **settings: str
) -> Consumer:
    """A consumer for partitions assigned by hand; `settings` are librdkafka's with `_` for `.`."""
    own = {key.replace("_", "."): value for key, value in settings.items()}
    return Consumer({**CONSUMER, **own, **client_config(bootstrap, extra)})


def make_producer(
    bootstrap: str, extra: Mapping[str, str] | None = None, linger_ms: float = LINGER_MS
) -> Producer:
    """An idempotent producer; its keys lead to the same partitions as those of Java clients."""
    linger = {"linger.ms": str(linger_ms)}
    return Producer({**PRODUCER, **linger, **client_config(bootstrap, extra)})


def partitions(consumer: Consumer, name: str) -> list[int]:
    """The partitions of a topic. Raises `KafkaSetupError` with the remedy when it is not there."""
    try:
        found = consumer.list_topics(name, timeout=TIMEOUT_S).topics[name]
    except KafkaException as error:
        raise BrokerAwayError(
            f"no broker answers: {error.args[0].str()}. Check the address, and the settings "
            "given with -X."
        ) from error
    if found.error is not None:
        refused = found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
        remedy = "Create it, and give rights," if refused else "Create it"
        raise KafkaSetupError(
            f"{name}: {found.error.str()}. {remedy} with: rehearse topics create SPEC"
        )
    return sorted(found.partitions)


def bounds(consumer: Consumer, name: str) -> dict[int, tuple[int, int]]:
    """Partition → (first offset that is there, offset after the last one), as of now."""
    found = {}
    for number in partitions(consumer, name):
        found[number] = _bounds(consumer, TopicPartition(name, number))
    return found


def _bounds(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    limit = time.monotonic() + TIMEOUT_S
    while True:
        try:
            low, high = consumer.get_watermark_offsets(place, timeout=TIMEOUT_S)
            return low, high
        except KafkaException as error:
            # A topic that was just created: its leader is known, but does not know it yet.
            if error.args[0].code() not in _UNSETTLED or time.monotonic() > limit:
                raise
            time.sleep(0.05)


def topic_id(bootstrap: str, extra: Mapping[str, str] | None, name: str) -> str:
    """The id of a topic, which no other topic ever has, one made later under its name included."""
    # Kept until it has answered; silent, as its end is logged otherwise.
    admin = AdminClient({"log_level": "0", **client_config(bootstrap, extra)})
    found = admin.describe_topics(TopicCollection([name]))
    return str(found[name].result(TIMEOUT_S).topic_id)


def ends(consumer: Consumer, name: str) -> list[TopicPartition]:
    """The end of each partition as of now, for `assign`."""
    found = bounds(consumer, name).items()
    return [TopicPartition(name, number, high) for number, (_, high) in found]


def read_to_end(
    bootstrap: str,
    extra: Mapping[str, str] | None,
    name: str,
    newest: int | None = None,
) -> Iterator[Message]:
    """The records that a topic holds now, by partition; with `newest`, only that many of each.

    Raises `KafkaSetupError` when the topic is not there, or falls silent before its end.
    """
    consumer = make_consumer(bootstrap, extra, enable_partition_eof="true")
    try:
        for number, (low, high) in bounds(consumer, name).items():
            first = low if newest is None else max(low, high - newest)
            if first < high:
                consumer.assign([TopicPartition(name, number, first)])
                yield from _until(consumer, TopicPartition(name, number, high))
    finally:
        consumer.close()


def _until(consumer: Consumer, end: TopicPartition) -> Iterator[Message]:
    heard = time.monotonic()
    while time.monotonic() - heard < TIMEOUT_S:
        for message in consumer.consume(1_000, 0.05):
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            if message.partition() != end.partition:
                continue  # still of the one before: its end, told twice, is not this one's
            heard = time.monotonic()
            if error is not None or (message.offset() or 0) >= end.offset:
                return
            yield message
    raise BrokerAwayError(
        f"{end.topic}: no answer for {TIMEOUT_S:g} s before its end at offset {end.offset}"
    )


def send(producer: Producer, name: str, value: bytes, key: str | None, partition: int = -1) -> None:
    """Queues one message, by its key where `partition` is -1; waits while the queue is full."""
    while True:
        try:
            producer.produce(name, value, key, partition)
            return
        except BufferError:
            producer.poll(0.01)


def raise_fatal(error: KafkaError) -> str:
    """Transient errors heal by themselves in librdkafka: returns their text. Raises fatal ones."""
    if error.fatal():
        raise KafkaException(error)
    return str(error.str())
