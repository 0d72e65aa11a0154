"""A member that loses its place in the group: by an outage, by its own past, to another one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import broker as embedded
from infra.broker import Broker
from infra.kafka import client_config, ensure_topics
from schemas.system import SystemSpec
from schemas.topics import cohort_partitions, topic
from streams.app import WorkerApp
from streams.identity import SESSION_S
from streams.reader import ReadingFailed
from streams.worker import WorkerError, _crash
from tests.streams.rivals import join, take_the_place
from tests.streams.specs import small_spec
from tests.streams.test_reader import MEMBER, PARTITIONS, Log, reading
from tests.streams.test_transport import Taken, committed, member, send, until
from tests.support import unique
from tests.system.loop import make_topics

pytestmark = pytest.mark.broker
Done = set[tuple[int, int]]  # partition, offset
_SAME_FOR_ALL = ("partition_assignment_strategy", "session_timeout_ms", "auto_offset_reset")


@pytest.fixture
def spec(kafka: dict[str, str]) -> SystemSpec:
    made = small_spec(unique("transport"))
    make_topics(made, kafka)
    return made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a broker that these tests may stop, and leave stopped; its data stays."""
    folder = tmp_path_factory.mktemp("own-home")
    yield folder
    embedded.stop(folder)


@pytest.fixture
def own_broker(home: Path) -> Broker:
    return embedded.start(home)


@pytest.mark.timeout(400)
def test_members_go_on_after_an_outage(own_broker: Broker, tmp_path: Path) -> None:
    """Commits of all kinds wait while the broker is away, some under an id of before."""
    bootstrap = own_broker.bootstrap
    kafka, spec = client_config(bootstrap), small_spec(unique("outage"))
    make_topics(spec, kafka)
    partitions = cohort_partitions(spec)
    done: dict[str, Done] = {"one": set(), "two": set()}

    def taker(name: str) -> Callable[[Any], Any]:
        async def take(event: Any) -> None:
            await asyncio.sleep(0.002)
            event.ack()
            done[name].add((event.message.partition, event.message.offset))

        return take

    async def until_done(count: int) -> None:
        wanted = {(p, o) for p in range(partitions) for o in range(count)}
        await until(lambda: done["one"] | done["two"] >= wanted)

    async def outage(seconds: float) -> None:
        await asyncio.to_thread(embedded.stop, own_broker.home)
        await asyncio.sleep(seconds)
        again = await asyncio.to_thread(embedded.start, own_broker.home)
        assert again.bootstrap == bootstrap

    async def run() -> None:
        async with (
            member(spec, kafka, tmp_path / "one", taker("one")) as one,
            member(spec, kafka, tmp_path / "two", taker("two")) as two,
        ):
            await until(lambda: all(m.app.consumer.assignment() for m in (one, two)))
            # Just before: what is acknowledged now is committed while the broker goes.
            await asyncio.to_thread(send, spec, kafka, 30)
            await outage(SESSION_S + 4)
            await asyncio.to_thread(send, spec, kafka, 30, 30)
            await until_done(60)
            assert not one.app.crashed
            assert not two.app.crashed
            await until(lambda: all(m.app.consumer.assignment() for m in (one, two)))
        assert committed(spec, kafka) == dict.fromkeys(range(partitions), 60)

    asyncio.run(run())


@pytest.mark.timeout(240)
def test_a_reader_ends_though_a_commit_waits_for_a_broker(own_broker: Broker) -> None:
    """librdkafka waits for its answer when it is closed, and for no broker's return in vain."""
    kafka, name = client_config(own_broker.bootstrap), unique("numbers")
    ensure_topics(kafka, [(name, PARTITIONS, {})])
    member = {**MEMBER, "group_id": "g", "group_instance_id": "one"}

    async def run() -> None:
        log = Log()
        async with reading(log, kafka, **member) as reader:
            await reader.join([name])
            await until(lambda: bool(log.assignments))
            os.kill(own_broker.pid, signal.SIGSTOP)  # the request is with it when it dies
            commit = asyncio.create_task(reader.commit({(name, 0): 1}))
            await asyncio.sleep(0.5)
            os.kill(own_broker.pid, signal.SIGKILL)
            await asyncio.sleep(0.5)
            async with asyncio.timeout(60):
                await reader.close()
            with pytest.raises(ReadingFailed):
                await commit

    asyncio.run(run())


def _membership(worker: WorkerApp) -> dict[str, str]:
    told = worker.app.transport.settings()
    return {name: told[name] for name in ("group_id", "group_instance_id", *_SAME_FOR_ALL)}


def test_a_worker_that_its_own_past_has_fenced_goes_on_from_what_was_committed(
    spec: SystemSpec, kafka: dict[str, str], tmp_path: Path
) -> None:
    taken: Taken = []
    partitions = cohort_partitions(spec)

    async def take(event: Any) -> None:
        taken.append((event.message.partition, event.message.offset, event))
        event.ack()

    async def run() -> None:
        async with member(spec, kafka, tmp_path, take) as worker:
            await until(lambda: len(taken) == 10 * partitions)
            before = worker.app.consumer_generation_id
            frames = topic(spec, "frames")
            await asyncio.to_thread(take_the_place, kafka, _membership(worker), frames)
            await until(lambda: worker.app.consumer_generation_id > before)
            await asyncio.to_thread(send, spec, kafka, 10, 10)
            everything = {(p, o) for p in range(partitions) for o in range(20)}
            await until(lambda: {(p, o) for p, o, _ in taken} == everything)
            assert not worker.app.crashed

    send(spec, kafka, 10)
    asyncio.run(run())
    assert committed(spec, kafka) == dict.fromkeys(range(partitions), 20)


def test_a_worker_whose_id_another_one_took_ends_and_says_so(
    spec: SystemSpec, kafka: dict[str, str], tmp_path: Path
) -> None:
    found: list[WorkerError] = []

    async def take(event: Any) -> None:
        event.ack()

    async def run() -> None:
        async with member(spec, kafka, tmp_path / "one", take) as worker:
            await until(lambda: bool(worker.app.consumer.assignment()))
            frames = topic(spec, "frames")
            rival = await asyncio.to_thread(join, kafka, _membership(worker), frames)
            try:
                await until(lambda: worker.app.crashed)
                found.append(_crash(worker.app))
                assert rival.assignment()
            finally:
                rival.close()

    asyncio.run(run())
    assert type(found[0]) is WorkerError, "starting it again would not help"
    assert "another worker runs under the id one and has its partitions" in str(found[0])
