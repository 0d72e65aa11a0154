"""What a broker may answer a worker's reader: every frame reaches the agent, and in order.

The reader is aiokafka below Faust; the broker is librdkafka's mock cluster, as in
`test_broker_errors.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from schemas.system import SystemSpec
from schemas.topics import cohort_partitions, topic, topics_of
from streams import app as app_module
from streams.app import make_app
from tests import mock_cluster as mock
from tests.mock_cluster import MockCluster
from tests.streams.specs import small_spec

UNKNOWN_TOPIC: Final = 3
LEADER_NOT_AVAILABLE: Final = 5
NOT_LEADER: Final = 6
LOADING: Final = 14
NO_COORDINATOR: Final = 15
NOT_COORDINATOR: Final = 16
REBALANCING: Final = 27
WAIT_S: Final = 30.0

# Partition and number of each frame, as the agent got them.
Seen = list[tuple[int, int]]


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as made:
        yield made


@pytest.fixture
def spec(cluster: MockCluster) -> SystemSpec:
    made = small_spec("tanks-reader")
    for found in topics_of(made):
        cluster.create(found.name, found.partitions)
    return made


@asynccontextmanager
async def reading(spec: SystemSpec, cluster: MockCluster, folder: Path) -> AsyncIterator[Seen]:
    """A worker's app with an agent that notes what it gets; its group goes on where it was."""
    worker = make_app(spec, cluster.bootstrap, {}, group=spec.system, worker="w", data_dir=folder)
    seen: Seen = []

    async def agent(stream: Any) -> None:
        async for event in stream.noack().events():
            seen.append((event.message.partition, int(event.value)))
            event.ack()

    worker.app.agent(worker.frames, name="see")(agent)
    async with asyncio.timeout(WAIT_S):
        await worker.app.start()
    try:
        yield seen
    finally:
        async with asyncio.timeout(WAIT_S):
            await worker.app.stop()


async def send(spec: SystemSpec, cluster: MockCluster, numbers: range) -> None:
    """Puts frames with these numbers on every partition."""
    values = [str(number).encode() for number in numbers]
    for partition in range(cohort_partitions(spec)):
        await asyncio.to_thread(mock.produce, cluster, topic(spec, "frames"), values, partition)


async def until(seen: Seen, spec: SystemSpec, number: int) -> None:
    """Waits for the frame with this number on every partition."""
    places = range(cohort_partitions(spec))
    async with asyncio.timeout(WAIT_S):
        while not all((partition, number) in seen for partition in places):
            await asyncio.sleep(0.02)


def in_order(seen: Seen, spec: SystemSpec) -> dict[int, list[int]]:
    """The numbers by partition, each where it was seen first."""
    places = range(cohort_partitions(spec))
    return {p: list(dict.fromkeys(n for at, n in seen if at == p)) for p in places}


def all_of(numbers: range, spec: SystemSpec) -> dict[int, list[int]]:
    return {partition: list(numbers) for partition in range(cohort_partitions(spec))}


async def test_errors_of_a_read_cost_time_and_no_frame_and_bring_none_twice(
    spec: SystemSpec, cluster: MockCluster, tmp_path: Path
) -> None:
    await send(spec, cluster, range(10))
    cluster.fail(mock.FIND_COORDINATOR, NO_COORDINATOR, LOADING)
    cluster.fail(mock.LIST_OFFSETS, NOT_LEADER, LEADER_NOT_AVAILABLE)
    cluster.fail(mock.OFFSET_FETCH, LOADING, NOT_COORDINATOR)
    async with reading(spec, cluster, tmp_path) as seen:
        await until(seen, spec, 9)
        cluster.fail(mock.FETCH, NOT_LEADER, UNKNOWN_TOPIC, LEADER_NOT_AVAILABLE)
        await send(spec, cluster, range(10, 20))
        await until(seen, spec, 19)
    assert in_order(seen, spec) == all_of(range(20), spec)
    assert len(seen) == 20 * cohort_partitions(spec)


async def test_a_coordinator_that_refuses_costs_no_frame(
    spec: SystemSpec, cluster: MockCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not committed may come again; after a restart all goes on where it was."""
    # Whoever joins again waits there for a session less a second; the first one for three.
    monkeypatch.setattr(app_module, "SESSION_S", 4.0)
    monkeypatch.setattr(app_module, "HEARTBEAT_S", 0.4)
    cluster.fail(mock.JOIN_GROUP, LOADING, NOT_COORDINATOR)
    rounds: tuple[dict[int, tuple[int, ...]], ...] = (
        {mock.OFFSET_COMMIT: (LOADING, NOT_COORDINATOR, REBALANCING)},
        {mock.HEARTBEAT: (NOT_COORDINATOR, REBALANCING), mock.SYNC_GROUP: (REBALANCING,)},
    )
    async with reading(spec, cluster, tmp_path) as seen:
        for number, refused in enumerate(rounds):
            for request, codes in refused.items():
                cluster.fail(request, *codes)
            await send(spec, cluster, range(10 * number, 10 * number + 5))
            await asyncio.sleep(1.0)
            await send(spec, cluster, range(10 * number + 5, 10 * number + 10))
            await until(seen, spec, 10 * number + 9)
    assert in_order(seen, spec) == all_of(range(20), spec)
    await send(spec, cluster, range(20, 25))
    async with reading(spec, cluster, tmp_path) as seen:
        await until(seen, spec, 24)
    assert in_order(seen, spec) == all_of(range(20, 25), spec), "the end commits what was read"
