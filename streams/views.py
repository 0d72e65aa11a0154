"""What a simulator shows instead of readings where a spec has them encoded: pictures and points.

Its library is loaded where a spec names a sensor of that kind.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from infra.plants.base import Floats
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
    from infra.plants.views import clouds

    assert sensor.perceive is not None
    count = sensor.perceive.shape[0]
    return lambda places, rng: [cloud.tobytes() for cloud in clouds(places, rng, count)]


_DRAWN: Final[Mapping[str, Callable[[SensorSpec], Draw]]] = {"jpeg": _pictures, "points": _clouds}


def view_writer(sensor: SensorSpec) -> Writer:
    """What a simulator writes of a sensor with `perceive`. Raises `ValueError` where it cannot."""
    kind = "" if sensor.perceive is None else sensor.perceive.kind
    if kind not in _DRAWN or [c.size for c in sensor.channels.values()] != [2]:
        raise ValueError(
            f"sensor {sensor.name}: simulators show one place of size 2, as jpeg or points"
        )
    return _Views(_DRAWN[kind](sensor))
