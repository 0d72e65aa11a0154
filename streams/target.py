"""Where a replay or an import may write: topics under a name of their own, unless told so twice."""

from __future__ import annotations

import time

from schemas.clock import tick_of, tick_time
from schemas.system import SystemSpec
from schemas.topics import topics_of
from streams.plant import Stop


class TargetError(ValueError):
    """Topics that must not be written as things stand; the message says what allows it."""


def target_of(spec: SystemSpec, name: str, live_topics: bool) -> SystemSpec:
    """The spec under the system name `name`, none of whose topics is one of `spec`'s.

    Sensors that read existing topics get `name.sensors.…` as well. With the system's own name,
    and only with `live_topics`, it is the spec itself.

    Raises `TargetError` where that would be the live system and nobody said so.
    """
    if name == spec.system:
        if not live_topics:
            raise TargetError(
                f"{name} is the recorded system itself: its workers and actuators would take this "
                "for the present. Choose another name, or add --live-topics if that is meant"
            )
        return spec
    sensors = {}
    for key, sensor in spec.sensors.items():
        own_topics: dict[str, object] = {"topic": f"{name}.sensors.{key}"}
        if (raw := sensor.perceive) is not None:
            own_topics["perceive"] = raw.model_copy(update={"topic": f"{name}.raw.{key}"})
        sensors[key] = sensor.model_copy(update=own_topics)
    content = spec.model_copy(update={"system": name, "sensors": sensors})
    own = {topic.name for topic in topics_of(spec)}
    if shared := sorted(own & {topic.name for topic in topics_of(content)}):
        raise TargetError(f"{name}: {', '.join(shared)} would be shared with {spec.system}")
    return content


class Pace:
    """Holds event times back so that they pass at `rate` times real time; None: not at all."""

    def __init__(self, rate: float | None) -> None:
        if rate is not None and rate <= 0:
            raise ValueError(f"--rate {rate:g}: give a multiple of real time above 0")
        self.rate = rate
        self._begun: tuple[int, float] | None = None
        self.waited_s = 0.0

    def again(self) -> None:
        """Counts from the next time on anew: after a pause, a seek, or at another rate."""
        self._begun = None

    def left_s(self, time_us: int) -> float:
        """Real seconds until `time_us` is due; 0 or less when it is."""
        if self.rate is None:
            return 0.0
        if self._begun is None:
            self._begun = (time_us, time.monotonic())
        first, began = self._begun
        return began + (time_us - first) / 1e6 / self.rate - time.monotonic()

    def wait(self, time_us: int, stop: Stop | None) -> None:
        """Returns when `time_us` is due, or when told to stop."""
        while (left := self.left_s(time_us)) > 0 and not (stop and stop.is_set()):
            began = time.monotonic()
            time.sleep(min(left, 0.1))
            self.waited_s += time.monotonic() - began


def shift_to_now(spec: SystemSpec, time_us: int) -> int:
    """Whole ticks, in us, by which `time_us` lies before the next tick of real time."""
    period, epoch = spec.period_us, spec.epoch_us
    now = tick_of(time.time_ns() // 1_000, epoch, period)
    return tick_time(now, epoch, period) - tick_time(tick_of(time_us, epoch, period), epoch, period)
