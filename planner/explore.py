"""Deliberate variation of the fallback's actions, so that a first model sees causes and not habits.

A log made under a fixed rule confounds what the rule saw with what its action did. Piecewise
constant shifts, independent of the state, break that (Ljung, System Identification, 1999, ch. 13).
"""

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from planner.noise import normal
from schemas.codes import Mode
from schemas.frames import Frame
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]
STREAM = 0xE0  # of the noise; planners number theirs by tier and iteration


def reach(spec: SystemSpec) -> F64:
    """[A] half of what one tick may change, in the actions' units: the unit of exploration."""
    width = spec.action_high - spec.action_low
    return (np.minimum(spec.rate_up, width) + np.minimum(spec.rate_down, width)) / 4.0


def explore(spec: SystemSpec, frame: Frame, proposal: F64, mode: npt.NDArray[np.uint8]) -> F64:
    """[E, A] proposals, those of the fallback shifted in some stretches of time.

    A pure function of its arguments: a stretch is `spec.explore.hold` ticks, its shift is keyed by
    (`spec.explore.seed`, cohort, stretch). The gate checks what comes out as it checks everything.
    """
    if spec.explore is None:
        return proposal
    count, columns = proposal.shape
    stretch = frame.tick // spec.explore.hold
    draws = normal(spec.explore.seed, frame.cohort, stretch, STREAM, (count, columns + 1)).astype(
        np.float64
    )
    # A standard normal exceeds the quantile 1 - share with probability share.
    limit = NormalDist().inv_cdf(1.0 - spec.explore.share) if spec.explore.share < 1 else -np.inf
    chosen = draws[:, 0] > limit
    shift = draws[:, 1:] * spec.explore.spread * reach(spec)
    shifted = np.clip(proposal + shift, spec.action_low, spec.action_high)
    return np.where((chosen & (mode == Mode.FALLBACK))[:, None], shifted, proposal)
