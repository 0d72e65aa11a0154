"""A worker that cannot keep up passes over the frames that wait for too long."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from aiokafka.errors import KafkaError

from infra.log import Log
from streams.backlog import Backlog
from streams.desk import Desk, Place

_log = Log("worker")
_ASK_S = 0.1  # between two questions to the broker,
_BEHIND_S = 0.5  # which nobody asks while frames are read sooner than this after they were written


class Relief:
    """Passes over frames that cannot be caught up with; under the wall clock alone.

    Only time in which frames are decided counts: while tables are recovered, none is. How far the
    frames go is asked beside: where the broker says nothing, nothing more has come.
    """

    def __init__(self, app: Any, desk: Desk) -> None:
        self._app, self._desk, self._backlog = app, desk, Backlog()
        self._frames, self._looked = 0, time.monotonic()
        self._asked = 0.0
        self._asking: asyncio.Task[None] | None = None
        self._ends: Mapping[Place, int] = {}

    async def look(self) -> None:
        """To be called several times a second."""
        desk, now = self._desk, time.monotonic()
        idle = desk.tally.frames == self._frames or self._app.rebalancing
        if desk.options.clock != "wall" or idle:
            return
        passed, self._looked, self._frames = now - self._looked, now, desk.tally.frames
        behind = time.time() > desk.written_s + _BEHIND_S
        answered = self._asking is None or self._asking.done()
        if behind and answered and now >= self._asked + _ASK_S:
            self._asked, self._asking = now, asyncio.create_task(self._ask())
        if over := self._backlog.look(passed, desk.read, self._mine):
            _log.warning("too many frames; the older ones are passed over", before=over)
            await desk.pass_over(over)

    def _mine(self) -> dict[Place, int]:
        """Up to where the partitions that are read here had frames when it was last asked."""
        return {place: end for place, end in self._ends.items() if place in self._desk.read}

    async def _ask(self) -> None:
        consumer = self._app.consumer
        mine = [tp for tp in consumer.assignment() if tuple(tp) in self._desk.read]
        try:
            found = await consumer.ends(mine)
            self._ends = {(tp.topic, tp.partition): end for tp, end in found.items()}
        except KafkaError as error:
            _log.debug("the broker does not say how many frames there are", detail=repr(error))

    def close(self) -> None:
        """Asks no more."""
        if self._asking is not None:
            self._asking.cancel()
