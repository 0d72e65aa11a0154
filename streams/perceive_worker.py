"""`rehearse perceive`, one process: Faust around a spec's perceivers, its start and its end."""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaConnectionError

from infra.kafka import BrokerAwayError, KafkaSetupError
from infra.log import Log
from planner.encoder import Encoder
from planner.runtime import Provider
from schemas.system import SystemSpec
from schemas.topics import entity_partitions, perceive_group, topic
from streams.app import bare_app
from streams.desk import Clock
from streams.perceive import Perceiver, essence
from streams.publish import Publisher
from streams.topic_io import make_consumer, partitions
from streams.watchdog import Watchdog, WorkerStalled, committed
from streams.worker import CHECK_S, STOP_S, alone_in, crash_of, refuse_a_second

_log = Log("perceive")


def run_perceive(
    spec: SystemSpec,
    bootstrap: str,
    extra: Mapping[str, str],
    stop: threading.Event,
    *,
    name: str = "perceive-0",
    data_dir: Path = Path(".rehearse/perceive-0"),
    clock: Clock = "event",
    provider: Provider = "auto",
    threads: int = 1,
) -> dict[str, Any]:
    """Encodes the raw messages of `spec` until `stop` is set; gives a summary as plain JSON values.

    Args:
        name: names this process for good: it keeps its partitions over a short restart.
        data_dir: its own folder.
        clock: under `wall`, raw messages that are too old to be seen are passed over.

    Raises:
        ValueError: the spec has nothing to encode, or an encoder cannot be used.
        KafkaSetupError: topics are not there, or not alike; no broker answers.
        WorkerError, WorkerStalled: see `streams.watchdog`.
    """
    if not spec.perceived:
        raise ValueError(f"{spec.system}: no sensor of the spec has `perceive`: nothing to encode")
    encoders = [
        Encoder(raw, sum(c.size for c in sensor.channels.values()), provider, threads)
        for sensor, raw in spec.perceived
    ]
    _check_topics(spec, bootstrap, extra)
    group = perceive_group(spec)
    with alone_in(data_dir):
        refuse_a_second(bootstrap, extra, group, name, data_dir)
        parts = (spec, bootstrap, extra, stop, encoders, name, data_dir, clock)
        return asyncio.run(_serve(*parts))


def _check_topics(spec: SystemSpec, bootstrap: str, extra: Mapping[str, str]) -> None:
    """Embeddings keep the partition of what they are made of, as watermarks must."""
    consumer = make_consumer(bootstrap, extra)
    try:
        for sensor, raw in spec.perceived:
            counts = [len(partitions(consumer, name)) for name in (raw.topic, sensor.topic)]
            if counts[0] != counts[1]:
                raise KafkaSetupError(
                    f"{raw.topic} has {counts[0]} partitions and {sensor.topic} {counts[1]}; "
                    "embeddings keep their partition: make one of them anew with as many"
                )
    finally:
        consumer.close()


async def _serve(
    spec: SystemSpec,
    bootstrap: str,
    extra: Mapping[str, str],
    stop: threading.Event,
    encoders: Sequence[Encoder],
    name: str,
    data_dir: Path,
    clock: Clock,
) -> dict[str, Any]:
    began = time.monotonic()
    count = entity_partitions(spec)
    app = bare_app(bootstrap, extra, perceive_group(spec), name, data_dir, count)
    publisher = Publisher(bootstrap, extra)
    pairs = zip(spec.perceived, encoders, strict=True)
    perceivers = [Perceiver(spec, s, e, publisher, clock == "wall") for (s, _), e in pairs]
    for perceiver in perceivers:
        _wire(app, perceiver, count)
    publisher.connect([topic(spec, "deadletter"), *(p.sensor.topic for p in perceivers)])
    runs = [asyncio.create_task(perceiver.run()) for perceiver in perceivers]
    try:
        await app.start()
    except KafkaConnectionError as error:
        raise BrokerAwayError(
            f"no broker answers at {bootstrap}: check the address, and the settings given with -X"
        ) from error
    _log.info("perceive ready", seconds=round(time.monotonic() - began, 2))
    try:
        await _until(app, perceivers, stop)
    finally:
        await _end(app, perceivers, runs, publisher)
    ends = {
        p.sensor.name: {**p.tally.summary(), **essence(p.raw, e)}
        for p, e in zip(perceivers, encoders, strict=True)
    }
    return {"system": spec.system, "clock": clock, "sensors": ends}


def _wire(app: Any, perceiver: Perceiver, count: int) -> None:
    async def agent(stream: Any) -> None:
        await perceiver.take(stream)

    async def revoked(app: Any, revoked: Any, **_: Any) -> None:
        await perceiver.drain()

    raw = app.topic(perceiver.raw.topic, key_type=bytes, value_type=bytes, partitions=count)
    app.agent(raw, name=f"perceive-{perceiver.sensor.name}")(agent)
    app.on_partitions_revoked.connect(revoked, weak=False)


async def _until(app: Any, perceivers: Sequence[Perceiver], stop: threading.Event) -> None:
    """Returns when asked to stop. Raises `WorkerError` when it cannot go on."""
    dog = Watchdog()
    while not stop.is_set():
        await asyncio.sleep(CHECK_S)
        for perceiver in perceivers:
            if perceiver.failure is not None:
                raise WorkerStalled(
                    f"sensor {perceiver.sensor.name}: {perceiver.failure}: what is in flight is "
                    "not acknowledged and will be read again; check the broker, then start again"
                ) from perceiver.failure
        if app.crashed:
            raise crash_of(app) from app._crash_reason
        dog.look(sum(p.tally.done for p in perceivers), committed(app))


async def _end(
    app: Any,
    perceivers: Sequence[Perceiver],
    runs: Sequence["asyncio.Task[None]"],
    publisher: Publisher,
) -> None:
    """Stops reading, lets what is in flight arrive, commits it, and leaves."""
    if any(perceiver.failure is not None for perceiver in perceivers):
        # Otherwise Faust waits for acknowledgements that do not come.
        app.conf.stream_wait_empty = False
    try:
        async with asyncio.timeout(STOP_S):
            await app.stop()
    except TimeoutError:
        _log.error("Faust does not stop; leaving it behind", seconds=STOP_S)
    for run in runs:
        run.cancel()
    for perceiver in perceivers:
        await perceiver.drain()
    left = await asyncio.to_thread(publisher.close)
    if left:
        _log.error("records not delivered", count=left)
