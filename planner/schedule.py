"""Who is planned next: entities ranked by need, in groups between which the clock is looked at.

Need adds up five terms, each about 1 where it matters: how old the plan is in horizons, the
innovation in units of its calibrated band, the disagreement of the last plan in units of the gate's
limit, whether the gate changed the last proposal, and the stakes relative to the cohort's largest.
Age grows without bound, so nobody is starved.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from planner.memory import PlannerMemory
from schemas.frames import Frame
from schemas.spec_parts import Tier
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

STEPS_PER_CALL = {"cpu": 8_000, "cuda": 80_000, "torch": 80_000}
"""Most steps of imagination in one session call, over all its entities, by provider.

A call costs some 2 ms before its first entity and half a millisecond for each, so few large calls
are cheaper than many small ones; a budget with a clock takes what fits. On a GPU a call takes about
10 ms whatever its size, up to here and beyond.
"""
CAP = 4.0
"""Largest single term; the first plan of an entity counts this for each."""


def plannable(frame: Frame, believed: Mask) -> Mask:
    """[E] who may be planned: believed in, and not in an operator's hands."""
    control = frame.header.control
    free = [
        not (control.holds_entity(name) or control.override_of(name)) for name in frame.entities
    ]
    return np.asarray(believed & np.array(free, dtype=bool))


def need(spec: SystemSpec, memory: PlannerMemory, innovation: F64, band: float, tick: int) -> F64:
    """[E] how much each entity needs a new plan; see the top of this file.

    Args:
        spec: horizons, and the gate's limit on uncertainty.
        memory: the last plans.
        innovation: [E] of this tick's observation; NaN counts as 0.
        band: the innovation that is exceeded once in a thousand.
        tick: of the frame.
    """
    horizon = np.maximum(memory.length, 1)
    age = memory.age(tick) / horizon
    limit = spec.gate.max_uncertainty or 1.0
    largest = memory.stakes.max(initial=0.0) or 1.0
    surprise = (
        np.nan_to_num(innovation.astype(np.float64)) / band if band > 0 else np.zeros(len(age))
    )
    terms = [surprise, memory.uncertainty / limit, memory.gated, memory.stakes / largest]
    capped = sum(np.clip(np.nan_to_num(term), 0.0, CAP) for term in terms)
    return np.asarray(np.minimum(age, 1e6) + capped)


def ranked(urgency: F64, allowed: Mask) -> Index:
    """Rows that are `allowed`, the most urgent first, ties in the frame's order."""
    order = np.argsort(-urgency, kind="stable")
    return order[allowed[order]]


def most(tier: Tier, provider: str = "cpu") -> int:
    """Most entities that may share a session call on `cpu` or `cuda`."""
    return max(1, STEPS_PER_CALL[provider] // (tier.candidates * tier.horizon))


def tiers(spec: SystemSpec, deepest: str | None) -> list[Tier]:
    """The spec's tiers, shallow to deep, up to `deepest` where an operator named one."""
    names = list(spec.budget.tiers)
    last = names.index(deepest) + 1 if deepest in names else len(names)
    return [spec.budget.tiers[name] for name in names[:last]]
