"""What the sensors of the cluster say: differences of snapshots, as old as the metric delay."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from infra.plants import queue
from infra.plants.base import Floats, Ints, PlantError, SensorBatch, readings, stamps
from schemas.system import SystemSpec

# Columns of a snapshot.
ARRIVED, STARTED, ABANDONED, LATE, READY, STARTING, PEAK, QUEUED = range(len(queue.SNAPSHOT))


class SensorGrid:
    """Snapshots at even steps, and the delayed readings that are made of them.

    The step divides the tick, the sensors' periods and the metric delay, so that every reading is
    a difference of two snapshots. `history` `[kept, E, snapshot]` is all that they depend on.
    """

    def __init__(self, spec: SystemSpec, delay_us: int) -> None:
        self._spec = spec
        self._sensors = [
            (sensor, self._columns(sensor.name, list(sensor.channels)))
            for sensor in spec.sensors.values()
        ]
        spans = [sensor.every_us for sensor in spec.sensors.values()]
        self._step = math.gcd(spec.period_us, delay_us, *spans)
        if self._step < 100_000:
            raise PlantError(
                f"metric_delay {delay_us} us has no common step of 0.1 s or more with the tick and "
                "the sensors' periods: round it"
            )
        steps = spec.period_us // self._step
        self.offsets: Floats = np.arange(1.0, steps + 1.0) * (self._step / 1e6)
        self._delay = delay_us // self._step
        self._kept = self._delay + steps + max(spans) // self._step + 1
        self.seconds = self._kept * self._step / 1e6

    @staticmethod
    def _columns(sensor: str, channels: Sequence[str]) -> tuple[str, ...]:
        known = {"requests", "ready", "starting", "queue", "late_share"}
        unknown = sorted(set(channels) - known)
        if unknown:
            raise PlantError(
                f"sensor {sensor!r}: the cluster has no channel {unknown[0]!r}; it has "
                f"{', '.join(sorted(known))}"
            )
        return tuple(channels)

    @property
    def last(self) -> Floats:
        """`[E, snapshot]` the newest snapshot."""
        newest: Floats = self.history[-1].copy()
        return newest

    def reset(self, entities: int) -> None:
        """Forgets everything; `entities` are E."""
        self._entities = entities
        self.history = np.zeros((self._kept, entities, len(queue.SNAPSHOT)))
        self.out = np.zeros((self.offsets.size, entities, len(queue.SNAPSHOT)))

    def push(self) -> None:
        """Takes over the snapshots in `out`."""
        self.history = np.concatenate([self.history[self.offsets.size :], self.out])

    def batches(self, tick: int, time_us: int) -> tuple[SensorBatch, ...]:
        """The readings of the last tick: the `tick`-th of the trace, ended at `time_us`."""
        made = []
        for sensor, channels in self._sensors:
            end = tick * self._spec.period_us
            since = stamps(tick, self._spec.period_us, sensor.every_us)
            if since.size:
                place = self._kept - 1 - self._delay - (end - since) // self._step
                width = sensor.every_us // self._step
                values = {name: self._channel(name, place, width) for name in channels}
                made.append(readings(sensor.name, time_us - end + since, values, self._entities))
        return tuple(made)

    def _channel(self, name: str, place: Ints, width: int) -> Floats:
        """One channel `[times, E]` over the windows of `width` steps that end at `place`."""
        if name in ("ready", "starting"):
            return self.history[place, :, READY if name == "ready" else STARTING]
        if name == "queue":
            peaks = [self.history[p - width + 1 : p + 1, :, PEAK].max(axis=0) for p in place]
            return np.array(peaks)
        change = self.history[place] - self.history[place - width]
        if name == "requests":
            return change[..., ARRIVED] / (width * self._step / 1e6)
        decided = change[..., STARTED] + change[..., ABANDONED]
        return np.asarray(change[..., LATE] / np.maximum(decided, 1.0))
