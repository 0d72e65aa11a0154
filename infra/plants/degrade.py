"""Makes the sensors of any plant as bad as real ones: late, noisy, silent, repeated, disordered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from infra.plants.base import Plant, PlantError, Sample, SensorBatch, seconds
from infra.plants.wrapped import Wrapped
from schemas.clock import tick_time


@dataclass(frozen=True)
class Faults:
    """What is wrong with a sensor. Shares are of its readings, each drawn on its own.

    Attributes:
        delay: age in seconds of what a reading says at its stated time (or a text, `100 ms`).
        noise: standard deviation of Gaussian noise on every channel, in the channel's unit, or a
            mapping from channel to that.
        dropout: share that is lost.
        duplicates: share that is sent twice.
        disorder: share that changes places with others of the same tick.
        late: share that is sent one tick too late, with its true time.
    """

    delay: float = 0.0
    noise: float | Mapping[str, float] = 0.0
    dropout: float = 0.0
    duplicates: float = 0.0
    disorder: float = 0.0
    late: float = 0.0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Faults:
        """Reads faults as a spec or a caller gives them; `PlantError` for what cannot be."""
        unknown = sorted(options.keys() - {field.name for field in fields(cls)})
        if unknown:
            known = ", ".join(field.name for field in fields(cls))
            raise PlantError(f"there is no fault {unknown[0]!r}; there are {known}")
        made = cls(**{**options, "delay": seconds(options.get("delay", 0.0))})
        for name in ("dropout", "duplicates", "disorder", "late"):
            if not 0.0 <= getattr(made, name) <= 1.0:
                raise PlantError(f"fault {name}: a share from 0 to 1 is needed")
        if made.delay < 0.0:
            raise PlantError("fault delay: 0 s or more is needed")
        return made


class Degraded(Wrapped):
    """A plant whose readings pass through `Faults`, seeded; the rest of it stays as it is.

    `faults` maps a sensor's name to what is wrong with it.
    """

    MARK = "degraded-1"

    def __init__(self, plant: Plant, faults: Mapping[str, Mapping[str, Any] | Faults]) -> None:
        unknown = sorted(faults.keys() - plant.spec.sensors.keys())
        if unknown:
            sensors = ", ".join(plant.spec.sensors)
            raise PlantError(f"faults: there is no sensor {unknown[0]!r}; there are {sensors}")
        super().__init__(plant)
        self.faults = {
            name: fault if isinstance(fault, Faults) else Faults.of(fault)
            for name, fault in faults.items()
        }
        for name, fault in self.faults.items():
            channels = plant.spec.sensors[name].channels.keys()
            strange = fault.noise.keys() - channels if isinstance(fault.noise, Mapping) else set()
            if strange:
                raise PlantError(f"faults of {name!r}: there is no channel {min(strange)!r}")

    def begin(self, seed: int) -> None:
        """Nothing is on its way."""
        order = list(self.spec.sensors)
        self._rng = {name: np.random.default_rng([seed, order.index(name), 77]) for name in order}
        self._held: dict[str, list[SensorBatch]] = {name: [] for name in order}

    def told(self, sample: Sample) -> Sample:
        """The readings with their faults."""
        now = tick_time(sample.tick, self.spec.epoch_us, self.spec.period_us)
        found = {batch.sensor: batch for batch in sample.batches}
        batches = []
        for name in self.spec.sensors:
            batch = found.get(name)
            if name in self.faults:
                batch = self._pass(name, batch, now)
            if batch is not None and len(batch):
                batches.append(batch)
        return replace(sample, batches=tuple(batches))

    def _pass(self, name: str, batch: SensorBatch | None, now: int) -> SensorBatch | None:
        """What of one sensor arrives by `now`, given what it measured since the last tick."""
        fault, rng, due = self.faults[name], self._rng[name], self._held[name]
        self._held[name] = []
        if batch is not None:
            fresh = _measure(batch, fault, rng)
            late = rng.random(len(fresh)) < fault.late
            self._hold(name, fresh.take(late))
            due = [*due, fresh.take(~late)]
        if not due:
            return None
        everything = _join(due)
        early = everything.time_us > now
        self._hold(name, everything.take(early))
        return _deliver(everything.take(~early), fault, rng)

    def _hold(self, name: str, batch: SensorBatch) -> None:
        if len(batch):
            self._held[name].append(batch)


def _measure(batch: SensorBatch, fault: Faults, rng: np.random.Generator) -> SensorBatch:
    """What is left of a measurement after dropout, noise and delay."""
    kept = batch.take(rng.random(len(batch)) >= fault.dropout)
    values = {}
    for channel, value in kept.values.items():
        noise = fault.noise.get(channel, 0.0) if isinstance(fault.noise, Mapping) else fault.noise
        values[channel] = value + rng.normal(0.0, noise, value.shape) if noise else value
    return replace(kept, values=values, time_us=kept.time_us + round(fault.delay * 1e6))


def _deliver(batch: SensorBatch, fault: Faults, rng: np.random.Generator) -> SensorBatch:
    """The order in which readings come, and how often."""
    twice = rng.random(len(batch)) < fault.duplicates
    order = np.repeat(np.arange(len(batch)), 1 + twice)
    moved = np.flatnonzero(rng.random(order.size) < fault.disorder)
    order[moved] = order[rng.permutation(moved)]
    return batch.take(order)


def _join(batches: list[SensorBatch]) -> SensorBatch:
    """Several batches of one sensor as one, in the order in which they are given."""
    first = batches[0]
    crowds = [batch.crowd for batch in batches if batch.crowd is not None]
    lights = [batch.light for batch in batches if batch.light is not None]
    return SensorBatch(
        first.sensor,
        np.concatenate([batch.entity for batch in batches]),
        np.concatenate([batch.time_us for batch in batches]),
        {n: np.concatenate([batch.values[n] for batch in batches]) for n in first.values},
        np.concatenate(crowds) if crowds else None,
        np.concatenate(lights) if lights else None,
    )
