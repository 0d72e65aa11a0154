"""What is said of the peers: medians, whether all came out, and by how much ours is faster."""

from __future__ import annotations

import sys

import pytest

from infra.broker import Broker
from tests.bench.bench_peers import KEYS, MORE, Peer, Timed, bench_peers, table


def test_ratios_are_those_of_medians_and_only_of_complete_output() -> None:
    ours = [Timed(100.0, 4.0, 1_000, 1_000), Timed(300.0, 6.0, 1_000, 1_000)]
    theirs = {
        "slow": [Timed(10.0, 50.0, 1_000, 1_000), Timed(30.0, 50.0, 1_000, 1_000)],
        "lossy": [Timed(50.0, 5.0, 500, 1_000)],
        "broken": [],
    }
    found = table(ours, 800.0, theirs, {"broken": "it fell over"})["systems"]
    assert found["slow"]["ours_is_times"] == 10.0
    assert found["slow"]["cpu_times"] == 10.0
    assert "ours_is_times" not in found["lossy"]
    assert found["broken"] == {"failed": "it fell over"}


@pytest.mark.parametrize(
    ("results", "complete"),
    [(9_999, False), (10_000, True), (10_000 + MORE * KEYS, True), (10_001 + MORE * KEYS, False)],
)
def test_complete_is_every_window_that_counts_and_nothing_twice(
    results: int, complete: bool
) -> None:
    assert Timed(1.0, 1.0, results, 10_000).complete is complete


COPY = """
import sys
from confluent_kafka import Consumer, Producer
broker, source, out, total = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": broker, "group.id": out, "auto.offset.reset": "earliest"})
consumer.subscribe([source])
producer = Producer({"bootstrap.servers": broker, "linger.ms": 1})
while True:
    for message in consumer.consume(1000, 0.1):
        producer.produce(out, message.value(), message.key())
    producer.flush()
"""


@pytest.mark.broker
@pytest.mark.system
def test_a_program_that_copies_its_readings_is_complete(broker: Broker) -> None:
    copier = Peer((sys.executable, "-c", COPY), 0.5)
    found = bench_peers(broker.bootstrap, {"copier": copier}, 40_000, repeat=1)["systems"]
    assert found["copier"]["wanted"] == 20_000
    assert found["copier"]["results"] == 20_000 + MORE * KEYS
    assert found["copier"]["complete"]
    assert found["rehearse"]["complete"]
    assert found["rehearse"]["readings_per_s"] > 0
