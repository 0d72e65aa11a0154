"""Other members of a group, plain consumers: some with the static id of a member."""

from __future__ import annotations

import time
from collections.abc import Mapping

from confluent_kafka import Consumer

from streams.topic_io import make_consumer


def join(
    kafka: Mapping[str, str], member: Mapping[str, str], topic: str, **settings: str
) -> Consumer:
    """A consumer that has its partitions; a member with the same static id is fenced by it."""
    client = make_consumer(kafka["bootstrap.servers"], kafka, **member, **settings)
    assigned: list[object] = []
    client.subscribe([topic], on_assign=lambda _, places: assigned.append(places))
    end = time.monotonic() + 120
    while not assigned:
        assert time.monotonic() < end, "the broker did not let the rival in"
        client.poll(0.05)
    return client


def take_the_place(kafka: Mapping[str, str], member: Mapping[str, str], topic: str) -> None:
    """Has a member fenced by one that is gone at once; a static member does not leave its group."""
    join(kafka, member, topic).close()
