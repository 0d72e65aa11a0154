"""What known dynamics are worth: a thousand steps of data, with physics and without it.

    python -m tests.bench.bench_physics --seeds 3

prints a line of JSON for each system, seed and model: the root mean square error of the columns
that physics predicts, normalised, so many ticks ahead, on runs that nobody trained on.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import replace

import gymnasium
import numpy as np
import torch
from torch import Tensor

from infra.plants.gym import spec_for
from infra.plants.nav2d import Nav2d
from models.actor import ActorConfig
from models.belief import ModelConfig
from models.data import Dataset
from models.losses import observe
from models.physics import physics
from models.train import TrainConfig, Trainer
from schemas.plain_json import json_line
from schemas.system import SystemSpec, load_spec, parse_spec
from tests.bench.logs import dataset

WARM, AHEAD = 8, (1, 5, 10)
CONFIG = TrainConfig(
    steps=200,
    actor_steps=0,
    batch=16,
    length=20,
    horizon=8,
    starts=60,
    samples=2,
    model=ModelConfig(memory=16, free=2, units=32, members=5),
    actor=ActorConfig(units=8),
)


@physics("position", "velocity")
def nav2d(state: Tensor, action: Tensor) -> Tensor:
    """A double integrator at ticks of 100 ms; it knows of no drag."""
    position, velocity = state[:, :2], state[:, 2:]
    after = position + 0.1 * velocity + 0.005 * action
    return torch.cat([after, velocity + 0.1 * action], -1)


@physics("state")
def pendulum(state: Tensor, action: Tensor) -> Tensor:
    """Pendulum-v1 with a rod that is a fifth too long, as who measures it may be wrong."""
    cosine, sine, speed = state.unbind(-1)
    length, gravity, mass, dt = 1.2, 10.0, 1.0, 0.05
    turn = 1.5 * gravity / length * sine + 3.0 / (mass * length**2) * action[:, 0]
    faster = (speed + dt * turn).clamp(-8.0, 8.0)
    c, s = torch.cos(dt * faster), torch.sin(dt * faster)
    return torch.stack([cosine * c - sine * s, sine * c + cosine * s, faster], -1)


def log_nav2d(spec: SystemSpec, rng: np.random.Generator, steps: int) -> Dataset:
    """Twenty robots that are pushed about, `steps` ticks in all; too few to meet a wall."""
    robots = 20
    plant = Nav2d(spec, robots=robots, ticks=steps, arena=5.0, reach=0.0, nearest=0.0)
    plant.reset(int(rng.integers(1 << 30)))
    push, rows, pushes = np.zeros((robots, 2)), [], []
    for _ in range(steps // robots):
        near = rng.standard_normal((robots, 4)) * [0.01, 0.01, 0.02, 0.02]
        rows.append(np.concatenate([plant.state + near, plant._goal], 1))
        pushes.append(push)
        change = rng.random((robots, 1)) < 0.15
        push = np.where(change, rng.uniform(-1, 1, (robots, 2)), push)
        plant.step(push)
    return dataset(spec, np.array(rows), np.array(pushes))


def log_pendulum(spec: SystemSpec, rng: np.random.Generator, steps: int) -> Dataset:
    """Five pendulums under held random torques, `steps` ticks in all."""
    runs = []
    for _ in range(5):
        env = gymnasium.make("Pendulum-v1")
        seen, _ = env.reset(seed=int(rng.integers(1 << 30)))
        torque, rows = np.zeros(1), []
        for _ in range(steps // 5):
            rows.append(np.concatenate([seen, torque]))
            if rng.random() < 0.2:
                torque = rng.uniform(-2, 2, 1)
            seen = env.step(torque)[0]
        runs.append(rows)
    ran = np.array(runs).transpose(1, 0, 2)
    return dataset(spec, ran[..., :-1], ran[..., -1:])


@torch.no_grad()
def errors(trainer: Trainer, data: Dataset, columns: list[int]) -> dict[str, float]:
    """Root mean square of the error of `columns` by ticks ahead, normalised."""
    model, found = trainer.model, {}
    length = WARM + max(AHEAD)
    rows = np.arange(0, len(data.train), 5)
    starts = rows[rows + length <= data.train.last[rows]]
    batch = data.train.window(starts, length, torch.ones(len(data.train) // 64 + 1, 5))
    mask = batch.mask.clone()
    mask[:, WARM:] = 0.0
    trace, truth = observe(model, batch, mask), model.scaler(batch.obs)
    for k in AHEAD:
        error = trace.ticks[WARM + k - 1].mean[:, columns] - truth[:, WARM + k - 1, columns]
        found[f"rmse_{k}"] = round(math.sqrt(float(error.square().mean())), 4)
    return found


def main() -> None:
    """Both systems, every seed, with physics and without."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=CONFIG.steps)
    options = parser.parse_args()
    torch.set_num_threads(1)
    Log = Callable[[SystemSpec, np.random.Generator, int], Dataset]
    systems: dict[str, tuple[SystemSpec, Log, list[int]]] = {
        "nav2d": (load_spec("nav2d"), log_nav2d, [0, 1, 2, 3]),
        "pendulum": (parse_spec(spec_for("Pendulum-v1")), log_pendulum, [0, 1, 2]),
    }
    for seed in range(options.seeds):
        for name, (spec, log, columns) in systems.items():
            few = log(spec, np.random.default_rng([seed, 1]), 1_000)
            other = log(spec, np.random.default_rng([seed, 2]), 2_000)
            for known in (f"{__spec__.name}:{name}", ""):
                config = replace(CONFIG, steps=options.steps, seed=seed, physics=known)
                trainer = Trainer(spec, few, config)
                trainer.run()
                line = {"system": name, "seed": seed, "physics": bool(known)}
                found = errors(trainer, other, columns)
                sys.stdout.write(json_line({**line, "steps": options.steps, **found}) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
