"""Robots in a plane: double integrators with drag, each on its way to its own goal."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from infra.plants.base import (
    Floats,
    Ints,
    PlantError,
    Sample,
    SensorBatch,
    check_options,
    checked_action,
    names,
    readings,
    stamps,
)
from infra.plants.crowd import neighbours, pushes
from infra.plants.parameters import LIGHT, checked, draws, has_camera, nav2d_parameters
from schemas.clock import tick_of, tick_time
from schemas.system import SystemSpec

_CHANNELS: Final = ("position", "velocity", "goal", "offset", "pole", "push")
_VARIED: Final = {
    "mass": "_mass",
    "drag": "_drag",
    "action_delay": "_late_s",
    **{name: f"_{name}" for name in LIGHT},
}
_PER_ROBOT: Final = (
    *("_position", "_velocity", "_goal", "_done", "_return", "_arrived_at"),
    *_VARIED.values(),
)
_STATE: Final = (*_PER_ROBOT, "_asked", "_tick", "_noise")


@dataclass(frozen=True)
class Nav2dOptions:
    """Options of `Nav2d`: metres, seconds, and standard deviations of Gaussian noise.

    Attributes:
        robots: number of entities.
        ticks: length of an episode.
        start_us: time of the first tick, microseconds since 1970 UTC (rounded up to a tick).
        arena: starts and goals lie in [-arena, arena]².
        wall: where a robot is stopped; within the range of the sensors.
        reach: distance to the goal at which a robot is done.
        nearest: least distance from start to goal.
        drag: share of the velocity that is lost per second, 1/s.
        mass: of a robot, in units of that whose acceleration is the action.
        action_delay: from an action to its effect, s (rounded to a step of integration).
        actuation_noise: of the acceleration, m/s², drawn anew at every step of integration.
        position_noise: of the position read, m.
        velocity_noise: of the velocity read, m/s.
        push: with which robots push each other away, m/s² where they touch; 0: they do not.
        push_decay: distance over which that falls to a third (1 / e), m.
        sight: how far a robot sees others, m.
        light, lamp, glare: what cameras see in, see `infra.plants.views.lit`.
    """

    robots: int = 200
    ticks: int = 300
    start_us: int = 0
    arena: float = 10.0
    wall: float = 18.0
    reach: float = 0.5
    nearest: float = 2.0
    drag: float = 0.1
    mass: float = 1.0
    action_delay: float = 0.0
    actuation_noise: float = 0.05
    position_noise: float = 0.01
    velocity_noise: float = 0.02
    push: float = 0.0
    push_decay: float = 1.0
    sight: float = 6.0
    light: float = 1.0
    lamp: float = 0.0
    glare: float = 0.0

    @classmethod
    def of(cls, **options: Any) -> Nav2dOptions:
        """Reads options as a spec or a caller gives them; `PlantError` for an unknown one."""
        check_options("nav2d", cls, options)
        made = cls(**options)
        if made.robots < 1 or made.ticks < 1:
            raise PlantError("nav2d needs at least one robot and one tick")
        if not 0.0 <= made.nearest <= made.arena <= made.wall:
            raise PlantError("nav2d needs 0 <= nearest <= arena <= wall")
        if not (0.0 < made.mass < math.inf and 0.0 <= made.action_delay < math.inf):
            raise PlantError("nav2d needs a mass above 0, and an action_delay of 0 s or more")
        if not (0.0 <= made.push < math.inf and 0.0 < made.push_decay < math.inf):
            raise PlantError("nav2d needs a push of 0 or more, and a push_decay above 0 m")
        if not (0.0 <= made.light < math.inf and abs(made.lamp) <= 1.0 and 0 <= made.glare <= 1):
            raise PlantError("nav2d needs light of 0 or more, lamp in [-1, 1] and glare in [0, 1]")
        return made


class Nav2d:
    """Robots with position x, velocity v: dv/dt = a / mass + noise - drag × v, a in [-1, 1]².

    The acceleration is constant from one tick to the next, and integrated exactly between the
    sensors' readings. A robot that comes within `reach` of its goal is done: it is parked there
    (velocity 0, deaf to actions, reward 0) and goes on reporting. Starts, goals and all noise
    depend on the seed alone, so that all policies meet the same.

    `state` is the truth, which the readings show with their noise; `step_us` is the time between
    two steps of integration, microseconds.

    Channels are position, velocity and goal; `offset` is the goal from the robot, and so is `pole`,
    which a second sense may have for itself; `push` is the acceleration that others cause, for a
    sensor that has it encoded from what its robot sees of them (`infra/plants/crowd.py`).

    Of a sensor that is slower than the ticks, robots take turns: all report with the first tick,
    then each once per period, half-way to a tick rather than at it, where the faster ones report.

    `Sample.reward` is minus the true distance to the goal (m) at the end of the tick. Outcomes:
    `reached` (0 or 1) and `distance` (m).

    With `randomise`, ranges by parameter (`infra.plants.parameters`), each robot has a mass, drag,
    delay and light of its own, drawn anew with every reset from the seed. Light moves nothing:
    readings of a camera carry it, for whoever draws what it sees.
    """

    version = "nav2d-2"
    _mass: Floats
    _drag: Floats
    _late_s: Floats

    def __init__(
        self, spec: SystemSpec, *, randomise: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        self.spec = spec
        self.options = Nav2dOptions.of(**options)
        self.entities = names("robot", self.options.robots)
        self.ticks: int | None = self.options.ticks
        self.first_tick = tick_of(self.options.start_us, spec.epoch_us, spec.period_us)
        self._check_channels()
        every = [sensor.every_us for sensor in spec.sensors.values()]
        self.step_us = math.gcd(spec.period_us, *every)
        self.parameters = nav2d_parameters(self.step_us / 1e6, has_camera(spec))
        self._check_light()
        self.randomise = checked(randomise or {}, self.parameters)
        self._asked = np.zeros((0, self.options.robots, 2))
        self.vary({n: np.full(self.options.robots, getattr(self.options, n)) for n in _VARIED})

    def _check_channels(self) -> None:
        for channel in self.spec.channels:
            if channel.name not in _CHANNELS or channel.size != 2:
                raise PlantError(
                    f"nav2d has no channel {channel.name!r} of size {channel.size}; it has "
                    f"{', '.join(_CHANNELS)}, each of size 2"
                )

    def _check_light(self) -> None:
        usual = Nav2dOptions()
        for name in LIGHT:
            if name not in self.parameters and getattr(self.options, name) != getattr(usual, name):
                raise PlantError(
                    f"option {name}: is of what a camera sees, and {self.spec.system} has none: "
                    "leave it out, or give a sensor 'perceive: {kind: jpeg, ...}'"
                )

    def reset(self, seed: int) -> Sample:
        """New starts and goals, at rest."""
        o = self.options
        self._noise = np.random.default_rng([seed, 1])
        start, goal = _ways(np.random.default_rng([seed, 0]), o.robots, o.arena, o.nearest)
        self._position, self._goal = start, goal
        self._velocity = np.zeros_like(start)
        self._done = np.zeros(o.robots, dtype=bool)
        self._return = np.zeros(o.robots)
        self._arrived_at = np.full(o.robots, np.nan)
        self._tick = 0
        self._asked = np.zeros((0, o.robots, 2))
        self.vary(draws(self.randomise, seed, o.robots))
        here = [(self._position, self._velocity)] * (self.spec.period_us // self.step_us)
        return self._sample(np.zeros(o.robots), here)

    @property
    def values(self) -> Mapping[str, Floats]:
        """`[E]` of each parameter, as it is now."""
        return {name: getattr(self, _VARIED[name]).copy() for name in self.parameters}

    def vary(self, values: Mapping[str, Floats]) -> None:
        """Gives the robots other values `[E]`, from the next step on."""
        for name, value in values.items():
            setattr(self, _VARIED[name], np.array(value, dtype=np.float64))
        self._derive()

    def _derive(self) -> None:
        """What follows from the parameters, and room for the actions that are on their way."""
        drag, robot = np.unique(self._drag, return_inverse=True)
        table = np.array([motion(float(one), self.step_us / 1e6) for one in drag])
        self._motion: Floats = table[robot].T[:, :, None]
        self._lag = np.rint(self._late_s * 1e6 / self.step_us).astype(np.int64)
        most = int(self._lag.max()) // (self.spec.period_us // self.step_us) + 2
        more = max(0, most - len(self._asked))
        self._asked = np.concatenate([self._asked, np.zeros((more, *self._asked.shape[1:]))])

    def place(self, channels: Mapping[str, Floats], past: Floats) -> None:
        """Puts every robot where an observation says it is; see `parameters.Variable`."""
        if missing := {"position", "velocity"} - channels.keys():
            raise PlantError(f"nav2d: where a robot is takes channel {min(missing)!r} too")
        self._position, self._velocity = (channels[n].copy() for n in ("position", "velocity"))
        away = channels.get("offset", channels.get("pole"))
        far = np.full_like(self._position, np.inf)
        near = far if away is None else self._position + away
        self._goal = channels.get("goal", near).copy()
        self._done = self._distance() <= self.options.reach
        self._asked = past.astype(np.float64)
        self._derive()

    @property
    def state(self) -> Floats:
        """`[E, 4]` true position (m) and velocity (m/s)."""
        return np.concatenate([self._position, self._velocity], axis=1)

    def step(self, action: Floats) -> Sample:
        """Accelerates by `action` `[E, 2]` in m/s² (clipped to the spec's bounds) for one tick."""
        wanted = checked_action(action, (self.options.robots, 2))
        wanted = np.clip(wanted, self.spec.action_low, self.spec.action_high)
        self._asked = np.concatenate([wanted[None], self._asked[:-1]])
        going, path = ~self._done, []
        steps = self.spec.period_us // self.step_us
        everyone, mass = np.arange(self.options.robots), self._mass[:, None]
        for i in range(steps):
            in_force = self._asked[(self._lag - i + steps - 1) // steps, everyone] / mass
            self._move(in_force, self._tick * self.spec.period_us + (i + 1) * self.step_us)
            path.append((self._position, self._velocity))
        self._tick += 1
        reward = np.where(going, -self._distance(), 0.0)
        self._return += reward
        return self._sample(reward, path)

    def score(self) -> dict[str, float]:
        """Figures since `reset`: `reached` (share of robots), `return` (mean sum of rewards until
        done), `time_to_goal` (mean seconds of those that reached it, NaN if none did).
        """
        seconds_to_goal = self._arrived_at[self._done]
        return {
            "reached": float(self._done.mean()),
            "return": float(self._return.mean()),
            "time_to_goal": float(seconds_to_goal.mean()) if self._done.any() else math.nan,
        }

    def snapshot(self) -> Mapping[str, Any]:
        """All that what comes next depends on, the noise to come included; see `restore`."""
        return copy.deepcopy({name: getattr(self, name) for name in _STATE})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a `snapshot` of this plant, or of one with as many robots."""
        for name, value in copy.deepcopy(dict(state)).items():
            setattr(self, name, value)
        self._derive()

    def branch(self, index: Ints) -> Nav2d:
        """A plant of other robots, the i-th as robot `index[i]` is now; there is no noise in it.

        Raises `PlantError` where robots push each other: copies would be in each other's way.
        """
        if self.options.push:
            raise PlantError("nav2d: robots that push each other cannot be copied; set push to 0")
        quiet = replace(self.options, actuation_noise=0.0, position_noise=0.0, velocity_noise=0.0)
        options = asdict(replace(quiet, robots=len(index)))
        made = Nav2d(self.spec, randomise=self.randomise, **options)
        for name in _PER_ROBOT:
            setattr(made, name, getattr(self, name)[index])
        made._asked, made._tick = self._asked[:, index], self._tick
        made._derive()
        made._noise = np.random.default_rng(0)
        return made

    def _move(self, wanted: Floats, time_us: int) -> None:
        """One step of integration; `time_us` since the start is its end."""
        o, (keep, gain, drift, fall) = self.options, self._motion
        noise = self._noise.normal(0.0, o.actuation_noise, wanted.shape)
        force, moving = wanted + noise + self._pushes(self._position), ~self._done[:, None]
        position = self._position + drift * self._velocity + fall * force
        velocity = keep * self._velocity + gain * force
        velocity = np.where(np.abs(position) > o.wall, 0.0, velocity)
        position = np.clip(position, -o.wall, o.wall)
        self._position = np.where(moving, position, self._position)
        near = ~self._done & (self._distance() <= o.reach)
        self._arrived_at[near] = time_us / 1e6
        self._done = self._done | near
        self._velocity = np.where(self._done[:, None], 0.0, velocity)

    def _pushes(self, position: Floats) -> Floats:
        o = self.options
        return pushes(position, o.push, o.push_decay) if o.push else np.zeros_like(position)

    def _distance(self) -> Floats:
        return np.asarray(np.hypot(*(self._position - self._goal).T))

    def _sample(self, reward: Floats, path: list[tuple[Floats, Floats]]) -> Sample:
        tick = self.first_tick + self._tick
        time = tick_time(tick, self.spec.epoch_us, self.spec.period_us)
        outcomes = {"reached": self._done.astype(np.float64), "distance": self._distance()}
        batches = self._batches(time, path)
        return Sample(tick, batches, reward, self._done.copy(), outcomes)

    def _batches(self, time_us: int, path: list[tuple[Floats, Floats]]) -> tuple[SensorBatch, ...]:
        """The noisy readings of the last tick, which ended at `time_us`; `path` is the truth."""
        o, end, made = self.options, self._tick * self.spec.period_us, []
        away = np.stack([self._goal - x for x, _ in path])
        true = {
            "offset": (away, 0.0),
            "pole": (away, 0.0),
            "position": (np.stack([x for x, _ in path]), o.position_noise),
            "velocity": (np.stack([v for _, v in path]), o.velocity_noise),
            "goal": (np.stack([self._goal] * len(path)), 0.0),
        }
        if any(channel.name == "push" for channel in self.spec.channels):
            true["push"] = (np.stack([self._pushes(x) for x, _ in path]), 0.0)
        for name, sensor in self.spec.sensors.items():
            since, who = self._turns(sensor.every_us)
            place = len(path) - 1 - (end - since) // self.step_us
            values = {}
            for channel in sensor.channels:
                value, sigma = true[channel]
                noise = self._noise.normal(0.0, sigma, value[place].shape) if sigma else 0.0
                values[channel] = value[place] + noise
            batch = readings(name, time_us - end + since, values, o.robots)
            if (raw := sensor.perceive) is not None and raw.kind == "entities":
                seen = [neighbours(path[i][0], path[i][1], o.sight, raw.size[0]) for i in place]
                batch = replace(batch, crowd=np.concatenate(seen))
            if raw is not None and raw.kind == "jpeg":
                light = np.stack([getattr(self, _VARIED[name]) for name in LIGHT], axis=1)
                batch = replace(batch, light=light[batch.entity])
            made.append(batch if who is None else batch.take(who))
        return tuple(batch for batch in made if len(batch))

    def _turns(self, every_us: int) -> tuple[Ints, Ints | None]:
        """When a sensor reads in the last tick, us since the first, and whose turn it is."""
        ticks, rest = divmod(every_us, self.spec.period_us)
        if rest or ticks < 2:
            return stamps(self._tick, self.spec.period_us, every_us), None
        end = self._tick * self.spec.period_us
        early = self.step_us * (self.spec.period_us // self.step_us // 2)
        first = 0 if self._tick == 0 else self._tick % ticks
        every = 1 if self._tick == 0 else ticks
        return np.array([end - early]), np.arange(first, self.options.robots, every)


def motion(drag: float, dt: float) -> tuple[float, float, float, float]:
    """Exact over `dt` seconds: v' = keep v + gain a and x' = x + drift v + fall a."""
    if drag == 0.0:
        return 1.0, dt, dt, 0.5 * dt * dt
    keep = math.exp(-drag * dt)
    gain = (1.0 - keep) / drag
    return keep, gain, gain, (dt - gain) / drag


def _ways(
    rng: np.random.Generator, count: int, arena: float, nearest: float
) -> tuple[Floats, Floats]:
    """Starts and goals `[count, 2]`, uniform in the arena and at least `nearest` apart."""
    start = rng.uniform(-arena, arena, (count, 2))
    goal = rng.uniform(-arena, arena, (count, 2))
    while (close := np.hypot(*(goal - start).T) < nearest).any():
        goal[close] = rng.uniform(-arena, arena, (int(close.sum()), 2))
    return start, goal
