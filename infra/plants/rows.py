"""What a simulator's sensors see where a spec has that encoded: a row per reading, for the encoder.

The rows are those that `perceive` reads from the messages of the same views (`streams/views.py`);
a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.plants.base import Floats, PlantError, SensorBatch
from infra.plants.crowd import SEEN
from infra.plants.views import PIXELS, RETURNS, clouds, jpeg, pictures, unjpeg
from schemas.formats import packed_type
from schemas.perceive import EntitiesInput, JpegInput, PointsInput, VoxelsInput, occupancy
from schemas.spec_parts import SensorSpec

Row = npt.NDArray[Any]
See = Callable[[SensorBatch, int, np.random.Generator], Row]


def row_maker(sensor: SensorSpec) -> See:
    """What makes the row of the i-th reading of a batch, from a generator of its own.

    Raises:
        PlantError: simulators do not show what this sensor has encoded.
    """
    raw = sensor.perceive
    places = [channel.size for channel in sensor.channels.values()] == [2]
    if isinstance(raw, JpegInput) and places and raw.size == (PIXELS, PIXELS):
        return _picture
    if isinstance(raw, PointsInput) and places:
        return lambda batch, i, rng: _cloud(raw, batch, i, rng, raw.size[0])
    if isinstance(raw, VoxelsInput) and places:
        return lambda batch, i, rng: occupancy(
            _cloud(raw, batch, i, rng, RETURNS), raw.low, raw.high, raw.size
        )
    if isinstance(raw, EntitiesInput) and set(raw.read) <= set(SEEN):
        return lambda batch, i, rng: _others(raw, batch, i)
    raise PlantError(
        f"sensor {sensor.name}: simulators show one place of size 2, as jpeg of {PIXELS} × "
        f"{PIXELS} pixels, points or voxels, and entities with {', '.join(SEEN)}"
    )


def _picture(batch: SensorBatch, i: int, rng: np.random.Generator) -> Row:
    """[H, W, 3] uint8, as JPEG leaves it."""
    light = None if batch.light is None else batch.light[i : i + 1]
    return unjpeg(jpeg(pictures(_place(batch, i), rng, light)[0]))


def _cloud(
    raw: PointsInput | VoxelsInput, batch: SensorBatch, i: int, rng: np.random.Generator, count: int
) -> npt.NDArray[np.float32]:
    """[count, 3] metres, in the precision of the messages."""
    (cloud,), packed = clouds(_place(batch, i), rng, count), packed_type(raw.fields)
    axes = [cloud[:, k].astype(packed[name]).astype(np.float32) for k, name in enumerate("xyz")]
    return np.stack(axes, axis=1)


def _others(raw: EntitiesInput, batch: SensorBatch, i: int) -> Row:
    """[most, fields + 1] float32; the last column is 1 where there is one."""
    if batch.crowd is None:
        raise PlantError(f"sensor {batch.sensor}: this simulator shows no other entities")
    seen = batch.crowd[i]
    there = seen[~np.isnan(seen).any(-1)][: raw.shape[0]]
    row = np.zeros(raw.shape, np.float32)
    row[: len(there), :-1] = there[:, [SEEN.index(name) for name in raw.read]]
    row[: len(there), -1] = 1.0
    return row


def _place(batch: SensorBatch, i: int) -> Floats:
    """[1, 2] what is to be told by the row."""
    (value,) = batch.values.values()
    return value[i : i + 1]
