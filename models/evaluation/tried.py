"""Sequences of actions tried from one state of a world: as a bundle imagines them, and in truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.evaluation.world import World, terminated
from planner.draws import CLOSING, pairs
from planner.imagine import Imagination
from planner.objective import Objective
from planner.session import Dynamics, Futures
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Plain:
    """A bundle's dynamics without actor and value: what is imagined ends with the horizon."""

    dynamics: Dynamics
    discount: float

    @property
    def members(self) -> int:
        """M of the bundle."""
        return self.dynamics.members

    @property
    def channel_scale(self) -> F32:
        """`[O]` of the bundle."""
        return self.dynamics.channel_scale

    def trusted_actor(self, spec: SystemSpec) -> bool:
        """Never."""
        return False

    def imagine(self, h: F32, z: F32, actions: F32, noise: F32) -> Futures:
        """As the bundle does."""
        return self.dynamics.imagine(h, z, actions, noise)

    def next(self, h: F32, z: F32, action: F32, noise: F32) -> F32:
        """As the bundle does."""
        return self.dynamics.next(h, z, action, noise)


@dataclass(frozen=True)
class Tried:
    """F sequences of T actions from one state of E entities.

    Attributes:
        imagined, true: `[T, E, F, O]` observed columns, raw units; what is imagined is the mean
            over members and noise.
        imagined_return, true_return: `[E, F]` discounted, in reward units.
        whole: `[E, F]` False where an episode was cut off or begun anew on the way.
    """

    imagined: F64
    true: F64
    imagined_return: F64
    true_return: F64
    whole: Bools


def try_out(world: World, sequences: F64, *, draws: int = 4, seed: int = 0) -> Tried:
    """Tries `sequences` `[E, F, T, A]` from the world's state, and takes it back to that.

    All share the noise in imagination, and in truth: a difference between two is one of actions.

    Args:
        draws: noise sequences in imagination, an even number.

    Raises:
        PlantError: this plant cannot be taken back.
    """
    spec, tick = world.spec, world.sample.tick
    dynamics = Plain(world.bundle, world.bundle.discount)
    rows = np.arange(world.entities)
    noise = pairs((seed, 0, tick), CLOSING, (sequences.shape[2] + 1, draws, world.bundle.latent))
    imagination = Imagination(spec, dynamics, world.posterior, tick)
    verdict = imagination.under_all(rows, sequences, noise)
    true, returned, whole = realise(world, sequences, dynamics)
    observed = len(spec.observed_columns)
    return Tried(
        imagined=verdict.channels[..., :observed].mean(axis=(1, 4), dtype=np.float64),
        true=true[..., :observed],
        imagined_return=verdict.samples.mean(axis=2),
        true_return=returned,
        whole=whole,
    )


def realise(world: World, sequences: F64, dynamics: Dynamics) -> tuple[F64, F64, Bools]:
    """`true`, `true_return` and `whole` of `Tried`: what the plant makes of `[E, F, T, A]`.

    The world stays where it is; `dynamics` says discount and horizon's end.
    """
    state, tick, done = world.snapshot(), world.sample.tick, []
    for f in range(sequences.shape[1]):
        world.restore(state)
        steps = [_step(world, sequences[:, f, t]) for t in range(sequences.shape[2])]
        obs, reward, alive, begun = (np.stack(part) for part in zip(*steps, strict=True))
        actions = sequences[:, f].transpose(1, 0, 2)
        worth = returned(world.spec, dynamics, tick, (obs, actions, reward, alive))
        done.append((obs, worth, ~begun.any(axis=0)))
    world.restore(state)
    true, worths, whole = zip(*done, strict=True)
    return np.stack(true, axis=2), np.stack(worths, axis=1), np.stack(whole, axis=1)


def _step(world: World, action: F64) -> tuple[F64, F64, Bools, Bools]:
    world.step(action)
    return world.obs, world.sample.reward, ~terminated(world.sample), world.begun


def returned(
    spec: SystemSpec, dynamics: Dynamics, tick: int, run: tuple[F64, F64, F64, Bools]
) -> F64:
    """`[E]` what a run that begins at `tick` is worth to the planner's objective.

    Args:
        run: channels `[T, E, O]` after each step, actions `[T, E, A]`, the plant's own reward
            `[T, E]` (used where the spec has none), and who goes on `[T, E]`.
    """
    channels, actions, reward, alive = run
    futures = Futures(
        channels=channels[:, None].astype(np.float32),
        alive=alive[:, None].astype(np.float32),
        value=np.zeros((1, channels.shape[1]), np.float32),
        reward=reward[:, None].astype(np.float32),
    )
    worth = Objective(spec, dynamics, tick).worth(futures, actions[:, None].astype(np.float32))
    return np.asarray(worth.returned[0])
