"""The cross-entropy method: the elites are all worth the same.

De Boer et al. 2005 (the method); Chua et al. 2018, PETS (in model-based control); Pinneri et al.
2020, iCEM (coloured noise, kept elites, shifted warm start).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from planner.search import Search
from planner.sequences import coloured

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


class Icem(Search):
    """With noise as smooth as the tier has it, and elites that compete again."""

    kept = 0.3

    @staticmethod
    def _centre(elites: F64, score: F64) -> tuple[F64, F64]:
        return elites.mean(axis=1), elites.std(axis=1)


class Cem(Icem):
    """As in PETS: white noise whatever the tier has, and only the best one competes again."""

    kept = 0.0

    def _smooth(self, white: F32) -> F32:
        return coloured(white, 0.0)
