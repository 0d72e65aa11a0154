"""A plant and what a bundle believes of it: the loop in lockstep, without Kafka or deadlines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from infra.plants.base import Plant, PlantError, Restorable, Sample
from infra.plants.seen import Seen
from planner.explore import explore
from planner.fallback import fallback, fresh
from planner.sequences import executable
from planner.session import Model, Posterior
from schemas.clock import tick_time
from schemas.codes import Flag, Mode, Status
from schemas.frames import Frame, FrameHeader
from schemas.spec_parts import ExploreSpec
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
SHARE: Final = 0.8
"""Of the stretches of time in which `Explorer` shifts the fallback, so that actions vary."""


class World:
    """E entities of a plant from tick to tick; call `reset` first.

    Readings come at their tick, so frames are what the aligner would make of them
    (`infra.plants.seen`), and beliefs are begun where the plant begins a new episode. They are not
    anchored where they are contradicted: what a bundle thinks of a strange plant is to be seen.

    Attributes:
        sample: what the plant showed last.
        obs: `[E, O]` float64, NaN where missing.
        applied: `[E, A]` the action that led here; NaN before the first.
        posterior: the belief after `obs`.
        before: h `[E, H]` and z `[E, Z]` that this belief was made of.
        begun: `[E]` whose episode begins with `obs`.
    """

    def __init__(self, spec: SystemSpec, plant: Plant, bundle: Model) -> None:
        self.spec, self.plant, self.bundle = spec, plant, bundle
        self.entities = len(plant.entities)

    def reset(self, seed: int) -> None:
        """Begins anew; plants are deterministic in their seed."""
        bundle, count = self.bundle, self.entities
        self._seen = Seen(self.spec, count)
        self.applied = np.full((count, len(self.spec.action_columns)), np.nan)
        nothing = np.zeros((count, bundle.latent), np.float32)
        hidden = np.zeros((count, bundle.hidden), np.float32)
        self.posterior = Posterior(hidden, nothing, nothing, np.zeros(count, np.float32))
        self._show(self.plant.reset(seed), np.ones(count, dtype=bool))

    def step(self, action: F64) -> None:
        """One tick under `action` `[E, A]`, within range and rates."""
        self.applied = action
        sample = self.plant.step(action)
        self._show(sample, sample.outcomes.get("reset", np.zeros(self.entities)) > 0)

    def _show(self, sample: Sample, begun: Bools) -> None:
        self.sample, self.begun = sample, begun
        self._seen.take(sample)
        self.obs = self._seen.values(sample.tick)
        keep = ~begun[:, None]
        self.before = (self.posterior.h * keep, self.posterior.mean * keep)
        self.posterior = self.believe(self.obs)

    def believe(self, obs: F64) -> Posterior:
        """The belief at this tick, had `obs` `[E, O]` been seen."""
        known = np.isfinite(self.applied)
        action = np.where(known, self.applied, self.spec.action_safe).astype(np.float32)
        mask = np.isfinite(obs)
        seen = np.where(mask, obs, 0.0).astype(np.float32)
        return self.bundle.believe(*self.before, action, seen, mask.astype(np.float32))

    @property
    def seen(self) -> Seen:
        """The newest value of each channel."""
        return self._seen

    @property
    def frame(self) -> Frame:
        """What a policy is shown."""
        spec, tick, count = self.spec, self.sample.tick, self.entities
        now = tick_time(tick, spec.epoch_us, spec.period_us)
        known = np.isfinite(self.applied).all(axis=1)
        return Frame(
            header=FrameHeader(system=spec.system, cohort=0, tick=tick, time_us=now),
            entities=self.plant.entities,
            values=self.obs,
            ages=np.zeros((count, len(spec.channels)), np.float32),
            applied=self.applied,
            status=np.where(known, int(Status.APPLIED), int(Status.NONE)).astype(np.uint8),
            flags=np.where(self.begun, int(Flag.JOINED), 0).astype(np.uint8),
        )

    def snapshot(self) -> tuple[Any, ...]:
        """All that what comes next depends on.

        Raises:
            PlantError: this plant cannot be taken back.
        """
        everyone = np.arange(self.entities)
        mine = (self.sample, self.begun, self.obs, self.applied, self.posterior, self.before)
        return (self._restorable().snapshot(), self._seen.copied(everyone), *mine)

    def restore(self, state: tuple[Any, ...]) -> None:
        """Goes back to a `snapshot`, which may be used again."""
        self._restorable().restore(state[0])
        self._seen = state[1].copied(np.arange(self.entities))
        self.sample, self.begun, self.obs, self.applied, self.posterior, self.before = state[2:]

    def _restorable(self) -> Restorable:
        if not isinstance(self.plant, Restorable):
            raise PlantError(f"{self.plant.version}: this plant cannot be taken back to a state")
        return self.plant


Policy = Callable[[World], F64]
"""What `[E, A]` it does in a world as it is now."""


class Explorer:
    """The spec's fallback, shifted in stretches of time: the actions that first models learn from.

    Args:
        share: of the stretches that are shifted; 0 is the fallback alone.
    """

    def __init__(self, spec: SystemSpec, entities: int, share: float, seed: int) -> None:
        wanted = ExploreSpec(share=share, seed=seed) if share > 0 else None
        self._spec = spec.model_copy(update={"explore": wanted})
        self._state = fresh(spec, entities)

    def __call__(self, world: World) -> F64:
        """`[E, A]` what it does now; call it once per tick."""
        frame = world.frame
        wanted, self._state = fallback(self._spec, frame, self._state)
        modes = np.full(len(wanted), int(Mode.FALLBACK), np.uint8)
        shifted = explore(self._spec, frame, wanted, modes)
        return first_executable(self._spec, world, shifted)


def first_executable(spec: SystemSpec, world: World, action: F64) -> F64:
    """`action` `[E, A]` within range and rates, whole where it must be."""
    return np.asarray(executable(spec, world.applied, action[:, None, None])[:, 0, 0])


@dataclass(frozen=True)
class Record:
    """T ticks of a world: row t of what is seen and believed, then `action[t]` until row t + 1.

    Attributes:
        first: the tick of row 0.
        obs: `[T + 1, E, O]`;  action: `[T, E, A]`;  reward: `[T, E]` the plant's own.
        h: `[T + 1, E, H]`;  mean, std: `[T + 1, E, Z]`;  innovation: `[T + 1, E]`.
        begun: `[T + 1, E]` whose episode begins here;  ended: `[T, E]` who has terminated.
    """

    first: int
    obs: F64
    action: F64
    reward: F64
    h: F32
    mean: F32
    std: F32
    innovation: F32
    begun: Bools
    ended: Bools

    def posterior(self, t: int) -> Posterior:
        """The belief at row t."""
        return Posterior(self.h[t], self.mean[t], self.std[t], self.innovation[t])


def watch(world: World, policy: Policy, ticks: int) -> Record:
    """What happens in `ticks` ticks under a policy, from now on."""
    first, seen, done = world.sample.tick, [_row(world)], []
    for _ in range(ticks):
        action = policy(world)
        world.step(action)
        done.append((action, world.sample.reward, terminated(world.sample)))
        seen.append(_row(world))
    obs, h, mean, std, innovation, begun = (np.stack(part) for part in zip(*seen, strict=True))
    action, reward, ended = (np.stack(part) for part in zip(*done, strict=True))
    return Record(first, obs, action, reward, h, mean, std, innovation, begun, ended)


def terminated(sample: Sample) -> Bools:
    """`[E]` whose episode ended for good at this tick, rather than being cut off or parked."""
    return np.asarray(sample.outcomes.get("terminated", np.zeros(len(sample.reward))) > 0)


def _row(world: World) -> tuple[npt.NDArray[Any], ...]:
    after = world.posterior
    return world.obs, after.h, after.mean, after.std, after.innovation, world.begun
