"""Faust over librdkafka on a real broker: order, pressure, acknowledgements, recovery, ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID, Producer, TopicPartition

from infra.kafka import KafkaSetupError
from schemas.system import SystemSpec
from schemas.topics import cohort_partitions, topic
from streams import topic_io
from streams.app import WorkerApp, make_app
from streams.faust_consumer import _check_together
from streams.publish import Publisher
from streams.reader import ReadingFailed
from streams.topic_io import consumer_config, make_consumer, make_producer
from streams.transport import Transport
from tests.streams.specs import small_spec
from tests.support import unique
from tests.system.loop import make_topics

Taken = list[tuple[int, int, Any]]  # partition, offset, event


@pytest.fixture
def spec(kafka: dict[str, str]) -> SystemSpec:
    made = small_spec(unique("transport"))
    make_topics(made, kafka)
    return made


@asynccontextmanager
async def member(
    spec: SystemSpec,
    kafka: Mapping[str, str],
    folder: Path,
    take: Callable[[Any], Any],
) -> AsyncIterator[WorkerApp]:
    """A member of the group whose agent has `take` look at each event."""
    bootstrap = kafka["bootstrap.servers"]
    worker = make_app(
        spec, bootstrap, {}, group=spec.system, worker=folder.name, data_dir=folder / "data"
    )

    async def agent(stream: Any) -> None:
        async for event in stream.noack().events():
            await take(event)

    worker.app.agent(worker.frames, name="take")(agent)
    await worker.app.start()
    try:
        yield worker
    finally:
        await worker.app.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.01)


def send(spec: SystemSpec, kafka: Mapping[str, str], count: int, start: int = 0) -> None:
    """`count` numbered records in each partition of the frames."""
    producer = make_producer(kafka["bootstrap.servers"])
    for number in range(start, start + count):
        for partition in range(cohort_partitions(spec)):
            headers: Any = [("number", str(number).encode())]
            value = f"{partition}:{number}".encode()
            producer.produce(topic(spec, "frames"), value, b"key", partition, headers=headers)
    assert producer.flush(30) == 0


def committed(spec: SystemSpec, kafka: Mapping[str, str]) -> dict[int, int]:
    client = make_consumer(kafka["bootstrap.servers"], kafka, group_id=spec.system)
    places = [TopicPartition(topic(spec, "frames"), p) for p in range(cohort_partitions(spec))]
    try:
        return {p.partition: p.offset for p in client.committed(places, 10)}
    finally:
        client.close()


@pytest.mark.broker
def test_more_than_all_buffers_hold_comes_in_order_and_once(
    spec: SystemSpec, kafka: dict[str, str], tmp_path: Path
) -> None:
    """What waits at the start, and what comes while the agent hangs."""
    taken: Taken = []
    count, partitions = 300, cohort_partitions(spec)

    async def take(event: Any) -> None:
        if len(taken) in (0, 100):
            await asyncio.sleep(0.5)
        taken.append((event.message.partition, event.message.offset, event))
        event.ack()

    async def run() -> None:
        async with member(spec, kafka, tmp_path, take):
            await until(lambda: len(taken) > 100)
            await asyncio.to_thread(send, spec, kafka, count, count)
            await until(lambda: len(taken) >= 2 * count * partitions)

    send(spec, kafka, count)
    asyncio.run(run())
    for partition in range(partitions):
        assert [o for p, o, _ in taken if p == partition] == list(range(2 * count))
    for partition, offset, event in taken:
        assert event.value == event.message.value == f"{partition}:{offset}".encode()
        assert (event.key, event.message.timestamp_type) == (b"key", 0)
        assert event.message.headers == [("number", str(offset).encode())]
        assert abs(event.message.timestamp - taken[0][2].message.timestamp) < 600
    assert committed(spec, kafka) == dict.fromkeys(range(partitions), 2 * count)


@pytest.mark.broker
def test_only_what_is_acknowledged_without_a_gap_is_committed(
    spec: SystemSpec, kafka: dict[str, str], tmp_path: Path
) -> None:
    first: Taken = []
    second: Taken = []

    async def all_but_the_fifth(event: Any) -> None:
        first.append((event.message.partition, event.message.offset, event))
        if event.message.offset != 5:
            event.ack()

    async def every(event: Any) -> None:
        second.append((event.message.partition, event.message.offset, event))
        event.ack()

    partitions = cohort_partitions(spec)

    async def run() -> None:
        async with member(spec, kafka, tmp_path, all_but_the_fifth) as worker:
            await until(lambda: len(first) == 10 * partitions)
            worker.app.conf.stream_wait_empty = False  # for the fifth would be waited for
        assert committed(spec, kafka) == dict.fromkeys(range(partitions), 5)
        async with member(spec, kafka, tmp_path, every):
            await until(lambda: len(second) == 5 * partitions)

    send(spec, kafka, 10)
    asyncio.run(run())
    for partition in range(partitions):
        assert [o for p, o, _ in second if p == partition] == [5, 6, 7, 8, 9]
    assert committed(spec, kafka) == dict.fromkeys(range(partitions), 10)


@pytest.mark.broker
@pytest.mark.parametrize("held", [0, 1, 5])
def test_one_record_right_behind_the_committed_offset_is_not_passed_over(
    spec: SystemSpec, kafka: dict[str, str], tmp_path: Path, held: int
) -> None:
    """Nor the first of all, where nothing is committed yet."""
    acknowledged: list[int] = []

    async def take(event: Any) -> None:
        if event.message.offset != held:
            event.ack()
            acknowledged.append(event.message.offset)

    partitions = cohort_partitions(spec)

    async def run() -> None:
        async with member(spec, kafka, tmp_path, take) as worker:
            consumer = worker.app.consumer
            await until(lambda: len(acknowledged) == held * partitions)
            await consumer.commit()
            await asyncio.to_thread(send, spec, kafka, 5, held)
            await until(lambda: len(acknowledged) == (held + 4) * partitions)
            for _ in range(2):
                await consumer.commit()
            worker.app.conf.stream_wait_empty = False  # for the one would be waited for

    if held:
        send(spec, kafka, held)
    asyncio.run(run())
    assert set(committed(spec, kafka).values()) <= {held, held or OFFSET_INVALID}


@pytest.mark.broker
def test_offsets_that_hold_no_record_do_not_stop_commits(
    spec: SystemSpec, kafka: dict[str, str], tmp_path: Path
) -> None:
    """The end of a transaction takes an offset of its own."""
    settings: dict[str, Any] = {**kafka, "transactional.id": unique("transaction")}
    producer = Producer(settings)
    producer.init_transactions(30)
    for _ in range(4):
        producer.begin_transaction()
        for number in range(2):
            producer.produce(topic(spec, "frames"), str(number).encode(), b"key", 0)
        producer.commit_transaction(30)
    taken: list[int] = []

    async def take(event: Any) -> None:
        taken.append(event.message.offset)
        event.ack()

    async def run() -> None:
        async with member(spec, kafka, tmp_path, take):
            await until(lambda: len(taken) == 8)

    asyncio.run(run())
    assert taken == [0, 1, 3, 4, 6, 7, 9, 10]
    assert committed(spec, kafka)[0] == 11


@pytest.mark.broker
def test_a_table_is_recovered_before_the_first_frame(
    spec: SystemSpec, kafka: dict[str, str], tmp_path: Path
) -> None:
    """From a changelog with more records than buffers hold; then again, from the store alone."""
    seen: list[list[bytes | None]] = []
    workers: list[WorkerApp] = []

    async def take(event: Any) -> None:
        seen.append([workers[-1].beliefs.read(0, cohort) for cohort in range(3)])
        event.ack()

    async def run() -> None:
        async with member(spec, kafka, tmp_path, take) as worker:
            workers.append(worker)
            await until(lambda: len(seen) == partitions)
            publisher = Publisher(kafka["bootstrap.servers"], {})
            await worker.beliefs.write(publisher, 0, 1, b"the newest")
            publisher.close()
        async with member(spec, kafka, tmp_path, take) as worker:
            workers.append(worker)
            await asyncio.to_thread(send, spec, kafka, 1, 1)
            await until(lambda: len(seen) == 2 * partitions)

    producer, partitions = make_producer(kafka["bootstrap.servers"]), cohort_partitions(spec)
    for number in range(900):
        key, value = str(number % 3).encode(), str(number).encode()
        producer.produce(topic(spec, "beliefs"), value, key, 0)
    producer.flush()
    send(spec, kafka, 1)
    asyncio.run(run())
    assert seen[:partitions] == [[b"897", b"898", b"899"]] * partitions
    assert seen[partitions:] == [[b"897", b"the newest", b"899"]] * partitions


def test_where_no_broker_answers_that_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(topic_io, "TIMEOUT_S", 0.3)

    async def run() -> None:
        async def take(event: Any) -> None: ...

        nobody = {"bootstrap.servers": "127.0.0.1:1"}
        async with member(small_spec(), nobody, tmp_path, take):
            pass

    with pytest.raises(KafkaSetupError, match=r"no broker answers at 127\.0\.0\.1:1.*-X"):
        asyncio.run(run())


def test_what_librdkafka_is_told(tmp_path: Path) -> None:
    """All that the user gives goes through, and wins over the worker's own settings."""

    async def run() -> None:
        extra = {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "OAUTHBEARER",
            "ssl.keystore.location": "client.p12",
            "session.timeout.ms": "9000",
        }
        worker = make_app(small_spec(), "a:1,b:2", extra, group="g", worker="w", data_dir=tmp_path)
        transport = worker.app.transport
        assert isinstance(transport, Transport)
        bootstrap, given = transport.address
        config = consumer_config(bootstrap, given, **transport.settings())
        assert extra.items() <= config.items()
        assert config["bootstrap.servers"] == "a:1,b:2"
        assert config["group.id"] == "g"
        assert config["group.instance.id"] == "g-w"
        assert config["client.id"].startswith("w@")
        assert config["heartbeat.interval.ms"] == "2000"
        assert config["enable.auto.commit"] == "false"

    asyncio.run(run())


def test_partitions_that_do_not_belong_together_are_refused() -> None:
    _check_together(set())
    _check_together({("frames", 0), ("beliefs", 0)})
    with pytest.raises(ReadingFailed, match="do not belong together"):
        _check_together({("frames", 0), ("frames", 1), ("beliefs", 0)})
