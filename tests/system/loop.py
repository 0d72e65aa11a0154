"""What a loop around a plant needs in tests: topics, a worker of constants, reading back."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
from confluent_kafka import Message

from infra.kafka import ensure_topics
from schemas.messages import Action, M, action_id, encode
from schemas.system import SystemSpec
from schemas.topics import Kind, topic, topics_of
from streams.topic_io import ends, make_consumer, make_producer, read_to_end, send


def make_topics(spec: SystemSpec, kafka: Mapping[str, str]) -> None:
    """Every topic of the system."""
    ensure_topics(kafka, [(t.name, t.partitions, t.config) for t in topics_of(spec)])


def records(spec: SystemSpec, kafka: Mapping[str, str], kind: Kind) -> list[Message]:
    """All records of one topic of the system."""
    return list(read_to_end(kafka["bootstrap.servers"], kafka, topic(spec, kind)))


def messages(spec: SystemSpec, kafka: Mapping[str, str], kind: Kind, struct: type[M]) -> list[M]:
    """All messages of one topic, watermarks left out."""
    found = records(spec, kafka, kind)
    return [msgspec.json.decode(m.value() or b"", type=struct) for m in found if m.key()]


@contextmanager
def constant_worker(
    spec: SystemSpec, kafka: Mapping[str, str], entities: Sequence[str], values: Sequence[float]
) -> Iterator[None]:
    """Answers every watermark of the first sensor with the same values for all `entities`."""
    bootstrap = kafka["bootstrap.servers"]
    consumer, producer = make_consumer(bootstrap, kafka), make_producer(bootstrap, kafka)
    places = ends(consumer, next(iter(spec.sensors.values())).topic)
    consumer.assign(places)
    stop = threading.Event()

    def answer(time_us: int) -> None:
        tick = (time_us - spec.epoch_us) // spec.period_us
        named = dict(zip(spec.action_columns, values, strict=True))
        for entity in entities:
            identity = action_id(spec.system, entity, tick)
            until = time_us + 2 * spec.period_us
            made = Action(
                identity, spec.system, entity, tick, time_us, named, until, mode=0, reasons=0
            )
            send(producer, topic(spec, "actions"), encode(made), entity)
        producer.poll(0)

    def work() -> None:
        marks: dict[int, int] = {}
        while not stop.is_set():
            message = consumer.poll(0.05)
            if message is None or message.error() or message.key() is not None:
                continue
            time_us = msgspec.json.decode(message.value() or b"")["watermark"]
            marks[message.partition() or 0] = time_us
            if len(marks) == len(places) and set(marks.values()) == {time_us}:
                answer(time_us)

    thread = threading.Thread(target=work, name="constant worker")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        producer.flush()
        consumer.close()
