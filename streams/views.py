"""What a simulator shows instead of readings where a spec has them encoded.

Pictures and points are drawn of the place that they shall tell; entities are those that are there.

Its library is loaded where a spec names a sensor of that kind.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from infra.plants.base import Floats, SensorBatch
from infra.plants.crowd import SEEN
from schemas.formats import packed_type
from schemas.perceive import EntitiesInput, PointsInput, VoxelsInput
from schemas.spec_parts import SensorSpec
from streams.codecs import Writer

Draw = Callable[[Floats, np.random.Generator], list[bytes]]


class _Views:
    """Messages of what is seen at places [n, 2]."""

    def __init__(self, draw: Draw) -> None:
        self._draw, self._rng = draw, np.random.default_rng(0)

    def encode(self, fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[bytes]:
        """A message per row: its time, which stands in a header, and the place."""
        del fields
        places = np.array([place for _, place in rows], dtype=np.float64)
        return self._draw(places, self._rng)


def _pictures(sensor: SensorSpec) -> Draw:
    from infra.plants.views import PIXELS, jpeg, pictures

    if sensor.perceive is None or sensor.perceive.shape[:2] != (PIXELS, PIXELS):
        raise ValueError(f"sensor {sensor.name}: simulators show {PIXELS} × {PIXELS} pixels")
    return lambda places, rng: [jpeg(picture) for picture in pictures(places, rng)]


def _clouds(sensor: SensorSpec) -> Draw:
    from infra.plants.views import RETURNS, clouds

    raw = sensor.perceive
    assert isinstance(raw, PointsInput | VoxelsInput)
    dtype = packed_type(raw.fields)
    count = raw.size[0] if isinstance(raw, PointsInput) else RETURNS
    return lambda places, rng: [
        _packed(cloud, "xyz", dtype) for cloud in clouds(places, rng, count)
    ]


_DRAWN: Final[Mapping[str, Callable[[SensorSpec], Draw]]] = {
    "jpeg": _pictures,
    "points": _clouds,
    "voxels": _clouds,
}


def view_writer(sensor: SensorSpec) -> Writer | None:
    """What a simulator writes of a sensor with `perceive`; None: what it has in its batches.

    Raises `ValueError` where it cannot.
    """
    raw = sensor.perceive
    if isinstance(raw, EntitiesInput) and set(raw.read) <= set(SEEN):
        return None
    kind = "" if raw is None else raw.kind
    if kind not in _DRAWN or [c.size for c in sensor.channels.values()] != [2]:
        raise ValueError(
            f"sensor {sensor.name}: simulators show one place of size 2, as jpeg, points or "
            f"voxels, and entities with {', '.join(SEEN)}"
        )
    return _Views(_DRAWN[kind](sensor))


def entity_messages(sensor: SensorSpec, batch: SensorBatch) -> list[bytes]:
    """A message per reading: the entities that are seen. Raises `ValueError`: none are shown."""
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
