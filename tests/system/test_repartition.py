"""Readings that lie anyhow are copied to their key's partition, and can be shared then."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message

from infra.kafka import KafkaSetupError, ensure_topics
from schemas.messages import WATERMARK_HEADER, Watermark, decode, encode
from schemas.system import SystemSpec, load_spec
from schemas.topics import cohort_of
from streams.repartition import run_repartition
from streams.topic_check import for_one_aligner
from streams.topic_io import make_producer, read_to_end
from tests.support import unique
from tests.system.loop import make_topics
from tests.system.test_align_kafka import NAMES, TEXT, Kafka, new_system, wait_for

pytestmark = pytest.mark.broker
SOURCE_PARTITIONS = 2
SCRIPT = """
import sys, threading, time
from schemas.system import load_spec
from streams import repartition
file, kafka, source, target = sys.argv[1:]
repartition._MOST = 100
turn = repartition._Copy.turn
repartition._Copy.turn = lambda self: (time.sleep(0.03), turn(self))
repartition.run_repartition(load_spec(file), kafka, None, threading.Event(), {source: target})
"""


@contextmanager
def copying(spec: SystemSpec, kafka: Kafka, ways: dict[str, str]) -> Iterator[dict[str, Any]]:
    stop, summary = threading.Event(), dict[str, Any]()
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_repartition, spec, kafka["bootstrap.servers"], kafka, stop, ways)
        try:
            yield summary
        finally:
            stop.set()
            summary.update(run.result(60))


def test_copies_lie_where_their_key_belongs(kafka: Kafka) -> None:
    spec, source = new_system(kafka), f"{unique()}.raw"
    target, bootstrap = spec.sensors["fast"].topic, kafka["bootstrap.servers"]
    ensure_topics(kafka, [(source, SOURCE_PARTITIONS, {})])
    producer = make_producer(bootstrap, kafka)

    def send(begin: int, end: int) -> None:
        for number in range(begin, end):
            headers: dict[str, str | bytes | None] = {"trace": str(number)}
            value, name = b"%d" % number, NAMES[number % 5]
            producer.produce(source, value, name, number % SOURCE_PARTITIONS, headers=headers)
        producer.flush()

    def promise(partition: int, time_us: int) -> None:
        mark: dict[str, str | bytes | None] = {WATERMARK_HEADER: b"1"}
        producer.produce(source, encode(Watermark(time_us)), None, partition, headers=mark)
        producer.flush()

    def copies(marks: bool = False) -> list[Message]:
        found = read_to_end(bootstrap, kafka, target)
        return [message for message in found if (message.key() is None) == marks]

    with copying(spec, kafka, {source: target}) as first:
        send(0, 200)
        promise(0, 7_000)
        promise(1, 5_000)
        wait_for(lambda: len(copies()) == 200 and len(copies(marks=True)) == 3)
    send(200, 300)
    with copying(spec, kafka, {source: target}) as second:
        wait_for(lambda: len(copies()) == 300)
    assert (first["records"], first["watermarks"], second["records"]) == (200, 1, 100)

    for message in copies():
        number = int(message.value() or b"")
        assert message.key() == NAMES[number % 5].encode()
        assert message.headers() == [("trace", str(number).encode())]
        assert message.partition() == cohort_of(NAMES[number % 5], 3)
    assert sorted(int(message.value() or b"") for message in copies()) == list(range(300))
    marks = copies(marks=True)
    assert {decode(Watermark, m.value() or b"").watermark for m in marks} == {5_000}
    assert {m.partition() for m in marks} == {0, 1, 2}
    assert for_one_aligner(spec, bootstrap, kafka) == []


def test_killed_half_way_it_goes_on_and_loses_nothing(kafka: Kafka, tmp_path: Path) -> None:
    """What was copied since the last commit is copied again, and no more than that."""
    count, bootstrap, file = 8_000, kafka["bootstrap.servers"], tmp_path / "zoo.yaml"
    text = TEXT.format(system=unique(), tick="100 ms", lateness="1 s", every="100 ms")
    file.write_text(text)
    spec, source = load_spec(file), f"{unique()}.raw"
    make_topics(spec, kafka)
    target = spec.sensors["fast"].topic
    ensure_topics(kafka, [(source, SOURCE_PARTITIONS, {})])
    producer = make_producer(bootstrap, kafka)
    for number in range(count):
        producer.produce(source, b"%d" % number, NAMES[number % 5], number % SOURCE_PARTITIONS)
    producer.flush()

    def copies() -> list[Message]:
        return list(read_to_end(bootstrap, kafka, target))

    command = [sys.executable, "-c", SCRIPT, str(file), bootstrap, source, target]
    with subprocess.Popen(command) as process:
        try:
            wait_for(lambda: len(copies()) > count // 4)
        finally:
            process.kill()
    before = len(copies())
    assert before < count
    with copying(spec, kafka, {source: target}) as run:
        wait_for(lambda: len({message.value() for message in copies()}) == count)
    found = copies()
    assert len(found) == before + run["records"]
    assert count - before <= run["records"] < count
    assert {int(message.value() or b"") for message in found} == set(range(count))
    for message in found:
        name = NAMES[int(message.value() or b"") % 5]
        assert message.key() == name.encode()
        assert message.partition() == cohort_of(name, 3)


def test_copies_go_to_a_sensors_topic_from_another_one(kafka: Kafka) -> None:
    spec = new_system(kafka)
    target = spec.sensors["fast"].topic
    for ways in ({"a": "b"}, {target: target}):
        with pytest.raises(KafkaSetupError, match=target):
            run_repartition(spec, kafka["bootstrap.servers"], kafka, threading.Event(), ways)
