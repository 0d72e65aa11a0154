"""The learned policy as it stands in the loop: an answer at once, where it is trusted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from planner.session import Bundle, Posterior
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]


def actor(spec: SystemSpec, bundle: Bundle, posterior: Posterior) -> F64 | None:
    """[E,A] the actor's mean action in range, or None where no actor is trusted with this spec.

    The actor sees the mean of the posterior, as it did in training. Values that are not finite are
    left for the gate to find.
    """
    if not bundle.trusted_actor(spec):
        return None
    action, _ = bundle.act(posterior.h, posterior.mean)
    return np.clip(action.astype(np.float64), spec.action_low, spec.action_high)
