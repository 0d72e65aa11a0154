"""Environments by name: Gymnasium's own, and DeepMind Control's as `dm_control/DOMAIN-TASK`.

Two options are ours: `action_repeat`, steps for which an action is held, and `set`, numbers of the
unwrapped environment to change.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation

from infra.plants.base import PlantError
from infra.plants.gym_physics import Altered

Env = gymnasium.Env[Any, Any]
CONTROL = "dm_control/"


class Repeat(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Holds each action for several steps of the environment, whose rewards add up."""

    def __init__(self, env: Env, times: int) -> None:
        super().__init__(env)
        self.times = times

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """The last observation, and the sum of the rewards; ends with the episode."""
        total: Any = 0.0
        for _ in range(self.times):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += reward
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


def make_env(env_id: str, options: Mapping[str, Any]) -> Env:
    """An environment; what are not options of ours are Gymnasium's.

    Raises:
        PlantError: no such environment or option.
    """
    given = dict(options)
    times, changes = given.pop("action_repeat", 1), given.pop("set", {})
    if isinstance(times, bool) or not isinstance(times, int) or times < 1:
        raise PlantError(f"option action_repeat: a whole number from 1 is needed, not {times!r}")
    if not isinstance(changes, Mapping):
        raise PlantError("option set: a mapping from attributes to numbers is needed, as {m: 1.5}")
    try:
        env = gymnasium.make(_registered(env_id), **given)
    except gymnasium.error.Error as error:
        raise PlantError(f"{env_id}: Gymnasium cannot make this environment: {error}") from error
    for name, value in changes.items():
        _set(env, env_id, name, value)
    if isinstance(env.observation_space, spaces.Dict):
        env = FlattenObservation(env)
    env = Altered(env, period_us(env) / 1e6)
    return Repeat(env, times) if times > 1 else env


def _registered(env_id: str) -> str:
    """The name under which Gymnasium knows an environment; a task of DeepMind Control gets one."""
    if not env_id.startswith(CONTROL):
        return env_id
    os.environ.setdefault("MUJOCO_GL", "disabled")  # nothing is drawn, no display is needed
    try:
        importlib.import_module("shimmy")
    except ImportError as error:
        raise PlantError(f"{env_id}: {error}; pip install 'rehearse[control]'") from error
    return env_id if env_id.rpartition("-v")[2].isdigit() else f"{env_id}-v0"


def _set(env: Env, env_id: str, name: str, value: Any) -> None:
    """Changes a number of the unwrapped environment."""
    known = settable(env)
    if name not in known:
        raise PlantError(f"option set: {env_id} has no number {name!r}; it has {', '.join(known)}")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise PlantError(f"option set: {name}: a number is needed, not {value!r}")
    change(env, name, value)


def settable(env: Env) -> dict[str, float]:
    """The numbers that the option `set` can change, with their values, by name."""
    found = {
        name: value
        for name, value in vars(env.unwrapped).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name[0] != "_"
    }
    return dict(sorted(found.items()))


def change(env: Env, name: str, value: float) -> None:
    """Sets a number of the unwrapped environment that is known to be there."""
    setattr(env.unwrapped, name, value)


def period_us(env: Env) -> int:
    """The time from one action to the next in microseconds."""
    times: int = env.times if isinstance(env, Repeat) else 1
    inner = getattr(env.unwrapped, "_env", None)  # of DeepMind Control
    if callable(period := getattr(inner, "control_timestep", None)):
        return int(round(period() * 1e6) * times)
    for name in ("dt", "tau"):
        step = getattr(env.unwrapped, name, None)
        if isinstance(step, (int, float)) and step > 0:
            return round(step * 1e6) * times
    return round(1e6 / (env.metadata.get("render_fps") or 20)) * times


def episode_ticks(env: Env) -> int | None:
    """Actions after which an episode is cut off; None where it never is."""
    times: int = env.times if isinstance(env, Repeat) else 1
    limit = env.spec.max_episode_steps if env.spec else None
    inner = getattr(env.unwrapped, "_env", None)  # of DeepMind Control
    limit = limit or getattr(inner, "_step_limit", None)
    return None if limit is None or not math.isfinite(limit) else -(-int(limit) // times)
