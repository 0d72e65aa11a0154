"""The best that can be done in Pendulum-v1, by value iteration on a grid: who demonstrates."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.evaluation.world import World

F64 = npt.NDArray[np.float64]
GRAVITY, LONG, MASS, DT = 10.0, 1.0, 1.0, 0.05
FASTEST, STRONGEST = 8.0, 2.0
"""Of the environment (`gymnasium.envs.classic_control.pendulum`): rad/s, and N m."""


def wrapped(angle: F64) -> F64:
    """Angles within [-π, π), rad."""
    return np.asarray((angle + math.pi) % (2 * math.pi) - math.pi)


def reward(angle: F64, speed: F64, torque: F64) -> F64:
    """What the environment pays for a torque (N m) in a state (rad, rad/s)."""
    return np.asarray(-(wrapped(angle) ** 2 + 0.1 * speed**2 + 0.001 * torque**2))


def advance(angle: F64, speed: F64, torque: F64) -> tuple[F64, F64]:
    """The environment's next state."""
    push = 3 * GRAVITY / (2 * LONG) * np.sin(angle) + 3.0 / (MASS * LONG**2) * torque
    faster = np.clip(speed + push * DT, -FASTEST, FASTEST)
    return angle + faster * DT, np.asarray(faster)


class Optimum:
    """A policy for a `World` of Pendulum-v1: the torque whose value is greatest.

    Args:
        angles, speeds, torques: sizes of the grid;  discount: per tick;  sweeps: over all states.
    """

    def __init__(
        self,
        angles: int = 121,
        speeds: int = 81,
        torques: int = 13,
        discount: float = 0.99,
        sweeps: int = 250,
    ) -> None:
        self._shape, self._discount = (angles, speeds), discount
        self._torques = np.linspace(-STRONGEST, STRONGEST, torques)
        angle = np.linspace(-math.pi, math.pi, angles, endpoint=False)
        speed = np.linspace(-FASTEST, FASTEST, speeds)
        grid = np.meshgrid(angle, speed, self._torques, indexing="ij")
        paid, (index, weight) = reward(*grid), self._corners(*advance(*grid))
        self.value: F64 = np.zeros(angles * speeds)
        for _ in range(sweeps):
            after = (self.value[index] * weight).sum(-1)
            self.value = (paid + discount * after).max(-1).ravel()

    def _corners(self, angle: F64, speed: F64) -> tuple[npt.NDArray[np.int64], F64]:
        """`[..., 4]` grid states around each state, and their weights (bilinear)."""
        angles, speeds = self._shape
        x = (wrapped(angle) + math.pi) / (2 * math.pi) * angles
        y = (speed + FASTEST) / (2 * FASTEST) * (speeds - 1)
        i, j = np.floor(x).astype(np.int64), np.minimum(y.astype(np.int64), speeds - 2)
        right, up = x - i, y - j
        index = [((i + a) % angles) * speeds + j + b for a in (0, 1) for b in (0, 1)]
        sides = (1 - right, right), (1 - up, up)
        weight = [sides[0][a] * sides[1][b] for a in (0, 1) for b in (0, 1)]
        return np.stack(index, -1), np.stack(weight, -1)

    def __call__(self, world: World) -> F64:
        """`[E, 1]` torques in the states that are shown."""
        cosine, sine, speed = np.nan_to_num(world.obs).T
        angle = np.arctan2(sine, cosine)
        wide = np.broadcast_arrays(angle[:, None], speed[:, None], self._torques)
        index, weight = self._corners(*advance(*wide))
        worth = reward(*wide) + self._discount * (self.value[index] * weight).sum(-1)
        return np.asarray(self._torques[worth.argmax(1)][:, None])
