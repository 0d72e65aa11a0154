"""What a broker may answer instead: nothing is lost, nothing passes for confirmed, order is kept.

Against librdkafka's mock cluster, which gives the errors that a proxy before a real broker cannot.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl
import pytest
from confluent_kafka import KafkaException, Message

import streams.sink
from schemas.codes import Status
from schemas.frames import Frame, decode_frame
from schemas.messages import WATERMARK_HEADER, Applied, Watermark, action_id, encode
from schemas.system import SystemSpec
from schemas.topics import Kind, topic, topics_of
from streams.align_kafka import run_align
from streams.publish import DeliveryError, Publisher, Record
from streams.repartition import run_repartition
from streams.sink import run_sink
from streams.topic_io import make_producer, read_to_end
from tests import mock_cluster as mock
from tests.mock_cluster import MockCluster
from tests.streams.frames import NAMES, trajectory
from tests.streams.specs import small_spec

UNKNOWN_TOPIC: Final = 3
LEADER_NOT_AVAILABLE: Final = 5
NOT_LEADER: Final = 6
TIMED_OUT: Final = 7
TOO_LARGE: Final = 10
LOADING: Final = 14
NO_COORDINATOR: Final = 15
NOT_COORDINATOR: Final = 16
NOT_ENOUGH_REPLICAS: Final = 19
REBALANCING: Final = 27
NOT_ALLOWED: Final = 29
INVALID_RECORD: Final = 87
PASSING: Final = (NOT_LEADER, TIMED_OUT, NOT_ENOUGH_REPLICAS, LEADER_NOT_AVAILABLE, UNKNOWN_TOPIC)
WAIT_S: Final = 20.0
TICKS: Final = 12


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as made:
        yield made


def values_of(cluster: MockCluster, name: str, partition: int = 0) -> list[bytes | None]:
    found = read_to_end(cluster.bootstrap, {}, name)
    return [m.value() for m in found if m.partition() == partition]


# the worker's way out


async def test_errors_that_pass_cost_a_publisher_time_and_no_record(cluster: MockCluster) -> None:
    cluster.create("out", 2)
    publisher = Publisher(cluster.bootstrap, {})
    cluster.fail(mock.INIT_PRODUCER_ID, LOADING, NOT_COORDINATOR)
    cluster.fail(mock.PRODUCE, *PASSING)
    wanted = [[str(i).encode() for i in range(200) if i % 2 == part] for part in (0, 1)]
    for begin in range(0, 200, 50):
        batch = [Record("out", i % 2, str(i).encode()) for i in range(begin, begin + 50)]
        offset = await asyncio.wait_for(publisher.send(batch), WAIT_S)
        cluster.fail(mock.PRODUCE, NOT_LEADER, TIMED_OUT)
        assert offset == begin // 2 + 24
    assert publisher.close() == 0
    assert [values_of(cluster, "out", part) for part in (0, 1)] == wanted


@pytest.mark.parametrize("code", [NOT_ALLOWED, TOO_LARGE, INVALID_RECORD])
async def test_what_is_refused_for_good_fails_it_and_all_that_follows(
    cluster: MockCluster, code: int
) -> None:
    cluster.create("out", 1)
    publisher = Publisher(cluster.bootstrap, {})
    await asyncio.wait_for(publisher.send([Record("out", 0, b"before")]), WAIT_S)
    cluster.fail(mock.PRODUCE, code)
    with pytest.raises(DeliveryError, match="Broker: "):
        await asyncio.wait_for(publisher.send([Record("out", 0, b"refused")]), WAIT_S)
    with pytest.raises(DeliveryError):
        await asyncio.wait_for(publisher.send([Record("out", 0, b"after")]), WAIT_S)
    publisher.close()
    assert values_of(cluster, "out") == [b"before"]


async def test_a_slow_broker_has_confirmed_nothing_before_it_answers(cluster: MockCluster) -> None:
    cluster.create("out", 1)
    publisher = Publisher(cluster.bootstrap, {})
    await asyncio.wait_for(publisher.send([Record("out", 0, b"0")]), WAIT_S)
    cluster.slow(400)
    begun = time.monotonic()
    sent = [publisher.send([Record("out", 0, str(i).encode())]) for i in (1, 2, 3)]
    await asyncio.sleep(0.3)
    assert not any(one.done() for one in sent)
    assert await asyncio.wait_for(asyncio.gather(*sent), WAIT_S) == [1, 2, 3]
    assert time.monotonic() - begun >= 0.4
    cluster.slow(0)
    publisher.close()
    assert values_of(cluster, "out") == [b"0", b"1", b"2", b"3"]


async def test_a_broker_that_never_has_enough_replicas_confirms_nothing(
    cluster: MockCluster,
) -> None:
    """Whoever waits gives up in time of its own; what was not confirmed counts as left."""
    cluster.create("out", 1)
    publisher = Publisher(cluster.bootstrap, {})
    cluster.fail(mock.PRODUCE, *[NOT_ENOUGH_REPLICAS] * 1_000)
    sent = publisher.send([Record("out", 0, b"x")])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(sent), 1.0)
    cluster.heal(mock.PRODUCE)
    assert await asyncio.wait_for(sent, WAIT_S) == 0
    publisher.close()
    assert values_of(cluster, "out") == [b"x"]


# the aligner


@pytest.fixture
def spec(cluster: MockCluster) -> SystemSpec:
    made = small_spec("tanks-errors")
    for found in topics_of(made):
        cluster.create(found.name, found.partitions)
    return made


def sense(spec: SystemSpec, cluster: MockCluster, ticks: range) -> int:
    """Two readings of each tank a tick, and the promise that these were all; gives how many."""
    producer, sensor = make_producer(cluster.bootstrap, {}), spec.sensors["level"].topic
    places = [t for t in topics_of(spec) if t.kind in ("sensors", "applied")]
    for tick in ticks:
        due_us = spec.epoch_us + tick * spec.period_us
        for name in NAMES:
            for early_ms in (600, 100):
                said = {"at": due_us // 1_000 - early_ms, "d": tick % 9 + 0.5, "flow": [0.1, -0.1]}
                producer.produce(sensor, msgspec.json.encode(said), name)
        for place in places:
            for number in range(place.partitions):
                headers: dict[str, str | bytes | None] = {WATERMARK_HEADER: b"1"}
                mark = encode(Watermark(due_us))
                producer.produce(place.name, mark, None, number, headers=headers)
    assert producer.flush(WAIT_S) == 0
    return 2 * len(ticks) * len(NAMES)


@contextmanager
def aligning(spec: SystemSpec, cluster: MockCluster) -> Iterator[dict[str, Any]]:
    """An aligner in a thread; the summary is filled in when it has ended."""
    stop, summary = threading.Event(), dict[str, Any]()
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_align, spec, cluster.bootstrap, {}, stop)
        summary["run"] = run
        try:
            yield summary
        finally:
            stop.set()
            summary.update(run.result(WAIT_S))


def records(spec: SystemSpec, cluster: MockCluster, kind: Kind) -> list[Message]:
    return list(read_to_end(cluster.bootstrap, {}, topic(spec, kind)))


def frames_of(spec: SystemSpec, cluster: MockCluster) -> list[Frame]:
    return [decode_frame(spec, m.value() or b"") for m in records(spec, cluster, "frames")]


def wait_for(done: Callable[[], bool], seconds: float = WAIT_S) -> None:
    limit = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)


def test_an_aligner_loses_no_reading_and_no_tick_to_errors_that_pass(
    spec: SystemSpec, cluster: MockCluster
) -> None:
    sent = sense(spec, cluster, range(1, TICKS // 2))
    cluster.fail(mock.LIST_OFFSETS, NOT_LEADER, LEADER_NOT_AVAILABLE)
    cluster.fail(mock.INIT_PRODUCER_ID, LOADING, NOT_COORDINATOR)
    cluster.fail(mock.PRODUCE, *PASSING)
    cluster.fail(mock.FETCH, NOT_LEADER, UNKNOWN_TOPIC, LEADER_NOT_AVAILABLE, TIMED_OUT)
    with aligning(spec, cluster) as summary:
        wait_for(lambda: len(frames_of(spec, cluster)) >= 2 * (TICKS // 2 - 1))
        cluster.fail(mock.PRODUCE, TIMED_OUT, NOT_LEADER, NOT_ENOUGH_REPLICAS)
        cluster.fail(mock.FETCH, NOT_LEADER, TIMED_OUT)
        cluster.slow(50)
        sent += sense(spec, cluster, range(TICKS // 2, TICKS))
        wait_for(lambda: len(frames_of(spec, cluster)) >= 2 * (TICKS - 1))
        cluster.slow(0)
    assert summary["counters"] == {"readings": sent}
    made = frames_of(spec, cluster)
    for cohort in range(2):
        ticks = [frame.tick for frame in made if frame.cohort == cohort]
        assert ticks == list(range(1, TICKS))
    assert records(spec, cluster, "deadletter") == []


def test_an_aligner_that_may_not_write_ends_and_says_why(
    spec: SystemSpec, cluster: MockCluster
) -> None:
    sense(spec, cluster, range(1, 4))
    with pytest.raises(KafkaException, match="authorization failed"):
        _align_until_refused(spec, cluster)
    ticks = [frame.tick for frame in frames_of(spec, cluster) if frame.cohort == 0]
    assert ticks == list(range(1, len(ticks) + 1)), "no frame after one that is missing"


def _align_until_refused(spec: SystemSpec, cluster: MockCluster) -> None:
    """Has records refused, again and again, until that met the aligner."""
    with aligning(spec, cluster) as summary:
        wait_for(lambda: len(frames_of(spec, cluster)) >= 6)
        for tick in range(4, 40):
            cluster.heal(mock.PRODUCE)
            sense(spec, cluster, range(tick, tick + 1))
            cluster.fail(mock.PRODUCE, *[NOT_ALLOWED] * 10)
            time.sleep(0.3)
            if summary["run"].done():
                return
    raise AssertionError("the aligner goes on")


# the sink


def test_a_sink_stores_every_row_once_whatever_its_reads_meet(
    spec: SystemSpec, cluster: MockCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The one request that the mock cluster does not know.
    monkeypatch.setattr(streams.sink, "topic_id", lambda *_: "one")
    producer = make_producer(cluster.bootstrap, {})
    for tick in range(TICKS):
        for cohort in range(2):
            value = trajectory(spec, cohort, tick, valve=0.5)
            producer.produce(topic(spec, "trajectories"), value, str(cohort), cohort)
        for entity in NAMES:
            values, identity = {"valve": 0.5, "pumps": 2.0}, action_id(spec.system, entity, tick)
            report = Applied(identity, entity, tick, values, int(Status.APPLIED), 0)
            producer.produce(topic(spec, "applied"), encode(report), entity)
    assert producer.flush(WAIT_S) == 0
    stop = threading.Event()
    stop.set()
    for codes in ((NOT_LEADER, LEADER_NOT_AVAILABLE), (NOT_LEADER,)):
        cluster.fail(mock.LIST_OFFSETS, *codes)
        cluster.fail(mock.FETCH, NOT_LEADER, UNKNOWN_TOPIC, TIMED_OUT, LEADER_NOT_AVAILABLE)
        run_sink(spec, cluster.bootstrap, {}, stop, tmp_path)
    files = sorted(tmp_path.rglob("*.parquet"))
    rows = pl.scan_parquet(files, hive_partitioning=False).collect()
    assert rows.height == TICKS * len(NAMES)
    assert rows.group_by("tick", "entity").len()["len"].to_list() == [1] * rows.height
    assert rows["counted"].all()


# a consumer that commits


def test_copies_are_complete_whatever_the_coordinator_answers(
    spec: SystemSpec, cluster: MockCluster
) -> None:
    cluster.create("raw", 2)
    target = spec.sensors["level"].topic
    mock.produce(cluster, "raw", [str(i).encode() for i in range(100)])
    cluster.fail(mock.FIND_COORDINATOR, NO_COORDINATOR, LOADING)
    cluster.fail(mock.OFFSET_FETCH, LOADING, NOT_COORDINATOR)
    copied = 0
    for more in (b"", b"later"):
        stop = threading.Event()
        cluster.fail(mock.OFFSET_COMMIT, LOADING, NOT_COORDINATOR, REBALANCING)
        cluster.fail(mock.PRODUCE, NOT_LEADER, NOT_ENOUGH_REPLICAS)
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(run_repartition, spec, cluster.bootstrap, {}, stop, {"raw": target})
            if more:
                mock.produce(cluster, "raw", [more])
            wanted = 101 if more else 100
            _wait_for_copies(cluster, target, wanted)
            time.sleep(1.5)  # for a commit
            cluster.heal(mock.OFFSET_COMMIT)
            stop.set()
            copied += run.result(WAIT_S)["records"]
    found = [m.value() or b"" for m in read_to_end(cluster.bootstrap, {}, target)]
    assert sorted(set(found)) == sorted([*(str(i).encode() for i in range(100)), b"later"])
    assert len(found) == copied == 101, "the end commits what was copied"


def _wait_for_copies(cluster: MockCluster, target: str, count: int) -> None:
    wait_for(lambda: sum(1 for _ in read_to_end(cluster.bootstrap, {}, target)) >= count)
