"""nav2d as one who sees little of it: no velocities, and two of five positions are lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.plants.degrade import Degraded, Faults
from infra.plants.nav2d import Nav2d
from infra.plants.seen import Seen
from schemas.system import SystemSpec, parse_spec

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
SPEC = """
system: nav2d
entity: robot
tick: 100 ms
sensors:
  odometry:
    time: {field: ts, unit: us}
    every: 100 ms
    max_age: 50 ms  # of this tick, or missing
    channels:
      position: {unit: m, shape: [2], range: [-200, 200], align: latest}
actions:
  acceleration: {unit: m/s², kind: continuous, shape: [2], low: -1, high: 1, fallback: 0}
reward: "-sqrt(position[0] * position[0] + position[1] * position[1])"
fallback: {kind: value, value: 0}
budget: {deadline: 20 ms, tiers: {deep: {candidates: 20, horizon: 5, iterations: 1}}}
"""
DROPOUT, CHANGE = 0.4, 0.15
"""Share of the positions that is lost; chance per tick that a robot is pushed in another way."""
AWAY = 200.0
"""Where the walls are, m: out of reach, as a robot that hits one is no linear system."""
SETTLE = 20
"""Ticks before a log begins: robots start at rest, and nobody shall know a velocity from that."""


def partial_spec() -> SystemSpec:
    """The spec of nav2d with positions alone; goals, which say nothing of them, are left out."""
    return parse_spec(SPEC)


@dataclass(frozen=True)
class Log:
    """T ticks of E robots.

    Attributes:
        seen: `[T, E, 2]` positions as read, m; NaN where lost.
        applied: `[T, E, 2]` action in force until each tick, m/s².
        truth: `[T, E, 4]` position, m, and velocity, m/s.
    """

    seen: F64
    applied: F64
    truth: F64

    @property
    def lost(self) -> Bools:
        """`[T, E]` where there was no reading."""
        return np.asarray(np.isnan(self.seen[..., 0]))


def plant(spec: SystemSpec, robots: int, noise: float) -> Nav2d:
    """The robots, whose positions are read with so much noise, m; nobody reaches a goal."""
    options: dict[str, Any] = {"arena": 3.0, "wall": AWAY, "reach": 0.0, "nearest": 0.0}
    return Nav2d(spec, robots=robots, position_noise=noise, **options)


def log(spec: SystemSpec, robots: int, ticks: int, noise: float, seed: int) -> Log:
    """Robots under pushes that are held for a while and know nothing of where the robot is."""
    truth = plant(spec, robots, noise)
    shown = Degraded(truth, {"odometry": Faults(dropout=DROPOUT)})
    rng, view = np.random.default_rng([seed, 3]), Seen(spec, robots)
    sample, push, rows = shown.reset(seed), np.zeros((robots, 2)), []
    for tick in range(SETTLE + ticks):
        if tick:
            change = rng.random((robots, 1)) < CHANGE
            push = np.where(change, rng.uniform(-1, 1, (robots, 2)), push)
            sample = shown.step(push)
        view.take(sample)
        rows.append((view.values(sample.tick), push, truth.state))
    seen, applied, state = (np.array(part[SETTLE:]) for part in zip(*rows, strict=True))
    return Log(seen, applied, state)
