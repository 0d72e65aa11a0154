"""The true dynamics in the place of a bundle's, and one search that runs on either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from infra.plants.base import Branching, PlantError
from models.evaluation.world import World, first_executable, terminated
from planner.draws import Draws
from planner.fallback import fallback, fresh
from planner.imagine import Imagination
from planner.planners import PLANNERS
from planner.search import Answer, Start
from planner.session import Dynamics, Futures, Posterior, next_by_imagine
from schemas.spec_parts import Tier
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Believe = Callable[[World], tuple[Dynamics, Posterior]]
CANDIDATES: Final = 64
ITERATIONS: Final = 3


class Truth:
    """The plant of a world as a `Dynamics` of one member: what it imagines is what would happen.

    Where the plant can leave its noise out of a branch, it is the mean of that. The belief of an
    entity is its number, see `posterior`; what is random in beliefs and transitions is ignored.
    """

    members = 1

    def __init__(self, world: World) -> None:
        self._world = world
        if not isinstance(world.plant, Branching):
            raise PlantError(f"{world.plant.version}: entities of this plant cannot be copied")
        self._plant: Branching = world.plant
        self.channel_scale: F32 = world.bundle.channel_scale
        self.discount = world.bundle.discount

    def trusted_actor(self, spec: SystemSpec) -> bool:
        """Never: there is no value of true states."""
        return False

    def posterior(self) -> Posterior:
        """The belief that stands for each of the E entities as it is now: its number."""
        count = self._world.entities
        nothing = np.zeros((count, 1), np.float32)
        number = np.arange(count, dtype=np.float32)[:, None]
        return Posterior(number, nothing, nothing, np.zeros(count, np.float32))

    def imagine(self, h: F32, z: F32, actions: F32, noise: F32) -> Futures:
        """Futures of entities `h` `[1, N, 1]` under `actions` `[T, 1, N, A]`."""
        index = np.rint(h[0, :, 0]).astype(np.int64)
        plant, seen = self._plant.branch(index), self._world.seen.copied(index)
        channels, alive, reward = [], [], []
        for action in actions[:, 0].astype(np.float64):
            sample = plant.step(action)
            seen.take(sample)
            channels.append(seen.values(sample.tick))
            alive.append(~terminated(sample))
            reward.append(sample.reward)
        stacked = (np.stack(part)[:, None].astype(np.float32) for part in (channels, alive, reward))
        first, second, third = stacked
        return Futures(first, second, np.zeros((1, len(index)), np.float32), third)

    def next(self, h: F32, z: F32, action: F32, noise: F32) -> F32:
        """The channels of `imagine` after one tick."""
        return next_by_imagine(self, h, z, action, noise)


class Search:
    """The planner's search alone, as a policy: every tick anew, from its last plan on.

    One tier with the longest horizon of the spec, without actor, and without a value beyond the
    horizon, so that nothing but the dynamics differs between two searches.

    Args:
        believe: the dynamics and the beliefs of a world as it is now.
    """

    def __init__(self, spec: SystemSpec, believe: Believe, entities: int, seed: int) -> None:
        self._spec, self._believe, self._seed = spec, believe, seed
        self.tier = search_tier(spec)
        self._fallback = fresh(spec, entities)
        self._last: F64 | None = None

    def __call__(self, world: World) -> F64:
        """`[E, A]` what it does now."""
        return first_executable(self._spec, world, self.answer(world).sequence[:, 0])

    def answer(self, world: World) -> Answer:
        """The best plan found for each entity; ask once per tick, in this way or by a call."""
        spec, tick = self._spec, world.sample.tick
        dynamics, posterior = self._believe(world)
        imagination = Imagination(spec, dynamics, posterior, tick)
        key, latent = (self._seed, 0, tick), posterior.mean.shape[1]
        draws = Draws(key, 0, self.tier, len(spec.action_columns), latent)
        start = Start(np.arange(world.entities), world.applied, self._guesses(world))
        search = PLANNERS[self.tier.planner](spec, imagination, self.tier, start, draws)
        for _ in range(self.tier.iterations):
            search.improve()
        found = search.act_now()
        self._last = np.concatenate([found.sequence[:, 1:], found.sequence[:, -1:]], axis=1)
        return found

    def _guesses(self, world: World) -> F64:
        """`[E, G, T, A]` what is in force, the fallback's answer, and the last plan."""
        stands, self._fallback = fallback(self._spec, world.frame, self._fallback)
        now = np.where(np.isfinite(world.applied), world.applied, stands)
        held = [np.repeat(value[:, None], self.tier.horizon, axis=1) for value in (now, stands)]
        return np.stack([*held, held[-1] if self._last is None else self._last], axis=1)


def search_tier(spec: SystemSpec) -> Tier:
    """What `Search` may spend on one tick."""
    longest = max(tier.horizon for tier in spec.budget.tiers.values())
    return Tier(candidates=CANDIDATES, horizon=longest, iterations=ITERATIONS)
