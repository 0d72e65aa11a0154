"""What a simulator shows instead of readings where a spec has them encoded.

Pictures and points are drawn of the place that they shall tell; entities are those that are there.

Its library is loaded where a spec names a sensor of that kind.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from infra.plants.base import SensorBatch
from infra.plants.crowd import SEEN
from schemas.formats import packed_type
from schemas.perceive import EntitiesInput, PointsInput, VoxelsInput
from schemas.spec_parts import SensorSpec

Draw = Callable[[SensorBatch, np.random.Generator], list[bytes]]


class View:
    """What a simulator sends of a sensor with `perceive`; times stand in headers.

    Raises `ValueError` where simulators do not show such a thing.
    """

    def __init__(self, sensor: SensorSpec) -> None:
        self._draw, self._rng = _draw_of(sensor), np.random.default_rng(0)

    def messages(self, batch: SensorBatch) -> list[bytes]:
        """A message per reading. Raises `ValueError` where the batch has not what is shown."""
        return self._draw(batch, self._rng)


def _pictures(sensor: SensorSpec) -> Draw:
    from infra.plants.views import PIXELS, jpeg, pictures

    if sensor.perceive is None or sensor.perceive.shape[:2] != (PIXELS, PIXELS):
        raise ValueError(f"sensor {sensor.name}: simulators show {PIXELS} × {PIXELS} pixels")
    return lambda batch, rng: [
        jpeg(picture) for picture in pictures(_places(batch), rng, batch.light)
    ]


def _clouds(sensor: SensorSpec) -> Draw:
    from infra.plants.views import RETURNS, clouds

    raw = sensor.perceive
    assert isinstance(raw, PointsInput | VoxelsInput)
    dtype = packed_type(raw.fields)
    count = raw.size[0] if isinstance(raw, PointsInput) else RETURNS
    return lambda batch, rng: [
        _packed(cloud, "xyz", dtype) for cloud in clouds(_places(batch), rng, count)
    ]


def _places(batch: SensorBatch) -> npt.NDArray[np.float64]:
    """[n, 2] what is to be told."""
    (value,) = batch.values.values()
    return value


_DRAWN: Final[Mapping[str, Callable[[SensorSpec], Draw]]] = {
    "jpeg": _pictures,
    "points": _clouds,
    "voxels": _clouds,
}


def _draw_of(sensor: SensorSpec) -> Draw:
    raw = sensor.perceive
    if isinstance(raw, EntitiesInput) and set(raw.read) <= set(SEEN):
        return lambda batch, _: _entities(sensor, batch)
    kind = "" if raw is None else raw.kind
    if kind not in _DRAWN or [c.size for c in sensor.channels.values()] != [2]:
        raise ValueError(
            f"sensor {sensor.name}: simulators show one place of size 2, as jpeg, points or "
            f"voxels, and entities with {', '.join(SEEN)}"
        )
    return _DRAWN[kind](sensor)


def _entities(sensor: SensorSpec, batch: SensorBatch) -> list[bytes]:
    """A message per reading: the entities that are seen."""
    if not isinstance(sensor.perceive, EntitiesInput) or batch.crowd is None:
        raise ValueError(f"sensor {sensor.name}: this simulator shows no other entities")
    dtype = packed_type(sensor.perceive.fields)
    return [_packed(seen[~np.isnan(seen).any(-1)], SEEN, dtype) for seen in batch.crowd]


def _packed(rows: npt.NDArray[Any], names: Sequence[str], dtype: np.dtype[np.void]) -> bytes:
    """Rows [n, names] as packed structures; what else these hold is 0."""
    found = np.zeros(len(rows), dtype)
    for name, column in zip(names, rows.T, strict=True):
        if name in (dtype.names or ()):
            found[name] = column
    return found.tobytes()
