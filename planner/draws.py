"""The noise of one budget tier on one frame, drawn once and shared by all groups of entities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from planner.noise import normal
from schemas.spec_parts import Tier

F32 = npt.NDArray[np.float32]
Key = tuple[int, int, int]
"""Seed, cohort, tick."""

COMPANIONS = 32
"""Candidates that share a noise sequence: enough for a median to compare them with."""
CLOSING = 255
"""Number of the tier and of the iteration in noise streams where there is none."""


class Draws:
    """What `planner.search` draws from for one tier.

    Args:
        key: seed, cohort, tick.
        number: of the tier, below 255.
        tier: its candidates and horizon.
        columns: A, flat action columns.
        latent: Z, size of the transition noise.
    """

    def __init__(self, key: Key, number: int, tier: Tier, columns: int, latent: int) -> None:
        self._key, self._number = key, number
        self._shape = (tier.horizon, tier.candidates, columns)
        self._latent = latent
        self._actions: dict[int, F32] = {}
        self._transitions: F32 | None = None

    def actions(self, iteration: int) -> F32:
        """[T,C,A] standard normal."""
        if iteration not in self._actions:
            stream = (self._number << 8) + iteration
            self._actions[iteration] = normal(*self._key, stream, self._shape)
        return self._actions[iteration]

    def transitions(self) -> F32:
        """[T+1,D,Z] standard normal in pairs of opposite sign; D is even, at least 2."""
        if self._transitions is None:
            steps, candidates, _ = self._shape
            sequences = 2 * max(1, candidates // (2 * COMPANIONS))
            shape = (steps + 1, sequences, self._latent)
            self._transitions = pairs(self._key, self._number, shape)
        return self._transitions


def pairs(key: Key, number: int, shape: tuple[int, int, int]) -> F32:
    """[T+1,D,Z] standard normal; along D (even) pairs of opposite sign, so that their mean is 0."""
    steps, draws, latent = shape
    half = normal(*key, (number << 8) + CLOSING, (steps, draws // 2, latent))
    return np.stack([half, -half], axis=2).reshape(shape)
