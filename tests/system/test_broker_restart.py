"""A broker that restarts in mid-stream: nobody gives up, no frame is lost, no tick counts twice."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import broker as embedded
from infra.broker import Broker
from infra.kafka import client_config
from infra.plants.base import make_plant
from schemas.codes import Status
from schemas.messages import Applied
from streams.plant import run_plant
from streams.supervise import Supervisor
from tests.system.loop import make_topics, messages
from tests.system.processes import Loop, until, until_decided

pytestmark = [pytest.mark.broker, pytest.mark.system]
ROBOTS, TICKS, AWAY_AT, AWAY_S = 4, 60, 25, 8.0


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that this test may stop; its data stays."""
    home = tmp_path / "home"
    yield embedded.start(home)
    embedded.stop(home)


@pytest.mark.timeout(480)
def test_a_broker_that_restarts_loses_doubles_and_ends_nothing(
    own_broker: Broker, tmp_path: Path
) -> None:
    bootstrap, kafka = own_broker.bootstrap, client_config(own_broker.bootstrap)
    loop = Loop(tmp_path, bootstrap, "event")
    make_topics(loop.spec, kafka)
    away = threading.Event()
    back: list[str] = []

    def restart() -> None:
        away.wait()
        embedded.stop(own_broker.home)
        threading.Event().wait(AWAY_S)  # with stop and start, more than 10 s without a broker
        back.append(embedded.start(own_broker.home).bootstrap)

    def on_tick(done: int, score: dict[str, float]) -> None:
        if done == AWAY_AT:
            until(lambda: any((tmp_path / "out").rglob("*.parquet")), "the sink's first file")
            away.set()  # and the plant goes on meanwhile

    thread = threading.Thread(target=restart, name="broker restart")
    thread.start()
    try:
        with Supervisor(tmp_path / "run") as supervisor:
            loop.start(supervisor)
            first = [process.pid for process in loop.processes()]
            summary = run_plant(
                loop.spec, make_plant(loop.spec, robots=ROBOTS), bootstrap, kafka,
                threading.Event(), ticks=TICKS, patience_s=150, first_patience_s=150,
                on_tick=on_tick,
            )  # fmt: skip
            until(lambda: bool(back), "the broker's return")
            assert [process.poll() for process in loop.processes()] == [None] * 3
            assert [process.pid for process in loop.processes()] == first
            frames = until_decided(loop.spec, kafka, TICKS)
            for name in ("align", "worker", "sink"):
                supervisor.stop(name)
    finally:
        away.set()
        thread.join()
    stored = loop.sink.summary()
    assert back == [bootstrap], "the same address, or nobody finds it again"
    assert (summary["ticks"], summary["missing"]) == (TICKS, 0)
    assert (stored["frames"], stored["frames_lost"]) == (frames, 0)
    assert (stored["counted"], stored["rejected"]) == (TICKS * ROBOTS, 0)
    reports = messages(loop.spec, kafka, "applied", Applied)
    assert {a.status for a in reports} == {Status.APPLIED}
    times = Counter((a.entity, a.tick) for a in reports)
    assert len(times) == TICKS * ROBOTS
    assert set(times.values()) == {1}
