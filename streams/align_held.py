"""Records that cannot be decoded yet: held back, with all that follows them, until they can be.

A partition is read in its order. So from the first record on whose schema is on its way, it rests:
nothing more of it is fetched, its offsets do not advance, and the aligner knows it as lagging.
"""

from collections.abc import Iterable, Sequence

from confluent_kafka import Consumer, Message, TopicPartition

from streams.align_feed import Feed, Place


class Held:
    """What is held back of an aligner's partitions; `topics`: those whose records name schemas."""

    def __init__(self, consumer: Consumer, feed: Feed, topics: Iterable[str]) -> None:
        self._consumer, self._feed, self._topics = consumer, feed, set(topics)
        self._messages: dict[Place, list[Message]] = {}

    def __bool__(self) -> bool:
        return bool(self._messages)

    def holds(self, topic: str, partition: int) -> bool:
        """Whether records of a partition are held back."""
        return (topic, partition) in self._messages

    def sift(self, messages: list[Message]) -> list[Message]:
        """What can be taken now: of `messages` (fresh ones), and of those that were held back."""
        if not self._topics:
            return messages
        before = self._messages
        if before:
            older = [message for held in before.values() for message in held]
            messages = older + messages
        elif self._ready(messages):
            return messages
        self._messages = self._cut(messages)
        if fresh := self._messages.keys() - before.keys():
            self._consumer.pause([TopicPartition(*place) for place in fresh])
            self._feed.hold(fresh)
        if freed := before.keys() - self._messages.keys():
            self._consumer.resume([TopicPartition(*place) for place in freed])
        held = {id(message) for rest in self._messages.values() for message in rest}
        return [message for message in messages if id(message) not in held]

    def _ready(self, messages: Sequence[Message]) -> bool:
        """Whether nothing of a batch has to wait."""
        names = list(map(Message.topic, messages))
        for name in self._topics.intersection(names):
            if names.count(name) == len(names):
                values = list(map(Message.value, messages))
            else:
                values = [m.value() for m, of in zip(messages, names, strict=True) if of == name]
            if self._feed.awaits(name, values) is not None:
                return False
        return True

    def _cut(self, messages: Sequence[Message]) -> dict[Place, list[Message]]:
        """Of each partition, what comes from the first record on that has to wait."""
        places: dict[Place, list[Message]] = {}
        for message in messages:
            place = (message.topic() or "", message.partition() or 0)
            if place[0] in self._topics:
                places.setdefault(place, []).append(message)
        held = {}
        for place, found in places.items():
            first = self._feed.awaits(place[0], [message.value() for message in found])
            if first is not None:
                held[place] = found[first:]
        return held
