"""The twin: a second worker that holds its answers back, until the first one owes some."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec
from confluent_kafka import KafkaException, Message, TopicPartition

from infra.log import Log
from planner import latch
from planner.memory import PlannerMemory
from schemas.frames import Frame
from schemas.messages import Action, decode
from schemas.system import SystemSpec
from schemas.topics import topic
from streams.belief import Row
from streams.topic_io import bounds, make_consumer, raise_fatal

_NEVER: Final = -(2**62)
_TAIL: Final = 2_000  # actions of each partition that a twin reads back at its start
_BATCH: Final = 1_000
_WAIT_S: Final = 0.1
_log = Log("worker")


class StandIn:
    """Whom a twin must answer for. Pure: it is told what was heard, and asked what to do.

    An entity is owed an answer at a tick as long as no other worker sent one of that tick or of a
    later one: each sends its actions in the order of ticks. Once a twin has waited for a whole
    cohort in vain, and as long as nobody is heard, it is alone: it waits no more.
    """

    def __init__(self, system: str, own: str) -> None:
        self._system, self._own = system, own
        self._newest: dict[str, int] = {}  # entity → the newest tick that another worker answered
        self._stood_in: dict[int, int] = {}  # cohort → the last tick at which nobody else answered

    def heard(self, action: Action) -> None:
        """Somebody's action came; one's own say nothing."""
        if action.worker != self._own and action.system == self._system:
            before = self._newest.get(action.entity, _NEVER)
            self._newest[action.entity] = max(before, action.tick)

    def owed(self, frame: Frame) -> frozenset[str]:
        """The entities of `frame` that nobody has answered."""
        newest, tick = self._newest, frame.tick
        return frozenset(e for e in frame.entities if newest.get(e, _NEVER) < tick)

    def alone(self, frame: Frame) -> bool:
        """Whether nobody else answered the cohort's last frame, not even late."""
        before = frame.tick - 1
        if self._stood_in.get(frame.cohort) != before:
            return False
        return all(self._newest.get(entity, _NEVER) < before for entity in frame.entities)

    def answers(self, frame: Frame) -> frozenset[str]:
        """The entities that the twin now sends its answers for: those that are owed one."""
        owed = self.owed(frame)
        if owed and len(owed) == len(frame.entities):
            self._stood_in[frame.cohort] = frame.tick
        return owed


class Twin:
    """A twin's view of the first worker, inside the event loop.

    system, own: of the spec, and this worker's id.
    """

    def __init__(self, system: str, own: str) -> None:
        self.stand_in = StandIn(system, own)
        self._news = asyncio.Event()

    def hear(self, actions: Sequence[Action]) -> None:
        """Takes in what came on `S.actions`."""
        for action in actions:
            self.stand_in.heard(action)
        self._news.set()

    async def wait(self, frame: Frame, until_ns: int) -> None:
        """Until every entity of `frame` has an answer, or the monotonic clock says `until_ns`."""
        while self.stand_in.owed(frame):
            left_ns = until_ns - time.monotonic_ns()
            if left_ns <= 0:
                return
            self._news.clear()
            try:
                async with asyncio.timeout(left_ns / 1e9):
                    await self._news.wait()
            except TimeoutError:
                return


class Ears:
    """Reads `S.actions` in a thread of its own, from a little before its end on.

    Args:
        spec, bootstrap, extra: the system, and its Kafka.
        tell: is called in that thread with what came.

    `failure` says why it hears nothing any more. Raises `KafkaSetupError` without the topic.
    """

    def __init__(
        self,
        spec: SystemSpec,
        bootstrap: str,
        extra: Mapping[str, str],
        tell: Callable[[list[Action]], object],
    ) -> None:
        self.failure: KafkaException | None = None
        self._tell, self._closing = tell, threading.Event()
        self._consumer = make_consumer(bootstrap, extra)
        name = topic(spec, "actions")
        self._consumer.assign(
            [
                TopicPartition(name, number, max(low, high - _TAIL))
                for number, (low, high) in bounds(self._consumer, name).items()
            ]
        )
        self._thread = threading.Thread(target=self._listen, name="twin-ears", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                if (first := self._consumer.poll(_WAIT_S)) is not None:
                    self._take([first, *self._consumer.consume(_BATCH, 0.0)])
            except KafkaException as error:
                self.failure = error
                return

    def _take(self, messages: list[Message]) -> None:
        actions = []
        for message in messages:
            if (error := message.error()) is not None:
                _log.warning("kafka", detail=raise_fatal(error))
                continue
            try:
                actions.append(decode(Action, message.value() or b""))
            except msgspec.DecodeError:
                continue  # the actuators count what is no action
        self._tell(actions)

    def close(self) -> None:
        """Ends the thread."""
        self._closing.set()
        self._thread.join()
        self._consumer.close()


def without_plans(
    row: Row | None, spec: SystemSpec, latched: Mapping[str, Sequence[int]] | None = None
) -> Row | None:
    """A row whose planner remembers no plan.

    All of its memory is then a function of frames but for the gate's latch, which is that of
    `latched` where a log says which it was.
    """
    if row is None:
        return None
    memory = PlannerMemory.from_arrays(row.memory).without_plans(spec)
    if latched is not None:
        memory = replace(memory, latch=latch.from_log(row.entities, latched))
    return replace(row, memory=memory.arrays())
