"""What a future is worth: the spec's reward and constraints, evaluated on predicted channels.

The reward of the transition k → k+1 is the expression on the channels of tick k+1 and the action in
force during it. A violated *soft* constraint costs `SOFT_COST` per tick, and training uses the
same number, so that the value continues what the planner adds up. A violated *hard* one ranks a
future behind all that violate less. The context channels of a future tick are known, not
predicted: the known values are put in the place of the predicted ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.session import Dynamics, Futures
from schemas.context import context_values
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]

SOFT_COST = 1.0
"""Reward units per tick and violated soft constraint."""
HARD_COST = 1e6
"""Weight of a violated hard constraint where futures are ranked; never part of a return."""


@dataclass(frozen=True)
class Worth:
    """Of futures: returned [...] in reward units, hard [...] discounted count of violations."""

    returned: F64
    hard: F64

    @property
    def score(self) -> F64:
        """[...] what to maximise; -inf where the return is not a number."""
        score = self.returned - HARD_COST * self.hard
        return np.where(np.isfinite(score), score, -np.inf)


class Objective:
    """The objective of one frame: spec, bundle, and the frame's tick.

    Args:
        spec: reward, constraints, termination.
        bundle: its value closes the horizon where it was trained on this objective.
        tick: the frame's tick; step t of a future ends at tick + 1 + t.
        closes: False leaves the value out all the same.
    """

    def __init__(self, spec: SystemSpec, bundle: Dynamics, tick: int, closes: bool = True) -> None:
        self._spec = spec
        self._discount = bundle.discount
        self._closes = closes and bundle.trusted_actor(spec)
        self._epoch, self._period, self._tick = spec.epoch_us, spec.period_us, tick
        self._context = len(spec.columns) - len(spec.observed_columns)
        wanted = [e for e in (spec.reward, spec.termination) if e is not None]
        wanted += [e for e, _ in spec.constraints.values()]
        self._names = frozenset().union(*(e.names for e in wanted))

    def known(self, steps: int) -> F32:
        """[steps, 2 × context] the context columns after each step of a future."""
        ticks = self._tick + 1 + np.arange(steps, dtype=np.int64)
        values = context_values(self._spec.context, self._epoch + ticks * self._period)
        return values.astype(np.float32)

    def worth(self, futures: Futures, actions: F32) -> Worth:
        """The worth of futures [T,M,N] under `actions` [T,M,N,A]: arrays [M,N]."""
        shape = actions.shape[:-1]
        columns = self._columns(futures.channels, actions)
        reward: Floats = futures.reward
        if self._spec.reward is not None:
            reward = np.broadcast_to(self._spec.reward.numpy(columns), shape)
        hard: Floats | None = None
        for expression, kind in self._spec.constraints.values():
            broken = ~np.broadcast_to(expression.numpy(columns), shape)
            if kind == "hard":
                hard = broken.astype(np.float32) + (0.0 if hard is None else hard)
            else:
                reward = reward - np.float32(SOFT_COST) * broken
        alive: F32 = futures.alive
        if self._spec.termination is not None:
            ended = np.broadcast_to(self._spec.termination.numpy(columns), shape)
            alive = np.where(ended, np.float32(0), np.float32(1))
        return self._add_up(reward, hard, alive, futures.value)

    def _add_up(self, reward: Floats, hard: Floats | None, alive: F32, value: F32) -> Worth:
        going = np.ones(reward.shape[1:])  # weight of a step as seen from now
        returned, broken = np.zeros_like(going), np.zeros_like(going)
        for t in range(len(reward)):  # faster than cumprod, which strides over the steps
            returned += going * reward[t]
            if hard is not None:
                broken += going * hard[t]
            going = going * alive[t] * self._discount
        if self._closes:
            returned += going * value
        return Worth(returned, broken)

    def _columns(self, channels: F32, actions: F32) -> dict[str, F32]:
        """The columns that some expression reads, each broadcast to [T,M,N]."""
        spec, observed = self._spec, len(self._spec.observed_columns)
        columns = {
            name: channels[..., i]
            for i, name in enumerate(spec.observed_columns)
            if name in self._names
        }
        if self._context:
            known = self.known(len(channels))
            for i, name in enumerate(spec.columns[observed:]):
                columns[name] = known[:, None, None, i]
        for i, name in enumerate(spec.action_columns):
            columns[name] = actions[..., i]
        return columns
