"""Reading a topic to its end: what the partition before left behind ends nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, TopicPartition

from streams.topic_io import _until


@dataclass(frozen=True)
class Event:
    """What a consumer gives: a record, or the end of a partition."""

    place: tuple[int, int]
    ends: bool = False

    def partition(self) -> int:
        return self.place[0]

    def offset(self) -> int:
        return self.place[1]

    def error(self) -> KafkaError | None:
        return KafkaError(KafkaError._PARTITION_EOF) if self.ends else None


class Scripted:
    """Librdkafka tells an end twice only at times, and nobody can have it do so."""

    def __init__(self, *batches: list[Event]) -> None:
        self._batches = list(batches)

    def consume(self, count: int, seconds: float) -> list[Event]:
        del count, seconds
        return self._batches.pop(0)


def read(*batches: list[Event]) -> list[Any]:
    consumer = cast("Consumer", Scripted(*batches))
    return [m.offset() for m in _until(consumer, TopicPartition("t", 1, 3))]


def test_an_end_of_the_partition_before_is_not_this_one_s() -> None:
    late = [Event((0, 9)), Event((0, 10), ends=True), Event((1, 0))]
    assert read(late, [Event((1, 1)), Event((1, 2)), Event((1, 3), ends=True)]) == [0, 1, 2]


def test_what_came_after_the_end_was_asked_for_is_left_out() -> None:
    assert read([Event((1, 1)), Event((1, 2)), Event((1, 3)), Event((1, 4))]) == [1, 2]
