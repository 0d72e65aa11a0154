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
    def _centre(elites: F64, score: F64) -> tuple[F64, F64]:
        counts = weights(score)
        mean = np.einsum("ek,ekta->eta", counts, elites)
        apart = np.einsum("ek,ekta->eta", counts, np.square(elites - mean[:, None]))
        return mean, np.sqrt(apart)


def weights(score: F64) -> F64:
    """[E,K] what each of the elites counts, adding up to 1, by `score` [E,K], best first."""
    finite = np.isfinite(score)
    known = np.where(finite, score, 0.0)
    behind = np.where(finite, known[:, :1] - known, 0.0)
    last = behind.max(axis=1, keepdims=True)
    sharp = np.divide(SHARPNESS, last, out=np.zeros_like(last), where=last > 0)
    counts = np.where(finite, np.exp(-sharp * behind), 0.0)
    counts[:, 0] = 1.0  # also where nothing is finite: the first is as good as any
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))
