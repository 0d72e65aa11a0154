"""A small known system: a damped mass pushed by a force, logged as trajectories."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from schemas.codes import Flag
from schemas.system import SystemSpec, parse_spec

SPEC = """
system: mass
entity: mass
tick: 100 ms
sensors:
  state:
    every: 100 ms
    max_age: 1 s
    channels:
      place: {unit: m, range: [-100, 100]}
      speed: {unit: m/s, range: [-100, 100]}
      alarm: {unit: "1", range: [0, 1], align: mean}
actions:
  force: {unit: N, low: -2, high: 2, rate: {up: 1, down: 1}}
reward: "-abs(place) - alarm"
fallback: {kind: value, value: 0}
budget: {deadline: 20 ms, tiers: {deep: {candidates: 20, horizon: 5, iterations: 1}}}
"""
DT, PROCESS, SENSOR = 0.3, 0.03, 0.02


def mass_spec() -> SystemSpec:
    """The spec of the damped mass."""
    return parse_spec(SPEC)


def advance(
    state: npt.NDArray[np.float64], force: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The true dynamics without noise, `[E, 2]` place and speed."""
    place, speed = state.T
    return np.stack([place + DT * speed, 0.9 * speed + DT * (force - 0.5 * place)], 1)


def simulate(entities: int, ticks: int, seed: int) -> pl.DataFrame:
    """Trajectories under slowly varying random forces, with sensor noise and dropouts."""
    rng = np.random.default_rng(seed)
    state = rng.normal(0, 1, (entities, 2))
    force = np.zeros(entities)
    frames = []
    for tick in range(ticks):
        seen = state + rng.normal(0, SENSOR, state.shape)
        seen[rng.random(entities) < 0.03] = np.nan
        frames.append(
            pl.DataFrame(
                {
                    "entity": [f"mass-{i}" for i in range(entities)],
                    "tick": np.full(entities, tick),
                    "place": seen[:, 0],
                    "speed": seen[:, 1],
                    "alarm": (np.abs(state[:, 0]) > 1.5).astype(float),
                    "applied:force": force if tick else np.full(entities, np.nan),
                    "flags": np.full(entities, int(Flag.JOINED) if tick == 0 else 0, np.uint8),
                    "attempt": np.zeros(entities, np.int32),
                }
            )
        )
        step = np.where(rng.random(entities) < 0.2, rng.uniform(-1, 1, entities), 0.0)
        force = np.clip(force + step, -2, 2)
        state = advance(state, force) + rng.normal(0, PROCESS, state.shape)
    return pl.concat(frames)


def write_run(folder: Path, entities: int = 6, ticks: int = 400, seed: int = 0) -> Path:
    """Writes one run as the sink does: Parquet below a folder."""
    day = folder / "system=mass" / "day=2024-01-01"
    day.mkdir(parents=True)
    simulate(entities, ticks, seed).write_parquet(day / "part-0.parquet")
    return folder
