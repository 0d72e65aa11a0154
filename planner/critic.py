"""The learned safety critic: how likely what is proposed breaks a constraint, as far as it looks.

The graph `cost` of a bundle was trained on logs, on whether a constraint of the spec was broken at
a tick (`models.costs`; the safety critics of Srinivasan et al. 2020 and Thananjeyan et al. 2021,
Recovery RL, in a world model). The gate takes it for one more reason to refuse, never to allow.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from planner.draft import Plan
from planner.session import Bundle, Posterior
from schemas.codes import Mode
from schemas.frames import Frame
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]


def risk(
    spec: SystemSpec, bundle: Bundle, posterior: Posterior, frame: Frame, made: Plan
) -> F64 | None:
    """[E] the largest probability over ticks and members, without noise; None without a critic.

    There is none where the spec asks for none, the bundle has none, or it was trained on other
    constraints. Plans are looked at as they go on, the actor's action as if it stayed.
    """
    critic = spec.gate.critic
    if critic is None or not bundle.foresees or not bundle.objective_matches(spec):
        return None
    entities, members = len(frame.entities), bundle.members
    planned = (made.mode == Mode.PLAN) | (made.mode == Mode.FOLLOW)
    held = np.repeat(made.proposal[:, None], critic.ticks, axis=1)  # [E,T,A]
    ahead = np.where(planned[:, None, None], made.memory.ahead(frame.tick, critic.ticks), held)
    ahead[:, 0] = made.proposal
    finite = np.where(np.isfinite(ahead), ahead, spec.action_safe).astype(np.float32)
    wide = (critic.ticks, members, entities)
    actions = np.broadcast_to(finite.transpose(1, 0, 2)[:, None], (*wide, finite.shape[2]))
    found = bundle.cost(
        np.repeat(posterior.h[None], members, axis=0),
        np.repeat(posterior.mean[None], members, axis=0),
        np.ascontiguousarray(actions),
        np.zeros((*wide, bundle.latent), np.float32),
    )
    return np.asarray(found.max(axis=(0, 1)), dtype=np.float64)
