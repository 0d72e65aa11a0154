"""Futures of chosen entities: candidates laid out one member each, rolled out, and valued.

Trajectory sampling TS∞ (Chua et al. 2018: PETS): a candidate lives under one ensemble member from
start to end, which costs a fifth of rolling each under all five. What is left over at the end, a
handful of finalists, is rolled out under every member with the same noise: their mean decides,
their spread is the uncertainty.

Common random numbers: all candidates and entities of a tick share `D` noise sequences, so that
a difference between candidates is one of actions, and little noise has to be drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from planner.objective import Objective, Worth
from planner.session import Dynamics, Futures, Posterior
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Verdict:
    """Finalists [E,F] under all M members and D noise sequences.

    samples  [E,F,M·D] returns;  score [E,F] their mean, for ranking;
    channels [T,M,E,F,D,O] the futures themselves.
    """

    samples: F64
    score: F64
    channels: F32


class Imagination:
    """Rollouts from the posterior of one frame.

    Args:
        spec: names the channels and the objective.
        bundle: the dynamics.
        posterior: rows of the whole frame; methods take the rows they are about.
        tick: the frame's tick.
        closes: whether the bundle's value closes the horizon, where it may.
    """

    def __init__(
        self,
        spec: SystemSpec,
        bundle: Dynamics,
        posterior: Posterior,
        tick: int,
        closes: bool = True,
    ) -> None:
        self._spec, self._bundle, self._posterior = spec, bundle, posterior
        self._tick, self._closes = tick, closes
        self.scale = bundle.channel_scale[: len(spec.observed_columns)]
        """[O] the usual spread of each observed column."""

    @cached_property
    def _objective(self) -> Objective:
        return Objective(self._spec, self._bundle, self._tick, self._closes)

    @property
    def members(self) -> int:
        """M of the bundle."""
        return self._bundle.members

    def known(self, steps: int) -> F32:
        """[steps, 2 × context] the context columns of the ticks to come."""
        return self._objective.known(steps)

    def returns(self, rows: Index, candidates: F64, noise: F32) -> Worth:
        """The worth [E,C] of `candidates`, each under one member.

        Args:
            rows: [E] which entities of the frame.
            candidates: [E,C,T,A] as they would be executed; candidate c lives under member c mod M.
            noise: [T+1,D,Z] standard normal; the first one draws the initial state.
        """
        entities, count, steps, actions = candidates.shape
        members = self.members
        padding = -count % members
        if padding:  # a copy of the first ones fills the last round
            candidates = np.concatenate([candidates, candidates[:, :padding]], axis=1)
        per_member = (count + padding) // members
        layout = candidates.reshape(entities, per_member, members, steps, actions)
        _, worth = self._roll(rows, layout.transpose(3, 2, 0, 1, 4), noise)

        def back(array: F64) -> F64:  # [M,E,K] → [E,C]
            return array.transpose(1, 2, 0).reshape(entities, -1)[:, :count]

        return Worth(back(worth.returned), back(worth.hard))

    def under_all(self, rows: Index, finalists: F64, noise: F32) -> Verdict:
        """`finalists` [E,F,T,A] under every member and every one of the D noise sequences."""
        entities, count, steps, actions = finalists.shape
        members, draws = self.members, noise.shape[1]
        shape = (steps, members, entities, count, draws, actions)
        layout = finalists.transpose(2, 0, 1, 3)[:, None, :, :, None, :]
        flat = np.broadcast_to(layout, shape).reshape(*shape[:3], count * draws, actions)
        futures, worth = self._roll(rows, flat, np.tile(noise, (1, count, 1)))

        def spread(array: F64) -> F64:  # [M,E,F·D] → [E,F,M·D]
            parts = array.reshape(members, entities, count, draws)
            return parts.transpose(1, 2, 0, 3).reshape(entities, count, members * draws)

        channels = futures.channels.reshape(*shape[:-1], -1)
        score = spread(worth.score).mean(axis=2)
        return Verdict(spread(worth.returned), score, channels)

    def next(self, action: F64, noise: F32) -> F32:
        """[M,E,D,O] the next channels of all E entities under `action` [E,A], by every member.

        Args:
            action: as it is executed.
            noise: [2,D,Z] standard normal.
        """
        entities, draws = len(action), noise.shape[1]
        h, mean, std = self._start()
        z = (mean[:, None] + std[:, None] * noise[0]).reshape(entities * draws, -1)
        acted = action.astype(np.float32)
        if draws > 1:
            h, acted = (np.repeat(array, draws, axis=0) for array in (h, acted))
        channels = self._bundle.next(h, z, acted, np.tile(noise[1], (entities, 1)))
        return channels.reshape(self.members, entities, draws, -1)

    def disagreement(self, channels: F32) -> F64:
        """[E] of futures [T,M,E,D,O]; see `disagreement`."""
        return disagreement(channels, self.scale)

    def _roll(self, rows: Index, actions: F64, noise: F32) -> tuple[Futures, Worth]:
        """Rolls [T,M,E,R,A] actions out; row r uses noise sequence r mod D. Worth is [M,E,R]."""
        futures, small = self._futures(rows, actions, noise)
        worth, wide = self._objective.worth(futures, small), actions.shape[1:4]
        return futures, Worth(worth.returned.reshape(wide), worth.hard.reshape(wide))

    def _futures(self, rows: Index, actions: F64, noise: F32) -> tuple[Futures, F32]:
        inputs = self._inputs(rows, actions, noise)
        return self._bundle.imagine(*inputs), inputs[2]

    def _inputs(self, rows: Index, actions: F64, noise: F32) -> tuple[F32, F32, F32, F32]:
        """What `imagine` takes, by its arguments."""
        steps, members, entities, count, columns = actions.shape
        flat = (members, entities * count)
        sequence = noise[: steps + 1, np.arange(count) % noise.shape[1]]  # [T+1,R,Z]
        h, mean, std = (a[rows][:, None, :] for a in self._start())
        z = mean + std * sequence[0]  # [E,R,Z]
        latent = z.shape[-1]
        wide = (members, entities, count)
        return (
            np.broadcast_to(h, (*wide, h.shape[-1])).reshape(*flat, h.shape[-1]),
            np.broadcast_to(z, (*wide, latent)).reshape(*flat, latent),
            np.ascontiguousarray(actions, dtype=np.float32).reshape(steps, *flat, columns),
            np.broadcast_to(sequence[1:, None, None, :, :], (steps, *wide, latent)).reshape(
                steps, *flat, latent
            ),
        )

    def _start(self) -> tuple[F32, F32, F32]:
        return self._posterior.h, self._posterior.mean, self._posterior.std


def disagreement(channels: F32, scale: F32) -> F64:
    """[E] of futures [T,M,E,D,O]: root mean square of the members' spread about their mean.

    Over steps and observed columns, each column in units of its usual spread `scale`; the members
    share the noise, so this is what they do not know rather than what is random.
    """
    observed = channels[..., : len(scale)] / scale
    apart = observed - observed.mean(axis=1, keepdims=True)
    # NumPy adds up rows that lie one after the other many times as fast.
    squares = np.square(apart).transpose(0, 1, 3, 4, 2).reshape(-1, channels.shape[2])
    return np.asarray(np.sqrt(squares.mean(axis=0, dtype=np.float64)))


def quantiles(samples: F64) -> F64:
    """[..., 3] the `QUANTILES` of samples [..., S], linear between order statistics."""
    ordered = np.sort(samples, axis=-1)
    place = np.array(QUANTILES) * (samples.shape[-1] - 1)
    below = np.floor(place).astype(np.intp)
    above = np.minimum(below + 1, samples.shape[-1] - 1)
    low, high = ordered[..., below], ordered[..., above]
    return np.asarray(low + (place - below) * (high - low))
