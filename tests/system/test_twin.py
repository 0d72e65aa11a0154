"""A worker and its twin: whichever is killed, every entity has its action at every tick."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import TopicPartition

from infra.plants.base import make_plant
from schemas.codes import Status
from schemas.messages import Action, Applied
from schemas.system import SystemSpec, parse_spec
from schemas.topics import topic, worker_group
from schemas.trajectories import decode_trajectory
from streams.belief import encode_row
from streams.decide import step
from streams.plant import run_plant
from streams.supervise import Process, Supervisor
from streams.topic_io import make_consumer, make_producer
from streams.twin_start import begin_with_beliefs
from tests.planner.worlds import make_frame
from tests.support import shipped_text, unique
from tests.system.loop import make_topics, messages, records
from tests.system.processes import Loop, until, until_decided

pytestmark = [pytest.mark.broker, pytest.mark.system]
ROBOTS, TICKS = 4, 60
FIRST_DIES, FIRST_RETURNS, TWIN_DIES = 15, 30, 45


def kill(process: Process) -> None:
    assert process.child is not None
    process.child.send_signal(signal.SIGKILL)
    assert process.child.wait(10) == -signal.SIGKILL


class Killing:
    """What is done to a worker and its twin while the plant waits between two ticks."""

    def __init__(
        self, spec: SystemSpec, kafka: dict[str, str], first: Process, twin: Process
    ) -> None:
        self.spec, self.kafka, self.first = spec, kafka, first
        self._events: dict[int, Callable[[], None]] = {
            FIRST_DIES: lambda: kill(first),
            FIRST_RETURNS: self._return,
            TWIN_DIES: lambda: kill(twin),
        }

    def on_tick(self, done: int, score: dict[str, float]) -> None:
        if (event := self._events.get(done)) is not None:
            event()

    def _return(self) -> None:
        self.first.start()
        until(self._first_is_back, "the return of the first worker")

    def _first_is_back(self) -> bool:
        """Whether it has answered what it missed, up to the tick at which the plant now waits."""
        sent = messages(self.spec, self.kafka, "actions", Action)
        begin = min(a.tick for a in sent)
        return max(a.tick for a in sent if a.worker == "worker-0") >= begin + FIRST_RETURNS - 1


@pytest.mark.timeout(240)
def test_sigkill_of_either_worker_costs_no_tick_of_any_entity(
    kafka: dict[str, str], tmp_path: Path
) -> None:
    """The plant goes on only with all answers to a tick, and nobody restarts who was killed."""
    loop = Loop(tmp_path, kafka["bootstrap.servers"], "event")
    make_topics(loop.spec, kafka)
    with Supervisor(tmp_path / "run") as supervisor:
        where = (str(loop.spec_file), *loop.broker, "--clock", "event")
        for name, more in (("worker-0", ()), ("twin-0", ("--twin",))):
            own = ("--data-dir", str(tmp_path / name), "--bundle", str(loop.bundle))
            supervisor.start(name, "worker", *where, *own, *more)
        first, twin = supervisor.processes
        supervisor.start("align", "align", *where)
        for process in (first, twin):
            until(partial(_is_ready, process), f"the start of {process.name}")
        killing = Killing(loop.spec, kafka, first, twin)
        summary = run_plant(
            loop.spec, make_plant(loop.spec, robots=ROBOTS), loop.broker[1], kafka,
            threading.Event(), ticks=TICKS, patience_s=60, first_patience_s=90,
            on_tick=killing.on_tick,
        )  # fmt: skip
        frames = until_decided(loop.spec, kafka, TICKS)

    assert (summary["ticks"], summary["missing"]) == (TICKS, 0)
    reports = messages(loop.spec, kafka, "applied", Applied)
    assert {a.status for a in reports} == {Status.APPLIED}
    assert set(Counter((a.entity, a.tick) for a in reports).values()) == {1}
    assert len(reports) == TICKS * ROBOTS
    _check_who_answered(messages(loop.spec, kafka, "actions", Action))
    _check_beliefs(loop.spec, kafka, frames)


def _is_ready(process: Process) -> bool:
    return "worker ready" in process.log.read_text()


def _check_who_answered(actions: list[Action]) -> None:
    """The twin while the first worker was away; the first worker once the twin was gone."""
    by_tick: dict[int, Counter[str]] = {}
    for action in actions:
        by_tick.setdefault(action.tick, Counter())[action.worker] += 1
    ticks = sorted(by_tick)
    assert all(by_tick[tick]["twin-0"] == ROBOTS for tick in ticks[FIRST_DIES:FIRST_RETURNS])
    assert all(set(by_tick[tick]) == {"worker-0"} for tick in ticks[TWIN_DIES:])


def _check_beliefs(spec: SystemSpec, kafka: dict[str, str], frames: int) -> None:
    """A frame has one belief, whoever computed it."""
    beliefs: dict[tuple[int, int], list[str]] = {}
    held = 0
    for message in records(spec, kafka, "trajectories"):
        found = decode_trajectory(spec, message.value() or b"")
        place = (found.frame.cohort, found.frame.tick)
        beliefs.setdefault(place, []).append(found.decisions.spent["belief"])
        held += found.decisions.spent.get("held", False)
    assert len(beliefs) == frames
    assert all(len(set(digests)) == 1 for digests in beliefs.values())
    assert sum(len(digests) > 1 for digests in beliefs.values()) > frames // 3
    assert held > 0, "while the first one answers, the twin keeps its answers to itself"


def test_a_twin_that_joins_late_goes_on_from_the_first_workers_beliefs(
    kafka: dict[str, str],
) -> None:
    spec = parse_spec(shipped_text("nav2d", system=unique("late"), cohorts=3))
    make_topics(spec, kafka)
    bootstrap, group = kafka["bootstrap.servers"], worker_group(spec, "twin")
    assert begin_with_beliefs(spec, bootstrap, kafka, group) == [], "there are none yet"
    producer = make_producer(bootstrap, kafka)
    rows = {}
    for cohort, offsets in ((0, (3, 8)), (2, (5, 4_000))):
        for offset in offsets:
            frame = make_frame(spec, np.zeros((2, 6)), tick=offset)
            frame = replace(frame, header=replace(frame.header, cohort=cohort))
            rows[cohort] = encode_row(
                replace(step(spec, None, None, frame, None)[0], offset=offset)
            )
            producer.produce(topic(spec, "beliefs"), rows[cohort], str(cohort).encode(), cohort)
    producer.produce(topic(spec, "beliefs"), b"no row", b"1", 1)
    assert producer.flush(20) == 0

    assert begin_with_beliefs(spec, bootstrap, kafka, group) == [0, 2]
    copied = {int(m.key() or b""): m.value() for m in records(spec, kafka, "beliefs-twin")}
    assert copied == rows
    consumer = make_consumer(bootstrap, kafka, group_id=group)
    places = [TopicPartition(topic(spec, "frames"), number) for number in range(3)]
    begun = [place.offset for place in consumer.committed(places, timeout=10)]
    consumer.close()
    assert (begun[0], begun[2]) == (9, 4_001)
    assert begun[1] < 0, "it begins at the first frame of a cohort without a row"
    assert begin_with_beliefs(spec, bootstrap, kafka, group) == [], "it has begun"
