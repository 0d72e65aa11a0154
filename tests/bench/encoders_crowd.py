"""Robots that push each other: how each will move, told by what it sees of the others.

What is told is the change of a robot's velocity over the next second, while nobody acts: it depends
on where the others are, and on how these will push each other meanwhile.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import streams
from infra.plants.base import make_plant
from infra.plants.crowd import SEEN, neighbours
from infra.plants.nav2d import Nav2d
from models.encoders.entities import EntityEncoder
from models.encoders.example import OTHERS, SIGHT_M, entity_rows
from models.heads import mlp
from schemas.system import load_spec

SPEC = Path(streams.__file__).parent / "examples" / "crowd.yaml"
TICKS, BATCH = 10, 64
SCALE = (SIGHT_M, SIGHT_M, 1.0, 1.0)


class MeanEncoder(nn.Module):
    """The mean over what each entity looks like by itself, and how many (Zaheer et al. 2017)."""

    scale: Tensor

    def __init__(self, fields: int, outputs: int, width: int = 64) -> None:
        super().__init__()
        self.each, self.read = mlp(fields, width, width, layers=2), mlp(width + 1, width, outputs)
        self.register_buffer("scale", torch.tensor(SCALE))

    def forward(self, entities: Tensor) -> Tensor:
        """[B, outputs] of [B, K, fields + 1]."""
        there = entities[..., -1:]
        count = there.sum(1)
        each = self.each(entities[..., :-1] / self.scale) * there
        found: Tensor = self.read(torch.cat([each.sum(1) / count.clamp(min=1.0), count.log1p()], 1))
        return found


def rows(seed: int, crowds: int) -> tuple[Tensor, Tensor]:
    """What robots see [N, OTHERS, 5], and how their velocity changes within a second, [N, 2] m/s.

    Each crowd has 2 to 16 robots on their way, in a square of 3 to 8 m.
    """
    rng, spec = np.random.default_rng([seed, 5]), load_spec(SPEC)
    seen, change = [], []
    for number in range(crowds):
        robots, arena = int(rng.integers(2, 17)), float(rng.uniform(1.5, 4.0))
        options = {"arena": arena, "nearest": 0.0, "reach": 0.0, "wall": 100.0}
        plant = make_plant(spec, robots=robots, **options)
        assert isinstance(plant, Nav2d)
        plant.reset(seed * 100_000 + number)
        for _ in range(5):
            plant.step(rng.uniform(-1, 1, (robots, 2)))
        before = plant.state
        seen.append(neighbours(before[:, :2], before[:, 2:], SIGHT_M, OTHERS))
        for _ in range(TICKS):
            plant.step(np.zeros((robots, 2)))
        change.append(plant.state[:, 2:] - before[:, 2:])
    return entity_rows(np.concatenate(seen)), torch.from_numpy(np.concatenate(change)).float()


def run(seed: int, scale: float) -> dict[str, float]:
    """Root mean square errors on crowds that nobody trained on, m/s along an axis."""
    count = max(20, round(600 * scale))
    train, test = rows(2 * seed, count), rows(2 * seed + 1, max(10, count // 4))
    torch.manual_seed(seed)
    fields = len(SEEN)
    alone = torch.zeros_like(train[0]), torch.zeros_like(test[0])
    found = {"nothing": float(test[1].square().mean().sqrt())}
    for name, encoder, inputs in (
        ("alone", MeanEncoder(fields, 2), alone),
        ("mean", MeanEncoder(fields, 2), (train[0], test[0])),
        ("attention", EntityEncoder(fields, 2, scale=SCALE), (train[0], test[0])),
    ):
        _fit(encoder, inputs[0], train[1], seed, max(1, round(1_000 * scale)))
        with torch.no_grad():
            error = encoder(inputs[1]) - test[1]
        found[name] = float(error.square().mean().sqrt())
    return found


def _fit(encoder: nn.Module, raw: Tensor, truth: Tensor, seed: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(raw), (BATCH,), generator=generator)
        loss = (encoder(raw[chosen]) - truth[chosen]).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
