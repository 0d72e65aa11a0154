"""Choices of a world model beside each other: forms of the free latents, encoders, correction.

    python -m tests.bench.bench_forms --choice form --seeds 3

prints a line of JSON for each world, seed and alternative, on what was not trained on: by ticks
ahead the root mean square error of the mean future, the CRPS and the negative log likelihood of
what came (all of normalised columns; the likelihood is that of the mixture of all futures), and
the same error and likelihood of beliefs where whole sensors were silent, in patterns that training
did not have. The worlds are in `tests.bench.forms_worlds`: `jump`, `drift` and `wheel` hide a
discrete mode, `nav2d` and `pendulum` nothing.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.actor import ActorConfig
from models.belief import ModelConfig, WorldModel
from models.data import Batch, sensor_columns
from models.evaluation.windows import WARM
from models.losses import crps, observe
from models.train import TrainConfig, Trainer
from schemas.plain_json import json_line
from tests.bench.forms_worlds import WORLDS, World
from tests.bench.logs import dataset

JUDGED, FUTURES, WINDOWS = (1, 6), 20, 240
SILENT, SPEAKS = 0.1, 0.1
"""Chance per tick that a sensor falls silent, and that it speaks again."""
LONG = 24
"""Ticks after the first ones in which sensors are silent by turns."""
CONFIG = TrainConfig(
    steps=300,
    actor_steps=0,
    batch=16,
    length=24,
    horizon=10,
    starts=60,
    samples=3,
    noise_rate=10.0,
    model=ModelConfig(memory=16, free=2, units=32, members=3, classes=4),
    actor=ActorConfig(units=8),
)
CHOICES: dict[str, tuple[tuple[Any, ...], tuple[str, ...]]] = {
    "form": (("gaussian", "categorical"), ("wheel", "jump", "drift", "nav2d", "pendulum")),
    "encoder": (("joint", "fused"), ("nav2d",)),
    "corrects": ((False, True), ("nav2d", "pendulum", "wheel")),
}
"""Of each choice the alternatives, and the worlds it is tried in."""


def windows(trainer: Trainer, length: int) -> Batch:
    """Held-out windows of so many ticks."""
    data = trainer.dataset.validation
    rows = np.arange(len(data))
    usable = rows[rows + length <= data.last]
    starts = np.random.default_rng(5).permutation(usable)[:WINDOWS]
    weights = torch.ones(len(data) // 64 + 1, trainer.config.model.members)
    return data.window(starts, length, weights)


def log_density(truth: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """`[...]` of truths in the even mixture of S normal distributions `[S, ...]`."""
    each = -0.5 * ((truth - mean) / std).square() - torch.log(std) - 0.5 * math.log(2 * math.pi)
    return torch.logsumexp(each, 0) - math.log(len(mean))


@torch.no_grad()
def ahead(trainer: Trainer, world: World) -> dict[str, float]:
    """How well futures are imagined under the actions that were taken."""
    model, columns = trainer.model, list(world.judged)
    batch = windows(trainer, WARM + max(JUDGED))
    mask = batch.mask.clone()
    mask[:, WARM:] = 0.0
    belief = observe(model, batch, mask).ticks[WARM - 1]
    copies, rows = model.config.members * FUTURES, len(mask)
    noise = torch.randn(
        max(JUDGED) + 1, copies * rows, model.latent, generator=torch.Generator().manual_seed(3)
    )
    spread = belief.std.repeat(copies, 1)
    memory = belief.hidden.memory.repeat(copies, 1)
    latent = belief.mean.repeat(copies, 1) + spread * noise[0]
    actions = model.action_scaler(batch.action)[:, WARM:]
    truths, found = model.scaler(batch.obs)[:, WARM:, columns], {}
    for k in range(max(JUDGED)):
        now, truth = actions[:, k].repeat(copies, 1), truths[:, k]
        mean, std = (
            x.view(copies, rows, -1) for x in _expected(model, memory, latent, now, noise[k + 1])
        )
        memory, latent, shown = model.imagine(memory, latent, now, noise[k + 1])
        if k + 1 not in JUDGED:
            continue
        seen = shown.view(copies, rows, -1)[..., columns]
        likely = log_density(truth, mean[..., columns], std[..., columns])
        found[f"rmse_{k + 1}"] = float((seen.mean(0) - truth).square().mean().sqrt())
        found[f"crps_{k + 1}"] = float(crps(seen, truth).mean())
        found[f"nll_{k + 1}"] = -float(likely.mean())
    return found


def _expected(
    model: WorldModel, memory: Tensor, latent: Tensor, action: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of what sensors will show, before it is drawn."""
    latent = model.form.draw(latent, noise)
    seen = model.seen(latent, action)
    memory = model.memory(memory, seen)
    inputs = torch.cat([memory, seen], -1)
    mean, std = model.ensemble.by_member(inputs, model.base(latent, action))
    count = len(model.direct)
    wide = torch.sqrt(std.square() + model.sensor_variance())
    return mean[..., :count], wide[..., :count]


@torch.no_grad()
def silent(trainer: Trainer, world: World) -> dict[str, float]:
    """How far beliefs are off where a sensor was silent, and how likely they held the truth."""
    model, sensors = trainer.model, sensor_columns(world.spec)
    batch = windows(trainer, WARM + LONG)
    rng, mask = np.random.default_rng(7), batch.mask.clone()
    for together in sensors:
        off = np.zeros(len(mask), dtype=bool)
        for t in range(WARM, WARM + LONG):
            off = off ^ (rng.random(len(mask)) < np.where(off, SPEAKS, SILENT))
            rows = torch.from_numpy(np.flatnonzero(off))
            mask[rows[:, None], t, torch.tensor(together)] = 0.0
    trace, columns = observe(model, batch, mask), list(world.judged)
    truth = model.scaler(batch.obs).transpose(0, 1)[..., columns]
    mean, std = (trace.stack(name)[..., columns] for name in ("mean", "std"))
    wide = torch.sqrt(std.square() + model.noise()[columns].square())
    lost = (batch.mask * (1.0 - mask)).transpose(0, 1)[..., columns] > 0
    likely = log_density(truth, mean[None], wide[None])
    return {
        "silent_rmse": float((mean - truth)[lost].square().mean().sqrt()),
        "silent_nll": -float(likely[lost].mean()),
    }


def run(name: str, choice: str, which: Any, seed: int, steps: int) -> dict[str, object]:
    """One training, judged on what it was not trained on."""
    world, model = WORLDS[name], replace(CONFIG.model, **{choice: which})
    log = world.draw(np.random.default_rng([seed, 1]), 16, 400)
    config = replace(CONFIG, steps=steps, seed=seed, model=model)
    trainer = Trainer(world.spec, dataset(world.spec, *log), config)
    trainer.run()
    found = {**ahead(trainer, world), **silent(trainer, world)}
    rounded = {key: round(value, 4) for key, value in found.items()}
    return {"world": name, choice: which, "seed": seed, "steps": steps, **rounded}


def main() -> None:
    """Every world of a choice, every seed and alternative."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--choice", choices=[*CHOICES], default="form")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=CONFIG.steps)
    parser.add_argument("--world", choices=[*WORLDS])
    given = parser.parse_args()
    torch.set_num_threads(1)
    alternatives, worlds = CHOICES[given.choice]
    for name in [given.world] if given.world else worlds:
        for seed in range(given.seeds):
            for which in alternatives:
                line = run(name, given.choice, which, seed, given.steps)
                sys.stdout.write(json_line(line) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
