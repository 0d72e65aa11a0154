"""Both forms of the free latents on two small worlds that hide a coin: how well each imagines.

    python -m tests.bench.bench_forms --seeds 3

prints a line of JSON for each world, form and seed. In both, a side of ±1 turns over now and then.
In `drift` nobody shows it, and it pushes a place about, smoothly. In `jump` a light shows it, and
it says which of ±3 is the next place: so futures have two heaps with nothing between them.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.actor import ActorConfig
from models.belief import ModelConfig
from models.evaluation.windows import WARM
from models.losses import crps, observe
from models.train import TrainConfig, Trainer
from schemas.plain_json import json_line
from schemas.system import SystemSpec, parse_spec
from tests.bench.logs import dataset

SPEC = """
system: coin
entity: coin
tick: 100 ms
sensors:
  state:
    every: 100 ms
    max_age: 1 s
    channels:
      place: {unit: m, range: [-100, 100]}
      light: {unit: "1", range: [-1, 2]}
actions:
  push: {unit: N, low: -1, high: 1}
reward: "-abs(place)"
fallback: {kind: value, value: 0}
budget: {deadline: 20 ms, tiers: {deep: {candidates: 20, horizon: 5, iterations: 1}}}
"""
AHEAD, FUTURES, NOISE = 6, 20, 0.05
CONFIG = TrainConfig(
    steps=300,
    actor_steps=0,
    batch=16,
    length=24,
    horizon=10,
    starts=60,
    samples=3,
    model=ModelConfig(memory=16, free=2, units=32, members=3, classes=4),
    actor=ActorConfig(units=8),
)
F64 = npt.NDArray[np.float64]


def drift(rng: np.random.Generator, entities: int, ticks: int) -> tuple[F64, F64]:
    """Places [ticks, entities] that a hidden side pushes, and a spring back; and dark lights."""
    place, side = np.zeros(entities), rng.choice([-1.0, 1.0], entities)
    out = []
    for _ in range(ticks):
        side = np.where(rng.random(entities) < 0.05, -side, side)
        place = 0.9 * place + 0.4 * side + NOISE * rng.standard_normal(entities)
        out.append(place)
    return np.array(out), np.zeros((ticks, entities))


def jump(rng: np.random.Generator, entities: int, ticks: int) -> tuple[F64, F64]:
    """Places and lights [ticks, entities]: a place is where the light of the tick before said."""
    side, out, light = rng.choice([-1.0, 1.0], entities), [], []
    for _ in range(ticks):
        out.append(3.0 * side + NOISE * rng.standard_normal(entities))
        side = np.where(rng.random(entities) < 0.15, -side, side)
        light.append((side + 1.0) / 2.0)
    return np.array(out), np.array(light)


@torch.no_grad()
def judge(trainer: Trainer, windows: int = 240) -> dict[str, float]:
    """CRPS of the place `AHEAD` ticks on, and how many futures lie where no truth does."""
    model, data = trainer.model, trainer.dataset.validation
    length = WARM + AHEAD
    rows = np.arange(len(data))
    usable = rows[rows + length <= data.last]
    starts = np.random.default_rng(5).permutation(usable)[:windows]
    weights = torch.ones(len(data) // 64 + 1, model.config.members)
    batch = data.window(starts, length, weights)
    trace = observe(model, batch, _masked(batch.mask))
    belief = trace.ticks[WARM - 1]
    members = model.config.members
    copies = members * FUTURES
    noise = torch.randn(
        AHEAD + 1, copies * windows, model.latent, generator=torch.Generator().manual_seed(3)
    )
    std = belief.std.repeat(copies, 1)
    memory = belief.hidden.memory.repeat(copies, 1)
    latent = belief.mean.repeat(copies, 1) + std * noise[0]
    action = model.action_scaler(torch.zeros(copies * windows, 1))
    for k in range(AHEAD):
        memory, latent, shown = model.imagine(memory, latent, action, noise[k + 1])
    channels, _, _ = model.decode(memory, shown)
    place = channels[:, 0].view(copies, windows)
    truth = batch.obs[:, -1, 0]
    return {
        "crps": round(float(crps(place, truth).mean()), 4),
        "futures_between": round(float((place.abs() < 1.5).float().mean()), 4),
        "truths_between": round(float((truth.abs() < 1.5).float().mean()), 4),
    }


def _masked(mask: Tensor) -> Tensor:
    mask = mask.clone()
    mask[:, WARM:] = 0.0
    return mask


def run(world: str, form: str, seed: int, steps: int) -> dict[str, object]:
    """One training, judged on what it was not trained on."""
    spec: SystemSpec = parse_spec(SPEC)
    draw = {"drift": drift, "jump": jump}[world]
    seen = np.stack(draw(np.random.default_rng([seed, 1]), 16, 400), -1)
    model = replace(CONFIG.model, form=form)  # type: ignore[arg-type]
    data = dataset(spec, seen, np.zeros((*seen.shape[:2], 1)))
    trainer = Trainer(spec, data, replace(CONFIG, steps=steps, seed=seed, model=model))
    trainer.run()
    found = judge(trainer)
    kept = found if world == "jump" else {"crps": found["crps"]}
    return {"world": world, "form": form, "seed": seed, "steps": steps, **kept}


def main() -> None:
    """Every world, form and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=CONFIG.steps)
    parser.add_argument("--world", choices=["jump", "drift"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for world in [options.world] if options.world else ["jump", "drift"]:
        for seed in range(options.seeds):
            for form in ("gaussian", "categorical"):
                sys.stdout.write(json_line(run(world, form, seed, options.steps)) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
