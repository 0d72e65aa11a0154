"""What the readings of a plant say of each channel at its tick, where nothing comes late."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infra.plants.base import Floats, Ints, Sample
from schemas.clock import tick_time
from schemas.context import context_values
from schemas.spec_parts import Align
from schemas.system import SystemSpec

_LONG_AGO = np.iinfo(np.int64).min // 2


class Seen:
    """The newest value of each channel, aligned as the spec says from each tick's readings alone.

    Where a tick brings none, the last one stands. What the aligner of `streams` makes of the same
    readings is the same, but for `linear`, which is the newest value here.

    Attributes:
        columns: column → `[E]`; NaN where never seen.
        newest: column → `[E]` time of its newest reading, microseconds.
    """

    def __init__(self, spec: SystemSpec, entities: int) -> None:
        self._spec, self._entities = spec, entities
        self.columns = {name: np.full(entities, np.nan) for name in spec.observed_columns}
        self.newest = {name: np.full(entities, _LONG_AGO) for name in spec.observed_columns}

    def take(self, sample: Sample) -> None:
        """The readings up to the sample's tick."""
        for batch in sample.batches:
            order = np.argsort(batch.time_us, kind="stable")
            for name, values in batch.values.items():
                channel = self._spec.sensors[batch.sensor].channels[name]
                flat = values.reshape(len(batch), -1)[order]
                there = ~np.isnan(flat[:, 0])
                slot, time = batch.entity[order][there], batch.time_us[order][there]
                for i, column in enumerate(channel.columns):
                    self._merge(column, channel.align, slot, flat[there, i])
                    np.maximum.at(self.newest[column], slot, time)

    def copied(self, index: Ints) -> Seen:
        """What is seen of other entities, the i-th as of entity `index[i]`."""
        made = Seen(self._spec, len(index))
        made.columns = {name: value[index] for name, value in self.columns.items()}
        made.newest = {name: value[index] for name, value in self.newest.items()}
        return made

    def values(self, tick: int) -> Floats:
        """`[E, O]` in the order of `spec.columns`, context included; NaN: older than allowed."""
        spec = self._spec
        now = tick_time(tick, spec.epoch_us, spec.period_us)
        seen = np.empty((self._entities, len(spec.columns)))
        for i, name in enumerate(spec.observed_columns):
            most = spec.sensor_of[spec.channel_of_column[i]].max_age_us
            seen[:, i] = np.where(now - self.newest[name] <= most, self.columns[name], np.nan)
        seen[:, len(spec.observed_columns) :] = context_values(spec.context, now)
        return seen

    def _merge(self, column: str, align: Align, slot: NDArray[np.int32], value: Floats) -> None:
        if align in ("mean", "sum", "count"):
            count = np.bincount(slot, minlength=self._entities)
            total = np.bincount(slot, weights=value, minlength=self._entities)
            found = {"mean": total / np.maximum(count, 1), "sum": total, "count": count}[align]
            self.columns[column] = np.where(count > 0, found, self.columns[column])
        elif align == "max":
            top = np.full(self._entities, -np.inf)
            np.maximum.at(top, slot, value)
            self.columns[column] = np.where(np.isfinite(top), top, self.columns[column])
        else:  # a reading at the tick's own time makes `linear` the same
            self.columns[column][slot] = value
