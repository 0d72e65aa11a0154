"""What a planner remembers from tick to tick, as columns: plans to follow, and who needs one next.

The memory belongs to one worker and is never compared with another's. It is immutable: each
tick makes a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from planner import fallback, latch
from planner.gate import reachable
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]
NEAR = 1e-6
"""Share of an actuator's range by which a report may differ from what was issued."""
NEVER = np.iinfo(np.int64).min
"""`planned_at` of an entity without a plan."""


@dataclass(frozen=True)
class PlannerMemory:
    """Rows of E entities in the frame's order; T is the longest horizon of the spec's tiers.

    sequence    [E,T,A] float64: the last plan, from tick `planned_at` on; its last action repeats
    planned_at  [E] int64 tick of the last plan, `NEVER` without one
    length      [E] int32 horizon of that plan
    uncertainty [E] float64 of that plan
    stakes      [E] float64 spread of returns in that plan's last population
    gated       [E] bool: the gate changed the last proposal
    fallback    [E,W] float64 state of the fallback controller
    applied     [E,A] float64 value in force at this tick;  before [E,A] at the one before; NaN
                where unknown
    latch       [E,4] int64 state of `planner.latch`
    """

    sequence: F64
    planned_at: npt.NDArray[np.int64]
    length: npt.NDArray[np.int32]
    uncertainty: F64
    stakes: F64
    gated: npt.NDArray[np.bool_]
    fallback: F64
    applied: F64
    before: F64
    latch: npt.NDArray[np.int64]

    @classmethod
    def fresh(cls, spec: SystemSpec, count: int) -> PlannerMemory:
        """The memory of `count` entities that nothing is known of."""
        horizon = max(tier.horizon for tier in spec.budget.tiers.values())
        return cls(
            sequence=np.tile(spec.action_safe, (count, horizon, 1)),
            planned_at=np.full(count, NEVER, dtype=np.int64),
            length=np.zeros(count, dtype=np.int32),
            uncertainty=np.zeros(count),
            stakes=np.zeros(count),
            gated=np.zeros(count, dtype=bool),
            fallback=fallback.fresh(spec, count),
            applied=np.full((count, len(spec.action_columns)), np.nan),
            before=np.full((count, len(spec.action_columns)), np.nan),
            latch=latch.fresh(count),
        )

    def carry(self, spec: SystemSpec, index: npt.NDArray[np.integer]) -> PlannerMemory:
        """Rows gathered by `index`; -1 is a fresh row, for an entity that joined."""
        fresh = PlannerMemory.fresh(spec, 1)
        joined = {
            name: np.concatenate([array, fresh.arrays()[name]])[index]  # -1: the appended one
            for name, array in self.arrays().items()
        }
        return PlannerMemory.from_arrays(joined)

    def at(
        self,
        spec: SystemSpec,
        applied: F64,
        ours: npt.NDArray[np.bool_] | None = None,
        follows: bool = True,
    ) -> PlannerMemory:
        """At the next tick, with `applied` [E,A] in force; without `follows`, at a later one.

        What was not `ours` [E] (None: all were), or went farther than any action of ours could, was
        done by somebody else: it is no motion of ours to go on with, so it counts as at rest.
        """
        before = self.applied if follows else np.full_like(applied, np.nan)
        low, high = reachable(spec, before)
        slack = NEAR * (spec.action_high - spec.action_low)
        others = (applied < low - slack) | (applied > high + slack)
        if ours is not None:
            others |= ~ours[:, None]
        return replace(self, applied=applied, before=np.where(others, applied, before))

    def forget_plans(self, rows: npt.NDArray[np.bool_]) -> PlannerMemory:
        """Without the plans of `rows` [E], as after an anchor or a change of bundle."""
        if not rows.any():
            return self
        return replace(self, planned_at=np.where(rows, NEVER, self.planned_at))

    def without_plans(self, spec: SystemSpec) -> PlannerMemory:
        """As of entities that nothing is known of, but for what the gate and the fallback need."""
        fresh = PlannerMemory.fresh(spec, len(self.gated))
        kept = ("fallback", "applied", "before", "latch")
        return replace(fresh, **{name: getattr(self, name) for name in kept})

    def after_gate(
        self, changed: npt.NDArray[np.bool_], latched: npt.NDArray[np.int64]
    ) -> PlannerMemory:
        """With what the gate did at this tick: `changed` [E], and the state of its latch."""
        return replace(self, gated=np.asarray(changed, dtype=bool), latch=latched)

    def age(self, tick: int) -> npt.NDArray[np.int64]:
        """[E] ticks since the last plan; the largest integer without one."""
        never = self.planned_at == NEVER
        since = tick - np.where(never, tick, self.planned_at)
        return np.where(never, np.iinfo(np.int64).max, since)

    def ahead(self, tick: int, steps: int) -> F64:
        """[E,steps,A] the last plans from `tick` on; where they end, their last action repeats."""
        age = np.minimum(self.age(tick), self.sequence.shape[1])
        index = np.minimum(age[:, None] + np.arange(steps), np.maximum(self.length - 1, 0)[:, None])
        return np.take_along_axis(self.sequence, index[:, :, None], axis=1)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The columns by name, for storing."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> PlannerMemory:
        """The inverse of `arrays`; `KeyError` names a missing column.

        What older versions did not store is unknown.
        """
        unknown = np.full((len(arrays["sequence"]), arrays["sequence"].shape[2]), np.nan)
        newer = {"applied": unknown, "before": unknown, "latch": latch.fresh(len(unknown))}
        return cls(**{field.name: (newer | dict(arrays))[field.name] for field in fields(cls)})
