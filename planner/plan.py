"""Plans for one frame: an answer for everyone first, then better ones as far as the budget goes.

Order of events: the fallback's and the actor's answers; the ranking by need; tier by tier, shallow
to deep, group by group, iterations of the planner until the budget says no; for the rest their
last plan while it is young and the world does what it expected, else the actor, else the
fallback; at the end one session call that says what each proposal is expected to lead to.

A plan is a pure function of its arguments: no clock but the budget, no random state but `seed`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from planner import schedule
from planner.budget import Budget, Sizing, Spent
from planner.draft import Draft, Plan
from planner.draws import CLOSING, Draws, pairs
from planner.imagine import Imagination
from planner.memory import PlannerMemory
from planner.planners import PLANNERS, Planners
from planner.policy import actor, driven
from planner.session import Model, Posterior
from schemas.frames import Frame
from schemas.spec_parts import Tier
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]


AHEAD = 128
"""Added to the numbers of tiers in the noise streams of planning ahead."""


def plan(
    spec: SystemSpec,
    bundle: Model | None,
    posterior: Posterior | None,
    frame: Frame,
    memory: PlannerMemory,
    budget: Budget,
    seed: int,
    *,
    believed: Mask | None = None,
    alone: bool = False,
    planners: Planners = PLANNERS,
) -> Plan:
    """Proposals for the E entities of `frame`; see `Plan`.

    Args:
        spec: the system.
        bundle: the model, or None: then the fallback answers for everyone.
        posterior: beliefs after this frame, rows in its order; None as with `bundle`.
        frame: observations, applied actions, operators' control.
        memory: of the last tick, carried to this frame's entities.
        budget: asked before every iteration of every group.
        seed: of the noise, with the frame's cohort and tick.
        believed: [E] False where a belief was rebuilt at this tick and is not planned on.
        alone: without actor and value, to learn what these are worth.
        planners: begin the searches; who wants to see them gives others (`planner.watch`).
    """
    draft = Draft.begin(spec, frame, memory)
    if bundle is None or posterior is None or not len(frame.entities):
        return draft.plan()
    trusted = _trusted(posterior, believed)
    draft.memory = draft.memory.forget_plans(~trusted)
    draft.actor = None if alone else actor(spec, bundle, posterior)
    imagination = Imagination(spec, bundle, posterior, frame.tick, closes=not alone)
    key = (seed, frame.cohort, frame.tick)
    innovation = posterior.innovation.astype(np.float64)
    _improve(draft, imagination, bundle, posterior, trusted, budget, key, planners)
    calm = ~(innovation > bundle.innovation_band)
    draft.choose(trusted, calm)
    draft.doubt(imagination, bundle.latent)
    return draft.plan()


def expect(
    spec: SystemSpec, bundle: Model, posterior: Posterior, frame: Frame, action: F64, seed: int
) -> tuple[F32, F32]:
    """The next observation [E,O] under `action` [E,A], and its spread over members and noise.

    NaN for entities that were given no finite action.
    """
    finite = np.asarray(np.isfinite(action).all(axis=1))
    imagination = Imagination(spec, bundle, posterior, frame.tick)
    noise = pairs((seed, frame.cohort, frame.tick), CLOSING, (2, 2, bundle.latent))
    channels = imagination.next(np.where(finite[:, None], action, spec.action_safe), noise)
    # NumPy adds up rows that lie one after the other many times as fast.
    futures = channels.transpose(0, 2, 1, 3).reshape(-1, len(action), channels.shape[-1])
    mean, spread = futures.mean(axis=0, dtype=np.float64), futures.std(axis=0)
    observed = len(spec.observed_columns)
    if observed < len(spec.columns):
        mean[:, observed:], spread[:, observed:] = imagination.known(1), 0.0
    if not finite.all():
        mean[~finite], spread[~finite] = np.nan, np.nan
    return mean.astype(np.float32), spread.astype(np.float32)


def plan_ahead(
    spec: SystemSpec,
    bundle: Model,
    posterior: Posterior,
    frame: Frame,
    made: Plan,
    issued: F64,
    budget: Budget,
    seed: int,
    *,
    believed: Mask | None = None,
    planners: Planners = PLANNERS,
) -> tuple[PlannerMemory, Spent]:
    """Plans for the ticks after this one, when its actions `issued` [E,A] are out.

    Nobody waits for it: the next frame finds young plans to follow, and answers at once (as the
    preparation phase of Diehl et al. 2005, the real-time iteration scheme). Other arguments as for
    `plan`; `made` is its answer, with the gate's verdict in the memory. Entities that were given
    no finite action are left out.
    """
    draft = Draft(spec, frame, made.memory, made.fallback)
    draft.issued = issued
    draft.actor = actor(spec, bundle, posterior)
    imagination = Imagination(spec, bundle, posterior, frame.tick)
    trusted = _trusted(posterior, believed) & np.isfinite(issued).all(axis=1)
    key = (seed, frame.cohort, frame.tick)
    _improve(draft, imagination, bundle, posterior, trusted, budget, key, planners)
    return draft.memory, draft.spent


def _trusted(posterior: Posterior, believed: Mask | None) -> Mask:
    sound = np.isfinite(posterior.h).all(axis=1) & np.isfinite(posterior.mean).all(axis=1)
    return np.asarray(sound if believed is None else sound & believed)


def _improve(
    draft: Draft,
    imagination: Imagination,
    bundle: Model,
    posterior: Posterior,
    believed: Mask,
    budget: Budget,
    key: tuple[int, int, int],
    planners: Planners,
) -> None:
    """Spends the budget: tier by tier, group by group, in the order of need."""
    if not budget.some():
        return
    spec, frame = draft.spec, draft.frame
    first = draft.actor if draft.issued is None else draft.issued
    if draft.actor is not None and first is not None and bundle.drives:
        longest = max(tier.horizon for tier in spec.budget.tiers.values())
        draft.driven = driven(spec, bundle, posterior, first, longest)
    innovation = posterior.innovation.astype(np.float64)
    urgency = schedule.need(spec, draft.memory, innovation, bundle.innovation_band, frame.tick)
    order = schedule.ranked(urgency, schedule.plannable(frame, believed))
    for number, tier in enumerate(schedule.tiers(spec, frame.header.control.budget)):
        stream = number + (0 if draft.issued is None else AHEAD)
        draws = Draws(key, stream, tier, len(spec.action_columns), bundle.latent)
        taken = 0
        while taken < len(order):
            group = len(draft.spent.tiers)
            rows = order[taken : taken + _size(budget, group, tier, bundle.provider)]
            work = len(rows) * tier.candidates * tier.horizon
            if not budget.more(group, 0, work):
                return
            start = draft.start(rows, tier.horizon)
            planner = planners[tier.planner](spec, imagination, tier, start, draws)
            planner.improve()
            done = 1
            while done < tier.iterations and budget.more(group, done, work):
                planner.improve()
                done += 1
            draft.take(rows, planner.act_now(), number, done)
            taken += len(rows)


def _size(budget: Budget, group: int, tier: Tier, provider: str) -> int:
    """Entities that share the next session call."""
    most = schedule.most(tier, provider)
    if not isinstance(budget, Sizing):
        return most
    return budget.size(group, tier.candidates * tier.horizon * tier.iterations, most)
