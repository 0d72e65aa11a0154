"""Robots in each other's way: how they push each other, and what each sees of the others."""

from __future__ import annotations

from typing import Final

import numpy as np

from infra.plants.base import Floats, Ints

SEEN: Final = ("x", "y", "vx", "vy")
"""What is seen of another robot: where it is and how it moves, from here, m and m/s."""


def pushes(position: Floats, strength: float, decay: float) -> Floats:
    """[E, 2] what all others together push each robot with, m/s².

    Each pushes straight away from itself, with `strength` where it is and exp(-distance / `decay`)
    of that elsewhere (Helbing and Molnár 1995: social forces). Two at one place do not.

    Args:
        position: [E, 2] m.
        strength: m/s².
        decay: m.
    """
    away = position[:, None] - position[None]
    distance = np.hypot(away[..., 0], away[..., 1])
    force = strength * np.exp(-distance / decay) / np.where(distance > 0, distance, 1.0)
    return np.asarray((away * force[..., None]).sum(1))


def neighbours(position: Floats, velocity: Floats, sight: float, most: int) -> Floats:
    """[E, most, 4] others within `sight` metres as `SEEN` has them, nearest first; NaN: none.

    Args:
        position: [E, 2] m.
        velocity: [E, 2] m/s.
    """
    count = len(position)
    away = position[None] - position[:, None]
    moving = velocity[None] - velocity[:, None]
    distance = np.hypot(away[..., 0], away[..., 1])
    distance[np.diag_indices(count)] = np.inf
    order: Ints = np.argsort(distance, axis=1, kind="stable")[:, :most]
    near = np.take_along_axis(distance, order, 1) <= sight
    seen = np.take_along_axis(np.concatenate([away, moving], -1), order[..., None], 1)
    found = np.full((count, most, len(SEEN)), np.nan)
    found[:, : order.shape[1]] = np.where(near[..., None], seen, np.nan)
    return found
