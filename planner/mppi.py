"""Model predictive path integral control: sequences count by how much better they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from planner.search import Search

F64 = npt.NDArray[np.float64]

SHARPNESS = 1.5
"""The last elite counts exp(-SHARPNESS) of the best; 3 and 6 ended farther from known optima."""


class Mppi(Search):
    """Weights exp(score / λ) of Williams et al. 2017, over the elites as in TD-MPC (Hansen 2022).

    λ is not in units of reward, which differ between systems by orders of magnitude: it is set anew
    at each iteration, so that the last elite counts exp(-SHARPNESS). The spread follows the
    weights.
    """

    kept = 0.0

    @staticmethod
    def _weights(score: F64) -> F64:
        finite = np.isfinite(score)
        known = np.where(finite, score, 0.0)
        behind = np.where(finite, known[:, :1] - known, 0.0)
        last = behind.max(axis=1, keepdims=True)
        sharp = np.divide(SHARPNESS, last, out=np.zeros_like(last), where=last > 0)
        weights = np.where(finite, np.exp(-sharp * behind), 0.0)
        weights[:, 0] = 1.0  # also where nothing is finite: the first is as good as any
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))
