"""A worker and its twin: whichever is killed, every entity has its action at every tick."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.plants.base import make_plant
from schemas.codes import Status
from schemas.messages import Action, Applied
from schemas.trajectories import decode_trajectory
from streams.plant import run_plant
from streams.record import record
from streams.replay import replay
from streams.supervise import Process, Supervisor
from tests.system.loop import make_topics, messages, records
from tests.system.processes import Loop, until, until_decided

pytestmark = [pytest.mark.broker, pytest.mark.system]
ROBOTS, TICKS = 4, 70
TWIN_JOINS, FIRST_DIES, FIRST_RETURNS, TWIN_DIES = 10, 25, 40, 55


def kill(process: Process) -> None:
    assert process.child is not None
    process.child.send_signal(signal.SIGKILL)
    assert process.child.wait(10) == -signal.SIGKILL


class Killing:
    """What is done to a worker and its twin while the plant runs; `ends` says at which ticks."""

    def __init__(self, loop: Loop, kafka: dict[str, str], twin: Process) -> None:
        self.loop, self.kafka, self.twin = loop, kafka, twin
        self.ends: list[int] = []  # newest tick that was applied by then
        self._events: dict[int, Callable[[], None]] = {
            TWIN_JOINS: self._join,
            FIRST_DIES: lambda: kill(loop.worker),
            FIRST_RETURNS: self._return,
            TWIN_DIES: lambda: kill(twin),
        }

    def on_tick(self, done: int, score: dict[str, float]) -> None:
        if (event := self._events.get(done)) is not None:
            reports = messages(self.loop.spec, self.kafka, "applied", Applied)
            self.ends.append(max(a.tick for a in reports))
            event()

    def _join(self) -> None:
        self.twin.start()
        until(lambda: "worker ready" in self.twin.log.read_text(), "the start of the twin")

    def _return(self) -> None:
        self.loop.worker.start()
        until(self._first_is_back, "the return of the first worker")

    def _first_is_back(self) -> bool:
        """Whether it has answered what it missed, up to the tick at which the plant now waits."""
        sent = messages(self.loop.spec, self.kafka, "actions", Action)
        return max(a.tick for a in sent if a.worker == "worker-0") >= self.ends[-1]


@pytest.mark.timeout(240)
def test_sigkill_of_either_worker_costs_no_tick_of_any_entity(
    kafka: dict[str, str], tmp_path: Path
) -> None:
    """The plant goes on only with all answers to a tick, and nobody restarts who was killed.

    The twin comes when the first worker has been at work for a while.
    """
    loop = Loop(tmp_path, kafka["bootstrap.servers"], "event")
    make_topics(loop.spec, kafka)
    with Supervisor(tmp_path / "run") as supervisor:
        loop.start(supervisor)
        where = (str(loop.spec_file), *loop.broker, "--clock", "event")
        own = ("--data-dir", str(tmp_path / "w1"), "--bundle", str(loop.bundle))
        twin = Process("twin", ("worker", *where, *own, "--twin"), tmp_path / "run")
        supervisor.processes.append(twin)
        killing = Killing(loop, kafka, twin)
        summary = run_plant(
            loop.spec, make_plant(loop.spec, robots=ROBOTS), loop.broker[1], kafka,
            threading.Event(), ticks=TICKS, patience_s=60, first_patience_s=90,
            on_tick=killing.on_tick,
        )  # fmt: skip
        frames = until_decided(loop.spec, kafka, TICKS)
        for part in ("align", "worker", "sink"):
            supervisor.stop(part)

    assert (summary["ticks"], summary["missing"]) == (TICKS, 0)
    reports = messages(loop.spec, kafka, "applied", Applied)
    assert {a.status for a in reports} == {Status.APPLIED}
    assert set(Counter((a.entity, a.tick) for a in reports).values()) == {1}
    assert len(reports) == TICKS * ROBOTS
    _check_who_answered(messages(loop.spec, kafka, "actions", Action), *killing.ends)
    _check_beliefs(loop, kafka, frames, killing.ends[0])
    # At each of the two ends a worker may have had no time to log what it had sent.
    assert (TICKS - 2) * ROBOTS <= loop.sink.summary()["counted"] <= TICKS * ROBOTS
    # The first worker decided what it missed as well: its own way is repeated bit for bit.
    record(loop.spec, loop.broker[1], kafka, tmp_path / "recording")
    result = replay(tmp_path / "recording", bundles=[loop.bundle])
    assert (result["frames"], result["differences"]) == (frames, 0)


def _check_who_answered(
    actions: list[Action], joined: int, died: int, back: int, alone: int
) -> None:
    """The twin while the first worker was away; the first worker once the twin was gone."""
    by_tick: dict[int, Counter[str]] = {}
    for action in actions:
        by_tick.setdefault(action.tick, Counter())[action.worker] += 1
    assert all(set(by_tick[tick]) == {"worker-0"} for tick in range(min(by_tick), joined))
    assert all(by_tick[tick]["twin-0"] == ROBOTS for tick in range(died + 1, back + 1))
    assert all(set(by_tick[tick]) == {"worker-0"} for tick in range(alone + 1, max(by_tick) + 1))


def _check_beliefs(loop: Loop, kafka: dict[str, str], frames: int, joined: int) -> None:
    """A frame has one belief, whoever computed it; the sink says so too."""
    beliefs: dict[tuple[int, int], list[str]] = {}
    held, twins = 0, []
    for message in records(loop.spec, kafka, "trajectories"):
        found = decode_trajectory(loop.spec, message.value() or b"")
        place = (found.frame.cohort, found.frame.tick)
        beliefs.setdefault(place, []).append(found.decisions.spent["belief"])
        held += found.decisions.spent.get("held", False)
        twins += [found.frame.tick] * found.decisions.spent["twin"]
    assert min(twins) >= joined, "it begins with the first worker's beliefs"
    assert len(beliefs) == frames
    assert all(len(set(digests)) == 1 for digests in beliefs.values())
    assert sum(len(digests) > 1 for digests in beliefs.values()) > frames // 3
    assert held > 0, "while the first one answers, the twin keeps its answers to itself"
    stored = loop.sink.summary()
    assert (stored["frames"], stored["beliefs_unlike"]) == (frames, 0)
