"""Any Gymnasium environment as a plant: one of them per entity, the spec made from its spaces."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import yaml
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate

from infra.plants.base import (
    Floats,
    Ints,
    PlantError,
    Sample,
    SensorBatch,
    checked_action,
    names,
    readings,
    seeds,
    stamps,
)
from infra.plants.gym_envs import Env, change, episode_ticks, make_env, period_us, settable
from infra.plants.gym_physics import altered, mechanics_of
from infra.plants.parameters import checked, draw, draws, gym_parameters
from schemas.clock import format_duration, tick_of, tick_time
from schemas.system import SystemSpec

UNBOUNDED = 1e6  # stands for an infinite bound of an observation
_STATE = ("_tick", "_ended", "_return", "_returns", "_seed", "_episode")
TIERS = {
    "shallow": {"candidates": 65, "horizon": 10, "iterations": 1},
    "deep": {"candidates": 255, "horizon": 20, "iterations": 3},
}


def spec_for(
    env_id: str,
    entities: int = 8,
    budget: Mapping[str, Any] | None = None,
    **env_options: Any,
) -> str:
    """The YAML text of a spec for environment `env_id`, to be read with `parse_spec`.

    The tick is the environment's own time step (`dt` or `tau`), else one over its frames per
    second, else 50 ms; with the option `action_repeat` as many of them. There is one sensor,
    `observation`, with the flat vector `state`. A Box action becomes a continuous `action` (one per
    component where their bounds differ), a discrete one a categorical `action`. The reward is not
    an expression: it has to be learned from logs.

    Raises:
        PlantError: no such environment, or spaces that do not fit.
    """
    ours = ("friction", "action_delay", "randomise")
    env = make_env(env_id, {n: v for n, v in env_options.items() if n not in ours})
    period = period_us(env)
    tick = format_duration(period)
    document = {
        "system": re.sub(r"[^A-Za-z0-9_-]", "-", env_id),
        "entity": "env",
        "tick": tick,
        "forget_after": "1 h",
        "cohorts": 2,
        "sensors": {
            "observation": {
                "time": {"field": "ts", "unit": "us"},
                "every": tick,
                "max_age": format_duration(10 * period),
                "channels": {"state": _channel(env.observation_space, env_id)},
            }
        },
        "actions": _actions(env.action_space, env_id),
        "fallback": {"kind": "value"},
        "budget": dict(budget or {"deadline": "20 ms", "tiers": TIERS}),
        "plant": {"kind": "gym", "env": env_id, "entities": entities, **env_options},
    }
    env.close()
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


class GymPlant:
    """E environments of one id side by side, each an entity with seeds of its own.

    Every reading of sensor `observation` is the observation at its time. An episode that ends is
    shown to its last observation, with `Sample.done`; the next tick ignores the action, has reward
    0, and begins the next episode (Gymnasium's next-step autoreset). Outcomes: `terminated`,
    `truncated` and `reset`, which is 1 at a tick whose observation begins an episode.

    Options of the environment are passed on to Gymnasium, but for `set`: a mapping from attributes
    of the unwrapped environment to numbers, as `{m: 1.5}` for a heavier pendulum. What the
    environment worked out from them when it was made stays. `friction` (1/s) slows what moves,
    where it is known what does; `action_delay` (s, rounded to a step) is from an action to its
    effect.
    With `randomise`, ranges by parameter (`infra.plants.parameters`), each environment has values
    of its own, drawn anew with every episode from the seed of the reset.
    """

    version = f"gym-1/gymnasium-{gymnasium.__version__}"
    ticks: int | None = None

    def __init__(
        self,
        spec: SystemSpec,
        *,
        env: str,
        entities: int = 8,
        start_us: int = 0,
        friction: float = 0.0,
        action_delay: float = 0.0,
        randomise: Mapping[str, Any] | None = None,
        **env_options: Any,
    ) -> None:
        if not isinstance(entities, int) or entities < 1:
            raise PlantError("option entities: at least 1 is needed")
        self.spec = spec
        self.entities = names("env", entities)
        self.first_tick = tick_of(start_us, spec.epoch_us, spec.period_us)
        self._env = _side_by_side([make_env(env, env_options) for _ in range(entities)])
        first = self._env.envs[0]
        self.episode = episode_ticks(first)
        self._step_s = period_us(first.unwrapped) / 1e6
        slowed = mechanics_of(first) is not None
        self.parameters = gym_parameters(settable(first), slowed, self._step_s)
        self.randomise = checked(randomise or {}, self.parameters)
        self._tick = -1
        self._check(env)
        given = {"friction": friction, "action_delay": action_delay}
        self._alter(env, {name: value for name, value in given.items() if value})

    def _alter(self, env_id: str, given: Mapping[str, Any]) -> None:
        """Gives all environments the same friction and delay."""
        for name, value in given.items():
            if name not in self.parameters:
                raise PlantError(f"{env_id}: it is not known which of its numbers are speeds")
            if not isinstance(value, (int, float)) or not 0.0 <= value < math.inf:
                raise PlantError(f"option {name}: a number of 0 or more is needed, not {value!r}")
        count = len(self.entities)
        self.vary({name: np.full(count, float(value)) for name, value in given.items()})

    def _check(self, env_id: str) -> None:
        wanted = _actions(self._env.single_action_space, env_id)
        columns = sum(action.get("shape", [1])[0] for action in wanted.values())
        if len(self.spec.action_columns) != columns:
            raise PlantError(
                f"{env_id} takes {columns} action columns, the spec has "
                f"{len(self.spec.action_columns)}; start from spec_for({env_id!r})"
            )
        size = _size(self._env.single_observation_space)
        for sensor in self.spec.sensors.values():
            for channel in sensor.channels.values():
                if channel.name != "state" or channel.size != size:
                    raise PlantError(
                        f"{env_id} has one channel, 'state' of size {size}, not {channel.name!r} "
                        f"of size {channel.size}; start from spec_for({env_id!r})"
                    )
            if sensor.every_us % self.spec.period_us:
                raise PlantError(f"sensor {sensor.name!r}: 'every' must be a multiple of the tick")

    def reset(self, seed: int) -> Sample:
        """A new episode in every environment."""
        own: list[int | None] = [next(seeds(seed, e)) % 2**31 for e in range(len(self.entities))]
        observation, _ = self._env.reset(seed=own)
        self._tick = 0
        nobody = np.zeros(len(self.entities), dtype=bool)
        self._ended = nobody
        self._return = np.zeros(len(self.entities))
        self._returns: list[float] = []
        self._seed, self._episode = seed, np.zeros(len(self.entities), dtype=np.int64)
        self.vary(draws(self.randomise, seed, len(self.entities)))
        everybody = np.ones(len(self.entities))
        return self._sample(observation, np.zeros(len(self.entities)), nobody, nobody, everybody)

    def step(self, action: Floats) -> Sample:
        """One step of every environment under `[E, A]`; what is categorical is rounded."""
        if self._tick < 0:
            raise PlantError("call reset(seed) before step")
        flat = checked_action(action, (len(self.entities), len(self.spec.action_columns)))
        begins = self._ended.astype(np.float64)
        native = _to_space(np.clip(flat, self.spec.action_low, self.spec.action_high), self._env)
        self._begin(np.flatnonzero(self._ended))
        observation, reward, terminated, truncated, _ = self._env.step(native)
        self._tick += 1
        self._ended = terminated | truncated
        self._return += reward
        self._returns.extend(self._return[self._ended].tolist())
        self._return[self._ended] = 0.0
        return self._sample(observation, reward, terminated, truncated, begins)

    def _begin(self, entities: Ints) -> None:
        """Draws the parameters of the episodes that begin with the next step."""
        for e in entities:
            self._episode[e] += 1
            drawn = draw(self.randomise, self._seed, int(e), int(self._episode[e]))
            for name, value in drawn.items():
                self._set(int(e), name, value)

    @property
    def values(self) -> Mapping[str, Floats]:
        """`[E]` of each parameter, as it is now."""
        envs = self._env.envs
        found = {
            "friction": [altered(env).friction for env in envs],
            "action_delay": [altered(env).late * self._step_s for env in envs],
        }
        own = {n: [settable(env)[n] for env in envs] for n in self.parameters.keys() - found.keys()}
        return {name: np.array({**found, **own}[name]) for name in self.parameters}

    def vary(self, values: Mapping[str, Floats]) -> None:
        """Gives the environments other values `[E]`, from the next step on."""
        for name, each in values.items():
            for e, value in enumerate(each):
                self._set(e, name, float(value))

    def _set(self, entity: int, name: str, value: float) -> None:
        env = self._env.envs[entity]
        if name == "friction":
            altered(env).friction = value
        elif name == "action_delay":
            altered(env).late = round(value / self._step_s)
        else:
            change(env, name, value)

    def place(self, channels: Mapping[str, Floats], past: Floats) -> None:
        """Puts every environment where an observation says it is; see `parameters.Variable`."""
        if mechanics_of(self._env.envs[0]) is None:
            name = type(self._env.envs[0].unwrapped).__name__
            raise PlantError(f"{name}: it is not known how an observation tells its state")
        self._env.reset()
        self._env._autoreset_envs[:] = False
        self._tick, self._ended = 0, np.zeros(len(self.entities), dtype=bool)
        self._episode = np.zeros(len(self.entities), dtype=np.int64)
        told = [list(iterate(self._env.action_space, _to_space(a, self._env))) for a in past]
        times = period_us(self._env.envs[0]) // round(self._step_s * 1e6)
        for e, env in enumerate(self._env.envs):
            before = [action[e] for action in told for _ in range(times)]
            altered(env).place(channels["state"][e].reshape(-1), before)

    def score(self) -> dict[str, float]:
        """`episodes` ended since `reset` and their mean `return` (NaN without any)."""
        mean = float(np.mean(self._returns)) if self._returns else math.nan
        return {"episodes": float(len(self._returns)), "return": mean}

    @property
    def attributes(self) -> dict[str, float]:
        """The numbers that the option `set` can change, as they are now."""
        return settable(self._env.envs[0])

    def snapshot(self) -> tuple[list[Env], Mapping[str, Any]]:
        """Copies of the environments, and how far they are; see `restore`."""
        state = copy.deepcopy({name: getattr(self, name) for name in _STATE})
        return [_clone(env) for env in self._env.envs], state

    def restore(self, state: tuple[list[Env], Mapping[str, Any]]) -> None:
        """Goes back to a `snapshot` of this plant."""
        self._continue([_clone(env) for env in state[0]], state[1])

    def branch(self, index: Ints) -> GymPlant:
        """A plant of other environments, the i-th as environment `index[i]` is now, its random
        numbers to come included."""
        made = copy.copy(self)
        made.entities = names("env", len(index))
        envs = [_clone(self._env.envs[i]) for i in index]
        rows = {name: getattr(self, name)[index] for name in ("_ended", "_return", "_episode")}
        rest = {"_tick": self._tick, "_seed": self._seed, "_returns": []}
        made._continue(envs, {**rest, **rows})
        return made

    def _continue(self, envs: Sequence[Env], state: Mapping[str, Any]) -> None:
        for name, value in copy.deepcopy(dict(state)).items():
            setattr(self, name, value)
        self._env = _side_by_side(envs)
        self._env._autoreset_envs = self._ended.copy()  # what ended begins anew with the next step

    def _sample(
        self, observation: Any, reward: Floats, terminated: Any, truncated: Any, begins: Floats
    ) -> Sample:
        tick = self.first_tick + self._tick
        state = np.asarray(observation, dtype=np.float64).reshape(len(self.entities), -1)
        outcomes = {
            "terminated": terminated.astype(np.float64),
            "truncated": truncated.astype(np.float64),
            "reset": begins,
        }
        return Sample(tick, self._batches(tick, state), reward, terminated | truncated, outcomes)

    def _batches(self, tick: int, state: Floats) -> tuple[SensorBatch, ...]:
        time = tick_time(tick, self.spec.epoch_us, self.spec.period_us)
        made = []
        for name, sensor in self.spec.sensors.items():
            if stamps(self._tick, self.spec.period_us, sensor.every_us).size:
                values = state if sensor.channels["state"].shape else state[:, 0]
                at = np.array([time], dtype=np.int64)
                made.append(readings(name, at, {"state": values[None]}, len(self.entities)))
        return tuple(made)


def _side_by_side(envs: Sequence[Env]) -> SyncVectorEnv:
    makers = [lambda env=env: env for env in envs]
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)


def _clone(env: Env) -> Env:
    """A copy that goes on as `env` would; what no step changes is shared."""
    shared: dict[int, Any] = {}
    layer: Any = env
    while layer is not None:
        kept = [
            value for value in vars(layer).values() if isinstance(value, (spaces.Space, EnvSpec))
        ]
        shared |= {id(value): value for value in kept}
        layer = vars(layer).get("env")
    try:
        return copy.deepcopy(env, shared)
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        raise PlantError(f"{env}: this environment cannot be copied: {error}") from error


def _bound(value: float, low: float = -UNBOUNDED, high: float = UNBOUNDED) -> float:
    return float(min(max(value, low), high))


def _size(space: spaces.Space[Any]) -> int:
    return math.prod(space.shape or (1,))


def _channel(space: spaces.Space[Any], env_id: str) -> dict[str, Any]:
    if isinstance(space, spaces.Discrete):
        return {"unit": "1", "range": [float(space.start), float(space.start + space.n)]}
    if isinstance(space, spaces.Box) and _size(space) <= 4096:
        low, high = _bound(space.low.min()), _bound(space.high.max())
        return {"unit": "1", "shape": [_size(space)], "range": [low, high]}
    raise PlantError(
        f"{env_id}: observations of {space} do not fit into a frame; wrap the environment so that "
        "it gives a Box of at most 4096 numbers"
    )


def _actions(space: spaces.Space[Any], env_id: str) -> dict[str, dict[str, Any]]:
    """The actions of the spec, in the order of the space's components."""
    if isinstance(space, spaces.Discrete) and space.n > 1:
        return {"action": _categorical(int(space.start), int(space.n))}
    if isinstance(space, spaces.MultiDiscrete) and (space.nvec.ravel() > 1).all():
        pairs = zip(space.start.ravel(), space.nvec.ravel(), strict=True)
        return {f"action_{i}": _categorical(int(s), int(n)) for i, (s, n) in enumerate(pairs)}
    if isinstance(space, spaces.Box) and np.abs([space.low, space.high]).max() < UNBOUNDED:
        low, high = space.low.ravel().tolist(), space.high.ravel().tolist()
        if len(set(low)) == len(set(high)) == 1:
            return {"action": {"unit": "1", "shape": [len(low)], "low": low[0], "high": high[0]}}
        bounds = enumerate(zip(low, high, strict=True))
        return {f"action_{i}": {"unit": "1", "low": a, "high": b} for i, (a, b) in bounds}
    raise PlantError(
        f"{env_id}: actions of {space} cannot be planned; wrap the environment so that it takes a "
        "bounded Box, Discrete or MultiDiscrete with a choice"
    )


def _categorical(start: int, count: int) -> dict[str, Any]:
    return {"unit": "1", "kind": "categorical", "low": start, "high": start + count - 1}


def _to_space(flat: Floats, env: SyncVectorEnv) -> Any:
    """Actions `[E, A]` as the vector environment takes them."""
    space = env.single_action_space
    if isinstance(space, spaces.Discrete):
        return np.rint(flat[:, 0]).astype(np.int64)
    if isinstance(space, spaces.MultiDiscrete):
        return np.rint(flat).astype(np.int64).reshape(env.num_envs, *space.nvec.shape)
    return flat.astype(space.dtype or np.float32).reshape(env.num_envs, *(space.shape or (1,)))
