"""The learned policy as it stands in the loop: an answer at once, where it is trusted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from planner.session import Model, Posterior
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]


def actor(spec: SystemSpec, bundle: Model, posterior: Posterior) -> F64 | None:
    """[E,A] the actor's mean action in range, or None where no actor is trusted with this spec.

    The actor sees the mean of the posterior, as it did in training. Values that are not finite are
    left for the gate to find.
    """
    if not bundle.trusted_actor(spec):
        return None
    action = bundle.act(posterior.h, posterior.mean)
    return np.clip(action.astype(np.float64), spec.action_low, spec.action_high)


def driven(spec: SystemSpec, bundle: Model, posterior: Posterior, first: F64, steps: int) -> F64:
    """[E,steps,A] `first` [E,A] and what the actor does after it, as imagined without noise.

    Row e of the posterior is under member e mod M, whoever else is there.
    """
    rows, members = len(first), bundle.members
    if steps == 1:
        return first[:, None]
    dealt = np.resize(np.arange(rows), (-(-rows // members), members)).T  # [M,N]; some twice
    noise = np.zeros((steps - 1, *dealt.shape, bundle.latent), np.float32)
    begun = np.where(np.isfinite(first), first, spec.action_safe).astype(np.float32)
    after = bundle.drive(posterior.h[dealt], posterior.mean[dealt], begun[dealt], noise)
    found = after.transpose(2, 1, 0, 3).reshape(-1, steps - 1, first.shape[1])[:rows]
    return np.concatenate([first[:, None], found.astype(np.float64)], axis=1)
