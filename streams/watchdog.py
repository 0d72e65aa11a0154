"""The watchdog: a worker whose committed offsets stand still while frames arrive starts anew."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from infra.log import Log
from schemas.system import SystemSpec
from schemas.topics import topic
from streams.supervise import STATUS_AGAIN, TryAgain
from streams.topic_io import make_consumer

_log = Log("worker")
PATIENCE_S = 20.0
LOOKS = 20  # within its patience
QUERY_S = 2.0  # for the broker to answer
HANG_S = 2.0  # after which a worker that does not hear of it is ended


class WorkerError(RuntimeError):
    """The worker had to stop: what happened, and what helps."""


class WorkerStalled(WorkerError, TryAgain):
    """The worker cannot go on, but a new start would: it goes on from its beliefs."""


class Watchdog:
    """Committed offsets must advance while frames arrive. Pure, but for its clock.

    After a rebalance Faust may hold a gap in its acknowledgements, and then never commits again.
    Only time in which frames arrive counts: while the broker is away, nothing can be committed.
    """

    def __init__(
        self, patience_s: float = PATIENCE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._patience_s, self._clock = patience_s, clock
        self._frames = self._committed = self._before = 0
        self._arrived = clock()
        self.stalled_s = 0.0

    def look(self, frames: int, committed: int) -> None:
        """Raises `WorkerStalled` when frames arrived for long, and nothing was committed."""
        now = self._clock()
        if committed != self._committed:
            self._committed, self._before, self.stalled_s = committed, frames, 0.0
            self._arrived = now
        elif frames != self._frames:
            # Of a pause in the stream, or in the broker's answers, no more than this counts.
            self.stalled_s += min(now - self._arrived, self._patience_s / 5)
            self._arrived = now
        self._frames = frames
        if self.stalled_s > self._patience_s:
            raise WorkerStalled(
                f"{frames - self._before} frames arrived in {self._patience_s:g} s, but no offset "
                "was committed; start the worker again, it goes on from its beliefs"
            )


def committed(app: Any) -> int:
    """The sum of the offsets that an app has committed: it moves while the app does its work."""
    return sum(offset or 0 for offset in app.consumer._committed_offset.values())


class Guard:
    """Asks the broker how far frames and commits are, from a thread that no worker can hold up.

    Args:
        spec, bootstrap, extra, group: of the worker.
        partitions: those whose frames it has to decide now; called in the thread.
        patience_s: how long frames may arrive without a commit.

    `failure` is set then. A worker that does not say `noticed` within `HANG_S`, because its loop
    hangs, is ended on the spot with the status that has it started again.
    """

    def __init__(
        self,
        spec: SystemSpec,
        bootstrap: str,
        extra: Mapping[str, str],
        group: str,
        partitions: Callable[[], Iterable[int]],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.failure: WorkerStalled | None = None
        self.noticed = threading.Event()
        self._frames, self._partitions = topic(spec, "frames"), partitions
        self._patience_s = patience_s
        self._closing = threading.Event()
        # It joins no group: it only asks what this one has committed.
        self._consumer: Consumer = make_consumer(bootstrap, extra, group_id=group)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        own: list[int] = []
        dog = Watchdog(self._patience_s)
        while not self._closing.wait(self._patience_s / LOOKS):
            before, own = own, sorted(self._partitions())
            if own != before:
                dog = Watchdog(self._patience_s)
            try:
                if own:
                    dog.look(*self._ask(own))
            except KafkaException:
                continue  # no broker answers: nothing can be committed
            except WorkerStalled as error:
                self._bark(error)
                return

    def _ask(self, own: list[int]) -> tuple[int, int]:
        """How many frames there are in all, and up to which of them all is committed."""
        places = [TopicPartition(self._frames, number) for number in own]
        ends = [self._consumer.get_watermark_offsets(p, timeout=QUERY_S)[1] for p in places]
        committed = self._consumer.committed(places, timeout=QUERY_S)
        return sum(ends), sum(max(0, place.offset) for place in committed)

    def _bark(self, error: WorkerStalled) -> None:
        self.failure = error
        if not self.noticed.wait(HANG_S) and not self._closing.is_set():
            _log.error("the worker hangs", detail=str(error))
            os._exit(STATUS_AGAIN)

    def close(self) -> None:
        """Ends the thread; again is nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self.noticed.set()
        self._thread.join()
        self._consumer.close()
