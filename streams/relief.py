"""A worker that cannot keep up passes over the frames that wait for too long."""

import time
from typing import Any

import structlog

from streams.backlog import Backlog
from streams.desk import Desk, Place

_log = structlog.get_logger("worker")


class Relief:
    """Passes over frames that cannot be caught up with; under the wall clock alone.

    Only time in which frames are decided counts: while tables are recovered, none is.
    """

    def __init__(self, app: Any, desk: Desk) -> None:
        self._app, self._desk, self._backlog = app, desk, Backlog()
        self._frames, self._looked = 0, time.monotonic()

    async def look(self) -> None:
        """To be called several times a second."""
        desk, now = self._desk, time.monotonic()
        idle = desk.tally.frames == self._frames or self._app.rebalancing
        if desk.options.clock != "wall" or idle:
            return
        passed, self._looked, self._frames = now - self._looked, now, desk.tally.frames
        if over := self._backlog.look(passed, desk.read, self._ends):
            _log.warning("too many frames; the older ones are passed over", before=over)
            await desk.pass_over(over)

    def _ends(self) -> dict[Place, int]:
        """Up to where the partitions that were read here have frames."""
        consumer = self._app.consumer
        mine = [tp for tp in consumer.assignment() if tuple(tp) in self._desk.read]
        return {(tp.topic, tp.partition): consumer.highwater(tp) or 0 for tp in mine}
