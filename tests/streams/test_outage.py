"""Two members of a group whose broker is away, for less and for more than their sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import broker as embedded
from infra.broker import Broker
from infra.kafka import client_config
from schemas.topics import cohort_partitions
from streams.identity import SESSION_S
from tests.streams.specs import small_spec
from tests.streams.test_transport import committed, member, send, until
from tests.support import unique
from tests.system.loop import make_topics

pytestmark = pytest.mark.broker
Done = set[tuple[int, int]]  # partition, offset


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that this test may stop; its data stays."""
    home = tmp_path / "home"
    yield embedded.start(home)
    embedded.stop(home)


@pytest.mark.timeout(400)
def test_members_go_on_after_an_outage_however_long(own_broker: Broker, tmp_path: Path) -> None:
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
            count = 0
            for seconds in (0, SESSION_S + 4):
                # Just before: what is acknowledged now is committed while the broker goes.
                await asyncio.to_thread(send, spec, kafka, 30, count)
                await outage(seconds)
                await asyncio.to_thread(send, spec, kafka, 30, count + 30)
                count += 60
                await until_done(count)
                assert not one.app.crashed
                assert not two.app.crashed
            await until(lambda: all(m.app.consumer.assignment() for m in (one, two)))
        assert committed(spec, kafka) == dict.fromkeys(range(partitions), count)

    asyncio.run(run())
