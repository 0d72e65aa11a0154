"""Partitions that change hands while frames are asked for: every frame reaches the agent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from schemas.topics import cohort_partitions, topic
from streams import app as app_module
from streams.app import make_app
from tests.streams.specs import small_spec
from tests.support import unique
from tests.system.loop import make_topics

pytestmark = [pytest.mark.broker, pytest.mark.system]
WINDOW_S = 0.6  # a fetch that waits in vain takes a second


async def test_a_fetch_that_outlives_a_rebalance_loses_no_frame(
    kafka: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it brings after the seek to the committed offset comes before Faust empties its buffers.

    That moment is widened here; the broker, Faust and its client are the real ones.
    """
    rewind, sought = app_module._ConsumerThread._rewind, asyncio.Event()
    loop = asyncio.get_running_loop()

    async def slow(self: Any) -> Any:
        committed = await rewind(self)
        loop.call_soon_threadsafe(sought.set)
        await asyncio.sleep(WINDOW_S)
        return committed

    monkeypatch.setattr(app_module._ConsumerThread, "_rewind", slow)
    spec = small_spec(unique("tanks"))
    make_topics(spec, kafka)
    bootstrap, frames = kafka["bootstrap.servers"], topic(spec, "frames")
    worker = make_app(spec, bootstrap, {}, group=spec.system, worker="w", data_dir=tmp_path)
    seen: list[tuple[int, bytes]] = []

    async def agent(stream: Any) -> None:
        async for event in stream.noack().events():
            seen.append((event.message.partition, event.value))
            event.ack()
            if event.value == b"meanwhile":  # the next one waits until the buffers are emptied
                await asyncio.sleep(2 * WINDOW_S)

    worker.app.agent(worker.frames, name="see")(agent)
    producer = Producer(dict(kafka))

    def send(text: bytes) -> None:
        for partition in range(cohort_partitions(spec)):
            producer.produce(frames, text, partition=partition)
        producer.flush(10)

    async def until(text: bytes) -> None:
        async with asyncio.timeout(30):
            while sum(value == text for _, value in seen) < cohort_partitions(spec):
                await asyncio.sleep(0.02)

    await worker.app.start()
    try:
        send(b"before")
        await until(b"before")
        await asyncio.sleep(1.2)  # committed; and a fetch waits
        sought.clear()
        thread = worker.app.consumer._thread

        async def again() -> None:
            thread._ensure_consumer()._coordinator.request_rejoin()

        await thread.call_thread(again)
        async with asyncio.timeout(30):
            await sought.wait()
        await asyncio.to_thread(send, b"meanwhile")
        await asyncio.sleep(WINDOW_S)
        await asyncio.to_thread(send, b"after")
        await until(b"after")
    finally:
        await worker.app.stop()
    told = {(partition, value) for partition, value in seen if value == b"meanwhile"}
    assert sorted(told) == [(p, b"meanwhile") for p in range(cohort_partitions(spec))]


async def test_a_change_of_partitions_costs_no_sleep_of_a_second(
    kafka: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they change hands Faust lets records in before any partition is to be read."""
    spec = small_spec(unique("tanks"))
    make_topics(spec, kafka)
    bootstrap = kafka["bootstrap.servers"]
    worker = make_app(spec, bootstrap, {}, group=spec.system, worker="w", data_dir=tmp_path)

    async def agent(stream: Any) -> None:
        async for event in stream.noack().events():
            event.ack()

    worker.app.agent(worker.frames, name="see")(agent)
    await worker.app.start()
    slept: list[float] = []
    try:
        consumer = worker.app.consumer
        sleep = consumer.sleep

        async def counted(seconds: float, **more: Any) -> None:
            slept.append(seconds)
            await sleep(seconds, **more)

        monkeypatch.setattr(consumer, "sleep", counted)
        consumer.stop_flow()
        asking = asyncio.create_task(consumer._wait_next_records(1.0))
        await asyncio.sleep(0)
        consumer.pause_partitions(consumer.assignment())
        consumer.resume_flow()
        assert await asking == ({}, set())
    finally:
        await worker.app.stop()
    assert app_module.FULL_S in slept
    assert 1 not in slept
