"""A simulator's sensors as `perceive` would have them: seen, and encoded by the spec's encoders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np

from infra.plants.base import (
    Branching,
    Ints,
    Plant,
    PlantError,
    Restorable,
    Sample,
    SensorBatch,
    degraded,
    make_plant,
    sound_plant,
)
from infra.plants.rows import row_maker
from infra.plants.wrapped import Wrapped
from planner.encoder import Encoder
from schemas.system import SystemSpec

_STREAM: Final = 31  # of what is drawn here, apart from all else that a seed decides
_POSITIVE: Final = 1 << 63  # times before 1970 are as good as others


def encoded_plant(spec: SystemSpec, **options: Any) -> Plant:
    """As `make_plant`, and where the spec has encoders, sensors tell what these make of views.

    Faults of sensors, where there are any, are of what was encoded.

    Raises:
        PlantError: as `make_plant`, or simulators do not show what a sensor has encoded.
        BundleError: an encoder that cannot be used.
    """
    if not spec.perceived:
        return make_plant(spec, **options)
    plant, faults = sound_plant(spec, options)
    return degraded(Encoded(plant), faults)


class Encoded(Wrapped):
    """A plant whose sensors with `perceive` read what their encoders make of what they see.

    The inner plant moves and says what is true; pictures, points and others are drawn of that
    (`infra.plants.rows`) and go through the spec's encoders. What is drawn for a reading depends on
    the seed, the sensor, the entity and the time alone: not on who else is there, nor on what was
    asked before, so a plant that is taken back sees the same again.
    """

    MARK = "encoded-1"

    def __init__(self, plant: Plant) -> None:
        super().__init__(plant)
        self._number = {name: i for i, name in enumerate(plant.spec.sensors)}
        self._see = {sensor.name: row_maker(sensor) for sensor, _ in plant.spec.perceived}
        self._encoders = {
            sensor.name: Encoder(raw, sum(c.size for c in sensor.channels.values()), "cpu")
            for sensor, raw in plant.spec.perceived
        }
        self._seed = 0

    def begin(self, seed: int) -> None:
        """All that is drawn depends on the seed."""
        self._seed = seed

    def snapshot(self) -> tuple[int, Any]:
        """All that what comes next depends on. Raises `PlantError` where the plant has none."""
        return self._seed, self._restorable().snapshot()

    def restore(self, state: tuple[int, Any]) -> None:
        """Goes back to a `snapshot`."""
        self._seed, inner = state
        self._restorable().restore(inner)

    def branch(self, index: Ints) -> Plant:
        """The plant's own, which tells what is true: an encoder's error is noise, as others are.

        Raises:
            PlantError: entities of this plant cannot be copied.
        """
        if not isinstance(self.plant, Branching):
            raise PlantError(f"{self.version}: entities of this plant cannot be copied")
        return self.plant.branch(index)

    def _restorable(self) -> Restorable:
        if not isinstance(self.plant, Restorable):
            raise PlantError(f"{self.version}: this plant cannot be taken back to a state")
        return self.plant

    def told(self, sample: Sample) -> Sample:
        """The readings, encoded."""
        return replace(sample, batches=tuple(self._read(batch) for batch in sample.batches))

    def _read(self, batch: SensorBatch) -> SensorBatch:
        """The readings with embeddings in the place of what was true."""
        if (see := self._see.get(batch.sensor)) is None or not len(batch):
            return batch
        rows = np.stack([see(batch, i, self._rng(batch, i)) for i in range(len(batch))])
        told = self._encoders[batch.sensor].encode(rows).astype(np.float64)
        channels = self.spec.sensors[batch.sensor].channels
        ends = np.cumsum([channel.size for channel in channels.values()])[:-1]
        parts = dict(zip(channels, np.split(told, ends, axis=1), strict=True))
        values = {name: parts[name].reshape(true.shape) for name, true in batch.values.items()}
        return replace(batch, values=values)

    def _rng(self, batch: SensorBatch, i: int) -> np.random.Generator:
        """Of one reading."""
        entity, time = int(batch.entity[i]), int(batch.time_us[i]) % _POSITIVE
        number = self._number[batch.sensor]
        return np.random.default_rng([self._seed, _STREAM, number, entity, time])
