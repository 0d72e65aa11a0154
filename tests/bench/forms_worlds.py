"""Worlds in which forms of latents and encoders are compared: what hides, and what shows all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.plants.nav2d import Nav2d
from schemas.system import SystemSpec, load_spec, parse_spec
from tests.bench.bench_values import PENDULUM, Pendulum

F64 = npt.NDArray[np.float64]
TAIL = """
fallback: {kind: value, value: 0}
budget: {deadline: 20 ms, tiers: {deep: {candidates: 20, horizon: 5, iterations: 1}}}
"""
COIN = f"""
system: coin
entity: coin
tick: 100 ms
sensors:
  state:
    every: 100 ms
    max_age: 1 s
    channels:
      place: {{unit: m, range: [-100, 100]}}
      light: {{unit: "1", range: [-1, 2]}}
actions:
  push: {{unit: N, low: -1, high: 1}}
reward: "-abs(place)"
{TAIL}"""
WHEEL = f"""
system: wheel
entity: wheel
tick: 100 ms
sensors:
  encoder:
    every: 100 ms
    max_age: 1 s
    channels:
      turning: {{unit: rad/s, range: [-100, 100]}}
actions:
  torque: {{unit: N·m, low: -1, high: 1}}
reward: "-abs(turning)"
{TAIL}"""
NAV2D = f"""
system: nav2d
entity: robot
tick: 100 ms
sensors:
  gps:
    every: 100 ms
    max_age: 1 s
    channels:
      position: {{unit: m, shape: [2], range: [-20, 20]}}
  odometry:
    every: 100 ms
    max_age: 1 s
    channels:
      velocity: {{unit: m/s, shape: [2], range: [-20, 20]}}
  mission:
    every: 100 ms
    max_age: 5 s
    channels:
      goal: {{unit: m, shape: [2], range: [-20, 20]}}
actions:
  acceleration: {{unit: m/s², shape: [2], low: -1, high: 1}}
reward: "-abs(position[0])"
{TAIL}"""
NOISE = 0.05
Log = tuple[F64, F64]
"""What was seen `[T, E, O]`, and what was in force until then `[T, E, A]`."""
Draw = Callable[[np.random.Generator, int, int], Log]


def _quiet(seen: list[F64]) -> Log:
    """Of a world in which nobody acts."""
    rows = np.array(seen)
    return rows, np.zeros((*rows.shape[:2], 1))


def drift(rng: np.random.Generator, entities: int, ticks: int) -> Log:
    """Places that a hidden side pushes, and a spring back; the light is dark."""
    place, side = np.zeros(entities), rng.choice([-1.0, 1.0], entities)
    out = []
    for _ in range(ticks):
        side = np.where(rng.random(entities) < 0.05, -side, side)
        place = 0.9 * place + 0.4 * side + NOISE * rng.standard_normal(entities)
        out.append(np.stack([place, np.zeros(entities)], -1))
    return _quiet(out)


def jump(rng: np.random.Generator, entities: int, ticks: int) -> Log:
    """A place is where the light of the tick before said."""
    side, out = rng.choice([-1.0, 1.0], entities), []
    for _ in range(ticks):
        place = 3.0 * side + NOISE * rng.standard_normal(entities)
        side = np.where(rng.random(entities) < 0.15, -side, side)
        out.append(np.stack([place, (side + 1.0) / 2.0], -1))
    return _quiet(out)


def wheel(rng: np.random.Generator, entities: int, ticks: int) -> Log:
    """How fast a wheel turns, which grips or slips; which of the two, nobody shows.

    One that slips goes after three times the speed, four times as fast: under a held torque its
    future has two heaps, which part further with every tick.
    """
    turning, slips = np.zeros(entities), np.zeros(entities, dtype=bool)
    torque, seen, applied = np.zeros(entities), [], []
    for _ in range(ticks):
        turning = turning + NOISE * rng.standard_normal(entities)
        seen.append(turning[:, None])
        applied.append(torque[:, None])
        torque = np.where(rng.random(entities) < 0.1, rng.uniform(-1, 1, entities), torque)
        slips = slips ^ (rng.random(entities) < np.where(slips, 0.15, 0.05))
        wanted, gain = np.where(slips, 9.0, 3.0) * torque, np.where(slips, 0.6, 0.15)
        turning = turning + gain * (wanted - turning)
    return np.array(seen), np.array(applied)


def nav2d(rng: np.random.Generator, entities: int, ticks: int) -> Log:
    """Robots that are pushed about; every quantity is shown, with its noise."""
    spec = load_spec("nav2d")
    plant = Nav2d(spec, robots=entities, ticks=ticks, reach=0.0, nearest=0.0)
    plant.reset(int(rng.integers(1 << 30)))
    push, seen, applied = np.zeros((entities, 2)), [], []
    for _ in range(ticks):
        near = rng.standard_normal((entities, 4)) * [0.01, 0.01, 0.02, 0.02]
        seen.append(np.concatenate([plant.state + near, plant._goal], 1))
        applied.append(push)
        change = rng.random((entities, 1)) < 0.15
        push = np.where(change, rng.uniform(-1, 1, (entities, 2)), push)
        plant.step(push)
    return np.array(seen), np.array(applied)


def pendulum(rng: np.random.Generator, entities: int, ticks: int) -> Log:
    """Pendulum-v1 under torques that are held for a while."""
    world, action = Pendulum(entities, rng), np.zeros((entities, 1))
    seen, applied = [], []
    for _ in range(ticks):
        seen.append(world.seen())
        applied.append(action)
        action = world.wander(action)
        world.step(action)
    return np.array(seen), np.array(applied)


@dataclass(frozen=True)
class World:
    """A system, how logs of it are drawn, and which of its columns are judged."""

    spec: SystemSpec
    draw: Draw
    judged: tuple[int, ...]


WORLDS = {
    "jump": World(parse_spec(COIN), jump, (0,)),
    "drift": World(parse_spec(COIN), drift, (0,)),
    "wheel": World(parse_spec(WHEEL), wheel, (0,)),
    "nav2d": World(parse_spec(NAV2D), nav2d, (0, 1, 2, 3)),
    "pendulum": World(parse_spec(PENDULUM), pendulum, (0, 1, 2)),
}
