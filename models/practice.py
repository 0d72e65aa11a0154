"""Acting while learning, and being judged: a planner, an actor, or chance in a plant's world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from infra.plants.base import Plant
from models.evaluation.world import Record, World, first_executable, watch
from planner.budget import FreeBudget
from planner.memory import PlannerMemory
from planner.plan import plan
from planner.session import Model
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]
WANDERS = 5.0
"""Ticks over which what chance does forgets what it did."""
Who = Literal["both", "planner", "actor"]
"""Both: the planner with actor and value, as it runs; planner: without them; actor: no planning."""


class Planned:
    """What the planner does about a world, tick after tick, with what it remembers.

    Args:
        noise: `[T, E, A]` added to what it does in the ticks to come, raw units.
    """

    def __init__(
        self,
        spec: SystemSpec,
        model: Model,
        entities: int,
        seed: int,
        *,
        who: Who = "both",
        noise: F64 | None = None,
    ) -> None:
        self._spec, self._model, self._seed = spec, model, seed
        self._budget = FreeBudget(0 if who == "actor" else None)
        self._alone = who == "planner"
        self._memory = PlannerMemory.fresh(spec, entities)
        self._noise, self._tick = noise, 0

    def __call__(self, world: World) -> F64:
        """`[E, A]`; call it once per tick."""
        memory = self._memory.forget_plans(world.begun)
        made = plan(
            self._spec,
            self._model,
            world.posterior,
            world.frame,
            memory,
            self._budget,
            self._seed,
            alone=self._alone,
        )
        self._memory = made.memory
        action = made.proposal
        if self._noise is not None:
            action = action + self._noise[self._tick]
        self._tick += 1
        return first_executable(self._spec, world, action)


class Chance:
    """Wanders over the whole range of the actions, whatever is seen."""

    def __init__(self, spec: SystemSpec, entities: int, ticks: int, seed: int) -> None:
        self._spec = spec
        middle = (spec.action_low + spec.action_high) / 2
        self._actions = middle + wandering(spec, entities, ticks, seed)
        self._tick = 0

    def __call__(self, world: World) -> F64:
        """`[E, A]`; call it once per tick."""
        action = self._actions[self._tick]
        self._tick += 1
        return first_executable(self._spec, world, action)


def wandering(spec: SystemSpec, entities: int, ticks: int, seed: int) -> F64:
    """`[T, E, A]` an Ornstein-Uhlenbeck process whose standard deviation is half the range.

    Slower noise, such as pink, pushes a pendulum one way through a whole short episode, and then
    nothing else was seen; white noise hardly moves it at all.
    """
    rng = np.random.default_rng([seed, 23])
    white = rng.standard_normal((ticks, entities, len(spec.action_columns)))
    keep = np.exp(-1.0 / WANDERS)
    out = np.empty_like(white)
    value = white[0]
    for t in range(ticks):
        value = value if t == 0 else keep * value + np.sqrt(1 - keep**2) * white[t]
        out[t] = value
    return np.asarray(out * (spec.action_high - spec.action_low) / 2)


@dataclass(frozen=True)
class Returns:
    """Undiscounted returns `[E]` of one episode each, from fixed resets."""

    each: F64

    def as_dict(self) -> dict[str, Any]:
        """JSON."""
        figures = {"mean": self.each.mean(), "min": self.each.min(), "max": self.each.max()}
        rounded = {name: round(float(value), 2) for name, value in figures.items()}
        return {**rounded, "std": round(float(self.each.std()), 2), "episodes": len(self.each)}


def judge(
    world: World, policy: Callable[[World], F64], ticks: int, seed: int
) -> tuple[Returns, Record]:
    """The return of each entity's first episode after a reset with `seed`, of at most `ticks`."""
    world.reset(seed)
    record = watch(world, policy, ticks)
    over = np.cumsum(record.begun[1:], axis=0) > 0  # a new episode has begun
    return Returns(np.where(over, 0.0, record.reward).sum(axis=0)), record


def random_return(spec: SystemSpec, plant: Plant, model: Model, ticks: int, seed: int) -> Returns:
    """What chance reaches from the same resets."""
    world = World(spec, plant, model)
    return judge(world, Chance(spec, world.entities, ticks, seed), ticks, seed)[0]
