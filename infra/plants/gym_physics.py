"""What Gymnasium's environments lack: friction, actions that come late, and a state to be put in.

Which of an environment's numbers are speeds, and what an observation says of them, is known for
some of Gymnasium's own alone.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import gymnasium
import numpy as np
from gymnasium import spaces

from infra.plants.base import Floats

Env = gymnasium.Env[Any, Any]


@dataclass(frozen=True)
class Mechanics:
    """An environment whose `state` is known: which of its numbers are speeds, and how to see it.

    `state` gives it, `[S]`, of an observation `[O]`.
    """

    speeds: tuple[int, ...]
    state: Callable[[Floats], Floats]


def _pendulum(seen: Floats) -> Floats:
    return np.array([math.atan2(seen[1], seen[0]), seen[2]])


def _acrobot(seen: Floats) -> Floats:
    first, second = math.atan2(seen[1], seen[0]), math.atan2(seen[3], seen[2])
    return np.array([first, second, seen[4], seen[5]])


def _itself(seen: Floats) -> Floats:
    return np.array(seen)


MECHANICS: Final = {
    "PendulumEnv": Mechanics((1,), _pendulum),
    "AcrobotEnv": Mechanics((2, 3), _acrobot),
    "CartPoleEnv": Mechanics((1, 3), _itself),
    "MountainCarEnv": Mechanics((1,), _itself),
    "Continuous_MountainCarEnv": Mechanics((1,), _itself),
}
"""By the name of the unwrapped environment's class."""


def mechanics_of(env: Env) -> Mechanics | None:
    """What is known of the state of an environment."""
    return MECHANICS.get(type(env.unwrapped).__name__)


class Altered(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment with friction, whose actions come late; it has neither to begin with.

    Attributes:
        friction: share of each speed that is lost per second, 1/s.
        late: steps from an action to its effect. Before the first one it is at rest.
    """

    def __init__(self, env: Env, step_s: float) -> None:
        super().__init__(env)
        self.friction, self.late = 0.0, 0
        self._step_s = step_s
        self._asked: deque[Any] = deque()

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """A new episode, with nothing on its way."""
        self._asked.clear()
        return self.env.reset(**options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step under the action of `late` steps ago."""
        self._asked.appendleft(action)
        while len(self._asked) > self.late + 1:
            self._asked.pop()
        due = self._asked[-1] if len(self._asked) > self.late else self._rest(action)
        if self.friction:
            self._slow()
        return self.env.step(due)

    def place(self, seen: Floats, past: list[Any]) -> None:
        """Puts it where observation `seen` `[O]` says, after the actions `past`, last one first."""
        known = mechanics_of(self)
        assert known is not None
        self.unwrapped.state = known.state(seen)  # type: ignore[attr-defined]
        self._asked = deque(past)

    def _rest(self, action: Any) -> Any:
        """Nothing, where the actions have such a value; else what was asked for first."""
        if isinstance(self.action_space, spaces.Box):
            space = self.action_space
            return np.clip(np.zeros_like(action), space.low, space.high)
        return self._asked[-1]

    def _slow(self) -> None:
        known, inner = mechanics_of(self), self.unwrapped
        assert known is not None
        state = np.array(inner.state, dtype=np.float64)  # type: ignore[attr-defined]
        state[list(known.speeds)] *= math.exp(-self.friction * self._step_s)
        inner.state = state  # type: ignore[attr-defined]


def altered(env: Env) -> Altered:
    """The part of an environment made by `make_env` that friction and delay are set at."""
    layer: Any = env
    while not isinstance(layer, Altered):
        layer = layer.env
    return layer
