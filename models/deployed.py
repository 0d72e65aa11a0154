"""A bundle as it runs, in a plant: the planner, behind it the gate with the fallback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.plants.base import Plant
from models.evaluation.recalibrate import rounded
from models.evaluation.shifts import usual_options
from models.evaluation.simulated import COUNTS
from models.evaluation.violations import seen_violations
from models.evaluation.world import Record, World, first_executable
from models.practice import Returns, judge
from planner import latch
from planner.budget import FreeBudget
from planner.critic import risk
from planner.encoded import encoded_plant
from planner.gate import gate
from planner.memory import PlannerMemory
from planner.plan import plan
from planner.session import Bundle
from schemas.codes import Mode, Reason
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]
TICKS = 200
"""Of a run in a plant whose episodes never end."""


class Deployed:
    """What the running loop does about a world, tick after tick, given the time it needs.

    Attributes:
        decided, fallen: decisions so far, and those of them that the gate gave to the fallback.
    """

    def __init__(self, spec: SystemSpec, bundle: Bundle, entities: int, seed: int) -> None:
        self._spec, self._bundle, self._seed = spec, bundle, seed
        self._memory = PlannerMemory.fresh(spec, entities)
        self.decided = self.fallen = 0

    def __call__(self, world: World) -> F64:
        """`[E, A]`; call it once per tick."""
        spec, bundle, frame = self._spec, self._bundle, world.frame
        memory = self._memory.forget_plans(world.begun).at(spec, frame.applied)
        made = plan(spec, bundle, world.posterior, frame, memory, FreeBudget(), self._seed)
        latched = latch.rearmed(spec, frame, memory.latch)
        gated = gate(
            spec,
            made.proposal,
            made.fallback,
            frame,
            frame.applied,
            made.uncertainty,
            before=memory.before,
            mode=made.mode,
            risk=risk(spec, bundle, world.posterior, frame, made),
            latched=latch.closed(spec, latched),
            max_uncertainty=bundle.manifest.calibration.max_uncertainty,
        )
        verdict = gated.reasons & np.uint32(~(Reason.ROUNDED | Reason.LATCHED) & 0xFFFFFFFF)
        struck = latch.after(spec, frame, latched, gated.blamed)
        self._memory = made.memory.after_gate(verdict != 0, struck)
        self.decided += len(gated.mode)
        self.fallen += int((gated.mode == Mode.FALLBACK).sum())
        action = np.where(np.isfinite(gated.action), gated.action, spec.action_safe)
        return first_executable(spec, world, action)


@dataclass(frozen=True)
class Acted:
    """What came of a run.

    Attributes:
        returned: mean return of the entities, each until its episode ends.
        violations: ticks per 1,000 at which a constraint of the spec, hard or soft, did not hold;
            None where the spec has none.
        fallback: share of the decisions that the gate gave to the fallback.
        entities, ticks: how many, and of how long.
    """

    returned: float
    violations: float | None
    fallback: float
    entities: int
    ticks: int

    @classmethod
    def of(cls, spec: SystemSpec, returns: Returns, record: Record, fallback: float = 0.0) -> Acted:
        """Of a run that was watched."""
        ticks, entities = record.reward.shape
        mean = float(returns.each.mean())
        return cls(mean, violations(spec, record), fallback, entities, ticks)

    def as_dict(self) -> dict[str, Any]:
        """JSON for the manifest."""
        return {k: rounded(v) if isinstance(v, float) else v for k, v in vars(self).items()}


def acted(spec: SystemSpec, bundle: Bundle, plant: Plant, ticks: int, seed: int) -> Acted:
    """Runs `bundle` as it is deployed, from a reset with `seed`."""
    world = World(spec, plant, bundle)
    policy = Deployed(spec, bundle, world.entities, seed)
    returns, record = judge(world, policy, ticks, seed)
    return Acted.of(spec, returns, record, policy.fallen / policy.decided)


def stage(spec: SystemSpec, entities: int, ticks: int | None, seed: int) -> tuple[Plant, int]:
    """The plant of `spec` to act in, of at most `entities`, and for how many ticks.

    Args:
        ticks: None: an episode of the plant, or `TICKS` where these never end.

    Raises:
        PlantError: the spec names no plant.
    """
    options = usual_options(spec, {}, seed)
    if spec.plant is not None:
        name = COUNTS[spec.plant.kind]
        options[name] = min(entities, spec.plant.params.get(name, entities))
    plant = encoded_plant(spec, **options)
    length = ticks or getattr(plant, "episode", None) or TICKS
    return plant, length if plant.ticks is None else min(length, plant.ticks)


def violations(spec: SystemSpec, record: Record) -> float | None:
    """Ticks per 1,000 of a record at which a constraint did not hold, where that is known."""
    if not spec.constraints:
        return None
    found = seen_violations(spec, record.obs[1:], record.action)
    counted = np.isfinite(found) & ~record.begun[1:]  # no action led to the first row of an episode
    return 1000.0 * float(found[counted].mean()) if counted.any() else None
