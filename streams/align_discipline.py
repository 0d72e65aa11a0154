"""The clocks of all devices of a system: learnt from what comes in, and reported."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Message

from infra.log import Log
from schemas.system import SystemSpec
from streams.align_clocks import DeviceClocks
from streams.align_state import Ints

_SAMPLE: Final = 500  # of a larger batch, so many readings are learnt from
_SHOWN: Final = 20  # clocks that metrics and summary name, of each sensor
_TOLD: Final = 10  # jumps that are logged, of each time that was learnt

_log = Log("align")


class Discipline:
    """The clocks of every sensor whose times are to be disciplined (under the wall clock).

    `name_of`: the entity of a row; `now_us`: when a record is received, for topics whose records
    do not say when the broker had them (`message.timestamp.type` is not `LogAppendTime`).
    """

    def __init__(
        self, spec: SystemSpec, name_of: Callable[[int], str], now_us: Callable[[], int]
    ) -> None:
        self._name_of, self._now_us = name_of, now_us
        self._clocks = {
            name: DeviceClocks(sensor.time.discipline_us)
            for name, sensor in spec.sensors.items()
            if sensor.time.discipline_us is not None
        }
        self._turn = 0

    def times(
        self,
        sensor: str,
        entity: Ints,
        time_us: Ints,
        messages: Sequence[Message],
        places: Ints,
        live: Callable[[], bool],
    ) -> Ints:
        """[n] the times of readings by the broker's clock; they are noted, to learn from them.

        `places` [n] are their messages among `messages`; `live` says whether those were read when
        they came.
        """
        clocks = self._clocks.get(sensor)
        if clocks is None or not len(entity):
            return time_us
        step = -(-len(entity) // _SAMPLE)
        self._turn += 1
        rows = np.arange(self._turn % step, len(entity), step)
        came = self._came_us([messages[place] for place in places[rows].tolist()], live)
        if came is not None:
            clocks.heard(entity[rows], time_us[rows], came)
            if clocks.meets_new():
                self._learn(sensor, clocks)
        return clocks.correct(entity, time_us)

    def _came_us(self, messages: list[Message], live: Callable[[], bool]) -> Ints | None:
        """[n] when the broker had them, us, else when they were received; None: not known."""
        if messages[0].timestamp()[0] == TIMESTAMP_LOG_APPEND_TIME:
            stamps = np.fromiter((m.timestamp()[1] for m in messages), np.int64, len(messages))
            return np.asarray(stamps * 1_000)
        return np.full(len(messages), self._now_us()) if live() else None

    def rest(self) -> None:
        """Learns from what was noted, where that is enough: when nobody waits for a frame."""
        for sensor, clocks in self._clocks.items():
            if clocks.due():
                self._learn(sensor, clocks)

    def _learn(self, sensor: str, clocks: DeviceClocks) -> None:
        for jump in clocks.learn()[:_TOLD]:
            _log.warning(
                "a device's clock was set; its readings' times are learnt again",
                sensor=sensor,
                entity=self._name_of(jump.entity),
                forward_s=round(jump.forward_us / 1e6, 4),
            )

    # what is known

    @property
    def jumps(self) -> int:
        """How many clocks were set so far."""
        return sum(clocks.jumps for clocks in self._clocks.values())

    @property
    def corrected(self) -> int:
        """How many clocks are corrected now."""
        return sum(int(np.count_nonzero(clocks.applied)) for clocks in self._clocks.values())

    def worst(self) -> Iterator[tuple[str, dict[str, float]]]:
        """The clocks that are corrected most: `sensor/entity`, and the estimate in seconds."""
        for sensor, clocks in self._clocks.items():
            for row in clocks.corrected(_SHOWN).tolist():
                yield f"{sensor}/{self._name_of(row)}", clocks.estimate(row)

    def summary(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"corrected": self.corrected, "jumps": self.jumps, "worst": dict(self.worst())}
