"""Sequences of robots whose noise is known, and bundles that know all of it but its size.

Positions take noise each tick, and are seen with noise; so k ticks ahead their variance about a
perfect prediction is (k + 1) sigma², which is also what a bundle of `tests.planner.worlds` with
noise sigma foresees. Velocities and goals have none.
"""

from pathlib import Path

import numpy as np

from models.data import Sequences
from planner.session import Bundle
from schemas.system import load_spec
from tests.planner.worlds import double_integrator, make_bundle

SIGMA = 0.05
SPEC = load_spec("nav2d")


def robots(entities: int, ticks: int, seed: int = 0) -> Sequences:
    """One unbroken sequence per robot, under random pushes."""
    rng = np.random.default_rng(seed)
    world = double_integrator()
    state = rng.normal(0, 3, (entities, 6))
    push = np.zeros((entities, 2))
    seen, pushes = [], []
    for _ in range(ticks):
        state = state @ world.transition + push @ world.control
        state[:, :2] += rng.normal(0, SIGMA, (entities, 2))
        looked = state.copy()
        looked[:, :2] += rng.normal(0, SIGMA / np.sqrt(2), (entities, 2))
        seen.append(looked)
        pushes.append(push)
        push = rng.uniform(-1, 1, (entities, 2))
    rows = entities * ticks
    obs = np.stack(seen, 1).reshape(rows, 6).astype(np.float32)
    first = np.repeat(np.arange(entities) * ticks, ticks)
    gap = obs[:, :2] - obs[:, 4:]
    return Sequences(
        obs=obs,
        action=np.stack(pushes, 1).reshape(rows, 2).astype(np.float32),
        reward=-np.sqrt((gap**2).sum(1)),
        alive=np.ones(rows, np.float32),
        first=first,
        last=first + ticks,
        entity=np.repeat([f"robot-{i}" for i in range(entities)], ticks),
        tick=np.tile(np.arange(ticks), entities),
        run=np.zeros(rows, np.int64),
    )


def knowing(folder: Path, noise: float, **manifest: object) -> Bundle:
    """A bundle with the true dynamics, which believes in noise of this size."""
    return make_bundle(folder, SPEC, double_integrator(noise=noise), **manifest)
